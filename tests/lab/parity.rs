//! Both worlds side by side, and that what differs is seen.

use super::clusters::SMALL;
use super::{can_run, kubesim, scenario, stood_still, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// A scenario, and how it is played.
type Case = (PathBuf, Vec<String>);

/// Every scenario that says what shrinks in real time: what an operator could see is the same in
/// the simulator and on this machine's kernel. So it is of a laptop that moves with a tunnel, and
/// of what flannel does to it: both worlds fail alike.
#[test]
fn the_shipped_scenarios_agree_in_both_worlds() {
    if !can_run() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = fs::read_dir(&folder).expect("scenarios").flatten().map(|entry| entry.path());
    let toml = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml"));
    let says = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|t| t.contains("[lab.set]"));
    let files: Vec<PathBuf> = toml.filter(says).collect();
    assert!(files.len() >= 5, "{files:?}");
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let all = |set: &str| -> Vec<Case> {
        files.iter().map(|path| (path.clone(), owned(&["--set", set]))).collect()
    };
    let moves = folder.join("laptop-ip-change.toml");
    let more = vec![
        (moves.clone(), owned(&["--set", "cluster.backend=vxlan"])),
        (moves, owned(&["--profile", "flannel"])),
    ];
    let [chains, elements] =
        ["iptables", "nftables"].map(|mode| format!("cluster.proxy-mode={mode}"));
    for cases in [[all(&chains), more].concat(), all(&elements)] {
        // Side by side: they mostly wait.
        let agreed = thread::scope(|scope| {
            let threads: Vec<_> =
                cases.iter().map(|case| scope.spawn(move || parity(case))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a run")).collect::<Vec<_>>()
        });
        let differ: Vec<String> = agreed.into_iter().filter_map(Result::err).collect();
        assert!(differ.is_empty(), "{}", differ.join("\n"));
    }
}

/// Once more if the machine was too busy for real time.
fn parity((path, how): &Case) -> Result<(), String> {
    for _ in 0..3 {
        let output = kubesim().arg("parity").arg(path).args(how).output().expect("kubesim runs");
        match output.status.code() {
            Some(0) => return Ok(()),
            _ if stood_still(&output) => {}
            _ => return Err(format!("{} {how:?}:\n{}", path.display(), text(&output))),
        }
    }
    Err(format!("{} {how:?}: the machine is too busy", path.display()))
}

/// What somebody does to the network of one node, and the line by which it is seen. Most of it the
/// model has no word for, and so it was not seen.
const TAMPERS: [(&str, &str); 12] = [
    (
        "iptables -A INPUT -m limit --limit 5/sec -j ACCEPT",
        "filter: -A INPUT -m limit --limit 5/sec -j ACCEPT",
    ),
    (
        "iptables -t nat -A POSTROUTING -s 1.2.3.4/32 -p tcp -m multiport --dports 1,2 -j ACCEPT",
        "nat: -A POSTROUTING -s 1.2.3.4/32 -p tcp -m multiport --dports 1,2 -j ACCEPT",
    ),
    ("iptables -A INPUT -s 1.2.3.4/32 -j ACCEPT", "filter: -A INPUT -s 1.2.3.4/32 -j ACCEPT"),
    (
        "ip route add 10.98.0.0/16 dev eth0 proto kernel scope link",
        "10.98.0.0/16 dev eth0 proto kernel scope link",
    ),
    ("ip route add blackhole 10.97.0.0/16", "blackhole 10.97.0.0/16"),
    ("ip route add 10.96.7.0/24 dev eth0 table 77", "10.96.7.0/24 dev eth0 table 77 scope link"),
    ("ip rule add to 10.99.0.0/16 lookup 77", "32765: from all to 10.99.0.0/16 lookup 77"),
    ("nft add table ip evil", "nftables: table ip evil flags 0"),
    ("nft add chain ip evil c", "nftables: ip evil: chain c"),
    (
        "nft add rule ip evil c ip saddr 1.2.3.4 drop",
        "nftables: ip evil: chain c: ip saddr 1.2.3.4 drop",
    ),
    (
        "conntrack -I -p udp -s 1.2.3.4 -d 1.2.3.5 --sport 1 --dport 2 -t 120 -u SEEN_REPLY",
        "udp 1.2.3.4 asks 1.2.3.5:2: 1.2.3.5:2 answers to 1.2.3.4",
    ),
    ("ip link add evil type bridge", "evil: bridge, mtu 1500, down"),
];

/// Each of two peers' tunnels leads to the other.
const SWAP: &str = "set -- $(bridge fdb show | awk '/ dst / { print $1, $3, $5 }'); \
                    bridge fdb replace $1 dev $2 dst $6 self permanent; \
                    bridge fdb replace $4 dev $5 dst $3 self permanent";

#[test]
fn whatever_is_done_to_a_real_node_is_seen() {
    if !can_run() {
        return;
    }
    let third = "[[node]]\nname = \"three\"\nnetwork = \"lan\"\naddress = \"192.168.7.13\"\n\n";
    let text_of = SMALL.replacen("host-gw", "vxlan", 1);
    let text_of = text_of.replacen("[image.", &format!("{third}[image."), 1);
    // Where the probes look for them.
    let elsewhere = "{matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, \
                     values: [three]}]}";
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let affinity =
        format!("{{nodeAffinity: {{{required}: {{nodeSelectorTerms: [{elsewhere}]}}}}}}");
    let containers = "      containers:";
    let text_of =
        text_of.replacen(containers, &format!("      affinity: {affinity}\n{containers}"), 1);
    let file = scenario("tampered", &text_of);
    for _ in 0..3 {
        let mut command = kubesim();
        command.arg("parity").arg(&file);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("kubesim runs");
        let node = namespace_of(child.id(), "lab-three");
        // Shortly before the look at the end, so that nobody has put anything right again.
        sleep(Duration::from_millis(14_500));
        let commands = TAMPERS.map(|(command, _)| command).join(" && ");
        let script = format!("{commands} && {SWAP}");
        let done = Command::new("nsenter").arg(node).args(["sh", "-ec", &script]).output();
        let done = text(&done.expect("nsenter runs (Debian: util-linux)"));
        let output = child.wait_with_output().expect("kubesim ends");
        if stood_still(&output) {
            continue;
        }
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{done}{said}");
        let only =
            |line: &str| said.lines().any(|found| found.trim() == format!("lab only: {line}"));
        for (command, line) in TAMPERS {
            assert!(only(line), "{command}: {done}{said}");
        }
        let tunnels = said.matches("lab only: <tunnel of ").count();
        assert_eq!(tunnels, 2, "{done}{said}");
        // And nothing else, but that a tunnel leads where nobody is.
        let broken = usize::from(only("I2 is broken"));
        let all = said.matches("lab only: ").count();
        assert_eq!(all, TAMPERS.len() + tunnels + broken, "{said}");
        return;
    }
    panic!("the machine is too busy for a run in real time");
}

/// What `nsenter` enters the network of a node by.
fn namespace_of(process: u32, thread: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for task in tasks.map(|task| task.path()) {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            if name.trim() == thread {
                return format!("--net={}", task.join("ns/net").display());
            }
        }
        sleep(Duration::from_millis(20));
    }
    panic!("no thread {thread}");
}
