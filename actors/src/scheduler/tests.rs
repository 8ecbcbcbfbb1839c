use super::{Config, Scheduler};
use crate::controllers::tests::fake::{Weather, World, object};
use crate::objects::{Key, Kind, Object};
use crate::storage;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn world(seed: u64) -> World<Scheduler> {
    let config = Config { name: "default-scheduler".to_owned(), events: None, volumes: false };
    World::new(config, seed, Weather { max_delay_ms: 2, ..Weather::default() })
}

fn node(name: &str, cpu: &str, more: Value) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    });
    for (key, part) in more.as_object().into_iter().flatten() {
        value[key] = part.clone();
    }
    object(value)
}

fn pod(name: &str, cpu: &str, more: Value) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    for (key, part) in more.as_object().into_iter().flatten() {
        value["spec"][key] = part.clone();
    }
    object(value)
}

/// How many pods each node has; the key is empty for those that wait.
fn spread(world: &World<Scheduler>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in world.all(Kind::Pod) {
        let node = pod.pod().unwrap().0.node_name.clone().unwrap_or_default();
        *counts.entry(node).or_default() += 1;
    }
    counts
}

fn message(world: &World<Scheduler>, name: &str) -> String {
    let pod = world.get(Kind::Pod, &Key::new("default", name)).unwrap();
    let conditions = pod.pod().unwrap().1.conditions.clone().unwrap_or_default();
    conditions.first().and_then(|c| c.message.clone()).unwrap_or_default()
}

#[test]
fn equal_pods_spread_evenly_and_never_beyond_what_fits() {
    let mut world = world(1);
    (0..5).for_each(|n| world.put(node(&format!("n{n}"), "4", json!({}))));
    (0..60).for_each(|n| world.put(pod(&format!("p{n}"), "500m", json!({}))));
    world.run(Duration::from_secs(5));
    let counts = spread(&world);
    assert_eq!(counts.get(""), Some(&20), "{counts:?}");
    assert!((0..5).all(|n| counts[&format!("n{n}")] == 8), "{counts:?}");
    let waiting: Vec<_> = world.all(Kind::Pod);
    let waiting = waiting.iter().find(|p| p.pod().unwrap().0.node_name.is_none()).unwrap();
    let text = message(&world, &waiting.key.name);
    assert_eq!(text, "0/5 nodes are available: 5 Insufficient cpu.");
    // A pod less, a place more.
    let bound = world.all(Kind::Pod);
    let bound = bound.iter().find(|p| p.pod().unwrap().0.node_name.is_some()).unwrap();
    world.remove(Kind::Pod, &bound.key);
    world.run(Duration::from_secs(15));
    assert_eq!(spread(&world).get(""), Some(&19));
}

#[test]
fn the_message_counts_reasons_as_upstream_and_is_written_once() {
    let mut world = world(2);
    world.put(node("small", "100m", json!({})));
    let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    world.put(node("t1", "4", taint.clone()));
    world.put(node("t2", "4", taint));
    world.put(pod("p", "1", json!({})));
    world.run(Duration::from_secs(400));
    assert_eq!(
        message(&world, "p"),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}."
    );
    assert_eq!(world.writes[&(Kind::Pod, "patch")], 1);
    world.put(node("t2", "4", json!({})));
    world.run(Duration::from_secs(15));
    assert_eq!(spread(&world), BTreeMap::from([("t2".to_owned(), 1)]));
}

