//! Virtual services and their chains: which, on which node.

use super::*;
use crate::ports::rules::flat::Front;
use crate::ports::rules::virtuals::Virtual;
use crate::ports::rules::{Protocol, Table, text};
use std::net::Ipv4Addr;

impl World {
    fn virtuals(&self) -> Arc<Compiled> {
        let shape = Shape { mode: Mode::Ipvs, cluster_cidr: cidr() };
        compile(&self.services, &self.slices, shape, None)
    }
}

fn front(ip: &str, port: u16) -> Front {
    Front { ip: ip.parse().unwrap(), protocol: Protocol::Tcp, port }
}

fn at(ips: &[&str]) -> Vec<(Ipv4Addr, u16)> {
    ips.iter().map(|ip| (ip.parse().unwrap(), 80)).collect()
}

fn endpoints(compiled: &Compiled, front: Front) -> Vec<(Ipv4Addr, u16)> {
    compiled.virtuals.set.get(&front).expect("a virtual service").endpoints.clone()
}

/// The rules of a chain, as iptables has them.
fn chain(compiled: &Compiled, table: Table, name: &str) -> Vec<String> {
    let saved = text::to_iptables_save(&compiled.base, &compiled.chains, &[]);
    let head = format!("*{}\n", text::table_name(table));
    let of_table = saved.split_once(&head).map_or("", |(_, rest)| rest);
    let of_table = of_table.split("\nCOMMIT").next().unwrap_or_default();
    let prefix = format!("-A {name} ");
    of_table.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn a_service_is_its_fronts_and_their_endpoints() {
    let mut world = World::new();
    world.put(web(json!({"type": "NodePort", "externalIPs": ["172.17.4.101"],
                         "ports": [{"port": 80, "nodePort": 30080}],
                         "sessionAffinity": "ClientIP"})));
    world.put(web_slice(&up(&["10.2.59.13", "10.2.59.14"])));
    let compiled = world.virtuals();
    let fronts = [front("0.0.0.0", 30080), front("10.3.0.252", 80), front("172.17.4.101", 80)];
    let service = Virtual {
        endpoints: at(&["10.2.59.13", "10.2.59.14"]),
        sticky: Some(10_800),
        elsewhere: false,
    };
    let outside = Virtual { elsewhere: true, ..service.clone() };
    let all: Vec<_> = compiled.virtuals.set.iter().map(|(f, s)| (*f, (**s).clone())).collect();
    let services = [service.clone(), service, outside];
    assert_eq!(all, fronts.into_iter().zip(services).collect::<Vec<_>>());
    assert!(virtual_overlay(&compiled, "w1").is_empty(), "no policy goes by the node");
    let services = chain(&compiled, Table::Nat, "KUBE-SERVICES");
    assert_eq!(services.len(), 3, "{services:?}");
    assert!(services[0].starts_with("! -s 10.2.0.0/16 -d 10.3.0.252/32 -p tcp"), "{services:?}");
    assert!(services[1].starts_with("-d 172.17.4.101/32 -p tcp"), "{services:?}");
    assert!(services.iter().take(2).all(|rule| rule.ends_with("-j KUBE-MARK-MASQ")));
    let ports = chain(&compiled, Table::Nat, "KUBE-NODEPORTS");
    assert!(ports[0].ends_with("--dport 30080 -j KUBE-MARK-MASQ"), "{ports:?}");
    let external = chain(&compiled, Table::Filter, "KUBE-EXTERNAL-SERVICES");
    assert!(external[0].ends_with("--dport 80 -j RETURN"), "{external:?}");
    assert!(external[1].starts_with("-d 10.3.0.252/32") && external[1].contains("REJECT"));
}

#[test]
fn what_is_here_talks_to_itself_through_a_chain_of_the_nodes_own() {
    let mut world = World::new();
    world.put(web(json!({}))).put(web_slice(&up(&["10.2.59.13"])));
    let compiled = world.virtuals();
    assert_eq!(chain(&compiled, Table::Nat, "KUBE-LOOP-BACK"), Vec::<String>::new());
    let jump = &chain(&compiled, Table::Nat, "KUBE-POSTROUTING")[0];
    assert!(jump.ends_with("-j KUBE-LOOP-BACK"), "before what is not marked returns: {jump}");
    assert_eq!(loop_back(&compiled, "w1")[0].1.rules.len(), 1);
    assert!(loop_back(&compiled, "w2").is_empty());
}

#[test]
fn local_policies_are_a_nodes_own() {
    let compiled = local_world().virtuals();
    let balancer = front("198.51.100.7", 80);
    let everywhere = at(&["10.2.59.13", "10.2.60.2"]);
    assert_eq!(endpoints(&compiled, balancer), everywhere);
    assert_eq!(endpoints(&compiled, front("10.3.0.252", 80)), everywhere);
    for (node, here) in [("w1", "10.2.59.13"), ("w3", "10.2.61.2")] {
        let own = virtual_overlay(&compiled, node);
        let fronts: Vec<_> = own.iter().map(|(front, _)| *front).collect();
        assert_eq!(fronts, [front("0.0.0.0", 30080), balancer], "{node}");
        assert!(own.iter().all(|(_, service)| service.endpoints == at(&[here])), "{node}");
    }
    assert!(virtual_overlay(&compiled, "w9").is_empty());
    let firewall = chain(&compiled, Table::Filter, "KUBE-PROXY-FIREWALL");
    assert!(firewall[0].starts_with("-s 203.0.113.0/24 -d 198.51.100.7/32"), "{firewall:?}");
    assert!(firewall[0].ends_with("RETURN") && firewall[1].ends_with("DROP"), "{firewall:?}");
    let mut world = World::new();
    world.put(web(json!({"internalTrafficPolicy": "Local"})));
    world.put(web_slice(&up(&["10.2.59.13"])));
    let compiled = world.virtuals();
    assert_eq!(endpoints(&compiled, front("10.3.0.252", 80)), []);
    assert_eq!(virtual_overlay(&compiled, "w1")[0].1.endpoints, at(&["10.2.59.13"]));
}

#[test]
fn the_first_by_name_gets_a_front_and_leaves_it_to_the_next() {
    let mut world = World::new();
    for name in ["b", "a"] {
        let ip = if name == "a" { "10.3.0.1" } else { "10.3.0.2" };
        let spec = json!({"clusterIP": ip, "externalIPs": ["172.17.4.101"],
                          "ports": [{"port": 80}]});
        world.put(service(name, spec));
        let pod = if name == "a" { "10.2.0.1" } else { "10.2.0.2" };
        world.put(slice(name, name, json!({"port": 80}), &up(&[pod])));
    }
    let outside = front("172.17.4.101", 80);
    assert_eq!(endpoints(&world.virtuals(), outside), at(&["10.2.0.1"]));
    let shape = Shape { mode: Mode::Ipvs, cluster_cidr: cidr() };
    let (services, slices) = (world.services.clone(), world.slices.clone());
    let basis = Basis { services, slices, compiled: world.virtuals() };
    world.version += 1;
    world.services.remove(&Key::new("default", "a"), world.version);
    let next = compile_anew(&world.services, &world.slices, shape, Some(&basis));
    assert_eq!(endpoints(&next, outside), at(&["10.2.0.2"]));
}
