use super::fake::{Weather, object};
use super::*;
use crate::objects::{Key, Name};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn ready(world: &World<Controllers>) -> usize {
    world.all(Kind::Pod).iter().filter(|p| !p.deleting() && super::super::pods::is_ready(p)).count()
}

#[test]
fn a_rolling_update_keeps_within_its_limits_and_finishes() {
    let mut world = world(1, calm());
    world.put(node("n0", "a"));
    world.put(deployment(10, "one"));
    for _ in 0..40 {
        world.run(Duration::from_millis(200));
        kubelets(&mut world, 100);
    }
    assert_eq!(ready(&world), 10);
    let mut next = deployment(10, "two");
    Arc::make_mut(&mut next.meta).generation = Some(2);
    world.put(next);
    for _ in 0..400 {
        world.run(Duration::from_millis(50));
        assert!(active(&world) <= 12, "{} pods", active(&world));
        assert!(ready(&world) >= 9, "{} ready", ready(&world));
        kubelets(&mut world, 1);
    }
    let deployment = world.get(Kind::Deployment, &Key::new("default", "web")).unwrap();
    let (_, status) = deployment.deployment().unwrap();
    let counts = (status.replicas, status.updated_replicas, status.available_replicas);
    assert_eq!(counts, (Some(10), Some(10), Some(10)));
    assert_eq!(deployment.annotation("deployment.kubernetes.io/revision"), Some("2"));
    let progressing = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing");
    assert_eq!(progressing.unwrap().reason.as_deref(), Some("NewReplicaSetAvailable"));
    let images: BTreeSet<_> = world
        .all(Kind::Pod)
        .iter()
        .map(|pod| pod.pod().unwrap().0.containers[0].image.clone())
        .collect();
    assert_eq!(images, BTreeSet::from([Some("two".to_owned())]));
    // Settled: nothing is written any more.
    let writes = world.writes.clone();
    world.run(Duration::from_secs(15));
    assert_eq!(world.writes, writes);
}

/// As `kubectl rollout undo` writes a template back.
#[test]
fn a_template_that_says_of_resources_that_there_are_none_is_no_other_one() {
    let mut world = world(5, calm());
    world.put(deployment(1, "one"));
    world.run(Duration::from_secs(2));
    let mut same = deployment(1, "one");
    if let Body::Deployment { spec, .. } = &mut same.body {
        let template = Arc::make_mut(spec).template.spec.get_or_insert_default();
        template.containers[0].resources = Some(Default::default());
    }
    world.put(same);
    world.run(Duration::from_secs(2));
    assert_eq!(world.all(Kind::ReplicaSet).len(), 1);
    world.put(deployment(1, "two"));
    world.run(Duration::from_secs(2));
    assert_eq!(world.all(Kind::ReplicaSet).len(), 2);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = world(2, calm());
    let recreate = |image: &str| {
        let mut object = deployment(3, image);
        if let Body::Deployment { spec, .. } = &mut object.body {
            let strategy = Arc::make_mut(spec).strategy.get_or_insert_default();
            strategy.type_ = Some("Recreate".to_owned());
            strategy.rolling_update = None;
        }
        object
    };
    world.put(recreate("one"));
    for _ in 0..10 {
        world.run(Duration::from_millis(300));
        kubelets(&mut world, 10);
    }
    world.put(recreate("two"));
    world.run(Duration::from_secs(2));
    assert_eq!((active(&world), world.all(Kind::Pod).len()), (0, 3), "all old ones end first");
    for _ in 0..10 {
        world.run(Duration::from_millis(300));
        kubelets(&mut world, 10);
    }
    assert_eq!(ready(&world), 3);
}

#[test]
fn pods_of_a_replica_set_share_one_spec() {
    let mut world = world(3, calm());
    world.put(deployment(20, "one"));
    world.run(Duration::from_secs(3));
    let pods = world.all(Kind::Pod);
    assert_eq!(pods.len(), 20);
    assert!(pods.iter().all(|pod| Arc::ptr_eq(pod.pod().unwrap().0, pods[0].pod().unwrap().0)));
}

