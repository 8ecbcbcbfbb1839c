//! `kubesim server backup` and `restore`: what a cluster is, in one file, while its server runs or
//! not: the objects of the embedded store, as they are at one revision, and the cluster's authority
//! and keys. A store in etcd has etcd's own tools for that.
//!
//! - `format`: the file
//! - `socket`: how a server that runs hands out a backup
//! - `restore`: a data directory of a backup

mod format;
mod restore;
mod socket;

pub use restore::{RestoreArgs, restore};
pub use socket::serve;

use self::format::{Head, Part, Writer};
use super::data;
use crate::{Exit, Output, pki};
use kubesim_backends::store::embedded::{self, Copier, Embedded};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

#[derive(clap::Args)]
pub struct BackupArgs {
    /// Where the backup goes: a file that is whole or as it was.
    file: PathBuf,
    /// The server's, which may run.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubesim")]
    data_dir: PathBuf,
    /// Where the server's keys are, if it was told so (a server that runs knows it).
    #[arg(long, value_name = "DIR")]
    pki_dir: Option<PathBuf>,
}

/// Of what a backup is taken.
#[derive(Clone)]
pub struct Source {
    pub copier: Copier,
    /// Where the authority and the keys are.
    pub keys: PathBuf,
}

pub fn backup(args: &BackupArgs, output: &mut Output) -> Exit {
    match taken(args) {
        Ok((head, objects, files)) => {
            output.begin("what was backed up");
            let Head { revision, .. } = head;
            output.line(&format!(
                "{}: {objects} objects at revision {revision}, and the cluster's keys: {}",
                args.file.display(),
                files.join(", ")
            ));
            output.line("whoever has it can become the cluster's administrator: keep it as a key");
            Exit::Held
        }
        Err(why) => {
            output.complain(&format!("error: {why}"));
            Exit::Environment
        }
    }
}

fn taken(args: &BackupArgs) -> Result<(Head, usize, Vec<String>), String> {
    let wrong = |why: String| format!("backing up to {}: {why}", args.file.display());
    let at = |error: io::Error| wrong(error.to_string());
    data::look(&args.data_dir)?;
    let new = new_name(&args.file);
    let _ = fs::remove_file(&new);
    let options = File::options().read(true).write(true).create_new(true).mode(0o600).open(&new);
    let file = options.map_err(at)?;
    // What was made in vain goes.
    let unfinished = Unfinished(&new);
    match socket::receive(&args.data_dir, &file).map_err(at)? {
        true => {}
        false => write(&stopped(args)?, &file).map_err(at)?,
    }
    file.sync_all().map_err(at)?;
    let read = File::open(&new).map_err(at)?;
    let verified = format::verify(BufReader::new(read)).map_err(wrong)?;
    fs::rename(&new, &args.file).map_err(at)?;
    std::mem::forget(unfinished);
    data::sync(args.file.parent().filter(|at| *at != Path::new("")).unwrap_or(Path::new(".")))?;
    Ok(verified)
}

struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

fn new_name(file: &Path) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// What a server that does not run has left.
fn stopped(args: &BackupArgs) -> Result<Source, String> {
    let store = args.data_dir.join("store");
    if !embedded::exists(&store) {
        return Err(format!(
            "there is no embedded store in {}: a store in etcd is backed up by `etcdctl snapshot \
             save`",
            args.data_dir.display()
        ));
    }
    let opened = Embedded::open(&store, embedded::Options::default());
    let copier = opened.map_err(|why| why.to_string())?.copier();
    let keys = args.pki_dir.clone().unwrap_or_else(|| args.data_dir.join("pki"));
    Ok(Source { copier, keys })
}

/// All of it, with its end.
fn write(source: &Source, to: impl Write) -> io::Result<()> {
    let moment = source.copier.moment()?;
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut writer = Writer::new(BufWriter::with_capacity(1 << 18, to))?;
    writer.part(&Part::Head(Head {
        revision: moment.revision,
        taken: unix.as_secs(),
        kubesim: env!("CARGO_PKG_VERSION").to_owned(),
    }))?;
    for name in pki::KEPT {
        let path = source.keys.join(name);
        let text = fs::read_to_string(&path);
        let text =
            text.map_err(|error| io::Error::other(format!("reading {}: {error}", path.display())))?;
        writer.part(&Part::File { name: name.to_owned(), text })?;
    }
    moment.each(|entry| writer.entry(entry))?;
    writer.end().map(drop)
}
