//! A directory of this machine, and the driver below it.

use crate::world::World;
use kubesim_actors::ports::files::{Reply, Request};
use kubesim_backends::files::Files;
use kubesim_backends::port::{Answer, Closed, Local, Port};
use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What is not told by then is not told: longer than a writer in place is waited for.
const QUIET: Duration = Duration::from_millis(60);

type News = Rc<RefCell<Vec<(String, Option<String>)>>>;

pub struct Linux {
    runtime: Runtime,
    local: LocalSet,
    pub root: PathBuf,
    pub driver: Files,
    told: News,
    /// Files that are open and not filled yet.
    open: Vec<File>,
}

impl Linux {
    pub fn new() -> Linux {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-files-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        // The model has these without being told.
        for directory in ["etc", "run"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Linux {
            runtime: runtime.expect("a runtime"),
            local: LocalSet::new(),
            driver: Files::below(&root),
            root,
            told: News::default(),
            open: Vec::new(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn pass(&self, time: Duration) {
        self.local.block_on(&self.runtime, async { sleep(time).await });
    }

    /// Waits for something that has to end.
    pub fn finish(&self, work: Local<()>) {
        let soon = async { timeout(Duration::from_secs(5), work).await };
        let ended = self.local.block_on(&self.runtime, soon);
        ended.expect("it ends");
    }

    fn parents(path: &Path) {
        let parent = path.parent().expect("a parent");
        fs::create_dir_all(parent).expect("directories");
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl World for Linux {
    fn ask(&mut self, request: Request) -> Reply {
        let replies = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&replies);
        let answer = Answer::new(move |reply| {
            kept.borrow_mut().push(reply);
            async { Ok::<(), Closed>(()) }
        });
        let done = self.driver.perform(request, answer);
        self.local.block_on(&self.runtime, done);
        let mut replies = replies.take();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    fn watch(&mut self, path: &str) {
        let told = Rc::clone(&self.told);
        let answer = Answer::new(move |reply| {
            let Reply::Content { path, content } = reply else { panic!("{reply:?}") };
            told.borrow_mut().push((path.to_string(), content.map(|c| c.to_string())));
            async { Ok(()) }
        });
        let stream = self.driver.perform(Request::Watch { path: path.into() }, answer);
        self.local.spawn_local(stream);
        // Told and watching before anything else happens.
        self.pass(Duration::from_millis(5));
    }

    fn news(&mut self) -> Vec<(String, Option<String>)> {
        let mut seen = self.told.borrow().len();
        loop {
            self.pass(QUIET);
            let now = self.told.borrow().len();
            if now == seen {
                return self.told.take();
            }
            seen = now;
        }
    }

    fn write_in_place(&mut self, path: &str, content: &str) {
        self.open.clear();
        Linux::parents(&self.at(path));
        // Through a symlink below the root, as a program sees it there.
        let target = follow(&self.root, &self.at(path));
        fs::write(target, content).expect("written");
    }

    fn truncate(&mut self, path: &str) {
        let target = follow(&self.root, &self.at(path));
        self.open.push(File::create(target).expect("opened"));
    }

    fn rename_over(&mut self, path: &str, content: &str) {
        let place = self.at(path);
        Linux::parents(&place);
        let other = self.root.join("elsewhere");
        fs::write(&other, content).expect("written");
        fs::rename(other, place).expect("renamed");
    }

    fn symlink(&mut self, path: &str, target: &str) {
        let place = self.at(path);
        Linux::parents(&place);
        let other = self.root.join("elsewhere");
        symlink(target, &other).expect("a symlink");
        fs::rename(other, place).expect("renamed");
    }

    fn make_directory(&mut self, path: &str) {
        fs::create_dir_all(self.at(path)).expect("a directory");
    }

    fn remove(&mut self, path: &str) {
        fs::remove_file(self.at(path)).expect("removed");
    }
}

/// The end of a chain of symlinks whose absolute targets are below `root`.
fn follow(root: &Path, path: &Path) -> PathBuf {
    let Ok(target) = fs::read_link(path) else { return path.to_owned() };
    let next = match target.strip_prefix("/") {
        Ok(below) => root.join(below),
        Err(_) => path.parent().expect("a parent").join(target),
    };
    follow(root, &next)
}
