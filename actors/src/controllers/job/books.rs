//! How a Job's ended pods are counted, each once (KEP-2307, `trackJobStatusAndRemoveFinalizers` of
//! pkg/controller/job/job_controller.go).
//!
//! A pod of a Job has a finalizer, so it cannot go before it was counted. When it ends, its uid is
//! written into `uncountedTerminatedPods` (of one that succeeded at an index, the index into
//! `completedIndexes`); when that is stored, the finalizer is taken off; when the pod shows no
//! finalizer any more, the uid becomes one more in a counter. Each step follows from what the API
//! stores, so whoever dies in between, nothing is counted twice or lost.

use super::indexes;
use super::policy::{self, Verdict as Judgement};
use crate::controllers::pods::{is_active, is_ready};
use crate::objects::{Object, Phase, time, wall};
use crate::recorder::Tidings;
use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};
use kubesim_runtime::Wall;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// Uids that one status may hold (`MaxUncountedPods`).
const MOST_UNCOUNTED: usize = 500;

/// One Job as the views show it.
pub struct Books<'a> {
    pub spec: &'a JobSpec,
    stored: &'a JobStatus,
    pub pods: Vec<&'a Arc<Object>>,
    /// The Job itself is being deleted.
    deleting: bool,
    uncounted_succeeded: BTreeSet<&'a str>,
    uncounted_failed: BTreeSet<&'a str>,
    /// Of `completedIndexes`.
    stored_indexes: BTreeSet<i32>,
    pub verdict: Option<Verdict>,
}

/// How the Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub fails: bool,
    pub reason: String,
    pub message: String,
}

/// What a pod that still has its finalizer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// It may run on.
    Open,
    Succeeded,
    SucceededAt(i32),
    Failed,
    /// It ended and no number says so.
    Nothing,
}

pub fn is_tracked(pod: &Object) -> bool {
    pod.meta.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

/// The condition of this type is true.
pub fn condition<'s>(status: &'s JobStatus, kind: &str) -> Option<&'s JobCondition> {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The Job is over, and since when.
pub fn finished(status: &JobStatus) -> Option<Wall> {
    let ended = condition(status, "Complete").or_else(|| condition(status, "Failed"))?;
    Some(ended.last_transition_time.as_ref().map_or(Wall::default(), |time| wall(time.0)))
}

pub fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// The moment when `activeDeadlineSeconds` are over. They are counted anew from when a suspended
/// Job goes on (`startTime` and `suspend` in k8s.io/api batch/v1), which its status says a little
/// later.
pub fn deadline(spec: &JobSpec, status: &JobStatus) -> Option<Wall> {
    let stands = is_suspended(spec) || condition(status, "Suspended").is_some();
    let seconds = spec.active_deadline_seconds.filter(|_| !stands)?;
    let start = wall(status.start_time.as_ref()?.0);
    Some(start + Duration::from_secs(seconds.max(0) as u64))
}

