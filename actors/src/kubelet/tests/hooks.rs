//! Hooks of containers' lives, and how containers are stopped around them.

use super::events::{says, told, world};
use super::world::{World, pod};
use super::*;
use crate::ports::probe::{Check, NOT_TLS};
use serde_json::Value;

fn hooked(moment: &str, hook: Value) -> Value {
    json!({ "lifecycle": { moment: hook } })
}

fn exec() -> Value {
    json!({ "exec": { "command": ["/bin/sh", "-c", "exit 0"] } })
}

/// A pod that runs, with this hook before it is stopped.
fn running(hook: Value) -> (World, Uid) {
    let mut world = world();
    world.run(secs(5));
    let uid = world.apply(pod("a", hooked("preStop", hook)));
    world.run(secs(5));
    assert!(is_ready(&world.status("a")));
    (world, uid)
}

/// When the container was told to end, in seconds since `begun`, and with how many more.
fn stopped(world: &World, begun: Time) -> Vec<(u64, u64)> {
    let stops = world.stops.iter();
    stops.map(|(at, _, grace)| (at.since(begun).as_secs(), grace.as_secs())).collect()
}

#[test]
fn nothing_goes_on_until_post_start_has_ended() {
    let mut world = world();
    let probe = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 1 });
    let mut manifest = pod("a", hooked("postStart", exec()));
    manifest["spec"]["containers"][0]["readinessProbe"] = probe;
    let second = json!({ "name": "d", "image": "nginx" });
    manifest["spec"]["containers"].as_array_mut().expect("some").push(second);
    let uid = world.apply(manifest);
    world.run(secs(60));
    assert!(matches!(&world.hooks[0].1.check, Check::Exec { command } if command.len() == 3));
    assert_eq!(world.hooks[0].1.timeout, None);
    assert_eq!(world.starts, [(uid, "c".into(), 0)], "its neighbour waits");
    assert!(world.probes.is_empty());
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("ContainerCreating"));
    world.hook_ends(Ok(()));
    world.run(secs(5));
    assert_eq!(world.starts.len(), 2);
    assert!(is_ready(&world.status("a")), "{:?}", world.status("a"));
    assert_eq!(world.hooks.len(), 1);
}

#[test]
fn a_container_whose_post_start_fails_is_killed_and_started_again() {
    let mut world = world();
    let uid = world.apply(pod("a", hooked("postStart", exec())));
    world.run(secs(5));
    let why = "command '/bin/sh -c exit 0' exited with 1: , message: \"\"";
    world.hook_ends(Err(why));
    world.run(Duration::ZERO);
    for line in [
        "Warning FailedPostStartHook a spec.containers{c}: PostStartHook failed",
        "Normal Killing a spec.containers{c}: FailedPostStartHook",
    ] {
        assert!(says(&world, line), "{line} is not in {:#?}", told(&world));
    }
    assert_eq!(stopped(&world, Time::from_secs(0))[0].1, 30);
    assert_eq!(world.starts.len(), 2, "at once, as after any first end");
    let status = world.status("a");
    let state = container(&status).state.as_ref().and_then(|state| state.waiting.clone());
    let state = state.expect("it waits");
    assert_eq!(state.reason.as_deref(), Some("PostStartHookError"));
    let message = format!(
        "Exec lifecycle hook ([/bin/sh -c exit 0]) for Container \"c\" in Pod \"a_default({uid})\" \
         failed - error: {why}"
    );
    assert_eq!(state.message.as_deref(), Some(message.as_str()));

    // The second time it backs off, which is said once why has been said for a while.
    world.hook_ends(Err(why));
    world.run(secs(5));
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("PostStartHookError"));
    world.run(secs(6));
    assert_eq!(world.starts.len(), 3);
    world.hook_ends(Ok(()));
    world.run(secs(5));
    assert!(is_ready(&world.status("a")));
    assert_eq!(container(&world.status("a")).restart_count, 2);
}

