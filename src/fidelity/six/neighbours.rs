//! Who is where on a link: what is asked, what is believed, and how long.

use super::{Act, discovery, far_mac, inbound, ip, packet};
use crate::fidelity::dice::Dice;
use crate::fidelity::step::{Case, LEGS, SOCKETS, Step};
use kubesim_actors::ports::network::Mac;
use kubesim_sim::kernel::family::V6;
use kubesim_sim::kernel::packet::{Advertised, Discovery, Frame, Icmp, L4, Packet};
use std::net::Ipv6Addr;

/// Hosts, and the leg they are on.
const HOSTS: [(&str, usize); 5] =
    [("fd00:1::10", 0), ("fd00:2::10", 1), ("fd00:2::11", 1), ("fd00:3::10", 2), ("fe80::10", 1)];
/// The router's addresses, those of no single router, and one that nobody has.
const OTHERS: [&str; 8] = [
    "fd00:1::1",
    "fd00:2::1",
    "fd00:3::1",
    "fe80::ff:fe00:1",
    "fd00:2::",
    "fe80::",
    "fd00:2::99",
    "::",
];
/// By which a leg has an address that it gave itself.
const LINK_LOCAL: [&str; 3] = ["fe80::ff:fe00:0", "fe80::ff:fe00:1", "fe80::ff:fe00:2"];
/// One case in so many takes real time.
const PAUSES: usize = 3000;

pub fn case(dice: &mut Dice) -> Case {
    let mut case: Case = Vec::new();
    if !dice.yes(3) {
        case.push(forwarding(dice, "all"));
    }
    case.extend((0..4 + dice.below(12)).map(|_| step(dice)).collect::<Case>());
    if dice.yes(PAUSES) {
        let at = 1 + dice.below(case.len());
        case.insert(at, Step::Six(Act::Pause));
    }
    case
}

fn forwarding(dice: &mut Dice, conf: &str) -> Step {
    Step::Sysctl(format!("net.ipv6.conf.{conf}.forwarding"), u8::from(!dice.yes(4)))
}

fn step(dice: &mut Dice) -> Step {
    let (host, leg) = dice.one(&HOSTS);
    match dice.below(13) {
        12 => Step::Six(Act::Send(dice.one(&SOCKETS), ip(host), 80)),
        0..4 => {
            let src = ip(host);
            // To a host of the same leg, or one that is of each, Linux would redirect.
            let elsewhere = |(ip, at): &&(&str, usize)| *at != leg && !ip.starts_with("fe80");
            let others: Vec<_> = HOSTS.iter().filter(elsewhere).collect();
            let dst = match dice.below(3) {
                0 => own(dice, leg),
                _ => ip(dice.one(&others).0),
            };
            let (l4, len) = match dice.below(3) {
                0 => (L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }), 48),
                _ => (L4::Udp { sport: 1024, dport: dice.one(&[80, 5000]) }, 48),
            };
            Step::Six(Act::Packet(leg, Box::new(packet(src, dst, l4, len))))
        }
        4..7 => Step::Six(Act::Tell(dice.below(2), dice.yes(4).then(|| mac(dice)))),
        7 if dice.yes(8) => Step::SetUp(leg, dice.yes(2)),
        7 if dice.yes(4) => forwarding(dice, LEGS[leg]),
        _ => {
            let leg = if dice.yes(8) { dice.leg() } else { leg };
            Step::Six(Act::Frame(leg, Box::new(word(dice, ip(host), leg))))
        }
    }
}

/// An address of the router's, as seen by a leg: what it would send back by that leg Linux would
/// redirect.
fn own(dice: &mut Dice, leg: usize) -> Ipv6Addr {
    match dice.below(4) {
        0 => ip(LINK_LOCAL[leg]),
        at => ip(OTHERS[at - 1]),
    }
}

fn mac(dice: &mut Dice) -> Mac {
    Mac([0x06, 0, 0, 0, 7, dice.below(2) as u8])
}

/// A question or an answer, as often wrong as right.
fn word(dice: &mut Dice, host: Ipv6Addr, leg: usize) -> Frame {
    let sender = if dice.yes(3) { mac(dice) } else { far_mac(leg, host) };
    let src = if dice.yes(12) { ip(dice.one(&OTHERS)) } else { host };
    let says = (!dice.yes(4)).then_some(sender);
    let frame = match dice.yes(2) {
        true => {
            let target = ip(dice.one(&OTHERS));
            let source = says.filter(|_| !src.is_unspecified() || dice.yes(4));
            let dst = if dice.yes(3) { own(dice, leg) } else { solicited_node(target) };
            inbound(
                leg,
                &hops(dice, discovery(src, dst, Discovery::Solicitation { target, source })),
            )
        }
        false => {
            let target = if dice.yes(8) { ip(dice.one(&OTHERS)) } else { host };
            let group = dice.yes(3);
            let solicited = if group { dice.yes(8) } else { !dice.yes(3) };
            let (router, overrides) = (dice.yes(3), dice.yes(2));
            let flags = Advertised { router, solicited, overrides };
            let message = Discovery::Advertisement { target, flags, link: says };
            let dst = if group { ip("ff02::1") } else { own(dice, leg) };
            inbound(leg, &hops(dice, discovery(src, dst, message)))
        }
    };
    Frame { src: sender, ..frame }
}

/// Nobody believes what may have passed a router.
fn hops(dice: &mut Dice, packet: Packet<V6>) -> Packet<V6> {
    let ttl = if dice.yes(16) { 254 } else { 255 };
    Packet { ttl, ..packet }
}

/// RFC 4291, section 2.7.1.
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}
