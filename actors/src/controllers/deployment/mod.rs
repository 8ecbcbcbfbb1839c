//! Deployment: a ReplicaSet per pod template, and the way from one to the next (upstream
//! `pkg/controller/deployment`).

mod rollout;
mod status;

use super::client::{Client, Loop, Outcome, Subject};
use super::names::{fnv32a, safe_encode};
use super::selectors::Labels;
use super::tell;
use super::world::{Desk, ObjectChange, World, sides};
use crate::objects::{
    Body, DeploymentSpec, DeploymentStatus, Key, Kind, LabelSelector, Object, ObjectMeta,
    ReplicaSetSpec, Uid,
};
use crate::ports::api::{DeleteOptions, Request};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, ResourceRequirements};
use rollout::Limits;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Clone, Debug, Default)]
pub struct Deployments {
    by_uid: BTreeMap<Uid, Key>,
    /// ReplicaSet names that turned out to be taken by something else.
    collided: BTreeSet<Key>,
    /// Sizes of ReplicaSets that are being given others.
    resized: BTreeMap<Key, i32>,
}

/// One ReplicaSet of a Deployment, as it is to become.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    object: Arc<Object>,
    /// `spec.replicas`, wanted.
    replicas: i32,
    /// The annotations are to be written even if the size stays.
    touch: bool,
    annotations: Labels,
}

impl Member {
    fn of(object: &Arc<Object>) -> Self {
        let annotations = object.meta.annotations.clone().unwrap_or_default();
        Member { replicas: size(object), object: Arc::clone(object), touch: false, annotations }
    }
    fn available(&self) -> i32 {
        self.object.replica_set().and_then(|(_, s)| s.available_replicas).unwrap_or(0)
    }
    fn number(&self, annotation: &str) -> Option<i64> {
        self.annotations.get(annotation)?.parse().ok()
    }
    fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or(0)
    }
    /// Oldest first.
    fn age(&self) -> impl Ord + use<> {
        let created = self.object.meta.creation_timestamp.as_ref().map(|time| time.0);
        (created, self.object.key.name.clone())
    }
}

/// `spec.replicas` of a ReplicaSet.
fn size(set: &Object) -> i32 {
    set.replica_set().map_or(0, |(spec, _)| spec.replicas.unwrap_or(1))
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::Deployment, Kind::Deployment, key)
}

impl Deployments {
    pub fn observe(&mut self, kind: Kind, change: &ObjectChange<'_>, client: &mut Client) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::Deployment => {
                for (object, there) in [(old, false), (new, true)] {
                    match object {
                        Some(object) if there => _ = self.by_uid.insert(object.uid, key.clone()),
                        Some(object) => _ = self.by_uid.remove(&object.uid),
                        None => {}
                    }
                }
                client.mark(subject(key));
            }
            Kind::ReplicaSet => {
                for set in old.into_iter().chain(new) {
                    if let Some(owner) = set.controller().and_then(|(_, u)| self.by_uid.get(&u)) {
                        client.mark(subject(owner));
                    }
                }
            }
            // Recreate waits for the last pod of the old ReplicaSets.
            Kind::Pod if new.is_none() => {
                let owner = old.and_then(|pod| super::pods::owner_key(pod));
                let Some(name) = owner.as_ref().and_then(|key| key.name.rsplit_once('-')) else {
                    return;
                };
                client.mark(subject(&Key::new(key.namespace.clone(), name.0)));
            }
            _ => {}
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(object) = desk.world.get(Kind::Deployment, key).cloned() else { return };
        let Some((spec, status)) = object.deployment() else { return };
        let no_selector = spec.selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && spec.selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
        if no_selector {
            return;
        }
        let mut sync = Sync::new(&object, spec, status, desk.world);
        let taken = !self.collided.is_empty() && self.collided.remove(&sync.new_key());
        if taken && sync.new.is_none() {
            sync.bump_collision_count(desk);
            return;
        }
        if !object.deleting() {
            sync.roll(desk);
        }
        if !sync.asked {
            sync.write_status(desk);
        }
        self.resized.extend(sync.resized);
    }

    /// A ReplicaSet's name may be taken by a stranger: then the hash takes the next count.
    pub fn answered(&mut self, outcome: &Outcome, world: &World, client: &mut Client) {
        if let Request::Update { object: set } = &*outcome.request
            && let Some(before) = self.resized.remove(&set.key)
            && outcome.result.is_ok()
            && let Some(deployment) = world.get(Kind::Deployment, &outcome.subject.key)
        {
            let (what, message) = tell::scaled(&set.key.name, before, size(set));
            client.recorder.tell(tell::name(Loop::Deployment), deployment, what, || message);
        }
        let (Request::Get { key, .. }, Ok(Some(found))) = (&*outcome.request, &outcome.result)
        else {
            return;
        };
        let ours = world.get(Kind::Deployment, &outcome.subject.key).map(|object| object.uid);
        if found.controller().map(|(_, uid)| uid) != ours {
            self.collided.insert(key.clone());
        }
    }
}

