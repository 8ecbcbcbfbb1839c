//! I5 and I6: rules lead every Service to its endpoints, and tracked UDP flows to somebody.

use super::nodes_on;
use crate::kernel::NsId;
use crate::kernel::netfilter::{Netfilter, Place, Written};
use crate::world::World;
use crate::world::probes::pod_ip;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_actors::ports::rules::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A Service that a node's rules do not lead to its endpoints, or to others as well.
pub(super) fn unprogrammed_service(world: &World) -> Option<String> {
    let wanted = Wanted::of(world);
    // The compiled rules are shared: a few nodes stand for all of a big cluster.
    let step = (world.scenario.nodes.len() / 10).max(1);
    nodes_on(world).step_by(step).find_map(|machine| {
        let what = wanted.amiss(&machine.name, machine.kernel.netfilter(NsId::HOST)?)?;
        Some(format!("{}: {what}", machine.name))
    })
}

/// What each destination of each Service is to lead to.
struct Wanted {
    /// Two Services may claim one external address.
    fronts: BTreeMap<Written, Vec<Front>>,
    ends: BTreeSet<Place>,
    pods: Ipv4Net,
    services: Ipv4Net,
}

/// One destination of one port of a Service.
struct Front {
    service: Key,
    policy: Policy,
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
        let (pods, services) = (cluster.pod_network, cluster.service_network);
        let mut wanted = Wanted { fronts: BTreeMap::new(), ends: BTreeSet::new(), pods, services };
        for service in world.objects(Kind::Service).filter(|service| is_proxied(service)) {
            let Some((spec, status)) = service.service() else { continue };
            let slices = slices.get(&service.key).map_or(&[][..], Vec::as_slice);
            for port in spec.ports.iter().flatten() {
                let ends: Arc<[End]> = ends(slices, port).into();
                wanted.ends.extend(ends.iter().map(|end| end.to));
                for (written, policy) in fronts(spec, status, port) {
                    let (service, ends) = (service.key.clone(), Arc::clone(&ends));
                    wanted.fronts.entry(written).or_default().push(Front { service, policy, ends });
                }
            }
        }
        wanted
    }

    /// What is wrong with the rules of a node.
    fn amiss(&self, node: &str, rules: &Netfilter) -> Option<String> {
        let mut led: BTreeMap<Written, Vec<Place>> = BTreeMap::new();
        for (written, to) in rules.leads() {
            // Where virtual services are, a node port is written for each address of the node.
            let any = Written { ip: None, ..written };
            let node_port = !self.fronts.contains_key(&written) && self.fronts.contains_key(&any);
            led.entry(if node_port { any } else { written }).or_default().push(to);
        }
        let lacks = self.fronts.iter().find_map(|(written, fronts)| {
            let led = led.get(written).map_or(&[][..], Vec::as_slice);
            lacking(*written, fronts, led, node)
        });
        lacks.or_else(|| led.iter().find_map(|(written, led)| self.astray(*written, led, node)))
    }

    /// Where a destination leads to and should not.
    fn astray(&self, written: Written, led: &[Place], node: &str) -> Option<String> {
        if let Some(fronts) = self.fronts.get(&written) {
            let may = |to: &&Place| fronts.iter().any(|front| front.may_lead_to(**to, node));
            let (ip, port) = led.iter().find(|to| !may(to))?;
            let service = &fronts.first()?.service;
            return Some(format!(
                "a rule leads {written} of {service} to {ip}:{port}, which is no ready endpoint \
                 of it"
            ));
        }
        let of_services = written.ip.is_some_and(|ip| self.services.contains(&ip));
        let strays = |to: &&Place| of_services || !self.ends.contains(to);
        let (ip, port) = led.iter().find(|to| self.pods.contains(&to.0) && strays(to))?;
        Some(format!("a rule leads {written}, which is no Service's, to {ip}:{port}"))
    }
}

