//! Which endpoint lies in which slice, with as few slices written as can be: pure.
//!
//! As upstream's `reconcileByPortMapping`: first what is gone or changed within each slice; then
//! newcomers fill the slices that are written anyway; then the fullest untouched slice that has
//! room for all the rest; then new slices. No endpoint moves from one slice to another.

use super::Ports;
use crate::objects::Uid;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use std::collections::BTreeMap;

/// `--max-endpoints-per-slice`.
pub const MAX: usize = 100;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shelf {
    pub ports: Ports,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Keep,
    Write(Shelf),
    Delete,
}

/// One fate for each slice there is, and the slices to be made.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    pub kept: Vec<Fate>,
    pub new: Vec<Shelf>,
}

/// A slice as it stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing<'a> {
    pub ports: &'a [EndpointPort],
    pub endpoints: &'a [Endpoint],
}

/// Something that an endpoint may be written for.
pub trait Target {
    /// Whether the endpoint is the one that [`Target::endpoint`] writes. That both are about the
    /// same pod is known.
    fn is(&self, endpoint: &Endpoint) -> bool;
    fn endpoint(&self) -> Endpoint;
}

/// `wanted`: by ports, the endpoints by the uid of their pod.
pub fn pack<T: Target>(present: &[Standing<'_>], wanted: Vec<(Ports, BTreeMap<Uid, T>)>) -> Packed {
    let mut kept = vec![Fate::Delete; present.len()];
    let mut new = Vec::new();
    for (ports, mut missing) in wanted {
        let empty_wanted = missing.is_empty();
        let same_ports = |at: &usize| empty_wanted || present[*at].ports == ports;
        let group: Vec<usize> = (0..present.len()).filter(same_ports).collect();
        for &at in &group {
            kept[at] = prune(&present[at], &mut missing);
        }
        let mut missing: Vec<Endpoint> = missing.values().map(Target::endpoint).collect();
        missing.reverse();
        for &at in &group {
            if let Fate::Write(shelf) = &mut kept[at] {
                fill(shelf, &mut missing);
            }
        }
        if !missing.is_empty() {
            let room = |at: &&usize| {
                kept[**at] == Fate::Keep && present[**at].endpoints.len() + missing.len() <= MAX
            };
            let fullest = group.iter().filter(room).max_by_key(|at| present[**at].endpoints.len());
            if let Some(&at) = fullest {
                let mut shelf = present[at].shelf();
                fill(&mut shelf, &mut missing);
                kept[at] = Fate::Write(shelf);
            }
        }
        while !missing.is_empty() {
            let mut shelf = Shelf { ports: ports.clone(), endpoints: Vec::new() };
            fill(&mut shelf, &mut missing);
            new.push(shelf);
        }
        drop_empty(&group, present, &mut kept);
        if empty_wanted && group.is_empty() {
            new.push(Shelf { ports, endpoints: Vec::new() });
        }
    }
    Packed { kept, new }
}

impl Standing<'_> {
    fn shelf(&self) -> Shelf {
        Shelf { ports: self.ports.to_vec(), endpoints: self.endpoints.to_vec() }
    }
}

/// Takes out of the slice what is not wanted and renews what changed; what it holds is no more
/// missing. A second copy of an endpoint (of a slice that a former incarnation made) goes.
fn prune<T: Target>(standing: &Standing<'_>, missing: &mut BTreeMap<Uid, T>) -> Fate {
    let mut take = |endpoint: &Endpoint| {
        let uid = endpoint.target_ref.as_ref()?.uid.as_deref()?;
        missing.remove(&Uid::parse(uid)?)
    };
    let targets: Vec<Option<T>> = standing.endpoints.iter().map(&mut take).collect();
    let pairs = || standing.endpoints.iter().zip(&targets);
    if pairs().all(|(endpoint, target)| target.as_ref().is_some_and(|t| t.is(endpoint))) {
        return Fate::Keep;
    }
    let renewed = |(endpoint, target): (&Endpoint, &Option<T>)| {
        let target = target.as_ref()?;
        Some(if target.is(endpoint) { endpoint.clone() } else { target.endpoint() })
    };
    let endpoints = pairs().filter_map(renewed).collect();
    Fate::Write(Shelf { ports: standing.ports.to_vec(), endpoints })
}

/// Moves endpoints from the end of `missing` while there is room.
fn fill(shelf: &mut Shelf, missing: &mut Vec<Endpoint>) {
    let room = MAX.saturating_sub(shelf.endpoints.len());
    let from = missing.len() - room.min(missing.len());
    shelf.endpoints.extend(missing.drain(from..).rev());
}

