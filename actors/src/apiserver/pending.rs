//! Writes on their way: applied to the published state, sent to the store as one transaction each,
//! published in the order of their revisions and only then answered.
//!
//! Writes on different keys are in flight together; those on one key wait in its *lane*, first in,
//! first out. A lane opens again when its write is published, so an apply always sees the newest
//! state of its object. A write that a quota counts changes the quota too and needs both lanes:
//! with its own closed it waits in that of the quota, so nobody waits for one who waits.
//!
//! What the store did not tell is read again: a comparison that failed, a transaction without an
//! answer, or a revision that nobody accounts for (a late transaction of an earlier incarnation).

use super::cache::LastWrite;
use super::quota::{self, Charge};
use super::{ApiServer, Effect, Hold, RequestId, Timer, errors};
use crate::objects::{Kind, Object};
use crate::ports::api::{Error, Reason, Reply, Request};
use crate::ports::store::{self, StoreKey};
use kubesim_runtime::{Context, Lookup};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How often one request is applied anew after the store knew better of its object.
const MAX_TRIES: u32 = 5;
/// And of what is written with it, which other writes share: each time, one of those was done.
const MAX_CLASHES: u32 = 100;
/// After this long a Range that failed is asked again, and a missing revision looked up.
pub(super) const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Job {
    /// `None` for the server's own writes.
    pub id: Option<RequestId>,
    pub request: Arc<Request>,
    /// Ends before the store.
    pub dry_run: bool,
    /// It is done only while this lease is so held.
    pub hold: Option<Arc<Hold>>,
    pub tries: u32,
}

