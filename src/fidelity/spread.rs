//! Connections spread over backends as kube-proxy does it (pkg/proxy/iptables/proxier.go), between
//! other rules: few enough outcomes that whatever one kernel does comes up soon on the other.

use super::dice::Dice;
use super::iptables::{self, first_of};
use super::place::Place;
use super::step::Case;
use kubesim_actors::ports::rules::{Match, Protocol, Rule, Table, Target};
use kubesim_sim::kernel::packet::{L4, Packet};

/// Where each connection is spread.
const CHAIN: &str = "U0";

pub fn case<F: Place>(dice: &mut Dice) -> Case {
    let protocol = dice.one(&[Protocol::Tcp, Protocol::Udp]);
    let mut case = backends::<F>(dice, protocol);
    // Chance decides here, and nowhere else.
    case.extend(iptables::rules::<F>(dice).into_iter().filter(|step| !iptables::has_chance(step)));
    let (src, leg) = F::HOSTS[0];
    for sport in [1024, 1025] {
        let packet = first_of(dice, protocol, F::ip(src), F::ip(F::OTHERS[3]), 80);
        case.push(F::packet(leg, with_sport(packet, sport)));
    }
    case
}

/// A Service of two to four endpoints, each as likely as another.
fn backends<F: Place>(dice: &mut Dice, is: Protocol) -> Case {
    let (mut case, protocol) = (Case::new(), Match::Protocol { is, not: false });
    let service = Match::Destination { net: F::net(F::NETS[3]), not: false };
    let (matches, target) = (vec![service, protocol.clone()], Target::Jump(CHAIN.into()));
    case.push(F::append(Table::Nat, "PREROUTING".into(), Rule { matches, target }));
    let hosts = &F::HOSTS[2..2 + 2 + dice.below(3)];
    for (number, (host, _)) in hosts.iter().enumerate() {
        let left = (hosts.len() - number) as u32;
        let mut matches = vec![protocol.clone()];
        if left > 1 {
            matches.push(Match::Random { probability: (1 << 31) / left });
        }
        let target = Target::Dnat { to: F::ip(host), port: Some(8080) };
        case.push(F::append(Table::Nat, CHAIN.into(), Rule { matches, target }));
    }
    if dice.yes(2) {
        let target = Target::Masquerade { random_fully: dice.yes(2) };
        let rule = Rule { matches: Vec::new(), target };
        case.push(F::append(Table::Nat, "POSTROUTING".into(), rule));
    }
    case
}

/// The same from another port.
pub fn with_sport<F: Place>(mut packet: Packet<F>, port: u16) -> Packet<F> {
    match &mut packet.l4 {
        L4::Tcp(tcp) => tcp.sport = port,
        L4::Udp { sport, .. } => *sport = port,
        L4::Icmp(_) => {}
    }
    packet
}
