//! A proxy that dies at any moment, whose last writes may land after its successor's first ones:
//! in the end the kernel has the rules of the last version and no connection they would not make.

use super::actor::Rig;
use super::incremental::{Op, op};
use super::*;
use crate::ports::rules::{ChainKey, CtEntry, CtFilter, Protocol, Reply, Request, Table};
use proptest::prelude::*;
use std::net::Ipv4Addr;

/// As much of a kernel as the proxy can tell.
#[derive(Default)]
struct Kernel {
    rules: Option<(rules::ChainSet, Overlay)>,
    connections: Vec<CtEntry>,
}

impl Kernel {
    fn carry_out(&mut self, request: &Request) -> Reply {
        match request {
            Request::Apply { owner, shared, local, .. } => {
                self.rules = Some((shared.clone(), Arc::clone(local)));
                let version = shared.version();
                Reply::Applied {
                    owner: owner.clone(),
                    version,
                    missing: Vec::new(),
                    result: Ok(()),
                }
            }
            Request::DeleteConntrack { filters } => {
                let before = self.connections.len();
                self.connections.retain(|entry| !filters.iter().any(|f| matches(f, entry)));
                let entries = (before - self.connections.len()) as u32;
                Reply::ConntrackDeleted { entries }
            }
            Request::ListDnat => Reply::Dnat { entries: self.connections.clone().into() },
            Request::Verify { owner } => {
                Reply::Verified { owner: owner.clone(), intact: true, missing: Vec::new() }
            }
            Request::ApplyFlat { .. } | Request::ApplyVirtual { .. } => {
                unreachable!("the proxy is in iptables mode")
            }
            Request::ReadBase { .. } => unreachable!("the proxy never reads what is not its own"),
        }
    }

    /// A client's packet to Service `s<name>`, if the rules lead it to `backend`.
    fn connect(&mut self, name: u8, backend: u8) {
        let Some((shared, _)) = &self.rules else { return };
        for (protocol, port, target) in [(Protocol::Tcp, "", 8080), (Protocol::Udp, ":u", 5353)] {
            let to = format!("10.2.0.{backend}:{target}");
            let chain = names::endpoint(&format!("default/s{name}{port}"), protocol, &to);
            if shared.get(&ChainKey { table: Table::Nat, name: chain }).is_some() {
                self.connections.push(CtEntry {
                    protocol,
                    src: Ipv4Addr::new(10, 2, 9, 9),
                    sport: 40_000,
                    original_dst: Ipv4Addr::new(10, 3, 0, name),
                    original_dport: if protocol == Protocol::Tcp { 80 } else { 53 },
                    dnat_to: Ipv4Addr::new(10, 2, 0, backend),
                    dnat_port: target,
                });
            }
        }
    }
}

fn matches(filter: &CtFilter, entry: &CtEntry) -> bool {
    fn is<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
        wanted.is_none_or(|wanted| wanted == found)
    }
    is(filter.protocol, entry.protocol)
        && is(filter.original_dst, entry.original_dst)
        && is(filter.original_dport, entry.original_dport)
        && is(filter.dnat_to, entry.dnat_to)
        && is(filter.dnat_port, entry.dnat_port)
}

fn serve(rig: &mut Rig, kernel: &mut Kernel) {
    while !rig.asked.is_empty() {
        for request in std::mem::take(&mut rig.asked) {
            let reply = kernel.carry_out(&request);
            rig.handle(Event::Rules(reply));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(Op),
    /// Clients reach whatever the rules lead to.
    Connect,
    Serve,
    Wait(u16),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => op().prop_map(Step::Change),
        3 => Just(Step::Connect),
        3 => Just(Step::Serve),
        2 => (0u16..1500).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn it_converges_whenever_it_dies(steps in prop::collection::vec(step(), 1..40)) {
        let (mut world, mut kernel) = (World::new(), Kernel::default());
        let mut rig = Rig::new();
        for step in &steps {
            match step {
                Step::Change(op) => {
                    world.apply(op);
                    rig.show(&world);
                }
                Step::Connect => {
                    let all = (0..4).flat_map(|name| (1..6).map(move |backend| (name, backend)));
                    all.for_each(|(name, backend)| kernel.connect(name, backend));
                }
                Step::Serve => serve(&mut rig, &mut kernel),
                Step::Wait(millis) => rig.pass(rig.now + Duration::from_millis((*millis).into())),
                Step::Crash => {
                    let late = std::mem::take(&mut rig.asked);
                    let now = rig.now;
                    rig = Rig::new();
                    rig.now = now;
                    rig.show(&world);
                    serve(&mut rig, &mut kernel);
                    late.iter().for_each(|request| drop(kernel.carry_out(request)));
                }
            }
        }
        rig.show(&world);
        for _ in 0..70 {
            serve(&mut rig, &mut kernel);
            rig.pass(rig.now + Duration::from_secs(1));
        }
        let wanted = compile_anew(&world.services, &world.slices, cidr(), None);
        let (chains, local) = kernel.rules.take().expect("rules were applied");
        prop_assert!(wanted.chains.diff(&chains).next().is_none());
        prop_assert_eq!(overlay(&wanted, "w1"), local);
        let stale = conntrack::stale_entries(&wanted, &kernel.connections);
        prop_assert!(stale.is_empty(), "{stale:?}");
    }
}
