//! Both worlds side by side, and that what differs is seen.

use super::clusters::SMALL;
use super::{can_run, kubesim, lab, scenario, stood_still, text};
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
    let says = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default().contains("[lab.set]");
    let files: Vec<PathBuf> = toml.filter(says).collect();
    let network = [
        "cidr-overlap",
        "dns-over-tcp",
        "docker-forwarding",
        "flannel-restart-stale-routes",
        "guestbook",
        "laptop-ip-change",
        "resolv-conf-change",
    ];
    for name in network {
        assert!(files.contains(&folder.join(format!("{name}.toml"))), "{name}: {files:?}");
    }
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let all = |set: &str| -> Vec<Case> {
        files.iter().map(|path| (path.clone(), owned(&["--set", set]))).collect()
    };
    let named = |name: &str| folder.join(format!("{name}.toml"));
    let moves = named("laptop-ip-change");
    let more = vec![
        (moves.clone(), owned(&["--set", "cluster.backend=vxlan"])),
        (moves, owned(&["--profile", "flannel"])),
        (named("flannel-restart-stale-routes"), owned(&["--profile", "flannel"])),
        (named("docker-forwarding"), owned(&["--profile", "upstream"])),
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

/// Each world told it in words of its own, with the time, and the lab did not say whose it was.
#[test]
fn a_fault_that_both_worlds_refuse_is_no_difference() {
    if !can_run() {
        return;
    }
    let fault = "[[fault]]\nname = \"too-many\"\nkind = \"iptables\"\nat = \"9s\"\n\
                 nodes = [\"two\"]\ncommand = \"-D FORWARD 99\"\n\n[image.";
    let refused = SMALL.replacen("[image.", fault, 1);
    assert_eq!(parity(&(scenario("refused", &refused), Vec::new())), Ok(()));
    // And the lab says whose it was.
    for _ in 0..3 {
        let output = lab("refused", &refused).output().expect("kubesim runs");
        if stood_still(&output) {
            continue;
        }
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("fault `too-many` could not be applied at "), "{said}");
        let why = "iptables -D FORWARD 99 on two: iptables: Index of deletion too big.";
        assert!(said.contains(why), "{said}");
        return;
    }
    panic!("the machine is too busy for a run in real time");
}

/// What somebody does to the network of one node, and the line by which it is seen.
type Tamper = (&'static str, &'static str);

