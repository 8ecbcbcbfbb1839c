//! The stories, each on a machine whose kernel holds no rule yet.

use super::machine::{Machine, PORTS, SERVER, applied, apply, missing, put_back, rules};
use kubesim_actors::ports::rules::parse::parse_rule;
use kubesim_actors::ports::rules::{
    Chain, ChainKey, CtEntry, CtFilter, Protocol, Reply, Request, Table,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

const OWNER: &str = "kube-proxy";
/// A Service's address that is nowhere but in the rules.
const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 7), 53);

const TWO_SERVICES: &str = "*filter
    :KUBE-FORWARD
    -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
    -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
    *nat
    :KUBE-SERVICES
    :KUBE-SVC-A
    :KUBE-SVC-B
    -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
    -A KUBE-SERVICES -d 10.96.0.7/32 -p udp -m udp --dport 53 -j KUBE-SVC-A
    -A KUBE-SERVICES -d 10.96.0.8/32 -p udp -m udp --dport 53 -j KUBE-SVC-B
    -A KUBE-SVC-A -p udp -j DNAT --to-destination 10.9.0.2:8080
    -A KUBE-SVC-B -p udp -j DNAT --to-destination 10.9.0.2:8081";

const ONE_SERVICE: &str = "*filter
    :KUBE-FORWARD
    -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
    -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
    *nat
    :KUBE-SERVICES
    :KUBE-SVC-A
    -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
    -A KUBE-SERVICES -d 10.96.0.7/32 -p udp -m udp --dport 53 -j KUBE-SVC-A
    -A KUBE-SVC-A -p udp -j DNAT --to-destination 10.9.0.2:8081";

/// Applies, and the kernel holds that and nothing else.
fn set(machine: &mut impl Machine, text: &str, version: u64) {
    applied(machine.ask(apply(OWNER, text, version))).expect("applied");
    assert_eq!(rules(&machine.save()), rules(text));
    assert!(missing(machine, OWNER).is_empty());
}

pub fn chains_are_applied_changed_and_removed(machine: &mut impl Machine) {
    set(machine, TWO_SERVICES, 1);
    set(machine, ONE_SERVICE, 2);
    set(machine, TWO_SERVICES, 3);
    if let Some(transactions) = machine.transactions() {
        assert_eq!(transactions, 3);
    }
    set(machine, "", 4);
}

pub fn local_chains_stand_in_for_shared_ones(machine: &mut impl Machine) {
    let with = |version, local: &[&str]| {
        let Request::Apply { owner, base, shared, .. } = apply(OWNER, TWO_SERVICES, version) else {
            unreachable!("it is an Apply");
        };
        let chain = |line: &&str| {
            let (name, rule) = parse_rule(line).expect("a rule");
            (ChainKey { table: Table::Nat, name }, Arc::new(Chain { rules: vec![rule] }))
        };
        let local = local.iter().map(chain).collect();
        Request::Apply { owner, base, shared, local }
    };
    let own = "-A KUBE-SVC-A -p udp -j DNAT --to-destination 10.9.0.2:9999";
    let new = "-A KUBE-SVL-A -p udp -j DNAT --to-destination 10.9.0.2:9998";
    applied(machine.ask(with(1, &[own, new]))).expect("applied");
    let saved = rules(&machine.save());
    assert_eq!(saved["nat KUBE-SVC-A"], ["-p udp -j DNAT --to-destination 10.9.0.2:9999"]);
    assert_eq!(saved["nat KUBE-SVL-A"].len(), 1);
    applied(machine.ask(with(2, &[new]))).expect("applied");
    let saved = rules(&machine.save());
    assert_eq!(saved["nat KUBE-SVC-A"], ["-p udp -j DNAT --to-destination 10.9.0.2:8080"]);
    applied(machine.ask(with(3, &[]))).expect("applied");
    assert_eq!(rules(&machine.save()), rules(TWO_SERVICES));
}

