//! `kubesim run`: one seed as it happens, or many side by side.
//!
//! - `many`: many seeds
//! - `speed`: how fast virtual time passes for who looks on
//! - `recorded`: a run that somebody wrote into, again

mod many;
mod recorded;
mod speed;

pub use many::Seeds;
pub use speed::Speed;

use crate::output::{self, Format, Live, Output, Result as Shown};
use crate::{Exit, Runner};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kubesim_sim::report::Trace;
use kubesim_sim::scenario::{self, Scenario, parse_duration};
use kubesim_sim::visits::Record;
use kubesim_sim::{Observer, Options, Outcome, Report, visits};
use std::net::SocketAddrV4;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// The scenario, a TOML file.
    pub file: PathBuf,
    /// What everything random is drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Play every seed from A to B, both included, side by side.
    #[arg(long, value_name = "A..B", value_parser = Seeds::parse, conflicts_with = "seed")]
    pub seeds: Option<Seeds>,
    /// Replace a component by an upstream-like one, as the scenario's [profile.NAME] says.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Change a value of the scenario: node.n.count=500. May be given many times.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = setting)]
    pub sets: Vec<(String, String)>,
    /// Stop at this time of the run; what is due later is not judged.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub until: Option<Duration>,
    /// Where to play it.
    #[arg(long, value_enum, default_value_t = Stage::Sim)]
    pub world: Stage,
    /// Serve the simulated cluster's API there, for kubectl; with port 0 at any port.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = place, conflicts_with = "seeds")]
    pub serve: Option<SocketAddrV4>,
    /// With --serve: how fast virtual time passes, as 1x, 10x, 0.5x, or max.
    #[arg(long, value_name = "TIMES", value_parser = Speed::parse, requires = "serve",
        default_value = "1x")]
    pub speed: Speed,
    /// With --serve: until this time of the run go as fast as it goes.
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "serve")]
    pub from: Option<Duration>,
    /// With --serve: keep what is written from outside in this new file; else it is kept in the
    /// directory for temporary files, and said where.
    #[arg(long, value_name = "PATH", requires = "serve")]
    pub record: Option<PathBuf>,
    /// Play a run that was served again, with what was written from outside; with --serve, look
    /// into it, and write more.
    #[arg(long, value_name = "RECORD", conflicts_with = "seeds")]
    pub replay: Option<PathBuf>,
    /// With --serve or --world lab: write the administrator's kubeconfig there, a new file that
    /// goes when the run does. (The lab serves its API on this machine's loopback then.)
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// With --serve or --world lab: after the scenario's end its time goes on, until ^C.
    #[arg(long)]
    pub hold: bool,
    /// With --world lab: the nodes join the running `kubesim server` of this data directory,
    /// instead of an API server, a scheduler and controllers of the lab's own.
    #[arg(long, value_name = "DIR")]
    pub join: Option<PathBuf>,
    /// Show more: packets, events, api, and only node=NAME's; several with commas.
    #[arg(long, value_name = "WHAT", value_parser = trace, default_value = "")]
    pub trace: Trace,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// With --seeds: how many at a time; as many as there are processors when absent.
    #[arg(long, value_name = "N", requires = "seeds")]
    pub jobs: Option<NonZeroUsize>,
}

/// The worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Models, in virtual time.
    Sim,
    /// This machine's kernel, in real time: Linux, as root, one seed.
    Lab,
}

/// What somebody who looks into a run wants of it.
#[derive(Clone, Debug, Default)]
#[cfg_attr(
    not(all(any(feature = "lab", feature = "server"), target_os = "linux")),
    expect(dead_code)
)]
pub struct Visit {
    /// Where the administrator's kubeconfig goes.
    pub kubeconfig: Option<PathBuf>,
    /// Time goes on after the scenario's end.
    pub hold: bool,
    /// The data directory of the server whose cluster it is.
    pub join: Option<PathBuf>,
}

/// How a simulated cluster's API is served.
#[derive(Clone, Debug)]
#[cfg_attr(not(all(feature = "server", target_os = "linux")), expect(dead_code))]
pub struct Serve {
    pub at: SocketAddrV4,
    pub speed: Speed,
    /// Until then time is not paced.
    pub from: Duration,
    /// What was written before, to be written again.
    pub again: Option<Record>,
    /// Where what is written from outside is to be kept.
    pub record: Option<PathBuf>,
    /// Where it was kept, if anything was written.
    pub recorded: Arc<OnceLock<PathBuf>>,
}

pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.trim().is_empty() => {
            Ok((path.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write it like node.n.count=500".to_owned()),
    }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|why| format!("{why}; write it like 90s, 1.5s or 26h"))
}

fn place(text: &str) -> Result<SocketAddrV4, String> {
    text.parse().map_err(|_| "write it like 127.0.0.1:6443".to_owned())
}

fn trace(text: &str) -> Result<Trace, String> {
    let mut trace = Trace::default();
    for what in text.split(',').map(str::trim).filter(|what| !what.is_empty()) {
        match what {
            "packets" => trace.packets = true,
            "events" => trace.events = true,
            "api" => trace.api = true,
            _ => match what.strip_prefix("node=").filter(|name| !name.is_empty()) {
                Some(name) => trace.nodes.push(name.to_owned()),
                None => return Err("expected packets, events, api or node=NAME".to_owned()),
            },
        }
    }
    // A node alone: everything of it.
    if !trace.nodes.is_empty() && !trace.packets && !trace.events && !trace.api {
        (trace.packets, trace.events) = (true, true);
    }
    Ok(trace)
}

pub fn execute(args: &Args, runner: Runner<'_>, output: &mut Output) -> Exit {
    let stage = match args.world {
        Stage::Sim => scenario::Stage::Sim,
        Stage::Lab => scenario::Stage::Lab,
    };
    let loaded = Scenario::load_for(stage, &args.file, &args.sets, args.profile.as_deref());
    let scenario = match loaded {
        Ok(scenario) => scenario,
        Err(wrong) => {
            output.complain(&wrong.to_string());
            return Exit::Input;
        }
    };
    if let Err(wrong) = fits(args, &scenario) {
        output.complain(&format!("error: {wrong}"));
        return Exit::Input;
    }
    if let Some(wrong) = unfit(args, &scenario) {
        output.complain(&format!("error: {wrong}"));
        return Exit::Input;
    }
    if args.world == Stage::Lab
        && let Some(lacks) = lacking(&scenario, args.until)
    {
        output.complain(&format!("error: {lacks}"));
        return Exit::Environment;
    }
    let (kubeconfig, join) = (args.kubeconfig.clone(), args.join.clone());
    let visit = Visit { kubeconfig, hold: args.hold, join };
    let lab = |scenario: &Scenario, options: &Options, observer: &mut dyn Observer| {
        lab(scenario, options, &visit, observer)
    };
    let record = args.replay.as_ref().map(|path| recorded::read(path, &scenario, args.seed));
    let record = match record.transpose() {
        Ok(record) => record,
        Err(wrong) => {
            output.complain(&format!("error: {wrong}"));
            return Exit::Input;
        }
    };
    let replayed = |scenario: &Scenario, options: &Options, observer: &mut dyn Observer| {
        let record = record.as_ref().ok_or("nothing is to be replayed")?;
        Ok(visits::replay(&Arc::new(scenario.clone()), options, record, observer))
    };
    let kept = Arc::new(OnceLock::new());
    let served = |scenario: &Scenario, options: &Options, observer: &mut dyn Observer| {
        let at = args.serve.ok_or("nothing is to be served")?;
        let how = Serve {
            at,
            speed: args.speed,
            from: args.from.unwrap_or_default(),
            again: record.clone(),
            record: args.record.clone(),
            recorded: Arc::clone(&kept),
        };
        serve(scenario, options, (&visit, &how), observer)
    };
    let runner: Runner<'_> = match args.world {
        Stage::Lab => &lab,
        Stage::Sim if args.serve.is_some() => &served,
        Stage::Sim if args.replay.is_some() => &replayed,
        Stage::Sim => runner,
    };
    output.begin(format!("the results of {}", args.file.display()));
    match args.seeds {
        None => one(args, &scenario, runner, &kept, output),
        Some(seeds) => many::play(args, seeds, &scenario, runner, output),
    }
}

#[cfg(all(feature = "lab", target_os = "linux"))]
use crate::lab::{lacking, no_server, run as lab};

#[cfg(not(all(feature = "lab", target_os = "linux")))]
fn lab(
    scenario: &Scenario,
    _: &Options,
    _: &Visit,
    _: &mut dyn Observer,
) -> Result<Report, String> {
    Err(lacking(scenario, None).unwrap_or_default())
}

