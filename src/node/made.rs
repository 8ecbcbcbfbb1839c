//! What a node makes outside of its directory, and where: written before it is made, for `reset`.

use crate::pki;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

pub const NAME: &str = "made.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The runtime's socket.
    pub containerd: PathBuf,
    pub pod_logs: PathBuf,
    pub cgroup: String,
    pub cni_bin_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
    /// The loopback has it.
    pub cluster_dns: Ipv4Addr,
}

impl Made {
    pub fn write(&self, directory: &Path) -> Result<(), String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        pki::write(&directory.join(NAME), &text)
    }

    /// `None` where no node ever ran.
    pub fn read(directory: &Path) -> Result<Option<Made>, String> {
        let path = directory.join(NAME);
        let wrong = |why: String| format!("reading {}: {why}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| wrong(e.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}
