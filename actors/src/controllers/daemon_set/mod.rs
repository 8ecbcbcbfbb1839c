//! DaemonSet: a pod on every node that is to have one (upstream `pkg/controller/daemon`).
//!
//! A pod is made for its node, by an affinity that only that node meets, and bound by the
//! scheduler. The pods' label for the deprecated template generation is not written, and pods that
//! others made are not adopted.

mod nodes;
mod rollout;

use super::burst::{self, Burst};
use super::client::{Client, Loop, Outcome, Subject};
use super::history::{self, Collisions, History, Present};
use super::world::{Desk, ObjectChange, World, sides};
use super::{names, plain, pods, tell, template};
use crate::objects::{Key, Kind, Name, Object, ObjectMeta, Phase, PodSpec};
use crate::ports::api::{DeleteOptions, Reason, Request};
use crate::recorder::Tidings;
use k8s_openapi::api::apps::v1::{DaemonSetSpec, DaemonSetStatus};
use kubesim_runtime::{Backoff, Time, Wall};
use nodes::{Fit, Wanted};
use rollout::Limits;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A pod that failed is replaced at once, and after that ever more slowly (`failedPodsBackoff`:
/// `NewBackOff(1*time.Second, 15*time.Minute)`).
const FAILED: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(15 * 60),
    jitter: 0.0,
    reset_after: Duration::ZERO,
};

#[derive(Clone, Debug, Default)]
pub struct DaemonSets {
    states: BTreeMap<Key, State>,
    collisions: Collisions,
}

#[derive(Clone, Debug, Default)]
struct State {
    burst: Option<Burst>,
    /// By node: how many pods have failed there in a row, and when the next may be deleted.
    failed: BTreeMap<Name, (u32, Time)>,
}

/// A node with what there is of a DaemonSet on it.
pub struct OnNode<'a> {
    name: Name,
    wanted: Wanted,
    /// Those that are bound first, of those the oldest first (`podByCreationTimestampAndPhase`).
    pods: Vec<&'a Arc<Object>>,
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::DaemonSet, Kind::DaemonSet, key)
}

impl DaemonSets {
    pub fn observe(&mut self, kind: Kind, change: &ObjectChange<'_>, client: &mut Client) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::DaemonSet => {
                match new {
                    Some(_) => _ = self.states.entry(key.clone()).or_default(),
                    None => _ = self.states.remove(key),
                }
                client.mark(subject(key));
            }
            Kind::Pod | Kind::ControllerRevision => {
                for object in old.into_iter().chain(new) {
                    if let Some(owner) = pods::owned_by(object, Kind::DaemonSet) {
                        client.mark(subject(&owner));
                    }
                }
            }
            Kind::Node if !same_to_daemons(old, new) => {
                self.states.keys().for_each(|key| client.mark(subject(key)));
            }
            _ => {}
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(object) = desk.world.get(Kind::DaemonSet, key).cloned() else { return };
        let state = self.states.entry(key.clone()).or_default();
        if object.deleting() || state.burst.as_ref().is_some_and(Burst::is_out) {
            return;
        }
        state.burst = None;
        let (spec, status): (DaemonSetSpec, DaemonSetStatus) =
            (plain::spec(&object), plain::status(&object));
        let selects = spec.selector.match_labels.as_ref().is_some_and(|all| !all.is_empty())
            || spec.selector.match_expressions.as_ref().is_some_and(|all| !all.is_empty());
        if !selects {
            return;
        }
        let history = History::of(object.uid, desk.world);
        let count = status.collision_count;
        match history.present(&object, count, &mut self.collisions, Loop::DaemonSet, desk) {
            Present::Asked => {}
            Present::Collides => {
                let collision_count = Some(count.unwrap_or(0) + 1);
                let next = DaemonSetStatus { collision_count, ..status };
                if let Some(request) = plain::write_status(&object, &next) {
                    desk.ask(Loop::DaemonSet, Kind::DaemonSet, key, request);
                }
            }
            Present::Is(revision) => {
                let hash = revision.label(history::HASH).unwrap_or_default().to_owned();
                let now = desk.ctx.wall();
                let (meta, pod) = daemon(&object, &spec, &hash);
                let sync =
                    Sync { object: &object, spec: &spec, meta, pod, hash, now, next: None, state };
                sync.run(&status, &history, desk);
            }
        }
    }

    pub fn answered(&mut self, outcome: &Outcome, world: &World, client: &mut Client) {
        let key = &outcome.subject.key;
        let uid = world.get(Kind::DaemonSet, key).map(|object| object.uid);
        self.collisions.answered(outcome, uid);
        let burst = self.states.get_mut(key).and_then(|state| state.burst.as_mut());
        let (Request::Create { object }, Some(burst)) = (&*outcome.request, burst) else { return };
        if object.kind() != Kind::Pod {
            return;
        }
        let refused = outcome.result.as_ref().err();
        if refused.is_some_and(|error| error.reason != Reason::AlreadyExists) {
            burst.refused();
        }
        burst.answered(&outcome.subject, client);
    }
}

