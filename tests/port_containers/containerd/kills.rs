//! SIGKILL of anything, at any moment, while pods come and go on three machines: of each `kubesim`,
//! each containerd, and etcd. What was asked for comes to be, nothing is left over, pods that
//! nobody touches notice nothing.

use super::churn::Churn;
use super::cluster::echo;
use super::ledger;
#[cfg(feature = "etcd")]
use super::trio::on_three_machines_and_etcd;
use super::trio::{Process, SERVER, Trio, WORKERS, on_three_machines};
use super::up::Elsewhere;
use kubesim_runtime::{Rng, Stream};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

const NODES: [&str; 3] = [SERVER.0, WORKERS[0].0, WORKERS[1].0];
/// All is as it should be again so soon after it was killed.
const WITHIN: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn anything_is_killed_and_nothing_is_left_over() {
    on_three_machines(|trio| killed(trio, number("KUBESIM_KILLS", 20)));
}

#[cfg(feature = "etcd")]
#[test]
fn anything_is_killed_with_etcd_behind() {
    // Fewer: to be as wanted again takes longer here.
    on_three_machines_and_etcd(|trio| killed(trio, number("KUBESIM_KILLS", 8)));
}

/// What is killed: a process of ours by its place in the list, a machine's runtime, or the store.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Process(usize),
    Runtime(usize),
    Etcd,
}

fn killed(trio: &mut Trio, kills: u64) {
    let seed = number("KUBESIM_SEED", 1);
    let mut dice = Rng::new(Stream { seed, label: "kills", index: 0, incarnation: 0 });
    let mut parts: Vec<Part> = (0..trio.processes.len()).map(Part::Process).collect();
    parts.extend((0..trio.machines.len()).map(Part::Runtime));
    parts.extend(trio.etcd.is_some().then_some(Part::Etcd));
    let lasting = Lasting::begin(trio);
    let mut churn = Churn::new(&trio.cluster, NODES);
    let (mut took, mut since, mut forgotten) = (Vec::new(), Vec::new(), BTreeSet::new());
    settled(trio, &churn, &lasting, "nothing", &mut forgotten);
    let mut away = Away::default();
    for kill in 0..kills {
        churn.step(&trio.cluster, &mut dice);
        sleep(dice.between(Duration::ZERO, Duration::from_millis(700)));
        away.return_due(trio);
        let there: Vec<Part> = parts.iter().copied().filter(|part| !away.has(*part)).collect();
        let part = *dice.pick(&there).expect("the server is soon back");
        since.push(format!("{} ({kill})", away.kill(trio, part, &mut dice)));
        if dice.chance(0.5) {
            churn.step(&trio.cluster, &mut dice);
        }
        tend(&mut trio.processes, &trio.workers);
        if dice.chance(0.15) || kill + 1 == kills {
            away.return_all(trio);
            let begun = Instant::now();
            settled(trio, &churn, &lasting, &since.join(", "), &mut forgotten);
            eprintln!("kills: all is as wanted after {}", since.join(", "));
            took.push(begun.elapsed());
            since.clear();
        }
    }
    took.sort();
    eprintln!(
        "kills: {kills} (seed {seed}); all was as wanted after {:?} (the median of {}), {:?} (the \
         longest); forgotten by containerd: {forgotten:?}",
        took[took.len() / 2],
        took.len(),
        took[took.len() - 1]
    );
}

/// What was killed, and when it is started again.
#[derive(Default)]
struct Away(Vec<(Part, Instant)>);

impl Away {
    fn has(&self, part: Part) -> bool {
        self.0.iter().any(|(away, _)| *away == part)
    }

    /// Which it was, in words. Units have it started again by systemd after a moment, and
    /// containerd's own after 5 s (`RestartSec`).
    fn kill(&mut self, trio: &mut Trio, part: Part, dice: &mut Rng) -> String {
        let after = match part {
            Part::Runtime(_) => Duration::from_secs(5),
            _ => dice.between(Duration::ZERO, Duration::from_millis(500)),
        };
        let name = trio.kill(part);
        match part {
            // `tend` starts it.
            Part::Process(_) => sleep(after),
            _ => self.0.push((part, Instant::now() + after)),
        }
        name
    }

    fn return_due(&mut self, trio: &mut Trio) {
        self.0.retain(|(part, due)| {
            let is_due = *due <= Instant::now();
            if is_due {
                trio.again(*part);
            }
            !is_due
        });
    }

    fn return_all(&mut self, trio: &mut Trio) {
        while !self.0.is_empty() {
            self.return_due(trio);
            tend(&mut trio.processes, &trio.workers);
            sleep(Duration::from_millis(50));
        }
    }
}

impl Trio {
    /// SIGKILL: which it was.
    fn kill(&mut self, part: Part) -> String {
        match part {
            Part::Process(which) => {
                let process = &mut self.processes[which];
                // It may have ended by itself, as what it needs is away.
                if !process.has_ended() {
                    process.end(Signal::SIGKILL);
                }
                process.name.clone()
            }
            Part::Runtime(machine) => {
                self.machines[machine].kill_runtime();
                format!("containerd of {}", self.node(machine))
            }
            Part::Etcd => {
                self.etcd.as_mut().expect("there is one").kill();
                "etcd".to_owned()
            }
        }
    }

    fn again(&mut self, part: Part) {
        match part {
            Part::Process(which) => self.processes[which].start(&self.workers),
            Part::Runtime(machine) => self.machines[machine].start_runtime(),
            Part::Etcd => self.etcd.as_mut().expect("there is one").run(),
        }
    }
}

