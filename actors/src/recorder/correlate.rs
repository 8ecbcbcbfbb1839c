//! What is told of an object is held back when it is too much, put together when it differs in
//! its words only, and counted when it is the same (`EventCorrelator` of client-go's
//! tools/record/events_cache.go).

use super::draft::{Draft, Record, Reference, Tidings};
use super::lru::Lru;
use crate::objects::time;
use kubesim_runtime::{Time, Wall};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Of one object, so much may be told at once, and one more after each such time
/// (`defaultSpamBurst`, `defaultSpamQPS`).
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// So many that differ only in their words, none longer than this after the one before, are told
/// as one (`defaultAggregateMaxEvents`, `defaultAggregateIntervalInSeconds`).
const ALIKE: usize = 10;
const INTERVAL: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, Default)]
pub struct Correlator {
    /// By who tells of what: when all that may be told at once may be told again.
    full_at: Lru<(String, Reference), Time>,
    groups: Lru<Group, Told>,
    counts: Lru<(Group, Reference, Option<String>), Seen>,
}

/// Events that differ in their words only.
type Group = (String, Reference, Tidings);

#[derive(Clone, Debug)]
struct Told {
    messages: BTreeSet<String>,
    last: Time,
}

#[derive(Clone, Debug)]
struct Seen {
    name: String,
    count: i32,
    first: Wall,
}

impl Correlator {
    /// What is to be written, if anything.
    pub fn correlate(&mut self, mut draft: Draft, now: Time) -> Option<Record> {
        let whole = draft.about.whole();
        if !self.may_tell(&draft.component, &whole, now) {
            return None;
        }
        let group = (draft.component.clone(), whole, draft.what.clone());
        let alike = self.is_one_of_many(&group, &draft.message, now);
        if alike {
            draft.message.insert_str(0, "(combined from similar events): ");
        }
        // Of those put together the words do not matter, nor the part of the object.
        let (about, message) = match alike {
            true => (group.1.clone(), None),
            false => (draft.about.clone(), Some(draft.message.clone())),
        };
        let new = || Seen { name: draft.name(), count: 0, first: draft.at };
        let seen = self.counts.entry((group, about, message), new);
        seen.count += 1;
        let object = draft.counted(&seen.name, seen.count, seen.first);
        let patch = (seen.count > 1).then(|| {
            json!({"count": seen.count, "lastTimestamp": time(draft.at), "message": draft.message})
        });
        Some(Record { object, patch })
    }

    /// A bucket of [`BURST`] tokens that is refilled by one each [`REFILL`].
    fn may_tell(&mut self, component: &str, about: &Reference, now: Time) -> bool {
        let full_at = self.full_at.entry((component.to_owned(), about.clone()), || now);
        let after = (*full_at).max(now) + REFILL;
        let room = after <= now + REFILL * BURST;
        if room {
            *full_at = after;
        }
        room
    }

    fn is_one_of_many(&mut self, group: &Group, message: &str, now: Time) -> bool {
        let new = || Told { messages: BTreeSet::new(), last: now };
        let told = self.groups.entry(group.clone(), new);
        if now.since(told.last) > INTERVAL {
            told.messages.clear();
        }
        told.last = now;
        told.messages.insert(message.to_owned());
        let many = told.messages.len() >= ALIKE;
        if many {
            // No more need be known of any.
            told.messages.pop_last();
        }
        many
    }
}
