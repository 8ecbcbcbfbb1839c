//! What a pod is called, and what its containers know by name.

use super::secs;
use super::world::{World, config, pod};
use crate::kubelet::Config;
use crate::ports::container::{Container, Hosts};
use serde_json::{Value, json};
use std::sync::Arc;

fn run(pod: Value) -> World {
    let mut world = World::of(Config { events: true, ..config() });
    world.run(secs(5));
    world.apply(pod);
    world.run(secs(5));
    world
}

fn with(spec: Value) -> Value {
    let mut pod = pod("web-0", json!({}));
    let spec = spec.as_object().expect("an object").clone();
    pod["spec"].as_object_mut().expect("an object").extend(spec);
    pod
}

fn started(world: &World) -> Arc<Container> {
    world.specs.last().expect("a container was started").clone()
}

fn hosts(spec: Value) -> Hosts {
    started(&run(with(spec))).hosts.clone().expect("a hosts file")
}

/// Lines after those that all have.
fn own_lines(hosts: &Hosts) -> Vec<String> {
    let text = hosts.text("");
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "# Kubernetes-managed hosts file.");
    assert_eq!(lines[1], "127.0.0.1\tlocalhost");
    lines[7..].to_vec()
}

/// As upstream's TestManagedHostsFileContent has it.
#[test]
fn a_pod_knows_itself_by_its_name_and_its_services() {
    let world = run(with(json!({})));
    let spec = started(&world);
    let ip = world.pod("web-0").and_then(|pod| pod.pod()?.1.pod_ip.clone()).expect("an address");
    let own = own_lines(spec.hosts.as_ref().expect("a hosts file"));
    assert_eq!(own, [format!("{ip}\tweb-0")]);
    assert_eq!(spec.knows("web-0").map(|ip| ip.to_string()), Some(ip.clone()));
    let own = own_lines(&hosts(json!({ "hostname": "me", "subdomain": "db" })));
    assert_eq!(own, [format!("{ip}\tme.db.default.svc.cluster.local\tme")]);
}

#[test]
fn aliases_are_told_apart_from_its_own() {
    let own = own_lines(&hosts(json!({ "hostAliases": [
        { "ip": "123.45.67.89", "hostnames": ["foo", "bar", "baz"] },
        { "ip": "10.0.0.1", "hostnames": ["x"] },
    ] })));
    let aliases = ["", "# Entries added by HostAliases.", "123.45.67.89\tfoo\tbar\tbaz"];
    assert_eq!(own[1..4], aliases);
    assert_eq!(own[4..], ["10.0.0.1\tx"]);
}

#[test]
fn on_the_nodes_network_it_knows_what_the_node_knows() {
    let aliases = json!([{ "ip": "10.0.0.1", "hostnames": ["x"] }]);
    let hosts = hosts(json!({ "hostNetwork": true, "hostAliases": aliases }));
    let expected = "# Kubernetes-managed hosts file (host network).\n127.0.0.1 n\n\n\
                    # Entries added by HostAliases.\n10.0.0.1\tx\n";
    assert_eq!(hosts.text("127.0.0.1 n\n"), expected);
}

#[test]
fn a_container_may_bring_its_own() {
    let mount = json!([{ "name": "v", "mountPath": "/etc/hosts" }]);
    let mut pod = with(json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }));
    pod["spec"]["containers"][0]["volumeMounts"] = mount;
    assert_eq!(started(&run(pod)).hosts, None);
}

#[test]
fn its_kernel_may_call_it_by_its_whole_name() {
    let whole =
        |subdomain: &str| run(with(json!({ "setHostnameAsFQDN": true, "subdomain": subdomain })));
    let world = whole("db");
    let sandbox = world.sandboxes.values().last().expect("a sandbox was made");
    assert_eq!(sandbox.spec.hostname, "web-0.db.default.svc.cluster.local");
    // Of a pod without a subdomain there is no other name.
    let world = whole("");
    assert_eq!(world.sandboxes.values().last().expect("a sandbox was made").spec.hostname, "web-0");
    let world = whole("a-subdomain-that-is-far-too-longs");
    assert!(world.sandboxes.is_empty());
    let all = world.objects.values().filter_map(|object| object.event());
    let mut told = all.filter(|event| event.reason.as_deref() == Some("FailedCreatePodSandBox"));
    let why = "Failed to create pod sandbox: failed to construct FQDN from pod hostname and \
               cluster domain, FQDN web-0.a-subdomain-that-is-far-too-longs.default.svc.\
               cluster.local is too long (64 characters is the max, 65 characters requested)";
    assert_eq!(told.next().and_then(|event| event.message.as_deref()), Some(why));
}
