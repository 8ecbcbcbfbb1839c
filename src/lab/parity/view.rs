//! What an operator could see of a world at one moment.

use super::chains;
use super::connections::{self, Masked};
use super::mask::{Mask, draws_subnets};
use super::tables::Tables;
use kubesim_actors::objects::Kind;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_actors::storage;
use kubesim_sim::kernel::NsId;
use kubesim_sim::kernel::netfilter::Netfilter;
use kubesim_sim::world::World;
use kubesim_sim::world::probes::{Probe, Try};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Lines by section.
#[derive(Debug, PartialEq)]
pub struct View(BTreeMap<String, Vec<String>>);

/// Fields of objects whose values are times, dice or counts of writes.
const MASKED: [&str; 15] = [
    // The uid of a pod's Job, in labels and selectors.
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    // When a lease of the upstream-like profile ends, by the clock on the wall.
    kubesim_sim::profiles::flannel::EXPIRES,
    "uid",
    "nodeUid",
    "resourceVersion",
    "containerID",
    "imageID",
    "observedGeneration",
    "holderIdentity",
    "leaseTransitions",
    "generation",
    "managedFields",
    "sequence",
    "seq",
];

/// The roles that every cluster has, but a simulated one: nobody asks by a name there.
const BOOTSTRAP: &str = "kubernetes.io/bootstrapping";

/// What comes and goes by itself, and what only a world with visitors has: Endpoints say no more
/// than EndpointSlices.
const LEFT_OUT: [Kind; 3] = [Kind::Event, Kind::Lease, Kind::Endpoints];

/// The section of what is on the node where the scheduler's dice put a pod.
const PLACED: &str = "rules of some node";

/// The section of connections that are on the node of whichever endpoint dice gave a client.
const CHOSEN: &str = "connections of some node";

impl View {
    /// All but the nodes' tables.
    pub fn of(world: &World, mask: &Mask) -> View {
        let mut sections = BTreeMap::new();
        // What a node has since the scheduler's dice put a pod there.
        let mut placed = Vec::new();
        let nodes = (0..world.machines.len() as u32).filter(|machine| world.is_node(*machine));
        for index in nodes {
            let machine = &world.machines[index as usize];
            let kernel = &machine.kernel;
            let elements = kernel.netfilter(NsId::HOST).into_iter().flat_map(Netfilter::elements);
            let (everywhere, here) = mask.by_place(elements.map(element), is_of_place);
            sections.insert(format!("nftables elements of {}", machine.name), everywhere);
            placed.extend(here);
        }
        sections.insert(PLACED.to_owned(), placed);
        let probes = world.probes.iter().map(|probe| outcome(world, probe));
        sections.insert("probes".to_owned(), mask.lines(probes));
        for &kind in Kind::ALL.iter().filter(|kind| !LEFT_OUT.contains(kind)) {
            let ours = world.objects(kind).filter(|object| {
                let class = kind == Kind::StorageClass && object.key.name == storage::CLASS;
                object.label(BOOTSTRAP).is_none() && !class
            });
            let objects = ours.map(|object| {
                let mut json = object.to_json();
                hide(&mut json);
                if kind == Kind::Node {
                    hide_volumes(&mut json);
                }
                if kind == Kind::Node && draws_subnets(world) {
                    hide_subnets(&mut json);
                }
                if kind == Kind::EndpointSlice || json.pointer("/spec/nodeSelector").is_none() {
                    hide_place(&mut json);
                }
                mask.object(&mut json);
                json.to_string()
            });
            let mut objects: Vec<String> = objects.collect();
            objects.sort();
            sections.insert(kind.plural().to_owned(), objects);
        }
        View(sections)
    }

    /// And what the network of a node has.
    pub fn add(&mut self, node: &str, tables: Tables, mask: &Mask) {
        let (here, mut rules): (Vec<_>, Vec<_>) = chains::lines(mask, &tables.rules)
            .into_iter()
            .partition(|rule| chains::follows_a_pod(rule));
        rules.extend(tables.nftables.iter().map(|line| mask.text(line)));
        let placed = self.0.entry(PLACED.to_owned()).or_default();
        placed.extend(here);
        placed.sort();
        self.0.insert(format!("rules of {node}"), rules);
        let others = [
            ("links", tables.links),
            ("addresses", tables.addresses),
            ("routes", tables.routes),
            ("routing rules", tables.routing_rules),
            ("FDB", tables.fdb),
            ("neighbours", tables.neighbours),
            ("WireGuard devices and peers", tables.wireguard),
        ];
        for (what, lines) in others {
            self.0.insert(format!("{what} of {node}"), mask.lines(lines));
        }
        // Whoever is asked no more is kept for those whom it knew.
        let mut virtuals = mask.lines(tables.virtuals);
        virtuals.retain(|line| !Mask::is_of_the_gone(line));
        self.0.insert(format!("virtual services of {node}"), virtuals);
        let Masked { here, chosen } = connections::masked(mask, tables.connections);
        self.0.insert(format!("connections of {node}"), here);
        let all = self.0.entry(CHOSEN.to_owned()).or_default();
        all.extend(chosen);
        all.sort_unstable();
        all.dedup();
    }

    /// How many lines each section has, called after its kind, not its node.
    pub fn counts(&self) -> impl Iterator<Item = (&str, usize)> {
        let kind = |name: &'_ str| name.split(" of ").next().map_or(0, str::len);
        self.0.iter().map(move |(name, lines)| (&name[..kind(name)], lines.len()))
    }

