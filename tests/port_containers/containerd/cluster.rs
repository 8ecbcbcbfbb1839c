//! Processes of `kubesim` that make a cluster, and the stock `kubectl` as its client.

use super::machine::{self, Machine};
use crate::namespace::{in_namespace, ip, skip};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// How a server says that others join.
pub const JOINS: &str = "another machine joins by: kubesim node ";

/// `body` in a network namespace of its own, if there are a containerd and a `kubectl`.
pub fn on_a_machine(body: impl FnOnce() + Send + 'static) {
    if let Some(what) = machine::missing() {
        return skip::skipped(what);
    }
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        return skip::skipped("kubectl");
    }
    in_namespace(move || {
        own_mounts();
        body();
    });
}

/// Mounts of this thread's own, which those see whom it starts and who follow it, as on a machine.
fn own_mounts() {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    for how in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(none, "/", none, how | MsFlags::MS_REC, none).expect("mounts of its own");
    }
}

/// A machine's card, with something at its other end.
pub fn plug(address: &str) {
    ip("link add eth0 type veth peer name wire0");
    ip("link set wire0 up");
    addressed(address);
}

/// The card's address, and a default route.
pub fn addressed(address: &str) {
    ip("link set eth0 up");
    ip(&format!("addr add {address}/24 dev eth0"));
    ip("route add default via 192.168.77.1");
}

pub fn kubesim(command: &str) -> Command {
    let mut words = Command::new(env!("CARGO_BIN_EXE_kubesim"));
    words.arg(command);
    words
}

/// An option of the command line, and its value.
pub type Given = (&'static str, String);

/// `command`, with the options that a node has on this machine, and these instead of those or
/// beside them.
pub fn on(machine: &Machine, command: &str, more: &[Given]) -> Command {
    let text = |path: PathBuf| path.display().to_string();
    let mut all = BTreeMap::from([
        ("--containerd", text(machine.socket())),
        ("--pod-logs", text(machine.logs())),
        ("--cgroup", machine.cgroup()),
    ]);
    all.extend(more.iter().cloned());
    let mut words = kubesim(command);
    for (name, value) in &all {
        words.args([*name, value.as_str()]);
    }
    words
}

/// A process of ours, and what it says.
pub struct Running {
    process: Child,
    told: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let told = BufReader::new(process.stdout.take().expect("a pipe"));
        Running { process, told }
    }

    /// The rest of the first line that begins so.
    pub fn says(&mut self, begins: &str) -> String {
        let mut line = String::new();
        while self.told.read_line(&mut line).expect("text") > 0 {
            if let Some(rest) = line.trim_end().strip_prefix(begins) {
                return rest.to_owned();
            }
            line.clear();
        }
        panic!("it ended and did not say {begins:?}");
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("it is ours").is_some()
    }

    /// What /proc has of it in this file.
    pub fn about(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).expect("it runs")
    }

    /// Its exit status, if it was not the signal's.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        let id = Pid::from_raw(i32::try_from(self.process.id()).expect("an id"));
        kill(id, signal).expect("it runs");
        self.process.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The value behind an option in words of a command line.
pub fn option(words: &str, name: &str) -> String {
    let mut words = words.split_whitespace();
    let found = words.by_ref().any(|word| word == name);
    assert!(found, "no {name}");
    words.next().expect("a value").to_owned()
}

/// What a command says of itself that fails.
pub fn refused(command: &mut Command) -> String {
    let out = command.output().expect("it runs");
    assert!(!out.status.success());
    String::from_utf8(out.stderr).expect("text")
}

/// Whether `echo` does there.
pub fn accepts(address: &str) -> bool {
    let at = format!("{address}:7000").parse().expect("an address");
    TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok()
}

/// A pod of an image that listens, on a node or wherever it is put.
pub fn echo(name: &str, node: Option<&str>) -> String {
    let node = node.map(|node| format!("  nodeName: {node}\n")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{node}  containers:\n  \
         - {{name: c, image: echo, imagePullPolicy: IfNotPresent,\n    \
         readinessProbe: {{tcpSocket: {{port: 7000}}, periodSeconds: 1}}}}\n"
    )
}

/// A place for what a cluster keeps, removed in the end, and its administrator.
pub struct Cluster {
    pub folder: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Cluster {
    pub fn new() -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-cluster-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        Cluster { folder }
    }

    /// The data directory of its server.
    pub fn data(&self) -> PathBuf {
        self.folder.join("server")
    }

    pub fn file(&self, name: impl AsRef<Path>) -> String {
        self.folder.join(name).display().to_string()
    }

    /// `kubectl` with these words.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.data().join("admin.conf"));
        command.arg("--cache-dir").arg(self.folder.join("cache")).env("HOME", &self.folder);
        command.args(words.split_whitespace());
        command
    }

    pub fn kubectl(&self, words: &str, input: &str) -> Output {
        let mut command = self.command(words);
        if !input.is_empty() {
            let file = self.folder.join("input.yaml");
            fs::write(&file, input).expect("a file");
            command.arg("-f").arg(&file);
        }
        command.output().expect("kubectl runs")
    }

    pub fn told(&self, words: &str) -> String {
        String::from_utf8(self.kubectl(words, "").stdout).expect("text")
    }

    /// In the end: at first a namespace may lack the account that pods run as.
    pub fn apply(&self, text: &str) {
        self.until("it can be applied", || self.kubectl("apply", text).status.success());
    }

    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds() {
            if Instant::now() > deadline {
                let all = self.told("get nodes,pods,events,csr -A -o yaml");
                panic!("{what}: {all}");
            }
            sleep(Duration::from_millis(200));
        }
    }

    pub fn of_pod(&self, name: &str, path: &str) -> String {
        self.told(&format!("get pod {name} -o jsonpath={path}"))
    }

    /// The address of a pod that is ready in the end.
    #[track_caller]
    pub fn ready(&self, pod: &str) -> String {
        let is_ready = || self.of_pod(pod, "{.status.containerStatuses[0].ready}") == "true";
        self.until("the pod is ready", is_ready);
        self.of_pod(pod, "{.status.podIP}")
    }

    /// Its container, and how often it was started again.
    pub fn container(&self, pod: &str) -> [String; 2] {
        ["containerID", "restartCount"]
            .map(|field| self.of_pod(pod, &format!("{{.status.containerStatuses[0].{field}}}")))
    }
}