#[test]
fn deleting_the_deployment_deletes_all_below_it() {
    let mut world = world(4, calm());
    world.put(deployment(5, "one"));
    world.run(Duration::from_secs(3));
    assert_eq!(world.all(Kind::Pod).len(), 5);
    world.remove(Kind::Deployment, &Key::new("default", "web"));
    for _ in 0..20 {
        world.run(Duration::from_millis(500));
        kubelets(&mut world, 10);
    }
    assert_eq!((world.all(Kind::ReplicaSet).len(), world.all(Kind::Pod).len()), (0, 0));
}

#[test]
fn slices_hold_the_ready_pods_and_are_seldom_written() {
    let mut world = world(5, calm());
    world.put(node("n0", "a"));
    world.put(object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"},
                 "ports": [{"port": 80, "targetPort": "http"}]},
    })));
    // `kubectl create service externalname` gives it a selector.
    world.put(object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "name"},
        "spec": {"type": "ExternalName", "externalName": "a.b", "selector": {"app": "web"}},
    })));
    world.put(deployment(30, "one"));
    world.run(Duration::from_secs(3));
    let before = world.writes.clone();
    kubelets(&mut world, 100);
    world.run(Duration::from_secs(3));
    let slices = world.all(Kind::EndpointSlice);
    assert_eq!(slices.len(), 1);
    let slice = slices[0].endpoint_slice().unwrap();
    assert_eq!(slice.endpoints.len(), 30);
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    let zones: BTreeSet<_> = slice.endpoints.iter().map(|e| e.zone.clone()).collect();
    assert_eq!(zones, BTreeSet::from([Some("a".to_owned())]));
    let updates = |w: &std::collections::BTreeMap<_, usize>| {
        w.iter().filter(|((k, _), _)| *k == Kind::EndpointSlice).map(|(_, n)| n).sum::<usize>()
    };
    assert!(updates(&world.writes) - updates(&before) <= 2, "{:?}", world.writes);
}

fn replica_set(replicas: i32) -> Object {
    object(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "rs", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "rs"}},
            "template": {"metadata": {"labels": {"app": "rs"}},
                         "spec": {"containers": [{"name": "c"}]}},
        },
    }))
}

/// The condition is there while creates are refused, and goes when none is wanted any more, whoever
/// saw to it (`calculateStatus` in pkg/controller/replicaset/replica_set_utils.go).
#[test]
fn a_failure_is_told_while_it_lasts() {
    let mut world = world(10, calm());
    let key = Key::new("default", "rs");
    let status = |world: &World<Controllers>| {
        let set = world.get(Kind::ReplicaSet, &key).unwrap();
        let (_, status) = set.replica_set().unwrap();
        let failure =
            status.conditions.iter().flatten().map(|c| (c.type_.clone(), c.reason.clone()));
        (status.replicas, failure.collect::<Vec<_>>())
    };
    let scale = |world: &mut World<Controllers>, replicas: i32| {
        let mut set = (*world.get(Kind::ReplicaSet, &key).unwrap()).clone();
        let Body::ReplicaSet { spec, .. } = &mut set.body else { panic!("{set:?}") };
        Arc::make_mut(spec).replicas = Some(replicas);
        world.put(set);
        world.run(Duration::from_secs(20));
    };
    world.put(replica_set(3));
    world.run(Duration::from_secs(2));
    let failed = || vec![("ReplicaFailure".to_owned(), Some("FailedCreate".to_owned()))];
    world.refused = Some(Kind::Pod);
    scale(&mut world, 5);
    assert_eq!(status(&world), (3, failed()));
    scale(&mut world, 3);
    assert_eq!(status(&world), (3, Vec::new()), "it is as many as are wanted");
    scale(&mut world, 4);
    assert_eq!(status(&world), (3, failed()));
    world.refused = None;
    world.run(Duration::from_secs(600));
    assert_eq!(status(&world), (4, Vec::new()));
}

#[test]
fn a_late_view_makes_no_surplus() {
    let late = Weather { view_delay_ms: 400_000, ..calm() };
    let mut world = world(6, calm());
    world.put(replica_set(0));
    world.run(Duration::from_secs(1));
    world.put(replica_set(100));
    world.run(Duration::from_millis(3));
    world.weather = late;
    for _ in 0..50 {
        world.run(Duration::from_secs(20));
        assert!(active(&world) <= 100, "{}", active(&world));
    }
    world.weather = calm();
    world.run(Duration::from_secs(2_000));
    assert_eq!(active(&world), 100);
}