/// One look at one Deployment.
struct Sync<'a> {
    object: &'a Arc<Object>,
    spec: &'a Arc<DeploymentSpec>,
    status: &'a DeploymentStatus,
    limits: Limits,
    /// The ReplicaSet of the present template.
    new: Option<Member>,
    /// All others, oldest first.
    old: Vec<Member>,
    asked: bool,
    /// What is being given another size, and the one it had.
    resized: Vec<(Key, i32)>,
}

impl<'a> Sync<'a> {
    fn new(
        object: &'a Arc<Object>,
        spec: &'a Arc<DeploymentSpec>,
        status: &'a DeploymentStatus,
        world: &World,
    ) -> Self {
        let mut old: Vec<Member> =
            world.controlled(Kind::ReplicaSet, object.uid).map(Member::of).collect();
        old.sort_by_key(Member::age);
        // Equal templates win over equal hashes: the hash function may change, a template not.
        let at = old.iter().position(|member| same_template(&member.object, &spec.template));
        let new = at.map(|at| old.remove(at));
        let limits = Limits::of(spec);
        let (asked, resized) = (false, Vec::new());
        Sync { object, spec, status, limits, new, old, asked, resized }
    }

    fn hash(&self) -> String {
        template_hash(&self.spec.template, self.status.collision_count)
    }

    fn new_key(&self) -> Key {
        let name = format!("{}-{}", self.object.key.name, self.hash());
        Key::new(self.object.key.namespace.clone(), name)
    }

    fn ask(&mut self, desk: &mut Desk<'_, '_>, request: Request) {
        desk.ask(Loop::Deployment, Kind::Deployment, &self.object.key, request);
        self.asked = true;
    }

    fn roll(&mut self, desk: &mut Desk<'_, '_>) {
        let paused = self.spec.paused == Some(true);
        if paused || self.is_scaling() {
            rollout::scale(self);
        } else if self.limits.recreate {
            self.recreate(desk);
        } else {
            self.rolling_update(desk);
        }
        self.write_members(desk);
        if !self.asked && self.write_revision(desk) {
            return;
        }
        if !self.asked && self.is_complete(self.status) {
            self.trim_history(desk);
        }
    }

    /// An active ReplicaSet was last sized for another `spec.replicas`.
    fn is_scaling(&self) -> bool {
        let differs = |member: &&Member| {
            let desired = member.number(DESIRED);
            desired.is_some_and(|desired| desired != i64::from(self.limits.replicas))
        };
        self.new.iter().chain(&self.old).filter(|m| m.replicas > 0).any(|m| differs(&m))
    }

    fn rolling_update(&mut self, desk: &mut Desk<'_, '_>) {
        match &self.new {
            None => {
                let replicas = rollout::new_replicas(0, &self.old, &self.limits);
                self.create(replicas, desk);
            }
            Some(_) => rollout::step(self),
        }
    }

    fn recreate(&mut self, desk: &mut Desk<'_, '_>) {
        if self.old.iter().any(|member| member.replicas > 0) {
            for member in &mut self.old {
                member.replicas = 0;
            }
            return;
        }
        let running = |member: &Member| {
            let mut pods = desk.world.controlled(Kind::Pod, member.object.uid);
            pods.any(|pod| !super::pods::is_terminated(pod))
        };
        if self.old.iter().any(running) {
            return;
        }
        let replicas = self.limits.replicas;
        match &mut self.new {
            None => self.create(replicas, desk),
            Some(new) => new.replicas = replicas,
        }
    }