pub fn base_rules_stand_around_foreign_ones(machine: &mut impl Machine) {
    machine.iptables("-N DOCKER");
    machine.iptables("-A FORWARD -o docker0 -j DOCKER");
    let ours = "*filter
        -A FORWARD -s 10.1.0.0/16 -j ACCEPT
        -A FORWARD -d 10.1.0.0/16 -j ACCEPT
        last -A FORWARD -j DROP";
    let expected = |between: &[&str]| {
        let head = ["-s 10.1.0.0/16 -j ACCEPT", "-d 10.1.0.0/16 -j ACCEPT"];
        let all = head.iter().chain(between).chain(&["-j DROP"]);
        all.map(|rule| (*rule).to_owned()).collect::<Vec<_>>()
    };
    applied(machine.ask(apply("netd", ours, 1))).expect("applied");
    assert_eq!(rules(&machine.save())["filter FORWARD"], expected(&["-o docker0 -j DOCKER"]));
    machine.iptables("-I FORWARD -i wlan0 -j DROP");
    machine.iptables("-A FORWARD -i wlan1 -j DROP");
    applied(machine.ask(apply("netd", ours, 1))).expect("applied");
    let between = ["-i wlan0 -j DROP", "-o docker0 -j DOCKER", "-i wlan1 -j DROP"];
    assert_eq!(rules(&machine.save())["filter FORWARD"], expected(&between));
    machine.restart();
    applied(machine.ask(apply("netd", ours, 1))).expect("applied");
    assert_eq!(rules(&machine.save())["filter FORWARD"], expected(&between));
    applied(machine.ask(apply("netd", "", 2))).expect("applied");
    assert_eq!(rules(&machine.save())["filter FORWARD"], between);
}

/// Packets counted so far stay counted: of foreign rules, and of ours that have to move.
pub fn counters_are_kept(machine: &mut impl Machine) {
    let direct = SocketAddrV4::new(SERVER, PORTS[0]);
    let ours = "*filter\n-A OUTPUT -d 10.9.0.2/32 -j ACCEPT\n-A INPUT -s 10.9.0.2/32 -j ACCEPT";
    machine.iptables("-A INPUT -p udp");
    machine.iptables("-A OUTPUT -p udp");
    applied(machine.ask(apply(OWNER, ours, 1))).expect("applied");
    for _ in 0..2 {
        machine.udp(4001, direct).expect("an answer");
    }
    machine.iptables("-I OUTPUT -p udp");
    machine.udp(4001, direct).expect("an answer");
    machine.iptables("-I INPUT -i nowhere -j DROP");
    applied(machine.ask(apply(OWNER, ours, 1))).expect("applied");
    let mut counted = |chain| [0, 1, 2].map(|n| machine.packets(Table::Filter, chain, n));
    assert_eq!(counted("OUTPUT"), [3, 1, 0]);
    assert_eq!(counted("INPUT"), [3, 0, 0]);
}

pub fn what_others_flush_is_missed_and_put_back(machine: &mut impl Machine) {
    let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    set(machine, TWO_SERVICES, 1);
    machine.iptables(&format!("-t nat -D OUTPUT {portals}"));
    assert_eq!(missing(machine, OWNER), [format!("-t nat -A OUTPUT {portals}")]);
    machine.iptables("-t nat -F KUBE-SVC-A");
    assert_eq!(missing(machine, OWNER)[0], "-t nat KUBE-SVC-A: not as applied");
    set(machine, TWO_SERVICES, 1);
    machine.iptables("-t nat -A KUBE-SVC-B -j RETURN");
    assert_eq!(missing(machine, OWNER), ["-t nat KUBE-SVC-B: not as applied"]);
    set(machine, TWO_SERVICES, 1);
    machine.iptables("-t nat -F");
    let all_and_the_jump = missing(machine, OWNER);
    assert_eq!(all_and_the_jump[0], "-t nat: all chains of kube-proxy are empty");
    assert_eq!(all_and_the_jump.len(), 2);
    // The next version finds out as well.
    set(machine, ONE_SERVICE, 2);
    // So does whoever sets them again without asking, and says so.
    machine.iptables("-t nat -F");
    let back = put_back(machine.ask(apply(OWNER, ONE_SERVICE, 2)));
    assert_eq!(back, all_and_the_jump);
    assert_eq!(put_back(machine.ask(apply(OWNER, ONE_SERVICE, 2))), [""; 0]);
    assert_eq!(missing(machine, "nobody"), ["nothing of nobody is loaded"]);
}

