//! The kubelet in a small world: what it makes of pods, crashes, probes, deletions and roaming.

mod claims;
mod ephemeral;
mod events;
mod hooks;
mod host_ports;
mod hosts;
mod pulls;
mod runtime;
mod supplies;
mod world;

use self::world::{NODE, SUBNET_ENV, World, pod};
use super::env;
use crate::objects::{Key, Kind, Object, Uid};
use crate::ports::container::Fault;
use crate::ports::probe::Purpose;
use k8s_openapi::api::core::v1::{ContainerStatus, NodeStatus, PodStatus};
use kubesim_runtime::{Loss, Snapshot, Time};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn container(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().expect("containers are told of")[0]
}

fn waiting(status: &PodStatus) -> Option<String> {
    container(status).state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn node(world: &World) -> NodeStatus {
    let object = &world.objects[&(Kind::Node, Key::cluster(NODE))];
    (**object.node().unwrap().1).clone()
}

fn node_ready(world: &World) -> Option<(String, String)> {
    let status = node(world);
    let ready = status.conditions?.into_iter().find(|c| c.type_ == "Ready")?;
    Some((ready.status, ready.message.unwrap_or_default()))
}

#[test]
fn a_pod_comes_up_and_the_api_hears_of_it_in_three_writes() {
    let mut world = World::new();
    world.run(secs(5));
    world.writes.clear();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(2));
    let status = world.status("a");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(is_ready(&status), "{status:?}");
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.2"));
    assert_eq!(status.host_ip.as_deref(), Some("192.168.1.11"));
    assert_eq!(world.starts, [(uid, "c".into(), 0)]);
    let writes = world.writes.iter().filter(|write| write.contains("Pod")).count();
    assert!(writes <= 3, "{:?}", world.writes);
    let names: Vec<_> = status.conditions.unwrap().into_iter().map(|c| c.type_).collect();
    assert_eq!(
        names,
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    );
}

#[test]
fn the_node_is_registered_and_its_lease_is_renewed_every_ten_seconds() {
    let mut world = World::new();
    world.subnet_env = None;
    world.run(secs(5));
    let object = world.objects[&(Kind::Node, Key::cluster(NODE))].clone();
    assert_eq!(object.label("kubernetes.io/hostname"), Some(NODE));
    assert_eq!(object.label("disk"), Some("ssd"));
    let (spec, _) = object.node().unwrap();
    assert_eq!(spec.taints.as_ref().unwrap()[0].key, "dedicated");
    let (ready, why) = node_ready(&world).unwrap();
    assert_eq!(ready, "False");
    assert!(why.contains("cni config uninitialized"), "{why}");

    world.tell_file("/run/flannel/subnet.env", Some(SUBNET_ENV));
    world.run(secs(1));
    assert_eq!(node_ready(&world).unwrap().0, "True");

    world.writes.clear();
    world.run(secs(100));
    let leases = world.writes.iter().filter(|write| *write == "update Lease n1").count();
    assert!((9..=10).contains(&leases), "{:?}", world.writes);
    assert_eq!(world.writes.len(), leases, "an idle node writes nothing else");
    world.run(secs(200));
    let statuses = world.writes.iter().filter(|write| write.contains("Node")).count();
    assert_eq!(statuses, 1, "but its status once in five minutes");
}

#[test]
fn the_addresses_of_the_node_and_of_host_network_pods_follow_the_interface() {
    let mut world = World::new();
    let mut manifest = pod("a", json!({}));
    manifest["spec"]["hostNetwork"] = json!(true);
    world.apply(manifest);
    world.apply(pod("b", json!({})));
    world.run(secs(5));
    assert_eq!(world.status("a").pod_ip.as_deref(), Some("192.168.1.11"));
    world.roam(Ipv4Addr::new(10, 20, 0, 7));
    world.run(Duration::from_millis(1));
    assert_eq!(node(&world).addresses.unwrap()[0].address, "10.20.0.7");
    assert_eq!(world.status("a").pod_ip.as_deref(), Some("10.20.0.7"));
    assert_eq!(world.status("b").host_ip.as_deref(), Some("10.20.0.7"));
    assert_eq!(world.status("b").pod_ip.as_deref(), Some("10.244.1.2"));
    assert_eq!(world.starts.len(), 2);
}

