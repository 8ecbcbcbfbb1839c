//! Jobs: how many pods at a time, how often, and that each end is counted once.

use super::fake::{Weather, object};
use super::*;
use crate::controllers::pods::is_terminated;
use crate::objects::{Key, Uid};
use crate::ports::api::{DeleteOptions, Request};
use k8s_openapi::api::batch::v1::JobStatus;
use serde_json::Value;
use std::collections::BTreeSet;

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

fn key() -> Key {
    Key::new("default", "sums")
}

/// A Job as the API completes it.
fn job(mut spec: Value) -> Object {
    let defaults = json!({
        "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
        "template": {
            "metadata": {"labels": {"job-name": "sums"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "sum"}]},
        },
    });
    for (name, value) in defaults.as_object().unwrap() {
        if spec[name].is_null() {
            spec[name] = value.clone();
        }
    }
    object(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sums"}, "spec": spec,
    }))
}

fn change(world: &mut World<Controllers>, path: &str, value: Value) {
    let mut job = (*world.get(Kind::Job, &key()).unwrap()).clone();
    let Body::Plain(plain) = &mut job.body else { panic!("{job:?}") };
    Arc::make_mut(&mut plain.fields).set(path, value);
    world.put(job);
}

fn status(world: &World<Controllers>) -> JobStatus {
    crate::controllers::plain::status(&world.get(Kind::Job, &key()).unwrap())
}

/// Type and reason of each condition that is true.
fn conditions(world: &World<Controllers>) -> Vec<(String, String)> {
    let all = status(world).conditions.unwrap_or_default();
    let told = all.into_iter().filter(|condition| condition.status == "True");
    told.map(|condition| (condition.type_, condition.reason.unwrap_or_default())).collect()
}

fn said(kind: &str, reason: &str) -> (String, String) {
    (kind.to_owned(), reason.to_owned())
}

/// The kubelet's word on a pod: it runs, or its container ended with this code.
fn set(world: &mut World<Controllers>, pod: &Object, code: Option<i32>) {
    let now =
        time(Wall::from_unix_secs(1_700_000_000) + world.now.since(kubesim_runtime::Time::ZERO));
    let phase = match code {
        None => "Running",
        Some(0) => "Succeeded",
        Some(_) => "Failed",
    };
    let state = match code {
        None => json!({"running": {"startedAt": now}}),
        Some(code) => json!({"terminated": {"exitCode": code, "finishedAt": now}}),
    };
    let status = json!({"phase": phase, "containerStatuses": [{
        "name": "c", "state": state, "ready": code.is_none(), "restartCount": 0,
        "image": "sum", "imageID": "",
    }]});
    let mut next = pod.clone();
    let Body::Pod(pod) = &mut next.body else { return };
    *pod = pod.with_status(Arc::new(serde_json::from_value(status).unwrap()));
    world.put(next);
}

/// Pods come to run, and end with the code that `code` has for them; deleted ones are gone when
/// nobody holds them.
fn work(world: &mut World<Controllers>, code: impl Fn(&Object) -> i32) {
    for pod in world.all(Kind::Pod) {
        if pod.deleting() && pod.meta.finalizers.is_none() {
            world.remove(Kind::Pod, &pod.key);
        } else if pod.deleting() && !is_terminated(&pod) {
            set(world, &pod, Some(143));
        } else if !is_terminated(&pod) {
            let runs = pod.pod().unwrap().1.phase.as_deref() == Some("Running");
            set(world, &pod, runs.then(|| code(&pod)));
        }
    }
}

fn held(world: &World<Controllers>) -> usize {
    let finalizers = |pod: &Arc<Object>| pod.meta.finalizers.clone().unwrap_or_default();
    let all = world.all(Kind::Pod);
    all.iter().filter(|pod| finalizers(pod).contains(&FINALIZER.to_owned())).count()
}

#[test]
fn so_many_pods_at_a_time_until_enough_have_succeeded() {
    let mut world = world(1, calm());
    world.put(job(json!({"completions": 5, "parallelism": 2})));
    for _ in 0..20 {
        world.run(Duration::from_millis(500));
        assert!(active(&world) <= 2);
        work(&mut world, |_| 0);
    }
    let done = status(&world);
    assert_eq!((done.succeeded, done.failed, done.active), (Some(5), None, None));
    let reason = "CompletionsReached";
    assert_eq!(conditions(&world), [said("SuccessCriteriaMet", reason), said("Complete", reason)]);
    assert!(done.completion_time.is_some());
    // The pods stay, and nobody holds them.
    assert_eq!((world.all(Kind::Pod).len(), held(&world)), (5, 0));
    let writes = world.writes.clone();
    world.run(Duration::from_secs(900));
    assert_eq!(world.writes, writes, "what is over is not written any more");
}

