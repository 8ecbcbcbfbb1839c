//! Stories of ipvs mode.

use super::machine::{Answered, CLIENT, Machine, PORTS, SERVER, SERVERS, applied, apply, missing};
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::virtuals::{DEVICE, Virtual, VirtualSet};
use kubesim_actors::ports::rules::{Chains, Protocol, Request};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

const OWNER: &str = "kubesim-test";
/// Addresses that are nowhere but on the device.
const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 53);
const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 80);
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 53);
const NODE_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 30_053);

/// The client's connections over TCP have the front's address as source, which is local: they are
/// masqueraded.
const CHAINS: &str = "*nat
    :KUBE-SERVICES
    :KUBE-POSTROUTING
    -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
    -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
    -A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x4000/0x4000
    -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
    -A KUBE-POSTROUTING -j MASQUERADE --random-fully";

type Services = BTreeMap<Front, Virtual>;

fn front(at: SocketAddrV4, protocol: Protocol) -> Front {
    Front { ip: *at.ip(), protocol, port: at.port() }
}

fn service(at: SocketAddrV4, protocol: Protocol, ports: &[u16]) -> (Front, Virtual) {
    let endpoints = ports.iter().map(|port| (SERVER, *port)).collect();
    (front(at, protocol), Virtual { endpoints, ..Virtual::default() })
}

fn udp(at: SocketAddrV4, ports: &[u16]) -> Services {
    [service(at, Protocol::Udp, ports)].into()
}

fn request(all: &Services, version: u64) -> Request {
    let Request::Apply { owner, base, shared, local } = apply(OWNER, CHAINS, 1) else {
        unreachable!("it is an Apply");
    };
    let chains = Chains { base, shared, local };
    let mut shared = VirtualSet::empty(7);
    for (front, service) in all {
        shared.insert(*front, Arc::new(service.clone()), version);
    }
    shared.advance(version);
    Request::ApplyVirtual { owner, chains, shared, local: Arc::new([]) }
}

fn set(machine: &mut impl Machine, all: &Services, version: u64) {
    applied(machine.ask(request(all, version))).expect("applied");
    assert_eq!(missing(machine, OWNER), Vec::<String>::new());
}

/// Where flows from so many ports of the client end.
fn ends(machine: &mut impl Machine, sports: std::ops::Range<u16>, to: SocketAddrV4) -> Vec<u16> {
    let end = |sport| {
        let Answered { by, at } = machine.udp(sport, to)?;
        assert_eq!(by, to, "translated back");
        Some(at)
    };
    sports.filter_map(end).collect()
}

pub fn endpoints_take_turns(machine: &mut impl Machine) {
    set(machine, &udp(VIP, &PORTS), 1);
    // The one that was added last is the first.
    let [first, second] = PORTS;
    assert_eq!(ends(machine, 4000..4004, VIP), [second, first, second, first]);
    assert_eq!(ends(machine, 4000..4004, VIP), [second, first, second, first], "and stay");
    let listed = machine.ipvs();
    let real = |port: u16| format!("-a -u {VIP} -r {SERVER}:{port} -m -w 1");
    assert_eq!(listed, [format!("-A -u {VIP} -s rr"), real(first), real(second)]);
}

pub fn endpoints_come_and_go(machine: &mut impl Machine) {
    set(machine, &udp(VIP, &PORTS[..1]), 1);
    assert_eq!(ends(machine, 4000..4003, VIP), [PORTS[0]; 3]);
    set(machine, &udp(VIP, &PORTS[1..]), 2);
    assert_eq!(ends(machine, 4010..4013, VIP), [PORTS[1]; 3]);
    // Flows to what is gone are as if they had never been (expire_nodest_conn), soon.
    machine.wait(Duration::from_secs(1));
    assert_eq!(ends(machine, 4000..4003, VIP), [PORTS[1]; 3]);
    set(machine, &Services::new(), 3);
    assert_eq!(machine.ipvs(), Vec::<String>::new());
    machine.wait(Duration::from_secs(1));
    assert_eq!(machine.udp(4000, VIP), None, "and with the service all its flows");
    if let Some(transactions) = machine.transactions() {
        // One of chains.
        assert_eq!(transactions, 4);
    }
}