#[test]
fn selectors_affinity_and_ports_are_heeded() {
    let mut world = world(3);
    for (name, disk, size) in [("a", "ssd", "3"), ("b", "hdd", "9"), ("c", "ssd", "9")] {
        let labels = json!({"metadata": {"name": name, "labels": {"disk": disk, "size": size}}});
        world.put(node(name, "4", labels));
    }
    let affinity = json!({"nodeSelector": {"disk": "ssd"}, "affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["5"]}]}]}}}});
    (0..3).for_each(|n| world.put(pod(&format!("p{n}"), "1", affinity.clone())));
    let port = |name: &str| {
        let ports = json!([{"containerPort": 80, "hostPort": 80}]);
        let one = json!({"name": "c", "ports": ports});
        match name {
            // A sidecar has it as well.
            "h0" => {
                let mut sidecar = one;
                sidecar["restartPolicy"] = "Always".into();
                pod(name, "1", json!({"initContainers": [sidecar]}))
            }
            _ => pod(name, "1", json!({"containers": [one]})),
        }
    };
    (0..4).for_each(|n| world.put(port(&format!("h{n}"))));
    world.run(Duration::from_secs(5));
    let on = |name: &str| {
        let pod = world.get(Kind::Pod, &Key::new("default", name)).unwrap();
        pod.pod().unwrap().0.node_name.clone()
    };
    assert!((0..3).all(|n| on(&format!("p{n}")).as_deref() == Some("c")));
    let mut hosts: Vec<_> = (0..4).map(|n| on(&format!("h{n}"))).collect();
    hosts.sort();
    assert_eq!(hosts, [None, Some("a".into()), Some("b".into()), Some("c".into())]);
}

#[test]
fn anti_affinity_keeps_apart_and_affinity_brings_together() {
    let mut world = world(4);
    (0..4).for_each(|n| world.put(node(&format!("n{n}"), "8", json!({}))));
    let term = json!([{"labelSelector": {"matchLabels": {"app": "a"}},
                       "topologyKey": "kubernetes.io/hostname"}]);
    let rule = |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    (0..5).for_each(|n| world.put(pod(&format!("p{n}"), "1", rule("podAntiAffinity"))));
    world.run(Duration::from_secs(5));
    let counts = spread(&world);
    assert_eq!(counts.len(), 5);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");

    let mut world = self::world(5);
    (0..4).for_each(|n| world.put(node(&format!("n{n}"), "8", json!({}))));
    (0..4).for_each(|n| world.put(pod(&format!("p{n}"), "1", rule("podAffinity"))));
    world.run(Duration::from_secs(5));
    let counts = spread(&world);
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [4], "{counts:?}");
}

#[test]
fn a_hard_spread_constraint_bounds_the_skew() {
    let mut world = world(6);
    for n in 0..4 {
        let zone = if n == 0 { "a" } else { "b" };
        let labels = json!({"metadata": {"name": format!("n{n}"), "labels": {"zone": zone}}});
        world.put(node(&format!("n{n}"), "8", labels));
    }
    let rule = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]});
    (0..10).for_each(|n| world.put(pod(&format!("p{n}"), "1", rule.clone())));
    world.run(Duration::from_secs(5));
    assert_eq!(spread(&world)["n0"], 5, "{:?}", spread(&world));
}

#[test]
fn lost_binds_and_restarts_overcommit_no_node() {
    for seed in 0..10 {
        let mut world = world(seed);
        world.weather =
            Weather { max_delay_ms: 50, lost_requests: 0.2, lost_answers: 0.2, view_delay_ms: 100 };
        (0..3).for_each(|n| world.put(node(&format!("n{n}"), "2", json!({}))));
        (0..10).for_each(|n| world.put(pod(&format!("p{n}"), "500m", json!({}))));
        world.run(Duration::from_secs(20));
        assert!(spread(&world).iter().all(|(node, count)| node.is_empty() || *count <= 4));
        world.restart();
        world.weather = Weather { max_delay_ms: 2, ..Weather::default() };
        world.run(Duration::from_secs(60));
        assert_eq!(spread(&world).get(""), None, "seed {seed}");
    }
}

