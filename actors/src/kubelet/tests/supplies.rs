//! Volumes and environments: what they are made of, when they change, and what is said while
//! something is missing.

use super::world::{World, config, pod};
use super::{container, secs, waiting};
use crate::kubelet::Config;
use crate::objects::{Key, Kind, Uid};
use crate::ports::container::{Container, Propagation};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn config_map(name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "default" }, "data": data,
    })
}

fn secret(name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": "default" }, "data": data,
    })
}

/// A pod with volumes, whose one container mounts each at `/` and its name.
pub fn with(volumes: Value, container: Value) -> Value {
    let names = volumes.as_array().expect("a list").iter();
    let mounts: Vec<Value> = names
        .map(|volume| {
            let name = volume["name"].as_str().expect("a name");
            json!({ "name": name, "mountPath": format!("/{name}") })
        })
        .collect();
    let mut container = container;
    if container["volumeMounts"].is_null() {
        container["volumeMounts"] = json!(mounts);
    }
    let mut pod = pod("a", container);
    pod["spec"]["volumes"] = volumes;
    pod
}

/// A world that tells people, in which the node is there.
pub fn told() -> World {
    let mut world = World::of(Config { events: true, ..config() });
    world.run(secs(5));
    world
}

pub fn events(world: &World, reason: &str) -> Vec<String> {
    let all = world.objects.values().filter_map(|object| object.event());
    let of = all.filter(|event| event.reason.as_deref() == Some(reason));
    of.map(|event| event.message.clone().unwrap_or_default()).collect()
}

pub fn started(world: &World) -> Arc<Container> {
    world.specs.last().expect("a container was started").clone()
}

fn variable(world: &World, name: &str) -> Option<String> {
    let spec = started(world);
    spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

#[test]
fn a_pod_starts_when_its_volumes_are_there() {
    let mut world = told();
    world.apply(config_map("settings", json!({ "a": "1", "b": "2" })));
    world.apply(secret("key", json!({ "k": "c2VjcmV0" })));
    let volumes = json!([
        { "name": "scratch", "emptyDir": {} },
        { "name": "machine", "hostPath": { "path": "/etc", "type": "Directory" } },
        { "name": "settings", "configMap": { "name": "settings" } },
        { "name": "key", "secret": { "secretName": "key", "defaultMode": 256,
            "items": [{ "key": "k", "path": "deep/key" }] } },
        { "name": "me", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "cpu", "resourceFieldRef": {
                "containerName": "c", "resource": "limits.cpu", "divisor": "1m" } } ] } },
    ]);
    let mut pod = with(volumes, json!({ "resources": { "limits": { "cpu": "250m" } } }));
    pod["metadata"]["labels"] = json!({ "app": "web", "tier": "x\"y" });
    let uid = world.apply(pod);
    world.run(secs(2));
    assert_eq!(world.starts.len(), 1, "{:?}", world.status("a"));
    let file = |volume: &str, path: &str| world.files(uid, volume).get(path).cloned();
    assert_eq!(file("settings", "a").as_deref(), Some("1"));
    assert_eq!(world.files(uid, "key").into_iter().collect::<Vec<_>>().len(), 1);
    assert_eq!(file("key", "deep/key").as_deref(), Some("secret"));
    assert_eq!(file("me", "labels").as_deref(), Some("app=\"web\"\ntier=\"x\\\"y\""));
    assert_eq!(file("me", "cpu").as_deref(), Some("250"));
    let mounts = &started(&world).mounts;
    let read_only: Vec<_> = mounts.iter().map(|m| (m.path.as_str(), m.read_only)).collect();
    let wanted = [
        ("/scratch", false),
        ("/machine", false),
        ("/settings", true),
        ("/key", true),
        ("/me", true),
    ];
    assert_eq!(read_only, wanted);
    // With the pod they go.
    world.delete("a");
    world.run(secs(5));
    assert!(world.volumes.is_empty() && world.pod("a").is_none(), "{:?}", world.volumes);
}

