//! Node lifecycle: a node that is not heard of is unknown, tainted and, not too many at a time,
//! emptied (upstream `pkg/controller/nodelifecycle`).
//!
//! Whether a node is heard of is judged by when *this* actor saw its lease or heartbeat change, on
//! its own monotonic clock; what the node wrote into them is never compared with any clock here.
//! While the leases are not shown (the stream is closed) nobody is judged, and when they are shown
//! again everybody gets a new grace: being blind is not the nodes' fault.

mod taints;
mod zones;

use super::client::{Client, Loop, Subject};
use super::pods;
use super::tell;
use super::world::{Desk, ObjectChange, World, node_of, sides};
use crate::objects::{Body, Key, Kind, Name, Object, PodStatus, time};
use crate::ports::api::{Request, Subresource};
use crate::recorder::Tidings;
use k8s_openapi::api::core::v1::NodeCondition;
use kubesim_runtime::Time;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use zones::Zones;

const LEASES: &str = "kube-node-lease";

/// Conditions that only the kubelet can know, with the reason they get when it is silent.
const KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

#[derive(Clone, Debug)]
pub struct Lifecycle {
    grace: Duration,
    monitor: Duration,
    health: BTreeMap<Name, Health>,
    /// When each node is looked at next: one entry a node, moved only when it is due.
    deadlines: BTreeSet<(Time, Name)>,
    zones: Zones,
    /// The leases are not shown.
    blind: bool,
    last_check: Time,
}

#[derive(Clone, Debug)]
struct Health {
    /// When a sign of life was last seen.
    seen: Time,
    /// The Node as shown is ready; it is unreachable.
    ready: bool,
    unreachable: bool,
    /// Judged to be lost; the Node as shown may not say so yet.
    silent: bool,
    /// Its pods have to be marked not ready: it just became so itself.
    fell: bool,
}

/// The status of the node's Ready condition, if it has one.
fn ready_status(node: &Object) -> Option<&str> {
    Some(condition(node, "Ready")?.status.as_str())
}

fn condition<'a>(node: &'a Object, type_: &str) -> Option<&'a NodeCondition> {
    let (_, status) = node.node()?;
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub fn ready(node: &Object) -> bool {
    ready_status(node) == Some("True")
}

fn subject(name: &Name) -> Subject {
    Subject::new(Loop::Lifecycle, Kind::Node, &Key::cluster(name.clone()))
}

impl Lifecycle {
    pub fn new(grace: Duration, monitor: Duration) -> Self {
        Lifecycle {
            grace,
            monitor,
            health: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            zones: Zones::default(),
            blind: false,
            last_check: Time::ZERO,
        }
    }

    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        client: &mut Client,
        now: Time,
    ) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::Lease if key.namespace == LEASES => {
                let renewed = |lease: &Arc<Object>| lease.lease().map(|s| s.renew_time.clone());
                if new.is_some() && old.and_then(renewed) != new.and_then(renewed) {
                    self.heard_of(&key.name, now);
                }
            }
            Kind::Node => self.node_changed(key, old, new, client, now),
            Kind::Pod => {
                let Some(pod) = new.filter(|pod| pods::is_ready(pod)) else { return };
                let node = node_of(pod).and_then(|node| self.health.get_key_value(node));
                if let Some((name, _)) = node.filter(|(_, health)| health.unreachable) {
                    client.mark(subject(name));
                }
            }
            _ => {}
        }
    }

    fn heard_of(&mut self, node: &Name, now: Time) {
        if let Some(health) = self.health.get_mut(node) {
            health.seen = now;
            if std::mem::take(&mut health.silent) && health.ready {
                self.zones.judge(node, false);
            }
        }
    }

    /// The leases' stream ended; what their view shows is of the past.
    pub fn blinded(&mut self) {
        self.blind = true;
    }

    /// The leases are shown (again).
    pub fn sighted(&mut self, now: Time) {
        if std::mem::take(&mut self.blind) {
            let names: Vec<Name> = self.health.keys().cloned().collect();
            names.iter().for_each(|name| self.heard_of(name, now));
        }
    }

    fn node_changed(
        &mut self,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        client: &mut Client,
        now: Time,
    ) {
        let name = &key.name;
        tell_of(old, new, client);
        let Some(node) = new else {
            self.health.remove(name);
            self.zones.forget(name);
            return;
        };
        if !self.health.contains_key(name) {
            let health =
                Health { seen: now, ready: false, unreachable: false, silent: false, fell: false };
            self.health.insert(name.clone(), health);
            self.deadlines.insert((now + self.grace, name.clone()));
        }
        let health = self.health.get_mut(name).expect("just made sure of");
        let beat = |node: &Object| condition(node, "Ready").map(|c| c.last_heartbeat_time.clone());
        let was_ready = old.is_some_and(|old| ready(old));
        let replaced = old.is_some_and(|old| old.uid != node.uid);
        let posted = old.is_some_and(|old| beat(old) != beat(node)) || ready(node) && !was_ready;
        if posted || replaced {
            health.seen = now;
            health.silent = false;
        }
        health.ready = ready(node);
        health.unreachable = ready_status(node) == Some("Unknown");
        health.fell |= was_ready && !ready(node);
        let silent = health.silent;
        self.zones.place(name, node, silent);
        client.mark(subject(name));
    }

    /// When [`Lifecycle::check`] has something to do.
    pub fn next_check(&self, now: Time) -> Option<Time> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let soonest = self.last_check + self.monitor;
        let judge = deadline.map(|at| at.max(soonest));
        judge.into_iter().chain(self.zones.next_grant(now)).min()
    }

    /// Looks at the nodes whose deadline has come, and lets due evictions begin.
    pub fn check(&mut self, client: &mut Client, now: Time, remark: impl FnMut(String)) {
        if now >= self.last_check + self.monitor {
            self.last_check = now;
            while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
                let (_, name) = self.deadlines.pop_first().expect("there is a first one");
                let Some(health) = self.health.get_mut(&name) else { continue };
                let due = health.seen + self.grace;
                if due <= now && !self.blind {
                    health.silent = true;
                    self.zones.judge(&name, true);
                    client.mark(subject(&name));
                }
                self.deadlines.insert((due.max(now + self.monitor), name));
            }
        }
        self.settle_zones(client, remark);
        for name in self.zones.grant(now) {
            client.mark(subject(&name));
        }
    }

    /// To be called when all changes of a view were observed: zones may have fallen or risen.
    pub fn settle_zones(&mut self, client: &mut Client, remark: impl FnMut(String)) {
        for name in self.zones.settle(remark) {
            client.mark(subject(&name));
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(node) = desk.world.get(Kind::Node, key).cloned() else { return };
        let Some(health) = self.health.get(&key.name) else { return };
        let silent = desk.ctx.now() >= health.seen + self.grace && !self.blind;
        let unknown = ready_status(&node) == Some("Unknown");
        if silent && !unknown {
            desk.ctx.note(|| format!("node {key} is not heard of: its conditions are Unknown"));
            desk.ask(Loop::Lifecycle, Kind::Node, key, unknown_status(&node, desk));
            return;
        }
        let wanted = ready_status(&node).is_some_and(|status| status != "True");
        self.zones.want_eviction(&key.name, wanted, desk.ctx.now());
        if let Some(taints) = taints::wanted(&node, &self.zones, desk.ctx.wall()) {
            let patch = json!({
                "metadata": {
                    "uid": node.uid.to_string(),
                    "resourceVersion": node.version.to_string(),
                },
                "spec": {"taints": (!taints.is_empty()).then_some(taints)},
            });
            let (kind, subresource) = (Kind::Node, Subresource::Main);
            let request = Request::Patch { kind, key: key.clone(), subresource, patch };
            desk.ask(Loop::Lifecycle, Kind::Node, key, request);
        }
        let health = self.health.get_mut(&key.name).expect("looked up above");
        let fell = std::mem::take(&mut health.fell);
        if unknown || fell && !ready(&node) {
            if fell {
                let what = Tidings::normal("NodeNotReady");
                desk.client.recorder.tell(tell::name(Loop::Lifecycle), &node, what, || {
                    format!("Node {} status is now: NodeNotReady", key.name)
                });
            }
            mark_pods_not_ready(&key.name, desk.world, desk.client, time(desk.ctx.wall()));
        }
    }
}

