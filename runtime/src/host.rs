//! The production host: one generic actix actor for any [`Actor`]. The only file that names actix.
//!
//! An event comes in as a message, the step runs under `catch_unwind`, and every effect becomes a
//! tokio task of a [`Driver`], which sends its answers back as messages. A panic or
//! [`Context::fail`] drops the value; after [`Backoff::SUPERVISOR`] the next incarnation starts
//! with empty memory, and whatever was on its way to the dead one is dropped.
//!
//! Actix' own supervisor is not used: it catches no panic and restarts on the same value. The
//! actix actor here outlives all incarnations and throws the memory away itself.
//!
//! Everything runs on one thread, inside a tokio `LocalSet` (an actix arbiter is one).

use crate::trace::Step;
use crate::{
    Actor, Answers, Backoff, Clocks, Context, Effect, Look, Outbox, Remark, Rng, Stream, Ticket,
    Time, TimerOp, Wall,
};
use actix::{
    Actor as _, ActorContext, Addr, AsyncContext, Context as Actix, Handler, Message, MessageResult,
};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep};

/// Messages that wait in a mailbox before senders wait; actix' default of 16 is less than one
/// burst of a watch. Timers and starts are not subject to it.
const MAILBOX: usize = 4096;

/// How many remarks are remembered for who asks.
const REMARKS: usize = 12;

/// Carries out what an actor asks for.
pub trait Driver<A: Actor>: 'static {
    /// Called in the order in which effects were asked for, so what must keep that order (writes
    /// to one subject) is queued here; the future is the rest, and runs as a task of its own.
    ///
    /// An effect that owes one answer is answered exactly once, at the latest when a deadline has
    /// passed. Dropping `answer` with the debt open counts as a failure of the actor, which then
    /// starts anew and asks again.
    fn perform(
        &self,
        ticket: Ticket,
        effect: A::Effect,
        answer: AnswerTo<A>,
    ) -> impl Future<Output = ()> + 'static;
}

/// Where a host reads the time.
pub trait Clock: 'static {
    fn clocks(&self) -> Clocks;
}

/// The machine's clocks; `now` and `boot` count from this value's making.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
    booted: Duration,
}

impl SystemClock {
    pub fn new() -> Self {
        SystemClock { origin: Instant::now(), booted: boottime() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn clocks(&self) -> Clocks {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clocks {
            now: Time::ZERO + self.origin.elapsed(),
            boot: Time::ZERO + boottime().saturating_sub(self.booted),
            wall: Wall::from_unix_nanos(0) + unix,
        }
    }
}

/// CLOCK_BOOTTIME, which goes on while the machine is suspended.
fn boottime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(secs)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// What a host tells whoever observes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What happened to this incarnation and what it asked for.
    Step { incarnation: u32, step: Step },
    /// A remark for people.
    Note { time: Time, text: String },
    /// The incarnation is gone; the next one starts after `retry`.
    Failed { incarnation: u32, cause: String, retry: Duration },
}

/// What a host is told about itself.
pub struct Settings {
    /// With `index`, names the actor's random streams, as in the simulator.
    pub seed: u64,
    pub index: u64,
    /// Report every step as text, which costs more than most steps.
    pub steps: bool,
    pub observer: Box<dyn FnMut(Seen)>,
}

/// Starts an actor on the current thread.
///
/// # Panics
/// Outside of a tokio `LocalSet`.
pub fn spawn<A: Actor>(
    config: A::Config,
    driver: impl Driver<A>,
    clock: impl Clock,
    settings: Settings,
) -> Hosted<A> {
    let cell = Cell::new(config, Box::new(Erased(driver)), Box::new(clock), settings);
    Hosted { host: Host(Box::new(cell)).start() }
}

/// A running actor, seen from outside. It ends when this value and all its drivers' tasks are gone.
pub struct Hosted<A: Actor> {
    host: Addr<Host<A>>,
}

impl<A: Actor> Hosted<A> {
    /// An event that answers no effect. Waits while the mailbox is full.
    pub async fn send(&self, event: A::Event) -> Result<(), Closed> {
        let delivery = Deliver { answers: None, event };
        self.host.send(delivery).await.unwrap_or(Err(Closed))
    }

    /// Drops the actor's memory as a crash would; the supervisor starts it again.
    pub async fn kill(&self, cause: &str) {
        let _ = self.host.send(Kill(cause.to_owned())).await;
    }

