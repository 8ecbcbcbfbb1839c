//! What Go writes: worked out from the tags in upstream's `types.go`.

use super::super::{TABLE, of_kind};
use super::*;
use crate::http::types::Field;
use serde_json::{Map, Value, json};

fn written(kind: (&str, &str, &str), bare: &Value) -> Value {
    let message = of_kind(kind.0, kind.1, kind.2).expect("a kind of the API");
    let mut out = b"before".to_vec();
    write(message, bare.to_string().as_bytes(), &mut out);
    let text = out.strip_prefix(b"before").expect("what was there stays");
    serde_json::from_slice(text).expect("JSON")
}

#[test]
fn no_message_has_more_fields_than_there_are_bits() {
    for message in TABLE.messages.values() {
        let shape = message.shape();
        let written = shape.fields.iter().filter(|known| known.unsaid.is_some());
        assert!(written.clone().count() <= 64, "{}", message.name);
        assert!(written.into_iter().all(|known| known.bit != 0), "{}", message.name);
    }
}

#[test]
fn a_bare_deployment_is_as_in_go() {
    let bare = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"template": {"spec": {"hostNetwork": false, "containers": [{
            "name": "a", "image": "", "tty": false, "command": [],
            "env": [{"name": "A", "value": ""},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "ports": [{"containerPort": 0}, {"containerPort": 80, "hostPort": 0}],
            "securityContext": {"privileged": false},
            "readinessProbe": {"httpGet": {}},
        }], "volumes": [{"name": "v", "emptyDir": {}}]}}},
    });
    let whole = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "a", "creationTimestamp": null},
        "spec": {"selector": null, "strategy": {}, "template": {
            "metadata": {"creationTimestamp": null},
            "spec": {"containers": [{
                "name": "a", "resources": {},
                "env": [{"name": "A"},
                        {"name": "B", "valueFrom":
                            {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}],
                "ports": [{"containerPort": 0}, {"containerPort": 80}],
                "securityContext": {"privileged": false},
                "readinessProbe": {"httpGet": {"port": 0}},
            }], "volumes": [{"name": "v", "emptyDir": {}}]},
        }},
        "status": {},
    });
    assert_eq!(written(("apps", "v1", "Deployment"), &bare), whole);
    assert_eq!(written(("apps", "v1", "Deployment"), &whole), whole, "and stays so");
}

#[test]
fn each_type_has_a_zero_of_its_own() {
    let never = json!({"creationTimestamp": null});
    for (kind, bare, whole) in [
        (("", "v1", "Service"), json!({}), json!({"spec": {}, "status": {"loadBalancer": {}}})),
        (
            ("", "v1", "Pod"),
            json!({"status": {}}),
            json!({"spec": {"containers": null}, "status": {}}),
        ),
        (
            ("", "v1", "Event"),
            json!({}),
            json!({"involvedObject": {}, "source": {}, "firstTimestamp": null,
                   "lastTimestamp": null, "eventTime": null, "reportingComponent": "",
                   "reportingInstance": ""}),
        ),
        (
            ("", "v1", "Node"),
            json!({"status": {"nodeInfo": {"osImage": "x"}}}),
            json!({"spec": {}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
                "nodeInfo": {"osImage": "x", "machineID": "", "systemUUID": "", "bootID": "",
                    "kernelVersion": "", "containerRuntimeVersion": "", "kubeletVersion": "",
                    "kubeProxyVersion": "", "operatingSystem": "", "architecture": ""}}}),
        ),
        (("apps", "v1", "ControllerRevision"), json!({}), json!({"data": null, "revision": 0})),
        (
            ("batch", "v1", "CronJob"),
            json!({"spec": {"suspend": false}}),
            json!({"spec": {"schedule": "", "suspend": false,
                "jobTemplate": {"metadata": never, "spec": {"template": {"metadata": never,
                    "spec": {"containers": null}}}}}, "status": {}}),
        ),
        (
            ("discovery.k8s.io", "v1", "EndpointSlice"),
            json!({"endpoints": [], "ports": []}),
            json!({"addressType": "", "endpoints": null, "ports": null}),
        ),
        (
            ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
            json!({"subjects": []}),
            json!({"roleRef": {"apiGroup": "", "kind": "", "name": ""}}),
        ),
        (("rbac.authorization.k8s.io", "v1", "Role"), json!({"rules": []}), json!({"rules": null})),
        (
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            json!({"spec": {"scaleTargetRef": {}, "maxReplicas": 0}}),
            json!({"spec": {"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0},
                   "status": {"desiredReplicas": 0, "currentMetrics": null}}),
        ),
        (
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            json!({"spec": {"group": "a", "scope": "Cluster", "versions": [], "names": {}},
                   "status": {"conditions": [], "storedVersions": []}}),
            json!({"spec": {"group": "a", "scope": "Cluster", "versions": [],
                            "names": {"plural": "", "kind": ""}},
                   "status": {"conditions": [], "storedVersions": [],
                              "acceptedNames": {"plural": "", "kind": ""}}}),
        ),
    ] {
        let (mut bare, mut whole) = (bare, whole);
        bare["metadata"] = json!({"labels": {}, "finalizers": [], "generation": 0});
        whole["metadata"] = never.clone();
        assert_eq!(written(kind, &bare), whole, "{}", kind.2);
    }
}

