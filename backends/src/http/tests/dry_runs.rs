use super::world::play;
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[test]
fn nothing_that_is_tried_is_done() {
    play(|world| async move {
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        world.send(&format!("POST {DEPLOYMENTS}"), &deployment("d")).await.ok();
        world.send(&format!("POST {PODS}"), &pod("p")).await.ok();
        let before = world.get("/api/v1/configmaps").await.ok();
        let answered = world.send(&format!("POST {MAPS}?dryRun=All"), &map("b", "1")).await;
        assert_eq!(answered.code, 201);
        let made = answered.ok();
        assert_eq!(made["metadata"].get("resourceVersion"), None);
        assert!(made["metadata"]["uid"].is_string(), "{made}");
        let put = world.send(&format!("PUT {MAPS}/a?dryRun=All"), &map("a", "2")).await.ok();
        assert_eq!(put["data"]["key"], "2");
        let patch = json!({"data": {"key": "3"}});
        let patched = world.patch(&format!("{MAPS}/a?dryRun=All"), "merge-patch", &patch).await;
        assert_eq!(patched.ok()["data"]["key"], "3");
        let scale = format!("{DEPLOYMENTS}/d/scale");
        let wanted = json!({"spec": {"replicas": 7}});
        let scaled = world.patch(&format!("{scale}?dryRun=All"), "merge-patch", &wanted).await;
        assert_eq!(scaled.ok()["spec"]["replicas"], 7);
        let status = world.send(&format!("DELETE {MAPS}/a?dryRun=All"), &json!({})).await.ok();
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
        let options = json!({"dryRun": ["All"]});
        let status = world.send(&format!("DELETE {MAPS}/a"), &options).await.ok();
        assert_eq!(status["details"]["name"], "a");
        assert_eq!(names(&world.send(&format!("DELETE {MAPS}"), &options).await.ok()), ["a"]);
        let gone = world.send(&format!("DELETE {PODS}/p"), &options).await.ok();
        assert_eq!(gone["kind"], "Pod", "pods return themselves");
        let evict = format!("POST {PODS}/p/eviction");
        let eviction = json!({"metadata": {"name": "p"}});
        assert_eq!(world.send(&format!("{evict}?dryRun=All"), &eviction).await.code, 201);
        let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": options});
        assert_eq!(world.send(&evict, &eviction).await.code, 201);
        let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n1"}});
        let bound = world.send(&format!("POST {PODS}/p/binding?dryRun=All"), &binding).await;
        assert_eq!(bound.code, 201);
        assert_eq!(world.get("/api/v1/configmaps").await.ok(), before, "no version passed");
        let pod = world.get(&format!("{PODS}/p")).await.ok();
        assert_eq!(
            (&pod["spec"]["nodeName"], &pod["status"]["phase"]),
            (&Value::Null, &json!("Pending"))
        );
        assert_eq!(world.get(&scale).await.ok()["spec"]["replicas"], 2);
    });
}

#[test]
fn what_cannot_be_done_cannot_be_tried() {
    play(|world| async move {
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let some = json!({"dryRun": ["Some"]});
        let cases = [
            (format!("POST {MAPS}?dryRun=All"), map("a", "1"), 409),
            (format!("POST {MAPS}?dryRun=All"), map("A_", "1"), 422),
            (format!("PUT {MAPS}/none?dryRun=All"), map("none", "1"), 404),
            (format!("DELETE {MAPS}/none?dryRun=All"), json!({}), 404),
            (format!("PUT {MAPS}/a?dryRun=Some"), map("a", "2"), 422),
            (format!("PUT {MAPS}/a?dryRun="), map("a", "2"), 422),
            (format!("DELETE {MAPS}/a?dryRun=Some"), json!({}), 422),
            (format!("DELETE {MAPS}/a"), some, 422),
        ];
        for (words, body, code) in cases {
            let answered = world.send(&words, &body).await;
            assert_eq!(answered.refusal().0, code, "{words}: {}", answered.text);
        }
        let refused = world.send(&format!("POST {MAPS}?dryRun=Some"), &map("b", "1")).await;
        let status = refused.json();
        let why = "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \
                   []string{\"Some\"}: supported values: \"All\"";
        assert_eq!(status["message"], why);
        assert_eq!(status["details"]["causes"][0]["field"], "dryRun");
        assert_eq!(names(&world.get(MAPS).await.ok()), ["a"]);
    });
}