/// Nothing changed that says where daemons run (`shouldIgnoreNodeUpdate`).
fn same_to_daemons(old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let taints = |node: &Object| node.node().and_then(|(spec, _)| spec.taints.clone());
    old.meta.labels == new.meta.labels && taints(old) == taints(new)
}

/// Metadata and spec of the DaemonSet's pods, but for the node.
fn daemon(object: &Object, spec: &DaemonSetSpec, hash: &str) -> (ObjectMeta, PodSpec) {
    let (mut meta, mut pod) = template::parts(object, spec.template.clone());
    let labels = meta.labels.get_or_insert_default();
    labels.insert(history::HASH.to_owned(), hash.to_owned());
    nodes::tolerate(&mut pod);
    (meta, pod)
}

/// One look at one DaemonSet.
pub struct Sync<'a> {
    object: &'a Arc<Object>,
    spec: &'a DaemonSetSpec,
    meta: ObjectMeta,
    pod: PodSpec,
    hash: String,
    now: Wall,
    /// When the next pod becomes available.
    next: Option<Wall>,
    state: &'a mut State,
}

impl Sync<'_> {
    pub fn is_updated(&self, pod: &Object) -> bool {
        pod.label(history::HASH) == Some(&self.hash)
    }

    pub fn is_available(&mut self, pod: &Object) -> bool {
        match pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now) {
            Ok(available) => available,
            Err(at) => {
                self.next = self.next.into_iter().chain([at]).min();
                false
            }
        }
    }

    fn run(mut self, status: &DaemonSetStatus, history: &History, desk: &mut Desk<'_, '_>) {
        let world = desk.world;
        let own: Vec<_> = world.controlled(Kind::Pod, self.object.uid).collect();
        let nodes = self.nodes(&own, world);
        self.write_status(status, &nodes, desk);
        if !self.manage(&nodes, &own, desk) && !self.roll(&nodes, desk) {
            let used: BTreeSet<_> = own.iter().filter_map(|pod| pod.label(history::HASH)).collect();
            let live = |revision: &Object| {
                let hash = revision.label(history::HASH);
                hash.is_some_and(|hash| hash == self.hash || used.contains(hash))
            };
            // Those that pods are of count as well (`cleanupHistory`).
            let counted = |revision: &Object| revision.label(history::HASH) != Some(&*self.hash);
            let limit = self.spec.revision_history_limit;
            history.trim(self.object, limit, (counted, live), Loop::DaemonSet, desk);
        }
        if let Some(at) = self.next {
            let delay = at.since(self.now).max(Duration::from_millis(1));
            desk.client.mark_at(desk.ctx.now() + delay, subject(&self.object.key));
        }
    }

    /// All nodes that there are, each with what is on it or for it.
    fn nodes<'w>(&self, own: &[&'w Arc<Object>], world: &World) -> Vec<OnNode<'w>> {
        let key = Key::new(self.object.key.namespace.clone(), "");
        let pod = template::pod(key, ObjectMeta::default(), self.pod.clone());
        let fit = Fit::of(&pod, &self.pod);
        let mut by_node: BTreeMap<Name, Vec<&Arc<Object>>> = BTreeMap::new();
        // What has ended and is going makes room, whoever holds it (`getNodesToDaemonPods`).
        for &pod in own.iter().filter(|pod| !pod.deleting() || !pods::is_terminated(pod)) {
            if let Some(node) = nodes::target(pod) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let all = world.view(Kind::Node).into_iter().flat_map(|view| view.iter());
        all.map(|(key, node)| {
            let mut pods = by_node.remove(&key.name).unwrap_or_default();
            pods.sort_by_key(|pod| (super::world::node_of(pod).is_none(), pods::age(pod)));
            OnNode { name: key.name.clone(), wanted: fit.wants(node), pods }
        })
        .collect()
    }

    /// Missing pods are made and those that should not be are deleted (`podsShouldBeOnNode`).
    /// True if any was.
    fn manage(
        &mut self,
        nodes: &[OnNode<'_>],
        own: &[&Arc<Object>],
        desk: &mut Desk<'_, '_>,
    ) -> bool {
        let (mut lack, mut delete) = (Vec::new(), Vec::new());
        let surges = self.surges();
        for on in nodes {
            if !on.wanted.stay {
                delete.extend(&on.pods);
                continue;
            }
            let running = self.running(on, &mut delete, desk);
            // While a rollout surges, one that goes need not be gone.
            let empty = if surges { running.is_empty() } else { on.pods.is_empty() };
            if on.wanted.run && empty {
                lack.push(&on.name);
            }
            self.surplus(&running, surges, &mut delete);
        }
        // For nodes that are gone; what runs on such a node is the collector's.
        let there: BTreeSet<_> = nodes.iter().map(|on| &on.name).collect();
        let stray = |pod: &&&Arc<Object>| {
            let bound = super::world::node_of(pod).is_some();
            !bound && nodes::target(pod).is_none_or(|node| !there.contains(&node))
        };
        delete.extend(own.iter().filter(stray).copied());
        delete.retain(|pod| !pod.deleting());
        self.change(&lack, &delete, desk)
    }

    /// The pods that count. One that ended is deleted: one that failed not sooner than its
    /// back-off says.
    fn running<'w>(
        &mut self,
        on: &OnNode<'w>,
        delete: &mut Vec<&'w Arc<Object>>,
        desk: &mut Desk<'_, '_>,
    ) -> Vec<&'w Arc<Object>> {
        let mut running = Vec::new();
        for &pod in on.pods.iter().filter(|pod| !pod.deleting()) {
            match pod.pod_facts().map(|facts| facts.phase) {
                Some(Phase::Failed) => {
                    let now = desk.ctx.now();
                    let (failures, due) = self.state.failed.entry(on.name.clone()).or_default();
                    if *due > now {
                        desk.client.mark_at(*due, subject(&self.object.key));
                    } else {
                        *failures += 1;
                        *due = now + FAILED.delay(*failures, desk.ctx.rng());
                        let what = Tidings::warning("FailedDaemonPod");
                        self.tell_of(pod, what, ["failed", "kill"], on, desk);
                        delete.push(pod);
                    }
                }
                Some(Phase::Succeeded) => {
                    let what = Tidings::normal("SucceededDaemonPod");
                    self.tell_of(pod, what, ["succeeded", "delete"], on, desk);
                    delete.push(pod);
                }
                _ => running.push(pod),
            }
        }
        running
    }

    fn tell_of(
        &self,
        pod: &Object,
        what: Tidings,
        [end, done]: [&str; 2],
        on: &OnNode<'_>,
        desk: &mut Desk<'_, '_>,
    ) {
        desk.client.recorder.tell(tell::name(Loop::DaemonSet), self.object, what, || {
            let (key, node) = (&pod.key, &on.name);
            format!("Found {end} daemon pod {key} on node {node}, will try to {done} it")
        });
    }

    /// A rollout makes the next pod before the last one goes (`AllowsSurge`).
    fn surges(&self) -> bool {
        self.rolling().is_some_and(|rolling| Limits::of(Some(rolling), 1).surge > 0)
    }

    /// Of several pods the first stays; while a rollout surges, the first of either template, but
    /// one of another template only while it is ready.
    fn surplus<'w>(
        &self,
        running: &[&'w Arc<Object>],
        surges: bool,
        delete: &mut Vec<&'w Arc<Object>>,
    ) {
        let mut kept: BTreeMap<bool, &Arc<Object>> = BTreeMap::new();
        for pod in running {
            match kept.entry(surges && self.is_updated(pod)) {
                Entry::Vacant(free) => _ = free.insert(pod),
                Entry::Occupied(_) => delete.push(pod),
            }
        }
        if let (true, Some(old)) = (kept.contains_key(&true), kept.get(&false))
            && !pods::is_ready(old)
        {
            delete.push(old);
        }
    }

    fn rolling(&self) -> Option<&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    /// The next step of a rollout, if there is one to take. True if there was.
    fn roll(&mut self, nodes: &[OnNode<'_>], desk: &mut Desk<'_, '_>) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|all| all.type_.as_deref());
        if strategy == Some("OnDelete") {
            return false;
        }
        let desired = nodes.iter().filter(|on| on.wanted.run).count();
        let limits = Limits::of(self.rolling(), i32::try_from(desired).unwrap_or(i32::MAX));
        let step = rollout::step(nodes, self, limits);
        let surge: Vec<&Name> = step.surge.iter().map(|on| &on.name).collect();
        self.change(&surge, &step.delete, desk)
    }

    fn change(&mut self, lack: &[&Name], delete: &[&Arc<Object>], desk: &mut Desk<'_, '_>) -> bool {
        let Object { key, uid, .. } = &**self.object;
        for pod in delete.iter().take(burst::MOST) {
            desk.ctx.note(|| format!("DaemonSet {key} deletes pod {}", pod.key.name));
            let options = DeleteOptions { uid: Some(pod.uid), ..DeleteOptions::default() };
            let request = Request::Delete { kind: Kind::Pod, key: pod.key.clone(), options };
            desk.ask(Loop::DaemonSet, Kind::DaemonSet, key, request);
        }
        let lack = &lack[..lack.len().min(burst::MOST)];
        if !lack.is_empty() {
            desk.ctx.note(|| format!("DaemonSet {key} creates {} pods", lack.len()));
            let taken = |key: &Key| desk.world.get(Kind::Pod, key).is_some();
            let keys = names::free_children(&key.namespace, &key.name, *uid, lack.len(), taken);
            let creates = keys.into_iter().zip(lack).map(|(key, node)| {
                let mut spec = self.pod.clone();
                nodes::pin(&mut spec, node);
                let pod = template::pod(key, self.meta.clone(), spec);
                Request::Create { object: Arc::new(pod) }
            });
            self.state.burst = Some(Burst::start(creates, &subject(key), desk.client));
        }
        !lack.is_empty() || !delete.is_empty()
    }

    /// `updateDaemonSetStatus`.
    fn write_status(
        &mut self,
        stored: &DaemonSetStatus,
        nodes: &[OnNode<'_>],
        desk: &mut Desk<'_, '_>,
    ) {
        let mut next = DaemonSetStatus {
            collision_count: stored.collision_count,
            conditions: stored.conditions.clone(),
            observed_generation: self.object.meta.generation,
            ..DaemonSetStatus::default()
        };
        let (mut available, mut updated) = (0, 0);
        for on in nodes {
            let first = on.pods.iter().find(|pod| !pod.deleting()).or(on.pods.first());
            if !on.wanted.run {
                next.number_misscheduled += i32::from(first.is_some());
                continue;
            }
            next.desired_number_scheduled += 1;
            let Some(pod) = first else { continue };
            next.current_number_scheduled += 1;
            next.number_ready += i32::from(pods::is_ready(pod));
            available += i32::from(self.is_available(pod));
            updated += i32::from(self.is_updated(pod));
        }
        let some = |count: i32| Some(count).filter(|count| *count != 0);
        next.number_available = some(available);
        next.updated_number_scheduled = some(updated);
        next.number_unavailable = some(next.desired_number_scheduled - available);
        if next != *stored
            && let Some(request) = plain::write_status(self.object, &next)
        {
            desk.ask(Loop::DaemonSet, Kind::DaemonSet, &self.object.key, request);
        }
    }
}
