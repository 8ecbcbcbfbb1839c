//! What becomes of claims and volumes as they are given to the API, and the class that is there.

use super::{Rig, config};
use crate::apiserver::Config;
use crate::objects::{Key, Kind};
use crate::storage;
use serde_json::{Value, json};

fn rig() -> Rig {
    let mut rig = Rig::starting(Config { volumes: true, ..config() });
    rig.run();
    rig
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}},
    })
}

#[test]
fn there_is_a_class_from_the_start_and_claims_get_it() {
    let mut rig = rig();
    let class = rig.get(Kind::StorageClass, &Key::cluster(storage::CLASS)).expect("it is made");
    assert_eq!(class.annotation(storage::IS_DEFAULT), Some("true"));
    assert_eq!(storage::text(class, "provisioner"), storage::PROVISIONER);
    assert!(storage::waits(class));
    let made = rig.create(claim("a")).unwrap();
    assert_eq!(storage::class(&made), storage::CLASS);
    let finalizers = made.meta.finalizers.clone().unwrap_or_default();
    assert_eq!(finalizers, [storage::CLAIM_PROTECTION]);
    // One that wants none gets none.
    let mut none = claim("b");
    none["spec"]["storageClassName"] = "".into();
    assert_eq!(storage::class(&rig.create(none).unwrap()), "");
}

#[test]
fn volumes_are_protected() {
    let mut rig = rig();
    let volume = rig.create(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/srv"}},
    }));
    let finalizers = volume.unwrap().meta.finalizers.clone().unwrap_or_default();
    assert_eq!(finalizers, [storage::VOLUME_PROTECTION]);
}

#[test]
fn where_nobody_binds_claims_nothing_is_added_to_them() {
    let mut rig = Rig::new();
    assert!(rig.get(Kind::StorageClass, &Key::cluster(storage::CLASS)).is_none());
    let made = rig.create(claim("a")).unwrap();
    assert_eq!((storage::class(&made), made.meta.finalizers.clone()), ("", None));
}
