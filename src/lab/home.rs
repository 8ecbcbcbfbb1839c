//! The directory of a run, and what it says of a run that was killed.

use crate::pki;
use kubesim_backends::containers::Instance;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A directory for each run, called after its process ([`Instance`]), with a directory for each of
/// its nodes.
pub const HOME: &str = "/run/kubesim-lab";

/// The cluster's keys, the path of the administrator's kubeconfig, and the threads of machines that
/// were switched on, each a file with its number. No node is called so.
const CLUSTER: &str = ".cluster";
const KUBECONFIG: &str = ".kubeconfig";
const THREADS: &str = ".threads";
/// No kubeconfig is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// The directory of this run; removed when it is dropped.
#[derive(Debug)]
pub struct Home(PathBuf);

impl Home {
    pub fn new() -> Result<Home, String> {
        let path = Path::new(HOME).join(Instance::own()?.to_string());
        let failed = |error: io::Error| format!("making {}: {error}", path.display());
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Home(path))
    }

    pub fn of(&self, node: &str) -> PathBuf {
        self.0.join(node)
    }

    /// For the cluster's keys.
    pub fn of_cluster(&self) -> PathBuf {
        self.0.join(CLUSTER)
    }

    /// Notes where the administrator's kubeconfig will be, for when nobody is left to remove it.
    pub fn note_kubeconfig(&self, path: &Path) -> Result<(), String> {
        let noted = std::path::absolute(path)
            .and_then(|path| fs::write(self.0.join(KUBECONFIG), path.as_os_str().as_bytes()));
        noted.map_err(|error| format!("noting where {} is: {error}", path.display()))
    }

    /// Notes which thread lives in a machine's namespaces, for who wants to go in.
    pub fn note_thread(&self, machine: &str, thread: u32) -> Result<(), String> {
        let place = self.0.join(THREADS);
        let noted = fs::create_dir_all(&place)
            .and_then(|()| fs::write(place.join(machine), thread.to_string()));
        noted.map_err(|error| format!("noting the thread of {machine}: {error}"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // The last one to go.
        let _ = fs::remove_dir(HOME);
    }
}

/// The machines that the run of this directory switched on, with their threads.
pub fn threads_of(home: &Path) -> Vec<(String, u32)> {
    let noted = fs::read_dir(home.join(THREADS)).into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let thread = fs::read_to_string(entry.path()).ok()?.parse().ok()?;
        Some((entry.file_name().into_string().ok()?, thread))
    };
    noted.filter_map(thread).collect()
}

/// The kubeconfig that the run of this directory left, if it is still there: another file at its
/// place is known by another cluster's authority.
pub fn kubeconfig_of(home: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(fs::read(home.join(KUBECONFIG)).ok()?));
    let found = fs::symlink_metadata(&path).ok()?;
    if !found.is_file() || found.len() > LONGEST {
        return None;
    }
    let authority = pki::authority_in(&home.join(CLUSTER))?;
    pki::trusts(&fs::read_to_string(&path).ok()?, &authority).then_some(path)
}
