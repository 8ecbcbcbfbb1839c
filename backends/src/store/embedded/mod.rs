//! The store in a directory of this machine, on [redb](https://docs.rs/redb): nothing is
//! acknowledged before it is synced, and one sync serves all transactions that wait for one.
//!
//! The tables are etcd's in small: a log by revision and an index from paths to revisions, so what
//! was at a revision and what happened since are there until they are compacted. The file does not
//! shrink; what was removed is used again. After a crash the whole file is read once (redb rebuilds
//! its map of free pages).

mod copy;
mod directory;
mod engine;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod worker;

pub use copy::{Copier, Entry, Moment, exists, make};
pub use directory::{FORMAT, Unusable};

use self::directory::Directory;
use self::engine::{Broken, Engine, Outcome, Step, Write};
use self::worker::{Done, ENDED, Worker};
use super::watching::{PROGRESS, Source, follow};
use crate::port::{Answer, Local, Port};
use kubesim_actors::ports::store::{self, Reply, Request, Under};
use smol_str::SmolStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of memory for pages of the file.
    pub cache: usize,
    /// How long a watch that nothing happens to is told no progress.
    pub progress: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { cache: 64 << 20, progress: PROGRESS }
    }
}

/// The driver. Clones share one store; the last one that goes waits until all is written.
#[derive(Clone, Debug)]
pub struct Embedded(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    worker: Worker,
    progress: Duration,
    database: Arc<redb::Database>,
    /// Given back after the worker has ended and the file is closed.
    directory: Arc<Directory>,
}

impl Embedded {
    /// Makes the directory if it is not there. One process has it at a time.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Embedded, Unusable> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let failed = |why: redb::Error| Unusable(format!("the store in {place}: {why}"));
        let directory = Directory::open(path)?;
        let fill = |file| Engine::open(file, options.cache).map(drop);
        let data = directory.data::<redb::Error>(fill).map_err(failed)?;
        // redb panics on some damaged files.
        let opened = catch_unwind(AssertUnwindSafe(|| Engine::open(data, options.cache)));
        let damaged = || redb::Error::Corrupted("its file is damaged".to_owned());
        let engine = opened.unwrap_or_else(|_| Err(damaged())).map_err(failed)?;
        let database = Arc::clone(&engine.database);
        let worker = Worker::start(engine, place.clone());
        let worker = worker.map_err(|error| failed(error.into()))?;
        let (progress, directory) = (options.progress, Arc::new(directory));
        Ok(Embedded(Rc::new(Inner { worker, progress, database, directory })))
    }

    /// What takes copies of it while it is in use.
    pub fn copier(&self) -> Copier {
        let (database, directory) = (Arc::clone(&self.0.database), Arc::clone(&self.0.directory));
        Copier { database, _directory: directory }
    }

    /// The newest revision that is durable.
    pub fn revision(&self) -> u64 {
        *self.0.worker.shared.revision.borrow()
    }
}

impl Port for Embedded {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let inner = Rc::clone(&self.0);
        match request {
            Request::Txn { id, compare, then } => {
                if let Some(why) = store::refusal(&compare, &then) {
                    return reply(answer, async move { Reply::Refused { id, why } });
                }
                let then = then.into_iter().map(Write::of).collect();
                let done = inner.worker.write(Step::Txn { compare, then });
                reply(answer, async move { of_done(id, done.await.ok()) })
            }
            Request::Compact { revision } => {
                let done = inner.worker.write(Step::Compact { revision });
                reply(answer, async move { of_done(0, done.await.ok()) })
            }
            Request::Range(range) => reply(answer, async move {
                let id = range.id;
                of_reading(id, inner.worker.read(move |reader| reader.range(&range)).await)
            }),
            Request::Watch { id, under, from } => Box::pin(async move {
                let (progress, source) = (inner.progress, Rc::downgrade(&inner));
                drop(inner);
                let _ = follow(source, (id, under, from), progress, answer).await;
            }),
        }
    }
}

fn reply(answer: Answer<Reply>, reply: impl Future<Output = Reply> + 'static) -> Local<()> {
    Box::pin(async move {
        // Nobody waits any more: it is done all the same.
        let _ = answer.send(reply.await).await;
    })
}

fn of_done(id: u64, done: Option<Done>) -> Reply {
    match done {
        Some(Done::Outcome(Outcome::Committed { revision, .. })) => {
            Reply::Committed { id, revision }
        }
        Some(Done::Outcome(Outcome::Mismatch { key, found })) => Reply::Mismatch { id, key, found },
        Some(Done::Outcome(Outcome::Compacted { revision })) => Reply::Compacted { revision },
        // The thread ended under it.
        Some(Done::InDoubt) | None => Reply::Unknown { id },
        Some(Done::Broken(why)) => Reply::Refused { id, why },
    }
}

fn of_reading(id: u64, read: Option<Result<Reply, Broken>>) -> Reply {
    match read {
        Some(Ok(reply)) => reply,
        Some(Err(Broken(why))) => Reply::Refused { id, why },
        None => Reply::Refused { id, why: SmolStr::new_static(ENDED) },
    }
}

impl Source for Inner {
    fn revisions(&self) -> watch::Receiver<u64> {
        self.worker.shared.revision.subscribe()
    }

    async fn changes(&self, id: u64, under: &Under, from: u64) -> Reply {
        if let Some(reply) = self.worker.shared.changes(id, under, from) {
            return reply;
        }
        let under = under.clone();
        of_reading(id, self.worker.read(move |reader| reader.changes(id, &under, from)).await)
    }
}