pub fn a_new_life_writes_nothing_where_all_is_as_it_should_be(machine: &mut impl Machine) {
    machine.iptables("-A FORWARD -i wlan0 -j DROP");
    let foreign = "*filter\n-A FORWARD -i wlan0 -j DROP";
    applied(machine.ask(apply(OWNER, TWO_SERVICES, 1))).expect("applied");
    let before = machine.save();
    machine.restart();
    applied(machine.ask(apply(OWNER, TWO_SERVICES, 7))).expect("applied");
    assert!(machine.transactions().is_none_or(|count| count == 0), "nothing was written");
    let undated = |saved: &str| rules(saved);
    assert_eq!(undated(&machine.save()), undated(&before));
    assert!(rules(&before)["filter FORWARD"].contains(&rules(foreign)["filter FORWARD"][0]));
    // From here on it goes by differences.
    applied(machine.ask(apply(OWNER, ONE_SERVICE, 8))).expect("applied");
    assert!(machine.transactions().is_none_or(|count| count == 1));
    assert!(missing(machine, OWNER).is_empty());
    assert!(!machine.save().contains("KUBE-SVC-B"));
}

pub fn what_a_former_life_left_goes_and_what_is_foreign_stays(machine: &mut impl Machine) {
    machine.iptables("-t nat -N KUBE-KUBELET-CANARY");
    machine.iptables("-t nat -N FRIEND");
    machine.iptables("-t nat -A FRIEND -j RETURN");
    machine.iptables("-t nat -A OUTPUT -d 10.0.0.9/32 -j FRIEND");
    applied(machine.ask(apply(OWNER, TWO_SERVICES, 1))).expect("applied");
    // Whoever leads to a chain of the owner's has a rule of his own all the same.
    machine.iptables("-t nat -A OUTPUT -d 10.0.0.7/32 -j KUBE-SERVICES");
    machine.restart();
    applied(machine.ask(apply(OWNER, ONE_SERVICE, 2))).expect("applied");
    let mut expected = rules(ONE_SERVICE);
    expected.insert("nat KUBE-KUBELET-CANARY".into(), Vec::new());
    expected.insert("nat FRIEND".into(), vec!["-j RETURN".into()]);
    let output = expected.get_mut("nat OUTPUT").expect("a jump");
    output.push("-d 10.0.0.9/32 -j FRIEND".into());
    output.push("-d 10.0.0.7/32 -j KUBE-SERVICES".into());
    assert_eq!(rules(&machine.save()), expected);
    assert!(machine.transactions().is_none_or(|count| count == 1));
}

pub fn two_owners_do_not_touch_each_other(machine: &mut impl Machine) {
    let netd = "*nat
        :KUBESIM-POSTRTG
        last -A POSTROUTING -m comment --comment \"kubesim masq\" -j KUBESIM-POSTRTG
        -A KUBESIM-POSTRTG -s 10.9.0.0/16 -d 10.9.0.0/16 -j RETURN";
    applied(machine.ask(apply("netd", netd, 1))).expect("applied");
    applied(machine.ask(apply(OWNER, TWO_SERVICES, 1))).expect("applied");
    applied(machine.ask(apply(OWNER, ONE_SERVICE, 2))).expect("applied");
    let mut both = rules(ONE_SERVICE);
    both.extend(rules(&netd.replace("last ", "")));
    assert_eq!(rules(&machine.save()), both);
    machine.restart();
    applied(machine.ask(apply(OWNER, ONE_SERVICE, 3))).expect("applied");
    applied(machine.ask(apply("netd", "", 2))).expect("applied");
    assert!(missing(machine, OWNER).is_empty());
}

pub fn a_refusal_names_the_rule_and_the_next_apply_is_clean(machine: &mut impl Machine) {
    set(machine, ONE_SERVICE, 1);
    let dangling = ONE_SERVICE.replace("-j KUBE-SVC-A", "-j KUBE-SVC-GONE");
    let why = applied(machine.ask(apply(OWNER, &dangling, 2))).expect_err("no such chain");
    assert!(why.contains("KUBE-SVC-GONE"), "{why}");
    assert_eq!(rules(&machine.save()), rules(ONE_SERVICE));
    set(machine, TWO_SERVICES, 3);
    let nowhere = "*nat\n-A FORWARD -j ACCEPT";
    let why = applied(machine.ask(apply(OWNER, nowhere, 4))).expect_err("nat has no FORWARD");
    assert!(why.contains("FORWARD"), "{why}");
    set(machine, ONE_SERVICE, 5);
}

