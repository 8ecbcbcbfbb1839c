//! All actors of one kind, side by side, and one generic way of stepping them.

use kubesim_runtime::trace::{Ring, Step};
use kubesim_runtime::{
    Actor, Clocks, Context, Hasher, Outbox, Rng, Stream, Ticket, Time, TimerOp, near,
};
use rustc_hash::FxHashSet;
use slab::Slab;

/// One actor: what outlives it, and itself while it lives.
#[derive(Debug)]
pub struct Host<A: Actor> {
    pub machine: u32,
    pub config: A::Config,
    pub actor: Option<A>,
    /// Counts lives. Events, answers and alarms of an earlier one are dropped.
    pub incarnation: u32,
    /// Events handled in all lives: the k of "killed at its k-th event".
    pub steps: u64,
    pub failures: u32,
    pub last_failure: Time,
    rng: Rng,
    next_ticket: u64,
    alarms: Vec<Alarm<A::Timer>>,
    next_alarm: u32,
    /// Effects that are still owed an answer, and since when.
    owed: Owed,
    /// Effects whose answers are wanted no more.
    cancelled: FxHashSet<u64>,
    ring: Ring,
}

#[derive(Clone, Copy, Debug)]
struct Alarm<T> {
    timer: T,
    at: Time,
    id: u32,
}

/// Effects by ticket, and when they were asked for. Tickets only grow, and most are answered soon.
#[derive(Clone, Debug, Default)]
struct Owed(Vec<(u64, Time)>);

impl Owed {
    fn push(&mut self, ticket: Ticket, asked: Time) {
        debug_assert!(self.0.last().is_none_or(|(last, _)| *last < ticket.0));
        self.0.push((ticket.0, asked));
    }
    /// Whether it was open.
    fn remove(&mut self, ticket: Ticket) -> bool {
        let found = self.0.binary_search_by_key(&ticket.0, |(open, _)| *open);
        found.is_ok_and(|at| {
            self.0.remove(at);
            true
        })
    }
}

/// What happens to an actor.
#[derive(Debug)]
pub enum Input<A: Actor> {
    Start,
    Event { ticket: Option<Ticket>, event: A::Event },
    Alarm { id: u32 },
}

/// An event on its way to an actor.
#[derive(Debug)]
pub struct Pending<A: Actor> {
    pub host: u32,
    pub incarnation: u32,
    /// The effect this answers, if it answers one.
    pub ticket: Option<Ticket>,
    pub event: A::Event,
}

#[derive(Debug)]
pub struct Fleet<A: Actor> {
    pub hosts: Vec<Host<A>>,
    pub events: Slab<Pending<A>>,
    pub outbox: Outbox<A>,
    seed: u64,
    /// Steps kept for the report of a failure; 0 keeps none and formats nothing.
    keep: usize,
}

/// An answer came for a debt that was not open: told twice, or to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidTwice(pub Ticket);

impl<A: Actor> Fleet<A> {
    pub fn new(seed: u64, wants_notes: bool, keep: usize) -> Self {
        let outbox = Outbox::new(wants_notes);
        Fleet { hosts: Vec::new(), events: Slab::new(), outbox, seed, keep }
    }

    pub fn add(&mut self, machine: u32, config: A::Config) -> u32 {
        let index = self.hosts.len() as u32;
        self.hosts.push(Host {
            machine,
            config,
            actor: None,
            incarnation: 0,
            steps: 0,
            failures: 0,
            last_failure: Time::ZERO,
            rng: self.stream(index, 0),
            next_ticket: 0,
            alarms: Vec::new(),
            next_alarm: 0,
            owed: Owed::default(),
            cancelled: FxHashSet::default(),
            ring: Ring::new(self.keep),
        });
        index
    }

    fn stream(&self, index: u32, incarnation: u32) -> Rng {
        let stream = Stream { seed: self.seed, label: A::NAME, index: index.into(), incarnation };
        Rng::new(stream)
    }

    /// Ends a life: the memory is gone and so is everything on its way to it.
    pub fn drop_actor(&mut self, index: u32) {
        let incarnation = self.hosts[index as usize].incarnation + 1;
        let rng = self.stream(index, incarnation);
        let host = &mut self.hosts[index as usize];
        host.actor = None;
        host.incarnation = incarnation;
        host.rng = rng;
        host.next_ticket = 0;
        host.alarms.clear();
        host.owed.0.clear();
        host.cancelled.clear();
    }

    /// Whether the input is for a life that goes on. Takes a cancelled or superseded one away.
    pub fn admits(&mut self, index: u32, incarnation: u32, input: &Input<A>) -> bool {
        let host = &mut self.hosts[index as usize];
        if host.incarnation != incarnation {
            return false;
        }
        match input {
            Input::Start => host.actor.is_none(),
            Input::Event { ticket, .. } => {
                let cancelled = ticket.is_some_and(|ticket| host.cancelled.remove(&ticket.0));
                host.actor.is_some() && !cancelled
            }
            Input::Alarm { id } => host.alarms.iter().any(|alarm| alarm.id == *id),
        }
    }

