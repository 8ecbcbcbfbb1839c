//! Packets into a tunnel and out of it, with the tables that netd and others fill.

use super::{Act, OWN_MAC, VNI, local};
use crate::fidelity::dice::Dice;
use crate::fidelity::frame::VXLAN_PORT;
use crate::fidelity::step::{Case, SOCKETS, Step, ip};
use crate::fidelity::wire;
use kubesim_actors::ports::network::{FdbEntry, Mac, Neighbour};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::packet::{Frame, Icmp, L4, Packet, Payload};
use std::net::Ipv4Addr;

/// Gateways of the tunnel, with who has them; the last MAC address is in no table.
const GATEWAYS: [(&str, u8); 3] = [("10.9.0.2", 2), ("10.9.0.3", 3), ("10.9.0.4", 4)];
/// Other machines. The last one is behind the tunnel itself.
const REMOTES: [&str; 4] = ["10.0.0.22", "10.0.0.23", "10.1.0.24", "10.244.1.9"];
/// Hosts behind the second leg.
const HOSTS: [&str; 2] = ["10.1.0.10", "10.1.0.11"];
/// Behind the tunnel, and on its own subnet.
const FAR: [&str; 5] = ["10.244.1.7", "10.244.2.7", "10.9.0.3", "10.9.0.4", "10.244.1.255"];

fn mac(number: u8) -> Mac {
    Mac([0x0a, 0, 0, 0, 0, number])
}

pub fn case(dice: &mut Dice) -> Case {
    let mut case = vec![fdb(dice), permanent(dice)];
    for _ in 0..4 + dice.below(8) {
        case.push(step(dice));
    }
    case
}

fn fdb(dice: &mut Dice) -> Step {
    let mut entries = Vec::new();
    for (_, number) in GATEWAYS {
        if !dice.yes(4) {
            entries.push(FdbEntry { mac: mac(number), remote: ip(dice.one(&REMOTES)) });
        }
    }
    Step::Lan(Act::Fdb(entries))
}

fn permanent(dice: &mut Dice) -> Step {
    let mut neighbours = Vec::new();
    for (at, number) in GATEWAYS {
        if !dice.yes(4) {
            neighbours.push(Neighbour { ip: ip(at), mac: mac(number) });
        }
    }
    Step::Lan(Act::Permanent(neighbours))
}

fn step(dice: &mut Dice) -> Step {
    match dice.below(12) {
        0 => fdb(dice),
        1 => permanent(dice),
        2 => Step::Send(dice.one(&SOCKETS), ip(dice.one(&FAR)), 80, 0),
        3..=6 => Step::Packet(1, Box::new(inner(dice, dice_host, dice_far))),
        _ => {
            let packet = inner(dice, dice_far, dice_target);
            Step::Packet(0, Box::new(outer(dice, packet)))
        }
    }
}

fn dice_host(dice: &mut Dice) -> Ipv4Addr {
    ip(dice.one(&HOSTS))
}

fn dice_far(dice: &mut Dice) -> Ipv4Addr {
    ip(dice.one(&FAR[..4]))
}

fn dice_target(dice: &mut Dice) -> Ipv4Addr {
    match dice.below(4) {
        0 => ip(dice.one(&["10.9.0.1", "10.1.0.1"])),
        1 => dice_far(dice),
        _ => dice_host(dice),
    }
}

fn inner(
    dice: &mut Dice,
    src: fn(&mut Dice) -> Ipv4Addr,
    dst: fn(&mut Dice) -> Ipv4Addr,
) -> Packet {
    let (src, dst) = (src(dice), dst(dice));
    let (l4, len) = match dice.below(3) {
        0 => (L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }), 28),
        _ => (L4::Udp { sport: 1024, dport: dice.one(&[80, 5000]) }, 28 + 100),
    };
    let ttl = if dice.yes(12) { 1 } else { 64 };
    Packet { ttl, ..wire::packet(src, dst, l4, len) }
}

fn outer(dice: &mut Dice, inner: Packet) -> Packet {
    let dst = match dice.below(8) {
        0 => Mac::BROADCAST,
        1 => mac(9),
        _ => OWN_MAC,
    };
    let len = inner.len + 50;
    let frame = Frame { src: mac(2), dst, payload: Payload::Ip(Box::new(inner)) };
    let vni = if dice.yes(10) { VNI + 1 } else { VNI };
    let l4 = L4::Udp { sport: 40_000, dport: VXLAN_PORT };
    let from = ip(dice.one(&REMOTES[..2]));
    let to = if dice.yes(12) { ip("10.1.0.1") } else { local() };
    let body = Body::Vxlan { vni, frame: Box::new(frame) };
    Packet { body, ..wire::packet(from, to, l4, len) }
}
