//! What faults hold down: cables, machines, actors. Faults overlap, by design or because the seed
//! draws their moments, and what two of them hold comes back when the last lets go.

use std::collections::{BTreeMap, BTreeSet};

/// Who holds something down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A fault, by its place in the world's list.
    Fault(usize),
    /// The scenario: a machine that it has not switched on yet.
    NotYet,
}

impl From<usize> for Holder {
    fn from(fault: usize) -> Self {
        Holder::Fault(fault)
    }
}

/// Who holds what.
#[derive(Debug)]
pub(super) struct Holds<K>(BTreeMap<K, BTreeSet<Holder>>);

impl<K> Default for Holds<K> {
    fn default() -> Self {
        Holds(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Holds<K> {
    /// Held from now on, until the holder lets go or somebody frees it. True: nobody held it
    /// before.
    pub fn take(&mut self, what: K, holder: impl Into<Holder>) -> bool {
        let by = self.0.entry(what).or_default();
        let free = by.is_empty();
        by.insert(holder.into());
        free
    }

    /// True: the holder was the last one.
    pub fn let_go(&mut self, what: K, holder: impl Into<Holder>) -> bool {
        let Some(by) = self.0.get_mut(&what) else { return false };
        if !(by.remove(&holder.into()) && by.is_empty()) {
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
    pub fn faults(&self, what: K) -> impl Iterator<Item = usize> + '_ {
        self.0.get(&what).into_iter().flatten().filter_map(|holder| match holder {
            Holder::Fault(fault) => Some(*fault),
            Holder::NotYet => None,
        })
    }

    fn held_by(&self, fault: usize) -> impl Iterator<Item = K> + '_ {
        let holder = Holder::Fault(fault);
        self.0.iter().filter(move |(_, by)| by.contains(&holder)).map(|(what, _)| *what)
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
    fn what_is_not_there_yet_stays_so_whichever_fault_is_over() {
        let mut holds = Holds::default();
        holds.take('a', Holder::NotYet);
        holds.take('a', 1);
        assert_eq!(holds.faults('a').collect::<Vec<_>>(), [1]);
        assert!(holds.let_all_go(1).is_empty() && holds.is_held('a'));
        assert!(holds.let_go('a', Holder::NotYet) && !holds.is_held('a'));
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
