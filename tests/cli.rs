//! The command as a user meets it, with a runner that only pretends.

use kubesim::{Exit, Output, command};
use kubesim_runtime::Time;
use kubesim_sim::report::{Expectation, NotJudged};
use kubesim_sim::scenario::Scenario;
use kubesim_sim::{Observer, Options, Outcome, Report};
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FILE: &str = "scenarios/laptop-ip-change.toml";

const AT: &str = "127.0.0.1:0";

/// Even seeds hold; seed 13 panics; a later seed is faster.
fn pretend(
    scenario: &Scenario,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Report, String> {
    let seed = options.seed;
    assert_ne!(seed, 13, "an unlucky seed");
    std::thread::sleep(Duration::from_millis(20_u64.saturating_sub(seed)));
    observer.line(Time::from_millis(1500), "netd@laptop", "locator 10.20.0.7");
    observer.progress(Time::from_millis(1500), scenario.duration, 42);
    let failed = seed % 2 == 1;
    let outcome = if failed { Outcome::Failed } else { Outcome::Passed };
    let expectation = |name: &str, outcome, measured: &str, reason: &str| Expectation {
        name: name.to_owned(),
        outcome,
        measured: measured.to_owned(),
        reason: reason.to_owned(),
    };
    Ok(Report {
        scenario: scenario.name.clone(),
        profile: scenario.profile.as_ref().map(|profile| profile.name.clone()),
        seed,
        outcome,
        interrupted: false,
        digest: 0xabc + seed,
        virtual_time: options.until.unwrap_or(scenario.duration),
        events: 1000,
        expectations: vec![
            expectation("the café is left", Outcome::Passed, "0.812 s", ""),
            expectation(
                "streams resume",
                outcome,
                "2.5 s",
                if failed { "late by 0.5 s" } else { "" },
            ),
            expectation("later", Outcome::Skipped, "", ""),
        ],
        measures: vec![("outage".to_owned(), "1.2 s".to_owned())],
        not_judged: vec![NotJudged {
            invariants: vec!["I2".to_owned(), "I18".to_owned()],
            reason: "nothing has settled".to_owned(),
        }],
        failure: None,
        violations: Vec::new(),
    })
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Exit status, standard output, standard error.
fn kubesim(args: &[&str]) -> (Exit, String, String) {
    let (out, err) = (Buffer::default(), Buffer::default());
    let exit = to(args, Box::new(out.clone()), Box::new(err.clone()));
    (exit, out.text(), err.text())
}

fn to(args: &[&str], out: Box<dyn Write>, err: Box<dyn Write>) -> Exit {
    let mut output = Output::new(out, err, false);
    let args = std::iter::once("kubesim").chain(args.iter().copied()).map(OsString::from);
    command(args, &pretend, &mut output)
}

#[test]
fn a_run_that_holds_is_shown_as_it_happens_and_exits_0() {
    let (exit, out, err) = kubesim(&["run", FILE, "--seed", "2"]);
    assert_eq!((exit, err.as_str()), (Exit::Held, ""));
    let expected = "\
laptop-ip-change: A server on a laptop changes networks (seed 2)
    1.500s  netd@laptop: locator 10.20.0.7

held     the café is left  0.812 s
held     streams resume    2.5 s
skipped  later
outage: 1.2 s
not judged: I2, I18: nothing has settled
laptop-ip-change: passed, seed 2, digest 0000000000000abe, 180.0 s in ";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.ends_with(" times real time), 1000 events\n"), "{out}");
}

#[test]
fn a_run_that_fails_says_why_and_how_to_replay_it() {
    let args = ["run", FILE, "--seed", "3", "--profile", "flannel", "--set", "node.desk.count=3"];
    let (exit, out, _) = kubesim(&[&args[..], &["--until", "90s"]].concat());
    assert_eq!(exit, Exit::Failed);
    assert!(
        out.contains("profile flannel)\nexpected under this profile: The lease is found"),
        "{out}"
    );
    assert!(out.contains("FAILED   streams resume    2.5 s\n         late by 0.5 s\n"), "{out}");
    assert!(
        out.ends_with(
            "replay: kubesim run scenarios/laptop-ip-change.toml --seed 3 --profile flannel \
             --set node.desk.count=3 --until 90s\n"
        ),
        "{out}"
    );
}

#[test]
fn the_json_of_a_run_is_one_object() {
    let (exit, out, _) = kubesim(&["run", FILE, "--seed", "3", "--format", "json"]);
    assert_eq!(exit, Exit::Failed);
    let mut value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(value["wall_seconds"].take().as_f64().unwrap() > 0.0);
    let expected = serde_json::json!({
        "scenario": "laptop-ip-change", "world": "sim", "profile": null, "seed": 3,
        "outcome": "failed", "digest": "0000000000000abf", "virtual_seconds": 180.0,
        "wall_seconds": null, "events": 1000,
        "expectations": [
            {"name": "the café is left", "outcome": "passed", "measured": "0.812 s", "reason": ""},
            {"name": "streams resume", "outcome": "failed", "measured": "2.5 s", "reason": "late by 0.5 s"},
            {"name": "later", "outcome": "skipped", "measured": "", "reason": ""},
        ],
        "measures": {"outage": "1.2 s"},
        "not_judged": [{"invariants": ["I2", "I18"], "reason": "nothing has settled"}],
        "failure": null,
    });
    assert_eq!(value, expected);
}

#[test]
fn many_seeds_are_told_in_their_order_whichever_ends_first() {
    let args = ["run", FILE, "--seeds", "1..14", "--jobs", "4", "--format", "json"];
    let (exit, out, _) = kubesim(&args);
    assert_eq!(exit, Exit::Failed);
    let runs: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seeds: Vec<_> = runs.iter().map(|run| run["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, (1..=14).collect::<Vec<_>>());
    // A panic fails its run and no other.
    assert!(runs[12]["failure"].as_str().unwrap().contains("an unlucky seed"));
    assert_eq!(runs[13]["outcome"], "passed");
}

#[test]
fn many_seeds_are_summed_up() {
    let (exit, out, _) = kubesim(&["run", FILE, "--seeds", "2..5"]);
    assert_eq!(exit, Exit::Failed);
    assert!(
        out.contains("seed 3      failed  digest 0000000000000abf  1000 events  streams resume\n")
    );
    assert!(
        out.contains("FAILED   streams resume: 2 of 4, first seed 3\n         late by 0.5 s\n")
    );
    let unjudged = "not judged: I2, I18: 4 of 4, first seed 2: nothing has settled\n";
    assert!(out.contains(unjudged), "{out}");
    assert!(out.contains("laptop-ip-change: 2 of 4 seeds passed, "), "{out}");
    assert!(out.ends_with("replay: kubesim run scenarios/laptop-ip-change.toml --seed 3\n"));
    let (exit, _, _) = kubesim(&["run", FILE, "--seeds", "4..4"]);
    assert_eq!(exit, Exit::Held);
}

#[test]
fn wrong_input_exits_2_and_names_its_place() {
    let bad: &[(&[&str], &str)] = &[
        (&["run", "scenarios/none.toml"], "cannot read the scenario"),
        (&["run", FILE, "--profile", "flanel"], "did you mean `flannel`?"),
        (&["run", FILE, "--set", "node.dsk.count=3"], "did you mean `desk`?"),
        (&["run", FILE, "--set", "node.desk.count=lots"], "--> --set:1:17"),
        (&["run", FILE, "--set", "nothing"], "write it like node.n.count=500"),
        (&["run", FILE, "--until", "1h"], "--until is past the end of the run"),
        (&["run", FILE, "--until", "soon"], "`soon` is not a duration"),
        (&["run", FILE, "--seeds", "9..1"], "the last seed comes before the first"),
        (&["run", FILE, "--seeds", "1..2", "--seed", "1"], "cannot be used with"),
        (&["run", FILE, "--jobs", "2"], "arguments were not provided:\n  --seeds <A..B>\n"),
        (&["run", FILE, "--trace", "packet"], "expected packets, events, api or node=NAME"),
        (&["run", FILE, "--trace", "node=desktop"], "the scenario has no node `desktop`"),
        (&["run", FILE, "--trace", "api", "--seeds", "7..9"], "give one of them: --seed 7"),
        (&["run", FILE, "--trace", "api", "--format", "json"], "leave one of the two out"),
        (&["run", FILE, "--until", "9999999d"], "is too large, the most is 213503d"),
        (&["run", FILE, "--join", "d"], "only the lab's nodes reach a server; give --world lab"),
        (
            &["run", FILE, "--world", "lab", "--join", "d", "--kubeconfig", "k"],
            "the server that is joined has one already, d/admin.conf",
        ),
        (&["run", "scenarios/laptop-ipchange.toml"], "did you mean `laptop-ip-change.toml`?"),
        (&["run", FILE, "--format", "xml"], "possible values"),
        (&["run", FILE, "--jobs", "0"], "--jobs"),
        (&["run", FILE, "--hold"], "give --serve 127.0.0.1:6443, or --world lab"),
        (&["run", FILE, "--serve", "6443"], "write it like 127.0.0.1:6443"),
        (&["run", FILE, "--serve", AT, "--speed", "10"], "write it like 1x, 10x, 0.5x or max"),
        (&["run", FILE, "--serve", AT, "--speed", "0x"], "time goes on"),
        (&["run", FILE, "--speed", "10x"], "arguments were not provided:\n  --serve"),
        (&["run", FILE, "--serve", AT, "--seeds", "1..2"], "cannot be used with"),
        (&["run", FILE, "--from", "10s"], "arguments were not provided:\n  --serve"),
        (&["run", FILE, "--serve", AT, "--replay", "r"], "error: --replay: r: No such file"),
        (&["run", FILE, "--serve", AT, "--world", "lab"], "for simulated runs"),
        (&["run", FILE, "--replay", "none.jsonl"], "error: --replay: none.jsonl: No such file"),
        (&["run", FILE, "--replay", FILE], "line 1: it is no record of a run"),
        (&["fly"], "unrecognized subcommand"),
        (&[], "Usage"),
    ];
    for (args, expected) in bad {
        let (exit, out, err) = kubesim(args);
        assert_eq!(exit, Exit::Input, "{args:?}");
        assert!(err.contains(expected), "{args:?} says\n{err}");
        assert_eq!(out, "", "{args:?}");
    }
}

#[test]
fn help_is_not_a_mistake() {
    let (exit, out, err) = kubesim(&["run", "--help"]);
    assert_eq!((exit, err.as_str()), (Exit::Held, ""));
    assert!(out.contains("--seeds <A..B>"));
}

#[test]
fn an_environment_that_lacks_something_exits_3() {
    for args in [&["run", FILE][..], &["run", FILE, "--seeds", "1..9"]] {
        let err = Buffer::default();
        let mut output = Output::new(Box::new(Buffer::default()), Box::new(err.clone()), false);
        let args = std::iter::once("kubesim").chain(args.iter().copied()).map(OsString::from);
        let lacking = |_: &Scenario, _: &Options, _: &mut dyn Observer| Err("no wire".to_owned());
        assert_eq!(command(args, &lacking, &mut output), Exit::Environment);
        assert_eq!(err.text(), "error: no wire\n");
    }
}

/// A look before the run begins sees nothing, in either world.
#[test]
#[cfg(all(feature = "lab", target_os = "linux"))]
fn a_look_before_the_beginning_is_refused() {
    for (before, why) in [("1000h", "the run ends at "), ("40s", "the fault to-cafe comes at ")] {
        let (exit, out, err) = kubesim(&["parity", FILE, "--before", before]);
        assert_eq!((exit, out.as_str()), (Exit::Input, ""), "{err}");
        assert!(err.starts_with(&format!("error: --before: {why}")), "{err}");
    }
}

#[test]
#[cfg(all(feature = "fidelity", target_os = "linux"))]
fn to_stop_before_the_first_mismatch_is_refused() {
    let (exit, out, err) = kubesim(&["fidelity", "--mismatches", "0"]);
    assert_eq!((exit, out.as_str()), (Exit::Input, ""), "{err}");
    assert!(err.contains("0 is not in 1.."), "{err}");
}

/// What is wrong with a case's file is said before anything is played.
#[test]
#[cfg(all(feature = "fidelity", target_os = "linux"))]
fn a_case_that_cannot_be_read_is_refused_with_its_line() {
    let file = std::env::temp_dir().join(format!("kubesim-case-{}.json", std::process::id()));
    let name = file.to_str().expect("a name in UTF-8");
    let head = "{\"domain\": \"routes\", \"found\": \"\", \"steps\": [";
    let step = "{\"set_up\": [\"leg7\", true]}";
    std::fs::write(&file, format!("{head}\n{step}\n]}}\n")).expect("a file");
    let (exit, out, err) = kubesim(&["fidelity", "--case", name]);
    std::fs::remove_file(&file).expect("the file is there");
    assert_eq!((exit, out.as_str()), (Exit::Input, ""), "{err}");
    let why = "no leg is called leg7; there are leg0, leg1, leg2 at line 2 column ";
    assert!(err.starts_with(&format!("error: {name}: {why}")), "{err}");
    let (exit, _, err) = kubesim(&["fidelity", "--case", name]);
    assert_eq!(exit, Exit::Input, "{err}");
    assert!(err.starts_with(&format!("error: reading {name}: No such file")), "{err}");
}

/// What a default build leaves out is no unknown word: it says how to get it.
#[test]
#[cfg(not(any(feature = "lab", feature = "fidelity", feature = "server")))]
fn a_command_that_needs_a_feature_says_how_to_build_it() {
    let commands: [(&[&str], &str); 7] = [
        (&["parity", FILE, "--seed", "3"], "--features lab -- parity scenarios/laptop-ip-change"),
        (&["parity", "--help"], "--features lab -- parity --help\n"),
        (&["lab", "clean"], "--features lab -- lab clean\n"),
        (&["fidelity", "--cases", "9"], "--features fidelity -- fidelity --cases 9\n"),
        (&["server", "--data-dir", "d"], "--features server -- server --data-dir d\n"),
        (&["node", "--name", "n1"], "--features node -- node --name n1\n"),
        (&["up"], "--features node -- up\n"),
    ];
    for (args, expected) in commands {
        let (exit, out, err) = kubesim(args);
        assert_eq!((exit, out.as_str()), (Exit::Environment, ""), "{args:?}");
        assert!(err.contains(expected), "{args:?} says\n{err}");
    }
}

/// A reader that has gone, as `| head` does.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(Error::from(ErrorKind::BrokenPipe))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Err(Error::from(ErrorKind::BrokenPipe))
    }
}

#[test]
fn a_closed_output_changes_no_exit_status() {
    for (args, expected) in [
        (&["run", FILE, "--seed", "2"][..], Exit::Held),
        (&["run", FILE, "--seed", "3"], Exit::Failed),
        (&["run", FILE, "--seeds", "2..3", "--format", "json"], Exit::Failed),
        (&["--help"], Exit::Held),
        (&["run", "scenarios/none.toml"], Exit::Input),
    ] {
        assert_eq!(to(args, Box::new(Gone), Box::new(Gone)), expected, "{args:?}");
    }
}

/// A disk without room.
struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(Error::from(ErrorKind::StorageFull))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn results_that_cannot_be_written_exit_3_and_say_what_and_why() {
    for (args, what) in [
        (&["run", FILE, "--seed", "2"][..], "the results of scenarios/laptop-ip-change.toml"),
        (&["run", FILE, "--seed", "3"], "the results of scenarios/laptop-ip-change.toml"),
        (&["run", FILE, "--seed", "2", "--format", "json"], "the results of"),
        (&["run", FILE, "--seeds", "2..9", "--format", "json"], "the results of"),
        (&["run", FILE, "--seeds", "2..9"], "the results of"),
        (&["--help"], "the help"),
    ] {
        let err = Buffer::default();
        let exit = to(args, Box::new(Full), Box::new(err.clone()));
        assert_eq!(exit, Exit::Environment, "{args:?}");
        let said = err.text();
        assert!(said.starts_with(&format!("error: cannot write {what}")), "{said}");
        assert!(said.contains("to standard output: no storage space; "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// The program itself, since standard output has a buffer of its own.
#[test]
#[cfg(target_os = "linux")]
fn the_program_writes_to_a_full_device_and_to_a_closed_pipe() {
    use std::process::{Command, Stdio};
    let command = |format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubesim"));
        command.args(["run", "scenarios/cidr-overlap.toml", "--format", format]);
        command.stderr(Stdio::piped());
        command
    };
    for format in ["json", "text"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = command(format).stdout(full).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(3), "{said}");
        assert!(said.contains("No space left on device (os error 28)"), "{said}");
        let (reader, pipe) = std::io::pipe().unwrap();
        drop(reader);
        let run = command(format).stdout(pipe).output().unwrap();
        assert_eq!((run.status.code(), run.stderr.as_slice()), (Some(0), &b""[..]), "{format}");
    }
}
