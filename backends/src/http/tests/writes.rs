use super::world::{Ask, play};
use super::*;
use crate::http::body::LARGEST;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[test]
fn an_object_is_made_changed_and_deleted() {
    play(|world| async move {
        let made = world.send(&format!("POST {MAPS}"), &map("a", "1")).await;
        assert_eq!(made.code, 201);
        let made = made.ok();
        assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
        assert_eq!(made["metadata"]["namespace"], "default");
        let again = world.send(&format!("POST {MAPS}"), &map("a", "1")).await;
        assert_eq!(again.refusal(), (409, "AlreadyExists".to_owned()));
        let one = format!("{MAPS}/a");
        assert_eq!(world.get(&one).await.ok(), made);
        let mut new = made.clone();
        new["data"]["key"] = "2".into();
        let put = world.send(&format!("PUT {one}"), &new).await.ok();
        assert_eq!(put["data"]["key"], "2");
        assert_ne!(version(&put), version(&made));
        let stale = world.send(&format!("PUT {one}"), &made).await;
        assert_eq!(stale.refusal(), (409, "Conflict".to_owned()));
        let other = json!({"preconditions": {"uid": "ffffffff-ffff-4fff-8123-456789abcdef"}});
        let other = world.send(&format!("DELETE {one}"), &other).await;
        assert_eq!(other.refusal(), (409, "Conflict".to_owned()));
        let gone = world.send(&format!("DELETE {one}"), &json!({})).await.ok();
        assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
        assert_eq!(gone["details"]["uid"], made["metadata"]["uid"]);
        let none = world.get(&one).await;
        assert_eq!(none.refusal(), (404, "NotFound".to_owned()));
        assert_eq!(none.json()["message"], "configmaps \"a\" not found");
        assert_eq!(none.json()["details"], json!({"name": "a", "kind": "configmaps"}));
    });
}

#[test]
fn names_are_made_up_and_yaml_is_taken() {
    play(|world| async move {
        let body = "kind: ConfigMap\nmetadata:\n  generateName: a-\ndata: {x: 'y'}\n".to_owned();
        let words = format!("POST {MAPS}");
        let content_type = "application/yaml";
        let made =
            world.ask(Ask { words: &words, body, content_type, ..Ask::default() }).await.ok();
        let name = made["metadata"]["name"].as_str().expect("a name");
        assert!(name.starts_with("a-") && name.len() == 7, "{name}");
    });
}

#[test]
fn what_is_wrong_is_said() {
    play(|world| async move {
        let create = format!("POST {MAPS}");
        let mut wrong = map("a", "1");
        wrong["dato"] = json!({});
        let strict = world.send(&format!("{create}?fieldValidation=Strict"), &wrong).await;
        assert_eq!(strict.refusal(), (400, "BadRequest".to_owned()));
        let text = strict.json()["message"].to_string();
        assert!(text.contains("strict decoding error: unknown field \\\"dato\\\""), "{text}");
        let warned = world.send(&create, &wrong).await;
        assert_eq!((warned.code, warned.warnings.len()), (201, 1));
        assert_eq!(warned.warnings[0], "299 - \"unknown field \\\"dato\\\"\"");
        let cases = [
            (create.clone(), pod("a"), 400),
            (create.clone(), map("A_", "1"), 422),
            (create.clone(), json!([]), 400),
            (format!("{create}?dryRun=Some"), map("d", "1"), 422),
            ("POST /api/v1/namespaces/none/configmaps".to_owned(), map("a", "1"), 404),
            ("POST /api/v1/configmaps".to_owned(), map("a", "1"), 405),
            (format!("PUT {MAPS}/b"), map("a", "1"), 400),
            (format!("PUT {MAPS}/none"), map("none", "1"), 404),
            (format!("DELETE {MAPS}/none"), json!({}), 404),
            (format!("OPTIONS {MAPS}/a"), json!({}), 405),
            ("DELETE /api/v1/configmaps".to_owned(), json!({}), 405),
            ("DELETE /api/v1/namespaces".to_owned(), json!({}), 405),
            (format!("PUT {MAPS}"), map("a", "1"), 405),
        ];
        for (words, body, code) in cases {
            let answered = world.send(&words, &body).await;
            assert_eq!(answered.refusal().0, code, "{words}: {}", answered.text);
        }
        let large = map("large", &"x".repeat(LARGEST));
        assert_eq!(world.send(&create, &large).await.refusal().0, 413);
        let content_type = "application/vnd.kubernetes.protobuf";
        let ask = Ask { words: &create, body: "k8s\0".to_owned(), content_type, ..Ask::default() };
        assert_eq!(world.ask(ask).await.refusal().0, 400);
        let content_type = "text/plain";
        let ask = Ask { words: &create, body: "{}".to_owned(), content_type, ..Ask::default() };
        assert_eq!(world.ask(ask).await.refusal().0, 415);
    });
}

