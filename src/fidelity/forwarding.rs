//! Random routers: who forwards, what is filtered by its source, what is too long, and what comes
//! out of which leg.

use super::dice::Dice;
use super::step::{Answer, Case, LEGS, SOCKETS, Step, ip, net};
use super::wire;
use kubesim_actors::ports::network::{Proto, Route};
use kubesim_sim::kernel::packet::{Icmp, IcmpError, L4, Packet, Tcp, TcpFlags};
use std::net::Ipv4Addr;

/// The router's address on each leg.
const OWN: [&str; 3] = ["10.0.0.1/16", "10.1.0.1/16", "10.2.0.1/16"];
/// Subnets of hosts: on the legs, and behind them.
const SUBNETS: [&str; 6] =
    ["10.0.0.0", "10.1.0.0", "10.2.0.0", "172.16.0.0", "172.17.0.0", "192.168.0.0"];
const SPECIAL: [&str; 7] =
    ["10.0.0.1", "10.1.0.1", "10.1.255.255", "10.2.0.0", "192.168.7.7", "127.0.0.9", "224.0.0.9"];
/// Nobody sends from these: the router always has the first.
const MARTIANS: [&str; 4] = ["10.0.0.1", "127.0.0.1", "127.0.0.9", "224.0.0.9"];
const TARGETS: [&str; 4] = ["172.16.0.0/16", "172.17.0.0/17", "0.0.0.0/0", "192.168.7.7/32"];
/// Several to a leg, so that it shows which one a packet is handed to.
const GATEWAYS: [(&str, usize); 5] =
    [("10.0.0.8", 0), ("10.0.0.9", 0), ("10.1.0.8", 1), ("10.1.0.9", 1), ("10.2.0.9", 2)];
/// Whom the router itself sends to.
const PEERS: [&str; 4] = ["10.0.0.77", "10.1.0.77", "172.16.0.77", "10.1.255.255"];
/// Of legs and of the ways behind them; the first is the least that is believed
/// (`ip_rt_min_pmtu`).
const MTUS: [u32; 4] = [552, 576, 1400, 1500];
/// And less than that is said at times.
const TOLD: [u32; 5] = [500, 552, 576, 1400, 1500];
/// Of IPv4 and UDP.
const HEADERS: u32 = 28;
/// Fewer than the errors that one destination is told at once.
const PACKETS: usize = 5;

pub fn case(dice: &mut Dice) -> Case {
    let mut case: Case = Vec::new();
    for (leg, own) in OWN.iter().enumerate() {
        if leg == 0 || !dice.yes(8) {
            case.push(Step::AddAddress(leg, net(own)));
        }
    }
    for _ in 0..dice.below(4) {
        let (via, leg) = dice.one(&GATEWAYS);
        let via = (!dice.yes(4)).then(|| ip(via));
        let (to, dev, metric) = (net(dice.one(&TARGETS)), LEGS[leg].into(), dice.below(2) as u32);
        case.push(Step::AddRoute(Route { to, via, dev, onlink: false, metric }, Proto::STATIC));
    }
    for _ in 0..1 + dice.below(5) {
        case.push(sysctl(dice));
    }
    if dice.yes(2) {
        case.push(Step::Mtu(dice.leg(), dice.one(&MTUS)));
    }
    for _ in 0..1 + dice.below(PACKETS) {
        case.push(match dice.below(8) {
            0 => send(dice),
            1 => Step::Answer(dice.below(2), answer(dice)),
            _ => Step::Packet(dice.leg(), Box::new(packet(dice))),
        });
        if dice.yes(4) {
            case.push(sysctl(dice));
        }
    }
    case
}

fn sysctl(dice: &mut Dice) -> Step {
    let conf = dice.one(&["all", "default", LEGS[0], LEGS[1], LEGS[2]]);
    match dice.below(6) {
        5 => Step::Sysctl(format!("net.ipv4.conf.{conf}.route_localnet"), u8::from(!dice.yes(4))),
        0 => Step::Sysctl("net.ipv4.ip_forward".to_owned(), u8::from(!dice.yes(4))),
        1 | 2 => Step::Sysctl(format!("net.ipv4.conf.{conf}.forwarding"), u8::from(!dice.yes(3))),
        _ => Step::Sysctl(format!("net.ipv4.conf.{conf}.rp_filter"), dice.below(3) as u8),
    }
}

fn packet(dice: &mut Dice) -> Packet {
    let ports = (1024 + dice.below(4) as u16, 80 + dice.below(2) as u16);
    let (l4, len) = match dice.below(3) {
        0 => (L4::Udp { sport: ports.0, dport: ports.1 }, 28),
        1 => (L4::Tcp(syn(ports)), 40),
        _ => (L4::Icmp(Icmp::EchoRequest { id: ports.0, seq: 1 }), 28),
    };
    // Too long for some leg, or just not; segments are as short as they get.
    let long = !matches!(l4, L4::Tcp(_)) && dice.yes(3);
    let len = if long { dice.one(&MTUS) + dice.below(2) as u32 } else { len };
    let dont_fragment = dice.yes(2);
    let ttl = if dice.yes(4) { 1 } else { 64 - dice.below(2) as u8 };
    let src = if dice.yes(8) { ip(dice.one(&MARTIANS)) } else { host(dice) };
    let dst = if dice.yes(4) { ip(dice.one(&SPECIAL)) } else { host(dice) };
    Packet { ttl, dont_fragment, ..wire::packet(src, dst, l4, len) }
}

/// Twice to few destinations, so that what was learned of the way to them counts.
fn send(dice: &mut Dice) -> Step {
    let to = ip(dice.one(&PEERS));
    let most = dice.one(&MTUS) - HEADERS;
    let len = if dice.yes(2) { 1 } else { most + dice.below(2) as u32 };
    Step::Send(dice.one(&SOCKETS), to, 80, len)
}

/// What may be said of a packet on its way; mostly that it was too long.
fn answer(dice: &mut Dice) -> Answer {
    match dice.below(4) {
        0 => Answer::Error(IcmpError::HostUnreachable),
        _ => Answer::Error(IcmpError::FragmentationNeeded { mtu: dice.one(&TOLD) }),
    }
}

/// Hardly ever the same one in two cases: Linux limits errors by whom they go to, and remembers
/// that from one case to the next (ip_error, net/ipv4/route.c).
fn host(dice: &mut Dice) -> Ipv4Addr {
    let subnet = ip(dice.one(&SUBNETS)).to_bits();
    Ipv4Addr::from_bits(subnet | (0x100 + dice.below(0xfe00)) as u32)
}

fn syn((sport, dport): (u16, u16)) -> Tcp {
    let flags = TcpFlags { syn: true, ..TcpFlags::default() };
    Tcp { sport, dport, seq: 1000, ack: 0, flags, len: 0 }
}
