//! Which pods should be here: those the API binds to this node, and the static ones of the
//! manifests directory with their mirrors in the API.
//!
//! Manifests are JSON: one Pod a file. YAML is turned into JSON at the edge, by the driver of the
//! files port, since actors hold no parser for it.

use super::local::{Call, Local};
use super::pod::{Pod, Sandbox};
use super::{Kubelet, Timer};
use crate::objects::{
    Body, Key, Kind, MIRROR, Name, Object, ObjectMeta, OwnerReference, PodBody, Uid, View,
};
use crate::ports::{api, container, volumes};
use kubesim_runtime::{Change, Context, Hasher, Snapshot, Time};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const SOURCE: &str = "kubernetes.io/config.source";
const HASH: &str = "kubernetes.io/config.hash";

/// What nobody claims is removed this long after all sources were heard, as upstream's
/// housekeeping does every 2 s.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The API's pods of this node; `None` until they were seen once.
    view: Option<View>,
    /// Static pods by the path of their manifest.
    manifests: BTreeMap<Name, Uid>,
    /// Static pods by the key of their mirror.
    mirrors: BTreeMap<Key, Uid>,
    /// Mirrors in the API that no static pod claims.
    strays: BTreeMap<Key, Arc<Object>>,
    /// Sandboxes that the runtime lists and no pod claims.
    unclaimed: BTreeMap<Uid, Unclaimed>,
    /// Pods that had volumes here when this kubelet began.
    volumes: BTreeSet<Uid>,
    pub housekeeping: Option<Time>,
}

#[derive(Clone, Debug)]
struct Unclaimed {
    found: container::SandboxState,
    removing: bool,
}

impl Kubelet {
    pub(super) fn on_pod_view(&mut self, view: View, ctx: &mut Context<'_, Kubelet>) {
        let old = self.sources.view.replace(view.clone());
        let first = old.is_none();
        let old = old.unwrap_or_else(|| Snapshot::empty(view.history()));
        for change in old.diff(&view) {
            match change {
                Change::Added(_, new) => self.on_object(new, ctx),
                Change::Changed { old, new, .. } => {
                    if old.uid != new.uid {
                        self.on_object_gone(old, ctx);
                    }
                    self.on_object(new, ctx);
                }
                Change::Removed(_, old) => self.on_object_gone(old, ctx),
            }
        }
        if first {
            self.plan_housekeeping(ctx);
            // Static pods have waited for this to get their mirrors.
            self.sync_all(ctx);
        }
    }

    fn on_object(&mut self, object: &Arc<Object>, ctx: &mut Context<'_, Kubelet>) {
        if object.annotation(MIRROR).is_some() {
            return self.on_mirror(object, ctx);
        }
        let uid = object.uid;
        match self.pods.get_mut(&uid) {
            Some(pod) => {
                pod.wanted = true;
                // Our own write's answer may have brought a newer one.
                if pod.record.as_ref().is_some_and(|record| record.version >= object.version) {
                    return;
                }
                pod.set_object(Arc::clone(object));
                pod.record = Some(Arc::clone(object));
                pod.report.retry.reset();
            }
            None => self.insert(Pod::new(uid, Arc::clone(object), false), ctx),
        }
        self.sync(uid, ctx);
    }

    fn on_object_gone(&mut self, object: &Object, ctx: &mut Context<'_, Kubelet>) {
        if object.annotation(MIRROR).is_some() {
            self.sources.strays.remove(&object.key);
            let Some(uid) = self.sources.mirrors.get(&object.key).copied() else {
                return;
            };
            let Some(pod) = self.pods.get_mut(&uid) else {
                return;
            };
            if pod.record.as_ref().is_some_and(|record| record.uid == object.uid) {
                pod.record = None;
            }
            return self.sync(uid, ctx);
        }
        if let Some(pod) = self.pods.get_mut(&object.uid) {
            pod.wanted = false;
            self.sync(object.uid, ctx);
        }
    }

    fn insert(&mut self, mut pod: Pod, ctx: &mut Context<'_, Kubelet>) {
        if self.local.listed {
            let claimed = self.sources.unclaimed.remove(&pod.uid);
            claim(&mut pod, claimed, ctx);
        }
        self.pods.insert(pod.uid, pod);
    }

    // What the runtime lists.

