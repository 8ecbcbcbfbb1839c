//! Three machines of which any may have another address a moment later, a lease that is renewed, or
//! be suspended, the one with the server too: no pod is started again, no subnet is another one,
//! streams between pods go on, and no tunnel leads to where no node is.

use super::cluster::{Cluster, echo};
use super::freezer::Freezer;
use super::trio::{Renewal, SERVER, Trio, WORKERS, on_three_machines};
use kubesim_runtime::{Rng, Stream};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

const NODES: [&str; 3] = [SERVER.0, WORKERS[0].0, WORKERS[1].0];
const LONG: Duration = Duration::from_secs(60);
/// How long a machine is suspended.
const SLEEP: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(2000)];

/// How often each happens. What more of them took is in docs/benches.md.
fn rounds() -> usize {
    let given = std::env::var("KUBESIM_ROAMS").ok();
    given.map_or(20, |text| text.parse().expect("KUBESIM_ROAMS is a number"))
}

/// What happens to a machine.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It is elsewhere, or has another address where it is.
    Moves,
    Renews,
    Sleeps,
}

const FATES: [Fate; 3] = [Fate::Moves, Fate::Renews, Fate::Sleeps];

#[test]
fn machines_move_and_streams_go_on() {
    on_three_machines(|trio| {
        for node in NODES {
            trio.cluster.apply(&echo(node, Some(node)));
        }
        let addresses = NODES.map(|node| trio.cluster.ready(node));
        // Each speaks with the next one.
        for (index, node) in NODES.iter().enumerate() {
            trio.cluster.apply(&speaker(node, &addresses[(index + 1) % NODES.len()]));
        }
        for index in 0..NODES.len() {
            trio.cluster.until("a stream begins", || last_heard(trio, index) > 0);
        }
        let freezers: Vec<_> = (0..NODES.len()).map(|index| Freezer::of(trio, index)).collect();
        let before = state(&trio.cluster);
        let mut dice = Rng::new(Stream { seed: 1, label: "roams", index: 0, incarnation: 0 });
        let mut fates: Vec<Fate> = FATES.iter().flat_map(|fate| vec![*fate; rounds()]).collect();
        dice.shuffle(&mut fates);
        let mut took: [Vec<Duration>; 3] = Default::default();
        for (round, fate) in fates.iter().enumerate() {
            let kind = FATES.iter().position(|one| one == fate).expect("it is one of them");
            took[kind].push(happens(trio, &freezers, (round, *fate), &mut dice));
        }
        let begun = Instant::now();
        while begun.elapsed() < LONG && !trio.stale_tunnels().is_empty() {
            sleep(Duration::from_millis(100));
        }
        assert_eq!(trio.stale_tunnels(), Vec::<String>::new());
        assert_eq!(before, state(&trio.cluster));
        for index in 0..NODES.len() {
            let numbers = heard(trio, index);
            let in_order: Vec<u64> = (1..=numbers.len() as u64).collect();
            assert!(numbers == in_order, "what was said came back, all of it, once, in order");
        }
        for (mut took, what) in took.into_iter().zip(["moves", "renewals", "suspends"]) {
            took.sort();
            let at = |share: usize| took[(took.len() - 1) * share / 100];
            eprintln!(
                "roams: {} {what}; all streams went on after {:?} (p50), {:?} (p99), {:?} (the \
                 last)",
                took.len(),
                at(50),
                at(99),
                at(100)
            );
        }
    });
}

