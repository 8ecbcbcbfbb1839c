//! What random cases on the real kernel (`kubesim fidelity`) showed the model to get wrong, each
//! as small as it gets.

use super::*;
use crate::body::Body;
use crate::kernel::packet::{Arp, Ct, Icmp, IcmpError, Tcp, TcpFlags};
use kubesim_actors::ports::network::{Request, RouteSet};

/// A router with three legs, up.
pub fn router() -> (Kernel, [u32; 3]) {
    let mut kernel = kernel(0);
    let mut out = Vec::new();
    let legs = ["leg0", "leg1", "leg2"].map(|name| {
        let index = kernel.add_uplink(name, Mac::default(), 1500).expect("a new name");
        kernel.set_up(Time::ZERO, NsId::HOST, index, true, &mut out).expect("a link");
        index
    });
    (kernel, legs)
}

pub fn add(kernel: &mut Kernel, leg: u32, address: &str) {
    let added = kernel.add_address(Time::ZERO, NsId::HOST, leg, net(address), &mut Vec::new());
    added.expect("a new address");
}

pub fn add_route(kernel: &mut Kernel, route: &Route) {
    let (now, out) = (Time::ZERO, &mut Vec::new());
    kernel.add_route(now, NsId::HOST, route, Proto::STATIC, out).expect("a good route");
}

fn get(kernel: &Kernel, dst: &str) -> String {
    kernel.ip_route_get(NsId::HOST, ip(dst)).expect("a way")
}

/// Routes seed 1, case 62.
#[test]
fn by_an_own_address_as_gateway_a_destination_is_on_link() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[1], "192.168.0.5/24");
    add_route(&mut kernel, &route("10.244.1.9/32", Some("192.168.0.5"), "leg1"));
    assert_eq!(get(&kernel, "10.244.1.9"), "10.244.1.9 dev leg1 src 192.168.0.5");
    assert!(kernel.ip_route(NsId::HOST).contains("10.244.1.9 via 192.168.0.5 dev leg1"));
}

/// Routes seed 2, case 2.
#[test]
fn an_address_that_comes_leaves_the_local_entries_of_its_link_in_place() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[0], "192.168.0.6/24");
    add(&mut kernel, legs[2], "192.168.0.6/24");
    add(&mut kernel, legs[0], "10.20.3.130/25");
    let expected = "broadcast 192.168.0.255 dev leg0 src 192.168.0.6";
    assert_eq!(get(&kernel, "192.168.0.255"), expected);
}

/// Routes seed 3, case 4.
#[test]
fn a_source_is_chosen_for_the_gateway_and_never_for_the_destination() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[0], "10.20.3.130/25");
    add_route(&mut kernel, &route("10.20.0.0/16", None, "leg0"));
    add(&mut kernel, legs[0], "10.20.0.7/16");
    assert_eq!(get(&kernel, "10.20.3.77"), "10.20.3.77 dev leg0 src 10.20.3.130");
}

/// Routes seed 8, case 0.
#[test]
fn to_an_own_secondary_address_one_speaks_from_its_primary() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[2], "192.168.0.6/24");
    add(&mut kernel, legs[2], "192.168.0.5/24");
    assert_eq!(get(&kernel, "192.168.0.5"), "local 192.168.0.5 dev lo src 192.168.0.6");
}

/// Routes seed 9, case 5.
#[test]
fn a_route_is_deleted_without_its_metric() {
    let (mut kernel, _) = router();
    let plain = route("172.16.0.0/24", None, "leg2");
    add_route(&mut kernel, &Route { metric: 2, ..plain.clone() });
    let (now, out) = (Time::ZERO, &mut Vec::new());
    let other = Route { metric: 1, ..plain.clone() };
    let deleted = kernel.del_route(now, NsId::HOST, &other, Proto::STATIC, out);
    assert_eq!(deleted, Err(Errno::Esrch));
    assert_eq!(kernel.del_route(now, NsId::HOST, &plain, Proto::STATIC, out), Ok(()));
    assert_eq!(kernel.ip_route(NsId::HOST), "");
}

/// The same of a set of routes that machines share (routes seed 1, case 62 and seed 9, case 5).
#[test]
fn a_shared_set_is_as_single_routes_are() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[1], "192.168.0.5/24");
    let to = |to, via| Route { metric: 2, ..route(to, Some(via), "leg1") };
    let own = to("10.244.1.0/24", "192.168.0.5");
    let other = to("10.244.2.0/24", "192.168.0.6");
    let routes = RouteSet { shared: vec![own.clone(), other.clone()].into(), except: None };
    let request = Request::SetRoutes { proto: Proto::NETD, routes };
    kernel.network(Time::ZERO, &request, &mut Vec::new());
    assert_eq!(get(&kernel, "10.244.1.9"), "10.244.1.9 dev leg1 src 192.168.0.5");
    assert_eq!(get(&kernel, "10.244.2.9"), "10.244.2.9 via 192.168.0.6 dev leg1 src 192.168.0.5");
    let mut delete = |metric, route: &Route| {
        let route = Route { metric, ..route.clone() };
        kernel.del_route(Time::ZERO, NsId::HOST, &route, Proto::NETD, &mut Vec::new())
    };
    assert_eq!(delete(1, &own), Err(Errno::Esrch));
    assert_eq!((delete(0, &own), delete(2, &other)), (Ok(()), Ok(())));
}