/// 20,000 pods of one class onto 2,000 nodes: with a scan per pod this would take minutes.
#[test]
fn a_fleet_is_placed_evenly() {
    let mut world = world(9);
    world.weather = Weather::default();
    (0..2_000).for_each(|n| world.put(node(&format!("n{n}"), "16", json!({}))));
    let mut next = pod("p", "100m", json!({}));
    for n in 0..20_000 {
        next.key.name = format!("p{n}").into();
        world.put(next.clone());
    }
    world.run(Duration::from_secs(100));
    assert_eq!(spread(&world).len(), 2_000);
    assert!(spread(&world).values().all(|count| *count == 10));
}

#[test]
fn people_are_told_where_a_pod_went_and_why_it_did_not() {
    let config = Config {
        name: "default-scheduler".to_owned(),
        events: Some("host".into()),
        volumes: false,
    };
    let mut world: World<Scheduler> = World::new(config, 1, Weather::default());
    world.put(pod("a", "1", json!({})));
    world.run(Duration::from_secs(30));
    world.put(node("n", "2", json!({})));
    world.run(Duration::from_secs(400));
    let mut told: Vec<_> = world.all(Kind::Event).iter().map(|event| event.to_json()).collect();
    told.sort_by_key(|event| event["eventTime"].as_str().map(str::to_owned));
    let of = |at: usize, field: &str| told[at][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(told.len(), 2, "{told:#?}");
    for (at, reason, action, kind, message) in [
        (0, "FailedScheduling", "Scheduling", "Warning", "no nodes available to schedule pods"),
        (1, "Scheduled", "Binding", "Normal", "Successfully assigned default/a to n"),
    ] {
        assert_eq!((of(at, "reason"), of(at, "action")), (reason.to_owned(), action.to_owned()));
        assert_eq!((of(at, "type"), of(at, "message")), (kind.to_owned(), message.to_owned()));
        assert_eq!(of(at, "reportingComponent"), "default-scheduler");
        assert_eq!(of(at, "reportingInstance"), "default-scheduler-host");
    }
    assert_eq!(told[1]["series"], Value::Null);
}

fn with_claims(seed: u64) -> World<Scheduler> {
    let name = "default-scheduler".to_owned();
    let config = Config { name, events: None, volumes: true };
    let mut world = World::new(config, seed, Weather { max_delay_ms: 2, ..Weather::default() });
    world.put(object(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": storage::CLASS}, "provisioner": storage::PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
    })));
    for name in ["n1", "n2"] {
        let labels = json!({"kubernetes.io/hostname": name});
        let annotations = json!({storage::DIRECTORY: "/v"});
        let meta = json!({"name": name, "labels": labels, "annotations": annotations});
        world.put(node(name, "4", json!({"metadata": meta})));
    }
    world
}

fn claim(name: &str, class: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    }))
}

fn claiming(name: &str, claim: &str) -> Object {
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    pod(name, "1", json!({"volumes": volumes}))
}

fn volume_on(name: &str, class: &str, node: &str) -> Object {
    let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    object(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": class, "local": {"path": "/v"}, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}]}}},
        "status": {"phase": "Available"},
    }))
}

/// Binds the two as the controllers do.
fn bind(world: &mut World<Scheduler>, claim: &str, volume: &str) {
    let stored = world.get(Kind::PersistentVolumeClaim, &Key::new("default", claim)).unwrap();
    let mut value = stored.to_json();
    value["spec"]["volumeName"] = volume.into();
    value["metadata"]["annotations"][storage::BIND_COMPLETED] = "yes".into();
    value["status"]["phase"] = "Bound".into();
    world.put(object(value));
    let stored = world.get(Kind::PersistentVolume, &Key::cluster(volume)).unwrap();
    let mut value = stored.to_json();
    let claim = world.get(Kind::PersistentVolumeClaim, &Key::new("default", claim)).unwrap();
    value["spec"]["claimRef"] = storage::reference(&claim);
    world.put(object(value));
}

