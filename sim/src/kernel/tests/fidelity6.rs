//! What random cases of IPv6 on the real kernel (`kubesim fidelity`) showed the model to get wrong,
//! each as small as it gets; and what it begins with.

use super::*;
use crate::body::Body;
use crate::kernel::family::V6;
use crate::kernel::packet::{Advertised, Ct, Discovery, Icmp, Icmp6Error};
use crate::kernel::{NeighbourState, Placing, Route6};
use ipnet::Ipv6Net;
use std::net::Ipv6Addr;

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// A router with three legs, up, that speaks IPv6.
fn router() -> (Kernel, [u32; 3]) {
    let mut kernel = kernel(0);
    sysctl(&mut kernel, "conf.all.disable_ipv6", "0");
    sysctl(&mut kernel, "icmp.ratelimit", "0");
    let mut out = Vec::new();
    let legs = [0, 1, 2].map(|leg| {
        let mac = Mac([2, 0, 0, 0, 0, leg]);
        let index = kernel.add_uplink(&format!("leg{leg}"), mac, 1500).expect("a new name");
        kernel.set_up(Time::ZERO, NsId::HOST, index, true, &mut out).expect("a link");
        index
    });
    (kernel, legs)
}

fn sysctl(kernel: &mut Kernel, key: &str, value: &str) {
    let key = format!("net.ipv6.{key}");
    kernel.set_sysctl(Time::ZERO, NsId::HOST, &key, value, &mut Vec::new()).expect("a key");
}

fn add(kernel: &mut Kernel, leg: u32, address: &str) {
    let address: Ipv6Net = address.parse().expect("an address with its length");
    let added = kernel.add_address6(Time::ZERO, NsId::HOST, leg, address, &mut Vec::new());
    added.expect("a new address");
}

fn add_route(
    kernel: &mut Kernel,
    to: &str,
    via: Option<&str>,
    dev: &str,
    metric: u32,
) -> Result<(), Errno> {
    let (to, via) = (to.parse().expect("a network"), via.map(ip6));
    let route = Route6 { to, via, dev: dev.into(), onlink: false, metric };
    let (route, placing) = ((&route, Proto::STATIC), Placing::Alone);
    kernel.add_route6(Time::ZERO, NsId::HOST, route, placing, &mut Vec::new())
}

fn get(kernel: &Kernel, dst: &str) -> String {
    kernel.ip_route_get6(NsId::HOST, ip6(dst)).expect("a way")
}

fn packet(src: &str, dst: &str, l4: L4<V6>) -> Packet<V6> {
    let (src, dst, len) = (ip6(src), ip6(dst), 48);
    let (dont_fragment, body, ct) = (true, Body::Empty, Ct::None);
    Packet { src, dst, ttl: 64, dont_fragment, len, segment: len, l4, body, mark: 0, ct }
}

fn echo(src: &str, dst: &str) -> Packet<V6> {
    packet(src, dst, L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }))
}

/// What leaves by which leg when a packet comes in by one; whoever is asked for answers.
fn play(kernel: &mut Kernel, leg: u32, packet: Packet<V6>) -> Vec<(u32, Packet<V6>)> {
    let dst = match packet.dst.is_multicast() {
        true => Mac([0x33, 0x33, 0, 0, 0, 1]),
        false => kernel.links(NsId::HOST).find(|link| link.index == leg).expect("a leg").mac,
    };
    let frame = Frame { src: Mac([6; 6]), dst, payload: Payload::Ip6(Box::new(packet)) };
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    kernel.receive(Time::ZERO, leg, frame, &mut out);
    while !out.is_empty() {
        let Output::Transmit { link, frame } = out.remove(0) else { continue };
        let Payload::Ip6(packet) = frame.payload else { continue };
        let L4::Icmp(Icmp::Discovery(Discovery::Solicitation { target, .. })) = packet.l4 else {
            sent.push((link, *packet));
            continue;
        };
        let flags = Advertised { router: false, solicited: true, overrides: true };
        let message = Discovery::Advertisement { target, flags, link: Some(Mac([6; 6])) };
        let says = Packet {
            src: target,
            dst: packet.src,
            ttl: 255,
            l4: L4::Icmp(Icmp::Discovery(message)),
            ..*packet
        };
        let payload = Payload::Ip6(Box::new(says));
        let answer = Frame { src: Mac([6; 6]), dst: frame.src, payload };
        kernel.receive(Time::ZERO, link, answer, &mut out);
    }
    sent
}

