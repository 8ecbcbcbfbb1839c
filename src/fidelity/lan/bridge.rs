//! Frames through a bridge: who is learned by which port, and what goes where.

use super::{Act, BRIDGE, CALLED, OWN_MAC};
use crate::fidelity::dice::Dice;
use crate::fidelity::six;
use crate::fidelity::step::{Case, SOCKETS, Step, ip};
use crate::fidelity::wire;
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::rules::{CtStates, Match, Protocol, Rule, Table, Target};
use kubesim_sim::kernel::packet::{Advertised, Arp, Discovery, Frame, Icmp, L4, Payload};
use std::net::Ipv6Addr;

/// Hosts, by number: each may be anywhere.
const HOSTS: [&str; 4] = ["10.9.0.10", "10.9.0.11", "10.9.0.12", "10.9.0.13"];

/// Whom DNAT sends to: the bridge itself, and hosts on it. Not who is on no route: how often
/// somebody is told so depends on the clock (ip_error, net/ipv4/route.c), and no namespace can say
/// otherwise.
const TARGETS: [&str; 3] = ["10.9.0.1", "10.9.0.11", "10.9.0.13"];

fn mac(number: usize) -> Mac {
    Mac([0x06, 0, 0, 0, 9, number as u8])
}

pub fn case(dice: &mut Dice) -> Case {
    (0..4 + dice.below(12)).map(|_| step(dice)).collect()
}

/// The same with rules that bridged packets meet.
pub fn filtered(dice: &mut Dice) -> Case {
    let mut case = Case::new();
    for _ in 0..1 + dice.below(5) {
        case.push(rule(dice));
    }
    for _ in 0..4 + dice.below(8) {
        case.push(match dice.below(12) {
            0 => Step::Send(dice.one(&SOCKETS), ip(dice.one(&HOSTS)), 80, 0),
            1..=3 => Step::Lan(Act::Tell(dice.below(2), None)),
            4 if dice.yes(3) => Step::Lan(Act::Hairpin(dice.leg(), !dice.yes(4))),
            4 if dice.yes(3) => Step::Sysctl(CALLED.to_owned(), u8::from(dice.yes(2))),
            _ => Step::Lan(Act::Frame(dice.leg(), Box::new(plain(dice)))),
        });
    }
    case.push(Step::Counters);
    case
}

/// As container runtimes and proxies write them where br_netfilter is at work.
fn rule(dice: &mut Dice) -> Step {
    let to = |dice: &mut Dice| {
        let net = ip(dice.one(&HOSTS)).into();
        Match::Destination { net, not: dice.yes(6) }
    };
    let bridge = |not| Match::InInterface { name: BRIDGE.into(), not };
    let out = |not| Match::OutInterface { name: BRIDGE.into(), not };
    let physdev = Match::PhysdevIsIn { not: dice.yes(3) };
    let udp = Match::Protocol { is: Protocol::Udp, not: false };
    let state = CtStates { invalid: dice.yes(2), established: dice.yes(2), ..CtStates::default() };
    let state = Match::CtState { any: CtStates { new: true, ..state }, not: dice.yes(2) };
    let (table, chain, matches, target) = match dice.below(10) {
        0 | 1 => {
            let target = Target::Dnat { to: ip(dice.one(&TARGETS)), port: None };
            (Table::Nat, "PREROUTING", vec![to(dice), udp], target)
        }
        2 => (Table::Nat, "POSTROUTING", vec![physdev], Target::Accept),
        3 => (
            Table::Nat,
            "POSTROUTING",
            vec![out(dice.yes(3)), udp],
            Target::Snat { to: ip("10.9.0.77") },
        ),
        4 => (Table::Filter, "FORWARD", vec![bridge(false), out(false)], Target::Drop),
        5 => (Table::Filter, "FORWARD", vec![physdev], Target::Accept),
        6 => (Table::Filter, "FORWARD", vec![state], Target::None),
        7 => (Table::Filter, "INPUT", vec![bridge(dice.yes(3)), physdev], Target::None),
        8 => (Table::Mangle, "PREROUTING", vec![physdev], Target::Mark { value: 1, mask: 1 }),
        _ => (Table::Mangle, "POSTROUTING", vec![out(false), state], Target::None),
    };
    Step::Append(table, chain.into(), Rule { matches, target })
}

