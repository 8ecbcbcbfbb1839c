//! A store that other servers write to as well (`Config::shared`): what happens there is followed
//! revision by revision. So the servers of a store tell one history, and a watch that was told up
//! to a version by one of them goes on at another.
//!
//! What was told may be behind what is stored. Whoever must know better waits: a read that is to
//! be as of now, a write that would be refused for what is known or that the store knew better of.
//! The store is asked for its revision, and when all up to that was told, they go on. One question
//! is under way at a time, for all who waited when it was asked (KEP-2340, "consistent reads from
//! cache").

use super::cache::LastWrite;
use super::pending::{Job, RETRY, Stale, Step, respond};
use super::{ApiServer, Effect, Timer};
use crate::objects::Kind;
use crate::ports::api::{Error, Reason};
use crate::ports::store::{self, Change, StoreKey, Under};
use kubesim_runtime::Context;

/// The one watch. Transactions and questions count from 1.
const WATCH: u64 = 0;
/// How often [`RETRY`] may pass before what the store has must have been told.
const PATIENCE: u32 = 15;

type Ctx<'a> = Context<'a, ApiServer>;

#[derive(Clone, Debug, Default)]
pub(super) struct Follow {
    question: Option<Question>,
    /// Reads that wait for the next one.
    reads: Vec<Job>,
}

#[derive(Clone, Debug)]
struct Question {
    id: u64,
    /// The store's revision, when it has told it.
    reach: Option<u64>,
    /// How often [`RETRY`] has passed since it was asked.
    waited: u32,
    // For whom it was asked.
    stale: Vec<Stale>,
    doubtful: Vec<StoreKey>,
    reads: Vec<Job>,
}

impl ApiServer {
    /// From where the store was read.
    pub(super) fn follow(&mut self, ctx: &mut Ctx<'_>) {
        if self.config.shared {
            let from = self.cache.revision + 1;
            let watch = store::Request::Watch { id: WATCH, under: Under::All, from };
            ctx.perform(Effect::Store(watch));
        }
    }

    /// A read that is to see all that was acknowledged before it was asked.
    pub(super) fn read_as_of_now(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        self.follow.reads.push(job);
        self.ask_revision(ctx);
    }

    /// Whether a refusal of this write might be for what is true no more.
    pub(super) fn may_be_behind(&self, job: &Job) -> bool {
        self.config.shared && job.id.is_some() && job.tries == 0
    }

    /// Whether an answer depends on what is stored, and not on the request alone.
    pub(super) fn depends(error: &Error) -> bool {
        matches!(
            error.reason,
            Reason::NotFound | Reason::AlreadyExists | Reason::Conflict | Reason::Forbidden
        )
    }

    /// Applied anew when what is known is as of now.
    pub(super) fn once_told(&mut self, mut job: Job, key: StoreKey, ctx: &mut Ctx<'_>) -> Step {
        job.tries += 1;
        self.pending.stale.push(Stale { job, key, quotas: Vec::new() });
        self.ask_revision(ctx);
        Step::Goes
    }

    /// For all who wait; while one is under way, the next one is asked after it.
    pub(super) fn ask_revision(&mut self, ctx: &mut Ctx<'_>) {
        if self.follow.question.is_some() {
            return;
        }
        let id = self.pending.next_id();
        self.follow.question = Some(Question {
            id,
            reach: None,
            waited: 0,
            stale: std::mem::take(&mut self.pending.stale),
            doubtful: std::mem::take(&mut self.pending.doubtful),
            reads: std::mem::take(&mut self.follow.reads),
        });
        put(id, ctx);
    }

    /// The alarm: a question without an answer is asked again.
    pub(super) fn still_behind(&mut self, ctx: &mut Ctx<'_>) {
        let Some(question) = &mut self.follow.question else { return };
        question.waited += 1;
        if question.reach.is_none() {
            put(question.id, ctx);
        } else if question.waited > PATIENCE {
            ctx.fail("the store's watch does not tell what the store has");
        } else {
            ctx.set_timer(Timer::Retry, RETRY);
        }
    }