#[test]
fn a_link_gives_itself_an_address_and_loses_all_with_its_going_down() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::5/64");
    let addresses = |kernel: &Kernel| {
        let all = kernel.addresses6(NsId::HOST, leg).iter().map(Ipv6Net::to_string);
        all.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(addresses(&kernel), "fd00:1::5/64 fe80::ff:fe00:0/64");
    kernel.set_up(Time::ZERO, NsId::HOST, leg, false, &mut Vec::new()).expect("a link");
    assert_eq!(addresses(&kernel), "");
    assert!(!kernel.ip_route6(NsId::HOST).iter().any(|line| line.contains("leg0")));
    kernel.set_up(Time::ZERO, NsId::HOST, leg, true, &mut Vec::new()).expect("a link");
    assert_eq!(addresses(&kernel), "fe80::ff:fe00:0/64");
}

#[test]
fn nothing_is_there_until_it_is_switched_on() {
    let mut kernel = kernel(0);
    let key = "net.ipv6.conf.all.disable_ipv6";
    assert_eq!(kernel.sysctl(NsId::HOST, key).as_deref(), Some("1"));
    assert_eq!(kernel.ip_route6(NsId::HOST).len(), 0);
    sysctl(&mut kernel, "conf.all.disable_ipv6", "0");
    let lines = kernel.ip_route6(NsId::HOST);
    assert_eq!(lines, ["local ::1 dev lo table local proto 2 metric 0"]);
}

#[test]
fn a_packet_passes_only_where_all_forwards() {
    let (mut kernel, [a, b, _]) = router();
    add(&mut kernel, a, "fd00:1::1/64");
    add(&mut kernel, b, "fd00:2::1/64");
    sysctl(&mut kernel, "conf.leg0.forwarding", "1");
    assert!(play(&mut kernel, a, echo("fd00:1::9", "fd00:2::9")).is_empty());
    sysctl(&mut kernel, "conf.all.forwarding", "1");
    let sent = play(&mut kernel, a, echo("fd00:1::9", "fd00:2::9"));
    assert!(matches!(&sent[..], [(leg, Packet { ttl: 63, .. })] if *leg == b), "{sent:?}");
    let sent = play(&mut kernel, a, echo("fe80::9", "fd00:2::9"));
    let [(_, Packet { src, l4: L4::Icmp(Icmp::Error { kind, .. }), .. })] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((*src, *kind), (ip6("fe80::ff:fe00:0"), Icmp6Error::BeyondScope));
}

#[test]
fn all_nodes_are_answered_from_the_address_of_the_link() {
    let (mut kernel, [leg, ..]) = router();
    let sent = play(&mut kernel, leg, echo("fe80::9", "ff02::1"));
    let [(_, Packet { src, l4: L4::Icmp(Icmp::EchoReply { .. }), .. })] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(*src, ip6("fe80::ff:fe00:0"));
}

#[test]
fn a_gateway_is_of_the_link_or_reached_by_it() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::5/64");
    let mut by = |via, dev| add_route(&mut kernel, "fd00:9::/64", Some(via), dev, 0);
    assert_eq!(by("fd00:1::5", "leg1"), Err(Errno::Einval));
    assert_eq!(by("fd00:1::9", "leg1"), Err(Errno::Ehostunreach));
    assert_eq!(by("fd00:1::9", "leg0"), Ok(()));
    assert_eq!(by("fe80::9", "leg1"), Err(Errno::Eexist));
    assert_eq!(get(&kernel, "fd00:9::1"), "fd00:9::1 via fd00:1::9 dev leg0 src fd00:1::5");
}

