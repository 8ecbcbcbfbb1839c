//! Network namespaces: others', and those that only a descriptor holds, which are gone with the
//! process that has it.

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new one. Needs `CAP_SYS_ADMIN`.
    pub fn new() -> io::Result<Namespace> {
        aside(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Namespace::current()
        })
    }

    /// That of the calling thread.
    pub fn current() -> io::Result<Namespace> {
        Ok(Namespace(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// One that somebody else made: a path as `ip netns` and container runtimes have them.
    pub fn open(path: &Path) -> io::Result<Namespace> {
        Ok(Namespace(File::open(path)?.into()))
    }

    /// Whether they are the same (namespaces(7): device and inode of their files).
    pub fn is(&self, other: &Namespace) -> io::Result<bool> {
        let (this, other) = (fstat(&self.0)?, fstat(&other.0)?);
        Ok((this.st_dev, this.st_ino) == (other.st_dev, other.st_ino))
    }

    pub fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Where another process finds it while this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `act` in it, on a thread of its own: sockets that are opened there stay there.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        aside(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            act()
        })
    }
}

/// A thread whose namespace may change.
fn aside<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let panicked = |_| io::Error::other("a thread in a network namespace panicked");
    thread::scope(|scope| scope.spawn(act).join().map_err(panicked).flatten())
}
