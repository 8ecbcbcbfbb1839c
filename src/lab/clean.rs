//! What a run leaves when it is killed: files, and for a moment processes. Namespaces, TAPs and
//! veths end with the process that held them.

use super::home::{self, HOME};
use kubesim_backends::containers::{Instance, PARENT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// What came of it, each as a sentence names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    pub removed: Vec<String>,
    /// With the reason.
    pub left: Vec<String>,
}

/// Removes what runs that are over left. The error says why nothing could be looked at.
pub fn clean() -> Result<Cleaned, String> {
    if !nix::unistd::geteuid().is_root() {
        let why = "what runs of the lab left is root's, and others see neither processes nor files";
        return Err(format!("{why}: run it as root"));
    }
    let mut cleaned = Cleaned { removed: processes(), left: Vec::new() };
    match homes(Path::new(HOME)) {
        Ok(homes) => homes.iter().for_each(|home| cleaned.home(home)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("reading {HOME}: {error}")),
    }
    let _ = fs::remove_dir(HOME);
    Ok(cleaned)
}

impl Cleaned {
    /// The directory of a run. It goes last: what it says of the run is needed until then.
    fn home(&mut self, home: &Path) {
        let kubeconfig = home::kubeconfig_of(home);
        if kubeconfig.is_none_or(|path| self.took(&path, fs::remove_file(&path))) {
            self.took(home, fs::remove_dir_all(home));
        }
    }

    /// Whether it could be removed.
    fn took(&mut self, path: &Path, removed: io::Result<()>) -> bool {
        let path = path.display();
        match &removed {
            Ok(()) => self.removed.push(path.to_string()),
            Err(error) => self.left.push(format!("{path}: {error}")),
        }
        removed.is_ok()
    }
}

/// What is called after runs that are over, in order.
fn homes(all: &Path) -> io::Result<Vec<PathBuf>> {
    let mut homes = Vec::new();
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        let run = entry.file_name().to_str().and_then(Instance::parse);
        if run.is_some_and(|run| !run.lives()) {
            homes.push(entry.path());
        }
    }
    homes.sort();
    Ok(homes)
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
        Instance::parse(text.strip_prefix(PARENT)?.strip_prefix('=')?)
    });
    parent.is_some_and(|parent| !parent.lives())
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
    use crate::pki::{LEAF, Pki};

    /// Directories of runs; no process has these numbers.
    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("kubesim-{name}-{}", std::process::id()));
        fs::create_dir_all(&place).expect("a directory");
        place
    }

    /// The first odd entry was the end of it, and what came after it stayed.
    #[test]
    fn what_cannot_be_removed_does_not_end_it() {
        let place = place("odd");
        let of = |name: &str| place.join(name);
        let own = Instance::own().expect("this process").to_string();
        for name in ["4294967293-1", "4294967295-1", "somebody's", &own] {
            fs::create_dir_all(of(name).join("one/etc")).expect("a directory");
        }
        fs::write(of("4294967294-2"), "").expect("a file");
        let mut cleaned = Cleaned::default();
        homes(&place).expect("entries").iter().for_each(|home| cleaned.home(home));
        let removed = ["4294967293-1", "4294967295-1"].map(|name| of(name).display().to_string());
        assert_eq!(cleaned.removed, removed);
        let left = format!("{}: Not a directory", of("4294967294-2").display());
        assert!(matches!(&cleaned.left[..], [one] if one.starts_with(&left)), "{cleaned:?}");
        assert!(of("somebody's").exists() && of(&own).exists());
        fs::remove_dir_all(&place).expect("it goes");
    }

    /// A killed run's kubeconfig was in the next one's way.
    #[test]
    fn a_kubeconfig_goes_with_its_cluster_only() {
        let place = place("kubeconfigs");
        let keys =
            |run: &str| Pki::open(&place.join(run).join(".cluster"), &[], LEAF).expect("keys");
        let conf = |name: &str| place.join(name);
        let runs = ["4294967293-1", "4294967294-1", "4294967295-1"];
        for (run, conf) in runs.iter().zip(["own.conf", "others.conf", "gone.conf"].map(conf)) {
            let pki = keys(run);
            fs::write(place.join(run).join(".kubeconfig"), conf.to_str().expect("a path"))
                .expect("a note");
            if conf.ends_with("own.conf") {
                pki.admin(&conf, "https://127.0.0.1:1").expect("a kubeconfig");
            }
        }
        // Meanwhile somebody else's.
        keys("others").admin(&conf("others.conf"), "https://127.0.0.1:1").expect("a kubeconfig");
        let mut cleaned = Cleaned::default();
        homes(&place).expect("entries").iter().for_each(|home| cleaned.home(home));
        let removed = ["own.conf", runs[0], runs[1], runs[2]];
        assert_eq!(cleaned.removed, removed.map(|name| conf(name).display().to_string()));
        assert!(!conf("own.conf").exists() && conf("others.conf").exists());
        fs::remove_dir_all(&place).expect("it goes");
    }
}
