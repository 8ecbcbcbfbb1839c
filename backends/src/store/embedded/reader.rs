//! Reading, beside the writer and without waiting for it: what is durable, as of one moment.

use super::engine::{Broken, State, unreadable};
use super::record::{INDEX, LOG, META, Place, Record, Stored, full_path, prefix, read_index_key};
use kubesim_actors::objects::Object;
use kubesim_actors::objects::kinds::Interner;
use kubesim_actors::ports::store::{Change, Range, Reply, Under};
use redb::{Database, ReadOnlyTable, ReadableDatabase};
use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

/// A watch that lies behind is told so many records at a time.
const CHUNK: usize = 1000;
/// Objects that are taken from the tables before they are read, side by side; a part for a core
/// of its own is not smaller than that.
const ROUND: usize = 1024;
const PART: usize = 64;

#[derive(Clone, Debug)]
pub struct Reader {
    database: Arc<Database>,
    /// Kinds that definitions declare, as they are met.
    kinds: RefCell<Interner>,
}

type Log = ReadOnlyTable<(u64, u32), &'static [u8]>;

impl Reader {
    pub fn new(database: Arc<Database>) -> Reader {
        Reader { database, kinds: RefCell::default() }
    }

    pub fn range(&self, range: &Range) -> Result<Reply, Broken> {
        let txn = self.database.begin_read()?;
        let state = State::read(&txn.open_table(META)?)?;
        let Range { id, revision, .. } = *range;
        if revision > state.revision {
            return Ok(Reply::Ahead { id, revision: state.revision });
        }
        let at = if revision == 0 { state.revision } else { revision };
        if at < state.compacted {
            return Ok(Reply::Forgotten { id, compacted: state.compacted });
        }
        let (log, index) = (txn.open_table(LOG)?, txn.open_table(INDEX)?);
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let kinds = &mut *self.kinds.borrow_mut();
        let mut found = Found { log: &log, objects: Vec::new(), stored: Vec::new(), kinds };
        let mut newest: Option<(Vec<u8>, u64, Place)> = None;
        let mut more = false;
        let prefix = prefix(&range.under);
        for entry in index.range(&*first(range)..)? {
            let (key, place) = entry?;
            let Some((path, revision)) = read_index_key(key.value()) else { continue };
            if !path.starts_with(prefix.as_bytes()) {
                break;
            }
            if newest.as_ref().is_some_and(|(newest, ..)| newest != path) {
                found.take(newest.take())?;
            }
            if found.objects.len() + found.stored.len() > limit {
                break;
            }
            if revision <= at {
                newest = Some((path.to_vec(), revision, Place::of_number(place.value())));
            }
        }
        found.take(newest)?;
        found.read()?;
        let mut objects = found.objects;
        if objects.len() > limit {
            objects.truncate(limit);
            more = true;
        }
        Ok(Reply::Range { id, revision: at, compacted: state.compacted, more, objects })
    }

    /// What happened at `from` and since, or the first part of it.
    pub fn changes(&self, id: u64, under: &Under, from: u64) -> Result<Reply, Broken> {
        let txn = self.database.begin_read()?;
        let state = State::read(&txn.open_table(META)?)?;
        if from <= state.compacted {
            return Ok(Reply::Forgotten { id, compacted: state.compacted });
        }
        let log = txn.open_table(LOG)?;
        let mut changes: Vec<Change> = Vec::new();
        let mut told = from.saturating_sub(1);
        for (seen, entry) in log.range((from, 0)..)?.enumerate() {
            let (key, bytes) = entry?;
            let (revision, _) = key.value();
            if seen >= CHUNK && revision != told {
                return Ok(Reply::Watched { id, revision: told, changes });
            }
            told = revision;
            let record = Record::read(bytes.value()).ok_or_else(|| unreadable(revision))?;
            let kinds = &mut self.kinds.borrow_mut();
            let change = record.change(revision, kinds).map_err(|why| Broken(why.into()))?;
            changes.extend(change.filter(|change| under.holds(&change.key())));
        }
        Ok(Reply::Watched { id, revision: state.revision, changes })
    }
}

/// Where the index is read from.
fn first(range: &Range) -> Vec<u8> {
    match &range.after {
        // Behind all versions of the path, before any path that is longer.
        Some(after) => {
            let after = [full_path(after).as_bytes(), &[1]].concat();
            after.max(prefix(&range.under).into_bytes())
        }
        None => prefix(&range.under).into_bytes(),
    }
}

struct Found<'t> {
    log: &'t Log,
    objects: Vec<Arc<Object>>,
    /// What follows them.
    stored: Vec<Stored>,
    kinds: &'t mut Interner,
}

impl Found<'_> {
    /// The newest version of a path, unless it ended there.
    fn take(&mut self, newest: Option<(Vec<u8>, u64, Place)>) -> Result<(), Broken> {
        let Some((_, revision, place)) = newest.filter(|(_, _, place)| !place.deleted) else {
            return Ok(());
        };
        let bytes = self.log.get((revision, place.sub))?.ok_or_else(|| unreadable(revision))?;
        let record = Record::read(bytes.value()).ok_or_else(|| unreadable(revision))?;
        self.stored.extend(record.stored(revision, self.kinds));
        if self.stored.len() < ROUND { Ok(()) } else { self.read() }
    }

    /// On all cores: to read a large store takes as long as its objects take.
    fn read(&mut self) -> Result<(), Broken> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let stored = std::mem::take(&mut self.stored);
        let mut parts = stored.chunks(stored.len().div_ceil(cores).max(PART));
        let read = |part: &[Stored]| part.iter().map(Stored::object).collect::<Result<Vec<_>, _>>();
        let here = parts.next().unwrap_or_default();
        let read = thread::scope(|scope| {
            let there: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
            let here = Ok(read(here));
            let all = [here].into_iter().chain(there.into_iter().map(|thread| thread.join()));
            all.map(|read| read.unwrap_or_else(|panic| resume_unwind(panic))).collect::<Vec<_>>()
        });
        for objects in read {
            self.objects.extend(objects.map_err(|why| Broken(why.into()))?);
        }
        Ok(())
    }
}
