//! What people are told of what the controllers do.

use super::fake::{self, World};
use super::*;
use crate::objects::Key;
use std::collections::BTreeMap;

fn world(seed: u64) -> World<Controllers> {
    World::new(Config { events: true, ..config() }, seed, calm())
}

/// By whom it is told, type, reason, about whom, what, and how often.
fn told(world: &World<Controllers>) -> BTreeMap<(String, String), i32> {
    let mut told = BTreeMap::new();
    for object in world.all(Kind::Event) {
        let event = object.event().expect("an event");
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let source = event.source.as_ref().map(|source| text(&source.component));
        let about = &event.involved_object;
        let whom = format!("{}/{}", text(&about.kind), text(&about.name));
        let head = [source.unwrap_or_default(), text(&event.type_), text(&event.reason), whom];
        let count = told.entry((head.join(" "), text(&event.message))).or_default();
        *count += event.count.unwrap_or(0);
    }
    told
}

fn count(world: &World<Controllers>, head: &str, message: &str) -> i32 {
    let told = told(world);
    let mut same = told.iter().filter(|((of, what), _)| of == head && what.starts_with(message));
    same.next().map_or(0, |(_, count)| *count)
}

#[test]
fn a_deployment_tells_how_it_scales_and_its_replica_set_of_each_pod() {
    let mut world = world(1);
    world.put(deployment(2, "one"));
    world.run(Duration::from_secs(3));
    let set = world.all(Kind::ReplicaSet).remove(0).key.name.clone();
    let scales = "deployment-controller Normal ScalingReplicaSet Deployment/web";
    let message = format!("Scaled up replica set {set} from 0 to 2");
    assert_eq!(count(&world, scales, &message), 1, "{:#?}", told(&world));
    let creates = format!("replicaset-controller Normal SuccessfulCreate ReplicaSet/{set}");
    for pod in world.all(Kind::Pod) {
        let message = format!("Created pod: {}", pod.key.name);
        assert_eq!(count(&world, &creates, &message), 1, "{:#?}", told(&world));
    }
    world.put(deployment(1, "one"));
    world.run(Duration::from_secs(3));
    let message = format!("Scaled down replica set {set} from 2 to 1");
    assert_eq!(count(&world, scales, &message), 1, "{:#?}", told(&world));
    let deletes = format!("replicaset-controller Normal SuccessfulDelete ReplicaSet/{set}");
    assert_eq!(count(&world, &deletes, "Deleted pod: "), 1, "{:#?}", told(&world));
    assert_eq!(told(&world).len(), 5, "{:#?}", told(&world));
}

#[test]
fn what_is_refused_is_a_warning_that_is_counted() {
    let mut world = world(2);
    world.refused = Some(Kind::Pod);
    world.put(deployment(1, "one"));
    world.run(Duration::from_secs(60));
    let set = world.all(Kind::ReplicaSet).remove(0).key.name.clone();
    let fails = format!("replicaset-controller Warning FailedCreate ReplicaSet/{set}");
    let count = count(&world, &fails, "Error creating: exceeded quota");
    assert!(count > 3, "{:#?}", told(&world));
}

#[test]
fn a_job_tells_of_its_end_once() {
    let mut world = world(3);
    world.put(fake::object(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sums"},
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 0, "suspend": false,
            "completionMode": "NonIndexed",
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
    })));
    world.run(Duration::from_secs(3));
    let mut pod = (*world.all(Kind::Pod).remove(0)).clone();
    let Body::Pod(body) = &mut pod.body else { panic!("{pod:?}") };
    body.edit(|_, status| Arc::make_mut(status).phase = Some("Succeeded".to_owned()));
    world.put(pod);
    world.run(Duration::from_secs(10));
    let of = |reason: &str| format!("job-controller Normal {reason} Job/sums");
    assert_eq!(count(&world, &of("SuccessfulCreate"), "Created pod: sums-"), 1);
    assert_eq!(count(&world, &of("Completed"), "Job completed"), 1);
    assert_eq!(told(&world).len(), 2, "{:#?}", told(&world));
}

#[test]
fn a_node_that_is_lost_is_told_of_and_so_are_its_pods() {
    let mut world = world(4);
    world.put(node("a", "z"));
    world.put(fake::object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })));
    world.run(Duration::from_secs(120));
    world.remove(Kind::Node, &Key::cluster("a"));
    world.run(Duration::from_secs(2));
    for (head, message) in [
        (
            "node-controller Normal RegisteredNode Node/a",
            "Node a event: Registered Node a in Controller",
        ),
        ("node-controller Normal NodeNotReady Node/a", "Node a status is now: NodeNotReady"),
        ("node-controller Warning NodeNotReady Pod/p", "Node is not ready"),
        (
            "node-controller Normal RemovingNode Node/a",
            "Node a event: Removing Node a from Controller",
        ),
    ] {
        assert_eq!(count(&world, head, message), 1, "{:#?}", told(&world));
    }
}

#[test]
fn without_being_asked_to_nobody_tells() {
    let mut world = World::<Controllers>::new(config(), 5, calm());
    world.put(deployment(2, "one"));
    world.put(node("a", "z"));
    world.run(Duration::from_secs(60));
    assert_eq!(world.all(Kind::Event).len(), 0);
}