/// The node's status with all that only its kubelet could know set to Unknown.
fn unknown_status(node: &Arc<Object>, desk: &Desk<'_, '_>) -> Request {
    let mut object = (**node).clone();
    if let Body::Node { status, .. } = &mut object.body {
        let status = Arc::make_mut(status);
        let conditions = status.conditions.get_or_insert_default();
        for type_ in KUBELETS {
            let at = conditions.iter().position(|condition| condition.type_ == type_);
            let (reason, message) = match at {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let before = at.map(|at| conditions.swap_remove(at));
            if before.as_ref().is_some_and(|before| before.status == "Unknown") {
                conditions.extend(before);
                continue;
            }
            conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: before.and_then(|before| before.last_heartbeat_time),
                last_transition_time: Some(time(desk.ctx.wall())),
            });
        }
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }
    Request::UpdateStatus { object: Arc::new(object) }
}

/// That a node came, or went.
fn tell_of(old: Option<&Arc<Object>>, new: Option<&Arc<Object>>, client: &mut Client) {
    let (node, reason, what) = match (old, new) {
        (None, Some(node)) => (node, "RegisteredNode", "Registered Node"),
        (Some(node), None) => (node, "RemovingNode", "Removing Node"),
        _ => return,
    };
    let of = tell::name(Loop::Lifecycle);
    client.recorder.tell(of, node, Tidings::normal(reason), || {
        let (name, way) = (&node.key.name, if new.is_some() { "in" } else { "from" });
        format!("Node {name} event: {what} {name} {way} Controller")
    });
}

/// `MarkPodsNotReady`: their Services look elsewhere.
fn mark_pods_not_ready(
    node: &Name,
    world: &World,
    client: &mut Client,
    now: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
) {
    for pod in world.bound_to(node).filter(|pod| pods::is_ready(pod)) {
        let (of, what) = (tell::name(Loop::Lifecycle), Tidings::warning("NodeNotReady"));
        client.recorder.tell(of, pod, what, || "Node is not ready".to_owned());
        let Some(body) = pod.pod_body() else { continue };
        let mut status: PodStatus = (**body.status()).clone();
        for condition in status.conditions.iter_mut().flatten() {
            if condition.type_ == "Ready" {
                condition.status = "False".to_owned();
                condition.last_transition_time = Some(now.clone());
            }
        }
        let body = Body::Pod(body.with_status(Arc::new(status)));
        let object = Arc::new(Object { body, ..(**pod).clone() });
        client.ask(subject(node), Request::UpdateStatus { object });
    }
}
