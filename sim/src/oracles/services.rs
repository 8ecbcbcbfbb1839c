//! I5 and I6: rules lead every Service to its endpoints, and tracked UDP flows to somebody.

use super::nodes_on;
use crate::kernel::netfilter::{Alike, Client, Lead, Led, Netfilter, Place, To, Written};
use crate::kernel::{Kernel, NsId};
use crate::world::World;
use crate::world::probes::pod_ip;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kubesim_actors::kubelet;
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_actors::ports::rules::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A Service that a node's rules do not lead to its endpoints, or to others as well.
pub(super) fn unprogrammed_service(world: &World) -> Option<String> {
    let wanted = Wanted::of(world);
    // Most nodes of a big cluster share their rules: they are judged once.
    let mut judged = BTreeSet::new();
    nodes_on(world).find_map(|machine| {
        let rules = machine.kernel.netfilter(NsId::HOST)?;
        let own: Vec<Ipv4Addr> = machine.kernel.addresses().map(|(_, ip)| ip).collect();
        let card = machine.first_port().map(|(link, _)| link);
        let card = machine.kernel.addresses().find(|(link, _)| Some(*link) == card);
        let (card, kernel) = (card.map(|(_, ip)| ip), &machine.kernel);
        let node = Node { name: &machine.name, own: &own, card, kernel };
        if !judged.insert(wanted.verdict_key(&node, rules)) {
            return None;
        }
        Some(format!("{}: {}", machine.name, wanted.amiss(&node, rules)?))
    })
}

/// A node that is judged.
struct Node<'a> {
    name: &'a str,
    own: &'a [Ipv4Addr],
    /// The address of its first card, where its node ports are tried.
    card: Option<Ipv4Addr>,
    kernel: &'a Kernel,
}

impl Node<'_> {
    /// By which device a client that rules ask for comes in; `None`: no such client does.
    fn really(&self, client: Client) -> Option<Client> {
        let Client::Outside { source, input, .. } = client else { return Some(client) };
        let by = |device: &str| input.as_deref().is_none_or(|input| device.starts_with(input));
        let via = match source {
            Some(source) if source.is_loopback() || self.own.contains(&source) => return None,
            Some(source) => self.kernel.device_to(source).filter(|device| by(device))?,
            None if input.is_some() => self.kernel.devices().find(|device| by(device))?.clone(),
            None => self.kernel.devices().next()?.clone(),
        };
        Some(Client::Outside { source, input, via: Some(via) })
    }
}

/// What each destination of each Service is to lead to.
struct Wanted {
    /// Two Services may claim one external address.
    fronts: BTreeMap<Written, Vec<Front>>,
    pods: Ipv4Net,
    /// Nodes with endpoints that are for their own clients: what is right there may be wrong
    /// elsewhere.
    local: BTreeSet<String>,
    /// Ports of nodes that pods of theirs ask for.
    hosted: BTreeSet<(String, Written, Place)>,
}

/// One destination of one port of a Service.
struct Front {
    service: Key,
    policy: Policy,
    /// `loadBalancerSourceRanges`: it is not for everybody.
    guarded: bool,
    ends: Arc<[End]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Any endpoint.
    Cluster,
    /// `internalTrafficPolicy: Local`: those on the very node.
    Here,
    /// `externalTrafficPolicy: Local`: those on the very node; what pods send may go to any.
    HereAtLeast,
}

/// An endpoint that is ready, or that ends and still serves.
struct End {
    to: Place,
    ready: bool,
    node: String,
}

impl Wanted {
    fn of(world: &World) -> Wanted {
        let mut slices: BTreeMap<Key, Vec<&EndpointSlice>> = BTreeMap::new();
        for object in world.objects(Kind::EndpointSlice) {
            let service = object.label("kubernetes.io/service-name").unwrap_or_default();
            if let Some(slice) = object.endpoint_slice() {
                let key = Key::new(object.key.namespace.clone(), service);
                slices.entry(key).or_default().push(slice);
            }
        }
        let cluster = &world.scenario.cluster;
        let pods = cluster.pod_network;
        let hosted = hosted(world);
        // What is right on a node with such a pod is wrong elsewhere.
        let local = hosted.iter().map(|(node, ..)| node.clone()).collect();
        let mut wanted = Wanted { fronts: BTreeMap::new(), pods, local, hosted };
        for service in world.objects(Kind::Service).filter(|service| is_proxied(service)) {
            let Some((spec, status)) = service.service() else { continue };
            let slices = slices.get(&service.key).map_or(&[][..], Vec::as_slice);
            for port in spec.ports.iter().flatten() {
                let ends: Arc<[End]> = ends(slices, port).into();
                let guarded = spec.load_balancer_source_ranges.iter().flatten().next().is_some();
                for (written, policy) in fronts(spec, status, port) {
                    if policy != Policy::Cluster {
                        wanted.local.extend(ends.iter().map(|end| end.node.clone()));
                    }
                    let (service, ends) = (service.key.clone(), Arc::clone(&ends));
                    let front = Front { service, policy, guarded, ends };
                    wanted.fronts.entry(written).or_default().push(front);
                }
            }
        }
        wanted
    }

