//! How the stock `kubectl` comes into a run.

use crate::pki::Pki;
use crate::run::quoted;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The administrator's kubeconfig; it goes with this value.
pub struct Kubeconfig(PathBuf);

impl Kubeconfig {
    /// The file is a new one: what is there already is somebody's.
    pub fn new(pki: &Pki, path: &Path, url: &str) -> Result<Kubeconfig, String> {
        refusal(path).map_or(Ok(()), Err)?;
        pki.admin(path, url)?;
        Ok(Kubeconfig(path.to_owned()))
    }

    /// How to come in.
    pub fn invitation(&self) -> String {
        format!("try: kubectl --kubeconfig {} get nodes", quoted(&self.0.to_string_lossy()))
    }
}

/// Why no kubeconfig can be made there, in a sentence.
pub fn refusal(path: &Path) -> Option<String> {
    let made = fs::File::options().write(true).create_new(true).open(path);
    let why = match made.and_then(|_| fs::remove_file(path)) {
        Ok(()) => return None,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => "is there already".to_owned(),
        Err(error) => format!("cannot be made ({error})"),
    };
    Some(format!("--kubeconfig: {} {why}; name a new file", path.display()))
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
