//! PodDisruptionBudgets: what they allow of what is there, and what is noted of who went.

use super::fake::object;
use super::*;
use crate::objects::Key;
use k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus;
use kubesim_runtime::Time;
use serde_json::Value;

fn key() -> Key {
    Key::new("default", "web")
}

fn budget(spec: &Value) -> Object {
    object(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default", "generation": 1}, "spec": spec,
    }))
}

fn selecting(field: &str, value: impl Into<Value>) -> Value {
    json!({field: value.into(), "selector": {"matchLabels": {"app": "web"}}})
}

fn stored(world: &World<Controllers>) -> PodDisruptionBudgetStatus {
    let found = world.get(Kind::PodDisruptionBudget, &key()).unwrap();
    crate::controllers::plain::status(&found)
}

/// Expected, desired, healthy, allowed.
fn numbers(world: &World<Controllers>) -> (i32, i32, i32, i32) {
    let PodDisruptionBudgetStatus {
        expected_pods,
        desired_healthy,
        current_healthy,
        disruptions_allowed,
        ..
    } = stored(world);
    (expected_pods, desired_healthy, current_healthy, disruptions_allowed)
}

/// Status, reason and message of its condition.
fn said(world: &World<Controllers>) -> (String, String, String) {
    let all = stored(world).conditions.unwrap_or_default();
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!(one.type_, "DisruptionAllowed");
    (one.status.clone(), one.reason.clone(), one.message.clone())
}

fn soon(world: &mut World<Controllers>) {
    world.run(Duration::from_secs(2));
}

/// A Deployment of four, all ready, on a node that nobody misses.
fn of_four() -> World<Controllers> {
    let config = Config { node_grace: Duration::from_secs(86_400), ..config() };
    let mut world = World::new(config, 1, calm());
    world.put(node("n0", "a"));
    world.put(deployment(4, "a"));
    for _ in 0..4 {
        soon(&mut world);
        kubelets(&mut world, 10);
    }
    soon(&mut world);
    assert_eq!(active(&world), 4);
    world
}

#[test]
fn numbers_and_shares_are_of_what_the_owner_wants() {
    let mut world = of_four();
    for (spec, wanted) in [
        (selecting("minAvailable", 3), (4, 3, 4, 1)),
        (selecting("minAvailable", "60%"), (4, 3, 4, 1)),
        (selecting("maxUnavailable", 3), (4, 1, 4, 3)),
        // Of four, rounded up, two may go.
        (selecting("maxUnavailable", "30%"), (4, 2, 4, 2)),
        (selecting("minAvailable", "100%"), (4, 4, 4, 0)),
    ] {
        world.put(budget(&spec));
        soon(&mut world);
        assert_eq!(numbers(&world), wanted, "{spec}");
        assert_eq!(stored(&world).observed_generation, Some(1));
    }
    assert_eq!(said(&world), ("False".into(), "InsufficientPods".into(), String::new()));
    let pod = &world.all(Kind::Pod)[0];
    world.remove(Kind::Pod, &pod.key);
    world.put(budget(&selecting("maxUnavailable", 2)));
    world.run(Duration::from_millis(200));
    // What is missing is wanted still.
    assert_eq!(numbers(&world), (4, 2, 3, 1));
    assert_eq!(said(&world).1, "SufficientPods");
}