/// Lost requests, lost answers, late views and restarts: the counters say what happened.
#[test]
fn every_end_is_counted_once_whatever_is_lost() {
    for seed in 1..=20 {
        let bad =
            Weather { max_delay_ms: 50, lost_requests: 0.1, lost_answers: 0.1, view_delay_ms: 500 };
        let mut world = world(seed, bad);
        world.put(job(json!({"completions": 12, "parallelism": 4, "backoffLimit": 100})));
        let mut ends: [BTreeSet<Uid>; 2] = Default::default();
        for round in 0..400 {
            world.run(Duration::from_millis(700));
            if round % 17 == 0 {
                world.restart();
            }
            work(&mut world, |pod| i32::from(pod.uid.0 % 5 == 0));
            for pod in world.all(Kind::Pod) {
                match pod.pod().unwrap().1.phase.as_deref() {
                    Some("Succeeded") => _ = ends[0].insert(pod.uid),
                    Some("Failed") => _ = ends[1].insert(pod.uid),
                    _ => {}
                }
            }
            if status(&world).completion_time.is_some() {
                break;
            }
        }
        let done = status(&world);
        let counted = (done.succeeded.unwrap_or(0), done.failed.unwrap_or(0));
        assert_eq!(counted, (ends[0].len() as i32, ends[1].len() as i32), "seed {seed}");
        assert!(done.completion_time.is_some() && counted.0 >= 12, "seed {seed}: {done:?}");
    }
}

/// `backoffLimit` 2: three pods, the second 10 s after the first failed, the third 20 s after that.
#[test]
fn it_waits_longer_after_each_failure_and_gives_up() {
    let mut world = world(2, calm());
    world.put(job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 2})));
    let mut made = Vec::new();
    let mut known = BTreeSet::new();
    for _ in 0..600 {
        world.run(Duration::from_millis(100));
        for pod in world.all(Kind::Pod) {
            if known.insert(pod.uid) {
                made.push(world.now.since(kubesim_runtime::Time::ZERO).as_millis());
            }
        }
        work(&mut world, |_| 3);
    }
    assert_eq!(made.len(), 3, "{made:?}");
    let waits: Vec<_> = made.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        (9_000..11_500).contains(&waits[0]) && (19_000..21_500).contains(&waits[1]),
        "{waits:?}"
    );
    let reason = "BackoffLimitExceeded";
    assert_eq!(conditions(&world), [said("FailureTarget", reason), said("Failed", reason)]);
    assert_eq!((status(&world).failed, held(&world)), (Some(3), 0));
}