#[test]
fn patches_of_every_kind_are_made() {
    play(|world| async move {
        world.send(&format!("POST {DEPLOYMENTS}"), &deployment("a")).await.ok();
        let one = format!("{DEPLOYMENTS}/a");
        let merge = json!({"metadata": {"labels": {"x": "y"}}});
        let merged = world.patch(&one, "merge-patch", &merge).await.ok();
        assert_eq!(merged["metadata"]["labels"], json!({"x": "y"}));
        let add = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "d", "image": "d:1"}, {"name": "c", "image": "i:2"}]}}}});
        let strategic = world.patch(&one, "strategic-merge-patch", &add).await.ok();
        let containers = &strategic["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers.as_array().map(Vec::len), Some(2), "{containers}");
        // In the patch's order.
        assert_eq!((&containers[0]["name"], &containers[1]["image"]), (&json!("d"), &json!("i:2")));
        let ops = json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]);
        assert_eq!(world.patch(&one, "json-patch", &ops).await.ok()["spec"]["replicas"], 5);
        let status = json!({"status": {"replicas": 3}, "spec": {"replicas": 9}});
        let patched = world.patch(&format!("{one}/status"), "merge-patch", &status).await.ok();
        assert_eq!(patched["status"]["replicas"], 3);
        assert_eq!(patched["spec"]["replicas"], 5, "a status is no spec");
        let stale = json!({"metadata": {"resourceVersion": version(&merged)}});
        let stale = world.patch(&one, "merge-patch", &stale).await;
        assert_eq!(stale.refusal(), (409, "Conflict".to_owned()));
        let apply = world.patch(&one, "apply-patch", &json!({})).await;
        assert_eq!(apply.refusal().0, 415);
        let renamed = json!({"metadata": {"name": "b"}});
        assert_eq!(world.patch(&one, "merge-patch", &renamed).await.refusal().0, 400);
    });
}

#[test]
fn replicas_are_scaled() {
    play(|world| async move {
        world.send(&format!("POST {DEPLOYMENTS}"), &deployment("a")).await.ok();
        let one = format!("{DEPLOYMENTS}/a/scale");
        let mut scale = world.get(&one).await.ok();
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
        assert_eq!(scale["status"]["selector"], "app=a");
        scale["spec"]["replicas"] = 4.into();
        assert_eq!(world.send(&format!("PUT {one}"), &scale).await.ok()["spec"]["replicas"], 4);
        assert_eq!(world.send(&format!("PUT {one}"), &scale).await.refusal().0, 409);
        let patch = json!({"spec": {"replicas": 0}});
        let patched = world.patch(&one, "merge-patch", &patch).await.ok();
        assert_eq!(patched["spec"], json!({}), "zero is not told");
        let negative = json!({"spec": {"replicas": -1}});
        assert_eq!(world.patch(&one, "merge-patch", &negative).await.refusal().0, 422);
    });
}

#[test]
fn a_pod_is_bound_once_and_ends_in_its_time() {
    play(|world| async move {
        let pods = "/api/v1/namespaces/default/pods";
        world.send(&format!("POST {pods}"), &pod("a")).await.ok();
        let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
        let bound = world.send(&format!("POST {pods}/a/binding"), &binding).await;
        assert_eq!((bound.code, bound.json()["status"].clone()), (201, json!("Success")));
        let again = world.send(&format!("POST {pods}/a/binding"), &binding).await;
        assert_eq!(again.refusal(), (409, "Conflict".to_owned()));
        let grace = json!({"gracePeriodSeconds": 20});
        let ends = world.send(&format!("DELETE {pods}/a"), &grace).await.ok();
        assert_eq!(ends["metadata"]["deletionGracePeriodSeconds"], 20);
        let now = world.send(&format!("DELETE {pods}/a"), &json!({"gracePeriodSeconds": 0})).await;
        assert_eq!(now.ok()["metadata"]["name"], "a", "a pod is returned");
        assert_eq!(world.get(&format!("{pods}/a")).await.code, 404);
    });
}

#[test]
fn a_collection_is_deleted_as_it_is_selected() {
    play(|world| async move {
        for name in ["a", "b", "c"] {
            world.send(&format!("POST {MAPS}"), &map(name, "1")).await.ok();
        }
        let gone = world.send(&format!("DELETE {MAPS}?labelSelector=app!=b"), &json!({})).await;
        assert_eq!(names(&gone.ok()), ["a", "c"]);
        assert_eq!(names(&world.get(MAPS).await.ok()), ["b"]);
    });
}
