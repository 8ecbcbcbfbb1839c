//! What the command writes: lines as things happen, a table at the end, or JSON.

use crate::run::Stage;
use indicatif::ProgressBar;
use kubesim_runtime::Time;
use kubesim_sim::report::NotJudged;
use kubesim_sim::scenario::Scenario;
use kubesim_sim::{Observer, Outcome, Report};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Where text goes.
pub struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Draw progress on standard error.
    pub progress: bool,
    /// What is being written, as a sentence names it.
    what: String,
    /// Nobody reads `out` any more (`| head`), or it takes no more: the run goes on to its exit
    /// status without words.
    closed: bool,
    /// It takes no more: what was to be read there is lost.
    lost: bool,
}

impl Output {
    pub fn new(out: Box<dyn Write>, err: Box<dyn Write>, progress: bool) -> Output {
        let what = "the output".to_owned();
        Output { out, err, progress, what, closed: false, lost: false }
    }

    /// What the next lines are: "the results of x.toml".
    pub(crate) fn begin(&mut self, what: impl Into<String>) {
        self.what = what.into();
    }

    pub(crate) fn line(&mut self, text: &str) {
        if self.closed {
            return;
        }
        let written = writeln!(self.out, "{text}");
        self.check(written);
    }

    pub(crate) fn flush(&mut self) {
        if !self.closed {
            let flushed = self.out.flush();
            self.check(flushed);
        }
    }

    /// Whether something could not be written that somebody waits for.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }

    /// A reader that has gone wants no more: that is no failure, and all others are.
    fn check(&mut self, result: std::io::Result<()>) {
        let Err(error) = result else { return };
        self.closed = true;
        if error.kind() == ErrorKind::BrokenPipe {
            return;
        }
        self.lost = true;
        let what = &self.what;
        let why = format!("error: cannot write {what} to standard output: {error}");
        self.complain(&format!("{why}; redirect it to a file that can grow"));
    }

    /// To standard error; nobody to read it is nobody to tell.
    pub(crate) fn complain(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", text.trim_end());
    }
}

/// Characters of a measured value in a table.
const MEASURED: usize = 100;

/// A finished run, where it was played, and how long it took.
pub struct Result {
    pub world: Stage,
    pub report: Report,
    pub wall: Duration,
}

impl Result {
    pub fn failed(&self) -> bool {
        self.report.outcome == Outcome::Failed
    }
    /// Real kernels do nothing twice alike, so there is none of a run on them.
    fn digest(&self) -> Option<String> {
        let modelled = self.world == Stage::Sim;
        modelled.then(|| format!("{:016x}", self.report.digest))
    }
    fn verdict(&self) -> &'static str {
        match self.failed() {
            true => "failed",
            false if self.report.interrupted => "interrupted",
            false => "passed",
        }
    }
}

/// Shows a run while it goes on.
pub struct Live<'a> {
    output: &'a mut Output,
    bar: Option<&'a ProgressBar>,
    lines: bool,
    speed: Speedometer,
}

impl<'a> Live<'a> {
    pub fn new(output: &'a mut Output, bar: Option<&'a ProgressBar>, lines: bool) -> Live<'a> {
        let speed = Speedometer { since: (Instant::now(), Time::ZERO), times: None };
        Live { output, bar, lines, speed }
    }
}

/// How fast a run goes.
struct Speedometer {
    since: (Instant, Time),
    times: Option<f64>,
}

impl Speedometer {
    /// ` at 10x`; empty in the first second.
    fn at(&mut self, at: Time) -> String {
        let (wall, before) = self.since;
        let passed = wall.elapsed();
        if passed >= Duration::from_secs(1) {
            self.times = Some(at.since(before).as_secs_f64() / passed.as_secs_f64());
            self.since = (Instant::now(), at);
        }
        match self.times {
            None => String::new(),
            Some(times) if times < 9.95 => format!(" at {times:.1}x"),
            Some(times) => format!(" at {times:.0}x"),
        }
    }
}

