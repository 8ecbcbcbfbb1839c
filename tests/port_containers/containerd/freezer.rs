//! A machine that is suspended: every process of it stands still at once, the runtime, its shims
//! and what runs in containers among them, and the kernel goes on (cgroup v1's freezer, or
//! `cgroup.freeze` of v2; Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and
//! cgroup-v2.rst of Linux). Clocks go on as well: who wakes up finds all three later.

use super::trio::Trio;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is written to which file of a cgroup, and what another one says then.
struct Words {
    file: &'static str,
    freeze: &'static str,
    thaw: &'static str,
    frozen: (&'static str, &'static str),
}

const FIRST: Words = Words {
    file: "freezer.state",
    freeze: "FROZEN",
    thaw: "THAWED",
    frozen: ("freezer.state", "FROZEN"),
};
const SECOND: Words =
    Words { file: "cgroup.freeze", freeze: "1", thaw: "0", frozen: ("cgroup.events", "frozen 1") };

/// Where a machine's own processes are, above those of its pods.
pub struct Freezer {
    cgroup: PathBuf,
    words: Words,
}

impl Freezer {
    /// Of what runs on the machine now, and what that starts.
    pub fn of(trio: &Trio, machine: usize) -> Freezer {
        let name = trio.machines[machine].cgroup();
        let name = name.trim_start_matches('/');
        let first = Path::new("/sys/fs/cgroup/freezer");
        let (cgroup, words) = match first.exists() {
            true => (first.join(name), FIRST),
            false => (Path::new("/sys/fs/cgroup").join(name), SECOND),
        };
        // In v2, what has cgroups below it that have limits has no processes itself.
        let own = cgroup.join("machine");
        fs::create_dir_all(&own).expect("a cgroup");
        let mut processes = trio.machines[machine].processes();
        processes.extend(trio.processes_on(machine));
        for process in processes {
            let place = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
            if !place.contains("/pod") {
                // It may have ended.
                let _ = fs::write(own.join("cgroup.procs"), process.to_string());
            }
        }
        Freezer { cgroup, words }
    }

    pub fn freeze(&self) {
        let (file, says) = self.words.frozen;
        let place = self.cgroup.join(file);
        let deadline = Instant::now() + Duration::from_secs(10);
        self.write(self.words.freeze);
        while !fs::read_to_string(&place).expect("a file").contains(says) {
            assert!(Instant::now() < deadline, "{} is not frozen", self.cgroup.display());
            self.write(self.words.freeze);
            sleep(Duration::from_millis(5));
        }
    }

    pub fn thaw(&self) {
        self.write(self.words.thaw);
    }

    fn write(&self, word: &str) {
        fs::write(self.cgroup.join(self.words.file), word).expect("a cgroup's file");
    }
}

impl Drop for Freezer {
    /// Nothing that is frozen can be ended.
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join(self.words.file), self.words.thaw);
    }
}
