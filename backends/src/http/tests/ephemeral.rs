//! `pods/ephemeralcontainers`, as `kubectl debug` writes it.

use super::world::play;
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn debugger(name: &str) -> Value {
    json!({"name": name, "image": "busybox", "targetContainerName": "c"})
}

#[test]
fn one_is_put_into_a_pod_and_nothing_else_is_written_there() {
    play(|world| async move {
        let made = world.send(&format!("POST {PODS}"), &pod("a")).await.ok();
        let path = format!("{PODS}/a/ephemeralcontainers");
        let mut patch = json!({"spec": {"ephemeralContainers": [debugger("d")]}});
        patch["metadata"] = json!({"labels": {"app": "other"}});
        patch["spec"]["nodeName"] = "n1".into();
        let patched = world.patch(&path, "strategic-merge-patch", &patch).await.ok();
        let one = &patched["spec"]["ephemeralContainers"][0];
        assert_eq!((&one["imagePullPolicy"], &one["name"]), (&json!("Always"), &json!("d")));
        assert_eq!(one["targetContainerName"], "c");
        assert_eq!(patched["spec"]["nodeName"], Value::Null);
        assert_eq!(patched["metadata"]["labels"], made["metadata"]["labels"]);
        assert_eq!(
            (&made["metadata"]["generation"], &patched["metadata"]["generation"]),
            (&json!(1), &json!(2))
        );
        assert_eq!(world.get(&path).await.ok(), patched);
        let entries = patched["metadata"]["managedFields"].as_array().expect("entries");
        let last = entries.iter().find(|one| one["subresource"] == "ephemeralcontainers");
        let fields = &last.expect("an entry of its own")["fieldsV1"]["f:spec"];
        let names: Vec<_> = fields.as_object().expect("fields").keys().collect();
        assert_eq!(names, ["f:ephemeralContainers"]);

        let second = json!({"spec": {"ephemeralContainers": [debugger("e")]}});
        let both = world.patch(&path, "strategic-merge-patch", &second).await.ok();
        let all = both["spec"]["ephemeralContainers"].as_array().expect("both");
        assert_eq!(all.len(), 2, "they are merged by their names");
    });
}

#[test]
fn what_is_there_stays_and_nobody_else_puts_one_there() {
    play(|world| async move {
        let mut wanted = pod("a");
        wanted["spec"]["ephemeralContainers"] = json!([debugger("d")]);
        let made = world.send(&format!("POST {PODS}"), &wanted).await;
        assert_eq!(made.refusal(), (422, "Invalid".to_owned()));
        let why = "spec.ephemeralContainers: Forbidden: cannot be set on create";
        assert!(made.text.contains(why), "{}", made.text);
        world.send(&format!("POST {PODS}"), &pod("a")).await.ok();
        let put = json!({"spec": {"ephemeralContainers": [debugger("d")]}});
        let main = world.patch(&format!("{PODS}/a"), "strategic-merge-patch", &put).await;
        assert!(main.text.contains("pod updates may not change fields other"), "{}", main.text);

        let path = format!("{PODS}/a/ephemeralcontainers");
        let mut there = world.patch(&path, "strategic-merge-patch", &put).await.ok();
        there["spec"]["ephemeralContainers"] = json!([debugger("e")]);
        let gone = world.send(&format!("PUT {path}"), &there).await;
        assert_eq!(gone.refusal(), (422, "Invalid".to_owned()));
        let why = "existing ephemeral containers \\\"d\\\" may not be removed";
        assert!(gone.text.contains(why), "{}", gone.text);
        let bad = json!({"spec": {"ephemeralContainers": [
            {"name": "f", "image": "i", "targetContainerName": "z"}]}});
        let bad = world.patch(&path, "strategic-merge-patch", &bad).await;
        let why = ".targetContainerName: Not found: \\\"z\\\"";
        assert!(bad.text.contains(why), "{}", bad.text);
        let none = world.patch(&format!("{PODS}/b/ephemeralcontainers"), "merge-patch", &put).await;
        assert_eq!(none.refusal(), (404, "NotFound".to_owned()));
    });
}