    fn create(&mut self, replicas: i32, desk: &mut Desk<'_, '_>) {
        let (key, hash) = (self.new_key(), self.hash());
        desk.ctx.note(|| {
            format!("Deployment {} creates ReplicaSet {key} of {replicas}", self.object.key)
        });
        let mut template = self.spec.template.clone();
        let labelled = template.metadata.get_or_insert_default();
        labelled.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
        let mut selector: LabelSelector = self.spec.selector.clone();
        let pairs = selector.match_labels.get_or_insert_default();
        pairs.insert(HASH_LABEL.to_owned(), hash.clone());
        let meta = ObjectMeta {
            labels: labelled.labels.clone(),
            annotations: Some(self.annotations(&Labels::new(), self.next_revision())),
            owner_references: Some(vec![self.object.as_controller()]),
            ..ObjectMeta::default()
        };
        let spec = ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: self.spec.min_ready_seconds,
            selector,
            template: Some(template),
        };
        let body = Body::ReplicaSet { spec: Arc::new(spec), status: Arc::default() };
        let object = Arc::new(Object::new(key, body).with_meta(meta));
        self.ask(desk, Request::Create { object });
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(Member::revision).max().unwrap_or(0) + 1
    }

    /// What a ReplicaSet of this Deployment is annotated with: the Deployment's own annotations
    /// (but for kubectl's and the bookkeeping), its revision and the size it was made for.
    fn annotations(&self, before: &Labels, revision: i64) -> Labels {
        let mut all = before.clone();
        let own = self.object.meta.annotations.iter().flatten();
        let skipped = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAX];
        all.extend(
            own.filter(|(name, _)| !skipped.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let former = before.get(REVISION).filter(|old| **old != revision.to_string());
        if let Some(former) = former {
            let history = all.entry(REVISION_HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(former);
        }
        all.insert(REVISION.to_owned(), revision.to_string());
        self.limits.annotate(&mut all);
        all
    }

    /// Updates the ReplicaSets whose size or annotations are to change.
    fn write_members(&mut self, desk: &mut Desk<'_, '_>) {
        let next_revision = self.next_revision();
        if let Some(mut new) = self.new.take() {
            let wanted = self.annotations(&new.annotations, new.revision().max(next_revision));
            let same = |name: &str| wanted.get(name) == new.annotations.get(name);
            // The sizes alone are no reason to write; a size to change is.
            new.touch |=
                wanted.iter().any(|(name, _)| ![DESIRED, MAX].contains(&&**name) && !same(name));
            if new.touch || new.replicas != size(&new.object) {
                new.annotations = wanted;
            }
            self.new = Some(new);
        }
        for member in &mut self.old {
            if member.touch || member.replicas != size(&member.object) {
                self.limits.annotate(&mut member.annotations);
            }
        }
        let members: Vec<Member> = self.new.iter().chain(&self.old).cloned().collect();
        for member in members {
            self.write_member(&member, desk);
        }
    }

    fn write_member(&mut self, member: &Member, desk: &mut Desk<'_, '_>) {
        let before = size(&member.object);
        let same_notes = member.object.meta.annotations.as_ref() == Some(&member.annotations);
        if member.replicas == before && (!member.touch || same_notes) {
            return;
        }
        if member.replicas != before {
            desk.ctx.note(|| {
                let (of, set) = (&self.object.key, &member.object.key.name);
                format!("Deployment {of} scales {set} from {before} to {}", member.replicas)
            });
        }
        let Some((spec, status)) = member.object.replica_set() else { return };
        let mut spec = Arc::clone(spec);
        if member.replicas != before {
            self.resized.push((member.object.key.clone(), before));
            Arc::make_mut(&mut spec).replicas = Some(member.replicas);
        }
        let mut object = (*member.object).clone();
        object.body = Body::ReplicaSet { spec, status: Arc::clone(status) };
        let meta = Arc::make_mut(&mut object.meta);
        meta.annotations = Some(member.annotations.clone());
        self.ask(desk, Request::Update { object: Arc::new(object) });
    }

    /// The Deployment carries its newest ReplicaSet's revision. True if it has to be written.
    fn write_revision(&mut self, desk: &mut Desk<'_, '_>) -> bool {
        let Some(revision) = self.new.as_ref().map(Member::revision) else { return false };
        let revision = revision.to_string();
        if self.object.annotation(REVISION) == Some(&revision) {
            return false;
        }
        let mut object = (**self.object).clone();
        let meta = Arc::make_mut(&mut object.meta);
        meta.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision);
        self.ask(desk, Request::Update { object: Arc::new(object) });
        true
    }

    /// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit`.
    fn trim_history(&mut self, desk: &mut Desk<'_, '_>) {
        let limit = self.spec.revision_history_limit.unwrap_or(10).max(0) as usize;
        let empty = |member: &&Member| {
            member.replicas == 0
                && !member.object.deleting()
                && member.object.replica_set().is_some_and(|(_, status)| {
                    let generation = member.object.meta.generation;
                    status.replicas == 0 && status.observed_generation >= generation
                })
        };
        let alive = self.old.iter().filter(|member| !member.object.deleting()).count();
        let mut idle: Vec<Member> = self.old.iter().filter(empty).cloned().collect();
        idle.sort_by_key(|member| (member.revision(), member.age()));
        for member in idle.iter().take(alive.saturating_sub(limit)) {
            let options =
                DeleteOptions { uid: Some(member.object.uid), ..DeleteOptions::default() };
            let (kind, key) = (Kind::ReplicaSet, member.object.key.clone());
            self.ask(desk, Request::Delete { kind, key, options });
        }
    }
}

