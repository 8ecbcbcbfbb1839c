//! StatefulSet: pods with names that stay, made and deleted in order (upstream
//! `pkg/controller/statefulset`).
//!
//! Not here: the adoption of pods that others made, and the repair of a pod whose labels somebody
//! changed.

mod claims;
mod identity;

use super::client::{Client, Loop, Outcome, Subject};
use super::history::{Collisions, History, Present};
use super::world::{Desk, ObjectChange, World, sides};
use super::{plain, pods, tell};
use crate::objects::{Key, Kind, Object, Phase};
use crate::ports::api::{DeleteOptions, Request};
use crate::recorder::Tidings;
use k8s_openapi::api::apps::v1::{StatefulSetSpec, StatefulSetStatus};
use kubesim_runtime::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A name that another's pod has is looked at again so much later.
const TAKEN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub struct StatefulSets {
    collisions: Collisions,
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::StatefulSet, Kind::StatefulSet, key)
}

impl StatefulSets {
    pub fn observe(
        &self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
    ) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::StatefulSet => client.mark(subject(key)),
            Kind::Pod | Kind::ControllerRevision => {
                for object in old.into_iter().chain(new) {
                    if let Some(owner) = pods::owned_by(object, Kind::StatefulSet) {
                        client.mark(subject(&owner));
                    }
                }
            }
            // A claim's name ends with its pod's: `data-web-0`.
            Kind::PersistentVolumeClaim => {
                let parts = key.name.rsplit_once('-').map(|(parts, _)| parts).unwrap_or_default();
                let dashes = parts.match_indices('-').map(|(at, _)| &parts[at + 1..]);
                for name in dashes {
                    let set = Key::new(key.namespace.clone(), name);
                    if world.get(Kind::StatefulSet, &set).is_some() {
                        client.mark(subject(&set));
                    }
                }
            }
            _ => {}
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(object) = desk.world.get(Kind::StatefulSet, key).cloned() else { return };
        let (spec, status): (StatefulSetSpec, StatefulSetStatus) =
            (plain::spec(&object), plain::status(&object));
        let history = History::of(object.uid, desk.world);
        let count = status.collision_count;
        match history.present(&object, count, &mut self.collisions, Loop::StatefulSet, desk) {
            Present::Asked => {}
            Present::Collides => {
                let collision_count = Some(count.unwrap_or(0) + 1);
                write_status(&object, &StatefulSetStatus { collision_count, ..status }, desk);
            }
            Present::Is(update) => {
                let current = status.current_revision.as_deref();
                let current = current.and_then(|name| history.named(name)).unwrap_or(&update);
                let current = Arc::clone(current);
                Sync::new(&object, &spec, current, update, desk).run(&status, &history, desk);
            }
        }
    }

    pub fn answered(&mut self, outcome: &Outcome, world: &World) {
        let key = &outcome.subject.key;
        let uid = world.get(Kind::StatefulSet, key).map(|object| object.uid);
        self.collisions.answered(outcome, uid);
    }
}

fn write_status(object: &Object, next: &StatefulSetStatus, desk: &mut Desk<'_, '_>) {
    if let Some(request) = plain::write_status(object, next) {
        desk.client.ask(subject(&object.key), request);
    }
}

/// One look at one StatefulSet.
struct Sync<'a> {
    set: &'a Arc<Object>,
    spec: &'a StatefulSetSpec,
    /// The revision that pods come from and the one that they are to go to.
    current: Arc<Object>,
    update: Arc<Object>,
    /// The set's pods by their numbers.
    pods: BTreeMap<i32, &'a Arc<Object>>,
    now: Wall,
    /// When the next pod becomes available.
    next: Option<Wall>,
}

impl<'a> Sync<'a> {
    fn new(
        set: &'a Arc<Object>,
        spec: &'a StatefulSetSpec,
        current: Arc<Object>,
        update: Arc<Object>,
        desk: &Desk<'a, '_>,
    ) -> Self {
        let world = desk.world;
        let own = world.controlled(Kind::Pod, set.uid);
        let pods = own.filter_map(|pod| Some((identity::ordinal(set, pod)?, pod))).collect();
        Sync { set, spec, current, update, pods, now: desk.ctx.wall(), next: None }
    }