pub fn without_endpoints_it_is_refused(machine: &mut impl Machine) {
    let mut none: Services = udp(VIP, &[]);
    none.extend([service(WEB, Protocol::Tcp, &[])]);
    set(machine, &none, 1);
    assert_eq!(machine.udp(4000, VIP), None);
    assert!(!machine.tcp(WEB));
    none.extend([
        service(WEB, Protocol::Tcp, &PORTS[..1]),
        service(VIP, Protocol::Udp, &PORTS[..1]),
    ]);
    set(machine, &none, 2);
    assert_eq!(ends(machine, 4001..4002, VIP), [PORTS[0]]);
    assert!(machine.tcp(WEB));
}

pub fn other_fronts_lead_to_the_same_endpoints(machine: &mut impl Machine) {
    let mut all = udp(VIP, &PORTS[..1]);
    all.extend(udp(OUTSIDE, &PORTS[..1]));
    all.extend(udp(NODE_PORT, &PORTS[..1]));
    set(machine, &all, 1);
    let own = SocketAddrV4::new(CLIENT, NODE_PORT.port());
    for (sport, to) in [(4000, VIP), (4001, OUTSIDE), (4002, own)] {
        assert_eq!(ends(machine, sport..sport + 1, to), [PORTS[0]], "{to}");
    }
    // Nobody listens there, and nobody serves it there.
    assert_eq!(machine.udp(4003, SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT.port())), None);
}

pub fn clients_come_back_to_their_endpoint(machine: &mut impl Machine) {
    let with = |addresses: &[Ipv4Addr]| {
        let endpoints = addresses.iter().map(|ip| (*ip, PORTS[0])).collect();
        Services::from([(
            front(VIP, Protocol::Udp),
            Virtual { endpoints, sticky: Some(600), elsewhere: false },
        )])
    };
    let mut used = |all: &[Ipv4Addr], version: u64| {
        set(machine, &with(all), version);
        let sports = 4000 + 20 * version as u16;
        assert_eq!(ends(machine, sports..sports + 4, VIP).len(), 4);
        let counts = all.iter().map(|ip| machine.connections(VIP, *ip));
        counts.collect::<Vec<_>>()
    };
    let counts = used(&SERVERS, 1);
    let first = counts.iter().position(|count| *count > 0).expect("an endpoint");
    assert_eq!(counts[first], 4, "always the same: {counts:?}");
    let rest: Vec<_> = SERVERS.into_iter().filter(|ip| *ip != SERVERS[first]).collect();
    let counts = used(&rest, 2);
    assert!(counts.contains(&4), "another, for want of the first, and always that: {counts:?}");
    let second = rest[counts.iter().position(|count| *count == 4).expect("an endpoint")];
    let counts = used(&SERVERS, 3);
    let at = SERVERS.iter().position(|ip| *ip == second).expect("it is one of them");
    assert_eq!(counts[at], 8, "and stays there: {counts:?}");
}

/// An address that may be a machine's is not taken from it.
pub fn a_neighbour_keeps_its_address(machine: &mut impl Machine) {
    let (neighbour, own) = (SocketAddrV4::new(SERVERS[1], 53), SocketAddrV4::new(CLIENT, 53));
    let mut all = Services::new();
    for at in [neighbour, own, OUTSIDE] {
        let (front, service) = service(at, Protocol::Udp, &PORTS[..1]);
        all.insert(front, Virtual { elsewhere: true, ..service });
    }
    set(machine, &all, 1);
    let direct = SocketAddrV4::new(SERVERS[1], PORTS[1]);
    assert_eq!(ends(machine, 4000..4001, direct), [PORTS[1]]);
    for (sport, to) in [(4001, own), (4002, OUTSIDE), (4003, neighbour)] {
        assert_eq!(ends(machine, sport..sport + 1, to), [PORTS[0]], "{to}");
    }
}

