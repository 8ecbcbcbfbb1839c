//! Job: pods that run to their end, so many of them and so many at a time (upstream
//! `pkg/controller/job`, and `pkg/controller/ttlafterfinished`).
//!
//! [`books`] says what is known and what the status is to be; here is what is done about it. What
//! ends the Job is stored before anything is deleted for it.
//!
//! Not here: `backoffLimitPerIndex`, `successPolicy`, and the adoption of pods that others made.

mod backoff;
mod books;
mod indexes;
mod policy;

use super::burst::{self, Burst};
use super::client::{Client, Loop, Outcome, Subject};
use super::world::{Desk, ObjectChange, World, sides};
use super::{names, plain, pods, tell, template};
use crate::objects::{Key, Kind, Name, Object};
use crate::ports::api::{DeleteOptions, Propagation, Reason, Request, Subresource};
use crate::recorder::Tidings;
use backoff::Backoff;
use books::{Books, FINALIZER, deadline, finished, is_suspended, is_tracked};
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use kubesim_runtime::Wall;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Jobs {
    states: BTreeMap<Key, State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    burst: Option<Burst>,
    backoff: Backoff,
    /// What the back-off is once the status that was sent is stored.
    next_backoff: Option<Backoff>,
    /// What is told once it is.
    tidings: Vec<(Tidings, String)>,
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::Job, Kind::Job, key)
}

/// A pod that may have no Job any more.
fn stray(key: &Key) -> Subject {
    Subject::new(Loop::Job, Kind::Pod, key)
}

impl Jobs {
    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
    ) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::Job => {
                client.mark(subject(key));
                if let (Some(old), None) = (old, new) {
                    self.states.remove(key);
                    // One that is being deleted may never change again
                    // (kubernetes/kubernetes#108645).
                    let own = world.controlled(Kind::Pod, old.uid);
                    own.filter(|pod| is_tracked(pod)).for_each(|pod| client.mark(stray(&pod.key)));
                }
            }
            Kind::Pod => {
                for pod in old.into_iter().chain(new) {
                    if let Some(job) = pods::owned_by(pod, Kind::Job) {
                        client.mark(subject(&job));
                    }
                }
                let lost = |pod: &&Arc<Object>| pod.deleting() || pod.controller().is_none();
                if new.filter(lost).is_some_and(|pod| is_tracked(pod)) {
                    client.mark(stray(key));
                }
            }
            _ => {}
        }
    }

    pub fn sync(&mut self, kind: Kind, key: &Key, desk: &mut Desk<'_, '_>) {
        if kind == Kind::Pod {
            return let_go(key, desk);
        }
        let Some(object) = desk.world.get(Kind::Job, key).cloned() else { return };
        let state = self.states.entry(key.clone()).or_default();
        if state.burst.as_ref().is_some_and(Burst::is_out) {
            return;
        }
        state.burst = None;
        let (spec, status): (JobSpec, JobStatus) = (plain::spec(&object), plain::status(&object));
        if spec.managed_by.as_deref().is_some_and(|name| name != CONTROLLER) {
            return;
        }
        let world = desk.world;
        let own: Vec<_> = world.controlled(Kind::Pod, object.uid).collect();
        match finished(&status) {
            Some(since) => put_away(&object, &spec, since, &own, desk),
            None => {
                let books = Books::new(&object, &spec, &status, own, desk.ctx.wall());
                Sync { object: &object, stored: &status, books, state }.run(desk);
            }
        }
    }

    pub fn answered(&mut self, outcome: &Outcome, world: &World, client: &mut Client) {
        let key = &outcome.subject.key;
        let Some(state) = self.states.get_mut(key) else { return };
        if let (Request::UpdateStatus { .. }, Some(job)) =
            (&*outcome.request, world.get(Kind::Job, key))
        {
            let told = std::mem::take(&mut state.tidings);
            for (what, message) in told.into_iter().filter(|_| outcome.result.is_ok()) {
                client.recorder.tell(tell::name(Loop::Job), job, what, || message);
            }
        }
        let next = state
            .next_backoff
            .take_if(|_| matches!(&*outcome.request, Request::UpdateStatus { .. }));
        if let Some(next) = next.filter(|_| outcome.result.is_ok()) {
            state.backoff = next;
        }
        if let (Request::Create { .. }, Some(burst)) = (&*outcome.request, &mut state.burst) {
            let made_before =
                |error: &crate::ports::api::Error| error.reason == Reason::AlreadyExists;
            if outcome.result.as_ref().is_err_and(|error| !made_before(error)) {
                burst.refused();
            }
            burst.answered(&outcome.subject, client);
        }
    }
}

/// `spec.managedBy` of the Jobs that are ours.
const CONTROLLER: &str = "kubernetes.io/job-controller";

/// One look at one Job that is not over.
struct Sync<'a> {
    object: &'a Arc<Object>,
    stored: &'a JobStatus,
    books: Books<'a>,
    state: &'a mut State,
}