#[test]
fn what_is_missing_is_told_and_waited_for() {
    let mut world = told();
    let volumes = json!([{ "name": "v", "configMap": { "name": "later" } }]);
    world.apply(with(volumes, json!({})));
    world.run(secs(20));
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("ContainerCreating"));
    assert!(world.sandboxes.is_empty(), "not even a sandbox");
    let why = "MountVolume.SetUp failed for volume \"v\" : configmap \"later\" not found";
    assert_eq!(events(&world, "FailedMount"), [why]);
    let asked = world.reads.iter().filter(|read| *read == "ConfigMap later").count();
    assert!((3..10).contains(&asked), "{asked} times in 20 s");
    world.apply(config_map("later", json!({ "a": "1" })));
    world.run(secs(60));
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn a_volume_that_cannot_be_made_is_told_and_tried_again() {
    let mut world = told();
    let why = "hostPath type check failed: /x is not a directory";
    world.refused_volumes.insert("v".into(), why.into());
    let volumes = json!([
        { "name": "v", "hostPath": { "path": "/x", "type": "Directory" } },
        { "name": "claim", "nfs": { "server": "a", "path": "/" } },
    ]);
    world.apply(with(volumes, json!({})));
    world.run(secs(3));
    let mut all = events(&world, "FailedMount");
    all.sort();
    let of = |volume: &str, why: &str| {
        format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}")
    };
    let claim = "this kubelet has no volumes of the kind nfs";
    assert_eq!(all, [of("claim", claim), of("v", why)]);
    world.refused_volumes.clear();
    world.run(secs(5));
    assert!(world.volumes.keys().any(|(_, name)| name == "v"));
    assert_eq!(world.starts, [], "the claim is still missing");
    // It can go all the same.
    world.delete("a");
    world.run(secs(5));
    assert!(world.pod("a").is_none() && world.volumes.is_empty());
}

#[test]
fn files_follow_what_they_are_made_of() {
    let mut world = told();
    world.apply(config_map("settings", json!({ "a": "1" })));
    let volumes = json!([
        { "name": "v", "configMap": { "name": "settings" } },
        { "name": "me", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } } ] } },
    ]);
    let uid = world.apply(with(volumes.clone(), json!({})));
    world.run(secs(100));
    let written = world.rewritten;
    assert_eq!(written, 2, "what is the same is not written again");
    world.apply(config_map("settings", json!({ "a": "2" })));
    world.run(secs(40));
    assert_eq!(world.files(uid, "v")["a"], "2");
    assert_eq!(world.rewritten, written + 1);
    // One that is gone leaves the files as they are.
    world.remove(Kind::ConfigMap, &Key::new("default", "settings"));
    world.run(secs(100));
    assert_eq!(world.files(uid, "v")["a"], "2");
    let object = world.pod("a").expect("it is there");
    let mut labelled = object.to_json();
    labelled["metadata"]["labels"] = json!({ "app": "b" });
    world.apply(labelled);
    world.run(secs(1));
    assert_eq!(world.files(uid, "me")["labels"], "app=\"b\"");
    assert_eq!(world.starts.len(), 1, "nothing was started again");
}

