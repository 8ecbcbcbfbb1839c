//! The files of a run with visitors: keys, which go when the run does, and what the visitors wrote,
//! which stays.

use crate::run::Serve;
use kubesim_sim::visits::{End, Of, Visit};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A directory of this run's own, for its owner alone.
pub struct Home(PathBuf);

impl Home {
    pub fn new() -> Result<Home, String> {
        let all = std::env::temp_dir();
        let process = std::process::id();
        for number in 0..100 {
            let path = all.join(format!("kubesim-serve-{process}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Home(path)),
                // Of a process that was killed, or somebody else's.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("making {}: {error}", path.display())),
            }
        }
        Err(format!("{} is full of directories kubesim-serve-{process}-…", all.display()))
    }

    pub fn keys(&self) -> PathBuf {
        self.0.join("pki")
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("admin.conf")
    }
    fn record(&self) -> PathBuf {
        self.0.join("visits.jsonl")
    }
}

impl Drop for Home {
    /// What was kept of the visitors' writes stays, and with it the directory.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.keys());
        let _ = fs::remove_dir(&self.0);
    }
}

/// The file in which the visitors' writes are kept, each as soon as it came in.
pub struct Record {
    path: PathBuf,
    file: File,
    /// Somebody asked for it, whatever is in it.
    asked: bool,
    /// Where it is, once anything was written.
    written: Arc<OnceLock<PathBuf>>,
}

impl Record {
    /// At this path, or where nobody looks unless something is written.
    pub fn new(serve: &Serve, home: &Home, of: &Of) -> Result<Record, String> {
        let usual = home.record();
        let path = serve.record.as_deref().unwrap_or(&usual);
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("--record: {} is there already; name a new file", path.display())
            }
            _ => wrong(path, &error),
        })?;
        let (asked, written) = (serve.record.is_some(), Arc::clone(&serve.recorded));
        let mut record = Record { path: path.to_owned(), file, asked, written };
        record.line(&of.line())?;
        Ok(record)
    }

    pub fn keep(&mut self, visit: &Visit) -> Result<(), String> {
        let Some(line) = visit.line() else { return Ok(()) };
        let _ = self.written.set(self.path.clone());
        self.line(&line)
    }

    pub fn close(mut self, end: End) -> Result<(), String> {
        self.line(&end.line())
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        let written = self.file.write_all(format!("{text}\n").as_bytes());
        written.map_err(|error| wrong(&self.path, &error))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.written.get().is_none() && !self.asked {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn wrong(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!("keeping what is written from outside in {path}: {error}; --record names another file")
}