pub fn foreign_rules_are_read(machine: &mut impl Machine) {
    machine.iptables("-P FORWARD DROP");
    machine.iptables("-N DOCKER-USER");
    machine.iptables("-A FORWARD -j DOCKER-USER");
    machine.iptables("-A FORWARD ! -s 10.0.0.0/8 -i docker0 -p tcp --dport 80:90 -j REJECT");
    let mut read =
        |table, chain: &str| match machine.ask(Request::ReadBase { table, chain: chain.into() }) {
            Reply::Base { policy_drop, rules, .. } => (policy_drop, rules.to_vec()),
            other => panic!("{other:?}"),
        };
    let lines = [
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD ! -s 10.0.0.0/8 -i docker0 -p tcp -m tcp --dport 80:90 \
         -j REJECT --reject-with icmp-port-unreachable",
    ];
    let rules = lines.map(|line| parse_rule(line).expect("a rule").1);
    assert_eq!(read(Table::Filter, "FORWARD"), (true, rules.to_vec()));
    assert_eq!(read(Table::Nat, "OUTPUT"), (false, Vec::new()));
}

/// What `actors/src/proxy` compiles, as its golden files have it.
pub fn golden_files_go_through(machine: &mut impl Machine) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/proxy");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("golden files")
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 13);
    for (version, file) in (1..).zip(files) {
        let text = std::fs::read_to_string(&file).expect("a text");
        set(machine, &text, version);
    }
}

fn list(machine: &mut impl Machine) -> Vec<CtEntry> {
    match machine.ask(Request::ListDnat) {
        Reply::Dnat { entries } => {
            let mut entries = entries.to_vec();
            entries.sort_by_key(|entry| (entry.protocol, entry.sport));
            entries
        }
        other => panic!("{other:?}"),
    }
}

fn delete(machine: &mut impl Machine, filters: &[CtFilter]) -> u32 {
    match machine.ask(Request::DeleteConntrack { filters: filters.into() }) {
        Reply::ConntrackDeleted { entries } => entries,
        other => panic!("{other:?}"),
    }
}

pub fn connections_are_listed_and_deleted(machine: &mut impl Machine) {
    let with_tcp = format!(
        "{TWO_SERVICES}\n-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-T
        :KUBE-SVC-T\n-A KUBE-SVC-T -p tcp -j DNAT --to-destination 10.9.0.2:8080"
    );
    applied(machine.ask(apply(OWNER, &with_tcp, 1))).expect("applied");
    let answered = machine.udp(4001, VIP).expect("an answer");
    assert_eq!((answered.by, answered.at), (VIP, PORTS[0]), "translated back");
    let other = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 8), 53);
    assert_eq!(machine.udp(4002, other).map(|a| a.at), Some(PORTS[1]));
    assert!(machine.tcp(SocketAddrV4::new(*VIP.ip(), 80)));
    // Nobody's Service: not listed, and not deleted with those that lead to the same place.
    let direct = SocketAddrV4::new(SERVER, PORTS[0]);
    assert_eq!(machine.udp(4003, direct).map(|a| a.by), Some(direct));
    let found = list(machine);
    let shown =
        |e: &CtEntry| (e.protocol, e.original_dst, e.original_dport, e.dnat_to, e.dnat_port);
    let expected = [
        (Protocol::Tcp, *VIP.ip(), 80, SERVER, PORTS[0]),
        (Protocol::Udp, *VIP.ip(), 53, SERVER, PORTS[0]),
        (Protocol::Udp, *other.ip(), 53, SERVER, PORTS[1]),
    ];
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expected);
    // A rule that changes leads no old flow elsewhere; without the entry it does.
    applied(machine.ask(apply(OWNER, ONE_SERVICE, 2))).expect("applied");
    assert_eq!(machine.udp(4001, VIP).map(|a| a.at), Some(PORTS[0]));
    let udp = CtFilter { protocol: Some(Protocol::Udp), ..CtFilter::default() };
    let backend = CtFilter { dnat_to: Some(SERVER), dnat_port: Some(PORTS[0]), ..udp.clone() };
    assert_eq!(delete(machine, std::slice::from_ref(&backend)), 1);
    assert_eq!(delete(machine, &[backend]), 0);
    assert_eq!(machine.udp(4001, VIP).map(|a| a.at), Some(PORTS[1]));
    let front = CtFilter { original_dst: Some(*other.ip()), original_dport: Some(53), ..udp };
    assert_eq!(delete(machine, &[front]), 1);
    assert_eq!(list(machine).len(), 2);
}

