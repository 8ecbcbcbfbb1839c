//! Events go an hour after they were written last.
//!
//! Upstream writes them with a lease of etcd's (`--event-ttl`, the `TTLFunc` of
//! pkg/registry/core/event/storage/storage.go). The store here has none, so the server deletes
//! them; of several servers each tries.

use super::{ApiServer, Timer};
use crate::objects::{Event, Key, Kind, Object, View, wall};
use kubesim_runtime::{Context, Time, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// `--event-ttl`.
const KEPT: Duration = Duration::from_secs(3600);
/// So many are deleted at a time, and the next ones so much later; one that is still there after
/// a minute is tried again.
const BATCH: usize = 100;
const PAUSE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(60);

type Ctx<'a> = Context<'a, ApiServer>;

/// Which events there are, and when they go.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiry {
    due: BTreeMap<Key, Time>,
    order: BTreeSet<(Time, Key)>,
    alarm: Option<Time>,
}

impl Expiry {
    /// `None`: it is gone.
    fn set(&mut self, key: &Key, due: Option<Time>) {
        if let Some(before) = self.due.remove(key) {
            self.order.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert(key.clone(), due);
            self.order.insert((due, key.clone()));
        }
    }

    fn wind(&mut self, soonest: Time, ctx: &mut Ctx<'_>) {
        let next = self.order.first().map(|(due, _)| (*due).max(soonest));
        if next != self.alarm {
            self.alarm = next;
            match next {
                Some(at) => ctx.set_timer(Timer::Expire, at.since(ctx.now())),
                None => ctx.clear_timer(Timer::Expire),
            }
        }
    }
}

/// When it was written last, as far as it says so itself.
fn told(object: &Object, event: &Event) -> Wall {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        object.meta.creation_timestamp.as_ref().map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        series.map(|time| time.0),
    ];
    times.into_iter().flatten().max().map(wall).unwrap_or_default()
}

impl ApiServer {
    /// An event was written, or deleted.
    pub(super) fn event_written(&mut self, key: &Key, ctx: &mut Ctx<'_>) {
        let there = self.cache.object(Kind::Event, key).is_some();
        self.expiry.set(key, there.then(|| ctx.now() + KEPT));
        self.expiry.wind(ctx.now(), ctx);
    }

    /// The store was read: there may be others than those that were written before our eyes.
    pub(super) fn note_events(&mut self, ctx: &mut Ctx<'_>) {
        let there = self.cache.views.get(&Kind::Event);
        let gone = |key: &&Key| there.is_none_or(|view| view.get(key).is_none());
        let gone: Vec<Key> = self.expiry.due.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|key| self.expiry.set(key, None));
        for object in there.into_iter().flat_map(View::values) {
            let Some(event) = object.event() else { continue };
            if !self.expiry.due.contains_key(&object.key) {
                let age = ctx.wall().since(told(object, event));
                self.expiry.set(&object.key, Some(ctx.now() + KEPT.saturating_sub(age)));
            }
        }
        self.expiry.wind(ctx.now(), ctx);
    }

    /// The alarm.
    pub(super) fn expire(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        self.expiry.alarm = None;
        let due = self.expiry.order.iter().take_while(|(due, _)| *due <= now);
        let due: Vec<Key> = due.take(BATCH).map(|(_, key)| key.clone()).collect();
        for key in due {
            self.expiry.set(&key, Some(now + AGAIN));
            self.delete_own(Kind::Event, key, ctx);
        }
        self.expiry.wind(now + PAUSE, ctx);
    }
}
