//! Runs with visitors (`world::visitors`): what these wrote and when, so that a run can be played
//! again.
//!
//! A run is the function of its scenario, its seed and its [`Record`]. Whoever plays one moves it
//! as a [`Visited`], with people at the door ([`Visited::visit`]) or from a record ([`replay`]), so
//! both take the same steps. `text` is how a record is kept.

#[cfg(test)]
mod tests;
mod text;

use crate::report::{Observer, Options, Outcome, Report};
use crate::run::Stage;
use crate::scenario::Scenario;
use crate::world::World;
use kubesim_actors::ports::api::Request;
use kubesim_runtime::Time;
use std::sync::Arc;

/// One write from outside.
#[derive(Clone, Debug)]
pub struct Visit {
    pub at: Time,
    pub request: Arc<Request>,
    /// Only tried.
    pub dry_run: bool,
}

/// Which run a record is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Of {
    /// The scenario's name.
    pub scenario: String,
    pub profile: Option<String>,
    pub seed: u64,
}

/// Where a run was left, and what it had come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub at: Time,
    pub digest: u64,
}

/// What was written from outside during a run.
#[derive(Clone, Debug)]
pub struct Record {
    pub of: Of,
    /// In the order in which they came in.
    pub visits: Vec<Visit>,
    /// `None` of a run whose process was killed.
    pub end: Option<End>,
}

impl Of {
    pub fn new(scenario: &Scenario, seed: u64) -> Of {
        let profile = scenario.profile.as_ref().map(|profile| profile.name.clone());
        Of { scenario: scenario.name.clone(), profile, seed }
    }
}

/// A run with visitors, under way.
pub struct Visited {
    stage: Stage,
    /// Once the scenario is over.
    report: Option<Report>,
}

impl Visited {
    pub fn new(scenario: &Arc<Scenario>, options: &Options) -> Visited {
        Visited { stage: Stage::modelled(scenario, options), report: None }
    }

    pub fn world(&mut self) -> &mut World {
        &mut self.stage.world
    }

    pub fn now(&self) -> Time {
        self.stage.world.now
    }

    /// When the scenario is over.
    pub fn end(&self) -> Time {
        self.stage.end()
    }

    /// The scenario is over and the run judged, whether it goes on or not.
    pub fn is_over(&self) -> bool {
        self.report.is_some()
    }

    /// Moves to an instant. At the scenario's end the run is judged; beyond it goes on unjudged.
    pub fn move_to(&mut self, to: Time, observer: &mut dyn Observer) {
        let end = self.end();
        if self.report.is_none() && to < end {
            return self.stage.move_to(to, observer);
        }
        if self.report.is_none() {
            self.stage.advance_to(end, observer);
            self.report = Some(self.stage.finish());
        }
        self.stage.go_on_to(to, observer);
    }

    /// A visitor's write comes in, behind all that is due now: its number, and what is to be kept
    /// of it. `None`, and nothing happens, while no API server takes writes.
    pub fn visit(&mut self, request: Arc<Request>, dry_run: bool) -> Option<(u64, Visit)> {
        let at = self.now();
        self.stage.world.run_until(at);
        let call = self.stage.world.visit(Arc::clone(&request), dry_run)?;
        Some((call, Visit { at, request, dry_run }))
    }

    /// Ends it behind all that is due now, wherever that is.
    pub fn finish(mut self, observer: &mut dyn Observer) -> (Report, End) {
        let at = self.now();
        self.stage.world.run_until(at);
        let report = self.report.take().unwrap_or_else(|| {
            self.stage.look(observer);
            self.stage.end_here();
            self.stage.finish()
        });
        (report, End { at, digest: self.stage.world.digest.finish() })
    }
}

/// Plays a run again with what was written from outside, until where it was left or to
/// `options.until`. One that comes to something else than it did has failed.
pub fn replay(
    scenario: &Arc<Scenario>,
    options: &Options,
    record: &Record,
    observer: &mut dyn Observer,
) -> Report {
    let mut run = Visited::new(scenario, options);
    let last = match (record.end, record.visits.last()) {
        (Some(end), _) => end.at,
        (None, Some(visit)) => visit.at.max(run.end()),
        (None, None) => run.end(),
    };
    let stop = options.until.map_or(last, |until| last.min(Time::ZERO + until));
    for visit in record.visits.iter().take_while(|visit| visit.at <= stop) {
        run.move_to(visit.at, observer);
        run.visit(Arc::clone(&visit.request), visit.dry_run);
    }
    run.move_to(stop, observer);
    let (mut report, end) = run.finish(observer);
    if let Some(recorded) = record.end.filter(|recorded| recorded.at == stop && *recorded != end) {
        report.outcome = Outcome::Failed;
        let (was, is) = (recorded.digest, end.digest);
        report.failure.get_or_insert(format!(
            "this is not the run that was recorded: at {stop} its digest was {was:016x} and is \
             {is:016x}; it had other settings (--set), or another file or another kubesim played it"
        ));
    }
    report
}
