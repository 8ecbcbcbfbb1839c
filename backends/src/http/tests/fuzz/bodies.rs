//! Bodies: objects that are right, with one or two things in them wrong; and bytes that are none.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

fn of(api_version: &str, kind: &str, fields: &Value) -> Value {
    let meta = json!({"name": "b", "labels": {"app": "b"}, "annotations": {"n": "1"}});
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": meta});
    for (name, value) in fields.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}

fn pod() -> Value {
    let containers = json!([{"name": "c", "image": "i:1",
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
        "ports": [{"containerPort": 80, "name": "http"}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}}]);
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {
        "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}});
    json!({"containers": containers, "terminationGracePeriodSeconds": 5,
           "tolerations": [{"operator": "Exists"}],
           "affinity": {"podAntiAffinity": {
               "requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn core() -> Vec<Value> {
    let ports = json!([{"port": 80, "targetPort": "http", "nodePort": 30080}]);
    let hard = json!({"pods": "2", "cpu": "1500m"});
    let limits = json!([{"type": "Container", "default": {"cpu": "1"}, "max": {"cpu": "2"}}]);
    vec![
        of("v1", "ConfigMap", &json!({"data": {"a": "1"}, "binaryData": {"b": "eA=="}})),
        of("v1", "Secret", &json!({"stringData": {"a": "1"}, "type": "Opaque"})),
        of("v1", "Pod", &json!({"spec": pod(), "status": {"phase": "Running"}})),
        of("v1", "Node", &json!({"spec": {"podCIDR": "10.244.0.0/24"}})),
        of("v1", "Namespace", &json!({"spec": {"finalizers": ["kubernetes"]}})),
        of(
            "v1",
            "Service",
            &json!({"spec": {"selector": {"app": "b"}, "clusterIP": "10.96.0.77",
                             "type": "NodePort", "ports": ports}}),
        ),
        of("v1", "ResourceQuota", &json!({"spec": {"hard": hard}})),
        of("v1", "LimitRange", &json!({"spec": {"limits": limits}})),
        of("v1", "Binding", &json!({"target": {"kind": "Node", "name": "n"}})),
    ]
}

fn workloads() -> Vec<Value> {
    let selector = json!({"matchLabels": {"app": "b"}});
    let template = json!({"metadata": {"labels": {"app": "b"}}, "spec": pod()});
    let surge = json!({"rollingUpdate": {"maxSurge": "25%"}});
    let deployment = json!({"spec": {"replicas": 1, "selector": selector, "template": template,
                                     "strategy": surge}});
    let set = json!({"spec": {"serviceName": "b", "selector": selector, "template": template}});
    let job = json!({"spec": {"template": template, "backoffLimit": 2}});
    let cron = json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": job}});
    let scaled = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
    let metric = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let scaler = json!({"spec": {"maxReplicas": 3, "scaleTargetRef": scaled, "metrics": [metric]}});
    let budget = json!({"spec": {"minAvailable": "50%", "selector": selector}});
    vec![
        of("apps/v1", "Deployment", &deployment),
        of("apps/v1", "StatefulSet", &set),
        of("batch/v1", "Job", &job),
        of("batch/v1", "CronJob", &cron),
        of("autoscaling/v2", "HorizontalPodAutoscaler", &scaler),
        of("autoscaling/v1", "Scale", &json!({"spec": {"replicas": 2}})),
        of("policy/v1", "Eviction", &json!({"deleteOptions": {"gracePeriodSeconds": 0}})),
        of("policy/v1", "PodDisruptionBudget", &budget),
    ]
}

fn others() -> Vec<Value> {
    let lease = json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15,
                                "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let from = json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]);
    let policy = json!({"spec": {"podSelector": {}, "ingress": from}});
    let token = json!({"spec": {"audiences": ["a"], "expirationSeconds": 600}});
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    vec![
        of("coordination.k8s.io/v1", "Lease", &lease),
        of("rbac.authorization.k8s.io/v1", "ClusterRole", &json!({"rules": [rule]})),
        of("networking.k8s.io/v1", "NetworkPolicy", &policy),
        of("authentication.k8s.io/v1", "TokenRequest", &token),
        of("authorization.k8s.io/v1", "SelfSubjectAccessReview", &review),
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground",
               "preconditions": {"uid": "x"}}),
    ]
}

fn patches() -> Vec<Value> {
    vec![
        json!([{"op": "replace", "path": "/metadata/labels/app", "value": "c"},
               {"op": "copy", "from": "/metadata", "path": "/metadata/annotations/x"}]),
        json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "c"}],
               "containers": [{"name": "c", "$patch": "delete"}]}}}}),
        json!({"metadata": {"labels": {"app": null}, "$retainKeys": ["labels"]}}),
    ]
}