fn projected() -> Value {
    json!([{ "name": "api", "projected": { "defaultMode": 420, "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
        { "configMap": { "name": "kube-root-ca.crt",
            "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace",
            "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
        { "secret": { "name": "none", "optional": true } },
    ] } }])
}

#[test]
fn a_token_is_shown_and_replaced_before_it_ends() {
    let mut world = told();
    world.apply(config_map("kube-root-ca.crt", json!({ "ca.crt": "PEM" })));
    let mut pod = with(projected(), json!({}));
    pod["spec"]["serviceAccountName"] = "robot".into();
    let uid = world.apply(pod);
    world.run(secs(2));
    assert_eq!(world.starts.len(), 1, "{:?}", events(&world, "FailedMount"));
    let files = world.files(uid, "api");
    assert_eq!(files["token"], "robot--1");
    assert_eq!((&*files["ca.crt"], &*files["namespace"]), ("PEM", "default"));
    assert_eq!(files.len(), 3);
    world.run(Duration::from_secs(2800));
    assert_eq!(world.tokens, 1);
    world.run(Duration::from_secs(100));
    assert_eq!(world.tokens, 2, "after four fifths of its life");
    assert_eq!(world.files(uid, "api")["token"], "robot--2");
}

/// A kubelet that starts anew finds what runs and what is there, and takes away what nobody has.
#[test]
fn a_restart_keeps_volumes_and_removes_what_no_pod_has() {
    let mut world = told();
    world.apply(config_map("kube-root-ca.crt", json!({ "ca.crt": "PEM" })));
    let uid = world.apply(with(projected(), json!({})));
    world.run(secs(2));
    world.volumes.insert((Uid(7), "old".into()), None);
    world.restart(kubesim_runtime::Loss::Process);
    world.run(secs(5));
    assert_eq!(world.starts.len(), 1, "its container runs on");
    assert_eq!(world.volumes.keys().map(|(pod, _)| *pod).collect::<Vec<_>>(), [uid]);
    world.run(secs(60));
    assert_eq!(container(&world.status("a")).restart_count, 0);
}

#[test]
fn a_part_of_a_volume_is_mounted_by_its_path() {
    let mut world = told();
    let mounts = json!([
        { "name": "v", "mountPath": "data", "subPath": "x/y", "mountPropagation": "Bidirectional" },
        { "name": "v", "mountPath": "/own", "subPathExpr": "$(NAME)/z", "readOnly": true },
    ]);
    let field = json!({ "fieldRef": { "fieldPath": "metadata.name" } });
    let name = json!({ "name": "NAME", "valueFrom": field });
    let volumes = json!([{ "name": "v", "emptyDir": {} }]);
    world.apply(with(volumes.clone(), json!({ "volumeMounts": mounts, "env": [name] })));
    world.run(secs(2));
    let spec = started(&world);
    let all: Vec<_> = spec.mounts.iter().map(|m| (&*m.path, &*m.source, m.read_only)).collect();
    assert_eq!(all, [("/data", "/pods/v/x/y", false), ("/own", "/pods/v/a/z", true)]);
    assert_eq!(spec.mounts[0].propagation, Propagation::Bidirectional);
    // A variable that is not there.
    let mounts = json!([{ "name": "v", "mountPath": "/own", "subPathExpr": "$(NONE)" }]);
    let mut other = with(volumes, json!({ "volumeMounts": mounts }));
    other["metadata"]["name"] = "b".into();
    world.apply(other);
    world.run(secs(2));
    assert_eq!(waiting(&world.status("b")).as_deref(), Some("CreateContainerConfigError"));
}

#[test]
fn an_environment_is_made_of_objects() {
    let mut world = told();
    world.apply(config_map("m", json!({ "A": "1", "B": "2" })));
    world.apply(secret("s", json!({ "B": "Mw==", "C": "NA==" })));
    let from = |kind: &str, name: &str, optional: bool| {
        let of = json!({ "name": name, "optional": optional });
        json!({ "prefix": "P_", kind: of })
    };
    let key = |name: &str, kind: &str, of: &str, key: &str, optional: bool| {
        let of = json!({ "name": of, "key": key, "optional": optional });
        json!({ "name": name, "valueFrom": { kind: of } })
    };
    world.apply(pod(
        "a",
        json!({
            "envFrom": [
                from("configMapRef", "m", false),
                from("secretRef", "s", false),
                from("secretRef", "none", true),
            ],
            "env": [
                key("ONE", "configMapKeyRef", "m", "A", false),
                key("FOUR", "secretKeyRef", "s", "C", false),
                key("NO", "secretKeyRef", "s", "Z", true),
                key("NONE", "configMapKeyRef", "none", "Z", true),
                { "name": "ALL", "value": "$(P_B)-$(ONE)" },
                { "name": "CPU", "valueFrom": { "resourceFieldRef": {
                    "resource": "limits.cpu" } } },
                { "name": "MIB", "valueFrom": { "resourceFieldRef": {
                    "resource": "limits.memory", "divisor": "1Mi" } } },
                { "name": "ASKED", "valueFrom": { "resourceFieldRef": {
                    "resource": "requests.cpu" } } },
            ],
        }),
    ));
    world.run(secs(2));
    for (name, value) in [
        ("P_A", Some("1")),
        ("P_B", Some("3")),
        ("P_C", Some("4")),
        ("ONE", Some("1")),
        ("FOUR", Some("4")),
        ("NO", None),
        ("NONE", None),
        ("ALL", Some("3-1")),
        ("CPU", Some("4")),
        ("MIB", Some("8192")),
        ("ASKED", Some("0")),
    ] {
        assert_eq!(variable(&world, name).as_deref(), value, "{name}");
    }
}

#[test]
fn what_an_environment_lacks_is_told_as_upstream_tells_it() {
    let mut world = told();
    world.apply(config_map("m", json!({ "A": "1" })));
    let key = |kind: &str, of: &str, key: &str| {
        let source = json!({ kind: { "name": of, "key": key } });
        json!({ "env": [{ "name": "X", "valueFrom": source }] })
    };
    for (name, container, why) in [
        ("p1", key("configMapKeyRef", "none", "A"), "configmap \"none\" not found"),
        ("p2", key("secretKeyRef", "none", "A"), "secret \"none\" not found"),
        ("p3", key("configMapKeyRef", "m", "B"), "couldn't find key B in ConfigMap default/m"),
        (
            "p4",
            json!({ "envFrom": [{ "configMapRef": { "name": "none" } }] }),
            "configmap \"none\" not found",
        ),
    ] {
        world.apply(pod(name, container));
        world.run(secs(2));
        let status = world.status(name);
        assert_eq!(waiting(&status).as_deref(), Some("CreateContainerConfigError"), "{name}");
        let state = super::container(&status).state.clone().expect("a state");
        assert_eq!(state.waiting.and_then(|waiting| waiting.message).as_deref(), Some(why));
    }
    // It comes, and is found at the next attempt.
    world.apply(config_map("none", json!({ "A": "now" })));
    world.run(secs(15));
    assert_eq!(world.starts.len(), 2, "p1 and p4");
    // A name that no process can have.
    world.apply(pod(
        "p5",
        json!({ "envFrom": [{ "prefix": "=", "configMapRef": { "name": "m" } }] }),
    ));
    world.run(secs(2));
    let why = "Keys [=A] from the EnvFrom configMap default/m were skipped since they are \
               considered invalid environment variable names.";
    assert_eq!(events(&world, "InvalidEnvironmentVariableNames"), [why]);
    assert_eq!(world.starts.len(), 3);
}

/// Nothing is asked for that no pod names, and one object is asked for once for all its pods.
#[test]
fn only_what_pods_name_is_asked_for() {
    let mut world = told();
    for name in ["mine", "other"] {
        world.apply(config_map(name, json!({ "A": "1" })));
    }
    world.run(secs(2));
    for name in ["a", "b", "c"] {
        let mut pod = with(json!([{ "name": "v", "configMap": { "name": "mine" } }]), json!({}));
        pod["metadata"]["name"] = name.into();
        world.apply(pod);
    }
    world.run(secs(2));
    let asked = world.reads.len();
    assert!(world.reads.iter().all(|read| read == "ConfigMap mine"), "{:?}", world.reads);
    assert!(asked <= 3, "{asked}");
    world.run(secs(300));
    let again = world.reads.len() - asked;
    assert!((8..=13).contains(&again), "{again} times in five minutes");
}
