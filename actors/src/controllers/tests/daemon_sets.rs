//! DaemonSets: which nodes, how many at a time, and what is kept of former templates.

use super::fake::object;
use super::*;
use crate::objects::Key;
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use serde_json::Value;
use std::collections::BTreeMap;

fn key() -> Key {
    Key::new("default", "agent")
}

fn daemon_set(image: &str, strategy: Value) -> Object {
    object(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"nodeSelector": {"disk": "ssd"},
                         "containers": [{"name": "c", "image": image}]},
            },
        },
    }))
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    let limits = json!({"maxUnavailable": unavailable, "maxSurge": surge});
    json!({"type": "RollingUpdate", "rollingUpdate": limits})
}

fn machine(name: &str, disk: &str, taints: Value) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"disk": disk}}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn nodes(world: &mut World<Controllers>, count: usize) {
    for number in 0..count {
        world.put(machine(&format!("n{number}"), "ssd", json!([])));
    }
}

/// The node that a pod's affinity names.
fn target(pod: &Object) -> String {
    let value = pod.to_json();
    let terms = &value["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    let field = &terms[0]["matchFields"][0];
    assert_eq!(field["key"], "metadata.name");
    field["values"][0].as_str().unwrap_or_default().to_owned()
}

/// The scheduler and the kubelets: at most so many pods become ready, deleted ones go.
fn serve(world: &mut World<Controllers>, most: usize) {
    let pods = world.all(Kind::Pod);
    for pod in pods.iter().filter(|pod| pod.deleting()) {
        world.remove(Kind::Pod, &pod.key);
    }
    let fresh =
        pods.iter().filter(|pod| !pod.deleting() && !crate::controllers::pods::is_ready(pod));
    for pod in fresh.take(most) {
        set_ready(world, pod, "10.244.0.9", &target(pod));
    }
}

fn images(world: &World<Controllers>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for pod in world.all(Kind::Pod).iter().filter(|pod| !pod.deleting()) {
        let image = pod.pod().unwrap().0.containers[0].image.clone();
        *all.entry(image.unwrap_or_default()).or_default() += 1;
    }
    all
}

fn status(world: &World<Controllers>) -> DaemonSetStatus {
    crate::controllers::plain::status(&world.get(Kind::DaemonSet, &key()).unwrap())
}

#[test]
fn every_node_that_fits_has_one_pod_bound_by_its_affinity() {
    let mut world = world(1, calm());
    world.put(machine("fits", "ssd", json!([])));
    world.put(machine("other", "hdd", json!([])));
    let taint = |effect: &str| json!([{"key": "of-my-own", "effect": effect}]);
    world.put(machine("tainted", "ssd", taint("NoSchedule")));
    let unschedulable = "node.kubernetes.io/unschedulable";
    world.put(machine("cordoned", "ssd", json!([{"key": unschedulable, "effect": "NoSchedule"}])));
    world.put(daemon_set("one", rolling(1.into(), 0.into())));
    for _ in 0..5 {
        world.run(Duration::from_millis(500));
        serve(&mut world, 9);
    }
    let on = |world: &World<Controllers>| {
        let mut all: Vec<_> = world.all(Kind::Pod).iter().map(|pod| target(pod)).collect();
        all.sort();
        all
    };
    assert_eq!(on(&world), ["cordoned", "fits"]);
    let is = status(&world);
    assert_eq!((is.desired_number_scheduled, is.current_number_scheduled), (2, 2));
    assert_eq!((is.number_ready, is.number_available, is.number_unavailable), (2, Some(2), None));
    // One that comes later gets its pod; from one that does not fit any more it goes; with a
    // NoSchedule taint it may stay.
    world.put(machine("late", "ssd", json!([])));
    world.put(machine("fits", "hdd", json!([])));
    world.put(machine("cordoned", "ssd", taint("NoSchedule")));
    for _ in 0..5 {
        world.run(Duration::from_millis(500));
        serve(&mut world, 9);
    }
    assert_eq!(on(&world), ["cordoned", "late"]);
    assert_eq!(
        (status(&world).desired_number_scheduled, status(&world).number_misscheduled),
        (1, 1)
    );
    let writes = world.writes.clone();
    world.run(Duration::from_secs(20));
    assert_eq!(world.writes, writes, "settled");
}

#[test]
fn a_rollout_keeps_all_but_so_many_nodes_served() {
    let mut world = world(2, calm());
    nodes(&mut world, 10);
    world.put(daemon_set("one", rolling("25%".into(), 0.into())));
    for _ in 0..8 {
        world.run(Duration::from_millis(500));
        serve(&mut world, 99);
    }
    assert_eq!(status(&world).number_available, Some(10));
    world.put(daemon_set("two", rolling("25%".into(), 0.into())));
    for _ in 0..100 {
        world.run(Duration::from_millis(100));
        let ready = world
            .all(Kind::Pod)
            .iter()
            .filter(|pod| !pod.deleting() && crate::controllers::pods::is_ready(pod))
            .count();
        assert!(ready >= 7 && active(&world) <= 10, "{ready} of {}", active(&world));
        serve(&mut world, 1);
    }
    assert_eq!(images(&world), BTreeMap::from([("two".to_owned(), 10)]));
    assert_eq!(status(&world).updated_number_scheduled, Some(10));
}

#[test]
fn with_a_surge_the_new_pod_is_available_before_the_old_one_goes() {
    let mut world = world(3, calm());
    nodes(&mut world, 6);
    world.put(daemon_set("one", rolling(0.into(), 2.into())));
    for _ in 0..8 {
        world.run(Duration::from_millis(500));
        serve(&mut world, 99);
    }
    world.put(daemon_set("two", rolling(0.into(), 2.into())));
    let mut most = 0;
    for _ in 0..100 {
        world.run(Duration::from_millis(100));
        most = most.max(active(&world));
        let mut served: Vec<_> = world
            .all(Kind::Pod)
            .iter()
            .filter(|pod| !pod.deleting() && crate::controllers::pods::is_ready(pod))
            .map(|pod| target(pod))
            .collect();
        served.sort();
        served.dedup();
        assert_eq!(served.len(), 6, "each node is served all the time");
        serve(&mut world, 1);
    }
    assert_eq!((images(&world), most), (BTreeMap::from([("two".to_owned(), 6)]), 8));
}

#[test]
fn former_templates_are_kept_and_come_back_under_a_new_number() {
    let mut world = world(4, calm());
    nodes(&mut world, 1);
    let on_delete = || json!({"type": "OnDelete"});
    let settle = |world: &mut World<Controllers>| {
        for _ in 0..5 {
            world.run(Duration::from_millis(500));
            serve(world, 9);
        }
    };
    let numbers = |world: &World<Controllers>| {
        let all = world.all(Kind::ControllerRevision);
        let mut all: Vec<_> = all.iter().map(crate::controllers::history::revision).collect();
        all.sort_unstable();
        all
    };
    world.put(daemon_set("one", on_delete()));
    settle(&mut world);
    world.put(daemon_set("two", on_delete()));
    settle(&mut world);
    assert_eq!(numbers(&world), [1, 2]);
    assert_eq!(images(&world), BTreeMap::from([("one".to_owned(), 1)]), "until it is deleted");
    let pod = world.all(Kind::Pod)[0].key.clone();
    world.remove(Kind::Pod, &pod);
    settle(&mut world);
    assert_eq!(images(&world), BTreeMap::from([("two".to_owned(), 1)]));
    world.put(daemon_set("one", on_delete()));
    settle(&mut world);
    assert_eq!(numbers(&world), [2, 3]);
    // Ten are kept besides the present one.
    for number in 0..15 {
        world.put(daemon_set(&format!("v{number}"), on_delete()));
        settle(&mut world);
    }
    assert_eq!(numbers(&world).len(), 11);
}

fn settled(image: &str, strategy: &Value, count: usize) -> World<Controllers> {
    let mut world = world(5, calm());
    nodes(&mut world, count);
    world.put(daemon_set(image, strategy.clone()));
    for _ in 0..8 {
        world.run(Duration::from_millis(500));
        serve(&mut world, 99);
    }
    world
}

fn edit(world: &mut World<Controllers>, pod: &Object, by: impl FnOnce(&mut Object)) {
    let mut next = pod.clone();
    by(&mut next);
    world.put(next);
}

#[test]
fn an_old_pod_that_serves_nobody_counts_as_unavailable() {
    let strategy = rolling(1.into(), 0.into());
    let mut world = settled("one", &strategy, 3);
    let pod = world.all(Kind::Pod)[0].clone();
    edit(&mut world, &pod, |pod| {
        let Body::Pod(body) = &mut pod.body else { panic!("a pod") };
        body.edit(|_, status| Arc::make_mut(status).conditions = None);
    });
    world.put(daemon_set("two", strategy));
    world.run(Duration::from_millis(500));
    let there = |world: &World<Controllers>, of: &Object| {
        world.get(Kind::Pod, &of.key).is_some_and(|pod| !pod.deleting())
    };
    let stay = world.all(Kind::Pod).iter().filter(|pod| there(&world, pod)).count();
    assert_eq!((there(&world, &pod), stay), (false, 2));
}

#[test]
fn with_a_surge_an_old_pod_where_none_is_to_be_goes_when_enough_serve() {
    let strategy = rolling(0.into(), 1.into());
    let mut world = settled("one", &strategy, 2);
    world.put(machine("n0", "ssd", json!([{"key": "of-my-own", "effect": "NoSchedule"}])));
    world.put(daemon_set("two", strategy));
    for _ in 0..20 {
        world.run(Duration::from_millis(200));
        serve(&mut world, 1);
    }
    assert_eq!(images(&world), BTreeMap::from([("two".to_owned(), 1)]));
}

#[test]
fn what_has_ended_and_is_held_makes_room() {
    let mut world = settled("one", &rolling(1.into(), 0.into()), 1);
    let pod = world.all(Kind::Pod)[0].clone();
    edit(&mut world, &pod, |pod| {
        let meta = Arc::make_mut(&mut pod.meta);
        meta.finalizers = Some(vec!["example.com/held".to_owned()]);
        meta.deletion_timestamp = Some(time(Wall::from_unix_secs(1_700_000_000)));
        let Body::Pod(body) = &mut pod.body else { panic!("a pod") };
        body.edit(|_, status| Arc::make_mut(status).phase = Some("Failed".to_owned()));
    });
    world.run(Duration::from_millis(500));
    assert_eq!((world.all(Kind::Pod).len(), active(&world)), (2, 1));
}

#[test]
fn a_revision_that_pods_are_of_counts_and_stays() {
    let limited = |image: &str| {
        let mut set = daemon_set(image, json!({"type": "OnDelete"}));
        let Body::Plain(plain) = &mut set.body else { panic!("{set:?}") };
        Arc::make_mut(&mut plain.fields).set("spec.revisionHistoryLimit", 1);
        set
    };
    let mut world = settled("one", &json!({"type": "OnDelete"}), 1);
    for image in ["two", "three"] {
        world.put(limited(image));
        world.run(Duration::from_secs(1));
    }
    let all = world.all(Kind::ControllerRevision);
    let mut numbers: Vec<_> = all.iter().map(crate::controllers::history::revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 3]);
}

