//! What judges read of a ruleset.

use super::Netfilter;
use super::flat::FlatTable;
use super::ipvs::Ipvs;
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatSet, FlatValue};
use kubesim_actors::ports::rules::{Chain, FlatSettings, Rule, Target};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

impl Netfilter {
    /// Every element of the owners' flat tables.
    pub fn elements(&self) -> impl Iterator<Item = (FlatKey, FlatValue)> + '_ {
        self.state.iter().flat_map(|state| &state.flat).flat_map(FlatTable::elements)
    }

    /// A table as another kernel has it, to be looked at: no packet passes here.
    pub fn show_flat(&mut self, owner: &str, elements: Arc<[(FlatKey, FlatValue)]>) {
        let settings = FlatSettings { pods: Ipv4Net::default(), mark: 0 };
        self.state().apply_flat(owner.into(), settings, FlatSet::empty(0), elements);
    }

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
