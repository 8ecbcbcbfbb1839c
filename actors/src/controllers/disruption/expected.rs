//! How many pods a budget's owners want, and how many of them must be healthy
//! (`getExpectedPodCount`, `getExpectedScale`).

use crate::controllers::world::World;
use crate::controllers::{plain, share};
use crate::objects::kinds::Sub;
use crate::objects::{Key, Kind, Name, Object, OwnerReference, Uid};
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub expected: i32,
    pub desired: i32,
}

/// The error is for the budget's condition.
pub fn counts(
    spec: &PodDisruptionBudgetSpec,
    pods: &[&Arc<Object>],
    world: &World,
) -> Result<Counts, String> {
    if let Some(most) = &spec.max_unavailable {
        let expected = scale_of_all(pods, world)?;
        let desired = (expected - share::of(most, expected, true)).max(0);
        return Ok(Counts { expected, desired });
    }
    match &spec.min_available {
        // A number is of the pods that there are, whoever made them.
        Some(IntOrString::Int(least)) => {
            let expected = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            Ok(Counts { expected, desired: *least })
        }
        Some(least) => {
            let expected = scale_of_all(pods, world)?;
            Ok(Counts { expected, desired: share::of(least, expected, true) })
        }
        None => Ok(Counts { expected: 0, desired: 0 }),
    }
}

/// What the owners of these pods want together. Pods without one do not count.
fn scale_of_all(pods: &[&Arc<Object>], world: &World) -> Result<i32, String> {
    let mut scales: BTreeMap<Uid, i32> = BTreeMap::new();
    // The owner that was asked last: most of a budget's pods have the same.
    let mut last = None;
    for pod in pods {
        let Some((owner, uid)) = pod.controller().filter(|(_, uid)| Some(*uid) != last) else {
            continue;
        };
        last = Some(uid);
        let (uid, scale) = scale(owner, uid, &pod.key.namespace, world)?
            .ok_or_else(|| format!("found no controllers for pod {:?}", pod.key.name.as_str()))?;
        scales.insert(uid, scale);
    }
    Ok(scales.values().fold(0, |sum, scale| sum.saturating_add(*scale)))
}

/// Who decides how many pods there are, and how many. A ReplicaSet's Deployment speaks for it.
fn scale(
    owner: &OwnerReference,
    uid: Uid,
    namespace: &Name,
    world: &World,
) -> Result<Option<(Uid, i32)>, String> {
    let group = group(owner);
    let key = Key::new(namespace.clone(), owner.name.as_str());
    match (group, owner.kind.as_str()) {
        ("apps" | "extensions", "ReplicaSet") => {
            let Some(set) = world.get(Kind::ReplicaSet, &key).filter(|set| set.uid == uid) else {
                return Ok(None);
            };
            let own = set.replica_set().and_then(|(spec, _)| spec.replicas);
            let deployment = deployment(set, world);
            Ok(deployment.or(Some((set.uid, own.unwrap_or(1)))))
        }
        ("apps", "StatefulSet") => {
            let set = world.get(Kind::StatefulSet, &key).filter(|set| set.uid == uid);
            let spec = set.map(|set| (set.uid, plain::spec::<StatefulSetSpec>(set)));
            Ok(spec.map(|(uid, spec)| (uid, spec.replicas.unwrap_or(1))))
        }
        _ => match Kind::of(&owner.api_version, &owner.kind) {
            None => {
                let (kind, version) = (&owner.kind, &owner.api_version);
                Err(format!("no matches for kind {kind:?} in version {version:?}"))
            }
            Some(kind) if kind.declaration().has(Sub::Scale) => Ok(None),
            Some(kind) => {
                let dot = if group.is_empty() { "" } else { "." };
                let plural = kind.plural();
                Err(format!("{plural}{dot}{group} does not implement the scale subresource"))
            }
        },
    }
}

fn deployment(set: &Object, world: &World) -> Option<(Uid, i32)> {
    let (owner, uid) = set.controller()?;
    if owner.kind != "Deployment" || !["apps", "extensions"].contains(&group(owner)) {
        return None;
    }
    let key = Key::new(set.key.namespace.clone(), owner.name.as_str());
    let deployment = world.get(Kind::Deployment, &key).filter(|found| found.uid == uid)?;
    Some((uid, deployment.deployment()?.0.replicas.unwrap_or(1)))
}

fn group(owner: &OwnerReference) -> &str {
    owner.api_version.rsplit_once('/').map_or("", |(group, _)| group)
}
