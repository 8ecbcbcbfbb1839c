//! What nodes and pods use, measured: `kubectl top`, and an autoscaler that goes by it.

use super::cluster::{Cluster, Running, on_a_machine, plug};
use super::machine::Machine;
use super::up::{HERE, up};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Of two containers one never rests; half a core is all that it may have.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: idle, labels: {app: idle}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: echo, imagePullPolicy: IfNotPresent}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: spins
        image: shell
        imagePullPolicy: IfNotPresent
        command: [/bin/sh, -c, 'while true; do :; done']
        resources: {requests: {cpu: 100m}, limits: {cpu: 300m}}
      - {name: rests, image: echo, imagePullPolicy: IfNotPresent,
         resources: {requests: {cpu: 100m}}}
";

/// The rows of a table, without its head.
fn rows(text: &str) -> Vec<Vec<String>> {
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    text.lines().skip(1).map(row).collect()
}

/// `123m`.
fn millis(cell: &str) -> u64 {
    let number = cell.strip_suffix('m').unwrap_or_else(|| panic!("{cell}: no thousandths"));
    number.parse().expect("a number")
}

#[test]
fn what_is_used_is_shown_and_autoscaled_by() {
    on_a_machine(|| {
        plug(HERE);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        let mut running = Running::start(&mut up(&cluster, &machine));
        running.says("the node n1 is ready");
        cluster.apply(PODS);
        cluster.ready("idle");

        let spins = || {
            let shown = rows(&cluster.told("top pod -l app=busy --containers"));
            let row = shown.into_iter().find(|row| row.get(1).is_some_and(|name| name == "spins"));
            row.map(|row| millis(&row[2]))
        };
        cluster.until("it is seen to be busy", || spins().is_some_and(|used| used > 50));
        let used = spins().expect("a row");
        assert!(used <= 350, "it may have 300m and uses {used}m");
        let idle = rows(&cluster.told("top pod idle"));
        assert_eq!(idle[0][0], "idle");
        assert!(millis(&idle[0][1]) < 50, "{idle:?}");
        assert!(idle[0][2].ends_with("Mi"), "{idle:?}");
        let node = rows(&cluster.told("top node"));
        assert_eq!((node.len(), &*node[0][0]), (1, "n1"), "{node:?}");
        assert!(millis(&node[0][1]) > 50 && node[0][2].ends_with('%'), "{node:?}");

        // The API itself, and what it says of what is not there.
        let raw =
            |path: &str| cluster.told(&format!("get --raw /apis/metrics.k8s.io/v1beta1{path}"));
        let one: Value = serde_json::from_str(&raw("/namespaces/default/pods/idle")).expect("JSON");
        assert_eq!(
            (&one["kind"], &one["metadata"]["labels"]["app"]),
            (&"PodMetrics".into(), &"idle".into())
        );
        let listed = cluster.told("api-resources --api-group=metrics.k8s.io -o name");
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.sort_unstable();
        assert_eq!(listed, ["nodes.metrics.k8s.io", "pods.metrics.k8s.io"]);
        let none = cluster.command("top pod nobody").output().expect("kubectl runs");
        let why = String::from_utf8_lossy(&none.stderr).into_owned();
        assert!(why.contains("podmetrics.metrics.k8s.io \"default/nobody\" not found"), "{why}");

        // Of its requests it uses more than a tenth, whatever else this machine does.
        cluster.told("autoscale deployment busy --cpu-percent=10 --min=1 --max=2");
        let replicas = || cluster.told("get deployment busy -o jsonpath={.spec.replicas}");
        cluster.until("there are two of it", || replicas() == "2");
        let current = "get hpa busy -o jsonpath={.status.currentMetrics[0].resource.current}";
        let current = cluster.told(current);
        assert!(current.contains("averageUtilization"), "{current}");
        assert_eq!(running.end(Signal::SIGTERM), Some(0));
    });
}