impl Sync<'_> {
    fn run(mut self, desk: &mut Desk<'_, '_>) {
        let now = desk.ctx.wall();
        let next = self.books.status(now);
        let backoff = self.state.backoff.with(&self.books);
        if next != *self.stored
            && let Some(request) = plain::write_status(self.object, &next)
        {
            self.state.next_backoff = Some(backoff);
            self.state.tidings = books::tidings(self.stored, &next);
            self.ask(desk, request);
        }
        for pod in self.books.pods.iter().filter(|pod| is_tracked(pod)) {
            if self.books.is_recorded(pod) {
                self.ask(desk, untrack(pod));
            }
        }
        if let Some(at) = deadline(self.books.spec, self.stored).filter(|at| *at > now) {
            wake(self.object, at, desk);
        }
        let fails = books::condition(self.stored, "FailureTarget").is_some();
        if fails {
            self.books.active().for_each(|pod| self.ask(desk, delete(pod)));
        } else if self.books.verdict.is_none() && !self.object.deleting() {
            self.manage(backoff, desk);
        }
    }

    fn ask(&self, desk: &mut Desk<'_, '_>, request: Request) {
        desk.ask(Loop::Job, Kind::Job, &self.object.key, request);
    }

    /// `manageJob`: as many active pods as there may be.
    fn manage(&mut self, backoff: Backoff, desk: &mut Desk<'_, '_>) {
        // Out of the books, whoever took it: nothing it comes to can be counted.
        let (active, lost): (Vec<_>, Vec<_>) = self.books.active().partition(|pod| is_tracked(pod));
        if !lost.is_empty() {
            desk.ctx.note(|| format!("Job {} deletes {} pods", self.object.key, lost.len()));
            return lost.into_iter().for_each(|pod| self.ask(desk, delete(pod)));
        }
        let is = i32::try_from(active.len()).unwrap_or(i32::MAX);
        let wanted = if is_suspended(self.books.spec) { 0 } else { self.wanted(is) };
        let surplus = self.surplus(active, (is - wanted).max(0) as usize, desk.ctx.wall());
        if !surplus.is_empty() {
            // They end uncounted: unless one has ended meanwhile, of which the version tells.
            return surplus.into_iter().for_each(|pod| self.ask(desk, untrack(pod)));
        }
        let going = if self.books.replaces_failed_only() { self.books.terminating() } else { 0 };
        let missing = (wanted - going - is).max(0) as usize;
        if missing == 0 {
            return;
        }
        match backoff.until().filter(|until| *until > desk.ctx.wall()) {
            Some(until) => wake(self.object, until, desk),
            None => self.create(missing.min(burst::MOST), desk),
        }
    }

    fn wanted(&self, active: i32) -> i32 {
        let parallelism = self.books.spec.parallelism.unwrap_or(1);
        let succeeded = self.books.succeeded();
        match self.books.spec.completions {
            // One success is enough: those that run end by themselves.
            None if succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - succeeded).min(parallelism).max(0),
        }
    }

    /// `activePodsForRemoval`: at least so many, and of an Indexed Job all that share an index
    /// with a better one or have none.
    fn surplus<'p>(
        &self,
        mut active: Vec<&'p Arc<Object>>,
        least: usize,
        now: Wall,
    ) -> Vec<&'p Arc<Object>> {
        active.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), now));
        let (mut surplus, mut rest) = (Vec::new(), Vec::new());
        let mut taken = BTreeSet::new();
        // The best comes last.
        for pod in active.into_iter().rev() {
            let index = indexes::of(pod, self.books.end());
            let fits = !self.books.is_indexed() || index.is_some_and(|index| taken.insert(index));
            if fits { rest.push(pod) } else { surplus.push(pod) }
        }
        let more = least.saturating_sub(surplus.len()).min(rest.len());
        surplus.extend(rest.drain(rest.len() - more..));
        surplus.truncate(burst::MOST);
        surplus
    }

    fn create(&mut self, missing: usize, desk: &mut Desk<'_, '_>) {
        let pods = match self.books.is_indexed() {
            true => self.indexed_pods(missing, desk),
            false => self.plain_pods(missing, desk),
        };
        desk.ctx.note(|| format!("Job {} creates {} pods", self.object.key, pods.len()));
        let creates = pods.into_iter().map(|pod| Request::Create { object: Arc::new(pod) });
        self.state.burst = Some(Burst::start(creates, &subject(&self.object.key), desk.client));
    }

    fn plain_pods(&self, missing: usize, desk: &Desk<'_, '_>) -> Vec<Object> {
        let keys = self.free_names(&self.object.key.name, missing, desk);
        keys.into_iter().map(|key| self.pod(key, None)).collect()
    }

    /// At the lowest indexes that have neither succeeded nor a pod (`firstPendingIndexes`).
    fn indexed_pods(&self, missing: usize, desk: &Desk<'_, '_>) -> Vec<Object> {
        let done = self.books.indexes();
        let end = self.books.end();
        let runs = |pod: &&Arc<Object>| {
            pods::is_active(pod)
                || self.books.replaces_failed_only() && pod.deleting() && !pods::is_terminated(pod)
        };
        let taken: BTreeSet<i32> = self
            .books
            .pods
            .iter()
            .filter(|p| runs(p))
            .filter_map(|p| indexes::of(p, end))
            .collect();
        let free = (0..end).filter(|index| !done.contains(index) && !taken.contains(index));
        free.take(missing)
            .flat_map(|index| {
                let base = Name::from(format!("{}-{index}", self.object.key.name));
                let keys = self.free_names(&base, 1, desk);
                keys.into_iter().map(move |key| self.pod(key, Some(index)))
            })
            .collect()
    }

    fn free_names(&self, base: &Name, count: usize, desk: &Desk<'_, '_>) -> Vec<Key> {
        let Object { key, uid, .. } = &**self.object;
        let taken = |key: &Key| desk.world.get(Kind::Pod, key).is_some();
        names::free_children(&key.namespace, base, *uid, count, taken)
    }

    fn pod(&self, key: Key, index: Option<i32>) -> Object {
        let (mut meta, mut spec) = template::parts(self.object, self.books.spec.template.clone());
        meta.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        if let Some(index) = index {
            let name = &self.object.key.name;
            meta.generate_name = Some(format!("{name}-{index}-"));
            for notes in [&mut meta.annotations, &mut meta.labels] {
                notes.get_or_insert_default().insert(indexes::INDEX.to_owned(), index.to_string());
            }
            spec.hostname = Some(format!("{name}-{index}"));
            for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
                tell_index(container.env.get_or_insert_default());
            }
        }
        template::pod(key, meta, spec)
    }
}

