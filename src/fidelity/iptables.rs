//! Random rules of every table in the shapes that kube-proxy, container runtimes and this
//! project write, and packets of a few connections through them.

use super::dice::Dice;
use super::place::Place;
use super::refusals;
use super::six;
use super::step::{Answer, CHAINS, Case, LIST, Step};
use super::wire;
use super::words::built_in;
use kubesim_actors::ports::rules::{Address, CtStates, Match, Protocol, Rule, Table, Target};
use kubesim_sim::kernel::packet::{Icmp, L4, Packet, Tcp, TcpFlags};
use smol_str::SmolStr;

const SOURCE_PORTS: [u16; 3] = [1024, 1025, 600];
const PORTS: [u16; 4] = [80, 81, 53, 5000];

pub fn rules<F: Place>(dice: &mut Dice) -> Case {
    let mut rules = Case::new();
    for _ in 0..1 + dice.below(12) {
        rules.push(append::<F>(dice));
    }
    if dice.yes(8) {
        services::<F>(dice, &mut rules);
    }
    if dice.yes(8) {
        marks::<F>(dice, &mut rules);
    }
    if dice.yes(10) {
        rules.push(Step::PolicyDrop(dice.one(&["INPUT", "FORWARD", "OUTPUT"]).into()));
    }
    rules
}

pub fn case<F: Place>(dice: &mut Dice, rules: Case) -> Case {
    let mut case = rules;
    let chance = case.iter().any(has_chance);
    let mut known = Vec::new();
    if dice.yes(6) {
        case.push(Step::Mtu(dice.leg(), dice.one(&F::MTUS)));
    }
    for _ in 0..2 + dice.below(8) {
        if dice.yes(5)
            && let Some(step) = refusals::attempt::<F>(dice, &case)
        {
            case.push(step);
        }
        let step = traffic::<F>(dice, &mut known);
        case.push(if chance { Step::Counted(Box::new(step)) } else { step });
    }
    case.push(Step::Counters);
    case
}

pub fn has_chance(step: &Step) -> bool {
    match step {
        Step::Append(_, _, rule) => throws_dice(rule),
        Step::Six(six::Act::Append(_, _, rule)) => throws_dice(rule),
        _ => false,
    }
}

fn throws_dice<A: Address>(rule: &Rule<A>) -> bool {
    rule.matches.iter().any(|found| matches!(found, Match::Random { .. }))
}

/// Bits of several owners in one mark, and who asks for them later.
fn marks<F: Place>(dice: &mut Dice, rules: &mut Case) {
    for _ in 0..3 {
        let (value, mask) = dice.one(&[(1, 1), (0x4000, 0x4000), (2, 3), (0x4000, 0)]);
        let (matches, target) = (Vec::new(), Target::Mark { value, mask });
        rules.push(F::append(Table::Mangle, "PREROUTING".into(), Rule { matches, target }));
    }
    for (table, chain) in [(Table::Mangle, "FORWARD"), (Table::Nat, "POSTROUTING")] {
        let (value, mask) = dice.one(&[(1, 1), (0x4000, 0x4000), (0, 1), (2, 3)]);
        let matches = vec![Match::Mark { value, mask, not: dice.yes(4) }];
        rules.push(F::append(table, chain.into(), Rule { matches, target: Target::None }));
    }
}

/// A chain long enough to be looked up by address and port, as a proxy's.
fn services<F: Place>(dice: &mut Dice, case: &mut Case) {
    let hook = dice.one(&["PREROUTING", "OUTPUT", "U0"]);
    for _ in 0..12 + dice.below(4) {
        let mut matches = Vec::new();
        if !dice.yes(4) {
            let (is, not) = (dice.one(&[Protocol::Tcp, Protocol::Udp]), false);
            matches.push(Match::Protocol { is, not });
            if !dice.yes(4) {
                let port = dice.one(&PORTS);
                matches.push(Match::DestinationPort { from: port, to: port, not });
            }
        }
        if !dice.yes(4) {
            let net = one::<F>(dice);
            matches.insert(0, Match::Destination { net, not: false });
        } else if dice.yes(2) {
            let net = one::<F>(dice);
            matches.insert(0, Match::Source { net, not: false });
        }
        let target = target::<F>(dice, Table::Nat, hook, &matches);
        case.push(F::append(Table::Nat, hook.into(), Rule { matches, target }));
    }
}

