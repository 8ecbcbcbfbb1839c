//! Rules and connections in the words of `iptables-save` and `conntrack -L`.

use super::entry::Entry;
use super::table::{Ruleset, TABLES, hook_name};
use crate::kernel::family::Family;
use kubesim_actors::ports::rules::text::{protocol_name, rule_line, table_name};
use kubesim_actors::ports::rules::{Protocol, Table};
use kubesim_runtime::Time;
use std::collections::BTreeSet;
use std::fmt::Write;

/// One table, or every table that holds something, each as a block from `*name` to `COMMIT`.
pub(super) fn save<F: Family>(rules: Option<&Ruleset<F>>, only: Option<Table>) -> String {
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

fn save_table<F: Family>(rules: &Ruleset<F>, table: Table) -> String {
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

/// One line of `conntrack -L`.
pub(super) fn connection<F: Family>(entry: &Entry<F>, now: Time) -> String {
    let number = match entry.protocol() {
        Protocol::Icmp => F::ICMP,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let name = match entry.protocol() {
        Protocol::Icmp if F::VERSION == 6 => "icmpv6",
        protocol => protocol_name(protocol),
    };
    let seconds = entry.expires().since(now).as_secs();
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
