//! Random Services as nftables mode has them, and their clients.

use super::dice::Dice;
use super::iptables::{answer, first_of, next_segment};
use super::spread::with_sport;
use super::step::{Case, SOCKETS, Step, ip};
use kubesim_actors::ports::rules::Protocol;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue, Front, List, Policy, Treatment};
use kubesim_sim::kernel::packet::{L4, Packet};
use std::net::Ipv4Addr;

/// Cluster addresses, an external one, the address that stands for all of the node's, and what
/// none of these is.
const FRONTS: [&str; 5] = ["10.96.0.10", "10.96.0.11", "10.0.0.100", "0.0.0.0", "10.2.0.1"];
const PORTS: [u16; 3] = [80, 53, 30_080];
/// Pods here, a pod elsewhere, and what is no pod.
const ENDPOINTS: [&str; 5] = ["10.1.0.10", "10.1.0.11", "10.1.0.12", "10.1.9.9", "10.2.0.50"];
const SOURCES: [&str; 3] = ["10.0.0.0/16", "10.1.0.10/32", "10.2.0.0/24"];

/// Each Service is a step, so that it can be left out.
pub fn services(dice: &mut Dice) -> Case {
    let mut case = Case::new();
    let mut taken: Vec<Front> = Vec::new();
    for _ in 0..1 + dice.below(5) {
        let protocol = dice.one(&[Protocol::Tcp, Protocol::Udp]);
        let front = Front { ip: ip(dice.one(&FRONTS)), protocol, port: dice.one(&PORTS) };
        if !taken.contains(&front) {
            taken.push(front);
            case.push(Step::Elements(service(dice, front)));
        }
    }
    for endpoint in &ENDPOINTS[..2] {
        if dice.yes(2) {
            let hairpin = (FlatKey::Hairpin(ip(endpoint)), FlatValue::Present);
            case.push(Step::Elements(vec![hairpin]));
        }
    }
    case
}

fn service(dice: &mut Dice, front: Front) -> Vec<(FlatKey, FlatValue)> {
    if dice.yes(6) {
        return vec![(FlatKey::Refused(front), FlatValue::Present)];
    }
    let policies = [Policy::Inside, Policy::InsideLocal, Policy::Outside, Policy::OutsideLocal];
    let policy = dice.one(&policies);
    // Only addresses of load balancers are guarded.
    let outside = matches!(policy, Policy::Outside | Policy::OutsideLocal);
    let (sticky, guarded) = (dice.yes(3), outside && !front.is_node_port() && dice.yes(2));
    let everywhere = 1 + dice.below(4) as u16;
    let here = dice.below(3) as u16;
    let (everywhere, here) = match policy {
        Policy::Inside | Policy::Outside => (everywhere, 0),
        Policy::InsideLocal => (0, here),
        Policy::OutsideLocal => (everywhere.max(here), here),
    };
    let treatment = Treatment { policy, everywhere, here, sticky, guarded };
    let mut elements = vec![(FlatKey::Service(front), FlatValue::Treatment(treatment))];
    for (list, count) in [(List::Everywhere, everywhere), (List::Here, here)] {
        for number in 0..count {
            let to = ip(ENDPOINTS[usize::from(number)]);
            let value = FlatValue::To(to, 8080);
            elements.push((FlatKey::Endpoint { front, list, number }, value));
            if sticky {
                elements.push((FlatKey::Member { front, list, ip: to }, value));
            }
        }
    }
    if sticky {
        elements.push((FlatKey::Sticky(front), FlatValue::Seconds(10_800)));
    }
    if guarded {
        for source in &SOURCES[..1 + dice.below(3)] {
            if let Ok(net) = source.parse() {
                elements.push((FlatKey::Source { front, net }, FlatValue::Present));
            }
        }
    }
    elements
}

