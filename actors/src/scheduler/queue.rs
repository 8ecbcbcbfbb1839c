//! The pods that wait: active, backing off, or unschedulable until something changes (upstream
//! `pkg/scheduler/backend/queue`).

use crate::objects::{Key, Object};
use kubesim_runtime::Time;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// An unschedulable pod is tried again after this long, whatever happens
/// (`podMaxInUnschedulablePodsDuration`).
const FLUSH: Duration = Duration::from_secs(300);

type Rank = (Reverse<i32>, Time, u64);

#[derive(Clone, Debug)]
pub struct Pending {
    pub object: Arc<Object>,
    pub class: usize,
    pub attempts: u32,
    /// Its last attempt ended then.
    pub tried: Time,
    rank: Rank,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Active,
    BackingOff(Time),
    Unschedulable(Time),
    /// Out of the queue: being bound.
    Binding,
}

#[derive(Clone, Debug, Default)]
pub struct Queue {
    pods: BTreeMap<Key, Pending>,
    /// Highest priority first, then longest waiting.
    active: BTreeSet<(Rank, Key)>,
    backing_off: BTreeSet<(Time, Key)>,
    /// By class.
    unschedulable: BTreeMap<usize, BTreeSet<Key>>,
    flush: BTreeSet<(Time, Key)>,
    arrivals: u64,
}

impl Queue {
    pub fn get(&self, key: &Key) -> Option<&Pending> {
        self.pods.get(key)
    }
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// A pod to be placed, new or with other content.
    pub fn put(&mut self, object: &Arc<Object>, class: usize, now: Time) {
        let key = &object.key;
        if let Some(pending) = self.pods.get_mut(key).filter(|p| p.object.uid == object.uid) {
            pending.object = Arc::clone(object);
            if pending.class != class {
                let place = pending.place;
                self.leave(key);
                self.pods.get_mut(key).expect("looked up above").class = class;
                let place = if place == Place::Binding { place } else { Place::Active };
                self.enter(key, place);
            }
            return;
        }
        self.take(key);
        let priority = object.pod().and_then(|(spec, _)| spec.priority).unwrap_or(0);
        self.arrivals += 1;
        let pending = Pending {
            object: Arc::clone(object),
            class,
            attempts: 0,
            tried: now,
            rank: (Reverse(priority), now, self.arrivals),
            place: Place::Active,
        };
        self.pods.insert(key.clone(), pending);
        self.enter(key, Place::Active);
    }

    /// The pod waits no more.
    pub fn take(&mut self, key: &Key) {
        self.leave(key);
        self.pods.remove(key);
    }

    fn leave(&mut self, key: &Key) {
        let Some(pending) = self.pods.get(key) else { return };
        match pending.place {
            Place::Active => _ = self.active.remove(&(pending.rank, key.clone())),
            Place::BackingOff(at) => _ = self.backing_off.remove(&(at, key.clone())),
            Place::Unschedulable(since) => {
                if let Some(keys) = self.unschedulable.get_mut(&pending.class) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.unschedulable.remove(&pending.class);
                    }
                }
                self.flush.remove(&(since + FLUSH, key.clone()));
            }
            Place::Binding => {}
        }
    }

    fn enter(&mut self, key: &Key, place: Place) {
        let Some(pending) = self.pods.get_mut(key) else { return };
        pending.place = place;
        match place {
            Place::Active => _ = self.active.insert((pending.rank, key.clone())),
            Place::BackingOff(at) => _ = self.backing_off.insert((at, key.clone())),
            Place::Unschedulable(since) => {
                self.unschedulable.entry(pending.class).or_default().insert(key.clone());
                self.flush.insert((since + FLUSH, key.clone()));
            }
            Place::Binding => {}
        }
    }

    fn shift(&mut self, key: &Key, place: Place) {
        self.leave(key);
        self.enter(key, place);
    }

    /// The next pod to be tried; it is out of the queue until told otherwise.
    pub fn pop(&mut self) -> Option<Key> {
        let (_, key) = self.active.pop_first()?;
        let pending = self.pods.get_mut(&key).expect("what is active is pending");
        pending.place = Place::Binding;
        pending.attempts += 1;
        Some(key)
    }

    pub fn is_binding(&self, key: &Key) -> bool {
        self.pods.get(key).is_some_and(|pending| pending.place == Place::Binding)
    }

    /// Nothing fitted: it waits for a change.
    pub fn park(&mut self, key: &Key, now: Time) {
        if let Some(pending) = self.pods.get_mut(key) {
            pending.tried = now;
            self.shift(key, Place::Unschedulable(now));
        }
    }

    /// Something went wrong: it is tried again after its back-off.
    pub fn back_off(&mut self, key: &Key, now: Time) {
        if let Some(pending) = self.pods.get_mut(key) {
            pending.tried = now;
            let at = now + backoff(pending.attempts);
            self.shift(key, Place::BackingOff(at));
        }
    }

    /// Classes with pods that found no place.
    pub fn stuck_classes(&self) -> Vec<usize> {
        self.unschedulable.keys().copied().collect()
    }

    /// The class's unschedulable pods are to be tried again, each when its back-off is over.
    pub fn release(&mut self, class: usize, now: Time) {
        for key in self.unschedulable.get(&class).cloned().unwrap_or_default() {
            let pending = &self.pods[&key];
            let at = pending.tried + backoff(pending.attempts);
            self.shift(&key, if at <= now { Place::Active } else { Place::BackingOff(at) });
        }
    }

    /// Moves what is due to the active pods.
    pub fn wake(&mut self, now: Time) {
        let mut keys = Vec::new();
        for due in [&mut self.backing_off, &mut self.flush] {
            while due.first().is_some_and(|(at, _)| *at <= now) {
                keys.extend(due.pop_first());
            }
        }
        for (_, key) in keys {
            self.shift(&key, Place::Active);
        }
    }

    /// When [`Queue::wake`] has something to do.
    pub fn next_wake(&self) -> Option<Time> {
        let first = |due: &BTreeSet<(Time, Key)>| due.first().map(|(at, _)| *at);
        first(&self.backing_off).into_iter().chain(first(&self.flush)).min()
    }
}

/// 1 s after the first attempt, doubled with each, 10 s at most.
fn backoff(attempts: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF)
}
