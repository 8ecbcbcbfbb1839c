//! The chains of a set by number: a table that versions share but for what differs.

use super::compile::{ChainId, Compiled};
use super::table::id_bit;
use crate::kernel::family::{Family, V4};
use std::sync::Arc;

/// Chains a bucket before the table gets four times as many.
const FULL: usize = 32;

/// Every jump of a packet looks here: two steps, each to memory that other packets have just used.
/// (A hash trie takes five, and wants its nodes aligned, which allocators are slow at.)
#[derive(Clone, Debug)]
pub(super) struct Chains<F: Family = V4> {
    /// A power of two of them. A chain's number is a hash: its low bits spread the chains evenly.
    buckets: Arc<[Bucket<F>]>,
    len: usize,
    /// The [`id_bit`]s of all chains that are or were here.
    bits: u64,
}

/// Sorted by number.
type Bucket<F> = Arc<Vec<(ChainId, Arc<Compiled<F>>)>>;

impl<F: Family> Default for Chains<F> {
    fn default() -> Self {
        Chains { buckets: Arc::new([Bucket::<F>::default()]), len: 0, bits: 0 }
    }
}

impl<F: Family> Chains<F> {
    #[inline]
    pub fn get(&self, id: ChainId) -> Option<&Compiled<F>> {
        let bucket = &self.buckets[id as usize & (self.buckets.len() - 1)];
        let at = bucket.binary_search_by_key(&id, |(held, _)| *held).ok()?;
        Some(&bucket[at].1)
    }

    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Adds a chain, or puts it in the place of the one with its number.
    pub fn insert(&mut self, id: ChainId, chain: Arc<Compiled<F>>) {
        if self.len >= self.buckets.len() * FULL {
            self.grow();
        }
        self.bits |= id_bit(id);
        let bucket = self.bucket(id);
        match bucket.binary_search_by_key(&id, |(held, _)| *held) {
            Ok(at) => bucket[at].1 = chain,
            Err(at) => {
                bucket.insert(at, (id, chain));
                self.len += 1;
            }
        }
    }

    pub fn remove(&mut self, id: ChainId) -> Option<Arc<Compiled<F>>> {
        let bucket = self.bucket(id);
        let at = bucket.binary_search_by_key(&id, |(held, _)| *held).ok()?;
        let (_, chain) = bucket.remove(at);
        self.len -= 1;
        Some(chain)
    }

    fn bucket(&mut self, id: ChainId) -> &mut Vec<(ChainId, Arc<Compiled<F>>)> {
        let at = id as usize & (self.buckets.len() - 1);
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[at])
    }

    fn grow(&mut self) {
        // Chains of a new bucket come from one old bucket, in its order: they stay sorted.
        let mut buckets = vec![Vec::new(); self.buckets.len() * 4];
        let mask = buckets.len() - 1;
        for (id, chain) in self.buckets.iter().flat_map(|bucket| bucket.iter()) {
            buckets[*id as usize & mask].push((*id, Arc::clone(chain)));
        }
        self.buckets = buckets.into_iter().map(Arc::new).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netfilter::Table;
    use std::collections::BTreeMap;

    /// Enough chains for the table to grow twice; a version that was kept stays as it was.
    #[test]
    fn a_version_keeps_its_chains() {
        let id = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let chain = || Arc::new(Compiled::<V4>::new(Table::Nat, std::iter::empty()));
        let (mut chains, mut model) = (Chains::default(), BTreeMap::new());
        let mut versions = Vec::new();
        for number in 0..600 {
            let made = chain();
            chains.insert(id(number), Arc::clone(&made));
            model.insert(id(number), made);
            if number % 3 == 0 {
                let gone = id(number / 2);
                let (ours, theirs) = (chains.remove(gone), model.remove(&gone));
                assert_eq!(ours.map(|c| Arc::as_ptr(&c)), theirs.map(|c| Arc::as_ptr(&c)));
            }
            if number % 50 == 0 {
                versions.push((chains.clone(), model.clone()));
            }
        }
        for (chains, model) in versions {
            for number in 0..600 {
                let held = chains.get(id(number)).map(std::ptr::from_ref);
                assert_eq!(held, model.get(&id(number)).map(Arc::as_ptr));
            }
        }
    }
}
