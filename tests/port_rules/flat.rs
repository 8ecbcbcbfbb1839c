//! Stories of nftables mode.

use super::machine::{Machine, PORTS, SERVER, applied, missing};
use kubesim_actors::ports::rules::flat::{
    FlatKey, FlatSet, FlatValue, Front, List, Policy, Treatment,
};
use kubesim_actors::ports::rules::{CtFilter, FlatSettings, Protocol, Reply, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

pub const OWNER: &str = "kubesim-test";
/// Addresses that are nowhere but in the rules.
const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 53);
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 53);
const NODE_PORT: u16 = 30_053;
/// What is not a pod is masqueraded: the client, unless a story says otherwise.
const PODS: &str = "10.64.0.0/10";

pub type Elements = BTreeMap<FlatKey, FlatValue>;

fn front(at: SocketAddrV4) -> Front {
    Front { ip: *at.ip(), protocol: Protocol::Udp, port: at.port() }
}

fn node_port() -> Front {
    front(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, NODE_PORT))
}

fn treatment(policy: Policy, everywhere: u16, here: u16) -> Treatment {
    Treatment { policy, everywhere, here, affinity: 0, guarded: false }
}

/// A Service with endpoints at these ports of the server.
fn service(treatment: Treatment, list: List, ports: &[u16]) -> Elements {
    let of = front(VIP);
    let mut all = Elements::new();
    all.insert(FlatKey::Service(of), FlatValue::Treatment(treatment));
    for (number, port) in (0..).zip(ports) {
        all.insert(FlatKey::Endpoint { of, list, number }, FlatValue::To(SERVER, *port));
        if treatment.affinity > 0 {
            all.insert(FlatKey::Member { of, list, ip: SERVER, port: *port }, FlatValue::Present);
        }
    }
    all
}

fn inside(ports: &[u16]) -> Elements {
    service(treatment(Policy::Inside, ports.len() as u16, 0), List::Everywhere, ports)
}

/// Another front of the same Service.
fn alias(all: &mut Elements, at: Front, treatment: Treatment) {
    all.insert(FlatKey::Service(at), FlatValue::Treatment(treatment));
    all.insert(FlatKey::Alias(at), FlatValue::Of(front(VIP)));
}

pub fn request(all: &Elements, local: &Elements, version: u64) -> Request {
    let mut shared = FlatSet::empty(7);
    for (key, value) in all {
        shared.insert(*key, *value, version);
    }
    shared.advance(version);
    let settings = FlatSettings { pods: PODS.parse().expect("a network"), mark: 0x4000 };
    let local = local.iter().map(|(key, value)| (*key, *value)).collect();
    Request::ApplyFlat { owner: OWNER.into(), settings, shared, local }
}

fn set(machine: &mut impl Machine, all: &Elements, version: u64) {
    applied(machine.ask(request(all, &Elements::new(), version))).expect("applied");
    assert_eq!(missing(machine, OWNER), Vec::<String>::new());
}

/// Where flows from so many ports of the client end.
fn ends(machine: &mut impl Machine, sports: std::ops::Range<u16>, to: SocketAddrV4) -> Vec<u16> {
    let end = |sport| {
        let answered = machine.udp(sport, to)?;
        assert_eq!(answered.by, to, "translated back");
        Some(answered.at)
    };
    sports.filter_map(end).collect()
}

pub fn a_service_leads_to_all_its_endpoints(machine: &mut impl Machine) {
    set(machine, &inside(&PORTS), 1);
    let ends = ends(machine, 4000..4040, VIP);
    assert_eq!(ends.len(), 40);
    for port in PORTS {
        let share = ends.iter().filter(|end| **end == port).count();
        assert!((5..=35).contains(&share), "{share} of 40 to {port}: 20 expected");
    }
    let Reply::Dnat { entries } = machine.ask(Request::ListDnat) else { panic!() };
    assert_eq!(entries.len(), 40);
    assert!(entries.iter().all(|e| (e.original_dst, e.dnat_to) == (*VIP.ip(), SERVER)));
}

