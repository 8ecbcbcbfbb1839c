//! What the kubelet makes of a runtime that is away, and of what it says went wrong.

use super::world::{World, pod};
use super::*;
use crate::ports::container::{Exit, Qos, Reply};

#[test]
fn a_runtime_that_is_away_makes_the_node_not_ready_until_it_lists_again() {
    let mut world = World::new();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    assert_eq!(node_ready(&world).unwrap().0, "True");
    let why = "container runtime is down: rpc error: code = DeadlineExceeded";
    world.hear(Reply::Down { why: why.into() });
    world.run(secs(1));
    assert_eq!(node_ready(&world), Some(("False".to_owned(), why.to_owned())));
    // What ran may run on: nothing is started or written about the pod.
    assert!(is_ready(&world.status("a")));
    assert_eq!(world.starts, [(uid, "c".into(), 0)]);
    world.hear(Reply::Listed { sandboxes: Arc::default() });
    world.run(secs(1));
    assert_eq!(node_ready(&world).unwrap().0, "True");
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn a_sandbox_that_went_is_made_again_and_its_containers_count_as_restarted() {
    let mut world = World::new();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    world.hear(Reply::SandboxRemoved { pod: uid });
    world.run(secs(5));
    assert_eq!(world.starts, [(uid, "c".into(), 0), (uid, "c".into(), 1)]);
    let status = world.status("a");
    assert!(is_ready(&status));
    let last = container(&status).last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));
    assert_eq!(container(&status).restart_count, 1);
}

#[test]
fn how_a_container_ended_is_the_runtimes_word() {
    let mut world = World::new();
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(5));
    let exit = Exit { message: "too much".into(), ..Exit::because("OOMKilled", 137) };
    world.sandboxes.get_mut(&uid).unwrap().containers.insert("c".into(), (0, Some(137)));
    world.hear(Reply::Exited { pod: uid, name: "c".into(), attempt: 0, exit });
    world.run(secs(5));
    let last = container(&world.status("a")).last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
    assert_eq!(last.message.as_deref(), Some("too much"));
}

#[test]
fn each_fault_has_the_reason_that_people_know() {
    let reason = |fault| {
        let mut world = World::new();
        world.refused_images.insert("nginx".into(), fault);
        world.apply(pod("a", json!({})));
        world.run(secs(5));
        waiting(&world.status("a")).unwrap()
    };
    assert_eq!(reason(Fault::Pull), "ErrImagePull");
    assert_eq!(reason(Fault::NeverPull), "ErrImageNeverPull");
    assert_eq!(reason(Fault::Config), "CreateContainerConfigError");
    assert_eq!(reason(Fault::Create), "CreateContainerError");
    assert_eq!(reason(Fault::Start), "RunContainerError");
}

/// One that failed to start is found to have ended, which counts as a crash.
#[test]
fn what_does_not_start_crashes() {
    let mut world = World::new();
    world.refused_images.insert("nginx".into(), Fault::Start);
    let uid = world.apply(pod("a", json!({})));
    world.run(secs(2));
    let exit = Exit::because("StartError", 128);
    world.hear(Reply::Exited { pod: uid, name: "c".into(), attempt: 0, exit });
    world.run(secs(1));
    let status = world.status("a");
    let last = container(&status).last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
    world.refused_images.clear();
    world.run(secs(30));
    assert_eq!(world.starts, [(uid, "c".into(), 1)]);
}

#[test]
fn the_runtime_is_asked_for_what_the_spec_says() {
    let mut world = World::new();
    world.apply(pod(
        "a",
        json!({
            "tty": true, "workingDir": "/tmp", "securityContext": { "privileged": true },
            "resources": { "limits": { "memory": "64Mi" } },
        }),
    ));
    world.run(secs(5));
    let sandbox = &world.sandboxes.values().next().unwrap().spec;
    assert!(sandbox.privileged && !sandbox.host_pid);
    assert_eq!(sandbox.qos, Qos::Burstable);
    let spec = &world.specs[0];
    assert!(spec.tty && !spec.stdin && spec.security.privileged);
    assert_eq!((&*spec.working_dir, spec.resources.memory_limit), ("/tmp", 64 << 20));
}