#[cfg(not(all(feature = "lab", target_os = "linux")))]
fn lacking(_: &Scenario, _: Option<Duration>) -> Option<String> {
    let how = "on Linux: cargo run --release --features lab -- run FILE --world lab";
    Some(format!("this kubesim was built without its feature `lab`; {how}"))
}

#[cfg(not(all(feature = "lab", target_os = "linux")))]
fn no_server(_: &Path, _: &Scenario) -> Option<String> {
    None
}

/// What of the files that the options name is wrong.
fn unfit(args: &Args, scenario: &Scenario) -> Option<String> {
    let join = args.join.as_deref().and_then(|join| no_server(join, scenario));
    join.or_else(|| args.kubeconfig.as_deref().and_then(no_kubeconfig))
}

#[cfg(all(any(feature = "lab", feature = "server"), target_os = "linux"))]
use crate::kubeconfig::refusal as no_kubeconfig;

#[cfg(not(all(any(feature = "lab", feature = "server"), target_os = "linux")))]
fn no_kubeconfig(_: &Path) -> Option<String> {
    None
}

#[cfg(all(feature = "server", target_os = "linux"))]
use crate::serve::run as serve;

#[cfg(not(all(feature = "server", target_os = "linux")))]
fn serve(
    _: &Scenario,
    _: &Options,
    _: (&Visit, &Serve),
    _: &mut dyn Observer,
) -> Result<Report, String> {
    let how = "on Linux: cargo run --release --features server -- run FILE --serve 127.0.0.1:6443";
    Err(format!("this kubesim was built without its feature `server`; {how}"))
}

/// What only the scenario can tell about the options.
fn fits(args: &Args, scenario: &Scenario) -> Result<(), String> {
    if args.until.is_some_and(|until| until > scenario.duration) {
        let end = scenario.duration.as_secs_f64();
        return Err(format!("--until is past the end of the run, {end} s"));
    }
    let visited = args.world == Stage::Lab || args.serve.is_some();
    if !visited && (args.hold || args.kubeconfig.is_some()) {
        let why = "--kubeconfig and --hold are for runs that programs look into";
        return Err(format!("{why}; give --serve 127.0.0.1:6443, or --world lab"));
    }
    if args.world == Stage::Lab && (args.serve.is_some() || args.replay.is_some()) {
        let why = "--serve and --replay are for simulated runs";
        return Err(format!("{why}; the lab serves its API with --kubeconfig PATH"));
    }
    if args.world != Stage::Lab && args.join.is_some() {
        return Err("--join: only the lab's nodes reach a server; give --world lab".to_owned());
    }
    if let (Some(join), Some(_)) = (&args.join, &args.kubeconfig) {
        let own = join.join("admin.conf");
        let why = "--kubeconfig: the server that is joined has one already";
        return Err(format!("{why}, {}", own.display()));
    }
    if args.world == Stage::Lab && args.seeds.is_some() {
        return Err("--seeds: the lab plays one seed at a time; give --seed".to_owned());
    }
    if args.trace != Trace::default() {
        if let Some(Seeds { first, .. }) = args.seeds {
            let why = "--trace shows one run, and --seeds plays many of which it shows none";
            return Err(format!("{why}; give one of them: --seed {first}"));
        }
        if args.format == Format::Json {
            let why = "--trace shows lines, and --format json is one object without them";
            return Err(format!("{why}; leave one of the two out"));
        }
    }
    match args.trace.nodes.iter().find(|name| !scenario.nodes.iter().any(|n| n.name == **name)) {
        Some(name) => Err(format!("--trace: the scenario has no node `{name}`")),
        None => Ok(()),
    }
}

fn options(args: &Args, seed: u64) -> Options {
    Options { seed, until: args.until, trace: args.trace.clone(), keep_steps: 8 }
}

