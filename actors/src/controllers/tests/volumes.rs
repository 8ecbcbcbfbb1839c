//! Claims and volumes: what is bound to what, made, kept and removed.

use super::fake::{Weather, World, object};
use super::{Config, calm, config};
use crate::controllers::Controllers;
use crate::objects::{Key, Kind, Object};
use crate::ports::api::{DeleteOptions, Request};
use crate::storage;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn world_in(seed: u64, weather: Weather) -> World<Controllers> {
    let node_grace = Duration::from_secs(86_400);
    let config = Config { volumes: true, events: true, node_grace, ..config() };
    let mut world = World::new(config, seed, weather);
    world.put(object(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": storage::CLASS},
        "provisioner": storage::PROVISIONER, "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    })));
    world.put(node("n1"));
    world.run(SECOND);
    world
}

fn world() -> World<Controllers> {
    world_in(1, calm())
}

fn node(name: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": {"kubernetes.io/hostname": name},
            "annotations": {storage::DIRECTORY: "/var/volumes"},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn claim(name: &str, class: &str, size: &str, annotations: Value) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "namespace": "default", "annotations": annotations,
            "finalizers": [storage::CLAIM_PROTECTION],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": size}},
        },
        "status": {"phase": "Pending"},
    }))
}

fn ours(name: &str) -> Object {
    claim(name, storage::CLASS, "1Gi", json!({storage::SELECTED_NODE: "n1"}))
}

fn volume(name: &str, class: &str, size: &str, policy: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": class, "persistentVolumeReclaimPolicy": policy,
            "hostPath": {"path": "/srv"},
        },
        "status": {"phase": "Pending"},
    }))
}

fn claim_key(name: &str) -> Key {
    Key::new("default", name)
}

fn the_claim(world: &World<Controllers>, name: &str) -> Value {
    let claim = world.get(Kind::PersistentVolumeClaim, &claim_key(name));
    claim.map_or(Value::Null, |claim| claim.to_json())
}

fn volumes(world: &World<Controllers>) -> Vec<Value> {
    world.all(Kind::PersistentVolume).iter().map(|volume| volume.to_json()).collect()
}

fn told(world: &World<Controllers>, reason: &str) -> Vec<String> {
    let all = world.all(Kind::Event);
    let of = all.iter().filter_map(|event| event.event());
    let of = of.filter(|event| event.reason.as_deref() == Some(reason));
    of.map(|event| event.message.clone().unwrap_or_default()).collect()
}

fn delete(world: &mut World<Controllers>, name: &str) {
    let (kind, key) = (Kind::PersistentVolumeClaim, claim_key(name));
    let options = DeleteOptions::default();
    world.apply(&Request::Delete { kind, key, options }).expect("it is there");
}

/// What the node's kubelet does with what it is told to remove.
fn remove_what_is_to_be(world: &mut World<Controllers>, name: &str) {
    let node = world.get(Kind::Node, &Key::cluster(name)).expect("it is there");
    let mut next = (*node).clone();
    let list = node.annotation(storage::REMOVE).unwrap_or_default().to_owned();
    let meta = Arc::make_mut(&mut next.meta);
    meta.annotations.get_or_insert_default().insert(storage::REMOVED.to_owned(), list);
    world.put(next);
}

#[test]
fn a_claim_waits_for_its_first_pod() {
    let mut world = world();
    world.put(claim("a", storage::CLASS, "1Gi", json!({})));
    world.run(SECOND);
    assert_eq!(volumes(&world), Vec::<Value>::new());
    let wait = ["waiting for first consumer to be created before binding"];
    assert_eq!(told(&world, "WaitForFirstConsumer"), wait);
    world.put(object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [], "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "a"}}]},
    })));
    world.run(SECOND);
    assert_eq!(told(&world, "WaitForPodScheduled"), ["waiting for pod p to be scheduled"]);
}

