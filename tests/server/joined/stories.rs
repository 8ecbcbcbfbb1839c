//! What is done with a cluster whose pods run. Each story leaves the default namespace as it found
//! it.

use super::lab::Lab;
use crate::plane::{get, until};
use crate::world::Server;
use serde_json::{Value, json};

/// The Service's address and port.
pub const WEB: &str = "10.96.0.80:80";
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// A Deployment whose pods answer what their image says, and a Service before them.
pub fn make_web(server: &Server, replicas: u32) {
    let probe = json!({"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1});
    let container = json!({"name": "web", "image": "web:1", "readinessProbe": probe});
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    });
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080},
                       {"name": "echo", "port": 7000}]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": labels, "clusterIP": "10.96.0.80", "ports": ports},
    });
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]});
    let made = server.with("apply -f -", &both.to_string());
    assert_eq!(made, "deployment.apps/web created\nservice/web created\n");
    rolled_out(server);
}

fn rolled_out(server: &Server) {
    let told = server.kubectl("rollout status deploy/web --timeout=90s");
    assert!(told.ends_with("deployment \"web\" successfully rolled out\n"), "{told}");
}

fn forget_web(server: &Server) {
    server.kubectl("delete deploy,svc web --timeout=60s");
    until("no pods", || server.kubectl("get pods -o name").is_empty());
}

/// The Service's pods that are ready and stay.
fn pods(server: &Server) -> Vec<Value> {
    let list = server.kubectl("get pods -l app=web -o json");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
}

/// On every node, again and again: whichever pod it is led to.
fn answers(lab: &Lab, expected: &str) {
    for node in NODES {
        until(&format!("{node} hears {expected}"), || {
            (0..6).all(|_| lab.ask(node, WEB).as_deref() == Ok(expected))
        });
    }
}

/// What a kubelet has to tell of a pod's start, in upstream's words.
fn people_are_told(server: &Server) {
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let events = get(server, "events");
    let told: Vec<String> = events
        .iter()
        .map(|event| format!("{}:{}", text(event, "reason"), text(event, "message")))
        .collect();
    for line in [
        "Pulling:Pulling image \"web:1\"",
        "Pulled:Successfully pulled image \"web:1\" in 50ms (50ms including waiting). Image size: ",
        "Created:Created container: web",
        "Started:Started container web",
    ] {
        assert!(told.iter().any(|told| told.starts_with(line)), "{line} is not in {told:#?}");
    }
}

/// Rolled out, asked, changed, undone, scaled.
pub fn a_deployment_and_its_service(server: &Server, lab: &Lab) {
    make_web(server, 3);
    let table = server.kubectl("get pods -o wide --no-headers");
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[1], words[2], words[3]), ("1/1", "Running", "0"), "{table}");
        assert!(words[5].starts_with("10.244.") && NODES.contains(&words[6]), "{table}");
    }
    answers(lab, "one");
    people_are_told(server);

    // By name, from a pod: it is ready when the Service answers it.
    let probe = json!({"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1});
    let container = json!({"name": "ask", "image": "ask:1", "readinessProbe": probe});
    let ask = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ask"},
                     "spec": {"containers": [container]}});
    assert_eq!(server.with("create -f -", &ask.to_string()), "pod/ask created\n");
    let met = server.kubectl("wait --for=condition=Ready pod/ask --timeout=60s");
    assert_eq!(met, "pod/ask condition met\n");
    server.kubectl("delete pod ask --timeout=60s");

    server.kubectl("set image deploy/web web=web:2");
    rolled_out(server);
    answers(lab, "two");
    assert_eq!(server.kubectl("rollout undo deploy/web"), "deployment.apps/web rolled back\n");
    rolled_out(server);
    answers(lab, "one");
    server.kubectl("scale deployment web --replicas=5");
    rolled_out(server);
    until("five pods", || pods(server).len() == 5);
    // Who is deleted is replaced, and the Service does not miss it.
    let first = pods(server)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    server.kubectl(&format!("delete pod {first} --timeout=60s"));
    rolled_out(server);
    answers(lab, "one");
    let said = server.kubectl("describe svc web");
    assert!(said.contains("TargetPort:") && said.contains("8080/TCP"), "{said}");
    forget_web(server);
}

/// A drained node has none of its pods left, and the Service answers all the while.
pub fn a_drain_moves_pods(server: &Server, lab: &Lab) {
    make_web(server, 4);
    let budget = "create poddisruptionbudget web --selector=app=web --min-available=3";
    server.kubectl(budget);
    let on = |node: &str| pods(server).iter().filter(|pod| pod["spec"]["nodeName"] == node).count();
    assert!(on("n2") > 0, "it has some to move");
    let drained = server.kubectl("drain n2 --ignore-daemonsets --timeout=90s");
    assert!(drained.ends_with("node/n2 drained\n"), "{drained}");
    rolled_out(server);
    assert_eq!(on("n2"), 0);
    answers(lab, "one");
    let nodes = server.kubectl("get node n2 --no-headers");
    assert!(nodes.contains("Ready,SchedulingDisabled"), "{nodes}");
    assert_eq!(server.kubectl("uncordon n2"), "node/n2 uncordoned\n");
    server.kubectl("rollout restart deploy/web");
    rolled_out(server);
    until("pods on n2 again", || on("n2") > 0);
    server.kubectl("delete pdb web");
    forget_web(server);
}

/// A DaemonSet has a pod on each node, a Job ends, and a StatefulSet's pods have their names.
pub fn other_workloads(server: &Server) {
    let labels = json!({"app": "other"});
    let template = |image: &str, restart: &str| {
        json!({"metadata": {"labels": labels},
               "spec": {"restartPolicy": restart,
                        "containers": [{"name": "c", "image": image}]}})
    };
    let selector = json!({"matchLabels": labels});
    let daemons = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"},
        "spec": {"selector": selector, "template": template("web:1", "Always")}});
    server.with("create -f -", &daemons.to_string());
    server.kubectl("rollout status ds/d --timeout=60s");
    let nodes = server.kubectl("get pods -l app=other -o jsonpath={.items[*].spec.nodeName}");
    let mut nodes: Vec<&str> = nodes.split_whitespace().collect();
    nodes.sort_unstable();
    assert_eq!(nodes, NODES);
    server.kubectl("delete ds d --timeout=60s");

    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"completions": 2, "template": template("work:1", "Never")}});
    server.with("create -f -", &job.to_string());
    let met = server.kubectl("wait --for=condition=complete job/j --timeout=60s");
    assert_eq!(met, "job.batch/j condition met\n");
    assert_eq!(server.kubectl("get job j -o jsonpath={.status.succeeded}"), "2");
    server.kubectl("delete job j --timeout=60s");

    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"},
        "spec": {"replicas": 2, "serviceName": "s", "selector": selector,
                 "template": template("web:1", "Always")}});
    server.with("create -f -", &set.to_string());
    server.kubectl("rollout status sts/s --timeout=60s");
    let running = "wait --for=jsonpath={.status.phase}=Running pod/s-0 pod/s-1 --timeout=60s";
    assert_eq!(server.kubectl(running), "pod/s-0 condition met\npod/s-1 condition met\n");
    server.kubectl("delete sts s --timeout=60s");
    until("no pods", || server.kubectl("get pods -o name").is_empty());
}
