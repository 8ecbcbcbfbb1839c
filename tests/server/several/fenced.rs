//! Who writes in a leader's name, whether it still leads or not: no write of one commits while the
//! lease is another's. The proof is the store's own history: which write, in whose name, and who
//! held the lease then.

use super::watcher::{events, version};
use super::{Cluster, Ends, LEASES, MAPS, SERVERS, holder, possible};
use crate::https::Ask;
use crate::plane::until;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Longer than a lease that nobody renews lasts.
const PAUSED: Duration = Duration::from_secs(5);

/// What one writer did.
#[derive(Default)]
struct Wrote {
    acknowledged: usize,
    fenced: usize,
}

/// Writes in the name of whoever led when it looked the last time, until it is told that another
/// one does: as a leader would that was paused and does not know.
fn write(ends: &Ends, number: usize, over: &AtomicBool) -> Wrote {
    let mut wrote = Wrote::default();
    let (mut line, mut leader) = (None, String::new());
    for count in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sleep(Duration::from_millis(20));
        // Now at this server, now at that one.
        let server = (number + count / 10) % SERVERS;
        if count % 10 == 0 {
            line = None;
        }
        let Some(mut open) = line.take().or_else(|| ends.open(server).ok()) else { continue };
        if leader.is_empty() {
            let words = format!("GET {LEASES}/kube-scheduler");
            if let Ok((200, lease)) = open.ask(Ask { words: &words, ..Ask::default() }) {
                leader = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
                line = Some(open);
            }
            continue;
        }
        let name = format!("w{number}-{count}");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                         "data": {"by": leader}});
        let head = format!("Kubesim-Lease: kube-system/kube-scheduler {leader}\r\n");
        let (words, body) = (format!("POST {MAPS}"), map.to_string());
        let answer = open.ask(Ask { words: &words, body: &body, head: &head, ..Ask::default() });
        match answer {
            Ok((201, _)) => wrote.acknowledged += 1,
            Ok((409, _)) => {
                wrote.fenced += 1;
                leader.clear();
            }
            Ok((429 | 500.., _)) => {}
            Ok((code, why)) => panic!("{words} at {server}: {code} {why}"),
            // Its connection is gone.
            Err(_) => continue,
        }
        line = Some(open);
    }
    wrote
}

#[test]
fn no_two_holders_writes_ever_commit() {
    if !possible() {
        return;
    }
    let periods = &[
        "--leader-elect-lease-duration=3",
        "--leader-elect-renew-deadline=2",
        "--leader-elect-retry-period=1",
        "--disable-admission-plugins=ServiceAccount",
    ];
    let mut cluster = Cluster::start(periods, |ends| {
        until("a leader", || !holder(ends, 0).is_empty());
    });
    let ends = cluster.ends.clone();
    let list = ends.get(0, LEASES);
    let from = version(&list);
    // The lease's history ends with what happens to leases after this version.
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let told = {
        let (ends, end) = (ends.clone(), Arc::clone(&end));
        let is_last = move |lease: &Value| version(lease) > end.load(Ordering::Relaxed);
        std::thread::spawn(move || events(&ends, LEASES, (0, from), is_last))
    };
    let over = AtomicBool::new(false);
    let wrote: Vec<Wrote> = std::thread::scope(|scope| {
        let (ends, over) = (&ends, &over);
        let writers: Vec<_> =
            (0..SERVERS).map(|number| scope.spawn(move || write(ends, number, over))).collect();
        // Whoever leads is paused in its turn, or dies; and etcd's members with it.
        for server in [0, 1] {
            cluster.signal(server, Signal::SIGSTOP);
            sleep(PAUSED);
            cluster.signal(server, Signal::SIGCONT);
            cluster.restart_member(server);
        }
        cluster.restart_server(2);
        sleep(PAUSED);
        over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("a writer to its end")).collect()
    });
    let maps = ends.get(1, MAPS);
    end.store(version(&maps), Ordering::Relaxed);
    let told = told.join().expect("the lease's history");

    // Whose the lease was, from which version on.
    let mut held: BTreeMap<u64, &str> = BTreeMap::new();
    let before = list["items"].as_array().expect("a list").iter();
    for lease in before.chain(told.iter().map(|event| &event["object"])) {
        if lease["metadata"]["name"] == "kube-scheduler" {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            held.insert(version(lease), holder);
        }
    }
    let mut names = BTreeSet::new();
    for map in maps["items"].as_array().expect("a list") {
        let Some(by) = map["data"]["by"].as_str() else { continue };
        let at = version(map);
        let holder = held.range(..at).next_back().map(|(_, holder)| *holder);
        assert_eq!(holder, Some(by), "{} commits at {at}", map["metadata"]["name"]);
        names.insert(by);
    }
    let sum = |of: fn(&Wrote) -> usize| wrote.iter().map(of).sum::<usize>();
    let (acknowledged, fenced) = (sum(|one| one.acknowledged), sum(|one| one.fenced));
    println!("{acknowledged} writes of {} leaders, {fenced} refused", names.len());
    assert!(acknowledged > 50 && fenced > 0 && names.len() > 1);
}
