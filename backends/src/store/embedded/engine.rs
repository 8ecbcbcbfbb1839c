//! Transactions on the tables: many become durable with one sync.

use super::copy::Entry;
use super::record::{
    INDEX, LOG, META, Place, Record, full_path, index_key, read_index_key, to_record,
};
use kubesim_actors::objects::Object;
use kubesim_actors::ports::store::{Change, Op, StoreKey};
use redb::{Database, ReadableTable, StorageBackend, Table, WriteTransaction};
use smol_str::SmolStr;
use std::sync::Arc;

/// So many records of the log are looked at by one sweep: what is forgotten is removed beside
/// other work, in parts.
const SWEEP: usize = 1000;

/// The storage failed, and how. Nothing more is written then: after a sync that failed, the system
/// may show what is not on the disk, and what is written on top of it could be lost
/// (<https://wiki.postgresql.org/wiki/Fsync_Errors>).
#[derive(Clone, Debug)]
pub struct Broken(pub SmolStr);

impl<E: Into<redb::Error>> From<E> for Broken {
    fn from(error: E) -> Self {
        Broken(smol_str::format_smolstr!("{}", error.into()))
    }
}

#[derive(Debug)]
pub enum Step {
    Txn { compare: Vec<(StoreKey, u64)>, then: Vec<Write> },
    Compact { revision: u64 },
}

#[derive(Debug)]
pub struct Write {
    pub op: Op,
    /// Of what is put.
    pub bytes: Vec<u8>,
}

impl Write {
    pub fn of(op: Op) -> Write {
        let bytes = match &op {
            Op::Put { value, .. } => value.to_bytes(),
            Op::Delete { .. } => Vec::new(),
        };
        Write { op, bytes }
    }
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Committed { revision: u64, changes: Vec<Change> },
    Mismatch { key: StoreKey, found: u64 },
    Compacted { revision: u64 },
}

/// The counters, as they are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub revision: u64,
    pub compacted: u64,
    /// What is compacted and removed.
    pub swept: u64,
}

impl State {
    const NAMES: [&str; 3] = ["revision", "compacted", "swept"];
    /// etcd's counter starts at 1.
    const NEW: State = State { revision: 1, compacted: 0, swept: 0 };

    pub fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<State, Broken> {
        let read = |name| Ok::<_, Broken>(meta.get(name)?.map(|value| value.value()));
        let [revision, compacted, swept] = State::NAMES;
        let State { revision: first, .. } = State::NEW;
        Ok(State {
            revision: read(revision)?.unwrap_or(first),
            compacted: read(compacted)?.unwrap_or_default(),
            swept: read(swept)?.unwrap_or_default(),
        })
    }

    fn numbers(self) -> [u64; 3] {
        [self.revision, self.compacted, self.swept]
    }

