//! What judges read of a ruleset.

use super::Netfilter;
use super::flat::FlatTable;
use super::ipvs::Ipvs;
use kubesim_actors::ports::rules::{Chain, Rule, Target};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl Netfilter {
    /// Every address and port that a DNAT rule leads to, or a flat element or a virtual service.
    pub fn dnat_targets(&self) -> BTreeSet<(Ipv4Addr, u16)> {
        let owners = self.state.iter().flat_map(|state| &state.rules.owners);
        let rules = owners
            .flat_map(|owner| owner.chains())
            .flat_map(|(_, chain): (_, &std::sync::Arc<Chain>)| &chain.rules);
        let own = self.state.iter().flat_map(|state| state.rules.own_rules());
        let rules = rules.chain(own.map(|(_, rule)| rule));
        let target = |rule: &Rule| match rule.target {
            Target::Dnat { to, port: Some(port) } => Some((to, port)),
            _ => None,
        };
        let flat = self.state.iter().flat_map(|state| &state.flat);
        let ipvs = self.state.iter().filter_map(|state| state.ipvs.as_deref());
        let rules = rules.filter_map(target).chain(flat.flat_map(FlatTable::endpoints));
        rules.chain(ipvs.flat_map(Ipvs::endpoints)).collect()
    }
}
