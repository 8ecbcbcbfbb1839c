//! What an event costs besides what the actor does with it: the queue, and a step of a small actor
//! among 10,000.

#[path = "common/allocator.rs"]
mod allocator;

use criterion::{Criterion, criterion_group, criterion_main};
use kubesim_runtime::{
    Actor, Answers, Clocks, Context, Digest, Effect, Hasher, Rng, Stream, Time, Wall,
};
use kubesim_sim::queue::{Calendar, Heap};
use kubesim_sim::world::fleet::{Fleet, Input, Pending};
use std::hint::black_box;
use std::time::Duration;

const NODES: u32 = 10_000;

fn dice() -> Rng {
    Rng::new(Stream { seed: 1, label: "bench", index: 0, incarnation: 0 })
}

/// Whole milliseconds, up to so many: as kubelets, leases and probes have them.
fn delays(longest: u64) -> Vec<Duration> {
    let mut rng = dice();
    (0..1 << 16).map(|_| Duration::from_millis(1 + rng.u64() % longest)).collect()
}

macro_rules! pop_and_push_again {
    ($group:expr, $queue:ty, $name:literal, $longest:literal) => {
        let delays = delays($longest);
        let mut queue = <$queue>::default();
        for node in 0..NODES {
            queue.push(Time::ZERO + delays[node as usize], node);
        }
        let mut turn = 0;
        $group.bench_function($name, |bencher| {
            bencher.iter(|| {
                let (now, node) = queue.pop().expect("every timer is set again");
                turn = (turn + 1) % delays.len();
                queue.push(now + delays[turn], node);
                black_box(node)
            });
        });
    };
}

/// The calendar's ring reaches about two seconds ahead.
fn queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue, 10,000 timers: pop, push again");
    pop_and_push_again!(group, Calendar<u32>, "Calendar, delays up to 2 s", 2_000);
    pop_and_push_again!(group, Heap<u32>, "Heap, delays up to 2 s", 2_000);
    pop_and_push_again!(group, Calendar<u32>, "Calendar, delays up to 10 s", 10_000);
    pop_and_push_again!(group, Heap<u32>, "Heap, delays up to 10 s", 10_000);
    group.finish();
}

/// Asks when its alarm rings, and sets it again when it is answered.
#[derive(Clone, Debug)]
struct Small {
    answers: u64,
}

#[derive(Clone, Debug)]
struct Answer(u64);

impl Digest for Answer {
    fn digest(&self, hasher: &mut Hasher) {
        hasher.u64(self.0);
    }
}

#[derive(Clone, Debug)]
struct Ask(u64);

impl Effect for Ask {
    fn answers(&self) -> Answers {
        Answers::One
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Tick;

impl Small {
    fn wait(ctx: &mut Context<'_, Small>) {
        let delay = Duration::from_millis(1 + ctx.rng().u64() % 10_000);
        ctx.set_timer(Tick, delay);
    }
}

impl Actor for Small {
    const NAME: &'static str = "small";
    type Config = ();
    type Event = Answer;
    type Effect = Ask;
    type Timer = Tick;

    fn start((): &(), ctx: &mut Context<'_, Self>) -> Self {
        Small::wait(ctx);
        Small { answers: 0 }
    }
    fn handle(&mut self, Answer(number): Answer, ctx: &mut Context<'_, Self>) {
        self.answers += number & 1;
        Small::wait(ctx);
    }
    fn timeout(&mut self, Tick: Tick, ctx: &mut Context<'_, Self>) {
        ctx.perform(Ask(self.answers));
    }
}

#[derive(Clone, Copy)]
enum Item {
    Alarm { host: u32, id: u32 },
    Event(usize),
}

/// The event loop with nothing but the small actors.
struct Loop {
    queue: Calendar<Item>,
    fleet: Fleet<Small>,
    digest: Hasher,
    rings: Vec<(Time, u32)>,
}

impl Loop {
    fn new() -> Loop {
        let mut this = Loop {
            queue: Calendar::default(),
            fleet: Fleet::new(1, false, 0),
            digest: Hasher::default(),
            rings: Vec::new(),
        };
        for machine in 0..NODES {
            let host = this.fleet.add(machine, ());
            this.step(host, Time::ZERO, Input::Start);
        }
        this
    }

    /// One event: popped, handled, and what it asked for put into the queue.
    fn next(&mut self) {
        let (now, item) = self.queue.pop().expect("every actor waits for something");
        match item {
            Item::Alarm { host, id } => {
                if self.fleet.admits(host, 0, &Input::Alarm { id }) {
                    self.step(host, now, Input::Alarm { id });
                }
            }
            Item::Event(slot) => {
                let Pending { host, incarnation, ticket, event } = self.fleet.events.remove(slot);
                let input = Input::Event { ticket, event };
                if self.fleet.admits(host, incarnation, &input) {
                    self.step(host, now, input);
                }
            }
        }
    }

    fn step(&mut self, host: u32, now: Time, input: Input<Small>) {
        let clocks = Clocks { now, boot: now, wall: Wall::default() };
        let paid = self.fleet.step(host, clocks, input, &mut self.digest);
        paid.expect("an answer comes once");
        let mut timers = std::mem::take(&mut self.fleet.outbox.timers);
        self.fleet.set_alarms(host, &mut timers, &mut self.rings);
        self.fleet.outbox.timers = timers;
        for (at, id) in self.rings.drain(..) {
            self.queue.push(at, Item::Alarm { host, id });
        }
        let mut effects = std::mem::take(&mut self.fleet.outbox.effects);
        for (ticket, Ask(number)) in effects.drain(..) {
            self.fleet.owe(host, ticket, now);
            let (ticket, event) = (Some(ticket), Answer(number + 1));
            let slot = self.fleet.events.insert(Pending { host, incarnation: 0, ticket, event });
            self.queue.push(now + Duration::from_millis(1), Item::Event(slot));
        }
        self.fleet.outbox.effects = effects;
    }
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event loop, 10,000 small actors");
    let mut world = Loop::new();
    group.bench_function("pop, step, alarms and answers", |bencher| bencher.iter(|| world.next()));
    group.finish();
}

criterion_group!(benches, queues, steps);
criterion_main!(benches);