fn append<F: Place>(dice: &mut Dice) -> Step {
    let table = match dice.below(10) {
        0 => Table::Raw,
        1 | 2 => Table::Mangle,
        3..=6 => Table::Nat,
        _ => Table::Filter,
    };
    let chain = match dice.below(3) {
        0 => dice.one(&CHAINS),
        _ => dice.one(built_in(table)),
    };
    let matches = matches::<F>(dice, table, chain);
    let target = target::<F>(dice, table, chain, &matches);
    F::append(table, SmolStr::new(chain), Rule { matches, target })
}

/// What a chain's rules may lead to: chains jump only to later ones, and in the nat table those
/// for destinations (U0, U1) and those for sources (U2, U3) stay apart, as the kernel asks where
/// each rule may be reached from (`xt_check_target`, net/netfilter/x_tables.c).
fn target<F: Place>(
    dice: &mut Dice,
    table: Table,
    chain: &str,
    matches: &[Match<F::Addr>],
) -> Target<F::Addr> {
    let destinations = matches!(chain, "PREROUTING" | "OUTPUT" | "U0" | "U1");
    let tcp = matches.contains(&Match::Protocol { is: Protocol::Tcp, not: false });
    let plain = |dice: &mut Dice| match dice.below(5) {
        0 => Target::Return,
        1 => Target::Accept,
        2 => Target::None,
        3 => Target::Mark { value: dice.one(&[1, 0x4000, 0]), mask: dice.one(&[1, 0x4000, 0xff]) },
        _ => jump(dice, table, chain),
    };
    match (table, dice.below(2)) {
        (Table::Nat, 0) if destinations => {
            let ported = matches.iter().any(|found| match found {
                Match::Protocol { is, not: false } => *is != Protocol::Icmp,
                _ => false,
            });
            let port = (ported && dice.yes(2)).then(|| dice.one(&PORTS));
            let (host, _) = dice.one(&F::HOSTS);
            let to = if dice.yes(8) { F::ip(dice.one(&F::OTHERS)) } else { F::ip(host) };
            Target::Dnat { to, port }
        }
        (Table::Nat, 0) if chain == "POSTROUTING" || chain == "U2" || chain == "U3" => {
            match dice.below(3) {
                0 if !chain.starts_with('U') || chain == "U2" => {
                    Target::Masquerade { random_fully: dice.yes(2) }
                }
                _ => Target::Snat { to: F::ip(dice.one(&F::OUTSIDE)) },
            }
        }
        (Table::Nat, 0) => Target::Snat { to: F::ip(dice.one(&F::INSIDE)) },
        (Table::Filter, 0) => match dice.below(5) {
            0 => Target::Drop,
            1 if tcp => Target::Reject(F::Addr::TCP_RESET),
            1..=3 => Target::Reject(reject::<F>(dice)),
            _ => plain(dice),
        },
        (Table::Raw, 0) if dice.yes(2) => Target::NoTrack,
        (Table::Raw | Table::Mangle, 0) if dice.yes(3) => Target::Drop,
        _ => plain(dice),
    }
}

/// Some ICMP error.
fn reject<F: Place>(dice: &mut Dice) -> <F::Addr as Address>::RejectWith {
    let (with, _) = dice.one(F::Addr::REJECTS);
    if with == F::Addr::TCP_RESET { F::Addr::REJECTS[0].0 } else { with }
}

fn jump<A: Address>(dice: &mut Dice, table: Table, chain: &str) -> Target<A> {
    let next: &[&str] = match (table, chain) {
        (_, "U3") => return Target::Return,
        (Table::Nat, "INPUT") => &["U3"],
        (Table::Nat, "POSTROUTING") => &["U2"],
        (Table::Nat, "U0") => &["U1"],
        (Table::Nat, "U1") | (_, "U2") => return Target::Accept,
        (Table::Nat, _) => &["U0", "U1"],
        (_, "U0") => &["U1", "U2", "U3"],
        (_, "U1") => &["U2", "U3"],
        _ => &CHAINS,
    };
    let to = dice.one(next).into();
    if dice.yes(4) { Target::Goto(to) } else { Target::Jump(to) }
}

