//! Which rules Linux and iptables take no notice of but a refusal: what a rule may say in its
//! chain, and from where it may be reached.

use super::compile::jump;
use super::family::{Filtered, said};
use super::table::{HOOKS, Ruleset, hook_name};
use kubesim_actors::ports::rules::{
    AddrType, Address, ChainKey, Match, Protocol, Rule, Table, Target,
};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The kernel's own answer to a rule that makes no sense (`xt_check_target`,
/// net/netfilter/x_tables.c), as iptables prints it.
const INVALID: &str = "Invalid argument. Run `dmesg' for more information.";

/// Chains that lead to themselves (`translate_table`, net/ipv4/netfilter/ip_tables.c).
const LOOP: &str = "Too many levels of symbolic links.";

/// What is wrong with a rule before the kernel sees it (do_command4, iptables/iptables.c), or by
/// itself.
pub(super) fn alone<F: Filtered>(
    table: Table,
    chain: &str,
    rule: &Rule<F::Addr>,
) -> Result<(), String> {
    let says = |is: fn(&Match<F::Addr>) -> bool| rule.matches.iter().any(is);
    let into = matches!(chain, "PREROUTING" | "INPUT");
    if into && says(|found| matches!(found, Match::OutInterface { .. })) {
        return Err(format!("Can't use -o with {chain}"));
    }
    let out_of = matches!(chain, "OUTPUT" | "POSTROUTING");
    if out_of && says(|found| matches!(found, Match::InInterface { .. })) {
        return Err(format!("Can't use -i with {chain}"));
    }
    // addrtype_mt_checkentry_v1, net/netfilter/xt_addrtype.c.
    let broadcast = |found: &Match<F::Addr>| {
        let (Match::SourceType { is, .. } | Match::DestinationType { is, .. }) = found else {
            return false;
        };
        *is == AddrType::Broadcast
    };
    if !F::Addr::BROADCASTS && says(broadcast) {
        return Err(said::<F>(INVALID));
    }
    match rule.target {
        Target::Drop if table == Table::Nat => Err("The \"nat\" table is not intended for \
             filtering, the use of DROP is therefore inhibited."
            .into()),
        // parse_to, extensions/libxt_NAT.c: ICMP's number is asked for in both families.
        Target::Dnat { port: Some(_), .. } if !says(has_ports) => {
            Err("Need TCP, UDP, SCTP or DCCP with port specification".into())
        }
        // reject_tg_check, net/ipv4/netfilter/ipt_REJECT.c.
        Target::Reject(with)
            if with == F::Addr::TCP_RESET
                && !says(|found| {
                    matches!(found, Match::Protocol { is: Protocol::Tcp, not: false })
                }) =>
        {
            Err(said::<F>(INVALID))
        }
        _ => Ok(()),
    }
}

fn has_ports<A: Address>(found: &Match<A>) -> bool {
    match found {
        Match::Protocol { is: Protocol::Icmp, .. } => A::PROGRAM == Ipv4Addr::PROGRAM,
        Match::Protocol { .. } => true,
        _ => false,
    }
}

/// The hooks from which a rule with such a target may be reached; `None`: from all.
fn hooks_of<A: Address>(target: &Target<A>) -> Option<&'static [&'static str]> {
    match target {
        // masquerade_tg_reg, net/netfilter/xt_MASQUERADE.c.
        Target::Masquerade { .. } => Some(&["POSTROUTING"]),
        // xt_nat_target_reg, net/netfilter/xt_nat.c.
        Target::Snat { .. } => Some(&["POSTROUTING", "INPUT"]),
        Target::Dnat { .. } => Some(&["PREROUTING", "OUTPUT"]),
        _ => None,
    }
}

impl<F: Filtered> Ruleset<F> {
    /// Whether a rule may be in a chain: it, and all that a jump of it leads to, may be reached
    /// from every hook from which its chain is (`mark_source_chains`,
    /// net/ipv4/netfilter/ip_tables.c).
    pub(super) fn reachable(
        &self,
        table: Table,
        chain: &str,
        rule: &Rule<F::Addr>,
    ) -> Result<(), String> {
        if self.would_loop(table, chain, rule) {
            return Err(said::<F>(LOOP));
        }
        let mut restricted: Vec<&[&str]> = hooks_of(&rule.target).into_iter().collect();
        let beyond = jump(table, rule).map(|to| self.all_from(to)).unwrap_or_default();
        let rules = beyond.iter().filter_map(|key| self.rules_of(key)).flatten();
        restricted.extend(rules.filter_map(|rule| hooks_of(&rule.target)));
        if restricted.is_empty() {
            return Ok(());
        }
        let here = ChainKey { table, name: chain.into() };
        let hooks = HOOKS.into_iter().map(hook_name).filter(|hook| {
            let base = ChainKey { table, name: (*hook).into() };
            self.all_from(base).contains(&here)
        });
        for hook in hooks {
            if !restricted.iter().all(|allowed| allowed.contains(&hook)) {
                return Err(said::<F>(INVALID));
            }
        }
        Ok(())
    }

    /// Whether a packet could walk in a circle, were the rule there. A circle that nobody comes to
    /// is none.
    fn would_loop(&self, table: Table, chain: &str, rule: &Rule<F::Addr>) -> bool {
        let here = ChainKey { table, name: chain.into() };
        let Some(to) = jump(table, rule) else { return false };
        let mut bases =
            HOOKS.into_iter().map(|hook| ChainKey { table, name: hook_name(hook).into() });
        bases.any(|base| self.all_from(base).contains(&here))
            && self.circles(&to, &mut vec![here], &mut BTreeSet::new())
    }

