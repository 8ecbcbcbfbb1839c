//! Rules that somebody tries one by one, most of which are refused: in a chain, a table or a
//! company in which they may not be.

use super::dice::Dice;
use super::place::Place;
use super::six;
use super::step::{CHAINS, Case, Step};
use super::words::built_in;
use kubesim_actors::ports::rules::{Address, Match, Protocol, Rule, Table, Target};
use smol_str::SmolStr;
use std::collections::BTreeSet;

const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

/// `None` where the two programs part: x_tables does not look behind a rule that ends a chain
/// whatever comes (mark_source_chains, net/ipv4/netfilter/ip_tables.c), nf_tables looks at all
/// (nft_chain_validate, net/netfilter/nf_tables_api.c). And of rules that are wrong twice, x_tables
/// tells first of the circle, nf_tables of what comes first on its way from the base chains, in the
/// order in which these were made.
pub fn attempt<F: Place>(dice: &mut Dice, before: &Case) -> Option<Step> {
    let table = dice.one(&TABLES);
    let there = before.iter().filter_map(told).filter(|told| told.table == table);
    let there: Vec<Told<'_>> = there.collect();
    if there.iter().any(|told| told.ends_all) {
        return None;
    }
    let chain = if dice.yes(2) { dice.one(&CHAINS) } else { dice.one(built_in(table)) };
    let mut matches = Vec::new();
    if dice.yes(8) {
        matches.push(Match::InInterface { name: "leg0".into(), not: dice.yes(4) });
    }
    if dice.yes(8) {
        matches.push(Match::OutInterface { name: "leg1".into(), not: dice.yes(4) });
    }
    if dice.yes(2) {
        let is = dice.one(&[Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
        matches.push(Match::Protocol { is, not: dice.yes(6) });
    }
    let target = target::<F>(dice);
    if ends(&target) {
        matches.insert(0, Match::Source { net: F::net(F::NETS[0]), not: false });
    }
    let step = F::attempt(table, SmolStr::new(chain), Rule { matches, target });
    let all: Vec<Told<'_>> = there.into_iter().chain(told(&step)).collect();
    let wrong_twice = all.iter().any(|told| told.bound) && has_circle(&all);
    (!wrong_twice).then_some(step)
}

/// What matters here of a rule that was written, or tried.
struct Told<'a> {
    table: Table,
    chain: &'a str,
    to: Option<&'a str>,
    /// It may be reached from some hooks only.
    bound: bool,
    ends_all: bool,
}

fn told(step: &Step) -> Option<Told<'_>> {
    match step {
        Step::Append(table, chain, rule) | Step::Try(table, chain, rule) => {
            Some(Told::new(*table, chain, rule))
        }
        Step::Six(six::Act::Append(table, chain, rule) | six::Act::Try(table, chain, rule)) => {
            Some(Told::new(*table, chain, rule))
        }
        _ => None,
    }
}

impl<'a> Told<'a> {
    fn new<A: Address>(table: Table, chain: &'a str, rule: &'a Rule<A>) -> Told<'a> {
        use Target::{Dnat, Goto, Jump, Masquerade, Snat};
        let to = match &rule.target {
            Jump(to) | Goto(to) => Some(to.as_str()),
            _ => None,
        };
        let bound = matches!(rule.target, Masquerade { .. } | Snat { .. } | Dnat { .. });
        Told { table, chain, to, bound, ends_all: ends_all(rule) }
    }
}

