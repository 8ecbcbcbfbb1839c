//! What a node has in directories.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What a node keeps in its own, whatever becomes of it. By which a reset finds the rest is the
/// last.
const KEPT: [&str; 10] = [
    "pods",
    "started",
    "pki",
    "net-conf.json",
    "subnet.env",
    "netd.json",
    "servers.json",
    "netd.key",
    "status.sock",
    super::super::made::NAME,
];
/// Of static pods, which are somebody else's: it goes if it is empty.
const MANIFESTS: &str = "manifests";
/// What claims have, which outlives pods and is people's: it goes if there is none.
const VOLUMES: &str = "volumes";

fn removed(place: &Path, done: io::Result<()>) -> Result<(), String> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("removing {}: {error}", place.display()))
        }
        _ => Ok(()),
    }
}

pub fn directories(all: &[PathBuf]) -> Result<(), String> {
    all.iter().try_for_each(|place| removed(place, fs::remove_dir_all(place)))
}

/// What it kept, and the directory if nothing else is in it.
pub fn kept(directory: &Path) -> Result<(), String> {
    let _ = fs::remove_dir(directory.join(MANIFESTS));
    let _ = fs::remove_dir(directory.join(VOLUMES));
    for name in KEPT {
        let place = directory.join(name);
        // What a write left that was cut off.
        let _ = fs::remove_file(place.with_extension("new"));
        let done = match place.symlink_metadata().is_ok_and(|kind| kind.is_dir()) {
            true => fs::remove_dir_all(&place),
            false => fs::remove_file(&place),
        };
        removed(&place, done)?;
    }
    let _ = fs::remove_dir(directory);
    Ok(())
}

/// What is there still: nobody knows whose it is.
pub fn left(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut left: Vec<PathBuf> = all.map(|entry| entry.path()).collect();
    left.sort();
    left
}

/// The empty cgroups of pods that are gone, in each hierarchy (cgroups(7)): one that is in use
/// cannot be removed.
pub fn cgroups(root: &str) {
    let below = root.trim_start_matches('/');
    let mounted = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(mounted).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path()).chain([mounted.to_owned()]);
    hierarchies.for_each(|hierarchy| empty(&hierarchy.join(below)));
}

fn empty(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty(&below.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_nodes_stays() {
        let name = format!("kubesim-reset-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        for folder in ["pki", "manifests", "pods/x/volumes"] {
            fs::create_dir_all(directory.join(folder)).expect("a folder");
        }
        for file in ["pki/kubelet.pem", "netd.json", "netd.new", "made.json", "mine"] {
            fs::write(directory.join(file), "x").expect("a file");
        }
        kept(&directory).expect("all of it can be removed");
        assert_eq!(left(&directory), [directory.join("mine")]);
        fs::remove_file(directory.join("mine")).expect("it is there");
        kept(&directory).expect("nothing is left to remove");
        assert!(!directory.exists());
    }
}