#[test]
fn a_back_off_after_a_failed_hook_is_told_of_in_the_end() {
    let mut world = world();
    world.apply(pod("a", hooked("postStart", exec())));
    world.run(secs(5));
    for _ in 0..3 {
        world.hook_ends(Err("x"));
        world.run(secs(11));
    }
    assert_eq!(waiting(&world.status("a")).as_deref(), Some("CrashLoopBackOff"));
}

#[test]
fn post_start_may_sleep() {
    let mut world = world();
    world.apply(pod("a", hooked("postStart", json!({ "sleep": { "seconds": 30 } }))));
    world.run(secs(29));
    assert!(!is_ready(&world.status("a")));
    world.run(secs(5));
    assert!(is_ready(&world.status("a")));
    assert!(world.hooks.is_empty(), "nobody is asked");
}

#[test]
fn pre_stop_comes_before_the_end_and_its_time_counts() {
    let (mut world, _) = running(exec());
    let begun = world.now;
    world.delete("a");
    world.run(secs(12));
    assert_eq!(world.hooks.len(), 1);
    assert!(world.stops.is_empty());
    assert!(says(&world, "Normal Killing a spec.containers{c}: Stopping container c"));
    world.hook_ends(Ok(()));
    world.run(secs(5));
    assert_eq!(stopped(&world, begun), [(12, 18)]);
    assert!(world.pod("a").is_none());
}

#[test]
fn a_pre_stop_that_does_not_end_is_left_and_two_seconds_remain() {
    let (mut world, _) = running(exec());
    let begun = world.now;
    world.delete("a");
    world.run(secs(40));
    assert_eq!(stopped(&world, begun), [(30, 2)]);
}

#[test]
fn a_sleep_is_over_when_the_grace_is() {
    let (mut world, _) = running(json!({ "sleep": { "seconds": 60 } }));
    let begun = world.now;
    world.delete("a");
    world.run(secs(60));
    assert_eq!(stopped(&world, begun), [(30, 2)]);
}

#[test]
fn a_pre_stop_that_fails_is_told_of_and_the_container_ends() {
    let (mut world, _) = running(exec());
    world.delete("a");
    world.run(secs(1));
    world.hook_ends(Err("x"));
    world.run(Duration::ZERO);
    let failed = "Warning FailedPreStopHook a spec.containers{c}: PreStopHook failed";
    assert!(says(&world, failed), "{:#?}", told(&world));
    assert_eq!(world.stops.len(), 1);
}

#[test]
fn pre_stop_runs_before_what_is_ill_is_killed_and_not_after_an_end_of_its_own() {
    let mut world = world();
    let probe = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 1,
        "terminationGracePeriodSeconds": 7 });
    let mut manifest = pod("a", hooked("preStop", exec()));
    manifest["spec"]["containers"][0]["livenessProbe"] = probe;
    let uid = world.apply(manifest);
    world.run(secs(5));
    world.exit(uid, "c", 1);
    world.run(secs(5));
    assert!(world.hooks.is_empty());
    assert_eq!(world.starts.len(), 2);
    world.healthy.insert(Purpose::Liveness, false);
    world.run(secs(5));
    let begun = world.hooks[0].0;
    world.run(secs(30));
    assert_eq!(stopped(&world, begun)[0], (7, 2));
}

#[test]
fn a_kubelet_that_starts_anew_runs_pre_stop_anew_and_post_start_never() {
    let mut world = world();
    let both = json!({ "lifecycle": { "postStart": exec(), "preStop": exec() } });
    world.apply(pod("a", both));
    world.run(secs(5));
    assert_eq!(world.hooks.len(), 1);
    world.restart(Loss::Process);
    world.run(secs(5));
    assert_eq!((world.hooks.len(), world.starts.len()), (1, 1));
    assert!(is_ready(&world.status("a")), "what runs has started");
    world.delete("a");
    world.run(secs(10));
    world.restart(Loss::Process);
    world.run(secs(5));
    assert_eq!(world.hooks.len(), 3);
    assert!(world.stops.is_empty());
    world.hook_ends(Ok(()));
    world.run(secs(5));
    assert!(world.pod("a").is_none());
}

