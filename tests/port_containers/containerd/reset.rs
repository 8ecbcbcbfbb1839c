//! `kubesim status` of a machine's cluster, and `kubesim reset`: what a node made goes, and nothing
//! else does.

use super::cluster::{Cluster, Running, kubesim, on_a_machine, plug, refused};
use super::machine::Machine;
use super::up::{HERE, up};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn said(program: &str, words: &str) -> String {
    let mut command = Command::new(program);
    let out = command.args(words.split_whitespace()).output().expect("it runs");
    assert!(out.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

/// What the kernel has that a node may have made: names of links, routes, addresses of the
/// loopback, rules without their counters, and mounts below a folder.
fn kernel(below: &Cluster) -> String {
    let links = said("ip", "-o link show");
    let names: Vec<_> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    let rules = said("iptables-save", "");
    let rules = rules.lines().filter(|line| line.starts_with("-A") || line.starts_with(":KUBE"));
    let folder = below.folder.display().to_string();
    let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
    let mounts = mounts.lines().filter(|line| line.contains(&folder));
    let parts = [
        names.join("\n"),
        said("ip", "route show"),
        said("ip", "-o -4 addr show dev lo"),
        rules.collect::<Vec<_>>().join("\n"),
        mounts.collect::<Vec<_>>().join("\n"),
    ];
    parts.join("\n---\n")
}

const POD: &str = "
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 7000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  volumes:
  - {name: key, secret: {secretName: key}}
  - {name: scratch, emptyDir: {medium: Memory}}
  containers:
  - name: c
    image: echo
    imagePullPolicy: IfNotPresent
    ports: [{containerPort: 7000, hostPort: 7001}]
    volumeMounts: [{name: key, mountPath: /key}]
    readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
";

fn reset(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = kubesim("reset");
    command.arg("--data-dir").arg(cluster.data()).args(words);
    command
}

#[test]
fn a_node_tells_how_it_is_and_leaves_nothing_when_it_is_reset() {
    on_a_machine(|| {
        plug(HERE);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        // What others have, in the same chains and folders.
        said("iptables", "-t nat -A POSTROUTING -s 203.0.113.0/24 -j ACCEPT");
        said("ip", "route add 198.51.100.0/24 via 192.168.77.9");
        let plugins = machine.cni();
        fs::write(plugins.join("others"), "x").expect("a file");
        let before = kernel(&cluster);
        let mut running = Running::start(&mut up(&cluster, &machine));
        running.says("the node n1 is ready");
        cluster.apply(POD);
        cluster.ready("web");

        tells_how_it_is(&cluster);
        let why = refused(&mut reset(&cluster, &["--yes"]));
        assert!(why.contains("a node runs that has its data in"), "{why}");
        assert_eq!(running.end(Signal::SIGTERM), Some(0));
        let why = refused(kubesim("status").arg("--data-dir").arg(cluster.data()));
        assert!(why.contains("no server or node of kubesim's runs"), "{why}");
        assert_ne!(kernel(&cluster), before, "it all stands, as it would for the next start");

        let mut asks = reset(&cluster, &[]).stdin(Stdio::piped()).spawn().expect("it runs");
        asks.stdin.take().expect("a pipe").write_all(b"no\n").expect("it listens");
        assert!(asks.wait().expect("it ends").success());
        assert!(!machine.ctr(&["containers", "ls", "-q"]).is_empty(), "who says no keeps all");
        fs::write(cluster.data().join("node/mine"), "x").expect("a file");
        let done = reset(&cluster, &["--yes"]).output().expect("it runs");
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{errors}");
        assert!(told.contains("not the node's, and left: "), "{told}");
        assert_eq!(machine.ctr(&["containers", "ls", "-q"]), "");
        assert_eq!(kernel(&cluster), before);
        // The machine of the test has these beside our own network list and links.
        assert_eq!(names(&plugins), ["10-pods.conflist", "others"]);
        assert_eq!(names(&cluster.data().join("node")), ["mine"]);
        assert_eq!(names(&machine.logs()), [""; 0]);
        assert!(cluster.data().join("store").exists(), "the cluster's own data stay");
        let why = refused(&mut reset(&cluster, &["--yes"]));
        assert!(why.contains("no node has kept anything in"), "{why}");

        // And it can be a node again: of another cluster, as this one knows it by its key.
        fs::remove_dir_all(cluster.data()).expect("it is there");
        let mut running = Running::start(&mut up(&cluster, &machine));
        running.says("the node n1 is ready");
        cluster.apply(POD);
        cluster.ready("web");
        assert_eq!(running.end(Signal::SIGTERM), Some(0));
    });
}

fn tells_how_it_is(cluster: &Cluster) {
    let data = cluster.data().display().to_string();
    let binary = env!("CARGO_BIN_EXE_kubesim");
    let told = said(binary, &format!("status --data-dir {data}"));
    for wanted in [
        "kubelet: ",
        "  sees   this machine is the node n1, at 192.168.77.2",
        "  sees   pod default/web: at 10.244.",
        "netd: ",
        "  sees   n1 is at 192.168.77.2/24, its generation 1",
        "proxy: ",
        "dns: ",
        "scheduler: ",
        "controllers: ",
        "  wants  nothing more",
        "  did    ",
    ] {
        assert!(told.contains(wanted), "{wanted}:\n{told}");
    }
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: lost}\nspec:\n  containers:\n  \
         - {name: c, image: 'shell:none', imagePullPolicy: Never}\n",
    );
    let wants = || {
        let told = said(binary, &format!("status --data-dir {data} --format json"));
        told.contains("pod default/lost: container c to start: Container image")
    };
    cluster.until("what it waits for is told", wants);
}

fn names(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