/// Level-triggered: wherever it dies, the pod runs in the end and was started once.
#[test]
fn a_crash_at_any_event_of_a_start_leads_to_the_same_pod() {
    for at in 1..60 {
        let mut world = World::new();
        world.crash = Some((at, Loss::Process));
        let uid = world.apply(pod("a", json!({ "readinessProbe": { "tcpSocket": {"port": 80} } })));
        world.run(secs(60));
        assert_eq!(world.starts, [(uid, "c".into(), 0)], "crash after event {at}");
        let status = world.status("a");
        assert!(is_ready(&status), "crash after event {at}: {status:?}");
        assert_eq!(container(&status).restart_count, 0);
        assert_eq!(world.sandboxes.len(), 1);
    }
}

#[test]
fn a_crash_at_any_event_of_a_deletion_leaves_nothing() {
    for at in 1..60 {
        let mut world = World::new();
        world.apply(pod("a", json!({})));
        world.run(secs(5));
        world.crash = Some((world.handled + at, Loss::Process));
        world.delete("a");
        world.run(secs(60));
        assert!(world.pod("a").is_none(), "crash after event {at}");
        assert_eq!(world.sandboxes.len(), 0, "crash after event {at}");
        assert_eq!(world.kubelet.local.ipam.held().count(), 0, "crash after event {at}");
        assert!(world.kubelet.pods.is_empty());
        assert_eq!(world.kubelet.local.used, Default::default());
    }
}

#[test]
fn a_restart_of_the_kubelet_changes_nothing_that_anyone_can_see() {
    let mut world = World::new();
    let probes = json!({
        "readinessProbe": { "tcpSocket": {"port": 80} },
        "startupProbe": { "tcpSocket": {"port": 80} },
    });
    world.apply(pod("a", probes));
    world.run(secs(60));
    let before = world.pod("a").unwrap();
    world.writes.clear();
    world.restart(Loss::Process);
    world.run(secs(60));
    let writes: Vec<_> = world.writes.iter().filter(|write| write.contains("Pod")).collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(world.pod("a").unwrap().version, before.version);
}

#[test]
fn after_a_loss_of_power_containers_are_started_again_and_counted() {
    let mut world = World::new();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    world.restart(Loss::Power);
    world.run(secs(5));
    assert_eq!(world.starts, [(uid, "c".into(), 0), (uid, "c".into(), 1)]);
    let status = world.status("a");
    assert!(is_ready(&status), "{status:?}");
    let container = container(&status);
    assert_eq!(container.restart_count, 1);
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.exit_code, 255);
}

#[test]
fn while_the_api_is_away_what_runs_goes_on_running() {
    let mut world = World::new();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    world.cut = true;
    world.restart(Loss::Process);
    world.run(secs(30));
    world.exit(uid, "c", 1);
    world.run(secs(30));
    assert_eq!(world.sandboxes.len(), 1);
    assert_eq!(world.starts.len(), 1);
    world.cut = false;
    world.connected();
    world.run(secs(30));
    assert_eq!(container(&world.status("a")).restart_count, 1);
}

#[test]
fn a_sandbox_that_nobody_claims_is_removed_once_all_sources_were_heard() {
    let mut world = World::new();
    world.apply(pod("a", json!({})));
    world.run(secs(5));
    world.cut = true;
    world.remove(Kind::Pod, &Key::new("default", "a"));
    world.cut = false;
    world.restart(Loss::Process);
    world.run(secs(1));
    assert_eq!(world.sandboxes.len(), 1);
    world.run(secs(2));
    assert_eq!(world.sandboxes.len(), 0);
    assert_eq!(world.kubelet.local.ipam.held().count(), 0);
}

#[test]
fn a_deletion_stops_removes_and_then_deletes() {
    let mut world = World::new();
    world.apply(pod("a", json!({})));
    world.run(secs(5));
    world.writes.clear();
    world.delete("a");
    world.run(secs(1));
    assert_eq!(world.writes, ["delete Pod a"]);
    assert!(world.sandboxes.is_empty() && world.pod("a").is_none());
}

#[test]
fn a_pod_made_anew_under_its_name_is_another_pod() {
    let mut world = World::new();
    let old = world.apply(pod("a", json!({})));
    world.run(secs(5));
    let new = world.apply(pod("a", json!({})));
    world.run(secs(5));
    assert_ne!(old, new);
    assert_eq!(world.sandboxes.keys().collect::<Vec<_>>(), [&new]);
    assert!(is_ready(&world.status("a")));
}

