//! The lab: a scenario on this machine's kernel, by the command itself. Nothing of it stays, and
//! nothing outside its namespaces is changed.

#![cfg(target_os = "linux")]

mod clusters;
mod enter;
mod parity;
mod pictures;
mod refusals;
#[path = "../common/skip.rs"]
mod skip;
mod visit;

use clusters::{MOVED, SMALL};
use skip::skipped;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOME: &str = "/run/kubesim-lab";

fn kubesim() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kubesim"))
}

/// Whether this machine has what the lab takes; if not, says so.
fn can_run() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    let found = |program| Command::new(program).arg("--version").output().is_ok();
    let missing = match (root, Path::new("/dev/net/tun").exists(), found("iptables-save")) {
        (false, ..) => "CAP_SYS_ADMIN, for network namespaces (run as root)",
        (_, false, _) => "/dev/net/tun",
        (.., false) => "the program `iptables-save` (Debian: iptables)",
        _ => return true,
    };
    skipped(missing);
    false
}

fn scenario(name: &str, text: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a directory");
    let path = folder.join("small.toml");
    fs::write(&path, text).expect("a file");
    path
}

fn lab(name: &str, text: &str) -> Command {
    let mut command = kubesim();
    command.args(["run", "--world", "lab"]).arg(scenario(name, text));
    command
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// A run's one object.
fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

/// What of this machine's network the lab must leave alone.
fn outside() -> Vec<String> {
    let mut seen = Vec::new();
    for words in ["-o link", "-o addr", "route show table all", "rule", "netns"] {
        let said = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        // Lifetimes of addresses run down.
        let words = |line: &str| line.split("valid_lft").next().unwrap_or_default().to_owned();
        seen.extend(text.lines().map(words));
    }
    // Policies, chains and rules, and tables that only `nft` shows; counters count.
    for (program, arguments) in
        [("iptables-save", ""), ("ip6tables-save", ""), ("nft", "-s list ruleset")]
    {
        let said = Command::new(program).args(arguments.split_whitespace()).output();
        let text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
        let text = text.unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with("# "));
        let bare = lines.map(|line| match line.split_once(" [") {
            Some((chain, _)) if line.starts_with(':') => chain,
            _ => line,
        });
        seen.extend(bare.map(|line| format!("{program}: {line}")));
    }
    sysctls(Path::new("/proc/sys/net"), &mut seen);
    seen
}

fn sysctls(folder: &Path, seen: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("sysctls").flatten().collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            sysctls(&path, seen);
        } else if !path.ends_with("nf_conntrack_count")
            && let Ok(value) = fs::read_to_string(&path)
        {
            seen.push(format!("{} = {}", path.display(), value.trim()));
        }
    }
}

/// Processes that a run with this id started.
fn children_of(parent: u32) -> Vec<i32> {
    let wanted = format!("KUBESIM_PARENT={parent}-");
    let ids = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
    })
    .collect()
}

fn homes_of(parent: u32) -> Vec<PathBuf> {
    let found = fs::read_dir(HOME).into_iter().flatten().flatten();
    let of = |name: &str| name.starts_with(&format!("{parent}-"));
    found.filter(|entry| of(&entry.file_name().to_string_lossy())).map(|e| e.path()).collect()
}

fn wait_until(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} within {within:?}");
        sleep(Duration::from_millis(50));
    }
}

/// A cluster of two real kernels comes up, runs pods, answers real sockets, and leaves nothing.
#[test]
fn a_cluster_comes_up_and_leaves_nothing() {
    if can_run() {
        passes("whole", SMALL);
    }
}

/// A machine that was moved to a fixed address boots where it is now: the lab gave it the gateway
/// of the network that it began in, which the kernel refused as unreachable.
#[test]
fn a_moved_machine_boots_where_it_is() {
    if can_run() {
        passes("moved", MOVED);
    }
}

