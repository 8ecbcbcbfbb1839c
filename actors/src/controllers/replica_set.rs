//! ReplicaSet: as many active pods as `spec.replicas` says (upstream `pkg/controller/replicaset`).

use super::burst::{self, Burst};
use super::client::{Loop, Outcome, Subject};
use super::pods::{self, available_at, is_active, is_ready, ready_since};
use super::selectors::{self, Labels, SelectorIndex, labels};
use super::template::Template;
use super::world::{Desk, ObjectChange, World, node_of, sides};
use super::{Client, names};
use crate::objects::{Body, Key, Kind, Object, ReplicaSetSpec, ReplicaSetStatus, Uid, time};
use crate::ports::api::{DeleteOptions, Reason, Request, Subresource};
use k8s_openapi::api::apps::v1::ReplicaSetCondition;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Clone, Debug, Default)]
pub struct ReplicaSets {
    sets: BTreeMap<Key, Set>,
    /// Pods by the uid of their controller, counted as their changes pass by.
    counts: BTreeMap<Uid, Counts>,
    selectors: SelectorIndex,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    active: i32,
    ready: i32,
}

#[derive(Clone, Debug, Default)]
struct Set {
    template: Option<Template>,
    burst: Option<Burst>,
    /// Own pods whose labels have to be held against the selector, and orphans that may be ours.
    suspects: BTreeSet<Key>,
    /// Pods that lacked a label of the template when they were last looked at: few, if any.
    unlike: BTreeSet<Key>,
    /// Why the last create or delete was refused.
    failure: Option<(&'static str, String)>,
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::ReplicaSet, Kind::ReplicaSet, key)
}

impl ReplicaSets {
    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
    ) {
        match kind {
            Kind::ReplicaSet => self.set_changed(change, world, client),
            Kind::Pod => self.pod_changed(change, client),
            _ => {}
        }
    }

    fn set_changed(&mut self, change: &ObjectChange<'_>, world: &World, client: &mut Client) {
        let (key, old, new) = sides(change);
        let Some(object) = new else {
            self.sets.remove(key);
            self.selectors.remove(key);
            return;
        };
        let Some((spec, _)) = object.replica_set() else { return };
        let old_spec = old.and_then(|old| old.replica_set()).map(|(spec, _)| spec);
        if old_spec.is_none_or(|old| old.selector != spec.selector) {
            self.selectors.insert(key, labels(spec.selector.match_labels.as_ref()));
            let set = self.sets.entry(key.clone()).or_default();
            set.suspects.extend(world.orphans(&key.namespace).map(|pod| pod.key.clone()));
        }
        if old_spec.is_some_and(|old| template_labels(old) != template_labels(spec)) {
            let own = world.controlled(Kind::Pod, object.uid).map(|pod| pod.key.clone());
            self.sets.entry(key.clone()).or_default().suspects.extend(own);
        }
        client.mark(subject(key));
    }

    fn pod_changed(&mut self, change: &ObjectChange<'_>, client: &mut Client) {
        let (key, old, new) = sides(change);
        let facts = |pod: &Arc<Object>| {
            let active = is_active(pod);
            let ready = active && is_ready(pod);
            Some((pod.controller()?.1, i32::from(active), i32::from(ready)))
        };
        let (was, is) = (old.and_then(facts), new.and_then(facts));
        for (side, sign) in [(was, -1), (is, 1)] {
            let Some((owner, active, ready)) = side else { continue };
            let counts = self.counts.entry(owner).or_default();
            counts.active += sign * active;
            counts.ready += sign * ready;
            if *counts == Counts::default() {
                self.counts.remove(&owner);
            }
        }
        for pod in old.into_iter().chain(new) {
            if let Some(owner) = pods::owner_key(pod) {
                client.mark(subject(&owner));
                if new.is_none()
                    && let Some(set) = self.sets.get_mut(&owner)
                {
                    set.unlike.remove(key);
                }
            }
        }
        let same_meta = matches!((old, new), (Some(o), Some(n)) if Arc::ptr_eq(&o.meta, &n.meta));
        let Some(pod) = new.filter(|_| !same_meta) else { return };
        let suspect_of = match pods::owner_key(pod) {
            Some(owner) => vec![owner],
            None => {
                let of = labels(pod.meta.labels.as_ref());
                self.selectors.candidates(&key.namespace, of)
            }
        };
        for owner in suspect_of {
            self.sets.entry(owner.clone()).or_default().suspects.insert(key.clone());
            client.mark(subject(&owner));
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(object) = desk.world.get(Kind::ReplicaSet, key).cloned() else {
            self.sets.remove(key);
            return;
        };
        let Some((spec, status)) = object.replica_set() else { return };
        let set = self.sets.entry(key.clone()).or_default();
        if set.burst.as_ref().is_some_and(Burst::is_out) {
            return;
        }
        set.burst = None;
        set.compare_labels(spec, desk.world);
        let mut asked = false;
        let mut missing = 0;
        if !object.deleting() {
            asked = set.adopt_and_release(&object, spec, desk);
            let active = self.counts.get(&object.uid).copied().unwrap_or_default().active;
            missing = spec.replicas.unwrap_or(1).max(0) - active;
        }
        // Nothing is to be made or deleted, so nothing of it fails (`calculateStatus`).
        if missing == 0 {
            set.failure = None;
        }
        // What was refused is told before it is tried again.
        if !asked && missing != 0 && set.failure.as_ref().is_none_or(|why| is_told(status, why.0)) {
            match missing > 0 {
                true => set.create(&object, spec, missing as usize, desk),
                false => delete_surplus(&object, missing.unsigned_abs() as usize, desk),
            }
            asked = true;
        }
        if !asked {
            self.write_status(&object, spec, status, desk);
        }
    }

    /// The next batch of a burst, or its end.
    pub fn answered(&mut self, outcome: &Outcome, client: &mut Client) {
        let key = &outcome.subject.key;
        let Some(set) = self.sets.get_mut(key) else { return };
        let verb = match &*outcome.request {
            Request::Create { .. } => "FailedCreate",
            Request::Delete { .. } => "FailedDelete",
            _ => return,
        };
        match &outcome.result {
            Ok(_) => set.failure = None,
            // Made by a call whose answer was lost, here or in a former incarnation.
            Err(error) if error.reason == Reason::AlreadyExists => {}
            Err(error) => {
                set.failure = Some((verb, error.message.clone()));
                if let Some(burst) = &mut set.burst {
                    burst.refused();
                }
            }
        }
        if let Some(burst) = &mut set.burst {
            burst.answered(&outcome.subject, client);
        }
    }

    fn write_status(
        &self,
        object: &Arc<Object>,
        spec: &ReplicaSetSpec,
        status: &ReplicaSetStatus,
        desk: &mut Desk<'_, '_>,
    ) {
        let counts = self.counts.get(&object.uid).copied().unwrap_or_default();
        let set = self.sets.get(&object.key);
        let failure = set.and_then(|set| set.failure.as_ref());
        let unlike = set.map_or(0, |set| set.unlike(object, desk.world));
        let some = |count: i32| (count > 0).then_some(count);
        let wanted = ReplicaSetStatus {
            replicas: counts.active,
            fully_labeled_replicas: some(counts.active - unlike),
            ready_replicas: some(counts.ready),
            available_replicas: some(available(object, spec, counts.ready, desk)),
            observed_generation: object.meta.generation,
            conditions: conditions(status, failure, desk),
            terminating_replicas: status.terminating_replicas,
        };
        if wanted != *status {
            let mut next = (**object).clone();
            next.body = Body::ReplicaSet {
                spec: match &object.body {
                    Body::ReplicaSet { spec, .. } => Arc::clone(spec),
                    _ => return,
                },
                status: Arc::new(wanted),
            };
            let request = Request::UpdateStatus { object: Arc::new(next) };
            desk.ask(Loop::ReplicaSet, Kind::ReplicaSet, &object.key, request);
        }
    }
}

