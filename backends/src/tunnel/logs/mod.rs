//! The log of a container, read from the file that its runtime writes (kubernetes
//! `pkg/kubelet/kuberuntime/logs/logs.go`).
//!
//! - `line`: what a line of it says
//! - `follow`: news of the file

mod follow;
mod line;
#[cfg(test)]
mod tests;

pub use self::line::at;

use self::follow::Watch;
use self::line::Line;
use bytes::{Bytes, BytesMut};
use k8s_openapi::jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::Instant;

/// What is read at once.
const BLOCK: usize = 64 << 10;
/// A line is not longer (containerd's `max_container_log_line_size` is 16 KiB, and what is not of
/// its making is no line).
const LONGEST: usize = 256 << 10;
/// How often it is asked whether who is followed still runs, and the file is looked at untold.
const LOOK: Duration = Duration::from_secs(1);

/// What of it is wanted (`v1.PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// And what comes, until the container ends.
    pub follow: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    /// So many lines of the file, the last ones.
    pub tail: Option<u64>,
    /// So many bytes.
    pub limit: Option<u64>,
}

/// A log that is open.
pub struct Log {
    path: PathBuf,
    file: File,
    options: Options,
    /// Of a line whose end was not read yet.
    rest: Vec<u8>,
    /// A line that is too long goes by.
    skips: bool,
    /// The next line is not the rest of one.
    begins: bool,
    left: u64,
    /// Another file has the name, and the last of this one was not read yet.
    turns: bool,
}

impl Log {
    pub fn open(path: &Path, options: Options) -> io::Result<Log> {
        let mut file = File::open(path)?;
        if let Some(lines) = options.tail {
            let start = tail(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let (path, left) = (path.to_owned(), options.limit.unwrap_or(u64::MAX));
        Ok(Log {
            path,
            file,
            options,
            rest: Vec::new(),
            skips: false,
            begins: true,
            left,
            turns: false,
        })
    }

    /// Sends it there, to its end or until nobody takes it. `lives` says whether who writes it
    /// still does.
    pub async fn send<L>(mut self, to: mpsc::Sender<Bytes>, lives: L) -> io::Result<()>
    where
        L: AsyncFn() -> bool,
    {
        let mut watch = self.options.follow.then(|| Watch::of(&self.path));
        let mut looked: Option<Instant> = None;
        let mut last = !self.options.follow;
        loop {
            if !self.send_all(&to).await? {
                return Ok(());
            }
            if self.turn_over()? {
                continue;
            }
            if last {
                let rest = std::mem::take(&mut self.rest);
                let mut out = BytesMut::new();
                self.take(&rest, &mut out);
                let _ = to.send(out.freeze()).await;
                return Ok(());
            }
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                // What it has said last may have come meanwhile.
                last = !lives().await;
                continue;
            }
            let Some(watch) = &mut watch else { return Ok(()) };
            tokio::select! {
                () = watch.stirs(LOOK) => {}
                () = to.closed() => return Ok(()),
            }
        }
    }

    /// To the end of the file. False: no more is wanted.
    async fn send_all(&mut self, to: &mpsc::Sender<Bytes>) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        loop {
            let count = match self.file.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                return Ok(true);
            }
            let out = self.lines(&block[..count]);
            if !out.is_empty() && to.send(out).await.is_err() || self.left == 0 {
                return Ok(false);
            }
            yield_now().await;
        }
    }

    /// What the lines say that end in this block.
    fn lines(&mut self, block: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        for part in block.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            if !self.skips {
                self.rest.extend_from_slice(part);
            }
            if self.rest.len() > LONGEST {
                self.rest.clear();
                self.skips = true;
            }
            if ends {
                let line = std::mem::take(&mut self.rest);
                if !std::mem::take(&mut self.skips) {
                    self.take(&line, &mut out);
                }
                self.rest = line;
                self.rest.clear();
            }
        }
        out.freeze()
    }

    /// What a line says, as it is wanted. One that nobody understands says nothing.
    fn take(&mut self, line: &[u8], out: &mut BytesMut) {
        let Some(line) = Line::read(line) else { return };
        if self.options.since.is_some_and(|since| !line.is_since(since)) {
            return;
        }
        let begins = std::mem::replace(&mut self.begins, line.said.ends_with(b"\n"));
        if self.options.timestamps && begins {
            self.put(line.time.as_bytes(), out);
            self.put(b" ", out);
        }
        self.put(line.said, out);
    }

    fn put(&mut self, bytes: &[u8], out: &mut BytesMut) {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        out.extend_from_slice(&bytes[..count]);
        self.left -= count as u64;
    }

    /// At its end: whether another file has its name, or it begins anew; then that is read on.
    fn turn_over(&mut self) -> io::Result<bool> {
        if !self.options.follow {
            return Ok(false);
        }
        let ours = self.file.metadata()?;
        let named = match std::fs::metadata(&self.path) {
            Ok(named) => named,
            // Between two names.
            Err(_) => return Ok(false),
        };
        if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
            // What was written before the writer turned to the other one is read first.
            if std::mem::replace(&mut self.turns, true) {
                self.file = File::open(&self.path)?;
                self.turns = false;
            }
            return Ok(true);
        }
        if ours.len() < self.file.stream_position()? {
            self.file.rewind()?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Where the last lines begin, so many of them (`pkg/util/tail`): they are looked for from the end.
fn tail(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK];
    let (mut from, mut ends) = (end, 0);
    while from > 0 {
        let count = from.min(BLOCK as u64);
        from -= count;
        file.seek(SeekFrom::Start(from))?;
        let block = &mut block[..usize::try_from(count).unwrap_or(BLOCK)];
        file.read_exact(block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = from + at as u64 + 1;
            // The end of the last line begins none.
            if after < end {
                ends += 1;
            }
            if ends == lines {
                return Ok(after);
            }
        }
    }
    Ok(0)
}