/// kubernetes/kubernetes#48370: a flow that began before there was a rule would never meet one.
pub fn connections_from_before_the_rules_are_found(machine: &mut impl Machine) {
    // A rule that tracks connections, as any node has.
    let tracking = ONE_SERVICE.replace("-d 10.96.0.7/32", "-d 10.96.0.70/32");
    applied(machine.ask(apply(OWNER, &tracking, 1))).expect("applied");
    assert_eq!(machine.udp(4001, VIP), None, "nobody has the address");
    applied(machine.ask(apply(OWNER, ONE_SERVICE, 2))).expect("applied");
    assert_eq!(machine.udp(4001, VIP), None, "and the flow keeps its way");
    let never_rewritten = CtFilter {
        protocol: Some(Protocol::Udp),
        original_dst: Some(*VIP.ip()),
        original_dport: Some(VIP.port()),
        dnat_to: Some(*VIP.ip()),
        dnat_port: Some(VIP.port()),
    };
    assert_eq!(delete(machine, std::slice::from_ref(&never_rewritten)), 1);
    assert_eq!(machine.udp(4001, VIP).map(|a| a.at), Some(PORTS[1]));
    assert_eq!(delete(machine, &[never_rewritten]), 0, "what is rewritten stays");
}

/// One after the other, and whether each is taken: what a rule may say in its chain, where a target
/// may be reached from, which numbers there are and which chains may go.
const COMMANDS: &[(&str, bool)] = &[
    ("-t nat -A PREROUTING -j MASQUERADE", false),
    ("-t nat -A POSTROUTING -j MASQUERADE", true),
    ("-t nat -A OUTPUT -j SNAT --to-source 10.0.0.1", false),
    ("-t nat -A INPUT -j SNAT --to-source 10.0.0.1", true),
    ("-t nat -A INPUT -p tcp -j DNAT --to-destination 10.0.0.1:80", false),
    ("-t nat -A OUTPUT -p tcp -j DNAT --to-destination 10.0.0.1:80", true),
    ("-A INPUT -p udp -j REJECT --reject-with tcp-reset", false),
    ("-A INPUT -p tcp -j REJECT --reject-with tcp-reset", true),
    ("-t nat -A POSTROUTING -j DROP", false),
    ("-t nat -A POSTROUTING -i eth0 -j ACCEPT", false),
    ("-A INPUT -o eth0 -j ACCEPT", false),
    ("-A FORWARD -i eth0 -o eth0 -j ACCEPT", true),
    ("-t nat -N TO", true),
    ("-t nat -N WEB", true),
    ("-t nat -A TO -p tcp -j DNAT --to-destination 10.0.0.1:80", true),
    ("-t nat -A WEB -j TO", true),
    ("-t nat -A PREROUTING -j WEB", true),
    ("-t nat -A POSTROUTING -j WEB", false),
    ("-t nat -A TO -j MASQUERADE", false),
    ("-I FORWARD 99 -j ACCEPT", false),
    ("-I FORWARD 2 -j DROP", true),
    ("-D FORWARD 3", false),
    ("-D FORWARD 1", true),
    ("-D FORWARD -j DROP", true),
    ("-N ONE", true),
    ("-N TWO", true),
    ("-A FORWARD -j TWO", true),
    ("-X TWO", false),
    ("-X", false),
    ("-D FORWARD 1", true),
    ("-A ONE -j ACCEPT", true),
    ("-X ONE", false),
    ("-F ONE", true),
    ("-X", true),
    ("-X ONE", false),
];

pub fn what_makes_no_sense_is_refused(machine: &mut impl Machine) {
    for (command, taken) in COMMANDS {
        assert_eq!(machine.takes(command), *taken, "{command}");
    }
}
