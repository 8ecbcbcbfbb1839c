//! The indexed walk against a naive one.

use super::*;
use crate::kernel::netfilter::table::{Chained, Entry};
use kubesim_actors::ports::rules::{Match, Protocol, Target};
use kubesim_runtime::Rng;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Rules as lists, asked one after the other.
struct Naive<'a> {
    chains: &'a BTreeMap<&'static str, Vec<Rule>>,
    packet: &'a Packet,
    mark: u32,
    recent: RecentLists,
    rng: Rng,
}

impl Naive<'_> {
    fn walk(&mut self, chain: &str) -> Option<Outcome> {
        for rule in &self.chains[chain] {
            let header = |m: &Match| {
                matches!(
                    m,
                    Match::Source { .. } | Match::Destination { .. } | Match::Protocol { .. }
                )
            };
            let first = rule.matches.iter().filter(|m| header(m));
            let then = rule.matches.iter().filter(|m| !header(m));
            if !first.chain(then).all(|m| self.holds(m)) {
                continue;
            }
            match &rule.target {
                Target::Jump(to) => {
                    if let Some(outcome) = self.walk(to) {
                        return Some(outcome);
                    }
                }
                Target::Goto(to) => return self.walk(to),
                Target::Return => return None,
                Target::Accept => return Some(Outcome::Accept),
                Target::Drop => return Some(Outcome::Drop),
                Target::Dnat { to, port } => {
                    return Some(Outcome::Dnat { to: *to, port: *port });
                }
                Target::Mark { value, mask } => self.mark = (self.mark & !mask) ^ value,
                _ => {}
            }
        }
        None
    }

    fn holds(&mut self, found: &Match) -> bool {
        let src = self.packet.src.to_bits();
        let has_ports = !matches!(self.packet.l4, L4::Icmp(_));
        let (sport, dport) = self.packet.ports();
        match found {
            Match::Source { net, not } => net.contains(&self.packet.src) != *not,
            Match::Destination { net, not } => net.contains(&self.packet.dst) != *not,
            Match::Protocol { is, not } => (self.packet.protocol() == *is) != *not,
            Match::SourcePort { from, to, not } => {
                has_ports && (*from..=*to).contains(&sport) != *not
            }
            Match::DestinationPort { from, to, not } => {
                has_ports && (*from..=*to).contains(&dport) != *not
            }
            Match::Mark { value, mask, not } => (self.mark & mask == *value) != *not,
            Match::Random { probability } => (self.rng.u64() >> 33) < u64::from(*probability),
            Match::RecentSet { name } => {
                self.recent.set(name, src, Time::ZERO);
                true
            }
            Match::RecentCheck { name, seconds } => {
                self.recent.check(name, src, *seconds, Time::ZERO)
            }
            other => panic!("not drawn: {other:?}"),
        }
    }
}

fn address() -> impl Strategy<Value = Ipv4Addr> + Clone {
    (0u8..5).prop_map(|last| Ipv4Addr::new(10, 0, 0, last))
}

fn a_match() -> impl Strategy<Value = Match> {
    let net = (address(), prop_oneof![3 => Just(32u8), 1 => Just(30u8)]);
    let net = net.prop_map(|(ip, bits)| ipnet::Ipv4Net::new(ip, bits).expect("a prefix").trunc());
    let not = prop::bool::weighted(0.15);
    let port = (0u16..4, prop_oneof![4 => Just(0u16), 1 => Just(2u16)]);
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
    let name = prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        4 => (net.clone(), not).prop_map(|(net, not)| Match::Destination { net, not }),
        2 => (net, not).prop_map(|(net, not)| Match::Source { net, not }),
        3 => (protocol, not).prop_map(|(is, not)| Match::Protocol { is, not }),
        3 => (port.clone(), not)
            .prop_map(|((from, n), not)| Match::DestinationPort { from, to: from + n, not }),
        1 => (port, not)
            .prop_map(|((from, n), not)| Match::SourcePort { from, to: from + n, not }),
        1 => (0u32..4, not).prop_map(|(value, not)| Match::Mark { value, mask: 3, not }),
        1 => (0u32..1 << 31).prop_map(|probability| Match::Random { probability }),
        1 => name.clone().prop_map(|name| Match::RecentSet { name: name.into() }),
        1 => name.prop_map(|name| Match::RecentCheck { name: name.into(), seconds: 5 }),
    ]
}

fn rule(jumps: &'static [&'static str]) -> impl Strategy<Value = Rule> {
    let mark = (0u32..4, 0u32..4).prop_map(|(value, mask)| Target::Mark { value, mask });
    let dnat =
        (address(), prop::option::of(1u16..9)).prop_map(|(to, port)| Target::Dnat { to, port });
    let plain = prop_oneof![
        3 => mark,
        2 => dnat,
        1 => Just(Target::Accept),
        1 => Just(Target::Drop),
        1 => Just(Target::Return),
        1 => Just(Target::None),
    ];
    let target = (plain, 0usize..8, any::<bool>()).prop_map(move |(plain, jump, goes)| match jumps
        .get(jump)
    {
        Some(to) if goes => Target::Goto((*to).into()),
        Some(to) => Target::Jump((*to).into()),
        None => plain,
    });
    (prop::collection::vec(a_match(), 1..5), target)
        .prop_map(|(matches, target)| Rule { matches, target })
}