    /// All that the verdict on a node depends on.
    fn verdict_key(&self, node: &Node<'_>, rules: &Netfilter) -> VerdictKey {
        let fronts: BTreeSet<Ipv4Addr> = self.fronts.keys().filter_map(|front| front.ip).collect();
        let (mut held, own): (Vec<_>, Vec<_>) = node.own.iter().partition(|ip| fronts.contains(ip));
        // They came in the order in which Services did.
        held.sort_unstable();
        let alike = rules.alike(&own);
        // Only rules by hand may name the others.
        let own = if alike.foreign { own } else { Vec::new() };
        let local = self.local.contains(node.name).then(|| node.name.to_owned());
        (alike, held, own, node.card.is_some(), local)
    }

    /// What is wrong with the rules of a node.
    fn amiss(&self, node: &Node<'_>, rules: &Netfilter) -> Option<String> {
        let ways = rules.ways();
        let clients = ways.clients().into_iter();
        let clients: Vec<Client> = clients.filter_map(|client| node.really(client)).collect();
        let front = self.fronts.iter().find_map(|(written, fronts)| {
            let ip = written.ip.or(node.card)?;
            let to = To { ip, protocol: written.protocol?, port: written.port? };
            clients.iter().find_map(|client| {
                let led = ways.lead(client, to, node.own);
                let lacks = lacking(*written, fronts, &led, client, node.name);
                lacks.or_else(|| {
                    let mut to = led.to.iter();
                    to.find_map(|(to, by)| strange(*written, fronts, *to, by.as_ref(), node.name))
                })
            })
        });
        front.or_else(|| rules.leads().into_iter().find_map(|lead| self.astray(&lead, node)))
    }

    /// A way that is there and should not be.
    fn astray(&self, lead: &Lead, node: &Node<'_>) -> Option<String> {
        let Lead { written, to, by } = lead;
        // A node port may be led of each of the node's addresses by itself.
        let own = written.ip.is_none_or(|ip| node.own.contains(&ip));
        let any = self.fronts.get(&Written { ip: None, ..*written }).filter(|_| own);
        if let Some(fronts) = self.fronts.get(written).or(any) {
            return strange(*written, fronts, *to, by.as_ref(), node.name);
        }
        let hosted = self.hosted.contains(&(node.name.to_owned(), *written, *to));
        (!hosted && self.pods.contains(&to.0)).then(|| {
            let said = said(by.as_ref());
            format!("a rule leads {written}, which is no Service's, to {}{said}", place(*to))
        })
    }
}

/// Of all pods that are on a node, or end there.
fn hosted(world: &World) -> BTreeSet<(String, Written, Place)> {
    let mut all = BTreeSet::new();
    for (spec, status) in world.objects(Kind::Pod).filter_map(|pod| pod.pod()) {
        let (Some(node), Some(ip)) = (&spec.node_name, pod_ip(status)) else { continue };
        for port in kubelet::host_ports(spec) {
            let (protocol, number) = (Some(port.protocol), Some(port.number));
            let written = Written { ip: port.ip, protocol, port: number };
            all.insert((node.clone(), written, (ip, port.inside)));
        }
    }
    all
}

/// The rules, the node's addresses that Services have as well, those that its rules may name,
/// whether it has one on its card, and which node it is if that matters.
type VerdictKey = (Alike, Vec<Ipv4Addr>, Vec<Ipv4Addr>, bool, Option<String>);

fn place((ip, port): Place) -> String {
    if port == 0 { ip.to_string() } else { format!("{ip}:{port}") }
}

/// The rule that somebody else wrote.
fn said(by: Option<&String>) -> String {
    by.map_or_else(String::new, |rule| format!(" (by hand: {rule})"))
}

/// Where a Service's destination leads to and should not.
fn strange(
    written: Written,
    fronts: &[Front],
    to: Place,
    by: Option<&String>,
    node: &str,
) -> Option<String> {
    if fronts.iter().any(|front| front.may_lead_to(to, node)) {
        return None;
    }
    let (service, said, to) = (&fronts.first()?.service, said(by), place(to));
    Some(format!(
        "a rule leads {written} of {service} to {to}, which is no ready endpoint of it{said}"
    ))
}

/// A ready endpoint that a destination should lead to and does not.
fn lacking(
    written: Written,
    fronts: &[Front],
    led: &Led,
    client: &Client,
    node: &str,
) -> Option<String> {
    // Who of several is served is nobody's promise.
    let [front] = fronts else { return None };
    let known = matches!(client, Client::Outside { source: Some(_), .. });
    if front.guarded && known {
        return None;
    }
    let here = |end: &&End| front.policy == Policy::Cluster || end.node == node;
    let ready = front.ends.iter().filter(|end| end.ready);
    let End { to, .. } = ready.filter(here).find(|end| !led.to.contains_key(&end.to))?;
    let (service, to, said) = (&front.service, place(*to), said(led.ended_by.as_ref()));
    let whose = match client {
        Client::Outside { source: None, input: None, .. } => String::new(),
        client => format!(", for {client}"),
    };
    Some(format!("no rule leads {written} of {service} to its ready endpoint {to}{whose}{said}"))
}

