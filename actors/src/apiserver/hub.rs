//! Bookkeeping of watches for whoever serves them (the model's front or the HTTP server): who has
//! news, what it is, and what a real watch would have sent for it.
//!
//! Publishing costs what changed, never what is watched: a watch that has not taken its news yet is
//! not told again, and watches of one node are found by the node's name.

use super::Cache;
use super::cache::derived_history;
use crate::objects::{Key, Kind, Name, Object, View};
use crate::ports::api::{News, Scope};
use kubesim_runtime::{Change, Lookup};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A watch wants to go on from a version that was compacted, or that the store has not reached:
/// 410, it has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// Bytes of one watch event: about what a pod and everything else take as JSON.
const fn event_bytes(kind: Kind) -> u64 {
    match kind {
        Kind::Pod => 2_048,
        _ => 1_024,
    }
}

/// Where leases of nodes live.
const LEASES: &str = "kube-node-lease";

/// `W` names a watch.
#[derive(Clone, Debug)]
pub struct Hub<W: Copy + Ord> {
    cache: Cache,
    watches: BTreeMap<W, Watch>,
    /// Watches of everything, by kind.
    all: BTreeMap<Kind, Topic<W>>,
    /// Watches of one node's objects, by kind and node.
    nodes: Lookup<(Kind, Name), Topic<W>>,
    /// Every node's pods, watched or not.
    pods: Lookup<Name, View>,
    ready: Vec<(u64, W)>,
    opened: u64,
}

#[derive(Clone, Debug)]
struct Watch {
    kind: Kind,
    scope: Scope,
    /// Tells this opening from an earlier one of the same watcher.
    serial: u64,
    ready: bool,
    /// Of its topic's count of events, how many it has been sent.
    seen: u64,
    /// Events on top of those, from before it was opened.
    backlog: u64,
}

#[derive(Clone, Debug)]
struct Topic<W> {
    /// Events so far.
    events: u64,
    /// Watches without news.
    idle: Vec<(u64, W)>,
}

impl<W> Default for Topic<W> {
    fn default() -> Self {
        Topic { events: 0, idle: Vec::new() }
    }
}

impl<W: Copy + Ord> Default for Hub<W> {
    fn default() -> Self {
        Hub {
            cache: Cache::default(),
            watches: BTreeMap::new(),
            all: BTreeMap::new(),
            nodes: Lookup::default(),
            pods: Lookup::default(),
            ready: Vec::new(),
            opened: 0,
        }
    }
}

impl<W: Copy + Ord> Hub<W> {
    pub fn new() -> Self {
        Hub::default()
    }
    /// What reads are served from.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Opens a watch, in place of an earlier one of the same watcher. `from` is the version it has
    /// already; with `None` its first news is everything in scope.
    ///
    /// A version that is still to come is one of a store that was lost, and so is what the watcher
    /// knows. Upstream has such a watch wait until the new store has counted so far, which is why
    /// etcd's restore can raise the counter and expire what is below (`etcdutl snapshot restore
    /// --bump-revision --mark-compacted`). This needs no operator, but sees a lost store only for
    /// as long as the new one has counted less far than the watcher.
    pub fn open(
        &mut self,
        watcher: W,
        kind: Kind,
        scope: Scope,
        from: Option<u64>,
    ) -> Result<(), Expired> {
        let known = self.cache.views.get(&kind).map(View::version);
        let to_come = known.is_some() && from.is_some_and(|from| from > self.cache.revision);
        if to_come || from.is_some_and(|from| from < self.cache.compacted) {
            return Err(Expired);
        }
        self.opened += 1;
        let serial = self.opened;
        let backlog = match (known, from) {
            (None, _) => 0,
            (Some(_), None) => self.in_scope(kind, &scope),
            // At most one event for each revision since.
            (Some(version), Some(from)) => {
                version.saturating_sub(from).min(self.in_scope(kind, &scope).max(1))
            }
        };
        let ready = known.is_some_and(|version| from.is_none_or(|from| from < version));
        let topic = self.topic(kind, &scope);
        let seen = topic.events;
        if !ready {
            topic.idle.push((serial, watcher));
        } else {
            self.ready.push((serial, watcher));
        }
        self.watches.insert(watcher, Watch { kind, scope, serial, ready, seen, backlog });
        Ok(())
    }

