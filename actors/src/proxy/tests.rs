//! Golden files, and what they cannot show.

mod actor;
mod crash;
mod flat;
mod incremental;
mod ipvs;

use super::*;
use crate::objects::{Key, Object};
use crate::ports::rules::text::to_iptables_save;
use serde_json::{Value, json};

fn cidr() -> Ipv4Net {
    "10.2.0.0/16".parse().unwrap()
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// A slice of one unnamed port; an endpoint is `(ip, node, ready, terminating)`.
fn slice(service: &str, name: &str, port: Value, endpoints: &[(&str, &str, bool, bool)]) -> Value {
    let endpoint = |(ip, node, ready, terminating): &(&str, &str, bool, bool)| {
        json!({"addresses": [ip], "nodeName": node, "conditions":
               {"ready": ready, "serving": ready | terminating, "terminating": terminating}})
    };
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"name": name, "namespace": "default",
                        "labels": {"kubernetes.io/service-name": service}},
           "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(), "ports": [port]})
}

fn up(ips: &[&'static str]) -> Vec<(&'static str, &'static str, bool, bool)> {
    ips.iter().map(|ip| (*ip, "w1", true, false)).collect()
}

fn put(view: &mut View, manifest: Value, version: u64) {
    let mut object = Object::from_json(manifest).unwrap();
    object.version = version;
    object.uid = crate::objects::Uid(1);
    view.insert(object.key.clone(), Arc::new(object), version);
}

struct World {
    services: View,
    slices: View,
    version: u64,
}

impl World {
    fn new() -> Self {
        World { services: View::empty(1), slices: View::empty(2), version: 0 }
    }
    fn put(&mut self, manifest: Value) -> &mut Self {
        self.version += 1;
        let slice = manifest["kind"] == "EndpointSlice";
        let view = if slice { &mut self.slices } else { &mut self.services };
        put(view, manifest, self.version);
        self
    }
    fn remove_slice(&mut self, name: &str) -> &mut Self {
        self.version += 1;
        self.slices.remove(&Key::new("default", name), self.version);
        self
    }
    fn compiled(&self) -> Arc<Compiled> {
        compile(&self.services, &self.slices, cidr(), None)
    }
}

fn web(extra: Value) -> Value {
    let mut spec = json!({"clusterIP": "10.3.0.252", "ports": [{"port": 80, "targetPort": 80}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    service("frontend", spec)
}

fn web_slice(endpoints: &[(&str, &str, bool, bool)]) -> Value {
    slice("frontend", "frontend-1", json!({"port": 80, "protocol": "TCP"}), endpoints)
}

/// Compares with `tests/golden/proxy/<name>.txt`, or writes it where `UPDATE_GOLDEN=1` is set.
fn golden(name: &str, world: &World, node: &str) {
    let compiled = world.compiled();
    let local = overlay(&compiled, node);
    let text = to_iptables_save(&compiled.base, &compiled.chains, &local);
    let path = format!("{}/../tests/golden/proxy/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, wanted, "{path}: UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn golden_files() {
    let all = ["10.2.59.13", "10.2.59.14", "10.2.60.2"];
    for count in 0..=3 {
        let mut world = World::new();
        world.put(web(json!({}))).put(web_slice(&up(&all[..count])));
        golden(&format!("cluster-ip-{count}"), &world, "w1");
    }
    let mut world = World::new();
    let ports =
        json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    world.put(web(ports));
    world.put(slice("frontend", "a", json!({"name": "http", "port": 8080}), &up(&all[..1])));
    golden("node-port", &world, "w1");

    let mut world = World::new();
    world.put(web(json!({"externalIPs": ["172.17.4.101"]}))).put(web_slice(&up(&all[..1])));
    golden("guestbook-external-ip", &world, "w1");

    let mut world = World::new();
    world.put(web(json!({"sessionAffinity": "ClientIP"}))).put(web_slice(&up(&all[..2])));
    golden("session-affinity", &world, "w1");

    let mut world = World::new();
    let dns = json!({"clusterIP": "10.3.0.10",
                     "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
    world.put(service("dns", dns));
    let port = json!({"name": "dns", "port": 53, "protocol": "UDP"});
    world.put(slice("dns", "dns-1", port, &up(&all[..2])));
    golden("udp", &world, "w1");
}

/// The Service of the golden files whose external traffic stays on the node.
fn local_world() -> World {
    let mut world = World::new();
    let mut balancer = web(json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000, "loadBalancerSourceRanges": ["203.0.113.0/24"],
        "ports": [{"port": 80, "nodePort": 30080}]}));
    balancer["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
    world.put(balancer);
    world.put(web_slice(&[
        ("10.2.59.13", "w1", true, false),
        ("10.2.60.2", "w2", true, false),
        ("10.2.61.2", "w3", false, true),
    ]));
    world
}

#[test]
fn golden_files_of_traffic_policies() {
    let world = local_world();
    golden("external-local-here", &world, "w1");
    golden("external-local-elsewhere", &world, "w9");
    golden("external-local-terminating", &world, "w3");
    let mut world = World::new();
    world.put(web(json!({"internalTrafficPolicy": "Local"})));
    world.put(web_slice(&[("10.2.59.13", "w1", true, false), ("10.2.60.2", "w2", true, false)]));
    golden("internal-local-here", &world, "w1");
    golden("internal-local-elsewhere", &world, "w9");
}

/// Every jump leads to a chain that is there, on every node.
#[test]
fn no_jump_dangles() {
    let world = local_world();
    let compiled = world.compiled();
    for node in ["w1", "w3", "w9"] {
        let local = overlay(&compiled, node);
        let mut chains: std::collections::BTreeMap<_, _> = compiled.chains.iter().collect();
        chains.extend(local.iter().map(|(key, chain)| (key, chain)));
        for (key, chain) in &chains {
            for rule in &chain.rules {
                if let rules::Target::Jump(name) = &rule.target {
                    let to = rules::ChainKey { table: key.table, name: name.clone() };
                    assert!(chains.contains_key(&to), "{node}: {} -> {name}", key.name);
                }
            }
        }
    }
    assert!(overlay(&compiled, "w9").is_empty(), "most nodes have nothing of their own");
}

#[test]
fn what_is_not_ours_is_skipped() {
    let mut world = World::new();
    world.put(service("headless", json!({"clusterIP": "None", "ports": [{"port": 1}]})));
    world.put(service("name", json!({"type": "ExternalName", "externalName": "a.b"})));
    let mut foreign = web(json!({}));
    foreign["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "x"});
    world.put(foreign);
    assert_eq!(world.compiled().services(), 0);
}

#[test]
fn terminating_endpoints_serve_only_while_none_is_ready() {
    let mut world = World::new();
    world.put(web(json!({}))).put(web_slice(&[("10.2.0.1", "w1", false, true)]));
    let one = to_iptables_save(&[], &world.compiled().chains, &[]);
    assert!(one.contains("--to-destination 10.2.0.1:80"), "{one}");
    world.put(web_slice(&[("10.2.0.1", "w1", false, true), ("10.2.0.2", "w1", true, false)]));
    let two = to_iptables_save(&[], &world.compiled().chains, &[]);
    assert!(!two.contains("10.2.0.1:80") && two.contains("10.2.0.2:80"), "{two}");
}

#[test]
fn the_memo_lets_a_version_be_compiled_once() {
    let mut world = World::new();
    world.put(web(json!({})));
    assert!(Arc::ptr_eq(&world.compiled(), &world.compiled()));
}
