//! A directory of this machine, and the driver below it.

use crate::world::World;
use kubesim_actors::ports::volumes::{Reply, Request};
use kubesim_backends::port::{Answer, Closed, Port};
use kubesim_backends::volumes::Volumes;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use tokio::runtime::Runtime;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// `body` on a thread with mounts of its own, unless the machine lacks what that takes, and then
/// says so.
pub fn on_linux(body: impl FnOnce(&mut Linux) + Send + 'static) {
    let thread = thread::spawn(|| {
        let none: Option<&str> = None;
        let alone = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none));
        match alone {
            Ok(()) => body(&mut Linux::new()),
            Err(_) => {
                crate::skip::skipped("CAP_SYS_ADMIN, for mount namespaces (run as root)");
            }
        }
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

pub struct Linux {
    runtime: Runtime,
    pub root: PathBuf,
    driver: Volumes,
}

impl Linux {
    fn new() -> Linux {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-volumes-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        for directory in ["etc", "run", "var/lib"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        let root = fs::canonicalize(root).expect("it is there");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let driver = Volumes::new(root.join("var/lib/kubelet"), &root);
        Linux { runtime: runtime.expect("a runtime"), driver, root }
    }

    /// A path that a test has made up, or that the driver said.
    pub fn at(&self, path: &str) -> PathBuf {
        match PathBuf::from(path) {
            known if known.starts_with(&self.root) => known,
            _ => self.root.join(path.trim_start_matches('/')),
        }
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        // With what is mounted there: the mounts are this thread's and end with it, so only what
        // is on the disk is left to remove.
        let detach = nix::mount::MntFlags::MNT_DETACH;
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let root = self.root.display().to_string();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| point.starts_with(&root)) {
            let _ = nix::mount::umount2(point, detach);
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl World for Linux {
    fn ask(&mut self, request: Request) -> Option<Reply> {
        let replies = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&replies);
        let answer = Answer::new(move |reply| {
            kept.borrow_mut().push(reply);
            async { Ok::<(), Closed>(()) }
        });
        self.runtime.block_on(self.driver.perform(request, answer));
        let mut replies = replies.take();
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop()
    }
    fn read(&self, path: &str) -> Option<String> {
        let path = self.at(path);
        path.is_file().then(|| fs::read_to_string(path).expect("text"))
    }
    fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.at(path)).ok()?;
        Some(target.to_str().expect("text").to_owned())
    }
    fn access(&self, path: &str) -> Option<(u32, u32, u32)> {
        let found = fs::symlink_metadata(self.at(path)).ok()?;
        Some((found.mode() & 0o7777, found.uid(), found.gid()))
    }
    fn names(&self, path: &str) -> Vec<String> {
        let all = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let names = all.map(|entry| entry.file_name().into_string().expect("text"));
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("..")).collect();
        names.sort();
        names
    }
    fn make_directory(&mut self, path: &str) {
        fs::create_dir_all(self.at(path)).expect("a directory");
    }
    fn make_file(&mut self, path: &str, content: &str) {
        fs::write(self.at(path), content).expect("written");
    }
    fn make_link(&mut self, path: &str, target: &str) {
        symlink(target, self.at(path)).expect("a link");
    }
    fn shown(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }
}
