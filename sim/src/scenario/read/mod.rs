//! From the tree to the model, a file per part of the language.

mod addresses;
mod cluster;
mod effect;
mod expect;
mod fault;
mod fits;
mod image;
mod moves;
mod names;
mod network;
mod node;
mod probe;
mod workload;

use super::diagnostic::Diagnostic;
use super::fields::{Fields, Log};
use super::keys;
use super::model::{ActorName, Fault, Invariant, Network, Node, PodRef, Profile, Scenario};
use super::tree::{At, Item};
use kubesim_actors::objects::Name;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Files by a path or a pattern with `*`, relative to the scenario: names and texts, sorted by
/// name.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<Vec<(String, String)>, String>;

/// The shortest period that something is done in.
const OFTENEST: Duration = Duration::from_millis(1);

/// Every name that something else may refer to.
#[derive(Default)]
struct Names {
    networks: Vec<Name>,
    links: Vec<Name>,
    upstreams: Vec<Name>,
    clients: Vec<Name>,
    nodes: Vec<Name>,
    /// Templates and racks: the machines they stand for.
    groups: BTreeMap<Name, Vec<Name>>,
    probes: Vec<Name>,
    faults: Vec<Name>,
    /// Kinds of names of which some may be missing, since their tables have mistakes: who refers to
    /// one that is not there is not to blame.
    unsure: Vec<&'static str>,
}

/// What every part is read with.
struct Reader<'a> {
    log: &'a Log,
    names: Names,
    files: Files<'a>,
    duration: Duration,
    networks: Vec<Network>,
    /// Addresses that are somebody's for good, and whose.
    taken: RefCell<BTreeMap<Ipv4Addr, Name>>,
}

/// Reads everything; what it returns means something only when the log stayed empty.
pub fn scenario(log: &Log, root: &Item, profile: Option<&str>, files: Files<'_>) -> Scenario {
    let top = Fields::open(log, root, &[&keys::ROOT]);
    let duration = top.required("duration").and_then(|_| top.duration("duration"));
    // A bad duration is told once, not again as "past the end" everywhere.
    let judged = duration.unwrap_or(Duration::MAX);
    let mut reader = Reader {
        log,
        names: Names::default(),
        files,
        duration: judged,
        networks: Vec::new(),
        taken: RefCell::default(),
    };
    let networks = reader.tell("network", |reader| reader.networks(top));
    reader.names.networks = networks.iter().map(|n| n.name.clone()).collect();
    reader.take_gateways(&networks);
    reader.networks.clone_from(&networks);
    let links = reader.tell("link", |reader| reader.links(top));
    reader.names.links = links.iter().map(|l| l.name.clone()).collect();
    let upstreams = reader.tell("upstream", |reader| reader.upstreams(top));
    reader.names.upstreams = upstreams.iter().map(|u| u.name.clone()).collect();
    let clients = reader.tell("client", |reader| reader.clients(top));
    reader.names.clients = clients.iter().map(|c| c.name.clone()).collect();
    let nodes = reader.tell("node", |reader| reader.nodes(top, &networks));
    reader.name_nodes(top, &nodes);
    let placed = reader.tell("fault", |reader| reader.faults(top, &nodes));
    let faults: Vec<Fault> = placed.iter().map(|(fault, _)| fault.clone()).collect();
    reader.names.faults = faults.iter().map(|f| f.name.clone()).collect();
    let probes = reader.tell("probe", |reader| reader.probes(top));
    reader.names.probes = probes.iter().map(|p| p.name.clone()).collect();
    let expectations = reader.expectations(top, &probes, &faults);
    let workloads = reader.tell("workload", |reader| reader.workloads(top));
    let cluster = reader.cluster(top, root);
    let given = fits::Given { nodes: &nodes, cluster: &cluster, workloads: &workloads };
    reader.faults_fit(&placed, given);
    reader.pods_fit(top, &expectations, &placed, given);
    let (profile, profiles) = reader.profiles(top, profile);
    if let Some(lab) = root.table().and_then(|table| table.get("lab")) {
        Fields::open(log, lab, &[&keys::LAB]).entries("set");
    }
    Scenario {
        name: top.required_name("name").to_string(),
        title: top.string("title"),
        shows: top.string("shows"),
        seen: top.strings("seen"),
        seeds: top.string("seeds"),
        duration: duration.unwrap_or_default(),
        cluster,
        images: reader.images(top),
        workloads,
        invariants: reader.invariants(top),
        networks,
        links,
        upstreams,
        clients,
        nodes,
        faults,
        probes,
        expectations,
        profile,
        profiles,
    }
}

