//! The directory: whose it is, and that this program can read it.

use redb::backends::FileBackend;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is in the directory, and how. A program reads this one and no newer one.
pub const FORMAT: u32 = 1;

const DATA: &str = "store.redb";

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
        if !path.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| failed("make the directory", error))?;
            let parent = path.canonicalize().ok().and_then(|path| path.parent().map(sync));
            parent.unwrap_or(Ok(())).map_err(|error| failed("sync its parent", error))?;
        }
        let lock = lock(path)?;
        check_format(path)?;
        Ok(Directory { path: path.to_owned(), lock })
    }

    /// The file of the tables. A new one is put in its place once `fill` has made it whole: a crash
    /// in between leaves none.
    pub fn data<E>(&self, fill: impl FnOnce(FileBackend) -> Result<(), E>) -> Result<FileBackend, E>
    where
        E: From<io::Error> + From<redb::DatabaseError>,
    {
        let (place, new) = (self.path.join(DATA), self.path.join("store.redb.new"));
        let open = |path: &Path, fresh: bool| {
            let mut options = File::options();
            options.read(true).write(true).create(fresh).truncate(fresh).mode(0o600);
            options.open(path)
        };
        if !place.exists() {
            fill(FileBackend::new(open(&new, true)?)?)?;
            open(&new, false)?.sync_all()?;
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

fn check_format(path: &Path) -> Result<(), Unusable> {
    let at = path.display();
    let file = path.join("format");
    let failed = |error: io::Error| {
        Unusable(format!("the store in {at}: its file `format` cannot be read or made: {error}"))
    };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.join(DATA).exists() => {
            return write_format(path).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
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
