//! Rules that are wrong, and what I5 says about them.

use super::unprogrammed_service;
use crate::kernel::NsId;
use crate::kernel::netfilter::{Lead, Netfilter};
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
    for Lead { written, to, .. } in rules(&mut world).leads() {
        let (Some(ip), Some(protocol), Some(port)) = (written.ip, written.protocol, written.port)
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

/// What I5 says after these commands on the node.
fn after(mode: Mode, commands: &[&str]) -> Option<String> {
    let mut world = two_services(mode);
    assert_eq!(unprogrammed_service(&world), None);
    for command in commands {
        rules(&mut world).command(command).expect(command);
    }
    unprogrammed_service(&world)
}

#[test]
fn a_rule_that_keeps_clients_from_a_service_is_found_and_named() {
    let found = |command: &str, what: &[&str]| {
        let said = after(Mode::Iptables, &[command]).unwrap_or_default();
        assert!(said.starts_with("n1: no rule leads tcp "), "{command}: {said}");
        assert!(what.iter().all(|what| said.contains(what)), "{command}: {said}");
    };
    // A destination and ports that are more than one Service's.
    found(
        "-t nat -I PREROUTING 1 -d 10.96.0.0/12 -j ACCEPT",
        &["(by hand: -t nat -A PREROUTING -d 10.96.0.0/12 -j ACCEPT)"],
    );
    found("-t nat -I PREROUTING 1 -p tcp --dport 30000:32767 -j ACCEPT", &["tcp *:30080 of "]);
    found("-t nat -I PREROUTING 1 ! -d 10.9.0.0/16 -j ACCEPT", &["! -d 10.9.0.0/16"]);
    found("-t nat -I PREROUTING 1 -m addrtype --dst-type LOCAL -j ACCEPT", &["tcp *:30080 of "]);
    found("-t nat -I PREROUTING 1 -m conntrack --ctstate NEW -j RETURN", &["-j RETURN)"]);
    // Some clients only.
    found("-t nat -I PREROUTING 1 -s 10.9.0.0/16 -j ACCEPT", &["for 10.9.0.1 ", "-s 10.9.0.0/16"]);
    found("-t nat -I PREROUTING 1 -i cni0 -j ACCEPT", &["for who comes in by cni0 ", "-i cni0"]);
    found("-t nat -I KUBE-SERVICES 1 -s 10.9.0.7 -j RETURN", &["for 10.9.0.7 ", "KUBE-SERVICES"]);
    found("-t nat -I OUTPUT 1 -j ACCEPT", &["for the machine's own programs ", "-A OUTPUT"]);
    // Tables before that.
    found("-t raw -A PREROUTING -d 10.96.0.0/12 -j DROP", &["-t raw -A PREROUTING -d 10.96"]);
    found("-t raw -A OUTPUT -j CT --notrack", &["for the machine's own programs ", "notrack"]);
    found("-t mangle -A PREROUTING -p tcp -j DROP", &["-t mangle -A PREROUTING -p tcp"]);
    for rule in ["! -i cni0", "-m conntrack --ctstate NEW", "--sport 1024:65535"] {
        found(&format!("-t mangle -A PREROUTING -p tcp {rule} -j DROP"), &[rule]);
    }
    found("-t raw -A PREROUTING ! -i cni0 -j CT --notrack", &["-t raw -A PREROUTING ! -i cni0"]);
}

#[test]
fn rules_beside_the_way_are_nobodys_business() {
    let commands = [
        "-t nat -I PREROUTING 1 -p udp -j ACCEPT",
        "-t nat -I PREROUTING 1 -d 10.9.0.0/16 -j ACCEPT",
        "-t nat -I PREROUTING 1 -p tcp --dport 20000:29999 -j ACCEPT",
        "-t nat -A PREROUTING -j ACCEPT",
        "-t nat -N MINE",
        "-t nat -A MINE -j RETURN",
        "-t nat -I PREROUTING 1 -j MINE",
        "-t nat -A MINE -i docker0 -j RETURN",
        "-t raw -A PREROUTING -d 10.96.0.0/12 -p tcp -j ACCEPT",
        "-t raw -A PREROUTING -p tcp -j DROP -d 10.96.0.0/12",
        "-t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
        // Nobody who is real comes in like this.
        "-t raw -I PREROUTING 1 -i lo -j CT --notrack",
        "-t mangle -I PREROUTING 1 -s 127.0.0.1 -j DROP",
        "-t mangle -I PREROUTING 1 -s 10.244.0.0/24 -i eth0 -j DROP",
        "-t mangle -I PREROUTING 1 -i nosuch0 -j DROP",
    ];
    assert_eq!(after(Mode::Iptables, &commands), None);
    // Who has accepted at a hook has not spoken for the next table of it.
    assert_eq!(after(Mode::Nftables, &["-t nat -I PREROUTING 1 -j ACCEPT"]), None);
}

#[test]
fn rules_keep_clients_from_services_of_every_mode() {
    for mode in [Mode::Nftables, Mode::Ipvs] {
        let said = after(mode, &["-t raw -A PREROUTING -p tcp -j DROP"]).unwrap_or_default();
        assert!(said.contains("(by hand: -t raw -A PREROUTING -p tcp -j DROP)"), "{said}");
        let elsewhere = "-t nat -I PREROUTING 1 -p tcp -j DNAT --to-destination 172.17.0.2:80";
        let said = after(mode, &[elsewhere]).unwrap_or_default();
        assert!(said.contains("no rule leads tcp "), "{said}");
    }
}

#[test]
fn what_is_no_services_and_is_led_to_a_pod_is_found_and_named() {
    let mut world = two_services(Mode::Iptables);
    let to = rules(&mut world).leads().remove(0).to;
    let command =
        format!("-t nat -A PREROUTING -p tcp --dport 31999 -j DNAT --to-destination {}:80", to.0);
    rules(&mut world).command(&command).expect("a rule");
    let found = unprogrammed_service(&world).unwrap_or_default();
    assert!(found.contains("a rule leads tcp *:31999, which is no Service's, to "), "{found}");
    assert!(found.contains("(by hand: -t nat -A PREROUTING -p tcp "), "{found}");
    // The same of a Service's own destination, before its rules and of this machine alone.
    let mut world = two_services(Mode::Iptables);
    let ip = cluster_ip(&world, "a");
    let command =
        format!("-t nat -I OUTPUT 1 -p tcp -d {ip} -j DNAT --to-destination 10.244.77.7:80");
    rules(&mut world).command(&command).expect("a rule");
    let found = unprogrammed_service(&world).unwrap_or_default();
    assert!(found.contains("for the machine's own programs"), "{found}");
}

/// With 20 nodes and more, only some were judged once.
#[test]
fn each_node_of_many_is_judged() {
    let more = "[image.web]\ntcp = [80]\n[[workload]]\nname = \"x\"\n\
                generate = { deployments = 1, replicas = 2, image = \"web\" }\n\
                [[fault]]\nname = \"ports\"\nkind = \"patch\"\nat = \"20s\"\n\
                object = \"Service/x-1\"\n\
                patch = { spec = { type = \"NodePort\", ports = [{ port = 80, nodePort = 30080 }] } }\n\
                [[node]]\nname = \"m\"\ncount = 39\nnetwork = \"lan\"\n\
                address = \"192.168.1.20\"\n";
    let mut world = testing::world_after(testing::scenario("", more));
    assert_eq!(unprogrammed_service(&world), None);
    for name in ["m1", "m18", "m39"] {
        let machine = world.machine_named(name).expect("it is in the scenario") as usize;
        let rules = |world: &mut World, command: &str| {
            let kernel = &mut world.machines[machine].kernel;
            kernel.netfilter_mut(NsId::HOST).expect("it has one").command(command).expect("a rule");
        };
        rules(&mut world, "-t nat -I PREROUTING 1 -j ACCEPT");
        let found = unprogrammed_service(&world).unwrap_or_default();
        assert!(found.starts_with(&format!("{name}: no rule leads")), "{name}: {found}");
        rules(&mut world, "-t nat -D PREROUTING -j ACCEPT");
    }
    // One rule, of which only one node's own address is meant.
    for machine in &mut world.machines {
        if let Some(rules) = machine.kernel.netfilter_mut(NsId::HOST)
            && machine.name.starts_with('m')
        {
            rules.command("-t nat -I PREROUTING 1 -d 192.168.1.25 -j ACCEPT").expect("a rule");
        }
    }
    let found = unprogrammed_service(&world).unwrap_or_default();
    assert!(found.starts_with("m6: no rule leads tcp *:30080 of default/x-1 to "), "{found}");
}

/// As upstream (kubernetes/kubernetes#127410): a node of another network holds the address on its
/// own device, and loses the machine, which then hears of nothing.
#[test]
fn an_external_address_that_is_a_machines_takes_it_from_other_networks() {
    let amiss = |address: &str| {
        let more = format!(
            r#"
[[network]]
name = "cafe"
cidr = "10.9.0.0/24"
[[link]]
between = ["lan", "cafe"]
[[node]]
name = "here"
network = "lan"
address = "192.168.1.12"
[[node]]
name = "there"
network = "cafe"
address = "10.9.0.9"
[image.web]
tcp = [80]
[[workload]]
name = "w"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: w}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: w}}}}
  template:
    metadata: {{labels: {{app: w}}}}
    spec: {{containers: [{{name: main, image: web}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: w}}
spec: {{selector: {{app: w}}, externalIPs: ["{address}"], ports: [{{port: 80}}]}}
"""
[[fault]]
name = "more"
kind = "scale"
at = "60s"
object = "Deployment/w"
replicas = 4
"#
        );
        let mut scenario = testing::scenario("", &more);
        scenario.cluster.proxy_mode = Mode::Ipvs;
        unprogrammed_service(&testing::world_after(scenario))
    };
    assert_eq!(amiss("192.168.1.12"), None, "of a machine of the API server's network");
    assert_eq!(amiss("198.51.100.7"), None, "of no machine");
    let found = amiss("10.9.0.9").unwrap_or_default();
    assert!(found.starts_with("there: no rule leads tcp "), "{found}");
}