impl<'a> Reader<'a> {
    /// Reads the tables that names of a kind come from.
    fn tell<T>(&mut self, what: &'static str, read: impl FnOnce(&Self) -> T) -> T {
        let before = self.log.len();
        let read = read(self);
        if self.log.len() > before {
            self.names.unsure.push(what);
        }
        read
    }

    fn unknown<'n>(
        &self,
        at: At,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        if !self.names.unsure.contains(&what) {
            self.log.unknown(at, what, name, known);
        }
    }

    fn name_nodes(&mut self, top: Fields<'_>, nodes: &[Node]) {
        let mut seen: BTreeMap<&Name, &Name> = BTreeMap::new();
        for node in nodes {
            if let Some(other) = seen.insert(&node.name, &node.template)
                && *other != node.template
            {
                let (name, own) = (&node.name, &node.template);
                let message =
                    format!("two machines are called `{name}`: one of `{other}`, one of `{own}`");
                let named = |item: &&Item| {
                    item.table().and_then(|table| table.get("name")?.text()) == Some(own)
                };
                let item = top.tables("node").iter().find(named).and_then(Item::table);
                let at = item.and_then(|table| table.get("name")).map(|name| name.at);
                self.log.error(at.unwrap_or(top.place("node")), message, "");
            }
            self.names.nodes.push(node.name.clone());
            for group in std::iter::once(&node.template).chain(&node.rack) {
                let members = self.names.groups.entry(group.clone()).or_default();
                members.push(node.name.clone());
            }
        }
        let sure = !self.names.unsure.contains(&"node");
        let servers: Vec<&Node> = nodes.iter().filter(|node| node.server).collect();
        if sure && servers.is_empty() {
            top.error("node", "no machine is the server", "give one [[node]] role = \"server\"");
        }
        if let [first, second, ..] = servers[..] {
            let message = format!("`{}` and `{}` are both servers", first.name, second.name);
            let help = "one machine has the store and the API server: make the others workers";
            self.log.error(role_of(top, second), message, help);
        }
    }

    /// Complains about a name that was given before.
    fn unique(&self, seen: &mut Vec<Name>, what: &str, name: &Name, at: At) {
        if !name.is_empty() && seen.contains(name) {
            self.log.error(at, format!("a second {what} is called `{name}`"), "");
        }
        seen.push(name.clone());
    }

    /// The name under `key` if it is one of `known`.
    fn reference(&self, f: Fields<'_>, key: &str, what: &str, known: &[Name]) -> Option<Name> {
        let text = f.text(key)?;
        let found = known.iter().find(|name| *name == text).cloned();
        if found.is_none() {
            self.unknown(f.place(key), what, text, known.iter().map(Name::as_str));
        }
        found
    }
    fn required_reference(&self, f: Fields<'_>, key: &str, what: &str, known: &[Name]) -> Name {
        f.required(key);
        self.reference(f, key, what, known).unwrap_or_default()
    }

    fn node(&self, f: Fields<'_>, key: &str) -> Option<Name> {
        self.reference(f, key, "node", &self.names.nodes)
    }
    fn required_node(&self, f: Fields<'_>, key: &str) -> Name {
        f.required(key);
        self.node(f, key).unwrap_or_default()
    }

    /// Machines by their own name, by their template's or their rack's.
    fn nodes_of(&self, f: Fields<'_>, key: &str) -> Vec<Name> {
        let mut nodes: Vec<Name> = Vec::new();
        if f.has(key) && f.list(key).is_empty() {
            f.error(key, format!("`{key}` names no machine"), "");
        }
        self.each_once(f, key);
        for (text, at) in f.texts(key) {
            if let Some(node) = self.names.nodes.iter().find(|name| *name == text) {
                nodes.push(node.clone());
            } else if let Some(members) = self.names.groups.get(text) {
                nodes.extend(members.iter().cloned());
            } else {
                let groups = self.names.groups.keys().filter(|g| !self.names.nodes.contains(g));
                let known = groups.chain(&self.names.nodes).map(Name::as_str);
                self.unknown(at, "node", text, known);
            }
        }
        // A machine may be named by itself and be one of a rack: it is one machine.
        let mut seen = BTreeSet::new();
        nodes.retain(|node| seen.insert(node.clone()));
        nodes
    }
    /// Something is done every so often: each time costs, and a nanosecond is never over.
    fn often(&self, f: Fields<'_>, every: Duration) {
        if every < OFTENEST {
            f.error("every", "`every` is shorter than 1ms", "a probe's usual period is 1s");
        }
    }
    fn required_nodes(&self, f: Fields<'_>, key: &str) -> Vec<Name> {
        f.required(key);
        self.nodes_of(f, key)
    }
    fn all_or_nodes(&self, f: Fields<'_>, key: &str) -> Vec<Name> {
        if f.has(key) { self.nodes_of(f, key) } else { self.names.nodes.clone() }
    }

    fn actor(&self, f: Fields<'_>, key: &str) -> Option<ActorName> {
        f.word(key, ACTORS)
    }

    /// A time of the run.
    fn within_run(&self, f: Fields<'_>, key: &str, time: Duration) {
        if time > self.duration {
            let message = format!("`{key}` is past the end of the run");
            f.error(key, message, format!("the run's duration is {:?}", self.duration));
        }
    }
    fn time(&self, f: Fields<'_>, key: &str) -> Option<Duration> {
        let time = f.duration(key)?;
        self.within_run(f, key, time);
        Some(time)
    }

    /// `app=web,tier=front`.
    fn labels(&self, f: Fields<'_>, key: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(text) = f.text(key) else {
            return labels;
        };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((label, value)) => {
                    labels.insert(label.trim().to_owned(), value.trim().to_owned());
                }
                None => {
                    let message = format!("`{part}` is not a label and its value");
                    f.error(key, message, "write them like app=web,tier=front");
                }
            }
        }
        labels
    }

    /// Pods out of the keys of a table; `name_key` holds a pod's own name.
    fn pods(&self, f: Fields<'_>, name_key: &str) -> PodRef {
        PodRef {
            namespace: f.text("namespace").map(Name::from).unwrap_or_default(),
            name: f.text(name_key).map(Name::from),
            labels: self.labels(f, "pod"),
            node: self.node(f, "on"),
        }
    }

    fn invariants(&self, top: Fields<'_>) -> Vec<Invariant> {
        if !top.has("invariants") {
            return INVARIANTS.iter().map(|(_, id)| *id).collect();
        }
        let mut ids = Vec::new();
        for (text, at) in top.texts("invariants") {
            match INVARIANTS.iter().find(|(name, _)| *name == text) {
                Some((_, id)) => ids.push(*id),
                None => {
                    self.log.unknown(at, "invariant", text, INVARIANTS.iter().map(|(n, _)| *n));
                }
            }
        }
        ids
    }

    /// Checks every profile; the overrides of the one asked for are in the tree already.
    fn profiles(&self, top: Fields<'_>, asked: Option<&str>) -> (Option<Profile>, Vec<String>) {
        let mut found = None;
        for entry in top.entries("profile") {
            let f = Fields::open(self.log, &entry.item, &[&keys::PROFILE]);
            f.word("netd", cluster::NETD);
            f.word("dns", cluster::DNS);
            f.word("overlap", cluster::OVERLAP);
            f.entries("set");
            if asked == Some(entry.key.as_str()) {
                found = Some(Profile { name: entry.key.clone(), shows: f.string("shows") });
            }
        }
        let names = top.entries("profile").iter().map(|entry| entry.key.clone()).collect();
        (found, names)
    }

    fn foreign(&self, at: At, diagnostic: Diagnostic) {
        self.log.foreign(at, diagnostic);
    }
}