    pub fn close(&mut self, watcher: W) {
        // Its places in the lists of the idle and the ready are skipped by their serial.
        self.watches.remove(&watcher);
    }

    /// The watches that have had news since their last [`Hub::take`] or this method's last call,
    /// in the order in which they got it.
    pub fn take_ready(&mut self) -> Vec<W> {
        let ready = std::mem::take(&mut self.ready);
        let live = |(serial, watcher): (u64, W)| {
            let watch = self.watches.get(&watcher)?;
            (watch.serial == serial && watch.ready).then_some(watcher)
        };
        ready.into_iter().filter_map(live).collect()
    }

    /// What the news that [`Hub::take`] would give weighs on a real watch: every event since the
    /// last one taken.
    pub fn bytes(&self, watcher: W) -> u64 {
        let Some(watch) = self.watches.get(&watcher) else {
            return 0;
        };
        let topic = match &watch.scope {
            Scope::All => self.all.get(&watch.kind),
            Scope::Node(node) => self.nodes.get(&(watch.kind, node.clone())),
        };
        let events = topic.map_or(0, |topic| topic.events - watch.seen) + watch.backlog;
        events * event_bytes(watch.kind)
    }

    /// The newest view in the watch's scope, if it has news.
    pub fn take(&mut self, watcher: W) -> Option<News> {
        let watch = self.watches.get_mut(&watcher)?;
        if !watch.ready {
            return None;
        }
        watch.ready = false;
        watch.backlog = 0;
        let (kind, scope, serial) = (watch.kind, watch.scope.clone(), watch.serial);
        let view = self.view(kind, &scope)?;
        let topic = self.topic(kind, &scope);
        topic.idle.push((serial, watcher));
        let events = topic.events;
        if let Some(watch) = self.watches.get_mut(&watcher) {
            watch.seen = events;
        }
        Some(News::View { kind, scope, view })
    }

    /// What is in scope, as of the kind's newest version.
    pub fn view(&mut self, kind: Kind, scope: &Scope) -> Option<View> {
        let full = self.cache.views.get(&kind)?;
        let Scope::Node(node) = scope else {
            return Some(full.clone());
        };
        let history = derived_history(full.history(), kind, node);
        if kind == Kind::Pod {
            let own = self.pods.entry(node.clone()).or_insert_with(|| full.derived(history));
            own.advance(full.version());
            return Some(own.clone());
        }
        let mut own: View = full.derived(history);
        own.advance(full.version());
        let key = key_of(kind, node);
        if let Some(object) = full.get(&key) {
            own.insert(key, object.clone(), full.version());
        }
        Some(own)
    }

    fn in_scope(&self, kind: Kind, scope: &Scope) -> u64 {
        let view = match (kind, scope) {
            (_, Scope::All) => self.cache.views.get(&kind),
            (Kind::Pod, Scope::Node(node)) => self.pods.get(node),
            _ => return 1,
        };
        view.map_or(0, |view| view.len() as u64)
    }

    fn topic(&mut self, kind: Kind, scope: &Scope) -> &mut Topic<W> {
        match scope {
            Scope::All => self.all.entry(kind).or_default(),
            Scope::Node(node) => self.nodes.entry((kind, node.clone())).or_default(),
        }
    }

    /// The server's newest views, from now on.
    pub fn publish(&mut self, cache: Cache) {
        let old = std::mem::replace(&mut self.cache, cache);
        let same_history = self.cache.views.iter().all(|(kind, view)| {
            old.views.get(kind).is_some_and(|old| old.history() == view.history())
        });
        if !same_history {
            return self.restart();
        }
        match self.cache.last.clone() {
            Some(write) if self.cache.revision == old.revision + 1 => {
                let (old, new) = (write.old.as_ref(), write.new.as_ref());
                self.changed(write.kind, &write.key, old, new);
            }
            _ => self.compare(&old),
        }
    }

