//! Nodes: what a kubelet may read and write.

use super::world::{Answered, Ask, World, play};
use super::*;
use crate::http::auth::User;

const SPACE: &str = "/api/v1/namespaces/default";

async fn node(world: &World, words: &str, body: &Value) -> Answered {
    let groups = vec!["system:nodes".to_owned()];
    let user = Some(User { name: "system:node:n1".to_owned(), groups, ..User::default() });
    world.ask(Ask { words, body: body.to_string(), user, ..Ask::default() }).await
}

async fn get(world: &World, path: &str) -> u16 {
    node(world, &format!("GET {path}"), &json!({})).await.code
}

#[track_caller]
fn refused(answer: &Answered, why: &str) {
    assert_eq!(answer.code, 403, "{}", answer.text);
    let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.ends_with(&format!(": {why}")), "{message}");
}

/// A pod on n1 that uses some objects, one on n2 that uses others, and all of them.
async fn cluster(world: &World) {
    for name in ["n1", "n2"] {
        world.send("POST /api/v1/nodes", &json!({"metadata": {"name": name}})).await.ok();
        for kind in ["secrets", "configmaps", "serviceaccounts"] {
            let made = json!({"metadata": {"name": name}});
            world.send(&format!("POST {SPACE}/{kind}"), &made).await.ok();
        }
        let mut pod = super::pod(name);
        pod["spec"]["nodeName"] = name.into();
        pod["spec"]["serviceAccountName"] = name.into();
        pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": name}}]);
        pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": name}}]);
        world.send(&format!("POST {SPACE}/pods"), &pod).await.ok();
    }
}

#[test]
fn a_node_reads_what_its_pods_use() {
    play(|world| async move {
        cluster(&world).await;
        for kind in ["secrets", "configmaps", "pods"] {
            assert_eq!(get(&world, &format!("{SPACE}/{kind}/n1")).await, 200, "{kind}");
            let other = node(&world, &format!("GET {SPACE}/{kind}/n2"), &json!({})).await;
            refused(&other, "no relationship found between node 'n1' and this object");
        }
        let one = "fieldSelector=metadata.name%3Dn1";
        assert_eq!(get(&world, &format!("{SPACE}/secrets?{one}")).await, 200);
        let all = node(&world, &format!("GET {SPACE}/secrets"), &json!({})).await;
        refused(&all, "No Object name found");
        assert_eq!(get(&world, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
        for selector in
            ["", "?fieldSelector=spec.nodeName%3Dn2", "?fieldSelector=spec.nodeName!%3Dn1"]
        {
            let pods = node(&world, &format!("GET /api/v1/pods{selector}"), &json!({})).await;
            refused(&pods, "can only list/watch pods with spec.nodeName field selector");
        }
        assert_eq!(get(&world, "/api/v1/nodes/n1").await, 200);
        let other = node(&world, "GET /api/v1/nodes/n2", &json!({})).await;
        refused(&other, "node 'n1' cannot read 'n2', only its own Node object");
        assert_eq!(get(&world, "/api/v1/services").await, 200);
        assert_eq!(get(&world, "/apis/apps/v1/deployments").await, 403);
        let now = json!({"gracePeriodSeconds": 0});
        world.send(&format!("DELETE {SPACE}/pods/n1"), &now).await.ok();
        assert_eq!(get(&world, &format!("{SPACE}/secrets/n1")).await, 403);
    });
}

#[test]
fn a_node_writes_itself_and_its_pods() {
    play(|world| async move {
        cluster(&world).await;
        let labels = |name: &str| json!({"metadata": {"labels": {name: "a"}}});
        let patch = async |path: &str, patch: &Value| {
            let words = format!("PATCH {path}");
            let groups = vec!["system:nodes".to_owned()];
            let user = Some(User { name: "system:node:n1".to_owned(), groups, ..User::default() });
            let content_type = "application/merge-patch+json";
            let body = patch.to_string();
            world.ask(Ask { words: &words, body, user, content_type, ..Ask::default() }).await
        };
        assert_eq!(patch("/api/v1/nodes/n1", &labels("example.com/a")).await.code, 200);
        let role = "node-role.kubernetes.io/control-plane";
        let refusal = format!("is not allowed to modify labels: {role}");
        refused(&patch("/api/v1/nodes/n1", &labels(role)).await, &refusal);
        let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let refusal = "node \"n1\" is not allowed to modify taints";
        refused(&patch("/api/v1/nodes/n1", &taint).await, refusal);
        let refusal = "node \"n1\" is not allowed to modify node \"n2\"";
        refused(&patch("/api/v1/nodes/n2/status", &json!({})).await, refusal);
        let phase = json!({"status": {"phase": "Running"}});
        assert_eq!(patch(&format!("{SPACE}/pods/n1/status"), &phase).await.code, 200);
        let refusal = "node \"n1\" can only update pod status for pods with spec.nodeName set to \
                       itself";
        refused(&patch(&format!("{SPACE}/pods/n2/status"), &phase).await, refusal);
        let refusal = "node \"n1\" can only delete pods with spec.nodeName set to itself";
        refused(&node(&world, &format!("DELETE {SPACE}/pods/n2"), &json!({})).await, refusal);
        let refusal = "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" \
                       can only create mirror pods";
        refused(&node(&world, &format!("POST {SPACE}/pods"), &super::pod("p")).await, refusal);
        let uid = world.get("/api/v1/nodes/n1").await.ok()["metadata"]["uid"].clone();
        let mut mirror = super::pod("p");
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "a"});
        mirror["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node",
            "name": "n1", "uid": uid, "controller": true}]);
        mirror["spec"]["nodeName"] = "n1".into();
        let mut greedy = mirror.clone();
        greedy["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "n2"}}]);
        let refusal = "node \"n1\" can not create pods that reference secrets";
        refused(&node(&world, &format!("POST {SPACE}/pods"), &greedy).await, refusal);
        assert_eq!(node(&world, &format!("POST {SPACE}/pods"), &mirror).await.code, 201);
        let leases = "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
        assert_eq!(node(&world, leases, &lease("n1")).await.code, 201);
        let refusal = "can only access node lease with the same name as the requesting node";
        refused(&node(&world, leases, &lease("n2")).await, refusal);
    });
}

#[test]
fn a_node_asks_for_tokens_of_its_pods() {
    play(|world| async move {
        cluster(&world).await;
        let uid = async |name: &str| {
            world.get(&format!("{SPACE}/pods/{name}")).await.ok()["metadata"]["uid"].clone()
        };
        let bound = |name: &str, uid: Value| {
            json!({"spec": {"boundObjectRef":
                {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}}})
        };
        let words = |name: &str| format!("POST {SPACE}/serviceaccounts/{name}/token");
        let own = bound("n1", uid("n1").await);
        assert_eq!(node(&world, &words("n1"), &own).await.code, 201);
        let other = node(&world, &words("n2"), &bound("n2", uid("n2").await)).await;
        refused(&other, "no relationship found between node 'n1' and this object");
        let free = node(&world, &words("n1"), &json!({})).await;
        refused(&free, "node requested token not bound to a pod");
        let other = node(&world, &words("n1"), &bound("n2", uid("n2").await)).await;
        refused(&other, "node requested token bound to a pod scheduled on a different node");
        let no_uid = node(&world, &words("n1"), &bound("n1", Value::Null)).await;
        refused(&no_uid, "node requested token with a pod binding without a uid");
    });
}
