//! A data directory of a backup.

use super::format::{self, Head, Part, Reader};
use crate::server::data::{self, Restoring};
use crate::{Exit, Output, pki};
use kubesim_backends::store::embedded::{self, Entry};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(clap::Args)]
pub struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Where a server will find what is restored: a directory that is empty, or not there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Revisions that a restored store skips, as etcd's operators are told to (`etcdutl snapshot
/// restore --bump-revision 1000000000 --mark-compacted`, of etcd's guide to disaster recovery):
/// clients know of versions that came after the backup, and must not take other ones for them.
const SKIPPED: u64 = 1_000_000_000;
/// And so many more for each second since the backup, which is more than a store can write. So of
/// two restores of one backup, the later one is ahead of all that was written after the earlier.
const SKIPPED_A_SECOND: u64 = 10_000;

pub fn restore(args: &RestoreArgs, output: &mut Output) -> Exit {
    match restored(args) {
        Ok((Head { revision, .. }, objects, now)) => {
            output.begin("what was restored");
            let at = args.data_dir.display();
            output.line(&format!("{at}: {objects} objects as of revision {revision}, now {now}"));
            output.line("a client that watches lists again; to serve it, start:");
            let words = crate::run::quoted(&at.to_string());
            output.line(&format!("kubesim server --data-dir {words}"));
            Exit::Held
        }
        Err(why) => {
            output.complain(&format!("error: {why}"));
            Exit::Environment
        }
    }
}

fn restored(args: &RestoreArgs) -> Result<(Head, usize, u64), String> {
    let wrong = |why: String| format!("the backup {}: {why}", args.file.display());
    // All of it, before anything is made of it.
    let (head, objects, files) = open(&args.file).and_then(format::verify).map_err(wrong)?;
    let lacks = pki::KEPT.into_iter().find(|name| !files.iter().any(|file| file == name));
    if let Some(name) = lacks {
        return Err(wrong(format!("it lacks {name}")));
    }
    let revision = skipped(&head, SystemTime::now());
    let restoring = Restoring::begin(&args.data_dir)?;
    keys(&args.file, &args.data_dir.join("pki")).map_err(wrong)?;
    let entries = entries(&args.file).map_err(wrong)?;
    let made = embedded::make(&args.data_dir.join("store"), revision, entries);
    made.map_err(|why| why.to_string())?;
    restoring.end()?;
    Ok((head, objects, revision))
}

/// At which revision the store of this backup goes on.
fn skipped(head: &Head, now: SystemTime) -> u64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let age = now.saturating_sub(head.taken);
    head.revision.saturating_add(SKIPPED).saturating_add(age.saturating_mul(SKIPPED_A_SECOND))
}

fn open(file: &Path) -> Result<BufReader<File>, String> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    Ok(BufReader::with_capacity(1 << 18, opened))
}

/// Those that we know, by their names: a file of any other would go anywhere.
fn keys(file: &Path, to: &Path) -> Result<(), String> {
    pki::directory(to)?;
    for part in Reader::new(open(file)?)? {
        match part? {
            Part::File { name, text } if pki::KEPT.contains(&&*name) => {
                pki::write(&to.join(name), &text)?;
            }
            // Objects come after the files.
            Part::Entry(_) => break,
            Part::File { .. } | Part::Head(_) => {}
        }
    }
    data::sync(to)
}

fn entries(file: &Path) -> Result<impl Iterator<Item = io::Result<Entry>>, String> {
    let parts = Reader::new(open(file)?)?;
    Ok(parts.filter_map(|part| match part {
        Ok(Part::Entry(entry)) => Some(Ok(entry)),
        Ok(Part::Head(_) | Part::File { .. }) => None,
        Err(why) => Some(Err(io::Error::other(why))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_later_restore_is_ahead_of_what_an_earlier_one_wrote() {
        let head = Head { revision: 5_000, taken: 1_000, kubesim: String::new() };
        let at = |seconds| skipped(&head, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_000), 1_000_005_000);
        // A machine whose clock is behind.
        assert_eq!(at(500), at(1_000));
        let written_in_a_minute = 60 * 5_000;
        assert!(at(1_060) > at(1_000) + written_in_a_minute);
    }
}
