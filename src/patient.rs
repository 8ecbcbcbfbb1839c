//! Output that waits for its reader, and gives way to ^C. The lab hears of signals between two
//! steps of its world (`lab/play.rs`), so a line into a pipe that nobody reads, or to a terminal
//! that was told to stop, must not be where it waits for ever.

use crate::interrupt;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

/// So many bytes a pipe takes at once that takes any (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4096;

/// The signals that end a run.
pub fn ending() -> SigSet {
    let hangup = interrupt::hears_hangups().then_some(Signal::SIGHUP);
    [Signal::SIGINT, Signal::SIGTERM].into_iter().chain(hangup).collect()
}

pub struct Patient<W> {
    inner: W,
    /// Readable while a signal is pending that the calling thread has blocked. It is only looked
    /// at: to read it is the lab's.
    signals: SignalFd,
}

impl<W: Write + AsFd> Patient<W> {
    pub fn new(inner: W) -> io::Result<Patient<W>> {
        let set = ending();
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Patient { inner, signals })
    }

    /// Until there is room. Somebody who wants the end of it all does not want to read on.
    fn wait(&self) -> io::Result<()> {
        let out = PollFd::new(self.inner.as_fd(), PollFlags::POLLOUT);
        let mut both = [out, PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut both, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                // A reader that has gone is the write's to find.
                Ok(_) if both[0].any().unwrap_or(true) => return Ok(()),
                Ok(_) => return Err(ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait()?;
        self.inner.write(&bytes[..bytes.len().min(AT_ONCE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;
    use std::io::Read;

    #[test]
    fn a_reader_is_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut patient = Patient::new(writer).expect("a descriptor");
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).expect("bytes");
            all.len()
        });
        patient.write_all(&[b'x'; 300_000]).expect("room");
        drop(patient);
        assert_eq!(read.join().expect("a length"), 300_000);
    }

    /// The lab could not be interrupted while nobody read what it said.
    #[test]
    fn nobody_is_waited_for_when_the_end_is_asked_for() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.thread_block().expect("a mask");
        let mut patient = Patient::new(writer).expect("a descriptor");
        // To this thread, which has it blocked.
        raise(Signal::SIGTERM).expect("a signal");
        let mut written = 0;
        let refused = loop {
            match patient.write(&[b'x'; 1000]) {
                Ok(bytes) => written += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        // While there is room it is written all the same.
        assert!(written >= AT_ONCE, "{written}");
    }
}