    pub(super) fn on_listed(
        &mut self,
        sandboxes: &[container::SandboxState],
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let first = !std::mem::replace(&mut self.local.listed, true);
        for found in sandboxes {
            self.on_found(found, first);
        }
        if first {
            for pod in self.pods.values_mut() {
                let claimed = self.sources.unclaimed.remove(&pod.uid);
                claim(pod, claimed, ctx);
            }
            self.sync_all(ctx);
        }
        if !self.sources.unclaimed.is_empty() {
            self.plan_housekeeping(ctx);
        }
        let left: Vec<_> =
            self.pods.values().filter(|pod| pod.ending()).map(|pod| pod.uid).collect();
        for uid in left {
            self.sync(uid, ctx);
        }
    }

    fn on_found(&mut self, found: &container::SandboxState, first: bool) {
        if let Some(pod) = self.pods.get_mut(&found.pod).filter(|_| !first) {
            // It was asked for by a dead incarnation and came late: what has ended must go again.
            if pod.ending() && pod.sandbox == Sandbox::None {
                pod.sandbox = Sandbox::Up;
            }
            return;
        }
        if let Some(ip) = found.ip.filter(|_| !found.host_network) {
            // Held by another: this one goes, unclaimed or when its pod is ready.
            let _ = self.local.ipam.adopt(ip, found.pod);
        }
        self.sources
            .unclaimed
            .entry(found.pod)
            .or_insert_with(|| Unclaimed { found: found.clone(), removing: false });
    }

    /// An exit of a container whose pod is not known (yet).
    pub(super) fn on_unclaimed_exit(
        &mut self,
        pod: Uid,
        name: &str,
        attempt: u32,
        exit: container::Exit,
    ) {
        let Some(unclaimed) = self.sources.unclaimed.get_mut(&pod) else {
            return;
        };
        for container in &mut unclaimed.found.containers {
            if container.name == name && container.attempt == attempt {
                container.exited = Some(exit.clone());
            }
        }
    }

    pub(super) fn on_unclaimed_removed(&mut self, pod: Uid, ctx: &mut Context<'_, Kubelet>) {
        if let Some(unclaimed) = self.sources.unclaimed.remove(&pod)
            && let Some(ip) = unclaimed.found.ip
        {
            self.local.ipam.release(ip, pod);
        }
        if !self.pods.contains_key(&pod) && self.sources.volumes.remove(&pod) {
            ctx.perform(super::Effect::Volumes(volumes::Request::Remove { pod }));
        }
    }

    /// What no pod claims is removed, once all pods are known.
    pub(super) fn on_volumes_listed(&mut self, pods: &[Uid], ctx: &mut Context<'_, Kubelet>) {
        self.sources.volumes = pods.iter().copied().collect();
        self.plan_housekeeping(ctx);
    }

    /// Objects that no pod uses any more are forgotten.
    pub(super) fn keep_needs(&mut self) {
        let used = self.pods.values().filter_map(|pod| pod.supplies.as_ref());
        let used = used.flat_map(|supplies| supplies.needs.iter().cloned()).collect();
        self.local.objects.keep(&used);
    }

    // Housekeeping.

    fn plan_housekeeping(&mut self, ctx: &mut Context<'_, Kubelet>) {
        if self.sources.view.is_some() && self.local.listed {
            self.sources.housekeeping = Some(ctx.now() + HOUSEKEEPING);
            self.arm_retry(ctx);
        }
    }

    /// Removes sandboxes that no pod claims, and mirrors of static pods that are no more.
    pub(super) fn keep_house(&mut self, ctx: &mut Context<'_, Kubelet>) {
        if self.sources.housekeeping.is_none_or(|at| ctx.now() < at) {
            return;
        }
        self.sources.housekeeping = None;
        let unclaimed = self.sources.unclaimed.iter_mut().filter(|(_, u)| !u.removing);
        for (&pod, unclaimed) in unclaimed {
            unclaimed.removing = true;
            let key = &unclaimed.found.key;
            ctx.note(|| format!("removes the sandbox of {key}: no such pod"));
            ctx.perform(super::Effect::Container(container::Request::RemoveSandbox { pod }));
        }
        // Under a sandbox that goes they are still in use.
        let (pods, unclaimed) = (&self.pods, &self.sources.unclaimed);
        let left = |pod: &Uid| !pods.contains_key(pod) && !unclaimed.contains_key(pod);
        let left: Vec<Uid> = self.sources.volumes.iter().copied().filter(left).collect();
        for pod in left {
            self.sources.volumes.remove(&pod);
            ctx.note(|| format!("removes the volumes of {pod}: no such pod"));
            ctx.perform(super::Effect::Volumes(volumes::Request::Remove { pod }));
        }
        for stray in std::mem::take(&mut self.sources.strays).values() {
            self.local.delete_pod(Call::Stray, stray, ctx);
        }
    }