fn matches<F: Place>(dice: &mut Dice, table: Table, chain: &str) -> Vec<Match<F::Addr>> {
    let mut found = Vec::new();
    let not = |dice: &mut Dice| dice.yes(5);
    if dice.yes(3) {
        found.push(Match::Source { net: F::net(dice.one(&F::NETS)), not: not(dice) });
    }
    if dice.yes(3) {
        found.push(Match::Destination { net: F::net(dice.one(&F::NETS)), not: not(dice) });
    }
    let name = |dice: &mut Dice| SmolStr::new(dice.one(&["leg0", "leg1", "leg+", "lo", "leg2"]));
    if dice.yes(6) && !matches!(chain, "OUTPUT" | "POSTROUTING") {
        found.push(Match::InInterface { name: name(dice), not: not(dice) });
    }
    if dice.yes(6) && !matches!(chain, "PREROUTING" | "INPUT") {
        found.push(Match::OutInterface { name: name(dice), not: not(dice) });
    }
    if dice.yes(2) {
        let is = dice.one(&[Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
        let not = dice.yes(8);
        found.push(Match::Protocol { is, not });
        if is != Protocol::Icmp && !not {
            ports(dice, &mut found);
        }
    }
    for _ in 0..2 {
        if dice.yes(3) {
            found.push(extension::<F>(dice, table, chain));
        }
    }
    found
}

fn ports<A: Address>(dice: &mut Dice, found: &mut Vec<Match<A>>) {
    if dice.yes(4) {
        let from = dice.one(&SOURCE_PORTS);
        found.push(Match::SourcePort { from, to: from.max(1024), not: dice.yes(5) });
    }
    if dice.yes(2) {
        let from = dice.one(&PORTS);
        let to = if dice.yes(3) { from.max(100) } else { from };
        // iptables-nft 1.8.9 takes two negated ports for a negated pair.
        let negated = found.iter().any(|m| matches!(m, Match::SourcePort { not: true, .. }));
        found.push(Match::DestinationPort { from, to, not: !negated && dice.yes(5) });
    }
}

fn extension<F: Place>(dice: &mut Dice, table: Table, chain: &str) -> Match<F::Addr> {
    let kinds = F::TYPES;
    let not = dice.yes(5);
    match dice.below(9) {
        0 => Match::Comment("what for".into()),
        1 => Match::Mark { value: dice.one(&[0, 1, 0x4000]), mask: dice.one(&[1, 0x4000]), not },
        2 => Match::SourceType { is: dice.one(&kinds), not },
        3 | 4 => Match::DestinationType { is: dice.one(&kinds), not },
        5 if table != Table::Raw => match dice.yes(4) {
            true => Match::CtDnat,
            false => Match::CtState { any: states(dice), not },
        },
        6 if chance(table, chain) => Match::Random { probability: dice.one(&[1 << 30, 1 << 29]) },
        7 => Match::RecentSet { name: LIST.into() },
        8 => Match::RecentCheck { name: LIST.into(), seconds: 600 },
        _ => Match::CtState { any: states(dice), not },
    }
}

/// Where chance may decide: a few times a packet at most, so that whatever Linux does comes up
/// soon enough on the other side.
fn chance(table: Table, chain: &str) -> bool {
    matches!((table, chain), (Table::Nat, "PREROUTING" | "OUTPUT" | "U0"))
}

fn states(dice: &mut Dice) -> CtStates {
    let bits = 1 + dice.below(31);
    CtStates {
        new: bits & 1 != 0,
        established: bits & 2 != 0,
        related: bits & 4 != 0,
        invalid: bits & 8 != 0,
        untracked: bits & 16 != 0,
    }
}

fn address<F: Place>(dice: &mut Dice) -> F::Addr {
    F::ip(somebody::<F>(dice))
}

/// The network of one address.
fn one<F: Place>(dice: &mut Dice) -> <F::Addr as Address>::Net {
    F::net(somebody::<F>(dice))
}

fn somebody<F: Place>(dice: &mut Dice) -> &'static str {
    match dice.below(2) {
        0 => dice.one(&F::OTHERS),
        _ => dice.one(&F::HOSTS).0,
    }
}

/// A packet of a new connection, the next one of a known one, or an answer.
fn traffic<F: Place>(dice: &mut Dice, known: &mut Vec<(usize, Packet<F>)>) -> Step {
    let kind = dice.below(10);
    if kind == 0 {
        let (to, port) = (address::<F>(dice), dice.one(&PORTS));
        if let Some(step) = F::send(dice, to, port) {
            return step;
        }
    }
    match kind {
        1..=4 => F::answer(usize::from(dice.yes(4)), answer(dice)),
        5 | 6 if !known.is_empty() => {
            let (leg, mut packet) = dice.one(known);
            if let L4::Tcp(tcp) = &mut packet.l4 {
                *tcp = next_segment(dice, tcp);
            }
            F::packet(leg, packet)
        }
        _ => {
            let (src, leg) = dice.one(&F::HOSTS);
            let packet = first(dice, F::ip(src));
            known.push((leg, packet.clone()));
            F::packet(leg, packet)
        }
    }
}

fn first<F: Place>(dice: &mut Dice, src: F::Addr) -> Packet<F> {
    let protocol = match dice.below(5) {
        0 | 1 => Protocol::Udp,
        2 | 3 => Protocol::Tcp,
        _ => Protocol::Icmp,
    };
    let (dst, port) = (address::<F>(dice), dice.one(&PORTS));
    let packet = first_of(dice, protocol, src, dst, port);
    // Too long for some leg, or just not; segments are as short as they get. Who answers a long
    // echo of IPv6 sends fragments, which are not modelled.
    let fits = match protocol {
        Protocol::Icmp => F::VERSION == 6,
        other => other == Protocol::Tcp,
    };
    if fits || !dice.yes(5) {
        return packet;
    }
    let len = dice.one(&F::MTUS) + dice.below(2) as u32;
    let dont_fragment = packet.dont_fragment || dice.yes(2);
    Packet { len, segment: len, dont_fragment, ..packet }
}

/// The first packet of a connection; nearly always.
pub fn first_of<F: Place>(
    dice: &mut Dice,
    protocol: Protocol,
    src: F::Addr,
    dst: F::Addr,
    dport: u16,
) -> Packet<F> {
    let sport = dice.one(&SOURCE_PORTS);
    let (l4, len) = match protocol {
        Protocol::Udp => (L4::Udp { sport, dport }, 8),
        Protocol::Tcp => {
            let first = Tcp { sport, dport, seq: 1000, ack: 0, flags: SYN, len: 0 };
            (L4::Tcp(if dice.yes(10) { next_segment(dice, &first) } else { first }), 20)
        }
        _ => (L4::Icmp(Icmp::EchoRequest { id: dice.one(&[1, 2]), seq: 1 }), 8),
    };
    wire::packet(src, dst, l4, F::HEADER + len)
}

const SYN: TcpFlags = TcpFlags { syn: true, ack: false, fin: false, rst: false };

/// What the one who opened a connection sends later.
pub fn next_segment(dice: &mut Dice, first: &Tcp) -> Tcp {
    let flags = flags(dice);
    let (seq, ack) = if flags.syn { (1000, 0) } else { (1001, 5001) };
    Tcp { seq, ack: if flags.ack { ack } else { 0 }, flags, ..*first }
}

fn flags(dice: &mut Dice) -> TcpFlags {
    let none = TcpFlags::default();
    match dice.below(8) {
        0 => TcpFlags { syn: true, ..none },
        1 => TcpFlags { fin: true, ack: true, ..none },
        2 => TcpFlags { rst: true, ..none },
        3 => TcpFlags { rst: true, ack: true, ..none },
        _ => TcpFlags { ack: true, ..none },
    }
}

/// What the one who got a packet says to it.
pub fn answer<F: Place>(dice: &mut Dice) -> Answer<F> {
    match dice.below(8) {
        0 => Answer::Error(dice.one(&F::ERRORS)),
        1 | 2 => Answer::Reply(flags(dice)),
        _ => Answer::Reply(TcpFlags { syn: true, ack: true, ..TcpFlags::default() }),
    }
}
