//! Flat elements: which, and that one change is few of them.

use super::*;
use crate::ports::rules::Protocol;
use crate::ports::rules::flat::{FlatKey, FlatValue, Front, List, Policy, Treatment};
use kubesim_runtime::Change;
use std::net::Ipv4Addr;

impl World {
    fn flat(&self) -> Arc<Compiled> {
        let shape = Shape { mode: Mode::Nftables, cluster_cidr: cidr() };
        compile(&self.services, &self.slices, shape, None)
    }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn front(address: &str, port: u16) -> Front {
    Front { ip: ip(address), protocol: Protocol::Tcp, port }
}

fn treatment(policy: Policy, everywhere: u16, here: u16) -> Treatment {
    Treatment { policy, everywhere, here, sticky: false, guarded: false }
}

#[test]
fn a_service_is_a_treatment_and_its_endpoints() {
    let mut world = World::new();
    world.put(web(json!({}))).put(web_slice(&up(&["10.2.59.13", "10.2.59.14"])));
    let compiled = world.flat();
    let of = front("10.3.0.252", 80);
    let endpoint = |number| FlatKey::Endpoint { front: of, list: List::Everywhere, number };
    let expected = [
        (FlatKey::Service(of), FlatValue::Treatment(treatment(Policy::Inside, 2, 0))),
        (endpoint(0), FlatValue::To(ip("10.2.59.13"), 80)),
        (endpoint(1), FlatValue::To(ip("10.2.59.14"), 80)),
    ];
    let all: Vec<_> = compiled.flat.set.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(all, expected);
    assert!(compiled.chains.is_empty(), "no chain in nftables mode");
    let here: Vec<_> = flat_overlay(&compiled, "w1").iter().map(|(key, _)| *key).collect();
    assert_eq!(here, ["10.2.59.13", "10.2.59.14"].map(|at| FlatKey::Hairpin(ip(at))));
    assert!(flat_overlay(&compiled, "w2").is_empty());
}

#[test]
fn without_endpoints_every_front_refuses() {
    let mut world = World::new();
    world.put(web(json!({"type": "NodePort", "externalIPs": ["172.17.4.101"],
                         "ports": [{"port": 80, "nodePort": 30080}]})));
    let refused: Vec<_> = world.flat().flat.set.iter().map(|(key, _)| *key).collect();
    let fronts = [front("0.0.0.0", 30080), front("10.3.0.252", 80), front("172.17.4.101", 80)];
    assert_eq!(refused, fronts.map(FlatKey::Refused));
}

#[test]
fn local_policies_are_a_nodes_own() {
    let compiled = local_world().flat();
    let (node_port, balancer) = (front("0.0.0.0", 30080), front("198.51.100.7", 80));
    let guarded = Treatment { guarded: true, ..treatment(Policy::OutsideLocal, 2, 0) };
    let shared = |front| compiled.flat.set.get(&FlatKey::Service(front)).copied();
    assert_eq!(shared(balancer), Some(FlatValue::Treatment(guarded)));
    let source = FlatKey::Source { front: balancer, net: "203.0.113.0/24".parse().unwrap() };
    assert_eq!(compiled.flat.set.get(&source), Some(&FlatValue::Present));
    let of = front("10.3.0.252", 80);
    for (node, endpoint) in [("w1", "10.2.59.13"), ("w3", "10.2.61.2")] {
        let overlay: std::collections::BTreeMap<_, _> =
            flat_overlay(&compiled, node).iter().copied().collect();
        let here = treatment(Policy::OutsideLocal, 2, 1);
        assert_eq!(overlay[&FlatKey::Service(node_port)], FlatValue::Treatment(here));
        let first = FlatKey::Endpoint { front: node_port, list: List::Here, number: 0 };
        assert_eq!(
            overlay[&first],
            FlatValue::To(ip(endpoint), 80),
            "terminating, for want of better"
        );
        assert!(!overlay.contains_key(&FlatKey::Service(of)), "as on every node");
    }
    assert!(flat_overlay(&compiled, "w9").is_empty());
}

#[test]
fn a_contested_front_is_the_first_services() {
    let mut world = World::new();
    let with = |name: &str, address: &str| {
        let spec = json!({"clusterIP": address, "externalIPs": ["172.17.4.101"],
                          "ports": [{"port": 80}]});
        service(name, spec)
    };
    let alias = |world: &World| {
        world
            .flat()
            .flat
            .set
            .get(&FlatKey::Endpoint {
                front: front("172.17.4.101", 80),
                list: List::Everywhere,
                number: 0,
            })
            .copied()
    };
    for name in ["b", "a", "c"] {
        world.put(with(name, &format!("10.3.0.{}", name.as_bytes()[0])));
        let endpoint = format!("10.2.0.{}", name.as_bytes()[0]);
        let endpoints = [(endpoint.as_str(), "w1", true, false)];
        world.put(slice(name, name, json!({"port": 80}), &endpoints));
    }
    assert_eq!(alias(&world), Some(FlatValue::To(ip("10.2.0.97"), 80)));
    world.version += 1;
    world.services.remove(&Key::new("default", "a"), world.version);
    assert_eq!(alias(&world), Some(FlatValue::To(ip("10.2.0.98"), 80)));
    // Without an endpoint it refuses, though the next Service has some.
    world.remove_slice("b");
    assert_eq!(alias(&world), None);
    let refused = FlatKey::Refused(front("172.17.4.101", 80));
    assert!(world.flat().flat.set.get(&refused).is_some());
}

#[test]
fn one_endpoint_more_is_two_elements() {
    let mut world = World::new();
    world.put(web(json!({}))).put(web_slice(&up(&["10.2.59.13"])));
    let before = world.flat();
    world.put(web_slice(&up(&["10.2.59.13", "10.2.59.14"])));
    let after = world.flat();
    let changes: Vec<_> = before.flat.set.diff(&after.flat.set).collect();
    assert!(matches!(changes[..], [Change::Changed { .. }, Change::Added(..)]), "{changes:?}");
}