/// `recorded`: where what was written from outside was kept, once that is known.
fn one(
    args: &Args,
    scenario: &Scenario,
    runner: Runner<'_>,
    recorded: &OnceLock<PathBuf>,
    output: &mut Output,
) -> Exit {
    let bar = output.progress.then(|| progress_bar(args.until.unwrap_or(scenario.duration)));
    if args.format == Format::Text {
        output::header(output, scenario, args.seed);
    }
    let result = {
        let mut live = Live::new(output, bar.as_ref(), args.format == Format::Text);
        play(args.world, scenario, &options(args, args.seed), runner, &mut live)
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match result {
        Err(lacks) => {
            output.complain(&format!("error: {lacks}"));
            Exit::Environment
        }
        Ok(shown) => {
            match args.format {
                Format::Json => output::json(output, &shown),
                Format::Text => {
                    output::table(output, &shown);
                    let record = recorded.get().or(args.replay.as_ref());
                    if shown.failed() || recorded.get().is_some() {
                        let line = replay(args, args.seed, record.map(PathBuf::as_path));
                        output.line(&format!("replay: {line}"));
                    }
                }
            }
            exit(&shown)
        }
    }
}

fn exit(shown: &Shown) -> Exit {
    match shown.failed() {
        _ if shown.report.interrupted => Exit::Interrupted,
        true => Exit::Failed,
        false => Exit::Held,
    }
}

/// One run with its wall time. A panic fails the run and not the command.
fn play(
    world: Stage,
    scenario: &Scenario,
    options: &Options,
    runner: Runner<'_>,
    observer: &mut dyn Observer,
) -> Result<Shown, String> {
    let begun = Instant::now();
    let run = catch_unwind(AssertUnwindSafe(|| runner(scenario, options, observer)));
    let report = match run {
        Ok(result) => result?,
        Err(panic) => panicked(scenario, options, panic.as_ref()),
    };
    Ok(Shown { world, report, wall: begun.elapsed() })
}

fn panicked(scenario: &Scenario, options: &Options, panic: &(dyn std::any::Any + Send)) -> Report {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Report {
        scenario: scenario.name.clone(),
        profile: scenario.profile.as_ref().map(|profile| profile.name.clone()),
        seed: options.seed,
        outcome: Outcome::Failed,
        interrupted: false,
        digest: 0,
        virtual_time: Duration::ZERO,
        events: 0,
        expectations: Vec::new(),
        measures: Vec::new(),
        not_judged: Vec::new(),
        failure: Some(format!("the simulator panicked: {text}")),
        violations: Vec::new(),
    }
}

/// Of one run that goes on until then.
pub(crate) fn progress_bar(until: Duration) -> ProgressBar {
    bar(until.as_millis().try_into().unwrap_or(u64::MAX), "{bar:40} {msg}")
}

/// Of so many things of a name.
#[cfg(all(feature = "fidelity", target_os = "linux"))]
pub(crate) fn count_bar(count: u64, name: &str) -> ProgressBar {
    bar(count, "{msg} {bar:40} {pos} of {len}").with_message(name.to_owned())
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The command that plays this very run again, with what was written from outside.
fn replay(args: &Args, seed: u64, record: Option<&Path>) -> String {
    let mut line = format!("kubesim run {} --seed {seed}", quoted(&args.file.to_string_lossy()));
    if args.world == Stage::Lab {
        line += " --world lab";
    }
    if let Some(join) = &args.join {
        line += &format!(" --join {}", quoted(&join.to_string_lossy()));
    }
    if let Some(profile) = &args.profile {
        line += &format!(" --profile {}", quoted(profile));
    }
    for (path, value) in &args.sets {
        line += &format!(" --set {}", quoted(&format!("{path}={value}")));
    }
    if let Some(until) = args.until {
        line += &format!(" --until {until:?}");
    }
    if let Some(record) = record {
        line += &format!(" --replay {}", quoted(&record.to_string_lossy()));
    }
    line
}

/// As a shell wants it.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_a_list_of_words() {
        let all = trace("packets, node=n1,node=n2,api").unwrap();
        assert!(all.packets && all.api && !all.events);
        assert_eq!(all.nodes, ["n1", "n2"]);
        assert_eq!(trace(""), Ok(Trace::default()));
        let alone = trace("node=n1").unwrap();
        assert!(alone.packets && alone.events && !alone.api);
        assert!(trace("packet").is_err() && trace("node=").is_err());
    }

    #[test]
    fn a_replay_line_survives_the_shell() {
        assert_eq!(quoted("scenarios/a.toml"), "scenarios/a.toml");
        assert_eq!(quoted("image.\"r:7\".pull=1s"), "'image.\"r:7\".pull=1s'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
