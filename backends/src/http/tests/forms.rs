//! Objects as Go writes them, for all but this project's own components.

use super::world::{Ask, World, play};
use super::*;
use crate::http::accept::BARE;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const ONE: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// As this project's own components ask.
async fn asked(world: &World, words: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.ask(Ask { words, body, accept: BARE, ..Ask::default() }).await.ok()
}

#[test]
fn whoever_asks_and_however_it_is_the_same_object() {
    play(|world| async move {
        let made = world.send(&format!("POST {DEPLOYMENTS}"), &deployment("web")).await.ok();
        let template = &made["spec"]["template"];
        assert_eq!(
            (&made["status"], &template["metadata"]["labels"]),
            (&json!({}), &json!({"app": "web"}))
        );
        assert_eq!(template["metadata"].get("creationTimestamp"), Some(&Value::Null));
        assert_eq!(template["spec"]["containers"][0]["resources"], json!({}));
        assert_eq!(world.get(ONE).await.ok(), made);
        let mut list = world.get(DEPLOYMENTS).await.ok();
        let item = &mut list["items"][0];
        assert_eq!((item.get("kind"), item.get("apiVersion")), (None, None));
        (item["kind"], item["apiVersion"]) = (made["kind"].clone(), made["apiVersion"].clone());
        assert_eq!(*item, made);
        let path = format!("{DEPLOYMENTS}?watch=1");
        let mut events = world.watch(&path).await;
        let told = events.next().await.expect("an event");
        assert_eq!(told, json!({"type": "ADDED", "object": made}));
        let bare = asked(&world, &format!("GET {ONE}"), &Value::Null).await;
        assert_eq!(bare["spec"]["template"]["spec"]["containers"][0].get("resources"), None);
        let mut own = world.watch_as(BARE, &path).await;
        assert_eq!(own.next().await, Some(json!({"type": "ADDED", "object": bare})));
        let patch = json!({"metadata": {"labels": {"a": "b"}}});
        let patched = world.patch(ONE, "merge-patch", &patch).await.ok();
        assert_eq!(patched["status"], json!({}));
        let changed = |object: Value| Some(json!({"type": "MODIFIED", "object": object}));
        assert_eq!(events.next().await, changed(patched.clone()));
        let bare = asked(&world, &format!("GET {ONE}"), &Value::Null).await;
        assert_eq!(own.next().await, changed(bare));
        let gone = world.send(&format!("DELETE {ONE}"), &json!({})).await;
        assert_eq!(gone.code, 200, "{}", gone.text);
        let told = events.next().await.expect("an event");
        assert_eq!((&told["type"], &told["object"]["status"]), (&json!("DELETED"), &json!({})));
    });
}

#[test]
fn what_was_shown_and_comes_back_changes_nothing() {
    play(|world| async move {
        let made = world.send(&format!("POST {DEPLOYMENTS}"), &deployment("web")).await.ok();
        let put = format!("PUT {ONE}");
        assert_eq!(world.send(&put, &made).await.ok(), made, "not even its version");
        // As clients say it whose types have no pointers.
        let mut said = made.clone();
        said["metadata"]["finalizers"] = json!([]);
        said["spec"]["paused"] = json!(false);
        said["spec"]["template"]["spec"]["hostNetwork"] = json!(false);
        said["spec"]["template"]["spec"]["nodeSelector"] = json!({});
        said["spec"]["template"]["spec"]["containers"][0]["env"] = json!([]);
        said["spec"]["template"]["spec"]["containers"][0]["workingDir"] = json!("");
        assert_eq!(world.send(&put, &said).await.ok(), made);
        // An operation finds what was shown.
        let path = "/spec/template/spec/containers/0/resources/requests";
        let patch = json!([{"op": "test", "path": "/status", "value": {}},
            {"op": "add", "path": path, "value": {"cpu": "1"}}]);
        let patched = world.patch(ONE, "json-patch", &patch).await.ok();
        assert_eq!(patched["metadata"]["generation"], 2);
        assert_eq!(patched.pointer(path), Some(&json!({"cpu": "1"})));
        let patch = json!([{"op": "remove", "path": path}]);
        let patched = world.patch(ONE, "json-patch", &patch).await.ok();
        assert_eq!(patched["spec"], made["spec"]);
        assert_eq!(patched["metadata"]["generation"], 3);
    });
}

#[test]
fn what_components_write_stays_as_they_wrote_it() {
    play(|world| async move {
        let mut wrote = deployment("web");
        wrote["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        asked(&world, &format!("POST {DEPLOYMENTS}"), &wrote).await;
        let mut bare = asked(&world, &format!("GET {ONE}"), &Value::Null).await;
        let resources = &bare["spec"]["template"]["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({}));
        bare["status"]["conditions"] = json!([{"type": "Available", "status": "True",
            "message": "", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
        let status = asked(&world, &format!("PUT {ONE}/status"), &bare).await;
        let condition = &status["status"]["conditions"][0];
        assert_eq!(condition["message"], "");
        let shown = world.get(ONE).await.ok();
        let whole = json!([{"type": "Available", "status": "True",
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": null}]);
        assert_eq!(shown["status"], json!({"conditions": whole}));
        // Who changes something else leaves them so.
        let patch = json!({"metadata": {"labels": {"a": "b"}}});
        let patched = world.patch(ONE, "merge-patch", &patch).await.ok();
        assert_eq!(patched["metadata"]["generation"], shown["metadata"]["generation"]);
        let after = asked(&world, &format!("GET {ONE}"), &Value::Null).await;
        assert_eq!((&after["spec"], &after["status"]), (&status["spec"], &status["status"]));
    });
}

#[test]
fn a_table_has_the_whole_object_if_it_is_asked_for() {
    play(|world| async move {
        let made = world.send("POST /api/v1/namespaces/default/pods", &pod("a")).await.ok();
        let words = "GET /api/v1/namespaces/default/pods?includeObject=Object";
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let table = world.ask(Ask { words, accept, ..Ask::default() }).await.ok();
        assert_eq!(table["rows"][0]["object"], made);
    });
}

#[test]
fn another_version_and_a_kind_of_ones_own_have_theirs() {
    play(|world| async move {
        let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
                "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
        let made = world.send(&format!("POST {path}"), &scaler).await.ok();
        assert_eq!(made["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
        let newer = world.get(&format!("{}/a", path.replace("v1", "v2"))).await.ok();
        assert_eq!(newer["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "x.io/a", "reportingInstance": "a", "action": "A",
            "reason": "R", "type": "Normal"});
        let path = "/apis/events.k8s.io/v1/namespaces/default/events";
        let made = world.send(&format!("POST {path}"), &event).await.ok();
        let nothing = ["regarding", "deprecatedSource", "deprecatedFirstTimestamp"];
        assert_eq!(
            nothing.map(|field| made.get(field)),
            [Some(&json!({})), Some(&json!({})), Some(&Value::Null)]
        );
    });
}