/// Forwarding6 seed 2, case 14573: nobody's address has no scope, so the nearest suits it best.
#[test]
fn nobody_is_answered_from_the_nearest_address() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::2/64");
    add_route(&mut kernel, "::/0", Some("fd00:1::9"), "leg0", 1).expect("a good route");
    sysctl(&mut kernel, "conf.all.forwarding", "1");
    let sent = play(&mut kernel, leg, echo("::", "fe80::"));
    assert!(matches!(&sent[..], [(_, Packet { src, .. })] if *src == ip6("fe80::ff:fe00:0")));
}

#[test]
fn a_datagram_reaches_who_is_bound_and_no_other() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::2/64");
    let bind = |kernel: &mut Kernel, addr: &str| kernel.udp6_bind(NsId::HOST, ip6(addr), 53, 7);
    assert_eq!(bind(&mut kernel, "fd00:1::9").err(), Some(Errno::Eaddrnotavail));
    let socket = bind(&mut kernel, "::").expect("a free port");
    assert_eq!(bind(&mut kernel, "fd00:1::2").err(), Some(Errno::Eaddrinuse));
    let udp = |dport| packet("fd00:1::9", "fd00:1::2", L4::Udp { sport: 1024, dport });
    assert!(play(&mut kernel, leg, udp(53)).is_empty());
    let sent = play(&mut kernel, leg, udp(54));
    let [(_, Packet { l4: L4::Icmp(Icmp::Error { kind, .. }), .. })] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(*kind, Icmp6Error::PortUnreachable);
    let mut out = Vec::new();
    let to = (ip6("fd00:1::2"), 53);
    kernel.udp6_send(Time::ZERO, socket, to, Body::Empty, 0, &mut out).expect("a way to itself");
    let own = |output: &Output| {
        matches!(output, Output::Socket { event: SocketEvent::Datagram6 { from, .. }, .. }
            if *from.ip() == ip6("fd00:1::2"))
    };
    assert!(out.iter().any(own), "{out:?}");
    let to = (ip6("fd00:9::2"), 53);
    let sent = kernel.udp6_send(Time::ZERO, socket, to, Body::Empty, 0, &mut out);
    assert_eq!(sent, Err(Errno::Enetunreach));
}

/// A word of fd00:1::9 about itself.
fn advertisement(mac: [u8; 6], overrides: bool) -> Frame {
    let flags = Advertised { router: false, solicited: true, overrides };
    let message =
        Discovery::Advertisement { target: ip6("fd00:1::9"), flags, link: Some(Mac(mac)) };
    let l4 = L4::Icmp(Icmp::Discovery(message));
    let says = Packet { ttl: 255, ..packet("fd00:1::9", "fd00:1::2", l4) };
    Frame { src: Mac(mac), dst: Mac([2, 0, 0, 0, 0, 0]), payload: Payload::Ip6(Box::new(says)) }
}

#[test]
fn who_contradicts_without_overriding_makes_a_neighbour_doubtful() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::2/64");
    assert_eq!(play(&mut kernel, leg, echo("fd00:1::9", "fd00:1::2")).len(), 1);
    let known = |kernel: &Kernel| {
        let found = kernel.neighbours6(NsId::HOST).next().expect("a neighbour").0;
        (found.mac.expect("its address"), found.state)
    };
    assert_eq!(known(&kernel), (Mac([6; 6]), NeighbourState::Reachable));
    let mut hear = |mac, overrides| {
        kernel.receive(Time::ZERO, leg, advertisement(mac, overrides), &mut Vec::new());
        known(&kernel)
    };
    assert_eq!(hear([8; 6], false), (Mac([6; 6]), NeighbourState::Stale));
    assert_eq!(hear([8; 6], false), (Mac([6; 6]), NeighbourState::Stale));
    assert_eq!(hear([8; 6], true), (Mac([8; 6]), NeighbourState::Reachable));
}

