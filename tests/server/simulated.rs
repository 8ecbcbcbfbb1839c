//! `kubesim run --serve`: the stock `kubectl` in a simulated cluster. Who looks changes nothing;
//! what somebody writes plays again from its record.

use super::{POD, rows};
use crate::plane::until;
use crate::world::{Place, Server, clients};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SCENARIO: &str = r#"
name = "simulated"
title = "A server and two workers"
duration = "DURATION"
[[network]]
name = "lan"
cidr = "192.168.1.0/24"
[[node]]
name = "n1"
role = "server"
network = "lan"
address = "192.168.1.11"
taints = ["node-role.kubernetes.io/control-plane=:NoSchedule"]
[[node]]
name = "w"
count = 2
network = "lan"
address = "192.168.1.12"
[image."web:1"]
http = [{ port = 80, text = "hello" }]
[[workload]]
name = "site"
at = "5s"
generate = { deployments = 1, replicas = 2, image = "web:1" }
[[expect]]
name = "both run"
kind = "pods-ready"
count = 2
by = "45s"
"#;

/// Where the administrator's kubeconfig is, as [`Server`] has it.
fn kubeconfig(place: &Place) -> PathBuf {
    fs::create_dir_all(place.0.join("data")).expect("a directory");
    place.0.join("data/admin.conf")
}

fn scenario(place: &Place, duration: &str) -> PathBuf {
    let path = place.0.join("simulated.toml");
    fs::write(&path, SCENARIO.replace("DURATION", duration)).expect("a file");
    path
}

fn kubesim() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kubesim"))
}

fn told(place: &Place) -> String {
    fs::read_to_string(place.0.join("told")).unwrap_or_default()
}

/// A served run whose nodes are ready; what it tells is in a file.
fn served(place: &Place, duration: &str, more: &[&str], client: &std::path::Path) -> Server {
    let out = fs::File::create(place.0.join("told")).expect("a file");
    let process = kubesim()
        .arg("run")
        .arg(scenario(place, duration))
        .args(["--serve", "127.0.0.1:0", "--kubeconfig"])
        .arg(kubeconfig(place))
        .args(more)
        .stdout(out)
        .spawn()
        .expect("kubesim runs");
    until("the API is served", || told(place).contains("try: kubectl --kubeconfig "));
    let at = told(place).split("the API will be at ").nth(1).map(str::to_owned).expect("where");
    let url = at.split(';').next().expect("an address").to_owned();
    let server = Server::of(process, place, url, client);
    until("the nodes are ready", || server.kubectl("get nodes").matches(" Ready ").count() == 3);
    server
}

/// `digest 0123…` of a run's last words.
fn digest(told: &str) -> &str {
    let found = told.split(", digest ").nth(1).and_then(|rest| rest.split(',').next());
    found.unwrap_or_else(|| panic!("no digest: {told}"))
}

fn each(story: impl Fn(&Place, &std::path::Path)) {
    for client in clients() {
        println!("with {}", client.display());
        story(&Place::new(), &client);
    }
}

#[test]
fn looking_at_a_run_changes_nothing() {
    each(|place, client| {
        let server = served(place, "300s", &["--speed", "20x"], client);
        let watched = server
            .command(&["get", "leases", "-A", "-w", "-o", "name"])
            .stdout(Stdio::piped())
            .spawn();
        let mut watched = watched.expect("kubectl starts");
        let mut lines = BufReader::new(watched.stdout.take().expect("a pipe")).lines();
        until("pods run", || server.kubectl("get pods").matches(" Running ").count() == 2);
        let nodes = server.kubectl("get nodes");
        assert_eq!(rows(&nodes)[0], ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
        // Virtual time: the machine's is of another year.
        let age = nodes.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
        assert!(age.is_some_and(|age| age.ends_with('s') && age.len() <= 5), "{nodes}");
        let pods = server.kubectl("get pods -o name");
        let pod = pods.lines().next().expect("a pod");
        let said = server.kubectl(&format!("describe {pod}"));
        let status = said.lines().find_map(|line| line.strip_prefix("Status:"));
        assert_eq!(status.map(str::trim), Some("Running"), "{said}");
        let refused = server.fails(&format!("logs {pod}"));
        assert!(refused.contains("pods/log is asked of the pod's node"), "{refused}");
        assert_eq!(server.kubectl("auth can-i '*' '*'"), "yes\n");
        for _ in 0..10 {
            lines.next().expect("news").expect("text");
        }
        assert_eq!(server.wait(), Some(0), "{}", told(place));
        let _ = watched.wait();
        let alone = kubesim().arg("run").arg(scenario(place, "300s")).output().expect("it runs");
        let alone = String::from_utf8(alone.stdout).expect("UTF-8");
        let told = told(place);
        assert_eq!(digest(&told), digest(&alone));
        assert!(told.contains("held     both run") && !told.contains("replay: "), "{told}");
        assert!(!kubeconfig(place).exists(), "it goes with the run");
    });
}

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
const WIDGET: &str = "
apiVersion: example.com/v1
kind: Widget
metadata: {name: one}
spec: {size: 1.5}
";
const STORAGE: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: slow}
provisioner: example.com/slow
";