    pub(super) fn arm_retry(&mut self, ctx: &mut Context<'_, Kubelet>) {
        let house = self.sources.housekeeping.unwrap_or(Time::NEVER);
        let node = Some(self.node.due()).filter(|at| *at > ctx.now()).unwrap_or(Time::NEVER);
        let due = house.min(node).min(self.local.discards.due(ctx.now()));
        if due == self.retry_armed {
            return;
        }
        self.retry_armed = due;
        match due {
            Time::NEVER => ctx.clear_timer(Timer::Retry),
            due => ctx.set_timer(Timer::Retry, due.since(ctx.now())),
        }
    }

    // Static pods.

    /// A manifest appeared, changed or (`None`) went away.
    pub(super) fn on_manifest(
        &mut self,
        path: &Name,
        content: Option<&str>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let node = self.local.config.node.clone();
        let parsed = match content.map(|text| static_pod(text, path, &node)) {
            Some(Err(why)) => return ctx.note(|| format!("manifest {path}: {why}")),
            Some(Ok(pod)) => Some(pod),
            None => None,
        };
        let uid = parsed.as_ref().map(|pod| pod.uid);
        let old = self.sources.manifests.get(path).copied();
        if old == uid {
            return;
        }
        if let Some(old) = old.and_then(|old| self.pods.get_mut(&old)) {
            old.wanted = false;
        }
        self.sources.manifests.remove(path);
        if let Some(object) = parsed {
            let uid = object.uid;
            self.sources.manifests.insert(path.clone(), uid);
            self.sources.mirrors.insert(object.key.clone(), uid);
            if let Some(again) = self.pods.get_mut(&uid) {
                again.wanted = true;
            } else {
                let mut pod = Pod::new(uid, Arc::new(object), true);
                pod.record = self.sources.strays.remove(&pod.object.key);
                if pod.record.is_none()
                    && let Some(view) = &self.sources.view
                {
                    pod.record = view.get(&pod.object.key).cloned();
                }
                self.insert(pod, ctx);
            }
            self.sync(uid, ctx);
        }
        if let Some(old) = old {
            self.sync(old, ctx);
        }
    }

    fn on_mirror(&mut self, object: &Arc<Object>, ctx: &mut Context<'_, Kubelet>) {
        let uid = self.sources.mirrors.get(&object.key).copied();
        let Some(pod) = uid.and_then(|uid| self.pods.get_mut(&uid)) else {
            self.sources.strays.insert(object.key.clone(), Arc::clone(object));
            return self.plan_housekeeping(ctx);
        };
        let older =
            |record: &Arc<Object>| record.uid == object.uid && record.version >= object.version;
        if !pod.record.as_ref().is_some_and(older) {
            pod.record = Some(Arc::clone(object));
            pod.report.retry.reset();
            let uid = pod.uid;
            self.sync(uid, ctx);
        }
    }

    /// A static pod that is forgotten leaves nothing behind here.
    pub(super) fn forget(&mut self, uid: Uid) {
        let Some(pod) = self.pods.remove(&uid) else {
            return;
        };
        if pod.is_static && self.sources.mirrors.get(&pod.object.key) == Some(&uid) {
            self.sources.mirrors.remove(&pod.object.key);
        }
    }

    /// Whether a static pod of the same name, from an older manifest, is still there.
    pub(super) fn has_predecessor(&self, uid: Uid) -> bool {
        let Some(pod) = self.pods.get(&uid).filter(|pod| pod.is_static) else {
            return false;
        };
        let same = |other: &Pod| other.uid != uid && other.object.key == pod.object.key;
        self.pods.values().any(|other| same(other) && !other.is_gone())
    }

    /// Every sandbox that was found is a pod's, or goes.
    pub(super) fn all_claimed(&self) -> bool {
        self.sources.unclaimed.values().all(|unclaimed| unclaimed.removing)
    }

