//! Taint-based eviction: a pod that does not tolerate its node's NoExecute taints is deleted, at
//! once or when its `tolerationSeconds` have passed (upstream `pkg/controller/tainteviction`).

use super::client::{Client, Loop, Subject};
use super::tell;
use super::world::{Desk, ObjectChange, World, node_of, sides};
use crate::objects::{Key, Kind, Name, Object, Uid};
use crate::ports::api::{DeleteOptions, Request};
use crate::recorder::Tidings;
use crate::scheduler::tolerates;
use k8s_openapi::api::core::v1::Taint;
use kubesim_runtime::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Evictions {
    /// The NoExecute taints of the nodes that have some.
    tainted: BTreeMap<Name, Arc<Vec<Taint>>>,
    /// Pods that have to go: since when that is known, and when they go.
    due: BTreeMap<Key, Due>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    uid: Uid,
    since: Time,
    at: Time,
}

fn no_execute(node: Option<&Arc<Object>>) -> Vec<Taint> {
    let taints = node.and_then(|node| node.node()).and_then(|(spec, _)| spec.taints.as_ref());
    taints.into_iter().flatten().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// How long the pod may stay: `None` for ever. The shortest toleration decides.
fn stay(pod: &Object, taints: &[Taint]) -> Option<Duration> {
    let (spec, _) = pod.pod()?;
    let mut shortest = None;
    for taint in taints {
        let mut matching =
            spec.tolerations.iter().flatten().filter(|t| tolerates(t, taint)).peekable();
        if matching.peek().is_none() {
            return Some(Duration::ZERO);
        }
        // Of several tolerations of one taint upstream, too, takes the shortest.
        for seconds in matching.filter_map(|toleration| toleration.toleration_seconds) {
            let seconds = Duration::from_secs(seconds.max(0) as u64);
            shortest = Some(shortest.map_or(seconds, |s: Duration| s.min(seconds)));
        }
    }
    shortest
}

/// The node is out of reach, or has another such taint, and nobody will evict this pod for it.
pub fn stays(pod: &Object, node: &Arc<Object>) -> bool {
    let taints = no_execute(Some(node));
    !taints.is_empty() && stay(pod, &taints).is_none()
}

impl Evictions {
    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::Node => {
                let (was, is) = (no_execute(old), no_execute(new));
                if was == is {
                    return;
                }
                if is.is_empty() {
                    self.tainted.remove(&key.name);
                } else {
                    self.tainted.insert(key.name.clone(), Arc::new(is));
                }
                for pod in world.bound_to(&key.name) {
                    self.judge(pod, client, now);
                }
            }
            Kind::Pod if !self.tainted.is_empty() || !self.due.is_empty() => match new {
                Some(pod) => self.judge(pod, client, now),
                None => _ = self.due.remove(key),
            },
            _ => {}
        }
    }

    fn judge(&mut self, pod: &Object, client: &mut Client, now: Time) {
        let taints = node_of(pod).and_then(|node| self.tainted.get(node)).cloned();
        let stay = taints.filter(|_| !pod.deleting()).and_then(|taints| stay(pod, &taints));
        let Some(stay) = stay else {
            if let Some(due) = self.due.remove(&pod.key)
                && due.uid == pod.uid
                && !pod.deleting()
            {
                tell(pod, "Cancelling deletion of", client);
            }
            return;
        };
        let before = self.due.get(&pod.key).filter(|due| due.uid == pod.uid).copied();
        let since = before.map_or(now, |due| due.since);
        let at = since + stay;
        if before.is_none_or(|due| due.at != at) {
            self.due.insert(pod.key.clone(), Due { uid: pod.uid, since, at });
            client.mark_at(at, Subject::new(Loop::Eviction, Kind::Pod, &pod.key));
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let now = desk.ctx.now();
        let Some(due) = self.due.get(key).filter(|due| due.at <= now) else { return };
        let uid = due.uid;
        let there = desk.world.get(Kind::Pod, key);
        if there.is_none_or(|pod| pod.uid != uid || pod.deleting()) {
            self.due.remove(key);
            return;
        }
        desk.ctx.note(|| format!("pod {key} is evicted from its tainted node"));
        if let Some(pod) = there {
            tell(pod, "Marking for deletion", desk.client);
        }
        let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
        let request = Request::Delete { kind: Kind::Pod, key: key.clone(), options };
        desk.ask(Loop::Eviction, Kind::Pod, key, request);
    }
}

/// `emitPodDeletionEvent`, `emitCancelPodDeletionEvent`.
fn tell(pod: &Object, what: &str, client: &mut Client) {
    let (of, reason) = (tell::name(Loop::Eviction), Tidings::normal("TaintManagerEviction"));
    client.recorder.tell(of, pod, reason, || format!("{what} Pod {}", pod.key));
}
