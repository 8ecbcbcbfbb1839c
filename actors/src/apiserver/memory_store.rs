//! The store in memory, with etcd's v3 semantics: one revision counter, transactions that compare
//! `mod_revision`, ranges, watches, compaction.
//!
//! A request takes effect when it is delivered, and what has taken effect is durable: neither the
//! loss of a process nor of power takes it away. How long a request and its answer travel, and
//! whether one of the two is lost, is the world's to model: delivered and the answer lost means it
//! happened and the client does not know; not delivered means it never happened. Only the loss of
//! the disk ([`Store::wipe`]) forgets.
//!
//! The past (a range at an older revision, a watch from one) is remembered by a store that was made
//! [`Store::with_history`]. Any other answers as if it had just been compacted: nobody in a
//! simulated cluster asks, and a fleet's history of five minutes is large.

use crate::objects::Object;
use crate::ports::store::{self, Change, Op, Range, Reply, Request, StoreKey, Under};
use imbl::OrdMap;
use std::sync::Arc;

type Objects = OrdMap<StoreKey, Arc<Object>>;

#[derive(Clone, Debug)]
pub struct Store {
    /// By registry key; an object's `version` is its `mod_revision`.
    objects: Objects,
    revision: u64,
    compacted: u64,
    /// By revision, from the compacted one on.
    history: Option<OrdMap<u64, Moment>>,
}

/// What a revision did, and what was there then.
#[derive(Clone, Debug)]
struct Moment {
    changes: Arc<[Change]>,
    objects: Objects,
}

impl Default for Store {
    /// etcd's counter starts at 1.
    fn default() -> Self {
        Store { objects: Objects::new(), revision: 1, compacted: 0, history: None }
    }
}

