//! What two runs of one scenario may differ in without differing: which node got which pod subnet,
//! which pod which address and name, which Service an address that it did not ask for. Each is
//! replaced by what it stands for.

use kubesim_actors::netd::wireguard;
use kubesim_actors::objects::{Kind, Object};
use kubesim_actors::ports::network::LinkKind;
use kubesim_sim::kernel::NsId;
use kubesim_sim::scenario::NetdProgram;
use kubesim_sim::world::World;
use kubesim_sim::world::probes::pod_ip;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Mask {
    /// Texts and what they become, longest first.
    texts: Vec<(String, String)>,
    /// Endpoints as `<web@one>:8080`, of Services that have some on several nodes: dice say which
    /// of them a client gets.
    pub endpoints: BTreeSet<String>,
}

/// Where a pod is that asked for no place.
pub const ANY_NODE: &str = "any node";

/// Whose a text is, and whose it was: a route or a tunnel's entry may outlive its node.
#[derive(Debug, Default)]
pub struct Memory {
    /// Pod subnets by their first three bytes.
    subnets: BTreeMap<String, String>,
    /// MAC addresses of nodes' tunnel devices.
    tunnels: BTreeMap<String, String>,
    /// WireGuard keys of nodes, which are made of each run's dice.
    keys: BTreeMap<String, String>,
}

impl Memory {
    fn note(&mut self, world: &World) {
        // Whose agent draws its own subnet minds no Node's.
        for node in world.objects(Kind::Node).filter(|_| !draws_subnets(world)) {
            let cidr = node.node().and_then(|(spec, _)| spec.pod_cidr.clone());
            if let Some((network, _)) = cidr.as_deref().and_then(|cidr| cidr.split_once(".0/")) {
                self.subnets.insert(network.to_owned(), node.key.name.to_string());
            }
        }
        let mut leases: Vec<_> = world.objects(Kind::Subnet).collect();
        leases.sort_by_key(|lease| lease.meta.creation_timestamp.clone());
        for lease in leases {
            let Some((spec, status)) = lease.subnet() else { continue };
            let key = wireguard::public_key(&spec.public_key);
            self.keys.extend(key.map(|key| (key.to_string(), lease.key.name.to_string())));
            let Some((network, _)) = spec.cidr.split_once(".0/") else { continue };
            let holder = self.holder(network, &spec.node);
            if !status.vtep_mac.is_empty() {
                self.tunnels.entry(status.vtep_mac.clone()).or_insert(holder);
            }
        }
        for machine in &world.machines {
            let links = machine.kernel.links(NsId::HOST);
            for link in links.filter(|link| link.link_kind() == LinkKind::Vxlan) {
                self.tunnels.entry(link.mac.to_string()).or_insert(machine.name.to_string());
            }
        }
    }

    /// Whose lease a network is: a node's that has had another before is told from that.
    fn holder(&mut self, network: &str, node: &str) -> String {
        let of_node = |holder: &&String| {
            holder.strip_prefix(node).is_some_and(|rest| rest.is_empty() || rest.starts_with("'s "))
        };
        let before = self.subnets.values().filter(of_node).count();
        let name = || match before {
            0 => node.to_owned(),
            before => format!("{node}'s {}", before + 1),
        };
        self.subnets.entry(network.to_owned()).or_insert_with(name).clone()
    }
}

