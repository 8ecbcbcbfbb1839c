//! What a run leaves when it is killed: files, and for a moment processes. Namespaces, TAPs and
//! veths end with the process that held them.

use kubesim_backends::containers::PARENT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// A directory for each run, called after its process and that one's start, with a directory for
/// each of its nodes.
pub const HOME: &str = "/run/kubesim-lab";

/// The directory of this run; removed when it is dropped.
#[derive(Debug)]
pub struct Home(PathBuf);

impl Home {
    pub fn new() -> Result<Home, String> {
        let id = std::process::id();
        let started = started(id).ok_or("/proc does not show this process")?;
        let path = Path::new(HOME).join(format!("{id}-{started}"));
        let failed = |error: io::Error| format!("making {}: {error}", path.display());
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Home(path))
    }

    pub fn of(&self, node: &str) -> PathBuf {
        self.0.join(node)
    }

    /// For the cluster's keys. No node is called so.
    pub fn of_cluster(&self) -> PathBuf {
        self.0.join(".cluster")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // The last one to go.
        let _ = fs::remove_dir(HOME);
    }
}

/// Removes what runs that are over left; returns what it was.
pub fn clean() -> Result<Vec<String>, String> {
    if !nix::unistd::geteuid().is_root() {
        let why = "what runs of the lab left is root's, and others see neither processes nor files";
        return Err(format!("{why}: run it as root"));
    }
    let mut removed = processes();
    let found = match fs::read_dir(HOME) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(format!("reading {HOME}: {error}")),
    };
    for entry in found.flatten() {
        if is_over(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            fs::remove_dir_all(&path)
                .map_err(|error| format!("removing {}: {error}", path.display()))?;
            removed.push(path.display().to_string());
        }
    }
    let _ = fs::remove_dir(HOME);
    Ok(removed)
}

/// Whether the run that a directory is called after has ended.
fn is_over(name: &str) -> bool {
    let Some((id, start)) = name.split_once('-') else { return false };
    let Ok(id) = id.parse() else { return false };
    started(id).is_none_or(|now| now.to_string() != start)
}

/// When a process started, in clock ticks after boot: field 22 of proc_pid_stat(5). The second
/// field is in parentheses and may hold anything.
fn started(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Ends processes of pods whose parent is gone: they asked for that themselves, but one that was
/// stopped meanwhile may be left.
fn processes() -> Vec<String> {
    let mut ended = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if is_orphan(id) && kill(Pid::from_raw(id), Signal::SIGKILL).is_ok() {
            wait_for(id);
            ended.push(format!("process {id}"));
        }
    }
    ended
}

/// A process of a pod says in its environment whose it is.
fn is_orphan(id: i32) -> bool {
    let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    let parent = environment.split(|byte| *byte == 0).find_map(|variable| {
        let text = std::str::from_utf8(variable).ok()?;
        text.strip_prefix(PARENT)?.strip_prefix('=')?.parse::<u32>().ok()
    });
    let lives = |parent: u32| Path::new(&format!("/proc/{parent}")).exists();
    parent.is_some_and(|parent| !lives(parent))
}

fn wait_for(id: i32) {
    for _ in 0..100 {
        if !Path::new(&format!("/proc/{id}")).exists() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_over_when_its_process_is_another() {
        let id = std::process::id();
        let start = started(id).expect("this process");
        assert!(!is_over(&format!("{id}-{start}")));
        assert!(is_over(&format!("{id}-{}", start + 1)));
        assert!(is_over(&format!("{}-1", u32::MAX)));
        assert!(!is_over("somebody's"));
    }
}
