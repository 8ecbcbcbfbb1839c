//! What does not depend on any Service: the jumps from the built-in chains and the fixed chains
//! (`iptablesJumpChains` and `syncProxyRules` of upstream).

use super::names::{
    EXTERNAL_SERVICES, FIREWALL, FORWARD, MARK_MASQ, MASQUERADE_MARK, NODE_PORTS, POSTROUTING,
    PROXY_FIREWALL, SERVICES,
};
use crate::ports::rules::{
    AddrType, BaseRule, Chain, ChainKey, CtStates, Match, Place, Rule, Table, Target,
};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The jumps, per built-in chain from first to last.
pub fn base_rules() -> Arc<[BaseRule]> {
    use Table::{Filter, Nat};
    let load_balancer = "kubernetes load balancer firewall";
    let external = "kubernetes externally-visible service portals";
    let portals = "kubernetes service portals";
    Arc::new([
        jump(Filter, "INPUT", true, load_balancer, PROXY_FIREWALL),
        jump(Filter, "INPUT", false, "kubernetes health check service ports", NODE_PORTS),
        jump(Filter, "INPUT", true, external, EXTERNAL_SERVICES),
        jump(Filter, "INPUT", false, "", FIREWALL),
        jump(Filter, "FORWARD", true, load_balancer, PROXY_FIREWALL),
        jump(Filter, "FORWARD", false, "kubernetes forwarding rules", FORWARD),
        jump(Filter, "FORWARD", true, portals, SERVICES),
        jump(Filter, "FORWARD", true, external, EXTERNAL_SERVICES),
        jump(Filter, "OUTPUT", true, load_balancer, PROXY_FIREWALL),
        jump(Filter, "OUTPUT", true, portals, SERVICES),
        jump(Filter, "OUTPUT", false, "", FIREWALL),
        jump(Nat, "PREROUTING", false, portals, SERVICES),
        jump(Nat, "OUTPUT", false, portals, SERVICES),
        jump(Nat, "POSTROUTING", false, "kubernetes postrouting rules", POSTROUTING),
    ])
}

fn jump(table: Table, chain: &'static str, new: bool, comment: &str, to: &str) -> BaseRule {
    let mut matches = Vec::new();
    if new {
        let any = CtStates { new: true, ..CtStates::default() };
        matches.push(Match::CtState { any, not: false });
    }
    if !comment.is_empty() {
        matches.push(Match::Comment(comment.into()));
    }
    let rule = Rule { matches, target: Target::Jump(to.into()) };
    BaseRule { table, chain: chain.into(), place: Place::First, rule }
}

/// Chains that are the same in every cluster.
pub fn fixed_chains() -> Vec<(ChainKey, Chain)> {
    let chain = |table, name: &str, rules| (ChainKey { table, name: name.into() }, Chain { rules });
    vec![
        chain(Table::Nat, MARK_MASQ, vec![mark(MASQUERADE_MARK, MASQUERADE_MARK)]),
        chain(Table::Nat, POSTROUTING, postrouting()),
        chain(Table::Filter, FORWARD, forward()),
        chain(Table::Filter, FIREWALL, firewall()),
    ]
}

/// The rule that has to come after those of all Services.
pub fn last_rule(table: Table, chain: &str) -> Option<Rule> {
    if (table, chain) != (Table::Nat, SERVICES) {
        return None;
    }
    let text = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
    let local = Match::DestinationType { is: AddrType::Local, not: false };
    let matches = vec![Match::Comment(text.into()), local];
    Some(Rule { matches, target: Target::Jump(NODE_PORTS.into()) })
}

fn mark(value: u32, mask: u32) -> Rule {
    Rule { matches: Vec::new(), target: Target::Mark { value, mask } }
}

fn marked(not: bool) -> Match {
    Match::Mark { value: MASQUERADE_MARK, mask: MASQUERADE_MARK, not }
}

/// The mark is taken off again, so that a packet that passes the stack twice is masqueraded once.
fn postrouting() -> Vec<Rule> {
    let comment = "kubernetes service traffic requiring SNAT";
    vec![
        Rule { matches: vec![marked(true)], target: Target::Return },
        mark(MASQUERADE_MARK, 0),
        Rule {
            matches: vec![Match::Comment(comment.into())],
            target: Target::Masquerade { random_fully: true },
        },
    ]
}

fn forward() -> Vec<Rule> {
    let state = |any| Match::CtState { any, not: false };
    let invalid = CtStates { invalid: true, ..CtStates::default() };
    let known = CtStates { related: true, established: true, ..CtStates::default() };
    vec![
        // An out-of-window segment that is not translated back would reset the connection
        // (kubernetes/kubernetes#74839).
        Rule { matches: vec![state(invalid)], target: Target::Drop },
        Rule {
            matches: vec![Match::Comment("kubernetes forwarding rules".into()), marked(false)],
            target: Target::Accept,
        },
        Rule {
            matches: vec![
                Match::Comment("kubernetes forwarding conntrack rule".into()),
                state(known),
            ],
            target: Target::Accept,
        },
    ]
}

/// Nothing from outside reaches the loopback network, which `route_localnet` would allow
/// (CVE-2020-8558). Upstream's one rule says `! --ctstate RELATED,ESTABLISHED,DNAT`; here DNAT
/// is a rule of its own before it, which accepts and drops the same packets.
fn firewall() -> Vec<Rule> {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let known = CtStates { related: true, established: true, ..CtStates::default() };
    let outside = |state: Match, target: Target| Rule {
        matches: vec![
            Match::Source { net: loopback, not: true },
            Match::Destination { net: loopback, not: false },
            Match::Comment("block incoming localnet connections".into()),
            state,
        ],
        target,
    };
    vec![
        outside(Match::CtDnat, Target::Return),
        outside(Match::CtState { any: known, not: true }, Target::Drop),
    ]
}
