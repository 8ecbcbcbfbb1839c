//! Three machines of which any may have another address a moment later, the one with the server
//! too: no pod is started again, no subnet is another one, streams between pods go on, and no
//! tunnel leads to where no node is.

use super::cluster::{Cluster, echo};
use super::trio::{SERVER, Trio, WORKERS, on_three_machines};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

const NODES: [&str; 3] = [SERVER.0, WORKERS[0].0, WORKERS[1].0];
const LONG: Duration = Duration::from_secs(60);

/// How often a machine moves. What more of them took is in docs/benches.md.
fn moves() -> usize {
    let given = std::env::var("KUBESIM_ROAMS").ok();
    given.map_or(20, |text| text.parse().expect("KUBESIM_ROAMS is a number"))
}

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
        let before = state(&trio.cluster);
        let mut took: Vec<Duration> = (0..moves()).map(|round| moved(trio, round)).collect();
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
        took.sort();
        let at = |share: usize| took[(took.len() - 1) * share / 100];
        eprintln!(
            "roams: {} moves; all streams went on after {:?} (p50), {:?} (p99), {:?} (the last)",
            took.len(),
            at(50),
            at(99),
            at(100)
        );
    });
}

/// A machine has another address, each fourth time in another network: how long it took until all
/// streams went on from then.
fn moved(trio: &mut Trio, round: usize) -> Duration {
    let (mover, number) = (round % NODES.len(), (10 + round % 200) as u8);
    let address = trio.moves(mover, round % 4 == 3, number);
    let begun = Instant::now();
    let spoken: Vec<usize> = (0..NODES.len()).map(|index| last_heard(trio, index)).collect();
    // What was on its way when it moved is not counted.
    let goes_on = |index: usize| last_heard(trio, index) > spoken[index] + 2;
    while !(0..NODES.len()).all(goes_on) {
        assert!(begun.elapsed() < LONG, "round {round}: {} moved to {address}", NODES[mover]);
        sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    let cluster = &trio.cluster;
    let path = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    let shown = format!("get node {} -o {path}", NODES[mover]);
    cluster.until("the node is shown at its address", || cluster.told(&shown) == address);
    if mover == 0 {
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
