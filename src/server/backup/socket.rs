//! A socket in the data directory, by which a server that runs hands out backups to its own user,
//! and to root: one store is one process's, so nobody else could read it.

use super::{Source, write};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const NAME: &str = "backup.sock";
/// Who does not read, or does not write, for so long is left.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Hands out backups, one at a time, for as long as it is polled. The store is ours, so a socket
/// that is there is a dead server's.
pub async fn serve(data_dir: PathBuf, source: Source) {
    let listener = match bind(&data_dir) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("backup: listening at {NAME} in {}: {error}", data_dir.display());
            return;
        }
    };
    let _unlinks = Unlinks(data_dir.join(NAME));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let sent = async {
                    allowed(stream.peer_cred()?.uid())?;
                    hand_out(stream.into_std()?, source.clone()).await
                };
                if let Err(error) = sent.await {
                    eprintln!("backup: handing one out: {error}");
                }
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(data_dir.join(NAME)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = File::open(data_dir)?;
    UnixListener::bind(short(&directory))
}

/// An address has room for 107 bytes (unix(7)), a path of a directory may have more.
fn short(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_fd().as_raw_fd()))
}

async fn hand_out(stream: UnixStream, source: Source) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Where this is dropped the server ends, and the copy with it.
    let _ends = Ends(stream.try_clone()?);
    spawn_blocking(move || write(&source, stream)).await.map_err(io::Error::other)?
}

fn allowed(user: u32) -> io::Result<()> {
    let ours = fs::metadata("/proc/self")?.uid();
    match [0, ours].contains(&user) {
        true => Ok(()),
        false => Err(io::Error::other(format!("the user {user} may not have it"))),
    }
}

struct Ends(UnixStream);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

struct Unlinks(PathBuf);

impl Drop for Unlinks {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What the server of this directory hands out; false if none runs there. Whether it is whole, what
/// came says itself.
pub fn receive(data_dir: &Path, mut to: &File) -> io::Result<bool> {
    let Ok(directory) = File::open(data_dir) else { return Ok(false) };
    let mut stream = match UnixStream::connect(short(&directory)) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(false),
                _ => Err(error),
            };
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    io::copy(&mut stream, &mut to)?;
    Ok(true)
}