    /// How it is. `None` once it was ended for good.
    pub async fn look(&self) -> Option<Look> {
        self.host.send(Regard).await.ok()
    }

    /// Ends the actor for good: nobody starts it again, and nobody hears what it asked for.
    pub async fn stop(&self) {
        let _ = self.host.send(Stop).await;
    }
}

/// Nobody waits for the answer: it was cancelled, given before, or its asker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody waits for this answer")
    }
}

impl std::error::Error for Closed {}

/// An effect of one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    incarnation: u32,
    ticket: Ticket,
}

/// The way back from a driver to the incarnation that asked.
pub struct AnswerTo<A: Actor> {
    asked: Asked,
    host: Addr<Host<A>>,
}

impl<A: Actor> AnswerTo<A> {
    /// Waits while the mailbox is full. [`Closed`] tells a stream to end.
    pub async fn send(&self, event: A::Event) -> Result<(), Closed> {
        let delivery = Deliver { answers: Some(self.asked), event };
        self.host.send(delivery).await.unwrap_or(Err(Closed))
    }
}

impl<A: Actor> Drop for AnswerTo<A> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.host.do_send(Dropped { asked: self.asked, panicked });
    }
}

/// Hides the driver's type from the host.
struct Erased<D>(D);

trait Perform<A: Actor> {
    fn spawn(&self, ticket: Ticket, effect: A::Effect, answer: AnswerTo<A>);
}

impl<A: Actor, D: Driver<A>> Perform<A> for Erased<D> {
    fn spawn(&self, ticket: Ticket, effect: A::Effect, answer: AnswerTo<A>) {
        spawn_local(self.0.perform(ticket, effect, answer));
    }
}

/// The actix actor. Boxed, since actix wants `Unpin` and an [`Actor`] need not be.
struct Host<A: Actor>(Box<Cell<A>>);

/// What outlives the incarnations of one actor, and the one that lives.
struct Cell<A: Actor> {
    config: A::Config,
    driver: Box<dyn Perform<A>>,
    clock: Box<dyn Clock>,
    settings: Settings,
    actor: Option<A>,
    incarnation: u32,
    rng: Rng,
    next_ticket: u64,
    out: Outbox<A>,
    alarms: BTreeMap<A::Timer, Alarm>,
    next_alarm: u64,
    /// Effects that are still owed events.
    open: BTreeMap<Ticket, Answers>,
    failures: u32,
    last_failure: Time,
    /// For the supervisor's jitter: the stream of a life that never begins.
    dice: Rng,
    steps: u64,
    last_step: Wall,
    did: VecDeque<Remark>,
}

struct Alarm {
    id: u64,
    sleeper: AbortHandle,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.sleeper.abort();
    }
}

