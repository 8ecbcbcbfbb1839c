//! The data directory: of which version it is, and that no restore ended in it half-way.
//!
//! Version 1 has `pki/` (see [`Pki`](crate::pki::Pki)), `store/` (which has a format of its own),
//! `admin.conf` and `networks` (see [`Networks`](crate::networks::Networks)), both written at each
//! start, `token` where other machines may join (see `joining`), and for as long as a server runs
//! on its store, `backup.sock`. `kubesim up` has its node's things in `node/`.

use crate::pki::{self, write};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What this program makes of a directory, and the newest that it reads.
const VERSION: u32 = 1;

const NAME: &str = "version";
/// There while a restore is under way.
const RESTORING: &str = "restoring";
/// What [`write`] makes of it first: all there is of a restore that ended as it began.
const BEGINNING: &str = "restoring.new";

/// Makes it if it is not there, and brings it to our version.
pub fn open(place: &Path) -> Result<(), String> {
    pki::directory(place)?;
    match look(place)? {
        Some(_) => Ok(()),
        // A new one, or of a program that wrote no version yet: what that left is as version 1 has
        // it. A later version's program takes one step from each version to the next here, and
        // writes the version after each.
        None => write_version(place),
    }
}

/// Its version, if it says so; refused if this program cannot make sense of it. Nothing is changed.
pub fn look(place: &Path) -> Result<Option<u32>, String> {
    let at = place.display();
    if place.join(RESTORING).exists() {
        return Err(format!(
            "the data directory {at} was being restored when that ended: restore it again"
        ));
    }
    match version(place)? {
        Some(newer) if newer > VERSION => Err(format!(
            "the data directory {at} has version {newer}, and this kubesim reads {VERSION}: it was \
             written by a newer one; run that, or restore a backup into another directory"
        )),
        known => Ok(known),
    }
}

/// Which one it has, if it says so.
fn version(place: &Path) -> Result<Option<u32>, String> {
    let path = place.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("reading {}: {error}", path.display())),
    };
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(format!(
            "{} says {:?}, and not a number that a kubesim has written: is this a data directory?",
            path.display(),
            text.trim()
        )),
    }
}

fn write_version(place: &Path) -> Result<(), String> {
    write(&place.join(NAME), &format!("{VERSION}\n"))?;
    sync(place)
}

/// A directory that a restore fills.
#[must_use]
pub struct Restoring(PathBuf);

impl Restoring {
    /// Of one that is empty or not there. What an earlier restore left that did not end is removed.
    pub fn begin(place: &Path) -> Result<Restoring, String> {
        pki::directory(place)?;
        let wrong = |error: io::Error| format!("restoring into {}: {error}", place.display());
        let again = place.join(RESTORING).exists();
        let names = fs::read_dir(place).map_err(wrong)?;
        for name in names {
            let name = name.map_err(wrong)?.file_name();
            if name == RESTORING || name == BEGINNING {
                continue;
            }
            if !again {
                return Err(format!(
                    "the directory {} is not empty: a backup is restored into an empty one",
                    place.display()
                ));
            }
            remove(&place.join(name)).map_err(wrong)?;
        }
        write(&place.join(RESTORING), "")?;
        sync(place)?;
        Ok(Restoring(place.to_owned()))
    }

    /// It is whole: a server may have it.
    pub fn end(self) -> Result<(), String> {
        let Restoring(place) = self;
        write_version(&place)?;
        let mark = place.join(RESTORING);
        fs::remove_file(&mark).map_err(|error| format!("removing {}: {error}", mark.display()))?;
        sync(&place)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

/// Makes what was put into a directory durable.
pub fn sync(place: &Path) -> Result<(), String> {
    let synced = File::open(place).and_then(|directory| directory.sync_all());
    synced.map_err(|error| format!("syncing {}: {error}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::Folder;

    #[test]
    fn a_version_is_written_once_and_checked_after() {
        let folder = Folder::new();
        let place = folder.0.join("data");
        open(&place).expect("made");
        assert_eq!(fs::read_to_string(place.join(NAME)).expect("a version"), "1\n");
        open(&place).expect("it is ours");
        fs::write(place.join(NAME), "2\n").expect("written");
        let why = open(&place).expect_err("newer");
        assert!(why.contains("version 2") && why.contains("newer"), "{why}");
        assert!(look(&place).is_err(), "nor is it backed up");
        fs::write(place.join(NAME), "one").expect("written");
        let why = open(&place).expect_err("a word");
        assert!(why.contains("\"one\""), "{why}");
    }

    /// A restore that was killed between the mark's two names left a directory that no other one
    /// took.
    #[test]
    fn what_a_restore_leaves_that_ends_as_it_begins_is_in_nobodys_way() {
        let folder = Folder::new();
        fs::write(folder.0.join(BEGINNING), "").expect("written");
        let restoring = Restoring::begin(&folder.0).expect("as empty as can be");
        assert!(folder.0.join(RESTORING).exists() && !folder.0.join(BEGINNING).exists());
        restoring.end().expect("whole");
        fs::write(folder.0.join("other"), "").expect("written");
        assert!(Restoring::begin(&folder.0).is_err(), "somebody's");
    }

    #[test]
    fn one_without_a_version_is_of_the_first() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("pki")).expect("made");
        open(&folder.0).expect("taken over");
        assert_eq!(version(&folder.0), Ok(Some(1)));
    }

    #[test]
    fn a_restore_is_begun_again_and_served_when_it_has_ended() {
        let folder = Folder::new();
        let first = Restoring::begin(&folder.0).expect("it is empty");
        fs::create_dir_all(folder.0.join("store/half")).expect("made");
        // Killed here.
        drop(first);
        assert!(open(&folder.0).expect_err("half").contains("restore it again"));
        assert!(look(&folder.0).is_err(), "nor is it backed up");
        let second = Restoring::begin(&folder.0).expect("again");
        assert!(!folder.0.join("store").exists(), "what was half there is gone");
        second.end().expect("whole");
        open(&folder.0).expect("whole");
        let why = Restoring::begin(&folder.0).map(|_| ()).expect_err("in use");
        assert!(why.contains("not empty"), "{why}");
    }
}
