//! What random cases on the real kernel (`kubesim fidelity`) showed the model to get wrong, each
//! as small as it gets.

use super::*;
use crate::body::Body;
use crate::kernel::packet::{Arp, Ct, Icmp, IcmpError, Quoted, Tcp, TcpFlags};
use kubesim_actors::ports::network::{Request, RouteSet};
use kubesim_actors::ports::rules::Protocol;

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

/// Forwarding of what says DF and what does not (tcp_sk_init, net/ipv4/tcp_ipv4.c).
#[test]
fn a_reset_says_that_it_may_not_be_cut_up() {
    let (mut kernel, legs) = router();
    add(&mut kernel, legs[1], "10.1.0.1/16");
    let sent = syn(&mut kernel, legs[1], "10.1.0.10", "10.1.0.1");
    assert!(matches!(&sent[..], [Packet { dont_fragment: true, .. }]), "{sent:?}");
}

/// A machine with a process that sends datagrams to one neighbour.
struct Sender {
    kernel: Kernel,
    leg: u32,
    socket: SocketId,
}

impl Sender {
    fn new() -> Sender {
        let (mut kernel, [leg, ..]) = router();
        add(&mut kernel, leg, "10.0.0.1/16");
        let socket = kernel.udp_bind(NsId::HOST, Ipv4Addr::UNSPECIFIED, 5000, 7);
        Sender { kernel, leg, socket: socket.expect("a free port") }
    }

    /// Whether the datagram of so many bytes says DF.
    fn send(&mut self, len: u32) -> bool {
        let (now, to, mut out) = (Time::ZERO, at("10.0.0.77:80"), Vec::new());
        let sent = self.kernel.udp_send(now, self.socket, None, to, Body::Empty, len, &mut out);
        sent.expect("a way");
        let sent = settle(&mut self.kernel, now, out);
        let [(_, packet)] = &sent[..] else { panic!("{sent:?}") };
        packet.dont_fragment
    }

    /// Somebody says that what the process at a port sent is too long.
    fn too_long(&mut self, sport: u16, mtu: u32) {
        let (src, dst) = (ip("10.0.0.1"), ip("10.0.0.77"));
        let about = Quoted { src, dst, protocol: Protocol::Udp, sport, dport: 80, seq: 0 };
        let kind = IcmpError::FragmentationNeeded { mtu };
        let l4 = L4::Icmp(Icmp::Error { kind, about });
        let packet = Packet {
            src: dst,
            dst: src,
            ttl: 64,
            dont_fragment: false,
            len: 56,
            segment: 56,
            l4,
            body: Body::Empty,
            mark: 0,
            ct: Ct::None,
        };
        assert!(play(&mut self.kernel, Time::ZERO, self.leg, packet).is_empty());
    }
}

/// Forwarding, sends (__ip_make_skb, net/ipv4/ip_output.c).
#[test]
fn a_datagram_says_df_if_it_fits_and_leaves_in_any_case() {
    let mut sender = Sender::new();
    assert_eq!([1472, 1473].map(|len| sender.send(len)), [true, false]);
}

/// Forwarding, answers (__udp4_lib_err, net/ipv4/udp.c).
#[test]
fn a_path_is_narrow_if_somebody_is_told_who_asked_for_it() {
    let mut sender = Sender::new();
    sender.too_long(5001, 1400);
    assert!(sender.send(1472), "nobody is at that port");
    sender.too_long(5000, 1400);
    assert_eq!([1372, 1373].map(|len| sender.send(len)), [true, false]);
}

/// Forwarding seed 405, case 467 (__mkroute_output, net/ipv4/route.c).
#[test]
fn nothing_leaves_from_the_loopbacks_network_by_a_link_that_does_not_route_it() {
    let (mut kernel, legs) = router();
    let routes_localnet = |kernel: &mut Kernel, link: &str| {
        let key = format!("net.ipv4.conf.{link}.route_localnet");
        let done = kernel.set_sysctl(Time::ZERO, NsId::HOST, &key, "1", &mut Vec::new());
        done.expect("a key");
    };
    add_route(&mut kernel, &route("172.17.0.0/17", None, "leg0"));
    routes_localnet(&mut kernel, "leg1");
    assert!(syn(&mut kernel, legs[1], "172.17.83.127", "127.0.0.9").is_empty());
    routes_localnet(&mut kernel, "leg0");
    assert_eq!(syn(&mut kernel, legs[1], "172.17.83.127", "127.0.0.9").len(), 1);
}