impl Mask {
    pub fn of(world: &World, memory: &mut Memory) -> Mask {
        memory.note(world);
        // Whose first subnet it shares its address with says nothing.
        let all = world.scenario.cluster.pod_network.to_string();
        let mut pairs = vec![(all, "<pods>".to_owned())];
        for (mac, name) in &memory.tunnels {
            pairs.push((mac.clone(), format!("<tunnel of {name}>")));
        }
        for (key, name) in &memory.keys {
            pairs.push((key.clone(), format!("<key of {name}>")));
        }
        for (network, name) in &memory.subnets {
            pairs.push((format!("{network}."), format!("<{name}>.")));
            pairs.push((format!("{}-", network.replace('.', "-")), format!("<{name}>-")));
        }
        // Pods of one owner on one node are alike: they are numbered by their addresses. Which of
        // several nodes has them is the scheduler's dice.
        let mut pods: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for pod in world.objects(Kind::Pod) {
            let Some((spec, status)) = pod.pod() else { continue };
            let owner = pod.controller().map_or("", |(owner, _)| owner.name.as_str());
            let node = spec.node_name.as_deref().filter(|_| spec.node_selector.is_some());
            let group = format!("{owner}@{}", node.unwrap_or(ANY_NODE));
            pods.entry(group).or_default().push((pod_ip(status), pod.key.name.to_string()));
        }
        for (group, mut members) in pods {
            members.sort();
            for (number, (ip, name)) in members.into_iter().enumerate() {
                let word = format!("<{group}#{number}>");
                pairs.extend(ip.map(|ip| (ip.to_string(), word.clone())));
                pairs.push((name, word));
            }
        }
        let given = world.scenario.workloads.iter().flat_map(|workload| &workload.objects);
        let services = given.filter(|given| given.object.kind() == Kind::Service);
        for given in services.filter(|given| cluster_ip(&given.object).is_none()) {
            let key = &given.object.key;
            let ip = world.object(Kind::Service, key).and_then(|service| cluster_ip(service));
            pairs.extend(ip.map(|ip| (ip, format!("<address of Service {key}>"))));
        }
        for slice in world.objects(Kind::EndpointSlice) {
            let service = slice.label("kubernetes.io/service-name").unwrap_or_default();
            pairs.push((slice.key.name.to_string(), format!("<slice of {service}>")));
        }
        pairs.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        let mut mask = Mask { texts: pairs, endpoints: BTreeSet::new() };
        mask.endpoints = endpoints(world, &mask);
        mask
    }

    /// Of these texts and what they stand for.
    #[cfg(test)]
    pub fn of_pairs(pairs: &[(&str, &str)]) -> Mask {
        let texts = pairs.iter().map(|(text, word)| ((*text).into(), (*word).into())).collect();
        Mask { texts, ..Mask::default() }
    }

    pub fn text(&self, line: &str) -> String {
        let mut text = line.to_owned();
        for (from, to) in &self.texts {
            text = replace_whole(&text, from, to);
        }
        text
    }

    /// The same in every text of an object, with its lists in an order of their own.
    pub fn object(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.object(field)),
            Value::Array(items) => {
                items.iter_mut().for_each(|item| self.object(item));
                items.sort_by_key(Value::to_string);
            }
            _ => {}
        }
    }

    /// Masked and sorted: an order that only addresses give says nothing.
    pub fn lines(&self, lines: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut masked: Vec<String> = lines.into_iter().map(|line| self.text(&line)).collect();
        masked.sort();
        masked
    }

    /// As [`Mask::lines`], and apart those of a place that are about a pod which may be anywhere.
    pub fn by_place(
        &self,
        lines: impl IntoIterator<Item = String>,
        is_of_place: fn(&str) -> bool,
    ) -> (Vec<String>, Vec<String>) {
        let roams = |line: &String| is_of_place(line) && line.contains(ANY_NODE);
        let (there, elsewhere) = self.lines(lines).into_iter().partition(roams);
        (elsewhere, there)
    }

    /// Whether a masked line is about a pod that may be on any node.
    pub fn may_be_anywhere(line: &str) -> bool {
        line.contains(ANY_NODE)
    }

    /// Whether a masked line is about a pod that is gone: an address of a node's subnet is all that
    /// is left of it, and which node's it was, is dice's. `.0` and `.1` are devices of the node.
    pub fn is_of_the_gone(line: &str) -> bool {
        line.split('>').skip(1).any(|rest| {
            let rest = rest.strip_prefix('.').unwrap_or_default();
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<u32>().is_ok_and(|host| host > 1)
        })
    }
}

/// Whether the nodes' subnets are what their agents drew, and not what their Nodes say.
pub fn draws_subnets(world: &World) -> bool {
    world.scenario.cluster.netd == NetdProgram::Flannel
}

