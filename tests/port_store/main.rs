//! The store port: the model in memory, a directory of this machine and etcd do the same. Each body
//! here runs three times; etcd is the real one (Debian: etcd-server), in a network namespace.

mod histories;
mod kill;
#[cfg(feature = "etcd")]
mod outages;
mod watches;
mod world;

#[cfg(feature = "etcd")]
#[path = "../common/etcd.rs"]
mod etcd;
#[cfg(feature = "etcd")]
#[path = "../common/namespace.rs"]
mod namespace;

use self::world::{Folder, World, delete, key, names, put, put_text, text};
use kubesim_actors::objects::kinds::{Interner, Names};
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_actors::ports::store::{Op, Range, Reply, Request, Under};
use kubesim_backends::store::{embedded, memory};
use serde_json::json;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a watch that nothing happens to is told no progress.
const PROGRESS: Duration = Duration::from_millis(20);

fn in_memory() -> World {
    World::new((), || Rc::new(memory::Memory::with_progress(PROGRESS)))
}

fn in_a_directory() -> World {
    let folder = Folder::new();
    let path = folder.0.clone();
    let options = embedded::Options { progress: PROGRESS, ..embedded::Options::default() };
    let open = move || embedded::Embedded::open(path, options).expect("a store");
    World::new(folder, || Rc::new(open()))
}

/// Runs `body` on an etcd with an empty store, unless this machine lacks what that takes.
#[cfg(feature = "etcd")]
fn in_etcd(body: impl FnOnce(&World) + Send + 'static) {
    on_machines_with_etcd(|| {
        let server = etcd::Server::start(2379);
        let options = kubesim_backends::store::etcd::Options::new([server.endpoint()]);
        let open = || kubesim_backends::store::etcd::Etcd::new(options).expect("options");
        body(&World::new(server, || Rc::new(open())));
    });
}

#[cfg(feature = "etcd")]
fn on_machines_with_etcd(body: impl FnOnce() + Send + 'static) {
    if !etcd::installed() {
        return namespace::skip::skipped("etcd (Debian: etcd-server)");
    }
    namespace::in_namespace(body);
}