/// Most of the first the model has no word for, and so it was not seen; of the last something is
/// changed or taken away that the model has.
const TAMPERS: [Tamper; 16] = [
    (
        "iptables -A INPUT -m limit --limit 5/sec -j ACCEPT",
        "lab only: filter: -A INPUT -m limit --limit 5/sec -j ACCEPT",
    ),
    (
        "iptables -t nat -A POSTROUTING -s 1.2.3.4/32 -p tcp -m multiport --dports 1,2 -j ACCEPT",
        "lab only: nat: -A POSTROUTING -s 1.2.3.4/32 -p tcp -m multiport --dports 1,2 -j ACCEPT",
    ),
    (
        "iptables -A INPUT -s 1.2.3.4/32 -j ACCEPT",
        "lab only: filter: -A INPUT -s 1.2.3.4/32 -j ACCEPT",
    ),
    (
        "ip route add 10.98.0.0/16 dev eth0 proto kernel scope link",
        "lab only: 10.98.0.0/16 dev eth0 proto kernel scope link",
    ),
    ("ip route add blackhole 10.97.0.0/16", "lab only: blackhole 10.97.0.0/16"),
    (
        "ip route add 10.96.7.0/24 dev eth0 table 77",
        "lab only: 10.96.7.0/24 dev eth0 table 77 scope link",
    ),
    (
        "ip rule add to 10.99.0.0/16 lookup 77",
        "lab only: 32765: from all to 10.99.0.0/16 lookup 77",
    ),
    ("nft add table ip evil", "lab only: nftables: table ip evil flags 0"),
    ("nft add chain ip evil c", "lab only: nftables: ip evil: chain c"),
    (
        "nft add rule ip evil c ip saddr 1.2.3.4 drop",
        "lab only: nftables: ip evil: chain c: ip saddr 1.2.3.4 drop",
    ),
    (
        "conntrack -I -p udp -s 1.2.3.4 -d 1.2.3.5 --sport 1 --dport 2 -t 120 -u SEEN_REPLY",
        "lab only: udp 1.2.3.4 asks 1.2.3.5:2: 1.2.3.5:2 answers to 1.2.3.4",
    ),
    ("ip link add evil type bridge", "lab only: evil: bridge, mtu 1500, down"),
    ("iptables -P FORWARD DROP", "lab only: filter: :FORWARD DROP"),
    (
        "iptables -D KUBE-FORWARD 1 && \
         iptables -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        "in another order: filter: -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    ),
    (
        "iptables -t nat -D KUBE-MARK-MASQ 1",
        "sim only: nat: -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    ),
    // After the chain's rule for who asks from outside the pods' network.
    (
        "eval iptables -t nat $(iptables-save -t nat | grep -m 1 -e --probability | \
         sed 's/^-A \\([^ ]*\\)/-R \\1 2/; s/--probability [0-9.]*/--probability 0.001/')",
        "lab only: nat: -A KUBE-SVC-LOLE4ISW44XBNF3G: shares 0.00100000016, the rest",
    ),
];

/// The same where the proxy's rules are a table of nf_tables.
const TAMPERS_OF_ELEMENTS: [Tamper; 7] = [
    ("nft add chain ip kube-proxy evil", "lab only: nftables: ip kube-proxy: chain evil"),
    (
        "nft add rule ip kube-proxy evil ip saddr 1.2.3.4 drop",
        "lab only: nftables: ip kube-proxy: chain evil: ip saddr 1.2.3.4 drop",
    ),
    (
        "nft 'add chain ip kube-proxy filter-forward { policy drop; }'",
        "lab only: nftables: ip kube-proxy: chain filter-forward: \
         type filter hook forward priority filter; policy drop;",
    ),
    (
        "nft flush chain ip kube-proxy pick-here",
        "sim only: nftables: ip kube-proxy: chain pick-here: dnat ip to ip daddr . meta l4proto . \
         th dport . meta priority map @endpoints-here comment \"2cb72615e6247c70\"",
    ),
    (
        "nft replace rule ip kube-proxy nat-output handle $(nft -a list chain ip kube-proxy \
         nat-output | sed -n 's/.*jump services.* handle //p') ip daddr 1.2.3.4 drop",
        "lab only: nftables: ip kube-proxy: chain nat-output: ip daddr 1.2.3.4 drop",
    ),
    (
        "nft delete rule ip kube-proxy filter-forward handle $(nft -a list chain ip kube-proxy \
         filter-forward | sed -n 's/.*ct state invalid.* handle //p') && nft 'add rule ip \
         kube-proxy filter-forward ct state invalid drop comment \"264701be720735c8\"'",
        "in another order: nftables: ip kube-proxy: chain filter-forward: \
         ct state invalid drop comment \"264701be720735c8\"",
    ),
    (
        "nft flush map ip kube-proxy treatments",
        "sim only: nftables: ip kube-proxy: map treatments: 0:200 : goto inside-2",
    ),
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
    let (done, said) = tampered("tampered", "iptables", &TAMPERS, SWAP);
    let tunnels = said.matches("lab only: <tunnel of ").count();
    assert_eq!(tunnels, 2, "{done}{said}");
    // And nothing else, but the chances as they were and that a tunnel leads where nobody is.
    let only = |what: &str| TAMPERS.iter().filter(|(_, line)| line.starts_with(what)).count();
    let broken = said.matches("lab only: I2 is broken").count();
    let found = |what: &str| said.matches(what).count();
    assert_eq!(found("lab only: "), only("lab only: ") + tunnels + broken, "{said}");
    assert_eq!(found("sim only: "), only("sim only: ") + tunnels + 1, "{said}");
    assert_eq!(found("in another order: "), only("in another order: "), "{said}");
}

#[test]
fn whatever_is_done_to_the_proxys_own_table_is_seen() {
    if can_run() {
        tampered("tampered-elements", "nftables", &TAMPERS_OF_ELEMENTS, "true");
    }
}

/// What was said of a node to which this was done shortly before the end: each is seen.
fn tampered(name: &str, mode: &str, tampers: &[Tamper], more: &str) -> (String, String) {
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
    let file = scenario(name, &text_of);
    let commands: Vec<&str> = tampers.iter().map(|(command, _)| *command).collect();
    let script = format!("{} && {more}", commands.join(" && "));
    for _ in 0..3 {
        let mut command = kubesim();
        command.arg("parity").arg(&file).args(["--set", &format!("cluster.proxy-mode={mode}")]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("kubesim runs");
        let node = namespace_of(child.id(), "lab-three");
        // Shortly before the look at the end, so that nobody has put anything right again.
        sleep(Duration::from_millis(14_500));
        let done = Command::new("nsenter").arg(node).args(["sh", "-ec", &script]).output();
        let done = text(&done.expect("nsenter runs (Debian: util-linux)"));
        let output = child.wait_with_output().expect("kubesim ends");
        if stood_still(&output) {
            continue;
        }
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{done}{said}");
        for (command, line) in tampers {
            let seen = said.lines().any(|found| found.trim() == *line);
            assert!(seen, "{command}: {done}{said}");
        }
        return (done, said);
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