impl Observer for Live<'_> {
    fn line(&mut self, at: Time, who: &str, text: &str) {
        if self.lines {
            let output = &mut *self.output;
            hidden(self.bar, || output.line(&format!("{:>10}  {who}: {text}", at.to_string())));
        }
    }

    fn progress(&mut self, at: Time, of: Duration, events: u64) {
        if let Some(bar) = self.bar {
            bar.set_position(at.as_millis());
            let speed = self.speed.at(at);
            bar.set_message(format!("{at} of {} s{speed}, {events} events", of.as_secs()));
        }
    }
}

/// Watches nothing: many seeds at a time.
pub struct Silent;

impl Observer for Silent {
    fn line(&mut self, _at: Time, _who: &str, _text: &str) {}
    fn progress(&mut self, _at: Time, _of: Duration, _events: u64) {}
}

/// Takes the bar away while something else is written.
pub fn hidden(bar: Option<&ProgressBar>, write: impl FnOnce()) {
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

pub fn header(output: &mut Output, scenario: &Scenario, seed: u64) {
    let profile = scenario.profile.as_ref();
    let under = profile.map_or_else(String::new, |p| format!(", profile {}", p.name));
    output.line(&format!("{}: {} (seed {seed}{under})", scenario.name, scenario.title));
    if let Some(profile) = profile.filter(|profile| !profile.shows.is_empty()) {
        output.line(&format!("expected under this profile: {}", profile.shows));
    }
}

/// The expectations with what was measured, and how the run ended.
pub fn table(output: &mut Output, shown: &Result) {
    let report = &shown.report;
    let width = report.expectations.iter().map(|e| e.name.chars().count()).max().unwrap_or(0);
    output.line("");
    for expectation in &report.expectations {
        let word = match expectation.outcome {
            Outcome::Passed => "held",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        // Padding counts characters, as the terminal does.
        let pad = " ".repeat(width - expectation.name.chars().count());
        let skipped = expectation.outcome == Outcome::Skipped;
        let measured = if skipped { &expectation.reason } else { &expectation.measured };
        let measured = clipped(measured);
        let line = format!("{word:<7}  {}{pad}  {measured}", expectation.name);
        output.line(line.trim_end());
        if !expectation.reason.is_empty() && !skipped {
            output.line(&format!("         {}", expectation.reason));
        }
    }
    for (name, value) in &report.measures {
        output.line(&format!("{name}: {value}"));
    }
    for NotJudged { invariants, reason } in &report.not_judged {
        output.line(&format!("not judged: {}: {reason}", invariants.join(", ")));
    }
    if let Some(failure) = &report.failure {
        output.line(&format!("FAILED   {failure}"));
    }
    output.line(&closing(shown));
}

/// A measured value on one line of a table, at most [`MEASURED`] characters; JSON has it whole.
fn clipped(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MEASURED {
        return line;
    }
    let kept: String = line.chars().take(MEASURED - 1).collect();
    format!("{}…", kept.trim_end())
}

/// `x: passed, seed 1, digest 0123..., 180.0 s in 0.42 s (428 times real time), 9 events`
fn closing(shown: &Result) -> String {
    let Report { scenario, seed, virtual_time, events, .. } = &shown.report;
    let (of, wall) = (virtual_time.as_secs_f64(), shown.wall.as_secs_f64());
    let digest = shown.digest().map_or_else(String::new, |digest| format!(", digest {digest}"));
    format!(
        "{scenario}: {}, seed {seed}{digest}, {of:.1} s in {wall:.2} s \
         ({:.0} times real time), {events} events",
        shown.verdict(),
        if wall > 0.0 { of / wall } else { 0.0 },
    )
}

/// One of many seeds.
pub fn seed_line(output: &mut Output, shown: &Result) {
    let report = &shown.report;
    let failed = report.expectations.iter().filter(|e| e.outcome == Outcome::Failed);
    let mut why: Vec<&str> = failed.map(|e| e.name.as_str()).collect();
    why.extend(report.failure.as_deref());
    let mut line = format!(
        "seed {:<6} {}  digest {:016x}  {} events",
        report.seed,
        shown.verdict(),
        report.digest,
        report.events
    );
    if !why.is_empty() {
        line += &format!("  {}", why.join("; "));
    }
    output.line(&line);
}

/// What many seeds say together.
#[derive(Default)]
pub struct Summary {
    runs: u64,
    failed: Vec<u64>,
    /// By expectation, in their order: how many runs failed it, the first seed and its reason.
    reasons: BTreeMap<(usize, String), (u64, u64, String)>,
    /// By invariants: in how many runs they were not judged, the first seed and its reason.
    not_judged: BTreeMap<String, (u64, u64, String)>,
    wall: Duration,
}

impl Summary {
    pub fn add(&mut self, shown: &Result) {
        let report = &shown.report;
        self.runs += 1;
        self.wall += shown.wall;
        if shown.failed() {
            self.failed.push(report.seed);
        }
        let expectations = report.expectations.iter().enumerate();
        let failed = expectations.filter(|(_, e)| e.outcome == Outcome::Failed);
        for (place, expectation) in failed {
            let first = || (0, report.seed, expectation.reason.clone());
            let key = (place, expectation.name.clone());
            self.reasons.entry(key).or_insert_with(first).0 += 1;
        }
        for NotJudged { invariants, reason } in &report.not_judged {
            let first = || (0, report.seed, reason.clone());
            self.not_judged.entry(invariants.join(", ")).or_insert_with(first).0 += 1;
        }
        if let Some(failure) = &report.failure {
            let key = (usize::MAX, failure.clone());
            self.reasons.entry(key).or_insert((0, report.seed, String::new())).0 += 1;
        }
    }

    pub fn first_failed(&self) -> Option<u64> {
        self.failed.first().copied()
    }

    pub fn show(&self, output: &mut Output, scenario: &Scenario) {
        output.line("");
        for ((_, name), (times, seed, reason)) in &self.reasons {
            output.line(&format!("FAILED   {name}: {times} of {}, first seed {seed}", self.runs));
            if !reason.is_empty() {
                output.line(&format!("         {reason}"));
            }
        }
        for (invariants, (times, seed, reason)) in &self.not_judged {
            let of = format!("{times} of {}, first seed {seed}", self.runs);
            output.line(&format!("not judged: {invariants}: {of}: {reason}"));
        }
        let passed = self.runs - self.failed.len() as u64;
        output.line(&format!(
            "{}: {passed} of {} seeds passed, {:.1} s of processor time",
            scenario.name,
            self.runs,
            self.wall.as_secs_f64()
        ));
    }
}

/// One object on one line.
pub fn json(output: &mut Output, shown: &Result) {
    #[derive(Serialize)]
    struct Expectation<'a> {
        name: &'a str,
        outcome: &'static str,
        measured: &'a str,
        reason: &'a str,
    }
    #[derive(Serialize)]
    struct Unjudged<'a> {
        invariants: &'a [String],
        reason: &'a str,
    }
    #[derive(Serialize)]
    struct Whole<'a> {
        scenario: &'a str,
        world: Stage,
        profile: Option<&'a str>,
        seed: u64,
        outcome: &'static str,
        digest: Option<String>,
        virtual_seconds: f64,
        wall_seconds: f64,
        events: u64,
        expectations: Vec<Expectation<'a>>,
        measures: BTreeMap<&'a str, &'a str>,
        not_judged: Vec<Unjudged<'a>>,
        failure: Option<&'a str>,
    }
    let report = &shown.report;
    let expectations = report.expectations.iter().map(|expectation| Expectation {
        name: &expectation.name,
        outcome: match expectation.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        },
        measured: &expectation.measured,
        reason: &expectation.reason,
    });
    let not_judged = report.not_judged.iter();
    let not_judged =
        not_judged.map(|NotJudged { invariants, reason }| Unjudged { invariants, reason });
    let whole = Whole {
        scenario: &report.scenario,
        world: shown.world,
        profile: report.profile.as_deref(),
        seed: report.seed,
        outcome: shown.verdict(),
        digest: shown.digest(),
        virtual_seconds: report.virtual_time.as_secs_f64(),
        wall_seconds: shown.wall.as_secs_f64(),
        events: report.events,
        expectations: expectations.collect(),
        measures: report.measures.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        not_judged: not_judged.collect(),
        failure: report.failure.as_deref(),
    };
    let text = serde_json::to_string(&whole).expect("texts, numbers and lists are JSON");
    output.line(&text);
}