#[test]
fn a_container_that_crashes_waits_longer_each_time() {
    let mut world = World::new();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    let mut waits = Vec::new();
    for life in 1..=4 {
        let ended = world.now;
        world.exit(uid, "c", 1);
        world.run(Duration::from_millis(1));
        if life > 1 {
            assert_eq!(waiting(&world.status("a")).as_deref(), Some("CrashLoopBackOff"));
            assert_eq!(world.status("a").phase.as_deref(), Some("Running"));
        }
        while world.starts.len() == life {
            world.run(secs(1));
        }
        waits.push(world.now.since(ended).as_secs());
    }
    assert_eq!(waits, [0, 10, 20, 40]);
    world.run(secs(1));
    assert_eq!(container(&world.status("a")).restart_count, 4);
}

#[test]
fn restart_policies_end_pods() {
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 3, "Running"),
        ("Always", 0, "Running"),
    ] {
        let mut world = World::new();
        let mut manifest = pod("a", json!({}));
        manifest["spec"]["restartPolicy"] = json!(policy);
        let uid = world.apply(manifest);
        world.run(secs(5));
        world.exit(uid, "c", code);
        world.run(secs(5));
        let status = world.status("a");
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}: {status:?}");
        assert_eq!(world.sandboxes.is_empty(), phase != "Running");
        world.restart(Loss::Process);
        world.run(secs(5));
        assert_eq!(world.status("a"), status, "{policy} {code}");
    }
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let mut world = World::new();
    let mut manifest = pod("a", json!({}));
    manifest["spec"]["initContainers"] = json!([
        { "name": "first", "image": "i" },
        { "name": "side", "image": "i", "restartPolicy": "Always" },
        { "name": "second", "image": "i" },
    ]);
    let uid = world.apply(manifest);
    world.run(secs(5));
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("PodInitializing"));
    world.exit(uid, "first", 0);
    world.run(secs(5));
    world.exit(uid, "second", 0);
    world.run(secs(5));
    let order: Vec<_> = world.starts.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(order, ["first", "side", "second", "c"]);
    assert!(is_ready(&world.status("a")));
}

#[test]
fn an_image_that_is_missing_is_tried_again_with_back_off() {
    let mut world = World::new();
    world.refused_images.insert("nginx".into(), Fault::Pull);
    world.apply(pod("a", json!({})));
    world.run(secs(5));
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("ErrImagePull"));
    world.run(secs(10));
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("ImagePullBackOff"));
    world.refused_images.clear();
    world.run(secs(30));
    assert!(is_ready(&world.status("a")));
    assert_eq!(container(&world.status("a")).restart_count, 0);
}

#[test]
fn a_pod_that_does_not_fit_fails_with_the_reason() {
    let mut world = World::new();
    let asks = |cpu: &str| json!({ "resources": { "requests": { "cpu": cpu } } });
    world.apply(pod("a", asks("3")));
    world.run(secs(5));
    world.apply(pod("b", asks("1500m")));
    world.run(secs(5));
    let status = world.status("b");
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    let message = status.message.unwrap();
    assert!(message.contains("requested: 1500, used: 3000, capacity: 4000"), "{message}");
    world.delete("a");
    world.run(secs(5));
    world.apply(pod("c", asks("1500m")));
    world.run(secs(5));
    assert!(is_ready(&world.status("c")), "the room is free again");
}

