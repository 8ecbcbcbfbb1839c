//! News of a file: that it was written to, or that another one took its name.

use crate::readable::Readable;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::future::pending;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Watches the folder of a file: the file's name may be another one's next. Where the machine has
/// no more watches to give (`fs.inotify.max_user_instances`), time alone tells.
pub struct Watch(Option<(Inotify, Readable)>);

impl Watch {
    /// Within a tokio runtime.
    pub fn of(path: &Path) -> Watch {
        Watch(path.parent().and_then(watch))
    }

    /// Until something happened there, or for this time.
    pub async fn stirs(&mut self, within: Duration) {
        let told = async {
            match &self.0 {
                Some((inotify, readable)) if readable.wait().await.is_ok() => {
                    // All that is there: which names, is found by looking.
                    while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
                }
                _ => pending().await,
            }
        };
        let _ = timeout(within, told).await;
    }
}

fn watch(folder: &Path) -> Option<(Inotify, Readable)> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let what = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM;
    inotify.add_watch(folder, what).ok()?;
    let readable = Readable::new(&inotify).ok()?;
    Some((inotify, readable))
}
