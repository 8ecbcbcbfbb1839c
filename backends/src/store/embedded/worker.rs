//! The store's threads: one that writes and one that reads. Transactions that wait while another
//! is synced become durable together, with the next sync.

use super::engine::{Broken, Engine, Outcome, Step};
use super::reader::Reader;
use kubesim_actors::ports::store::{Change, Reply, Under};
use smol_str::{SmolStr, format_smolstr};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvError, SendError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::{oneshot, watch};

/// Durable together, at most: one answer should not wait for thousands of others.
const BATCH: usize = 512;
/// Changes that watches are told from memory; who lies further behind reads the log.
const RECENT: usize = 4096;

/// What is said once a thread is gone: it panicked.
pub const ENDED: &str = "the store's thread has ended: start this program again";

pub struct Job {
    pub step: Step,
    pub answer: oneshot::Sender<Done>,
}

/// Nothing is known of what was asked once the storage failed under it; nothing is done after.
pub enum Done {
    Outcome(Outcome),
    InDoubt,
    Broken(SmolStr),
}

type Reading = Box<dyn FnOnce(&Reader) + Send>;

/// Ends its threads when it is dropped, and waits for them: then all that was asked is done and
/// the files are closed.
#[derive(Debug)]
pub struct Worker {
    jobs: Option<Sender<Job>>,
    readings: Option<Sender<Reading>>,
    threads: Vec<JoinHandle<()>>,
    pub shared: Arc<Shared>,
}

#[derive(Debug)]
pub struct Shared {
    recent: Mutex<Recent>,
    pub revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct Recent {
    compacted: u64,
    /// Each revision's, without a gap up to the newest.
    changes: VecDeque<(u64, Vec<Change>)>,
    count: usize,
}

impl Worker {
    /// `place`: where the store is, for messages.
    pub fn start(engine: Engine, place: String) -> std::io::Result<Worker> {
        let recent =
            Recent { compacted: engine.state.compacted, changes: VecDeque::new(), count: 0 };
        let revision = watch::Sender::new(engine.state.revision);
        let shared = Arc::new(Shared { recent: Mutex::new(recent), revision });
        let reader = Reader::new(Arc::clone(&engine.database));
        let (jobs, to_do) = channel();
        let (readings, to_read) = channel::<Reading>();
        let mut worker =
            Worker { jobs: Some(jobs), readings: Some(readings), threads: Vec::new(), shared };
        let shared = Arc::clone(&worker.shared);
        let write = move || Writer { engine, to_do, shared, place, broken: None }.run();
        worker.threads.push(thread::Builder::new().name("store-writer".into()).spawn(write)?);
        let read = move || to_read.into_iter().for_each(|reading| reading(&reader));
        worker.threads.push(thread::Builder::new().name("store-reader".into()).spawn(read)?);
        Ok(worker)
    }

    /// In its place behind all that was asked before, when this returns.
    pub fn write(&self, step: Step) -> oneshot::Receiver<Done> {
        let (answer, done) = oneshot::channel();
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(Job { step, answer }));
        if let Some(Err(SendError(job))) = sent {
            let _ = job.answer.send(Done::Broken(SmolStr::new_static(ENDED)));
        }
        done
    }

    /// `None`: the thread has ended.
    pub async fn read<R: Send + 'static>(
        &self,
        what: impl FnOnce(&Reader) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, done) = oneshot::channel();
        let reading = move |reader: &Reader| {
            // Nobody waits any more: nothing was changed.
            let _ = answer.send(what(reader));
        };
        self.readings.as_ref()?.send(Box::new(reading)).ok()?;
        done.await.ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        (self.jobs, self.readings) = (None, None);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From memory, if all of it is there.
    pub fn changes(&self, id: u64, under: &Under, from: u64) -> Option<Reply> {
        let recent = self.recent();
        let revision = *self.revision.borrow();
        if from <= recent.compacted {
            return Some(Reply::Forgotten { id, compacted: recent.compacted });
        }
        let first = recent.changes.front().map_or(revision + 1, |(first, _)| *first);
        if from < first {
            return None;
        }
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let changes = recent.changes.iter().skip(skip).flat_map(|(_, changes)| changes);
        let changes = changes.filter(|change| under.holds(&change.key())).cloned().collect();
        Some(Reply::Watched { id, revision, changes })
    }
}

struct Writer {
    engine: Engine,
    to_do: Receiver<Job>,
    shared: Arc<Shared>,
    place: String,
    broken: Option<Broken>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(batch) = self.batch() {
            let (steps, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|job| (job.step, job.answer)).unzip();
            if let Some(Broken(why)) = &self.broken {
                let why = format_smolstr!(
                    "the store in {} has failed ({why}) and writes nothing more: see to its disk, \
                     then start this program again",
                    self.place
                );
                answers.into_iter().for_each(|a| drop(a.send(Done::Broken(why.clone()))));
                continue;
            }
            match self.engine.commit(&steps) {
                Ok(outcomes) => {
                    self.publish(&outcomes);
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        let _ = answer.send(Done::Outcome(outcome));
                    }
                }
                Err(broken) => {
                    self.broken = Some(broken);
                    answers.into_iter().for_each(|answer| drop(answer.send(Done::InDoubt)));
                }
            }
        }
    }

    /// Waits for work, and takes what waits beside it. Without any there is still what a compaction
    /// has left to remove.
    fn batch(&mut self) -> Result<Vec<Job>, RecvError> {
        let idle = self.broken.is_none() && self.engine.sweeping();
        let first = match idle {
            false => Some(self.to_do.recv()?),
            true => match self.to_do.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return Err(RecvError),
            },
        };
        let more = if first.is_some() { BATCH - 1 } else { 0 };
        Ok(first.into_iter().chain(self.to_do.try_iter().take(more)).collect())
    }

    /// Durable by now: watches may hear of it, before those who wrote it do.
    fn publish(&self, outcomes: &[Outcome]) {
        let mut recent = self.shared.recent();
        recent.compacted = self.engine.state.compacted;
        for outcome in outcomes {
            if let Outcome::Committed { revision, changes } = outcome
                && !changes.is_empty()
            {
                recent.changes.push_back((*revision, changes.clone()));
                recent.count += changes.len();
            }
        }
        while recent.count > RECENT
            && let Some((_, oldest)) = recent.changes.pop_front()
        {
            recent.count -= oldest.len();
        }
        let revision = self.engine.state.revision;
        self.shared.revision.send_if_modified(|told| std::mem::replace(told, revision) != revision);
    }
}
