//! Commands in iptables' own words.

use super::Netfilter;
use kubesim_actors::ports::rules::Table;
use kubesim_actors::ports::rules::parse::{rule_of, split};
use kubesim_actors::ports::rules::text::table_name;

/// `[-t table] -A|-I|-D|-N|-X|-F|-P …`
pub(super) fn command(netfilter: &mut Netfilter, line: &str) -> Result<(), String> {
    let words = split(line)?;
    let (mut table, mut rest) = (Table::Filter, &words[..]);
    if let [flag, name, tail @ ..] = rest
        && (flag == "-t" || flag == "--table")
    {
        let named = super::table::TABLES.into_iter().find(|table| table_name(*table) == name);
        table = named.ok_or_else(|| format!("can't initialize iptables table `{name}'"))?;
        rest = tail;
    }
    let (verb, rest) = rest.split_first().ok_or("no command specified")?;
    match (verb.as_str(), rest) {
        ("-A" | "--append", [chain, words @ ..]) => netfilter.append(table, chain, rule_of(words)?),
        ("-D" | "--delete", [chain, words @ ..]) => {
            netfilter.delete_rule(table, chain, &rule_of(words)?)
        }
        ("-I" | "--insert", [chain, words @ ..]) => {
            let number = words.first().and_then(|word| word.parse::<usize>().ok());
            let words = if number.is_some() { &words[1..] } else { words };
            let at = number.unwrap_or(1).checked_sub(1).ok_or("rules are numbered from 1")?;
            netfilter.insert(table, chain, at, rule_of(words)?)
        }
        ("-N" | "--new-chain", [chain]) => netfilter.new_chain(table, chain),
        ("-X" | "--delete-chain", [chain]) => netfilter.delete_chain(table, chain),
        ("-F" | "--flush", []) => netfilter.flush(table, None),
        ("-F" | "--flush", [chain]) => netfilter.flush(table, Some(chain)),
        ("-P" | "--policy", [chain, policy]) if table == Table::Filter => match policy.as_str() {
            "ACCEPT" => netfilter.set_policy(chain, false),
            "DROP" => netfilter.set_policy(chain, true),
            _ => Err("iptables: Bad policy name.".into()),
        },
        _ => Err(format!("not understood: {line}")),
    }
}
