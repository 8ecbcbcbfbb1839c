//! Ephemeral containers: put into a pod that runs, to look at it.

use super::events::{says, told, world};
use super::world::{World, pod};
use super::*;
use serde_json::Value;

fn debugger(name: &str) -> Value {
    json!({ "name": name, "image": "busybox", "targetContainerName": "c" })
}

/// As `kubectl debug` does it: those that are there, and another one.
fn look_into(world: &mut World, name: &str, all: &[Value]) {
    let mut manifest = world.pod(name).expect("a pod").to_json();
    manifest["spec"]["ephemeralContainers"] = json!(all);
    world.apply(manifest);
}

fn states(status: &PodStatus) -> Vec<(String, &'static str)> {
    let all = status.ephemeral_container_statuses.iter().flatten();
    let state = |one: &ContainerStatus| {
        let state = one.state.as_ref().expect("a state");
        match (&state.running, &state.terminated) {
            (Some(_), _) => "runs",
            (_, Some(_)) => "ended",
            _ => "waits",
        }
    };
    all.map(|one| (one.name.clone(), state(one))).collect()
}

fn state(name: &str, state: &'static str) -> (String, &'static str) {
    (name.to_owned(), state)
}

#[test]
fn one_is_started_beside_what_runs_and_never_again() {
    let mut world = world();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    look_into(&mut world, "a", &[debugger("d")]);
    world.run(secs(5));
    assert_eq!(world.starts, [(uid, "c".into(), 0), (uid, "d".into(), 0)]);
    let status = world.status("a");
    assert_eq!(states(&status), [state("d", "runs")]);
    assert!(is_ready(&status));
    let started = "Normal Started a spec.ephemeralContainers{d}: Started container d";
    assert!(says(&world, started), "{:#?}", told(&world));

    // It ends, however: that is nothing to the pod.
    world.exit(uid, "d", 3);
    world.run(secs(400));
    let status = world.status("a");
    assert_eq!(states(&status), [state("d", "ended")]);
    assert!(is_ready(&status) && status.phase.as_deref() == Some("Running"));
    assert_eq!(world.starts.len(), 2, "whatever the pod's policy is");
    assert_eq!(status.container_statuses.map(|all| all.len()), Some(1));

    // Another one, wherever the list has it.
    look_into(&mut world, "a", &[debugger("e"), debugger("d")]);
    world.run(secs(5));
    assert_eq!(world.starts[2..], [(uid, "e".into(), 0)]);
    assert_eq!(states(&world.status("a")), [state("d", "ended"), state("e", "runs")]);
}

#[test]
fn one_looks_at_a_pod_that_does_not_come_up() {
    let mut world = world();
    let mut manifest = pod("a", json!({}));
    manifest["spec"]["initContainers"] = json!([{ "name": "i", "image": "nginx" }]);
    let uid = world.apply(manifest);
    world.run(secs(5));
    look_into(&mut world, "a", &[debugger("d")]);
    world.run(secs(5));
    assert_eq!(world.starts, [(uid, "i".into(), 0), (uid, "d".into(), 0)]);
    assert_eq!(world.status("a").phase.as_deref(), Some("Pending"));
    world.exit(uid, "i", 0);
    world.run(secs(5));
    assert!(is_ready(&world.status("a")));
}

#[test]
fn one_may_need_what_its_pod_does_not() {
    let mut world = world();
    let map = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "k": "v" },
                "metadata": { "name": name, "namespace": "default" } })
    };
    world.apply(map("m"));
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    let needs = |name: &str, map: &str| {
        let mut one = debugger(name);
        one["envFrom"] = json!([{ "configMapRef": { "name": map } }]);
        one
    };
    look_into(&mut world, "a", &[needs("d", "m")]);
    world.run(secs(5));
    assert_eq!(world.starts, [(uid, "c".into(), 0), (uid, "d".into(), 0)]);
    look_into(&mut world, "a", &[needs("d", "m"), needs("e", "late")]);
    world.run(secs(5));
    let state = |world: &World| states(&world.status("a"))[1].1;
    assert_eq!((world.starts.len(), state(&world)), (2, "waits"));
    world.apply(map("late"));
    world.run(secs(60));
    assert_eq!((world.starts.len(), state(&world)), (3, "runs"));
}

#[test]
fn a_kubelet_that_starts_anew_knows_those_that_are_there() {
    let mut world = world();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    look_into(&mut world, "a", &[debugger("d"), debugger("e")]);
    world.run(secs(5));
    world.exit(uid, "e", 0);
    world.run(secs(5));
    let before = world.status("a");
    world.restart(Loss::Process);
    world.run(secs(60));
    assert_eq!(world.starts.len(), 3, "{:?}", world.starts);
    assert_eq!(states(&world.status("a")), [state("d", "runs"), state("e", "ended")]);
    assert_eq!(world.status("a").ephemeral_container_statuses, before.ephemeral_container_statuses);

    world.delete("a");
    world.run(secs(60));
    assert!(world.pod("a").is_none(), "it ends with its pod");
}
