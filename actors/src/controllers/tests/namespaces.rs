//! At every moment: nothing is made twice or in a namespace that goes. In the end: every other
//! namespace has both, and nothing is written any more.

use super::fake::{Weather, object};
use super::*;
use crate::objects::Key;
use proptest::prelude::*;

const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----";

fn world(seed: u64, weather: Weather) -> World<Controllers> {
    World::new(Config { root_ca: Some(AUTHORITY.into()), ..config() }, seed, weather)
}

fn namespace(name: &str) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}

fn data(world: &World<Controllers>, namespace: &str) -> Option<String> {
    let map = world.get(Kind::ConfigMap, &Key::new(namespace, "kube-root-ca.crt"))?;
    map.config_map()?.data.as_ref()?.get("ca.crt").cloned()
}

fn account(world: &World<Controllers>, namespace: &str) -> bool {
    world.get(Kind::ServiceAccount, &Key::new(namespace, "default")).is_some()
}

#[test]
fn what_is_taken_away_or_changed_comes_back() {
    let mut world = world(1, calm());
    world.put(namespace("a"));
    world.run(Duration::from_secs(1));
    assert_eq!((data(&world, "a").as_deref(), account(&world, "a")), (Some(AUTHORITY), true));
    world.remove(Kind::ServiceAccount, &Key::new("a", "default"));
    world.remove(Kind::ConfigMap, &Key::new("a", "kube-root-ca.crt"));
    world.run(Duration::from_secs(1));
    assert_eq!((data(&world, "a").as_deref(), account(&world, "a")), (Some(AUTHORITY), true));
    world.put(object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": "another", "more": "x"},
        "metadata": {"name": "kube-root-ca.crt", "namespace": "a", "labels": {"mine": "yes"}},
    })));
    world.run(Duration::from_secs(1));
    let map = world.get(Kind::ConfigMap, &Key::new("a", "kube-root-ca.crt")).expect("it is there");
    assert_eq!(map.label("mine"), Some("yes"));
    assert_eq!(map.config_map().expect("a map").data.as_ref().map(|data| data.len()), Some(1));
    assert_eq!(data(&world, "a").as_deref(), Some(AUTHORITY));
}

#[test]
fn without_an_authority_nothing_is_made() {
    let mut world = super::world(1, calm());
    world.put(namespace("a"));
    world.run(Duration::from_secs(5));
    assert_eq!((data(&world, "a"), account(&world, "a")), (None, false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn each_namespace_that_stays_has_both(
        seed in 0..1_000_000u64,
        deeds in proptest::collection::vec((0..5u8, 0..4usize, 0..2_000u64), 1..40),
    ) {
        let weather = Weather {
            max_delay_ms: 50, lost_requests: 0.1, lost_answers: 0.1, view_delay_ms: 200,
        };
        let mut world = world(seed, weather);
        let names = ["a", "b", "c", "d"];
        for (deed, at, wait) in deeds {
            let name = names[at];
            let there = world.get(Kind::Namespace, &Key::cluster(name));
            match deed {
                0 if there.is_none() => world.put(namespace(name)),
                1 => if let Some(there) = there {
                    let mut goes = (*there).clone();
                    Arc::make_mut(&mut goes.meta).deletion_timestamp =
                        Some(time(Wall::from_unix_secs(1_700_000_000)));
                    world.put(goes);
                },
                2 => world.remove(Kind::ServiceAccount, &Key::new(name, "default")),
                3 => world.remove(Kind::ConfigMap, &Key::new(name, "kube-root-ca.crt")),
                4 => world.restart(),
                _ => {}
            }
            world.run(Duration::from_millis(wait));
        }
        world.run(Duration::from_secs(60));
        for namespace in world.all(Kind::Namespace).iter().filter(|n| !n.deleting()) {
            let name = &namespace.key.name;
            prop_assert_eq!(data(&world, name), Some(AUTHORITY.to_owned()), "{}", name);
            prop_assert!(account(&world, name), "{}", name);
        }
        // Where it was seen to go, nothing is made any more.
        for namespace in world.all(Kind::Namespace).iter().filter(|n| n.deleting()) {
            let name = &namespace.key.name;
            world.remove(Kind::ServiceAccount, &Key::new(name.clone(), "default"));
            world.remove(Kind::ConfigMap, &Key::new(name.clone(), "kube-root-ca.crt"));
        }
        let writes = world.writes.clone();
        world.run(Duration::from_secs(60));
        prop_assert_eq!(writes, world.writes);
    }
}
