//! `kubesim parity`: one scenario in both worlds, and side by side what an operator could see.
//!
//! Looked at are the moments before each fault and the end, and how the runs went. What must differ
//! is masked (`mask`): who got which pod subnet, names and addresses that dice gave, times.
//!
//! - `tables`: what the network of a node has; of the lab's nodes their kernel says it itself.
//!   `chains`, `connections` and `others` are parts of it
//! - `look`: one look at the lab
//! - `view`: what both worlds show at a moment
//! - `diff`: two lists of lines side by side

mod chains;
mod connections;
mod diff;
mod look;
mod mask;
mod others;
mod tables;
mod view;

use super::play;
use crate::output::{self, Live, Silent};
use crate::{Exit, Output, run};
use diff::{Difference, difference};
use kubesim_actors::proxy;
use kubesim_runtime::Time;
use kubesim_sim::run::Stage;
use kubesim_sim::scenario::{self, Scenario};
use kubesim_sim::{Observer, Options, Outcome, Report};
use look::Look;
use mask::{Mask, Memory};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tables::Tables;
use view::View;

#[derive(clap::Args)]
pub struct Args {
    /// The scenario, a TOML file.
    file: PathBuf,
    /// What everything random is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replace a component by an upstream-like one, as the scenario's [profile.NAME] says.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Change a value of the scenario: node.n.count=500. May be given many times.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = crate::run::setting)]
    sets: Vec<(String, String)>,
    /// How long before each fault, and before the end, both worlds are looked at. To read what the
    /// kernels have must be over when it comes, so a slow machine needs longer.
    #[arg(long, value_name = "TIME", value_parser = crate::run::duration, default_value = "500ms")]
    before: Duration,
}

/// What one world showed.
struct Played {
    views: Vec<(String, View)>,
    report: Report,
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    let stage = scenario::Stage::Lab;
    let profile = args.profile.as_deref();
    let scenario = match Scenario::load_for(stage, &args.file, &args.sets, profile) {
        Ok(scenario) => scenario,
        Err(wrong) => {
            output.complain(&wrong.to_string());
            return Exit::Input;
        }
    };
    // All of it, however long it lasts: whoever compares is told how long that is.
    let until = Some(scenario.duration);
    let options = Options { seed: args.seed, until, ..Options::default() };
    let stage = Stage::modelled(&Arc::new(scenario.clone()), &options);
    if let Err(wrong) = fits(&stage, args.before) {
        output.complain(&format!("error: {wrong}"));
        return Exit::Input;
    }
    if let Some(lacks) = play::lacking(&scenario, until) {
        output.complain(&format!("error: {lacks}"));
        return Exit::Environment;
    }
    output.begin("the comparison of both worlds");
    let (mut modelled, real) = match both(&scenario, stage, &options, args.before, output) {
        Ok(both) => both,
        Err(lacks) => {
            output.complain(&format!("error: {lacks}"));
            return Exit::Environment;
        }
    };
    if real.report.interrupted {
        modelled.end_with(&real);
    }
    let differences = compare(&modelled, &real, output);
    let name = &scenario.name;
    let looks = modelled.views.len();
    if looks == 0 {
        output.line(&format!("{name}: nothing was compared yet, seed {}", args.seed));
    } else if differences == 0 {
        output.line(&format!("compared: {}", compared(&modelled)));
        output.line(&format!("{name}: both worlds agree at {looks} moments, seed {}", args.seed));
    } else {
        output.line(&format!("{name}: {differences} differences, seed {}", args.seed));
    }
    match differences {
        _ if real.report.interrupted => {
            let at = real.report.virtual_time.as_secs_f64();
            output.line(&format!("interrupted at {at:.3} s: what was due later is not compared"));
            Exit::Interrupted
        }
        0 => Exit::Held,
        _ => Exit::Failed,
    }
}

impl Played {
    /// Leaves out what a run that was interrupted did not come to: the later looks, what was not
    /// judged, and what else made this run fail, whenever that was.
    fn end_with(&mut self, interrupted: &Played) {
        let (own, other) = (&mut self.report, &interrupted.report);
        self.views.truncate(interrupted.views.len());
        for (own, other) in own.expectations.iter_mut().zip(&other.expectations) {
            if other.outcome == Outcome::Skipped {
                *own = other.clone();
            }
        }
        own.outcome = other.outcome;
        own.failure.clone_from(&other.failure);
        own.violations.clone_from(&other.violations);
    }
}

