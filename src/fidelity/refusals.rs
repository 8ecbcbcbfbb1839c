//! Rules that somebody tries one by one, most of which are refused: in a chain, a table or a
//! company in which they may not be.

use super::dice::Dice;
use super::place::Place;
use super::six;
use super::step::{CHAINS, Case, Step};
use super::words::built_in;
use kubesim_actors::ports::rules::{Address, Match, Protocol, Rule, Table, Target};
use smol_str::SmolStr;

const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

/// `None` where the two programs part: x_tables does not look behind a rule that ends a chain
/// whatever comes (mark_source_chains, net/ipv4/netfilter/ip_tables.c), nf_tables looks at all
/// (nft_chain_validate, net/netfilter/nf_tables_api.c).
pub fn attempt<F: Place>(dice: &mut Dice, before: &Case) -> Option<Step> {
    let table = dice.one(&TABLES);
    let ends_all = |step: &Step| match step {
        Step::Append(of, _, rule) => *of == table && ends_all(rule),
        Step::Six(six::Act::Append(of, _, rule)) => *of == table && ends_all(rule),
        _ => false,
    };
    if before.iter().any(ends_all) {
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
    Some(F::attempt(table, SmolStr::new(chain), Rule { matches, target }))
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
