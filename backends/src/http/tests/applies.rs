use super::world::{Ask, play};
use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Who owns fields, as `MANAGER OPERATION SUBRESOURCE`, and which.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entry = |entry: &Value| {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert!(text(&entry["time"]).ends_with('Z'), "{entry}");
        let words = [&entry["manager"], &entry["operation"], &entry["subresource"]].map(text);
        (words.join(" ").trim_end().to_owned(), entry["fieldsV1"].clone())
    };
    entries.iter().map(entry).collect()
}

fn names_of(object: &Value) -> Vec<String> {
    owners(object).into_iter().map(|(name, _)| name).collect()
}

fn replicas(count: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
           "spec": {"replicas": count}})
}

#[test]
fn what_is_applied_is_made_changed_and_left_alone() {
    play(|world| async move {
        let path = format!("{DEPLOYMENTS}/d?fieldManager=a&fieldValidation=Strict");
        let made = world.apply(&path, &deployment("d")).await;
        assert_eq!(made.code, 201, "{}", made.text);
        let made = made.ok();
        let fields = json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:containers":
                {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}});
        assert_eq!(owners(&made), [("a Apply".to_owned(), fields)]);
        assert_eq!(made["spec"]["progressDeadlineSeconds"], 600, "the rest has its defaults");
        let same = world.apply(&path, &deployment("d")).await;
        assert_eq!((same.code, same.ok()), (200, made.clone()));
        let mut other = deployment("d");
        other["spec"]["replicas"] = 3.into();
        let tried = world.apply(&format!("{path}&dryRun=All"), &other).await.ok();
        assert_eq!(tried["spec"]["replicas"], 3);
        assert_eq!(world.get(&format!("{DEPLOYMENTS}/d")).await.ok(), made);
        let changed = world.apply(&path, &other).await.ok();
        assert_eq!(changed["metadata"]["generation"], 2);
        assert_eq!(changed["spec"]["template"], made["spec"]["template"]);
        // What is applied no longer has its default again, which is nobody's.
        let Value::Object(spec) = &mut other["spec"] else { panic!("a spec") };
        spec.remove("replicas");
        let less = world.apply(&path, &other).await.ok();
        assert_eq!(less["spec"]["replicas"], 1);
        assert_eq!(owners(&less)[0].1["f:spec"].get("f:replicas"), None);
    });
}

/// Of kinds whose lists and structs are merged each in its way: what is applied twice is written
/// once, and nobody is in his own way.
#[test]
fn of_any_kind_what_is_applied_twice_is_written_once() {
    let labels = json!({"app": "a"});
    let template = json!({"metadata": {"labels": labels}, "spec": {
        "containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}],
        "tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"}}});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let selector = json!({"matchLabels": labels});
    let set = json!({"spec": {"serviceName": "a", "selector": selector, "template": template,
                              "volumeClaimTemplates": [claim]}});
    let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let ingress = json!({"spec": {"tls": [{"hosts": ["a.example"], "secretName": "s"}],
        "rules": [{"host": "a.example", "http": {"paths": paths}}]}});
    let policy = json!({"spec": {"podSelector": selector, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]}});
    let rules = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let service = json!({"spec": {"selector": labels, "ports": [{"port": 80, "name": "http"},
        {"port": 53, "protocol": "UDP", "name": "dns"}]}});
    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i:1"}]}}}});
    let subnet = json!({"spec": {"node": "n", "cidr": "10.244.0.0/24"}});
    // What has defaults in what has one owner as a whole differs for others from what they say, as
    // upstream has it.
    let field = ".spec.template.spec.containers[name=\"c\"].env[name=\"A\"].valueFrom.fieldRef";
    let cases = [
        ("apis/apps/v1", "statefulsets", "StatefulSet", set, field),
        ("apis/networking.k8s.io/v1", "ingresses", "Ingress", ingress, ""),
        ("apis/networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", policy, ".spec.ingress"),
        ("apis/batch/v1", "jobs", "Job", job, ""),
        ("api/v1", "services", "Service", service, ""),
        ("api/v1", "secrets", "Secret", json!({"data": {"a": "Yg=="}}), ""),
        ("apis/rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", rules, ""),
        ("apis/net.kubesim.dev/v1", "subnets", "Subnet", subnet, ""),
    ];
    play(|world| async move {
        for (prefix, plural, kind, mut config, defaulted) in cases {
            let (_, version) = prefix.split_once('/').expect("a version");
            config["apiVersion"] = version.into();
            config["kind"] = kind.into();
            config["metadata"] = json!({"name": "a"});
            let cluster = ["clusterroles", "subnets"].contains(&plural);
            let namespace = if cluster { "" } else { "/namespaces/default" };
            let path = format!("/{prefix}{namespace}/{plural}/a?fieldManager=a");
            let made = world.apply(&path, &config).await;
            assert_eq!(made.code, 201, "{kind}: {}", made.text);
            let made = made.ok();
            assert_eq!(world.apply(&path, &config).await.ok(), made, "{kind}");
            let other = world.apply(&path.replace("Manager=a", "Manager=b"), &config).await;
            match defaulted {
                "" => assert_eq!(names_of(&other.ok()), ["a Apply", "b Apply"], "{kind}"),
                path => assert_eq!(other.json()["details"]["causes"][0]["field"], path, "{kind}"),
            }
        }
    });
}

