//! What judges read of a ruleset.

use super::Netfilter;
use super::flat::FlatTable;
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::FlatSettings;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatSet, FlatValue};
use std::sync::Arc;

impl Netfilter {
    /// Every element of the owners' flat tables.
    pub fn elements(&self) -> impl Iterator<Item = (FlatKey, FlatValue)> + '_ {
        self.state.iter().flat_map(|state| &state.beside.flat).flat_map(FlatTable::elements)
    }

    /// A table as another kernel has it, to be looked at: no packet passes here.
    pub fn show_flat(&mut self, owner: &str, elements: Arc<[(FlatKey, FlatValue)]>) {
        let settings = FlatSettings { pods: Ipv4Net::default(), mark: 0 };
        self.state().apply_flat(owner.into(), settings, FlatSet::empty(0), elements);
    }
}