    pub(super) fn pods_seen(&self) -> bool {
        self.sources.view.is_some()
    }
}

fn claim(pod: &mut Pod, claimed: Option<Unclaimed>, ctx: &mut Context<'_, Kubelet>) {
    pod.adopt(claimed.as_ref().map(|claimed| &claimed.found), ctx);
    if claimed.is_some_and(|claimed| claimed.removing) {
        pod.sandbox = Sandbox::Removing;
    }
}

/// The pod of a manifest. Its name gets the node's, its uid comes from the text, so that a
/// changed manifest is another pod and an unchanged one is the same after a restart.
fn static_pod(text: &str, path: &str, node: &str) -> Result<Object, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut object = Object::from_json(value).map_err(|error| error.0)?;
    let Some((spec, _)) = object.pod() else {
        return Err(format!("a {} is no Pod", object.kind()));
    };
    let mut spec = (**spec).clone();
    spec.node_name = Some(node.to_owned());
    let uid = manifest_uid(text, path, node);
    let mut meta: ObjectMeta = (*object.meta).clone();
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(HASH.to_owned(), uid.to_string());
    object.key.name = Name::from(format!("{}-{node}", object.key.name));
    object.uid = uid;
    object.version = 0;
    object.meta = Arc::new(meta);
    object.body = Body::Pod(PodBody::new(Arc::new(spec), Arc::default()));
    Ok(object)
}

/// A mirror is its node's: no other may a node make (kubernetes
/// `plugin/pkg/admission/noderestriction/admission.go`, `pkg/kubelet/pod/mirror_client.go`).
fn owner(node: &str, uid: Uid) -> OwnerReference {
    OwnerReference {
        api_version: Kind::Node.api_version().to_owned(),
        kind: Kind::Node.name().to_owned(),
        name: node.to_owned(),
        uid: uid.to_string(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn manifest_uid(text: &str, path: &str, node: &str) -> Uid {
    let mut hasher = Hasher::default();
    hasher.str(node);
    hasher.str(path);
    hasher.str(text);
    let high = hasher.finish();
    hasher.u64(1);
    Uid::from_random(high, hasher.finish())
}

impl Pod {
    /// Keeps a static pod's mirror in the API: made if missing, made anew if it is another's or
    /// being deleted. Deleting a mirror does not stop the pod.
    pub(super) fn sync_mirror(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let busy = self.report.delete_in_flight || ctx.now() < self.report.retry.at;
        if !self.is_static || !self.wanted || busy {
            return;
        }
        match &self.record {
            None => {
                let Some(node) = k.node_uid else { return };
                let mut meta = (*self.object.meta).clone();
                meta.owner_references = Some(vec![owner(&k.config.node, node)]);
                let annotations = meta.annotations.get_or_insert_default();
                annotations.insert(MIRROR.to_owned(), self.uid.to_string());
                let (key, body) = (self.object.key.clone(), self.object.body.clone());
                let object = Arc::new(Object::new(key, body).with_meta(meta));
                self.report.delete_in_flight = true;
                k.call(Call::Mirror(self.uid), api::Request::Create { object }, ctx);
            }
            Some(record) => {
                let own = record.annotation(MIRROR) == Some(self.uid.to_string().as_str());
                if !own || record.deleting() {
                    let record = Arc::clone(record);
                    self.report.delete_in_flight = true;
                    k.delete_pod(Call::Unmirror(self.uid), &record, ctx);
                }
            }
        }
    }

    pub(super) fn on_mirror_made(
        &mut self,
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        self.report.delete_in_flight = false;
        match result {
            Ok(api::Reply::Object(object)) => {
                self.report.retry.reset();
                if self.record.as_ref().is_none_or(|record| record.version < object.version) {
                    self.record = Some(object);
                }
            }
            // Another one is there and the view will show it, or the API could not be asked.
            _ => self.report.retry.failed(ctx),
        }
    }

    pub(super) fn on_mirror_deleted(
        &mut self,
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        self.report.delete_in_flight = false;
        match result {
            Ok(api::Reply::Object(object)) => {
                if self.record.as_ref().is_some_and(|record| record.uid == object.uid) {
                    self.record = None;
                }
            }
            Err(error) if error.reason == api::Reason::NotFound => self.record = None,
            _ => self.report.retry.failed(ctx),
        }
    }
}
