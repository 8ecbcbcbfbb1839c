//! Rules and connections in the words of `iptables-save` and `conntrack -L`.

use super::conntrack::Entry;
use super::table::{Ruleset, TABLES, hook_name};
use kubesim_actors::ports::rules::{
    AddrType, CtStates, Match, Protocol, RejectWith, Rule, Table, Target,
};
use kubesim_runtime::Time;
use std::collections::BTreeSet;
use std::fmt::Write;

pub(super) fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "raw",
        Table::Mangle => "mangle",
        Table::Nat => "nat",
        Table::Filter => "filter",
    }
}

pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => "icmp",
    }
}

pub(super) fn addr_type_name(is: AddrType) -> &'static str {
    match is {
        AddrType::Local => "LOCAL",
        AddrType::Unicast => "UNICAST",
        AddrType::Broadcast => "BROADCAST",
        AddrType::Multicast => "MULTICAST",
    }
}

pub(super) fn reject_name(with: RejectWith) -> &'static str {
    match with {
        RejectWith::PortUnreachable => "icmp-port-unreachable",
        RejectWith::HostUnreachable => "icmp-host-unreachable",
        RejectWith::AdminProhibited => "icmp-admin-prohibited",
        RejectWith::TcpReset => "tcp-reset",
    }
}

/// One table, or every table that holds something, each as a block from `*name` to `COMMIT`.
pub(super) fn save(rules: Option<&Ruleset>, only: Option<Table>) -> String {
    let mut text = String::new();
    let Some(rules) = rules else { return text };
    for table in TABLES.into_iter().filter(|table| only.is_none_or(|only| only == *table)) {
        let block = save_table(rules, table);
        // The base chains alone say nothing, unless they were asked for or have a policy.
        if only.is_some()
            || block.contains("-A ")
            || block.contains(" - [")
            || block.contains("DROP")
        {
            text += &block;
        }
    }
    text
}

fn save_table(rules: &Ruleset, table: Table) -> String {
    let mut text = format!("*{}\n", table_name(table));
    let base: Vec<_> = rules.all_built_in().filter(|(of, _, _)| *of == table).collect();
    for (_, hook, chain) in &base {
        let policy = if chain.policy_drop { "DROP" } else { "ACCEPT" };
        let _ = writeln!(text, ":{} {policy} [0:0]", hook_name(*hook));
    }
    let foreign = rules.user.values().map(|chain| &chain.key);
    let owned = rules.owners.iter().flat_map(|owner| owner.chains().map(|(key, _)| key));
    let keys: BTreeSet<_> = foreign.chain(owned).filter(|key| key.table == table).collect();
    for key in &keys {
        let _ = writeln!(text, ":{} - [0:0]", key.name);
    }
    for (_, hook, chain) in &base {
        for rule in chain.rules() {
            let _ = writeln!(text, "{}", rule_line(hook_name(*hook), rule));
        }
    }
    for key in keys {
        for rule in rules.rules_of(key).unwrap_or_default() {
            let _ = writeln!(text, "{}", rule_line(&key.name, &rule));
        }
    }
    text + "COMMIT\n"
}

/// `-A CHAIN …`: header fields in the order of `struct ipt_ip`, extensions as the rule has them.
pub(super) fn rule_line(chain: &str, rule: &Rule) -> String {
    let mut text = format!("-A {chain}");
    for rank in 0..5 {
        for found in rule.matches.iter().filter(|found| header_rank(found) == rank) {
            header(&mut text, found);
        }
    }
    let protocol = rule.matches.iter().find_map(|found| match found {
        Match::Protocol { is, not: false } => Some(*is),
        _ => None,
    });
    let extensions: Vec<_> = rule.matches.iter().filter(|found| header_rank(found) == 5).collect();
    for (at, found) in extensions.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| extensions[at]);
        extension(&mut text, before, found, protocol);
    }
    target(&mut text, &rule.target);
    text
}

fn header_rank(found: &Match) -> u32 {
    match found {
        Match::Source { .. } => 0,
        Match::Destination { .. } => 1,
        Match::InInterface { .. } => 2,
        Match::OutInterface { .. } => 3,
        Match::Protocol { .. } => 4,
        _ => 5,
    }
}

fn bang(not: bool) -> &'static str {
    if not { " !" } else { "" }
}

fn header(text: &mut String, found: &Match) {
    let _ = match found {
        Match::Source { net, not } => write!(text, "{} -s {}", bang(*not), net.trunc()),
        Match::Destination { net, not } => write!(text, "{} -d {}", bang(*not), net.trunc()),
        Match::InInterface { name, not } => write!(text, "{} -i {name}", bang(*not)),
        Match::OutInterface { name, not } => write!(text, "{} -o {name}", bang(*not)),
        Match::Protocol { is, not } => write!(text, "{} -p {}", bang(*not), protocol_name(*is)),
        _ => Ok(()),
    };
}