/// An endpoint of TCP that goes has weight 0 until its last connection is forgotten.
pub fn tcp_is_drained(machine: &mut impl Machine) {
    // A connection is forgotten after two idle seconds.
    machine.ipvsadm("--set 2 1 1");
    let with = |ports: &[u16]| Services::from([service(WEB, Protocol::Tcp, ports)]);
    set(machine, &with(&PORTS[..1]), 1);
    assert!(machine.tcp(WEB));
    set(machine, &with(&PORTS[1..]), 2);
    let real = |port: u16, weight| format!("-a -t {WEB} -r {SERVER}:{port} -m -w {weight}");
    let head = format!("-A -t {WEB} -s rr");
    let (old, new) = (real(PORTS[0], 0), real(PORTS[1], 1));
    assert_eq!(machine.ipvs(), [head.clone(), old, new.clone()]);
    machine.wait(Duration::from_secs(5));
    assert_eq!(missing(machine, OWNER), Vec::<String>::new());
    assert_eq!(machine.ipvs(), [head.clone(), new]);
    // One that nobody uses goes at once, and what comes back before it is drained serves again.
    set(machine, &with(&PORTS[..1]), 3);
    assert_eq!(machine.ipvs(), [head.clone(), real(PORTS[0], 1)]);
    assert!(machine.tcp(WEB));
    set(machine, &with(&[]), 4);
    assert_eq!(machine.ipvs(), [head.clone(), real(PORTS[0], 0)]);
    assert!(!machine.tcp(WEB), "no new connections");
    set(machine, &with(&PORTS[..1]), 5);
    assert!(machine.tcp(WEB));
}

pub fn services_are_adopted_and_put_back(machine: &mut impl Machine) {
    let foreign = "-t 203.0.113.9:443";
    machine.ipvsadm(&format!("-A {foreign} -s rr"));
    machine.ipvsadm(&format!("-a {foreign} -r 10.9.0.2:443 -m"));
    let theirs = [format!("-A {foreign} -s rr"), format!("-a {foreign} -r 10.9.0.2:443 -m -w 1")];
    let mut all = udp(VIP, &PORTS);
    all.extend(udp(NODE_PORT, &PORTS));
    all.extend([service(WEB, Protocol::Tcp, &PORTS[..1])]);
    set(machine, &all, 1);
    let before = machine.ipvs();
    machine.restart();
    set(machine, &all, 9);
    assert!(machine.transactions().is_none_or(|count| count == 0), "nothing was written");
    assert_eq!(machine.ipvs(), before);
    machine.restart();
    set(machine, &udp(VIP, &PORTS[1..]), 10);
    let ours = [
        theirs[0].clone(),
        format!("-A -u {VIP} -s rr"),
        theirs[1].clone(),
        format!("-a -u {VIP} -r {SERVER}:{} -m -w 1", PORTS[1]),
    ];
    assert_eq!(machine.ipvs(), ours, "what a former life left goes, and what is foreign stays");
    machine.ipvsadm("-C");
    assert_eq!(
        missing(machine, OWNER),
        [
            format!("udp {VIP}: virtual service is gone"),
            format!("udp {VIP}: real server {SERVER}:{} is gone", PORTS[1]),
        ]
    );
    set(machine, &udp(VIP, &PORTS[1..]), 10);
    assert_eq!(ends(machine, 4001..4003, VIP), [PORTS[1]; 2]);
    machine.delete_link(DEVICE);
    assert_eq!(missing(machine, OWNER), [format!("the device {DEVICE} is gone")]);
    set(machine, &udp(VIP, &PORTS[1..]), 10);
    assert_eq!(ends(machine, 4006..4008, VIP), [PORTS[1]; 2]);
    // Deleted unnoticed: the next version finds out.
    machine.ipvsadm("-C");
    set(machine, &udp(VIP, &PORTS), 11);
    assert_eq!(ends(machine, 4010..4014, VIP).len(), 4);
}