/// Whether there is something to look at that long before what happens in this run.
fn fits(stage: &Stage, before: Duration) -> Result<(), String> {
    let end = stage.end();
    if Time::ZERO + before >= end {
        return Err(format!("--before: the run ends at {end}; give less than that"));
    }
    let faults = stage.world.happened.iter().filter(|fault| fault.at < end);
    match faults.min_by_key(|fault| fault.at) {
        Some(first) if first.at <= Time::ZERO + before => {
            let why = format!("the fault {} comes at {}", first.name, first.at);
            Err(format!("--before: {why}, and so long before it there is nothing to look at"))
        }
        _ => Ok(()),
    }
}

/// Plays the scenario in both worlds, one after the other, and says what it is doing.
fn both(
    scenario: &Scenario,
    stage: Stage,
    options: &Options,
    before: Duration,
    output: &mut Output,
) -> Result<(Played, Played), String> {
    if let Some(lacks) = lacking() {
        return Err(lacks);
    }
    output::header(output, scenario, options.seed);
    output.line("first in the simulator");
    output.flush();
    let modelled = in_the_simulator(stage, before)?;
    let (looks, time) = (modelled.views.len(), scenario.duration.as_secs_f64());
    output.line(&format!("then in the lab, for {time} s of real time, with {looks} looks"));
    output.flush();
    let bar = output.progress.then(|| run::progress_bar(scenario.duration));
    let mut live = Live::new(output, bar.as_ref(), true);
    let real = in_the_lab(scenario, options, before, &mut live);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok((modelled, real?))
}

/// A moment before each fault, and one before the end.
fn moments(stage: &Stage, before: Duration) -> VecDeque<(String, Time)> {
    let faults = stage.world.happened.iter();
    let mut moments: Vec<_> = faults
        .map(|fault| (format!("before {}", fault.name), fault.at - before))
        .filter(|(_, at)| *at < stage.end())
        .collect();
    moments.sort_by_key(|(_, at)| *at);
    moments.push(("at the end".to_owned(), stage.end() - before));
    moments.into()
}

fn in_the_simulator(mut stage: Stage, before: Duration) -> Result<Played, String> {
    let (mut views, mut memory) = (Vec::new(), Memory::default());
    let settings = proxy::flat_settings(stage.world.scenario.cluster.pod_network);
    for (name, at) in moments(&stage, before) {
        stage.advance_to(at, &mut Silent);
        let world = &stage.world;
        let mask = Mask::of(world, &mut memory);
        let mut view = View::of(world, &mask);
        for index in (0..world.machines.len() as u32).filter(|index| world.is_node(*index)) {
            let machine = &world.machines[index as usize];
            if machine.on {
                let tables = Tables::modelled(&machine.kernel, world.now, settings)?;
                view.add(&machine.name, tables, &mask);
            }
        }
        views.push((name, view));
    }
    stage.advance_to(stage.end(), &mut Silent);
    Ok(Played { views, report: stage.finish() })
}

fn in_the_lab(
    scenario: &Scenario,
    options: &Options,
    before: Duration,
    observer: &mut dyn Observer,
) -> Result<Played, String> {
    let mut left: Option<VecDeque<(String, Time)>> = None;
    let (mut looks, mut memory) = (Vec::new(), Memory::default());
    let report = play::run_watched(scenario, options, observer, &mut |stage, machines| {
        let left = left.get_or_insert_with(|| moments(stage, before));
        let now = stage.world.now;
        while let Some((name, at)) = left.pop_front_if(|(_, at)| *at <= now) {
            looks.push(Look::begin(name, at + before, &stage.world, machines, &mut memory));
        }
        looks.iter().try_for_each(|look: &Look| look.is_in_time(now))
    })?;
    let views = looks.into_iter().map(Look::end).collect::<Result<_, _>>()?;
    Ok(Played { views, report })
}

