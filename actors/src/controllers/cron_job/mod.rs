//! CronJob: a Job whenever its schedule is due (upstream
//! `pkg/controller/cronjob/cronjob_controllerv2.go`).
//!
//! A Job's name follows from the minute it is due, so none is made twice. What was made and what
//! became of it is stored before anything else is begun: upstream does both in one go.

mod due;
mod status;

use super::client::{Client, Loop, Outcome, Subject};
use super::world::{Desk, ObjectChange, sides};
use super::{plain, pods, tell};
use crate::objects::schedule::{self, Schedule};
use crate::objects::{Key, Kind, Object, ObjectMeta, wall};
use crate::ports::api::{DeleteOptions, Propagation, Reason, Request};
use crate::recorder::Tidings;
use due::Due;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJobSpec, CronJobStatus};
use kubesim_runtime::Wall;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Which moment a Job was made for, as RFC 3339 in the CronJob's zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// A sync comes so long after the moment (`nextScheduleDelta`).
const DELTA: Duration = Duration::from_millis(100);
/// More missed moments than these are worth a word.
const MANY: i64 = 100;

#[derive(Clone, Debug, Default)]
pub struct CronJobs {
    /// Jobs that a status lists and that were looked up in vain.
    gone: BTreeSet<Key>,
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::CronJob, Kind::CronJob, key)
}

impl CronJobs {
    pub fn observe(&self, kind: Kind, change: &ObjectChange<'_>, client: &mut Client) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::CronJob => client.mark(subject(key)),
            Kind::Job => {
                for job in old.into_iter().chain(new) {
                    if let Some(owner) = pods::owned_by(job, Kind::CronJob) {
                        client.mark(subject(&owner));
                    }
                }
            }
            _ => {}
        }
    }

    pub fn answered(&mut self, outcome: &Outcome) {
        if let (Request::Get { kind: Kind::Job, key }, Err(error)) =
            (&*outcome.request, &outcome.result)
            && error.reason == Reason::NotFound
        {
            self.gone.insert(key.clone());
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(object) = desk.world.get(Kind::CronJob, key).cloned() else { return };
        let (spec, stored): (CronJobSpec, CronJobStatus) =
            (plain::spec(&object), plain::status(&object));
        let world = desk.world;
        let lost = status::lost(&object, &stored, world);
        let unsure: Vec<&Key> = lost.iter().filter(|job| !self.gone.contains(job)).collect();
        if !unsure.is_empty() {
            // The view may be late: who made it may have been another life.
            for job in unsure {
                ask(key, Request::Get { kind: Kind::Job, key: job.clone() }, desk);
            }
            return;
        }
        let own: Vec<&Arc<Object>> = world.controlled(Kind::Job, object.uid).collect();
        put_away(key, &spec, &own, desk);
        let next = status::status(&object, &stored, &own, &lost);
        // If the status cannot be stored, they are looked up again.
        lost.iter().for_each(|job| _ = self.gone.remove(job));
        if next != stored {
            tell_of_ends(&object, &stored, &next, &own, desk);
            if let Some(request) = plain::write_status(&object, &next) {
                ask(key, request, desk);
            }
            return;
        }
        if !object.deleting() {
            Sync { object: &object, spec: &spec, status: &stored, own }.run(desk);
        }
    }
}

fn ask(key: &Key, request: Request, desk: &mut Desk<'_, '_>) {
    desk.ask(Loop::CronJob, Kind::CronJob, key, request);
}

/// Of Jobs that are over and were not yesterday.
fn tell_of_ends(
    object: &Arc<Object>,
    stored: &CronJobStatus,
    next: &CronJobStatus,
    own: &[&Arc<Object>],
    desk: &mut Desk<'_, '_>,
) {
    let lists = |status: &CronJobStatus, job: &Object| {
        let uid = job.uid.to_string();
        status.active.iter().flatten().any(|one| one.uid.as_deref() == Some(&uid))
    };
    for job in own.iter().filter(|job| lists(stored, job) && !lists(next, job)) {
        let Some(end) = status::end(job) else { continue };
        let what = Tidings::normal("SawCompletedJob");
        let name = &job.key.name;
        desk.client.recorder.tell(tell::name(Loop::CronJob), object, what, || {
            format!("Saw completed job: {name}, condition: {end}")
        });
    }
}

fn delete(job: &Object) -> Request {
    let options = DeleteOptions {
        uid: Some(job.uid),
        propagation: Some(Propagation::Background),
        ..DeleteOptions::default()
    };
    Request::Delete { kind: Kind::Job, key: job.key.clone(), options }
}

/// Of those that are over, the oldest go that are beyond the limits (`cleanupFinishedJobs`).
fn put_away(key: &Key, spec: &CronJobSpec, own: &[&Arc<Object>], desk: &mut Desk<'_, '_>) {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    for (end, limit) in limits {
        let Some(limit) = limit else { continue };
        let over = own.iter().filter(|job| status::end(job) == Some(end) && !job.deleting());
        let mut over: Vec<_> = over.collect();
        over.sort_by_key(|job| status::begun(job));
        let surplus = over.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        for job in over.into_iter().take(surplus) {
            ask(key, delete(job), desk);
        }
    }
}

