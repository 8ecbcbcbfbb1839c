//! Jobs, DaemonSets and StatefulSets, as a person with kubectl meets them. There are no nodes: the
//! test is their kubelet.

use super::plane::{each, get, join, kubelet, name, patch_status, until};
use crate::world::Server;
use serde_json::{Value, json};

const SETS: &str = "
apiVersion: apps/v1
kind: KIND
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  MORE
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: nginx, image: nginx:1.25}
";

fn set(kind: &str, more: &str) -> String {
    SETS.replace("KIND", kind).replace("MORE", more)
}

/// The images of the pods that are not on their way out, by the pods' names.
fn images(server: &Server) -> Vec<(String, String)> {
    let pods = get(server, "pods");
    let there = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    there.map(|pod| (name(pod).to_owned(), text(&pod["spec"]["containers"][0]["image"]))).collect()
}

/// Until so many pods have the image and kubectl finds the rollout done.
#[track_caller]
fn rolls_out(server: &Server, what: &str, count: usize, image: &str, told: &str) {
    until(image, || {
        kubelet(server);
        let images = images(server);
        images.len() == count && images.iter().all(|(_, is)| is == image)
    });
    until("a rollout that is done", || {
        kubelet(server);
        let run = server.run(&["rollout", "status", what, "--watch=false"], "");
        String::from_utf8_lossy(&run.stdout).contains(told)
    });
}

fn revisions(server: &Server, what: &str) -> Vec<u32> {
    let told = server.kubectl(&format!("rollout history {what}"));
    let lines = told.lines().filter_map(|line| line.split_whitespace().next());
    lines.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_daemon_set_is_on_each_node_and_goes_on_and_back() {
    each(&[], |server| {
        join(server, "n1");
        join(server, "n2");
        server.with("create -f -", &set("DaemonSet", ""));
        let done = "daemon set \"web\" successfully rolled out";
        rolls_out(server, "ds/web", 2, "nginx:1.25", done);
        let mut nodes: Vec<Value> =
            get(server, "pods").iter().map(|pod| pod["spec"]["nodeName"].clone()).collect();
        nodes.sort_by_key(Value::to_string);
        assert_eq!(nodes, ["n1", "n2"]);
        server.kubectl("set image ds/web nginx=nginx:1.26");
        rolls_out(server, "ds/web", 2, "nginx:1.26", done);
        assert_eq!(revisions(server, "ds/web"), [1, 2]);
        server.kubectl("rollout undo ds/web");
        rolls_out(server, "ds/web", 2, "nginx:1.25", done);
        assert_eq!(revisions(server, "ds/web"), [2, 3]);
        server.kubectl("delete ds web --wait=false");
        until("nothing is left", || {
            kubelet(server);
            server.kubectl("get ds,controllerrevisions,pods -o name").is_empty()
        });
    });
}

#[test]
fn a_stateful_set_keeps_its_names_and_goes_on_and_back() {
    each(&[], |server| {
        join(server, "n1");
        server.with("create -f -", &set("StatefulSet", "serviceName: web\n  replicas: 2"));
        until("the first pod", || get(server, "pods").len() == 1);
        let done = "partitioned roll out complete: 2 new pods have been updated";
        let rolls_out = |image: &str| rolls_out(server, "sts/web", 2, image, done);
        rolls_out("nginx:1.25");
        let names: Vec<String> = images(server).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["web-0", "web-1"]);
        server.kubectl("set image sts/web nginx=nginx:1.26");
        rolls_out("nginx:1.26");
        assert_eq!(revisions(server, "sts/web"), [1, 2]);
        server.kubectl("rollout undo sts/web");
        rolls_out("nginx:1.25");
        assert_eq!(revisions(server, "sts/web"), [2, 3]);
        server.kubectl("scale sts/web --replicas=0");
        until("no pods", || {
            kubelet(server);
            get(server, "pods").is_empty()
        });
    });
}

#[test]
fn a_job_is_complete_when_its_pods_have_ended() {
    each(&[], |server| {
        join(server, "n1");
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sums"},
            "spec": {"completions": 3, "parallelism": 2, "template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "sum"}],
            }}},
        });
        server.with("create -f -", &job.to_string());
        until("three ends", || {
            let pods = get(server, "pods");
            let runs = pods.iter().filter(|pod| pod["status"]["phase"] != "Succeeded").count();
            assert!(runs <= 2, "{runs} at a time");
            for pod in pods.iter().filter(|pod| pod["spec"]["nodeName"].is_string()) {
                patch_status(server, name(pod), &json!({"phase": "Succeeded"}));
            }
            server.kubectl("get job sums -o jsonpath={.status.succeeded}") == "3"
        });
        let told = server.kubectl("wait --for=condition=complete job/sums --timeout=20s");
        assert_eq!(told, "job.batch/sums condition met\n");
        let held = get(server, "pods");
        assert!(held.iter().all(|pod| pod["metadata"]["finalizers"].is_null()), "{held:?}");
        assert_eq!(held.len(), 3);
        server.kubectl("delete job sums --wait=false");
        until("nothing is left", || server.kubectl("get jobs,pods -o name").is_empty());
    });
}

#[test]
fn a_cron_job_begins_a_job_when_it_is_due() {
    each(&[], |server| {
        let schedule = "--schedule=@every 1s";
        let words = ["create", "cronjob", "tick", "--image=busybox", schedule, "--", "true"];
        assert!(server.run(&words, "").status.success());
        until("a job", || !get(server, "jobs").is_empty());
        let patch = "{\"spec\":{\"suspend\":true}}";
        server.kubectl(&format!("patch cronjob tick --type=merge -p {patch}"));
        let job = get(server, "jobs").remove(0);
        assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "tick");
        assert!(name(&job).starts_with("tick-2"), "{job}");
        let told = |path: &str| server.kubectl(&format!("get cronjob tick -o jsonpath={path}"));
        until("it is listed", || told("{.status.active[*].name}").contains(name(&job)));
        assert!(!told("{.status.lastScheduleTime}").is_empty());
        until("its pods end", || {
            for pod in get(server, "pods") {
                patch_status(server, name(&pod), &json!({"phase": "Succeeded"}));
            }
            !told("{.status.lastSuccessfulTime}").is_empty()
        });
        until("none is listed", || told("{.status.active}").is_empty());
        let manual = server.kubectl("create job by-hand --from=cronjob/tick");
        assert_eq!(manual, "job.batch/by-hand created\n");
        server.kubectl("delete cronjob tick");
        until("its jobs go with it", || {
            for pod in get(server, "pods") {
                patch_status(server, name(&pod), &json!({"phase": "Succeeded"}));
            }
            server.kubectl("get jobs -o name").is_empty()
        });
    });
}
