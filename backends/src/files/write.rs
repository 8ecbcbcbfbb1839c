//! Writing so that readers, and a machine that loses its power, have all of it or none.

use super::resolve::{Found, Root};
use smol_str::{SmolStr, format_smolstr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

const DIRECTORY: SmolStr = SmolStr::new_static("is a directory");
const NO_PATH: SmolStr = SmolStr::new_static("no absolute path of a file");
const LOOP: SmolStr = SmolStr::new_static("too many levels of symbolic links");

/// Tells temporary files of one process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Takes the place of what is there, a symlink too (rename(2) follows none). Missing directories
/// are made. The mode of a file that was there is kept.
pub fn write(root: &Root, path: &str, content: &str) -> Result<(), SmolStr> {
    let place = place(root, path)?;
    let parent = place.parent().unwrap_or(Path::new("/")).to_owned();
    attempt("making the directories of", path, fs::create_dir_all(&parent))?;
    let name = place.file_name().ok_or(NO_PATH)?.to_string_lossy().into_owned();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Hidden, so that whoever watches the directory does not see it.
    let temporary = parent.join(format!(".{name}.{}-{number}", process::id()));
    let done = fill(&temporary, content, &place).and_then(|()| fs::rename(&temporary, &place));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    attempt("writing", path, done)?;
    attempt("syncing the directory of", path, File::open(&parent).and_then(|dir| dir.sync_all()))
}

fn fill(temporary: &Path, content: &str, place: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(temporary)?;
    if let Ok(before) = fs::symlink_metadata(place)
        && before.is_file()
    {
        file.set_permissions(before.permissions())?;
    }
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// A symlink goes, not its target. What is not there is gone already.
pub fn remove(root: &Root, path: &str) -> Result<(), SmolStr> {
    let place = place(root, path)?;
    match fs::remove_file(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => attempt("removing", path, done),
    }
}

/// Where the path's last name is or would be.
fn place(root: &Root, path: &str) -> Result<PathBuf, SmolStr> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(NO_PATH);
    }
    let led_to = root.walk(path, true, &mut |_, _| {});
    if led_to.existing().is_some_and(|real| root.full(real).is_dir()) {
        return Err(DIRECTORY);
    }
    match root.walk(path, false, &mut |_, _| {}) {
        Found::Here(real) => Ok(root.full(&real)),
        Found::Missing { here, rest } if rest.iter().all(|name| name != "..") => {
            Ok(rest.iter().fold(root.full(&here), |path, name| path.join(name)))
        }
        Found::Missing { .. } => Err(NO_PATH),
        Found::Loop => Err(LOOP),
    }
}

fn attempt<T>(what: &str, path: &str, done: io::Result<T>) -> Result<T, SmolStr> {
    done.map_err(|error| format_smolstr!("{what} {path}: {error}"))
}
