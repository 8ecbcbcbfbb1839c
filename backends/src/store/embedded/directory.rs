//! The directory: whose it is, and that this program can read it.

use redb::backends::FileBackend;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is in the directory, and how. A program reads this one and no newer one.
pub const FORMAT: u32 = 1;

const DATA: &str = "store.redb";
/// Not whole yet.
const NEW_DATA: &str = "store.redb.new";

/// Why a directory cannot be used, in words for whoever started the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable(pub String);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Unusable {}

/// Ours until it is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Holds the lock of the directory.
    lock: File,
}

impl Directory {
    /// Makes it if it is not there.
    pub fn open(path: &Path) -> Result<Directory, Unusable> {
        let failed = |what: &str, error: io::Error| {
            Unusable(format!("the store in {}: cannot {what}: {error}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("make the directory", error))?;
        let lock = lock(path)?;
        check(path)?;
        // Whoever made or renamed what is here may have ended before it was synced.
        sync_ways(path).map_err(|error| failed("sync it and those above it", error))?;
        Ok(Directory { path: path.to_owned(), lock })
    }

    /// Whether the file of the tables is there.
    pub fn has_data(path: &Path) -> bool {
        path.join(DATA).exists()
    }

    /// The file of the tables. A new one is put in its place once `fill` has made it whole: a crash
    /// in between leaves none.
    pub fn data<E>(&self, fill: impl FnOnce(FileBackend) -> Result<(), E>) -> Result<FileBackend, E>
    where
        E: From<io::Error> + From<redb::DatabaseError>,
    {
        let (place, new) = (self.path.join(DATA), self.path.join(NEW_DATA));
        let open = |path: &Path, fresh: bool| {
            let mut options = File::options();
            options.read(true).write(true).create(fresh).truncate(fresh).mode(0o600);
            options.open(path)
        };
        if !place.try_exists()? {
            fill(FileBackend::new(open(&new, true)?)?)?;
            open(&new, false)?.sync_all()?;
            write_format(&self.path)?;
            fs::rename(&new, &place)?;
            sync(&self.path)?;
        }
        Ok(FileBackend::new(open(&place, false)?)?)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // By name: a process that another thread is just starting has the descriptor too, until it
        // runs its program.
        let _ = self.lock.unlock();
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory, and all above it that we may read: others were not made by us.
fn sync_ways(path: &Path) -> io::Result<()> {
    sync(path)?;
    for above in path.canonicalize()?.ancestors().skip(1) {
        match sync(above) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            // Of another kind of file system, which keeps nothing or cannot say.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            done => done?,
        }
    }
    Ok(())
}

/// The kernel gives the lock back with the process, whatever ended it.
fn lock(path: &Path) -> Result<File, Unusable> {
    let failed = |what: &str, why: &dyn std::fmt::Display| {
        Unusable(format!("the store in {}: cannot {what}: {why}", path.display()))
    };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path.join("lock")).map_err(|e| failed("open its lock", &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "another one" } else { holder };
            return Err(Unusable(format!(
                "the store in {} is in use by process {holder}: end it first, or use another \
                 directory",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock it", &error)),
    }
    // For the message above; nothing depends on it.
    let _ = file.set_len(0).and_then(|()| file.rewind());
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}

/// That what is there is whole, and of a format that we read.
fn check(path: &Path) -> Result<(), Unusable> {
    let at = path.display();
    let there = |name: &str| {
        let found = path.join(name).try_exists();
        found.map_err(|error| Unusable(format!("the store in {at}: looking for {name}: {error}")))
    };
    let (data, unfinished) = (there(DATA)?, there(NEW_DATA)?);
    let text = match fs::read_to_string(path.join("format")) {
        Ok(_) if !data && !unfinished => {
            return Err(Unusable(format!(
                "the store in {at}: its file {DATA} is gone: put it back from a backup, or use \
                 another directory"
            )));
        }
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !data => return Ok(()),
        Err(error) => {
            return Err(Unusable(format!(
                "the store in {at}: its file `format` cannot be read: {error}"
            )));
        }
    };
    match text.trim().parse::<u32>() {
        Ok(FORMAT) => Ok(()),
        Ok(newer) if newer > FORMAT => Err(Unusable(format!(
            "the store in {at} has format {newer}, and this kubesim reads {FORMAT}: it was written \
             by a newer one; run that, or use another directory"
        ))),
        _ => Err(Unusable(format!(
            "the store in {at}: its file `format` says {:?} and not a number that a kubesim has \
             written: is it a store's directory?",
            text.trim()
        ))),
    }
}

fn write_format(path: &Path) -> io::Result<()> {
    let new = path.join("format.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&new, path.join("format"))?;
    sync(path)
}
