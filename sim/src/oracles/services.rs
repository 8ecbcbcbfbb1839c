//! I5 and I6: rules lead every Service to its endpoints, and tracked flows to somebody.

use super::nodes_on;
use crate::kernel::NsId;
use crate::world::World;
use crate::world::probes::pod_ip;
use kubesim_actors::objects::Kind;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// A service whose ready endpoints a node's rules do not lead to.
pub(super) fn unprogrammed_service(world: &World) -> Option<String> {
    let ready = service_ends(world);
    // The compiled rules are shared: a few nodes stand for all of a big cluster.
    let step = (world.scenario.nodes.len() / 10).max(1);
    for machine in nodes_on(world).step_by(step) {
        let Some(netfilter) = machine.kernel.netfilter(NsId::HOST) else { continue };
        let programmed = netfilter.dnat_targets();
        let missing = |end: &&ServiceEnd| end.ready && !programmed.contains(&end.to);
        if let Some(ServiceEnd { service, to, .. }) = ready.iter().find(missing) {
            return Some(format!(
                "{}: no rule leads {service} to its ready endpoint {}:{}",
                machine.name, to.0, to.1
            ));
        }
        let known: BTreeSet<_> = ready.iter().map(|end| end.to).collect();
        let pods = world.scenario.cluster.pod_network;
        if let Some(to) = programmed.iter().find(|to| pods.contains(&to.0) && !known.contains(to)) {
            return Some(format!(
                "{}: a rule leads to {}:{}, which is no ready endpoint",
                machine.name, to.0, to.1
            ));
        }
    }
    None
}

/// Where a Service leads to.
struct ServiceEnd {
    service: String,
    to: (Ipv4Addr, u16),
    ready: bool,
}

/// The ready endpoints of every Service that has a ClusterIP, and of one that has none those that
/// still serve while they end, as kube-proxy does it (KEP-1669).
fn service_ends(world: &World) -> Vec<ServiceEnd> {
    let cluster_ips: BTreeSet<String> = world
        .objects(Kind::Service)
        .filter(|s| {
            let proxied = s.label("service.kubernetes.io/service-proxy-name").is_none();
            let ip = s.service().and_then(|(spec, _)| spec.cluster_ip.clone());
            proxied && ip.is_some_and(|ip| ip != "None" && !ip.is_empty())
        })
        .map(|s| s.key.to_string())
        .collect();
    let mut found = Vec::new();
    for object in world.objects(Kind::EndpointSlice) {
        let Some(slice) = object.endpoint_slice() else { continue };
        let service = object.label("kubernetes.io/service-name").unwrap_or_default();
        let service = format!("{}/{service}", object.key.namespace);
        if !cluster_ips.contains(&service) {
            continue;
        }
        for endpoint in &slice.endpoints {
            let state = endpoint.conditions.clone().unwrap_or_default();
            let ready = state.ready.unwrap_or(true);
            let ending = state.serving.unwrap_or(ready) && state.terminating == Some(true);
            let ip = endpoint.addresses.first().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
            let Some(ip) = ip.filter(|_| ready || ending) else { continue };
            for port in slice.ports.iter().flatten().filter_map(|p| p.port) {
                found.push(ServiceEnd { service: service.clone(), to: (ip, port as u16), ready });
            }
        }
    }
    let has_ready: BTreeSet<String> =
        found.iter().filter(|end| end.ready).map(|end| end.service.clone()).collect();
    found.retain(|end| end.ready || !has_ready.contains(&end.service));
    found
}

/// A conntrack entry that sends datagrams, or a connection that is not closing, to an address that
/// is nobody's.
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
    use crate::report::{Outcome, Trace};
    use crate::scenario::Invariant;
    use crate::world::testing;

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
}
