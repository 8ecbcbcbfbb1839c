//! Random histories of addresses, links, routes and sysctls, and look-ups between them.

use super::{Act, ip, net};
use crate::fidelity::dice::Dice;
use crate::fidelity::step::{Case, LEGS, Step};
use kubesim_actors::ports::network::Proto;
use kubesim_sim::kernel::{Placing, Route6};

/// Some share a subnet, some lie within another's, some are of a link's edge; one is a link's own.
const ADDRESSES: [&str; 13] = [
    "fd00:1::5/64",
    "fd00:1::6/64",
    "fd00:1::5/48",
    "fd00:1::7/120",
    "fd00:1:0:1::5/64",
    "fd00:2::7/64",
    "fd00:2::8/127",
    "fd00:2::9/128",
    "2001:db8::7/32",
    "2002:a00:1::1/16",
    "fec0::5/64",
    "fe80::5/64",
    "fe80::ff:fe00:1/64",
];
const GATEWAYS: [&str; 12] = [
    "fe80::1",
    "fe80::5",
    "fe80::ff:fe00:1",
    "fd00:1::11",
    "fd00:1::5",
    "fd00:1::",
    "fd00:1:0:1::11",
    "fd00:2::9",
    "fd00:2::1",
    "2001:db8::1",
    "fd00:9::1",
    "ff02::1",
];
const TARGETS: [&str; 14] = [
    "::/0",
    "fd00::/16",
    "fd00:1::/48",
    "fd00:1::/64",
    "fd00:1::/120",
    "fd00:1::99/128",
    "fd00:2::/64",
    "fd00:2::4/126",
    "fd00:9::/64",
    "fd00:9::7/64",
    "fd00:9:0:1::/96",
    "2001:db8::/32",
    "fe80::/64",
    "2000::/3",
];
const LOOK_UPS: [&str; 18] = [
    "::1",
    "fd00:1::",
    "fd00:1::5",
    "fd00:1::7",
    "fd00:1::99",
    "fd00:1::1234",
    "fd00:1:0:1::9",
    "fd00:2::8",
    "fd00:2::9",
    "fd00:9::7",
    "fd00:9:0:1::7",
    "2001:db8::99",
    "2001:4860::8",
    "2002:a00:2::1",
    "fec0::9",
    "fe80::5",
    "fe80::77",
    "ff02::1",
];
const METRICS: [u32; 5] = [0, 0, 1, 256, 1024];

pub fn case(dice: &mut Dice) -> Case {
    let count = 6 + dice.below(20);
    let mut case: Case = Vec::new();
    let mut routes: Vec<(Route6, Proto)> = Vec::new();
    for _ in 0..count {
        case.push(step(dice, &mut routes));
    }
    case.extend((0..4).map(|_| look_up(dice)));
    case
}

fn look_up(dice: &mut Dice) -> Step {
    Step::Six(Act::Get(ip(dice.one(&LOOK_UPS))))
}

fn step(dice: &mut Dice, routes: &mut Vec<(Route6, Proto)>) -> Step {
    let leg = dice.leg();
    match dice.below(22) {
        0..=3 => Step::Six(Act::AddAddress(leg, net(dice.one(&ADDRESSES)))),
        4 | 5 => Step::Six(Act::DelAddress(leg, net(dice.one(&ADDRESSES)))),
        6 => Step::SetUp(leg, dice.yes(2)),
        7 => Step::SetUp(leg, true),
        8..=13 => {
            let (route, proto) = (route(dice), dice.one(&[Proto::STATIC, Proto::BOOT, Proto(98)]));
            let placing = match dice.below(6) {
                0 => Placing::Instead,
                // Two with gateways would be one route with two next hops.
                1 if route.via.is_none() => Placing::Behind,
                _ => Placing::Alone,
            };
            routes.push((route.clone(), proto));
            Step::Six(Act::AddRoute(placing, route, proto))
        }
        14..=16 if !routes.is_empty() => {
            let (mut route, mut proto) = dice.one(routes);
            match dice.below(8) {
                0 => route.metric = dice.one(&METRICS),
                1 => proto = Proto::STATIC,
                2 => route.dev = dice.one(&LEGS).into(),
                3 => route.via = None,
                _ => {}
            }
            Step::Six(Act::DelRoute(route, proto))
        }
        17 => sysctl(dice),
        _ => look_up(dice),
    }
}

fn sysctl(dice: &mut Dice) -> Step {
    let conf = dice.one(&["all", "default", LEGS[0], LEGS[1], LEGS[2]]);
    match dice.below(4) {
        0 => Step::Sysctl(format!("net.ipv6.conf.{conf}.disable_ipv6"), u8::from(dice.yes(3))),
        _ => Step::Sysctl(format!("net.ipv6.conf.{conf}.forwarding"), u8::from(!dice.yes(3))),
    }
}

fn route(dice: &mut Dice) -> Route6 {
    let via = (!dice.yes(3)).then(|| ip(dice.one(&GATEWAYS)));
    Route6 {
        to: net(dice.one(&TARGETS)),
        via,
        dev: dice.one(&LEGS).into(),
        onlink: via.is_some() && dice.yes(4),
        metric: dice.one(&METRICS),
    }
}
