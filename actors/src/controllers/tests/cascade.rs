//! What becomes of what is owned when its owner is deleted in the foreground or lets it go.

use super::fake::{self, World};
use super::*;
use crate::objects::{Key, OwnerReference};
use crate::ports::api::{DeleteOptions, Propagation, Request};

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn delete(world: &mut World<Controllers>, kind: Kind, name: &str, how: Propagation) {
    let options = DeleteOptions { propagation: Some(how), ..DeleteOptions::default() };
    world.apply(&Request::Delete { kind, key: key(name), options }).expect("it is there");
}

fn counts(world: &World<Controllers>) -> [usize; 3] {
    [Kind::Deployment, Kind::ReplicaSet, Kind::Pod].map(|kind| world.all(kind).len())
}

#[test]
fn in_the_foreground_the_last_goes_first() {
    for (seed, weather) in [(5, calm()), (6, Weather { max_delay_ms: 300, ..calm() })] {
        let mut world = world(seed, weather);
        world.put(deployment(5, "one"));
        world.run(Duration::from_secs(30));
        assert_eq!(counts(&world), [1, 1, 5]);
        delete(&mut world, Kind::Deployment, "web", Propagation::Foreground);
        for _ in 0..600 {
            world.run(Duration::from_millis(50));
            let [deployments, sets, pods] = counts(&world);
            assert!(deployments > 0 || sets == 0, "the Deployment goes before its ReplicaSet");
            assert!(sets > 0 || pods == 0, "the ReplicaSet goes before {pods} pods");
            kubelets(&mut world, 1);
        }
        assert_eq!(counts(&world), [0, 0, 0]);
    }
}

#[test]
fn orphans_stay_and_have_no_owner() {
    let mut world = world(7, calm());
    world.put(deployment(5, "one"));
    world.run(Duration::from_secs(3));
    delete(&mut world, Kind::Deployment, "web", Propagation::Orphan);
    world.run(Duration::from_secs(3));
    assert_eq!(counts(&world), [0, 1, 5]);
    let set = world.all(Kind::ReplicaSet).remove(0);
    assert_eq!(set.meta.owner_references, None);
    delete(&mut world, Kind::ReplicaSet, &set.key.name, Propagation::Orphan);
    world.run(Duration::from_secs(3));
    assert_eq!(counts(&world), [0, 0, 5]);
    let owned = |pod: &Arc<Object>| pod.meta.owner_references.is_some() || pod.deleting();
    assert!(!world.all(Kind::Pod).iter().any(owned));
}

/// A Lease that these Leases own.
fn lease(world: &mut World<Controllers>, name: &str, owners: &[&str]) {
    let owner = |name: &&str| OwnerReference {
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        name: (*name).to_owned(),
        uid: world.get(Kind::Lease, &key(name)).expect("an owner").uid.to_string(),
        block_owner_deletion: Some(true),
        controller: None,
    };
    let owners: Vec<OwnerReference> = owners.iter().map(owner).collect();
    world.put(fake::object(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners},
        "spec": {},
    })));
}

#[test]
fn what_has_another_owner_stays_with_that_one() {
    let mut world = world(8, calm());
    lease(&mut world, "a", &[]);
    lease(&mut world, "b", &[]);
    lease(&mut world, "c", &["a", "b"]);
    world.run(Duration::from_secs(1));
    delete(&mut world, Kind::Lease, "a", Propagation::Foreground);
    world.run(Duration::from_secs(3));
    assert!(world.get(Kind::Lease, &key("a")).is_none());
    let kept = world.get(Kind::Lease, &key("c")).expect("it has another owner");
    let names = kept.meta.owner_references.iter().flatten().map(|owner| owner.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_circle_of_owners_comes_to_its_end() {
    let mut world = world(9, calm());
    lease(&mut world, "a", &[]);
    lease(&mut world, "b", &["a"]);
    lease(&mut world, "a", &["b"]);
    world.run(Duration::from_secs(1));
    delete(&mut world, Kind::Lease, "a", Propagation::Foreground);
    world.run(Duration::from_secs(3));
    assert_eq!(world.all(Kind::Lease).len(), 0);
}

/// A Lease that is owned by these, whose uids may be others'.
fn owned(world: &mut World<Controllers>, owners: &[(&str, &str, &str)]) {
    let uid = |kind: &str, name: &str| {
        let kind = Kind::ALL.iter().find(|one| one.name() == kind).expect("a kind");
        world.get(*kind, &key(name)).map(|owner| owner.uid.to_string())
    };
    let other = "00000000-0000-4000-8000-000000000001".to_owned();
    let owner = |(version, kind, name): &(&str, &str, &str)| {
        json!({"apiVersion": version, "kind": kind, "name": name,
               "uid": uid(kind, name).unwrap_or_else(|| other.clone())})
    };
    let owners: Vec<_> = owners.iter().map(owner).collect();
    world.put(fake::object(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "dependent", "namespace": "default", "ownerReferences": owners},
        "spec": {},
    })));
}

fn config_map(world: &mut World<Controllers>, name: &str) {
    world.put(fake::object(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
    })));
}

fn owners_of(world: &World<Controllers>) -> Option<Vec<String>> {
    let lease = world.get(Kind::Lease, &key("dependent"))?;
    let all = lease.meta.owner_references.clone().unwrap_or_default();
    Some(all.into_iter().map(|owner| owner.name).collect())
}

#[test]
fn an_owner_that_nobody_watches_is_looked_up() {
    let mut world = world(10, calm());
    config_map(&mut world, "a");
    owned(&mut world, &[("v1", "ConfigMap", "a")]);
    world.run(Duration::from_secs(100));
    assert_eq!(owners_of(&world), Some(vec!["a".to_owned()]));
    let gets = world.writes[&(Kind::ConfigMap, "get")];
    assert!((2..=5).contains(&gets), "{gets} look-ups in 100 s");
    world.remove(Kind::ConfigMap, &key("a"));
    world.run(Duration::from_secs(35));
    assert_eq!(owners_of(&world), None);
}

#[test]
fn another_of_the_owners_name_is_not_the_owner() {
    let mut world = world(11, calm());
    owned(&mut world, &[("v1", "ConfigMap", "a")]);
    config_map(&mut world, "a");
    world.run(Duration::from_secs(2));
    assert_eq!(owners_of(&world), None);
}

#[test]
fn of_several_owners_those_that_are_gone_are_struck_off() {
    let mut world = world(12, calm());
    config_map(&mut world, "a");
    owned(&mut world, &[("v1", "ConfigMap", "b"), ("v1", "ConfigMap", "a")]);
    world.run(Duration::from_secs(2));
    assert_eq!(owners_of(&world), Some(vec!["a".to_owned()]));
}

#[test]
fn an_owner_that_nobody_can_know_holds() {
    let mut world = world(13, calm());
    owned(&mut world, &[("example.com/v1", "ConfigMap", "b")]);
    let mut node = node("n1", "a");
    let job = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j",
                      "uid": "00000000-0000-4000-8000-000000000001"}]);
    Arc::make_mut(&mut node.meta).owner_references = serde_json::from_value(job).expect("owners");
    world.put(node);
    world.run(Duration::from_secs(60));
    assert_eq!(owners_of(&world), Some(vec!["b".to_owned()]));
    assert_eq!(world.all(Kind::Node).len(), 1);
}