/// One look at one CronJob whose status says what there is.
struct Sync<'a> {
    object: &'a Arc<Object>,
    spec: &'a CronJobSpec,
    status: &'a CronJobStatus,
    own: Vec<&'a Arc<Object>>,
}

impl Sync<'_> {
    fn run(&self, desk: &mut Desk<'_, '_>) {
        let key = &self.object.key;
        let zone = match &self.spec.time_zone {
            None => TimeZone::UTC,
            Some(name) => match schedule::zone(name) {
                Some(zone) => zone,
                None => {
                    let what = Tidings::warning("UnknownTimeZone");
                    let why = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                    return self.tell(what, why, desk);
                }
            },
        };
        if self.spec.suspend == Some(true) {
            return;
        }
        let schedule = match Schedule::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let text = &self.spec.schedule;
                let why = format!("unparseable schedule: {text:?} : {why}");
                return self.tell(Tidings::warning("UnparseableSchedule"), why, desk);
            }
        };
        let now = desk.ctx.wall();
        let due = Due { schedule: &schedule, zone: &zone, since: self.since(), now };
        if let Some(next) = due.next() {
            let delay = (next + DELTA).since(now);
            desk.client.mark_at(desk.ctx.now() + delay, subject(key));
        }
        let deadline = self.spec.starting_deadline_seconds;
        let deadline = deadline.map(|seconds| Duration::from_secs(seconds.max(0) as u64));
        match due.unmet(deadline) {
            Err(why) => desk.ctx.note(|| format!("CronJob {key}: {why}")),
            Ok(None) => {}
            Ok(Some((at, _))) if deadline.is_some_and(|deadline| at + deadline < now) => {
                let at = due::rfc1123(at);
                let why = format!("Missed scheduled time to start a job: {at}");
                self.tell(Tidings::warning("MissSchedule"), why, desk);
            }
            Ok(Some((at, missed))) => {
                if missed > MANY {
                    let why = "too many missed start times. Set or decrease \
                        .spec.startingDeadlineSeconds or check clock skew";
                    self.tell(Tidings::warning("TooManyMissedTimes"), why.to_owned(), desk);
                }
                self.begin(at, &zone, desk);
            }
        }
    }

    /// Says what it sees, to those who look at its notes and to people.
    fn tell(&self, what: Tidings, message: String, desk: &mut Desk<'_, '_>) {
        desk.ctx.note(|| format!("CronJob {}: {message}", self.object.key));
        desk.client.recorder.tell(tell::name(Loop::CronJob), self.object, what, || message);
    }

    /// When it was due last, or made.
    fn since(&self) -> Wall {
        let last = self.status.last_schedule_time.as_ref();
        let made = self.object.meta.creation_timestamp.as_ref();
        last.or(made).map_or(Wall::default(), |time| wall(time.0))
    }

    /// A Job for this moment, unless it is made, or others must end first.
    fn begin(&self, at: Wall, zone: &TimeZone, desk: &mut Desk<'_, '_>) {
        let key = &self.object.key;
        let active = self.status.active.as_deref().unwrap_or_default();
        let name = format!("{}-{}", key.name, at.unix_secs().div_euclid(60));
        let last = self.status.last_schedule_time.as_ref().map(|time| wall(time.0));
        let job = Key::new(key.namespace.clone(), name);
        // One of that name that is not ours is in the way.
        if last == Some(at) || desk.world.get(Kind::Job, &job).is_some() {
            return;
        }
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let why = "Not starting job because prior execution is running and concurrency \
                    policy is Forbid";
                return self.tell(Tidings::normal("JobAlreadyActive"), why.to_owned(), desk);
            }
            Some("Replace") => {
                let listed = |job: &Object| {
                    let uid = job.uid.to_string();
                    active.iter().any(|one| one.uid.as_deref() == Some(&uid))
                };
                for job in self.own.iter().filter(|job| listed(job) && !job.deleting()) {
                    ask(key, delete(job), desk);
                }
            }
            _ => {}
        }
        desk.ctx.note(|| format!("CronJob {key} begins {job}"));
        let object = Arc::new(self.job(job, at, zone));
        ask(key, Request::Create { object }, desk);
    }

    /// `getJobFromTemplate2`.
    fn job(&self, key: Key, at: Wall, zone: &TimeZone) -> Object {
        let template = &self.spec.job_template;
        let labelled = template.metadata.clone().unwrap_or_default();
        let mut annotations = labelled.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), due::rfc3339(at, zone));
        let meta = ObjectMeta {
            labels: labelled.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![self.object.as_controller()]),
            ..ObjectMeta::default()
        };
        let fields = json!({"spec": template.spec.clone().unwrap_or_default()});
        plain::object(Kind::Job, key, fields).with_meta(meta)
    }
}