/// What leaves when a SYN comes in by a leg, once its neighbour is known.
fn syn(kernel: &mut Kernel, leg: u32, src: &str, dst: &str) -> Vec<Packet> {
    let flags = TcpFlags { syn: true, ..TcpFlags::default() };
    let tcp = Tcp { sport: 1026, dport: 81, seq: 1000, ack: 0, flags, len: 0 };
    let packet = Packet {
        src: ip(src),
        dst: ip(dst),
        ttl: 64,
        dont_fragment: false,
        len: 40,
        segment: 40,
        l4: L4::Tcp(tcp),
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    };
    play(kernel, Time::ZERO, leg, packet).into_iter().map(|(_, packet)| packet).collect()
}

/// What leaves by which leg when a packet comes in by one, once its neighbour is known.
pub fn play(kernel: &mut Kernel, now: Time, leg: u32, packet: Packet) -> Vec<(u32, Packet)> {
    let payload = Payload::Ip(Box::new(packet));
    let mut out = Vec::new();
    let frame = Frame { src: Mac([6; 6]), dst: Mac::default(), payload };
    kernel.receive(now, leg, frame, &mut out);
    settle(kernel, now, out)
}

/// Answers whoever is asked for; what leaves by which leg.
pub fn settle(kernel: &mut Kernel, now: Time, mut out: Vec<Output>) -> Vec<(u32, Packet)> {
    let mut sent = Vec::new();
    while !out.is_empty() {
        let Output::Transmit { link, frame: left } = out.remove(0) else { continue };
        match left.payload {
            Payload::Ip(packet) => sent.push((link, *packet)),
            Payload::Arp(arp) if arp.request && arp.sender_ip != arp.target_ip => {
                let (sender_ip, target_ip) = (arp.target_ip, arp.sender_ip);
                let sender_mac = Mac([6; 6]);
                let answer = Arp { request: false, sender_mac, sender_ip, target_ip, ..arp };
                let payload = Payload::Arp(answer);
                let frame = Frame { src: sender_mac, dst: Mac::default(), payload };
                kernel.receive(now, link, frame, &mut out);
            }
            Payload::Arp(_) | Payload::Ip6(_) => {}
        }
    }
    sent
}

/// Forwarding seed 1, case 4: TCP does not ask whether the source is a broadcast address.
#[test]
fn a_segment_from_the_broadcast_address_is_refused_like_any() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[1], "10.1.0.1/16");
    let sent = syn(&mut kernel, legs[1], "10.1.255.255", "10.1.0.1");
    assert!(matches!(&sent[..], [Packet { l4: L4::Tcp(tcp), .. }] if tcp.flags.rst), "{sent:?}");
}

/// Forwarding seed 5, case 24: a frame to this machine, a packet to everybody.
#[test]
fn a_segment_to_the_broadcast_address_is_not_refused() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[1], "10.1.0.1/16");
    let sent = syn(&mut kernel, legs[1], "10.1.21.84", "10.1.255.255");
    assert!(sent.is_empty(), "{sent:?}");
}

/// Forwarding seed 4, case 34.
#[test]
fn a_loose_filter_is_strict_on_a_link_without_an_address() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[0], "10.0.0.1/16");
    forwarding(&mut kernel, "2");
    assert!(syn(&mut kernel, legs[2], "10.0.60.138", "10.0.180.144").is_empty());
    add(&mut kernel, legs[2], "10.2.0.1/16");
    assert_eq!(syn(&mut kernel, legs[2], "10.0.60.138", "10.0.180.144").len(), 1);
}

pub fn forwarding(kernel: &mut Kernel, rp_filter: &str) {
    let (now, out) = (Time::ZERO, &mut Vec::new());
    for (key, value) in [("ip_forward", "1"), ("conf.all.rp_filter", rp_filter)] {
        let key = format!("net.ipv4.{key}");
        kernel.set_sysctl(now, NsId::HOST, &key, value, out).expect("a key");
    }
}

/// Forwarding seed 3, case 52.
#[test]
fn without_a_route_the_source_is_not_filtered() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[2], "10.2.0.1/16");
    forwarding(&mut kernel, "1");
    let sent = syn(&mut kernel, legs[0], "10.2.9.91", "10.1.86.208");
    let [Packet { src, l4: L4::Icmp(Icmp::Error { kind, .. }), .. }] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((*src, *kind), (ip("10.2.0.1"), IcmpError::NetUnreachable));
}

/// Forwarding seed 6, case 38.
#[test]
fn a_machine_without_an_address_complains_from_the_dummy_one() {
    let (mut kernel, legs) = router();
    add_route(&mut kernel, &route("172.16.0.0/16", None, "leg2"));
    forwarding(&mut kernel, "0");
    let sent = syn(&mut kernel, legs[1], "172.16.50.243", "10.0.81.97");
    assert!(matches!(&sent[..], [Packet { src, .. }] if *src == ip("192.0.0.8")), "{sent:?}");
}