#[test]
fn readiness_turns_at_its_thresholds_and_kills_nothing() {
    let mut world = World::new();
    let probe = json!({ "readinessProbe": {
        "httpGet": { "port": 80, "path": "/" }, "periodSeconds": 10, "failureThreshold": 3,
        "successThreshold": 2, "initialDelaySeconds": 5,
    }});
    world.apply(pod("a", probe));
    world.run(secs(1));
    assert!(!is_ready(&world.status("a")));
    while world.probes.len() < 2 {
        assert!(!is_ready(&world.status("a")));
        world.run(Duration::from_millis(100));
    }
    assert!(world.probes[0].0 >= Time::from_secs(5), "{:?}", world.probes);
    assert!(is_ready(&world.status("a")));
    world.healthy.insert(Purpose::Readiness, false);
    let first_failure = world.probes.len();
    while world.probes.len() < first_failure + 3 {
        assert!(is_ready(&world.status("a")));
        world.run(Duration::from_millis(100));
    }
    assert!(!is_ready(&world.status("a")));
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn liveness_kills_after_its_threshold_and_waits_for_startup() {
    let mut world = World::new();
    world.healthy = BTreeMap::from([(Purpose::Startup, false), (Purpose::Liveness, false)]);
    world.apply(pod("a", json!({
        "startupProbe": { "tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 30 },
        "livenessProbe": { "tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 3 },
    })));
    world.run(secs(10));
    assert!(world.probes.iter().all(|(_, purpose)| *purpose == Purpose::Startup));
    assert_eq!(container(&world.status("a")).started, Some(false));
    world.healthy.insert(Purpose::Startup, true);
    world.run(secs(2));
    assert_eq!(world.starts.len(), 1, "three failures take two periods at least");
    while world.starts.len() == 1 {
        world.run(Duration::from_millis(100));
    }
    assert!(world.now <= Time::from_secs(15), "killed by liveness and started again");
    let liveness = world.probes.iter().filter(|(_, p)| *p == Purpose::Liveness).count();
    assert_eq!(liveness, 3, "{:?}", world.probes);
    assert_eq!(container(&world.status("a")).restart_count, 1);
}

#[test]
fn a_static_pod_runs_without_the_api_and_has_a_mirror() {
    const PATH: &str = "/etc/kubernetes/manifests/web.json";
    let mut world = World::new();
    let text = pod("web", json!({})).to_string();
    world.manifests.insert(PATH.into(), text.as_str().into());
    world.cut = true;
    world.run(secs(5));
    assert_eq!(world.starts.len(), 1);
    world.cut = false;
    world.connected();
    world.run(secs(15));
    let mirror = world.pod("web-n1").expect("there is a mirror");
    assert!(mirror.annotation("kubernetes.io/config.mirror").is_some());
    let owner = mirror.controller().expect("it is its node's").0;
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "n1"));
    assert!(is_ready(&world.status("web-n1")));
    world.delete("web-n1");
    world.run(secs(15));
    assert_ne!(world.pod("web-n1").expect("a new mirror").uid, mirror.uid);
    world.restart(Loss::Process);
    world.run(secs(15));
    assert_eq!(world.starts.len(), 1, "neither a delete nor a restart touches it");
    world.tell_file(PATH, None);
    world.run(secs(15));
    assert!(world.pod("web-n1").is_none());
    assert!(world.sandboxes.is_empty());
}

fn service(namespace: &str, name: &str, ip: &str, ports: serde_json::Value) -> Arc<Object> {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "clusterIP": ip, "ports": ports },
    });
    Arc::new(Object::from_json(manifest).unwrap())
}