    /// One step. What it asked for is in `self.outbox`, to be drained by the caller.
    pub fn step(
        &mut self,
        index: u32,
        clocks: Clocks,
        input: Input<A>,
        digest: &mut Hasher,
    ) -> Result<(), PaidTwice> {
        let keep = self.keep;
        let host = &mut self.hosts[index as usize];
        let out = &mut self.outbox;
        let mut shown = None;
        if keep > 0 {
            shown = Some(show(host, &input));
        }
        host.steps += 1;
        let mut context = Context::new(clocks, &mut host.rng, &mut host.next_ticket, out);
        let mut paid = Ok(());
        match input {
            Input::Start => {
                digest.u64(1);
                host.actor = Some(A::start(&host.config, &mut context));
            }
            Input::Event { ticket, event } => {
                digest.u64(2);
                kubesim_runtime::Digest::digest(&event, digest);
                if let Some(ticket) = ticket
                    && !host.owed.remove(ticket)
                {
                    paid = Err(PaidTwice(ticket));
                }
                if let Some(actor) = &mut host.actor {
                    actor.handle(event, &mut context);
                }
            }
            Input::Alarm { id } => {
                digest.u64(3);
                let position = host.alarms.iter().position(|alarm| alarm.id == id);
                if let (Some(position), Some(actor)) = (position, &mut host.actor) {
                    let alarm = host.alarms.swap_remove(position);
                    std::hash::Hash::hash(&alarm.timer, digest);
                    actor.timeout(alarm.timer, &mut context);
                }
            }
        }
        for ticket in &out.cancelled {
            if host.owed.remove(*ticket) {
                host.cancelled.insert(ticket.0);
            }
        }
        if let Some(event) = shown {
            let effects = out.effects.iter().map(|(_, effect)| brief(effect)).collect();
            host.ring.push(Step { time: clocks.now, event, effects });
        }
        paid
    }

    /// Sets and clears alarms as the step asked; returns when and under which ids new ones ring.
    pub fn set_alarms(
        &mut self,
        index: u32,
        ops: &mut Vec<TimerOp<A::Timer>>,
        rings: &mut Vec<(Time, u32)>,
    ) {
        let host = &mut self.hosts[index as usize];
        for op in ops.drain(..) {
            match op {
                TimerOp::Clear(timer) => host.alarms.retain(|alarm| alarm.timer != timer),
                TimerOp::Set(timer, at) => {
                    let known = host.alarms.iter_mut().find(|alarm| alarm.timer == timer);
                    if let Some(alarm) = known {
                        if alarm.at == at {
                            continue;
                        }
                        (alarm.at, alarm.id) = (at, host.next_alarm);
                    } else {
                        host.alarms.push(Alarm { timer, at, id: host.next_alarm });
                    }
                    rings.push((at, host.next_alarm));
                    host.next_alarm = host.next_alarm.wrapping_add(1);
                }
            }
        }
    }

    /// An alarm rings soon: asks for the memory that its step will touch.
    pub fn approach(&self, index: u32, id: u32, pass: usize) -> Option<A::Timer> {
        let host = &self.hosts[index as usize];
        match pass {
            0 => {
                near::value(&host.machine);
                near::value(&host.actor);
                near::value(&host.incarnation);
                near::value(&host.alarms);
                near::value(&host.owed);
                None
            }
            1 => {
                near::slice(&host.alarms, 8);
                near::slice(&host.owed.0, 1);
                None
            }
            _ => {
                let alarm = host.alarms.iter().find(|alarm| alarm.id == id)?;

                host.actor.as_ref()?.approach(alarm.timer, pass - 2);
                Some(alarm.timer)
            }
        }
    }

    pub fn owe(&mut self, index: u32, ticket: Ticket, now: Time) {
        self.hosts[index as usize].owed.push(ticket, now);
    }

    /// Hosts and their effects that have waited for an answer since before `since`.
    pub fn unanswered(&self, since: Time) -> Vec<(u32, Ticket, Time)> {
        let mut waiting = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let late = host.owed.0.iter().filter(|(_, asked)| *asked < since);
            waiting.extend(late.map(|(ticket, asked)| (index as u32, Ticket(*ticket), *asked)));
        }
        waiting
    }

    /// A debt that is settled in another way than by an answer with its ticket.
    pub fn forgive(&mut self, index: u32, incarnation: u32, ticket: Ticket) {
        let host = &mut self.hosts[index as usize];
        if host.incarnation == incarnation {
            host.owed.remove(ticket);
        }
    }

    /// The last steps of an actor, oldest first, as lines.
    pub fn last_steps(&self, index: u32) -> Vec<String> {
        let lines =
            |step: &Step| format!("{} {} -> {}", step.time, step.event, step.effects.join(", "));
        self.hosts[index as usize].ring.iter().map(lines).collect()
    }
}

fn show<A: Actor>(host: &Host<A>, input: &Input<A>) -> String {
    match input {
        Input::Start => format!("start of life {}", host.incarnation),
        Input::Event { event, .. } => brief(event),
        Input::Alarm { id } => {
            let alarm = host.alarms.iter().find(|alarm| alarm.id == *id);
            alarm.map_or_else(String::new, |alarm| format!("alarm {:?}", alarm.timer))
        }
    }
}

/// At most 400 characters of a value's `Debug` form.
fn brief(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if let Some((cut, _)) = text.char_indices().nth(400) {
        text.truncate(cut);
        text.push('…');
    }
    text
}
