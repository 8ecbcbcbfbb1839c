//! Files that change as a whole (`AtomicWriter`, pkg/volume/util/atomic_writer.go): they are in a
//! directory that nobody writes any more, the link `..data` leads to it, and each name that a user
//! sees leads through that link. Another set of files is another directory, and a rename of the
//! link.

use super::{doing, mode};
use kubesim_actors::ports::volumes::{File, Files, check_file};
use nix::unistd::{Uid, chown};
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// `finish` sees the new directory before anybody else does.
pub fn write(
    place: &Path,
    files: &Files,
    finish: impl FnOnce(&Path) -> Result<(), SmolStr>,
) -> Result<(), SmolStr> {
    files.keys().try_for_each(|path| check_file(path))?;
    let data = place.join(DATA);
    let before = fs::read_link(&data).ok().map(|name| place.join(name));
    if before.as_ref().is_none_or(|before| !holds(before, files)) {
        let made = doing("making a directory in", place, new_directory(place))?;
        let filled = fill(&made, files).and_then(|()| finish(&made));
        let turned = filled.and_then(|()| doing("turning", &data, turn(place, &made)));
        if let Err(why) = turned {
            let _ = fs::remove_dir_all(&made);
            return Err(why);
        }
    }
    doing("linking the files of", place, link(place, files))?;
    doing("removing what is old of", place, forget(place, files))
}

/// Whether these are the files that are there, each with its mode's bits for all (a group that the
/// pod has may have been given more).
fn holds(before: &Path, files: &Files) -> bool {
    let same = |(path, file): (&SmolStr, &File)| {
        let place = before.join(&**path);
        let found = fs::symlink_metadata(&place).ok().filter(|found| found.is_file());
        let mode = found.map(|found| found.permissions().mode());
        mode.is_some_and(|mode| mode & file.mode == file.mode)
            && fs::read(&place).is_ok_and(|content| *content == *file.content)
    };
    files.iter().all(same) && count(before).is_ok_and(|count| count == files.len())
}

/// How many files there are in a tree.
fn count(below: &Path) -> io::Result<usize> {
    let mut sum = 0;
    for entry in fs::read_dir(below)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(sum)
}

/// Named by when it was made, for people.
fn new_directory(place: &Path) -> io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for attempt in since.as_nanos().. {
        let made = place.join(format!("..{attempt}"));
        match DirBuilder::new().mode(0o755).create(&made) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // Whatever the process masks.
            done => return done.and_then(|()| mode(&made, 0o755)).map(|()| made),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn fill(made: &Path, files: &Files) -> Result<(), SmolStr> {
    for (path, file) in files {
        let place = made.join(&**path);
        let mut parent = made.to_owned();
        for name in Path::new(&**path).parent().into_iter().flatten() {
            parent.push(name);
            match DirBuilder::new().mode(0o755).create(&parent) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                done => doing("making", &parent, done.and_then(|()| mode(&parent, 0o755)))?,
            }
        }
        // Never readable to more than it shall be.
        doing("writing", &place, put(&place, file))?;
    }
    Ok(())
}

fn put(place: &Path, file: &File) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut made = fs::File::options().write(true).create_new(true).mode(0o600).open(place)?;
    made.write_all(&file.content)?;
    if let Some(owner) = file.owner {
        chown(place, Some(Uid::from_raw(owner)), None)?;
    }
    mode(place, file.mode)
}

/// Readers see the old directory, or the new one.
fn turn(place: &Path, made: &Path) -> io::Result<()> {
    let new = place.join(NEW_DATA);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name = made.file_name().unwrap_or_default();
    symlink(name, &new)?;
    fs::rename(new, place.join(DATA))
}

/// The names that users see: the first of each path.
fn names(files: &Files) -> BTreeSet<OsString> {
    files.keys().map(|path| path.split('/').next().unwrap_or_default().into()).collect()
}

fn link(place: &Path, files: &Files) -> io::Result<()> {
    for name in names(files) {
        let (shown, target) = (place.join(&name), Path::new(DATA).join(&name));
        if fs::read_link(&shown).is_ok_and(|found| found == target) {
            continue;
        }
        match fs::symlink_metadata(&shown) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&shown)?,
            Ok(_) => fs::remove_file(&shown)?,
            Err(_) => {}
        }
        symlink(target, shown)?;
    }
    Ok(())
}

/// Names that no file has any more, and directories that nothing leads to: the one before, and
/// those of a writer that was cut off.
fn forget(place: &Path, files: &Files) -> io::Result<()> {
    let (shown, now) = (names(files), fs::read_link(place.join(DATA))?);
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let hidden = name.to_string_lossy().starts_with("..");
        if name == DATA || name == *now.as_os_str() || !hidden && shown.contains(&name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