#[test]
fn a_conflict_says_with_whom_and_force_ends_it() {
    play(|world| async move {
        let path = format!("{DEPLOYMENTS}/d");
        world.apply(&format!("{path}?fieldManager=a"), &deployment("d")).await.ok();
        let merge = json!({"spec": {"paused": true}});
        world.patch(&format!("{path}?fieldManager=hand"), "merge-patch", &merge).await.ok();
        let mut wanted = replicas(5);
        let conflict = world.apply(&format!("{path}?fieldManager=b"), &wanted).await;
        assert_eq!(conflict.refusal(), (409, "Conflict".to_owned()));
        let status = conflict.json();
        let message = "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas";
        assert_eq!(status["message"], message);
        let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"a\"",
                           "field": ".spec.replicas"});
        assert_eq!(status["details"]["causes"], json!([cause]));
        wanted["spec"]["paused"] = false.into();
        let status = world.apply(&format!("{path}?fieldManager=b"), &wanted).await.json();
        let message = "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.replicas\n\
                       conflicts with \"hand\" using apps/v1:\n- .spec.paused";
        assert_eq!(status["message"], message);
        let forced = world.apply(&format!("{path}?fieldManager=b&force=true"), &wanted).await.ok();
        assert_eq!(forced["spec"]["replicas"], 5);
        assert_eq!(names_of(&forced), ["a Apply", "b Apply"]);
        assert_eq!(owners(&forced)[0].1["f:spec"].get("f:replicas"), None);
    });
}

#[test]
fn every_write_is_somebodys() {
    play(|world| async move {
        let path = format!("{DEPLOYMENTS}/d");
        let made = world.send(&format!("POST {DEPLOYMENTS}"), &deployment("d")).await.ok();
        let (name, fields) = owners(&made).remove(0);
        assert_eq!(name, "tester Update", "by how the program calls itself");
        assert_eq!(fields["f:spec"]["f:strategy"]["f:type"], json!({}), "with its defaults");
        assert_eq!(fields.get("f:status"), None);
        assert_eq!(fields.get("f:metadata"), None, "a name is nobody's");
        // A status, by two subresources, neither of which touches what is not its own.
        let status = json!({"status": {"replicas": 2, "observedGeneration": 1}});
        let by_dc = format!("{path}/status?fieldManager=dc");
        let now = world.patch(&by_dc, "merge-patch", &status).await.ok();
        let fields = json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}});
        assert!(owners(&now).contains(&("dc Update status".to_owned(), fields)), "{now}");
        assert_eq!(owners(&now).len(), 2);
        let scale = json!({"spec": {"replicas": 4}});
        let by_hpa = format!("{path}/scale?fieldManager=hpa");
        world.patch(&by_hpa, "merge-patch", &scale).await.ok();
        let now = world.get(&path).await.ok();
        let scales = owners(&now).into_iter().find(|(name, _)| name == "hpa Update scale");
        assert_eq!(scales.expect("an owner").1, json!({"f:spec": {"f:replicas": {}}}));
        let status = world.apply(&format!("{path}?fieldManager=a"), &replicas(2)).await.json();
        let message = "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \
                       \"scale\" using apps/v1: .spec.replicas";
        assert_eq!(status["message"], message);
        // A put that says nothing of owners takes nothing away but what it leaves out.
        let mut put = deployment("d");
        put["spec"]["replicas"] = 4.into();
        let put = world.send(&format!("PUT {path}?fieldManager=put"), &put).await.ok();
        assert_eq!(put["metadata"]["managedFields"], now["metadata"]["managedFields"]);
        assert_eq!(version(&put), version(&now), "nothing changed");
    });
}

