//! The controllers' common desk: what is to be looked at again, which calls are out, and what
//! each subject still has to see before it may be judged anew.
//!
//! A subject is synced only when every call made for it was answered *and* the views show what
//! those calls did. Upstream's expectations expire after five minutes, so that an informer later
//! than that made a ReplicaSet grow without bound (kubernetes/kubernetes#129795); these do not.

use super::{Controllers, Effect, world::World};
use crate::objects::{Key, Kind, Object, Uid, View};
use crate::ports::api::{self, Answer, Reason, Reply, Request};
use crate::recorder::Recorder;
use kubesim_runtime::{Backoff, Context, Rng, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Calls out at one time, over all controllers.
const IN_FLIGHT: usize = 64;

/// Workqueues upstream start at 5 ms and end at 1,000 s; a level-triggered loop that also hears
/// of reconnections needs no such patience.
const RETRY: Backoff = Backoff {
    initial: Duration::from_millis(20),
    max: Duration::from_secs(30),
    jitter: 0.2,
    reset_after: Duration::ZERO,
};

/// Which loop a subject belongs to; the order in which calls take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    Deployment,
    ReplicaSet,
    Endpoints,
    Ipam,
    Lifecycle,
    Eviction,
    Collector,
    Namespaces,
    Job,
    DaemonSet,
    StatefulSet,
    Disruption,
    CronJob,
    Autoscaler,
    Volume,
}
const LOOPS: usize = 15;

/// What is synced: one object, by one loop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub of: Loop,
    pub kind: Kind,
    pub key: Key,
}

impl Subject {
    pub fn new(of: Loop, kind: Kind, key: &Key) -> Self {
        Subject { of, kind, key: key.clone() }
    }
}

/// What a subject waits for. No entry: nothing.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Calls without an answer, queued ones included.
    calls: u32,
    /// Effects that the views do not show yet.
    unseen: u32,
    failures: u32,
    not_before: Time,
}

#[derive(Clone, Debug)]
struct Flight {
    subject: Subject,
    request: Arc<Request>,
    attempts: u32,
}

/// How a call ended, for the loop that made it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub subject: Subject,
    pub request: Arc<Request>,
    pub result: Result<Option<Arc<Object>>, api::Error>,
}

#[derive(Clone, Debug, Default)]
pub struct Client {
    pub recorder: Recorder,
    last_tag: u64,
    flights: BTreeMap<u64, Flight>,
    queues: [VecDeque<Flight>; LOOPS],
    turn: usize,
    entries: BTreeMap<Subject, Entry>,
    /// Subjects waiting for a kind's view to reach a version.
    until: BTreeMap<Kind, BTreeSet<(u64, Subject)>>,
    /// Subjects waiting for an object to be gone or going.
    gone: BTreeMap<(Kind, Key), Vec<(Uid, Subject)>>,
    dirty: BTreeSet<Subject>,
    alarms: BTreeSet<(Time, Subject)>,
    /// Calls of unknown outcome, to be made again.
    again: BTreeMap<(Time, u64), Flight>,
}

impl Client {
    /// `events`: people are told what happens.
    pub fn new(events: bool) -> Self {
        let recorder = if events { Recorder::counting("") } else { Recorder::default() };
        Client { recorder, ..Client::default() }
    }

    /// To be synced as soon as nothing of its own is under way.
    pub fn mark(&mut self, subject: Subject) {
        self.dirty.insert(subject);
    }

    pub fn mark_at(&mut self, at: Time, subject: Subject) {
        self.alarms.insert((at, subject));
    }

    /// Queues a call. When all calls of the subject are answered and seen, it is synced again.
    pub fn ask(&mut self, subject: Subject, request: Request) {
        self.entries.entry(subject.clone()).or_default().calls += 1;
        let queue = &mut self.queues[subject.of as usize];
        queue.push_back(Flight { subject, request: Arc::new(request), attempts: 0 });
    }