    /// Another history (a restarted server, a store that lost its disk): everything is new.
    fn restart(&mut self) {
        self.pods.clear();
        let pods = self.cache.views.get(&Kind::Pod).cloned();
        for (key, pod) in pods.iter().flat_map(|view| view.iter()) {
            if let Some(node) = node_of(pod) {
                self.place(&node, key, Some(pod));
            }
        }
        let watchers: Vec<W> = self.watches.keys().copied().collect();
        for watcher in watchers {
            let Some(watch) = self.watches.get(&watcher) else {
                continue;
            };
            let (kind, scope) = (watch.kind, watch.scope.clone());
            let backlog = self.in_scope(kind, &scope);
            self.topic(kind, &scope).idle.clear();
            let Some(watch) = self.watches.get_mut(&watcher) else {
                continue;
            };
            watch.backlog = backlog;
            if !watch.ready {
                watch.ready = true;
                self.ready.push((watch.serial, watcher));
            }
        }
    }

    /// Several writes at once, or a reading of the store.
    fn compare(&mut self, old: &Cache) {
        let new = self.cache.views.clone();
        for (kind, view) in &new {
            let Some(before) = old.views.get(kind) else {
                continue;
            };
            if before.version() == view.version() {
                continue;
            }
            for change in before.diff(view) {
                match change {
                    Change::Added(key, new) => self.changed(*kind, key, None, Some(new)),
                    Change::Changed { key, old, new } => {
                        self.changed(*kind, key, Some(old), Some(new));
                    }
                    Change::Removed(key, old) => self.changed(*kind, key, Some(old), None),
                }
            }
        }
    }

    fn changed(
        &mut self,
        kind: Kind,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
    ) {
        if let Some(topic) = self.all.get_mut(&kind) {
            wake(topic, &mut self.watches, &mut self.ready);
        }
        match kind {
            Kind::Pod => {
                let (before, after) = (old.and_then(node_of), new.and_then(node_of));
                if let Some(node) = before.filter(|node| after.as_ref() != Some(node)) {
                    self.place(&node, key, None);
                    self.wake_node(kind, &node);
                }
                if let Some(node) = after {
                    self.place(&node, key, new);
                    self.wake_node(kind, &node);
                }
            }
            Kind::Node | Kind::Subnet => self.wake_node(kind, &key.name),
            Kind::Lease if key.namespace == LEASES => self.wake_node(kind, &key.name),
            _ => {}
        }
    }

    fn wake_node(&mut self, kind: Kind, node: &Name) {
        if let Some(topic) = self.nodes.get_mut(&(kind, node.clone())) {
            wake(topic, &mut self.watches, &mut self.ready);
        }
    }

    /// Puts a pod among a node's, or takes it away.
    fn place(&mut self, node: &Name, key: &Key, pod: Option<&Arc<Object>>) {
        let Some(full) = self.cache.views.get(&Kind::Pod) else {
            return;
        };
        let (history, version) = (full.history(), full.version());
        let own = self
            .pods
            .entry(node.clone())
            .or_insert_with(|| full.derived(derived_history(history, Kind::Pod, node)));
        match pod {
            Some(pod) => own.insert(key.clone(), pod.clone(), version),
            None => own.remove(key, version),
        };
    }
}

fn wake<W: Copy + Ord>(
    topic: &mut Topic<W>,
    watches: &mut BTreeMap<W, Watch>,
    ready: &mut Vec<(u64, W)>,
) {
    topic.events += 1;
    for (serial, watcher) in topic.idle.drain(..) {
        if let Some(watch) = watches.get_mut(&watcher)
            && watch.serial == serial
        {
            watch.ready = true;
            ready.push((serial, watcher));
        }
    }
}

fn node_of(pod: &Arc<Object>) -> Option<Name> {
    pod.pod_facts()?.node().cloned()
}