/// Of slices without endpoints one stays at most, and none beside others that have some.
fn drop_empty(group: &[usize], present: &[Standing<'_>], kept: &mut [Fate]) {
    let is_empty = |at: usize, kept: &[Fate]| match &kept[at] {
        Fate::Keep => present[at].endpoints.is_empty(),
        Fate::Write(shelf) => shelf.endpoints.is_empty(),
        Fate::Delete => false,
    };
    let mut spare = group.iter().any(|&at| kept[at] != Fate::Delete && !is_empty(at, kept));
    for &at in group {
        if is_empty(at, kept) {
            if spare {
                kept[at] = Fate::Delete;
            }
            spare = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn endpoint(pod: u32, ready: bool) -> Endpoint {
        let mut endpoint =
            Endpoint { addresses: vec![format!("10.0.0.{pod}")], ..Default::default() };
        endpoint.conditions.get_or_insert_default().ready = Some(ready);
        let uid = Some(uid(pod).to_string());
        endpoint.target_ref = Some(ObjectReference { uid, ..Default::default() });
        endpoint
    }

    fn uid(pod: u32) -> Uid {
        Uid(u128::from(pod) + 1)
    }

    impl Target for Endpoint {
        fn is(&self, endpoint: &Endpoint) -> bool {
            self == endpoint
        }
        fn endpoint(&self) -> Endpoint {
            self.clone()
        }
    }

    fn packed(present: &[Shelf], wanted: Vec<(Ports, BTreeMap<Uid, Endpoint>)>) -> Packed {
        let standing =
            |s: &Shelf| -> (Ports, Vec<Endpoint>) { (s.ports.clone(), s.endpoints.clone()) };
        let held: Vec<_> = present.iter().map(standing).collect();
        let standing: Vec<_> =
            held.iter().map(|(ports, endpoints)| Standing { ports, endpoints }).collect();
        pack(&standing, wanted)
    }

    fn apply(present: &[Shelf], packed: Packed) -> Vec<Shelf> {
        let mut next: Vec<Shelf> = Vec::new();
        for (shelf, fate) in present.iter().zip(packed.kept) {
            match fate {
                Fate::Keep => next.push(shelf.clone()),
                Fate::Write(shelf) => next.push(shelf),
                Fate::Delete => {}
            }
        }
        next.extend(packed.new);
        next
    }

    fn wanted(pods: &BTreeMap<u32, bool>) -> Vec<(Ports, BTreeMap<Uid, Endpoint>)> {
        let endpoints = pods.iter().map(|(pod, ready)| (uid(*pod), endpoint(*pod, *ready)));
        vec![(Vec::new(), endpoints.collect())]
    }

    #[test]
    fn one_change_writes_one_slice() {
        let pods: BTreeMap<u32, bool> = (0..250).map(|pod| (pod, true)).collect();
        let mut slices = apply(&[], packed(&[], wanted(&pods)));
        assert_eq!(slices.len(), 3);
        let mut changed = pods.clone();
        changed.insert(7, false);
        let one = packed(&slices, wanted(&changed));
        let written = one.kept.iter().filter(|fate| **fate != Fate::Keep).count();
        assert_eq!((written, one.new.len()), (1, 0));
        slices = apply(&slices, one);
        assert!(packed(&slices, wanted(&changed)).kept.iter().all(|fate| *fate == Fate::Keep));
    }

    #[test]
    fn without_endpoints_one_empty_slice_remains() {
        let slices = apply(&[], packed(&[], wanted(&(0..5).map(|pod| (pod, true)).collect())));
        let slices = apply(&slices, packed(&slices, wanted(&BTreeMap::new())));
        assert_eq!(slices, [Shelf::default()]);
        assert_eq!(apply(&[], packed(&[], wanted(&BTreeMap::new()))), [Shelf::default()]);
    }

    proptest! {
        #[test]
        fn after_any_history_the_slices_hold_exactly_what_is_wanted(
            steps in prop::collection::vec(
                prop::collection::btree_map(0u32..260, any::<bool>(), 0..230), 1..5),
        ) {
            let mut slices = Vec::new();
            for pods in &steps {
                slices = apply(&slices, packed(&slices, wanted(pods)));
                prop_assert!(slices.iter().all(|shelf: &Shelf| shelf.endpoints.len() <= MAX));
                let all: Vec<_> = slices.iter().flat_map(|shelf| &shelf.endpoints).collect();
                let distinct: BTreeSet<_> = all.iter().map(|e| e.addresses[0].clone()).collect();
                prop_assert_eq!(distinct.len(), all.len());
                prop_assert_eq!(all.len(), pods.len());
                for (pod, ready) in pods {
                    prop_assert!(all.contains(&&endpoint(*pod, *ready)));
                }
            }
        }
    }
}