    /// The next subject to sync.
    pub fn next_dirty(&mut self, now: Time) -> Option<Subject> {
        while let Some(subject) = self.dirty.pop_first() {
            match self.entries.get(&subject) {
                // Its last answer or view marks it again.
                Some(entry) if entry.calls > 0 || entry.unseen > 0 => {}
                Some(entry) if entry.not_before > now => {
                    self.alarms.insert((entry.not_before, subject));
                }
                _ => return Some(subject),
            }
        }
        None
    }

    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Turns due alarms into dirty subjects and due repetitions into queued calls.
    pub fn wake(&mut self, now: Time) {
        while self.alarms.first().is_some_and(|(at, _)| *at <= now) {
            let (_, subject) = self.alarms.pop_first().expect("there is a first one");
            self.dirty.insert(subject);
        }
        while self.again.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, flight) = self.again.pop_first().expect("there is a first one");
            self.queues[flight.subject.of as usize].push_back(flight);
        }
    }

    /// When [`Client::wake`] has something to do.
    pub fn next_alarm(&self) -> Option<Time> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let again = self.again.first_key_value().map(|((at, _), _)| *at);
        alarm.into_iter().chain(again).min()
    }

    /// A connection is back: nobody waits out a back-off.
    pub fn hurry(&mut self, now: Time) {
        for entry in self.entries.values_mut() {
            entry.not_before = entry.not_before.min(now);
        }
        for (_, flight) in std::mem::take(&mut self.again) {
            self.queues[flight.subject.of as usize].push_back(flight);
        }
        let waiting: Vec<_> = self.entries.keys().cloned().collect();
        self.dirty.extend(waiting);
    }

    /// Sends queued calls, one loop after the other, while there is room.
    pub fn pump(&mut self, ctx: &mut Context<'_, Controllers>) {
        let mut idle = 0;
        while self.flights.len() < IN_FLIGHT && idle < LOOPS {
            let queue = &mut self.queues[self.turn];
            self.turn = (self.turn + 1) % LOOPS;
            let Some(flight) = queue.pop_front() else {
                idle += 1;
                continue;
            };
            idle = 0;
            self.last_tag += 1;
            let (tag, request) = (self.last_tag, Arc::clone(&flight.request));
            let call = api::Effect::Call { tag, request };
            ctx.perform(match flight.subject.of {
                Loop::Collector => Effect::Collect(call),
                _ => Effect::Api(call),
            });
            self.flights.insert(tag, flight);
        }
    }

    /// Books an answer. `None` if the call goes on: it is repeated, or looked up.
    pub fn answered(
        &mut self,
        answer: Answer,
        world: &World,
        now: Time,
        rng: &mut Rng,
    ) -> Option<Outcome> {
        let mut flight = self.flights.remove(&answer.tag)?;
        let (creates, deletes) = match &*flight.request {
            Request::Create { .. } => (true, false),
            Request::Delete { .. } => (false, true),
            _ => (false, false),
        };
        match answer.result {
            Ok(reply) => {
                let object = match reply {
                    Reply::Object(object) => Some(object),
                    Reply::List(_) | Reply::Token { .. } => None,
                };
                match &*flight.request {
                    Request::Get { .. } => {}
                    Request::Delete { kind, key, options } => {
                        self.expect_gone(*kind, key, options.uid, &flight.subject, world);
                    }
                    _ => self.expect_version(object.as_deref(), &flight.subject, world),
                }
                self.settle(&flight.subject, None);
                Some(flight.ends(Ok(object)))
            }
            Err(error) if error.reason == Reason::Unknown && (creates || deletes) => {
                flight.attempts += 1;
                let at = now + RETRY.delay(flight.attempts, rng);
                self.again.insert((at, answer.tag), flight);
                None
            }
            Err(error)
                if deletes && matches!(error.reason, Reason::NotFound | Reason::Conflict) =>
            {
                if let Request::Delete { kind, key, options } = &*flight.request {
                    self.expect_gone(*kind, key, options.uid, &flight.subject, world);
                }
                self.settle(&flight.subject, None);
                Some(flight.ends(Ok(None)))
            }
            // Whoever made it: the caller looks it up.
            Err(error) if creates && error.reason == Reason::AlreadyExists => {
                self.settle(&flight.subject, None);
                Some(flight.ends(Err(error)))
            }
            Err(error) => {
                let failures = self.entries.get(&flight.subject).map_or(0, |e| e.failures) + 1;
                let not_before = now + RETRY.delay(failures, rng);
                self.settle(&flight.subject, Some(not_before));
                Some(flight.ends(Err(error)))
            }
        }
    }

    fn expect_version(&mut self, object: Option<&Object>, subject: &Subject, world: &World) {
        let Some(object) = object else { return };
        let kind = object.kind();
        if world.view(kind).is_some_and(|view| view.version() < object.version)
            && self.until.entry(kind).or_default().insert((object.version, subject.clone()))
        {
            self.entries.entry(subject.clone()).or_default().unseen += 1;
        }
    }

    /// The subject waits until its kind's view has reached the version of an object that a
    /// [`Request::Get`] found.
    pub fn expect(&mut self, object: &Object, subject: &Subject, world: &World) {
        self.expect_version(Some(object), subject, world);
    }

    fn expect_gone(
        &mut self,
        kind: Kind,
        key: &Key,
        uid: Option<Uid>,
        subject: &Subject,
        world: &World,
    ) {
        let Some(seen) = world.get(kind, key) else { return };
        let uid = uid.unwrap_or(seen.uid);
        if seen.uid == uid && !seen.deleting() {
            self.gone.entry((kind, key.clone())).or_default().push((uid, subject.clone()));
            self.entries.entry(subject.clone()).or_default().unseen += 1;
        }
    }

    /// One call less; `not_before` if it failed.
    fn settle(&mut self, subject: &Subject, not_before: Option<Time>) {
        let entry = self.entries.entry(subject.clone()).or_default();
        entry.calls = entry.calls.saturating_sub(1);
        match not_before {
            Some(at) => {
                entry.failures += 1;
                entry.not_before = entry.not_before.max(at);
            }
            None => entry.failures = 0,
        }
        self.release(subject);
    }

    /// Forgets an entry that waits for nothing, and has its subject synced.
    fn release(&mut self, subject: &Subject) {
        let Some(entry) = self.entries.get(subject) else { return };
        if entry.calls == 0 && entry.unseen == 0 {
            if entry.failures == 0 {
                self.entries.remove(subject);
            }
            self.dirty.insert(subject.clone());
        }
    }

    fn saw(&mut self, subject: &Subject) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.unseen = entry.unseen.saturating_sub(1);
        }
        self.release(subject);
    }

    /// A view moved on: what waited for its version waits no more. A view of another history or
    /// of an older version means that the store went back; nothing it was to show will come.
    pub fn view_moved(&mut self, kind: Kind, old: &View, new: &View) {
        let lost =
            old.version() > new.version() || old.version() != 0 && old.history() != new.history();
        let Some(waiting) = self.until.get_mut(&kind) else { return };
        let mut seen = Vec::new();
        while waiting.first().is_some_and(|(version, _)| lost || *version <= new.version()) {
            seen.extend(waiting.pop_first());
        }
        for (_, subject) in seen {
            self.saw(&subject);
        }
    }

    /// An object is gone, replaced or being deleted.
    pub fn object_left(&mut self, kind: Kind, key: &Key, now_there: Option<&Object>) {
        if self.gone.is_empty() {
            return;
        }
        let Some(waiting) = self.gone.remove(&(kind, key.clone())) else { return };
        let still = |uid: Uid| now_there.is_some_and(|o| o.uid == uid && !o.deleting());
        let (rest, seen): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(uid, _)| still(*uid));
        if !rest.is_empty() {
            self.gone.insert((kind, key.clone()), rest);
        }
        for (_, subject) in seen {
            self.saw(&subject);
        }
    }
}

impl Flight {
    fn ends(self, result: Result<Option<Arc<Object>>, api::Error>) -> Outcome {
        Outcome { subject: self.subject, request: self.request, result }
    }
}
