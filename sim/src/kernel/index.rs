//! A hash index of things that lie in slots elsewhere: one word a cell, the hash beside the slot,
//! so that a look-up touches one cache line here and the slot it was looking for.
//!
//! Open addressing with linear probing; a removal moves the followers back (Knuth, TAOCP 6.4,
//! algorithm R), so nothing is left behind that a search would have to pass.

use kubesim_runtime::near;
use rustc_hash::FxBuildHasher;
use std::hash::{BuildHasher, Hash};

const EMPTY: u64 = 0;

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// `hash << 32 | value + 1`, or [`EMPTY`]. A power of two of them, at most three quarters full.
    cells: Vec<u64>,
    len: usize,
}

/// A key's hash, as [`Index`] wants it.
#[inline]
pub(super) fn hash_of(key: &impl Hash) -> u32 {
    FxBuildHasher.hash_one(key) as u32
}

fn cell(hash: u32, value: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(value + 1)
}

impl Index {
    /// The value with this hash for which `is` holds.
    #[inline]
    pub fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.cells.is_empty() {
            return None;
        }
        let mask = self.cells.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let found = self.cells[at];
            if found == EMPTY {
                return None;
            }
            let value = found as u32 - 1;
            if (found >> 32) as u32 == hash && is(value) {
                return Some(value);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a value, which must be less than `u32::MAX` and not there yet.
    pub fn insert(&mut self, hash: u32, value: u32) {
        if (self.len + 1) * 4 > self.cells.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.put(cell(hash, value));
    }

    /// Whether it was there.
    pub fn remove(&mut self, hash: u32, value: u32) -> bool {
        if self.cells.is_empty() {
            return false;
        }
        let mask = self.cells.len() - 1;
        let wanted = cell(hash, value);
        let mut hole = hash as usize & mask;
        while self.cells[hole] != wanted {
            if self.cells[hole] == EMPTY {
                return false;
            }
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let follower = self.cells[at];
            if follower == EMPTY {
                break;
            }
            // It may move into the hole if its home is not between the hole and its place.
            let home = (follower >> 32) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.cells[hole] = follower;
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
        true
    }

    /// Asks for the cell where a hash is at home.
    pub fn approach(&self, hash: u32) {
        if let Some(mask) = self.cells.len().checked_sub(1) {
            near::value(&self.cells[hash as usize & mask]);
        }
    }

    fn put(&mut self, entry: u64) {
        let mask = self.cells.len() - 1;
        let mut at = (entry >> 32) as usize & mask;
        while self.cells[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.cells[at] = entry;
    }

    fn grow(&mut self) {
        let size = (self.cells.len() * 2).max(8);
        let old = std::mem::replace(&mut self.cells, vec![EMPTY; size]);
        old.into_iter().filter(|entry| *entry != EMPTY).for_each(|entry| self.put(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Few hashes and small tables: collisions, chains that wrap round, removals within them.
        #[test]
        fn it_finds_what_is_there(
            steps in prop::collection::vec((any::<bool>(), 0u32..24, 0u32..40), 0..300)
        ) {
            let (mut index, mut there) = (Index::default(), BTreeSet::new());
            for (add, hash, value) in steps {
                if add {
                    if there.insert((hash, value)) {
                        index.insert(hash, value);
                    }
                } else {
                    prop_assert_eq!(index.remove(hash, value), there.remove(&(hash, value)));
                }
                for hash in 0..24 {
                    for value in 0..40 {
                        let found = index.find(hash, |held| held == value).is_some();
                        prop_assert_eq!(found, there.contains(&(hash, value)));
                    }
                }
            }
        }
    }
}