/// A ready endpoint that a destination should lead to and does not.
fn lacking(written: Written, fronts: &[Front], led: &[Place], node: &str) -> Option<String> {
    // Who of several is served is nobody's promise.
    let [front] = fronts else { return None };
    let here = |end: &&End| front.policy == Policy::Cluster || end.node == node;
    let ready = front.ends.iter().filter(|end| end.ready);
    let End { to: (ip, port), .. } = ready.filter(here).find(|end| !led.contains(&end.to))?;
    let service = &front.service;
    Some(format!("no rule leads {written} of {service} to its ready endpoint {ip}:{port}"))
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
mod tests {
    use super::unprogrammed_service;
    use crate::kernel::NsId;
    use crate::kernel::netfilter::Netfilter;
    use crate::report::{Outcome, Trace};
    use crate::scenario::Invariant;
    use crate::world::{World, testing};
    use kubesim_actors::objects::{Key, Kind};
    use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue, Front};
    use kubesim_actors::ports::rules::virtuals::{Virtual, VirtualSet};
    use kubesim_actors::ports::rules::{ChainSet, Chains, Reply, Request, Table};
    use kubesim_actors::proxy::{self, Mode};
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    /// A Service whose pods are all ending is still led to those that serve.
    #[test]
    fn rules_to_pods_that_end_are_right_while_no_other_is_ready() {
        let more = r#"
[image."web"]
tcp = [80]
stop = "200s"
[[image."web".http]]
port = 80
[[workload]]
name = "w"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: w}
spec:
  replicas: 2
  selector: {matchLabels: {app: z}}
  template:
    metadata: {labels: {app: z}}
    spec: {terminationGracePeriodSeconds: 300, containers: [{name: main, image: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: w}
spec: {selector: {app: z}, ports: [{port: 80}]}
"""
[[fault]]
name = "none"
kind = "scale"
at = "30s"
object = "Deployment/w"
replicas = 0
[[probe]]
name = "p"
kind = "http"
from = { node = "n1" }
to = { service = "w" }
start = "40s"
[[expect]]
name = "the pods that end still answer"
kind = "probe"
probe = "p"
"#;
        let mut scenario = testing::scenario("", more);
        scenario.invariants = vec![Invariant::I5];
        let (report, _) = testing::play(&scenario, Trace::default());
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
        assert!(report.not_judged.is_empty(), "{:?}", report.not_judged);
    }

    /// Services `a` and `b`, of one node port each, with two pods each.
    fn two_services(mode: Mode) -> World {
        let of = |name: &str, node_port: u32| {
            format!(
                r#"
[[workload]]
name = "{name}"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: main, image: web}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, nodePort: {node_port}}}, {{name: other, port: 81}}]
"""
"#
            )
        };
        let more = ["[image.\"web\"]\n".to_owned(), of("a", 30_080), of("b", 30_081)];
        let mut scenario = testing::scenario("", &more.concat());
        scenario.cluster.proxy_mode = mode;
        testing::world_after(scenario)
    }

    fn rules(world: &mut World) -> &mut Netfilter {
        let machine = world.machine_named("n1").expect("it is in the scenario");
        world.machines[machine as usize].kernel.netfilter_mut(NsId::HOST).expect("it has one")
    }

    fn cluster_ip(world: &World, name: &str) -> Ipv4Addr {
        let service = world.object(Kind::Service, &Key::new("default", name)).expect("it is there");
        let (spec, _) = service.service().expect("it is a Service");
        spec.cluster_ip.as_deref().expect("it has an address").parse().expect("an address")
    }

    /// The chain that a Service's port 80 is led to, and the first endpoint's.
    fn chains(world: &mut World, name: &str) -> (String, String) {
        let ip = cluster_ip(world, name);
        let save = rules(world).save(Some(Table::Nat));
        let target = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        let of = |begins: String, has: &str| {
            let mut lines = save.lines().filter(|line| line.starts_with(&begins));
            target(lines.find(|line| line.contains(has)).expect("there is one"))
        };
        let service = of(format!("-A KUBE-SERVICES -d {ip}/32"), "--dport 80 ");
        let endpoint = of(format!("-A {service} "), "KUBE-SEP-");
        (service, endpoint)
    }

    #[test]
    fn rules_that_lead_a_service_to_anothers_endpoints_are_found() {
        let mut world = two_services(Mode::Iptables);
        assert_eq!(unprogrammed_service(&world), None);
        let ((a, _), (_, of_b)) = (chains(&mut world, "a"), chains(&mut world, "b"));
        let mut by_hand = |command: &str| rules(&mut world).command(command).unwrap();
        by_hand(&format!("-t nat -I {a} 1 -j {of_b}"));
        let found = unprogrammed_service(&world).unwrap_or_default();
        assert!(found.contains(" of default/a to its ready endpoint"), "{found}");
        // All endpoints of both are led to, and yet wrongly.
        let mut by_hand = |command: &str| rules(&mut world).command(command).unwrap();
        by_hand(&format!("-t nat -D {a} -j {of_b}"));
        assert_eq!(unprogrammed_service(&world), None);
        let mut by_hand = |command: &str| rules(&mut world).command(command).unwrap();
        by_hand("-t nat -I PREROUTING 1 -p tcp --dport 30081 -j ACCEPT");
        let found = unprogrammed_service(&world).unwrap_or_default();
        assert!(found.contains("no rule leads tcp *:30081 of default/b to"), "{found}");
    }

    /// Both Services have endpoints, each the other's.
    fn swapped(world: &World, front: Front) -> Option<Front> {
        let (a, b) = (cluster_ip(world, "a"), cluster_ip(world, "b"));
        let ip = if front.ip == a {
            b
        } else if front.ip == b {
            a
        } else {
            return None;
        };
        Some(Front { ip, ..front })
    }

    #[test]
    fn elements_that_lead_a_service_to_anothers_endpoints_are_found() {
        let mut world = two_services(Mode::Nftables);
        assert_eq!(unprogrammed_service(&world), None);
        let elements: Vec<(FlatKey, FlatValue)> = rules(&mut world).elements().collect();
        let mut next: Vec<_> = elements
            .into_iter()
            .map(|(key, value)| match key {
                FlatKey::Endpoint { front, list, number } => {
                    let front = swapped(&world, front).unwrap_or(front);
                    (FlatKey::Endpoint { front, list, number }, value)
                }
                key => (key, value),
            })
            .collect();
        next.sort_by_key(|(key, _)| *key);
        rules(&mut world).show_flat(proxy::OWNER, next.into());
        let found = unprogrammed_service(&world).unwrap_or_default();
        assert!(found.contains("no rule leads tcp ") && found.contains(" of default/"), "{found}");
    }

    #[test]
    fn virtual_services_of_anothers_endpoints_are_found() {
        let mut world = two_services(Mode::Ipvs);
        assert_eq!(unprogrammed_service(&world), None);
        let mut fronts: BTreeMap<Front, Virtual> = BTreeMap::new();
        for (written, to) in rules(&mut world).leads() {
            let (Some(ip), Some(protocol), Some(port)) =
                (written.ip, written.protocol, written.port)
            else {
                panic!("{written} of a virtual service");
            };
            let front = Front { ip, protocol, port };
            let front = swapped(&world, front).unwrap_or(front);
            fronts.entry(front).or_default().endpoints.push(to);
        }
        let fronts: Vec<_> = fronts.into_iter().map(|(front, of)| (front, Arc::new(of))).collect();
        let chains = Chains { base: Arc::new([]), shared: ChainSet::empty(0), local: Arc::new([]) };
        let request = Request::ApplyVirtual {
            owner: proxy::OWNER.into(),
            chains,
            shared: VirtualSet::empty(0),
            local: fronts.into(),
        };
        let now = world.now;
        let reply = rules(&mut world).request(&request, now);
        assert!(matches!(reply, Reply::Applied { result: Ok(()), .. }), "{reply:?}");
        let found = unprogrammed_service(&world).unwrap_or_default();
        assert!(found.contains("no rule leads tcp ") && found.contains(" of default/"), "{found}");
    }
}