    fn save(self, before: State, meta: &mut Table<'_, &'static str, u64>) -> Result<(), Broken> {
        let changed = self.numbers().into_iter().zip(before.numbers());
        for (name, (now, _)) in State::NAMES.into_iter().zip(changed).filter(|(_, (a, b))| a != b) {
            meta.insert(name, now)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub struct Engine {
    pub database: Arc<Database>,
    pub state: State,
}

impl Engine {
    /// `cache`: bytes of memory for pages.
    pub fn open(storage: impl StorageBackend, cache: usize) -> Result<Engine, redb::Error> {
        let mut builder = Database::builder();
        let database = builder.set_cache_size(cache).create_with_backend(storage)?;
        let txn = database.begin_write()?;
        let state = {
            txn.open_table(LOG)?;
            txn.open_table(INDEX)?;
            State::read(&txn.open_table(META)?).map_err(|why| {
                redb::Error::Corrupted(format!("its counters cannot be read: {}", why.0))
            })?
        };
        txn.commit()?;
        Ok(Engine { database: Arc::new(database), state })
    }

    /// Makes a store that has these objects, whole when this returns.
    pub fn fill(
        storage: impl StorageBackend,
        state: State,
        entries: impl Iterator<Item = std::io::Result<Entry>>,
    ) -> Result<(), redb::Error> {
        let database = Database::builder().create_with_backend(storage)?;
        let txn = database.begin_write()?;
        {
            let mut log = txn.open_table(LOG)?;
            let mut index = txn.open_table(INDEX)?;
            for entry in entries {
                let entry = entry?;
                let (revision, sub) = (entry.revision, entry.sub);
                let path = entry.check(state.revision)?.path;
                log.insert((revision, sub), &*entry.record)?;
                let place = Place { sub, deleted: false };
                index.insert(&*index_key(path, revision), place.to_number())?;
            }
            let mut meta = txn.open_table(META)?;
            for (name, number) in State::NAMES.into_iter().zip(state.numbers()) {
                meta.insert(name, number)?;
            }
        }
        Ok(txn.commit()?)
    }

    /// What is compacted is not all removed yet: to be called again, with or without work.
    pub fn sweeping(&self) -> bool {
        self.state.swept < self.state.compacted
    }

    /// Of the log.
    #[cfg(test)]
    pub fn records(&self) -> Result<u64, Broken> {
        use redb::{ReadableDatabase, ReadableTableMetadata};
        Ok(self.database.begin_read()?.open_table(LOG)?.len()?)
    }

    /// Carries out all steps, one after the other, and makes them durable together: after this,
    /// they may be told. After an error nothing is known of any, and this is not to be called
    /// again.
    pub fn commit(&mut self, steps: &[Step]) -> Result<Vec<Outcome>, Broken> {
        let txn = self.database.begin_write()?;
        let mut state = self.state;
        let mut outcomes = Vec::with_capacity(steps.len());
        {
            let mut tables = Tables::open(&txn)?;
            for step in steps {
                outcomes.push(match step {
                    Step::Txn { compare, then } => tables.transact(&mut state, compare, then)?,
                    Step::Compact { revision } => {
                        // etcd refuses a future revision and one that is compacted already.
                        // Nothing is at 1.
                        let revision = (*revision).min(state.revision);
                        if revision > state.compacted.max(1) {
                            state.compacted = revision;
                        }
                        Outcome::Compacted { revision: state.compacted }
                    }
                });
            }
            if state.swept < state.compacted {
                state.swept = tables.sweep(state)?;
            }
            state.save(self.state, &mut tables.meta)?;
        }
        if state == self.state {
            // Nothing changed: nothing to wait for.
            txn.abort()?;
        } else {
            txn.commit()?;
        }
        self.state = state;
        Ok(outcomes)
    }
}

struct Tables<'t> {
    log: Table<'t, (u64, u32), &'static [u8]>,
    index: Table<'t, &'static [u8], u32>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, Broken> {
        let (log, index) = (txn.open_table(LOG)?, txn.open_table(INDEX)?);
        Ok(Tables { log, index, meta: txn.open_table(META)? })
    }

    /// The newest version of a path before `revision`.
    fn version(&self, path: &str, revision: u64) -> Result<Option<(u64, Place)>, Broken> {
        let (first, end) = (index_key(path, 0), index_key(path, revision));
        let Some(entry) = self.index.range(&*first..&*end)?.next_back() else { return Ok(None) };
        let (key, place) = entry?;
        let found = read_index_key(key.value()).map(|(_, revision)| revision);
        Ok(found.map(|revision| (revision, Place::of_number(place.value()))))
    }

    /// 0: it is not there.
    fn mod_revision(&self, path: &str) -> Result<u64, Broken> {
        let version = self.version(path, u64::MAX)?;
        Ok(version.filter(|(_, place)| !place.deleted).map_or(0, |(revision, _)| revision))
    }

    fn transact(
        &mut self,
        state: &mut State,
        compare: &[(StoreKey, u64)],
        then: &[Write],
    ) -> Result<Outcome, Broken> {
        for (key, expected) in compare {
            let found = self.mod_revision(&full_path(key))?;
            if found != *expected {
                return Ok(Outcome::Mismatch { key: key.clone(), found });
            }
        }
        let revision = state.revision + 1;
        let mut changes = Vec::new();
        for Write { op, bytes } in then {
            let (path, sub) = (full_path(op.key()), changes.len() as u32);
            let (record, change) = match op {
                Op::Put { value, .. } => {
                    let object = Object { version: revision, ..(**value).clone() };
                    (to_record(&path, Some(bytes)), Change::Put(object.into()))
                }
                Op::Delete { .. } if self.mod_revision(&path)? == 0 => continue,
                Op::Delete { key } => {
                    (to_record(&path, None), Change::Deleted { key: key.clone(), revision })
                }
            };
            let place = Place { sub, deleted: matches!(op, Op::Delete { .. }) };
            self.log.insert((revision, sub), &*record)?;
            self.index.insert(&*index_key(&path, revision), place.to_number())?;
            changes.push(change);
        }
        // A transaction that changed nothing takes no revision.
        if !changes.is_empty() {
            state.revision = revision;
        }
        Ok(Outcome::Committed { revision: state.revision, changes })
    }

    /// Removes, of the next revisions up to the compacted one, what they superseded, and where
    /// they ended a path that too. Up to which one, is returned.
    fn sweep(&mut self, state: State) -> Result<u64, Broken> {
        let mut swept = state.swept;
        let mut seen = Vec::new();
        let mut all = true;
        for entry in self.log.range((state.swept + 1, 0)..=(state.compacted, u32::MAX))? {
            let (key, bytes) = entry?;
            let (revision, sub) = key.value();
            if seen.len() >= SWEEP && revision != swept {
                all = false;
                break;
            }
            swept = revision;
            let record = Record::read(bytes.value()).ok_or_else(|| unreadable(revision))?;
            seen.push((record.path.to_owned(), revision, sub, record.value.is_none()));
        }
        self.forget(&seen)?;
        Ok(if all { state.compacted } else { swept })
    }

    fn forget(&mut self, seen: &[(String, u64, u32, bool)]) -> Result<(), Broken> {
        for (path, revision, sub, deleted) in seen {
            if let Some((older, place)) = self.version(path, *revision)? {
                self.log.remove((older, place.sub))?;
                self.index.remove(&*index_key(path, older))?;
            }
            if *deleted {
                self.log.remove((*revision, *sub))?;
                self.index.remove(&*index_key(path, *revision))?;
            }
        }
        Ok(())
    }
}

pub fn unreadable(revision: u64) -> Broken {
    Broken(smol_str::format_smolstr!("the record of revision {revision} cannot be read"))
}
