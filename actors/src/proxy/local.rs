//! What differs on a node that has endpoints of Services with a traffic policy of Local.

use super::compile::Compiled;
use super::piece::{
    COMMON, FILTER_EXTERNAL, FILTER_SERVICES, LocalPort, balance, endpoint_chain, external_rules,
    masquerade_outsiders, nat, no_local_endpoints,
};
use super::service::usable;
use crate::ports::rules::{Chain, ChainKey, Rule};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Chains of one node, which stand in for the shared ones of the same name.
pub type Overlay = Arc<[(ChainKey, Arc<Chain>)]>;

/// The node's own chains: none on most nodes. O(Services with such a policy).
pub fn overlay(compiled: &Compiled, node: &str) -> Overlay {
    let mut chains: BTreeMap<ChainKey, Arc<Chain>> = BTreeMap::new();
    let mut lifted: Vec<(usize, Rule)> = Vec::new();
    let pieces = compiled.local.iter().filter_map(|key| compiled.pieces.get(key));
    for local in pieces.flat_map(|piece| &piece.local) {
        if has_endpoint(local, node) {
            port(compiled, local, node, &mut chains);
            lifted.extend(no_local_endpoints(&local.port));
        }
    }
    for index in [FILTER_SERVICES, FILTER_EXTERNAL] {
        lift(compiled, index, &lifted, &mut chains);
    }
    chains.into_iter().collect()
}

pub fn has_endpoint(local: &LocalPort, node: &str) -> bool {
    local
        .endpoints
        .iter()
        .any(|one| one.node == node && (one.ready || one.terminating && one.serving))
}

fn port(
    compiled: &Compiled,
    local: &LocalPort,
    node: &str,
    chains: &mut BTreeMap<ChainKey, Arc<Chain>>,
) {
    let LocalPort { port, endpoints } = local;
    let here = usable(endpoints.iter().filter(|one| one.node == node));
    let mut rules = Vec::new();
    if port.internal_local {
        rules.push(masquerade_outsiders(port, compiled.shape.cluster_cidr));
    }
    rules.extend(balance(port, &here));
    chains.insert(nat(&port.names.local), Arc::new(Chain { rules }));
    if port.external_local && port.externally_accessible() {
        let rules = external_rules(port, compiled.shape.cluster_cidr, true);
        chains.insert(nat(&port.names.external), Arc::new(Chain { rules }));
    }
    // An endpoint that only this node uses (terminating, or the policy inside is Local too).
    for endpoint in here {
        let (name, chain) = endpoint_chain(port, endpoint);
        let key = nat(&name);
        if compiled.chains.get(&key).is_none() {
            chains.insert(key, chain);
        }
    }
}

/// Takes the rules that drop traffic for want of an endpoint here out of a common chain.
fn lift(
    compiled: &Compiled,
    index: usize,
    lifted: &[(usize, Rule)],
    chains: &mut BTreeMap<ChainKey, Arc<Chain>>,
) {
    let (table, name) = COMMON[index];
    let key = ChainKey { table, name: name.into() };
    let gone: Vec<_> = lifted.iter().filter(|(i, _)| *i == index).map(|(_, rule)| rule).collect();
    let Some(shared) = compiled.chains.get(&key).filter(|_| !gone.is_empty()) else {
        return;
    };
    let stays = shared.rules.iter().filter(|rule| !gone.contains(rule));
    let rules = stays.cloned().collect();
    chains.insert(key, Arc::new(Chain { rules }));
}