impl Set {
    fn create(
        &mut self,
        object: &Arc<Object>,
        spec: &Arc<ReplicaSetSpec>,
        missing: usize,
        desk: &mut Desk<'_, '_>,
    ) {
        let template = Template::of(self.template.take(), object, spec);
        let world = desk.world;
        let base = &object.key.name;
        let keys = names::free_children(
            &object.key.namespace,
            base,
            object.uid,
            missing.min(burst::MOST),
            |key| world.get(Kind::Pod, key).is_some(),
        );
        desk.ctx.note(|| format!("ReplicaSet {} creates {} pods", object.key, keys.len()));
        let create = |key| Request::Create { object: Arc::new(template.pod(key)) };
        let creates = keys.into_iter().map(create);
        self.burst = Some(Burst::start(creates, &subject(&object.key), desk.client));
        self.template = Some(template);
    }

    /// Which pods do not carry every label of the template. Only what changed is looked at.
    fn compare_labels(&mut self, spec: &ReplicaSetSpec, world: &World) {
        let wanted = template_labels(spec);
        for key in &self.suspects {
            let pod = world.get(Kind::Pod, key);
            let lacks =
                |pod: &Arc<Object>| !selectors::includes(labels(pod.meta.labels.as_ref()), wanted);
            if pod.is_some_and(lacks) {
                self.unlike.insert(key.clone());
            } else {
                self.unlike.remove(key);
            }
        }
    }

    /// The active pods of this ReplicaSet that lack a label of the template.
    fn unlike(&self, object: &Object, world: &World) -> i32 {
        let pods = self.unlike.iter().filter_map(|key| world.get(Kind::Pod, key));
        let own = |pod: &Arc<Object>| pod.controller().is_some_and(|(_, uid)| uid == object.uid);
        pods.filter(|pod| own(pod) && is_active(pod)).count() as i32
    }

