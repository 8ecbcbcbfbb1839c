//! Runs in which somebody moved while nobody could hear of it.

use super::testing::{self, Said};
use crate::report::{Outcome, Report, Trace};

/// The server is `n1`; `w1` and `w2` are beside it, `c3` in the café. All but `n1` and `w1` have
/// their addresses from DHCP.
const MACHINES: &str = r#"
[[network]]
name = "cafe"
cidr = "10.9.0.0/24"
dhcp = { first = "10.9.0.100", last = "10.9.0.150" }
[[link]]
between = ["lan", "cafe"]
[[node]]
name = "w1"
network = "lan"
address = "192.168.1.12"
[[node]]
name = "w2"
network = "lan"
[[node]]
name = "c3"
network = "cafe"
[[expect]]
name = "all are ready at the end"
kind = "nodes-ready"
"#;

fn play(faults: &str) -> (Report, Said) {
    let dhcp = "dhcp = { first = \"192.168.1.100\", last = \"192.168.1.150\" }";
    let mut scenario = testing::scenario(dhcp, &format!("{MACHINES}{faults}"));
    scenario.invariants = crate::oracles::JUDGED.to_vec();
    testing::play(&scenario, Trace::default())
}

fn passes(faults: &str) {
    let (report, _) = play(faults);
    assert_eq!((report.outcome, report.failure), (Outcome::Passed, None), "{faults}");
    assert_eq!(report.not_judged, []);
}

/// `n1` moves to an address that somebody gave it, and comes back 20 s later.
const SERVER_MOVES: &str = r#"
[[fault]]
name = "moves"
kind = "move"
at = "30s"
node = "n1"
network = "cafe"
address = "10.9.0.9"
outage = "20s"
"#;

/// Its file had the new address, so the next life had nothing to say, once, and the rest of the
/// cluster looked for the server where it had been, for ever.
#[test]
fn a_server_whose_netd_dies_while_it_is_away_is_found_again() {
    let dies = r#"
[[fault]]
name = "dies"
kind = "kill"
actor = "netd"
nodes = "n1"
at = "40s"
restart = "1s"
"#;
    passes(&format!("{SERVER_MOVES}{dies}"));
    let reboots = "[[fault]]\nname = \"reboots\"\nkind = \"power-off\"\nnodes = \"n1\"\n\
                   at = \"40s\"\nlasts = \"5s\"\n";
    passes(&format!("{SERVER_MOVES}{reboots}"));
}

/// Each told the other at an address it had left, and sought it at one that was left.
#[test]
fn a_server_and_a_worker_that_move_together_meet_again() {
    let worker = r#"
[[fault]]
name = "worker"
kind = "move"
at = "30s"
node = "w2"
network = "cafe"
outage = "20s"
"#;
    passes(&format!("{SERVER_MOVES}{worker}"));
}

/// It went off before it had written down by which keys it knows its peers, so it believed
/// nobody.
#[test]
fn a_worker_that_was_off_meanwhile_and_knows_nobody_finds_the_server() {
    let young = r#"
[[fault]]
name = "off"
kind = "power-off"
at = "15s"
nodes = "w1"
lasts = "100s"
"#;
    passes(&format!("{}{young}", SERVER_MOVES.replace("30s", "8s")));
    // It wakes up elsewhere as well: whom to believe it knows from its file alone.
    let elsewhere = r#"
[[fault]]
name = "netd"
kind = "kill"
actor = "netd"
at = "15s"
nodes = "w1"
restart = "100s"
[[fault]]
name = "elsewhere"
kind = "move"
at = "60s"
node = "w1"
network = "cafe"
address = "10.9.0.12"
"#;
    passes(&format!("{SERVER_MOVES}{elsewhere}"));
    let disk = r#"
[[fault]]
name = "disk"
kind = "kill"
actor = "kubelet"
loss = "disk"
at = "40s"
nodes = "w2"
restart = "30s"
"#;
    passes(&format!("{SERVER_MOVES}{disk}"));
}

/// Its lease is gone for a moment, long after it moved. The others hung up and looked for it where
/// it had been first, once, and believed nobody who told them better.
#[test]
fn a_server_whose_lease_is_made_anew_is_not_sought_elsewhere() {
    let lease = r#"
[[fault]]
name = "lease"
kind = "delete"
object = "Subnet/n1"
at = "90s"
"#;
    passes(&format!("{SERVER_MOVES}{lease}"));
    let node = r#"
[[fault]]
name = "kubelet"
kind = "kill"
actor = "kubelet"
nodes = "n1"
at = "90s"
restart = "30s"
[[fault]]
name = "node"
kind = "delete"
object = "Node/n1"
at = "100s"
"#;
    passes(&format!("{SERVER_MOVES}{node}"));
}

/// Upstream's kubelet does not even register again (kubernetes/kubernetes#71398).
#[test]
fn whose_node_is_deleted_while_the_server_moves_says_that_it_is_lost() {
    let deleted = r#"
[[fault]]
name = "deleted"
kind = "delete"
object = "Node/w1"
at = "35s"
"#;
    let (report, said) = play(&format!("{SERVER_MOVES}{deleted}"));
    let failed = report.expectations.iter().find(|one| one.outcome == Outcome::Failed);
    assert_eq!(failed.map(|one| &*one.reason), Some("1 not ready; w1: not registered"));
    let told = said.by("netd@w1");
    let hint = "If the Node w1 was deleted meanwhile and the servers moved";
    assert_eq!(told.iter().filter(|(_, text)| text.contains(hint)).count(), 1, "{told:?}");
    for other in ["netd@w2", "netd@c3"] {
        assert!(said.by(other).iter().all(|(_, text)| !text.contains("no API server")));
    }
}
