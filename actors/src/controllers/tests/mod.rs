//! The controllers against a small API: what must hold at every moment, and what they settle on.

mod autoscalers;
mod cascade;
mod cron_jobs;
mod daemon_sets;
mod disruptions;
mod endpoints;
mod events;
pub mod fake;
mod garbage;
mod jobs;
mod namespaces;
mod nodes;
mod stateful_sets;
mod volumes;
mod workloads;

use super::{Config, Controllers};
use crate::objects::{Body, Kind, Object, time};
use fake::{Weather, World};
use k8s_openapi::api::core::v1::PodCondition;
use kubesim_runtime::Wall;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub fn config() -> Config {
    Config {
        pod_network: "10.244.0.0/16".parse().unwrap(),
        node_mask: 24,
        node_grace: Duration::from_secs(50),
        node_monitor: Duration::from_secs(5),
        root_ca: None,
        collects: Vec::new(),
        events: false,
        endpoints: false,
        autoscales: false,
        volumes: false,
    }
}

pub fn world(seed: u64, weather: Weather) -> World<Controllers> {
    World::new(config(), seed, weather)
}

pub fn calm() -> Weather {
    Weather { max_delay_ms: 2, ..Weather::default() }
}

/// What kubelets would do: bound pods become ready, deleted ones go. At most `most` of each.
pub fn kubelets(world: &mut World<Controllers>, most: usize) {
    let pods = world.all(Kind::Pod);
    for pod in pods.iter().filter(|pod| pod.deleting()).take(most) {
        world.remove(Kind::Pod, &pod.key);
    }
    let fresh = pods.iter().filter(|pod| !pod.deleting() && !super::pods::is_ready(pod));
    for (at, pod) in fresh.take(most).enumerate() {
        set_ready(world, pod, &format!("10.244.0.{}", 1 + at), "n0");
    }
}

pub fn set_ready(world: &mut World<Controllers>, pod: &Object, ip: &str, node: &str) {
    let mut next = pod.clone();
    let Body::Pod(pod) = &mut next.body else { return };
    pod.edit(|spec, status| {
        Arc::make_mut(spec).node_name.get_or_insert(node.to_owned());
        let status = Arc::make_mut(status);
        status.phase = Some("Running".to_owned());
        status.pod_ip = Some(ip.to_owned());
        status.conditions = Some(vec![PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(time(Wall::from_unix_secs(1_700_000_000))),
            ..PodCondition::default()
        }]);
    });
    world.put(next);
}

pub fn deployment(replicas: i32, image: &str) -> Object {
    fake::object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image,
                    "ports": [{"name": "http", "containerPort": 8080}]}]},
            },
        },
    }))
}

pub fn node(name: &str, zone: &str) -> Object {
    fake::object(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

pub fn active(world: &World<Controllers>) -> usize {
    world.all(Kind::Pod).iter().filter(|pod| super::pods::is_active(pod)).count()
}
