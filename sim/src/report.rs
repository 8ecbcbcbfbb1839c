//! What a run is asked for and what it tells: no I/O, the command decides where it goes.

use kubesim_runtime::Time;
use std::time::Duration;

/// What a run is given besides its scenario.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub seed: u64,
    /// Stop here instead of at the scenario's end; what is due later is not judged.
    pub until: Option<Duration>,
    pub trace: Trace,
    /// Steps of each actor kept for the report of a failure.
    pub keep_steps: usize,
}

/// What the observer is told besides remarks. Empty `nodes` means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub packets: bool,
    /// Every event of every actor, with its effects.
    pub events: bool,
    /// Every call of the API and its answer.
    pub api: bool,
    pub nodes: Vec<String>,
}

impl Trace {
    pub fn wants(&self, node: &str) -> bool {
        self.nodes.is_empty() || self.nodes.iter().any(|name| name == node)
    }
}

/// Told while the run goes on.
pub trait Observer {
    /// Something a person wants to see; `who` is `netd@laptop`, `kernel@n1`, `fault`, `probe`.
    fn line(&mut self, at: Time, who: &str, text: &str);
    /// Now and then.
    fn progress(&mut self, at: Time, of: Duration, events: u64);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// Not judged: the run ended before.
    Skipped,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub scenario: String,
    pub profile: Option<String>,
    pub seed: u64,
    pub outcome: Outcome,
    /// Somebody ended it before it was over: what was due later is not judged.
    pub interrupted: bool,
    /// Of every event of every actor and every packet.
    /// Zero for a run on real kernels, which do nothing twice alike.
    pub digest: u64,
    pub virtual_time: Duration,
    pub events: u64,
    pub expectations: Vec<Expectation>,
    /// Name and value, in the order in which they are shown.
    pub measures: Vec<(String, String)>,
    /// Invariants that the scenario wants judged and that were not.
    pub not_judged: Vec<NotJudged>,
    /// Why the run itself failed: an invariant, a panic of an actor.
    pub failure: Option<String>,
    /// Every invariant that broke, with its time and how.
    pub violations: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Expectation {
    pub name: String,
    pub outcome: Outcome,
    /// With its unit: `1.204 s`, `0 of 20000`.
    pub measured: String,
    /// Why it failed; empty when it held.
    pub reason: String,
}

/// Invariants that were not judged, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJudged {
    /// Their ids: `I2`, `I5`.
    pub invariants: Vec<String>,
    pub reason: String,
}
