//! Who leads among several that do the same work: a lease in the API is held by one and renewed by
//! it, and taken by another one when it was not renewed for its duration. As client-go's
//! `tools/leaderelection/leaderelection.go`, with upstream's periods.
//!
//! No two clocks are compared: a candidate counts the duration from when it saw the lease change,
//! and the holder stops when it could not renew for a time that is shorter. One that was paused
//! stops late, when it wakes up; what it still has written until then the API server refuses, as
//! its writes name the lease ([`Hold`](crate::apiserver::Hold)).

mod record;
#[cfg(test)]
mod tests;

use crate::objects::{Key, Kind, Object};
use crate::ports::api::{self, Error, Reason, Reply, Request};
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher, Time};
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;

/// How much longer a candidate may wait than it is told to (`JitterFactor`).
const JITTER: u32 = 12;

#[derive(Clone, Debug)]
pub struct Config {
    /// Which lease is held, as `kube-system/kube-scheduler`.
    pub lease: Key,
    /// Who this one is: another one at each start.
    pub identity: SmolStr,
    /// How long others wait after the last renewal (15 s upstream). In the API, whole seconds.
    pub duration: Duration,
    /// After so long without a renewal the holder stops (10 s upstream). Shorter than the duration.
    pub deadline: Duration,
    /// How often it is tried to renew or to acquire (2 s upstream).
    pub retry: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    /// It is to end. What it led has ended; if it holds the lease it gives that up, so that nobody
    /// has to wait until it runs out (`ReleaseOnCancel`).
    End,
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    /// This one leads from now on.
    Lead,
    /// It does not, from now on.
    Yield,
    /// It does nothing any more.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Try,
    Deadline,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) => effect.answers(),
            Effect::Lead | Effect::Yield | Effect::Ended => Answers::None,
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::End => hasher.str("end"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Elector {
    config: Arc<Config>,
    leads: bool,
    /// It is to end.
    ends: bool,
    /// The lease as it was seen last, and since when it has been so. This and all below is of the
    /// clock that goes on while the machine is suspended.
    seen: Option<(Arc<Object>, Time)>,
    /// When the renewal was asked for that succeeded last.
    renewed: Time,
    calls: u64,
    asked: Option<Asked>,
}

/// The one call that is under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tag: u64,
    what: What,
    at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Look,
    /// `known`: on the lease as it was known, without a look at it before.
    Write {
        known: bool,
    },
    Release,
}

impl Actor for Elector {
    const NAME: &'static str = "elector";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        // Whoever hosts it may still do what an earlier incarnation led.
        ctx.perform(Effect::Yield);
        let mut elector = Elector {
            config: Arc::new(config.clone()),
            leads: false,
            ends: false,
            seen: None,
            renewed: Time::ZERO,
            calls: 0,
            asked: None,
        };
        elector.attempt(ctx);
        elector
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        self.stop_if_late(ctx);
        match event {
            Event::Api(api::Event::Answer(answer)) => {
                if let Some(asked) = self.asked.take_if(|asked| asked.tag == answer.tag) {
                    self.answered(asked, answer.result, ctx);
                }
            }
            Event::End => self.end(ctx),
            // It has no informers, and a call waits for a connection by itself.
            Event::Api(api::Event::News(_) | api::Event::Connected(_)) => {}
        }
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        self.stop_if_late(ctx);
        match timer {
            Timer::Try if self.ends => {}
            Timer::Try => self.attempt(ctx),
            // It was looked at just now.
            Timer::Deadline => {}
        }
    }
}

impl Elector {
    /// Acquires or renews; the next attempt follows the answer.
    fn attempt(&mut self, ctx: &mut Context<'_, Self>) {
        if self.asked.is_some() {
            return;
        }
        match &self.seen {
            Some((lease, _)) if self.leads => {
                let renewed = record::held(&self.config, Some(lease), ctx.wall());
                let request = Request::Update { object: Arc::new(renewed) };
                self.ask(What::Write { known: true }, request, ctx);
            }
            _ => self.look(ctx),
        }
    }

    fn look(&mut self, ctx: &mut Context<'_, Self>) {
        let request = Request::Get { kind: Kind::Lease, key: self.config.lease.clone() };
        self.ask(What::Look, request, ctx);
    }

    fn ask(&mut self, what: What, request: Request, ctx: &mut Context<'_, Self>) {
        self.calls += 1;
        self.asked = Some(Asked { tag: self.calls, what, at: ctx.boot() });
        let call = api::Effect::Call { tag: self.calls, request: Arc::new(request) };
        ctx.perform(Effect::Api(call));
    }