pub fn endpoints_come_and_go(machine: &mut impl Machine) {
    set(machine, &inside(&PORTS[..1]), 1);
    assert_eq!(ends(machine, 4000..4008, VIP), [PORTS[0]; 8]);
    set(machine, &inside(&PORTS), 2);
    let both: BTreeSet<_> = ends(machine, 4010..4030, VIP).into_iter().collect();
    assert_eq!(both, BTreeSet::from(PORTS));
    set(machine, &inside(&PORTS[1..]), 3);
    assert_eq!(ends(machine, 4040..4048, VIP), [PORTS[1]; 8]);
    // A flow goes on as it began, until it is forgotten.
    assert_eq!(ends(machine, 4000..4001, VIP), [PORTS[0]]);
    let gone = CtFilter { dnat_to: Some(SERVER), dnat_port: Some(PORTS[0]), ..CtFilter::default() };
    let Reply::ConntrackDeleted { entries } =
        machine.ask(Request::DeleteConntrack { filters: [gone].into() })
    else {
        panic!()
    };
    assert!(entries >= 8, "{entries}");
    assert_eq!(ends(machine, 4000..4001, VIP), [PORTS[1]]);
    set(machine, &Elements::new(), 4);
    assert_eq!(machine.udp(4050, VIP), None);
    if let Some(transactions) = machine.transactions() {
        assert_eq!(transactions, 4);
    }
}

pub fn without_endpoints_it_is_refused(machine: &mut impl Machine) {
    let tcp = Front { protocol: Protocol::Tcp, port: 80, ..front(VIP) };
    let all = [front(VIP), node_port(), tcp].map(|at| (FlatKey::Refused(at), FlatValue::Present));
    set(machine, &all.into(), 1);
    assert_eq!(machine.udp(4000, VIP), None);
    assert!(!machine.tcp(SocketAddrV4::new(*VIP.ip(), 80)));
    set(machine, &inside(&PORTS[..1]), 2);
    assert_eq!(ends(machine, 4001..4002, VIP), [PORTS[0]]);
}

pub fn other_fronts_lead_to_the_same_endpoints(machine: &mut impl Machine) {
    let mut all = inside(&PORTS[..1]);
    alias(&mut all, front(OUTSIDE), treatment(Policy::Outside, 1, 0));
    alias(&mut all, node_port(), treatment(Policy::Outside, 1, 0));
    set(machine, &all, 1);
    let own = SocketAddrV4::new(super::machine::CLIENT, NODE_PORT);
    for (sport, to) in [(4000, VIP), (4001, OUTSIDE), (4002, own)] {
        assert_eq!(ends(machine, sport..sport + 1, to), [PORTS[0]], "{to}");
    }
    // Nobody listens there, and nobody serves it there (KEP-3866).
    assert_eq!(machine.udp(4003, SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT)), None);
}

pub fn clients_come_back_to_their_endpoint(machine: &mut impl Machine) {
    let sticky = |ports: &[u16]| {
        let count = ports.len() as u16;
        let treatment = Treatment { affinity: 600, ..treatment(Policy::Inside, count, 0) };
        let mut all = service(treatment, List::Everywhere, ports);
        alias(&mut all, front(OUTSIDE), Treatment { policy: Policy::Outside, ..treatment });
        all
    };
    set(machine, &sticky(&PORTS), 1);
    let first = ends(machine, 4000..4020, VIP);
    assert_eq!(first, [first[0]; 20], "always the same");
    assert_eq!(ends(machine, 4100..4110, OUTSIDE), [first[0]; 10], "whatever the front");
    let rest: Vec<_> = PORTS.into_iter().filter(|port| *port != first[0]).collect();
    set(machine, &sticky(&rest), 2);
    assert_eq!(ends(machine, 4200..4210, VIP), [rest[0]; 10], "the other, for want of the first");
    set(machine, &sticky(&PORTS), 3);
    assert_eq!(ends(machine, 4300..4320, VIP), [rest[0]; 20], "and stays there");
}

