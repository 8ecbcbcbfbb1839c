//! `kubesim server` and the stock `kubectl`, of several releases: what a person does, and what is
//! there after the server was ended or killed. What is printed is what upstream prints (kubernetes
//! `pkg/printers/internalversion/printers.go`), written down by hand.

#![cfg(target_os = "linux")]

mod access;
mod admission;
mod applies;
mod autoscaling;
mod backups;
mod certificates;
mod changes;
mod definitions;
mod describes;
mod disruptions;
#[cfg(feature = "etcd")]
#[path = "../common/etcd.rs"]
mod etcd;
mod events;
mod garbage;
mod generators;
mod https;
#[cfg(feature = "lab")]
mod joined;
mod kinds;
#[cfg(feature = "kube-rs")]
mod kube_rs;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "only the stores' ways are cut"))]
#[path = "../common/namespace.rs"]
mod namespace;
mod node;
mod openapi;
mod plane;
mod python;
mod renewals;
mod service;
mod sessions;
#[cfg(feature = "etcd")]
mod several;
mod simulated;
mod stores;
mod tour;
mod transcript;
mod versions;
mod wire;
mod workloads;
mod world;

use namespace::skip;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use world::{Place, Server, clients};

const ANY: &str = "127.0.0.1:0";

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: nginx
        image: nginx:1.25
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  clusterIP: 10.96.0.80
  ports:
  - port: 80
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: one
  labels: {app: web}
spec:
  containers:
  - name: c
    image: busybox
";

/// The words of a table's lines, without ages.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let age = |word: &&str| {
        let digits = word.trim_end_matches(['s', 'm']);
        digits.len() < word.len() && digits.chars().all(|c| c.is_ascii_digit() || c == 'm')
    };
    let lines = table.lines().map(|line| line.split_whitespace());
    lines.map(|words| words.filter(|word| !age(word)).collect()).collect()
}

fn each(story: impl Fn(&Place, &Server)) {
    for client in clients() {
        println!("with {}", client.display());
        let place = Place::new();
        let server = Server::start(&place, ANY, &client);
        story(&place, &server);
        assert_eq!(server.end(), Some(0), "SIGTERM ends it cleanly");
    }
}

/// What `kubectl create` builds by itself it sends in protobuf since 1.32.
#[test]
fn kubectl_creates_from_flags() {
    each(|_, server| {
        assert_eq!(server.kubectl("create namespace team"), "namespace/team created\n");
        let made = server.kubectl("create configmap settings -n team --from-literal=a=1");
        assert_eq!(made, "configmap/settings created\n");
        assert_eq!(server.kubectl("get cm settings -n team -o jsonpath={.data.a}"), "1");
        let made =
            server.kubectl("create deployment site --image=nginx:1.25 --replicas=2 --port=80");
        assert_eq!(made, "deployment.apps/site created\n");
        let path = "{.spec.replicas},{..containerPort},{.spec.strategy.rollingUpdate.maxSurge}";
        assert_eq!(server.kubectl(&format!("get deploy site -o jsonpath={path}")), "2,80,25%");
        let made = server.kubectl("create service clusterip site --tcp=80:8080");
        assert_eq!(made, "service/site created\n");
        let path = "{.spec.ports[0].targetPort},{.spec.selector.app}";
        assert_eq!(server.kubectl(&format!("get svc site -o jsonpath={path}")), "8080,site");
        assert_eq!(server.kubectl("run one --image=busybox"), "pod/one created\n");
        let made = server.kubectl("expose deployment site --name=front --port=80");
        assert_eq!(made, "service/front exposed\n");
    });
}

/// How things are shown, `sessions` tells.
#[test]
fn kubectl_makes_shows_and_changes_things() {
    each(|_, server| {
        assert_eq!(
            server.with("create -f -", WEB),
            "deployment.apps/web created\nservice/web created\n"
        );
        assert_eq!(server.with("create -f -", POD), "pod/one created\n");
        assert_eq!(server.kubectl("get pods -o name"), "pod/one\n");
        assert_eq!(server.kubectl("get pods -A -l app!=web -o name"), "");
        assert_eq!(
            server.kubectl("get pod one -o jsonpath={.spec.containers[*].image}"),
            "busybox"
        );
        assert_eq!(server.kubectl("label pod one tier=front"), "pod/one labeled\n");
        // "annotate", says 1.27.
        assert!(server.kubectl("annotate pod one note=x").starts_with("pod/one annotate"));
        assert_eq!(server.kubectl("get pod -l tier=front -o name"), "pod/one\n");
        assert_eq!(
            server.kubectl("scale deployment web --replicas=3"),
            "deployment.apps/web scaled\n"
        );
        assert_eq!(
            server.kubectl("set image deploy/web nginx=nginx:1.26"),
            "deployment.apps/web image updated\n"
        );
        let now = server.kubectl("get deploy web -o jsonpath={.spec.replicas},{..image}");
        assert_eq!(now, "3,nginx:1.26");
        let described = server.kubectl("describe pod one");
        let first = described.lines().next().unwrap_or_default();
        assert_eq!(first.split_whitespace().collect::<Vec<_>>(), ["Name:", "one"], "{described}");
        assert!(server.kubectl("describe deployment web").contains("Replicas:"), "described");
        assert_eq!(server.kubectl("delete pod one"), "pod \"one\" deleted\n");
        let gone = server.fails("get pod one");
        assert_eq!(gone, "Error from server (NotFound): pods \"one\" not found\n");
    });
}