#[test]
fn orphans_are_adopted_and_strangers_let_go() {
    let mut world = world(7, calm());
    let orphan = |name: &str, app: &str| {
        object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "c"}]}}))
    };
    world.put(orphan("lost", "rs"));
    world.put(replica_set(2));
    world.run(Duration::from_secs(2));
    let lost = world.get(Kind::Pod, &Key::new("default", "lost")).unwrap();
    assert!(lost.controller().is_some());
    assert_eq!(active(&world), 2);
    let mut gone = (*lost).clone();
    Arc::make_mut(&mut gone.meta).labels.get_or_insert_default().insert("app".into(), "x".into());
    world.put(gone);
    world.run(Duration::from_secs(2));
    let lost = world.get(Kind::Pod, &Key::new("default", "lost")).unwrap();
    assert!(lost.controller().is_none());
    assert_eq!(active(&world), 3, "two of the set and the one let go");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_replica_set_converges_and_never_exceeds_its_size(
        seed in any::<u64>(),
        sizes in prop::collection::vec(0i32..30, 1..4),
        lost_requests in 0.0..0.3f64,
        lost_answers in 0.0..0.3f64,
        view_delay_ms in 0u64..800,
        restarts in prop::collection::btree_set(0u32..30, 0..4),
    ) {
        let bad = Weather { max_delay_ms: 40, lost_requests, lost_answers, view_delay_ms };
        let mut world = world(seed, bad);
        world.put(node("n0", "a"));
        let most = sizes.iter().copied().max().unwrap_or(0) as usize;
        let mut step = 0;
        for size in &sizes {
            world.put(replica_set(*size));
            for _ in 0..10 {
                world.run(Duration::from_millis(150));
                kubelets(&mut world, 5);
                if restarts.contains(&step) {
                    world.restart();
                }
                step += 1;
                prop_assert!(active(&world) <= most, "{} of {most}", active(&world));
            }
        }
        world.weather = calm();
        for _ in 0..30 {
            world.run(Duration::from_secs(1));
            kubelets(&mut world, 100);
        }
        let want = *sizes.last().expect("at least one") as usize;
        prop_assert_eq!(active(&world), want);
        let set = world.get(Kind::ReplicaSet, &Key::new("default", "rs")).unwrap();
        prop_assert_eq!(set.replica_set().unwrap().1.ready_replicas.unwrap_or(0) as usize, want);
        let names: BTreeSet<Name> =
            world.all(Kind::Pod).iter().map(|pod| pod.key.name.clone()).collect();
        prop_assert_eq!(names.len(), want);
    }
}

/// `status.fullyLabeledReplicas`: the pods that carry every label of the template, also after a
/// pod or the template was relabelled and after a restart.
#[test]
fn pods_that_lack_a_label_of_the_template_are_not_counted_as_fully_labelled() {
    let mut world = world(9, calm());
    let set = |tier: &str| {
        object(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web", "tier": tier}},
                    "spec": {"containers": [{"name": "c", "image": "one"}]},
                },
            },
        }))
    };
    let counts = |world: &World<Controllers>| {
        let set = world.get(Kind::ReplicaSet, &Key::new("default", "web")).unwrap();
        let (_, status) = set.replica_set().unwrap();
        (status.replicas, status.fully_labeled_replicas)
    };
    world.put(set("front"));
    world.run(Duration::from_secs(2));
    assert_eq!(counts(&world), (3, Some(3)));
    let mut pod = (*world.all(Kind::Pod)[0]).clone();
    Arc::make_mut(&mut pod.meta).labels.as_mut().unwrap().remove("tier");
    world.put(pod.clone());
    world.run(Duration::from_secs(2));
    assert_eq!(counts(&world), (3, Some(2)));
    world.restart();
    world.run(Duration::from_secs(2));
    assert_eq!(counts(&world), (3, Some(2)));
    let mut relabelled = set("back");
    relabelled.uid = world.get(Kind::ReplicaSet, &Key::new("default", "web")).unwrap().uid;
    world.put(relabelled);
    world.run(Duration::from_secs(2));
    assert_eq!(counts(&world), (3, None));
    for pod in world.all(Kind::Pod) {
        let mut pod = (*pod).clone();
        let labels = Arc::make_mut(&mut pod.meta).labels.as_mut().unwrap();
        labels.insert("tier".to_owned(), "back".to_owned());
        world.put(pod);
    }
    world.run(Duration::from_secs(2));
    assert_eq!(counts(&world), (3, Some(3)));
}
