//! The actor driven by hand: when it syncs, and which connections it has deleted.

use super::*;
use crate::ports::rules::{CtEntry, CtFilter, Protocol, Reply, Request};
use kubesim_runtime::{Clocks, Outbox, Rng, Stream, TimerOp};
use std::net::Ipv4Addr;

/// A proxy, its clock and what it asked for.
pub struct Rig {
    pub proxy: Proxy,
    pub now: Time,
    rng: Rng,
    next: u64,
    timers: std::collections::BTreeMap<Timer, Time>,
    pub asked: Vec<Request>,
}

impl Rig {
    pub fn new() -> Self {
        let config = Config {
            node: "w1".into(),
            mode: Mode::Iptables,
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

    pub fn handle(&mut self, event: Event) {
        self.step(|proxy, ctx| proxy.handle(event, ctx));
    }

    pub fn show(&mut self, world: &World) {
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
        self.handle(Event::Rules(Reply::Applied {
            owner: OWNER.into(),
            version,
            missing: Vec::new(),
            result,
        }));
    }

    /// Lets the time pass until `to`, firing timers.
    pub fn pass(&mut self, to: Time) {
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
