//! A router with virtual services between a client and a server: what `tests/port_rules` does not
//! see, where the client is the very node.

use super::*;
use crate::body::Body;
use crate::kernel::netfilter::TcpState;
use crate::kernel::packet::{Icmp, IcmpError};
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::virtuals::{Virtual, VirtualSet};
use kubesim_actors::ports::rules::{ChainSet, Chains, Protocol, Reply, Request};
use std::sync::Arc;

const ROUTER: usize = 1;
const VIP: &str = "10.96.0.1:80";

/// The router leads these fronts to places on the server.
fn lead(wire: &mut Wire, fronts: &[(&str, Protocol, &[&str])]) {
    let mut shared = VirtualSet::empty(1);
    for (front, protocol, endpoints) in fronts {
        let (front, protocol) = (at(front), *protocol);
        let key = Front { ip: *front.ip(), protocol, port: front.port() };
        let places = endpoints.iter().map(|place| at(place));
        let endpoints = places.map(|place| (*place.ip(), place.port())).collect();
        shared.insert(key, Arc::new(Virtual { endpoints, ..Virtual::default() }), 1);
    }
    let base = Arc::new([]);
    let chains = Chains { base, shared: ChainSet::empty(2), local: Arc::new([]) };
    let request =
        Request::ApplyVirtual { owner: "test".into(), chains, shared, local: Arc::new([]) };
    let reply = wire.with(ROUTER, |k, now, out| k.rules(now, &request, out));
    assert!(matches!(reply, Some(Reply::Applied { result: Ok(()), .. })), "{reply:?}");
}

fn listen(wire: &mut Wire, port: u16) {
    wire.with(2, |k, _, _| k.tcp_listen(NsId::HOST, Ipv4Addr::UNSPECIFIED, port, 2)).expect("free");
}

fn connect(wire: &mut Wire, to: &str) -> SocketId {
    let to = at(to);
    let socket = wire.with(0, |k, now, out| k.tcp_connect(now, NsId::HOST, to, 1, out));
    wire.run(Duration::from_millis(5));
    socket.expect("a route and a port")
}

fn connected(wire: &mut Wire) -> bool {
    let events = std::mem::take(&mut wire.events);
    events.iter().any(|(_, machine, _, e)| *machine == 0 && matches!(e, SocketEvent::Connected))
}

fn remembered(wire: &Wire, endpoint: &str) -> u64 {
    let place = (*at(endpoint).ip(), at(endpoint).port());
    let netfilter = wire.kernels[ROUTER].netfilter(NsId::HOST).expect("the host's");
    netfilter.ipvs_connections(Protocol::Tcp, at(VIP), place, wire.now)
}

#[test]
fn a_strangers_connection_is_sent_on_and_its_answers_come_from_the_front() {
    let mut wire = routed();
    lead(&mut wire, &[(VIP, Protocol::Tcp, &["10.1.0.1:8080"])]);
    listen(&mut wire, 8080);
    connect(&mut wire, VIP);
    assert!(connected(&mut wire));
    let from = |machine, src: &str| {
        let of = |(_, m, packet): &&(Time, usize, Packet)| *m == machine && packet.src == ip(src);
        wire.seen.iter().filter(of).map(|(_, _, packet)| packet.clone()).collect::<Vec<_>>()
    };
    // The router shows the server the client as it is, one hop further on.
    let syn = &from(ROUTER, "10.0.0.1")[0];
    assert_eq!((syn.dst, syn.ttl), (ip("10.1.0.1"), 63));
    assert!(!from(ROUTER, "10.96.0.1").is_empty() && from(ROUTER, "10.1.0.1").is_empty());
    let netfilter = wire.kernels[ROUTER].netfilter(NsId::HOST).expect("the host's");
    let entry = netfilter.conntrack().next().expect("conntrack knows it");
    assert_eq!((entry.original.dst, entry.reply.src), (ip("10.96.0.1"), ip("10.1.0.1")));
    assert_eq!((entry.reply.sport, entry.tcp_state()), (8080, Some(TcpState::Established)));
    assert!(!entry.dst_nat, "it is no DNAT to conntrack");
}

#[test]
fn connections_are_remembered_as_long_as_their_state_says() {
    let mut wire = routed();
    lead(&mut wire, &[(VIP, Protocol::Tcp, &["10.1.0.1:8080"])]);
    listen(&mut wire, 8080);
    let socket = connect(&mut wire, VIP);
    wire.run(Duration::from_secs(800));
    assert_eq!(remembered(&wire, "10.1.0.1:8080"), 1, "established: 15 minutes");
    wire.with(0, |k, now, out| k.tcp_abort(now, socket, out));
    wire.run(Duration::from_secs(9));
    assert_eq!(remembered(&wire, "10.1.0.1:8080"), 1, "reset: 10 seconds");
    wire.run(Duration::from_secs(2));
    assert_eq!(remembered(&wire, "10.1.0.1:8080"), 0);
}

#[test]
fn errors_are_about_what_the_client_wrote() {
    let mut wire = routed();
    lead(&mut wire, &[("10.96.0.1:53", Protocol::Udp, &["10.1.0.1:5353"])]);
    let socket = wire
        .with(0, |k, _, _| k.udp_bind(NsId::HOST, Ipv4Addr::UNSPECIFIED, 4000, 1))
        .expect("a free port");
    wire.with(0, |k, now, out| {
        k.udp_send(now, socket, None, at("10.96.0.1:53"), Body::default(), 8, out)
    })
    .expect("a route");
    wire.run(Duration::from_millis(5));
    let told = wire.take_events().into_iter().find_map(|event| match event {
        SocketEvent::Icmp { kind, to } => Some((kind, to)),
        _ => None,
    });
    assert_eq!(told, Some((IcmpError::PortUnreachable, at("10.96.0.1:53"))));
    let error = wire.seen.iter().find(|(_, machine, packet)| {
        *machine == ROUTER && matches!(packet.l4, L4::Icmp(Icmp::Error { .. }))
    });
    assert_eq!(error.map(|(_, _, packet)| packet.src), Some(ip("10.96.0.1")));
}

#[test]
fn a_front_without_endpoints_is_refused_and_a_port_without_a_front_is_the_routers_own() {
    let mut wire = routed();
    lead(&mut wire, &[(VIP, Protocol::Tcp, &[])]);
    for to in [VIP, "10.96.0.1:81"] {
        connect(&mut wire, to);
        let refused = wire
            .take_events()
            .iter()
            .any(|event| matches!(event, SocketEvent::Failed(Errno::Econnrefused)));
        assert!(refused, "{to}");
    }
}

/// All nodes have the addresses: none answers for them (arp_ignore 1).
#[test]
fn the_devices_addresses_are_nobodys_in_arp() {
    let mut wire = routed();
    lead(&mut wire, &[("10.0.0.99:80", Protocol::Tcp, &["10.1.0.1:8080"])]);
    listen(&mut wire, 8080);
    connect(&mut wire, "10.0.0.99:80");
    assert!(!connected(&mut wire));
    let sent = |dst: &str| wire.seen.iter().any(|(_, m, packet)| *m == 0 && packet.dst == ip(dst));
    assert!(!sent("10.0.0.99"));
    // Who comes by the router's own address gets in.
    let by = route("10.0.0.99/32", Some("10.0.0.254"), "eth0");
    wire.add_route(0, NsId::HOST, &by).expect("on-link");
    connect(&mut wire, "10.0.0.99:80");
    assert!(connected(&mut wire));
}
