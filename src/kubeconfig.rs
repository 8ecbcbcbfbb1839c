//! How the stock `kubectl` comes into a run.

use crate::pki::Pki;
use crate::run::quoted;
use std::fs;
use std::path::{Path, PathBuf};

/// The administrator's kubeconfig; it goes with this value.
pub struct Kubeconfig(PathBuf);

impl Kubeconfig {
    /// The file is a new one: what is there already is somebody's.
    pub fn new(pki: &Pki, path: &Path, url: &str) -> Result<Kubeconfig, String> {
        if path.exists() {
            let path = path.display();
            return Err(format!("--kubeconfig: {path} is there already; name a new file"));
        }
        pki.admin(path, url)?;
        Ok(Kubeconfig(path.to_owned()))
    }

    /// How to come in.
    pub fn invitation(&self) -> String {
        format!("try: kubectl --kubeconfig {} get nodes", quoted(&self.0.to_string_lossy()))
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