/// Something happens to a machine: how long it took until all streams went on from then, or from
/// when it woke up.
fn happens(
    trio: &mut Trio,
    freezers: &[Freezer],
    (round, fate): (usize, Fate),
    dice: &mut Rng,
) -> Duration {
    let (machine, number) = (round % NODES.len(), (10 + round % 200) as u8);
    let before = trio.address(machine).to_owned();
    let what = match fate {
        Fate::Moves => {
            trio.moves(machine, dice.chance(0.25), number);
            "moves"
        }
        Fate::Renews => {
            let all = [Renewal::Same, Renewal::Lapsed, Renewal::Another, Renewal::Overlapping];
            let how = *dice.pick(&all).expect("there are some");
            trio.renews(machine, how, number);
            match how {
                Renewal::Same => "has its lease renewed",
                Renewal::Lapsed => "loses its lease for a while",
                Renewal::Another => "has another lease",
                Renewal::Overlapping => "has another lease before the old one ends",
            }
        }
        Fate::Sleeps => {
            freezers[machine].freeze();
            sleep(dice.between(SLEEP[0], SLEEP[1]));
            // It wakes up where it was, or elsewhere.
            let moved = dice.chance(0.5);
            if moved {
                trio.moves(machine, dice.chance(0.5), number);
            }
            freezers[machine].thaw();
            if moved { "wakes up elsewhere" } else { "wakes up" }
        }
    };
    let begun = Instant::now();
    let spoken: Vec<usize> = (0..NODES.len()).map(|index| last_heard(trio, index)).collect();
    // What was on its way when it moved is not counted.
    let goes_on = |index: usize| last_heard(trio, index) > spoken[index] + 2;
    let address = trio.address(machine).to_owned();
    let said = format!("round {round}: {} {what}, from {before} to {address}", NODES[machine]);
    while !(0..NODES.len()).all(goes_on) {
        let stuck: Vec<_> = (0..NODES.len()).filter(|index| !goes_on(*index)).collect();
        assert!(begun.elapsed() < LONG, "{said}: streams {stuck:?} stand still");
        sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    if took > Duration::from_secs(1) {
        eprintln!("roams: {said}: streams went on after {took:?}");
    }
    let cluster = &trio.cluster;
    let path = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    let shown = format!("get node {} -o {path}", NODES[machine]);
    cluster.until(&said, || cluster.told(&shown) == address);
    if machine == 0 {
        let slice = "get endpointslices kubernetes -o jsonpath={.endpoints[*].addresses[*]}";
        cluster.until("pods are led to the server", || cluster.told(slice) == address);
    }
    took
}

/// Which pods there are, how often each was started, and whose subnet is which.
fn state(cluster: &Cluster) -> String {
    let pods = "get pods --sort-by=.metadata.name -o custom-columns=A:.metadata.name,\
                B:.metadata.uid,C:.status.podIP,D:.status.containerStatuses[*].restartCount,\
                E:.status.containerStatuses[*].ready";
    cluster.told(pods)
        + &cluster.told("get nodes -o custom-columns=A:.metadata.name,B:.spec.podCIDR")
}

/// Ten numbers a second to a pod that says them back, on one connection.
fn speaker(node: &str, to: &str) -> String {
    let numbers = "i=0; while true; do i=$((i+1)); echo $i; busybox usleep 100000; done";
    let says = format!("{{ {numbers}; }} | busybox nc {to} 7000");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: from-{node}}}\nspec:\n  nodeName: {node}\n  \
         containers:\n  - name: c\n    image: shell\n    imagePullPolicy: IfNotPresent\n    \
         command: [/bin/sh, -c, {says:?}]\n"
    )
}

/// The numbers that came back, by the log that the kubelet's runtime writes (a time, the stream,
/// whether the line is whole, and the line).
fn heard(trio: &Trio, index: usize) -> Vec<u64> {
    let begins = format!("default_from-{}_", NODES[index]);
    let mut folders = fs::read_dir(trio.machines[index].logs()).into_iter().flatten().flatten();
    let folder = folders.find(|entry| entry.file_name().to_string_lossy().starts_with(&begins));
    let text = folder.and_then(|folder| fs::read_to_string(folder.path().join("c/0.log")).ok());
    let text = text.unwrap_or_default();
    text.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

fn last_heard(trio: &Trio, index: usize) -> usize {
    heard(trio, index).len()
}