/// Three tests of each body.
macro_rules! alike {
    ($($place:ident :: $body:ident)*) => {
        mod on_the_model {
            $(#[test] fn $body() { crate::$place::$body(&crate::in_memory()); })*
        }
        mod on_a_directory {
            $(#[test] fn $body() { crate::$place::$body(&crate::in_a_directory()); })*
        }
        #[cfg(feature = "etcd")]
        mod on_etcd {
            $(#[test] fn $body() { crate::in_etcd(crate::$place::$body); })*
        }
    };
}

alike! {
    writes::a_put_gets_the_revision_of_its_transaction_as_its_version
    writes::a_failed_comparison_changes_nothing_and_says_what_it_found
    writes::a_deleted_key_compares_as_absent
    writes::what_changes_nothing_takes_no_revision
    writes::what_no_store_takes_is_refused_with_its_reason
    writes::many_at_once_get_a_revision_each
    writes::every_kind_comes_back_whole
    reads::pages_are_in_the_order_of_paths
    reads::the_past_is_there_until_it_is_compacted
    reads::more_than_one_answer_holds
    watches::each_revision_is_told_whole_and_once
    watches::one_from_the_past_goes_on_into_the_present
    watches::one_from_now_tells_nothing_older
    watches::only_what_is_under_it_is_told
    watches::one_that_comes_too_late_ends
    watches::an_end_just_after_the_compacted_revision_is_told
    watches::one_that_nothing_happens_to_is_told_progress
    watches::one_far_behind_catches_up
}

mod writes {
    use super::*;

    pub fn a_put_gets_the_revision_of_its_transaction_as_its_version(world: &World) {
        assert_eq!(world.at(0), [""; 0]);
        let reply = world.txn(&[("a", 0)], vec![put("a"), put("b")]);
        assert!(matches!(reply, Reply::Committed { id: 1, revision: 2 }), "{reply:?}");
        assert_eq!(world.commit(vec![put("b")]), 3);
        assert_eq!(world.at(0), ["default/a@2", "default/b@3"]);
    }

    pub fn a_failed_comparison_changes_nothing_and_says_what_it_found(world: &World) {
        world.commit(vec![put("a")]);
        let reply = world.txn(&[("b", 0), ("a", 7)], vec![put("a"), put("b")]);
        let Reply::Mismatch { id: 1, key: found_key, found: 2 } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(found_key, key("a"));
        let reply = world.txn(&[("b", 2)], vec![put("c")]);
        assert!(matches!(reply, Reply::Mismatch { found: 0, .. }), "{reply:?}");
        assert_eq!(world.at(0), ["default/a@2"]);
        assert_eq!(world.commit(vec![put("b")]), 3, "neither took a revision");
    }

    pub fn a_deleted_key_compares_as_absent(world: &World) {
        world.commit(vec![put("a")]);
        let reply = world.txn(&[("a", 2)], vec![delete("a")]);
        assert!(matches!(reply, Reply::Committed { revision: 3, .. }), "{reply:?}");
        let reply = world.txn(&[("a", 2)], vec![put("a")]);
        assert!(matches!(reply, Reply::Mismatch { found: 0, .. }), "{reply:?}");
        let reply = world.txn(&[("a", 0)], vec![put("a")]);
        assert!(matches!(reply, Reply::Committed { revision: 4, .. }), "{reply:?}");
    }

    pub fn what_changes_nothing_takes_no_revision(world: &World) {
        assert_eq!(world.commit(vec![delete("a")]), 1);
        assert_eq!(world.commit(vec![]), 1);
        assert_eq!(world.commit(vec![delete("a"), put("b")]), 2);
    }

    pub fn what_no_store_takes_is_refused_with_its_reason(world: &World) {
        for then in [vec![put("a"), delete("a")], vec![put("a/b/c")], vec![delete("")]] {
            let reply = world.txn(&[], then);
            let Reply::Refused { id: 1, why } = &reply else { panic!("{reply:?}") };
            assert!(why.contains("ConfigMap"), "{why}");
        }
        assert_eq!(world.commit(vec![put("a")]), 2);
    }

    pub fn many_at_once_get_a_revision_each(world: &World) {
        let mut asked = Vec::new();
        for number in 0..200 {
            let name = format!("a{number}");
            let compare = vec![(key(&name), 0)];
            let request = Request::Txn { id: number, compare, then: vec![put(&name)] };
            asked.push(world.begin(request));
        }
        let mut revisions = BTreeSet::new();
        for (number, asked) in asked.into_iter().enumerate() {
            let reply = world.block_on(asked).expect("no panic");
            let Reply::Committed { id, revision } = reply else { panic!("{reply:?}") };
            assert_eq!(id, number as u64);
            revisions.insert(revision);
        }
        assert!(revisions.into_iter().eq(2..202));
    }

    pub fn every_kind_comes_back_whole(world: &World) {
        let mut then = Vec::new();
        // And two that definitions declare.
        let mut kinds = Interner::default();
        let declared = [true, false].map(|namespaced| {
            let names =
                Names { group: "example.com", plural: "widgets", kind: "Widget", namespaced };
            kinds.kind(names, "v1")
        });
        for kind in Kind::ALL.iter().chain(&declared) {
            let bare = json!({"apiVersion": kind.api_version(), "kind": kind.name(),
                "metadata": {"name": "a", "labels": {"app": "a"},
                             "uid": "ffffffff-ffff-4fff-8123-456789abcdef"}});
            let value = Arc::new(Object::from_json_of(*kind, bare).expect("an object"));
            then.push(Op::Put { key: (*kind, value.key.clone()), value });
        }
        let put = |op: &Op| match op {
            Op::Put { value, .. } => Arc::clone(value),
            Op::Delete { .. } => panic!(),
        };
        let mut written: Vec<_> = then.iter().map(put).collect();
        world.commit(then);
        let Reply::Range { objects, .. } = world.range(Range::default()) else { panic!() };
        let place = |object: &Object| (object.kind(), object.key.clone());
        let mut found = objects;
        found.sort_by_key(|object| place(object));
        written.sort_by_key(|object| place(object));
        assert_eq!(found.len(), Kind::ALL.len() + declared.len());
        for (found, written) in found.iter().zip(&written) {
            assert_eq!((found.version, found.uid), (2, written.uid));
            assert_eq!(found.kind(), written.kind());
            assert_eq!(found.to_bytes(), written.to_bytes());
        }
    }
}

mod reads {
    use super::*;

    /// `-` comes before `/`, so namespace `a-b` comes before `a`.
    pub fn pages_are_in_the_order_of_paths(world: &World) {
        let node = |name: &str| {
            let bare = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            let value = Arc::new(Object::from_json(bare).expect("a node"));
            Op::Put { key: (Kind::Node, Key::cluster(name)), value }
        };
        world.commit(vec![put("a/x"), put("a/x-y"), put("a-b/x"), put("ab/x"), node("n")]);
        let all = ["a-b/x@2", "a/x@2", "a/x-y@2", "ab/x@2", "n@2"];
        assert_eq!(world.at(0), all);
        for limit in 1..=6 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let reply = world.range(Range { after, limit, ..Range::default() });
                let Reply::Range { more, objects, .. } = &reply else { panic!("{reply:?}") };
                assert!(objects.len() <= limit);
                seen.extend(names(&reply));
                after = objects.last().map(|object| (object.kind(), object.key.clone()));
                if !more {
                    break;
                }
            }
            assert_eq!(seen, all, "pages of {limit}");
        }
        let under = |under| names(&world.range(Range { under, ..Range::default() }));
        assert_eq!(under(Under::Kind(Kind::ConfigMap)), all[..4]);
        assert_eq!(under(Under::Namespace(Kind::ConfigMap, "a".into())), all[1..3]);
        assert_eq!(under(Under::Kind(Kind::Node)), all[4..]);
        assert_eq!(under(Under::Kind(Kind::Pod)), [""; 0]);
        let after = Some(key("a/x"));
        let range = Range { under: Under::Kind(Kind::Node), after, ..Range::default() };
        assert_eq!(names(&world.range(range)), all[4..], "a page after what is not under it");
    }

    pub fn the_past_is_there_until_it_is_compacted(world: &World) {
        for name in ["a", "b", "a"] {
            world.commit(vec![put_text(name, name)]);
        }
        world.commit(vec![delete("b")]);
        assert_eq!(world.at(1), [""; 0]);
        assert_eq!(world.at(3), ["default/a@2", "default/b@3"]);
        assert_eq!(world.at(4), ["default/a@4", "default/b@3"]);
        assert_eq!(world.at(5), ["default/a@4"]);
        let reply = world.range(Range { id: 9, revision: 6, ..Range::default() });
        assert!(matches!(reply, Reply::Ahead { id: 9, revision: 5 }), "{reply:?}");
        let reply = world.range(Range { id: 9, ..Range::default() });
        let Reply::Range { id: 9, revision: 5, compacted: 0, .. } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(world.compact(3), 3);
        assert_eq!(world.at(3), ["default/a@2", "default/b@3"]);
        let reply = world.range(Range { id: 9, revision: 2, ..Range::default() });
        assert!(matches!(reply, Reply::Forgotten { id: 9, compacted: 3 }), "{reply:?}");
        let reply = world.range(Range::default());
        let Reply::Range { compacted: 3, objects, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(text(&objects[0]), "a");
        assert_eq!(world.compact(2), 3, "never back");
        assert_eq!(world.compact(99), 5, "never ahead");
        assert_eq!(world.at(5), ["default/a@4"]);
    }

    /// More than gRPC's largest message by default, and more keys than a page of the driver's.
    pub fn more_than_one_answer_holds(world: &World) {
        let long = "x".repeat(10_000);
        for part in 0..10 {
            let then = (0..100).map(|n| put_text(&format!("a{part}{n:02}"), &long));
            world.commit(then.collect());
        }
        assert_eq!(world.at(0).len(), 1000);
        let reply = world.range(Range { limit: 700, ..Range::default() });
        let Reply::Range { objects, more: true, .. } = reply else { panic!("there is more") };
        assert_eq!(objects.len(), 700);
        assert!(objects.iter().all(|object| text(object) == long));
    }
}
