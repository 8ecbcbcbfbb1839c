//! Commands in iptables' own words.

use super::family::{Filtered, said};
use super::{Filter, valid};
use kubesim_actors::ports::rules::parse::{rule_of, split};
use kubesim_actors::ports::rules::text::table_name;
use kubesim_actors::ports::rules::{Address, Rule, Table, Target};

/// Targets of iptables-extensions(8) that no rule here has.
const LACKING: &[&str] = &[
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNMARK",
    "CONNSECMARK",
    "DSCP",
    "ECN",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "NETMAP",
    "NFLOG",
    "NFQUEUE",
    "QUEUE",
    "RATEEST",
    "REDIRECT",
    "SECMARK",
    "SET",
    "SYNPROXY",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TPROXY",
    "TRACE",
    "TTL",
    "ULOG",
];

/// A rule in iptables' words. What Linux may have and this model has not is said to be so.
fn rule<A: Address>(words: &[String]) -> Result<Rule<A>, String> {
    let program = A::PROGRAM;
    let rule = rule_of(words);
    let rule = rule
        .map_err(|why| format!("the simulator's model of {program} reads no such rule: {why}"))?;
    match &rule.target {
        Target::Jump(name) if LACKING.contains(&name.as_str()) => {
            Err(format!("the simulator's model of {program} has no target {name}"))
        }
        _ => Ok(rule),
    }
}

/// `[-t table] -A|-I|-D|-N|-X|-F|-P …`
pub(super) fn command<F: Filtered>(netfilter: &mut Filter<F>, line: &str) -> Result<(), String> {
    carry_out(netfilter, line, true)
}

/// The same of what a kernel has taken already, so that it makes sense.
pub(super) fn taken<F: Filtered>(netfilter: &mut Filter<F>, line: &str) -> Result<(), String> {
    carry_out(netfilter, line, false)
}

fn carry_out<F: Filtered>(
    netfilter: &mut Filter<F>,
    line: &str,
    check: bool,
) -> Result<(), String> {
    let put = |netfilter: &mut Filter<F>, table, chain: &String, at, rule: Rule<F::Addr>| {
        if check {
            valid::alone::<F>(table, chain, &rule)?;
        }
        netfilter.edit(|rules| {
            if check {
                rules.reachable(table, chain, &rule)?;
            }
            rules.put(table, chain, at, rule)
        })
    };
    let words = split(line)?;
    let (mut table, mut rest) = (Table::Filter, &words[..]);
    if let [flag, name, tail @ ..] = rest
        && (flag == "-t" || flag == "--table")
    {
        let named = super::table::TABLES.into_iter().find(|table| table_name(*table) == name);
        table =
            named.ok_or_else(|| format!("can't initialize {} table `{name}'", F::Addr::PROGRAM))?;
        rest = tail;
    }
    let (verb, rest) = rest.split_first().ok_or("no command specified")?;
    match (verb.as_str(), rest) {
        ("-A" | "--append", [chain, words @ ..]) => {
            put(netfilter, table, chain, usize::MAX, rule(words)?)
        }
        ("-D" | "--delete", [chain, number]) if number.parse::<usize>().is_ok() => {
            let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let at = at.ok_or("rules are numbered from 1")?;
            netfilter.edit(|rules| rules.delete_at(table, chain, at))
        }
        ("-D" | "--delete", [chain, words @ ..]) => {
            netfilter.delete_rule(table, chain, &rule(words)?)
        }
        ("-I" | "--insert", [chain, words @ ..]) => {
            let number = words.first().and_then(|word| word.parse::<usize>().ok());
            let words = if number.is_some() { &words[1..] } else { words };
            let at = number.unwrap_or(1).checked_sub(1).ok_or("rules are numbered from 1")?;
            put(netfilter, table, chain, at, rule(words)?)
        }
        ("-N" | "--new-chain", [chain]) => netfilter.new_chain(table, chain),
        ("-X" | "--delete-chain", []) => netfilter.edit(|rules| rules.delete_chains(table)),
        ("-X" | "--delete-chain", [chain]) => netfilter.delete_chain(table, chain),
        ("-F" | "--flush", []) => netfilter.flush(table, None),
        ("-F" | "--flush", [chain]) => netfilter.flush(table, Some(chain)),
        ("-P" | "--policy", [chain, policy]) if table == Table::Filter => match policy.as_str() {
            "ACCEPT" => netfilter.set_policy(chain, false),
            "DROP" => netfilter.set_policy(chain, true),
            _ => Err(said::<F>("Bad policy name.")),
        },
        _ => Err(format!(
            "the simulator's model of {} has -A, -D, -I, -N, -X, -F and -P of the filter table, \
             and does not understand: {line}",
            F::Addr::PROGRAM
        )),
    }
}