#[test]
fn a_scale_is_applied() {
    play(|world| async move {
        let path = format!("{DEPLOYMENTS}/d");
        world.apply(&format!("{path}?fieldManager=a"), &deployment("d")).await.ok();
        let mut scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
                               "metadata": {"name": "d"}, "spec": {"replicas": 6}});
        let scales = |manager: &str| format!("{path}/scale?fieldManager={manager}");
        let refused = world.apply(&scales("hpa"), &scale).await;
        assert_eq!(refused.refusal().0, 409);
        let forced = world.apply(&format!("{}&force=true", scales("hpa")), &scale).await.ok();
        assert_eq!(forced["spec"]["replicas"], 6);
        let now = world.get(&path).await.ok();
        assert_eq!(names_of(&now), ["a Apply", "hpa Apply scale"]);
        scale["kind"] = "Deployment".into();
        let wrong = world.apply(&scales("hpa"), &scale).await.json();
        assert_eq!(wrong["message"], "invalid object type: autoscaling/v1, Kind=Deployment");
    });
}

#[test]
fn owners_are_forgotten_and_changed_by_who_asks_for_it() {
    play(|world| async move {
        let path = format!("{MAPS}/m");
        world.send(&format!("POST {MAPS}?fieldManager=cli"), &map("m", "1")).await.ok();
        // As kubectl does for one that it has applied itself before (csaupgrade).
        let now = world.get(&path).await.ok();
        let mut entries = now["metadata"]["managedFields"].clone();
        entries[0]["manager"] = "kubectl".into();
        entries[0]["operation"] = "Apply".into();
        let patch = json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version(&now)},
        ]);
        let moved = world.patch(&path, "json-patch", &patch).await.ok();
        assert_eq!(names_of(&moved), ["kubectl Apply"]);
        let applied = world.apply(&format!("{path}?fieldManager=kubectl"), &map("m", "2")).await;
        assert_eq!(applied.ok()["data"]["key"], "2");
        for reset in [json!([{}]), json!([])] {
            let patch = json!({"metadata": {"managedFields": reset}});
            let none = world.patch(&path, "merge-patch", &patch).await.ok();
            assert_eq!(none["metadata"].get("managedFields"), None);
            let changed = world.send(&format!("PUT {path}"), &map("m", "3")).await.ok();
            assert_eq!(names_of(&changed), Vec::<String>::new(), "it is tracked no more");
            let name = format!("{path}?fieldManager=a");
            let other = world.apply(&name, &map("m", "4")).await;
            let message = "conflict with \"before-first-apply\" using v1: .data.key";
            assert!(other.text.contains(&message.replace('"', "\\\"")), "{}", other.text);
            world.apply(&name, &map("m", "3")).await.ok();
        }
    });
}

/// `kubectl apply` of old keeps what it applied; whoever calls itself "kubectl" goes on from there.
#[test]
fn what_was_applied_by_a_client_is_taken_over() {
    play(|world| async move {
        let path = format!("{MAPS}/m");
        let mut old = map("m", "1");
        let note = "kubectl.kubernetes.io/last-applied-configuration";
        old["metadata"]["annotations"] = json!({note: map("m", "1").to_string()});
        let create = format!("POST {MAPS}?fieldManager=kubectl-client-side-apply");
        world.send(&create, &old).await.ok();
        let refused = world.apply(&format!("{path}?fieldManager=a"), &map("m", "2")).await;
        assert_eq!(refused.refusal().0, 409);
        let applied =
            world.apply(&format!("{path}?fieldManager=kubectl"), &map("m", "2")).await.ok();
        assert_eq!(applied["data"]["key"], "2");
        let noted = applied["metadata"]["annotations"][note].as_str().expect("a note");
        assert_eq!(serde_json::from_str::<Value>(noted).expect("JSON"), map("m", "2"));
        // But not what another changed since.
        world.send(&format!("PUT {path}?fieldManager=hand"), &map("m", "3")).await.ok();
        let refused = world.apply(&format!("{path}?fieldManager=kubectl"), &map("m", "4")).await;
        assert_eq!(refused.refusal().0, 409);
    });
}

