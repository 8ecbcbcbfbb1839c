//! The API as its clients see it, before a real API server.

mod access;
mod applies;
mod components;
mod csrs;
mod declared;
mod deletions;
mod dry_runs;
mod ephemeral;
mod evictions;
mod forms;
mod fuzz;
mod nodes;
mod reads;
mod reviews;
mod tokens;
mod tunnels;
mod versions;
mod watches;
mod world;
mod writes;

use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": name, "labels": {"app": name}}, "data": {"key": value}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

/// The resource version of an object or a list.
fn version(value: &Value) -> &str {
    value["metadata"]["resourceVersion"].as_str().expect("a version")
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}
