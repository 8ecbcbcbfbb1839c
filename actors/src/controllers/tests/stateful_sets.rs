//! StatefulSets: names that stay, and the order of things.

use super::fake::object;
use super::*;
use crate::controllers::pods::is_ready;
use crate::objects::Key;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use serde_json::Value;

fn stateful_set(image: &str, more: Value) -> Object {
    let mut spec = json!({
        "replicas": 3, "serviceName": "db", "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "selector": {"matchLabels": {"app": "db"}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        },
        "volumeClaimTemplates": [{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }],
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    object(json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "generation": 1}, "spec": spec,
    }))
}

/// The same set with another spec, as an update leaves it: its status stays.
fn changed(world: &World<Controllers>, image: &str, more: Value) -> Object {
    let was = world.get(Kind::StatefulSet, &Key::new("default", "db")).unwrap();
    let mut set = stateful_set(image, more);
    if let (Body::Plain(set), Body::Plain(was)) = (&mut set.body, &was.body) {
        set.status = Arc::clone(&was.status);
    }
    set
}

fn with_a_node(seed: u64) -> World<Controllers> {
    let mut world = world(seed, calm());
    world.put(node("n0", "a"));
    world
}

fn status(world: &World<Controllers>) -> StatefulSetStatus {
    let key = Key::new("default", "db");
    crate::controllers::plain::status(&world.get(Kind::StatefulSet, &key).unwrap())
}

fn names(world: &World<Controllers>) -> Vec<String> {
    world.all(Kind::Pod).iter().map(|pod| pod.key.name.to_string()).collect()
}

fn image(world: &World<Controllers>, pod: &str) -> Option<String> {
    let pod = world.get(Kind::Pod, &Key::new("default", pod))?;
    pod.pod().unwrap().0.containers[0].image.clone()
}

/// One pod becomes ready, or one that is to go is gone.
fn serve(world: &mut World<Controllers>) {
    let pods = world.all(Kind::Pod);
    if let Some(pod) = pods.iter().find(|pod| pod.deleting()) {
        world.remove(Kind::Pod, &pod.key);
    } else if let Some(pod) = pods.iter().find(|pod| !is_ready(pod)) {
        set_ready(world, pod, "10.244.0.9", "n0");
    }
}

fn settle(world: &mut World<Controllers>, check: impl Fn(&World<Controllers>)) {
    for _ in 0..40 {
        world.run(Duration::from_millis(150));
        check(world);
        serve(world);
    }
}

/// Below a pod that there is, all are there and ready, and at most one is not ready.
fn in_order(world: &World<Controllers>) {
    let pods = world.all(Kind::Pod);
    let unready = pods.iter().filter(|pod| pod.deleting() || !is_ready(pod)).count();
    assert!(unready <= 1, "{pods:?}");
    let count = pods.len();
    assert_eq!(names(world), (0..count).map(|n| format!("db-{n}")).collect::<Vec<_>>());
}

#[test]
fn pods_come_one_by_one_and_go_the_other_way_round() {
    let mut world = with_a_node(1);
    world.put(stateful_set("one", json!({})));
    settle(&mut world, in_order);
    assert_eq!(names(&world), ["db-0", "db-1", "db-2"]);
    let pod = world.get(Kind::Pod, &Key::new("default", "db-1")).unwrap();
    let (spec, _) = pod.pod().unwrap();
    let named = |text: &Option<String>| text.clone().unwrap_or_default();
    assert_eq!((named(&spec.hostname), named(&spec.subdomain)), ("db-1".into(), "db".into()));
    assert_eq!(pod.label("statefulset.kubernetes.io/pod-name"), Some("db-1"));
    assert_eq!(pod.label("apps.kubernetes.io/pod-index"), Some("1"));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-1");
    world.put(stateful_set("one", json!({"replicas": 1})));
    settle(&mut world, in_order);
    assert_eq!(names(&world), ["db-0"]);
    // The claims stay.
    assert_eq!(world.all(Kind::PersistentVolumeClaim).len(), 3);
    let is = status(&world);
    assert_eq!((is.replicas, is.ready_replicas, is.current_replicas), (1, Some(1), Some(1)));
    let writes = world.writes.clone();
    world.run(Duration::from_secs(20));
    assert_eq!(world.writes, writes, "settled");
}

#[test]
fn in_parallel_nobody_waits() {
    let mut world = with_a_node(2);
    world.put(stateful_set("one", json!({"podManagementPolicy": "Parallel"})));
    world.run(Duration::from_secs(1));
    assert_eq!(names(&world), ["db-0", "db-1", "db-2"]);
    world.put(stateful_set("one", json!({"podManagementPolicy": "Parallel", "replicas": 0})));
    world.run(Duration::from_secs(1));
    assert!(world.all(Kind::Pod).is_empty(), "nothing was bound yet");
}

