//! Directories of the machine that outlive the pods that have them (pkg/volume/local/local.go).

use super::{access, doing, mode};
use kubesim_actors::ports::volumes::Access;
use smol_str::{SmolStr, format_smolstr};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where it is, made if it may be and is missing.
pub fn have(machine: &Path, path: &str, make: bool, access: Access) -> Result<PathBuf, SmolStr> {
    let place = place(machine, path);
    if !place.exists() {
        if !make {
            return Err(format_smolstr!("path {path:?} does not exist"));
        }
        doing("making", &place, fs::create_dir_all(&place))?;
        doing("opening to all", &place, mode(&place, 0o777))?;
    }
    access::own(&place, access, true)?;
    Ok(place)
}

/// One that is not there is gone already. A link is removed, and not what it leads to.
pub fn discard(machine: &Path, path: &str) -> Result<(), SmolStr> {
    let place = place(machine, path);
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => doing("removing", &place, done),
    }
}

fn place(machine: &Path, path: &str) -> PathBuf {
    machine.join(path.trim_start_matches('/'))
}