#[test]
fn who_ends_before_it_was_stopped_is_gone_and_its_hook_with_it() {
    let (mut world, uid) = running(exec());
    world.delete("a");
    world.run(secs(1));
    world.exit(uid, "c", 0);
    world.run(secs(5));
    assert!(world.pod("a").is_none());
    assert!(world.stops.is_empty());
}

#[test]
fn a_pod_that_is_deleted_while_it_starts_waits_for_no_post_start() {
    let mut world = world();
    world.apply(pod("a", hooked("postStart", exec())));
    world.run(secs(5));
    world.delete("a");
    world.run(secs(5));
    assert!(world.pod("a").is_none());
    assert!(says(&world, "Warning FailedPostStartHook a spec.containers{c}: PostStartHook failed"));
    assert!(says(&world, "Normal Killing a spec.containers{c}: Stopping container c"));
}

#[test]
fn a_get_goes_to_the_pod_by_its_ports_name_and_without_tls_to_who_has_none() {
    let headers = json!([{ "name": "Authorization", "value": "s" }, { "name": "X", "value": "y" }]);
    let get = json!({ "httpGet": {
        "path": "bye", "port": "web", "scheme": "HTTPS", "httpHeaders": headers } });
    let mut world = world();
    let mut manifest = pod("a", hooked("preStop", get));
    manifest["spec"]["containers"][0]["ports"] = json!([{ "name": "web", "containerPort": 81 }]);
    world.apply(manifest);
    world.run(secs(5));
    world.delete("a");
    world.run(secs(1));
    let asked = |world: &World| match &world.hooks.last().expect("a hook").1.check {
        Check::Http { ip, get } => {
            (get.authority(*ip), get.path.to_string(), get.tls, get.headers.len())
        }
        other => panic!("{other:?}"),
    };
    let whom = "10.244.1.2:81";
    assert_eq!(asked(&world), (whom.to_owned(), "/bye".to_owned(), true, 2));
    world.hook_ends(Err(NOT_TLS));
    world.run(secs(1));
    assert_eq!(asked(&world), (whom.to_owned(), "/bye".to_owned(), false, 1));
    world.hook_ends(Ok(()));
    world.run(Duration::ZERO);
    let told_of = format!(
        "Warning LifecycleHTTPFallback a: request to HTTPS lifecycle hook {whom} got HTTP \
         response, retry with HTTP succeeded"
    );
    assert!(says(&world, &told_of), "{:#?}", told(&world));
    assert_eq!(world.stops.len(), 1);
}

#[test]
fn a_hook_that_cannot_be_run_fails() {
    let mut world = world();
    world.apply(pod("a", hooked("postStart", json!({ "tcpSocket": { "port": 80 } }))));
    world.run(secs(3));
    let status = world.status("a");
    let message = container(&status).state.as_ref().and_then(|state| state.waiting.clone());
    assert_eq!(
        message.and_then(|waiting| waiting.message).as_deref(),
        Some(
            "Cannot run handler: invalid handler: &LifecycleHandler{Exec:nil,HTTPGet:nil,\
             TCPSocket:&TCPSocketAction{Port:{0 80 },Host:,},Sleep:nil,}"
        )
    );
}

#[test]
fn a_late_answer_is_not_the_next_attempts() {
    let mut world = world();
    let probe = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 1,
        "terminationGracePeriodSeconds": 20 });
    let mut manifest = pod("a", hooked("preStop", exec()));
    manifest["spec"]["containers"][0]["livenessProbe"] = probe;
    world.healthy.insert(Purpose::Liveness, false);
    world.apply(manifest);
    while world.hooks.len() < 2 {
        world.run(secs(1));
    }
    let attempts = world.hooks.iter().map(|(_, request)| request.purpose).collect::<Vec<_>>();
    assert_eq!(attempts, [0, 1].map(|attempt| Purpose::PreStop { attempt }));
    assert_eq!(world.stops.len(), 1, "the first was left when its time was over");
    world.hook_answers(0, Ok(()));
    world.run(Duration::ZERO);
    assert_eq!(world.stops.len(), 1);
    world.hook_answers(1, Ok(()));
    world.run(Duration::ZERO);
    assert_eq!(world.stops.len(), 2);
}
