//! Garbage collection: what belongs to an owner that is gone goes too (background propagation,
//! upstream `pkg/controller/garbagecollector`), or before it, or is let go (`cascade`), and pods
//! that no kubelet will ever finish (upstream `pkg/controller/podgc`).
//!
//! Upstream watches all there is. Here, which kinds are collected is configured (`kinds`), and
//! owners of others are looked up now and then (`owner`).

mod cascade;
mod kinds;
mod owner;

use super::Controllers;
use super::client::{Client, Loop, Outcome, Subject};
use super::world::{Desk, ObjectChange, World, node_of, sides};
use crate::objects::{Key, Kind, Name, Object, OwnerReference, Uid};
use crate::ports::api::{DeleteOptions, Reason, Request};
use kinds::Kinds;
pub use kinds::collectable;
use kubesim_runtime::{Context, Time};
use owner::Standing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A Node unseen for this long is looked up before its pods go (`podgc`: quarantineTime).
const QUARANTINE: Duration = Duration::from_secs(40);

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

#[derive(Clone, Debug, Default)]
pub struct Collector {
    kinds: Kinds,
    dependents: BTreeMap<Uid, BTreeSet<(Kind, Key)>>,
    /// Owners that are known to be gone: seen leaving, or looked up and not found.
    dead: BTreeSet<Uid>,
    /// Owners that no view showed and that were looked up and found.
    alive: BTreeSet<Uid>,
    /// Owners of kinds that are not shown: how long what a look-up told is good.
    looked_up: BTreeMap<Uid, Time>,
    /// Owners whose deletion waits for what is done with what they own.
    waiting: BTreeMap<Uid, (Kind, Key)>,
    /// Nodes that pods are bound to and that no view shows, and since when.
    absent: BTreeMap<Name, Time>,
    /// Absent Nodes that were looked up and not found.
    gone: BTreeSet<Name>,
}

fn owners(object: &Object) -> impl Iterator<Item = (&OwnerReference, Uid)> {
    let all = object.meta.owner_references.iter().flatten();
    all.filter_map(|owner| Some((owner, Uid::parse(&owner.uid)?)))
}

fn subject(kind: Kind, key: &Key) -> Subject {
    Subject::new(Loop::Collector, kind, key)
}

impl Collector {
    /// That watches these kinds, besides those that are watched anyway.
    pub fn start(kinds: impl Iterator<Item = Kind>, ctx: &mut Context<'_, Controllers>) -> Self {
        let mut collector = Collector::default();
        for kind in kinds {
            collector.kinds.watch(kind, ctx);
        }
        collector
    }