/// Where the file says what role a machine has.
fn role_of(top: Fields<'_>, node: &Node) -> At {
    let text = |item: &Item, key: &str| item.table()?.get(key)?.text().map(str::to_owned);
    let own = |item: &&Item| text(item, "name").as_deref() == Some(&node.template);
    let item = top.tables("node").iter().find(own).and_then(Item::table);
    item.and_then(|table| table.get("role")).map_or(top.place("node"), |role| role.at)
}

const ACTORS: &[(&str, ActorName)] = &[
    ("apiserver", ActorName::Apiserver),
    ("controllers", ActorName::Controllers),
    ("scheduler", ActorName::Scheduler),
    ("kubelet", ActorName::Kubelet),
    ("netd", ActorName::Netd),
    ("proxy", ActorName::Proxy),
    ("dns", ActorName::Dns),
];

const INVARIANTS: &[(&str, Invariant)] = &[
    ("I1", Invariant::I1),
    ("I2", Invariant::I2),
    ("I3", Invariant::I3),
    ("I4", Invariant::I4),
    ("I5", Invariant::I5),
    ("I6", Invariant::I6),
    ("I7", Invariant::I7),
    ("I8", Invariant::I8),
    ("I9", Invariant::I9),
    ("I10", Invariant::I10),
    ("I11", Invariant::I11),
    ("I12", Invariant::I12),
    ("I13", Invariant::I13),
    ("I14", Invariant::I14),
    ("I15", Invariant::I15),
    ("I16", Invariant::I16),
    ("I17", Invariant::I17),
    ("I18", Invariant::I18),
    ("I19", Invariant::I19),
    ("I20", Invariant::I20),
];