/// Whether a chain leads to itself.
fn has_circle(rules: &[Told<'_>]) -> bool {
    let next = |from: &str| {
        let of = rules.iter().filter(move |told| told.chain == from);
        of.filter_map(|told| told.to).collect::<Vec<_>>()
    };
    CHAINS.iter().any(|first| {
        let (mut seen, mut left) = (BTreeSet::new(), next(first));
        while let Some(chain) = left.pop() {
            if seen.insert(chain) {
                left.extend(next(chain));
            }
        }
        seen.contains(first)
    })
}

fn ends_all<A: Address>(rule: &Rule<A>) -> bool {
    rule.matches.is_empty() && ends(&rule.target)
}

fn ends<A: Address>(target: &Target<A>) -> bool {
    matches!(target, Target::Accept | Target::Drop | Target::Return)
}

fn target<F: Place>(dice: &mut Dice) -> Target<F::Addr> {
    match dice.below(10) {
        0 => Target::Drop,
        1 => Target::Masquerade { random_fully: false },
        2 => Target::Snat { to: F::ip(F::OUTSIDE[2]) },
        3 | 4 => Target::Dnat { to: F::ip(F::HOSTS[2].0), port: dice.yes(2).then_some(80) },
        5 if dice.yes(2) => Target::Reject(F::Addr::TCP_RESET),
        5 => Target::Reject(F::Addr::REJECTS[0].0),
        6 => Target::NoTrack,
        7 => Target::Goto(dice.one(&CHAINS).into()),
        _ => Target::Jump(dice.one(&CHAINS).into()),
    }
}

/// What came of a rule that was tried: the kernel's error where it was asked. Loops have two, one
/// of each program's.
pub fn outcome(done: Result<(), String>) -> String {
    const ERRORS: [(&str, &str); 5] = [
        ("Invalid argument", "EINVAL"),
        // What dmesg has to say of it (xt_check_target, net/netfilter/x_tables.c).
        ("only valid in", "EINVAL"),
        ("Too many levels of symbolic links", "a loop"),
        ("Too many links", "a loop"),
        ("No such file or directory", "ENOENT"),
    ];
    match done {
        Ok(()) => "taken".to_owned(),
        Err(said) => {
            let known = ERRORS.iter().find(|(words, _)| said.contains(words));
            let why = known.map_or("the program itself", |(_, name)| name);
            format!("refused: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_sim::kernel::family::V6;

    /// In cases 6681 and 19530 of seed 20261205 ip6tables-nft told of the DNAT (EINVAL) and the
    /// model of the circle.
    #[test]
    fn nobody_tries_what_is_wrong_twice() {
        let rule = |matches, target| Rule { matches, target };
        let dnat = Target::Dnat { to: V6::ip(V6::HOSTS[2].0), port: None };
        let before: Case = vec![
            V6::append(Table::Nat, "U0".into(), rule(Vec::new(), dnat)),
            V6::append(Table::Nat, "U0".into(), rule(Vec::new(), Target::Goto("U1".into()))),
        ];
        let tried = |before: &Case, closes: &str| {
            let all =
                (0..2000).filter_map(|n| attempt::<V6>(&mut Dice::new(1, "tried", n), before));
            all.filter(|step| told(step).is_some_and(|told| told.chain == closes)).count()
        };
        assert!(tried(&before, "INPUT") > 0);
        let closes =
            V6::append(Table::Nat, "U1".into(), rule(Vec::new(), Target::Jump("U0".into())));
        let before = [before, vec![closes]].concat();
        let nat = |step: Step| told(&step).is_some_and(|told| told.table == Table::Nat);
        let all = (0..2000).filter_map(|n| attempt::<V6>(&mut Dice::new(1, "tried", n), &before));
        assert_eq!(all.filter(|step| nat(step.clone())).count(), 0);
    }

    #[test]
    fn refusals_are_called_after_the_kernels_error() {
        let said = |text: &str| outcome(Err(text.to_owned()));
        assert_eq!(outcome(Ok(())), "taken");
        let dmesg = "iptables: Invalid argument. Run `dmesg' for more information.";
        assert_eq!(said(dmesg), "refused: EINVAL");
        assert_eq!(said("RULE_APPEND failed (Too many links)"), "refused: a loop");
        assert_eq!(said("Can't use -o with INPUT"), "refused: the program itself");
    }
}