    /// What is told of a kind counts.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.has(kind)
    }

    pub fn definition_changed(
        &mut self,
        change: &ObjectChange<'_>,
        ctx: &mut Context<'_, Controllers>,
    ) {
        self.kinds.definition_changed(change, ctx);
    }

    /// All that the kind's view shows was observed. Kinds that are to be forgotten are told.
    pub fn looked(&mut self, kind: Kind, client: &mut Client) -> Vec<Kind> {
        if self.kinds.shown(kind) {
            self.all_shown(client);
        }
        self.kinds.take_undeclared()
    }

    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        let (key, old, new) = sides(change);
        self.wait_changed(kind, key, old, new, client);
        self.references_changed(kind, key, old, new, client);
        let left = old.filter(|old| new.is_none_or(|new| new.uid != old.uid));
        if let Some(old) = left {
            self.alive.remove(&old.uid);
            if let Some(dependents) = self.dependents.get(&old.uid) {
                self.dead.insert(old.uid);
                dependents.iter().for_each(|(kind, key)| client.mark(subject(*kind, key)));
            }
        }
        match kind {
            Kind::Pod => {
                if let Some(pod) = new {
                    self.pod_seen(pod, old, world, client);
                }
            }
            Kind::Node => self.node_changed(key, old, new, world, client, now),
            _ => {}
        }
    }

    fn references_changed(
        &mut self,
        kind: Kind,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        client: &mut Client,
    ) {
        if let (Some(old), Some(new)) = (old, new)
            && (Arc::ptr_eq(&old.meta, &new.meta)
                || old.meta.owner_references == new.meta.owner_references)
        {
            return;
        }
        for (_, uid) in old.into_iter().flat_map(|old| owners(old)) {
            if let Some((kind, key)) = self.waiting.get(&uid) {
                client.mark(subject(*kind, key));
            }
            if let Some(dependents) = self.dependents.get_mut(&uid) {
                dependents.remove(&(kind, key.clone()));
                if dependents.is_empty() {
                    self.dependents.remove(&uid);
                    self.dead.remove(&uid);
                    self.alive.remove(&uid);
                    self.looked_up.remove(&uid);
                }
            }
        }
        let Some(new) = new else { return };
        let mut owned = false;
        for (_, uid) in owners(new) {
            self.dependents.entry(uid).or_default().insert((kind, key.clone()));
            owned = true;
        }
        if owned {
            client.mark(subject(kind, key));
        }
    }

    fn pod_seen(
        &mut self,
        pod: &Arc<Object>,
        old: Option<&Arc<Object>>,
        world: &World,
        client: &mut Client,
    ) {
        let node = node_of(pod);
        let moved = old.is_none_or(|old| node_of(old) != node);
        let absent = |name: &str| world.get(Kind::Node, &Key::cluster(name)).is_none();
        if node.is_some_and(|name| moved && absent(name)) || pod.deleting() {
            client.mark(subject(Kind::Pod, &pod.key));
        }
    }

    fn node_changed(
        &mut self,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        if new.is_some() {
            self.absent.remove(&key.name);
            self.gone.remove(&key.name);
        } else {
            self.absent.insert(key.name.clone(), now);
        }
        let out = |node: Option<&Arc<Object>>| node.is_some_and(|node| out_of_service(node));
        if new.is_none() || out(new) && !out(old) {
            for pod in world.bound_to(&key.name) {
                client.mark(subject(Kind::Pod, &pod.key));
            }
        }
    }

    pub fn sync(&mut self, kind: Kind, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(object) = desk.world.get(kind, key).cloned() else { return };
        if let Some(propagation) = cascade::asked(&object) {
            return self.cascade(propagation, &object, desk);
        }
        let going = self.waiting_owners(&object, desk.world);
        if !object.deleting() && !going.is_empty() {
            return self.precede(&object, &going, desk);
        }
        if !object.deleting() && self.is_left(&object, desk) {
            return;
        }
        if kind == Kind::Pod && self.is_abandoned(&object, desk) {
            desk.ctx.note(|| format!("pod {key} is removed: no kubelet can finish it"));
            let options = DeleteOptions {
                uid: Some(object.uid),
                grace: Some(Duration::ZERO),
                ..DeleteOptions::default()
            };
            let request = Request::Delete { kind, key: key.clone(), options };
            desk.ask(Loop::Collector, kind, key, request);
        }
    }

    /// Has an object go whose owners are all gone; of one that has others besides, the references
    /// to those that are gone (`attemptToDeleteItem`). True if there was something to do.
    fn is_left(&mut self, object: &Arc<Object>, desk: &mut Desk<'_, '_>) -> bool {
        let (mut gone, mut any) = (Vec::new(), false);
        for (owner, uid) in owners(object) {
            match self.standing(owner, uid, object, desk) {
                Standing::Gone => gone.push(uid),
                Standing::There => any = true,
                Standing::Asked => return true,
            }
        }
        let (kind, key) = (object.kind(), &object.key);
        if gone.is_empty() {
            return false;
        }
        let request = if any {
            cascade::without_owners(object, |uid| gone.contains(&uid))
        } else {
            let options = DeleteOptions { uid: Some(object.uid), ..DeleteOptions::default() };
            Request::Delete { kind, key: key.clone(), options }
        };
        desk.ask(Loop::Collector, kind, key, request);
        true
    }

    /// No kubelet will ever report this pod's end.
    fn is_abandoned(&mut self, pod: &Object, desk: &mut Desk<'_, '_>) -> bool {
        let Some(node) = node_of(pod) else {
            // `gcUnscheduledTerminating`. What only finalizers hold goes when those do.
            let grace = pod.meta.deletion_grace_period_seconds.unwrap_or(0);
            return pod.deleting() && (grace > 0 || pod.meta.finalizers.is_none());
        };
        let key = Key::cluster(node.clone());
        let now = desk.ctx.now();
        match desk.world.get(Kind::Node, &key) {
            Some(node) => pod.deleting() && out_of_service(node) && !super::lifecycle::ready(node),
            None if self.gone.contains(node) => true,
            None => {
                let since = *self.absent.entry(key.name.clone()).or_insert(now);
                let subject = subject(Kind::Pod, &pod.key);
                if now >= since + QUARANTINE {
                    desk.client.ask(subject, Request::Get { kind: Kind::Node, key });
                } else {
                    desk.client.mark_at(since + QUARANTINE, subject);
                }
                false
            }
        }
    }

    /// What a look-up found.
    pub fn answered(&mut self, outcome: &Outcome, world: &World, client: &mut Client, now: Time) {
        let Request::Get { kind, key } = &*outcome.request else { return };
        let missing = matches!(&outcome.result, Err(error) if error.reason == Reason::NotFound);
        let found = match &outcome.result {
            Ok(Some(object)) => Some(object.uid),
            _ if missing => None,
            _ => return,
        };
        let subject = &outcome.subject;
        let Some(dependent) = world.get(subject.kind, &subject.key) else { return };
        let watched = world.view(*kind).is_some();
        for (owner, uid) in owners(dependent) {
            if self.kinds.place(owner, &dependent.key).as_ref() == Some(&(*kind, key.clone())) {
                self.told(watched, uid, found == Some(uid), client);
            }
        }
        if *kind == Kind::Node && world.get(Kind::Node, key).is_none() {
            if missing {
                self.gone.insert(key.name.clone());
            } else {
                self.absent.insert(key.name.clone(), now);
            }
        }
        client.mark(subject.clone());
    }
}

fn out_of_service(node: &Object) -> bool {
    let taints = node.node().and_then(|(spec, _)| spec.taints.as_ref());
    taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
}
