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

/// A watch wants to go on from a version that was compacted: 410, it has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// Bytes of one watch event: about what a pod, metadata alone and everything else take as JSON.
const fn event_bytes(kind: Kind, scope: &Scope) -> u64 {
    match (kind, scope) {
        (_, Scope::Metadata) => 512,
        (Kind::Pod, _) => 2_048,
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
    /// It has this version already.
    from: u64,
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
    /// A version that is still to come is one that another server of this store has told of, which
    /// is ahead: the watch waits for it, as upstream's does. There a watch of a store that was lost
    /// waits as well, or goes on with a history that never was, which is why etcd's restore can
    /// raise the counter and expire what is below (`etcdutl snapshot restore --bump-revision
    /// --mark-compacted`). Here clients forget what they know when they meet a server of another
    /// store ([`Cache::identity`]), and ask from nothing.
    pub fn open(
        &mut self,
        watcher: W,
        kind: Kind,
        scope: Scope,
        from: Option<u64>,
    ) -> Result<(), Expired> {
        let known = self.cache.views.get(&kind).map(View::version);
        if from.is_some_and(|from| from < self.cache.compacted) {
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
        let from = from.unwrap_or(0);
        self.watches.insert(watcher, Watch { kind, scope, serial, ready, from, seen, backlog });
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
            Scope::All | Scope::Metadata => self.all.get(&watch.kind),
            Scope::Node(node) => self.nodes.get(&(watch.kind, node.clone())),
        };
        let events = topic.map_or(0, |topic| topic.events - watch.seen) + watch.backlog;
        events * event_bytes(watch.kind, &watch.scope)
    }

    /// The newest view in the watch's scope, if it has news.
    pub fn take(&mut self, watcher: W) -> Option<News> {
        let watch = self.watches.get_mut(&watcher)?;
        if !watch.ready {
            return None;
        }
        let (kind, scope, serial) = (watch.kind, watch.scope.clone(), watch.serial);
        watch.ready = false;
        let version = self.cache.views.get(&kind)?.version();
        if version <= watch.from {
            self.topic(kind, &scope).idle.push((serial, watcher));
            return None;
        }
        watch.from = 0;
        watch.backlog = 0;
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
            (_, Scope::All | Scope::Metadata) => self.cache.views.get(&kind),
            (Kind::Pod, Scope::Node(node)) => self.pods.get(node),
            _ => return 1,
        };
        view.map_or(0, |view| view.len() as u64)
    }

    fn topic(&mut self, kind: Kind, scope: &Scope) -> &mut Topic<W> {
        match scope {
            Scope::All | Scope::Metadata => self.all.entry(kind).or_default(),
            Scope::Node(node) => self.nodes.entry((kind, node.clone())).or_default(),
        }
    }

    /// The server's newest views, from now on.
    pub fn publish(&mut self, cache: Cache) {
        let old = std::mem::replace(&mut self.cache, cache);
        if !self.cache.goes_on(&old) {
            return self.restart(old.identity() == self.cache.identity());
        }
        match self.cache.last.clone() {
            Some(write) if self.cache.revision == old.revision + 1 => {
                let (old, new) = (write.old.as_ref(), write.new.as_ref());
                self.changed(write.kind, &write.key, old, new);
            }
            _ => self.compare(&old),
        }
    }

    /// Another history (a restarted server, and perhaps another store): everything is new.
    fn restart(&mut self, same_store: bool) {
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
            watch.from = if same_store { watch.from } else { 0 };
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
mod tests;
