//! Who is where on a link: what is asked, what is believed, and how long.

use super::Act;
use crate::fidelity::dice::Dice;
use crate::fidelity::step::{Case, SOCKETS, Step, ip};
use crate::fidelity::wire;
use kubesim_actors::ports::network::Mac;
use kubesim_sim::kernel::packet::{Arp, Frame, Icmp, L4, Payload};
use std::net::Ipv4Addr;

/// Hosts, and the leg they are on.
const HOSTS: [(&str, usize); 4] =
    [("10.0.0.10", 0), ("10.1.0.10", 1), ("10.1.0.11", 1), ("10.2.0.10", 2)];
/// The router's addresses, and one that nobody has.
const OTHERS: [&str; 5] = ["10.0.0.1", "10.1.0.1", "10.1.0.2", "10.2.0.1", "0.0.0.0"];
/// One case in so many takes real time.
const PAUSES: usize = 3000;

pub fn case(dice: &mut Dice) -> Case {
    let mut case: Case = (0..4 + dice.below(12)).map(|_| step(dice)).collect();
    if dice.yes(PAUSES) {
        let at = 1 + dice.below(case.len());
        case.insert(at, Step::Lan(Act::Pause));
    }
    case
}

fn step(dice: &mut Dice) -> Step {
    let (host, leg) = dice.one(&HOSTS);
    match dice.below(10) {
        0 | 1 => Step::Send(dice.one(&SOCKETS), ip(host), 80, 0),
        2 | 3 => Step::Lan(Act::Tell(dice.below(2), dice.yes(4).then(|| mac(dice)))),
        4 => {
            let src = ip(host);
            let dst = match dice.below(3) {
                0 => ip(dice.one(&HOSTS).0),
                _ => ip(dice.one(&OTHERS[..4])),
            };
            let (l4, len) = match dice.below(2) {
                0 => (L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }), 28),
                _ => (L4::Udp { sport: 1024, dport: dice.one(&[80, 5000]) }, 28),
            };
            Step::Packet(leg, Box::new(wire::packet(src, dst, l4, len)))
        }
        5 if dice.yes(8) => Step::SetUp(leg, dice.yes(2)),
        5 if dice.yes(3) => {
            let variable = dice.one(&["arp_ignore", "arp_announce"]);
            Step::Sysctl(format!("net.ipv4.conf.all.{variable}"), dice.below(3) as u8)
        }
        _ => {
            let leg = if dice.yes(8) { dice.leg() } else { leg };
            Step::Lan(Act::Frame(leg, Box::new(arp(dice, ip(host), leg))))
        }
    }
}

fn mac(dice: &mut Dice) -> Mac {
    Mac([0x06, 0, 0, 0, 7, dice.below(2) as u8])
}

fn arp(dice: &mut Dice, host: Ipv4Addr, leg: usize) -> Frame {
    let sender_mac = if dice.yes(3) { mac(dice) } else { wire::far_mac(leg, host) };
    let sender_ip = if dice.yes(12) { ip(dice.one(&OTHERS)) } else { host };
    let target_ip = match dice.below(4) {
        0 => sender_ip,
        1 => ip(dice.one(&HOSTS).0),
        _ => ip(dice.one(&OTHERS)),
    };
    let request = dice.yes(2);
    let dst = if dice.yes(2) { Mac::BROADCAST } else { wire::router_mac(leg) };
    let target_mac = if request { Mac::default() } else { wire::router_mac(leg) };
    let arp = Arp { request, sender_mac, sender_ip, target_mac, target_ip };
    Frame { src: sender_mac, dst, payload: Payload::Arp(arp) }
}