#[test]
fn service_variables_are_upstreams() {
    let mut services = Snapshot::empty(1);
    for object in [
        service("default", "kubernetes", "10.96.0.1", json!([{ "name": "https", "port": 443 }])),
        service(
            "shop",
            "redis-master",
            "10.96.0.11",
            json!([
                { "port": 6379 }, { "name": "metrics-x", "port": 9, "protocol": "UDP" }
            ]),
        ),
        service("shop", "headless", "None", json!([{ "port": 1 }])),
        service("other", "unseen", "10.96.0.12", json!([{ "port": 1 }])),
    ] {
        services.insert(object.key.clone(), object, 1);
    }
    let lines = |links| {
        let variables = env::service_variables(&services, "shop", links);
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    let kubernetes = [
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
        "KUBERNETES_PORT=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO=tcp",
        "KUBERNETES_PORT_443_TCP_PORT=443",
        "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
    ];
    let redis = [
        "REDIS_MASTER_SERVICE_HOST=10.96.0.11",
        "REDIS_MASTER_SERVICE_PORT=6379",
        "REDIS_MASTER_SERVICE_PORT_METRICS_X=9",
        "REDIS_MASTER_PORT=tcp://10.96.0.11:6379",
        "REDIS_MASTER_PORT_6379_TCP=tcp://10.96.0.11:6379",
        "REDIS_MASTER_PORT_6379_TCP_PROTO=tcp",
        "REDIS_MASTER_PORT_6379_TCP_PORT=6379",
        "REDIS_MASTER_PORT_6379_TCP_ADDR=10.96.0.11",
        "REDIS_MASTER_PORT_9_UDP=udp://10.96.0.11:9",
        "REDIS_MASTER_PORT_9_UDP_PROTO=udp",
        "REDIS_MASTER_PORT_9_UDP_PORT=9",
        "REDIS_MASTER_PORT_9_UDP_ADDR=10.96.0.11",
    ];
    assert_eq!(lines(true), [&redis[..], &kubernetes[..]].concat());
    assert_eq!(lines(false), kubernetes);
    let again = env::service_variables(&services.clone(), "shop", true);
    assert!(Arc::ptr_eq(&again, &env::service_variables(&services, "shop", true)), "one memo");
}

#[test]
fn a_container_gets_its_environment_with_references_resolved() {
    let mut world = World::new();
    world.objects.insert(
        (Kind::Service, Key::new("default", "db")),
        service("default", "db", "10.96.0.9", json!([{ "port": 5432 }])),
    );
    world.apply(pod("a", json!({
        "args": ["--db=$(DB_URL)", "$$(DB_URL)", "$(NONE)"],
        "env": [
            { "name": "DB_URL", "value": "pg://$(DB_SERVICE_HOST):$(DB_SERVICE_PORT)/$(LATER)" },
            { "name": "LATER", "value": "x" },
            { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "DB_PORT", "value": "mine" },
        ],
    })));
    world.run(secs(5));
    let spec = &world.specs[0];
    let variables: BTreeMap<_, _> = spec.variables().cloned().collect();
    assert_eq!(variables["DB_URL"], "pg://10.96.0.9:5432/$(LATER)");
    assert_eq!(variables["NODE"], NODE);
    assert_eq!(variables["IP"], "10.244.1.2");
    assert_eq!(variables["DB_PORT"], "mine");
    assert_eq!(variables["DB_PORT_5432_TCP_PROTO"], "tcp");
    assert_eq!(spec.args, ["--db=pg://10.96.0.9:5432/$(LATER)", "$(DB_URL)", "$(NONE)"]);
    let resolv = &world.sandboxes.values().next().unwrap().spec.resolv_conf;
    assert!(resolv.starts_with("search default.svc.cluster.local"), "{resolv}");
}

#[derive(Clone, Debug)]
enum Act {
    Add,
    Delete(usize),
    ForceDelete(usize),
    Exit(usize),
    Crash(usize, bool),
    Run(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Add),
        3 => (0usize..8).prop_map(Act::Delete),
        1 => (0usize..8).prop_map(Act::ForceDelete),
        1 => (0usize..8).prop_map(Act::Exit),
        2 => (1usize..12, any::<bool>()).prop_map(|(at, power)| Act::Crash(at, power)),
        3 => (0u64..3_000).prop_map(Act::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// FIELD's I10: whatever happens, the addresses held are those of the sandboxes that live,
    /// each once, and those are the pods of the API.
    #[test]
    fn addresses_held_are_those_of_live_sandboxes(acts in prop::collection::vec(act(), 1..30)) {
        let mut world = World::new();
        world.run(secs(2));
        let mut names: Vec<String> = Vec::new();
        for (index, act) in acts.into_iter().enumerate() {
            let name = |i: usize| names.get(i).cloned().filter(|n| world.pod(n).is_some());
            match act {
                Act::Add => {
                    names.push(format!("p{index}"));
                    world.apply(pod(&format!("p{index}"), json!({})));
                }
                Act::Delete(i) => if let Some(name) = name(i) { world.delete(&name) },
                Act::ForceDelete(i) => if let Some(name) = name(i) {
                    world.remove(Kind::Pod, &Key::new("default", name));
                },
                Act::Exit(i) => {
                    let uid = name(i).map_or(Uid::NONE, |name| world.pod(&name).unwrap().uid);
                    let runs = world.sandboxes.get(&uid).and_then(|s| s.containers.get("c"));
                    if matches!(runs, Some((_, None))) { world.exit(uid, "c", 1) }
                }
                Act::Crash(at, power) => {
                    let loss = if power { Loss::Power } else { Loss::Process };
                    world.crash = Some((world.handled + at, loss));
                }
                Act::Run(millis) => world.run(Duration::from_millis(millis)),
            }
        }
        world.run(secs(400));
        let pods: BTreeSet<Uid> = world.objects.iter()
            .filter(|((kind, _), _)| *kind == Kind::Pod).map(|(_, object)| object.uid).collect();
        let live: BTreeMap<Ipv4Addr, Uid> =
            world.sandboxes.iter().filter_map(|(uid, s)| Some((s.ip()?, *uid))).collect();
        let held: BTreeMap<Ipv4Addr, Uid> = world.kubelet.local.ipam.held().collect();
        prop_assert_eq!(&held, &live);
        prop_assert_eq!(live.into_values().collect::<BTreeSet<_>>(), pods.clone());
        prop_assert_eq!(world.sandboxes.len(), pods.len(), "no two sandboxes with one address");
        for name in names.iter().filter(|name| world.pod(name).is_some()) {
            prop_assert!(is_ready(&world.status(name)), "{} {:?}", name, world.status(name));
        }
    }
}
