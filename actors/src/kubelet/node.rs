//! The Node object and its lease: registered or adopted, kept true, renewed.

use super::local::{Call, Local, is_transient};
use super::pod::Retry;
use super::{Kubelet, Timer, tell};
use crate::objects::{
    Body, Key, Kind, LeaseSpec, NodeSpec, NodeStatus, Object, ObjectMeta, OwnerReference, Uid,
    View, micro_time, time,
};
use crate::ports::api::{Error, Reason, Reply, Request, Subresource};
use crate::recorder::Tidings;
use crate::storage;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubesim_runtime::{Context, Time, Wall};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct NodeAgent {
    /// As the API last showed or answered it.
    object: Option<Arc<Object>>,
    /// Whether the API has shown the node, or that there is none.
    seen: bool,
    in_flight: bool,
    pub retry: Retry,
    /// The status has to be written even if nothing changed.
    overdue: bool,
    lease: LeaseAgent,
}

#[derive(Clone, Debug, Default)]
struct LeaseAgent {
    /// The last answered object: the next renewal is built from it.
    object: Option<Arc<Object>>,
    in_flight: bool,
    /// The API may have another version than `object`.
    doubtful: bool,
    failures: u32,
}

impl NodeAgent {
    /// The watch of this node has moved on.
    pub fn on_view(&mut self, view: &View) {
        self.seen = true;
        let newest = view.values().next();
        let older = |known: &Arc<Object>| {
            newest.is_some_and(|new| new.uid == known.uid && new.version < known.version)
        };
        if !self.object.as_ref().is_some_and(older) {
            self.object = newest.cloned();
            self.retry.reset();
        }
    }

    pub fn on_answer(&mut self, result: Result<Reply, Error>, ctx: &mut Context<'_, Kubelet>) {
        self.in_flight = false;
        match result {
            Ok(Reply::Object(object)) => {
                self.object = Some(object);
                self.retry.reset();
                self.overdue = false;
            }
            Ok(Reply::List(_) | Reply::Token { .. }) => {}
            Err(error) => {
                // The view will show what it conflicts with; should it be slow, we ask again.
                self.seen &= !matches!(error.reason, Reason::AlreadyExists | Reason::Conflict);
                if error.reason == Reason::NotFound {
                    self.object = None;
                    self.seen = true;
                }
                self.retry.failed(ctx);
            }
        }
    }

    /// Writes what differs. Called after everything that may matter to the node, and nothing else.
    pub fn sync(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let Some(ip) = k.address.filter(|_| !self.in_flight) else { return };
        if ctx.now() < self.retry.at {
            return;
        }
        let key = Key::cluster(k.config.node.clone());
        let request = match &self.object {
            _ if !self.seen && self.retry.at == Time::ZERO => return,
            _ if !self.seen => Request::Get { kind: Kind::Node, key },
            None => {
                let node = &k.config.node;
                ctx.note(|| format!("registers node {node} with address {ip}"));
                Request::Create { object: Arc::new(new_node(k, ctx.wall())) }
            }
            Some(object) => match self.difference(object, k, ctx) {
                Some(request) => request,
                None => return,
            },
        };
        self.seen |= matches!(request, Request::Get { .. });
        self.in_flight = true;
        k.call(Call::Node, request, ctx);
    }