/// `controller.ComputeHash`: FNV-1a of the template (here of its JSON, whose maps are sorted) and
/// the collision count, in the alphabet that is safe in names.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    let count = collisions.map(|count| i64::from(count).to_le_bytes());
    safe_encode(&fnv32a(text.into_iter().chain(count.into_iter().flatten())).to_string())
}

/// `EqualIgnoreHash`.
fn same_template(set: &Object, wanted: &PodTemplateSpec) -> bool {
    let Some(have) = set.replica_set().and_then(|(spec, _)| spec.template.as_ref()) else {
        return false;
    };
    if !same_spec(have.spec.as_ref(), wanted.spec.as_ref()) {
        return false;
    }
    let none = ObjectMeta::default();
    let have = have.metadata.as_ref().unwrap_or(&none);
    let wanted = wanted.metadata.as_ref().unwrap_or(&none);
    let names = |meta: &ObjectMeta| (meta.name.clone(), meta.generate_name.clone());
    labels(have).eq(labels(wanted))
        && annotations(have).eq(annotations(wanted))
        && names(have) == names(wanted)
        && have.finalizers == wanted.finalizers
        && have.owner_references == wanted.owner_references
}

/// Upstream's `Container.Resources` is no pointer: a client that writes what it has read
/// (`kubectl rollout undo`) says `resources: {}` where nothing was said.
fn same_spec(have: Option<&PodSpec>, wanted: Option<&PodSpec>) -> bool {
    let (Some(have), Some(wanted)) = (have, wanted) else { return have == wanted };
    have == wanted
        || (says_no_resources(have) || says_no_resources(wanted)) && silent(have) == silent(wanted)
}

fn says_no_resources(spec: &PodSpec) -> bool {
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.any(|container| container.resources.as_ref() == Some(&ResourceRequirements::default()))
}

fn silent(spec: &PodSpec) -> PodSpec {
    let mut spec = spec.clone();
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        container.resources.take_if(|resources| *resources == ResourceRequirements::default());
    }
    spec
}

/// All but the one that says which template it was.
fn labels(meta: &ObjectMeta) -> impl Iterator<Item = (&String, &String)> {
    meta.labels.iter().flatten().filter(|(name, _)| *name != HASH_LABEL)
}

fn annotations(meta: &ObjectMeta) -> impl Iterator<Item = (&String, &String)> {
    meta.annotations.iter().flatten()
}