#[test]
fn a_volume_is_made_on_the_node_that_was_chosen() {
    let mut world = world();
    world.put(ours("a"));
    world.run(SECOND);
    let claim = the_claim(&world, "a");
    let uid = claim["metadata"]["uid"].as_str().expect("a uid");
    let all = volumes(&world);
    let [volume] = &all[..] else { panic!("{all:?}") };
    let name = format!("pvc-{uid}");
    assert_eq!(volume["metadata"]["name"], name);
    assert_eq!(volume["spec"]["local"]["path"], format!("/var/volumes/{name}"));
    assert_eq!(volume["spec"]["claimRef"]["uid"], uid);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    let required = &volume["spec"]["nodeAffinity"]["required"];
    let expression = &required["nodeSelectorTerms"][0]["matchExpressions"][0];
    let on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]});
    assert_eq!(*expression, on);
    assert_eq!(volume["status"]["phase"], "Bound");
    assert_eq!(claim["spec"]["volumeName"], name);
    assert_eq!(claim["status"]["phase"], "Bound");
    assert_eq!(claim["status"]["capacity"], json!({"storage": "1Gi"}));
    assert_eq!(claim["status"]["accessModes"], json!(["ReadWriteOnce"]));
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations[storage::BIND_COMPLETED], "yes");
    assert_eq!(annotations[storage::BOUND_BY_CONTROLLER], "yes");
    let succeeded = format!("Successfully provisioned volume {name}");
    assert_eq!(told(&world, "ProvisioningSucceeded"), [succeeded]);
}

#[test]
fn a_claim_is_bound_once_whatever_is_lost() {
    for seed in 0..10 {
        let weather =
            Weather { max_delay_ms: 50, lost_requests: 0.2, lost_answers: 0.2, view_delay_ms: 100 };
        let mut world = world_in(seed, weather);
        for n in 0..5 {
            world.put(ours(&format!("c{n}")));
        }
        world.run(Duration::from_millis(150 + 40 * seed));
        world.restart();
        world.run(Duration::from_secs(60));
        assert_eq!(volumes(&world).len(), 5, "seed {seed}");
        for n in 0..5 {
            let claim = the_claim(&world, &format!("c{n}"));
            assert_eq!(claim["status"]["phase"], "Bound", "seed {seed}");
        }
    }
}

#[test]
fn where_no_volume_can_be_made_another_node_is_chosen() {
    let mut world = world();
    let wrong = json!({storage::SELECTED_NODE: "gone"});
    world.put(claim("a", storage::CLASS, "1Gi", wrong));
    world.run(SECOND);
    let claim = the_claim(&world, "a");
    assert_eq!(claim["metadata"]["annotations"].get(storage::SELECTED_NODE), None, "{claim}");
    let why =
        "failed to provision volume with StorageClass \"local-path\": node \"gone\" not found";
    assert_eq!(told(&world, "ProvisioningFailed"), [why]);
}

#[test]
fn what_people_made_is_bound_to_what_it_is_large_enough_for() {
    let mut world = world();
    for (name, class, size) in
        [("small", "", "1Gi"), ("large", "", "9Gi"), ("fits", "", "5Gi"), ("other", "x", "4Gi")]
    {
        world.put(volume(name, class, size, "Retain"));
    }
    world.run(SECOND);
    assert!(volumes(&world).iter().all(|volume| volume["status"]["phase"] == "Available"));
    world.put(claim("a", "", "3Gi", json!({})));
    world.run(SECOND);
    let claim = the_claim(&world, "a");
    assert_eq!(claim["spec"]["volumeName"], "fits");
    assert_eq!(claim["status"]["capacity"], json!({"storage": "5Gi"}));
    let volume = world.get(Kind::PersistentVolume, &Key::cluster("fits")).expect("it is there");
    assert_eq!(volume.annotation(storage::BOUND_BY_CONTROLLER), Some("yes"));
    // One that is too large for all of them waits, and is told why.
    world.put(self::claim("b", "", "20Gi", json!({})));
    world.run(SECOND);
    let why = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(told(&world, "FailedBinding"), [why]);
    world.put(self::volume("huge", "", "20Gi", "Retain"));
    world.run(SECOND);
    assert_eq!(the_claim(&world, "b")["spec"]["volumeName"], "huge");
    // Kept when its claim goes, and nobody else's.
    delete(&mut world, "a");
    world.run(SECOND);
    assert_eq!(the_claim(&world, "a"), Value::Null);
    let volume = world.get(Kind::PersistentVolume, &Key::cluster("fits")).expect("it is kept");
    assert_eq!(storage::phase(&volume), "Released");
    world.put(self::claim("c", "", "3Gi", json!({})));
    world.run(SECOND);
    assert_eq!(the_claim(&world, "c")["spec"]["volumeName"], "large");
}

