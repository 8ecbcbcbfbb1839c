//! Objects of kinds that no controller works with own and are owned like all others.

use super::fake::{self, World};
use super::*;
use crate::controllers::collectable;
use crate::objects::definition::served_kind;
use crate::objects::kinds::Interner;
use crate::objects::{Key, Uid};
use crate::ports::api::{DeleteOptions, Propagation, Request};

fn world(seed: u64, weather: Weather) -> World<Controllers> {
    World::new(Config { collects: collectable(), ..config() }, seed, weather)
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn put(world: &mut World<Controllers>, kind: Kind, name: &str, owner: Option<(Kind, &str)>) {
    let reference = owner.map(|(kind, name)| {
        let uid = world.get(kind, &key(name)).expect("an owner").uid.to_string();
        json!([{"apiVersion": kind.api_version(), "kind": kind.name(), "name": name, "uid": uid,
                "blockOwnerDeletion": true}])
    });
    let meta = json!({"name": name, "namespace": "default", "ownerReferences": reference});
    let object = Object::from_json_of(kind, json!({"metadata": meta}));
    world.put(object.expect("it needs no more"));
}

fn delete(world: &mut World<Controllers>, kind: Kind, name: &str, how: Option<Propagation>) {
    let options = DeleteOptions { propagation: how, ..DeleteOptions::default() };
    world.apply(&Request::Delete { kind, key: key(name), options }).expect("it is there");
}

fn owners(world: &World<Controllers>, kind: Kind, name: &str) -> Option<usize> {
    let object = world.get(kind, &key(name))?;
    Some(object.meta.owner_references.as_ref().map_or(0, Vec::len))
}

/// What declares widgets, and their kind.
fn widgets(uid: u64) -> (Object, Kind) {
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget",
        "listKind": "WidgetList"});
    let mut crd = fake::object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
        "status": {"acceptedNames": names, "storedVersions": ["v1"],
            "conditions": [{"type": "Established", "status": "True", "reason": "", "message": "",
                "lastTransitionTime": "2024-01-01T00:00:00Z"}]},
    }));
    crd.uid = Uid::from_random(9, uid);
    let kind = served_kind(&crd, &mut Interner::default()).expect("it is established");
    (crd, kind)
}

#[test]
fn what_no_controller_works_with_goes_in_the_foreground_and_is_let_go() {
    let mut world = world(1, calm());
    for name in ["a", "b"] {
        put(&mut world, Kind::ConfigMap, name, None);
        put(&mut world, Kind::Secret, name, Some((Kind::ConfigMap, name)));
    }
    world.run(Duration::from_secs(1));
    delete(&mut world, Kind::ConfigMap, "a", Some(Propagation::Foreground));
    for _ in 0..100 {
        world.run(Duration::from_millis(10));
        let there = |kind| world.get(kind, &key("a")).is_some();
        assert!(there(Kind::ConfigMap) || !there(Kind::Secret), "the owner goes last");
    }
    assert_eq!(owners(&world, Kind::ConfigMap, "a"), None);
    assert_eq!(owners(&world, Kind::Secret, "b"), Some(1));
    delete(&mut world, Kind::ConfigMap, "b", Some(Propagation::Orphan));
    world.run(Duration::from_secs(1));
    assert_eq!(owners(&world, Kind::ConfigMap, "b"), None);
    assert_eq!(owners(&world, Kind::Secret, "b"), Some(0));
}

#[test]
fn what_is_declared_is_collected_as_soon_as_it_is_served() {
    let mut world = world(2, calm());
    world.run(Duration::from_secs(1));
    let (crd, widget) = widgets(1);
    world.put(crd);
    put(&mut world, widget, "w", None);
    put(&mut world, widget, "part", Some((widget, "w")));
    put(&mut world, Kind::Secret, "s", Some((widget, "part")));
    world.run(Duration::from_secs(1));
    assert_eq!(owners(&world, Kind::Secret, "s"), Some(1));
    delete(&mut world, widget, "w", None);
    world.run(Duration::from_secs(1));
    assert_eq!(owners(&world, widget, "part"), None);
    assert_eq!(owners(&world, Kind::Secret, "s"), None);
    let gets = world.writes.get(&(widget, "get")).copied().unwrap_or(0);
    assert!(gets <= 1, "what is shown is not asked for again and again: {gets} look-ups");
}

#[test]
fn with_a_definition_what_its_objects_owned_goes_and_another_one_begins_anew() {
    let mut world = world(3, calm());
    for round in 1..4 {
        let (crd, widget) = widgets(round);
        let name = crd.key.clone();
        world.put(crd);
        put(&mut world, widget, "w", None);
        put(&mut world, Kind::Secret, "s", Some((widget, "w")));
        world.run(Duration::from_secs(1));
        assert_eq!(owners(&world, Kind::Secret, "s"), Some(1));
        // The server takes the objects first; what is shown of both may come in any order.
        world.remove(widget, &key("w"));
        world.remove(Kind::CustomResourceDefinition, &name);
        world.run(Duration::from_secs(1));
        assert_eq!(owners(&world, Kind::Secret, "s"), None, "round {round}");
    }
}

/// Who owns nothing that is shown may own what is not shown yet.
#[test]
fn nobody_is_let_go_before_all_kinds_are_shown() {
    for seed in 0..20 {
        let late = Weather { view_delay_ms: 5_000, ..calm() };
        let mut world = world(seed, late);
        put(&mut world, Kind::ConfigMap, "a", None);
        put(&mut world, Kind::Secret, "a", Some((Kind::ConfigMap, "a")));
        delete(&mut world, Kind::ConfigMap, "a", Some(Propagation::Orphan));
        world.restart();
        world.run(Duration::from_secs(60));
        assert_eq!(owners(&world, Kind::ConfigMap, "a"), None);
        assert_eq!(owners(&world, Kind::Secret, "a"), Some(0), "seed {seed}");
    }
}
