//! Endpoints objects beside EndpointSlices: the same, in one.

use super::fake::{self, World};
use super::*;
use crate::objects::Key;
use serde_json::Value;

fn world(seed: u64) -> World<Controllers> {
    let (endpoints, node_grace) = (true, Duration::from_secs(86_400));
    let mut world = World::new(Config { endpoints, node_grace, ..config() }, seed, calm());
    world.put(node("n", "z"));
    world
}

fn key() -> Key {
    Key::new("default", "web")
}

fn service(spec: Value) -> Object {
    let mut spec = spec;
    if spec["clusterIP"].is_null() {
        spec["clusterIP"] = "10.96.0.7".into();
    }
    fake::object(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "labels": {"team": "a"}}, "spec": spec}))
}

/// A pod whose port `http` is this one.
fn pod(name: &str, ip: &str, port: i32, ready: bool) -> Object {
    let ready = if ready { "True" } else { "False" };
    fake::object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip,
                   "conditions": [{"type": "Ready", "status": ready}]},
    }))
}

/// Of each subset: addresses, those that are not ready, ports by name and number.
fn subsets(world: &World<Controllers>) -> Vec<String> {
    let Some(object) = world.get(Kind::Endpoints, &key()) else { return Vec::new() };
    let value = object.to_json();
    let list = |value: &Value, of: &dyn Fn(&Value) -> String| {
        let all = value.as_array().into_iter().flatten().map(of);
        all.collect::<Vec<String>>().join(",")
    };
    let ip = |one: &Value| one["ip"].as_str().unwrap_or_default().to_owned();
    let port = |one: &Value| format!("{}:{}", one["name"].as_str().unwrap_or("-"), one["port"]);
    let subset = |one: &Value| {
        let (ready, not) = (list(&one["addresses"], &ip), list(&one["notReadyAddresses"], &ip));
        format!("{ready} / {not} / {}", list(&one["ports"], &port))
    };
    value["subsets"].as_array().into_iter().flatten().map(subset).collect()
}

#[test]
fn subsets_are_by_ports_and_follow_the_pods() {
    let mut world = world(1);
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"},
                       {"name": "raw", "port": 81}]);
    world.put(service(json!({"selector": {"app": "web"}, "ports": ports})));
    world.put(pod("a", "10.244.0.1", 8080, true));
    world.put(pod("b", "10.244.0.2", 8080, false));
    world.put(pod("c", "10.244.0.3", 9090, true));
    world.run(Duration::from_secs(2));
    let expected = [
        "10.244.0.1 / 10.244.0.2 / http:8080",
        "10.244.0.3 /  / http:9090",
        "10.244.0.1,10.244.0.3 / 10.244.0.2 / raw:81",
    ];
    assert_eq!(subsets(&world), expected);
    let object = world.get(Kind::Endpoints, &key()).expect("it was made").to_json();
    let labels = json!({"team": "a",
                        "endpoints.kubernetes.io/managed-by": "endpoint-controller"});
    assert_eq!(object["metadata"]["labels"], labels);
    let address = &object["subsets"][0]["addresses"][0];
    assert_eq!((&address["nodeName"], &address["targetRef"]["name"]), (&"n".into(), &"a".into()));
    // Equal ports are one subset again.
    world.remove(Kind::Pod, &Key::new("default", "c"));
    world.put(pod("b", "10.244.0.2", 8080, true));
    world.run(Duration::from_secs(2));
    assert_eq!(subsets(&world), ["10.244.0.1,10.244.0.2 /  / http:8080,raw:81"]);
    let writes = world.writes.clone();
    world.run(Duration::from_secs(60));
    assert_eq!(world.writes, writes, "what is right is left alone");
}

#[test]
fn it_is_put_right_and_goes_with_its_service() {
    let mut world = world(2);
    world.put(service(json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})));
    world.put(pod("a", "10.244.0.1", 80, true));
    world.run(Duration::from_secs(2));
    let expected = ["10.244.0.1 /  / -:80"];
    assert_eq!(subsets(&world), expected);
    let mut other = (*world.get(Kind::Endpoints, &key()).expect("it was made")).clone();
    let Body::Plain(plain) = &mut other.body else { panic!("{other:?}") };
    Arc::make_mut(&mut plain.fields).set("subsets", json!([]));
    world.put(other);
    world.run(Duration::from_secs(2));
    assert_eq!(subsets(&world), expected);
    world.remove(Kind::Endpoints, &key());
    world.run(Duration::from_secs(2));
    assert_eq!(subsets(&world), expected);
    world.remove(Kind::Service, &key());
    world.run(Duration::from_secs(2));
    assert!(world.get(Kind::Endpoints, &key()).is_none());
}

#[test]
fn what_people_make_for_a_service_without_a_selector_is_theirs() {
    let mut world = world(3);
    let theirs = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"},
                        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 9}]}]});
    world.put(fake::object(theirs));
    world.run(Duration::from_secs(60));
    let expected = ["192.0.2.1 /  / -:9"];
    assert_eq!(subsets(&world), expected, "its Service may come later");
    world.put(service(json!({"ports": [{"port": 80}]})));
    world.run(Duration::from_secs(60));
    assert_eq!(subsets(&world), expected);
    world.remove(Kind::Service, &key());
    world.run(Duration::from_secs(2));
    assert!(world.get(Kind::Endpoints, &key()).is_none());
}

#[test]
fn one_that_is_too_large_is_cut_and_says_so() {
    let mut world = world(4);
    world.put(service(json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})));
    for number in 0..1100 {
        let ip = format!("10.244.{}.{}", number / 200, number % 200);
        world.put(pod(&format!("p{number:04}"), &ip, 80, number % 2 == 0));
    }
    world.run(Duration::from_secs(5));
    let object = world.get(Kind::Endpoints, &key()).expect("it was made").to_json();
    let subset = &object["subsets"][0];
    let count = |field: &str| subset[field].as_array().map_or(0, Vec::len);
    assert_eq!((count("addresses"), count("notReadyAddresses")), (550, 450));
    let note = &object["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"];
    assert_eq!(note, "truncated");
    let writes = world.writes.clone();
    world.run(Duration::from_secs(60));
    assert_eq!(world.writes, writes);
}

#[test]
fn a_headless_service_without_ports_has_addresses_alone() {
    let mut world = world(5);
    let spec = json!({"selector": {"app": "web"}, "clusterIP": "None"});
    world.put(service(spec));
    world.put(pod("a", "10.244.0.1", 80, true));
    world.run(Duration::from_secs(2));
    assert_eq!(subsets(&world), ["10.244.0.1 /  / "]);
    let object = world.get(Kind::Endpoints, &key()).expect("it was made");
    assert_eq!(object.label("service.kubernetes.io/headless"), Some(""));
}
