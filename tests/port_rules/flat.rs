//! Stories of nftables mode.

use super::machine::{CLIENT, Machine, PORTS, SERVER, SERVERS, applied, missing, put_back};
use kubesim_actors::ports::rules::flat::{
    FlatKey, FlatSet, FlatValue, Front, List, Policy, Treatment,
};
use kubesim_actors::ports::rules::{CtEntry, CtFilter, FlatSettings, Protocol, Reply, Request};
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
    Treatment { policy, everywhere, here, sticky: false, guarded: false }
}

/// A front with endpoints at these ports of the server.
fn put(all: &mut Elements, front: Front, treatment: Treatment, list: List, ports: &[u16]) {
    all.insert(FlatKey::Service(front), FlatValue::Treatment(treatment));
    for (number, port) in (0..).zip(ports) {
        all.insert(FlatKey::Endpoint { front, list, number }, FlatValue::To(SERVER, *port));
    }
}

fn inside(ports: &[u16]) -> Elements {
    let mut all = Elements::new();
    let treatment = treatment(Policy::Inside, ports.len() as u16, 0);
    put(&mut all, front(VIP), treatment, List::Everywhere, ports);
    all
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
    let entries = list(machine);
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
    for at in [front(OUTSIDE), node_port()] {
        let outside = treatment(Policy::Outside, 1, 0);
        put(&mut all, at, outside, List::Everywhere, &PORTS[..1]);
    }
    set(machine, &all, 1);
    let own = SocketAddrV4::new(CLIENT, NODE_PORT);
    for (sport, to) in [(4000, VIP), (4001, OUTSIDE), (4002, own)] {
        assert_eq!(ends(machine, sport..sport + 1, to), [PORTS[0]], "{to}");
    }
    // Nobody listens there, and nobody serves it there (KEP-3866).
    assert_eq!(machine.udp(4003, SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT)), None);
}

/// Two fronts of one Service, whose endpoints are the addresses of the server.
fn sticky(addresses: &[Ipv4Addr]) -> Elements {
    let count = addresses.len() as u16;
    let mut all = Elements::new();
    for (at, policy) in [(front(VIP), Policy::Inside), (node_port(), Policy::Outside)] {
        let treatment = Treatment { sticky: true, ..treatment(policy, count, 0) };
        all.insert(FlatKey::Service(at), FlatValue::Treatment(treatment));
        all.insert(FlatKey::Sticky(at), FlatValue::Seconds(600));
        for (number, ip) in (0..).zip(addresses) {
            let (front, list, to) = (at, List::Everywhere, FlatValue::To(*ip, PORTS[0]));
            all.insert(FlatKey::Endpoint { front, list, number }, to);
            all.insert(FlatKey::Member { front, list, ip: *ip }, to);
        }
    }
    all
}

/// The endpoints that twenty flows get.
fn led(machine: &mut impl Machine, to: SocketAddrV4, first: u16) -> BTreeSet<Ipv4Addr> {
    let sports = first..first + 20;
    assert_eq!(ends(machine, sports.clone(), to).len(), 20, "{to}");
    let found = list(machine).into_iter();
    let found = found.filter(|e| e.original_dst == *to.ip() && sports.contains(&e.sport));
    found.map(|entry| entry.dnat_to).collect()
}

pub fn clients_come_back_to_their_endpoint(machine: &mut impl Machine) {
    set(machine, &sticky(&SERVERS), 1);
    let first = led(machine, VIP, 4000);
    assert_eq!(first.len(), 1, "always the same");
    assert_eq!(led(machine, SocketAddrV4::new(CLIENT, NODE_PORT), 4100).len(), 1);
    let rest: Vec<_> = SERVERS.into_iter().filter(|ip| !first.contains(ip)).collect();
    set(machine, &sticky(&rest), 2);
    let second = led(machine, VIP, 4200);
    assert_eq!(second.len(), 1, "another, for want of the first, and always that");
    set(machine, &sticky(&SERVERS), 3);
    assert_eq!(led(machine, VIP, 4300), second, "and stays there");
}

fn list(machine: &mut impl Machine) -> Vec<CtEntry> {
    match machine.ask(Request::ListDnat) {
        Reply::Dnat { entries } => entries.to_vec(),
        other => panic!("{other:?}"),
    }
}

pub fn local_policies_go_by_the_nodes_own(machine: &mut impl Machine) {
    let shared = |here| {
        let mut all = Elements::new();
        let (inside, outside) = (Policy::InsideLocal, Policy::OutsideLocal);
        put(&mut all, front(VIP), treatment(inside, 0, here), List::Here, &[]);
        let treatment = treatment(outside, 1, here);
        put(&mut all, front(OUTSIDE), treatment, List::Everywhere, &PORTS[..1]);
        all
    };
    set(machine, &shared(0), 1);
    assert_eq!(machine.udp(4000, VIP), None, "no endpoint here");
    assert_eq!(ends(machine, 4001..4002, OUTSIDE), [PORTS[0]], "this node's own processes");
    let mut here = Elements::new();
    put(&mut here, front(VIP), treatment(Policy::InsideLocal, 0, 1), List::Here, &PORTS[1..]);
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
        put(&mut all, front(OUTSIDE), guarded, List::Everywhere, &PORTS[..1]);
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

/// Elements of every kind.
pub fn everything() -> Elements {
    let mut all = inside(&PORTS);
    let everywhere = List::Everywhere;
    put(&mut all, node_port(), treatment(Policy::OutsideLocal, 2, 0), everywhere, &PORTS);
    let outside = treatment(Policy::Outside, 2, 0);
    let guarded = Treatment { guarded: true, sticky: true, ..outside };
    put(&mut all, front(OUTSIDE), guarded, everywhere, &PORTS);
    let member = FlatKey::Member { front: front(OUTSIDE), list: everywhere, ip: SERVER };
    all.insert(member, FlatValue::To(SERVER, PORTS[0]));
    all.insert(FlatKey::Sticky(front(OUTSIDE)), FlatValue::Seconds(30));
    let net = "203.0.113.0/24".parse().expect("a network");
    all.insert(FlatKey::Source { front: front(OUTSIDE), net }, FlatValue::Present);
    let local = Front { port: 98, ..front(VIP) };
    put(&mut all, local, treatment(Policy::InsideLocal, 0, 1), List::Here, &PORTS[..1]);
    all.insert(FlatKey::Refused(Front { port: 99, ..front(VIP) }), FlatValue::Present);
    all.insert(FlatKey::Hairpin(SERVER), FlatValue::Present);
    all
}

pub fn a_table_is_adopted_and_put_back(machine: &mut impl Machine) {
    let all = everything();
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
    let anew = request(&inside(&PORTS[..1]), &Elements::new(), 11);
    assert_eq!(put_back(machine.ask(anew)), [format!("table ip {OWNER} is gone")]);
    assert_eq!(ends(machine, 4003..4005, VIP), [PORTS[0]; 2]);
    // There, and switched off; there, and closed to what it has no rule for.
    let table = format!("add table ip {OWNER} {{ flags dormant; }}");
    let chain = format!("add chain ip {OWNER} filter-forward {{ policy drop; }}");
    for command in [table, chain] {
        if machine.nft(&command) {
            assert_ne!(missing(machine, OWNER), [""; 0], "{command}");
            set(machine, &inside(&PORTS[..1]), 11);
            assert_eq!(missing(machine, OWNER), [""; 0], "{command}");
            assert_eq!(ends(machine, 4005..4007, VIP), [PORTS[0]; 2]);
        }
    }
}
