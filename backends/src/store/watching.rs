//! A watch of a store of this process: what happened is asked for whenever there is news of it.

use crate::port::{Answer, Closed};
use kubesim_actors::ports::store::{Reply, Under};
use smol_str::SmolStr;
use std::rc::Weak;
use std::time::Duration;
use tokio::select;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a watch that nothing happens to is told no progress.
pub(super) const PROGRESS: Duration = Duration::from_secs(5);

pub(super) trait Source: 'static {
    /// The newest revision there is; closed when the store has ended.
    fn revisions(&self) -> watch::Receiver<u64>;

    /// What happened at `from` and since, or the first part of it: [`Reply::Watched`] up to where
    /// it was read; or why that cannot be told, which ends the watch.
    fn changes(&self, id: u64, under: &Under, from: u64) -> impl Future<Output = Reply>;
}

/// Tells until nobody listens, the store has ended, or what is asked for is forgotten. A watch
/// keeps no store open.
pub(super) async fn follow(
    source: Weak<impl Source>,
    (id, under, from): (u64, Under, u64),
    progress: Duration,
    answer: Answer<Reply>,
) -> Result<(), Closed> {
    let ended = || Reply::Refused { id, why: SmolStr::new_static("the store has ended") };
    let Some(mut revisions) = source.upgrade().map(|source| source.revisions()) else {
        return answer.send(ended()).await;
    };
    // etcd: a watch from 0 is one from now on.
    let mut from = if from == 0 { *revisions.borrow() + 1 } else { from };
    let mut due = true;
    loop {
        let newest = *revisions.borrow_and_update();
        let Some(open) = source.upgrade() else { return answer.send(ended()).await };
        let reply = open.changes(id, &under, from).await;
        drop(open);
        let Reply::Watched { revision, changes, .. } = &reply else {
            return answer.send(reply).await;
        };
        let all_told = *revision >= newest;
        from = from.max(revision + 1);
        if due || !changes.is_empty() {
            answer.send(reply).await?;
            due = false;
        }
        if !all_told {
            continue;
        }
        select! {
            more = revisions.changed() => if more.is_err() {
                return answer.send(ended()).await;
            },
            () = sleep(progress) => due = true,
        }
    }
}
