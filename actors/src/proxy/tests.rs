//! Golden files, the incremental compilation against one from scratch, and the actor at work.

use super::*;
use crate::objects::{Key, Object};
use crate::ports::rules::{CtEntry, CtFilter, Protocol, Reply, Request};
use kubesim_runtime::{Clocks, Outbox, Rng, Stream, TimerOp};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

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

#[derive(Clone, Debug)]
enum Op {
    Service { name: u8, flavour: u8 },
    DropService { name: u8 },
    Slice { service: u8, index: u8, endpoints: Vec<(u8, u8, bool, bool)> },
    DropSlice { service: u8, index: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let endpoint = (1u8..6, 0u8..3, any::<bool>(), any::<bool>());
    prop_oneof![
        (0u8..4, 0u8..6).prop_map(|(name, flavour)| Op::Service { name, flavour }),
        (0u8..4).prop_map(|name| Op::DropService { name }),
        (0u8..4, 0u8..2, prop::collection::vec(endpoint, 0..4))
            .prop_map(|(service, index, endpoints)| Op::Slice { service, index, endpoints }),
        (0u8..4, 0u8..2).prop_map(|(service, index)| Op::DropSlice { service, index }),
    ]
}

impl World {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Service { name, flavour } => {
                let mut spec = json!({"clusterIP": format!("10.3.0.{name}"),
                                      "ports": [{"port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]});
                let extra = match flavour {
                    1 => json!({"externalIPs": ["172.17.4.101"]}),
                    2 => json!({"externalTrafficPolicy": "Local", "externalIPs": ["172.17.4.102"]}),
                    3 => json!({"internalTrafficPolicy": "Local"}),
                    4 => json!({"sessionAffinity": "ClientIP"}),
                    5 => json!({"clusterIP": "None"}),
                    _ => json!({}),
                };
                spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
                self.put(service(&format!("s{name}"), spec));
            }
            Op::DropService { name } => {
                self.version += 1;
                self.services.remove(&Key::new("default", format!("s{name}")), self.version);
            }
            Op::Slice { service, index, endpoints } => {
                let nodes = ["w1", "w2", "w3"];
                let ips: Vec<_> = endpoints.iter().map(|e| format!("10.2.0.{}", e.0)).collect();
                let endpoints: Vec<_> = endpoints
                    .iter()
                    .zip(&ips)
                    .map(|(e, ip)| (ip.as_str(), nodes[usize::from(e.1)], e.2, e.3))
                    .collect();
                let port = match index {
                    0 => json!({"port": 8080}),
                    _ => json!({"name": "u", "port": 5353, "protocol": "UDP"}),
                };
                let (service, name) = (format!("s{service}"), format!("s{service}-{index}"));
                self.put(slice(&service, &name, port, &endpoints));
            }
            Op::DropSlice { service, index } => {
                self.remove_slice(&format!("s{service}-{index}"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever the history, and however many versions a proxy skips.
    #[test]
    fn an_incremental_compilation_is_the_one_from_scratch(
        ops in prop::collection::vec((op(), any::<bool>()), 1..30),
    ) {
        let mut world = World::new();
        let mut basis: Option<Basis> = None;
        for (op, look) in &ops {
            world.apply(op);
            if !look {
                continue;
            }
            let (services, slices) = (world.services.clone(), world.slices.clone());
            let step = compile_anew(&services, &slices, cidr(), basis.as_ref());
            let scratch = compile_anew(&services, &slices, cidr(), None);
            prop_assert!(step.same_rules(&scratch));
            prop_assert_eq!(step.chains.version(), scratch.chains.version());
            prop_assert_eq!(&step.backends, &scratch.backends);
            prop_assert_eq!(&step.pieces, &scratch.pieces);
            for node in ["w1", "w2", "w9"] {
                prop_assert_eq!(overlay(&step, node), overlay(&scratch, node));
            }
            basis = Some(Basis { services, slices, compiled: Arc::new(step) });
        }
    }
}

/// A proxy, its clock and what it asked for.
struct Rig {
    proxy: Proxy,
    now: Time,
    rng: Rng,
    next: u64,
    timers: std::collections::BTreeMap<Timer, Time>,
    asked: Vec<Request>,
}

impl Rig {
    fn new() -> Self {
        let config = Config {
            node: "w1".into(),
            cluster_cidr: cidr(),
            min_sync: Duration::from_secs(1),
            resync: Duration::from_secs(30),
            interface: "eth0".into(),
        };
        let mut rng = Rng::new(Stream { seed: 1, label: "proxy", index: 0, incarnation: 0 });
        let (mut next, mut out) = (0, Outbox::new(false));
        let mut ctx = Context::new(Clocks::default(), &mut rng, &mut next, &mut out);
        let proxy = Proxy::start(&config, &mut ctx);
        Rig { proxy, now: Time::ZERO, rng, next, timers: Default::default(), asked: Vec::new() }
    }

    fn step(&mut self, step: impl FnOnce(&mut Proxy, &mut Context<'_, Proxy>)) {
        let mut out = Outbox::new(true);
        let clocks = Clocks { now: self.now, ..Clocks::default() };
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.next, &mut out);
        step(&mut self.proxy, &mut ctx);
        for (_, effect) in out.effects {
            if let Effect::Rules(request) = effect {
                self.asked.push(request);
            }
        }
        for timer in out.timers {
            match timer {
                TimerOp::Set(timer, at) => drop(self.timers.insert(timer, at)),
                TimerOp::Clear(timer) => drop(self.timers.remove(&timer)),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.step(|proxy, ctx| proxy.handle(event, ctx));
    }

    fn show(&mut self, world: &World) {
        for (kind, view) in [(Kind::Service, &world.services), (Kind::EndpointSlice, &world.slices)]
        {
            let (scope, view) = (api::Scope::All, view.clone());
            self.handle(Event::Api(api::Event::News(api::News::View { kind, scope, view })));
        }
    }

    /// Answers the Apply that was asked last.
    fn answer(&mut self, result: Result<(), String>) {
        let asked = std::mem::take(&mut self.asked);
        let version = asked.iter().find_map(|request| match request {
            Request::Apply { shared, .. } => Some(shared.version()),
            _ => None,
        });
        let version = version.expect("an Apply was asked");
        self.handle(Event::Rules(Reply::Applied { owner: OWNER.into(), version, result }));
    }

    /// Lets the time pass until `to`, firing timers.
    fn pass(&mut self, to: Time) {
        while let Some((timer, at)) =
            self.timers.iter().map(|(t, at)| (*t, *at)).min_by_key(|t| t.1)
        {
            if at > to {
                break;
            }
            self.timers.remove(&timer);
            self.now = at;
            self.step(|proxy, ctx| proxy.timeout(timer, ctx));
        }
        self.now = to;
    }

    fn applies(&self) -> usize {
        self.asked.iter().filter(|request| matches!(request, Request::Apply { .. })).count()
    }

    fn deleted(&self) -> Vec<CtFilter> {
        let filters = self.asked.iter().filter_map(|request| match request {
            Request::DeleteConntrack { filters } => Some(filters.to_vec()),
            _ => None,
        });
        filters.flatten().collect()
    }
}

fn udp_world(endpoints: &[&'static str]) -> World {
    let mut world = World::new();
    world.put(service(
        "s",
        json!({"clusterIP": "10.3.0.9", "type": "NodePort",
        "ports": [{"port": 8125, "protocol": "UDP", "nodePort": 30125}]}),
    ));
    udp_endpoints(&mut world, endpoints);
    world
}

fn udp_endpoints(world: &mut World, endpoints: &[&'static str]) {
    world.put(slice("s", "s-1", json!({"port": 8125, "protocol": "UDP"}), &up(endpoints)));
}

#[test]
fn the_first_change_goes_at_once_and_the_rest_together() {
    let mut world = udp_world(&["10.2.0.1"]);
    let mut rig = Rig::new();
    rig.show(&world);
    assert_eq!(rig.applies(), 1);
    rig.answer(Ok(()));
    assert!(matches!(rig.asked[..], [Request::ListDnat]));
    for ip in ["10.2.0.2", "10.2.0.3", "10.2.0.4"] {
        udp_endpoints(&mut world, &[ip]);
        rig.show(&world);
    }
    assert_eq!(rig.applies(), 0);
    rig.pass(Time::from_millis(999));
    assert_eq!(rig.applies(), 0);
    rig.pass(Time::from_millis(1000));
    assert_eq!(rig.applies(), 1);
    rig.answer(Ok(()));
    rig.show(&world);
    rig.pass(Time::from_secs(10));
    assert_eq!(rig.applies(), 0, "nothing new: nothing sent");
}

#[test]
fn udp_flows_go_when_their_endpoint_does_and_only_then() {
    let mut world = udp_world(&["10.2.0.1", "10.2.0.2"]);
    let mut rig = Rig::new();
    rig.show(&world);
    rig.answer(Ok(()));
    rig.asked.clear();
    rig.pass(Time::from_secs(5));
    udp_endpoints(&mut world, &["10.2.0.2"]);
    rig.show(&world);
    assert!(rig.deleted().is_empty(), "first the rules, then the flush");
    rig.answer(Ok(()));
    let deleted = rig.deleted();
    assert_eq!(deleted.len(), 2, "the ClusterIP's and the node port's");
    assert!(deleted.iter().all(|f| f.dnat_to == Some(Ipv4Addr::new(10, 2, 0, 1))));
    rig.asked.clear();
    // To zero, and back: whatever there is of the Service goes both times.
    for endpoints in [&[][..], &["10.2.0.7"][..]] {
        rig.pass(rig.now + Duration::from_secs(5));
        udp_endpoints(&mut world, endpoints);
        rig.show(&world);
        rig.answer(Ok(()));
        let deleted = rig.deleted();
        let whole = deleted.iter().filter(|f| f.dnat_to.is_none() && f.original_dport.is_some());
        assert_eq!(whole.count(), 2, "{deleted:?}");
        rig.asked.clear();
    }
}

#[test]
fn a_tcp_flow_stays_while_any_service_lists_its_endpoint() {
    let mut world = World::new();
    world.put(web(json!({}))).put(web_slice(&up(&["10.2.0.1", "10.2.0.2"])));
    let mut rig = Rig::new();
    rig.show(&world);
    rig.answer(Ok(()));
    rig.pass(Time::from_secs(5));
    world.put(web_slice(&[("10.2.0.1", "w1", false, true), ("10.2.0.2", "w1", true, false)]));
    rig.show(&world);
    rig.answer(Ok(()));
    assert!(rig.deleted().is_empty(), "it terminates gracefully");
    rig.pass(Time::from_secs(10));
    world.put(web_slice(&up(&["10.2.0.2"])));
    rig.show(&world);
    assert_eq!(rig.applies(), 0, "the rules do not change");
    let deleted = rig.deleted();
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0].dnat_to, Some(Ipv4Addr::new(10, 2, 0, 1)));
    assert_eq!(deleted[0].protocol, Some(Protocol::Tcp));
}

fn entry(protocol: Protocol, original: ([u8; 4], u16), to: ([u8; 4], u16)) -> CtEntry {
    CtEntry {
        protocol,
        src: Ipv4Addr::new(10, 2, 9, 9),
        sport: 40_000,
        original_dst: original.0.into(),
        original_dport: original.1,
        dnat_to: to.0.into(),
        dnat_port: to.1,
    }
}

/// A restart with nothing changed moves no flow.
#[test]
fn a_restart_deletes_only_what_is_stale() {
    let world = udp_world(&["10.2.0.1"]);
    let mut rig = Rig::new();
    rig.show(&world);
    rig.answer(Ok(()));
    rig.asked.clear();
    let entries = vec![
        entry(Protocol::Udp, ([10, 3, 0, 9], 8125), ([10, 2, 0, 1], 8125)),
        entry(Protocol::Udp, ([192, 168, 1, 1], 30125), ([10, 2, 0, 1], 8125)),
        entry(Protocol::Udp, ([10, 3, 0, 9], 8125), ([10, 2, 0, 5], 8125)),
        entry(Protocol::Tcp, ([10, 3, 0, 77], 80), ([10, 2, 0, 6], 80)),
        entry(Protocol::Tcp, ([192, 168, 1, 1], 8080), ([172, 18, 0, 2], 80)),
    ];
    rig.handle(Event::Rules(Reply::Dnat { entries: entries.into() }));
    let deleted = rig.deleted();
    let rewritten = deleted.iter().filter(|f| f.dnat_to != f.original_dst);
    let gone: Vec<_> = rewritten.map(|f| f.dnat_to.unwrap().octets()).collect();
    assert_eq!(gone, [[10, 2, 0, 5], [10, 2, 0, 6]]);
}

#[test]
fn what_a_third_party_flushed_is_put_back() {
    let world = udp_world(&["10.2.0.1"]);
    let mut rig = Rig::new();
    rig.show(&world);
    rig.answer(Ok(()));
    rig.asked.clear();
    rig.pass(Time::from_secs(30));
    assert_eq!(rig.applies(), 1, "the first resync overwrites what an earlier proxy left");
    rig.answer(Ok(()));
    rig.asked.clear();
    rig.pass(Time::from_secs(60));
    assert!(matches!(rig.asked[..], [Request::Verify { .. }]));
    let missing = vec!["nat KUBE-SERVICES".to_owned()];
    let verified = Reply::Verified { owner: OWNER.into(), intact: false, missing };
    rig.asked.clear();
    rig.handle(Event::Rules(verified));
    assert_eq!(rig.applies(), 1);
}

#[test]
fn refused_rules_are_tried_again() {
    let world = udp_world(&["10.2.0.1"]);
    let mut rig = Rig::new();
    rig.show(&world);
    rig.answer(Err("another app is holding the xtables lock".into()));
    assert_eq!(rig.applies(), 0);
    rig.pass(Time::from_secs(1));
    assert_eq!(rig.applies(), 1);
    rig.answer(Ok(()));
    assert!(rig.proxy.applied.is_some() && !rig.proxy.force);
}