    fn difference(
        &self,
        object: &Arc<Object>,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> Option<Request> {
        let (spec, told) = object.node()?;
        let labels = labels(k);
        let differing: BTreeMap<_, _> =
            labels.iter().filter(|(name, value)| object.label(name) != Some(value)).collect();
        let says = annotations(k);
        let annotations: BTreeMap<_, _> = says
            .iter()
            .filter(|(name, value)| object.annotation(name) != value.as_deref())
            .collect();
        if !differing.is_empty() || !annotations.is_empty() {
            let mut patch = json!({ "metadata": { "uid": object.uid.to_string() } });
            if !differing.is_empty() {
                patch["metadata"]["labels"] = json!(differing);
            }
            if !annotations.is_empty() {
                patch["metadata"]["annotations"] = json!(annotations);
            }
            let (kind, key) = (Kind::Node, object.key.clone());
            return Some(Request::Patch { kind, key, subresource: Subresource::Main, patch });
        }
        let status = status(k, told, ctx.wall(), self.overdue);
        if status == **told {
            return None;
        }
        self.remark(told, &status, k, ctx);
        let body = Body::Node { spec: Arc::clone(spec), status: Arc::new(status) };
        let object = Arc::new(Object { body, ..(**object).clone() });
        Some(Request::UpdateStatus { object })
    }

    fn remark(
        &self,
        told: &NodeStatus,
        new: &NodeStatus,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let node = k.config.node.clone();
        if let (true, Some(ip)) = (told.addresses != new.addresses, k.address)
            && told.addresses.is_some()
        {
            ctx.note(|| format!("node {node} has a new address: {ip}"));
        }
        let ready = |status: &NodeStatus| {
            status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        if ready(told) != ready(new) {
            let word = if ready(new) { "Ready" } else { "not Ready" };
            ctx.note(|| format!("node {node} is {word}"));
            let reason = if ready(new) { "NodeReady" } else { "NodeNotReady" };
            tell::of_node(k, Tidings::normal(reason), || {
                format!("Node {node} status is now: {reason}")
            });
        }
    }

    /// The alarm of the periodic status.
    pub fn on_period(&mut self) {
        self.overdue = true;
    }

    // The lease (KEP-9).

    /// One write a quarter of the lease's duration, each built from the last answer.
    pub fn renew(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let period = k.config.lease_duration / 4;
        let next = ctx.rng().jitter(period, 0.04);
        ctx.set_timer(Timer::Lease, next);
        if self.lease.in_flight {
            return;
        }
        let key = Key::new("kube-node-lease", k.config.node.clone());
        let request = match &self.lease.object {
            _ if self.lease.doubtful => Request::Get { kind: Kind::Lease, key },
            None => Request::Create { object: Arc::new(self.new_lease(k, key, ctx.wall())) },
            Some(object) => Request::Update { object: Arc::new(self.renewed(object, ctx.wall())) },
        };
        self.lease.in_flight = true;
        k.call(Call::Lease, request, ctx);
    }

    pub fn on_lease_answer(
        &mut self,
        result: Result<Reply, Error>,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let lease = &mut self.lease;
        lease.in_flight = false;
        let error = match result {
            Ok(Reply::Object(object)) => {
                let fetched = std::mem::take(&mut lease.doubtful);
                lease.failures = 0;
                lease.object = Some(object);
                if fetched {
                    self.renew(k, ctx);
                }
                return;
            }
            Ok(Reply::List(_) | Reply::Token { .. }) => return,
            Err(error) => error,
        };
        lease.failures += 1;
        match error.reason {
            Reason::NotFound => {
                lease.object = None;
                lease.doubtful = false;
            }
            Reason::AlreadyExists | Reason::Conflict => lease.doubtful = true,
            _ => {}
        }
        // Answers that say what is wrong are followed at once; the rest as upstream's
        // `backoffEnsureLease`: 200 ms doubling to 7 s.
        let soon = !is_transient(&error) && lease.failures <= 3;
        let doubled = Duration::from_millis(200 << lease.failures.min(6));
        let wait = if soon { Duration::ZERO } else { doubled.min(Duration::from_secs(7)) };
        let wait = wait.min(k.config.lease_duration / 4);
        if soon {
            self.renew(k, ctx);
        } else {
            let wait = ctx.rng().jitter(wait, 0.1);
            ctx.set_timer(Timer::Lease, wait);
        }
    }

    fn new_lease(&self, k: &Local, key: Key, now: Wall) -> Object {
        let spec = LeaseSpec {
            holder_identity: Some(k.config.node.to_string()),
            lease_duration_seconds: i32::try_from(k.config.lease_duration.as_secs()).ok(),
            renew_time: Some(micro_time(now)),
            ..LeaseSpec::default()
        };
        let meta = ObjectMeta { owner_references: self.owners(), ..ObjectMeta::default() };
        Object::new(key, Body::Lease { spec: Arc::new(spec) }).with_meta(meta)
    }

    /// The Node as it was shown or answered last.
    pub fn object(&self) -> Option<&Object> {
        self.object.as_deref()
    }

    /// Which object stands for the node.
    pub fn uid(&self) -> Option<Uid> {
        self.object.as_ref().map(|node| node.uid).filter(|uid| *uid != Uid::NONE)
    }

    /// The node as the owner of its lease, once its uid is known.
    fn owners(&self) -> Option<Vec<OwnerReference>> {
        let node = self.object.as_ref().filter(|node| node.uid != Uid::NONE)?;
        let owner = node.as_controller();
        Some(vec![OwnerReference { controller: None, block_owner_deletion: None, ..owner }])
    }

    /// The same lease, held from now on: only its spec is new, and its owner where it has none, as
    /// one that was made before the node was registered (upstream `SetNodeOwnerFunc`).
    fn renewed(&self, object: &Object, now: Wall) -> Object {
        let mut spec = object.lease().map(|spec| (**spec).clone()).unwrap_or_default();
        spec.renew_time = Some(micro_time(now));
        let renewed = Object { body: Body::Lease { spec: Arc::new(spec) }, ..object.clone() };
        if object.meta.owner_references.as_ref().is_some_and(|owners| !owners.is_empty()) {
            return renewed;
        }
        let meta = ObjectMeta { owner_references: self.owners(), ..(*object.meta).clone() };
        renewed.with_meta(meta)
    }

    /// The API can be reached again: nothing waits for its turn.
    pub fn on_connected(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if self.retry.at != Time::ZERO {
            self.retry.at = ctx.now();
        }
        if self.lease.failures > 0 {
            self.renew(k, ctx);
        }
    }

    /// When the node has to be looked at again.
    pub fn due(&self) -> Time {
        if self.in_flight { Time::NEVER } else { self.retry.at }
    }
}

fn labels(k: &Local) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", k.config.node.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
    ];
    let mut labels: BTreeMap<_, _> =
        own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    labels.extend(k.config.labels.clone());
    labels
}

