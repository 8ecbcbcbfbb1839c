//! Sockets in a data directory, by which a process that runs answers its own user, and root.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// One that listens; when it is dropped, its file goes.
pub struct Door {
    pub listener: UnixListener,
    place: PathBuf,
}

impl Door {
    /// Whoever has the directory is alone in it: a socket that is there is a dead process's.
    pub fn open(directory: &Path, name: &str) -> io::Result<Door> {
        let place = directory.join(name);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let opened = File::open(directory)?;
        let listener = UnixListener::bind(short(&opened, name))?;
        Ok(Door { listener, place })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.place);
    }
}

/// Whoever answers there; `None` if nobody does.
pub fn connect(directory: &Path, name: &str) -> io::Result<Option<UnixStream>> {
    let Ok(opened) = File::open(directory) else { return Ok(None) };
    match UnixStream::connect(short(&opened, name)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// An address has room for 107 bytes (unix(7)), a path of a directory may have more.
fn short(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd()))
}

/// Whether a user is root or the one of this process.
pub fn allowed(user: u32) -> io::Result<()> {
    let ours = fs::metadata("/proc/self")?.uid();
    match [0, ours].contains(&user) {
        true => Ok(()),
        false => Err(io::Error::other(format!("the user {user} may not have it"))),
    }
}