#[test]
fn a_claim_stays_while_a_pod_on_a_node_uses_it() {
    let mut world = world();
    world.put(ours("a"));
    world.put(object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [], "nodeName": "n1", "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "a"}}]},
    })));
    world.run(SECOND);
    delete(&mut world, "a");
    world.run(SECOND);
    assert_ne!(the_claim(&world, "a")["metadata"]["deletionTimestamp"], Value::Null);
    world.remove(Kind::Pod, &claim_key("p"));
    world.run(SECOND);
    assert_eq!(the_claim(&world, "a"), Value::Null);
}

#[test]
fn a_volume_of_ours_is_gone_when_its_node_has_removed_it() {
    let mut world = world();
    world.put(ours("a"));
    world.put(ours("b"));
    world.run(SECOND);
    let volume = the_claim(&world, "a")["spec"]["volumeName"].clone();
    delete(&mut world, "a");
    world.run(SECOND);
    assert_eq!(volumes(&world).len(), 2, "its node has not said that it is removed");
    let node = world.get(Kind::Node, &Key::cluster("n1")).expect("it is there");
    assert_eq!(node.annotation(storage::REMOVE), volume.as_str());
    remove_what_is_to_be(&mut world, "n1");
    world.run(SECOND);
    let all = volumes(&world);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["metadata"]["name"], the_claim(&world, "b")["spec"]["volumeName"]);
    let node = world.get(Kind::Node, &Key::cluster("n1")).expect("it is there");
    assert_eq!(node.annotation(storage::REMOVE), None, "there is nothing more to remove");
    // With a node, what it had is gone.
    world.remove(Kind::Node, &Key::cluster("n1"));
    delete(&mut world, "b");
    world.run(SECOND);
    assert_eq!(volumes(&world), Vec::<Value>::new());
}

#[test]
fn what_nobody_here_can_delete_says_so() {
    let mut world = world();
    world.put(volume("v", "", "1Gi", "Delete"));
    world.put(claim("a", "", "1Gi", json!({})));
    world.run(SECOND);
    delete(&mut world, "a");
    world.run(SECOND);
    let volume = world.get(Kind::PersistentVolume, &Key::cluster("v")).expect("it is kept");
    assert_eq!(storage::phase(&volume), "Failed");
    let why = "error getting deleter volume plugin for volume \"v\": no deletable volume plugin \
               matched";
    assert_eq!(told(&world, "VolumeFailedDelete"), [why]);
}

#[test]
fn a_claim_that_lost_its_volume_says_so() {
    let mut world = world();
    world.put(volume("v", "", "1Gi", "Retain"));
    world.put(claim("a", "", "1Gi", json!({})));
    world.run(SECOND);
    world.remove(Kind::PersistentVolume, &Key::cluster("v"));
    world.run(SECOND);
    assert_eq!(the_claim(&world, "a")["status"]["phase"], "Lost");
    let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert_eq!(told(&world, "ClaimLost"), [why]);
}

#[test]
fn others_are_waited_for_by_name() {
    let mut world = world();
    world.put(object(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "far"},
        "provisioner": "example.com/nfs", "volumeBindingMode": "Immediate",
    })));
    world.put(claim("a", "far", "1Gi", json!({})));
    world.run(SECOND);
    let claim = the_claim(&world, "a");
    let annotations = &claim["metadata"]["annotations"];
    let by = "volume.kubernetes.io/storage-provisioner";
    assert_eq!(annotations[by], "example.com/nfs");
    let all = told(&world, "ExternalProvisioning");
    assert!(all[0].contains("external provisioner 'example.com/nfs'"), "{all:?}");
    assert_eq!(volumes(&world), Vec::<Value>::new());
}