/// `addCompletionIndexEnvVariables`.
fn tell_index(env: &mut Vec<EnvVar>) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    if env.iter().any(|variable| variable.name == NAME) {
        return;
    }
    let field_path = format!("metadata.labels['{}']", indexes::INDEX);
    let field_ref = Some(ObjectFieldSelector { api_version: None, field_path });
    let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
    env.push(EnvVar { name: NAME.to_owned(), value: None, value_from });
}

/// A Job that is over keeps its pods, without finalizers, until it is deleted; when its
/// `ttlSecondsAfterFinished` have passed, that is now (pkg/controller/ttlafterfinished).
fn put_away(
    object: &Arc<Object>,
    spec: &JobSpec,
    since: Wall,
    own: &[&Arc<Object>],
    desk: &mut Desk<'_, '_>,
) {
    for pod in own.iter().filter(|pod| is_tracked(pod)) {
        desk.ask(Loop::Job, Kind::Job, &object.key, untrack(pod));
    }
    let Some(seconds) = spec.ttl_seconds_after_finished.filter(|_| !object.deleting()) else {
        return;
    };
    let end = since + Duration::from_secs(seconds.max(0) as u64);
    if end > desk.ctx.wall() {
        return wake(object, end, desk);
    }
    desk.ctx.note(|| format!("Job {} has been over for {seconds} s and goes", object.key));
    let options = DeleteOptions {
        uid: Some(object.uid),
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::default()
    };
    let request = Request::Delete { kind: Kind::Job, key: object.key.clone(), options };
    desk.ask(Loop::Job, Kind::Job, &object.key, request);
}

/// A pod that waits to be counted by a Job that is gone, or let it go (`syncOrphanPod`). One that
/// is not being deleted is the collector's first, which looks the Job up.
fn let_go(key: &Key, desk: &mut Desk<'_, '_>) {
    let Some(pod) = desk.world.get(Kind::Pod, key).filter(|pod| is_tracked(pod)) else { return };
    let owner = pod.controller().map(|(_, uid)| uid);
    let job = pods::owned_by(pod, Kind::Job).and_then(|key| desk.world.get(Kind::Job, &key));
    let has_job = job.is_some_and(|job| Some(job.uid) == owner);
    if !has_job && (pod.deleting() || owner.is_none()) {
        desk.ask(Loop::Job, Kind::Pod, key, untrack(pod));
    }
}

/// Takes the finalizer off this pod.
fn untrack(pod: &Object) -> Request {
    let all = pod.meta.finalizers.iter().flatten();
    let kept: Vec<&String> = all.filter(|name| *name != FINALIZER).collect();
    let kept = if kept.is_empty() { json!(null) } else { json!(kept) };
    let patch = json!({"metadata": {
        "uid": pod.uid.to_string(), "resourceVersion": pod.version.to_string(), "finalizers": kept,
    }});
    let (kind, key) = (Kind::Pod, pod.key.clone());
    Request::Patch { kind, key, subresource: Subresource::Main, patch }
}

fn delete(pod: &Object) -> Request {
    let options = DeleteOptions { uid: Some(pod.uid), ..DeleteOptions::default() };
    Request::Delete { kind: Kind::Pod, key: pod.key.clone(), options }
}

/// Looks at the Job again at that moment of the civil clock.
fn wake(object: &Object, at: Wall, desk: &mut Desk<'_, '_>) {
    let delay = at.since(desk.ctx.wall()).max(Duration::from_millis(1));
    desk.client.mark_at(desk.ctx.now() + delay, subject(&object.key));
}
