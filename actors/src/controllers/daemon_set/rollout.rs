//! From one template to the next, node by node (`rollingUpdate` of
//! pkg/controller/daemon/update.go): an old pod goes before its successor comes, on so many nodes
//! at a time as `maxUnavailable` says, or, with `maxSurge`, when its successor is available.

use super::{OnNode, Sync};
use crate::controllers::share;
use crate::objects::Object;
use k8s_openapi::api::apps::v1::RollingUpdateDaemonSet;
use std::sync::Arc;

/// How far a rollout may stray, in nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub surge: usize,
    pub unavailable: usize,
}

impl Limits {
    /// `updatedDesiredNodeCounts`: both are rounded up, and one of them is at least 1.
    pub fn of(rolling: Option<&RollingUpdateDaemonSet>, desired: i32) -> Self {
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let surge = surge.map_or(0, |value| share::of(value, desired, true));
        let unavailable = unavailable.map_or(1, |value| share::of(value, desired, true));
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        Limits { surge: surge as usize, unavailable: unavailable as usize }
    }
}

/// What a rollout does next.
#[derive(Default)]
pub struct Step<'a> {
    pub delete: Vec<&'a Arc<Object>>,
    /// Nodes that get a new pod beside the old one.
    pub surge: Vec<&'a OnNode<'a>>,
}

type Pair<'a> = (Option<&'a Arc<Object>>, Option<&'a Arc<Object>>);

/// The pods of a node that are not being deleted: the one of the present template and the one of
/// another. `None` if there is more than one of either, which is put right first.
pub fn pair<'a>(on: &OnNode<'a>, sync: &Sync<'_>) -> Option<Pair<'a>> {
    let (mut new, mut old) = (None, None);
    for pod in on.pods.iter().filter(|pod| !pod.deleting()) {
        let place = if sync.is_updated(pod) { &mut new } else { &mut old };
        if place.replace(*pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

pub fn step<'a>(nodes: &'a [OnNode<'a>], sync: &mut Sync<'_>, limits: Limits) -> Step<'a> {
    // Nodes without pods that should have none are nobody's business.
    let nodes = nodes.iter().filter(|on| on.wanted.run || !on.pods.is_empty());
    if limits.surge == 0 { replace(nodes, sync, limits) } else { surge(nodes, sync, limits) }
}

fn replace<'a>(
    nodes: impl Iterator<Item = &'a OnNode<'a>>,
    sync: &mut Sync<'_>,
    limits: Limits,
) -> Step<'a> {
    let (mut unavailable, mut free, mut candidates) = (0, Vec::new(), Vec::new());
    for on in nodes {
        match pair(on, sync) {
            None | Some((None, None)) | Some((Some(_), Some(_))) => unavailable += 1,
            Some((Some(new), None)) => unavailable += usize::from(!sync.is_available(new)),
            // It serves nobody: it is replaced whatever the others do.
            Some((None, Some(old))) if !sync.is_available(old) => {
                unavailable += 1;
                free.push(old);
            }
            Some((None, Some(old))) => candidates.push(old),
        }
    }
    let room = limits.unavailable.saturating_sub(unavailable);
    free.extend(candidates.into_iter().take(room));
    Step { delete: free, surge: Vec::new() }
}

fn surge<'a>(
    nodes: impl Iterator<Item = &'a OnNode<'a>>,
    sync: &mut Sync<'_>,
    limits: Limits,
) -> Step<'a> {
    let (mut surging, mut step, mut candidates) = (0, Step::default(), Vec::new());
    let (mut wanted, mut available, mut leaving) = (0_usize, 0_usize, Vec::new());
    for on in nodes {
        wanted += usize::from(on.wanted.run);
        let Some((new, old)) = pair(on, sync) else {
            surging += 1;
            continue;
        };
        let serves = old.or(new).is_some_and(|pod| sync.is_available(pod));
        available += usize::from(serves);
        match (new, old) {
            (_, None) => {}
            (Some(new), Some(old)) if sync.is_available(new) => step.delete.push(old),
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) if !on.wanted.run && serves => leaving.push(old),
            (None, Some(old)) if !on.wanted.run => step.delete.push(old),
            (None, Some(_)) if serves => candidates.push(on),
            (None, Some(_)) => step.surge.push(on),
        }
    }
    // One that serves where none is to be any more goes when as many serve as are to.
    step.delete.extend(leaving.into_iter().take(available.saturating_sub(wanted)));
    let room = limits.surge.saturating_sub(surging);
    step.surge.extend(candidates.into_iter().take(room));
    step
}
