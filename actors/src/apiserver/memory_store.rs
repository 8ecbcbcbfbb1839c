//! The store in memory, with etcd's v3 semantics: one revision counter, transactions that compare
//! `mod_revision`, a range over everything, compaction.
//!
//! A request takes effect when it is delivered, and what has taken effect is durable: neither the
//! loss of a process nor of power takes it away. How long a request and its answer travel, and
//! whether one of the two is lost, is the world's to model: delivered and the answer lost means it
//! happened and the client does not know; not delivered means it never happened. Only the loss of
//! the disk ([`Store::wipe`]) forgets.

use crate::objects::Object;
use crate::ports::store::{Op, Reply, Request, StoreKey};
use imbl::OrdMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Store {
    /// By registry key; an object's `version` is its `mod_revision`.
    objects: OrdMap<StoreKey, Arc<Object>>,
    revision: u64,
    compacted: u64,
}

impl Default for Store {
    /// etcd's counter starts at 1.
    fn default() -> Self {
        Store { objects: OrdMap::new(), revision: 1, compacted: 0 }
    }
}

impl Store {
    pub fn revision(&self) -> u64 {
        self.revision
    }
    pub fn len(&self) -> usize {
        self.objects.len()
    }
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
    pub fn get(&self, key: &StoreKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }
    /// In key order.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Carries the request out and answers it.
    pub fn request(&mut self, request: &Request) -> Reply {
        match request {
            Request::Range => Reply::Range {
                revision: self.revision,
                compacted: self.compacted,
                objects: self.objects.values().cloned().collect(),
            },
            Request::Txn { id, compare, then } => self.transact(*id, compare, then),
            Request::Compact { revision } => {
                // etcd refuses a future revision and one that is compacted already.
                self.compacted = self.compacted.max((*revision).min(self.revision));
                Reply::Compacted { revision: self.compacted }
            }
        }
    }

    fn transact(&mut self, id: u64, compare: &[(StoreKey, u64)], then: &[Op]) -> Reply {
        for (key, expected) in compare {
            let found = self.objects.get(key).map_or(0, |object| object.version);
            if found != *expected {
                return Reply::Mismatch { id, key: key.clone(), found };
            }
        }
        let revision = self.revision + 1;
        let mut changed = false;
        for op in then {
            match op {
                Op::Put { key, value } => {
                    let stored = Object { version: revision, ..(**value).clone() };
                    self.objects.insert(key.clone(), Arc::new(stored));
                    changed = true;
                }
                Op::Delete { key } => changed |= self.objects.remove(key).is_some(),
            }
        }
        // A transaction that changed nothing takes no revision.
        if changed {
            self.revision = revision;
        }
        Reply::Committed { id, revision: self.revision }
    }

    /// The disk is lost: an empty store, as a new member without peers is.
    pub fn wipe(&mut self) {
        *self = Store::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Body, Key, Kind};

    fn key(name: &str) -> StoreKey {
        (Kind::ConfigMap, Key::new("default", name))
    }
    fn put(name: &str) -> Op {
        let value = Object::new(key(name).1, Body::ConfigMap(Arc::default()));
        Op::Put { key: key(name), value: Arc::new(value) }
    }
    fn txn(id: u64, compare: Vec<(StoreKey, u64)>, then: Vec<Op>) -> Request {
        Request::Txn { id, compare, then }
    }

    #[test]
    fn a_put_gets_the_revision_of_its_transaction_as_its_version() {
        let mut store = Store::default();
        let reply = store.request(&txn(1, vec![(key("a"), 0)], vec![put("a"), put("b")]));
        assert!(matches!(reply, Reply::Committed { id: 1, revision: 2 }), "{reply:?}");
        let versions: Vec<_> = store.objects().map(|object| object.version).collect();
        assert_eq!(versions, [2, 2]);
    }

    #[test]
    fn a_failed_comparison_changes_nothing_and_takes_no_revision() {
        let mut store = Store::default();
        store.request(&txn(1, vec![], vec![put("a")]));
        let reply = store.request(&txn(2, vec![(key("a"), 0)], vec![put("a"), put("b")]));
        assert!(matches!(reply, Reply::Mismatch { id: 2, found: 2, .. }), "{reply:?}");
        assert_eq!((store.len(), store.revision()), (1, 2));
    }

    #[test]
    fn a_deleted_key_compares_as_absent() {
        let mut store = Store::default();
        store.request(&txn(1, vec![], vec![put("a")]));
        store.request(&txn(2, vec![(key("a"), 2)], vec![Op::Delete { key: key("a") }]));
        let reply = store.request(&txn(3, vec![(key("a"), 0)], vec![put("a")]));
        assert!(matches!(reply, Reply::Committed { id: 3, revision: 4 }), "{reply:?}");
    }

    #[test]
    fn compaction_never_goes_back_or_ahead() {
        let mut store = Store::default();
        store.request(&txn(1, vec![], vec![put("a")]));
        store.request(&Request::Compact { revision: 2 });
        let reply = store.request(&Request::Compact { revision: 1 });
        assert!(matches!(reply, Reply::Compacted { revision: 2 }), "{reply:?}");
        let reply = store.request(&Request::Compact { revision: 99 });
        assert!(matches!(reply, Reply::Compacted { revision: 2 }), "{reply:?}");
    }
}
