//! CronJobs: a Job for each moment and no other, and what their status says of them. It is
//! 22:13:20 of 14 November 2023 when a world begins.

use super::fake::object;
use super::*;
use crate::objects::Key;
use k8s_openapi::api::batch::v1::CronJobStatus;
use kubesim_runtime::Time;
use serde_json::Value;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

/// Due every five minutes, unless it says otherwise.
fn cron(mut spec: Value) -> Object {
    let defaults = json!({
        "schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        "jobTemplate": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        },
    });
    for (name, value) in defaults.as_object().unwrap() {
        if spec[name].is_null() {
            spec[name] = value.clone();
        }
    }
    object(json!({"apiVersion": "batch/v1", "kind": "CronJob",
                  "metadata": {"name": "tick", "namespace": "default"}, "spec": spec}))
}

fn with(spec: Value) -> World<Controllers> {
    let mut world = world(1, calm());
    world.put(cron(spec));
    world
}

fn minutes(world: &mut World<Controllers>, count: u64) {
    world.run(Duration::from_secs(60 * count));
}

fn jobs(world: &World<Controllers>) -> Vec<String> {
    world.all(Kind::Job).iter().map(|job| job.key.name.to_string()).collect()
}

fn status(world: &World<Controllers>) -> CronJobStatus {
    crate::controllers::plain::status(&world.get(Kind::CronJob, &key("tick")).unwrap())
}

fn active(world: &World<Controllers>) -> Vec<String> {
    let active = status(world).active.unwrap_or_default();
    active.into_iter().filter_map(|one| one.name).collect()
}

fn last(world: &World<Controllers>) -> Option<String> {
    status(world).last_schedule_time.map(|time| time.0.to_string())
}

/// The Job is over.
fn ends(world: &mut World<Controllers>, name: &str, how: &str) {
    let now = Wall::from_unix_secs(1_700_000_000) + world.now.since(Time::ZERO);
    let condition = json!({"type": how, "status": "True", "lastTransitionTime": time(now)});
    let mut said = json!({"conditions": [condition], "startTime": time(now)});
    if how == "Complete" {
        said["completionTime"] = json!(time(now));
    }
    let mut job = (*world.get(Kind::Job, &key(name)).unwrap()).clone();
    let Body::Plain(plain) = &mut job.body else { panic!("{job:?}") };
    plain.status = Arc::new(said);
    world.put(job);
}

#[test]
fn a_job_is_made_when_it_is_due() {
    let mut world = with(json!({}));
    minutes(&mut world, 1);
    assert_eq!(jobs(&world), Vec::<String>::new());
    minutes(&mut world, 1);
    assert_eq!(jobs(&world), ["tick-28333335"]);
    let job = world.get(Kind::Job, &key("tick-28333335")).unwrap();
    let annotation = job.annotation("batch.kubernetes.io/cronjob-scheduled-timestamp");
    assert_eq!(annotation, Some("2023-11-14T22:15:00Z"));
    assert_eq!((job.annotation("c"), job.label("a")), (Some("d"), Some("b")));
    let owner = world.get(Kind::CronJob, &key("tick")).unwrap().uid;
    assert_eq!(job.controller().map(|(_, uid)| uid), Some(owner));
    assert_eq!(active(&world), ["tick-28333335"]);
    assert_eq!(last(&world).as_deref(), Some("2023-11-14T22:15:00Z"));
    ends(&mut world, "tick-28333335", "Complete");
    minutes(&mut world, 1);
    assert_eq!(active(&world), Vec::<String>::new());
    let done = status(&world).last_successful_time.map(|time| time.0.to_string());
    assert_eq!(done.as_deref(), Some("2023-11-14T22:15:20Z"));
    minutes(&mut world, 4);
    assert_eq!(jobs(&world), ["tick-28333335", "tick-28333340"]);
}

#[test]
fn of_those_that_are_over_the_newest_stay() {
    let mut world = with(json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0}));
    for (at, how) in [(35, "Complete"), (40, "Failed"), (45, "Complete"), (50, "Complete")] {
        minutes(&mut world, 5);
        ends(&mut world, &format!("tick-283333{at}"), how);
    }
    world.run(Duration::from_secs(30));
    assert_eq!(jobs(&world), ["tick-28333345", "tick-28333350"]);
    assert_eq!(active(&world), Vec::<String>::new());
}

