//! ClusterIPs and node ports through the API.

use super::*;
use serde_json::json;

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

#[test]
fn a_service_is_defaulted_and_gets_an_address_of_the_upper_band() {
    let mut rig = Rig::new();
    let value = rig.create(service("a", json!({}))).unwrap().to_json();
    let spec = &value["spec"];
    let ip: std::net::Ipv4Addr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
    assert!(ip.octets()[2] >= 1 && rig.config.service_network.contains(&ip), "{ip}");
    assert_eq!(spec["clusterIPs"], json!([ip.to_string()]));
    assert_eq!((&spec["type"], &spec["sessionAffinity"]), (&json!("ClusterIP"), &json!("None")));
    assert_eq!(spec["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn an_explicit_address_is_honoured_or_refused() {
    let mut rig = Rig::new();
    rig.create(service("a", json!({"clusterIP": "10.96.0.10"}))).unwrap();
    assert_eq!(
        rig.create(service("b", json!({"clusterIP": "10.96.0.10"}))).unwrap_err(),
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: []string{\"10.96.0.10\"}: failed to \
         allocate IP 10.96.0.10: provided IP is already allocated"
    );
    let why = rig.create(service("b", json!({"clusterIP": "10.0.0.10"}))).unwrap_err();
    assert!(why.contains("is not in the valid range. The range of valid IPs is 10.96.0.0/16"));
    // Released with its service, also after a restart.
    rig.restart();
    rig.run();
    assert!(rig.create(service("b", json!({"clusterIP": "10.96.0.10"}))).is_err());
    rig.delete(Kind::Service, key("a")).unwrap();
    rig.create(service("b", json!({"clusterIP": "10.96.0.10"}))).unwrap();
    let change = json!({"spec": {"clusterIP": "10.96.0.11"}});
    let why = rig.patch(Kind::Service, key("b"), Subresource::Main, change).unwrap_err();
    assert!(why.contains("may not change once set"), "{why}");
}

#[test]
fn two_services_under_way_cannot_take_one_address() {
    let mut rig = Rig::new();
    let make = |name: &str| {
        let manifest = service(name, json!({"clusterIP": "10.96.0.10"}));
        Request::Create { object: Arc::new(Object::from_json(manifest).unwrap()) }
    };
    let (a, b) = (rig.send(make("a")), rig.send(make("b")));
    assert!(!rig.answers.contains_key(&a) && rig.answers[&b].is_err());
    rig.run();
    assert!(rig.answers[&a].is_ok());
}

#[test]
fn a_headless_service_gets_none() {
    let mut rig = Rig::new();
    let made = rig.create(service("a", json!({"clusterIP": "None"}))).unwrap();
    assert_eq!(made.service().unwrap().0.cluster_ip.as_deref(), Some("None"));
}

#[test]
fn node_ports_are_given_kept_and_released() {
    let mut rig = Rig::new();
    let made = rig.create(service("a", json!({"type": "NodePort"}))).unwrap();
    let port = |object: &Object| object.service().unwrap().0.ports.as_ref().unwrap()[0].node_port;
    let given = port(&made).unwrap();
    assert!((30086..=32767).contains(&given), "{given}");
    let fixed = |name: &str, port: i32| {
        service(name, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}))
    };
    assert_eq!(
        rig.create(fixed("b", given)).unwrap_err(),
        format!(
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {given}: provided \
             port is already allocated"
        )
    );
    let why = rig.create(fixed("b", 80)).unwrap_err();
    assert!(why.contains("The range of valid ports is 30000-32767"), "{why}");
    // An update without the number keeps it.
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let kept = rig.patch(Kind::Service, key("a"), Subresource::Main, patch).unwrap();
    assert_eq!(port(&kept), Some(given));
    let patch = json!({"spec": {"type": "ClusterIP"}});
    let plain = rig.patch(Kind::Service, key("a"), Subresource::Main, patch).unwrap();
    assert_eq!(port(&plain), None);
    rig.create(fixed("b", given)).unwrap();
}

#[test]
fn ports_and_external_addresses_are_checked() {
    let mut rig = Rig::new();
    let why = rig.create(service("a", json!({"ports": []}))).unwrap_err();
    assert_eq!(why, "Service \"a\" is invalid: spec.ports: Required value");
    let why = rig.create(service("a", json!({"externalIPs": ["127.0.0.1"]}))).unwrap_err();
    assert!(why.contains("spec.externalIPs[0]: Invalid value: \"127.0.0.1\""), "{why}");
    let why = rig.create(service("1a", json!({}))).unwrap_err();
    assert!(why.contains("a DNS-1035 label must consist of"), "{why}");
}
