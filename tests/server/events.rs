//! What people are told, and what clients of old read of a Service: with the stock `kubectl`.

use super::plane::{each, get, until};
use super::{WEB, rows};
use serde_json::{Value, json};

fn messages(server: &crate::world::Server, reason: &str) -> Vec<String> {
    let events = get(server, "events");
    let of = events.iter().filter(|event| event["reason"] == reason);
    of.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_happens_is_told() {
    each(&[], |server| {
        server.with("create -f -", WEB);
        until("the scheduler says why", || {
            messages(server, "FailedScheduling")
                .iter()
                .any(|message| message == "no nodes available to schedule pods")
        });
        until("the Deployment scaled", || {
            messages(server, "ScalingReplicaSet")
                .iter()
                .any(|message| message.starts_with("Scaled up replica set web-"))
        });
        let created = messages(server, "SuccessfulCreate");
        assert!(created.iter().any(|message| message.starts_with("Created pod: web-")));
        // As kubectl shows them.
        let pods = get(server, "pods");
        let pod = pods[0]["metadata"]["name"].as_str().expect("a name");
        let described = server.kubectl(&format!("describe pod {pod}"));
        let line = described.lines().find(|line| line.contains("FailedScheduling"));
        let line = line.unwrap_or_else(|| panic!("{described}"));
        assert!(line.contains("Warning") && line.contains("default-scheduler"), "{line}");
        let listed = server.kubectl("get events --field-selector reason=ScalingReplicaSet");
        assert!(rows(&listed).iter().any(|row| row.contains(&"deployment/web")));
    });
}

#[test]
fn a_service_has_its_endpoints_in_one_object() {
    each(&[], |server| {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}});
        server.with("create -f -", &service.to_string());
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        server.with("create -f -", &pod.to_string());
        let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9",
            "podIPs": [{"ip": "10.244.0.9"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        server.kubectl(&format!("patch pod p --subresource status -p {status}"));
        until("it is an endpoint", || {
            let all: Vec<Value> = get(server, "endpoints");
            let mut ours = all.iter().filter(|one| one["metadata"]["name"] == "s");
            ours.any(|one| one["subsets"][0]["addresses"][0]["ip"] == "10.244.0.9")
        });
        let described = server.kubectl("describe service s");
        assert!(described.contains("10.244.0.9:80"), "{described}");
        server.kubectl("delete service s");
        until("it is gone", || server.run(&["get", "endpoints", "s"], "").status.code() == Some(1));
    });
}
