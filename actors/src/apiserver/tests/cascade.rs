//! Deletions that wait for what the garbage collector does with what an object owns.

use super::*;
use crate::ports::api::Propagation;
use serde_json::json;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn map(name: &str, finalizers: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": name, "namespace": "default", "finalizers": finalizers}})
}

fn delete(rig: &mut Rig, kind: Kind, how: Option<Propagation>) -> Arc<Object> {
    let options = DeleteOptions { propagation: how, ..DeleteOptions::default() };
    rig.object(Request::Delete { kind, key: key("a"), options }).unwrap()
}

fn finalizers(rig: &Rig, kind: Kind) -> Option<Vec<String>> {
    rig.get(kind, &key("a")).map(|object| object.meta.finalizers.clone().unwrap_or_default())
}

fn release(rig: &mut Rig, kind: Kind, left: Value) {
    let patch = json!({"metadata": {"finalizers": left}});
    rig.patch(kind, key("a"), Subresource::Main, patch).unwrap();
}

#[test]
fn a_finalizer_holds_the_owner() {
    for (how, finalizer) in
        [(Propagation::Foreground, "foregroundDeletion"), (Propagation::Orphan, "orphan")]
    {
        let mut rig = Rig::new();
        rig.create(map("a", json!(["x.dev/a"]))).unwrap();
        let marked = delete(&mut rig, Kind::ConfigMap, Some(how));
        assert!(marked.deleting());
        let both = vec!["x.dev/a".to_owned(), finalizer.to_owned()];
        assert_eq!(finalizers(&rig, Kind::ConfigMap), Some(both));
        // Asked again without a wish, it stays as it is.
        let again = delete(&mut rig, Kind::ConfigMap, None);
        assert_eq!(again.version, marked.version);
        release(&mut rig, Kind::ConfigMap, json!([finalizer]));
        assert_eq!(finalizers(&rig, Kind::ConfigMap), Some(vec![finalizer.to_owned()]));
        release(&mut rig, Kind::ConfigMap, Value::Null);
        assert_eq!(finalizers(&rig, Kind::ConfigMap), None);
    }
}

#[test]
fn the_last_wish_counts() {
    let mut rig = Rig::new();
    rig.create(map("a", json!([]))).unwrap();
    delete(&mut rig, Kind::ConfigMap, Some(Propagation::Foreground));
    delete(&mut rig, Kind::ConfigMap, Some(Propagation::Orphan));
    assert_eq!(finalizers(&rig, Kind::ConfigMap), Some(vec!["orphan".to_owned()]));
    delete(&mut rig, Kind::ConfigMap, Some(Propagation::Background));
    assert_eq!(finalizers(&rig, Kind::ConfigMap), None, "in the background it goes at once");
    // Set beforehand, it is a wish too.
    rig.create(map("a", json!(["orphan"]))).unwrap();
    delete(&mut rig, Kind::ConfigMap, None);
    assert_eq!(finalizers(&rig, Kind::ConfigMap), Some(vec!["orphan".to_owned()]));
}

#[test]
fn a_pod_waits_for_both_its_grace_and_its_finalizer() {
    let mut rig = Rig::new();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i:1"}]}});
    rig.create(pod).unwrap();
    let marked = delete(&mut rig, Kind::Pod, Some(Propagation::Foreground));
    assert_eq!(marked.meta.deletion_grace_period_seconds, Some(30));
    // Within its grace, the wish stays.
    let again = delete(&mut rig, Kind::Pod, Some(Propagation::Background));
    assert_eq!(again.version, marked.version);
    let options = DeleteOptions { grace: Some(Duration::ZERO), ..DeleteOptions::default() };
    rig.object(Request::Delete { kind: Kind::Pod, key: key("a"), options }).unwrap();
    let held = rig.get(Kind::Pod, &key("a")).expect("the finalizer holds it");
    assert_eq!(held.meta.deletion_grace_period_seconds, Some(0));
    release(&mut rig, Kind::Pod, Value::Null);
    assert_eq!(finalizers(&rig, Kind::Pod), None);
}
