//! A map for a few entries: sorted, in two arrays, so that a search touches one or two cache lines
//! and all of it can be asked for ahead of time, which a hash table's places cannot.

use kubesim_runtime::near;

#[derive(Clone, Debug)]
pub struct Sorted<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { keys: Vec::new(), values: Vec::new() }
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.keys.binary_search(key).ok().map(|at| &self.values[at])
    }
    /// The value that stood there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.keys.binary_search(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.keys.insert(at, key);
                self.values.insert(at, value);
                None
            }
        }
    }
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.keys.binary_search(key).ok()?;
        self.keys.remove(at);
        Some(self.values.remove(at))
    }
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let mut stays = Vec::with_capacity(self.keys.len());
        stays.extend(self.iter().map(|(key, value)| keep(key, value)));
        let mut flags = stays.iter();
        self.keys.retain(|_| flags.next() == Some(&true));
        let mut flags = stays.iter();
        self.values.retain(|_| flags.next() == Some(&true));
    }
    /// In order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.keys.iter().zip(&self.values)
    }
    /// Asks for its first `lines` cache lines of keys and of values.
    pub fn approach(&self, lines: usize) {
        near::slice(&self.keys, lines);
        near::slice(&self.values, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..3, 0u8..16, 0u32..100), 0..200)) {
            let (mut sorted, mut map) = (Sorted::default(), BTreeMap::new());
            for (what, key, value) in steps {
                match what {
                    0 => prop_assert_eq!(sorted.insert(key, value), map.insert(key, value)),
                    1 => prop_assert_eq!(sorted.remove(&key), map.remove(&key)),
                    _ => {
                        sorted.retain(|key, held| u32::from(*key) * 7 + held != value);
                        map.retain(|key, held| u32::from(*key) * 7 + *held != value);
                    }
                }
                prop_assert!(sorted.iter().eq(map.iter()));
                prop_assert_eq!(sorted.get(&key), map.get(&key));
            }
        }
    }
}
