//! A view of the world is a snapshot and a version.

use imbl::OrdMap;
use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard};

/// An immutable, structurally shared map at one version of one history.
///
/// Cloning costs a few pointers, so ten thousand observers of one version share one map, and what
/// is computed from it purely can be computed once (see [`Snapshot::memo`]).
///
/// Invariant: two snapshots with the same history and version hold the same entries.
pub struct Snapshot<K, V> {
    map: OrdMap<K, V>,
    history: u64,
    version: u64,
    memo: Arc<Memo>,
    /// Whether results are kept at all; see [`Snapshot::without_memo`].
    remembers: bool,
}

/// What was computed from one version, and what was last computed from an earlier one.
#[derive(Default)]
struct Memo {
    entries: Mutex<Entries>,
    before: Mutex<Option<Arc<Memo>>>,
}

type Entries = Vec<(u64, Arc<dyn Any + Send + Sync>)>;

impl Memo {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().expect("no computation panics while it is held")
    }
    fn before(&self) -> MutexGuard<'_, Option<Arc<Memo>>> {
        self.before.lock().expect("no computation panics while it is held")
    }
    fn find<T: Send + Sync + 'static>(&self, key: u64) -> Option<Arc<T>> {
        let entries = self.entries();
        let mut found = entries.iter().filter(|(k, _)| *k == key);
        found.find_map(|(_, value)| Arc::clone(value).downcast::<T>().ok())
    }
    /// The newest result of this type, whatever its key.
    fn last<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.entries().iter().rev().find_map(|(_, value)| Arc::clone(value).downcast::<T>().ok())
    }
    /// The memo of the next version: it knows the nearest one that holds anything, and no more.
    fn next(this: &Arc<Memo>) -> Arc<Memo> {
        let before = if this.entries().is_empty() {
            this.before().clone()
        } else {
            *this.before() = None;
            Some(Arc::clone(this))
        };
        Arc::new(Memo { entries: Mutex::default(), before: Mutex::new(before) })
    }
}

/// One difference between two snapshots.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a, K, V> {
    Added(&'a K, &'a V),
    Changed { key: &'a K, old: &'a V, new: &'a V },
    Removed(&'a K, &'a V),
}

impl<K: Ord + Clone, V: Clone + PartialEq> Snapshot<K, V> {
    /// Empty, at version 0. Histories with different ids never share a memo.
    pub fn empty(history: u64) -> Self {
        let memo = Arc::default();
        Snapshot { map: OrdMap::new(), history, version: 0, memo, remembers: true }
    }
    /// The same, and all that is computed from it or from what grows out of it is computed anew
    /// for everyone who asks. For the test that a run does not depend on the memo.
    pub fn without_memo(history: u64) -> Self {
        Snapshot { remembers: false, ..Snapshot::empty(history) }
    }
    /// Empty, of a history that is derived from this one: with a memo if this has one.
    pub fn derived<L: Ord + Clone, W: Clone + PartialEq>(&self, history: u64) -> Snapshot<L, W> {
        Snapshot { remembers: self.remembers, ..Snapshot::empty(history) }
    }