/// Two options of one module that stand side by side are printed as one `-m`.
fn extension(text: &mut String, before: Option<&Match>, found: &Match, protocol: Option<Protocol>) {
    let _ = match found {
        Match::Comment(comment) => write!(text, " -m comment --comment {}", quoted(comment)),
        Match::SourcePort { from, to, not } => {
            let _ = write!(text, " -m {}", protocol.map_or("tcp", protocol_name));
            write!(text, "{} --sport {}", bang(*not), port_range(*from, *to))
        }
        Match::DestinationPort { from, to, not } => {
            if !matches!(before, Some(Match::SourcePort { .. })) {
                let _ = write!(text, " -m {}", protocol.map_or("tcp", protocol_name));
            }
            write!(text, "{} --dport {}", bang(*not), port_range(*from, *to))
        }
        Match::Mark { value, mask, not } => {
            let _ = write!(text, " -m mark{} --mark {value:#x}", bang(*not));
            if *mask == u32::MAX { Ok(()) } else { write!(text, "/{mask:#x}") }
        }
        Match::SourceType { is, not } => {
            write!(text, " -m addrtype{} --src-type {}", bang(*not), addr_type_name(*is))
        }
        Match::DestinationType { is, not } => {
            if !matches!(before, Some(Match::SourceType { .. })) {
                *text += " -m addrtype";
            }
            write!(text, "{} --dst-type {}", bang(*not), addr_type_name(*is))
        }
        Match::PhysdevIsIn { not } => write!(text, " -m physdev{} --physdev-is-in", bang(*not)),
        Match::Random { probability } => {
            let p = f64::from(*probability) / f64::from(1u32 << 31);
            write!(text, " -m statistic --mode random --probability {p:.11}")
        }
        Match::RecentCheck { name, seconds } => write!(
            text,
            " -m recent --rcheck --seconds {seconds} --reap --name {name} \
             --mask 255.255.255.255 --rsource"
        ),
        Match::RecentSet { name } => {
            write!(text, " -m recent --set --name {name} --mask 255.255.255.255 --rsource")
        }
        Match::CtState { any, not } => {
            write!(text, " -m conntrack{} --ctstate {}", bang(*not), states(any))
        }
        Match::CtDnat => write!(text, " -m conntrack --ctstatus DNAT"),
        _ => Ok(()),
    };
}

fn port_range(from: u16, to: u16) -> String {
    if from == to { from.to_string() } else { format!("{from}:{to}") }
}

/// In the order of `print_state` (libxt_conntrack.c).
fn states(any: &CtStates) -> String {
    let all = [
        (any.invalid, "INVALID"),
        (any.new, "NEW"),
        (any.related, "RELATED"),
        (any.established, "ESTABLISHED"),
        (any.untracked, "UNTRACKED"),
    ];
    let set: Vec<_> = all.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    set.join(",")
}

/// Quoted unless it is one plain word (`xtables_save_string`).
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_string();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

fn target(text: &mut String, target: &Target) {
    let _ = match target {
        Target::Jump(chain) => write!(text, " -j {chain}"),
        Target::Goto(chain) => write!(text, " -g {chain}"),
        Target::Return => write!(text, " -j RETURN"),
        Target::Accept => write!(text, " -j ACCEPT"),
        Target::Drop => write!(text, " -j DROP"),
        Target::Reject(with) => write!(text, " -j REJECT --reject-with {}", reject_name(*with)),
        Target::Dnat { to, port: None } => write!(text, " -j DNAT --to-destination {to}"),
        Target::Dnat { to, port: Some(port) } => {
            write!(text, " -j DNAT --to-destination {to}:{port}")
        }
        Target::Snat { to } => write!(text, " -j SNAT --to-source {to}"),
        Target::Masquerade { random_fully: false } => write!(text, " -j MASQUERADE"),
        Target::Masquerade { random_fully: true } => write!(text, " -j MASQUERADE --random-fully"),
        Target::Mark { value, mask } => {
            write!(text, " -j MARK --set-xmark {value:#x}/{mask:#x}")
        }
        Target::NoTrack => write!(text, " -j CT --notrack"),
        Target::None => Ok(()),
    };
}

/// One line of `conntrack -L`.
pub(super) fn connection(entry: &Entry, now: Time) -> String {
    let number = match entry.protocol() {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let (name, seconds) = (protocol_name(entry.protocol()), entry.expires().since(now).as_secs());
    let mut text = format!("{name:<8} {number} {seconds} ");
    if let Some(state) = entry.tcp_state() {
        let _ = write!(text, "{} ", state.name());
    }
    let _ = write!(text, "{} ", entry.original);
    if !entry.seen_reply {
        text += "[UNREPLIED] ";
    }
    let _ = write!(text, "{} ", entry.reply);
    if entry.assured {
        text += "[ASSURED] ";
    }
    text + "mark=0 use=1"
}