#[test]
fn a_route_takes_the_place_of_one_like_it() {
    let (mut kernel, legs) = router();
    for leg in &legs[..2] {
        add(&mut kernel, *leg, &format!("fd00:1::{leg}/64"));
    }
    let mut put = |via, placing| {
        let (to, via) = ("fd00:1::/64".parse().expect("a network"), via);
        let route = Route6 { to, via, dev: "leg2".into(), onlink: false, metric: 256 };
        let route = (&route, Proto::STATIC);
        kernel.add_route6(Time::ZERO, NsId::HOST, route, placing, &mut Vec::new())?;
        let lines = kernel.ip_route6(NsId::HOST).into_iter();
        Ok::<Vec<_>, Errno>(lines.filter(|line| line.starts_with("fd00:1::/64")).collect())
    };
    let line = |dev, proto| format!("fd00:1::/64 dev {dev} proto {proto} metric 256");
    assert_eq!(put(None, Placing::Alone), Err(Errno::Eexist));
    let all = [line("leg0", 2), line("leg1", 2), line("leg2", 4)];
    assert_eq!(put(None, Placing::Behind).as_deref(), Ok(&all[..]));
    assert_eq!(put(None, Placing::Behind), Err(Errno::Eexist));
    // None has a gateway: it takes the first one's place.
    let via = "fd00:1::/64 via fe80::9 dev leg2 proto 4 metric 256".to_owned();
    let all = [via, line("leg1", 2), line("leg2", 4)];
    assert_eq!(put(Some(ip6("fe80::9")), Placing::Instead).as_deref(), Ok(&all[..]));
    let all = [all[0].clone(), line("leg2", 4), line("leg2", 4)];
    assert_eq!(put(None, Placing::Instead).as_deref(), Ok(&all[..]));
}

/// Neighbours6 seed 7, case 2916.
#[test]
fn nobody_complains_to_the_first_address_of_a_subnet() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:2::1/64");
    assert_eq!(play(&mut kernel, leg, echo("fd00:2::9", "fd00:1::1")).len(), 1);
    assert!(play(&mut kernel, leg, echo("fd00:2::", "fd00:1::1")).is_empty());
}

/// ip6tables-legacy seed 1, cases 110, 186 and 363: rules at INPUT hear of the loopback, whichever
/// link has the address.
#[test]
fn what_a_machine_says_to_itself_comes_by_its_loopback() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::1/64");
    let rules = kernel.netfilter6_mut(NsId::HOST).expect("rules");
    rules.command("-A INPUT -i leg+ -j DROP").expect("a rule");
    let mut bind =
        |port| kernel.udp6_bind(NsId::HOST, Ipv6Addr::UNSPECIFIED, port, 7).expect("a free port");
    let (_, speaker) = (bind(5000), bind(5001));
    let (mut out, to) = (Vec::new(), (ip6("fd00:1::1"), 5000));
    let sent = kernel.udp6_send(Time::ZERO, speaker, to, Body::Empty, 0, &mut out);
    sent.expect("a way");
    let heard = |output: &Output| {
        matches!(output, Output::Socket { event: SocketEvent::Datagram6 { .. }, .. })
    };
    assert_eq!(out.iter().filter(|output| heard(output)).count(), 1);
}

/// ip6tables-nft and ip6tables-legacy: what OUTPUT sends to a group leaves by the link that it was
/// to leave by before, and so nowhere if it was for this machine (ip6_route_me_harder).
#[test]
fn what_output_sends_to_a_group_leaves_where_it_was_to_leave() {
    let (mut kernel, [leg, ..]) = router();
    add(&mut kernel, leg, "fd00:1::1/64");
    let rules = kernel.netfilter6_mut(NsId::HOST).expect("rules");
    rules.command("-t nat -A OUTPUT -p udp -j DNAT --to-destination ff02::9").expect("a rule");
    let any = Ipv6Addr::UNSPECIFIED;
    let speaker = kernel.udp6_bind(NsId::HOST, any, 5001, 7).expect("a free port");
    let mut leaves_by = |to: &str| {
        let (mut out, to) = (Vec::new(), (ip6(to), 5000));
        let _ = kernel.udp6_send(Time::ZERO, speaker, to, Body::Empty, 0, &mut out);
        let link = |output| match output {
            Output::Transmit { link, frame: Frame { payload: Payload::Ip6(packet), .. } } => {
                (packet.dst == ip6("ff02::9")).then_some(link)
            }
            _ => None,
        };
        out.into_iter().filter_map(link).collect::<Vec<u32>>()
    };
    assert_eq!(leaves_by("fd00:1::10"), [leg]);
    assert!(leaves_by("fd00:1::1").is_empty());
}