/// A frame of a host that means what it says.
fn plain(dice: &mut Dice) -> Frame {
    let (from, to) = (dice.below(HOSTS.len()), dice.below(HOSTS.len()));
    let to_self = dice.yes(5);
    let dst = if to_self { OWN_MAC } else { mac(to) };
    let dst_ip = if to_self && dice.yes(2) { ip("10.9.0.1") } else { ip(HOSTS[to]) };
    let l4 = match dice.below(3) {
        0 => L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }),
        _ => L4::Udp { sport: 1024, dport: 80 },
    };
    let packet = wire::packet(ip(HOSTS[from]), dst_ip, l4, 28);
    Frame { src: mac(from), dst, payload: Payload::Ip(Box::new(packet)) }
}

fn step(dice: &mut Dice) -> Step {
    match dice.below(16) {
        0 => Step::SetUp(dice.below(2), dice.yes(2)),
        1 => Step::Lan(Act::Port(dice.below(2), dice.yes(2))),
        2 => Step::Send(dice.one(&SOCKETS), ip(dice.one(&HOSTS)), 80, 0),
        3 => Step::Lan(Act::Tell(0, None)),
        _ => Step::Lan(Act::Frame(dice.leg(), Box::new(frame(dice)))),
    }
}

fn frame(dice: &mut Dice) -> Frame {
    let (from, to) = (dice.below(HOSTS.len()), dice.below(HOSTS.len()));
    let (src_ip, dst_ip) = (ip(HOSTS[from]), ip(HOSTS[to]));
    let src = match dice.below(24) {
        0 => OWN_MAC,
        1 => wire::router_mac(dice.leg()),
        2 => Mac([0x07, 0, 0, 0, 9, 9]),
        _ => mac(from),
    };
    let dst = match dice.below(10) {
        0 | 1 => Mac::BROADCAST,
        2 => OWN_MAC,
        3 => wire::router_mac(dice.leg()),
        _ => mac(to),
    };
    if dice.yes(5) {
        return Frame { src, ..of_ipv6(dice, from, to, dst) };
    }
    let payload = match dice.below(4) {
        0 => Payload::Arp(Arp {
            request: dice.yes(2),
            sender_mac: src,
            sender_ip: src_ip,
            target_mac: if dice.yes(2) { dst } else { Mac::default() },
            target_ip: if dice.yes(2) { ip("10.9.0.1") } else { dst_ip },
        }),
        kind => {
            let l4 = match kind {
                1 => L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }),
                _ => L4::Udp { sport: 1024, dport: 80 },
            };
            let dst_ip = if dst == OWN_MAC || dice.yes(4) { ip("10.9.0.1") } else { dst_ip };
            Payload::Ip(Box::new(wire::packet(src_ip, dst_ip, l4, 28)))
        }
    };
    Frame { src, dst, payload }
}

/// To one host or, as questions and announcements are, to a group.
fn of_ipv6(dice: &mut Dice, from: usize, to: usize, dst: Mac) -> Frame {
    let host = |number: usize| Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x10 + number as u16);
    let (src, target) = (mac(from), host(to));
    let source = dice.yes(2).then_some(src);
    let packet = match dice.below(3) {
        0 => {
            let message = Discovery::Solicitation { target, source };
            six::discovery(host(from), six::ip("ff02::1:ff00:10"), message)
        }
        1 => {
            let flags = Advertised { overrides: true, ..Advertised::default() };
            let message = Discovery::Advertisement { target: host(from), flags, link: source };
            six::discovery(host(from), six::ip("ff02::1"), message)
        }
        _ => six::packet(host(from), target, L4::Udp { sport: 1024, dport: 80 }, 48),
    };
    let group = six::group_mac(packet.dst);
    Frame { src, dst: group.unwrap_or(dst), payload: Payload::Ip6(Box::new(packet)) }
}
