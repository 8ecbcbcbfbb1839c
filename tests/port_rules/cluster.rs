//! From manifests through the proxy's compiler to packets, in both modes.

use super::machine::{CLIENT, Machine, PORTS, SERVER, applied, missing};
use kubesim_actors::objects::{Object, Uid, View};
use kubesim_actors::ports::rules::{Chains, FlatSettings, Request};
use kubesim_actors::proxy::{
    Mode, Shape, compile, flat_overlay, loop_back, overlay, virtual_overlay,
};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

const NODE: &str = "w1";
const OWNER: &str = "kubesim-proxy";

fn put(view: &mut View, manifest: Value, version: u64) {
    let mut object = Object::from_json(manifest).expect("a manifest");
    (object.version, object.uid) = (version, Uid(1));
    view.insert(object.key.clone(), Arc::new(object), version);
}

/// A Service with a node port and an address outside, whose endpoints are on this node.
fn request(mode: Mode, policy: &str, endpoints: &[u16], version: u64) -> Request {
    let (mut services, mut slices) = (View::empty(1), View::empty(2));
    let port = json!({"port": 53, "protocol": "UDP", "nodePort": 30_053});
    put(
        &mut services,
        json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns", "namespace": "default"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "externalIPs": ["198.51.100.7"],
                 "externalTrafficPolicy": policy, "internalTrafficPolicy": policy,
                 "ports": [port]}}),
        version,
    );
    for port in endpoints {
        put(
            &mut slices,
            json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("dns-{port}"), "namespace": "default",
                         "labels": {"kubernetes.io/service-name": "dns"}},
            "endpoints": [{"addresses": [SERVER], "nodeName": NODE, "conditions": {"ready": true}}],
            "ports": [{"port": port, "protocol": "UDP"}]}),
            version,
        );
    }
    slices.advance(version);
    let cluster_cidr = "10.64.0.0/10".parse().expect("a network");
    let compiled = compile(&services, &slices, Shape { mode, cluster_cidr }, None);
    let owner = OWNER.into();
    match mode {
        Mode::Iptables => Request::Apply {
            owner,
            base: Arc::clone(&compiled.base),
            shared: compiled.chains.clone(),
            local: overlay(&compiled, NODE),
        },
        Mode::Nftables => Request::ApplyFlat {
            owner,
            settings: FlatSettings { pods: cluster_cidr, mark: 0x4000 },
            shared: compiled.flat.set.clone(),
            local: flat_overlay(&compiled, NODE),
        },
        Mode::Ipvs => Request::ApplyVirtual {
            owner,
            chains: Chains {
                base: Arc::clone(&compiled.base),
                shared: compiled.chains.clone(),
                local: loop_back(&compiled, NODE),
            },
            shared: compiled.virtuals.set.clone(),
            local: virtual_overlay(&compiled, NODE),
        },
    }
}

fn leads(machine: &mut impl Machine, mode: Mode) {
    let fronts = [
        SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 53),
        SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 53),
        SocketAddrV4::new(CLIENT, 30_053),
    ];
    let mut sport = 4000;
    for (version, policy) in (1..).zip(["Cluster", "Local", "Cluster"]) {
        applied(machine.ask(request(mode, policy, &PORTS[..1], version * 2))).expect("applied");
        assert_eq!(missing(machine, OWNER), Vec::<String>::new());
        for front in fronts {
            sport += 1;
            let answered = machine.udp(sport, front).unwrap_or_else(|| panic!("{policy} {front}"));
            assert_eq!((answered.by, answered.at), (front, PORTS[0]), "{policy}");
        }
        applied(machine.ask(request(mode, policy, &[], version * 2 + 1))).expect("applied");
        for front in &fronts[..2] {
            sport += 1;
            assert_eq!(machine.udp(sport, *front), None, "{policy} {front}");
        }
    }
}

pub fn chains_lead_from_every_front(machine: &mut impl Machine) {
    leads(machine, Mode::Iptables);
}

pub fn elements_lead_from_every_front(machine: &mut impl Machine) {
    leads(machine, Mode::Nftables);
}

pub fn virtual_services_lead_from_every_front(machine: &mut impl Machine) {
    leads(machine, Mode::Ipvs);
}
