//! Random routers: who forwards, what is answered, and what comes out of which leg.

use super::{Act, inbound, ip, net, packet};
use crate::fidelity::dice::Dice;
use crate::fidelity::step::{Case, LEGS, SOCKETS, Step};
use crate::fidelity::wire;
use kubesim_actors::ports::network::{Mac, Proto};
use kubesim_actors::ports::rules::Protocol;
use kubesim_sim::kernel::family::V6;
use kubesim_sim::kernel::packet::{Icmp, Icmp6Error, L4, Packet, Quoted, Tcp, TcpFlags};
use kubesim_sim::kernel::{Placing, Route6};
use std::net::Ipv6Addr;

/// The router's address on each leg.
const OWN: [&str; 3] = ["fd00:1::1/64", "fd00:2::1/64", "2001:db8:3::1/64"];
/// Subnets of hosts: on the legs, and behind them.
const SUBNETS: [&str; 7] =
    ["fd00:1::", "fd00:2::", "2001:db8:3::", "fd00:10::", "fd00:11::", "2001:db8:12::", "fe80::"];
const SPECIAL: [&str; 16] = [
    "fd00:1::1",
    "fd00:2::1",
    "2001:db8:3::1",
    "fd00:1::",
    "fd00:2::",
    "fe80::ff:fe00:0",
    "fe80::ff:fe00:1",
    "fe80::",
    "ff02::1",
    "ff02::2",
    "ff05::2",
    "ff02::1:ff00:1",
    "ff01::1",
    "ff0e::99",
    "::1",
    "fd00:10::99",
];
/// Nobody sends from these.
const MARTIANS: [&str; 5] = ["fd00:1::1", "::1", "ff02::9", "::", "fe80::ff:fe00:1"];
const TARGETS: [&str; 5] =
    ["fd00:10::/32", "fd00:11::/64", "::/0", "fd00:10::99/128", "2001:db8:12::/48"];
const GATEWAYS: [(&str, usize); 6] = [
    ("fd00:1::9", 0),
    ("fd00:2::9", 1),
    ("2001:db8:3::9", 2),
    ("fe80::9", 0),
    ("fe80::9", 1),
    ("fe80::9", 2),
];
const PACKETS: usize = 5;
const MTUS: [u32; 3] = [1280, 1400, 1500];

pub fn case(dice: &mut Dice) -> Case {
    let mut case: Case = Vec::new();
    for (leg, own) in OWN.iter().enumerate() {
        if leg == 0 || !dice.yes(8) {
            case.push(Step::Six(Act::AddAddress(leg, net(own))));
        }
    }
    if dice.yes(4) {
        // One subnet on two legs.
        case.push(Step::Six(Act::AddAddress(dice.leg(), net("fd00:1::2/64"))));
    }
    for _ in 0..dice.below(4) {
        let (via, leg) = dice.one(&GATEWAYS);
        let via = (!dice.yes(4)).then(|| ip(via));
        let (to, dev) = (net(dice.one(&TARGETS)), LEGS[leg].into());
        let metric = 1 + dice.below(2) as u32;
        let route = Route6 { to, via, dev, onlink: false, metric };
        case.push(Step::Six(Act::AddRoute(Placing::Alone, route, Proto::STATIC)));
    }
    for _ in 0..1 + dice.below(3) {
        case.push(sysctl(dice));
    }
    for _ in 0..1 + dice.below(PACKETS) {
        case.push(incoming(dice));
        if dice.yes(5) {
            case.push(sysctl(dice));
        }
        if dice.yes(12) {
            case.push(Step::Mtu(dice.leg(), dice.one(&MTUS)));
        }
    }
    case
}

fn sysctl(dice: &mut Dice) -> Step {
    let conf = match dice.yes(2) {
        true => "all",
        false => dice.one(&["all", "default", LEGS[0], LEGS[1], LEGS[2]]),
    };
    if dice.yes(16) {
        return Step::Sysctl(format!("net.ipv6.conf.{conf}.disable_ipv6"), u8::from(dice.yes(3)));
    }
    Step::Sysctl(format!("net.ipv6.conf.{conf}.forwarding"), u8::from(!dice.yes(4)))
}

fn incoming(dice: &mut Dice) -> Step {
    if dice.yes(8) {
        // What one says to a group one hears as well, which is not modelled.
        let special: Vec<&str> = SPECIAL.into_iter().filter(|ip| !ip.starts_with("ff")).collect();
        let to = if dice.yes(3) { ip(dice.one(&special)) } else { host(dice) };
        return Step::Six(Act::Send(dice.one(&SOCKETS), to, dice.one(&[80, 5000, 5001])));
    }
    let (leg, packet) = (dice.leg(), packet_of(dice));
    if !dice.yes(12) {
        return Step::Six(Act::Packet(leg, Box::new(packet)));
    }
    // Somebody says to everybody what is for one.
    let mut frame = inbound(leg, &packet);
    frame.dst = dice.one(&[Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), wire::router_mac(leg)]);
    Step::Six(Act::Frame(leg, Box::new(frame)))
}

fn packet_of(dice: &mut Dice) -> Packet<V6> {
    let ports = (1024 + dice.below(4) as u16, dice.one(&[80, 81, 5000]));
    let src = if dice.yes(8) { ip(dice.one(&MARTIANS)) } else { host(dice) };
    let dst = if dice.yes(3) { ip(dice.one(&SPECIAL)) } else { host(dice) };
    let (l4, len) = match dice.below(8) {
        0..3 => (L4::Udp { sport: ports.0, dport: ports.1 }, 48),
        3 | 4 => (L4::Tcp(syn(ports)), 60),
        5 | 6 => (L4::Icmp(Icmp::EchoRequest { id: ports.0, seq: 1 }), 48),
        _ => {
            let protocol = Protocol::Udp;
            let (sport, dport, seq) = (ports.1, ports.0, 0);
            let about = Quoted { src: dst, dst: src, protocol, sport, dport, seq };
            (L4::Icmp(Icmp::Error { kind: Icmp6Error::NoRoute, about }), 96)
        }
    };
    // What is too long for some leg, or just not, if it is a datagram.
    let long = matches!(l4, L4::Udp { .. }) && dice.yes(4);
    let len = if long { dice.one(&MTUS) + dice.below(2) as u32 } else { len };
    let ttl = if dice.yes(4) { 1 } else { 64 - dice.below(2) as u8 };
    Packet { ttl, ..packet(src, dst, l4, len) }
}

fn host(dice: &mut Dice) -> Ipv6Addr {
    let subnet = ip(dice.one(&SUBNETS)).to_bits();
    Ipv6Addr::from_bits(subnet | (0x100 + dice.below(0xfe00)) as u128)
}

fn syn((sport, dport): (u16, u16)) -> Tcp {
    let flags = TcpFlags { syn: true, ..TcpFlags::default() };
    Tcp { sport, dport, seq: 1000, ack: 0, flags, len: 0 }
}
