//! How long a Job waits before it makes another pod (pkg/controller/job/backoff_utils.go): 10 s
//! after a failure, doubling with each up to 10 min, until a pod succeeds. Kept in memory, as
//! upstream does: a controller that starts again begins anew.

use super::books::Books;
use crate::objects::{Object, wall};
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
    pub fn with(self, books: &Books<'_>, now: Wall) -> Self {
        let last_success = books.new_ends(true).map(|pod| ended(pod, now)).max();
        let failures = books.new_ends(false).map(|pod| ended(pod, now));
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

/// When its last container ended; of one that was deleted before that, when it was told to
/// (`getFinishedTime`).
fn ended(pod: &Object, now: Wall) -> Wall {
    let statuses = pod.pod().and_then(|(_, status)| status.container_statuses.as_ref());
    let ends = statuses.into_iter().flatten().filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        Some(wall(ended.finished_at.as_ref()?.0))
    });
    let told = pod.meta.deletion_timestamp.as_ref().map(|time| {
        let grace = pod.meta.deletion_grace_period_seconds.unwrap_or(0);
        Wall::from_unix_nanos(wall(time.0).unix_nanos() - i128::from(grace) * 1_000_000_000)
    });
    ends.max().or(told).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