fn passes(name: &str, scenario: &str) {
    let before = outside();
    for _ in 0..3 {
        let child = lab(name, scenario).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("kubesim runs");
        let id = child.id();
        let output = child.wait_with_output().expect("kubesim ends");
        let said = text(&output);
        let disturbed = stood_still(&output);
        assert!(disturbed || output.status.code() == Some(0), "{said}");
        assert_eq!((children_of(id), homes_of(id)), (Vec::new(), Vec::new()));
        assert_eq!(outside(), before);
        if !disturbed {
            return;
        }
    }
    panic!("the machine is too busy for a run in real time");
}

/// The machine was too busy for real time: the run says so and proves nothing.
fn stood_still(output: &Output) -> bool {
    output.status.code() == Some(3) && text(output).contains("worth nothing")
}

/// A run that the lab played says so, and has no digest: real kernels do nothing twice alike.
#[test]
fn its_json_says_where_it_was_played() {
    if !can_run() {
        return;
    }
    let mut command = lab("json", SMALL);
    let output = command.args(["--until", "2s", "--format", "json"]).output().expect("a run");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let run = json(&output);
    assert_eq!((&run["world"], &run["digest"]), (&"lab".into(), &serde_json::Value::Null));
}

/// The sysctls of a card whose name has a dot were looked for in a directory that is not there.
#[test]
fn a_cards_name_may_have_a_dot() {
    if !can_run() {
        return;
    }
    let key = "net.ipv4.conf.wlan.5.rp_filter";
    let dotted = format!("interface = \"wlan.5\"\nsysctls = {{ \"{key}\" = 2 }}");
    let dotted = SMALL.replace("interface = \"wlan0\"", &dotted);
    let runs = (0..3).map(|_| lab("dotted", &dotted).args(["--until", "2s"]).output());
    let output = runs.map(|run| run.expect("a run")).find(|output| !stood_still(output));
    let output = output.expect("the machine is too busy for a run in real time");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

/// Without one of the rights that it takes, the lab names it and begins nothing.
#[test]
fn it_names_the_right_that_it_lacks() {
    if !can_run() {
        return;
    }
    for (name, set) in [("CAP_NET_ADMIN", "-net_admin"), ("CAP_NET_RAW", "-net_raw")] {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", set, env!("CARGO_BIN_EXE_kubesim"), "run"]);
        command.arg(scenario("rights", SMALL)).args(["--world", "lab"]);
        let output = command.output().expect("setpriv runs (Debian: util-linux)");
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let needs = format!("the lab needs {name}, ");
        assert!(text(&output).contains(&needs), "{}", text(&output));
    }
}

/// A kernel without WireGuard is what the machine lacks, and no failure of the scenario.
#[test]
fn a_kernel_without_wireguard_is_named() {
    if !can_run() {
        return;
    }
    let mut command = lab("wireguard", SMALL);
    command.args(["--set", "cluster.backend=wireguard", "--until", "1s"]);
    let output = command.output().expect("kubesim runs");
    let has = output.status.code() == Some(0);
    let lacks = output.status.code() == Some(3) && text(&output).contains("cannot play");
    assert!(has || lacks || stood_still(&output), "{}", text(&output));
}

/// Killed at a moment when pods run, and when it is interrupted.
#[test]
fn a_killed_run_leaves_nothing_after_clean() {
    if !can_run() {
        return;
    }
    let before = outside();
    for (name, signal) in [("killed", "KILL"), ("interrupted", "INT"), ("hung up", "HUP")] {
        let kubeconfig = scenario(name, SMALL).with_file_name("admin.conf");
        let run = lab(name, SMALL);
        // Under nohup nobody hears of a hang-up, and that is inherited.
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP").arg(run.get_program()).args(run.get_args());
        command.arg("--kubeconfig").arg(&kubeconfig).stdout(Stdio::piped());
        let child = command.spawn().expect("env runs kubesim");
        let id = child.id();
        wait_until("a pod", Duration::from_secs(14), || !children_of(id).is_empty());
        let sent = Command::new("kill").args(["-s", signal, &id.to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let output = child.wait_with_output().expect("kubesim ends");
        let said = text(&output);
        let killed = signal == "KILL";
        if !killed {
            assert_eq!(output.status.code(), Some(130), "{said}");
            assert!(
                said.contains("\nskipped ") && said.contains("\nsmall: interrupted, "),
                "{said}"
            );
            assert_eq!(homes_of(id), Vec::<PathBuf>::new());
        }
        assert_eq!(kubeconfig.exists(), killed);
        let cleaned = kubesim().args(["lab", "clean"]).output().expect("kubesim runs");
        assert!(cleaned.status.success(), "{}", text(&cleaned));
        let removed = format!("removed {}\n", kubeconfig.display());
        assert_eq!(text(&cleaned).contains(&removed), killed, "{}", text(&cleaned));
        assert!(!kubeconfig.exists());
        assert_eq!((children_of(id), homes_of(id)), (Vec::new(), Vec::new()), "after {signal}");
    }
    assert_eq!(outside(), before);
}

/// What was skipped is said where a person sees it: on standard error, past the test harness,
/// which keeps what a test that passes prints.
#[test]
fn a_skip_is_seen() {
    if !can_run() {
        return;
    }
    let folder = nobodys_folder();
    let program = folder.join("tests");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    let mut command = Command::new(&program);
    command.args(["--exact", "a_killed_run_leaves_nothing_after_clean"]).uid(65_534).gid(65_534);
    let output = command.env_remove("KUBESIM_REQUIRE_KERNEL").output().expect("tests run");
    fs::remove_dir_all(&folder).expect("the directory goes");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "skipped: a_killed_run_leaves_nothing_after_clean: needs CAP_SYS_ADMIN";
    assert!(error.contains(expected), "{}", text(&output));
}

/// Where somebody without rights can read.
fn nobodys_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("kubesim-lab-test-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).expect("a directory");
    folder
}

/// What flannel would do to the laptop fails on a real kernel as it does in the simulator: the same
/// expectations, by the same routes.
#[test]
fn the_upstream_profile_fails_for_the_same_reason() {
    if !can_run() {
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/laptop-ip-change.toml");
    let run = |world: &str| {
        let mut command = kubesim();
        command.arg("run").arg(&file).args(["--profile", "flannel", "--world", world]);
        command.output().expect("kubesim runs")
    };
    let modelled = run("sim");
    let real = (0..3).map(|_| run("lab")).find(|output| !stood_still(output));
    let real = real.expect("the machine is too busy for a run in real time");
    for output in [&modelled, &real] {
        assert_eq!(output.status.code(), Some(1), "{}", text(output));
    }
    let (modelled, real) = (text(&modelled), text(&real));
    let failed = failures(&modelled);
    assert!(failed.iter().any(|line| line.contains("ghost lease")), "{modelled}");
    assert_eq!(failures(&real), failed, "{modelled}\n{real}");
}

/// The expectations that failed and the stale routes that are to blame.
fn failures(said: &str) -> BTreeSet<String> {
    let lines = said.lines().map(str::trim_start);
    let failed = lines.clone().filter_map(|line| line.strip_prefix("FAILED "));
    // The name is followed by what was found, at a distance.
    let names = failed.filter_map(|line| line.trim_start().split("  ").next());
    let routes = lines.filter(|line| line.contains(": stale route to "));
    names.chain(routes).map(str::to_owned).collect()
}

/// Somebody who may not make namespaces is told so, in a sentence.
#[test]
fn without_root_it_says_what_it_needs() {
    if !can_run() {
        return;
    }
    let folder = nobodys_folder();
    let (program, file) = (folder.join("kubesim"), folder.join("small.toml"));
    fs::copy(env!("CARGO_BIN_EXE_kubesim"), &program).expect("a copy");
    fs::write(&file, SMALL).expect("a file");
    let mut command = Command::new(&program);
    command.args(["run", "--world", "lab"]).arg(&file).uid(65_534).gid(65_534);
    let output = command.output().expect("kubesim runs");
    fs::remove_dir_all(&folder).expect("the directory goes");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("CAP_SYS_ADMIN") && error.contains("root"), "{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    // Nothing was begun, so nothing is said to have been.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}