impl Store {
    /// Remembers what was until it is compacted.
    pub fn with_history() -> Self {
        Store { history: Some(OrdMap::new()), ..Store::default() }
    }
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// What was before it is forgotten.
    pub fn compacted(&self) -> u64 {
        self.compacted
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

    /// Carries the request out and answers it. Of a watch, this is the first answer: whoever serves
    /// one asks again from the next revision on when there is one ([`Store::revision`]).
    pub fn request(&mut self, request: &Request) -> Reply {
        match request {
            Request::Range(range) => self.range(range),
            Request::Txn { id, compare, then } => self.transact(*id, compare, then),
            Request::Compact { revision } => self.compact(*revision),
            Request::Watch { id, under, from } => self.changes(*id, under, *from),
        }
    }

    fn range(&self, range: &Range) -> Reply {
        let Range { id, revision, .. } = *range;
        if revision > self.revision {
            return Reply::Ahead { id, revision: self.revision };
        }
        let at = if revision == 0 { self.revision } else { revision };
        let objects = match &self.history {
            _ if at == self.revision => Some(&self.objects),
            Some(history) if at >= self.compacted => {
                history.range(..=at).next_back().map(|(_, moment)| &moment.objects)
            }
            _ => return Reply::Forgotten { id, compacted: self.oldest() },
        };
        // Before the first revision that changed anything there was nothing.
        let mut objects: Vec<_> = objects.into_iter().flat_map(|all| under(all, range)).collect();
        objects.sort_by(|a, b| store::order(a.0, b.0));
        let more = range.limit > 0 && objects.len() > range.limit;
        objects.truncate(if more { range.limit } else { objects.len() });
        let objects = objects.into_iter().map(|(_, object)| object.clone()).collect();
        Reply::Range { id, revision: at, compacted: self.compacted, more, objects }
    }

    /// What happened below `under` at `from` and since.
    pub fn changes(&self, id: u64, under: &Under, from: u64) -> Reply {
        let revision = self.revision;
        if from > revision {
            return Reply::Watched { id, revision, changes: Vec::new() };
        }
        let Some(history) = self.history.as_ref().filter(|_| from > self.compacted) else {
            return Reply::Forgotten { id, compacted: self.oldest() };
        };
        let changes = history.range(from..).flat_map(|(_, moment)| moment.changes.iter());
        let changes = changes.filter(|change| under.holds(&change.key())).cloned().collect();
        Reply::Watched { id, revision, changes }
    }

    fn oldest(&self) -> u64 {
        if self.history.is_some() { self.compacted } else { self.revision }
    }

    fn compact(&mut self, revision: u64) -> Reply {
        // etcd refuses a future revision and one that is compacted already. Nothing is at 1.
        let revision = revision.min(self.revision);
        if revision > self.compacted.max(1) {
            self.compacted = revision;
            if let Some(history) = &mut self.history {
                // What was there at the compacted revision can still be asked for: each revision
                // has its moment, as what changes nothing takes none.
                let (_, at, after) = history.split_lookup(&revision);
                *history = after;
                history.extend(at.map(|moment| (revision, moment)));
            }
        }
        Reply::Compacted { revision: self.compacted }
    }

    fn transact(&mut self, id: u64, compare: &[(StoreKey, u64)], then: &[Op]) -> Reply {
        if let Some(why) = store::refusal(compare, then) {
            return Reply::Refused { id, why };
        }
        for (key, expected) in compare {
            let found = self.objects.get(key).map_or(0, |object| object.version);
            if found != *expected {
                return Reply::Mismatch { id, key: key.clone(), found };
            }
        }
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for op in then {
            match op {
                Op::Put { key, value } => {
                    let stored = Arc::new(Object { version: revision, ..(**value).clone() });
                    self.objects.insert(key.clone(), stored.clone());
                    changes.push(Change::Put(stored));
                }
                Op::Delete { key } => {
                    if self.objects.remove(key).is_some() {
                        changes.push(Change::Deleted { key: key.clone(), revision });
                    }
                }
            }
        }
        // A transaction that changed nothing takes no revision.
        if !changes.is_empty() {
            self.revision = revision;
            if let Some(history) = &mut self.history {
                let objects = self.objects.clone();
                history.insert(revision, Moment { changes: changes.into(), objects });
            }
        }
        Reply::Committed { id, revision: self.revision }
    }

    /// The disk is lost: an empty store, as a new member without peers is.
    pub fn wipe(&mut self) {
        let history = self.history.as_ref().map(|_| OrdMap::new());
        *self = Store { history, ..Store::default() };
    }
}

fn under<'a>(
    objects: &'a Objects,
    range: &'a Range,
) -> impl Iterator<Item = (&'a StoreKey, &'a Arc<Object>)> {
    let after =
        |key: &StoreKey| range.after.as_ref().is_none_or(|after| store::order(key, after).is_gt());
    objects.iter().filter(move |(key, _)| range.under.holds(key) && after(key))
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

    fn range(after: Option<StoreKey>, limit: usize, revision: u64) -> Request {
        Request::Range(Range { after, limit, revision, ..Range::default() })
    }
    fn names(reply: Reply) -> (Vec<String>, bool) {
        let Reply::Range { objects, more, .. } = reply else { panic!("{reply:?}") };
        (objects.iter().map(|object| object.key.name.to_string()).collect(), more)
    }

    #[test]
    fn the_past_is_there_until_it_is_compacted() {
        let mut store = Store::with_history();
        for name in ["a", "b", "c"] {
            store.request(&txn(1, vec![], vec![put(name)]));
        }
        store.request(&txn(1, vec![], vec![Op::Delete { key: key("b") }]));
        assert_eq!(names(store.request(&range(None, 0, 1))), (vec![], false));
        assert_eq!(names(store.request(&range(None, 2, 4))).0, ["a", "b"]);
        assert_eq!(names(store.request(&range(Some(key("a")), 1, 4))), (vec!["b".into()], true));
        assert_eq!(names(store.request(&range(None, 0, 0))).0, ["a", "c"]);
        let reply = store.request(&range(None, 0, 6));
        assert!(matches!(reply, Reply::Ahead { revision: 5, .. }), "{reply:?}");
        store.request(&Request::Compact { revision: 3 });
        assert_eq!(names(store.request(&range(None, 0, 3))).0, ["a", "b"]);
        let reply = store.request(&range(None, 0, 2));
        assert!(matches!(reply, Reply::Forgotten { compacted: 3, .. }), "{reply:?}");
    }

    #[test]
    fn a_watch_is_told_from_its_revision_on() {
        let mut store = Store::with_history();
        store.request(&txn(1, vec![], vec![put("a"), put("b")]));
        store.request(&txn(2, vec![], vec![Op::Delete { key: key("a") }]));
        let told = |reply| match reply {
            Reply::Watched { changes, revision, .. } => (
                changes.iter().map(|c| (c.key().1.name, c.revision())).collect::<Vec<_>>(),
                revision,
            ),
            other => panic!("{other:?}"),
        };
        let all = [("a".into(), 2), ("b".into(), 2), ("a".into(), 3)];
        assert_eq!(told(store.changes(1, &Under::All, 2)), (all.to_vec(), 3));
        assert_eq!(told(store.changes(1, &Under::All, 3)), (all[2..].to_vec(), 3));
        assert_eq!(told(store.changes(1, &Under::Kind(Kind::Pod), 2)), (vec![], 3));
        assert_eq!(told(store.changes(1, &Under::All, 9)), (vec![], 3));
        store.request(&Request::Compact { revision: 2 });
        let reply = store.changes(1, &Under::All, 2);
        assert!(matches!(reply, Reply::Forgotten { compacted: 2, .. }), "{reply:?}");
        assert_eq!(told(store.changes(1, &Under::All, 3)).0.len(), 1);
    }

    #[test]
    fn a_store_without_history_says_so() {
        let mut store = Store::default();
        store.request(&txn(1, vec![], vec![put("a")]));
        store.request(&txn(2, vec![], vec![put("b")]));
        let reply = store.request(&range(None, 0, 2));
        assert!(matches!(reply, Reply::Forgotten { compacted: 3, .. }), "{reply:?}");
        let reply = store.changes(1, &Under::All, 3);
        assert!(matches!(reply, Reply::Forgotten { compacted: 3, .. }), "{reply:?}");
        assert_eq!(names(store.request(&range(None, 0, 3))).0, ["a", "b"]);
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
