//! What judges read of a ruleset.

use super::Netfilter;
use kubesim_actors::ports::rules::{Chain, Rule, Target};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl Netfilter {
    /// Every address and port that a DNAT rule of an applied set leads to.
    pub fn dnat_targets(&self) -> BTreeSet<(Ipv4Addr, u16)> {
        let owners = self.state.iter().flat_map(|state| &state.rules.owners);
        let rules = owners
            .flat_map(|owner| owner.chains())
            .flat_map(|(_, chain): (_, &std::sync::Arc<Chain>)| &chain.rules);
        let target = |rule: &Rule| match rule.target {
            Target::Dnat { to, port: Some(port) } => Some((to, port)),
            _ => None,
        };
        rules.filter_map(target).collect()
    }
}
