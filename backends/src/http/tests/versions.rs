//! One object, read and written in two versions.

use super::world::{Ask, play};
use super::*;

const OLD: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const NEW: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const CORE_EVENTS: &str = "/api/v1/namespaces/default/events";

fn scaler(name: &str) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
           "metadata": {"name": name}, "spec": {"maxReplicas": 5,
           "targetCPUUtilizationPercentage": 70,
           "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
}

fn event(name: &str) -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name},
           "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
           "reportingInstance": "c-1", "action": "Binding", "reason": "Scheduled",
           "type": "Normal", "note": "it is done",
           "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}})
}

#[test]
fn an_autoscaler_is_written_in_one_version_and_read_in_the_other() {
    play(|world| async move {
        let mut watch = world.watch(&format!("{OLD}?watch=1")).await;
        let made = world.send(&format!("POST {OLD}"), &scaler("a")).await.ok();
        assert_eq!(made["apiVersion"], "autoscaling/v1");
        assert_eq!(made["spec"]["minReplicas"], 1, "a default");
        assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 70);
        let new = world.get(&format!("{NEW}/a")).await.ok();
        assert_eq!(new["apiVersion"], "autoscaling/v2");
        let target = json!({"type": "Utilization", "averageUtilization": 70});
        assert_eq!(new["spec"]["metrics"][0]["resource"]["target"], target);
        assert_eq!(version(&new), version(&made));
        let list = world.get(OLD).await.ok();
        assert_eq!(list["apiVersion"], "autoscaling/v1");
        assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 70);
        let told = watch.next().await.expect("an event");
        assert_eq!(told["object"]["apiVersion"], "autoscaling/v1");
        assert_eq!(told["object"]["spec"], made["spec"]);
        // What the old version has no field for goes through it unharmed.
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "hits"},
            "target": {"type": "AverageValue", "averageValue": "3"}}});
        let more = json!({"spec": {"metrics": [pods, new["spec"]["metrics"][0]]}});
        world.patch(&format!("{NEW}/a"), "merge-patch", &more).await.ok();
        let busier = json!({"spec": {"targetCPUUtilizationPercentage": 90}});
        let patched = world.patch(&format!("{OLD}/a"), "strategic-merge-patch", &busier).await.ok();
        let annotations = patched["metadata"]["annotations"].as_object().expect("annotations");
        assert!(annotations.contains_key("autoscaling.alpha.kubernetes.io/metrics"));
        let new = world.get(&format!("{NEW}/a")).await.ok();
        assert_eq!(new["metadata"].get("annotations"), None);
        assert_eq!(new["spec"]["metrics"][0], pods);
        assert_eq!(new["spec"]["metrics"][1]["resource"]["target"]["averageUtilization"], 90);
        // Each is one version's, and told so.
        let mut wrong = scaler("b");
        wrong["spec"]["metrics"] = json!([]);
        let warned = world.send(&format!("POST {OLD}?dryRun=All"), &wrong).await;
        assert_eq!(warned.warnings, ["299 - \"unknown field \\\"spec.metrics\\\"\""]);
        let other = world.send(&format!("POST {NEW}"), &scaler("b")).await;
        assert_eq!(other.refusal().0, 400);
        wrong["spec"] = json!({"maxReplicas": "x"});
        let unread = world.send(&format!("POST {OLD}"), &wrong).await;
        let message = unread.json()["message"].to_string();
        assert!(message.contains("in version \\\"v1\\\" cannot be handled"), "{message}");
    });
}

#[test]
fn tables_are_the_same_in_all_versions() {
    play(|world| async move {
        world.send(&format!("POST {OLD}"), &scaler("a")).await.ok();
        let table = async |path: &str, include: &str| {
            let words = format!("GET {path}?includeObject={include}");
            let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
            world.ask(Ask { words: &words, accept, ..Ask::default() }).await.ok()
        };
        let (old, new) = (table(OLD, "Object").await, table(NEW, "Object").await);
        assert_eq!(old["columnDefinitions"], new["columnDefinitions"]);
        assert_eq!(old["rows"][0]["cells"], new["rows"][0]["cells"]);
        assert_eq!(old["rows"][0]["object"]["apiVersion"], "autoscaling/v1");
        assert_eq!(new["rows"][0]["object"]["apiVersion"], "autoscaling/v2");
    });
}