/// A day of an administrator's, in which nothing is left as it was.
fn works(server: &Server) {
    let running = |count: u32| {
        let deployment = "get deploy -o jsonpath={.items[*].status.readyReplicas}";
        server.kubectl(deployment) == count.to_string()
    };
    until("it runs", || running(2));
    assert_eq!(
        server.kubectl("scale deploy site-1 --replicas=4"),
        "deployment.apps/site-1 scaled\n"
    );
    until("it is scaled", || running(4));
    let drained = server.kubectl("drain w1 --ignore-daemonsets --timeout=60s");
    assert!(drained.ends_with("node/w1 drained\n"), "{drained}");
    until("the others run them", || running(4));
    let field = "--field-selector spec.nodeName=w1";
    assert_eq!(server.kubectl(&format!("get pods -o name {field}")), "");
    assert_eq!(server.kubectl("uncordon w1"), "node/w1 uncordoned\n");
    let pods = server.kubectl("get pods -o name");
    let deleted = server.kubectl(&format!("delete {}", pods.lines().next().expect("a pod")));
    assert!(deleted.contains("deleted"), "{deleted}");
    assert_eq!(server.with("apply -f -", POD), "pod/one created\n");
    let changed = POD.replace("app: web", "app: other");
    assert_eq!(server.with("apply -f -", &changed), "pod/one configured\n");
    // What no component of the simulation plays is kept as what it is.
    assert_eq!(server.with("apply -f -", STORAGE), "storageclass.storage.k8s.io/slow created\n");
    server.with("apply -f -", WIDGETS);
    server.kubectl("wait --for condition=established crd/widgets.example.com --timeout=20s");
    assert_eq!(server.with("apply -f -", WIDGET), "widget.example.com/one created\n");
    assert_eq!(server.kubectl("get widget one -o jsonpath={.spec.size}"), "1.5");
    let tried = server.kubectl("delete deploy site-1 --dry-run=server");
    assert_eq!(tried, "deployment.apps \"site-1\" deleted (server dry run)\n");
    // With the first write came the roles that every cluster has.
    assert!(server.kubectl("get clusterrole view -o name").contains("/view"));
    assert_eq!(server.kubectl("auth can-i list pods --as system:kube-scheduler"), "yes\n");
}

#[test]
fn what_somebody_wrote_plays_again() {
    each(|place, client| {
        let record = place.0.join("record.jsonl");
        let path = record.display().to_string();
        let server = served(place, "3h", &["--speed", "10x", "--record", &path], client);
        works(&server);
        assert_eq!(server.end(), Some(0), "{}", told(place));
        let told = told(place);
        let again = kubesim()
            .arg("run")
            .arg(scenario(place, "3h"))
            .arg("--replay")
            .arg(&record)
            .output()
            .expect("it runs");
        let again = String::from_utf8(again.stdout).expect("UTF-8");
        assert_eq!(digest(&again), digest(&told), "{again}");
        assert!(told.contains(&format!("--seed 1 --replay {path}\n")), "{told}");
    });
}

/// A run that somebody wrote into is looked into again, from where it becomes interesting, and
/// written into further.
#[test]
fn a_recorded_run_is_looked_into() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let record = |name: &str| place.0.join(name).display().to_string();
    let (first, second) = (record("first.jsonl"), record("second.jsonl"));
    let ready = "get deploy site-1 -o jsonpath={.status.readyReplicas}";
    let server = served(&place, "3h", &["--from", "1m", "--record", &first], &client);
    server.kubectl("scale deploy site-1 --replicas=3");
    until("it is scaled", || server.kubectl(ready) == "3");
    assert_eq!(server.end(), Some(0));
    let more = ["--from", "10m", "--replay", &first, "--record", &second];
    let server = served(&place, "3h", &more, &client);
    until("it is scaled again", || server.kubectl(ready) == "3");
    server.kubectl("scale deploy site-1 --replicas=1");
    assert_eq!(server.end(), Some(0));
    let told = told(&place);
    let file = scenario(&place, "3h");
    let again = kubesim().arg("run").arg(file).args(["--replay", &second]).output();
    let again = again.expect("it runs");
    let out = String::from_utf8(again.stdout).expect("UTF-8");
    assert_eq!((again.status.code(), digest(&out)), (Some(0), digest(&told)), "{out}");
    assert!(out.contains("scales site-1-") && out.contains(" from 2 to 3"), "{out}");
}

/// After the scenario's end time goes on, and what is written then is played again as well.
#[test]
fn a_run_that_is_held_goes_on() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let server = served(&place, "60s", &["--speed", "20x", "--hold"], &client);
    until("the scenario is over", || told(&place).contains("its time goes on until ^C"));
    server.kubectl("scale deploy site-1 --replicas=3");
    let ready = "get deploy site-1 -o jsonpath={.status.readyReplicas}";
    until("it is scaled", || server.kubectl(ready) == "3");
    assert_eq!(server.end(), Some(0));
    let told = told(&place);
    let line = told.lines().find_map(|line| line.strip_prefix("replay: kubesim "));
    let words: Vec<&str> = line.expect("how to replay it").split(' ').collect();
    let record = PathBuf::from(words.last().expect("the record"));
    let again = kubesim().args(&words).output().expect("it runs");
    let (out, code) = (String::from_utf8(again.stdout).expect("UTF-8"), again.status.code());
    assert_eq!((code, digest(&out)), (Some(0), digest(&told)), "{out}");
    // With one write less it is another run, and is told so.
    let text = fs::read_to_string(&record).expect("the record");
    let less: Vec<&str> = text.lines().filter(|line| !line.contains("site-1")).collect();
    assert!(less.len() < text.lines().count());
    fs::write(&record, less.join("\n") + "\n").expect("a file");
    let again = kubesim().args(&words).output().expect("it runs");
    let _ = fs::remove_dir_all(record.parent().expect("the run's directory"));
    let out = String::from_utf8(again.stdout).expect("UTF-8");
    assert_eq!(again.status.code(), Some(1), "{out}");
    assert!(out.contains("this is not the run that was recorded"), "{out}");
}