    /// Lets go of own pods that the selector no longer matches, and takes up orphans that it does
    /// (`PodControllerRefManager`). True if it asked for anything.
    fn adopt_and_release(
        &mut self,
        object: &Arc<Object>,
        spec: &ReplicaSetSpec,
        desk: &mut Desk<'_, '_>,
    ) -> bool {
        let mut asked = false;
        for key in std::mem::take(&mut self.suspects) {
            let Some(pod) = desk.world.get(Kind::Pod, &key) else { continue };
            let matches = selectors::matches(&spec.selector, labels(pod.meta.labels.as_ref()));
            let owned_by = pod.controller().map(|(_, uid)| uid);
            let mut owners = pod.meta.owner_references.clone().unwrap_or_default();
            match owned_by {
                Some(uid) if uid == object.uid && !matches && !pod.deleting() => {
                    owners.retain(|owner| owner.controller != Some(true));
                }
                None if matches && is_active(pod) => owners.push(object.as_controller()),
                _ => continue,
            }
            let patch = json!({"metadata": {
                "uid": pod.uid.to_string(),
                "resourceVersion": pod.version.to_string(),
                "ownerReferences": owners,
            }});
            let subresource = Subresource::Main;
            let request = Request::Patch { kind: Kind::Pod, key: key.clone(), subresource, patch };
            desk.ask(Loop::ReplicaSet, Kind::ReplicaSet, &object.key, request);
            // Looked at again, should the patch fail.
            self.suspects.insert(key);
            asked = true;
        }
        asked
    }
}

fn delete_surplus(object: &Arc<Object>, surplus: usize, desk: &mut Desk<'_, '_>) {
    let world = desk.world;
    let related: Vec<&Object> = match object.controller() {
        Some((_, owner)) => world
            .controlled(Kind::ReplicaSet, owner)
            .flat_map(|set| world.controlled(Kind::Pod, set.uid))
            .map(|pod| &**pod)
            .collect(),
        None => world.controlled(Kind::Pod, object.uid).map(|pod| &**pod).collect(),
    };
    let crowds = pods::crowds(related.into_iter());
    let crowd = |pod: &Object| node_of(pod).and_then(|n| crowds.get(n)).copied().unwrap_or(0);
    let own = world.controlled(Kind::Pod, object.uid).filter(|pod| is_active(pod));
    let mut own: Vec<(&Object, u32)> = own.map(|pod| (&**pod, crowd(pod))).collect();
    let now = desk.ctx.wall();
    own.sort_by(|a, b| pods::deletion_order(*a, *b, now));
    own.truncate(surplus.min(burst::MOST));
    desk.ctx.note(|| format!("ReplicaSet {} deletes {} pods", object.key, own.len()));
    for (pod, _) in own {
        let options = DeleteOptions { uid: Some(pod.uid), ..DeleteOptions::default() };
        let request = Request::Delete { kind: Kind::Pod, key: pod.key.clone(), options };
        desk.ask(Loop::ReplicaSet, Kind::ReplicaSet, &object.key, request);
    }
}

fn template_labels(spec: &ReplicaSetSpec) -> &Labels {
    let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    labels(template.and_then(|meta| meta.labels.as_ref()))
}

/// Ready for `minReadySeconds`; sets an alarm for the next one to become so.
fn available(
    object: &Arc<Object>,
    spec: &ReplicaSetSpec,
    ready: i32,
    desk: &mut Desk<'_, '_>,
) -> i32 {
    let min = spec.min_ready_seconds.unwrap_or(0);
    if min <= 0 {
        return ready;
    }
    let now = desk.ctx.wall();
    let own = desk.world.controlled(Kind::Pod, object.uid).filter(|pod| is_active(pod));
    let at: Vec<_> = own.filter_map(|pod| Some(available_at(ready_since(pod)?, min))).collect();
    if let Some(next) = at.iter().filter(|at| **at > now).min() {
        // Clocks differ from node to node: never sooner than a millisecond, never later than due.
        let delay = next.since(now).max(Duration::from_millis(1));
        desk.client.mark_at(desk.ctx.now() + delay, subject(&object.key));
    }
    at.iter().filter(|at| **at <= now).count() as i32
}

/// The status has the condition `ReplicaFailure` for this reason.
fn is_told(status: &ReplicaSetStatus, reason: &str) -> bool {
    let mut all = status.conditions.iter().flatten();
    all.any(|c| c.type_ == REPLICA_FAILURE && c.reason.as_deref() == Some(reason))
}

/// `ReplicaFailure` while creates or deletes are refused.
fn conditions(
    status: &ReplicaSetStatus,
    failure: Option<&(&'static str, String)>,
    desk: &Desk<'_, '_>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut all = status.conditions.clone().unwrap_or_default();
    match failure {
        None => all.retain(|condition| condition.type_ != REPLICA_FAILURE),
        Some((reason, _)) if is_told(status, reason) => {}
        Some((reason, message)) => {
            all.retain(|condition| condition.type_ != REPLICA_FAILURE);
            all.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some((*reason).to_owned()),
                message: Some(message.clone()),
                last_transition_time: Some(time(desk.ctx.wall())),
            });
        }
    }
    (!all.is_empty()).then_some(all)
}
