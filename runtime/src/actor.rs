//! The actor: events in, effects out. It can touch only its [`Context`], so its state is a pure
//! function of its configuration, its dice and what happened to it.

use crate::{Account, Digest, Rng, Time, Wall};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::time::Duration;

/// A component that decides and never does.
///
/// Handlers are level-triggered: they note what was observed and then compare desired with
/// observed, so that late, lost and duplicate answers are harmless. A crash drops the value;
/// [`Actor::start`] begins again with empty memory and asks the world.
pub trait Actor: Clone + Debug + Sized + 'static {
    /// The component's name in traces, faults and digests: lower case, one word.
    const NAME: &'static str;
    /// Identity and settings, the same for every incarnation.
    type Config: Clone + Debug + Send + 'static;
    /// Everything that can happen to it.
    type Event: Clone + Debug + Digest + Send + 'static;
    /// Everything it may ask: the complete list of its powers.
    type Effect: Clone + Debug + Effect + Send + 'static;
    /// Named alarms. Setting one again moves it.
    type Timer: Copy + Eq + Ord + Hash + Debug + Send + 'static;

    fn start(config: &Self::Config, ctx: &mut Context<'_, Self>) -> Self;
    fn handle(&mut self, event: Self::Event, ctx: &mut Context<'_, Self>);
    fn timeout(&mut self, timer: Self::Timer, ctx: &mut Context<'_, Self>);

    /// This alarm rings soon: asks for the memory that it will need (see [`crate::near`]). Called
    /// with a growing `pass`: what one pass has asked for, the next may read.
    fn approach(&self, _timer: Self::Timer, _pass: usize) {}

    /// Asked for by a person, at any time between two steps.
    fn account(&self) -> Account {
        Account::default()
    }
}

/// How many events an effect is owed. The simulator asserts that a debt is paid exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// A statement, such as publishing a snapshot: nothing comes back.
    None,
    /// Done, refused, or unknown after a deadline.
    One,
    /// Any number of events until one says it is closed.
    Stream,
}

pub trait Effect {
    fn answers(&self) -> Answers;
}

/// Names an effect within one incarnation, for [`Context::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerOp<T> {
    Set(T, Time),
    Clear(T),
}

/// What one step of an actor asked for, in order. The host owns it and empties it after each step.
#[derive(Debug)]
pub struct Outbox<A: Actor> {
    pub effects: Vec<(Ticket, A::Effect)>,
    pub cancelled: Vec<Ticket>,
    pub timers: Vec<TimerOp<A::Timer>>,
    /// Remarks for people; empty unless the host asked for them. Never part of the digest.
    pub notes: Vec<String>,
    pub failed: Option<String>,
    wants_notes: bool,
}

impl<A: Actor> Outbox<A> {
    pub fn new(wants_notes: bool) -> Self {
        Outbox {
            effects: Vec::new(),
            cancelled: Vec::new(),
            timers: Vec::new(),
            notes: Vec::new(),
            failed: None,
            wants_notes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
            && self.cancelled.is_empty()
            && self.timers.is_empty()
            && self.notes.is_empty()
            && self.failed.is_none()
    }

    pub fn clear(&mut self) {
        self.effects.clear();
        self.cancelled.clear();
        self.timers.clear();
        self.notes.clear();
        self.failed = None;
    }
}

/// All that an actor can reach during a step: clocks, dice and an outbox.
pub struct Context<'a, A: Actor> {
    clocks: Clocks,
    rng: &'a mut Rng,
    next_ticket: &'a mut u64,
    out: &'a mut Outbox<A>,
}

/// The three clocks of a machine at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// CLOCK_MONOTONIC: stands still while the machine is suspended.
    pub now: Time,
    /// CLOCK_BOOTTIME: goes on through suspend.
    pub boot: Time,
    /// CLOCK_REALTIME: the epoch plus `boot` plus this machine's skew.
    pub wall: Wall,
}

impl<'a, A: Actor> Context<'a, A> {
    /// For hosts and tests; `next_ticket` lives as long as the incarnation.
    pub fn new(
        clocks: Clocks,
        rng: &'a mut Rng,
        next_ticket: &'a mut u64,
        out: &'a mut Outbox<A>,
    ) -> Self {
        Context { clocks, rng, next_ticket, out }
    }

    /// CLOCK_MONOTONIC.
    pub fn now(&self) -> Time {
        self.clocks.now
    }
    /// CLOCK_BOOTTIME.
    pub fn boot(&self) -> Time {
        self.clocks.boot
    }
    /// CLOCK_REALTIME.
    pub fn wall(&self) -> Wall {
        self.clocks.wall
    }
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }
    /// Asks for an effect. Its answer, if it owes one, comes as an event that names its subject.
    pub fn perform(&mut self, effect: A::Effect) -> Ticket {
        let ticket = Ticket(*self.next_ticket);
        *self.next_ticket += 1;
        self.out.effects.push((ticket, effect));
        ticket
    }
    /// The answer is wanted no more: it will not come. What was asked may still happen.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.out.cancelled.push(ticket);
    }
    pub fn set_timer(&mut self, timer: A::Timer, delay: Duration) {
        let at = self.clocks.now + delay;
        self.out.timers.push(TimerOp::Set(timer, at));
    }
    pub fn clear_timer(&mut self, timer: A::Timer) {
        self.out.timers.push(TimerOp::Clear(timer));
    }
    /// A remark for people, in their words: `ctx.note(|| format!("address {ip} is gone"))`.
    /// Built only where somebody reads it.
    pub fn note(&mut self, remark: impl FnOnce() -> String) {
        if self.out.wants_notes {
            self.out.notes.push(remark());
        }
    }
    /// Gives up: the host drops this incarnation and starts another after a back-off.
    pub fn fail(&mut self, cause: impl fmt::Display) {
        self.out.failed = Some(cause.to_string());
    }
}

impl<A: Actor> Debug for Context<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("clocks", &self.clocks).finish_non_exhaustive()
    }
}