    fn answered(
        &mut self,
        asked: Asked,
        result: Result<Reply, Error>,
        ctx: &mut Context<'_, Self>,
    ) {
        match (asked.what, result) {
            // Released or not: the lease runs out by itself.
            (What::Release, _) => _ = ctx.perform(Effect::Ended),
            (What::Write { .. }, Ok(Reply::Object(lease))) if self.ends => {
                self.saw(lease, ctx);
                self.release(ctx);
            }
            _ if self.ends => self.release(ctx),
            (What::Look, Ok(Reply::Object(lease))) => self.looked(lease, ctx),
            (What::Look, Err(error)) if error.reason == Reason::NotFound => {
                self.seen = None;
                let lease = record::held(&self.config, None, ctx.wall());
                let request = Request::Create { object: Arc::new(lease) };
                self.ask(What::Write { known: false }, request, ctx);
            }
            (What::Write { .. }, Ok(Reply::Object(lease))) => {
                self.saw(lease, ctx);
                self.held_since(asked.at, ctx);
            }
            // Somebody else wrote it, or nobody knows: what it is now, is to be seen.
            (What::Write { known: true }, Err(_)) => self.look(ctx),
            (_, Ok(Reply::List(_) | Reply::Token { .. }) | Err(_)) => self.later(ctx),
        }
    }

    /// Counts from the answer, as it cannot have changed later.
    fn saw(&mut self, lease: Arc<Object>, ctx: &Context<'_, Self>) {
        let same = |(seen, _): &(Arc<Object>, Time)| {
            (seen.uid, seen.version) == (lease.uid, lease.version)
        };
        if !self.seen.as_ref().is_some_and(same) {
            self.seen = Some((lease, ctx.boot()));
        }
    }

    fn looked(&mut self, lease: Arc<Object>, ctx: &mut Context<'_, Self>) {
        self.saw(lease, ctx);
        let Some((lease, since)) = self.seen.clone() else { return };
        let holder = record::holder(&lease);
        if holder != self.config.identity {
            self.stop(ctx, || format!("{holder:?} leads"));
            let age = ctx.boot().since(since);
            if !holder.is_empty() && age < record::duration(&lease) {
                return self.later(ctx);
            }
        }
        let taken = record::held(&self.config, Some(&lease), ctx.wall());
        let request = Request::Update { object: Arc::new(taken) };
        self.ask(What::Write { known: false }, request, ctx);
    }

    /// Held by what was asked for then; that may be long ago.
    fn held_since(&mut self, at: Time, ctx: &mut Context<'_, Self>) {
        let left = self.config.deadline.checked_sub(ctx.boot().since(at));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return self.attempt(ctx) };
        self.renewed = at;
        if !self.leads {
            self.leads = true;
            let Config { lease, identity, .. } = &*self.config;
            ctx.note(|| format!("{identity} leads: it holds the lease {lease}"));
            ctx.perform(Effect::Lead);
        }
        ctx.set_timer(Timer::Deadline, left);
        self.later(ctx);
    }

    fn end(&mut self, ctx: &mut Context<'_, Self>) {
        self.ends = true;
        self.stop(ctx, || "it is to end".to_owned());
        // What is under way may be a renewal, of which another version comes.
        if self.asked.is_none() {
            self.release(ctx);
        }
    }

    fn release(&mut self, ctx: &mut Context<'_, Self>) {
        let ours = |(lease, _): &&(Arc<Object>, Time)| {
            record::holder(lease) == self.config.identity.as_str()
        };
        match self.seen.as_ref().filter(ours) {
            Some((lease, _)) => {
                let object = Arc::new(record::released(lease, ctx.wall()));
                self.ask(What::Release, Request::Update { object }, ctx);
            }
            None => _ = ctx.perform(Effect::Ended),
        }
    }

    fn later(&mut self, ctx: &mut Context<'_, Self>) {
        let period = self.config.retry;
        // Those who renew keep to the period, those who wait come one after the other.
        let most = if self.leads { period } else { period + period * JITTER / 10 };
        let wait = ctx.rng().between(period, most);
        ctx.set_timer(Timer::Try, wait);
    }

    fn stop_if_late(&mut self, ctx: &mut Context<'_, Self>) {
        let deadline = self.config.deadline;
        if self.leads && ctx.boot().since(self.renewed) >= deadline {
            self.stop(ctx, || format!("the lease was not renewed for {deadline:?}"));
        }
    }

    fn stop(&mut self, ctx: &mut Context<'_, Self>, why: impl FnOnce() -> String) {
        if std::mem::take(&mut self.leads) {
            let identity = &self.config.identity;
            ctx.note(|| format!("{identity} leads no more: {}", why()));
            ctx.clear_timer(Timer::Deadline);
            ctx.perform(Effect::Yield);
        }
    }
}
