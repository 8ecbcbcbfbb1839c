//! The rules port, foreign hands, and iptables' own words.

use super::kube::{BASE, CHAINS, node};
use super::*;
use kubesim_actors::ports::rules::{CtFilter, Protocol};

fn result(reply: Reply) -> Result<(), String> {
    match reply {
        Reply::Applied { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_saved_is_what_iptables_save_prints() {
    let saved = node().nf.save(Some(Table::Nat));
    let expected = include_str!("kube_nat.txt");
    assert_eq!(saved, expected);
}

#[test]
fn every_saved_line_reads_back_as_itself() {
    let node = node();
    let saved = node.nf.save(None);
    let lines: Vec<_> = saved.lines().filter(|line| line.starts_with("-A")).collect();
    assert_eq!(lines.len(), BASE.len() + CHAINS.len());
    for line in lines {
        let (chain, rule) = parse_rule(line).expect(line);
        assert_eq!(text::rule_line(&chain, &rule), line);
    }
}

#[test]
fn people_write_rules_in_other_ways_too() {
    let same = [
        ("-A X -p tcp -m multiport", "Couldn't load match `multiport':No such file or directory"),
        ("-A X -s nowhere", "host/network `nowhere' not found"),
        ("-A X --frobnicate", "unknown option \"--frobnicate\""),
        ("-A X -j DNAT", "DNAT wants --to-destination"),
        ("-A X ! -j DROP", "\"-j\" cannot be negated"),
        ("-A", "-A wants a chain"),
        ("-A X -m comment --comment \"x", "a quote is not closed: -A X -m comment --comment \"x"),
    ];
    for (line, error) in same {
        assert_eq!(parse_rule(line).expect_err(line), error);
    }
    let ways = [
        ("-A X -j MARK --set-mark 0x10/0xff", "-A X -j MARK --set-xmark 0x10/0xff"),
        ("-A X -j MARK --and-mark 0xff", "-A X -j MARK --set-xmark 0x0/0xffffff00"),
        ("-A X -s 10.0.0.1", "-A X -s 10.0.0.1/32"),
        ("-A X -p udp --sport 1:9 ! --dport 53", "-A X -p udp -m udp --sport 1:9 ! --dport 53"),
        (
            "-A X ! -i eth0 -j REJECT",
            "-A X ! -i eth0 -j REJECT --reject-with icmp-port-unreachable",
        ),
        ("-A X -m state --state NEW,INVALID", "-A X -m conntrack --ctstate INVALID,NEW"),
    ];
    for (written, saved) in ways {
        let (chain, rule) = parse_rule(written).expect(written);
        assert_eq!(text::rule_line(&chain, &rule), saved);
    }
}

#[test]
fn an_unknown_target_refuses_all_and_changes_nothing() {
    let mut node = node();
    let before = node.nf.save(None);
    let broken = chains(&["nat -A KUBE-SERVICES -p tcp -j KUBE-SVC-GONE"], 4);
    let error = result(node.apply("kube-proxy", &base(&BASE[..1]), &broken)).expect_err("refused");
    assert!(error.contains("Couldn't load target `KUBE-SVC-GONE':No such file"), "{error}");
    let error =
        result(node.apply("x", &base(&["nat last -A INPUT -j NOWHERE"]), &ChainSet::empty(9)));
    assert!(error.expect_err("refused").contains("`NOWHERE'"));
    let dnat = chains(&["filter -A X -j DNAT --to-destination 1.1.1.1"], 5);
    let error = result(node.apply("x", &[], &dnat)).expect_err("refused");
    assert!(error.contains("only valid in nat table"), "{error}");
    assert_eq!(node.nf.save(None), before);
}

#[test]
fn base_rules_stand_around_foreign_ones_which_stay() {
    let mut node = Node::with(&["-N DOCKER", "-A FORWARD -o docker0 -j DOCKER"]);
    let ours = base(&[
        "filter first -A FORWARD -s 10.1.0.0/16 -j ACCEPT",
        "filter last -A FORWARD -j DROP",
    ]);
    result(node.apply("netd", &ours, &ChainSet::empty(1))).expect("applied");
    node.run(&["-I FORWARD -i wlan0 -j DROP"]);
    result(node.apply("netd", &ours, &ChainSet::empty(1))).expect("applied");
    let saved = node.nf.save(Some(Table::Filter));
    let rules: Vec<_> = saved.lines().filter(|line| line.starts_with("-A")).collect();
    assert_eq!(
        rules,
        [
            "-A FORWARD -s 10.1.0.0/16 -j ACCEPT",
            "-A FORWARD -i wlan0 -j DROP",
            "-A FORWARD -o docker0 -j DOCKER",
            "-A FORWARD -j DROP",
        ]
    );
    let read = Request::ReadBase { table: Table::Filter, chain: "FORWARD".into() };
    let Reply::Base { rules, policy_drop, .. } = node.nf.request(&read, node.now) else { panic!() };
    assert_eq!((rules.len(), policy_drop), (4, false));
}

#[test]
fn what_others_take_away_is_missed() {
    let mut node = node();
    assert!(node.missing("kube-proxy").is_empty());
    node.run(&[
        "-t nat -D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    ]);
    assert_eq!(
        node.missing("kube-proxy"),
        [
            "-t nat -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"
        ]
    );
    node.run(&["-t nat -F KUBE-SEP-ONE"]);
    assert_eq!(node.missing("kube-proxy")[0], "-t nat KUBE-SEP-ONE: not as applied");
    let out = node.forward(tcp("10.1.0.9", 5000, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!(out.dst, ip("10.96.0.7"));

    result(node.apply("kube-proxy", &base(&BASE), &chains(&CHAINS, 4))).expect("applied");
    assert!(node.missing("kube-proxy").is_empty());
    node.run(&["-t nat -F"]);
    let missing = node.missing("kube-proxy");
    assert_eq!(missing[0], "-t nat: all chains of kube-proxy are empty");
    assert_eq!(missing.len(), 4);
    assert!(node.nf.save(Some(Table::Nat)).contains(":KUBE-SVC-WEB - [0:0]"));
    let out = node.forward(tcp("10.1.0.9", 5001, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!(out.dst, ip("10.96.0.7"));

    result(node.apply("kube-proxy", &base(&BASE), &chains(&CHAINS, 5))).expect("applied");
    let out = node.forward(tcp("10.1.0.9", 5002, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!(out.dst, ip("10.1.0.5"));
    assert_eq!(node.missing("nobody"), ["nothing of nobody is loaded"]);
}

#[test]
fn a_chain_that_somebody_jumps_to_cannot_go() {
    let mut node = node();
    node.run(&["-t nat -A POSTROUTING -s 172.17.0.0/16 -j KUBE-MARK-MASQ"]);
    let error = result(node.apply("kube-proxy", &[], &ChainSet::empty(7))).expect_err("busy");
    assert!(error.contains("Device or resource busy"), "{error}");
    node.run(&["-t nat -D POSTROUTING -s 172.17.0.0/16 -j KUBE-MARK-MASQ"]);
    result(node.apply("kube-proxy", &[], &ChainSet::empty(7))).expect("applied");
    assert!(node.missing("kube-proxy").is_empty());
    assert_eq!(node.nf.save(None), "");
}

#[test]
fn foreign_chains_come_and_go() {
    let mut node = Node::with(&["-N A", "-N B", "-A A -j B"]);
    let mut fails = |line: &str| node.nf.command(line).expect_err(line);
    assert_eq!(fails("-N A"), "iptables: Chain already exists.");
    assert_eq!(fails("-X A"), "iptables: Directory not empty.");
    assert_eq!(fails("-X B"), "iptables: Too many links.");
    assert_eq!(fails("-X C"), "iptables: No chain/target/match by that name.");
    assert_eq!(fails("-A C -j DROP"), "iptables: No chain/target/match by that name.");
    assert_eq!(fails("-A A -j C"), "Couldn't load target `C':No such file or directory");
    assert_eq!(fails("-P A DROP"), "iptables: Bad built-in chain name.");
    node.run(&["-F", "-X A", "-X B"]);
    assert!(node.nf.is_idle());
}

#[test]
fn local_chains_win_over_shared_ones_and_changes_follow() {
    let mut node = Node::new();
    let shared = chains(&["filter -A POLICY -j DROP", "filter -A OTHER -j ACCEPT"], 1);
    let key = ChainKey { table: Table::Filter, name: "POLICY".into() };
    let accept = chains(&["filter -A POLICY -j ACCEPT"], 1);
    let local = vec![(key.clone(), accept.get(&key).expect("there").clone())];
    let apply = |shared: &ChainSet, local: Vec<_>| Request::Apply {
        owner: "x".into(),
        base: base(&["filter last -A FORWARD -j POLICY"]).into(),
        shared: shared.clone(),
        local: local.into(),
    };
    let there = || udp("10.1.0.1", 1, "10.2.0.1", 2);
    node.nf.request(&apply(&shared, local), node.now);
    assert!(node.forward(there()).is_ok());
    node.nf.request(&apply(&shared, Vec::new()), node.now);
    assert!(node.forward(there()).is_err());
    let mut newer = shared.clone();
    newer.insert(key.clone(), accept.get(&key).expect("there").clone(), 2);
    node.nf.request(&apply(&newer, Vec::new()), node.now);
    assert!(node.forward(there()).is_ok());
    newer.remove(&key, 3);
    let refused = node.nf.request(&apply(&newer, Vec::new()), node.now);
    assert!(result(refused).expect_err("gone").contains("`POLICY'"));
}

#[test]
fn conntrack_is_listed_and_deleted_by_filter() {
    let mut node = Node::with(&[
        "-t nat -A PREROUTING -d 10.96.0.10/32 -p udp --dport 53 -j DNAT --to-destination 10.1.0.7:5353",
    ]);
    node.forward(udp("10.1.0.9", 4000, "10.96.0.10", 53)).expect("passes");
    node.forward(udp("10.1.0.9", 4000, "10.1.0.7", 53)).expect("passes");
    let Reply::Dnat { entries } = node.nf.request(&Request::ListDnat, node.now) else { panic!() };
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].original_dst, entries[0].dnat_to), (ip("10.96.0.10"), ip("10.1.0.7")));
    assert_eq!((entries[0].original_dport, entries[0].dnat_port), (53, 5353));
    let mut delete = |filter: CtFilter| {
        let request = Request::DeleteConntrack { filters: [filter].into() };
        match node.nf.request(&request, node.now) {
            Reply::ConntrackDeleted { entries } => entries,
            other => panic!("{other:?}"),
        }
    };
    let none = CtFilter { dnat_to: Some(ip("10.1.0.8")), ..CtFilter::default() };
    assert_eq!(delete(none), 0);
    let dnat = CtFilter {
        protocol: Some(Protocol::Udp),
        dnat_to: Some(ip("10.1.0.7")),
        ..CtFilter::default()
    };
    assert_eq!(delete(dnat.clone()), 1);
    assert_eq!(delete(dnat), 0);
    assert_eq!(delete(CtFilter::default()), 1);
}

mod following {
    use super::*;
    use crate::kernel::netfilter::compile::{CompiledSet, chain_id};
    use proptest::prelude::*;

    /// A chain by number, and its rules: jumps to other chains, a recent list, a DNAT.
    fn edits() -> impl Strategy<Value = Vec<(u8, Option<Vec<u8>>)>> {
        let rules = prop::collection::vec(0u8..8, 0..4);
        prop::collection::vec((0u8..5, prop::option::weighted(0.7, rules)), 1..30)
    }

    fn key(number: u8) -> ChainKey {
        let table = if number == 4 { Table::Filter } else { Table::Nat };
        ChainKey { table, name: format!("C{number}").into() }
    }

    fn rule(kind: u8) -> Rule {
        let line = match kind {
            0..5 => format!("-A X -j C{kind}"),
            5 => "-A X -j DNAT --to-destination 1.1.1.1".into(),
            _ => format!("-A X -m recent --set --name L{kind} --rsource"),
        };
        parse_rule(&line).expect("a rule").1
    }

    proptest! {
        #[test]
        fn a_set_that_followed_every_change_is_the_set_compiled_anew(edits in edits()) {
            let mut set = ChainSet::empty(1);
            let mut followed = CompiledSet::of(&set, None);
            for (version, (number, rules)) in (1..).zip(edits) {
                let old = set.clone();
                match rules {
                    Some(rules) => {
                        let rules = rules.into_iter().map(rule).collect();
                        set.insert(key(number), Arc::new(Chain { rules }), version);
                    }
                    None => {
                        set.remove(&key(number), version);
                    }
                }
                followed = CompiledSet::of(&set, Some((&old, &followed)));
                let mut copy = ChainSet::empty(2);
                for (key, chain) in set.iter() {
                    copy.insert(key.clone(), chain.clone(), 1);
                }
                let fresh = CompiledSet::of(&copy, None);
                prop_assert!(followed.unresolved().eq(fresh.unresolved()));
                prop_assert_eq!(followed.refusal(), fresh.refusal());
                for list in ["L6", "L7"] {
                    let list = list.into();
                    prop_assert_eq!(followed.names_recent(&list), fresh.names_recent(&list));
                }
                for number in 0..5 {
                    let id = chain_id(key(number).table, &key(number).name);
                    let rules = |set: &CompiledSet| set.get(id).map(|chain| chain.rules.len());
                    prop_assert_eq!(rules(&followed), rules(&fresh));
                }
            }
        }
    }
}
