//! Random lives of a few connections: what is said in which direction, and the time between.

use super::dice::Dice;
use super::iptables::{answer, next_segment};
use super::place::Place;
use super::step::{Case, Step};
use super::wire;
use kubesim_actors::ports::rules::{Rule, Table, Target};
use kubesim_sim::kernel::packet::{Icmp, L4, Packet, Tcp, TcpFlags};

/// Seconds: around the timeouts (nf_conntrack_proto_tcp.c, _udp.c, _icmp.c).
const WAITS: [u32; 7] = [10, 20, 30, 60, 110, 120, 300];

/// One case in so many takes real time.
const PAUSES: usize = 3000;

pub fn case<F: Place>(dice: &mut Dice) -> Case {
    let mut case = Case::new();
    if dice.yes(3) {
        let target = match dice.below(3) {
            0 => Target::Masquerade { random_fully: dice.yes(2) },
            _ => Target::Snat { to: F::ip(F::OTHERS[1]) },
        };
        let rule = Rule { matches: Vec::new(), target };
        case.push(F::append(Table::Nat, "POSTROUTING".into(), rule));
    }
    let (pauses, udp) = (dice.yes(PAUSES), dice.yes(3));
    let kind = match (pauses, udp) {
        (true, _) => Kind::Streams,
        (false, true) => Kind::Datagrams,
        (false, false) => Kind::Aging,
    };
    let count = if pauses { 8 } else { 1 + dice.below(3) };
    let known: Vec<(usize, Packet<F>)> = (0..count).map(|_| first(dice, kind)).collect();
    for (leg, packet) in &known {
        case.push(F::packet(*leg, packet.clone()));
    }
    let (steps, pause) = (3 + dice.below(12) + count, dice.below(6));
    for number in 0..steps {
        let step = match kind {
            Kind::Streams if number == pause || number == steps - 3 => Step::Pause,
            _ => step(dice, &known, kind),
        };
        case.push(step);
    }
    case
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// UDP only, with pauses between.
    Streams,
    /// UDP among others, without any.
    Datagrams,
    /// No UDP, and time passes.
    Aging,
}

fn step<F: Place>(dice: &mut Dice, known: &[(usize, Packet<F>)], kind: Kind) -> Step {
    let number = dice.below(12);
    if number == 2
        && kind != Kind::Aging
        && let Some(step) = F::send(dice, F::ip(F::HOSTS[2].0), 80)
    {
        return step;
    }
    match number {
        0 | 1 if kind == Kind::Aging => Step::Wait(dice.one(&WAITS)),
        3..=7 => F::answer(dice.below(if kind == Kind::Streams { 8 } else { 3 }), answer(dice)),
        _ => {
            let (leg, mut packet) = dice.one(known);
            if let L4::Tcp(tcp) = &mut packet.l4 {
                *tcp = next_segment(dice, tcp);
            }
            F::packet(leg, packet)
        }
    }
}

/// One end is always the same, so that connections get into each other's way.
fn first<F: Place>(dice: &mut Dice, kind: Kind) -> (usize, Packet<F>) {
    let (sport, dport) = (dice.one(&[1024, 600, 100]), 80);
    let (src, leg) = dice.one(&[F::HOSTS[0], F::HOSTS[1], F::HOSTS[4]]);
    let other = F::HOSTS[2].0;
    let dst = F::ip(dice.one(&[other, other, F::OTHERS[0]]));
    let (l4, len) = match dice.below(6) {
        0 | 1 if kind == Kind::Datagrams => (L4::Udp { sport, dport }, 8),
        _ if kind == Kind::Streams => (L4::Udp { sport, dport }, 8),
        2 => (L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }), 8),
        _ => {
            let syn = !dice.yes(5);
            let flags = TcpFlags { syn, ack: !syn, ..TcpFlags::default() };
            let (seq, ack) = if syn { (1000, 0) } else { (1001, 5001) };
            (L4::Tcp(Tcp { sport, dport, seq, ack, flags, len: 0 }), 20)
        }
    };
    (leg, wire::packet(F::ip(src), dst, l4, F::HEADER + len))
}