    /// The store's revision. False if no question has this number.
    pub(super) fn revision_told(&mut self, id: u64, revision: u64, ctx: &mut Ctx<'_>) -> bool {
        let asked = self.follow.question.as_mut().filter(|question| question.id == id);
        let Some(question) = asked else { return false };
        question.reach = Some(revision);
        self.caught_up(ctx);
        true
    }

    /// All that happened up to a revision, each one whole and in order.
    pub(super) fn told(&mut self, revision: u64, changes: Vec<Change>, ctx: &mut Ctx<'_>) {
        let mut changes = changes.into_iter().peekable();
        while let Some(at) = changes.peek().map(Change::revision) {
            let mut together = Vec::new();
            while let Some(change) = changes.next_if(|change| change.revision() == at) {
                together.push(change);
            }
            if at > self.cache.revision {
                self.publish_told(at, &together, ctx);
            }
        }
        if revision > self.cache.revision {
            // Of keys that are not ours.
            self.cache.revision = revision;
            self.cache.last = None;
            self.publish(ctx);
        }
        self.publish_arrived(ctx);
        self.caught_up(ctx);
    }

    /// A write, mostly of another server; of ours, the answer may come later.
    fn publish_told(&mut self, revision: u64, changes: &[Change], ctx: &mut Ctx<'_>) {
        if let Some(flight) = self.pending.arrived(revision) {
            return self.publish_write(flight, revision, ctx);
        }
        let mut last = None;
        for change in changes {
            let (kind, key) = change.key();
            if let Kind::Custom(_) = kind {
                self.make_view(kind);
            }
            let Some(view) = self.cache.views.get_mut(&kind) else { continue };
            let (old, new) = match change {
                Change::Put(object) => {
                    (view.insert(key.clone(), object.clone(), revision), Some(object.clone()))
                }
                Change::Deleted { .. } => (view.remove(&key, revision), None),
            };
            last = Some(LastWrite { kind, key, old, new });
        }
        let alone = changes.len() == 1 && revision == self.cache.revision + 1;
        self.cache.last = last.filter(|_| alone);
        self.cache.revision = revision;
        if changes.iter().any(|change| change.key().0 == Kind::CustomResourceDefinition) {
            self.redefine();
        }
        self.publish(ctx);
        for change in changes {
            let (kind, key) = change.key();
            let key = (kind, key);
            if kind == Kind::Service && !self.busy(&key) {
                self.settle(&key);
            }
            self.after_write(kind, &key.1, ctx);
            self.definitions_after(kind, &key.1, ctx);
        }
    }

    /// Those for whom the question was asked go on, if it is answered and all was told.
    fn caught_up(&mut self, ctx: &mut Ctx<'_>) {
        let now = self.cache.revision;
        let told = |question: &mut Question| question.reach.is_some_and(|reach| reach <= now);
        let Some(question) = self.follow.question.take_if(told) else { return };
        ctx.clear_timer(Timer::Retry);
        for stale in question.stale {
            self.again(stale, ctx);
        }
        for key in question.doubtful {
            self.settle(&key);
            self.release(&key, ctx);
        }
        for job in question.reads {
            if let Some(result) = self.cache.read(&job.request) {
                respond(&job, result, ctx);
            }
        }
        self.bootstrap(ctx);
        let pending = &self.pending;
        let waits = [pending.stale.is_empty(), pending.doubtful.is_empty()].contains(&false);
        if waits || !self.follow.reads.is_empty() {
            self.ask_revision(ctx);
        }
    }
}

/// As little as can be asked for: the answer says as of when it was read.
fn put(id: u64, ctx: &mut Ctx<'_>) {
    let under = Under::Kind(Kind::Namespace);
    let range = store::Range { id, under, limit: 1, ..store::Range::default() };
    ctx.perform(Effect::Store(store::Request::Range(range)));
    ctx.set_timer(Timer::Retry, RETRY);
}
