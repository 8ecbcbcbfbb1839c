//! Rules as `iptables-save` of iptables 1.8 prints them, by either of its backends.

use super::{
    AddrType, Address, BaseRule, Chain, ChainKey, ChainSet, CtStates, Match, Protocol, Rule, Table,
    Target,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
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
            write_rule(&mut text, &jump.chain, &jump.rule);
        }
        for (key, chain) in own {
            chain.rules.iter().for_each(|rule| write_rule(&mut text, &key.name, rule));
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

/// In IPv4.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    protocol_word::<Ipv4Addr>(protocol)
}

/// What `-p` says.
pub fn protocol_word<A: Address>(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => A::ICMP,
    }
}

pub fn addr_type_name(is: AddrType) -> &'static str {
    match is {
        AddrType::Local => "LOCAL",
        AddrType::Unicast => "UNICAST",
        AddrType::Broadcast => "BROADCAST",
        AddrType::Multicast => "MULTICAST",
    }
}

pub fn reject_name<A: Address>(with: A::RejectWith) -> &'static str {
    let named = A::REJECTS.iter().find(|(known, _)| *known == with);
    named.map_or("unknown", |(_, name)| name)
}

/// `-A CHAIN …`: header fields in the order of `struct ipt_ip`, extensions as the rule has them.
pub fn rule_line<A: Address>(chain: &str, rule: &Rule<A>) -> String {
    let mut line = format!("-A {chain}");
    rule_text(&mut line, rule);
    line
}

/// A [`rule_line`] and the end of the line.
pub fn write_rule<A: Address>(text: &mut String, chain: &str, rule: &Rule<A>) {
    text.push_str("-A ");
    text.push_str(chain);
    rule_text(text, rule);
    text.push('\n');
}

/// Matches and target, each with a space before it.
pub fn rule_text<A: Address>(text: &mut String, rule: &Rule<A>) {
    for rank in 0..5 {
        for found in rule.matches.iter().filter(|found| header_rank(found) == rank) {
            header(text, found);
        }
    }
    let protocol = rule.matches.iter().find_map(|found| match found {
        Match::Protocol { is, not: false } => Some(*is),
        _ => None,
    });
    let mut before = None;
    for found in rule.matches.iter().filter(|found| header_rank(found) == 5) {
        extension(text, before, found, protocol);
        before = Some(found);
    }
    target(text, &rule.target);
}

/// Where iptables prints a match: the fields of `struct ipt_ip` come first, in this order.
pub(super) fn header_rank<A: Address>(found: &Match<A>) -> u32 {
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

fn header<A: Address>(text: &mut String, found: &Match<A>) {
    let _ = match found {
        Match::Source { net, not } => write!(text, "{} -s {}", bang(*not), A::write_net(*net)),
        Match::Destination { net, not } => write!(text, "{} -d {}", bang(*not), A::write_net(*net)),
        Match::InInterface { name, not } => write!(text, "{} -i {name}", bang(*not)),
        Match::OutInterface { name, not } => write!(text, "{} -o {name}", bang(*not)),
        Match::Protocol { is, not } => {
            write!(text, "{} -p {}", bang(*not), protocol_word::<A>(*is))
        }
        _ => Ok(()),
    };
}

/// Two options of one module that stand side by side are printed as one `-m`.
fn extension<A: Address>(
    text: &mut String,
    before: Option<&Match<A>>,
    found: &Match<A>,
    protocol: Option<Protocol>,
) {
    let module = protocol.map_or("tcp", protocol_word::<A>);
    let _ = match found {
        Match::Comment(comment) => write!(text, " -m comment --comment {}", quoted(comment)),
        Match::SourcePort { from, to, not } => {
            let _ = write!(text, " -m {module}");
            write!(text, "{} --sport {}", bang(*not), port_range(*from, *to))
        }
        Match::DestinationPort { from, to, not } => {
            if !matches!(before, Some(Match::SourcePort { .. })) {
                let _ = write!(text, " -m {module}");
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
            " -m recent --rcheck --seconds {seconds} --reap --name {name} --mask {} --rsource",
            A::WHOLE
        ),
        Match::RecentSet { name } => {
            write!(text, " -m recent --set --name {name} --mask {} --rsource", A::WHOLE)
        }
        Match::CtState { any, not } => {
            write!(text, " -m conntrack{} --ctstate {}", bang(*not), states(any))
        }
        Match::CtDnat => write!(text, " -m conntrack --ctstate DNAT"),
        Match::Other(words) => write!(text, " {words}"),
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
pub(super) fn quoted(text: &str) -> String {
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

fn target<A: Address>(text: &mut String, target: &Target<A>) {
    let _ = match target {
        Target::Jump(chain) => write!(text, " -j {chain}"),
        Target::Goto(chain) => write!(text, " -g {chain}"),
        Target::Return => write!(text, " -j RETURN"),
        Target::Accept => write!(text, " -j ACCEPT"),
        Target::Drop => write!(text, " -j DROP"),
        Target::Reject(with) => {
            write!(text, " -j REJECT --reject-with {}", reject_name::<A>(*with))
        }
        Target::Dnat { to, port: None } => write!(text, " -j DNAT --to-destination {to}"),
        Target::Dnat { to, port: Some(port) } => {
            write!(text, " -j DNAT --to-destination {}", to.with_port(*port))
        }
        Target::Snat { to } => write!(text, " -j SNAT --to-source {to}"),
        Target::Masquerade { random_fully: false } => write!(text, " -j MASQUERADE"),
        Target::Masquerade { random_fully: true } => write!(text, " -j MASQUERADE --random-fully"),
        Target::Mark { value, mask } => {
            write!(text, " -j MARK --set-xmark {value:#x}/{mask:#x}")
        }
        Target::NoTrack => write!(text, " -j CT --notrack"),
        Target::Other(words) => write!(text, " -j {words}"),
        Target::None => Ok(()),
    };
}