fn objects() -> Vec<Value> {
    [core(), workloads(), others(), patches()].concat()
}

/// In place of something.
fn junk() -> impl Strategy<Value = Value> {
    let constant = select(vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!("a b"),
        json!("\u{0}"),
        json!("1Ki"),
        json!("-99999999999999999999999999999999999"),
        json!("1e999999999"),
        json!("9223372036854775807Ei"),
        json!("2026-13-45T99:99:99Z"),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({"": null}),
        json!({"$patch": "replace"}),
        json!([{"$patch": "delete"}, {"name": "c"}]),
        json!({"a/b/c": "d"}),
    ]);
    prop_oneof![4 => constant, 1 => any::<i64>().prop_map(Value::from),
                1 => "\\PC{0,12}".prop_map(Value::from)]
}

/// All places in a value, as JSON pointers.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(Value),
    Add(Value),
    Remove,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => junk().prop_map(Change::Put),
        1 => junk().prop_map(Change::Add),
        1 => Just(Change::Remove),
    ]
}

fn changed(mut value: Value, at: Index, change: Change) -> Value {
    let mut found = Vec::new();
    places(&value, "", &mut found);
    let path = &found[at.index(found.len())];
    match change {
        Change::Put(junk) => {
            if let Some(place) = value.pointer_mut(path) {
                *place = junk;
            }
        }
        Change::Add(junk) => match value.pointer_mut(path) {
            Some(Value::Object(fields)) => {
                fields.insert("extra".to_owned(), junk);
            }
            Some(Value::Array(items)) => items.push(junk),
            _ => {}
        },
        Change::Remove => {
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            if let Some(Value::Object(fields)) = value.pointer_mut(parent) {
                fields.remove(name);
            }
        }
    }
    value
}

fn object() -> impl Strategy<Value = Value> {
    let changes = prop::collection::vec((any::<Index>(), change()), 0..3);
    (select(objects()), changes).prop_map(|(object, changes)| {
        changes.into_iter().fold(object, |value, (at, change)| changed(value, at, change))
    })
}

/// Text that is wrong as a text.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let cut = (object(), any::<Index>()).prop_map(|(object, at)| {
        let text = object.to_string().into_bytes();
        text[..at.index(text.len() + 1)].to_vec()
    });
    let byte = (object(), any::<Index>(), any::<u8>()).prop_map(|(object, at, byte)| {
        let mut text = object.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        text
    });
    let twice = object().prop_map(|object| {
        let text = object.to_string();
        text.replacen('{', "{\"kind\":\"Pod\",\"kind\":1,\"metadata\":{\"name\":\"q\"},", 1).into()
    });
    let deep = (1_usize..40_000, select(&["[", "{\"a\":"][..]))
        .prop_map(|(depth, piece)| piece.repeat(depth).into_bytes());
    let bomb = Just(
        b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
          c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
          e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
          g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n"
            .to_vec(),
    );
    let numbers = select(&["{\"spec\":1e99999}", "{\"metadata\":{\"generation\":-0.0e-999}}"][..])
        .prop_map(|text| text.as_bytes().to_vec());
    let protobuf = prop::collection::vec(any::<u8>(), 0..64)
        .prop_map(|bytes| [b"k8s\0".to_vec(), bytes].concat());
    // The head of a compressed text, and no end.
    let gzip = Just(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0x56]);
    prop_oneof![3 => cut, 3 => byte, 1 => twice, 1 => deep, 1 => bomb, 1 => numbers,
                2 => protobuf, 1 => gzip,
                1 => prop::collection::vec(any::<u8>(), 0..32)]
}

pub fn body() -> impl Strategy<Value = Vec<u8>> {
    let text = object().prop_map(|object| object.to_string().into_bytes());
    prop_oneof![5 => text, 1 => Just(Vec::new()), 2 => broken()]
}
