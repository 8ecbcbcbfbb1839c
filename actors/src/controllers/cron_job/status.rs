//! What a CronJob's status says of its Jobs: which run, when it was due last, when one succeeded.

use super::SCHEDULED;
use crate::controllers::plain;
use crate::controllers::world::World;
use crate::objects::{Key, Kind, Object, Uid};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJobStatus, JobStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

/// How a Job ended, if it did: its condition.
pub fn end(job: &Object) -> Option<&'static str> {
    let status: JobStatus = plain::status(job);
    let mut said = status.conditions.iter().flatten().filter(|one| one.status == "True");
    said.find_map(|one| ["Complete", "Failed"].into_iter().find(|end| one.type_ == *end))
}

/// By when they began; those that have not come last.
pub fn begun(job: &Object) -> impl Ord + use<> {
    let start = plain::status::<JobStatus>(job).start_time.map(|time| time.0);
    (start.is_none(), start, job.key.name.clone())
}

/// The Jobs that the status lists and the view does not show.
pub fn lost(object: &Object, status: &CronJobStatus, world: &World) -> Vec<Key> {
    let there = |reference: &ObjectReference| {
        let key = key(object, reference);
        let job = world.get(Kind::Job, &key);
        job.is_none_or(|job| Some(job.uid) != uid(reference)).then_some(key)
    };
    status.active.iter().flatten().filter_map(there).collect()
}

fn key(object: &Object, reference: &ObjectReference) -> Key {
    Key::new(object.key.namespace.clone(), reference.name.as_deref().unwrap_or_default())
}

fn uid(reference: &ObjectReference) -> Option<Uid> {
    Uid::parse(reference.uid.as_deref()?)
}

/// The status as it is to be. `lost` are those of its Jobs that are no more.
pub fn status(
    object: &Object,
    stored: &CronJobStatus,
    own: &[&Arc<Object>],
    lost: &[Key],
) -> CronJobStatus {
    let mut next = stored.clone();
    let mut active = next.active.take().unwrap_or_default();
    active.retain(|one| !lost.contains(&key(object, one)));
    let noted = stored.last_schedule_time.as_ref().map(|time| time.0);
    for job in own {
        // One that was made and is not noted yet.
        if let Some(at) = scheduled(job).filter(|at| noted.is_none_or(|noted| noted < *at)) {
            active.push(reference(job));
            let last = next.last_schedule_time.as_ref().map_or(at, |last| last.0.max(at));
            next.last_schedule_time = Some(Time(last));
        }
        let Some(end) = end(job) else { continue };
        active.retain(|one| uid(one) != Some(job.uid));
        let done = plain::status::<JobStatus>(job).completion_time;
        let latest = next.last_successful_time.as_ref();
        let is_later = |done: &Time| latest.is_none_or(|latest| latest.0 < done.0);
        if end == "Complete"
            && let Some(done) = done.filter(is_later)
        {
            next.last_successful_time = Some(done);
        }
    }
    next.active = Some(active).filter(|active| !active.is_empty());
    next
}

/// The moment that a Job was made for.
fn scheduled(job: &Object) -> Option<Timestamp> {
    job.annotation(SCHEDULED)?.parse().ok()
}

fn reference(job: &Object) -> ObjectReference {
    ObjectReference {
        api_version: Some(Kind::Job.api_version().to_owned()),
        kind: Some(Kind::Job.name().to_owned()),
        namespace: Some(job.key.namespace.to_string()),
        name: Some(job.key.name.to_string()),
        uid: Some(job.uid.to_string()),
        resource_version: Some(job.version.to_string()),
        ..ObjectReference::default()
    }
}
