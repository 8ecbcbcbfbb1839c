//! What it costs to serve a simulation: a run that is served and that nobody looks into, beside the
//! same run without; and how long `kubectl get nodes` takes of 5,000 nodes.
//!
//! `cargo bench --features server --bench served`; with the path of a `kubectl` in `KUBECTL`, that
//! one is asked.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/fleet.toml");
/// How often each is run, in turn.
const TURNS: usize = 3;
const ASKED: usize = 7;
/// Until then all 5,000 nodes are there and ready.
const FROM: &str = "60s";

/// What the children of this process have run that it has waited for, from /proc (proc(5), stat):
/// in hundredths of a second.
fn children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("its stat");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(13).take(2);
    Duration::from_millis(ticks.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}

fn kubesim(set: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubesim"));
    command.args(["run", SCENARIO]);
    for value in set {
        command.args(["--set", value]);
    }
    command.stderr(Stdio::null());
    command
}

/// CPU seconds, and the digest.
fn ran(mut command: Command) -> (f64, String) {
    let before = children();
    let out = command.output().expect("kubesim");
    let text = String::from_utf8_lossy(&out.stdout);
    let digest = text.split("digest ").nth(1).and_then(|rest| rest.split(',').next());
    ((children() - before).as_secs_f64(), digest.expect("it ends").to_owned())
}

fn middle(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn unread(kubeconfig: &Path) {
    let set = ["node.n.count=500", "workload.web.generate.deployments=250"];
    let (mut alone, mut served) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut command = kubesim(&set);
        command.args(["--until", "90s"]);
        let (cpu, digest) = ran(command);
        alone.push(cpu);
        let mut command = kubesim(&set);
        command.args(["--until", "90s", "--serve", "127.0.0.1:0", "--speed", "max"]);
        command.arg("--kubeconfig").arg(kubeconfig);
        let (cpu, same) = ran(command);
        served.push(cpu);
        assert_eq!(digest, same, "it is the same run");
    }
    let (alone, served) = (middle(&mut alone), middle(&mut served));
    println!(
        "500 nodes, 5,000 pods, 90 s: {alone:.2} CPU-s; served, and nobody looks: {served:.2} \
         ({:+.1} %)",
        (served / alone - 1.0) * 100.0
    );
}

fn asked(kubeconfig: &Path) {
    let kubectl = std::env::var_os("KUBECTL").unwrap_or_else(|| OsString::from("kubectl"));
    if Command::new(&kubectl).args(["version", "--client"]).output().is_err() {
        return println!("there is no {}", kubectl.display());
    }
    let mut command = kubesim(&["node.n.count=5000", "workload.web.generate.deployments=10"]);
    command.args(["--serve", "127.0.0.1:0", "--from", FROM, "--hold", "--kubeconfig"]);
    let mut run = command.arg(kubeconfig).stdout(Stdio::piped()).spawn().expect("kubesim");
    let mut told = BufReader::new(run.stdout.take().expect("a pipe")).lines();
    assert!(told.any(|line| line.expect("text").contains("try: ")), "it is served");
    let cache = kubeconfig.with_extension("cache");
    let ask = || {
        let (began, before) = (Instant::now(), children());
        let mut command = Command::new(&kubectl);
        command.args(["get", "nodes", "--no-headers", "--kubeconfig"]).arg(kubeconfig);
        let out = command.arg("--cache-dir").arg(&cache).output().expect("kubectl");
        let nodes = out.stdout.iter().filter(|byte| **byte == b'\n').count();
        (nodes, began.elapsed().as_secs_f64(), (children() - before).as_secs_f64())
    };
    // Until all have come; the last of these fills kubectl's cache.
    while ask().0 < 5000 {}
    let (mut times, mut own): (Vec<f64>, Vec<f64>) =
        (0..ASKED).map(|_| ask()).map(|(_, took, own)| (took, own)).unzip();
    println!(
        "kubectl get nodes, {} of them: {:.2} s, of which kubectl runs {:.2} CPU-s",
        ask().0,
        middle(&mut times),
        middle(&mut own)
    );
    let _ = run.kill();
    let _ = run.wait();
}

fn main() {
    let place: PathBuf =
        std::env::temp_dir().join(format!("kubesim-served-{}", std::process::id()));
    fs::create_dir_all(&place).expect("a directory");
    unread(&place.join("first.conf"));
    asked(&place.join("second.conf"));
    let _ = fs::remove_dir_all(&place);
}