/// Those of Services that have pods as endpoints on several nodes.
fn endpoints(world: &World, mask: &Mask) -> BTreeSet<String> {
    let mut services: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for object in world.objects(Kind::EndpointSlice) {
        let Some(slice) = object.endpoint_slice() else { continue };
        let service = object.label("kubernetes.io/service-name").unwrap_or_default().to_owned();
        let all = services.entry((object.key.namespace.clone(), service)).or_default();
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        for pod in addresses.map(|address| without(&mask.text(address), '#')) {
            let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
            all.extend(ports.filter(|_| pod.starts_with('<')).map(|port| format!("{pod}:{port}")));
        }
    }
    fn nodes(all: &BTreeSet<String>) -> usize {
        let on = all.iter().filter_map(|one| one.split_once('@')?.1.split_once('>'));
        on.map(|(node, _)| node).collect::<BTreeSet<_>>().len()
    }
    services.into_values().filter(|all| nodes(all) > 1).flatten().collect()
}

/// Each `<name#rest>` is `<name>`, where `from` is `#`.
pub fn without(line: &str, from: char) -> String {
    let mut parts = line.split('<');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push('<');
        match part.split_once('>') {
            Some((name, rest)) => {
                let name = name.split(from).next().unwrap_or_default();
                text += &format!("{name}>{rest}");
            }
            None => text += part,
        }
    }
    text
}

/// A Service's own address.
fn cluster_ip(object: &Object) -> Option<String> {
    let (spec, _) = object.service()?;
    spec.cluster_ip.clone().filter(|ip| !["", "None"].contains(&ip.as_str()))
}

/// Where `from` is not part of a longer number or name; one that ends in `.` or `-` is a prefix.
pub fn replace_whole(text: &str, from: &str, to: &str) -> String {
    let part = |c: char| c.is_ascii_alphanumeric();
    let prefix = from.ends_with(['.', '-']);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let starts = !before.ends_with(part) && !before.ends_with('.');
        let ends = prefix || !after.starts_with(part);
        out.push_str(before);
        out.push_str(if starts && ends { to } else { from });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_is_told_from_a_node() {
        assert!(Mask::is_of_the_gone("tcp <a>.0 asks <two>.12:80: <two>.12:80 answers to <a>.0"));
        assert!(!Mask::is_of_the_gone("tcp <a>.1 asks <web@a#0>:80: <web@a#0>:80 answers"));
        assert!(!Mask::is_of_the_gone("-a -t 10.96.0.80:80 -r <web@a#0>:8080 -m -w 1"));
    }

    #[test]
    fn only_whole_names_are_replaced() {
        assert_eq!(replace_whole("10.244.1.2/32", "10.244.1.2", "<a>"), "<a>/32");
        assert_eq!(replace_whole("10.244.1.20", "10.244.1.2", "<a>"), "10.244.1.20");
        assert_eq!(replace_whole("110.244.1.2", "10.244.1.2", "<a>"), "110.244.1.2");
        assert_eq!(replace_whole("10.244.1.0/24", "10.244.1.", "<n>."), "<n>.0/24");
    }

    /// Two peers whose tunnels lead to each other were taken for two whose tunnels do not: which
    /// MAC address leads where was not looked at.
    #[test]
    fn a_tunnels_entry_is_its_nodes() {
        let mask = Mask::of_pairs(&[
            ("02:00:00:00:00:01", "<tunnel of one>"),
            ("02:00:00:00:00:02", "<tunnel of two>"),
        ]);
        let entry = |mac: &str, to: &str| format!("{mac} dev kubesim.1 dst {to} self permanent");
        let as_it_was = mask.lines([
            entry("02:00:00:00:00:01", "10.0.0.1"),
            entry("02:00:00:00:00:02", "10.0.0.2"),
        ]);
        let swapped = mask.lines([
            entry("02:00:00:00:00:01", "10.0.0.2"),
            entry("02:00:00:00:00:02", "10.0.0.1"),
        ]);
        assert_eq!(as_it_was[0], "<tunnel of one> dev kubesim.1 dst 10.0.0.1 self permanent");
        assert_ne!(as_it_was, swapped);
    }
}
