//! What happens again is a series of the event that told of it first: it is written when it begins,
//! when it ends and now and then between (client-go's tools/events/event_broadcaster.go).

use super::draft::{Draft, Record, Reference, Tidings};
use crate::objects::micro_time;
use k8s_openapi::api::core::v1::EventSeries;
use kubesim_runtime::{Time, Wall};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// A series ends when it did not happen for so long; looked at that often (`finishTime`).
const FINISHED: Duration = Duration::from_secs(360);
/// One that goes on is written again after this (`refreshTime`), so that it does not expire.
const REFRESHED: Duration = Duration::from_secs(1800);

/// Whose event about what: all but its words.
type Same = (String, Reference, Tidings);

#[derive(Clone, Debug, Default)]
pub struct Series {
    known: BTreeMap<Same, One>,
    /// When it is looked for series that ended. None: nothing is known.
    sweep_at: Option<Time>,
    /// What the last look found.
    found: Vec<Record>,
}

#[derive(Clone, Debug)]
struct One {
    /// As it was told first.
    draft: Draft,
    /// 1: it is no series yet.
    count: i32,
    last: (Time, Wall),
    written: Time,
}

impl One {
    fn record(&self) -> Record {
        let series = (self.count > 1).then(|| EventSeries {
            count: Some(self.count),
            last_observed_time: Some(micro_time(self.last.1)),
        });
        let patch = series.as_ref().map(|series| json!({"series": series}));
        Record { object: self.draft.in_series(series), patch }
    }
}

impl Series {
    pub fn observe(&mut self, draft: Draft, now: Time) -> Option<Record> {
        self.sweep_at.get_or_insert(now + FINISHED);
        let last = (now, draft.at);
        let key = (draft.component.clone(), draft.about.clone(), draft.what.clone());
        let new = || One { draft, count: 0, last, written: now };
        let one = self.known.entry(key).or_insert_with(new);
        one.count = one.count.saturating_add(1);
        one.last = last;
        // The first time, and when it begins to be a series.
        if one.count > 2 {
            return None;
        }
        one.written = now;
        Some(one.record())
    }

    pub fn next_sweep(&self) -> Option<Time> {
        self.sweep_at
    }

    /// The next one that ended or that was not written for long, if it is time to look.
    pub fn sweep(&mut self, now: Time) -> Option<Record> {
        if self.sweep_at.is_some_and(|at| at <= now) {
            let mut found = Vec::new();
            self.known.retain(|_, one| {
                let ended = now.since(one.last.0) >= FINISHED;
                if one.count > 1 && (ended || now.since(one.written) >= REFRESHED) {
                    one.written = now;
                    found.push(one.record());
                }
                !ended
            });
            found.reverse();
            self.found = found;
            self.sweep_at = (!self.known.is_empty()).then(|| now + FINISHED);
        }
        self.found.pop()
    }
}
