//! Autoscalers: that they follow what pods use, say why they do not, and leave alone what is right.

use super::fake::{self, World};
use super::*;
use crate::objects::{Key, Name};
use crate::ports::metrics::Usage;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerStatus;
use serde_json::Value;
use std::collections::BTreeMap;

fn world(seed: u64) -> World<Controllers> {
    let (autoscales, events, node_grace) = (true, true, Duration::from_secs(86_400));
    let mut world = World::new(Config { autoscales, events, node_grace, ..config() }, seed, calm());
    world.put(node("n0", "z"));
    world
}

fn key() -> Key {
    Key::new("default", "web")
}

/// Half of what is requested, between 2 and 10 pods.
fn autoscaler(more: Value) -> Object {
    let mut spec = json!({
        "minReplicas": 2, "maxReplicas": 10,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}}],
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    fake::object(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"}, "spec": spec}))
}

fn target(replicas: i32) -> Object {
    fake::object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}},
    }))
}

/// What kubelets say of all pods, and that each uses its share of so many thousandths.
fn load(world: &mut World<Controllers>, cpu: i64) {
    kubelets(world, 100);
    for pod in world.all(Kind::Pod) {
        let mut next = (*pod).clone();
        let Body::Pod(body) = &mut next.body else { continue };
        let since = time(Wall::from_unix_secs(1_600_000_000));
        body.edit(|_, status| {
            let status = Arc::make_mut(status);
            status.start_time = Some(since.clone());
            for condition in status.conditions.iter_mut().flatten() {
                condition.last_transition_time = Some(since.clone());
            }
        });
        world.put(next);
    }
    let pods = world.all(Kind::Pod);
    let share = cpu / i64::try_from(pods.len().max(1)).expect("a few");
    let usage = |pod: &Arc<Object>| {
        let of = BTreeMap::from([(Name::from("cpu"), share)]);
        let containers = BTreeMap::from([(Name::from("c"), of)]);
        let (at, window) = (Wall::from_unix_secs(1_700_000_000), Duration::from_secs(15));
        (pod.key.name.clone(), Usage { at, window, containers })
    };
    world.measured = Ok(Arc::new(pods.iter().map(usage).collect()));
}

fn replicas(world: &World<Controllers>) -> i32 {
    let target = world.get(Kind::Deployment, &key()).expect("it is there");
    target.deployment().and_then(|(spec, _)| spec.replicas).unwrap_or(1)
}

fn status(world: &World<Controllers>) -> HorizontalPodAutoscalerStatus {
    let object = world.get(Kind::HorizontalPodAutoscaler, &key()).expect("it is there");
    crate::controllers::plain::status(&object)
}

/// Status, reason and message of a condition.
fn condition(world: &World<Controllers>, kind: &str) -> (String, String, String) {
    let all = status(world).conditions.unwrap_or_default();
    let one = all.into_iter().find(|one| one.type_ == kind).unwrap_or_default();
    (one.status, one.reason.unwrap_or_default(), one.message.unwrap_or_default())
}

fn said(status: &str, reason: &str) -> impl Fn(&(String, String, String)) -> bool {
    move |(is, why, _)| is == status && why == reason
}

fn pass(world: &mut World<Controllers>, seconds: u64, cpu: i64) {
    for _ in 0..seconds {
        load(world, cpu);
        world.run(Duration::from_secs(1));
    }
}

#[test]
fn it_follows_the_load_up_at_once_and_down_after_five_minutes() {
    let mut world = world(1);
    world.put(target(2));
    world.put(autoscaler(json!({})));
    world.run(Duration::from_secs(1));
    pass(&mut world, 60, 1000);
    assert_eq!(replicas(&world), 2);
    pass(&mut world, 60, 3000);
    assert_eq!(replicas(&world), 6, "{:?}", status(&world));
    assert!(said("True", "ValidMetricFound")(&condition(&world, "ScalingActive")));
    let now = status(&world);
    assert_eq!((now.current_replicas, now.desired_replicas), (Some(6), 6));
    let told = now.current_metrics.and_then(|all| all.into_iter().next()?.resource);
    let value = told.expect("a metric").current;
    assert_eq!(
        (value.average_utilization, value.average_value.map(|q| q.0)),
        (Some(50), Some("500m".to_owned()))
    );
    pass(&mut world, 200, 1000);
    assert_eq!(replicas(&world), 6, "it was more a short while ago");
    assert!(said("True", "ScaleDownStabilized")(&condition(&world, "AbleToScale")));
    pass(&mut world, 200, 1000);
    assert_eq!(replicas(&world), 2);
    // Two were enough for so long that they are recommended no more.
    pass(&mut world, 320, 100);
    assert!(said("True", "TooFewReplicas")(&condition(&world, "ScalingLimited")));
    let events = world.all(Kind::Event);
    let message = |object: &Arc<Object>| object.event()?.message.clone();
    let up = "New size: 6; reason: cpu resource utilization (percentage of request) above target";
    assert!(events.iter().filter_map(message).any(|text| text == up));
}

