//! A member of etcd that falls silent: nothing of what is sent to it or by it arrives, and no
//! kernel says so, as when a cable is cut between two switches.

use super::load::map;
use super::{Clients, Cluster, MAPS, SERVERS, possible};
use crate::https::Ask;
use crate::namespace::in_namespace;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A write that is under way is given up after 5 s (`Options::deadline` of etcd's driver), and all
/// that the server does with that member is given up with it. Otherwise a stream is, when etcd has
/// given no sign of life for 15 s.
const BOUND: Duration = Duration::from_secs(12);

/// All packets of a port, one way and the other: `-A` has them dropped, `-D` no more.
fn silence(how: &str, port: u16) {
    for side in ["--sport", "--dport"] {
        let rule = format!("-w {how} INPUT -p tcp {side} {port} -j DROP");
        let done = Command::new("iptables").args(rule.split(' ')).status();
        assert!(done.expect("iptables runs").success(), "iptables {rule}");
    }
}

fn can_drop() -> bool {
    let found = Command::new("iptables").arg("--version").output().is_ok();
    if !found {
        crate::skip::skipped("the program `iptables` (Debian: iptables)");
    }
    found
}

/// A write to the server is acknowledged, and it tells of it: what it knows of the store is new.
fn serves(cluster: &Cluster, server: usize, name: &str) -> bool {
    let Ok(mut line) = cluster.ends.open(server) else { return false };
    let mut ask = |words: &str, body: &str| {
        let ask = Ask { words, body, ..Ask::default() };
        line.ask(ask).is_ok_and(|(code, _)| [200, 201, 409].contains(&code))
    };
    ask(&format!("POST {MAPS}"), &map(name, 0).to_string())
        && ask(&format!("GET {MAPS}/{name}"), "")
}

/// Each server asks another member first, so each of them is left by one in its turn, and one turn
/// is that of etcd's leader.
#[test]
fn a_member_that_falls_silent_is_left_for_another() {
    if !possible() || !can_drop() {
        return;
    }
    in_namespace(|| {
        let alone =
            &["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];
        let cluster = Cluster::start(alone, |_| {});
        let clients = Clients::start(&cluster.ends);
        for member in 0..SERVERS {
            sleep(Duration::from_secs(1));
            silence("-A", cluster.etcd[member].port());
            let since = Instant::now();
            for server in 0..SERVERS {
                let mut tries = 0;
                while !serves(&cluster, server, &format!("m{member}-{server}-{tries}")) {
                    tries += 1;
                    let silent = since.elapsed();
                    assert!(silent < BOUND, "member {member}, server {server}: {silent:?}");
                    sleep(Duration::from_millis(50));
                }
            }
            println!("member {member} is left by all after {:?}", since.elapsed());
            silence("-D", cluster.etcd[member].port());
        }
        clients.end(&cluster.ends);
    });
}