#[test]
fn kubectl_applies_what_changed() {
    each(|_, server| {
        let applied = server.with("apply -f -", WEB);
        assert_eq!(applied, "deployment.apps/web created\nservice/web created\n");
        let applied = server.with("apply -f -", WEB);
        assert_eq!(applied, "deployment.apps/web unchanged\nservice/web unchanged\n");
        let changed = WEB.replace("replicas: 2", "replicas: 4").replace("1.25", "1.26");
        let applied = server.with("apply -f -", &changed);
        assert_eq!(applied, "deployment.apps/web configured\nservice/web unchanged\n");
        let now = server.kubectl("get deploy web -o jsonpath={.spec.replicas},{..image}");
        assert_eq!(now, "4,nginx:1.26");
        let applied = server.with("delete -f -", WEB);
        assert!(applied.contains("deployment.apps \"web\" deleted"), "{applied}");
    });
}

/// There is no kubelet here: with a grace period of zero, an evicted pod goes at once.
#[test]
fn kubectl_drains_a_node() {
    each(|_, server| {
        server.with("create -f -", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n");
        let placed =
            POD.replace("spec:\n", "spec:\n  nodeName: n1\n  volumes: [{name: v, emptyDir: {}}]\n");
        assert_eq!(server.with("create -f -", &placed), "pod/one created\n");
        let elsewhere = POD.replace("name: one", "name: two");
        assert_eq!(server.with("create -f -", &elsewhere), "pod/two created\n");
        let unschedulable =
            |server: &Server| server.kubectl("get node n1 -o jsonpath={.spec.unschedulable}");
        assert_eq!(server.kubectl("cordon n1"), "node/n1 cordoned\n");
        assert_eq!(unschedulable(server), "true");
        assert_eq!(server.kubectl("uncordon n1"), "node/n1 uncordoned\n");
        assert_eq!(unschedulable(server), "");
        assert_eq!(server.kubectl("taint node n1 dedicated=a:NoSchedule"), "node/n1 tainted\n");
        let taints = "get node n1 -o jsonpath={.spec.taints[?(@.key==\"dedicated\")].value}";
        assert_eq!(server.kubectl(taints), "a");
        assert_eq!(server.kubectl("taint node n1 dedicated-"), "node/n1 untainted\n");
        assert_eq!(server.kubectl(taints), "");
        let refused = server.fails("drain n1 --ignore-daemonsets");
        assert!(refused.contains("--delete-emptydir-data"), "{refused}");
        // It has cordoned the node before it saw the pod.
        assert_eq!(server.kubectl("uncordon n1"), "node/n1 uncordoned\n");
        let drain = "drain n1 --ignore-daemonsets --force --delete-emptydir-data";
        let tried = server.kubectl(&format!("{drain} --dry-run=server"));
        assert!(tried.contains("node/n1 drained (server dry run)"), "{tried}");
        assert_eq!(unschedulable(server), "");
        assert_eq!(server.kubectl("get pods -o name"), "pod/one\npod/two\n");
        let drained = server.kubectl(&format!("{drain} --grace-period=0 --timeout=30s"));
        assert!(drained.contains("evicting pod default/one\n"), "{drained}");
        assert!(drained.contains("pod/one evicted\n"), "{drained}");
        assert!(drained.ends_with("node/n1 drained\n"), "{drained}");
        assert_eq!(server.kubectl("get pods -o name"), "pod/two\n");
        assert_eq!(unschedulable(server), "true");
    });
}

/// Nobody collects what is owned here: the test takes the finalizers off in the collector's place.
#[test]
fn kubectl_deletes_in_the_foreground_and_lets_go() {
    each(|_, server| {
        for (cascade, finalizer) in [("foreground", "foregroundDeletion"), ("orphan", "orphan")] {
            server.with("create -f -", WEB);
            server.kubectl(&format!("delete deploy web --cascade={cascade} --wait=false"));
            let held = server.kubectl("get deploy web -o jsonpath={.metadata.finalizers[*]}");
            assert_eq!(held, finalizer);
            let patch = "{\"metadata\":{\"finalizers\":null}}";
            server.kubectl(&format!("patch deploy web --type=merge -p {patch}"));
            assert_eq!(server.kubectl("get deploy -o name"), "");
            server.kubectl("delete service web --cascade=background");
        }
    });
}

/// `--dry-run=server`: admitted and shown, and not done.
#[test]
fn kubectl_tries_things() {
    each(|_, server| {
        let tried = server.with("apply -f - --dry-run=server", WEB);
        let lines =
            "deployment.apps/web created (server dry run)\nservice/web created (server dry run)\n";
        assert_eq!(tried, lines);
        assert_eq!(server.kubectl("get deploy,po -o name"), "");
        server.with("apply -f -", WEB);
        let changed = WEB.replace("replicas: 2", "replicas: 4");
        let path = "-o jsonpath={.spec.replicas}";
        let shown = "-o jsonpath={.items[0].spec.replicas}";
        let shown = server.with(&format!("apply -f - --dry-run=server {shown}"), &changed);
        assert_eq!(shown, "4");
        let tried = server.with("apply -f - --dry-run=server", &changed);
        assert!(tried.starts_with("deployment.apps/web configured (server dry run)\n"), "{tried}");
        let tried = server.kubectl("scale deployment web --replicas=3 --dry-run=server");
        assert!(tried.starts_with("deployment.apps/web scaled"), "{tried}");
        assert_eq!(server.kubectl(&format!("get deploy web {path}")), "2");
        let tried = server.kubectl("create configmap settings --from-literal=a=1 --dry-run=server");
        assert_eq!(tried, "configmap/settings created (server dry run)\n");
        let tried = server.kubectl("label deployment web tier=front --dry-run=server");
        assert_eq!(tried, "deployment.apps/web labeled (server dry run)\n");
        let tried = server.kubectl("delete deployment web --dry-run=server");
        assert_eq!(tried, "deployment.apps \"web\" deleted (server dry run)\n");
        assert_eq!(server.kubectl("get deploy,cm -l tier!=front -o name"), "deployment.apps/web\n");
        let twice = "create deployment web --image=nginx --dry-run=server";
        assert!(server.fails(twice).contains("already exists"), "it is checked");
    });
}

#[test]
fn kubectl_finds_its_way() {
    each(|place, server| {
        transcript::play("ways.txt", place, server);
        let resources = server.kubectl("api-resources");
        let line = |name: &str| {
            let found = resources.lines().find(|line| line.split_whitespace().next() == Some(name));
            found.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("pods"), "pods po v1 true Pod");
        assert_eq!(line("deployments"), "deployments deploy apps/v1 true Deployment");
        assert_eq!(line("subnets"), "subnets net.kubesim.dev/v1 false Subnet");
        let versions = server.kubectl("api-versions");
        let expected = [
            "apiextensions.k8s.io/v1",
            "apps/v1",
            "authentication.k8s.io/v1",
            "authorization.k8s.io/v1",
            "autoscaling/v1",
            "autoscaling/v2",
            "batch/v1",
            "certificates.k8s.io/v1",
            "coordination.k8s.io/v1",
            "discovery.k8s.io/v1",
            "events.k8s.io/v1",
            "net.kubesim.dev/v1",
            "networking.k8s.io/v1",
            "policy/v1",
            "rbac.authorization.k8s.io/v1",
            "scheduling.k8s.io/v1",
            "storage.k8s.io/v1",
            "v1",
        ];
        assert_eq!(versions.lines().collect::<Vec<_>>(), expected);
        assert!(server.kubectl("version -o json").contains("\"v1.33.0+kubesim"), "version");
        assert_eq!(server.kubectl("get --raw /readyz"), "ok");
        let namespaces = server.kubectl("get namespaces");
        assert!(rows(&namespaces).contains(&vec!["default", "Active"]), "{namespaces}");
    });
}

#[test]
fn everything_is_there_after_a_restart() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let server = Server::start(&place, ANY, &client);
    let listen = server.url.trim_start_matches("https://").to_owned();
    let create = |server: &Server, name: &str| {
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
        server.with("create -f -", &map);
    };
    create(&server, "a");
    let mut watch = server
        .command(&["get", "configmap", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut told = || lines.next().expect("a line").expect("text");
    assert_eq!(told(), "configmap/a");
    create(&server, "b");
    assert_eq!(told(), "configmap/b");
    let old = server.kubectl("get configmap a -o json");
    let list = server.kubectl("get --raw /api/v1/configmaps");
    let version =
        list.split("\"resourceVersion\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let version = version.expect("the list's version").to_owned();
    // Killed, so that nothing but what was acknowledged is kept.
    server.kill();
    let _ = watch.wait();
    let server = Server::start(&place, &listen, &client);
    assert_eq!(server.kubectl("get configmap a -o json"), old, "the same object");
    // A watch goes on where the old one was, or is told that it cannot.
    create(&server, "c");
    let watched = |version: &str| {
        let path = format!("/api/v1/configmaps?watch=1&timeoutSeconds=1&resourceVersion={version}");
        server.run(&["get", "--raw", &path], "")
    };
    let out = watched(&version);
    let text =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let goes_on = text.contains("\"type\":\"ADDED\"") && text.contains("\"name\":\"c\"");
    assert!(goes_on || text.contains("too old resource version"), "{text}");
    assert!(String::from_utf8_lossy(&watched("1").stdout).contains("too old resource version"));
    assert_eq!(server.end(), Some(0));
}