impl<'a> Books<'a> {
    pub fn new(
        object: &Object,
        spec: &'a JobSpec,
        stored: &'a JobStatus,
        pods: Vec<&'a Arc<Object>>,
        now: Wall,
    ) -> Self {
        let uncounted = stored.uncounted_terminated_pods.as_ref();
        let uids = |list: Option<&'a Vec<String>>| {
            list.into_iter().flatten().map(String::as_str).collect::<BTreeSet<_>>()
        };
        let completed = stored.completed_indexes.as_deref().unwrap_or_default();
        let mut books = Books {
            spec,
            stored,
            pods,
            deleting: object.deleting(),
            uncounted_succeeded: uids(uncounted.and_then(|all| all.succeeded.as_ref())),
            uncounted_failed: uids(uncounted.and_then(|all| all.failed.as_ref())),
            stored_indexes: indexes::parse(completed, spec.completions.unwrap_or(0)),
            verdict: None,
        };
        books.verdict = books.judge(now);
        books
    }

    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub fn end(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    pub fn active(&self) -> impl Iterator<Item = &'a Arc<Object>> + '_ {
        self.pods.iter().copied().filter(|pod| is_active(pod))
    }

    /// Pods that are being deleted and have not ended.
    pub fn terminating(&self) -> i32 {
        let going = |pod: &&&Arc<Object>| pod.deleting() && !phase(pod).ended();
        count(self.pods.iter().filter(going))
    }

    /// A pod counts as failed when it has ended, not when it is told to (`onlyReplaceFailedPods`).
    pub fn replaces_failed_only(&self) -> bool {
        self.spec.pod_failure_policy.is_some()
            || self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// `isPodFailed`.
    pub fn is_failed(&self, pod: &Object) -> bool {
        match phase(pod) {
            Phase::Failed => true,
            Phase::Succeeded => false,
            _ => pod.deleting() && !self.replaces_failed_only(),
        }
    }

    fn entry(&self, pod: &Object) -> Entry {
        let index = indexes::of(pod, self.end());
        let known_failed = self.uncounted_failed.contains(pod.uid.to_string().as_str());
        let ends = self.verdict.as_ref().filter(|_| !is_active(pod));
        if phase(pod) == Phase::Succeeded && !known_failed {
            return match index {
                _ if !self.is_indexed() => Entry::Succeeded,
                Some(index) => Entry::SucceededAt(index),
                None => Entry::Nothing,
            };
        }
        // When the Job fails, so has every pod that did not succeed.
        if known_failed || self.is_failed(pod) || ends.is_some_and(|verdict| verdict.fails) {
            let counts = !self.is_indexed() || index.is_some();
            let policy = self.spec.pod_failure_policy.as_ref();
            let ignored = policy::judge(policy, pod) == Judgement::Ignored;
            return if known_failed || counts && !ignored { Entry::Failed } else { Entry::Nothing };
        }
        if self.deleting || ends.is_some() { Entry::Nothing } else { Entry::Open }
    }

    /// The stored status says what this pod came to: its finalizer may go.
    pub fn is_recorded(&self, pod: &Object) -> bool {
        let uid = pod.uid.to_string();
        match self.entry(pod) {
            Entry::Open => false,
            Entry::Succeeded => self.uncounted_succeeded.contains(uid.as_str()),
            Entry::SucceededAt(index) => self.stored_indexes.contains(&index),
            Entry::Failed => self.uncounted_failed.contains(uid.as_str()),
            Entry::Nothing => true,
        }
    }

    /// Pods that ended and that the stored status says nothing of yet: succeeded or failed ones.
    pub fn new_ends(&self, succeeded: bool) -> impl Iterator<Item = &'a Arc<Object>> + '_ {
        let known = if succeeded { &self.uncounted_succeeded } else { &self.uncounted_failed };
        self.pods.iter().copied().filter(move |pod| {
            let ended = match succeeded {
                true => phase(pod) == Phase::Succeeded,
                false => self.is_failed(pod),
            };
            ended
                && is_tracked(pod)
                && !known.contains(pod.uid.to_string().as_str())
                && (!self.is_indexed() || indexes::of(pod, self.end()).is_some())
        })
    }

    /// Indexes at which a pod has succeeded.
    pub fn indexes(&self) -> BTreeSet<i32> {
        let mut all = self.stored_indexes.clone();
        let ended = self.pods.iter().filter(|pod| is_tracked(pod));
        all.extend(ended.filter_map(|pod| match self.entry(pod) {
            Entry::SucceededAt(index) => Some(index),
            _ => None,
        }));
        all
    }

    pub fn succeeded(&self) -> i32 {
        if self.is_indexed() {
            return count(self.indexes().iter());
        }
        self.stored.succeeded.unwrap_or(0)
            + count(self.uncounted_succeeded.iter())
            + count(self.new_ends(true))
    }

    pub fn failed(&self) -> i32 {
        let policy = self.spec.pod_failure_policy.as_ref();
        let counts = |pod: &&Arc<Object>| policy::judge(policy, pod) != Judgement::Ignored;
        self.stored.failed.unwrap_or(0)
            + count(self.uncounted_failed.iter())
            + count(self.new_ends(false).filter(counts))
    }

    /// What was decided once stays decided; the order is upstream's.
    fn judge(&self, now: Wall) -> Option<Verdict> {
        let decided = |kind: &str| condition(self.stored, kind);
        let (met, failed) = (decided("SuccessCriteriaMet"), decided("FailureTarget"));
        if let Some(condition) = met.or(failed) {
            return Some(Verdict {
                fails: met.is_none(),
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            });
        }
        let verdict = |fails, reason: &str, message: String| {
            Some(Verdict { fails, reason: reason.to_owned(), message })
        };
        let policy = self.spec.pod_failure_policy.as_ref();
        let mut failed = self.pods.iter().filter(|pod| policy.is_some() && self.is_failed(pod));
        let fatal = failed.find_map(|pod| match policy::judge(policy, pod) {
            Judgement::FailsJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = fatal {
            return verdict(true, "PodFailurePolicy", message);
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed() > limit || self.restarted_too_often(limit) {
            let message = "Job has reached the specified backoff limit".to_owned();
            return verdict(true, "BackoffLimitExceeded", message);
        }
        if deadline(self.spec, self.stored).is_some_and(|end| now >= end) {
            let message = "Job was active longer than specified deadline".to_owned();
            return verdict(true, "DeadlineExceeded", message);
        }
        let enough = match self.spec.completions {
            // Any success ends it, as soon as the others have ended too.
            None => self.succeeded() > 0,
            Some(wanted) => self.succeeded() >= wanted,
        };
        if enough && self.active().next().is_none() {
            let message = "Reached expected number of succeeded pods".to_owned();
            return verdict(false, "CompletionsReached", message);
        }
        None
    }

    /// Under `OnFailure` it is the kubelet that tries again (`pastBackoffLimitOnFailure`).
    fn restarted_too_often(&self, limit: i32) -> bool {
        let template = self.spec.template.spec.as_ref();
        let policy = template.and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let mut restarts = 0;
        for pod in self.pods.iter().filter(|p| matches!(phase(p), Phase::Running | Phase::Pending))
        {
            let Some((_, status)) = pod.pod() else { continue };
            let inits = status.init_container_statuses.iter().flatten();
            let all = inits.chain(status.container_statuses.iter().flatten());
            restarts += all.map(|container| container.restart_count).sum::<i32>();
        }
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// The status that is to be stored.
    pub fn status(&self, now: Wall) -> JobStatus {
        let mut next = self.stored.clone();
        let suspended = is_suspended(self.spec);
        if next.start_time.is_none() && !suspended {
            next.start_time = Some(time(now));
        }
        next.active = Some(count(self.active())).filter(|active| *active > 0);
        next.ready = Some(count(self.active().filter(|pod| is_ready(pod))));
        next.terminating = Some(self.terminating());
        self.count(&mut next);
        match &self.verdict {
            Some(verdict) => self.end_with(verdict, &mut next, now),
            None if !self.deleting => suspend(suspended, &mut next, now),
            None => {}
        }
        next
    }

    /// Counts those whose finalizer is gone, and writes down those that ended.
    fn count(&self, next: &mut JobStatus) {
        let tracked = self.pods.iter().filter(|pod| is_tracked(pod));
        let tracked: BTreeSet<String> = tracked.map(|pod| pod.uid.to_string()).collect();
        let lists = next.uncounted_terminated_pods.get_or_insert_default();
        for (list, counter) in
            [(&mut lists.succeeded, &mut next.succeeded), (&mut lists.failed, &mut next.failed)]
        {
            let all = list.get_or_insert_default();
            let before = all.len();
            all.retain(|uid| tracked.contains(uid));
            let done = i32::try_from(before - all.len()).unwrap_or(i32::MAX);
            *counter = Some(counter.unwrap_or(0) + done).filter(|count| *count > 0);
        }
        let mut completed = self.stored_indexes.clone();
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && !self.is_recorded(pod)) {
            let uids = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
            let new = completed.len() - self.stored_indexes.len();
            if new + uids(&lists.succeeded) + uids(&lists.failed) >= MOST_UNCOUNTED {
                break;
            }
            match self.entry(pod) {
                Entry::Succeeded => {
                    lists.succeeded.get_or_insert_default().push(pod.uid.to_string());
                }
                Entry::Failed => lists.failed.get_or_insert_default().push(pod.uid.to_string()),
                Entry::SucceededAt(index) => _ = completed.insert(index),
                Entry::Open | Entry::Nothing => {}
            }
        }
        for list in [&mut lists.succeeded, &mut lists.failed] {
            list.take_if(|list| list.is_empty());
        }
        if self.is_indexed() {
            next.succeeded = Some(count(completed.iter())).filter(|count| *count > 0);
            next.completed_indexes = Some(indexes::text(&completed)).filter(|all| !all.is_empty());
        }
    }

    /// First what it comes to, then, when every pod is counted and gone, that it is over.
    fn end_with(&self, verdict: &Verdict, next: &mut JobStatus, now: Wall) {
        let (interim, last) = match verdict.fails {
            true => ("FailureTarget", "Failed"),
            false => ("SuccessCriteriaMet", "Complete"),
        };
        let all = next.conditions.get_or_insert_default();
        let add = |all: &mut Vec<JobCondition>, kind: &str| {
            all.push(JobCondition {
                type_: kind.to_owned(),
                status: "True".to_owned(),
                reason: Some(verdict.reason.clone()).filter(|text| !text.is_empty()),
                message: Some(verdict.message.clone()).filter(|text| !text.is_empty()),
                last_probe_time: Some(time(now)),
                last_transition_time: Some(time(now)),
            });
        };
        if condition(self.stored, interim).is_none() {
            return add(all, interim);
        }
        let uncounted = next.uncounted_terminated_pods.as_ref();
        let all_counted =
            uncounted.is_none_or(|lists| lists.succeeded.is_none() && lists.failed.is_none());
        let runs = self.active().next().is_some() || self.terminating() > 0;
        if all_counted && !runs && !self.pods.iter().any(|pod| is_tracked(pod)) {
            add(all, last);
            if !verdict.fails {
                next.completion_time = Some(time(now));
            }
        }
    }
}

/// What people are told of a status that is to follow another (`recordJobFinished`, and
/// `syncJob` of a Job that is suspended).
pub fn tidings(stored: &JobStatus, next: &JobStatus) -> Vec<(Tidings, String)> {
    let mut tidings = Vec::new();
    for one in next.conditions.iter().flatten() {
        let mut before = stored.conditions.iter().flatten();
        if before.any(|old| old.type_ == one.type_ && old.status == one.status) {
            continue;
        }
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        tidings.extend(match (one.type_.as_str(), one.status.as_str()) {
            ("Complete", _) => Some((Tidings::normal("Completed"), "Job completed".to_owned())),
            ("Failed", _) => Some((Tidings::warning(&text(&one.reason)), text(&one.message))),
            ("Suspended", "True") => Some((Tidings::normal("Suspended"), text(&one.message))),
            ("Suspended", _) => Some((Tidings::normal("Resumed"), text(&one.message))),
            _ => None,
        });
    }
    tidings
}

/// The condition `Suspended`; a Job that goes on counts its time anew.
fn suspend(suspended: bool, next: &mut JobStatus, now: Wall) {
    let all = next.conditions.get_or_insert_default();
    let known = all.iter_mut().find(|condition| condition.type_ == "Suspended");
    let (status, reason, message) = match suspended {
        true => ("True", "JobSuspended", "Job suspended"),
        false => ("False", "JobResumed", "Job resumed"),
    };
    let condition = JobCondition {
        type_: "Suspended".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    };
    match known {
        Some(known) if known.status == status => {}
        Some(known) => {
            *known = condition;
            if !suspended {
                next.start_time = Some(time(now));
            }
        }
        None if suspended => all.push(condition),
        None => {}
    }
    next.conditions.take_if(|all| all.is_empty());
}

fn phase(pod: &Object) -> Phase {
    pod.pod_facts().map(|facts| facts.phase).unwrap_or_default()
}

fn count<T>(of: impl Iterator<Item = T>) -> i32 {
    i32::try_from(of.count()).unwrap_or(i32::MAX)
}