#[test]
fn while_a_rollout_surges_what_goes_need_not_be_gone_and_what_is_ill_goes_first() {
    let strategy = rolling(0.into(), 1.into());
    let mut world = settled("one", &strategy, 2);
    let pod = world.all(Kind::Pod)[0].clone();
    // It takes its time: its successor does not wait for it.
    edit(&mut world, &pod, |pod| {
        let now = Some(time(Wall::from_unix_secs(1_700_000_000)));
        Arc::make_mut(&mut pod.meta).deletion_timestamp = now;
    });
    world.run(Duration::from_millis(500));
    let there = |world: &World<Controllers>| {
        let pods = world.all(Kind::Pod);
        let on = |one: &&Arc<Object>| target(one) == target(&pod);
        pods.iter().filter(on).map(|pod| pod.deleting()).collect::<Vec<_>>()
    };
    let mut both = there(&world);
    both.sort_unstable();
    assert_eq!(both, [false, true]);
    for _ in 0..4 {
        serve(&mut world, 9);
        world.run(Duration::from_millis(500));
    }
    // Of two, the old one stays as long as it is ready.
    world.put(daemon_set("two", strategy));
    world.run(Duration::from_secs(2));
    assert_eq!(images(&world), BTreeMap::from([("one".to_owned(), 2), ("two".to_owned(), 1)]));
    let new = world.all(Kind::Pod).into_iter().find(|pod| {
        pod.pod().is_some_and(|(spec, _)| spec.containers[0].image.as_deref() == Some("two"))
    });
    let node = target(&new.expect("the first one"));
    let pods = world.all(Kind::Pod);
    let old = pods.iter().find(|pod| {
        let one = pod.pod().is_some_and(|(s, _)| s.containers[0].image.as_deref() == Some("one"));
        one && target(pod) == node
    });
    edit(&mut world, old.expect("the one before"), |pod| {
        let Body::Pod(body) = &mut pod.body else { panic!("a pod") };
        body.edit(|_, status| Arc::make_mut(status).conditions = None);
    });
    world.run(Duration::from_secs(1));
    let left = world.all(Kind::Pod);
    let left = left.iter().filter(|pod| !pod.deleting() && target(pod) == node);
    let images: Vec<_> = left.map(|pod| pod.pod().unwrap().0.containers[0].image.clone()).collect();
    assert_eq!(images, [Some("two".to_owned())]);
}