/// What ended is started again, as systemd does it: whoever starts while what it needs is away,
/// may end.
fn tend(processes: &mut [Process], workers: &[Elsewhere]) {
    for process in processes.iter_mut().filter_map(|process| process.has_ended().then_some(process))
    {
        process.start(workers);
    }
}

/// All that was asked for comes to be, nothing is left over, and what lasts has not noticed. What
/// the runtimes have forgotten is noted.
fn settled(
    trio: &mut Trio,
    churn: &Churn,
    lasting: &Lasting,
    after: &str,
    forgotten: &mut BTreeSet<String>,
) {
    let begun = Instant::now();
    loop {
        let Trio { processes, workers, cluster, .. } = &mut *trio;
        let settled = churn.settle(cluster, WITHIN, || tend(processes, workers));
        let pods = settled.unwrap_or_else(|wrong| failed(trio, after, &wrong));
        let mut left = lasting.wrong(trio);
        let machines = 0..trio.machines.len();
        let found = machines.flat_map(|machine| ledger::excess(trio, machine, &pods));
        let (shims, others): (Vec<_>, Vec<_>) = found.partition(|one| one.forgotten);
        left.extend(others.into_iter().map(|one| one.what));
        if left.is_empty() {
            forgotten.extend(shims.into_iter().map(|one| one.what));
            return;
        }
        if begun.elapsed() > WITHIN {
            failed(trio, after, &left.join("\n"));
        }
        sleep(Duration::from_millis(500));
    }
}

fn failed(trio: &Trio, after: &str, wrong: &str) -> ! {
    let mut states = String::new();
    for machine in 0..trio.machines.len() {
        let [_, data] = trio.data(machine);
        let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_kubesim"));
        let told = status.arg("status").arg("--data-dir").arg(data).output().expect("it runs");
        states += &String::from_utf8_lossy(&told.stdout);
    }
    let pods = trio.cluster.told("get pods -A -o wide");
    if std::env::var("KUBESIM_HOLD").is_ok() {
        eprintln!("after {after}:\n{wrong}\n{pods}\n{states}");
        sleep(Duration::from_secs(100_000));
    }
    panic!("after {after}:\n{wrong}\n{pods}\n{states}");
}

/// Pods that nobody touches: on each machine one that says back what it hears, and one that talks
/// to that of the next machine and writes down what comes back.
struct Lasting {
    state: String,
    /// Where each writes.
    heard: Vec<std::path::PathBuf>,
}

impl Lasting {
    fn begin(trio: &Trio) -> Lasting {
        for node in NODES {
            trio.cluster.apply(&echo(node, Some(node)));
        }
        let addresses = NODES.map(|node| trio.cluster.ready(node));
        let mut heard = Vec::new();
        for (index, node) in NODES.iter().enumerate() {
            let to = &addresses[(index + 1) % NODES.len()];
            trio.cluster.apply(&speaker(node, to));
            trio.cluster.ready(&format!("from-{node}"));
            let uid = trio.cluster.of_pod(&format!("from-{node}"), "{.metadata.uid}");
            let [data, _] = trio.data(index);
            let place = format!("pods/{uid}/volumes/kubernetes.io~empty-dir/kept/heard");
            heard.push(data.join(place));
        }
        let mut lasting = Lasting { state: String::new(), heard };
        trio.cluster.until("streams begin", || lasting.numbers().iter().all(|all| all.len() > 2));
        lasting.state = state(trio);
        lasting
    }

    fn numbers(&self) -> Vec<Vec<u64>> {
        let read = |place| fs::read_to_string(place).unwrap_or_default();
        let numbers = |text: String| text.lines().filter_map(|line| line.parse().ok()).collect();
        self.heard.iter().map(read).map(numbers).collect()
    }

    fn wrong(&self, trio: &Trio) -> Vec<String> {
        let mut wrong = Vec::new();
        let now = state(trio);
        if now != self.state {
            wrong.push(format!("{}became\n{now}", self.state));
        }
        let before: Vec<usize> = self.numbers().iter().map(Vec::len).collect();
        sleep(Duration::from_millis(500));
        for ((all, before), node) in self.numbers().iter().zip(before).zip(NODES) {
            // The last one may be half written.
            let whole = &all[..all.len().saturating_sub(1)];
            if !whole.iter().copied().eq(1..=whole.len() as u64) {
                wrong.push(format!("the stream of {node} lost something or has it twice"));
            }
            if all.len() <= before {
                wrong.push(format!("the stream of {node} stands still at {before}"));
            }
        }
        wrong
    }
}

fn state(trio: &Trio) -> String {
    let names = NODES.map(|node| format!("{node} from-{node}")).join(" ");
    trio.cluster.told(&format!(
        "get pods {names} -o custom-columns=A:.metadata.name,B:.metadata.uid,C:.status.podIP,\
         D:.status.containerStatuses[*].containerID,E:.status.containerStatuses[*].restartCount"
    )) + &trio.cluster.told("get nodes -o custom-columns=A:.metadata.name,B:.spec.podCIDR")
}

fn speaker(node: &str, to: &str) -> String {
    let numbers = "i=0; while true; do i=$((i+1)); echo $i; busybox usleep 100000; done";
    let says = format!("{{ {numbers}; }} | busybox nc {to} 7000 >/kept/heard");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: from-{node}}}\nspec:\n  nodeName: {node}\n  \
         volumes: [{{name: kept, emptyDir: {{}}}}]\n  containers:\n  - name: c\n    \
         image: shell\n    \
         imagePullPolicy: IfNotPresent\n    command: [/bin/sh, -c, {says:?}]\n    \
         volumeMounts: [{{name: kept, mountPath: /kept}}]\n"
    )
}