pub fn local_policies_go_by_the_nodes_own(machine: &mut impl Machine) {
    let shared = |here| {
        let mut all = service(treatment(Policy::InsideLocal, 0, here), List::Here, &[]);
        let at = List::Everywhere;
        let of = front(VIP);
        all.insert(FlatKey::Endpoint { of, list: at, number: 0 }, FlatValue::To(SERVER, PORTS[0]));
        alias(&mut all, front(OUTSIDE), treatment(Policy::OutsideLocal, 1, here));
        all
    };
    set(machine, &shared(0), 1);
    assert_eq!(machine.udp(4000, VIP), None, "no endpoint here");
    assert_eq!(ends(machine, 4001..4002, OUTSIDE), [PORTS[0]], "this node's own processes");
    let mut here = service(treatment(Policy::InsideLocal, 0, 1), List::Here, &PORTS[1..]);
    here.insert(FlatKey::Hairpin(SERVER), FlatValue::Present);
    applied(machine.ask(request(&shared(0), &here, 2))).expect("applied");
    assert_eq!(ends(machine, 4002..4003, VIP), [PORTS[1]]);
    set(machine, &shared(0), 3);
    assert_eq!(machine.udp(4004, VIP), None, "and gone again");
}

pub fn strangers_are_kept_out(machine: &mut impl Machine) {
    let with = |net: &str| {
        let mut all = inside(&PORTS[..1]);
        let guarded = Treatment { guarded: true, ..treatment(Policy::Outside, 1, 0) };
        alias(&mut all, front(OUTSIDE), guarded);
        for net in ["203.0.113.0/24", net] {
            let net = net.parse().expect("a network");
            let key = FlatKey::Source { front: front(OUTSIDE), net };
            all.insert(key, FlatValue::Present);
        }
        all
    };
    set(machine, &with("10.8.0.0/16"), 1);
    assert_eq!(machine.udp(4000, OUTSIDE), None);
    assert_eq!(ends(machine, 4001..4002, VIP), [PORTS[0]]);
    set(machine, &with("10.9.0.0/16"), 2);
    assert_eq!(ends(machine, 4002..4003, OUTSIDE), [PORTS[0]]);
}

pub fn a_table_is_adopted_and_put_back(machine: &mut impl Machine) {
    let mut all = inside(&PORTS);
    alias(&mut all, node_port(), treatment(Policy::OutsideLocal, 2, 0));
    let guarded = Treatment { guarded: true, affinity: 30, ..treatment(Policy::Outside, 2, 0) };
    alias(&mut all, front(OUTSIDE), guarded);
    let net = "203.0.113.0/24".parse().expect("a network");
    all.insert(FlatKey::Source { front: front(OUTSIDE), net }, FlatValue::Present);
    let refused = Front { port: 99, ..front(VIP) };
    all.insert(FlatKey::Refused(refused), FlatValue::Present);
    all.insert(FlatKey::Hairpin(SERVER), FlatValue::Present);
    set(machine, &all, 1);
    machine.restart();
    set(machine, &all, 9);
    assert!(machine.transactions().is_none_or(|count| count == 0), "nothing was written");
    machine.restart();
    set(machine, &inside(&PORTS[1..]), 10);
    assert!(machine.transactions().is_none_or(|count| count == 1));
    machine.delete_flat(OWNER);
    assert_eq!(missing(machine, OWNER), [format!("table ip {OWNER} is gone")]);
    assert_eq!(machine.udp(4000, VIP), None);
    set(machine, &inside(&PORTS[1..]), 10);
    assert_eq!(ends(machine, 4001..4003, VIP), [PORTS[1]; 2]);
    // Deleted unnoticed: the next version finds out.
    machine.delete_flat(OWNER);
    set(machine, &inside(&PORTS[..1]), 11);
    assert_eq!(ends(machine, 4003..4005, VIP), [PORTS[0]; 2]);
}
