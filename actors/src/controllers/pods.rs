//! What the controllers read out of a pod.

use crate::objects::{Key, Kind, Name, Object, Phase, PodStatus, wall};
use k8s_openapi::api::core::v1::PodCondition;
use kubesim_runtime::Wall;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::time::Duration;

pub fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Since when the pod is ready; `None` if it is not.
pub fn ready_since(pod: &Object) -> Option<Wall> {
    let ready = condition(pod.pod()?.1, "Ready").filter(|ready| ready.status == "True")?;
    let since = ready.last_transition_time.as_ref().map(|time| wall(time.0));
    Some(since.unwrap_or(Wall::from_unix_nanos(0)))
}

pub fn is_ready(pod: &Object) -> bool {
    pod.pod_facts().is_some_and(|facts| facts.ready)
}

pub fn is_terminated(pod: &Object) -> bool {
    pod.pod_facts().is_some_and(|facts| facts.phase.ended())
}

/// `controller.IsPodActive`: counts towards its ReplicaSet.
pub fn is_active(pod: &Object) -> bool {
    !is_terminated(pod) && !pod.deleting()
}

/// When a pod that is ready since then counts as available.
pub fn available_at(since: Wall, min_ready_seconds: i32) -> Wall {
    since + Duration::from_secs(min_ready_seconds.max(0) as u64)
}

/// The order in which surplus pods go, first one first: `controller.ActivePodsWithRanks` and its
/// logarithmic age buckets (`LogarithmicScaleDown`). `crowd` is the number of related pods on a
/// pod's node.
pub fn deletion_order(a: (&Object, u32), b: (&Object, u32), now: Wall) -> Ordering {
    let key = |(pod, crowd): (&Object, u32)| {
        let Some(body) = pod.pod_body() else {
            return (0, 0, 0, 0, Reverse(0), Reverse(0), Reverse(0));
        };
        let phase = match body.facts().phase {
            Phase::Running => 2,
            Phase::Unknown => 1,
            _ => 0,
        };
        let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
        let restarts =
            body.status().container_statuses.iter().flatten().map(|c| c.restart_count).max();
        let ready = ready_since(pod);
        (
            u8::from(body.facts().node().is_some()),
            phase,
            u8::from(ready.is_some()),
            cost.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0),
            Reverse(crowd),
            // Older is greater: it stays.
            Reverse(ready.map_or(u32::MAX, |since| u32::MAX - age_bucket(now, since))),
            Reverse(restarts.unwrap_or(0)),
        )
    };
    let created = |pod: &Object| {
        let time = pod.meta.creation_timestamp.as_ref();
        time.map_or(0, |time| age_bucket(now, wall(time.0)))
    };
    let by_age = || created(a.0).cmp(&created(b.0)).then_with(|| a.0.uid.cmp(&b.0.uid));
    key(a).cmp(&key(b)).then_with(by_age)
}

/// The binary logarithm of an age in nanoseconds.
fn age_bucket(now: Wall, since: Wall) -> u32 {
    let nanos = now.since(since).as_nanos();
    128 - nanos.leading_zeros()
}

/// How many of these pods are on each node.
pub fn crowds<'a>(pods: impl Iterator<Item = &'a Object>) -> BTreeMap<Name, u32> {
    let mut crowds = BTreeMap::new();
    for pod in pods.filter(|pod| is_active(pod)) {
        if let Some(node) = super::world::node_of(pod) {
            *crowds.entry(node.clone()).or_default() += 1;
        }
    }
    crowds
}

/// The key by which other objects name a pod's owner.
pub fn owner_key(pod: &Object) -> Option<Key> {
    let (owner, _) = pod.controller()?;
    Some(Key::new(pod.key.namespace.clone(), owner.name.as_str()))
}

/// The key of the owner of this kind that controls the object.
pub fn owned_by(object: &Object, kind: Kind) -> Option<Key> {
    let (owner, _) = object.controller()?;
    let same = owner.kind == kind.name() && owner.api_version == kind.api_version();
    same.then(|| Key::new(object.key.namespace.clone(), owner.name.as_str()))
}

/// Ready for so long; `Err` with the moment when it will be, if it stays ready.
pub fn is_available(pod: &Object, min_ready_seconds: i32, now: Wall) -> Result<bool, Wall> {
    let Some(since) = ready_since(pod) else { return Ok(false) };
    let at = available_at(since, min_ready_seconds);
    if min_ready_seconds <= 0 || at <= now { Ok(true) } else { Err(at) }
}

/// When it was made; the name decides between two of one second.
pub fn age(object: &Object) -> impl Ord + use<> {
    let created = object.meta.creation_timestamp.as_ref().map(|time| time.0);
    (created, object.key.name.clone())
}
