//! What people are told of a pod's life.

use super::world::{World, config, pod};
use super::*;
use crate::kubelet::Config;
use crate::ports::container::Fault;

pub(super) fn world() -> World {
    World::of(Config { events: true, ..config() })
}

/// Type, reason, which part of which object, and what.
pub(super) fn told(world: &World) -> Vec<String> {
    let events = world.snapshot(Kind::Event);
    let mut events: Vec<_> = events.values().filter_map(|object| object.event()).collect();
    events.sort_by_key(|event| event.first_timestamp.clone().map(|time| time.0));
    let line = |event: &&Arc<crate::objects::Event>| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let about = &event.involved_object;
        let whom = format!("{} {}", text(&about.name), text(&about.field_path));
        format!(
            "{} {} {}: {}",
            text(&event.type_),
            text(&event.reason),
            whom.trim(),
            text(&event.message)
        )
    };
    events.iter().map(line).collect()
}

pub(super) fn says(world: &World, line: &str) -> bool {
    told(world).iter().any(|told| told == line)
}

#[test]
fn a_pod_that_comes_and_goes() {
    let mut world = world();
    world.run(secs(5));
    world.apply(pod("a", json!({})));
    world.run(secs(5));
    world.delete("a");
    world.run(secs(60));
    // It was registered as ready: it did not become so.
    for line in [
        "Normal Starting n1: Starting kubelet.",
        "Normal Created a spec.containers{c}: Created container: c",
        "Normal Started a spec.containers{c}: Started container c",
        "Normal Killing a spec.containers{c}: Stopping container c",
    ] {
        assert!(says(&world, line), "{line} is not in {:#?}", told(&world));
    }
    let pulled = told(&world).iter().filter(|line| line.starts_with("Normal Pulled a")).count();
    assert_eq!((pulled, told(&world).len()), (1, 5), "{:#?}", told(&world));
}

/// In upstream's order.
#[test]
fn an_image_that_is_pulled() {
    let mut world = world();
    world.pulls = true;
    world.apply(pod("a", json!({})));
    world.run(secs(5));
    let image = "\"nginx\"";
    let expected = [
        format!("Normal Pulling a spec.containers{{c}}: Pulling image {image}"),
        format!(
            "Normal Pulled a spec.containers{{c}}: Successfully pulled image {image} in 1.2s \
             (1.2s including waiting). Image size: 77 bytes."
        ),
        "Normal Created a spec.containers{c}: Created container: c".to_owned(),
        "Normal Started a spec.containers{c}: Started container c".to_owned(),
    ];
    let of_it = told(&world).into_iter().filter(|line| line.contains(" a spec.containers"));
    assert_eq!(of_it.collect::<Vec<_>>(), expected);
}

#[test]
fn what_crashes_backs_off_and_what_is_ill_is_killed() {
    let mut world = world();
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 2});
    let uid = world.apply(pod("a", json!({"livenessProbe": probe})));
    world.run(secs(5));
    world.healthy.insert(Purpose::Liveness, false);
    world.run(secs(5));
    let lines = told(&world);
    let unhealthy = "Warning Unhealthy a spec.containers{c}: Liveness probe failed: ";
    assert!(lines.iter().any(|line| line.starts_with(unhealthy)), "{lines:#?}");
    let killed = "Normal Killing a spec.containers{c}: Container c failed liveness probe, will be \
        restarted";
    assert!(says(&world, killed), "{lines:#?}");
    world.healthy.insert(Purpose::Liveness, true);
    world.run(secs(60));
    world.exit(uid, "c", 1);
    world.run(secs(2));
    let backs_off = format!(
        "Warning BackOff a spec.containers{{c}}: Back-off restarting failed container c in pod \
         a_default({uid})"
    );
    assert!(says(&world, &backs_off), "{:#?}", told(&world));
}

#[test]
fn an_image_that_is_not_there() {
    let mut world = world();
    let manifest = pod("a", json!({}));
    let image = manifest["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    world.refused_images.insert(image.as_str().into(), Fault::Pull);
    world.apply(manifest);
    world.run(secs(5));
    for line in [
        format!("Warning Failed a spec.containers{{c}}: Failed to pull image {image:?}: not found"),
        "Warning Failed a spec.containers{c}: Error: ErrImagePull".to_owned(),
        format!("Normal BackOff a spec.containers{{c}}: Back-off pulling image {image:?}"),
    ] {
        assert!(says(&world, &line), "{line} is not in {:#?}", told(&world));
    }
}