fn a_packet() -> impl Strategy<Value = Packet> {
    (address(), address(), 0u16..5, 0u16..5, 0..3).prop_map(|(src, dst, sport, dport, kind)| {
        let l4 = match kind {
            0 => L4::Udp { sport, dport },
            1 => L4::Icmp(Icmp::EchoRequest { id: dport, seq: 0 }),
            _ => tcp("1.1.1.1", sport, "1.1.1.1", dport, "S").l4,
        };
        packet(&src.to_string(), &dst.to_string(), l4)
    })
}

fn ruleset(chains: &BTreeMap<&'static str, Vec<Rule>>) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, rules) in chains {
        let row = |rule: &Rule| (Entry { rule: rule.clone(), owner: None }, Cell::new(0));
        if *name == "PREROUTING" {
            let chain = ruleset.built_in_mut(Table::Nat, Hook::Prerouting);
            chain.edit(|rows| rows.extend(rules.iter().map(row)));
            continue;
        }
        let mut chain = Chained::new(ChainKey { table: Table::Nat, name: (*name).into() });
        chain.edit(|rows| rows.extend(rules.iter().map(row)));
        ruleset.user.insert(compile::chain_id(Table::Nat, name), chain);
    }
    ruleset
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_index_changes_nothing(
        main in prop::collection::vec(rule(&["A", "B"]), 0..60),
        a in prop::collection::vec(rule(&["B"]), 0..40),
        b in prop::collection::vec(rule(&[]), 0..40),
        packets in prop::collection::vec(a_packet(), 1..20),
    ) {
        let chains = BTreeMap::from([("PREROUTING", main), ("A", a), ("B", b)]);
        let ruleset = ruleset(&chains);
        let context = HookContext {
            now: Time::ZERO,
            input: None,
            output: None,
            physdev_in: false,
            sent_on: false,
            has_type: &|_, is| is == AddrType::Unicast,
            masquerade_to: &|_| None,
        };
        let (mut recent, mut dice) = (RecentLists::default(), rng(7));
        let (mut naive_recent, mut naive_dice) = (RecentLists::default(), rng(7));
        for packet in &packets {
            let key = Key::of(packet);
            let (recent, rng) = (&mut recent, &mut dice);
            let (context, mark, dnat) = (&context, 0, false);
            let untouched = false;
            let scene = Scene { key, mark, state: 1, untouched, dnat, context, recent, rng };
            let mut walk = Walk { rules: &ruleset, scene, notrack: false };
            let base = ruleset.built_in(Table::Nat, Hook::Prerouting);
            let outcome = walk.chain(base.counted(), 0);
            let mark = walk.scene.mark;
            let mut naive =
                Naive { chains: &chains, packet, mark: 0, recent: naive_recent, rng: naive_dice };
            prop_assert_eq!(outcome, naive.walk("PREROUTING"));
            prop_assert_eq!(mark, naive.mark);
            (naive_recent, naive_dice) = (naive.recent, naive.rng);
            // As many dice were thrown.
            prop_assert_eq!(dice.clone().u64(), naive_dice.clone().u64());
        }
    }
}

#[test]
fn a_loop_of_chains_drops_and_a_goto_does_not_come_back() {
    // Of owners nobody asks whether their chains lead back.
    let mut node = Node::with(&["-N A", "-N B", "-A A -j B", "-A B -j A"]);
    let (_, jump) = parse_rule("-A FORWARD -j A").expect("a rule");
    node.nf.append(Table::Filter, "FORWARD", jump).expect("a chain");
    assert!(node.forward(udp("1.1.1.1", 1, "2.2.2.2", 2)).is_err());
    let mut node = Node::with(&[
        "-N A",
        "-N B",
        "-A FORWARD -j A",
        "-A FORWARD -j ACCEPT",
        "-P FORWARD DROP",
        "-A A -g B",
        "-A A -j DROP",
    ]);
    assert!(node.forward(udp("1.1.1.1", 1, "2.2.2.2", 2)).is_ok());
}

/// Of two thousand rules, a packet meets the one that may be its own.
#[test]
fn the_cost_of_a_service_does_not_grow_with_their_number() {
    let mut set = ChainSet::empty(1);
    let key = |name: &str| ChainKey { table: Table::Nat, name: name.into() };
    let services = |n: u32| {
        let line = |n: u32| {
            let (high, low) = (n >> 8, n & 255);
            format!("-A KUBE-SERVICES -d 10.96.{high}.{low}/32 -p tcp --dport 80 -j KUBE-SVC-{n}")
        };
        (0..n).map(|n| parse_rule(&line(n)).expect("a rule").1).collect::<Vec<_>>()
    };
    for n in 0..2_000u32 {
        let line = format!("-A X -p tcp -j DNAT --to-destination 10.1.{}.{}:80", n >> 8, n & 255);
        let rules = vec![parse_rule(&line).expect("a rule").1];
        set.insert(key(&format!("KUBE-SVC-{n}")), Arc::new(Chain { rules }), 1);
    }
    set.insert(key("KUBE-SERVICES"), Arc::new(Chain { rules: services(2_000) }), 1);
    let mut node = Node::new();
    node.apply("kube-proxy", &base(&["nat first -A PREROUTING -j KUBE-SERVICES"]), &set);
    let compiled = &node.nf.state.as_ref().expect("loaded").rules.owners[0].compiled;
    let chain = compiled.get(compile::chain_id(Table::Nat, "KUBE-SERVICES")).expect("there");
    let packet = tcp("10.1.0.9", 5, "10.96.3.7", 80, "S");
    assert_eq!(chain.candidates(&Key::of(&packet)).collect::<Vec<_>>(), [3 * 256 + 7]);
    assert_eq!(node.forward(packet).expect("passes").dst, ip("10.1.3.7"));
}
