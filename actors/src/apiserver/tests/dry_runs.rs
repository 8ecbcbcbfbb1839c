//! What is only tried: answered as if it were done, and nothing is.

use super::*;
use crate::objects::Uid;
use serde_json::json;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn object(manifest: Value) -> Arc<Object> {
    Arc::new(Object::from_json(manifest).expect("a manifest"))
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
           "metadata": {"name": name, "namespace": "default"},
           "spec": {"selector": {"matchLabels": {"app": "a"}},
                    "template": {"metadata": {"labels": {"app": "a"}},
                                 "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}})
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn delete(kind: Kind, key: Key) -> Request {
    Request::Delete { kind, key, options: DeleteOptions::default() }
}

#[test]
fn a_creation_is_completed_and_checked_and_not_stored() {
    let mut rig = Rig::new();
    let create = || Request::Create { object: object(deployment("d")) };
    let tried = rig.dry_run(create()).unwrap();
    assert!(tried.uid != Uid::NONE && tried.version == 0, "{tried:?}");
    assert_eq!(tried.deployment().unwrap().0.replicas, Some(1), "defaulted");
    assert!(rig.get(Kind::Deployment, &key("d")).is_none());
    rig.object(create()).unwrap();
    assert_eq!(rig.dry_run(create()).unwrap_err(), "deployments.apps \"d\" already exists");
    let wrong = object(deployment("A_"));
    let why = rig.dry_run(Request::Create { object: wrong }).unwrap_err();
    assert!(why.contains("is invalid: metadata.name"), "{why}");
    let mut nowhere = deployment("e");
    nowhere["metadata"]["namespace"] = "none".into();
    let why = rig.dry_run(Request::Create { object: object(nowhere) }).unwrap_err();
    assert_eq!(why, "namespaces \"none\" not found");
}

#[test]
fn a_change_is_shown_at_the_stored_version() {
    let mut rig = Rig::new();
    let made = rig.create(deployment("d")).unwrap();
    let more = |version: u64| Request::Patch {
        kind: Kind::Deployment,
        key: key("d"),
        subresource: Subresource::Main,
        patch: json!({"metadata": {"resourceVersion": version.to_string()},
                      "spec": {"replicas": 5}}),
    };
    let tried = rig.dry_run(more(made.version)).unwrap();
    assert_eq!((tried.deployment().unwrap().0.replicas, tried.version), (Some(5), made.version));
    assert_eq!(tried.meta.generation, Some(2));
    let stored = rig.get(Kind::Deployment, &key("d")).unwrap();
    assert_eq!(stored.deployment().unwrap().0.replicas, Some(1));
    let why = rig.dry_run(more(1)).unwrap_err();
    assert!(why.contains("has been modified"), "{why}");
}

#[test]
fn what_a_service_was_given_is_free_again() {
    let mut rig = Rig::new();
    let ports = json!([{"port": 80}]);
    let spec = json!({"type": "NodePort", "ports": ports});
    let tried = rig.dry_run(Request::Create { object: object(service("a", spec)) }).unwrap();
    let spec = tried.service().unwrap().0;
    let port = spec.ports.as_ref().unwrap()[0].node_port.expect("a node port");
    let ip = spec.cluster_ip.clone().expect("an address");
    let same = json!({"type": "NodePort", "clusterIP": ip,
                      "ports": [{"port": 80, "nodePort": port}]});
    rig.create(service("b", same.clone())).unwrap();
    let why = rig.dry_run(Request::Create { object: object(service("c", same)) }).unwrap_err();
    assert!(why.contains("already allocated"), "{why}");
    // What is stored keeps what it has.
    let away = json!({"type": "ExternalName", "externalName": "x.example", "ports": ports});
    rig.dry_run(Request::Update { object: object(service("b", away)) }).unwrap();
    let why = rig.create(service("d", json!({"clusterIP": ip, "ports": ports}))).unwrap_err();
    assert!(why.contains("already allocated"), "{why}");
}

#[test]
fn a_deletion_leaves_everything_there() {
    let mut rig = Rig::new();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    rig.create(namespace).unwrap();
    let mut kept = deployment("d");
    kept["metadata"]["finalizers"] = json!(["x.dev/a"]);
    rig.create(kept).unwrap();
    rig.create(service("s", json!({"ports": [{"port": 80}]}))).unwrap();
    assert!(rig.dry_run(delete(Kind::Namespace, Key::cluster("x"))).unwrap().deleting());
    assert!(rig.dry_run(delete(Kind::Deployment, key("d"))).unwrap().deleting(), "by a finalizer");
    rig.dry_run(delete(Kind::Service, key("s"))).unwrap();
    let left = [(Kind::Namespace, Key::cluster("x")), (Kind::Deployment, key("d"))];
    for (kind, key) in left.into_iter().chain([(Kind::Service, key("s"))]) {
        assert!(rig.get(kind, &key).is_some_and(|object| !object.deleting()), "{kind} {key}");
    }
    let why = rig.dry_run(delete(Kind::Namespace, Key::cluster("default"))).unwrap_err();
    assert!(why.contains("may not be deleted"), "{why}");
    assert_eq!(
        rig.dry_run(delete(Kind::Service, key("t"))).unwrap_err(),
        "services \"t\" not found"
    );
}

#[test]
fn it_waits_for_the_write_before_it_and_holds_up_none() {
    let mut rig = Rig::new();
    let create = || Request::Create { object: object(deployment("d")) };
    let first = rig.send(create());
    let tried = rig.ask(create(), true);
    let last = rig.send(delete(Kind::Deployment, key("d")));
    rig.run();
    assert!(rig.answers[&first].is_ok() && rig.answers[&last].is_ok());
    let error = rig.answers[&tried].as_ref().expect_err("it is there already");
    assert_eq!(error.message, "deployments.apps \"d\" already exists");
}
