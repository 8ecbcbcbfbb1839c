//! A whole run: the world is built, moved through virtual time, looked at, and judged.

use crate::judge::Judge;
use crate::oracles::Oracles;
use crate::report::{self, Observer, Options, Outcome, Report};
use crate::scenario::{Expect, Expectation, Scenario};
use crate::world::{self, Kill, Knobs, World};
use kubesim_runtime::Time;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What tests ask of a run beyond [`Options`].
#[derive(Clone, Debug, Default)]
pub struct Inject {
    pub kill: Option<Kill>,
    /// The run goes on, unjudged but watched by the invariants, until so long after the kill.
    pub settle: Duration,
    /// Run without the memos of snapshots.
    pub forgets: bool,
    /// Remember the digest after every so many events.
    pub checkpoints: u64,
}

/// Plays a scenario to its end, or to `options.until`.
pub fn run(scenario: &Scenario, options: &Options, observer: &mut dyn Observer) -> Report {
    let scenario = Arc::new(scenario.clone());
    play(&scenario, options, Inject::default(), observer).0
}

/// The same with a crash to inject; returns the world as it was left, unless an actor panicked.
pub fn play(
    scenario: &Arc<Scenario>,
    options: &Options,
    inject: Inject,
    observer: &mut dyn Observer,
) -> (Report, Option<World>) {
    let knobs = Knobs {
        kill: inject.kill,
        forgets: inject.forgets,
        checkpoints: inject.checkpoints,
        ..knobs(scenario, options)
    };
    let mut stage = Stage::new(scenario, options, knobs);
    let went = catch_unwind(AssertUnwindSafe(|| {
        stage.advance_to(stage.end, observer);
        stage.judge(inject.settle)
    }));
    match went {
        Ok(expectations) => (stage.report(expectations), Some(stage.world)),
        Err(panic) => (panicked(&stage.world, scenario, options, &*panic), None),
    }
}

fn knobs(scenario: &Scenario, options: &Options) -> Knobs {
    Knobs {
        seed: options.seed,
        trace: options.trace.clone(),
        notes: wants_notes(scenario, options),
        // Every kept step is formatted: a big run would spend its time on it.
        keep_steps: if scenario.nodes.len() > 50 { 0 } else { options.keep_steps },
        ..Knobs::default()
    }
}

/// A run under way: a world and who looks at it.
pub struct Stage {
    pub world: World,
    judge: Judge,
    oracles: Oracles,
    seed: u64,
    end: Time,
    progress: Time,
    /// When the next look is due, of a world that is moved here.
    look_at: Time,
    period: Duration,
}

impl Stage {
    fn new(scenario: &Arc<Scenario>, options: &Options, knobs: Knobs) -> Stage {
        let world = world::build(scenario, knobs);
        let end = Time::ZERO + options.until.unwrap_or(scenario.duration).min(scenario.duration);
        Stage {
            judge: Judge::new(&world),
            period: Judge::period(&world),
            oracles: Oracles::new(scenario),
            world,
            seed: options.seed,
            end,
            progress: Time::ZERO,
            look_at: Time::ZERO,
        }
    }

    /// With nodes that are played elsewhere (see [`world::external`]) and a world that is moved by
    /// whoever plays them.
    pub fn external(scenario: &Arc<Scenario>, options: &Options) -> Stage {
        let knobs =
            Knobs { external: true, notes: true, visitors: true, ..knobs(scenario, options) };
        Stage::new(scenario, options, knobs)
    }

    /// With modelled nodes; moved by [`Stage::advance_to`].
    pub fn modelled(scenario: &Arc<Scenario>, options: &Options) -> Stage {
        Stage::new(scenario, options, knobs(scenario, options))
    }

    /// When the run is over.
    pub fn end(&self) -> Time {
        self.end
    }

    /// How often to [`Stage::look`].
    pub fn period(&self) -> Duration {
        self.period
    }

    /// When to look next, at the latest: what has to be so by then is judged as it is then.
    pub fn next_due(&self) -> Option<Time> {
        self.judge.next_due(&self.world)
    }

    /// Looks at the world as it is now, and tells the observer what was said since the last time.
    pub fn look(&mut self, observer: &mut dyn Observer) {
        self.tell(observer);
        self.judge.look(&self.world);
        self.oracles.look(&self.world);
    }

    fn tell(&mut self, observer: &mut dyn Observer) {
        for line in self.world.lines.drain(..) {
            observer.line(line.at, &line.who, &line.text);
        }
        if self.world.now >= self.progress {
            let of = self.end.since(Time::ZERO);
            observer.progress(self.world.now, of, self.world.counts.events);
            self.progress = self.world.now + Duration::from_secs(1);
        }
    }

    /// Moves the world to an instant, a look at a time, the last one there.
    pub fn advance_to(&mut self, end: Time, observer: &mut dyn Observer) {
        self.move_to(end, observer);
        if self.look_at != end + self.period() {
            self.look(observer);
        }
    }