    fn run(mut self, stored: &StatefulSetStatus, history: &History, desk: &mut Desk<'_, '_>) {
        let status = self.status(stored);
        if status != *stored {
            write_status(self.set, &status, desk);
        }
        if !self.set.deleting() && !self.scale(stored, desk) && !self.roll(desk) {
            let used: BTreeSet<_> =
                self.pods.values().filter_map(|pod| identity::revision(pod)).collect();
            let live = |revision: &Object| {
                let name = &revision.key.name;
                *name == self.current.key.name
                    || *name == self.update.key.name
                    || used.contains(name.as_str())
            };
            let limit = self.spec.revision_history_limit;
            let which = (|revision: &Object| !live(revision), live);
            history.trim(self.set, limit, which, Loop::StatefulSet, desk);
        }
        if let Some(at) = self.next {
            let delay = at.since(self.now).max(Duration::from_millis(1));
            desk.client.mark_at(desk.ctx.now() + delay, subject(&self.set.key));
        }
    }

    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).max(0)
    }

    /// The numbers that there are to be.
    fn wanted(&self) -> std::ops::Range<i32> {
        let start = self.start();
        start..start.saturating_add(self.spec.replicas.unwrap_or(1).max(0))
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// One pod waits for another until that is ready, has been for `minReadySeconds`, and stays.
    fn is_healthy(&mut self, pod: &Object) -> bool {
        if pod.deleting() || !is_running(pod) {
            return false;
        }
        self.is_available(pod)
    }

    fn is_available(&mut self, pod: &Object) -> bool {
        match pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now) {
            Ok(available) => available,
            Err(at) => {
                self.next = self.next.into_iter().chain([at]).min();
                false
            }
        }
    }

    /// As many pods as there are to be, one after the other unless they may be made together.
    /// True if there is something to wait for.
    fn scale(&mut self, stored: &StatefulSetStatus, desk: &mut Desk<'_, '_>) -> bool {
        let mut waits = false;
        for ordinal in self.wanted() {
            waits |= match self.pods.get(&ordinal).copied() {
                None => {
                    self.create(ordinal, stored, desk);
                    true
                }
                // Its successor has its name, so it comes when this one is gone.
                Some(pod) if pods::is_terminated(pod) => {
                    self.tell_of_another(pod, desk);
                    self.delete(pod, desk);
                    true
                }
                Some(pod) => {
                    claims::provide(self.set, self.spec, ordinal, desk);
                    claims::own(self.set, self.spec, ordinal, None, desk)
                        || self.in_order() && !self.is_healthy(pod)
                }
            };
            if waits && self.in_order() {
                return true;
            }
        }
        self.shrink(desk) || waits
    }

    /// The highest number goes first. In order, each waits for those above it to be gone, and one
    /// that is not healthy goes only if all below it are.
    fn shrink(&mut self, desk: &mut Desk<'_, '_>) -> bool {
        let wanted = self.wanted();
        let surplus: Vec<(i32, &Arc<Object>)> = self
            .pods
            .iter()
            .rev()
            .filter(|(ordinal, _)| !wanted.contains(ordinal))
            .map(|(ordinal, pod)| (*ordinal, *pod))
            .collect();
        let mut lowest_first = surplus.iter().rev();
        let broken = lowest_first.find(|(_, pod)| !is_ready(pod)).map(|(ordinal, _)| *ordinal);
        let any = !surplus.is_empty();
        for (ordinal, pod) in surplus {
            if pod.deleting() {
                if self.in_order() {
                    return true;
                }
                continue;
            }
            if self.in_order() && broken != Some(ordinal) && !self.is_healthy(pod) {
                return true;
            }
            if !claims::own(self.set, self.spec, ordinal, Some(pod), desk) {
                self.delete(pod, desk);
            }
            if self.in_order() {
                return true;
            }
        }
        any
    }

    /// The next old pod of a rolling update, from the highest number down to the partition.
    fn roll(&mut self, desk: &mut Desk<'_, '_>) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|all| all.type_.as_deref()) == Some("OnDelete") {
            return false;
        }
        let partition = strategy.and_then(|all| all.rolling_update.as_ref()?.partition);
        let start = self.start();
        let least = start.saturating_add(partition.unwrap_or(0).max(0));
        for ordinal in self.wanted().rev().take_while(|ordinal| *ordinal >= least) {
            let Some(pod) = self.pods.get(&ordinal).copied() else { return true };
            let old = identity::revision(pod) != Some(self.update.key.name.as_str());
            if old && !pod.deleting() {
                self.delete(pod, desk);
                return true;
            }
            if !is_ready(pod) {
                return true;
            }
        }
        false
    }

    fn create(&self, ordinal: i32, stored: &StatefulSetStatus, desk: &mut Desk<'_, '_>) {
        let key = identity::key(self.set, ordinal);
        if desk.world.get(Kind::Pod, &key).is_some() {
            let at = desk.ctx.now() + TAKEN;
            return desk.client.mark_at(at, subject(&self.set.key));
        }
        if !claims::provide(self.set, self.spec, ordinal, desk) {
            return;
        }
        let of = if self.is_old(ordinal, stored) { &self.current } else { &self.update };
        desk.ctx.note(|| format!("StatefulSet {} creates pod {}", self.set.key, key.name));
        let object = Arc::new(identity::pod(self.set, self.spec, ordinal, of));
        desk.client.ask(subject(&self.set.key), Request::Create { object });
    }

    /// Whether a pod of this number is made of the revision that pods come from: those below the
    /// partition (`newVersionedStatefulSetPod`), and without one those that have not gone on yet.
    fn is_old(&self, ordinal: i32, stored: &StatefulSetStatus) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|all| all.type_.as_deref()) == Some("OnDelete") {
            return false;
        }
        let rolling = strategy.and_then(|all| all.rolling_update.as_ref());
        let end = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None => stored.current_replicas.unwrap_or(0),
        };
        ordinal < self.start().saturating_add(end)
    }

    /// One that ended is made anew (`processReplica` of stateful_set_control.go).
    fn tell_of_another(&self, pod: &Object, desk: &mut Desk<'_, '_>) {
        if pod.deleting() {
            return;
        }
        let failed = pod.pod_facts().is_some_and(|facts| facts.phase == Phase::Failed);
        let (what, end) = match failed {
            true => (Tidings::warning("RecreatingFailedPod"), "failed"),
            false => (Tidings::normal("RecreatingTerminatedPod"), "terminated"),
        };
        desk.client.recorder.tell(tell::name(Loop::StatefulSet), self.set, what, || {
            format!("StatefulSet {} is recreating {end} Pod {}", self.set.key, pod.key.name)
        });
    }

    fn delete(&self, pod: &Object, desk: &mut Desk<'_, '_>) {
        if pod.deleting() {
            return;
        }
        desk.ctx.note(|| format!("StatefulSet {} deletes pod {}", self.set.key, pod.key.name));
        let options = DeleteOptions { uid: Some(pod.uid), ..DeleteOptions::default() };
        let request = Request::Delete { kind: Kind::Pod, key: pod.key.clone(), options };
        desk.client.ask(subject(&self.set.key), request);
    }

    /// `updateStatus` and `completeRollingUpdate`.
    fn status(&mut self, stored: &StatefulSetStatus) -> StatefulSetStatus {
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        for pod in self.pods.values().copied().collect::<Vec<_>>() {
            let runs = is_running(pod) && pods::is_ready(pod);
            ready += i32::from(runs);
            available += i32::from(runs && self.is_available(pod));
            if !pod.deleting() {
                let is = |of: &Object| identity::revision(pod) == Some(of.key.name.as_str());
                current += i32::from(is(&self.current));
                updated += i32::from(is(&self.update));
            }
        }
        let replicas = i32::try_from(self.pods.len()).unwrap_or(i32::MAX);
        let strategy = self.spec.update_strategy.as_ref();
        let rolls = strategy.and_then(|all| all.type_.as_deref()) != Some("OnDelete");
        let wanted = self.wanted().len() as i32;
        let complete = rolls && [replicas, updated, ready].iter().all(|count| *count == wanted);
        let revision = if complete { &self.update } else { &self.current };
        let some = |count: i32| Some(count).filter(|count| *count != 0);
        StatefulSetStatus {
            available_replicas: Some(available),
            collision_count: Some(stored.collision_count.unwrap_or(0)),
            conditions: stored.conditions.clone(),
            current_replicas: some(if complete { updated } else { current }),
            current_revision: Some(revision.key.name.to_string()),
            observed_generation: self.set.meta.generation,
            ready_replicas: some(ready),
            replicas,
            update_revision: Some(self.update.key.name.to_string()),
            updated_replicas: some(updated),
        }
    }
}

/// `isHealthy`: it runs, is ready and stays, for however short a time yet.
fn is_ready(pod: &Object) -> bool {
    is_running(pod) && pods::is_ready(pod) && !pod.deleting()
}

fn is_running(pod: &Object) -> bool {
    pod.pod_facts().is_some_and(|facts| facts.phase == Phase::Running)
}
