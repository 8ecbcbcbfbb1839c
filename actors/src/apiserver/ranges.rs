//! Addresses and node ports of Services, where several servers give them out of one range.
//!
//! Each knows who holds what ([`Allocations`](super::services_ip::Allocations)), as far as it was
//! told. So a write that takes something is one transaction with a write of the range's lease, and
//! compares that: if another server took something meanwhile, the store knows better, and the write
//! is applied anew when that was told. Upstream has compared whole bitmaps so for long
//! (pkg/registry/core/service/allocator/storage, which is still how node ports are given); since
//! 1.33 each address is an object IPAddress, and what cannot be made twice is that.

use super::Config;
use super::apply::Outcome;
use super::cache::Cache;
use super::namespaces::SYSTEM;
use super::quota::Charge;
use crate::objects::{Body, Key, Kind, LeaseSpec, Object, ServiceSpec, micro_time};
use crate::ports::store::StoreKey;
use kubesim_runtime::Wall;
use std::collections::BTreeSet;
use std::sync::Arc;

/// In [`SYSTEM`]; each allocation is a transition of it, of which nobody is the holder.
const LEASE: &str = "kubesim-service-ranges";

/// What must be written with this write, if it takes something that is shared.
pub(super) fn charge(
    cache: &Cache,
    config: &Config,
    (kind, key): &StoreKey,
    outcome: &Outcome,
    now: Wall,
) -> Option<Charge> {
    let Outcome::Put { object, .. } = outcome else { return None };
    if !config.shared || *kind != Kind::Service {
        return None;
    }
    let held = cache.object(*kind, key).and_then(|old| old.service());
    let held = held.map(|(spec, _)| numbers(spec)).unwrap_or_default();
    let (spec, _) = object.service()?;
    if numbers(spec).is_subset(&held) {
        return None;
    }
    let lease = Key::new(SYSTEM, LEASE);
    let old = cache.object(Kind::Lease, &lease);
    let count = old.and_then(|old| old.lease()).and_then(|spec| spec.lease_transitions);
    let spec = LeaseSpec {
        lease_transitions: Some(count.map_or(0, |count| count.wrapping_add(1))),
        renew_time: Some(micro_time(now)),
        ..LeaseSpec::default()
    };
    let body = Body::Lease { spec: Arc::new(spec) };
    let new = match old {
        Some(old) => Object { body, ..(**old).clone() },
        None => Object::new(lease.clone(), body),
    };
    let expected = old.map_or(0, |old| old.version);
    Some(Charge { key: (Kind::Lease, lease), expected, object: Arc::new(new) })
}

/// Addresses and node ports, which are told apart by their texts.
fn numbers(spec: &ServiceSpec) -> BTreeSet<String> {
    let address = spec.cluster_ip.iter().filter(|ip| !["", "None"].contains(&ip.as_str())).cloned();
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    address.chain(ports.filter(|port| *port != 0).map(|port| port.to_string())).collect()
}
