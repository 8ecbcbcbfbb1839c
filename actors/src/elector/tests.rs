//! Candidates in virtual time, and the one lease they want. Each has its own clock's pace of
//! events; calls take effect at once, unless the API is away.

use super::{Config, Effect, Elector, Event, Timer};
use crate::objects::{Key, Object, Uid};
use crate::ports::api::{self, Answer, Error, Reason, Reply, Request};
use kubesim_runtime::{Actor, Clocks, Context, Outbox, Rng, Stream, Time, TimerOp, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(100);

fn config(identity: &str) -> Config {
    Config {
        lease: Key::new("kube-system", "kube-scheduler"),
        identity: identity.into(),
        duration: Duration::from_secs(15),
        deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    }
}

struct Candidate {
    elector: Elector,
    rng: Rng,
    tickets: u64,
    timers: BTreeMap<Timer, Time>,
    leads: bool,
    ended: bool,
    /// It does not run, and what happens to it waits (SIGSTOP).
    paused: bool,
    /// Nothing it asks for is answered.
    cut_off: bool,
    calls: Vec<(u64, Arc<Request>)>,
}

struct World {
    now: Time,
    version: u64,
    lease: Option<Arc<Object>>,
    candidates: Vec<Candidate>,
}

impl World {
    fn new(count: u64) -> World {
        let mut world =
            World { now: Time::from_secs(1000), version: 0, lease: None, candidates: Vec::new() };
        for index in 0..count {
            let mut rng = Rng::new(Stream { seed: 7, label: "elector", index, incarnation: 0 });
            let (mut tickets, mut out) = (0, Outbox::new(false));
            let mut ctx = Context::new(world.clocks(), &mut rng, &mut tickets, &mut out);
            let elector = Elector::start(&config(&format!("c{index}")), &mut ctx);
            let (timers, calls) = (BTreeMap::new(), Vec::new());
            let mut candidate = Candidate {
                elector,
                rng,
                tickets,
                timers,
                leads: false,
                ended: false,
                paused: false,
                cut_off: false,
                calls,
            };
            candidate.collect(out);
            world.candidates.push(candidate);
        }
        world
    }

    fn clocks(&self) -> Clocks {
        let wall = Wall::from_unix_secs(1_700_000_000) + self.now.since(Time::ZERO);
        Clocks { now: self.now, boot: self.now, wall }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS;
            for index in 0..self.candidates.len() {
                self.turn(index);
            }
            let leaders = self.candidates.iter().filter(|one| one.leads && !one.paused);
            assert!(leaders.count() <= 1, "two lead at {:?}", self.now);
        }
    }

    /// Its alarms, then the answers to what it asked.
    fn turn(&mut self, index: usize) {
        let (clocks, now) = (self.clocks(), self.now);
        let one = &mut self.candidates[index];
        if one.paused {
            return;
        }
        let due: Vec<Timer> =
            one.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        for timer in due {
            one.timers.remove(&timer);
            one.step(clocks, |elector, ctx| elector.timeout(timer, ctx));
        }
        while !self.candidates[index].cut_off && !self.candidates[index].calls.is_empty() {
            let (tag, request) = self.candidates[index].calls.remove(0);
            let result = self.serve(&request);
            let answer = Event::Api(api::Event::Answer(Answer { tag, result }));
            self.candidates[index].step(clocks, |elector, ctx| elector.handle(answer, ctx));
        }
    }

    fn serve(&mut self, request: &Request) -> Result<Reply, Error> {
        let refused = |reason| Err(Error::new(reason, "refused"));
        let stored = match (request, &self.lease) {
            (Request::Get { .. }, Some(lease)) => return Ok(Reply::Object(lease.clone())),
            (Request::Create { object }, None) => object,
            (Request::Update { object }, Some(lease)) if object.version == lease.version => object,
            (Request::Create { .. }, Some(_)) => return refused(Reason::AlreadyExists),
            (_, None) => return refused(Reason::NotFound),
            (_, Some(_)) => return refused(Reason::Conflict),
        };
        self.version += 1;
        let stored = Object { version: self.version, uid: Uid(1), ..(**stored).clone() };
        let stored = Arc::new(stored);
        self.lease = Some(stored.clone());
        Ok(Reply::Object(stored))
    }

    fn leader(&self) -> Option<usize> {
        self.candidates.iter().position(|one| one.leads && !one.paused)
    }

    fn transitions(&self) -> Option<i32> {
        self.lease.as_ref()?.lease()?.lease_transitions
    }
}

impl Candidate {
    fn step(&mut self, clocks: Clocks, act: impl FnOnce(&mut Elector, &mut Context<'_, Elector>)) {
        let mut out = Outbox::new(false);
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.tickets, &mut out);
        act(&mut self.elector, &mut ctx);
        self.collect(out);
    }