    /// Moves the world to an instant. Whoever moves it by small steps has it looked at when one
    /// who moves it all the way has.
    pub fn move_to(&mut self, to: Time, observer: &mut dyn Observer) {
        loop {
            let next = self.next_due().map_or(self.look_at, |due| due.min(self.look_at));
            if next > to {
                break;
            }
            self.world.run_until(next);
            self.look(observer);
            if next == self.look_at {
                self.look_at += self.period;
            }
        }
        self.world.run_until(to);
    }

    /// The same of a world that is judged no more.
    pub fn go_on_to(&mut self, to: Time, observer: &mut dyn Observer) {
        self.world.run_until(to);
        self.tell(observer);
    }

    /// The run is over now; what is due later is not judged.
    pub fn end_here(&mut self) {
        self.end = self.world.now;
    }

    /// By `--until`, or by hand.
    fn cut_short(&self) -> bool {
        self.end < Time::ZERO + self.world.scenario.duration
    }

    /// The last look at everything, the injected kill's aftermath included.
    fn judge(&mut self, after_kill: Duration) -> Vec<report::Expectation> {
        let cut_short = self.cut_short();
        let expectations = self.judge.finish(&self.world, cut_short);
        settle(&mut self.world, after_kill, &mut self.oracles);
        self.oracles.finish(&mut self.world, cut_short);
        expectations
    }

    /// The last look, and what came of it all.
    pub fn finish(&mut self) -> Report {
        let expectations = self.judge(Duration::ZERO);
        self.report(expectations)
    }

    fn report(&self, expectations: Vec<report::Expectation>) -> Report {
        let world = &self.world;
        let failure = first_failure(world, &self.oracles, self.cut_short());
        let failed = failure.is_some() || expectations.iter().any(|e| e.outcome == Outcome::Failed);
        Report {
            scenario: world.scenario.name.clone(),
            profile: world.scenario.profile.as_ref().map(|profile| profile.name.clone()),
            seed: self.seed,
            outcome: if failed { Outcome::Failed } else { Outcome::Passed },
            interrupted: false,
            // Real kernels do nothing twice alike.
            digest: if world.knobs.external { 0 } else { world.digest.finish() },
            virtual_time: world.now.since(Time::ZERO),
            events: world.counts.events,
            expectations,
            measures: measures(world),
            not_judged: self.oracles.not_judged.clone(),
            failure,
            violations: [&self.oracles.violations[..], &world.violations].concat(),
        }
    }
}

/// In a big cluster the actors' own remarks would drown what happens to it: they are made where
/// somebody asked for a node, or an expectation reads them.
fn wants_notes(scenario: &Scenario, options: &Options) -> bool {
    let says = |e: &Expectation| matches!(e.expect, Expect::Says { .. });
    let read = scenario.expectations.iter().any(says);
    scenario.nodes.len() <= 50 || read || !options.trace.nodes.is_empty()
}

/// Runs on until `after` past the injected kill.
fn settle(world: &mut World, after: Duration, oracles: &mut Oracles) {
    let Some(killed) = world.killed else { return };
    while world.now < killed + after {
        world.run_until((world.now + Duration::from_millis(500)).min(killed + after));
        oracles.look(world);
    }
    world.lines.clear();
}

fn first_failure(world: &World, oracles: &Oracles, cut_short: bool) -> Option<String> {
    let broken = oracles.violations.first().cloned();
    let broken = broken.or_else(|| world.violations.first().cloned());
    // A refused manifest, and a fault that was none, come first: the rest follows from them.
    let unapplied = || world.first_unapplied().map(str::to_owned);
    let unanswered = || world.unanswered_write().filter(|_| !cut_short);
    world.refused_write().or_else(unapplied).or_else(unanswered).or(broken)
}

fn panicked(
    world: &World,
    scenario: &Scenario,
    options: &Options,
    panic: &(dyn std::any::Any + Send),
) -> Report {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text =
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    Report {
        scenario: scenario.name.clone(),
        profile: scenario.profile.as_ref().map(|profile| profile.name.clone()),
        seed: options.seed,
        outcome: Outcome::Failed,
        interrupted: false,
        digest: world.digest.finish(),
        virtual_time: world.now.since(Time::ZERO),
        events: world.counts.events,
        expectations: Vec::new(),
        measures: Vec::new(),
        not_judged: Vec::new(),
        failure: Some(format!("panic at {}: {text}", world.now)),
        violations: Vec::new(),
    }
}

fn measures(world: &World) -> Vec<(String, String)> {
    let counts = &world.counts;
    let mut measures = vec![
        ("actor events", counts.actor_events),
        ("packets delivered", counts.packets),
        ("packets inside machines", counts.local_packets),
        ("packets lost", world.wire.lost),
        ("API writes", counts.api_writes),
        ("API reads", counts.api_reads),
        ("news told", counts.news),
    ];
    if world.knobs.external {
        // The rest happens elsewhere.
        measures.retain(|(name, _)| ["packets delivered", "packets lost"].contains(name));
    }
    let mut measures: Vec<(String, String)> =
        measures.into_iter().map(|(name, count)| (name.to_owned(), count.to_string())).collect();
    for fault in &world.happened {
        if let (Some(began), Some(acquired)) = (fault.began, fault.address_acquired) {
            let outage = acquired.since(began).as_secs_f64();
            measures.push((format!("outage of {}", fault.name), format!("{outage:.3} s")));
        }
    }
    measures
}