#[test]
fn what_is_not_known_is_copied() {
    let bare = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "", "b\"}": "eA=="},
        "metadata": {"annotations": {"{": "]\\\""}, "managedFields": [{"fieldsV1": {"f:a": {}}}]}});
    let mut whole = bare.clone();
    whole["metadata"]["creationTimestamp"] = Value::Null;
    assert_eq!(written(("", "v1", "Secret"), &bare), whole);
    let custom = super::super::of(("example.com", "v1", "Thing"));
    let cut =
        [r#"{"spec":{"a":""}}"#, r#"{"spec":"#, "", "7", r#"{"metadata":{"name":"a"}"#, "{\"", "}"];
    for message in [custom, of_kind("", "v1", "Pod").expect("a kind")] {
        for text in cut.iter().skip(usize::from(message.name != "custom")) {
            let mut out = Vec::new();
            write(message, text.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes(), "{}", message.name);
        }
    }
}

/// The same once more, slowly: of values.
fn reference(fields: &[&'static Field], kept: bool, value: &Value) -> Value {
    let Value::Object(said) = value else { return value.clone() };
    let mut whole = Map::new();
    for (name, value) in said {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            whole.insert(name.clone(), value.clone());
            continue;
        };
        let nothing = match value {
            Value::Null => true,
            _ if field.pointer => false,
            Value::Array(list) => {
                field.many == Many::List && list.is_empty() && !(kept && field.always)
            }
            Value::Object(map) => {
                field.many == Many::Map && map.is_empty() && !(kept && field.always)
            }
            Value::String(text) => text.is_empty() && !field.always && is_plain(field.kind),
            Value::Bool(said) => !said && !field.always,
            Value::Number(number) => {
                number.as_i64() == Some(0) && !field.always && field.kind == Type::Int
            }
        };
        if nothing {
            continue;
        }
        let each = |value: &Value| match field.message() {
            Some(below) => {
                reference(&below.fields(), below.name.starts_with("apiextensions/"), value)
            }
            None => value.clone(),
        };
        let value = match (field.many, value) {
            (Many::One, value) => each(value),
            (Many::List, Value::Array(list)) => list.iter().map(each).collect(),
            (Many::Map, Value::Object(map)) => {
                map.iter().map(|(key, value)| (key.clone(), each(value))).collect()
            }
            _ => value.clone(),
        };
        whole.insert(name.clone(), value);
    }
    for field in fields {
        if let (None, Some(text)) = (whole.get(field.name), unsaid(field)) {
            let value = serde_json::from_str(&text).expect("JSON");
            whole.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(whole)
}

mod any {
    use super::*;
    use proptest::prelude::*;

    /// Something that a field may say, or what it never does.
    fn of(field: &'static Field, deep: u32) -> BoxedStrategy<Value> {
        let one = match (field.kind, field.message()) {
            (_, Some(below)) if deep > 0 => object(below, deep - 1),
            (_, Some(_)) => Just(json!({})).boxed(),
            (Type::Bool, _) => any::<bool>().prop_map(Value::Bool).boxed(),
            (Type::Int | Type::IntOrString, _) => {
                prop_oneof![Just(0), Just(7), Just(10)].prop_map(|n: i32| n.into()).boxed()
            }
            (Type::Json | Type::Strings, _) => {
                prop_oneof![Just(json!({"a": [0, {}]})), Just(json!([]))].boxed()
            }
            _ => prop_oneof![Just(""), Just("a"), Just("\\\"},{\"")].prop_map(Value::from).boxed(),
        };
        let said = match field.many {
            Many::One => one,
            Many::List => prop::collection::vec(one, 0..3).prop_map(Value::from).boxed(),
            Many::Map => prop::collection::btree_map("[a-z\"]{0,2}", one, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
                .boxed(),
        };
        prop_oneof![1 => Just(Value::Null), 9 => said].boxed()
    }

    fn object(message: &'static Message, deep: u32) -> BoxedStrategy<Value> {
        // An empty list of managers is held, and is not told.
        let mut fields = message.fields();
        fields.retain(|field| field.name != "managedFields");
        let some = prop::sample::subsequence(fields.clone(), 0..=fields.len().min(4));
        let some = some.prop_flat_map(move |some| {
            let each = some.into_iter().map(|field| of(field, deep).prop_map(|v| (field.name, v)));
            each.collect::<Vec<_>>()
        });
        let unknown = prop::option::of(Just(json!([{"a": ""}, []])));
        (some, unknown)
            .prop_map(|(some, unknown)| {
                let named = some.into_iter().map(|(name, value)| (name.to_owned(), value));
                let unknown = unknown.map(|value| ("nobodyKnows".to_owned(), value));
                Value::Object(named.chain(unknown).collect())
            })
            .boxed()
    }

    /// A message's name, and an object of it.
    fn any_object() -> impl Strategy<Value = (&'static str, Value)> {
        let all: Vec<&'static Message> = TABLE.messages.values().collect();
        let one = prop::sample::select(all);
        one.prop_flat_map(|message| (Just(message.name), object(message, 2)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn any_object_is_as_values_say((name, bare) in any_object()) {
            let message = &TABLE.messages[name];
            let kept = message.name.starts_with("apiextensions/");
            let expected = reference(&message.fields(), kept, &bare);
            let (mut out, mut again) = (Vec::new(), Vec::new());
            write(message, bare.to_string().as_bytes(), &mut out);
            let whole: Value = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(&whole, &expected, "{}: {}", message.name, bare);
            write(message, &out, &mut again);
            let again: Value = serde_json::from_slice(&again).expect("JSON");
            prop_assert_eq!(&again, &expected, "it stays so");
            // What is held says the same.
            let (mut held, mut out) = (bare, Vec::new());
            strip(message, &mut held);
            let mut of_whole = whole;
            strip(message, &mut of_whole);
            prop_assert_eq!(&of_whole, &held);
            write(message, held.to_string().as_bytes(), &mut out);
            let again: Value = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(again, expected);
        }
    }
}