#[test]
fn owners_are_of_the_version_they_wrote_in() {
    play(|world| async move {
        let apply = |manager: &str| format!("{OLD}/a?fieldManager={manager}");
        let made = world.apply(&apply("ops"), &scaler("a")).await.ok();
        let managed = |object: &Value| -> Vec<String> {
            let entries = object["metadata"]["managedFields"].as_array().cloned();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let told =
                |one: &Value| format!("{} {}", text(&one["manager"]), text(&one["apiVersion"]));
            entries.unwrap_or_default().iter().map(told).collect()
        };
        assert_eq!(managed(&made), ["ops autoscaling/v1"]);
        // One of the other version changes the metric, which is what the percentage says.
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let change = json!({"spec": {"metrics": [metric]}});
        let path = format!("{NEW}/a?fieldManager=hand");
        let changed = world.patch(&path, "merge-patch", &change).await.ok();
        assert_eq!(managed(&changed), ["ops autoscaling/v1", "hand autoscaling/v2"]);
        let ops = &changed["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
        assert_eq!(ops.get("f:targetCPUUtilizationPercentage"), None, "{ops}");
        assert!(ops.get("f:maxReplicas").is_some(), "{ops}");
        let conflict = world.apply(&apply("ops"), &scaler("a")).await;
        assert_eq!(conflict.refusal(), (409, "Conflict".to_owned()));
        let message = conflict.json()["message"].as_str().expect("a message").to_owned();
        let expected = "Apply failed with 1 conflict: conflict with \"hand\" using autoscaling/v2: \
                        .spec.metrics";
        assert_eq!(message, expected);
        let forced = world.apply(&format!("{}&force=true", apply("ops")), &scaler("a")).await.ok();
        assert_eq!(managed(&forced), ["ops autoscaling/v1"]);
        assert_eq!(forced["spec"]["targetCPUUtilizationPercentage"], 70);
        // Who applies in the other version is the same one.
        let mut newer = world.get(&format!("{NEW}/a")).await.ok();
        newer["metadata"] = json!({"name": "a"});
        newer["spec"].as_object_mut().expect("fields").remove("minReplicas");
        newer.as_object_mut().expect("fields").remove("status");
        let path = format!("{NEW}/a?fieldManager=ops");
        let again = world.apply(&path, &newer).await.ok();
        assert_eq!(managed(&again), ["ops autoscaling/v2"]);
        assert_eq!(again["spec"], world.get(&format!("{NEW}/a")).await.ok()["spec"]);
    });
}

#[test]
fn events_are_told_in_both_groups() {
    play(|world| async move {
        let made = world.send(&format!("POST {EVENTS}"), &event("a")).await.ok();
        assert_eq!(made["note"], "it is done");
        let core = world.get(&format!("{CORE_EVENTS}/a")).await.ok();
        assert_eq!((&core["apiVersion"], &core["message"]), (&json!("v1"), &json!("it is done")));
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(core["reportingComponent"], "example.com/c");
        let chosen = |path: &str, selector: &str| format!("{path}?fieldSelector={selector}");
        let list = world.get(&chosen(EVENTS, "regarding.name=p,reason=Scheduled")).await.ok();
        assert_eq!(names(&list), ["a"]);
        assert!(names(&world.get(&chosen(EVENTS, "regarding.name=q")).await.ok()).is_empty());
        assert_eq!(world.get(&chosen(EVENTS, "involvedObject.name=p")).await.refusal().0, 400);
        // It is told again: only that may change here.
        let series = json!({"series": {"count": 3,
                            "lastObservedTime": "2024-01-01T00:05:00.000000Z"}});
        let one = format!("{EVENTS}/a");
        assert_eq!(world.patch(&one, "merge-patch", &series).await.ok()["series"]["count"], 3);
        let note = world.patch(&one, "merge-patch", &json!({"note": "x"})).await;
        assert_eq!(note.refusal(), (422, "Invalid".to_owned()));
        let expected = "Event \"a\" is invalid: message: Invalid value: \"x\": field is immutable";
        assert_eq!(note.json()["message"], expected);
        let in_core = json!({"message": "y"});
        world.patch(&format!("{CORE_EVENTS}/a"), "merge-patch", &in_core).await.ok();
        assert_eq!(world.get(&one).await.ok()["note"], "y");
        let bare = json!({"metadata": {"name": "b"}, "regarding": {"namespace": "default"}});
        let refused = world.send(&format!("POST {EVENTS}"), &bare).await.json();
        let expected = "Event \"b\" is invalid: [eventTime: Required value, type: Invalid value: \
                        \"\": has invalid value: ]";
        assert_eq!(refused["message"], expected);
    });
}
