//! The files of a run with visitors: keys and the administrator's kubeconfig, which go when the run
//! does, and what the visitors wrote, which stays.

use crate::pki::Pki;
use crate::run::quoted;
use kubesim_sim::visits::{End, Of, Visit};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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

/// The administrator's kubeconfig; it goes with this value.
pub struct Kubeconfig(PathBuf);

impl Kubeconfig {
    /// The file is a new one: what is there already is somebody's.
    pub fn new(pki: &Pki, path: &Path, url: &str) -> Result<Kubeconfig, String> {
        if path.exists() {
            let path = path.display();
            return Err(format!("--kubeconfig: {path} is there already; name a new file"));
        }
        pki.admin(path, url)?;
        Ok(Kubeconfig(path.to_owned()))
    }

    /// How to come in.
    pub fn invitation(&self) -> String {
        format!("try: kubectl --kubeconfig {} get nodes", quoted(&self.0.to_string_lossy()))
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The file in which the visitors' writes are kept, each as soon as it came in.
pub struct Record {
    path: PathBuf,
    file: File,
    writes: u64,
    /// Somebody asked for it, whatever is in it.
    asked: bool,
}

impl Record {
    /// At this path, or where nobody looks unless something is written.
    pub fn new(asked: Option<&Path>, home: &Home, of: &Of) -> Result<Record, String> {
        let usual = home.record();
        let path = asked.unwrap_or(&usual);
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("--record: {} is there already; name a new file", path.display())
            }
            _ => wrong(path, &error),
        })?;
        let asked = asked.is_some();
        let mut record = Record { path: path.to_owned(), file, writes: 0, asked };
        record.line(&of.line())?;
        Ok(record)
    }

    pub fn keep(&mut self, visit: &Visit) -> Result<(), String> {
        let Some(line) = visit.line() else { return Ok(()) };
        self.writes += 1;
        self.line(&line)
    }

    /// Where it is, if anything was written.
    pub fn close(mut self, end: End) -> Result<Option<PathBuf>, String> {
        self.line(&end.line())?;
        Ok((self.writes > 0).then(|| self.path.clone()))
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        let written = self.file.write_all(format!("{text}\n").as_bytes());
        written.map_err(|error| wrong(&self.path, &error))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.writes == 0 && !self.asked {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn wrong(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!("keeping what is written from outside in {path}: {error}; --record names another file")
}