/// What reading the kernels takes beyond what the lab takes.
fn lacking() -> Option<String> {
    let lacks = |(program, _): &&(&str, &str)| Command::new(program).arg("-V").output().is_err();
    let (program, package) = tables::PROGRAMS.iter().find(lacks)?;
    Some(format!("parity needs the program `{program}` (Debian: {package})"))
}

/// How many lines of which kind all moments had.
fn compared(played: &Played) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, lines) in played.views.iter().flat_map(|(_, view)| view.counts()) {
        *kinds.entry(kind).or_default() += lines;
    }
    kinds.retain(|_, lines| *lines > 0);
    let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} lines of {kind}")).collect();
    kinds.join(", ")
}

/// Prints what differs; returns how much.
fn compare(modelled: &Played, real: &Played, output: &mut Output) -> usize {
    let mut differences = 0;
    for ((moment, model), (_, lab)) in modelled.views.iter().zip(&real.views) {
        for (section, left, right) in model.beside(lab) {
            if left != right {
                differences += 1;
                output.line(&format!("{moment}: {section} differ"));
                show(output, &left, &right);
            }
        }
    }
    if modelled.views.len() != real.views.len() {
        differences += 1;
        let (left, right) = (modelled.views.len(), real.views.len());
        output.line(&format!("the simulator was looked at {left} times, the lab {right} times"));
    }
    differences + reports(&modelled.report, &real.report, output)
}

/// The same of how the two runs went: every expectation, and what else made one fail.
fn reports(modelled: &Report, real: &Report, output: &mut Output) -> usize {
    let mut differences = 0;
    let judged = modelled.expectations.len().max(real.expectations.len());
    for number in 0..judged {
        let [model, lab] = [modelled, real].map(|report| report.expectations.get(number));
        let same = model.map(|model| model.outcome) == lab.map(|lab| lab.outcome);
        differences += usize::from(!same);
        let mark = if same { "  " } else { "! " };
        let name = model.or(lab).map_or("", |either| &either.name);
        let [left, right] = [model, lab].map(|one| one.map_or("not judged", |one| &one.measured));
        output.line(&format!("{mark}{name:<72} sim {left}; lab {right}"));
    }
    let (left, right) = (troubles(modelled), troubles(real));
    if left != right {
        differences += 1;
        output.line("what made the runs fail differs");
        show(output, &left, &right);
    }
    if modelled.outcome != real.outcome && differences == 0 {
        differences += 1;
        let (left, right) = (modelled.outcome, real.outcome);
        output.line(&format!("one of the runs failed: sim {left:?}, lab {right:?}"));
    }
    differences
}

