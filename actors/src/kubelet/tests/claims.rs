//! What a pod claims of storage: waited for, mounted, and removed when the Node says so.

use super::secs;
use super::supplies::{events, started, told, with};
use super::world::{NODE, World};
use crate::objects::{Key, Kind};
use crate::storage;
use serde_json::{Value, json};
use std::sync::Arc;

fn claim(volume: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "c", "namespace": "default", "uid": CLAIM },
        "spec": { "accessModes": ["ReadWriteOnce"], "volumeName": volume },
        "status": { "phase": phase },
    })
}

const CLAIM: &str = "00000000-0000-0000-0000-000000000007";

fn volume(uid: &str, provisioner: &str, source: &Value) -> Value {
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": "v1", "annotations": { storage::PROVISIONED_BY: provisioner } },
        "spec": { "claimRef": { "namespace": "default", "name": "c", "uid": uid } },
    });
    let spec = volume["spec"].as_object_mut().expect("it is one");
    spec.extend(source.as_object().expect("it is one").clone());
    volume
}

fn ours() -> Value {
    let source = json!({ "local": { "path": "/var/lib/kubesim/volumes/v1" } });
    volume(CLAIM, storage::PROVISIONER, &source)
}

fn claiming(more: &Value) -> Value {
    let mut source = json!({ "claimName": "c" });
    let given = more.as_object().expect("it is one").clone();
    source.as_object_mut().expect("it is one").extend(given);
    with(json!([{ "name": "data", "persistentVolumeClaim": source }]), json!({}))
}

fn annotation(world: &World, name: &str) -> Option<String> {
    let node = &world.objects[&(Kind::Node, Key::cluster(NODE))];
    node.annotation(name).map(str::to_owned)
}

/// As the controllers do.
fn tell_to_remove(world: &mut World, names: &str) {
    let node = Arc::clone(&world.objects[&(Kind::Node, Key::cluster(NODE))]);
    let mut value = node.to_json();
    value["metadata"]["annotations"][storage::REMOVE] = names.into();
    world.apply(value);
}

#[test]
fn a_node_says_where_its_volumes_are() {
    let world = told();
    let directory = annotation(&world, storage::DIRECTORY);
    assert_eq!(directory.as_deref(), Some("/var/lib/kubesim/volumes"));
}

#[test]
fn a_pod_has_what_it_claims_when_that_is_bound() {
    let mut world = told();
    world.apply(claiming(&json!({})));
    world.run(secs(3));
    let why = |why: &str| {
        format!(
            "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], \
             failed to process volumes=[data]: error processing PVC default/c: {why}"
        )
    };
    let missing = "failed to fetch PVC from API server: persistentvolumeclaim \"c\" not found";
    assert_eq!(events(&world, "FailedMount"), [why(missing)]);
    world.apply(claim("", "Pending"));
    world.run(secs(10));
    let unbound = why("PVC is not bound");
    assert!(events(&world, "FailedMount").contains(&unbound));
    world.apply(ours());
    world.apply(claim("v1", "Bound"));
    world.run(secs(20));
    assert_eq!(world.starts.len(), 1);
    assert_eq!(world.local, [("/var/lib/kubesim/volumes/v1".into(), true)]);
    assert!(!started(&world).mounts[0].read_only);
}

#[test]
fn a_volume_is_read_only_where_the_pod_says_so() {
    let mut world = told();
    world.apply(ours());
    world.apply(claim("v1", "Bound"));
    world.apply(claiming(&json!({ "readOnly": true })));
    world.run(secs(5));
    assert!(started(&world).mounts[0].read_only);
}

#[test]
fn only_what_was_made_for_claims_is_made() {
    let mut world = told();
    world.apply(volume(CLAIM, "", &json!({ "local": { "path": "/srv" } })));
    world.apply(claim("v1", "Bound"));
    world.apply(claiming(&json!({})));
    world.run(secs(5));
    assert_eq!(world.local, [("/srv".into(), false)]);
}

#[test]
fn another_claims_volume_is_not_mounted() {
    let mut world = told();
    let other = "00000000-0000-0000-0000-000000000008";
    world.apply(volume(other, "", &json!({ "local": { "path": "/srv" } })));
    world.apply(claim("v1", "Bound"));
    world.apply(claiming(&json!({})));
    world.run(secs(5));
    assert_eq!(world.starts, []);
    let all = events(&world, "FailedMount");
    let why = format!("its pv.Spec.ClaimRef.UID {other} does not point to claim.UID {CLAIM}");
    assert!(all.iter().any(|text| text.contains(&why)), "{all:?}");
}

#[test]
fn what_is_to_be_removed_is_when_no_pod_has_it() {
    let mut world = told();
    world.apply(ours());
    world.apply(claim("v1", "Bound"));
    world.apply(claiming(&json!({})));
    world.run(secs(5));
    tell_to_remove(&mut world, "v1,../etc,v2");
    world.run(secs(5));
    assert_eq!(world.discarded, ["/var/lib/kubesim/volumes/v2"], "a pod has the other");
    assert_eq!(annotation(&world, storage::REMOVED).as_deref(), Some("v2"));
    world.refused_volumes.insert("/var/lib/kubesim/volumes/v1".into(), "busy".into());
    world.delete("a");
    world.run(secs(60));
    assert_eq!(annotation(&world, storage::REMOVED).as_deref(), Some("v2"));
    world.refused_volumes.clear();
    world.run(secs(300));
    assert_eq!(annotation(&world, storage::REMOVED).as_deref(), Some("v1,v2"));
    // What need not be removed any more is not told either.
    tell_to_remove(&mut world, "v1");
    world.run(secs(5));
    assert_eq!(annotation(&world, storage::REMOVED).as_deref(), Some("v1"));
    tell_to_remove(&mut world, "");
    world.run(secs(5));
    assert_eq!(annotation(&world, storage::REMOVED), None);
}