#[test]
fn an_update_goes_from_the_highest_number_down_to_the_partition() {
    let mut world = with_a_node(3);
    let partition = |at: i32| {
        json!({
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": at}},
        })
    };
    world.put(stateful_set("one", partition(2)));
    settle(&mut world, in_order);
    let first = status(&world).current_revision;
    let next = changed(&world, "two", partition(2));
    world.put(next);
    let unready = |world: &World<Controllers>| {
        let pods = world.all(Kind::Pod);
        let ready = pods.iter().filter(|pod| !pod.deleting() && is_ready(pod)).count();
        assert!(ready >= 2, "{pods:?}");
    };
    settle(&mut world, unready);
    let shown = |world: &World<Controllers>| ["db-0", "db-1", "db-2"].map(|pod| image(world, pod));
    let all = |images: [&str; 3]| images.map(|image| Some(image.to_owned()));
    assert_eq!(shown(&world), all(["one", "one", "two"]));
    let is = status(&world);
    assert_eq!((is.current_replicas, is.updated_replicas), (Some(2), Some(1)));
    assert!(is.current_revision == first && is.update_revision != first);
    // One below the partition that is lost comes back as it was.
    world.remove(Kind::Pod, &Key::new("default", "db-0"));
    settle(&mut world, |_| {});
    assert_eq!(shown(&world), all(["one", "one", "two"]));
    let next = changed(&world, "two", partition(0));
    world.put(next);
    settle(&mut world, unready);
    assert_eq!(shown(&world), all(["two", "two", "two"]));
    let is = status(&world);
    assert_eq!(is.current_revision, is.update_revision);
    assert_eq!((is.current_replicas, is.updated_replicas), (Some(3), Some(3)));
}

/// `minReadySeconds`: the next pod waits for the one before to have been ready so long.
#[test]
fn the_next_waits_until_one_has_been_ready_for_a_while() {
    let mut world = with_a_node(4);
    world.put(stateful_set("one", json!({"minReadySeconds": 30})));
    world.run(Duration::from_secs(1));
    let pod = world.all(Kind::Pod)[0].clone();
    // Ready since the epoch of the test's clock.
    set_ready(&mut world, &pod, "10.244.0.9", "n0");
    world.run(Duration::from_secs(25));
    assert_eq!((names(&world).len(), status(&world).available_replicas), (1, Some(0)));
    world.run(Duration::from_secs(6));
    assert_eq!((names(&world).len(), status(&world).available_replicas), (2, Some(1)));
}

#[test]
fn claims_go_with_surplus_pods_and_with_the_set_where_the_policy_says_so() {
    let mut world = with_a_node(5);
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let set = |replicas: i32| {
        stateful_set(
            "one",
            json!({
                "replicas": replicas, "persistentVolumeClaimRetentionPolicy": policy,
            }),
        )
    };
    world.put(set(3));
    settle(&mut world, in_order);
    let claims = |world: &World<Controllers>| {
        let all = world.all(Kind::PersistentVolumeClaim);
        all.iter().map(|claim| claim.key.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(claims(&world), ["data-db-0", "data-db-1", "data-db-2"]);
    world.put(set(1));
    settle(&mut world, in_order);
    assert_eq!(claims(&world), ["data-db-0"]);
    world.remove(Kind::StatefulSet, &Key::new("default", "db"));
    settle(&mut world, |_| {});
    assert_eq!((claims(&world), names(&world)), (Vec::new(), Vec::new()));
}

#[test]
fn a_surplus_pod_that_has_not_been_ready_for_long_waits_as_well() {
    let mut world = with_a_node(6);
    world.put(stateful_set("one", json!({"replicas": 2})));
    settle(&mut world, in_order);
    let mut pod = (*world.get(Kind::Pod, &Key::new("default", "db-1")).unwrap()).clone();
    let Body::Pod(body) = &mut pod.body else { panic!("{pod:?}") };
    let now = time(Wall::from_unix_secs(1_700_000_000) + world.now.since(Default::default()));
    body.edit(|_, status| {
        for condition in Arc::make_mut(status).conditions.iter_mut().flatten() {
            condition.last_transition_time = Some(now.clone());
        }
    });
    world.put(pod);
    let next = changed(&world, "one", json!({"replicas": 1, "minReadySeconds": 30}));
    world.put(next);
    let going = |world: &World<Controllers>| {
        world.get(Kind::Pod, &Key::new("default", "db-1")).is_none_or(|pod| pod.deleting())
    };
    world.run(Duration::from_secs(25));
    assert!(!going(&world));
    world.run(Duration::from_secs(6));
    assert!(going(&world));
}

#[test]
fn in_parallel_an_update_waits_for_ready_pods_only() {
    let mut world = with_a_node(7);
    let more = || json!({"podManagementPolicy": "Parallel", "minReadySeconds": 3600});
    world.put(stateful_set("one", more()));
    settle(&mut world, |_| {});
    let next = changed(&world, "two", more());
    world.put(next);
    settle(&mut world, |_| {});
    let images = ["db-0", "db-1", "db-2"].map(|pod| image(&world, pod));
    assert_eq!(images, ["two"; 3].map(|image| Some(image.to_owned())));
}