    fn collect(&mut self, out: Outbox<Elector>) {
        for op in out.timers {
            match op {
                TimerOp::Set(timer, at) => self.timers.insert(timer, at),
                TimerOp::Clear(timer) => self.timers.remove(&timer),
            };
        }
        for (_, effect) in out.effects {
            match effect {
                Effect::Lead => self.leads = true,
                Effect::Yield => self.leads = false,
                Effect::Ended => self.ended = true,
                Effect::Api(api::Effect::Call { tag, request }) => self.calls.push((tag, request)),
                Effect::Api(other) => panic!("{other:?} of an elector"),
            }
        }
    }
}

#[test]
fn one_leads_and_goes_on_leading() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    let leader = world.leader().expect("a leader");
    world.run(Duration::from_secs(600));
    assert_eq!((world.leader(), world.transitions()), (Some(leader), Some(0)));
}

#[test]
fn one_that_ends_is_followed_after_the_lease_and_not_before() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    // Killed, it asks for nothing more; it renewed within the last 2 s.
    world.candidates[first].paused = true;
    world.run(Duration::from_millis(12_900));
    assert_eq!(world.leader(), None, "the lease is good for 15 s after its renewal");
    // It may be seen 4.4 s late that it was renewed, and 4.4 s late that this was 15 s ago.
    world.run(Duration::from_secs(11));
    assert!(world.leader().is_some_and(|second| second != first));
    assert_eq!(world.transitions(), Some(1));
}

/// The order that keeps two from leading: `run` asserts it at every instant.
#[test]
fn one_that_cannot_renew_stops_before_another_may_begin() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    world.candidates[first].cut_off = true;
    world.run(Duration::from_secs(11));
    assert_eq!(world.leader(), None, "it stops after 10 s");
    world.run(Duration::from_secs(13));
    assert_eq!(world.leader(), Some(1 - first));
    // What it asked for long ago is answered now, and it sees that another one leads.
    world.candidates[first].cut_off = false;
    world.run(Duration::from_secs(60));
    assert_eq!((world.leader(), world.transitions()), (Some(1 - first), Some(1)));
}

#[test]
fn one_that_was_paused_stops_at_the_first_thing_it_does() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    world.candidates[first].paused = true;
    world.run(Duration::from_secs(30));
    assert_eq!(world.leader(), Some(1 - first));
    assert!(world.candidates[first].leads, "it does not know yet");
    world.candidates[first].paused = false;
    world.turn(first);
    assert!(!world.candidates[first].leads);
    world.run(Duration::from_secs(60));
    assert_eq!(world.leader(), Some(1 - first));
}

#[test]
fn one_that_pauses_for_less_than_the_deadline_goes_on() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    world.candidates[first].paused = true;
    world.run(Duration::from_secs(7));
    world.candidates[first].paused = false;
    world.run(Duration::from_secs(60));
    assert_eq!((world.leader(), world.transitions()), (Some(first), Some(0)));
}

#[test]
fn one_that_ends_well_is_followed_at_once() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    let clocks = world.clocks();
    world.candidates[first].step(clocks, |elector, ctx| elector.handle(Event::End, ctx));
    assert!(!world.candidates[first].leads, "it stops before it lets go");
    // As the others look every 2 s to 4.4 s.
    world.run(Duration::from_millis(4_500));
    assert!(world.candidates[first].ended);
    assert!(world.leader().is_some_and(|second| second != first));
    assert_eq!(world.transitions(), Some(1));
    world.run(Duration::from_secs(60));
    assert!(world.candidates[first].calls.is_empty() && !world.candidates[first].leads);
}

/// It ends while a renewal of it is under way, which makes another version of the lease.
#[test]
fn one_that_ends_amid_a_renewal_lets_go_as_well() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    world.candidates[first].cut_off = true;
    while world.candidates[first].calls.is_empty() {
        world.run(MS);
    }
    let clocks = world.clocks();
    world.candidates[first].step(clocks, |elector, ctx| elector.handle(Event::End, ctx));
    assert!(!world.candidates[first].ended);
    world.candidates[first].cut_off = false;
    world.run(Duration::from_millis(4_500));
    assert!(world.candidates[first].ended);
    assert_eq!((world.leader(), world.transitions()), (Some(1 - first), Some(1)));
}

#[test]
fn one_that_does_not_lead_just_ends() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(5));
    let first = world.leader().expect("a leader");
    let clocks = world.clocks();
    world.candidates[1 - first].step(clocks, |elector, ctx| elector.handle(Event::End, ctx));
    world.run(Duration::from_secs(60));
    assert!(world.candidates[1 - first].ended);
    assert_eq!((world.leader(), world.transitions()), (Some(first), Some(0)));
}
