//! Reading the store again: at start, and whenever it did not tell something or knew better.

use super::cache::derived_history;
use super::pending::{RETRY, Range, Stale, Step};
use super::{ApiServer, Effect, Timer};
use crate::objects::{Key, Kind, Object, View};
use crate::ports::store;
use kubesim_runtime::{Context, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Ctx<'a> = Context<'a, ApiServer>;

impl ApiServer {
    /// What the store did not tell, or knew better, is found out.
    pub(super) fn ask_range(&mut self, ctx: &mut Ctx<'_>) {
        if self.config.shared && !self.cache.views.is_empty() {
            return self.ask_revision(ctx);
        }
        match self.pending.range {
            Range::Idle => {}
            Range::Failed => return,
            Range::Asked | Range::AskAgain => {
                self.pending.range = Range::AskAgain;
                return;
            }
        }
        self.pending.range = Range::Asked;
        ctx.perform(Effect::Store(store::Request::Range(store::Range::default())));
        ctx.set_timer(Timer::Retry, RETRY);
    }

    pub(super) fn retry(&mut self, ctx: &mut Ctx<'_>) {
        if self.config.shared && !self.cache.views.is_empty() {
            return self.still_behind(ctx);
        }
        match self.pending.range {
            // A large store takes its time, and every question is answered: a second one beside it
            // would have all of it read twice.
            Range::Asked | Range::AskAgain => ctx.set_timer(Timer::Retry, RETRY),
            Range::Idle if !self.has_gap() => {}
            Range::Idle | Range::Failed => {
                self.pending.range = Range::Idle;
                self.ask_range(ctx);
            }
        }
    }

    pub(super) fn ranged(
        &mut self,
        revision: u64,
        compacted: u64,
        objects: Vec<Arc<Object>>,
        ctx: &mut Ctx<'_>,
    ) {
        let again = matches!(self.pending.range, Range::AskAgain | Range::Failed);
        self.pending.range = Range::Idle;
        let first = self.cache.views.is_empty();
        if first || revision > self.cache.revision && !self.config.shared {
            self.take_range(revision, compacted, objects, ctx);
        }
        if first {
            self.follow(ctx);
        }
        if again {
            // What made us ask again may have happened after this reading.
            return self.ask_range(ctx);
        }
        self.publish_arrived(ctx);
        for stale in std::mem::take(&mut self.pending.stale) {
            self.again(stale, ctx);
        }
        for key in std::mem::take(&mut self.pending.doubtful) {
            self.settle(&key);
            self.release(&key, ctx);
        }
        self.bootstrap(ctx);
        for namespace in self.terminating.clone() {
            self.sweep(&namespace, ctx);
        }
        self.note_events(ctx);
        self.look_after_definitions(ctx);
        self.look_for_gap(ctx);
    }

    /// The store knew better than what this write was applied to.
    pub(super) fn again(&mut self, Stale { job, key, quotas }: Stale, ctx: &mut Ctx<'_>) {
        if job.request.subject().1.name.is_empty() {
            self.release(&key, ctx);
            self.submit(job, ctx);
        } else if self.execute(job, &key, &quotas, ctx) == Step::Answered {
            self.release(&key, ctx);
        }
        for quota in quotas {
            if !self.charged(&quota) {
                self.release(&quota, ctx);
            }
        }
    }

    /// Makes the views what the store holds, touching only what differs.
    fn take_range(
        &mut self,
        revision: u64,
        compacted: u64,
        objects: Vec<Arc<Object>>,
        ctx: &mut Ctx<'_>,
    ) {
        let first = self.cache.views.is_empty();
        let mut by_kind: BTreeMap<Kind, BTreeMap<Key, Arc<Object>>> = BTreeMap::new();
        for object in objects {
            by_kind.entry(object.kind()).or_default().insert(object.key.clone(), object);
        }
        let mut changed = Vec::new();
        let known = self.cache.views.keys().chain(by_kind.keys());
        let kinds: BTreeSet<Kind> = Kind::ALL.iter().chain(known).copied().collect();
        for kind in &kinds {
            let stored = by_kind.remove(kind).unwrap_or_default();
            let new = if self.config.memo { Snapshot::empty } else { Snapshot::without_memo };
            let first_view = self.cache.views.get(&Kind::Namespace).map(View::history);
            let view = self.cache.views.entry(*kind).or_insert_with(|| match first_view {
                // As much another one as if it were drawn.
                Some(history) if kind.rules().is_some() => new(derived_history(history, *kind, "")),
                _ => new(ctx.rng().u64()),
            });
            let gone: Vec<Key> =
                view.iter().map(|(k, _)| k).filter(|k| !stored.contains_key(k)).cloned().collect();
            for key in gone {
                view.remove(&key, revision);
                changed.push((*kind, key));
            }
            for (key, object) in stored {
                if view.get(&key).is_none_or(|known| *known != object) {
                    view.insert(key.clone(), object, revision);
                    changed.push((*kind, key));
                }
            }
            if first {
                view.advance(revision);
            }
        }
        self.cache.revision = revision;
        self.cache.compacted = self.cache.compacted.max(compacted);
        self.cache.last = None;
        self.redefine();
        for key in changed.iter().filter(|(kind, _)| *kind == Kind::Service) {
            if !self.busy(key) {
                self.settle(key);
            }
        }
        self.note_terminating();
        self.publish(ctx);
    }

    fn note_terminating(&mut self) {
        let namespaces = self.cache.views.get(&Kind::Namespace);
        let all = namespaces.into_iter().flat_map(|view| view.values());
        self.terminating = all.filter(|o| o.deleting()).map(|o| o.key.name.clone()).collect();
    }
}
