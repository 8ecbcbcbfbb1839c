//! Waiting until a file descriptor has something to read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A second descriptor of what it was made of; who reads that need not be who waits here.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Within a tokio runtime.
    pub fn new(of: impl AsFd) -> io::Result<Readable> {
        let fd = of.as_fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "sound with an OwnedFd; what replaces it is unsafe")]
        AsyncFd::with_interest(fd, Interest::READABLE).map(Readable)
    }

    /// Until something came since this returned last. Whoever woke reads until nothing is left.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