#[test]
fn a_change_of_a_pod_is_seen_and_nothing_is_written_twice() {
    let mut world = of_four();
    world.put(budget(&selecting("minAvailable", 2)));
    soon(&mut world);
    let writes = |world: &World<Controllers>| {
        let key = (Kind::PodDisruptionBudget, "update status of");
        world.writes.get(&key).copied().unwrap_or(0)
    };
    assert_eq!((numbers(&world).3, writes(&world)), (2, 1));
    let mut pod = (*world.all(Kind::Pod)[0]).clone();
    Arc::make_mut(&mut pod.meta).annotations = Some([("a".to_owned(), "b".to_owned())].into());
    world.put(pod.clone());
    soon(&mut world);
    assert_eq!(writes(&world), 1);
    let Body::Pod(body) = &mut pod.body else { panic!("a pod") };
    body.edit(|_, status| Arc::make_mut(status).conditions = None);
    world.put(pod.clone());
    soon(&mut world);
    assert_eq!((numbers(&world), writes(&world)), ((4, 2, 3, 1), 2));
    // Of no interest to the budget any more, and to its ReplicaSet neither, which makes another.
    Arc::make_mut(&mut pod.meta).labels = None;
    world.put(pod);
    soon(&mut world);
    assert_eq!(numbers(&world).2, 3);
    assert!(numbers(&world).0 <= 4);
}

#[test]
fn who_has_no_scale_is_told_and_nothing_is_allowed() {
    let mut world = world(2, calm());
    // Nobody but the collector cares about one, and for that it is there.
    world.put(object(json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
                            "metadata": {"name": "r", "namespace": "default"}, "revision": 1})));
    let owner = world.all(Kind::ControllerRevision)[0].as_controller();
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    world.put(object(pod.clone()));
    world.put(budget(&selecting("minAvailable", "50%")));
    world.run(Duration::from_millis(500));
    // A pod without an owner counts for nothing.
    assert_eq!(numbers(&world), (0, 0, 0, 0));
    pod["metadata"]["name"] = "q".into();
    pod["metadata"]["ownerReferences"] = json!([owner]);
    world.put(object(pod));
    world.run(Duration::from_millis(100));
    let why = "controllerrevisions.apps does not implement the scale subresource";
    assert_eq!(said(&world), ("False".into(), "SyncFailed".into(), why.into()));
}

#[test]
fn an_evicted_pod_counts_as_gone_for_two_minutes() {
    let mut world = of_four();
    world.put(budget(&selecting("minAvailable", 1)));
    soon(&mut world);
    assert_eq!(numbers(&world).3, 3);
    let since = world.now;
    let at = time(Wall::from_unix_secs(1_700_000_000) + since.since(Time::ZERO));
    let found = world.get(Kind::PodDisruptionBudget, &key()).unwrap();
    let name = world.all(Kind::Pod)[0].key.name.to_string();
    let disrupted_pods = Some([(name, at.clone()), ("elsewhere".to_owned(), at)].into());
    let status = PodDisruptionBudgetStatus { disrupted_pods, ..stored(&world) };
    let request = crate::controllers::plain::write_status(&found, &status).unwrap();
    world.apply(&request).unwrap();
    soon(&mut world);
    assert_eq!(numbers(&world), (4, 1, 3, 2));
    assert_eq!(stored(&world).disrupted_pods.map(|pods| pods.len()), Some(1));
    world.run(Duration::from_secs(115));
    assert_eq!(numbers(&world).3, 2);
    world.run(Duration::from_secs(5));
    assert_eq!((numbers(&world).3, stored(&world).disrupted_pods), (3, None));
}

#[test]
fn a_pod_that_was_not_disrupted_after_all_says_so() {
    let mut world = of_four();
    let mut pod = (*world.all(Kind::Pod)[0]).clone();
    let key = pod.key.clone();
    let Body::Pod(body) = &mut pod.body else { panic!("a pod") };
    let since = time(Wall::from_unix_secs(1_700_000_000) + world.now.since(Time::ZERO));
    body.edit(|_, status| {
        Arc::make_mut(status).conditions.get_or_insert_default().push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(since),
            ..PodCondition::default()
        });
    });
    world.put(pod);
    let target = |world: &World<Controllers>| {
        let pod = world.get(Kind::Pod, &key).unwrap();
        let (_, status) = pod.pod().unwrap();
        crate::controllers::pods::condition(status, "DisruptionTarget").unwrap().status.clone()
    };
    world.run(Duration::from_secs(118));
    assert_eq!(target(&world), "True");
    world.run(Duration::from_secs(4));
    assert_eq!(target(&world), "False");
}
