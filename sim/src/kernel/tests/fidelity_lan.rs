//! What random frames on the real kernel (`kubesim fidelity`, domains bridge, vxlan and
//! neighbours) showed the model to get wrong, each as small as it gets.

use super::fidelity::{add, forwarding};
use super::*;
use crate::body::Body;
use crate::kernel::NeighbourState;
use crate::kernel::packet::{Arp, Ct, Tcp, TcpFlags};
use kubesim_actors::ports::network::{Neighbour, Request, Vxlan};
use kubesim_actors::ports::rules::Table;

const BRIDGE: Mac = Mac([2, 0, 0, 0, 0, 0xbb]);
const HOST_MAC: Mac = Mac([6, 0, 0, 0, 0, 1]);

fn now() -> Time {
    Time::from_secs(1000)
}

fn port(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

/// A router whose legs have MAC addresses of their own, an address on each.
fn three_legs() -> (Kernel, [u32; 3]) {
    let mut kernel = kernel(0);
    let mut out = Vec::new();
    let legs = [0, 1, 2].map(|number| {
        let name = format!("leg{number}");
        let index = kernel.add_uplink(&name, port(number), 1500).expect("a new name");
        kernel.set_up(now(), NsId::HOST, index, true, &mut out).expect("a link");
        index
    });
    (kernel, legs)
}

fn routed() -> (Kernel, [u32; 3]) {
    let (mut kernel, legs) = three_legs();
    for (leg, address) in legs.into_iter().zip(["10.0.0.1/16", "10.1.0.1/16", "10.2.0.1/16"]) {
        add(&mut kernel, leg, address);
    }
    forwarding(&mut kernel, "0");
    (kernel, legs)
}

/// All legs are ports of a bridge with the address 10.9.0.1.
fn bridged() -> (Kernel, [u32; 3], u32) {
    let (mut kernel, legs) = three_legs();
    let bridge = kernel.add_bridge(NsId::HOST, "br0", BRIDGE, 1500).expect("a new name");
    let mut out = Vec::new();
    kernel.set_up(now(), NsId::HOST, bridge, true, &mut out).expect("a link");
    for leg in legs {
        kernel.set_master(now(), NsId::HOST, leg, Some(bridge), &mut out).expect("a port");
    }
    add(&mut kernel, bridge, "10.9.0.1/24");
    (kernel, legs, bridge)
}

fn packet(src: &str, dst: &str, l4: L4) -> Payload {
    Payload::Ip(Box::new(Packet {
        src: ip(src),
        dst: ip(dst),
        ttl: 64,
        dont_fragment: false,
        len: 40,
        segment: 40,
        l4,
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    }))
}

fn udp(src: &str, dst: &str) -> Payload {
    packet(src, dst, L4::Udp { sport: 1024, dport: 80 })
}

fn arp(request: bool, sender: (Mac, &str), target: (Mac, &str)) -> Payload {
    let ((sender_mac, sender_ip), (target_mac, target_ip)) = (sender, target);
    let (sender_ip, target_ip) = (ip(sender_ip), ip(target_ip));
    Payload::Arp(Arp { request, sender_mac, sender_ip, target_mac, target_ip })
}

/// What leaves when a frame comes in by a leg.
fn put(kernel: &mut Kernel, leg: u32, src: Mac, dst: Mac, payload: Payload) -> Vec<(u32, Frame)> {
    let mut out = Vec::new();
    kernel.receive(now(), leg, Frame { src, dst, payload }, &mut out);
    left(out)
}

fn left(out: Vec<Output>) -> Vec<(u32, Frame)> {
    let transmitted = |output| match output {
        Output::Transmit { link, frame } => Some((link, frame)),
        _ => None,
    };
    out.into_iter().filter_map(transmitted).collect()
}

fn states(kernel: &Kernel) -> Vec<(Ipv4Addr, Option<Mac>, NeighbourState)> {
    let all = kernel.neighbours(NsId::HOST);
    all.map(|entry| (entry.ip, entry.mac, entry.state)).collect()
}

/// bridge seed 1, cases 3 and 5 (ip_forward and tcp_v4_rcv ask for PACKET_HOST).
#[test]
fn what_comes_in_a_frame_for_everybody_goes_no_further() {
    let (mut kernel, legs) = routed();
    let mut put = |dst, payload| put(&mut kernel, legs[0], HOST_MAC, dst, payload).len();
    assert_eq!(put(Mac::BROADCAST, udp("10.0.0.9", "10.1.0.9")), 0);
    assert_eq!(put(Mac::BROADCAST, udp("10.0.0.9", "10.0.0.1")), 0);
    let flags = TcpFlags { syn: true, ..TcpFlags::default() };
    let syn = L4::Tcp(Tcp { sport: 1, dport: 2, seq: 3, ack: 0, flags, len: 0 });
    assert_eq!(put(Mac::BROADCAST, packet("10.0.0.9", "10.0.0.1", syn)), 0);
    assert_eq!(put(port(0), udp("10.0.0.9", "10.1.0.9")), 1);
}

/// bridge seed 1, case 0 (br_handle_frame asks is_valid_ether_addr).
#[test]
fn a_bridge_takes_nothing_from_a_group() {
    let (mut kernel, legs, _) = bridged();
    for src in [Mac([7, 0, 0, 0, 0, 9]), Mac::default()] {
        let sent = put(&mut kernel, legs[0], src, HOST_MAC, udp("10.9.0.9", "10.9.0.8"));
        assert!(sent.is_empty(), "{sent:?}");
    }
}

/// bridge seed 1, cases 10 and 19 (eth_type_trans asks for the MAC of the link it came in by).
#[test]
fn through_a_bridge_a_frame_for_another_port_is_nobodys() {
    let (mut kernel, legs, _) = bridged();
    let question = || arp(true, (HOST_MAC, "10.9.0.9"), (Mac::default(), "10.9.0.1"));
    assert!(put(&mut kernel, legs[0], HOST_MAC, port(1), question()).is_empty());
    assert_eq!(put(&mut kernel, legs[0], HOST_MAC, port(0), question()).len(), 1);
    assert_eq!(put(&mut kernel, legs[0], HOST_MAC, BRIDGE, question()).len(), 1);
}

/// bridge seed 1, cases 103 and 328 (br_dev_xmit finds entries of its own, BR_FDB_LOCAL).
#[test]
fn a_bridge_sends_to_a_ports_address_by_that_port_and_to_its_own_not_at_all() {
    let (mut kernel, legs, _) = bridged();
    for (sender, by) in [(port(1), Some(legs[1])), (BRIDGE, None)] {
        let question = arp(true, (sender, "10.9.0.9"), (Mac::default(), "10.9.0.1"));
        let sent = put(&mut kernel, legs[1], sender, BRIDGE, question);
        let answers: Vec<u32> = sent.iter().map(|(link, _)| *link).collect();
        assert_eq!(answers, by.into_iter().collect::<Vec<_>>());
    }
}

/// bridge seed 2, case 4332 (fdb_add_local).
#[test]
fn what_was_learned_of_a_port_ends_when_it_becomes_one() {
    let (mut kernel, legs, bridge) = bridged();
    let mut out = Vec::new();
    kernel.set_master(now(), NsId::HOST, legs[1], None, &mut out).expect("a port");
    put(&mut kernel, legs[2], port(1), HOST_MAC, udp("10.9.0.9", "10.9.0.8"));
    assert_eq!(kernel.fdb(NsId::HOST, bridge).len(), 1);
    kernel.set_master(now(), NsId::HOST, legs[1], Some(bridge), &mut out).expect("a port");
    assert_eq!(kernel.fdb(NsId::HOST, bridge), []);
}

fn tunnel(kernel: &mut Kernel) -> u32 {
    let (local, address) = (ip("10.0.0.1"), net("10.9.0.1/24"));
    let spec = Vxlan { vni: 7, port: 4789, mac: BRIDGE, mtu: 1450, local, address };
    let index = kernel.add_vxlan(NsId::HOST, "vx0", &spec).expect("a new name");
    kernel.set_up(now(), NsId::HOST, index, true, &mut Vec::new()).expect("a link");
    add(kernel, index, "10.9.0.1/24");
    index
}

/// vxlan seed 1, case 6 (vxlan_rcv).
#[test]
fn what_is_for_no_tunnel_is_dropped_without_a_word() {
    let (mut kernel, legs) = routed();
    tunnel(&mut kernel);
    let to_port = |body| {
        let Payload::Ip(mut packet) = udp("10.0.0.22", "10.0.0.1") else { panic!("IP") };
        packet.l4 = L4::Udp { sport: 40_000, dport: 4789 };
        packet.body = body;
        Payload::Ip(packet)
    };
    let frame = Frame { src: HOST_MAC, dst: BRIDGE, payload: udp("10.9.0.2", "10.1.0.9") };
    let other = Body::Vxlan { vni: 8, frame: Box::new(frame) };
    for body in [other, Body::Empty] {
        let sent = put(&mut kernel, legs[0], HOST_MAC, port(0), to_port(body));
        assert!(sent.is_empty(), "{sent:?}");
    }
}

/// vxlan seed 1, case 0 (neigh_add changes the entry that is there).
#[test]
fn a_permanent_neighbour_takes_the_place_of_one_that_is_asked_for() {
    let (mut kernel, legs) = routed();
    tunnel(&mut kernel);
    put(&mut kernel, legs[1], HOST_MAC, port(1), udp("10.1.0.9", "10.9.0.2"));
    assert_eq!(states(&kernel), [(ip("10.9.0.2"), None, NeighbourState::Incomplete)]);
    let entries = vec![Neighbour { ip: ip("10.9.0.2"), mac: HOST_MAC }].into();
    let request = Request::SetNeighbours { dev: "vx0".into(), entries };
    kernel.network(now(), &request, &mut Vec::new());
    let permanent = (ip("10.9.0.2"), Some(HOST_MAC), NeighbourState::Permanent);
    assert_eq!(states(&kernel), [permanent]);
}

/// neighbours seed 1, cases 14 and 39 (arp_is_garp).
#[test]
fn an_announcement_by_answer_names_its_sender_twice() {
    let other = Mac([6, 0, 0, 0, 0, 2]);
    for (target, believed) in [(port(0), HOST_MAC), (other, other)] {
        let (mut kernel, legs) = routed();
        let question = arp(true, (HOST_MAC, "10.0.0.9"), (Mac::default(), "10.0.0.1"));
        put(&mut kernel, legs[0], HOST_MAC, Mac::BROADCAST, question);
        let announced = arp(false, (other, "10.0.0.9"), (target, "10.0.0.9"));
        put(&mut kernel, legs[0], other, port(0), announced);
        assert_eq!(states(&kernel)[0].1, Some(believed));
    }
}

/// neighbours seed 1, cases 15 and 91 (arp_process asks ip_route_input).
#[test]
fn nobody_is_answered_who_asks_from_an_address_of_ones_own() {
    let (mut kernel, legs) = routed();
    let question = |from| arp(true, (HOST_MAC, from), (Mac::default(), "10.0.0.1"));
    let mut ask = |from| put(&mut kernel, legs[0], HOST_MAC, Mac::BROADCAST, question(from)).len();
    assert_eq!(ask("10.1.0.1"), 0);
    assert_eq!(ask("10.0.0.9"), 1);
}

/// neighbours with sysctls (arp_process drops what arp_ignore ignores).
#[test]
fn of_a_question_that_is_ignored_nothing_is_learned() {
    let (mut kernel, legs) = routed();
    let question = |mac, of| arp(true, (mac, "10.0.0.9"), (Mac::default(), of));
    let ask = |kernel: &mut Kernel, mac, of| {
        put(kernel, legs[0], mac, Mac::BROADCAST, question(mac, of)).len()
    };
    assert_eq!(ask(&mut kernel, HOST_MAC, "10.1.0.1"), 1);
    sysctl(&mut kernel, "net.ipv4.conf.all.arp_ignore", "1");
    let other = Mac([6, 0, 0, 0, 0, 2]);
    assert_eq!(ask(&mut kernel, other, "10.1.0.1"), 0);
    let known = (ip("10.0.0.9"), Some(HOST_MAC), NeighbourState::Stale);
    assert_eq!(states(&kernel), [known]);
    assert_eq!(ask(&mut kernel, other, "10.0.0.1"), 1);
}

/// neighbours with sysctls (inet_confirm_addr).
#[test]
fn who_is_in_no_subnet_of_an_address_is_told_of_it_unless_arp_ignore_is_2() {
    let (mut kernel, legs) = routed();
    let question = || arp(true, (HOST_MAC, "10.2.0.9"), (Mac::default(), "10.0.0.1"));
    for (how, answers) in [("0", 1), ("1", 1), ("2", 0)] {
        sysctl(&mut kernel, "net.ipv4.conf.all.arp_ignore", how);
        let answered = put(&mut kernel, legs[0], HOST_MAC, Mac::BROADCAST, question());
        assert_eq!(answered.len(), answers, "arp_ignore {how}");
    }
}

fn sysctl(kernel: &mut Kernel, key: &str, value: &str) {
    kernel.set_sysctl(now(), NsId::HOST, key, value, &mut Vec::new()).expect("a key");
}

/// neighbours with sysctls (arp_solicit).
#[test]
fn arp_announce_says_in_whose_name_one_asks() {
    let (here, secondary, elsewhere) = ("10.0.0.1", "10.0.0.2", "10.1.0.2");
    for (how, from, asker) in [
        ("0", elsewhere, elsewhere),
        ("1", elsewhere, here),
        ("1", secondary, secondary),
        ("2", secondary, here),
    ] {
        let (mut kernel, legs) = routed();
        add(&mut kernel, legs[0], "10.0.0.2/16");
        add(&mut kernel, legs[1], "10.1.0.2/16");
        sysctl(&mut kernel, "net.ipv4.conf.all.arp_announce", how);
        let mut out = Vec::new();
        let any = Ipv4Addr::UNSPECIFIED;
        let socket = kernel.udp_bind(NsId::HOST, any, 5000, 7).expect("a free port");
        let (from, to) = (Some(ip(from)), at("10.0.0.9:80"));
        kernel.udp_send(now(), socket, from, to, Body::Empty, 0, &mut out).expect("a way");
        let [(_, Frame { payload: Payload::Arp(arp), .. })] = &left(out)[..] else {
            panic!("nobody is asked");
        };
        assert_eq!(arp.sender_ip, ip(asker), "arp_announce {how}, from {from:?}");
    }
}

/// neighbours seed 21, case 38458 (neigh_probe looks at the last packet that waits).
#[test]
fn one_asks_again_on_behalf_of_the_latest() {
    let (mut kernel, legs) = routed();
    let mut out = Vec::new();
    let any = Ipv4Addr::UNSPECIFIED;
    let socket = kernel.udp_bind(NsId::HOST, any, 5000, 7).expect("a free port");
    let to = at("10.1.0.10:80");
    kernel.udp_send(now(), socket, None, to, Body::Empty, 0, &mut out).expect("a way");
    let from = Some(ip("10.2.0.1"));
    kernel.udp_send(now(), socket, from, to, Body::Empty, 0, &mut out).expect("a way");
    kernel.timeout(now() + Duration::from_secs(1), &mut out);
    let askers = left(out).into_iter().filter_map(|(link, frame)| match frame.payload {
        Payload::Arp(arp) if link == legs[1] => Some(arp.sender_ip),
        _ => None,
    });
    assert_eq!(askers.collect::<Vec<_>>(), [ip("10.1.0.1"), ip("10.2.0.1")]);
}

/// neighbours seed 2, case 633 (neigh_flush_dev).
#[test]
fn what_waits_on_a_link_that_goes_down_is_lost_without_a_word() {
    let (mut kernel, legs) = routed();
    let asked = put(&mut kernel, legs[0], HOST_MAC, port(0), udp("10.0.0.9", "10.2.0.9"));
    assert_eq!(asked.len(), 1);
    let mut out = Vec::new();
    kernel.set_up(now(), NsId::HOST, legs[2], false, &mut out).expect("a link");
    assert!(left(out).is_empty());
    assert_eq!(states(&kernel), []);
}

/// neighbours seed 4003, case 40227 (neigh_invalidate purges the queue behind its reports).
#[test]
fn an_error_for_the_very_neighbour_that_failed_is_lost() {
    let (mut kernel, legs) = routed();
    let asked = put(&mut kernel, legs[1], HOST_MAC, port(1), udp("10.1.0.11", "10.1.0.11"));
    assert_eq!(asked.len(), 1);
    let mut out = Vec::new();
    for second in 1..=3 {
        kernel.timeout(now() + Duration::from_secs(second), &mut out);
    }
    // It is asked for again, on the error's behalf.
    assert_eq!(left(out).len(), 3);
    let answer = arp(false, (HOST_MAC, "10.1.0.11"), (port(1), "10.1.0.1"));
    assert_eq!(put(&mut kernel, legs[1], HOST_MAC, port(1), answer).len(), 0);
    assert_eq!(states(&kernel)[0].2, NeighbourState::Reachable);
}

/// neighbours seed 20261127, case 33144: of two that fail in one instant, the one that was asked
/// for last fails first, so the error about the other asks for it anew.
#[test]
fn what_is_due_together_is_done_last_armed_first() {
    let (mut kernel, legs) = routed();
    for dst in ["10.1.0.10", "10.1.0.1"] {
        let asked = put(&mut kernel, legs[1], HOST_MAC, port(1), udp("10.1.0.11", dst));
        assert_eq!(asked.len(), 1, "for 10.1.0.10, then for who is told that no port is there");
    }
    for second in 1..=3 {
        kernel.timeout(now() + Duration::from_secs(second), &mut Vec::new());
    }
    let states: Vec<_> = states(&kernel).into_iter().map(|(ip, _, state)| (ip, state)).collect();
    let expected =
        [(ip("10.1.0.10"), NeighbourState::Failed), (ip("10.1.0.11"), NeighbourState::Incomplete)];
    assert_eq!(states, expected);
}

/// A bridge through iptables, where what is sent to this address goes to 10.9.0.11.
fn bridged_with_dnat(of: &str) -> (Kernel, [u32; 3]) {
    let (mut kernel, legs, _) = bridged();
    forwarding(&mut kernel, "1");
    let (mut out, key) = (Vec::new(), "net.bridge.bridge-nf-call-iptables");
    kernel.set_sysctl(now(), NsId::HOST, key, "1", &mut out).expect("br_netfilter");
    let rules = kernel.netfilter_mut(NsId::HOST).expect("rules");
    let command = format!("-t nat -A PREROUTING -d {of} -p udp -j DNAT --to-destination 10.9.0.11");
    rules.command(&command).expect("a rule");
    (kernel, legs)
}

/// What bridge-filter draws since DNAT goes to hosts of the bridge: bridged on with the client's
/// MAC address and its TTL, once the host was asked for (br_nf_pre_routing_finish_bridge).
#[test]
fn what_dnat_sends_to_a_host_of_the_bridge_is_bridged_on() {
    let (mut kernel, legs) = bridged_with_dnat("10.96.0.1");
    let request = udp("10.9.0.10", "10.96.0.1");
    let asked = put(&mut kernel, legs[0], HOST_MAC, BRIDGE, request.clone());
    assert!(asked.iter().all(|(_, frame)| matches!(frame.payload, Payload::Arp(_))));
    assert_eq!(asked.len(), legs.len(), "who is 10.9.0.11?");
    let other = Mac([6, 0, 0, 0, 0, 2]);
    let answer = arp(false, (other, "10.9.0.11"), (BRIDGE, "10.9.0.1"));
    let waited = put(&mut kernel, legs[1], other, BRIDGE, answer);
    let next = put(&mut kernel, legs[0], HOST_MAC, BRIDGE, request);
    for sent in [waited, next] {
        let [(by, Frame { src, dst, payload: Payload::Ip(packet) })] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!((*by, *src, *dst), (legs[1], HOST_MAC, other));
        assert_eq!((packet.dst, packet.ttl), (ip("10.9.0.11"), 64));
    }
}

/// bridge-filter seed 1, case 2019: two packets of one connection wait for whom DNAT sends them to,
/// so the second is confirmed behind the first (nf_conntrack_tuple_taken leaves that to
/// nf_ct_resolve_clash).
#[test]
fn two_packets_that_wait_for_a_host_of_the_bridge_both_go_on() {
    let (mut kernel, legs) = bridged_with_dnat("10.9.0.13");
    let other = Mac([6, 0, 0, 0, 0, 2]);
    for _ in 0..2 {
        put(&mut kernel, legs[2], HOST_MAC, other, udp("10.9.0.12", "10.9.0.13"));
    }
    let answer = arp(false, (other, "10.9.0.11"), (BRIDGE, "10.9.0.1"));
    let sent = put(&mut kernel, legs[1], other, BRIDGE, answer);
    assert_eq!(sent.iter().map(|(by, _)| *by).collect::<Vec<_>>(), [legs[1], legs[1]]);
    assert_eq!(kernel.netfilter(NsId::HOST).expect("rules").conntrack().count(), 1);
}

/// bridge-filter seed 20261127, case 3871: as above, but the address outside is taken, so that
/// each of the two has a source port of its own. The second is not lost: it has an entry that
/// only answers find, for a second, and that is not listed (nf_ct_resolve_clash_harder).
#[test]
fn of_two_that_wait_with_ports_of_their_own_the_second_has_an_entry_for_answers() {
    let (mut kernel, legs) = bridged_with_dnat("10.9.0.10");
    let (client, other) = (Mac([6, 0, 0, 0, 0, 3]), Mac([6, 0, 0, 0, 0, 2]));
    put(&mut kernel, legs[1], client, HOST_MAC, udp("10.9.0.13", "10.9.0.11"));
    for leg in [legs[2], legs[0]] {
        put(&mut kernel, leg, client, BRIDGE, udp("10.9.0.13", "10.9.0.10"));
    }
    let answer = arp(false, (other, "10.9.0.11"), (BRIDGE, "10.9.0.1"));
    let sent = put(&mut kernel, legs[1], other, BRIDGE, answer);
    let ports = |(_, frame): &(u32, Frame)| match &frame.payload {
        Payload::Ip(packet) => packet.ports(),
        payload => panic!("{payload:?}"),
    };
    let sent: Vec<(u16, u16)> = sent.iter().map(ports).collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0].0, sent[1].0);
    let listed = |kernel: &Kernel| kernel.netfilter(NsId::HOST).expect("rules").conntrack().count();
    assert_eq!(listed(&kernel), 2);
    // An answer to the second finds its way.
    let Payload::Ip(mut reply) = udp("10.9.0.11", "10.9.0.13") else { unreachable!() };
    reply.l4 = L4::Udp { sport: sent[1].1, dport: sent[1].0 };
    let back = put(&mut kernel, legs[1], other, client, Payload::Ip(reply));
    let Some((_, Frame { payload: Payload::Ip(back), .. })) = back.first() else {
        panic!("{back:?}");
    };
    let Payload::Ip(asked) = udp("10.9.0.13", "10.9.0.10") else { unreachable!() };
    assert_eq!((back.src, back.dst), (asked.dst, asked.src));
    assert_eq!(back.ports(), (asked.ports().1, asked.ports().0));
    assert_eq!(listed(&kernel), 2);
}

/// bridge-filter seed 24520, case 18 (br_nf_pre_routing notes the port).
#[test]
fn by_which_port_it_came_is_known_only_where_br_netfilter_is_at_work() {
    let (mut kernel, legs, _) = bridged();
    let rules = kernel.netfilter_mut(NsId::HOST).expect("the host");
    let rule = "-t mangle -A PREROUTING -m physdev --physdev-is-in -j MARK --set-xmark 0x1/0x1";
    rules.command(rule).expect("a rule");
    for (called, matched) in [("0", 0), ("1", 1)] {
        sysctl(&mut kernel, "net.bridge.bridge-nf-call-iptables", called);
        put(&mut kernel, legs[1], HOST_MAC, BRIDGE, udp("10.9.0.10", "10.9.0.1"));
        let rules = kernel.netfilter(NsId::HOST).expect("the host");
        assert_eq!(rules.counter(Table::Mangle, "PREROUTING", 0), Some(matched), "{called}");
    }
}
