//! Copies of a store: its objects as of one moment, read beside the writer, and a store that is
//! made of them. What was before that moment is in no copy.

use super::directory::{Directory, Unusable};
use super::engine::{Broken, Engine, State, unreadable};
use super::record::{INDEX, LOG, META, Place, Record, read_index_key};
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// By which it was written last, and where in its transaction.
    pub revision: u64,
    pub sub: u32,
    /// Its path and its value; [`make`] checks that it is one.
    pub record: Vec<u8>,
}

/// Hands out copies, on any thread. The directory is in use for as long as there is one of these.
#[derive(Clone, Debug)]
pub struct Copier {
    // Closed before the directory is given back: closing it writes.
    pub(super) database: Arc<Database>,
    pub(super) _directory: Arc<Directory>,
}

impl Copier {
    /// What is durable now. What is written later does not change it.
    pub fn moment(&self) -> io::Result<Moment> {
        let txn = self.database.begin_read().map_err(Broken::from).map_err(told)?;
        let meta = txn.open_table(META).map_err(Broken::from).map_err(told)?;
        let revision = State::read(&meta).map_err(told)?.revision;
        Ok(Moment { revision, txn })
    }
}

/// A store as it is at a revision.
pub struct Moment {
    pub revision: u64,
    txn: ReadTransaction,
}

impl Moment {
    /// Tells of each object, in the order of their paths, until `tell` fails.
    pub fn each(&self, mut tell: impl FnMut(&Entry) -> io::Result<()>) -> io::Result<()> {
        let open = |error: redb::TableError| told(error.into());
        let (log, index) = (self.txn.open_table(LOG), self.txn.open_table(INDEX));
        let (log, index) = (log.map_err(open)?, index.map_err(open)?);
        let read = |error: redb::StorageError| told(error.into());
        // The versions of a path are beside each other, the newest last.
        let mut newest: Option<(Vec<u8>, u64, Place)> = None;
        for entry in index.range::<&[u8]>(..).map_err(read)? {
            let (key, place) = entry.map_err(read)?;
            let Some((path, revision)) = read_index_key(key.value()) else { continue };
            let done = newest.take_if(|(before, ..)| before.as_slice() != path);
            if let Some((_, revision, place)) = done {
                self.tell(&log, (revision, place), &mut tell)?;
            }
            newest = Some((path.to_vec(), revision, Place::of_number(place.value())));
        }
        match newest {
            Some((_, revision, place)) => self.tell(&log, (revision, place), &mut tell),
            None => Ok(()),
        }
    }

    /// Unless the path ended there.
    fn tell(
        &self,
        log: &ReadOnlyTable<(u64, u32), &'static [u8]>,
        (revision, place): (u64, Place),
        tell: &mut impl FnMut(&Entry) -> io::Result<()>,
    ) -> io::Result<()> {
        if place.deleted {
            return Ok(());
        }
        let found = log.get((revision, place.sub)).map_err(|error| told(error.into()))?;
        let found = found.ok_or_else(|| told(unreadable(revision)))?;
        tell(&Entry { revision, sub: place.sub, record: found.value().to_vec() })
    }
}

fn told(Broken(why): Broken) -> io::Error {
    io::Error::other(why.to_string())
}

/// Makes a store of a copy, in a directory that has none. It stands at `revision`, which must not
/// be before any entry's, and knows nothing of what was before: who watched from an earlier one is
/// told so. A crash in between leaves none.
pub fn make(
    path: &Path,
    revision: u64,
    entries: impl Iterator<Item = io::Result<Entry>>,
) -> Result<(), Unusable> {
    let place = path.display();
    let directory = Directory::open(path)?;
    let mut made = false;
    let filled = directory.data::<redb::Error>(|file| {
        made = true;
        Engine::fill(file, State { revision, compacted: revision, swept: revision }, entries)
    });
    filled.map_err(|why| Unusable(format!("the store in {place}: {why}")))?;
    match made {
        true => Ok(()),
        false => Err(Unusable(format!("the store in {place} is there already"))),
    }
}

/// Whether there is one in this directory.
pub fn exists(path: &Path) -> bool {
    Directory::has_data(path)
}

impl Entry {
    /// That it is one, of no later revision than this.
    pub(super) fn check(&self, latest: u64) -> io::Result<Record<'_>> {
        let record = Record::read(&self.record).filter(|record| record.value.is_some());
        let record = record.filter(|_| self.revision <= latest);
        record.ok_or_else(|| {
            io::Error::other(format!("the copy's entry of revision {} is none", self.revision))
        })
    }
}