    /// Each section of either, with what both have in it.
    pub fn beside<'a>(
        &'a self,
        other: &'a View,
    ) -> impl Iterator<Item = (&'a str, Vec<String>, Vec<String>)> + 'a {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().map(|name| {
            let of = |view: &View| view.0.get(name).cloned().unwrap_or_default();
            (name.as_str(), of(self), of(other))
        })
    }
}

/// Whether an element is on its endpoint's node only.
fn is_of_place(element: &str) -> bool {
    element.starts_with("Hairpin") || element.contains("Here of ") || element.contains("list: Here")
}

/// Which number an endpoint has depends on its address.
fn element((key, value): (FlatKey, FlatValue)) -> String {
    let key = match key {
        FlatKey::Endpoint { front, list, .. } => format!("endpoint {list:?} of {front:?}"),
        key => format!("{key:?}"),
    };
    format!("{key}: {value:?}")
}

/// How many tries back what comes of a probe is looked at: those of before may be of another phase,
/// and when each began is the machine's clock's.
const TRIES: usize = 5;

/// What came of a probe's last tries that are over, and its last answer to a dig.
fn outcome(world: &World, probe: &Probe) -> String {
    let name = &probe.spec.name;
    let is_over = |t: &&Try| t.ended.is_some() || world.now > t.began + probe.spec.timeout;
    let last: Vec<&Try> = probe.tries.iter().rev().filter(is_over).take(TRIES).collect();
    let said = match last.iter().filter(|t| t.succeeded()).count() {
        _ if last.is_empty() => "never tried",
        0 => "fails",
        worked if worked == last.len() => "works",
        _ => "works now and then",
    };
    let answer = last.first().filter(|last| last.succeeded() && !last.answer.is_empty());
    let answer = answer.map_or_else(String::new, |last| match last.cut {
        true => format!(", {}", cut(&last.answer, &endpoints(world))),
        false => format!(", answers {:?}", last.answer),
    });
    let broken = if probe.broken.is_some() { ", its connection broke" } else { "" };
    format!("{name}: {said}{answer}{broken}")
}

/// Of an answer that has no room for all: DNS' dice say which endpoints are in it, but not how
/// many, nor that any other address is.
fn cut(answer: &[Ipv4Addr], endpoints: &BTreeSet<Ipv4Addr>) -> String {
    let others: Vec<_> = answer.iter().filter(|address| !endpoints.contains(address)).collect();
    let count = answer.len() - others.len();
    format!("answers that there are more than {count} endpoints and {others:?}")
}

/// The addresses in all EndpointSlices.
fn endpoints(world: &World) -> BTreeSet<Ipv4Addr> {
    let slices = world.objects(Kind::EndpointSlice).filter_map(|object| object.endpoint_slice());
    let addresses = slices.flat_map(|slice| &slice.endpoints).flat_map(|one| &one.addresses);
    addresses.filter_map(|address| address.parse().ok()).collect()
}

/// Where claimed volumes are made: a simulated node has a place for them only if some are claimed,
/// and there is a class for them only then.
fn hide_volumes(node: &mut Value) {
    let Some(meta) = node.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(storage::DIRECTORY);
        if annotations.is_empty() {
            meta.remove("annotations");
        }
    }
}

/// What a Node says of its subnet where its agent minds something else: which of them came first.
fn hide_subnets(node: &mut Value) {
    if let Some(spec) = node.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|name, _| !["podCIDR", "podCIDRs"].contains(&name.as_str()));
    }
}

/// Where the scheduler put a pod that asked for no place.
fn hide_place(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !["nodeName", "hostIP", "hostIPs"].contains(&name.as_str()));
            fields.values_mut().for_each(hide_place);
        }
        Value::Array(items) => items.iter_mut().for_each(hide_place),
        _ => {}
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                let time = name.ends_with("Time") || name.ends_with("Timestamp");
                !time
                    && name != "startedAt"
                    && name != "finishedAt"
                    && !MASKED.contains(&name.as_str())
            });
            fields.values_mut().for_each(hide);
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every answer that was cut was taken for a difference.
    #[test]
    fn which_endpoints_an_answer_has_room_for_is_no_difference() {
        let of = |last: [u8; 2]| last.map(|last| Ipv4Addr::new(10, 244, 1, last));
        let endpoints: BTreeSet<Ipv4Addr> = [[2, 3], [4, 5]].into_iter().flat_map(of).collect();
        let first = cut(&of([2, 3]), &endpoints);
        assert_eq!(first, "answers that there are more than 2 endpoints and []");
        assert_eq!(cut(&of([3, 5]), &endpoints), first);
        assert_ne!(cut(&of([3, 9]), &endpoints), first);
        assert_ne!(cut(&of([3, 5])[..1], &endpoints), first);
    }
    #[test]
    fn what_names_a_job_by_its_uid_is_hidden() {
        let of = |uid: &str| {
            let labels = serde_json::json!({
                "app": "once",
                "controller-uid": uid,
                "batch.kubernetes.io/controller-uid": uid,
            });
            let mut job = serde_json::json!({
                "spec": { "selector": { "matchLabels": labels } },
                "metadata": { "labels": labels },
            });
            hide(&mut job);
            job.to_string()
        };
        assert_eq!(of("a"), of("b"));
        assert!(of("a").contains("once"));
    }
}
