//! What differs on a node that has endpoints.

use super::{Lists, front, treated_fronts};
use crate::ports::rules::flat::{FlatKey, FlatValue};
use crate::proxy::compile::Compiled;
use crate::proxy::local::has_endpoint;
use crate::proxy::piece::LocalPort;
use crate::proxy::service::usable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Elements of one node, which stand in for shared ones of the same key.
pub type FlatOverlay = Arc<[(FlatKey, FlatValue)]>;

/// The node's own elements, in the order of their keys. O(Services with a policy of Local, and
/// endpoints of the node).
pub fn flat_overlay(compiled: &Compiled, node: &str) -> FlatOverlay {
    let mut own: BTreeMap<FlatKey, FlatValue> = BTreeMap::new();
    let here = compiled.flat.on_node(node).map(|ip| (FlatKey::Hairpin(ip), FlatValue::Present));
    own.extend(here);
    let pieces = compiled.local.iter().filter_map(|key| Some((key, compiled.pieces.get(key)?)));
    let ports = pieces.flat_map(|(key, piece)| piece.local.iter().map(move |port| (key, port)));
    for (service, local) in ports.filter(|(_, port)| has_endpoint(port, node)) {
        let LocalPort { port, endpoints } = local;
        let here = usable(endpoints.iter().filter(|one| one.node == node));
        let everywhere = usable(endpoints.iter());
        let lists = Lists { everywhere: &everywhere, here: &here };
        // A front that another Service has got stays its.
        let ours = treated_fronts(port).filter(|(at, ..)| compiled.flat.is_of(at, service));
        let mut elements = Vec::new();
        for (at, policy, guarded) in ours {
            front(port, at, policy, guarded, lists, &mut elements);
        }
        own.extend(elements.into_iter().filter(|(key, v)| compiled.flat.set.get(key) != Some(v)));
    }
    own.into_iter().collect()
}
