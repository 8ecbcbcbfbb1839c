//! Frames through a bridge: who is learned by which port, and what goes where.

use super::{Act, OWN_MAC};
use crate::fidelity::dice::Dice;
use crate::fidelity::step::{Case, SOCKETS, Step, ip};
use crate::fidelity::wire;
use kubesim_actors::ports::network::Mac;
use kubesim_sim::kernel::packet::{Arp, Frame, Icmp, L4, Payload};

/// Hosts, by number: each may be anywhere.
const HOSTS: [&str; 4] = ["10.9.0.10", "10.9.0.11", "10.9.0.12", "10.9.0.13"];

fn mac(number: usize) -> Mac {
    Mac([0x06, 0, 0, 0, 9, number as u8])
}

pub fn case(dice: &mut Dice) -> Case {
    (0..4 + dice.below(12)).map(|_| step(dice)).collect()
}

fn step(dice: &mut Dice) -> Step {
    match dice.below(16) {
        0 => Step::SetUp(dice.below(2), dice.yes(2)),
        1 => Step::Lan(Act::Port(dice.below(2), dice.yes(2))),
        2 => Step::Send(dice.one(&SOCKETS), ip(dice.one(&HOSTS)), 80),
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
