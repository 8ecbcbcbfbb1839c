//! What a Deployment says of itself: counts, and the conditions Available and Progressing
//! (upstream `deployment/progress.go`).

use super::{Member, Sync, subject};
use crate::controllers::world::Desk;
use crate::objects::{Body, DeploymentStatus, Object, time, wall};
use crate::ports::api::Request;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use kubesim_runtime::Wall;
use std::sync::Arc;
use std::time::Duration;

type Conditions = Vec<DeploymentCondition>;

impl Sync<'_> {
    pub(super) fn write_status(&mut self, desk: &mut Desk<'_, '_>) {
        let mut wanted = self.counts();
        let mut conditions = self.status.conditions.clone().unwrap_or_default();
        let now = desk.ctx.wall();
        self.judge_availability(&wanted, &mut conditions, now);
        self.judge_progress(&wanted, &mut conditions, now, desk);
        wanted.conditions = (!conditions.is_empty()).then_some(conditions);
        if wanted == *self.status {
            return;
        }
        self.put_status(wanted, desk);
    }

    pub(super) fn bump_collision_count(&mut self, desk: &mut Desk<'_, '_>) {
        let mut wanted = self.status.clone();
        wanted.collision_count = Some(wanted.collision_count.unwrap_or(0) + 1);
        self.put_status(wanted, desk);
    }

    fn put_status(&mut self, wanted: DeploymentStatus, desk: &mut Desk<'_, '_>) {
        let body = Body::Deployment { spec: Arc::clone(self.spec), status: Arc::new(wanted) };
        let object = Object { body, ..(**self.object).clone() };
        self.ask(desk, Request::UpdateStatus { object: Arc::new(object) });
    }

    fn counts(&self) -> DeploymentStatus {
        let status = |member: &Member| member.object.replica_set().map(|(_, s)| Arc::clone(s));
        let all: Vec<_> = self.new.iter().chain(&self.old).filter_map(status).collect();
        let sum = |count: fn(&crate::objects::ReplicaSetStatus) -> i32| {
            all.iter().map(|status| count(status)).sum::<i32>()
        };
        let available = sum(|status| status.available_replicas.unwrap_or(0));
        let desired: i32 = self.new.iter().chain(&self.old).map(|member| member.replicas).sum();
        let some = |count: i32| (count > 0).then_some(count);
        DeploymentStatus {
            observed_generation: self.object.meta.generation,
            replicas: some(sum(|status| status.replicas)),
            updated_replicas: some(self.new.as_ref().and_then(status).map_or(0, |s| s.replicas)),
            ready_replicas: some(sum(|status| status.ready_replicas.unwrap_or(0))),
            available_replicas: some(available),
            unavailable_replicas: some((desired - available).max(0)),
            collision_count: self.status.collision_count,
            conditions: None,
            terminating_replicas: self.status.terminating_replicas,
        }
    }

    /// `DeploymentComplete`: all pods are of the new template and available.
    pub(super) fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let all = self.limits.replicas;
        status.updated_replicas.unwrap_or(0) == all
            && status.replicas.unwrap_or(0) == all
            && status.available_replicas.unwrap_or(0) == all
            && status.observed_generation >= self.object.meta.generation
    }

    fn judge_availability(&self, wanted: &DeploymentStatus, all: &mut Conditions, now: Wall) {
        let enough = wanted.available_replicas.unwrap_or(0)
            >= self.limits.replicas - self.limits.unavailable;
        let (status, reason, message) = if enough {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        set(all, "Available", status, reason, message, now, false);
    }

    fn judge_progress(
        &self,
        wanted: &DeploymentStatus,
        all: &mut Conditions,
        now: Wall,
        desk: &mut Desk<'_, '_>,
    ) {
        const TYPE: &str = "Progressing";
        let deadline = self.spec.progress_deadline_seconds.unwrap_or(600);
        if deadline == i32::MAX {
            all.retain(|condition| condition.type_ != TYPE);
            return;
        }
        let Some(new) = &self.new else { return };
        let name = &new.object.key.name;
        let current = all.iter().find(|condition| condition.type_ == TYPE).cloned();
        let reason = current.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or("");
        let rolled_out = wanted.replicas == wanted.updated_replicas && reason == AVAILABLE;
        if rolled_out {
            return;
        }
        let progressing = self.has_progressed(wanted);
        if self.is_complete(wanted) {
            let message = format!("ReplicaSet {name:?} has successfully progressed.");
            set(all, TYPE, "True", AVAILABLE, &message, now, true);
        } else if current.is_none() || reason == AVAILABLE {
            let message = format!("Created new replica set {name:?}");
            set(all, TYPE, "True", "NewReplicaSetCreated", &message, now, true);
        } else if progressing {
            let message = format!("ReplicaSet {name:?} is progressing.");
            set(all, TYPE, "True", "ReplicaSetUpdated", &message, now, true);
        } else if self.spec.paused != Some(true) && reason != EXCEEDED {
            let updated = current.as_ref().and_then(|c| c.last_update_time.as_ref());
            let since = updated.map_or(now, |at| wall(at.0));
            let due = since + Duration::from_secs(deadline.max(0) as u64);
            if due <= now {
                let message = format!("ReplicaSet {name:?} has timed out progressing.");
                set(all, TYPE, "False", EXCEEDED, &message, now, true);
            }
        }
        let updated = all.iter().find(|condition| condition.type_ == TYPE);
        if let Some(at) = updated.filter(|c| c.reason.as_deref() != Some(EXCEEDED)) {
            let since = at.last_update_time.as_ref().map_or(now, |at| wall(at.0));
            let due = since + Duration::from_secs(deadline.max(0) as u64 + 1);
            if reason != AVAILABLE && due > now {
                let at = desk.ctx.now() + due.since(now);
                desk.client.mark_at(at, subject(&self.object.key));
            }
        }
    }

    /// `DeploymentProgressing`: more of the new, fewer of the old, or more of them ready.
    fn has_progressed(&self, wanted: &DeploymentStatus) -> bool {
        let before = self.status;
        let n = |count: Option<i32>| count.unwrap_or(0);
        let old = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
        n(wanted.updated_replicas) > n(before.updated_replicas)
            || old(wanted) < old(before)
            || n(wanted.ready_replicas) > n(before.ready_replicas)
            || n(wanted.available_replicas) > n(before.available_replicas)
    }
}

const AVAILABLE: &str = "NewReplicaSetAvailable";
const EXCEEDED: &str = "ProgressDeadlineExceeded";

/// Puts a condition. `refresh` renews its update time even if it says the same.
fn set(
    all: &mut Conditions,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Wall,
    refresh: bool,
) {
    let at = all.iter().position(|condition| condition.type_ == type_);
    let before = at.map(|at| all[at].clone());
    let same_status = before.as_ref().filter(|before| before.status == status);
    let says_the_same = same_status.is_some_and(|b| b.reason.as_deref() == Some(reason));
    if says_the_same && !refresh {
        return;
    }
    let condition = DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(time(now)),
        last_transition_time: same_status
            .and_then(|before| before.last_transition_time.clone())
            .or_else(|| Some(time(now))),
    };
    match at {
        Some(at) => all[at] = condition,
        None => all.push(condition),
    }
}