/// The key of the Node, Lease or Subnet of this name.
fn key_of(kind: Kind, node: &Name) -> Key {
    match kind {
        Kind::Lease => Key::new(LEASES, node.clone()),
        _ => Key::cluster(node.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Body, PodBody, PodSpec};
    use kubesim_runtime::Snapshot;

    fn pod(name: &str, node: Option<&str>, version: u64) -> Arc<Object> {
        let spec = PodSpec { node_name: node.map(str::to_owned), ..PodSpec::default() };
        let body = Body::Pod(PodBody::new(Arc::new(spec), Arc::default()));
        let mut object = Object::new(Key::new("n", name), body);
        object.version = version;
        Arc::new(object)
    }

    /// The cache after one more write.
    fn with(cache: &Cache, object: &Arc<Object>, gone: bool) -> Cache {
        let mut next = cache.clone();
        next.revision += 1;
        let (kind, key) = (object.kind(), object.key.clone());
        let view = next.views.entry(kind).or_insert_with(|| Snapshot::empty(7));
        let old = if gone {
            view.remove(&key, next.revision)
        } else {
            view.insert(key.clone(), object.clone(), next.revision)
        };
        let new = (!gone).then(|| object.clone());
        next.last = Some(super::super::LastWrite { kind, key, old, new });
        next
    }

    fn empty() -> Cache {
        let mut cache = Cache { revision: 10, ..Cache::default() };
        for kind in Kind::ALL {
            let mut view = Snapshot::empty(7);
            view.advance(10);
            cache.views.insert(*kind, view);
        }
        cache
    }

    fn names(news: Option<News>) -> Vec<String> {
        match news {
            Some(News::View { view, .. }) => {
                view.values().map(|o| o.key.name.to_string()).collect()
            }
            _ => vec!["no news".to_owned()],
        }
    }

    #[test]
    fn only_the_nodes_a_pod_leaves_or_joins_hear_of_it() {
        let mut hub = Hub::<u32>::new();
        let mut cache = empty();
        hub.publish(cache.clone());
        for (watcher, node) in [(1, "a"), (2, "b"), (3, "c")] {
            hub.open(watcher, Kind::Pod, Scope::Node(node.into()), None).unwrap();
        }
        hub.open(4, Kind::Pod, Scope::All, None).unwrap();
        assert_eq!(hub.take_ready(), [1, 2, 3, 4]);
        for watcher in 1..=4 {
            assert_eq!(names(hub.take(watcher)), [""; 0]);
        }
        cache = with(&cache, &pod("p", Some("a"), 11), false);
        hub.publish(cache.clone());
        assert_eq!(hub.take_ready(), [4, 1]);
        assert_eq!((hub.bytes(1), hub.bytes(2)), (2048, 0));
        assert_eq!(names(hub.take(1)), ["p"]);
        cache = with(&cache, &pod("p", Some("b"), 12), false);
        hub.publish(cache.clone());
        // 4 has not taken its first news yet and is not told twice.
        assert_eq!(hub.take_ready(), [1, 2]);
        assert_eq!(hub.bytes(4), 2 * 2048);
        assert_eq!((names(hub.take(1)), names(hub.take(2))), (vec![], vec!["p".to_owned()]));
        cache = with(&cache, &pod("p", Some("b"), 13), true);
        hub.publish(cache);
        assert_eq!(hub.take_ready(), [2]);
        assert_eq!(names(hub.take(3)), ["no news"]);
    }

    #[test]
    fn a_cache_that_skips_versions_is_compared() {
        let mut hub = Hub::<u32>::new();
        let first = empty();
        hub.publish(first.clone());
        hub.open(1, Kind::Pod, Scope::Node("a".into()), Some(10)).unwrap();
        hub.open(2, Kind::Node, Scope::All, Some(10)).unwrap();
        assert!(hub.take_ready().is_empty());
        let second = with(&first, &pod("p", Some("a"), 11), false);
        let third = with(&second, &pod("q", Some("a"), 12), false);
        hub.publish(third);
        assert_eq!(hub.take_ready(), [1]);
        assert_eq!(names(hub.take(1)), ["p", "q"]);
    }

    #[test]
    fn a_watch_from_before_the_compaction_is_expired() {
        let mut hub = Hub::<u32>::new();
        hub.publish(Cache { compacted: 5, ..empty() });
        assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(4)), Err(Expired));
        // Of a store that has counted further, and is lost.
        assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(11)), Err(Expired));
        assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(10)), Ok(()));
        assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(5)), Ok(()));
        assert_eq!(hub.take_ready(), [1]);
        assert_eq!(hub.open(1, Kind::Pod, Scope::All, None), Ok(()));
        hub.close(1);
        assert!(hub.take_ready().is_empty());
        assert!(hub.take(1).is_none());
    }
}