/// Clients of their own for each case of a block: who had which endpoint is not forgotten between
/// them.
pub fn case(dice: &mut Dice, services: Case, number: u64) -> Case {
    let mut case = services;
    let (mut fronts, mut keys) = (Vec::new(), Vec::new());
    for step in &case {
        let Step::Elements(elements) = step else { continue };
        keys.push(elements.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        if let [(FlatKey::Service(front) | FlatKey::Refused(front), value), ..] = &elements[..] {
            let sticky = matches!(value, FlatValue::Treatment(how) if how.sticky);
            fronts.push((*front, sticky));
        }
    }
    let number = number as u8;
    let clients = [
        (Ipv4Addr::new(10, 0, number, 10), 0),
        (Ipv4Addr::new(10, 1, number, 10), 1),
        (Ipv4Addr::new(10, 2, number, 10), 2),
    ];
    // A pod here that is an endpoint: who asks itself is masqueraded. It is the same in all cases.
    let pod = (ip("10.1.0.10"), 1);
    let mut known: Vec<(usize, Packet)> = Vec::new();
    for _ in 0..3 + dice.below(8) {
        let step = match dice.below(10) {
            0 => {
                let (front, sticky) = dice.one(&fronts);
                // The node is one client for all cases.
                if sticky || front.protocol != Protocol::Udp {
                    continue;
                }
                Step::Send(dice.one(&SOCKETS), address(dice, front), front.port, 0)
            }
            1..=3 => Step::Answer(usize::from(dice.yes(4)), answer(dice)),
            4 | 5 if !known.is_empty() => {
                let (leg, mut packet): (usize, Packet) = dice.one(&known);
                if let L4::Tcp(tcp) = &mut packet.l4 {
                    *tcp = next_segment(dice, tcp);
                }
                Step::Packet(leg, Box::new(packet))
            }
            6 if dice.yes(64) && !keys.is_empty() => Step::NoElements(dice.one(&keys)),
            _ => {
                let (front, sticky) = dice.one(&fronts);
                let from_pod = !sticky && dice.yes(4);
                let (src, leg) = if from_pod { pod } else { dice.one(&clients) };
                let dst = address(dice, front);
                let packet = first_of(dice, front.protocol, src, dst, front.port);
                known.push((leg, packet.clone()));
                Step::Packet(leg, Box::new(packet))
            }
        };
        case.push(step);
    }
    case
}

/// One client and one Service, twice: short enough that whatever one kernel does comes up soon on
/// the other as well.
pub fn twice(dice: &mut Dice, services: Case, number: u64) -> Case {
    let mut case = services;
    let sticky = |(key, value): &(FlatKey, FlatValue)| match (key, value) {
        (FlatKey::Service(front), FlatValue::Treatment(how)) => Some((*front, how.sticky)),
        _ => None,
    };
    let elements = case.iter().filter_map(|step| match step {
        Step::Elements(elements) => Some(elements),
        _ => None,
    });
    let mut fronts: Vec<(Front, bool)> = elements.flatten().filter_map(sticky).collect();
    if fronts.iter().any(|(_, sticky)| *sticky) && !dice.yes(4) {
        fronts.retain(|(_, sticky)| *sticky);
    }
    if !fronts.is_empty() {
        let (front, _) = dice.one(&fronts);
        let dst = if front.is_node_port() { ip("10.0.0.1") } else { front.ip };
        let src = Ipv4Addr::new(10, 0, number as u8, 10);
        for sport in [1024, 1025] {
            let packet = first_of(dice, front.protocol, src, dst, front.port);
            case.push(Step::Packet(0, Box::new(with_sport(packet, sport))));
        }
    }
    case
}

/// What a client writes for a front, or near it.
fn address(dice: &mut Dice, front: Front) -> Ipv4Addr {
    if front.is_node_port() {
        return ip(dice.one(&["10.0.0.1", "10.1.0.1", "10.2.0.1"]));
    }
    if dice.yes(10) { ip("10.1.0.12") } else { front.ip }
}
