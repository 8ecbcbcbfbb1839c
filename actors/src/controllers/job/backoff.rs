//! How long a Job waits before it makes another pod (pkg/controller/job/backoff_utils.go): 10 s
//! after a failure, doubling with each up to 10 min, until a pod succeeds. Kept in memory, as
//! upstream does: a controller that starts again begins anew.

use super::books::Books;
use crate::controllers::pods;
use crate::objects::{Object, wall};
use k8s_openapi::api::core::v1::ContainerStatus;
use kubesim_runtime::Wall;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    last_failure: Option<Wall>,
}

impl Backoff {
    /// With the ends that the books do not know yet.
    pub fn with(self, books: &Books<'_>) -> Self {
        let last_success = books.new_ends(true).map(|pod| ended(pod)).max();
        let failures = books.new_ends(false).map(|pod| ended(pod));
        let after = |at: &Wall| last_success.is_none_or(|success| *at > success);
        let failures: Vec<Wall> = failures.filter(after).collect();
        let before = if last_success.is_some() { Backoff::default() } else { self };
        Backoff {
            failures: before.failures.saturating_add(failures.len() as u32),
            last_failure: failures.into_iter().chain(before.last_failure).max(),
        }
    }

    /// When the next pod may be made; `None`: at once.
    pub fn until(&self) -> Option<Wall> {
        let last = self.last_failure.filter(|_| self.failures > 0)?;
        let doublings = (self.failures - 1).min(16);
        Some(last + FIRST.saturating_mul(1 << doublings).min(MOST))
    }
}

/// When it ended (`getFinishedTime`): its last container, if all have; or when it was ready no
/// more; or when it was told to go; or it is not known, and taken to be as old as the pod.
fn ended(pod: &Object) -> Wall {
    let Some((spec, status)) = pod.pod() else { return Wall::default() };
    let of_containers = || {
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let sidecars: Vec<&str> = sidecars.map(|container| container.name.as_str()).collect();
        let inits = status.init_container_statuses.iter().flatten();
        let inits = inits.filter(|one| sidecars.contains(&one.name.as_str()));
        // Of upstream's two lists only the second one counts if the first is not over.
        latest(inits, latest(status.container_statuses.iter().flatten(), None))
    };
    let unready = || {
        let ready = pods::condition(status, "Ready").filter(|ready| ready.status == "False")?;
        Some(wall(ready.last_transition_time.as_ref()?.0))
    };
    let told = || {
        let time = pod.meta.deletion_timestamp.as_ref()?;
        let grace = pod.meta.deletion_grace_period_seconds.unwrap_or(0);
        let nanos = wall(time.0).unix_nanos() - i128::from(grace) * 1_000_000_000;
        Some(Wall::from_unix_nanos(nanos))
    };
    let made = || pod.meta.creation_timestamp.as_ref().map(|time| wall(time.0));
    of_containers().or_else(unready).or_else(told).or_else(made).unwrap_or_default()
}

/// The latest end of these, and of `before`; none if one of them has not ended.
fn latest<'a>(
    containers: impl Iterator<Item = &'a ContainerStatus>,
    before: Option<Wall>,
) -> Option<Wall> {
    let mut latest = before;
    for container in containers {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        latest = latest.max(Some(wall(ended.finished_at.as_ref()?.0)));
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wait_doubles_from_ten_seconds_to_ten_minutes() {
        let last_failure = Some(Wall::from_unix_secs(1_000));
        let wait = |failures| {
            let until = Backoff { failures, last_failure }.until();
            until.map(|until| until.since(Wall::from_unix_secs(1_000)).as_secs())
        };
        let waits: Vec<_> = (0..9).map(wait).collect();
        let seconds = [10, 20, 40, 80, 160, 320, 600, 600].map(Some);
        assert_eq!(waits, [&[None][..], &seconds].concat());
        assert_eq!(wait(u32::MAX), Some(600));
    }

    #[test]
    fn an_end_is_the_last_containers_or_what_is_known_of_it() {
        let end = |second: &str| {
            let at = format!("2024-01-01T00:00:{second}Z");
            json!({"terminated": {"exitCode": 1, "finishedAt": at}})
        };
        let state = |name: &str, state: serde_json::Value| {
            json!({"name": name, "state": state, "ready": false, "restartCount": 0, "image": "",
                   "imageID": ""})
        };
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "creationTimestamp": "2024-01-01T00:00:01Z"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}],
                     "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
        });
        let second = |pod: &serde_json::Value| {
            let pod = Object::from_json(pod.clone()).expect("a pod");
            ended(&pod).unix_secs() - 1_704_067_200
        };
        assert_eq!(second(&pod), 1);
        pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:40Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        assert_eq!(second(&pod), 10);
        let ready = json!({"type": "Ready", "status": "False",
                           "lastTransitionTime": "2024-01-01T00:00:20Z"});
        pod["status"]["conditions"] = json!([ready]);
        assert_eq!(second(&pod), 20);
        let one = [state("a", end("31")), state("b", json!({"running": {}}))];
        pod["status"]["containerStatuses"] = json!(one);
        assert_eq!(second(&pod), 20);
        pod["status"]["containerStatuses"][1] = state("b", end("32"));
        assert_eq!(second(&pod), 32);
        let inits = [state("i", end("50")), state("s", end("33"))];
        pod["status"]["initContainerStatuses"] = json!(inits);
        assert_eq!(second(&pod), 33);
    }
}
