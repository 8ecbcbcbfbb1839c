//! The stock `kubectl` of this machine in a running lab.

use super::clusters::SMALL;
use super::skip::skipped;
use super::{can_run, children_of, homes_of, lab, outside, stood_still, text};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The administrator's, on this machine.
struct Kubectl<'a>(&'a Path);

impl Kubectl<'_> {
    /// What it says, and whether it succeeds; `None` when there is no lab any more.
    fn says(&self, words: &str) -> Option<Result<String, String>> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.0).args(words.split_whitespace());
        // It keeps what it found out about servers by their addresses.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubectl-cache");
        let output = command.arg("--cache-dir").arg(cache).output().expect("kubectl runs");
        let said = text(&output);
        self.0.exists().then(|| if output.status.success() { Ok(said) } else { Err(said) })
    }

    fn waits_for(&self, words: &str, holds: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.says(words)? {
                Ok(said) if holds(&said) => return Some(said),
                said => assert!(Instant::now() < deadline, "kubectl {words}: {said:?}"),
            }
            sleep(Duration::from_millis(300));
        }
    }
}

/// Who may what, and what not.
const MAY: [(&str, &str, &str); 7] = [
    (
        "system:kubesim-netd:two --as-group system:kubesim-netd",
        "create subnets.net.kubesim.dev",
        "list pods",
    ),
    ("system:kubesim-netd:two --as-group system:kubesim-netd", "list nodes", "patch pods/status"),
    ("system:kube-proxy", "list endpointslices.discovery.k8s.io", "list secrets"),
    ("system:kubesim-dns", "list services", "get configmaps"),
    ("system:kube-scheduler", "create pods/binding", "list secrets"),
    ("system:kubesim-controllers", "delete pods", "get secrets"),
    ("system:node:two --as-group system:nodes", "patch nodes/status", "list secrets"),
];

/// It sees the cluster, makes a pod there that runs, and finds that each component may what it
/// needs and no more.
#[test]
fn kubectl_looks_into_a_running_lab() {
    if !can_run() {
        return;
    }
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        return skipped("kubectl");
    }
    let before = outside();
    let went = (0..3).any(|_| visit());
    assert!(went, "the machine is too busy for a run in real time");
    assert_eq!(outside(), before);
}

/// A lab that is held; it ends when the test does, however that ends.
struct Held(Option<Child>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// False if the machine was too busy for real time.
fn visit() -> bool {
    let kubeconfig = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-admin.conf");
    // Of a test that was killed.
    let _ = fs::remove_file(&kubeconfig);
    let mut command = lab("visited", SMALL);
    command.arg("--hold").arg("--kubeconfig").arg(&kubeconfig);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("kubesim runs");
    let id = child.id();
    let mut held = Held(Some(child));
    let begun = Instant::now();
    while !kubeconfig.exists() && begun.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(20));
    }
    let looked = look(&Kubectl(&kubeconfig));
    // One that is over already needs no word.
    let _ = Command::new("kill").args(["-s", "INT", &id.to_string()]).status();
    let child = held.0.take().expect("it was started");
    let output = child.wait_with_output().expect("kubesim ends");
    let said = text(&output);
    assert!(!kubeconfig.exists(), "it goes with the lab");
    assert_eq!((children_of(id), homes_of(id)), (Vec::new(), Vec::new()));
    if stood_still(&output) {
        return false;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the lab stays until ^C"), "{said}");
    assert!(looked.is_some(), "it was up: {said}");
    true
}

/// `None`: the lab ended meanwhile.
fn look(kubectl: &Kubectl<'_>) -> Option<()> {
    kubectl.waits_for("get nodes", |said| said.matches(" Ready ").count() == 2)?;
    let running = |said: &str| said.matches("Running").count() == 2;
    let pods = kubectl.waits_for("get pods -o wide", running)?;
    assert!(pods.contains("10.244."), "{pods}");
    for (who, may, may_not) in MAY {
        // What is in no namespace it remarks upon, beside its answer.
        let can = |words| kubectl.says(&format!("auth can-i {} --as {who}", asked(words)));
        assert!(can(may)?.is_ok_and(|said| said.contains("yes")), "{who} {may}");
        assert!(can(may_not)?.is_err_and(|said| said.contains("no")), "{who} {may_not}");
    }
    // After the scenario it goes on.
    sleep(Duration::from_secs(16));
    let made = kubectl.says("run visitor --image=web:1")?;
    assert!(made.is_ok(), "{made:?}");
    kubectl.waits_for("get pod visitor -o jsonpath={.status.phase}", |said| said == "Running")?;
    // Nobody asked for what it may not.
    let metrics = kubectl.says("get --raw /metrics")?.expect("metrics");
    let refused: Vec<&str> = metrics.lines().filter(|line| line.contains("code=\"403\"")).collect();
    assert!(metrics.contains("code=\"201\"") && refused.is_empty(), "{refused:?}");
    Some(())
}

/// `patch pods/status`, as `kubectl auth can-i` has it.
fn asked(words: &str) -> String {
    match words.split_once('/') {
        Some((resource, sub)) => format!("{resource} --subresource={sub}"),
        None => words.to_owned(),
    }
}
