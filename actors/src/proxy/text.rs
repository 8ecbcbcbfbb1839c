//! Rules as `iptables-save` prints them (iptables 1.8).

use super::names::lower;
use crate::ports::rules::{
    AddrType, BaseRule, Chain, ChainKey, ChainSet, CtStates, Match, Protocol, RejectWith, Rule,
    Table, Target,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The whole of an owner's rules, filter table first as upstream's restore input has it; chains
/// in the order of their names, `local` in place of shared ones of the same name.
pub fn to_iptables_save(
    base: &[BaseRule],
    shared: &ChainSet,
    local: &[(ChainKey, Arc<Chain>)],
) -> String {
    let mut text = String::new();
    let mut chains: BTreeMap<&ChainKey, &Arc<Chain>> = shared.iter().collect();
    chains.extend(local.iter().map(|(key, chain)| (key, chain)));
    for table in [Table::Raw, Table::Mangle, Table::Filter, Table::Nat] {
        let own: Vec<_> = chains.iter().filter(|(key, _)| key.table == table).collect();
        let jumps: Vec<_> = base.iter().filter(|rule| rule.table == table).collect();
        if own.is_empty() && jumps.is_empty() {
            continue;
        }
        let _ = writeln!(text, "*{}", table_name(table));
        for (key, _) in &own {
            let _ = writeln!(text, ":{} - [0:0]", key.name);
        }
        for jump in jumps {
            let _ = writeln!(text, "-A {}{}", jump.chain, rule_text(&jump.rule));
        }
        for (key, chain) in own {
            for rule in &chain.rules {
                let _ = writeln!(text, "-A {}{}", key.name, rule_text(rule));
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "raw",
        Table::Mangle => "mangle",
        Table::Nat => "nat",
        Table::Filter => "filter",
    }
}

/// Matches and target, each with a space before it.
pub fn rule_text(rule: &Rule) -> String {
    let protocol = rule.matches.iter().find_map(|one| match one {
        Match::Protocol { is, not: false } => Some(*is),
        _ => None,
    });
    let mut text = String::new();
    let mut ports = false;
    for one in &rule.matches {
        match_text(one, protocol, &mut ports, &mut text);
    }
    target_text(&rule.target, &mut text);
    text
}

fn match_text(one: &Match, protocol: Option<Protocol>, ports: &mut bool, text: &mut String) {
    let no = |not: bool| if not { "! " } else { "" };
    let done = match one {
        Match::Comment(comment) => write!(text, " -m comment --comment {}", quoted(comment)),
        Match::Protocol { is, not } => write!(text, " {}-p {}", no(*not), lower(*is)),
        Match::Source { net, not } => write!(text, " {}-s {net}", no(*not)),
        Match::Destination { net, not } => write!(text, " {}-d {net}", no(*not)),
        Match::SourcePort { from, to, not } => {
            port_text("sport", (*from, *to), no(*not), protocol, ports, text)
        }
        Match::DestinationPort { from, to, not } => {
            port_text("dport", (*from, *to), no(*not), protocol, ports, text)
        }
        Match::InInterface { name, not } => write!(text, " {}-i {name}", no(*not)),
        Match::OutInterface { name, not } => write!(text, " {}-o {name}", no(*not)),
        Match::Mark { value, mask, not } => {
            let mask = if *mask == u32::MAX { String::new() } else { format!("/{mask:#x}") };
            write!(text, " -m mark {}--mark {value:#x}{mask}", no(*not))
        }
        Match::SourceType { is, not } => {
            write!(text, " -m addrtype {}--src-type {}", no(*not), addr_type(*is))
        }
        Match::DestinationType { is, not } => {
            write!(text, " -m addrtype {}--dst-type {}", no(*not), addr_type(*is))
        }
        Match::PhysdevIsIn { not } => write!(text, " -m physdev {}--physdev-is-in", no(*not)),
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
            write!(text, " -m conntrack {}--ctstate {}", no(*not), states(any))
        }
        Match::CtDnat => write!(text, " -m conntrack --ctstate DNAT"),
    };
    done.expect("a String takes all");
}

/// Both ports belong to one match, which is named after the protocol.
fn port_text(
    what: &str,
    (from, to): (u16, u16),
    no: &str,
    protocol: Option<Protocol>,
    ports: &mut bool,
    text: &mut String,
) -> std::fmt::Result {
    if !std::mem::replace(ports, true) {
        write!(text, " -m {}", protocol.map_or("tcp", lower))?;
    }
    write!(text, " {no}--{what} {from}")?;
    if to != from { write!(text, ":{to}") } else { Ok(()) }
}

fn target_text(target: &Target, text: &mut String) {
    let done = match target {
        Target::Jump(chain) => write!(text, " -j {chain}"),
        Target::Goto(chain) => write!(text, " -g {chain}"),
        Target::Return => write!(text, " -j RETURN"),
        Target::Accept => write!(text, " -j ACCEPT"),
        Target::Drop => write!(text, " -j DROP"),
        Target::Reject(with) => write!(text, " -j REJECT --reject-with {}", reject(*with)),
        Target::Dnat { to, port: Some(port) } => {
            write!(text, " -j DNAT --to-destination {to}:{port}")
        }
        Target::Dnat { to, port: None } => write!(text, " -j DNAT --to-destination {to}"),
        Target::Snat { to } => write!(text, " -j SNAT --to-source {to}"),
        Target::Masquerade { random_fully: true } => write!(text, " -j MASQUERADE --random-fully"),
        Target::Masquerade { random_fully: false } => write!(text, " -j MASQUERADE"),
        Target::Mark { value, mask } => {
            // iptables prints a zero mask as 0x0, which `{:#x}` does too.
            write!(text, " -j MARK --set-xmark {value:#x}/{mask:#x}")
        }
        Target::NoTrack => write!(text, " -j CT --notrack"),
        Target::None => Ok(()),
    };
    done.expect("a String takes all");
}

/// `xtables_save_string`: bare words stay bare.
fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

fn addr_type(is: AddrType) -> &'static str {
    match is {
        AddrType::Local => "LOCAL",
        AddrType::Unicast => "UNICAST",
        AddrType::Broadcast => "BROADCAST",
        AddrType::Multicast => "MULTICAST",
    }
}

fn reject(with: RejectWith) -> &'static str {
    match with {
        RejectWith::PortUnreachable => "icmp-port-unreachable",
        RejectWith::HostUnreachable => "icmp-host-unreachable",
        RejectWith::AdminProhibited => "icmp-admin-prohibited",
        RejectWith::TcpReset => "tcp-reset",
    }
}

/// In the order in which iptables prints them.
fn states(any: &CtStates) -> String {
    let all = [
        (any.invalid, "INVALID"),
        (any.new, "NEW"),
        (any.related, "RELATED"),
        (any.established, "ESTABLISHED"),
        (any.untracked, "UNTRACKED"),
    ];
    let named: Vec<_> = all.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    named.join(",")
}
