//! A table that forgets what was not used for longest.

use std::collections::BTreeMap;

/// `maxLruCacheEntries`.
const MOST: usize = 4096;

#[derive(Clone, Debug)]
pub struct Lru<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    /// By when they were used last.
    uses: BTreeMap<u64, K>,
    clock: u64,
}

impl<K, V> Default for Lru<K, V> {
    fn default() -> Self {
        Lru { entries: BTreeMap::new(), uses: BTreeMap::new(), clock: 0 }
    }
}

impl<K: Ord + Clone, V> Lru<K, V> {
    /// The entry of this key, made if there is none.
    pub fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        let before = self.entries.get(&key).map(|(used, _)| *used);
        match before {
            Some(used) => drop(self.uses.remove(&used)),
            None if self.entries.len() >= MOST => {
                if let Some((_, oldest)) = self.uses.pop_first() {
                    self.entries.remove(&oldest);
                }
            }
            None => {}
        }
        self.uses.insert(self.clock, key.clone());
        let entry = self.entries.entry(key).or_insert_with(|| (0, new()));
        entry.0 = self.clock;
        &mut entry.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_kept() {
        let mut table = Lru::default();
        for key in 0..MOST {
            table.entry(key, || key);
        }
        assert_eq!(*table.entry(0, || 7), 0);
        table.entry(MOST, || MOST);
        assert_eq!(*table.entry(0, || 7), 0, "it was used");
        assert_eq!(*table.entry(1, || 7), 7, "it was not");
        assert_eq!((table.entries.len(), table.uses.len()), (MOST, MOST));
    }
}