#[test]
fn concurrency_is_as_it_is_wanted() {
    let mut both = with(json!({"concurrencyPolicy": "Allow"}));
    minutes(&mut both, 8);
    assert_eq!(active(&both), ["tick-28333335", "tick-28333340"]);

    let mut one = with(json!({"concurrencyPolicy": "Forbid"}));
    minutes(&mut one, 8);
    assert_eq!(jobs(&one), ["tick-28333335"]);
    // What was forbidden begins when it may.
    ends(&mut one, "tick-28333335", "Complete");
    world_soon(&mut one);
    assert_eq!(active(&one), ["tick-28333340"]);

    let mut newest = with(json!({"concurrencyPolicy": "Replace"}));
    minutes(&mut newest, 8);
    assert_eq!((jobs(&newest), active(&newest)), (name("40"), name("40")));
}

fn name(minute: &str) -> Vec<String> {
    vec![format!("tick-283333{minute}")]
}

fn world_soon(world: &mut World<Controllers>) {
    world.run(Duration::from_secs(2));
}

#[test]
fn what_is_suspended_or_knows_no_zone_waits() {
    for spec in [json!({"suspend": true}), json!({"timeZone": "Mars/Olympus"})] {
        let mut world = with(spec);
        minutes(&mut world, 20);
        assert_eq!(jobs(&world), Vec::<String>::new());
    }
}

#[test]
fn a_zone_has_its_own_time() {
    // Four in the morning in Kathmandu is a quarter past ten in the evening before, in UTC.
    let mut world = with(json!({"schedule": "0 4 * * *", "timeZone": "Asia/Kathmandu"}));
    minutes(&mut world, 3);
    assert_eq!(jobs(&world), name("35"));
    let job = &world.all(Kind::Job)[0];
    let annotation = job.annotation("batch.kubernetes.io/cronjob-scheduled-timestamp");
    assert_eq!(annotation, Some("2023-11-15T04:00:00+05:45"));
}

#[test]
fn of_what_was_missed_only_the_last_is_made_up_for() {
    for (deadline, made) in [(json!(null), vec!["tick-28333330"]), (json!(100), vec![])] {
        let mut world = world(1, calm());
        let mut object = cron(json!({"startingDeadlineSeconds": deadline}));
        let Body::Plain(plain) = &mut object.body else { panic!("{object:?}") };
        plain.status = Arc::new(json!({"lastScheduleTime": "2023-11-01T00:00:00Z"}));
        world.put(object);
        minutes(&mut world, 1);
        assert_eq!(jobs(&world), made, "{deadline}");
    }
}

#[test]
fn a_life_that_ends_in_between_leaves_one_job_that_the_next_notes() {
    let mut world = with(json!({}));
    world.run(Duration::from_millis(100_105));
    for _ in 0..40 {
        world.run(Duration::from_millis(1));
        world.restart();
    }
    world_soon(&mut world);
    assert_eq!((jobs(&world), active(&world)), (name("35"), name("35")));
    assert_eq!(last(&world).as_deref(), Some("2023-11-14T22:15:00Z"));
}

#[test]
fn a_job_that_is_gone_is_not_listed_and_one_by_hand_never_is() {
    let mut world = with(json!({}));
    minutes(&mut world, 2);
    world.remove(Kind::Job, &key("tick-28333335"));
    let owner = world.get(Kind::CronJob, &key("tick")).unwrap();
    let mut manual = object(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "by-hand", "namespace": "default",
                     "annotations": {"cronjob.kubernetes.io/instantiate": "manual"}},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    }));
    Arc::make_mut(&mut manual.meta).owner_references = Some(vec![owner.as_controller()]);
    world.put(manual);
    world_soon(&mut world);
    assert_eq!(active(&world), Vec::<String>::new());
    // Nor is another one made for that moment.
    assert_eq!(jobs(&world), ["by-hand"]);
}
