//! What faults hold down: cables, machines, actors. Faults overlap, by design or because the seed
//! draws their moments, and what two of them hold comes back when the last lets go.

use std::collections::{BTreeMap, BTreeSet};

/// No fault: a machine that the scenario has not switched on yet.
pub(super) const NOT_YET: usize = usize::MAX;

/// Who holds what; a fault goes by its place in the world's list.
#[derive(Debug)]
pub(super) struct Holds<K>(BTreeMap<K, BTreeSet<usize>>);

impl<K> Default for Holds<K> {
    fn default() -> Self {
        Holds(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Holds<K> {
    /// The fault holds it, until it lets go or somebody frees it. True: nobody held it before.
    pub fn take(&mut self, what: K, fault: usize) -> bool {
        let by = self.0.entry(what).or_default();
        let free = by.is_empty();
        by.insert(fault);
        free
    }

    /// True: the fault was the last to hold it.
    pub fn let_go(&mut self, what: K, fault: usize) -> bool {
        let Some(by) = self.0.get_mut(&what) else { return false };
        if !(by.remove(&fault) && by.is_empty()) {
            return false;
        }
        self.0.remove(&what);
        true
    }

    /// The fault lets go of all that it holds; returns what nobody holds any more.
    pub fn let_all_go(&mut self, fault: usize) -> Vec<K> {
        let held: Vec<K> = self.held_by(fault).collect();
        held.into_iter().filter(|what| self.let_go(*what, fault)).collect()
    }

    /// Somebody puts it right by hand, whoever holds it.
    pub fn free(&mut self, what: K) {
        self.0.remove(&what);
    }

    pub fn is_held(&self, what: K) -> bool {
        self.0.contains_key(&what)
    }

    /// The faults that hold it, in the scenario's order.
    pub fn holders(&self, what: K) -> impl Iterator<Item = usize> + '_ {
        self.0.get(&what).into_iter().flatten().copied()
    }

    fn held_by(&self, fault: usize) -> impl Iterator<Item = K> + '_ {
        self.0.iter().filter(move |(_, by)| by.contains(&fault)).map(|(what, _)| *what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_when_the_last_lets_go() {
        let mut holds = Holds::default();
        assert!(holds.take('a', 1) && !holds.take('a', 2) && !holds.take('a', 2));
        holds.take('b', 1);
        assert_eq!(holds.let_all_go(1), ['b']);
        assert!(holds.is_held('a') && !holds.let_go('a', 1));
        assert_eq!(holds.let_all_go(2), ['a']);
    }

    #[test]
    fn who_is_freed_by_hand_is_not_freed_again() {
        let mut holds = Holds::default();
        holds.take('a', 1);
        holds.free('a');
        assert!(!holds.is_held('a'));
        assert!(holds.let_all_go(1).is_empty());
    }
}