    /// Whether a way from a chain leads to one that it has passed, or that is in `path`.
    fn circles(
        &self,
        from: &ChainKey,
        path: &mut Vec<ChainKey>,
        done: &mut BTreeSet<ChainKey>,
    ) -> bool {
        if path.contains(from) {
            return true;
        }
        if !done.insert(from.clone()) {
            return false;
        }
        path.push(from.clone());
        let rules = self.rules_of(from).unwrap_or_default();
        let mut next = rules.iter().filter_map(|rule| jump(from.table, rule));
        let found = next.any(|to| self.circles(&to, path, done));
        path.pop();
        found
    }

    /// A chain and all that its jumps lead to.
    fn all_from(&self, first: ChainKey) -> BTreeSet<ChainKey> {
        let (mut found, mut left) = (BTreeSet::new(), vec![first]);
        while let Some(key) = left.pop() {
            if found.contains(&key) {
                continue;
            }
            let rules = self.rules_of(&key).unwrap_or_default();
            left.extend(rules.iter().filter_map(|rule| jump(key.table, rule)));
            found.insert(key);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::netfilter::Netfilter;

    /// What this machine's iptables refuses, and its words begin with.
    #[test]
    fn what_iptables_refuses_is_refused() {
        let refused = [
            ("-t nat -A PREROUTING -j MASQUERADE", "iptables: Invalid argument"),
            ("-t nat -A OUTPUT -j SNAT --to-source 10.0.0.1", "iptables: Invalid argument"),
            (
                "-t nat -A INPUT -p tcp -j DNAT --to-destination 10.0.0.1:80",
                "iptables: Invalid argument",
            ),
            ("-A INPUT -p udp -j REJECT --reject-with tcp-reset", "iptables: Invalid argument"),
            ("-A INPUT ! -p tcp -j REJECT --reject-with tcp-reset", "iptables: Invalid argument"),
            (
                "-t nat -A PREROUTING -j DNAT --to-destination 10.0.0.1:80",
                "Need TCP, UDP, SCTP or DCCP",
            ),
            ("-t nat -A POSTROUTING -j DROP", "The \"nat\" table is not intended for filtering"),
            ("-t nat -A POSTROUTING -i eth0 -j ACCEPT", "Can't use -i with POSTROUTING"),
            ("-A INPUT -o eth0 -j ACCEPT", "Can't use -o with INPUT"),
            ("-I FORWARD 99 -j ACCEPT", "iptables: Index of insertion too big."),
            ("-D FORWARD 1", "iptables: Index of deletion too big."),
        ];
        for (command, words) in refused {
            let said = Netfilter::default().command(command).expect_err(command);
            assert!(said.starts_with(words), "{command}: {said}");
        }
    }

    #[test]
    fn what_it_takes_is_taken() {
        let mut netfilter = Netfilter::default();
        let taken = [
            "-t nat -A POSTROUTING -j MASQUERADE",
            "-t nat -A INPUT -j SNAT --to-source 10.0.0.1",
            "-t nat -A OUTPUT -p tcp -j DNAT --to-destination 10.0.0.1:80",
            "-A INPUT -p tcp -j REJECT --reject-with tcp-reset",
            "-A FORWARD -i eth0 -o eth1 -j ACCEPT",
            "-I FORWARD 2 -j DROP",
            "-D FORWARD 1",
            "-N A",
            "-N B",
            "-X",
        ];
        for command in taken {
            assert_eq!(netfilter.command(command), Ok(()), "{command}");
        }
        let saved = netfilter.save(None);
        assert!(saved.contains("-A FORWARD -j DROP\n") && !saved.contains(":A "), "{saved}");
        assert!(!saved.contains("-i eth0"), "{saved}");
    }

    /// A chain is reached from wherever a jump to it is.
    #[test]
    fn a_jump_may_not_lead_where_a_target_may_not_be() {
        let mut netfilter = Netfilter::default();
        let taken = [
            "-t nat -N TO",
            "-t nat -N WEB",
            "-t nat -A TO -p tcp -j DNAT --to-destination 10.0.0.1:80",
            "-t nat -A WEB -j TO",
            "-t nat -A PREROUTING -j WEB",
        ];
        for command in taken {
            assert_eq!(netfilter.command(command), Ok(()), "{command}");
        }
        for command in ["-t nat -A POSTROUTING -j WEB", "-t nat -A TO -j MASQUERADE"] {
            let said = netfilter.command(command).expect_err(command);
            assert!(said.starts_with("iptables: Invalid argument"), "{command}: {said}");
        }
        // Nor in a circle, once somebody comes there.
        for command in ["-N A", "-N B", "-A A -j B", "-A B -g A"] {
            assert_eq!(netfilter.command(command), Ok(()), "{command}");
        }
        let said = netfilter.command("-A FORWARD -j A").expect_err("a circle");
        assert!(said.starts_with("iptables: Too many levels"), "{said}");
        // Nobody comes here yet.
        assert_eq!(netfilter.command("-t nat -N FREE"), Ok(()));
        assert_eq!(netfilter.command("-t nat -A FREE -j MASQUERADE"), Ok(()));
    }
}