#[test]
fn each_index_has_its_pod_and_is_tried_again() {
    let mut world = world(3, calm());
    world.put(job(json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"})));
    world.run(Duration::from_secs(1));
    let pods = world.all(Kind::Pod);
    let index =
        |pod: &Object| pod.label("batch.kubernetes.io/job-completion-index").map(str::to_owned);
    let found: BTreeSet<_> = pods.iter().filter_map(|pod| index(pod)).collect();
    assert_eq!(found, ["0", "1", "2", "3"].map(str::to_owned).into());
    for pod in &pods {
        let (spec, _) = pod.pod().unwrap();
        let name = format!("sums-{}", index(pod).unwrap());
        assert_eq!(spec.hostname.as_ref(), Some(&name));
        assert!(pod.key.name.starts_with(&format!("{name}-")));
        let env = spec.containers[0].env.as_ref().unwrap();
        assert_eq!(env[0].name, "JOB_COMPLETION_INDEX");
    }
    let first_of_two = pods.iter().find(|pod| index(pod).as_deref() == Some("2")).unwrap().uid;
    for _ in 0..60 {
        world.run(Duration::from_millis(500));
        work(&mut world, |pod| i32::from(pod.uid == first_of_two));
        if status(&world).failed == Some(1) && status(&world).succeeded == Some(3) {
            assert_eq!(status(&world).completed_indexes.as_deref(), Some("0,1,3"));
        }
    }
    let done = status(&world);
    assert_eq!(done.completed_indexes.as_deref(), Some("0-3"));
    assert_eq!((done.succeeded, done.failed, world.all(Kind::Pod).len()), (Some(4), Some(1), 5));
}

/// Its pods go uncounted, and its time begins anew.
#[test]
fn a_suspended_job_has_no_pods_and_goes_on_later() {
    let mut world = world(4, calm());
    world.put(job(json!({"completions": 2, "parallelism": 2, "activeDeadlineSeconds": 30})));
    world.run(Duration::from_secs(20));
    work(&mut world, |_| 0);
    world.run(Duration::from_secs(1));
    assert_eq!(active(&world), 2);
    change(&mut world, "spec.suspend", true.into());
    for _ in 0..60 {
        world.run(Duration::from_secs(1));
        work(&mut world, |_| 0);
    }
    assert_eq!((world.all(Kind::Pod).len(), status(&world).failed), (0, None));
    assert_eq!(conditions(&world), [said("Suspended", "JobSuspended")]);
    change(&mut world, "spec.suspend", false.into());
    for _ in 0..10 {
        world.run(Duration::from_secs(1));
        work(&mut world, |_| 0);
    }
    assert_eq!(status(&world).succeeded, Some(2), "its deadline counts from when it went on");
    assert!(status(&world).completion_time.is_some());
}

#[test]
fn a_job_past_its_deadline_fails_and_later_goes_with_its_pods() {
    let mut world = world(5, calm());
    world.put(job(json!({
        "completions": 2, "parallelism": 2, "activeDeadlineSeconds": 30,
        "ttlSecondsAfterFinished": 100,
    })));
    world.run(Duration::from_secs(1));
    for pod in world.all(Kind::Pod) {
        set(&mut world, &pod, None);
    }
    world.run(Duration::from_secs(27));
    assert_eq!((active(&world), conditions(&world).len()), (2, 0));
    for _ in 0..10 {
        world.run(Duration::from_secs(1));
        let pods = world.all(Kind::Pod);
        for pod in pods.iter().filter(|pod| pod.deleting()) {
            set(&mut world, pod, Some(137));
        }
    }
    let reason = "DeadlineExceeded";
    assert_eq!(conditions(&world), [said("FailureTarget", reason), said("Failed", reason)]);
    assert_eq!(status(&world).failed, Some(2));
    world.run(Duration::from_secs(80));
    assert!(world.get(Kind::Job, &key()).is_some());
    for _ in 0..20 {
        world.run(Duration::from_secs(2));
        work(&mut world, |_| 0);
    }
    assert_eq!((world.all(Kind::Job).len(), world.all(Kind::Pod).len()), (0, 0));
}

#[test]
fn a_failure_policy_ignores_some_ends_and_ends_the_job_for_others() {
    let policy = json!({"rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [13], "containerName": "c"}},
    ]});
    let mut world = world(6, calm());
    world.put(job(json!({
        "completions": 1, "parallelism": 1, "backoffLimit": 0, "podFailurePolicy": policy,
    })));
    for _ in 0..30 {
        world.run(Duration::from_secs(1));
        work(&mut world, |_| 42);
    }
    let ignored = world.all(Kind::Pod).len();
    assert!(ignored >= 2 && status(&world).failed.is_none(), "{:?}", status(&world));
    assert_eq!(conditions(&world), []);
    for _ in 0..60 {
        world.run(Duration::from_secs(1));
        work(&mut world, |_| 13);
    }
    assert_eq!(conditions(&world)[1], said("Failed", "PodFailurePolicy"));
    let message = status(&world).conditions.unwrap()[0].message.clone().unwrap();
    assert!(message.starts_with("Container c for pod default/sums-"), "{message}");
    assert!(message.ends_with(" failed with exit code 13 matching FailJob rule at index 1"));
}

/// Deleted in the background, its pods go too, though they wait to be counted; also one that is
/// being deleted and has ended, of which there is nothing more to hear.
#[test]
fn pods_of_a_deleted_job_are_let_go() {
    for seed in 1..=10 {
        let mut world = world(seed, calm());
        world.put(job(json!({"completions": 3, "parallelism": 3})));
        world.run(Duration::from_secs(1));
        work(&mut world, |_| 0);
        world.run(Duration::from_secs(1));
        assert_eq!(held(&world), 3);
        let pod = world.all(Kind::Pod)[0].clone();
        let options = DeleteOptions::default();
        world.apply(&Request::Delete { kind: Kind::Pod, key: pod.key.clone(), options }).unwrap();
        let pod = world.get(Kind::Pod, &pod.key).unwrap();
        set(&mut world, &pod, Some(1));
        world.remove(Kind::Job, &key());
        for _ in 0..10 {
            world.run(Duration::from_secs(1));
            work(&mut world, |_| 0);
        }
        assert_eq!(world.all(Kind::Pod).len(), 0, "seed {seed}");
    }
}
