//! A network namespace of a test's own. Only the thread that the body runs on is in it: the test's
//! process stays where it is, and with the thread the namespace ends and all that is in it.

#![cfg(target_os = "linux")]

#[path = "skip.rs"]
pub mod skip;

use nix::sched::{CloneFlags, unshare};
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

/// Runs `body` in a new network namespace whose loopback is up, unless the machine lacks what
/// that takes, and then says so.
pub fn in_namespace(body: impl FnOnce() + Send + 'static) {
    if let Some(what) = missing() {
        return skip::skipped(what);
    }
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip("link set lo up");
        body();
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

fn missing() -> Option<&'static str> {
    let unshared = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join();
    if !unshared.unwrap_or_default() {
        return Some("CAP_SYS_ADMIN, for network namespaces (run as root)");
    }
    let found = Command::new("ip").arg("-V").output().is_ok_and(|out| out.status.success());
    (!found).then_some("the program `ip` (Debian: iproute2)")
}

/// `ip …`, in the namespace of this thread: what it prints.
#[track_caller]
pub fn ip(words: &str) -> String {
    let done = Command::new("ip").args(words.split_whitespace()).output().expect("ip runs");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {words}: {error}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