/// What made a run fail beside its expectations: invariants that broke, each by its name, since
/// when and by whom is told in the words of one world; what could not be applied, without its time;
/// all else in its words.
fn troubles(report: &Report) -> Vec<String> {
    let all = report.violations.iter().chain(&report.failure);
    let named = all.map(|text| match text.split_once(" at ") {
        Some((name, _)) if is_an_invariant(name) => format!("{name} is broken"),
        _ => refused(text).unwrap_or_else(|| text.clone()),
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What could not be applied, and why, without the time; and of a program that says more than the
/// model does (its version, and where help is), what it says against it.
fn refused(text: &str) -> Option<String> {
    let (whose, rest) = text.split_once(" could not be applied at ")?;
    let what = rest.split_once(": ")?.1.lines().next()?;
    let what = match what.split_once("iptables v") {
        Some((before, said)) => {
            format!("{before}{}", said.split_once(": ").map_or(said, |it| it.1))
        }
        None => what.to_owned(),
    };
    Some(format!("{whose} could not be applied: {what}"))
}

fn is_an_invariant(name: &str) -> bool {
    name.strip_prefix('I').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The lines of one side that the other has not, or has elsewhere.
fn show(output: &mut Output, modelled: &[String], real: &[String]) {
    let Difference { first, second, moved } = difference(modelled, real);
    for (what, lines) in [("sim only", first), ("lab only", second), ("in another order", moved)] {
        lines.iter().for_each(|line| output.line(&format!("    {what}: {line}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(violations: &[&str], failure: Option<&str>) -> Report {
        let failed = failure.is_some() || !violations.is_empty();
        Report {
            scenario: "s".to_owned(),
            profile: None,
            seed: 1,
            outcome: if failed { Outcome::Failed } else { Outcome::Passed },
            interrupted: false,
            digest: 0,
            virtual_time: Duration::ZERO,
            events: 0,
            expectations: Vec::new(),
            measures: Vec::new(),
            not_judged: Vec::new(),
            failure: failure.map(str::to_owned),
            violations: violations.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn differences(modelled: &Report, real: &Report) -> usize {
        let mut output = Output::new(Box::new(std::io::sink()), Box::new(std::io::sink()), false);
        reports(modelled, real, &mut output)
    }

    /// A lab that failed beside a simulator that passed was agreed with.
    #[test]
    fn runs_that_end_differently_differ() {
        let passed = report(&[], None);
        assert_eq!(differences(&passed, &passed), 0);
        let refused = report(&[], Some("fault f could not be applied on two: Can't use -o"));
        assert_eq!(differences(&passed, &refused), 1);
        assert_eq!(differences(&refused, &passed), 1);
        let broken = report(&["I2 at 3.000s: a", "I2 at 4.000s: b"], Some("I2 at 3.000s: a"));
        assert_eq!(differences(&passed, &broken), 1);
        assert_eq!(differences(&broken, &report(&["I3 at 3.000s: a"], None)), 1);
        // The same one, at another time.
        assert_eq!(differences(&broken, &report(&["I2 at 3.100s: c"], Some("I2 at 3.1s: c"))), 0);
    }

    /// A fault that both worlds refused was a difference, as its time is in its text.
    #[test]
    fn when_a_fault_was_refused_is_no_difference() {
        let of = |fault: &str, at: &str, why: &str| {
            let what = "iptables -D FORWARD 99 on srv";
            report(
                &[],
                Some(&format!("fault `{fault}` could not be applied at {at}: {what}: {why}")),
            )
        };
        let sim = of("f", "5.000s", "iptables: Index of deletion too big.");
        let lab = of("f", "5.002s", "iptables: Index of deletion too big.");
        assert_eq!(differences(&sim, &lab), 0);
        let other = of("f", "5.000s", "iptables: No chain/target/match by that name.");
        assert_eq!(differences(&sim, &other), 1);
        assert_eq!(
            differences(&sim, &of("g", "5.000s", "iptables: Index of deletion too big.")),
            1
        );
        let sim = of("f", "5.000s", "Can't use -i with POSTROUTING");
        let said =
            "iptables v1.8.11 (nf_tables): Can't use -i with POSTROUTING\n\nTry `iptables -h'";
        assert_eq!(differences(&sim, &of("f", "5.003s", said)), 0);
    }

    /// What a run did not come to is no difference; what it came to is.
    #[test]
    fn an_interrupted_run_is_compared_as_far_as_it_came() {
        let expectation = |outcome| kubesim_sim::report::Expectation {
            name: "e".to_owned(),
            outcome,
            measured: String::new(),
            reason: String::new(),
        };
        let played = |outcomes: [Outcome; 2], violations: &[&str]| Played {
            views: Vec::new(),
            report: Report {
                expectations: outcomes.map(expectation).to_vec(),
                ..report(violations, None)
            },
        };
        let cut = played([Outcome::Passed, Outcome::Skipped], &[]);
        let mut late = played([Outcome::Passed, Outcome::Failed], &["I2 at 9.000s: a"]);
        late.end_with(&cut);
        assert_eq!(differences(&late.report, &cut.report), 0);
        let mut early = played([Outcome::Failed, Outcome::Passed], &[]);
        early.end_with(&cut);
        assert_eq!(differences(&early.report, &cut.report), 1);
    }

    #[test]
    fn an_expectation_that_only_one_run_judged_is_a_difference() {
        let mut judged = report(&[], None);
        judged.expectations.push(kubesim_sim::report::Expectation {
            name: "e".to_owned(),
            outcome: Outcome::Passed,
            measured: String::new(),
            reason: String::new(),
        });
        let other = report(&[], None);
        assert_eq!((differences(&judged, &other), differences(&other, &judged)), (1, 1));
    }
}
