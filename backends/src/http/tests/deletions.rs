use super::world::{Ask, play};
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// On a node, so that it ends in two steps.
fn placed(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = "n1".into();
    pod
}

#[test]
fn an_eviction_deletes_its_pod_as_it_says() {
    play(|world| async move {
        for name in ["a", "b"] {
            world.send(&format!("POST {PODS}"), &placed(name)).await.ok();
        }
        let evict = |name: &str| format!("POST {PODS}/{name}/eviction");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                              "metadata": {"name": "a", "namespace": "default"},
                              "deleteOptions": {"gracePeriodSeconds": 20}});
        let evicted = world.send(&evict("a"), &eviction).await;
        assert_eq!((evicted.code, &evicted.json()["code"]), (201, &json!(201)));
        assert_eq!(evicted.json()["status"], "Success");
        let going = world.get(&format!("{PODS}/a")).await.ok();
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 20);
        // Of the older version, without options: the pod's own grace.
        let older = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction",
                           "metadata": {"name": "b"}});
        assert_eq!(world.send(&evict("b"), &older).await.code, 201);
        let going = world.get(&format!("{PODS}/b")).await.ok();
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    });
}

/// As client-go sends it: an envelope with `policy/v1` and `Eviction`, and in it the name and
/// `gracePeriodSeconds: 0`.
#[test]
fn an_eviction_is_read_in_protobuf_too() {
    play(|world| async move {
        world.send(&format!("POST {PODS}"), &placed("a")).await.ok();
        let field = |number: u8, bytes: &str| {
            let length = u8::try_from(bytes.len()).expect("short");
            format!("{}{}{bytes}", char::from(number << 3 | 2), char::from(length))
        };
        let kind = field(1, "policy/v1") + &field(2, "Eviction");
        let eviction = field(1, &field(1, "a")) + &field(2, "\u{8}\0");
        let body = format!("k8s\0{}{}", field(1, &kind), field(2, &eviction));
        let words = format!("POST {PODS}/a/eviction");
        let content_type = "application/vnd.kubernetes.protobuf";
        let ask = Ask { words: &words, body, content_type, ..Ask::default() };
        assert_eq!(world.ask(ask).await.code, 201);
        assert_eq!(world.get(&format!("{PODS}/a")).await.code, 404);
    });
}

#[test]
fn a_deletion_may_ask_for_a_version() {
    play(|world| async move {
        let old = world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let new = world.send(&format!("PUT {MAPS}/a"), &map("a", "2")).await.ok();
        let of = |map: &Value| json!({"preconditions": {"resourceVersion": version(map)}});
        let delete = format!("DELETE {MAPS}/a");
        let refused = world.send(&delete, &of(&old)).await;
        assert_eq!(refused.refusal(), (409, "Conflict".to_owned()));
        let refused = world.send(&format!("DELETE {MAPS}"), &of(&old)).await;
        assert_eq!(refused.refusal(), (409, "Conflict".to_owned()));
        let odd = json!({"preconditions": {"resourceVersion": "newest"}});
        assert_eq!(world.send(&delete, &odd).await.refusal().0, 400);
        world.send(&delete, &of(&new)).await.ok();
        assert_eq!(world.get(&format!("{MAPS}/a")).await.code, 404);
    });
}

#[test]
fn an_owner_is_held_for_what_it_owns() {
    play(|world| async move {
        let wishes = [
            (json!({"propagationPolicy": "Foreground"}), "foregroundDeletion"),
            (json!({"propagationPolicy": "Orphan"}), "orphan"),
            (json!({"orphanDependents": true}), "orphan"),
        ];
        for (wish, finalizer) in wishes {
            world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
            let one = format!("{MAPS}/a");
            let going = world.send(&format!("DELETE {one}"), &wish).await.ok();
            assert_eq!(going["metadata"]["finalizers"], json!([finalizer]));
            assert!(going["metadata"]["deletionTimestamp"].is_string(), "{going}");
            let done = json!({"metadata": {"finalizers": null}});
            world.patch(&one, "merge-patch", &done).await.ok();
            assert_eq!(world.get(&one).await.code, 404);
        }
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let words = format!("DELETE {MAPS}/a?propagationPolicy=Background");
        world.ask(Ask { words: &words, ..Ask::default() }).await.ok();
        assert_eq!(world.get(&format!("{MAPS}/a")).await.code, 404);
    });
}

#[test]
fn wrong_evictions_and_options_are_told() {
    play(|world| async move {
        world.send(&format!("POST {PODS}"), &placed("a")).await.ok();
        let eviction = |field: &str, value: Value| {
            let mut eviction = json!({"metadata": {"name": "a"}});
            eviction[field] = value;
            eviction
        };
        let path = format!("{PODS}/a/eviction");
        let post = format!("POST {path}");
        let delete = format!("DELETE {PODS}/a");
        let uid = "ffffffff-ffff-4fff-8123-456789abcdef";
        let cases = [
            (&post, eviction("metadata", json!({"name": "b"})), 400, "name in URL"),
            (&post, eviction("metadata", json!({})), 400, "name in URL"),
            (&post, eviction("metadata", json!({"name": "a", "namespace": "x"})), 400, "namespace"),
            (&post, eviction("kind", json!("Pod")), 400, "an Eviction of policy/v1"),
            (&post, eviction("apiVersion", json!("policy/v2")), 400, "policy/v2"),
            (&post, eviction("deleteOptions", json!([])), 400, "cannot be handled"),
            (
                &post,
                eviction("deleteOptions", json!({"preconditions": {"uid": uid}})),
                409,
                "Operation cannot be fulfilled on Pod \"a\": the UID in the precondition",
            ),
            (&format!("POST {PODS}/none/eviction"), json!({"metadata": {"name": "none"}}), 404, ""),
            (&format!("PUT {path}"), eviction("kind", json!("Eviction")), 405, ""),
            (&format!("DELETE {path}"), json!({}), 405, ""),
            (&delete, json!({"kind": "Pod"}), 400, "cannot be converted to DeleteOptions"),
            (&delete, json!({"gracePeriodSeconds": "soon"}), 400, "cannot be handled"),
            (&delete, json!({"propagationPolicy": "Later"}), 422, "Unsupported value: \"Later\""),
            (
                &delete,
                json!({"propagationPolicy": "Background", "orphanDependents": false}),
                422,
                "cannot be both set",
            ),
        ];
        for (words, body, code, why) in cases {
            let answered = world.send(words, &body).await;
            assert_eq!(answered.refusal().0, code, "{words} {body}: {}", answered.text);
            let message = answered.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.contains(why), "{words} {body}: {message}");
        }
        assert_eq!(world.get(&path).await.refusal().0, 405);
        let words = format!("{delete}?gracePeriodSeconds=soon");
        let ask = Ask { words: &words, ..Ask::default() };
        assert_eq!(world.ask(ask).await.refusal().0, 400);
        let words = format!("{delete}?gracePeriodSeconds=-1");
        let going = world.ask(Ask { words: &words, ..Ask::default() }).await.ok();
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 1);
    });
}
