//! All rules of a cluster at one version of its Services and one of its EndpointSlices: pure, so
//! that every proxy that sees these versions shares one result; incremental, so that one changed
//! endpoint costs what its Service does.

use super::base;
use super::by_service::ByService;
use super::ipvs::{self, Virtuals};
use super::nft::Flat;
use super::piece::{Backend, COMMON, Piece, nat};
use crate::objects::{Key, Object, View};
use crate::ports::rules::{BaseRule, Chain, ChainKey, ChainSet, Rule};
use imbl::{OrdMap, OrdSet};
use ipnet::Ipv4Net;
use kubesim_runtime::Hasher;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

/// Whether rules are chains or flat elements, or endpoints are IPVS' to choose (`--proxy-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    #[default]
    Iptables,
    Nftables,
    Ipvs,
}

/// What all rules of a cluster depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub mode: Mode,
    pub cluster_cidr: Ipv4Net,
}

impl From<Ipv4Net> for Shape {
    fn from(cluster_cidr: Ipv4Net) -> Self {
        Shape { mode: Mode::Iptables, cluster_cidr }
    }
}

/// What a node needs to know of all Services. Everything in it is shared between versions.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The rules as on a node without endpoints of its own; none in nftables mode.
    pub chains: ChainSet,
    /// The same as flat elements, in nftables mode, at the same version.
    pub flat: Flat,
    /// Virtual services, in ipvs mode, at the same version.
    pub virtuals: Virtuals,
    /// The jumps from the built-in chains; they never change.
    pub base: Arc<[BaseRule]>,
    pub shape: Shape,
    pub(super) pieces: OrdMap<Key, Arc<Piece>>,
    /// Services for which a node's own endpoints matter.
    pub(super) local: OrdSet<Key>,
    /// How many Services have this endpoint.
    pub(super) backends: OrdMap<Backend, u32>,
    slices: ByService,
}

/// A compilation and the views it was made of, from which a newer one may start.
#[derive(Clone, Debug)]
pub struct Basis {
    pub services: View,
    pub slices: View,
    pub compiled: Arc<Compiled>,
}

/// The rules at these versions, computed by whoever asks first. The result does not depend on
/// `basis`, only its cost does: O(changed Services), or O(all) without a basis.
pub fn compile(
    services: &View,
    slices: &View,
    shape: impl Into<Shape>,
    basis: Option<&Basis>,
) -> Arc<Compiled> {
    let shape = shape.into();
    let mut key = Hasher::default();
    key.u64(services.history());
    key.u64(services.version());
    shape.hash(&mut key);
    let made = slices.memo_after(key.finish(), |last: Option<Arc<Basis>>| {
        let last = last.as_deref().filter(|last| last.precedes(services, slices, shape));
        let basis = match (last, basis) {
            (Some(last), Some(own)) if own.slices.version() > last.slices.version() => Some(own),
            (Some(last), _) => Some(last),
            (None, own) => own,
        };
        let compiled = Arc::new(compile_anew(services, slices, shape, basis));
        Basis { services: services.bare(), slices: slices.bare(), compiled }
    });
    Arc::clone(&made.compiled)
}

impl Basis {
    fn precedes(&self, services: &View, slices: &View, shape: Shape) -> bool {
        self.compiled.shape == shape
            && follows(&self.services, services)
            && follows(&self.slices, slices)
    }
}

/// [`compile`] without the memo.
pub fn compile_anew(
    services: &View,
    slices: &View,
    shape: impl Into<Shape>,
    basis: Option<&Basis>,
) -> Compiled {
    let shape = shape.into();
    let usable = basis.filter(|basis| basis.precedes(services, slices, shape));
    let version = version_of(services, slices);
    match usable {
        Some(basis) => {
            let mut compiled = (*basis.compiled).clone();
            compiled.chains.advance(version);
            compiled.flat.advance(version);
            compiled.virtuals.advance(version);
            compiled.update((&basis.services, &basis.slices), (services, slices));
            compiled
        }
        None => {
            let mut compiled = Compiled::empty(services, slices, shape, version);
            let nothing = (View::empty(services.history()), View::empty(slices.history()));
            compiled.update((&nothing.0, &nothing.1), (services, slices));
            compiled
        }
    }
}

fn follows(old: &View, new: &View) -> bool {
    old.history() == new.history() && old.version() <= new.version()
}

/// One number for a pair of versions: never the same for two pairs, and growing with either, as
/// long as a store has written fewer than 2^32 revisions.
fn version_of(services: &View, slices: &View) -> u64 {
    services.version() << 32 | slices.version() & 0xffff_ffff
}

