//! Evictions before PodDisruptionBudgets: what they refuse, take and note.

use super::world::{Answered, World, play};
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod that runs, and is ready or not.
async fn runs(world: &World, name: &str, ready: bool) {
    let mut made = pod(name);
    made["metadata"]["labels"] = json!({"app": "web"});
    made["spec"]["nodeName"] = "n1".into();
    world.send(&format!("POST {PODS}"), &made).await.ok();
    let ready = if ready { "True" } else { "False" };
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
    let status = json!({ "status": status });
    world.patch(&format!("{PODS}/{name}/status"), "merge-patch", &status).await.ok();
}

/// A budget, as its controller has left it.
async fn allows(world: &World, name: &str, policy: Option<&str>, status: &Value) {
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}},
                      "unhealthyPodEvictionPolicy": policy});
    let budget = json!({"metadata": {"name": name}, "spec": spec});
    world.send(&format!("POST {BUDGETS}"), &budget).await.ok();
    let status = json!({ "status": status });
    world.patch(&format!("{BUDGETS}/{name}/status"), "merge-patch", &status).await.ok();
}

/// `healthy` of one that is wanted, and `allowed` left.
fn counted(healthy: i32, allowed: i32) -> Value {
    json!({"observedGeneration": 1, "desiredHealthy": 1, "currentHealthy": healthy,
           "expectedPods": 2, "disruptionsAllowed": allowed})
}

async fn evict(world: &World, name: &str, query: &str) -> Answered {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                          "metadata": {"name": name}});
    world.send(&format!("POST {PODS}/{name}/eviction{query}"), &eviction).await
}

async fn going(world: &World, name: &str) -> bool {
    let pod = world.get(&format!("{PODS}/{name}")).await.ok();
    pod["metadata"]["deletionTimestamp"].is_string()
}

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

fn cause(refused: &Answered) -> String {
    let status = refused.json();
    assert_eq!((refused.refusal(), &status["message"]), (too_many(), &VIOLATES.into()));
    let cause = &status["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    cause["message"].as_str().unwrap_or_default().to_owned()
}

fn too_many() -> (u16, String) {
    (429, "TooManyRequests".to_owned())
}

#[test]
fn one_is_taken_of_what_a_budget_allows_and_noted() {
    play(|world| async move {
        runs(&world, "a", true).await;
        runs(&world, "b", true).await;
        allows(&world, "web", None, &counted(2, 1)).await;
        assert_eq!(evict(&world, "a", "?dryRun=All").await.code, 201);
        assert!(!going(&world, "a").await);
        assert_eq!(evict(&world, "a", "").await.code, 201);
        let pod = world.get(&format!("{PODS}/a")).await.ok();
        assert!(pod["metadata"]["deletionTimestamp"].is_string());
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let target = conditions.iter().find(|one| one["type"] == "DisruptionTarget");
        assert_eq!(target.map(|one| &one["reason"]), Some(&json!("EvictionByEvictionAPI")));
        let status = world.get(&format!("{BUDGETS}/web")).await.ok()["status"].clone();
        assert_eq!(status["disruptionsAllowed"], 0);
        assert!(status["disruptedPods"]["a"].is_string(), "{status}");
        assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
        let refused = evict(&world, "b", "").await;
        let why = "The disruption budget web needs 1 healthy pods and has 2 currently";
        assert_eq!(cause(&refused), why);
        assert!(refused.json()["details"]["retryAfterSeconds"].is_null());
        assert!(!going(&world, "b").await);
        // What is going already, goes.
        assert_eq!(evict(&world, "a", "").await.code, 201);
    });
}

#[test]
fn a_budget_that_nobody_has_looked_at_allows_nothing() {
    play(|world| async move {
        runs(&world, "a", true).await;
        allows(&world, "web", None, &json!({"disruptionsAllowed": 5})).await;
        let refused = evict(&world, "a", "").await;
        let why = "The disruption budget web is still being processed by the server.";
        assert_eq!(cause(&refused), why);
        assert_eq!(refused.json()["details"]["retryAfterSeconds"], 10);
    });
}

#[test]
fn several_budgets_are_one_too_many() {
    play(|world| async move {
        runs(&world, "a", true).await;
        allows(&world, "one", None, &counted(2, 1)).await;
        allows(&world, "two", None, &counted(2, 1)).await;
        let told = evict(&world, "a", "").await.json();
        let message = "This pod has more than one PodDisruptionBudget, which the eviction \
                       subresource does not support.";
        assert_eq!((&told["status"], &told["code"]), (&json!("Failure"), &json!(500)));
        assert_eq!(told["message"], message);
        assert!(!going(&world, "a").await);
    });
}

#[test]
fn who_is_not_ready_goes_if_others_are_or_the_budget_says_so() {
    play(|world| async move {
        runs(&world, "a", false).await;
        allows(&world, "kept", None, &counted(1, 0)).await;
        assert_eq!(evict(&world, "a", "").await.code, 201);
        assert!(going(&world, "a").await);
        world.send(&format!("DELETE {BUDGETS}/kept"), &json!({})).await.ok();
        runs(&world, "b", false).await;
        allows(&world, "broken", None, &counted(0, 0)).await;
        let why = "The disruption budget broken needs 1 healthy pods and has 0 currently";
        assert_eq!(cause(&evict(&world, "b", "").await), why);
        world.send(&format!("DELETE {BUDGETS}/broken"), &json!({})).await.ok();
        allows(&world, "always", Some("AlwaysAllow"), &counted(0, 0)).await;
        assert_eq!(evict(&world, "b", "").await.code, 201);
        assert!(going(&world, "b").await);
    });
}

#[test]
fn what_has_not_begun_or_has_ended_is_no_disruption() {
    play(|world| async move {
        allows(&world, "web", None, &counted(1, 0)).await;
        for (name, phase) in [("a", "Pending"), ("b", "Succeeded")] {
            runs(&world, name, false).await;
            let status = json!({"status": {"phase": phase}});
            world.patch(&format!("{PODS}/{name}/status"), "merge-patch", &status).await.ok();
            assert_eq!(evict(&world, name, "").await.code, 201, "{phase}");
        }
        let status = world.get(&format!("{BUDGETS}/web")).await.ok()["status"].clone();
        assert!(status["disruptedPods"].is_null(), "{status}");
    });
}
