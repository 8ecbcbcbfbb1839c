//! Random histories of addresses, links and routes, and look-ups between them.

use super::dice::Dice;
use super::step::{Case, LEGS, Step, ip, net};
use kubesim_actors::ports::network::{Proto, Route};

/// Some share a subnet, some lie within another's, some are of a link's edge.
const ADDRESSES: [&str; 9] = [
    "192.168.0.5/24",
    "192.168.0.6/24",
    "192.168.0.5/16",
    "192.168.1.5/24",
    "10.20.0.7/16",
    "10.20.3.7/24",
    "10.20.3.8/31",
    "10.20.3.9/32",
    "10.20.3.130/25",
];
const GATEWAYS: [&str; 10] = [
    "192.168.0.11",
    "192.168.1.12",
    "10.20.0.1",
    "10.20.3.9",
    "10.20.3.200",
    "172.16.0.1",
    "192.168.0.5",
    "192.168.0.255",
    "10.20.255.255",
    "10.244.1.9",
];
const TARGETS: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.20.0.0/16",
    "10.20.3.0/24",
    "10.244.0.0/16",
    "10.244.1.0/24",
    "10.244.1.9/32",
    "10.244.2.0/24",
    "10.244.2.0/25",
    "172.16.0.0/24",
    "192.168.0.0/16",
    "192.168.0.0/24",
    "192.168.7.7/32",
    "192.168.0.0/25",
];
const LOOK_UPS: [&str; 12] = [
    "10.20.0.0",
    "10.20.3.9",
    "10.20.3.77",
    "10.20.255.255",
    "10.244.1.9",
    "10.244.2.7",
    "10.244.2.200",
    "172.16.0.9",
    "192.168.0.5",
    "192.168.0.77",
    "192.168.0.255",
    "192.168.7.7",
];

pub fn case(dice: &mut Dice) -> Case {
    let count = 6 + dice.below(20);
    let mut case: Case = vec![Step::AddAddress(dice.leg(), net(dice.one(&ADDRESSES)))];
    let mut routes: Vec<(Route, Proto)> = Vec::new();
    for _ in 0..count {
        case.push(step(dice, &mut routes));
    }
    case.extend((0..4).map(|_| Step::Get(ip(dice.one(&LOOK_UPS)))));
    case
}

fn step(dice: &mut Dice, routes: &mut Vec<(Route, Proto)>) -> Step {
    let leg = dice.leg();
    match dice.below(20) {
        0..=3 => Step::AddAddress(leg, net(dice.one(&ADDRESSES))),
        4 | 5 => Step::DelAddress(leg, net(dice.one(&ADDRESSES))),
        6 => Step::SetUp(leg, dice.yes(2)),
        7 | 8 => Step::SetUp(leg, true),
        9..=13 => {
            let (route, proto) = (route(dice), dice.one(&[Proto::STATIC, Proto::BOOT, Proto(98)]));
            routes.push((route.clone(), proto));
            Step::AddRoute(route, proto)
        }
        14..=16 if !routes.is_empty() => {
            let (mut route, mut proto) = dice.one(routes);
            match dice.below(8) {
                0 => route.metric = dice.below(2) as u32,
                1 => proto = Proto::STATIC,
                2 => route.dev = dice.one(&LEGS).into(),
                _ => {}
            }
            Step::DelRoute(route, proto)
        }
        _ => Step::Get(ip(dice.one(&LOOK_UPS))),
    }
}

fn route(dice: &mut Dice) -> Route {
    let via = (!dice.yes(4)).then(|| ip(dice.one(&GATEWAYS)));
    Route {
        to: net(dice.one(&TARGETS)),
        via,
        dev: dice.one(&LEGS).into(),
        onlink: via.is_some() && dice.yes(4),
        metric: dice.below(3) as u32,
    }
}