impl Compiled {
    fn empty(services: &View, slices: &View, shape: Shape, version: u64) -> Self {
        let mut history = Hasher::default();
        history.u64(services.history());
        history.u64(slices.history());
        shape.hash(&mut history);
        let mut chains = slices.derived(history.finish());
        chains.advance(version);
        let fixed = match shape.mode {
            Mode::Iptables => base::fixed_chains(),
            Mode::Ipvs => ipvs::fixed_chains(),
            Mode::Nftables => Vec::new(),
        };
        for (key, chain) in fixed {
            chains.insert(key, Arc::new(chain), version);
        }
        let mut compiled = Compiled {
            chains,
            flat: Flat::new(slices.derived(history.finish() + 1), version),
            virtuals: Virtuals::new(slices.derived(history.finish() + 2), version),
            base: base::base_rules(),
            shape,
            pieces: OrdMap::new(),
            local: OrdSet::new(),
            backends: OrdMap::new(),
            slices: ByService::default(),
        };
        if shape.mode != Mode::Nftables {
            for index in 0..COMMON.len() {
                compiled.rebuild_common(index);
            }
        }
        compiled
    }

    /// Services served.
    pub fn services(&self) -> usize {
        self.pieces.len()
    }
    /// Endpoints of any state, over all Services.
    pub fn endpoints(&self) -> usize {
        self.backends.len()
    }
    /// The same rules, whatever the versions. O(what the two do not share).
    pub fn same_rules(&self, other: &Compiled) -> bool {
        self.chains.diff(&other.chains).next().is_none()
            && self.flat.set.diff(&other.flat.set).next().is_none()
            && self.virtuals.set.diff(&other.virtuals.set).next().is_none()
    }

    fn update(&mut self, old: (&View, &View), new: (&View, &View)) {
        let changed = self.slices.advance(old, new);
        let mut common = [false; COMMON.len()];
        for key in changed {
            self.update_service(&key, new.0.get(&key), &mut common);
        }
        for (index, _) in common.iter().enumerate().filter(|(_, dirty)| **dirty) {
            self.rebuild_common(index);
        }
    }

    fn update_service(
        &mut self,
        key: &Key,
        service: Option<&Arc<Object>>,
        common: &mut [bool; COMMON.len()],
    ) {
        let slices = self.slices.get(key);
        let new = service.and_then(|service| Piece::of(service, slices, self.shape));
        let old = self.pieces.get(key).cloned().unwrap_or_default();
        let new = new.map(Arc::new);
        let none = Piece::default();
        let now = new.as_deref().unwrap_or(&none);
        if *old == *now && new.is_some() == self.pieces.contains_key(key) {
            return;
        }
        for (dirty, (was, is)) in common.iter_mut().zip(old.shared.iter().zip(&now.shared)) {
            *dirty |= was != is;
        }
        self.update_chains(&old, now);
        self.count_backends(&old, now);
        if now.local.is_empty() {
            self.local.remove(key);
        } else {
            self.local.insert(key.clone());
        }
        match &new {
            Some(new) => drop(self.pieces.insert(key.clone(), Arc::clone(new))),
            None => drop(self.pieces.remove(key)),
        }
        self.flat.update(key, &old, now, &self.pieces);
        self.virtuals.update(key, &old, now, &self.pieces);
    }

    fn update_chains(&mut self, old: &Piece, new: &Piece) {
        let version = self.chains.version();
        let stays: BTreeSet<&str> = new.chains.iter().map(|(name, _)| name.as_str()).collect();
        for (name, _) in old.chains.iter().filter(|(name, _)| !stays.contains(name.as_str())) {
            self.chains.remove(&nat(name), version);
        }
        for (name, chain) in &new.chains {
            let key = nat(name);
            if self.chains.get(&key) != Some(chain) {
                self.chains.insert(key, Arc::clone(chain), version);
            }
        }
    }

    fn count_backends(&mut self, old: &Piece, new: &Piece) {
        for backend in &new.backends {
            let count = self.backends.get(backend).copied().unwrap_or_default();
            self.backends.insert(*backend, count + 1);
        }
        for backend in &old.backends {
            match self.backends.get(backend).copied() {
                Some(count) if count > 1 => drop(self.backends.insert(*backend, count - 1)),
                _ => drop(self.backends.remove(backend)),
            }
        }
    }

    /// One of the chains to which all Services add: O(Services), and needed only when a Service
    /// comes, goes, gets its first endpoint or loses its last.
    fn rebuild_common(&mut self, index: usize) {
        let (table, name) = COMMON[index];
        let mut rules: Vec<Rule> = Vec::new();
        for (_, piece) in &self.pieces {
            rules.extend(piece.shared[index].iter().cloned());
        }
        rules.extend(base::last_rule(table, name));
        let key = ChainKey { table, name: name.into() };
        let version = self.chains.version();
        self.chains.insert(key, Arc::new(Chain { rules }), version);
    }
}