    pub fn history(&self) -> u64 {
        self.history
    }
    pub fn version(&self) -> u64 {
        self.version
    }
    pub fn len(&self) -> usize {
        self.map.len()
    }
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }
    /// In key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.iter()
    }
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.map.iter().map(|(_, value)| value)
    }
    /// In key order, from the first key not before `from`.
    pub fn iter_from<'a>(
        &'a self,
        from: &K,
    ) -> impl DoubleEndedIterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        self.map.range(from.clone()..)
    }

    /// Puts an entry, as of `version`. O(log n).
    pub fn insert(&mut self, key: K, value: V, version: u64) -> Option<V> {
        self.advance(version);
        self.map.insert(key, value)
    }
    /// Takes an entry away, as of `version`. O(log n).
    pub fn remove(&mut self, key: &K, version: u64) -> Option<V> {
        self.advance(version);
        self.map.remove(key)
    }
    /// Says that nothing here changed up to `version`.
    pub fn advance(&mut self, version: u64) {
        debug_assert!(version >= self.version, "a history never goes back");
        if version != self.version {
            self.version = version;
            self.memo = Memo::next(&self.memo);
        }
    }

    /// The same entries at the same version without what was computed from them: for a result that
    /// is kept in the memo and has to know what it was made of.
    pub fn bare(&self) -> Self {
        Snapshot { memo: Arc::default(), ..self.clone() }
    }

    /// What has to happen to `self` to become `newer`, in key order. Visits only what the two do
    /// not share. Values are compared with `==`; make that an identity check for large ones.
    pub fn diff<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Change<'a, K, V>> {
        use imbl::ordmap::DiffItem;
        self.map.diff(&newer.map).map(|item| match item {
            DiffItem::Add(key, value) => Change::Added(key, value),
            DiffItem::Update { old: (_, old), new: (key, new) } => {
                Change::Changed { key, old, new }
            }
            DiffItem::Remove(key, value) => Change::Removed(key, value),
        })
    }

    /// The result of a pure function of this snapshot and of what `key` stands for (another
    /// snapshot's version, say), computed once per version however many observers ask. The memo
    /// lives and dies with this version: no global state, nothing stale after a restore.
    pub fn memo<T: Send + Sync + 'static>(&self, key: u64, compute: impl FnOnce() -> T) -> Arc<T> {
        self.memo_after(key, |_| compute())
    }

    /// As [`Snapshot::memo`], starting from the last result of this type that anybody computed
    /// here or from the nearest earlier version. The result must not depend on it, only the cost.
    pub fn memo_after<T: Send + Sync + 'static>(
        &self,
        key: u64,
        compute: impl FnOnce(Option<Arc<T>>) -> T,
    ) -> Arc<T> {
        if !self.remembers {
            return Arc::new(compute(None));
        }
        if let Some(value) = self.memo.find(key) {
            return value;
        }
        let before = self.memo.before().clone();
        let basis = self.memo.last().or_else(|| before?.last());
        let value = Arc::new(compute(basis));
        self.memo.entries().push((key, value.clone()));
        value
    }
}

impl<K: Clone, V: Clone> Clone for Snapshot<K, V> {
    fn clone(&self) -> Self {
        Snapshot {
            map: self.map.clone(),
            history: self.history,
            version: self.version,
            memo: Arc::clone(&self.memo),
            remembers: self.remembers,
        }
    }
}

impl<K, V> Debug for Snapshot<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} entries @{})", self.map.len(), self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_memo_is_computed_once_per_version_and_shared_by_clones() {
        let mut snapshot = Snapshot::<u32, u32>::empty(1);
        snapshot.insert(1, 10, 1);
        let clone = snapshot.clone();
        let mut runs = 0;
        let mut sum = |s: &Snapshot<u32, u32>| {
            *s.memo(0, || {
                runs += 1;
                s.values().sum::<u32>()
            })
        };
        assert_eq!((sum(&snapshot), sum(&clone)), (10, 10));
        snapshot.insert(2, 5, 2);
        assert_eq!((sum(&snapshot), sum(&clone)), (15, 10));
        assert_eq!(runs, 2);
    }

    #[test]
    fn a_result_may_start_from_the_nearest_earlier_one() {
        let mut snapshot = Snapshot::<u32, u32>::empty(1);
        snapshot.insert(1, 10, 1);
        assert_eq!(
            *snapshot.memo_after(0, |basis: Option<Arc<u32>>| basis.map_or(1, |b| *b + 1)),
            1
        );
        snapshot.insert(2, 5, 2);
        snapshot.insert(3, 5, 3);
        assert_eq!(
            *snapshot.memo_after(0, |basis: Option<Arc<u32>>| basis.map_or(1, |b| *b + 1)),
            2
        );
        let bare = snapshot.bare();
        assert_eq!(*bare.memo_after(0, |basis: Option<Arc<u32>>| basis.map_or(1, |b| *b + 1)), 1);
    }

    #[test]
    fn without_a_memo_everyone_computes() {
        let snapshot = Snapshot::<u32, u32>::without_memo(1);
        let derived: Snapshot<u32, u32> = snapshot.clone().derived(2);
        let mut runs = 0;
        for _ in 0..2 {
            snapshot.memo(0, || runs += 1);
            derived.memo(0, || runs += 1);
        }
        assert_eq!(runs, 4);
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_newer_one(
            old in prop::collection::btree_map(0u8..50, 0u8..4, 0..40),
            new in prop::collection::btree_map(0u8..50, 0u8..4, 0..40),
        ) {
            let build = |entries: &BTreeMap<u8, u8>| {
                let mut snapshot = Snapshot::empty(1);
                for (k, v) in entries {
                    snapshot.insert(*k, *v, 1);
                }
                snapshot
            };
            let mut applied = old.clone();
            for change in build(&old).diff(&build(&new)) {
                match change {
                    Change::Added(k, v) | Change::Changed { key: k, new: v, .. } => {
                        applied.insert(*k, *v);
                    }
                    Change::Removed(k, _) => {
                        applied.remove(k);
                    }
                }
            }
            prop_assert_eq!(applied, new);
        }
    }
}
