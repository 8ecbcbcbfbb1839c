//! Tells people what happens to objects: as Events, which `kubectl describe` and
//! `kubectl get events` show (client-go's `tools/record` and `tools/events`).
//!
//! A component that tells has one of these, gives it the time at the beginning of each step
//! ([`Recorder::begin`]), hands it answers ([`Recorder::answered`]) and lets it go on at the end
//! of each step ([`Recorder::go_on`]). A silent one costs a test of a pointer; which ones speak is
//! configured.
//!
//! What is told is best effort, as upstream's: a refused event is dropped, one that did not arrive
//! is tried twelve times, and of more than a thousand that wait the newest are dropped.

mod correlate;
mod draft;
mod lru;
mod series;
#[cfg(test)]
mod tests;

pub use draft::{Reference, Tidings};

use crate::objects::Object;
use crate::ports::api::{self, Answer, Reason, Request, Subresource};
use correlate::Correlator;
use draft::{Draft, Record};
use kubesim_runtime::{Actor, Context, Time, Wall};
use series::Series;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// `maxQueuedEvents`.
const WAITING: usize = 1000;
/// `maxTriesPerEvent`.
const TRIES: u32 = 12;
/// `defaultSleepDuration`; the first time a part of it, by dice.
const PAUSE: Duration = Duration::from_secs(10);
/// Its calls are told from those of its component by this bit of the tag.
const OWN: u64 = 1 << 63;

#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<Box<Speaker>>);

#[derive(Clone, Debug)]
struct Speaker {
    host: String,
    style: Style,
    /// As of the beginning of this step.
    wall: Wall,
    /// What the last event's name ends with: no two have the same.
    stamp: i128,
    waiting: VecDeque<Draft>,
    /// What is being written; one at a time, so that it is counted what is there.
    writing: Option<Writing>,
    last_tag: u64,
    alarm: Option<Time>,
}

/// How what happens again is told.
#[derive(Clone, Debug)]
enum Style {
    /// By a count, and no more often than is bearable.
    Counted(Box<Correlator>),
    /// As a series of one event.
    Series(Series),
}

#[derive(Clone, Debug)]
struct Writing {
    record: Record,
    tries: u32,
    /// The tag of the call, or when it is made.
    stage: Result<u64, Time>,
}

impl Recorder {
    /// Events as almost all components tell them. `host` is the machine that they are of, or
    /// empty.
    pub fn counting(host: &str) -> Recorder {
        Recorder::of(host, Style::Counted(Box::default()))
    }

    /// Events as `events.k8s.io` has them: the scheduler's.
    pub fn in_series(host: &str) -> Recorder {
        Recorder::of(host, Style::Series(Series::default()))
    }

    fn of(host: &str, style: Style) -> Recorder {
        Recorder(Some(Box::new(Speaker {
            host: host.to_owned(),
            style,
            wall: Wall::default(),
            stamp: 0,
            waiting: VecDeque::new(),
            writing: None,
            last_tag: OWN,
            alarm: None,
        })))
    }

    /// A step begins.
    pub fn begin(&mut self, wall: Wall) {
        if let Some(speaker) = &mut self.0 {
            speaker.wall = wall;
        }
    }

    /// `component` tells this of an object.
    pub fn tell(
        &mut self,
        component: &str,
        about: impl Into<Reference>,
        what: Tidings,
        message: impl FnOnce() -> String,
    ) {
        let Some(speaker) = &mut self.0 else { return };
        if speaker.waiting.len() < WAITING {
            speaker.stamp = speaker.wall.unix_nanos().max(speaker.stamp + 1);
            speaker.waiting.push_back(Draft {
                component: component.to_owned(),
                host: speaker.host.clone(),
                about: about.into(),
                what,
                message: message(),
                at: speaker.wall,
                stamp: speaker.stamp,
            });
        }
    }

    /// True if the answer is to a call of this one.
    pub fn answered<A: Actor>(&mut self, answer: &Answer, ctx: &mut Context<'_, A>) -> bool {
        if answer.tag & OWN == 0 {
            return false;
        }
        let Some(speaker) = &mut self.0 else { return true };
        let Some(mut writing) = speaker.writing.take_if(|one| one.stage == Ok(answer.tag)) else {
            return true;
        };
        let Err(error) = &answer.result else { return true };
        match error.reason {
            // It was there for an hour, and is no more.
            Reason::NotFound if writing.record.patch.take().is_some() => {
                writing.stage = Err(ctx.now());
            }
            Reason::Unreachable | Reason::Unknown if writing.tries < TRIES => {
                let pause = match writing.tries {
                    1 => ctx.rng().between(Duration::ZERO, PAUSE),
                    _ => PAUSE,
                };
                writing.stage = Err(ctx.now() + pause);
            }
            _ => return true,
        }
        speaker.writing = Some(writing);
        true
    }

    /// A step ends: what waits is written. `alarm` is the component's timer for that.
    pub fn go_on<A: Actor>(
        &mut self,
        ctx: &mut Context<'_, A>,
        effect: fn(api::Effect) -> A::Effect,
        alarm: A::Timer,
    ) {
        let Some(speaker) = &mut self.0 else { return };
        let now = ctx.now();
        if speaker.writing.is_none() {
            speaker.writing = speaker.next(now).map(|record| {
                let stage = Err(now);
                Writing { record, tries: 0, stage }
            });
        }
        if let Some(writing) = &mut speaker.writing
            && writing.stage.is_err_and(|at| at <= now)
        {
            speaker.last_tag += 1;
            writing.tries += 1;
            writing.stage = Ok(speaker.last_tag);
            let (tag, request) = (speaker.last_tag, Arc::new(writing.record.request()));
            ctx.perform(effect(api::Effect::Call { tag, request }));
        }
        let next = match &speaker.writing {
            Some(writing) => writing.stage.err(),
            None => speaker.style.next_sweep(),
        };
        if next != speaker.alarm {
            speaker.alarm = next;
            match next {
                Some(at) => ctx.set_timer(alarm, at.since(now)),
                None => ctx.clear_timer(alarm),
            }
        }
    }
}

impl Speaker {
    /// What is to be written next.
    fn next(&mut self, now: Time) -> Option<Record> {
        if let Style::Series(series) = &mut self.style
            && let Some(record) = series.sweep(now)
        {
            return Some(record);
        }
        while let Some(draft) = self.waiting.pop_front() {
            let record = match &mut self.style {
                Style::Counted(correlator) => correlator.correlate(draft, now),
                Style::Series(series) => series.observe(draft, now),
            };
            if record.is_some() {
                return record;
            }
        }
        None
    }
}

impl Style {
    fn next_sweep(&self) -> Option<Time> {
        match self {
            Style::Counted(_) => None,
            Style::Series(series) => series.next_sweep(),
        }
    }
}

impl Record {
    fn request(&self) -> Request {
        let object: &Arc<Object> = &self.object;
        match self.patch.clone() {
            None => Request::Create { object: Arc::clone(object) },
            Some(patch) => {
                let (kind, key) = (object.kind(), object.key.clone());
                Request::Patch { kind, key, subresource: Subresource::Main, patch }
            }
        }
    }
}
