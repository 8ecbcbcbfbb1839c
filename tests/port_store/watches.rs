//! What a watch is told.

use crate::world::{World, delete, put, put_text};
use kubesim_actors::objects::Kind;
use kubesim_actors::ports::store::{Reply, Under};

pub fn each_revision_is_told_whole_and_once(world: &World) {
    let watch = world.watch(7, Under::All, 2);
    world.commit(vec![put("b"), put("a")]);
    world.commit(vec![delete("b"), put("c"), delete("d")]);
    world.until("both are told", || watch.reached() == 3);
    let told = ["default/b@2", "default/a@2", "default/b ended@3", "default/c@3"];
    assert_eq!(watch.changes(), told);
    for reply in &*watch.told.borrow() {
        let Reply::Watched { id: 7, revision, changes } = reply else { panic!("{reply:?}") };
        assert!(changes.iter().all(|change| change.revision() <= *revision));
        let of_one = |at: u64| changes.iter().filter(|c| c.revision() == at).count();
        assert!([0, 2].contains(&of_one(2)) && [0, 2].contains(&of_one(3)), "{reply:?}");
    }
}

pub fn one_from_the_past_goes_on_into_the_present(world: &World) {
    for name in ["a", "b", "c"] {
        world.commit(vec![put(name)]);
    }
    let watch = world.watch(1, Under::All, 3);
    world.until("the past is told", || watch.changes().len() == 2);
    world.commit(vec![put("a")]);
    world.until("the present is told", || watch.changes().len() == 3);
    assert_eq!(watch.changes(), ["default/b@3", "default/c@4", "default/a@5"]);
    let ahead = world.watch(2, Under::All, 7);
    world.commit(vec![put("b")]);
    world.commit(vec![put("c")]);
    world.until("what was ahead is told", || ahead.reached() == 7);
    assert_eq!(ahead.changes(), ["default/c@7"]);
}

pub fn one_from_now_tells_nothing_older(world: &World) {
    world.commit(vec![put("a")]);
    let watch = world.watch(1, Under::All, 0);
    world.until("it stands", || watch.reached() == 2);
    world.commit(vec![put("b")]);
    world.until("it is told", || watch.reached() == 3);
    assert_eq!(watch.changes(), ["default/b@3"]);
}

pub fn only_what_is_under_it_is_told(world: &World) {
    let kind = world.watch(1, Under::Kind(Kind::ConfigMap), 2);
    let namespace = world.watch(2, Under::Namespace(Kind::ConfigMap, "a".into()), 2);
    let other = world.watch(3, Under::Kind(Kind::Pod), 2);
    world.commit(vec![put("a/x"), put("a-b/x"), put("b/x")]);
    world.until("both are told", || kind.reached() == 2 && namespace.reached() == 2);
    assert_eq!(kind.changes(), ["a/x@2", "a-b/x@2", "b/x@2"]);
    assert_eq!(namespace.changes(), ["a/x@2"]);
    world.until("progress is", || other.reached() == 2);
    assert_eq!(other.changes(), [""; 0]);
}

pub fn one_that_comes_too_late_ends(world: &World) {
    for name in ["a", "b", "c"] {
        world.commit(vec![put(name)]);
    }
    world.compact(3);
    for from in [2, 3] {
        let late = world.watch(5, Under::All, from);
        world.until("it ends", || late.ended());
        let told = late.told.take();
        assert!(
            matches!(&told[..], [Reply::Forgotten { id: 5, compacted: 3 }]),
            "from {from}: {told:?}"
        );
    }
    let in_time = world.watch(6, Under::All, 4);
    world.until("it is told", || in_time.reached() == 4);
    assert_eq!(in_time.changes(), ["default/c@4"]);
}

pub fn an_end_just_after_the_compacted_revision_is_told(world: &World) {
    world.commit(vec![put("a")]);
    world.commit(vec![put("b")]);
    world.commit(vec![delete("a")]);
    world.compact(3);
    let watch = world.watch(1, Under::All, 4);
    world.until("it is told", || watch.reached() == 4);
    assert_eq!(watch.changes(), ["default/a ended@4"]);
}

pub fn one_that_nothing_happens_to_is_told_progress(world: &World) {
    world.commit(vec![put("a")]);
    let watch = world.watch(1, Under::Kind(Kind::Pod), 2);
    for round in 3..6 {
        let before = watch.told.borrow().len();
        world.commit(vec![put_text("a", &round.to_string())]);
        world.until("it is told how far things are", || watch.reached() == round);
        world.until("and again", || watch.told.borrow().len() > before + 1);
    }
    assert_eq!(watch.changes(), [""; 0]);
}

/// Further than what is kept at hand for watches, and more than one message holds.
pub fn one_far_behind_catches_up(world: &World) {
    let text = "x".repeat(1000);
    for part in 0..50 {
        let then = (0..100).map(|n| put_text(&format!("a{n}"), &format!("{part} {text}")));
        world.commit(then.collect());
    }
    let watch = world.watch(1, Under::All, 2);
    world.until("all is told", || watch.reached() == 51);
    assert_eq!(watch.changes().len(), 5000);
    let last = world.commit(vec![put("b")]);
    world.until("and goes on", || watch.reached() == last);
    assert_eq!(watch.changes().last().map(String::as_str), Some("default/b@52"));
}