#[test]
fn a_settled_one_writes_nothing() {
    let mut world = world(2);
    world.put(target(3));
    world.put(autoscaler(json!({})));
    world.run(Duration::from_secs(1));
    pass(&mut world, 40, 1500);
    let writes = |world: &World<Controllers>| {
        let of = |verb| world.writes.get(&(Kind::HorizontalPodAutoscaler, verb)).copied();
        (of("update status of"), world.writes.get(&(Kind::Deployment, "patch")).copied())
    };
    let before = writes(&world);
    pass(&mut world, 120, 1500);
    assert_eq!(writes(&world), before);
    assert_eq!(before.1, None);
}

#[test]
fn without_metrics_it_says_so_and_keeps_its_hands_off() {
    let mut world = world(3);
    world.put(target(3));
    world.put(autoscaler(json!({})));
    world.measured = Err("the server could not find the requested resource (get \
        pods.metrics.k8s.io)"
        .to_owned());
    world.run(Duration::from_secs(60));
    assert_eq!(replicas(&world), 3);
    let active = condition(&world, "ScalingActive");
    assert!(said("False", "FailedGetResourceMetric")(&active), "{active:?}");
    assert_eq!(
        active.2,
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable \
         to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the \
         server could not find the requested resource (get pods.metrics.k8s.io)"
    );
    assert!(said("True", "SucceededGetScale")(&condition(&world, "AbleToScale")));
    let writes = world.writes[&(Kind::HorizontalPodAutoscaler, "update status of")];
    world.run(Duration::from_secs(120));
    assert_eq!(world.writes[&(Kind::HorizontalPodAutoscaler, "update status of")], writes);
    // Out of its bounds it is put back all the same.
    world.put(target(20));
    world.run(Duration::from_secs(30));
    assert_eq!(replicas(&world), 10);
}

#[test]
fn what_is_not_there_or_is_switched_off_is_not_scaled() {
    let mut world = world(4);
    world.put(autoscaler(json!({})));
    world.run(Duration::from_secs(5));
    let (status, reason, message) = condition(&world, "AbleToScale");
    assert_eq!((&*status, &*reason), ("False", "FailedGetScale"));
    assert!(message.ends_with("current scale: deployments.apps \"web\" not found"), "{message}");
    world.put(target(0));
    world.run(Duration::from_secs(30));
    assert!(said("False", "ScalingDisabled")(&condition(&world, "ScalingActive")));
    assert_eq!(replicas(&world), 0);
}

#[test]
fn of_several_metrics_the_largest_counts_and_one_that_fails_only_holds_it_up() {
    let mut world = world(5);
    let metrics = json!([
        {"type": "Pods", "pods": {"metric": {"name": "queries"},
            "target": {"type": "AverageValue", "averageValue": "10"}}},
        {"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "AverageValue", "averageValue": "500m"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 100}}},
    ]);
    world.put(target(4));
    world.put(autoscaler(json!({"metrics": metrics})));
    world.run(Duration::from_secs(1));
    pass(&mut world, 60, 3000);
    assert_eq!(replicas(&world), 6, "{:?}", status(&world));
    pass(&mut world, 400, 1000);
    assert_eq!(replicas(&world), 6, "the one that failed may ask for more");
    let active = condition(&world, "ScalingActive");
    assert!(said("False", "FailedGetPodsMetric")(&active), "{active:?}");
}
