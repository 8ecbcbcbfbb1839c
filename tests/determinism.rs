//! One seed is one run: played twice, in a debug and in a release build, with memos and without,
//! every event of every actor and every packet is the same.

use kubesim_runtime::Time;
use kubesim_sim::report::Trace;
use kubesim_sim::run::{Inject, play};
use kubesim_sim::scenario::Scenario;
use kubesim_sim::{Observer, Options, Report};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Every shipped scenario, the fleet made small.
const SCENARIOS: [(&str, &[(&str, &str)]); 7] = [
    ("cidr-overlap", &[]),
    ("docker-forwarding", &[]),
    ("flannel-restart-stale-routes", &[]),
    ("fleet", &[COUNT, ("node.n.rack-size", "8"), ("workload.web.generate.deployments", "3")]),
    ("guestbook", &[]),
    ("laptop-ip-change", &[]),
    ("resolv-conf-change", &[]),
];
const COUNT: (&str, &str) = ("node.n.count", "24");
/// Digests are compared after every so many events.
const CHECKPOINTS: u64 = 1000;
/// The longer scenarios last for up to 26 hours, most of it idle.
const UNTIL: Duration = Duration::from_secs(180);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"))
}

fn load(name: &str, sets: &[(&str, &str)]) -> Arc<Scenario> {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Arc::new(Scenario::load(&file(name), &sets, None).expect("a shipped scenario"))
}

/// Keeps every line it is told.
#[derive(Default)]
struct Log(Vec<String>);

impl Observer for Log {
    fn line(&mut self, at: Time, who: &str, text: &str) {
        self.0.push(format!("{at} {who}: {text}"));
    }
    fn progress(&mut self, _: Time, _: Duration, _: u64) {}
}

/// One of the two runs that are compared.
#[derive(Clone, Copy)]
struct Side {
    seed: u64,
    forgets: bool,
}

impl Side {
    fn play(self, scenario: &Arc<Scenario>, trace: Trace) -> (Report, Vec<u64>, Vec<String>) {
        let options = Options { seed: self.seed, trace, until: Some(UNTIL), ..Options::default() };
        let inject =
            Inject { checkpoints: CHECKPOINTS, forgets: self.forgets, ..Inject::default() };
        let mut log = Log::default();
        let (report, world) = play(scenario, &options, inject, &mut log);
        let checkpoints = world.map(|world| world.checkpoints).unwrap_or_default();
        (report, checkpoints, log.0)
    }
}

/// Compares two runs; where they differ, both are played again with every event traced, and the
/// first event that differs is the report.
fn compare(scenario: &Arc<Scenario>, one: Side, other: Side) -> Result<(), String> {
    let (a, marks_a, _) = one.play(scenario, Trace::default());
    let (b, marks_b, _) = other.play(scenario, Trace::default());
    let same = (a.digest, a.events) == (b.digest, b.events) && marks_a == marks_b;
    if same {
        return Ok(());
    }
    let mark = marks_a.iter().zip(&marks_b).position(|(a, b)| a != b);
    let after = mark.map_or(marks_a.len().min(marks_b.len()), |mark| mark) as u64 * CHECKPOINTS;
    let trace = Trace { events: true, packets: true, ..Trace::default() };
    let (_, _, a) = one.play(scenario, trace.clone());
    let (_, _, b) = other.play(scenario, trace);
    Err(format!("{}: the runs part after {after} events: {}", scenario.name, parting(&a, &b)))
}

/// Where two traces part, in words.
fn parting(a: &[String], b: &[String]) -> String {
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "the end".to_owned());
    format!("line {at} of the traces is\n  {}\nand\n  {}", line(a), line(b))
}

#[test]
fn a_seed_is_one_run() {
    for (name, sets) in SCENARIOS {
        let side = Side { seed: 7, forgets: false };
        assert_eq!(compare(&load(name, sets), side, side), Ok(()));
    }
}

#[test]
fn memos_change_nothing() {
    for (name, sets) in SCENARIOS {
        let with = Side { seed: 7, forgets: false };
        let without = Side { seed: 7, forgets: true };
        assert_eq!(compare(&load(name, sets), with, without), Ok(()));
    }
}

#[test]
fn the_first_event_that_differs_is_reported() {
    let scenario = load("guestbook", &[]);
    let (one, other) = (Side { seed: 1, forgets: false }, Side { seed: 2, forgets: false });
    let told = compare(&scenario, one, other).expect_err("two seeds are two runs");
    assert!(told.contains("guestbook: the runs part after 0 events"), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines.len(), lines[2]), (4, "and"), "{told}");
    assert_ne!(lines[1], lines[3]);
    let same = ["a".to_owned(), "b".to_owned()];
    assert!(parting(&same, &same[..1]).ends_with("\n  b\nand\n  the end"));
}

/// Builds the profile that this test is not built with, if it is not there already.
#[test]
fn debug_and_release_are_one_run() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Beside this test's own build, whichever profile that is.
    let own = Path::new(env!("CARGO_BIN_EXE_kubesim"));
    let target = own.parent().and_then(Path::parent).expect("the binary lies in target/profile");
    let other = if cfg!(debug_assertions) { "release" } else { "debug" };
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--quiet", "--bin", "kubesim", "--target-dir"]);
    build.arg(target);
    if other == "release" {
        build.arg("--release");
    } else {
        // As it is built in the least time: its overflow checks and assertions are asked for.
        build.args(["--config", "profile.dev.opt-level=0"]);
        build.args(["--config", "profile.dev.package.\"*\".opt-level=0"]);
    }
    let built = build.status().expect("cargo runs");
    assert!(built.success(), "the {other} build");
    let name = own.file_name().expect("a binary has a name");
    for scenario in ["guestbook", "laptop-ip-change"] {
        let ours = outcome(own, scenario);
        assert_eq!(ours, outcome(&target.join(other).join(name), scenario), "{scenario}");
    }
}

/// The digest and the count of events that a binary prints.
fn outcome(binary: &Path, scenario: &str) -> (String, u64) {
    let mut run = Command::new(binary);
    let run = run.args(["run", "--format", "json", "--seed", "3"]).arg(file(scenario));
    let output = run.output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let told: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|why| panic!("{why}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let digest = told["digest"].as_str().expect("a digest").to_owned();
    (digest, told["events"].as_u64().expect("a count of events"))
}