impl Job {
    pub fn of(id: Option<RequestId>, request: Arc<Request>) -> Job {
        Job { id, request, dry_run: false, hold: None, tries: 0 }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub job: Job,
    pub key: StoreKey,
    pub write: Write,
    /// What is written with it.
    pub charges: Vec<Charge>,
    /// When it left, no quota of its namespace was there to count it.
    pub uncounted: bool,
}

/// A write, and on what.
pub(super) type Waiting = (Job, StoreKey);

/// A write that is applied anew once the store was read; meanwhile it keeps the lanes of quotas.
#[derive(Clone, Debug)]
pub(super) struct Stale {
    pub job: Job,
    pub key: StoreKey,
    pub quotas: Vec<StoreKey>,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is answered: its lane may go on.
    Answered,
    /// A transaction is under way, or it waits for a quota's lane.
    Goes,
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    Put(Arc<Object>),
    Remove(Arc<Object>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Range {
    #[default]
    Idle,
    Asked,
    /// Something came up after it was asked.
    AskAgain,
    /// It was asked and came to nothing: the alarm asks again.
    Failed,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    last_id: u64,
    pub in_flight: BTreeMap<u64, Flight>,
    /// Committed, but a lower revision has not been heard of yet.
    arrived: BTreeMap<u64, Flight>,
    /// Keys with a write under way, and the writes behind it.
    pub lanes: Lookup<StoreKey, VecDeque<Waiting>>,
    /// To be applied anew once the store was read.
    pub stale: Vec<Stale>,
    /// Lanes whose last write may have happened; closed until the store was read.
    pub doubtful: Vec<StoreKey>,
    pub range: Range,
}

impl Pending {
    /// Of a transaction, or a question to the store.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The write that was committed at this revision and is not published yet.
    pub fn arrived(&mut self, revision: u64) -> Option<Flight> {
        self.arrived.remove(&revision)
    }
}

type Ctx<'a> = Context<'a, ApiServer>;

impl ApiServer {
    pub(super) fn busy(&self, key: &StoreKey) -> bool {
        self.pending.lanes.contains_key(key)
    }

    /// A write: at once, or behind the one under way on its key.
    pub(super) fn submit(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        let (kind, mut key) = job.request.subject();
        if let (Request::Create { object }, true) = (&*job.request, key.name.is_empty()) {
            match self.generate_name(object, ctx) {
                Ok(name) => key.name = name.into(),
                Err(error) => return respond(&job, Err(error), ctx),
            }
        }
        let key = (kind, key);
        if let Some(lane) = self.pending.lanes.get_mut(&key) {
            lane.push_back((job, key));
            return;
        }
        self.pending.lanes.insert(key.clone(), VecDeque::new());
        if self.execute(job, &key, &[], ctx) == Step::Answered {
            self.release(&key, ctx);
        }
    }

    /// The lane's write is over: the next one's turn.
    pub(super) fn release(&mut self, lane: &StoreKey, ctx: &mut Ctx<'_>) {
        while let Some(waiting) = self.pending.lanes.get_mut(lane) {
            let Some((job, key)) = waiting.pop_front() else {
                self.pending.lanes.remove(lane);
                return;
            };
            if key == *lane {
                if self.execute(job, &key, &[], ctx) == Step::Goes {
                    return;
                }
            } else if self.resume(job, &key, lane, ctx) {
                return;
            }
        }
    }

    /// The turn of a write that waited in the lane of a quota. True if it takes that lane.
    fn resume(&mut self, job: Job, key: &StoreKey, quota: &StoreKey, ctx: &mut Ctx<'_>) -> bool {
        let before = self.pending.last_id;
        match self.execute(job, key, std::slice::from_ref(quota), ctx) {
            Step::Answered => {
                self.release(key, ctx);
                false
            }
            // It left with that quota, or without, or waits in another one's lane.
            Step::Goes => {
                let left = Some(self.pending.last_id).filter(|last| *last != before);
                let flight = left.and_then(|id| self.pending.in_flight.get(&id));
                flight.is_some_and(|flight| flight.charges.iter().any(|c| c.key == *quota))
            }
        }
    }

    pub(super) fn stored(&mut self, reply: store::Reply, ctx: &mut Ctx<'_>) {
        match reply {
            store::Reply::Committed { id, revision } => self.committed(id, revision, ctx),
            store::Reply::Mismatch { id, key, .. } => self.mismatch(id, &key, ctx),
            store::Reply::Unknown { id } => self.unknown(id, ctx),
            store::Reply::Refused { id, why } => self.refused(id, &why, ctx),
            store::Reply::Range { id, revision, compacted, objects, .. } => {
                if !self.revision_told(id, revision, ctx) && id == 0 {
                    self.ranged(revision, compacted, objects, ctx);
                }
            }
            store::Reply::Compacted { revision } => {
                if revision > self.cache.compacted {
                    self.cache.compacted = revision;
                    self.cache.last = None;
                    self.publish(ctx);
                }
            }
            store::Reply::Watched { revision, changes, .. } => self.told(revision, changes, ctx),
            // With a memory that is empty it reads anew, and its clients know no version of that.
            store::Reply::Forgotten { compacted, .. } => {
                ctx.fail(format_args!("what it followed is forgotten up to {compacted}"));
            }
            // Nobody here reads the past.
            store::Reply::Ahead { .. } => {}
        }
    }

    fn committed(&mut self, id: u64, revision: u64, ctx: &mut Ctx<'_>) {
        let Some(flight) = self.pending.in_flight.remove(&id) else {
            return;
        };
        if revision <= self.cache.revision {
            return self.superseded(flight, revision, ctx);
        }
        let expected = self.cache.revision + 1;
        if revision > expected {
            if self.pending.arrived.is_empty() {
                ctx.set_timer(Timer::Retry, RETRY);
            }
            self.pending.arrived.insert(revision, flight);
        } else {
            self.publish_write(flight, revision, ctx);
        }
        self.publish_arrived(ctx);
        self.look_for_gap(ctx);
    }

    pub(super) fn publish_arrived(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(entry) = self.pending.arrived.first_entry() {
            let revision = *entry.key();
            if revision > self.cache.revision + 1 {
                return;
            }
            let flight = entry.remove();
            if revision <= self.cache.revision {
                self.superseded(flight, revision, ctx);
            } else {
                self.publish_write(flight, revision, ctx);
            }
        }
    }

    /// Committed revisions wait for a lower one.
    pub(super) fn has_gap(&self) -> bool {
        !self.pending.arrived.is_empty()
    }

    /// More revisions are missing than writes of ours are under way: somebody else's.
    pub(super) fn look_for_gap(&mut self, ctx: &mut Ctx<'_>) {
        if self.config.shared {
            // What is missing is told.
            return;
        }
        let Some((first, _)) = self.pending.arrived.first_key_value() else {
            return;
        };
        let missing = first.saturating_sub(self.cache.revision + 1);
        if missing > self.pending.in_flight.len() as u64 {
            self.ask_range(ctx);
        }
    }

    pub(super) fn publish_write(&mut self, flight: Flight, revision: u64, ctx: &mut Ctx<'_>) {
        let (kind, key) = flight.key.clone();
        for charge in &flight.charges {
            if let Some(view) = self.cache.views.get_mut(&charge.key.0) {
                let object = at_version(&charge.object, revision);
                view.insert(charge.key.1.clone(), object, revision);
            }
        }
        // One whose definition has just gone is stored all the same.
        if let Kind::Custom(_) = kind {
            self.make_view(kind);
        }
        let Some(view) = self.cache.views.get_mut(&kind) else {
            return;
        };
        let (answer, old, new) = match &flight.write {
            Write::Put(object) => {
                let object = at_version(object, revision);
                let old = view.insert(key.clone(), object.clone(), revision);
                (object.clone(), old, Some(object))
            }
            Write::Remove(object) => (object.clone(), view.remove(&key, revision), None),
        };
        self.cache.revision = revision;
        if kind == Kind::CustomResourceDefinition {
            self.redefine();
        }
        // More than one object changed: observers compare.
        let alone = flight.charges.is_empty();
        self.cache.last = alone.then(|| LastWrite { kind, key: key.clone(), old, new });
        self.publish(ctx);
        if kind == Kind::ResourceQuota || flight.uncounted {
            self.count(&key.namespace, ctx);
        }
        self.finish(flight, answer, ctx);
        self.after_write(kind, &key, ctx);
    }

    /// A quota was written, or was not there yet when something else was: those of the namespace
    /// are counted before anything else is charged to them.
    fn count(&mut self, namespace: &str, ctx: &mut Ctx<'_>) {
        for quota in quota::keys(&self.cache, namespace) {
            let Some(object) = self.cache.object(Kind::ResourceQuota, &quota).cloned() else {
                continue;
            };
            let request = Arc::new(Request::UpdateStatus { object });
            let job = Job::of(None, request);
            let key = (Kind::ResourceQuota, quota);
            match self.pending.lanes.get_mut(&key) {
                Some(lane) => lane.push_front((job, key)),
                None => self.submit(job, ctx),
            }
        }
    }

    pub(super) fn publish(&mut self, ctx: &mut Ctx<'_>) {
        ctx.perform(Effect::Publish(self.cache.clone()));
    }

    /// A Range has shown it (and maybe what came after it) already.
    fn superseded(&mut self, flight: Flight, revision: u64, ctx: &mut Ctx<'_>) {
        let object = match &flight.write {
            Write::Put(object) => at_version(object, revision),
            Write::Remove(object) => object.clone(),
        };
        if flight.uncounted {
            self.count(&flight.key.1.namespace.clone(), ctx);
        }
        self.finish(flight, object, ctx);
    }

    /// Durable and published: answered, and the lane goes on.
    fn finish(&mut self, flight: Flight, object: Arc<Object>, ctx: &mut Ctx<'_>) {
        respond(&flight.job, Ok(Reply::Object(object)), ctx);
        self.over(&flight, ctx);
    }

    /// A write that is under way is charged to this quota.
    pub(super) fn charged(&self, quota: &StoreKey) -> bool {
        let flights = self.pending.in_flight.values();
        flights.flat_map(|flight| &flight.charges).any(|charge| charge.key == *quota)
    }

    fn over(&mut self, flight: &Flight, ctx: &mut Ctx<'_>) {
        self.settle(&flight.key);
        self.release(&flight.key, ctx);
        for charge in &flight.charges {
            self.release(&charge.key, ctx);
        }
        self.definitions_after(flight.key.0, &flight.key.1, ctx);
    }

    /// Writes of a kind that are under way, or are not published yet; of a Put, the object.
    pub(super) fn under_way(&self, kind: Kind) -> impl Iterator<Item = Option<&Arc<Object>>> {
        let flights = self.pending.in_flight.values().chain(self.pending.arrived.values());
        flights.filter(move |flight| flight.key.0 == kind).map(|flight| match &flight.write {
            Write::Put(object) => Some(object),
            Write::Remove(_) => None,
        })
    }

    /// A service holds what is stored of it, once no write of it is under way.
    pub(super) fn settle(&mut self, (kind, key): &StoreKey) {
        if *kind == Kind::Service {
            let stored = self.cache.object(*kind, key).and_then(|o| o.service());
            self.services.settle(key, stored.map(|(spec, _)| &**spec));
        }
    }

    fn mismatch(&mut self, id: u64, key: &StoreKey, ctx: &mut Ctx<'_>) {
        let Some(mut flight) = self.pending.in_flight.remove(&id) else {
            return;
        };
        self.settle(&flight.key);
        flight.job.tries += 1;
        let own = *key == flight.key;
        if flight.job.tries > if own { MAX_TRIES } else { MAX_CLASHES } {
            let (kind, key) = &flight.key;
            respond(&flight.job, Err(errors::modified(*kind, &key.name)), ctx);
            return self.over(&flight, ctx);
        }
        let Flight { job, key, charges, .. } = flight;
        let quotas = charges.into_iter().map(|charge| charge.key).collect();
        self.pending.stale.push(Stale { job, key, quotas });
        self.ask_range(ctx);
    }

    /// It never happened: the store cannot take it, or takes nothing any more.
    fn refused(&mut self, id: u64, why: &str, ctx: &mut Ctx<'_>) {
        ctx.note(|| format!("the store refuses: {why}"));
        let Some(flight) = self.pending.in_flight.remove(&id) else {
            // A compaction is asked again when it is due.
            return self.range_failed(ctx);
        };
        let error =
            Error::new(Reason::InternalError, format!("the store refused the write: {why}"));
        respond(&flight.job, Err(error), ctx);
        self.over(&flight, ctx);
        self.look_for_gap(ctx);
    }

    fn unknown(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        if let Some(flight) = self.pending.in_flight.remove(&id) {
            let why = "the store did not answer in time: the write may have happened";
            respond(&flight.job, Err(Error::new(Reason::Unknown, why)), ctx);
            self.pending.doubtful.push(flight.key);
            self.pending.doubtful.extend(flight.charges.into_iter().map(|charge| charge.key));
            self.ask_range(ctx);
        } else {
            self.range_failed(ctx);
        }
    }

    /// A Range has no id of its own, and neither has a compaction: whichever it was, to ask again
    /// does no harm.
    fn range_failed(&mut self, ctx: &mut Ctx<'_>) {
        if self.pending.range != Range::Idle {
            self.pending.range = Range::Failed;
            ctx.set_timer(Timer::Retry, RETRY);
        }
    }
}

fn at_version(object: &Object, version: u64) -> Arc<Object> {
    Arc::new(Object { version, ..object.clone() })
}

pub(super) fn respond(job: &Job, result: Result<Reply, Error>, ctx: &mut Ctx<'_>) {
    match (job.id, result) {
        (Some(id), result) => {
            ctx.perform(Effect::Respond { id, result });
        }
        (None, Err(error)) if error.reason != Reason::NotFound => {
            let (kind, key) = job.request.subject();
            ctx.note(|| format!("own {} of {kind} {key} failed: {error}", job.request.verb()));
        }
        (None, _) => {}
    }
}
