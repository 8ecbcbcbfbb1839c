//! A socket in the data directory, by which a server that runs hands out backups to its own user,
//! and to root: one store is one process's, so nobody else could read it.

use super::{Source, write};
use crate::socket::{self, Door, allowed};
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const NAME: &str = "backup.sock";
/// Who does not read, or does not write, for so long is left.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Hands out backups, one at a time, for as long as it is polled. The store is ours, so a socket
/// that is there is a dead server's.
pub async fn serve(data_dir: PathBuf, source: Source) {
    let door = match Door::open(&data_dir, NAME) {
        Ok(door) => door,
        Err(error) => {
            eprintln!("backup: listening at {NAME} in {}: {error}", data_dir.display());
            return;
        }
    };
    loop {
        match door.listener.accept().await {
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

async fn hand_out(stream: UnixStream, source: Source) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Where this is dropped the server ends, and the copy with it.
    let _ends = Ends(stream.try_clone()?);
    spawn_blocking(move || write(&source, stream)).await.map_err(io::Error::other)?
}

struct Ends(UnixStream);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// What the server of this directory hands out; false if none runs there. Whether it is whole, what
/// came says itself.
pub fn receive(data_dir: &Path, mut to: &File) -> io::Result<bool> {
    let Some(mut stream) = socket::connect(data_dir, NAME)? else { return Ok(false) };
    stream.set_read_timeout(Some(PATIENCE))?;
    io::copy(&mut stream, &mut to)?;
    Ok(true)
}
