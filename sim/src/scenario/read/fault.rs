use super::super::diagnostic::suggest;
use super::super::fields::Fields;
use super::super::keys::{self, Section};
use super::super::manifest;
use super::super::model::{
    Disturbance, Fault, FaultKind, LinkTarget, Loss, Node, ObjectRef, Place, Software, Span, Which,
    WriteHow,
};
use super::super::tree::Item;
use super::Reader;
use super::moves::Placed;
use super::network::BEHAVIOURS;
use kubesim_actors::objects::{Key, Kind, Name};
use std::sync::Arc;
use std::time::Duration;

impl Reader<'_> {
    /// The faults, each with its table.
    pub fn faults<'t>(&self, top: Fields<'t>, nodes: &[Node]) -> Vec<Placed<'t>> {
        let mut names = Vec::new();
        let mut faults = Vec::new();
        for (index, item) in top.tables("fault").iter().enumerate() {
            let Some((word, section)) = self.kind(item, &keys::FAULT, keys::faults()) else {
                continue;
            };
            let f = Fields::open(self.log, item, &[&keys::FAULT, section]);
            let name =
                f.text("name").map_or_else(|| format!("{word}-{}", index + 1), str::to_owned);
            let name = Name::from(name);
            if name.is_empty() {
                f.error("name", "a fault's name is empty", "leave it out, or give it one");
            }
            self.unique(&mut names, "fault", &name, f.place("name"));
            f.required("at");
            let at = f.span("at").unwrap_or_default();
            self.within_run(f, "at", at.to);
            if let Some(kind) = self.fault_kind(word, f) {
                faults.push((Fault { name, at, kind }, item));
            }
        }
        self.moves(&faults, nodes);
        faults
    }

    /// The `kind` of a fault or an expectation, and its keys.
    pub fn kind(
        &self,
        item: &Item,
        common: &'static Section,
        kinds: impl Iterator<Item = (&'static str, &'static Section)>,
    ) -> Option<(&'static str, &'static Section)> {
        let Some(table) = item.table() else {
            Fields::open(self.log, item, &[common]);
            return None;
        };
        let Some(kind) = table.get("kind") else {
            // Keys of every kind are let through, as of one that is not known.
            let (words, sections): (Vec<_>, Vec<_>) = kinds.unzip();
            let shared = [&keys::DEADLINE, &keys::PODS, common];
            let sections: Vec<_> = sections.into_iter().chain(shared).collect();
            let f = Fields::open(self.log, item, &sections);
            let message = format!("{} lacks the key `kind`", common.heading);
            let help = format!("one of {}", words.join(", "));
            self.log.error(f.place_of(&["kind"]), message, help);
            return None;
        };
        let words: Vec<_> = kinds.collect();
        let text = kind.text().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text).copied();
        if found.is_none() {
            let help = suggest(text, words.iter().map(|(word, _)| *word));
            let message = format!("unknown kind `{text}` of {}", common.heading);
            self.log.error(kind.at, message, help);
        }
        found
    }

    fn fault_kind(&self, word: &str, f: Fields<'_>) -> Option<FaultKind> {
        let nodes = || self.required_nodes(f, "nodes");
        let network = || self.required_reference(f, "network", "network", &self.names.networks);
        Some(match word {
            "move" => {
                let network = network();
                let lan = self.networks.iter().find(|lan| lan.name == network);
                FaultKind::Move {
                    node: self.required_node(f, "node"),
                    outage: f.span("outage").unwrap_or(Span::exact(Duration::from_secs(1))),
                    address: lan.and_then(|lan| self.inside(f, "address", lan.cidr)),
                    network,
                }
            }
            "link-down" => FaultKind::LinkDown { target: self.target(f)?, lasts: self.lasts(f) },
            "link-up" => FaultKind::LinkUp { target: self.target(f)? },
            "partition" => {
                let (from, to) = (self.places(f, "from"), self.places(f, "to"));
                self.cuts(f, &from, &to);
                let one_way = f.bool("one-way", false);
                FaultKind::Partition { from, to, one_way, lasts: self.required_lasts(f) }
            }
            "disturb" => {
                let by = self.disturbance(f);
                self.disturbs(f, &by);
                FaultKind::Disturb { target: self.target(f)?, by, lasts: self.required_lasts(f) }
            }
            "kill" | "stop" | "start" => return self.actor_fault(word, f),
            "power-off" => FaultKind::PowerOff { nodes: nodes(), lasts: self.lasts(f) },
            "power-on" => FaultKind::PowerOn { nodes: nodes() },
            "node-add" => FaultKind::NodeAdd { nodes: nodes() },
            "node-delete" => {
                FaultKind::NodeDelete { nodes: nodes(), power_off: f.bool("power-off", true) }
            }
            "apply" | "patch" | "delete" | "scale" => return self.api_fault(word, f),
            "write-file" => self.file_fault(f, nodes()),
            "sysctl" => FaultKind::Sysctl {
                nodes: nodes(),
                key: f.required_name("key").to_string(),
                value: self.required_int(f, "value"),
            },
            "iptables" => {
                let command = self.command(f, "command");
                self.changes_rules(f, "command", &command);
                FaultKind::Iptables { nodes: nodes(), command }
            }
            "dhcp-push-dns" => {
                f.required("dns");
                FaultKind::DhcpPushDns { network: network(), dns: f.addresses("dns") }
            }
            "start-software" => {
                f.required("software");
                let kind = self.software_kind(f, "software")?;
                self.starts(f, kind);
                let software = Software { kind, start: Duration::ZERO };
                FaultKind::StartSoftware { nodes: nodes(), software }
            }
            "upstream" => {
                f.required("behaviour");
                FaultKind::Upstream {
                    upstream: self.required_upstream(f),
                    behaviour: f.word("behaviour", BEHAVIOURS)?,
                }
            }
            _ => return None,
        })
    }

    fn file_fault(&self, f: Fields<'_>, nodes: Vec<Name>) -> FaultKind {
        let path = self.required_file_path(f);
        let how = f.word("how", WRITES).unwrap_or(WriteHow::Rename);
        self.writes(f, how);
        FaultKind::WriteFile { nodes, path, how, text: f.string("text") }
    }

    fn actor_fault(&self, word: &str, f: Fields<'_>) -> Option<FaultKind> {
        f.required("actor");
        let nodes = self.required_nodes(f, "nodes");
        let actor = self.actor(f, "actor")?;
        Some(match word {
            "kill" => FaultKind::Kill {
                actor,
                nodes,
                loss: f.word("loss", LOSSES).unwrap_or(Loss::Process),
                restart: self.some_time(f, "restart"),
            },
            "stop" => FaultKind::Stop { actor, nodes },
            _ => FaultKind::Start { actor, nodes },
        })
    }

    fn api_fault(&self, word: &str, f: Fields<'_>) -> Option<FaultKind> {
        if word == "apply" {
            return Some(FaultKind::Apply { objects: self.objects(f) });
        }
        let of = self.object_ref(f);
        Some(match word {
            "patch" => {
                let item = f.required("patch")?;
                let (of, patch) = (of?, item.to_json());
                self.mistakes(item, manifest::patch(of.kind, &patch));
                self.patches(item, of.kind.name(), &patch);
                FaultKind::Patch { of, patch: Arc::new(patch) }
            }
            "delete" => FaultKind::Delete { of: of? },
            _ => {
                f.required("replicas");
                // As many as an object can hold.
                let replicas = f.int("replicas", 0..=i64::from(i32::MAX));
                let replicas = replicas.and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
                let of = of?;
                self.scales(f, of.kind);
                FaultKind::Scale { of, replicas }
            }
        })
    }

    /// `object = "Deployment/default/web"`, or `of-kind` and `labels`.
    fn object_ref(&self, f: Fields<'_>) -> Option<ObjectRef> {
        if let Some(text) = f.text("object") {
            let parts: Vec<&str> = text.split('/').collect();
            let (kind, namespace, name) = match parts.as_slice() {
                [kind, name] => (*kind, "default", *name),
                [kind, namespace, name] => (*kind, *namespace, *name),
                _ => {
                    let message = format!("`{text}` does not name an object");
                    f.error("object", message, "write Deployment/web or Deployment/default/web");
                    return None;
                }
            };
            let kind = self.object_kind(f, "object", kind)?;
            let key = match kind.namespaced() {
                true => Key::new(namespace, name),
                false => Key::cluster(name),
            };
            return Some(ObjectRef { kind, which: Which::Key(key) });
        }
        let Some(text) = f.text("of-kind") else {
            let help = "give `object`, or `of-kind` and `labels`";
            self.log.error(f.place("kind"), "which object is meant?", help);
            return None;
        };
        let kind = self.object_kind(f, "of-kind", text)?;
        Some(ObjectRef { kind, which: Which::Labels(f.text_map("labels")) })
    }

    fn object_kind(&self, f: Fields<'_>, key: &str, text: &str) -> Option<Kind> {
        let kind = manifest::kind(text);
        if kind.is_none() {
            let known = Kind::ALL.iter().map(|kind| kind.name());
            self.log.unknown(f.place(key), "kind", text, known);
        }
        kind
    }

    fn disturbance(&self, f: Fields<'_>) -> Disturbance {
        let quality = self.quality(f, Duration::ZERO);
        Disturbance {
            latency: quality.latency,
            jitter: quality.jitter,
            loss: quality.loss,
            duplicate: quality.duplicate,
            reorder: quality.reorder,
        }
    }

    fn lasts(&self, f: Fields<'_>) -> Option<Span> {
        self.some_time(f, "lasts")
    }
    /// A span that is longer than nothing.
    fn some_time(&self, f: Fields<'_>, key: &str) -> Option<Span> {
        let span = f.span(key)?;
        if span.from.is_zero() {
            f.error(key, format!("`{key}` must be longer than nothing"), "");
        }
        Some(span)
    }
    fn required_lasts(&self, f: Fields<'_>) -> Span {
        f.required("lasts");
        self.lasts(f).unwrap_or_default()
    }
    pub fn required_int(&self, f: Fields<'_>, key: &str) -> i64 {
        f.required(key);
        f.int(key, i64::MIN..=i64::MAX).unwrap_or_default()
    }
    pub fn required_upstream(&self, f: Fields<'_>) -> Name {
        self.required_reference(f, "upstream", "upstream", &self.names.upstreams)
    }

    /// Exactly one of a node's cable, a link and a whole network.
    fn target(&self, f: Fields<'_>) -> Option<LinkTarget> {
        let given = ["node", "link", "network"].into_iter().filter(|key| f.has(key)).count();
        if given != 1 {
            let message = "which cable is meant?";
            let at = f.place_of(&["link", "network", "kind"]);
            self.log.error(at, message, "give exactly one of `node`, `link` and `network`");
            return None;
        }
        let node = self.node(f, "node").map(LinkTarget::Node);
        let link = || self.reference(f, "link", "link", &self.names.links).map(LinkTarget::Link);
        let network = || {
            let known = &self.names.networks;
            self.reference(f, "network", "network", known).map(LinkTarget::Network)
        };
        node.or_else(link).or_else(network)
    }

    /// Nodes (racks, templates), networks, clients and upstreams by name.
    fn places(&self, f: Fields<'_>, key: &str) -> Vec<Place> {
        f.required(key);
        self.each_once(f, key);
        let mut places = Vec::new();
        let names = &self.names;
        for (text, at) in f.texts(key) {
            let among = |known: &[Name]| known.iter().find(|name| *name == text).cloned();
            if let Some(node) = among(&names.nodes) {
                places.push(Place::Node(node));
            } else if let Some(members) = names.groups.get(text) {
                places.extend(members.iter().cloned().map(Place::Node));
            } else if let Some(network) = among(&names.networks) {
                places.push(Place::Network(network));
            } else if let Some(client) = among(&names.clients) {
                places.push(Place::Client(client));
            } else if let Some(upstream) = among(&names.upstreams) {
                places.push(Place::Upstream(upstream));
            } else {
                let known = names.networks.iter().chain(&names.clients).chain(&names.upstreams);
                let known = known.chain(names.groups.keys()).chain(&names.nodes);
                if names.unsure.is_empty() {
                    self.log.unknown(at, "place", text, known.map(Name::as_str));
                }
            }
        }
        places
    }
}

const WRITES: &[(&str, WriteHow)] = &[
    ("rename", WriteHow::Rename),
    ("symlink", WriteHow::Symlink),
    ("in-place", WriteHow::InPlace),
    ("empty", WriteHow::Empty),
];

const LOSSES: &[(&str, Loss)] =
    &[("process", Loss::Process), ("power", Loss::Power), ("disk", Loss::Disk)];