impl Front {
    fn may_lead_to(&self, to: Place, node: &str) -> bool {
        let usable = |of: &dyn Fn(&End) -> bool| {
            let any_ready = self.ends.iter().any(|end| end.ready && of(end));
            self.ends.iter().any(|end| end.to == to && of(end) && (end.ready || !any_ready))
        };
        let here = || usable(&|end| end.node == node);
        match self.policy {
            Policy::Cluster => usable(&|_| true),
            Policy::Here => here(),
            Policy::HereAtLeast => usable(&|_| true) || here(),
        }
    }
}

/// It has a ClusterIP, and no other program serves it.
fn is_proxied(service: &Object) -> bool {
    let foreign = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    let spec = service.service().map(|(spec, _)| spec);
    let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    foreign.iter().all(|label| service.label(label).is_none())
        && spec.is_some_and(|spec| !external(spec) && parsed(spec.cluster_ip.as_ref()).is_some())
}

fn parsed(ip: Option<&String>) -> Option<Ipv4Addr> {
    ip?.parse().ok()
}

/// What a client writes to use one port of a Service.
fn fronts(
    spec: &ServiceSpec,
    status: &ServiceStatus,
    port: &ServicePort,
) -> Vec<(Written, Policy)> {
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let inside = if local(&spec.internal_traffic_policy) { Policy::Here } else { Policy::Cluster };
    let outside =
        if local(&spec.external_traffic_policy) { Policy::HereAtLeast } else { Policy::Cluster };
    let ingress =
        status.load_balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let ingress = ingress.filter(|one| one.ip_mode.as_deref() != Some("Proxy"));
    let externals = spec.external_ips.iter().flatten().map(Some);
    let externals = externals.chain(ingress.map(|one| one.ip.as_ref()));
    let speaks = protocol(port.protocol.as_deref());
    let at = |ip, number: i32| Written { ip, protocol: speaks, port: u16::try_from(number).ok() };
    let mut fronts = vec![(at(parsed(spec.cluster_ip.as_ref()), port.port), inside)];
    let outsides = externals.filter_map(parsed).map(|ip| (at(Some(ip), port.port), outside));
    fronts.extend(outsides);
    let node_port = port.node_port.filter(|number| *number != 0);
    fronts.extend(node_port.map(|number| (at(None, number), outside)));
    fronts
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The endpoints of one port that are ready, or that still serve while they end, as kube-proxy uses
/// them (KEP-1669). Between two slices that show one endpoint, it is ready if either says so.
fn ends(slices: &[&EndpointSlice], of: &ServicePort) -> Vec<End> {
    let mut found: BTreeMap<Place, End> = BTreeMap::new();
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    for slice in slices {
        let same = slice.ports.iter().flatten().filter(|port| {
            name(&port.name) == name(&of.name)
                && protocol(port.protocol.as_deref()) == protocol(of.protocol.as_deref())
        });
        let Some(port) = same.filter_map(|port| u16::try_from(port.port?).ok()).next() else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let state = endpoint.conditions.clone().unwrap_or_default();
            let ready = state.ready.unwrap_or(true);
            let ending = state.serving.unwrap_or(ready) && state.terminating == Some(true);
            let Some(ip) = parsed(endpoint.addresses.first()).filter(|_| ready || ending) else {
                continue;
            };
            let node = endpoint.node_name.clone().unwrap_or_default();
            let end = found.entry((ip, port)).or_insert(End { to: (ip, port), ready, node });
            end.ready |= ready;
        }
    }
    found.into_values().collect()
}

/// A conntrack entry that sends datagrams of a Service to an address that is nobody's. Connections
/// are left out: TCP finds out by itself, and its entry goes with it.
pub(super) fn conntrack_to_nowhere(world: &World) -> Option<String> {
    let mut alive: BTreeSet<Ipv4Addr> = world
        .objects(Kind::Pod)
        .filter_map(|pod| pod.pod().and_then(|(_, status)| pod_ip(status)))
        .collect();
    alive.extend(world.machines.iter().filter_map(|m| world.address_of(&m.name)));
    let services = world.scenario.cluster.service_network;
    for machine in nodes_on(world) {
        let Some(netfilter) = machine.kernel.netfilter(NsId::HOST) else { continue };
        for entry in netfilter.conntrack() {
            let (asked, got) = (entry.original.dst, entry.reply.src);
            let udp = entry.protocol() == kubesim_actors::ports::rules::Protocol::Udp;
            if udp
                && asked != got
                && services.contains(&asked)
                && !alive.contains(&got)
                && entry.expires() > world.now
            {
                return Some(format!(
                    "{}: UDP to {asked} still goes to {got}, which is nobody",
                    machine.name
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