#[test]
fn a_pod_is_bound_when_what_it_claims_is() {
    let mut world = with_claims(11);
    world.put(claim("c", storage::CLASS));
    world.put(claiming("p", "c"));
    world.run(Duration::from_secs(5));
    assert_eq!(spread(&world), BTreeMap::from([(String::new(), 1)]), "it is held");
    let key = Key::new("default", "c");
    let stored = world.get(Kind::PersistentVolumeClaim, &key).unwrap();
    let chosen = stored.annotation(storage::SELECTED_NODE).expect("a node was chosen").to_owned();
    // Another pod of the same claim goes where that one goes.
    world.put(claiming("q", "c"));
    world.run(Duration::from_secs(5));
    world.put(volume_on("v", storage::CLASS, &chosen));
    bind(&mut world, "c", "v");
    world.run(Duration::from_secs(5));
    assert_eq!(spread(&world), BTreeMap::from([(chosen, 2)]));
}

#[test]
fn a_pod_goes_where_its_volume_is_and_nowhere_else() {
    let mut world = with_claims(12);
    world.put(claim("c", storage::CLASS));
    world.put(volume_on("v", storage::CLASS, "n2"));
    bind(&mut world, "c", "v");
    for n in 0..5 {
        world.put(claiming(&format!("p{n}"), "c"));
    }
    world.run(Duration::from_secs(5));
    let counts = spread(&world);
    assert_eq!(counts, BTreeMap::from([(String::new(), 1), ("n2".to_owned(), 4)]));
    let waits = world.all(Kind::Pod);
    let waits = waits.iter().find(|p| p.pod().unwrap().0.node_name.is_none()).unwrap();
    let why = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had volume node affinity \
               conflict.";
    assert_eq!(message(&world, &waits.key.name), why);
}

#[test]
fn a_volume_that_people_made_is_chosen_with_its_node() {
    let mut world = with_claims(13);
    world.put(object(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "own"},
        "provisioner": storage::NOBODY, "volumeBindingMode": "WaitForFirstConsumer",
    })));
    world.put(claim("c", "own"));
    world.put(claiming("p", "c"));
    world.run(Duration::from_secs(5));
    let none = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to \
                bind.";
    assert_eq!(message(&world, "p"), none);
    world.put(volume_on("v", "own", "n2"));
    world.run(Duration::from_secs(15));
    let volume = world.get(Kind::PersistentVolume, &Key::cluster("v")).unwrap();
    let (claimed, _) = storage::claimed_by(&volume).expect("it was chosen");
    assert_eq!(claimed, Key::new("default", "c"));
    bind(&mut world, "c", "v");
    world.run(Duration::from_secs(5));
    assert_eq!(spread(&world), BTreeMap::from([("n2".to_owned(), 1)]));
}

#[test]
fn who_waits_for_a_claim_is_told_which() {
    let mut world = with_claims(14);
    world.put(claiming("p", "absent"));
    world.put(claim("now", "immediate"));
    world.put(claiming("q", "now"));
    world.run(Duration::from_secs(5));
    let said = |why: &str| format!("0/2 nodes are available: {why}.");
    let missing = said("persistentvolumeclaim \"absent\" not found");
    assert_eq!(message(&world, "p"), missing);
    let unbound = said("pod has unbound immediate PersistentVolumeClaims");
    assert_eq!(message(&world, "q"), unbound);
}

#[test]
fn a_choice_that_was_taken_back_is_made_again() {
    let mut world = with_claims(15);
    world.put(claim("c", storage::CLASS));
    world.put(claiming("p", "c"));
    world.run(Duration::from_secs(2));
    let key = Key::new("default", "c");
    // The provisioner could not make it there.
    let mut value = world.get(Kind::PersistentVolumeClaim, &key).unwrap().to_json();
    let annotations = value["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove(storage::SELECTED_NODE).expect("a node was chosen");
    world.put(object(value));
    world.run(Duration::from_secs(15));
    let again = world.get(Kind::PersistentVolumeClaim, &key).unwrap();
    assert!(again.annotation(storage::SELECTED_NODE).is_some());
}
