//! `kubesim parity`: one scenario in both worlds, and side by side what an operator could see.
//!
//! Looked at are the moments before each fault and the end. What must differ is masked (`mask`):
//! who got which pod subnet, names and addresses that dice gave, times.

mod mask;
mod view;

use super::play;
use crate::output::Silent;
use crate::{Exit, Output};
use kubesim_runtime::Time;
use kubesim_sim::run::Stage;
use kubesim_sim::scenario::{self, Scenario};
use kubesim_sim::{Options, Report};
use mask::Subnets;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
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
    let options = Options { seed: args.seed, ..Options::default() };
    let modelled = in_the_simulator(&scenario, &options);
    let real = match in_the_lab(&scenario, &options) {
        Ok(real) => real,
        Err(lacks) => {
            output.complain(&format!("error: {lacks}"));
            return Exit::Environment;
        }
    };
    output.begin("the comparison of both worlds");
    let differences = compare(&modelled, &real, output);
    let name = &scenario.name;
    if differences == 0 {
        output.line(&format!("compared: {}", compared(&modelled)));
        let looks = modelled.views.len();
        output.line(&format!("{name}: both worlds agree at {looks} moments, seed {}", args.seed));
    } else {
        output.line(&format!("{name}: {differences} differences, seed {}", args.seed));
    }
    if differences == 0 { Exit::Held } else { Exit::Failed }
}

/// A moment before each fault, and one before the end.
fn moments(stage: &Stage) -> Vec<(String, Time)> {
    let before = Duration::from_millis(50);
    let faults = stage.world.happened.iter();
    let mut moments: Vec<_> = faults
        .map(|fault| (format!("before {}", fault.name), fault.at - before))
        .filter(|(_, at)| *at < stage.end())
        .collect();
    moments.sort_by_key(|(_, at)| *at);
    moments.push(("at the end".to_owned(), stage.end() - before));
    moments
}

fn in_the_simulator(scenario: &Scenario, options: &Options) -> Played {
    let mut stage = Stage::modelled(&Arc::new(scenario.clone()), options);
    let (mut views, mut subnets) = (Vec::new(), Subnets::new());
    for (name, at) in moments(&stage) {
        stage.advance_to(at, &mut Silent);
        views.push((name, View::of(&stage.world, &mut subnets)));
    }
    stage.advance_to(stage.end(), &mut Silent);
    Played { views, report: stage.finish() }
}

fn in_the_lab(scenario: &Scenario, options: &Options) -> Result<Played, String> {
    let (mut views, mut subnets) = (Vec::new(), Subnets::new());
    let mut left: Option<Vec<(String, Time)>> = None;
    let report = play::run_watched(scenario, options, &mut Silent, &mut |stage| {
        let left = left.get_or_insert_with(|| moments(stage));
        while left.first().is_some_and(|(_, at)| *at <= stage.world.now) {
            let (name, _) = left.remove(0);
            views.push((name, View::of(&stage.world, &mut subnets)));
        }
    })?;
    Ok(Played { views, report })
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
                show(output, "sim", &left, &right);
                show(output, "lab", &right, &left);
            }
        }
    }
    for (model, lab) in modelled.report.expectations.iter().zip(&real.report.expectations) {
        let same = model.outcome == lab.outcome;
        differences += usize::from(!same);
        let mark = if same { "  " } else { "! " };
        let (left, right) = (&model.measured, &lab.measured);
        output.line(&format!("{mark}{:<72} sim {left}; lab {right}", model.name));
    }
    differences
}

/// The lines of one side that the other has not.
fn show(output: &mut Output, side: &str, lines: &[String], others: &[String]) {
    let mut others = others.to_vec();
    for line in lines {
        match others.iter().position(|other| other == line) {
            Some(at) => drop(others.swap_remove(at)),
            None => output.line(&format!("    {side} only: {line}")),
        }
    }
}
