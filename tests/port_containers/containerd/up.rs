//! `kubesim up` from end to end: from nothing to a cluster, a second machine that joins it by the
//! printed command, and a restart.

use super::cluster::{
    Cluster, Given, JOINS, Running, accepts, addressed, echo, on, on_a_machine, option, plug,
    refused,
};
use super::machine::Machine;
use crate::namespace::ip;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, gettid};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

pub const HERE: &str = "192.168.77.2";
const THERE: &str = "192.168.77.3";

/// Another machine's network: what is done in it is done by a thread of its own.
pub struct Elsewhere {
    ask: Sender<Box<dyn FnOnce() + Send>>,
    pub thread: Pid,
}

impl Elsewhere {
    pub fn new() -> Elsewhere {
        let (ask, asked) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ip("link set lo up");
            tell.send(gettid()).expect("it is waited for");
            asked.iter().for_each(|act| act());
        });
        Elsewhere { ask, thread: told.recv().expect("a thread") }
    }

    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let act = move || tell.send(act()).expect("it is waited for");
        self.ask.send(Box::new(act)).expect("the thread lives");
        told.recv().expect("it does not panic")
    }
}

pub fn up(cluster: &Cluster, machine: &Machine) -> Command {
    let data_dir = cluster.data().display().to_string();
    on(machine, "up", &[("--data-dir", data_dir), ("--name", "n1".to_owned())])
}

/// Asks a server of `echo`, once, and ends well if it answers.
fn asking(name: &str, node: &str, address: &str) -> String {
    let asks = format!("echo hello | busybox nc -w 5 {address} 7000 | busybox grep -q hello");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  \
         restartPolicy: OnFailure\n  containers:\n  - name: c\n    image: shell\n    \
         imagePullPolicy: IfNotPresent\n    command: [/bin/sh, -c, {asks:?}]\n"
    )
}

#[test]
fn two_machines_are_a_cluster_by_a_command_each() {
    on_a_machine(|| {
        let there = Elsewhere::new();
        ip(&format!("link add eth0 type veth peer name eth0 netns {}", there.thread));
        addressed(HERE);
        there.run(|| addressed(THERE));
        let (machine, other) = (Machine::start(), there.run(Machine::start));
        let cluster = Cluster::new();
        let mut first = Running::start(&mut up(&cluster, &machine));
        let words = first.says(JOINS);
        assert_eq!(option(&words, "--server"), format!("https://{HERE}:6443"));
        first.says("the node n1 is ready");

        let given = |name: &'static str| -> Given { (name, option(&words, name)) };
        let data_dir = cluster.file("other");
        let more = [("--name", "n2".to_owned()), ("--data-dir", data_dir)];
        let options = [&[given("--server"), given("--token")], &more[..]].concat();
        let mut command = on(&other, "node", &options);
        let mut second = there.run(move || Running::start(&mut command));
        second.says("the node n2 is ready");

        cluster.apply(&echo("here", Some("n1")));
        cluster.apply(&echo("there", Some("n2")));
        let (here, far) = (cluster.ready("here"), cluster.ready("there"));
        let succeeds = |name: &str, node: &str, address: &str| {
            cluster.apply(&asking(name, node, address));
            let succeeded = || cluster.of_pod(name, "{.status.phase}") == "Succeeded";
            cluster.until("a pod reaches the other node's", succeeded);
        };
        succeeds("from-here", "n1", &far);
        succeeds("from-there", "n2", &here);

        let container = cluster.container("here");
        assert_eq!(first.end(Signal::SIGTERM), Some(0));
        assert!(accepts(&here) && accepts(&far), "pods run on, and the way to them stands");
        let mut first = Running::start(&mut up(&cluster, &machine));
        first.says("the node n1 is ready");
        succeeds("again", "n1", &far);
        assert_eq!(cluster.container("here"), container);
        assert_eq!(second.end(Signal::SIGTERM), Some(0));
        assert_eq!(first.end(Signal::SIGTERM), Some(0));
    });
}

#[test]
fn networks_that_the_machine_is_on_are_refused() {
    on_a_machine(|| {
        plug(HERE);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        let mut wide = up(&cluster, &machine);
        let why = refused(wide.args(["--pod-network", "192.168.0.0/16"]));
        let both = "the pod network 192.168.0.0/16 overlaps the node network \"eth0\" \
                    192.168.77.0/24";
        assert!(why.contains(both), "{why}");
    });
}

/// What a machine's cluster costs. Times depend on the machine, so they are told and no more.
#[test]
fn a_machine_is_up_and_says_what_that_costs() {
    on_a_machine(|| {
        plug(HERE);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        let begun = Instant::now();
        let mut up = Running::start(&mut up(&cluster, &machine));
        up.says("the node n1 is ready");
        let ready = begun.elapsed();
        cluster.apply(&plain("first"));
        cluster.ready("first");

        let mut took = pods_take(&cluster, 20);
        took.sort();
        let median = took[took.len() / 2];
        sleep(Duration::from_secs(5));
        let (before, begun) = (processor_time(&up), Instant::now());
        sleep(Duration::from_secs(20));
        let share = (processor_time(&up) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        let memory = resident_mib(&up);
        eprintln!(
            "up: ready after {ready:?}; a pod after {median:?} (of 20, the last {:?}); idle {:.2} % \
             of a core, {memory} MiB",
            took[took.len() - 1],
            100.0 * share
        );
        assert!(memory < 150, "{memory} MiB");
    });
}

/// A pod that is ready as soon as it runs.
fn plain(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  \
         - {{name: c, image: echo, imagePullPolicy: IfNotPresent}}\n"
    )
}

/// From when a watch shows that each of some pods is there to when it shows that it is ready, one
/// pod after the other.
fn pods_take(cluster: &Cluster, count: usize) -> Vec<Duration> {
    let mut watch = Running::start(&mut cluster.command("get pods -w --no-headers"));
    watch.says("first ");
    let takes = |index| {
        let name = format!("p{index} ");
        cluster.apply(&plain(name.trim_end()));
        watch.says(&name);
        let begun = Instant::now();
        while !watch.says(&name).trim_start().starts_with("1/1") {}
        begun.elapsed()
    };
    (0..count).map(takes).collect()
}

/// In user and kernel mode together (proc_pid_stat(5): the 14th and the 15th field, in 1/100 s).
fn processor_time(of: &Running) -> Duration {
    let stat = of.about("stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

fn resident_mib(of: &Running) -> u64 {
    let status = of.about("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") / 1024
}
