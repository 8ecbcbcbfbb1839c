//! What a path shows, now and after every change.

use super::hub::{Bell, Gathered, Hub};
use super::{Shared, read};
use crate::port::Answer;
use crate::readable::Readable;
use kubesim_actors::ports::files::Reply;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a writer in place has to finish before what he has written so far is shown.
const UNFINISHED: Duration = Duration::from_millis(20);
/// How often is looked without being told: file systems of other machines tell nobody. As
/// kubelet's `fileCheckFrequency`.
const LOOK: Duration = Duration::from_secs(20);
/// And where inotify is not to be had.
const LOOK_OFTEN: Duration = Duration::from_secs(1);

/// The content of each file that a path shows.
type Shown = BTreeMap<SmolStr, Option<Arc<str>>>;

/// Leaves the hub when the stream ends, in whatever way.
struct Member {
    files: Rc<Shared>,
    who: u64,
    bell: Rc<Bell>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.files.hub.borrow_mut().leave(self.who);
    }
}

/// Until nobody listens.
pub async fn run(files: Rc<Shared>, path: SmolStr, answer: Answer<Reply>) {
    let (who, bell) = files.hub.borrow_mut().join();
    let member = Member { files, who, bell };
    let readable = member.files.hub.borrow().fd().and_then(|fd| Readable::new(fd).ok());
    let mut shown = Shown::new();
    loop {
        let (now, complete) = member.look(&path);
        for (path, content) in news(&shown, &now) {
            if answer.send(Reply::Content { path, content }).await.is_err() {
                return;
            }
        }
        shown = now;
        let pause = if complete && readable.is_some() { LOOK } else { LOOK_OFTEN };
        tokio::select! {
            () = member.stirred(readable.as_ref()) => {}
            () = sleep(pause) => {}
        }
    }
}

impl Member {
    /// Something happened to what matters, and whoever writes it has had his time.
    async fn stirred(&self, readable: Option<&Readable>) {
        self.bell.certain.set(false);
        self.rung(readable).await;
        let _ = timeout(UNFINISHED, async {
            while !self.bell.certain.get() {
                self.rung(readable).await;
            }
        })
        .await;
    }

    async fn rung(&self, readable: Option<&Readable>) {
        loop {
            tokio::select! {
                biased;
                () = self.bell.rung.notified() => return,
                () = wait(readable) => self.files.hub.borrow_mut().drain(),
            }
        }
    }

    /// What the path shows now. False: not everything that matters could be watched.
    fn look(&self, path: &SmolStr) -> (Shown, bool) {
        let (shown, gathered) = {
            let hub = self.files.hub.borrow();
            let gathered = Gathered::default();
            let mut look = Look { files: &self.files, hub: &hub, gathered };
            (look.at(path), look.gathered)
        };
        let complete = !gathered.incomplete;
        self.files.hub.borrow_mut().replace(self.who, gathered);
        (shown, complete)
    }
}

/// One look. Each directory is watched before a name is looked up in it, and each file before it
/// is read, so that no change falls in between.
struct Look<'a> {
    files: &'a Shared,
    hub: &'a Hub,
    gathered: Gathered,
}

impl Look<'_> {
    /// Of a directory its files, else the file itself.
    fn at(&mut self, path: &SmolStr) -> Shown {
        let real = self.resolve(path);
        let Some(directory) = real.as_ref().filter(|real| real.is_dir()) else {
            let content = real.and_then(|real| self.content(&real));
            return Shown::from([(path.clone(), content)]);
        };
        self.hub.watch_directory(directory, None, &mut self.gathered);
        let mut shown = Shown::new();
        let manifests = self.files.manifests.as_ref() == Some(path);
        for name in names(directory) {
            let child = format!("{}/{name}", path.trim_end_matches('/'));
            let content = self.resolve(&child).and_then(|real| self.content(&real));
            if let Some(content) = content {
                let content = if manifests { as_json(content) } else { content };
                shown.insert(SmolStr::from(child), Some(content));
            }
        }
        shown
    }

    /// Where a path leads, as the machine knows it.
    fn resolve(&mut self, path: &str) -> Option<PathBuf> {
        let Look { files, hub, gathered } = self;
        let found = files.root.walk(path, true, &mut |directory, name| {
            hub.watch_directory(&files.root.full(directory), Some(name), gathered);
        });
        found.existing().map(|real| files.root.full(real))
    }

    fn content(&mut self, real: &Path) -> Option<Arc<str>> {
        self.hub.watch_file(real, &mut self.gathered);
        read(real)
    }
}

async fn wait(readable: Option<&Readable>) {
    match readable {
        Some(readable) if readable.wait().await.is_ok() => {}
        _ => pending().await,
    }
}

/// The names in a directory, in order, less those that are hidden: half-written files, and what
/// the volumes of Kubernetes keep their content in (`..data`).
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    names
}

/// What was shown and is not any more, then what is shown now and was not.
fn news(before: &Shown, now: &Shown) -> Vec<(SmolStr, Option<Arc<str>>)> {
    let gone =
        before.iter().filter(|(path, content)| content.is_some() && !now.contains_key(*path));
    let gone = gone.map(|(path, _)| (path.clone(), None));
    let new = now.iter().filter(|(path, content)| before.get(*path) != Some(content));
    gone.chain(new.map(|(path, content)| (path.clone(), content.clone()))).collect()
}

fn as_json(content: Arc<str>) -> Arc<str> {
    if content.trim_start().starts_with('{') {
        return content;
    }
    match serde_saphyr::from_str::<Value>(&content) {
        Ok(value) if value.is_object() => value.to_string().into(),
        _ => content,
    }
}