#[derive(Message)]
#[rtype(result = "Result<(), Closed>")]
struct Deliver<E> {
    answers: Option<Asked>,
    event: E,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Dropped {
    asked: Asked,
    panicked: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Ring<T> {
    incarnation: u32,
    timer: T,
    id: u64,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Start {
    incarnation: u32,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Kill(String);

#[derive(Message)]
#[rtype(result = "Look")]
struct Regard;

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

/// What a step is about.
enum Input<A: Actor> {
    Start,
    Event(A::Event),
    Alarm(A::Timer),
}

impl<A: Actor> actix::Actor for Host<A> {
    type Context = Actix<Self>;

    fn started(&mut self, actix: &mut Actix<Self>) {
        actix.set_mailbox_capacity(MAILBOX);
        self.0.step(Input::Start, &actix.address());
    }

    fn stopped(&mut self, _: &mut Actix<Self>) {
        self.0.alarms.clear();
    }
}

impl<A: Actor> Handler<Deliver<A::Event>> for Host<A> {
    type Result = Result<(), Closed>;

    fn handle(&mut self, delivery: Deliver<A::Event>, actix: &mut Actix<Self>) -> Self::Result {
        if self.0.actor.is_none() || !self.0.pays(delivery.answers) {
            return Err(Closed);
        }
        self.0.step(Input::Event(delivery.event), &actix.address());
        Ok(())
    }
}

impl<A: Actor> Handler<Dropped> for Host<A> {
    type Result = ();

    fn handle(&mut self, dropped: Dropped, actix: &mut Actix<Self>) {
        let Asked { incarnation, ticket } = dropped.asked;
        if incarnation != self.0.incarnation {
            return;
        }
        match self.0.open.remove(&ticket) {
            Some(Answers::One) => {
                let cause = format!("a driver dropped effect {} without an answer", ticket.0);
                self.0.fail(cause, &actix.address());
            }
            Some(_) if dropped.panicked => {
                self.0
                    .fail(format!("the driver of effect {} panicked", ticket.0), &actix.address());
            }
            _ => {}
        }
    }
}

impl<A: Actor> Handler<Ring<A::Timer>> for Host<A> {
    type Result = ();

    fn handle(&mut self, ring: Ring<A::Timer>, actix: &mut Actix<Self>) {
        let cell = &mut self.0;
        let due = cell.alarms.get(&ring.timer).is_some_and(|alarm| alarm.id == ring.id);
        if cell.incarnation == ring.incarnation && due {
            cell.alarms.remove(&ring.timer);
            cell.step(Input::Alarm(ring.timer), &actix.address());
        }
    }
}

impl<A: Actor> Handler<Start> for Host<A> {
    type Result = ();

    fn handle(&mut self, start: Start, actix: &mut Actix<Self>) {
        if self.0.incarnation == start.incarnation && self.0.actor.is_none() {
            self.0.step(Input::Start, &actix.address());
        }
    }
}

impl<A: Actor> Handler<Kill> for Host<A> {
    type Result = ();

    fn handle(&mut self, Kill(cause): Kill, actix: &mut Actix<Self>) {
        if self.0.actor.is_some() {
            self.0.fail(cause, &actix.address());
        }
    }
}

impl<A: Actor> Handler<Regard> for Host<A> {
    type Result = MessageResult<Regard>;

    fn handle(&mut self, _: Regard, _: &mut Actix<Self>) -> Self::Result {
        MessageResult(self.0.look())
    }
}

impl<A: Actor> Handler<Stop> for Host<A> {
    type Result = ();

    fn handle(&mut self, _: Stop, actix: &mut Actix<Self>) {
        self.0.forget();
        actix.stop();
    }
}

impl<A: Actor> Cell<A> {
    fn new(
        config: A::Config,
        driver: Box<dyn Perform<A>>,
        clock: Box<dyn Clock>,
        settings: Settings,
    ) -> Self {
        Cell {
            config,
            driver,
            clock,
            actor: None,
            incarnation: 0,
            rng: stream::<A>(&settings, 0),
            next_ticket: 0,
            out: Outbox::new(true),
            alarms: BTreeMap::new(),
            next_alarm: 0,
            open: BTreeMap::new(),
            failures: 0,
            last_failure: Time::ZERO,
            dice: stream::<A>(&settings, u32::MAX),
            steps: 0,
            last_step: Wall::default(),
            did: VecDeque::new(),
            settings,
        }
    }

    /// Whether somebody waits for the event. Takes a single answer's debt off.
    fn pays(&mut self, answers: Option<Asked>) -> bool {
        let Some(Asked { incarnation, ticket }) = answers else { return true };
        if incarnation != self.incarnation {
            return false;
        }
        match self.open.get(&ticket) {
            Some(Answers::Stream) => true,
            Some(Answers::One) => self.open.remove(&ticket).is_some(),
            Some(Answers::None) | None => false,
        }
    }

    fn step(&mut self, input: Input<A>, host: &Addr<Host<A>>) {
        let clocks = self.clock.clocks();
        (self.steps, self.last_step) = (self.steps + 1, clocks.wall);
        let shown = self.settings.steps.then(|| self.show(&input));
        let went = catch_unwind(AssertUnwindSafe(|| self.run(clocks, input)));
        if let Err(panic) = went {
            self.out.clear();
            self.seen(shown, clocks.now);
            return self.fail(format!("panicked: {}", words(&*panic)), host);
        }
        self.seen(shown, clocks.now);
        self.carry_out(clocks.now, host);
    }

    fn run(&mut self, clocks: Clocks, input: Input<A>) {
        let mut context = Context::new(clocks, &mut self.rng, &mut self.next_ticket, &mut self.out);
        match (input, &mut self.actor) {
            (Input::Start, actor) => *actor = Some(A::start(&self.config, &mut context)),
            (Input::Event(event), Some(actor)) => actor.handle(event, &mut context),
            (Input::Alarm(timer), Some(actor)) => actor.timeout(timer, &mut context),
            (_, None) => {}
        }
    }

    /// What the step asked for, in the simulator's order: alarms, effects, then a failure.
    fn carry_out(&mut self, now: Time, host: &Addr<Host<A>>) {
        for op in std::mem::take(&mut self.out.timers) {
            match op {
                TimerOp::Set(timer, at) => self.set_alarm(timer, at.since(now), host),
                TimerOp::Clear(timer) => drop(self.alarms.remove(&timer)),
            }
        }
        for ticket in std::mem::take(&mut self.out.cancelled) {
            self.open.remove(&ticket);
        }
        for (ticket, effect) in std::mem::take(&mut self.out.effects) {
            let answers = effect.answers();
            if answers != Answers::None {
                self.open.insert(ticket, answers);
            }
            let asked = Asked { incarnation: self.incarnation, ticket };
            self.driver.spawn(ticket, effect, AnswerTo { asked, host: host.clone() });
        }
        if let Some(cause) = self.out.failed.take() {
            self.fail(cause, host);
        }
    }

    fn set_alarm(&mut self, timer: A::Timer, delay: Duration, host: &Addr<Host<A>>) {
        let (id, incarnation) = (self.next_alarm, self.incarnation);
        self.next_alarm += 1;
        // Weak: an alarm alone does not keep a host alive that nobody can reach.
        let host = host.downgrade();
        let sleeper = spawn_local(async move {
            sleep(delay).await;
            if let Some(host) = host.upgrade() {
                host.do_send(Ring { incarnation, timer, id });
            }
        });
        self.alarms.insert(timer, Alarm { id, sleeper: sleeper.abort_handle() });
    }

    /// Ends the incarnation and has the next one start after the back-off.
    fn fail(&mut self, cause: String, host: &Addr<Host<A>>) {
        let now = self.clock.clocks().now;
        if now.since(self.last_failure) > Backoff::SUPERVISOR.reset_after {
            self.failures = 0;
        }
        self.failures += 1;
        self.last_failure = now;
        let retry = Backoff::SUPERVISOR.delay(self.failures, &mut self.dice);
        let incarnation = self.incarnation;
        self.remember(format!("failed: {cause}"));
        (self.settings.observer)(Seen::Failed { incarnation, cause, retry });
        self.forget();
        let (host, incarnation) = (host.downgrade(), self.incarnation);
        spawn_local(async move {
            sleep(retry).await;
            if let Some(host) = host.upgrade() {
                host.do_send(Start { incarnation });
            }
        });
    }

    fn forget(&mut self) {
        // A value that a panic left half changed may panic again as it goes.
        let actor = self.actor.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(actor)));
        self.incarnation += 1;
        self.rng = stream::<A>(&self.settings, self.incarnation);
        self.next_ticket = 0;
        self.alarms.clear();
        self.open.clear();
        self.out.clear();
    }

    fn remember(&mut self, text: String) {
        if self.did.len() == REMARKS {
            self.did.pop_front();
        }
        self.did.push_back(Remark { at: self.last_step, text });
    }

    fn look(&self) -> Look {
        Look {
            name: A::NAME,
            life: self.incarnation + 1,
            steps: self.steps,
            last_step: self.last_step,
            awaits: self.open.len(),
            account: self.actor.as_ref().map(A::account),
            did: self.did.iter().cloned().collect(),
        }
    }

    fn show(&self, input: &Input<A>) -> String {
        match input {
            Input::Start => format!("start of life {}", self.incarnation),
            Input::Event(event) => format!("{event:?}"),
            Input::Alarm(timer) => format!("alarm {timer:?}"),
        }
    }

    fn seen(&mut self, shown: Option<String>, time: Time) {
        if let Some(event) = shown {
            let effects =
                self.out.effects.iter().map(|(_, effect)| format!("{effect:?}")).collect();
            let step = Step { time, event, effects };
            (self.settings.observer)(Seen::Step { incarnation: self.incarnation, step });
        }
        for text in std::mem::take(&mut self.out.notes) {
            self.remember(text.clone());
            (self.settings.observer)(Seen::Note { time, text });
        }
    }
}

fn stream<A: Actor>(settings: &Settings, incarnation: u32) -> Rng {
    let Settings { seed, index, .. } = *settings;
    Rng::new(Stream { seed, label: A::NAME, index, incarnation })
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