/// Of its volumes; `None` for what it is not to say.
fn annotations(k: &Local) -> BTreeMap<&'static str, Option<String>> {
    let directory = &k.config.volumes;
    match directory.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([
            (storage::DIRECTORY, Some(directory.to_string())),
            (storage::REMOVED, k.discards.told()),
        ]),
    }
}

fn new_node(k: &Local, now: Wall) -> Object {
    let taints: Vec<_> = k.config.taints.iter().filter_map(|text| taint(text)).collect();
    let spec = NodeSpec { taints: (!taints.is_empty()).then_some(taints), ..NodeSpec::default() };
    let status = status(k, &NodeStatus::default(), now, true);
    let says = annotations(k).into_iter();
    let says: BTreeMap<String, String> =
        says.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let annotations = (!says.is_empty()).then_some(says);
    let meta = ObjectMeta { labels: Some(labels(k)), annotations, ..ObjectMeta::default() };
    let body = Body::Node { spec: Arc::new(spec), status: Arc::new(status) };
    Object::new(Key::cluster(k.config.node.clone()), body).with_meta(meta)
}

/// `key=value:Effect` or `key:Effect`.
pub fn taint(text: &str) -> Option<Taint> {
    let (left, effect) = text.rsplit_once(':')?;
    let (key, value) = match left.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (left, None),
    };
    Some(Taint { effect: effect.to_owned(), key: key.to_owned(), time_added: None, value })
}

fn status(k: &Local, told: &NodeStatus, now: Wall, heartbeat: bool) -> NodeStatus {
    let capacity = capacity(k);
    let address = |kind: &str, address: String| NodeAddress { address, type_: kind.to_owned() };
    let mut addresses: Vec<_> =
        k.address.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", k.config.node.to_string()));
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(k, told, now, heartbeat)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: 10250 }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: "amd64".to_owned(),
            container_runtime_version: "containerd://1.6.20".to_owned(),
            kubelet_version: "v1.33.0".to_owned(),
            kube_proxy_version: String::new(),
            operating_system: "linux".to_owned(),
            os_image: "kubesim".to_owned(),
            machine_id: k.config.node.to_string(),
            ..NodeSystemInfo::default()
        }),
        ..told.clone()
    }
}

fn capacity(k: &Local) -> BTreeMap<String, Quantity> {
    let millis = k.config.cpu_millis;
    let cpu = if millis.is_multiple_of(1000) {
        format!("{}", millis / 1000)
    } else {
        format!("{millis}m")
    };
    let entries = [
        ("cpu", cpu),
        ("memory", format!("{}Ki", k.config.memory_bytes / 1024)),
        ("pods", k.config.max_pods.to_string()),
    ];
    entries.into_iter().map(|(name, text)| (name.to_owned(), Quantity(text))).collect()
}

/// Heartbeats alone are no change: they are written with the next change or period.
fn conditions(k: &Local, told: &NodeStatus, now: Wall, heartbeat: bool) -> Vec<NodeCondition> {
    let ready = match (&k.down, k.listed, k.subnet) {
        (Some(why), ..) => Err(why.to_string()),
        (None, false, _) => Err("container runtime is down".to_owned()),
        (None, true, None) => Err("container runtime network not ready: NetworkReady=false \
             reason:NetworkPluginNotReady message:Network plugin returns error: cni config \
             uninitialized"
            .to_owned()),
        (None, true, Some(_)) => Ok(()),
    };
    let (status, reason, message) = match ready {
        Ok(()) => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
        Err(why) => ("False", "KubeletNotReady", why),
    };
    let sufficient = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ];
    let old = told.conditions.as_deref().unwrap_or_default();
    let make = |name: &str, status: &str, reason: &str, message: String| {
        let before = old.iter().find(|condition| condition.type_ == name);
        let same = before.filter(|condition| condition.status == status);
        let beat = before.filter(|_| !heartbeat).and_then(|c| c.last_heartbeat_time.clone());
        NodeCondition {
            last_heartbeat_time: beat.or_else(|| Some(time(now))),
            last_transition_time: same
                .and_then(|condition| condition.last_transition_time.clone())
                .or_else(|| Some(time(now))),
            message: Some(message),
            reason: Some(reason.to_owned()),
            status: status.to_owned(),
            type_: name.to_owned(),
        }
    };
    let mut conditions: Vec<_> = sufficient
        .into_iter()
        .map(|(name, reason, message)| make(name, "False", reason, message.to_owned()))
        .collect();
    conditions.push(make("Ready", status, reason, message));
    let is_ours = |c: &&NodeCondition| conditions.iter().any(|own| own.type_ == c.type_);
    let foreign: Vec<_> = old.iter().filter(|c| !is_ours(c)).cloned().collect();
    conditions.extend(foreign);
    conditions
}