#[test]
fn an_apply_that_is_none_is_refused_in_upstreams_words() {
    play(|world| async move {
        let path = format!("{MAPS}/m");
        let apply = format!("{path}?fieldManager=a");
        let long = "x".repeat(129);
        let with = |field: &str, value: Value| {
            let mut wrong = map("m", "1");
            wrong["metadata"][field] = value;
            wrong
        };
        let mut unknown = map("m", "1");
        unknown["dato"] = json!({});
        let uid = "ffffffff-ffff-4fff-8123-456789abcdef";
        for (path, config, code, words) in [
            (
                path.clone(),
                map("m", "1"),
                422,
                "PatchOptions.meta.k8s.io \"\" is invalid: \
                fieldManager: Required value: is required for apply patch",
            ),
            (
                format!("{path}?fieldManager={long}"),
                map("m", "1"),
                422,
                "fieldManager: Too long: may not be more than 128 bytes",
            ),
            (
                format!("{path}?fieldManager=a%07"),
                map("m", "1"),
                422,
                "invalid character U+0007 (at position 1)",
            ),
            (
                apply.clone(),
                json!({"metadata": {"name": "m"}}),
                400,
                "invalid object type: /, Kind=",
            ),
            (apply.clone(), replicas(1), 400, "invalid object type: apps/v1, Kind=Deployment"),
            (
                apply.clone(),
                with("managedFields", json!([])),
                400,
                "metadata.managedFields must be nil",
            ),
            (
                apply.clone(),
                with("name", json!("n")),
                400,
                "does not match the name on the URL (m)",
            ),
            (
                apply.clone(),
                unknown,
                500,
                "failed to create typed patch object (/m; /v1, \
                Kind=ConfigMap): .dato: field not declared in schema",
            ),
            (apply.clone(), with("uid", json!(uid)), 409, "uid mismatch: the provided object"),
            (apply.clone(), json!([]), 400, "error decoding YAML"),
            (format!("{path}/status?fieldManager=a"), map("m", "1"), 404, "could not find"),
        ] {
            let refused = world.apply(&path, &config).await;
            let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!(refused.code, code, "{message}");
            assert!(message.contains(words), "{message}");
        }
    });
}

#[test]
fn an_apply_is_of_the_version_that_it_names() {
    play(|world| async move {
        let path = format!("{MAPS}/m");
        let apply = format!("{path}?fieldManager=a");
        let with = |version: &str| {
            let mut config = map("m", "2");
            config["metadata"]["resourceVersion"] = version.into();
            config
        };
        let force = world.patch(&format!("{path}?force=true"), "merge-patch", &json!({})).await;
        let words = "force: Forbidden: may not be specified for non-apply patch";
        assert!(force.json()["message"].as_str().is_some_and(|text| text.contains(words)));
        let made = world.apply(&apply, &map("m", "1")).await.ok();
        let old = with("1");
        assert_eq!(world.apply(&apply, &old).await.refusal(), (409, "Conflict".to_owned()));
        let now = with(version(&made));
        assert_eq!(world.apply(&apply, &now).await.ok()["data"]["key"], "2");
        let body = "kind: ConfigMap\napiVersion: v1\ndata: {key: '3'}\n".to_owned();
        let words = format!("PATCH {apply}");
        let content_type = "application/apply-patch+yaml";
        let yaml = world.ask(Ask { words: &words, body, content_type, ..Ask::default() }).await;
        assert_eq!(yaml.ok()["data"]["key"], "3");
    });
}
