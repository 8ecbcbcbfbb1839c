//! Random histories of requests: whoever stands behind the port, the answers are the same.

use crate::world::{Driver, Watching, World, change, delete, key, put_text, text};
use kubesim_actors::objects::Kind;
use kubesim_actors::ports::store::{Range, Reply, Request, Under};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[derive(Clone, Debug)]
enum Action {
    /// Compares with what is there, or with something else.
    Txn {
        compare: Vec<(u8, bool)>,
        then: Vec<(u8, Option<u8>)>,
    },
    /// `at`: so much of the way from the first revision to the newest, in percent; some lie ahead.
    Range {
        under: u8,
        after: Option<u8>,
        limit: usize,
        at: Option<u64>,
    },
    Watch {
        under: u8,
        from: Option<u64>,
    },
    Compact {
        at: u64,
    },
}

const NAMES: [&str; 6] = ["a/x", "a/x-y", "a-b/x", "b/x", "b/y", "b/z"];

fn name(number: u8) -> &'static str {
    NAMES[usize::from(number) % NAMES.len()]
}

fn under(number: u8) -> Under {
    match number % 4 {
        0 => Under::All,
        1 => Under::Kind(Kind::ConfigMap),
        2 => Under::Namespace(Kind::ConfigMap, "b".into()),
        _ => Under::Kind(Kind::Pod),
    }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let compare = vec((any::<u8>(), prop::bool::weighted(0.9)), 0..3);
    let then = vec((any::<u8>(), prop::option::weighted(0.7, any::<u8>())), 0..4);
    let at = || prop::option::weighted(0.6, 0..=120u64);
    let action = prop_oneof![
        10 => (compare, then).prop_map(|(compare, then)| Action::Txn { compare, then }),
        4 => (any::<u8>(), prop::option::of(any::<u8>()), 0..4usize, at())
            .prop_map(|(under, after, limit, at)| Action::Range { under, after, limit, at }),
        2 => (any::<u8>(), at()).prop_map(|(under, from)| Action::Watch { under, from }),
        1 => (0..=120u64).prop_map(|at| Action::Compact { at }),
    ];
    vec(action, 1..40)
}

/// One store of those that are compared. Its counter may begin anywhere: 1 is where it stood.
struct Store {
    world: World,
    base: u64,
    watches: Vec<Watching>,
}

impl Store {
    fn new(world: World) -> Store {
        let now = world.range(Range::default());
        let Reply::Range { revision, .. } = now else { panic!("{now:?}") };
        Store { world, base: revision - 1, watches: Vec::new() }
    }

    fn revision(&self) -> u64 {
        let now = self.world.range(Range { limit: 1, ..Range::default() });
        let Reply::Range { revision, .. } = now else { panic!("{now:?}") };
        revision - self.base
    }

    fn shown(&self, reply: &Reply) -> String {
        let rel = |revision: u64| revision.saturating_sub(self.base);
        // Nothing is at the first revision, so there is nothing to forget.
        let compacted = |revision: u64| if rel(revision) <= 1 { 0 } else { rel(revision) };
        match reply {
            Reply::Range { revision, compacted: c, more, objects, .. } => {
                let object = |o: &std::sync::Arc<kubesim_actors::objects::Object>| {
                    format!("{}@{}={}", o.key, rel(o.version), text(o))
                };
                let objects: Vec<_> = objects.iter().map(object).collect();
                format!(
                    "{objects:?} at {}, compacted {}, more {more}",
                    rel(*revision),
                    compacted(*c)
                )
            }
            Reply::Committed { revision, .. } => format!("committed at {}", rel(*revision)),
            Reply::Mismatch { key, found, .. } => format!("{key:?} is at {}", rel(*found)),
            Reply::Compacted { revision } => format!("compacted {}", compacted(*revision)),
            Reply::Forgotten { compacted: c, .. } => format!("forgotten, {}", compacted(*c)),
            Reply::Ahead { revision, .. } => format!("ahead of {}", rel(*revision)),
            other => format!("{other:?}"),
        }
    }

    /// Its changes and, if it has ended, its last word.
    fn watched(&self, number: usize) -> (Vec<String>, Option<String>) {
        let watch = &self.watches[number];
        let told = watch.told.borrow();
        let shift = |text: String| match text.rsplit_once('@') {
            Some((what, at)) => {
                format!("{what}@{}", at.parse::<u64>().expect("a number") - self.base)
            }
            None => text,
        };
        let changes = told.iter().flat_map(|reply| match reply {
            Reply::Watched { changes, .. } => changes.iter().map(change).collect(),
            _ => Vec::new(),
        });
        let last = told.last().filter(|reply| !matches!(reply, Reply::Watched { .. }));
        (changes.map(shift).collect(), last.map(|reply| self.shown(reply)))
    }

    /// All watches that have not ended have heard of everything.
    fn settle(&self) {
        let now = self.revision() + self.base;
        for (number, watch) in self.watches.iter().enumerate() {
            let heard = || watch.ended() || watch.reached() >= now;
            self.world.until(&format!("watch {number} hears of everything"), heard);
        }
    }

    fn act(&mut self, action: &Action) -> String {
        // The same for all, as they agreed so far.
        let now = self.revision();
        let at = |percent: u64| 1 + (now * percent) / 100;
        let reply = match action {
            Action::Txn { compare, then } => {
                let here = self.world.range(Range::default());
                let Reply::Range { objects, .. } = here else { panic!("{here:?}") };
                let found = |name| {
                    let found = objects.iter().find(|object| object.key == key(name).1);
                    found.map_or(0, |object| object.version)
                };
                let compare = compare.iter().map(|(n, holds)| {
                    let version = found(name(*n));
                    (key(name(*n)), if *holds { version } else { version + 1 + self.base })
                });
                let compare = compare.collect();
                let then = then.iter().map(|(n, value)| match value {
                    Some(value) => put_text(name(*n), &value.to_string()),
                    None => delete(name(*n)),
                });
                self.world.ask(Request::Txn { id: 1, compare, then: then.collect() })
            }
            Action::Range { under: n, after, limit, at: percent } => {
                let revision = percent.map_or(0, |percent| at(percent) + self.base);
                let after = after.map(|n| key(name(n)));
                self.world.range(Range { id: 1, under: under(*n), after, limit: *limit, revision })
            }
            Action::Watch { under: n, from } => {
                let from = from.map_or(0, |percent| at(percent).max(2) + self.base);
                let watch = self.world.watch(1, under(*n), from);
                // It stands: one from now on is told nothing that comes after this.
                let stands = || watch.ended() || !watch.told.borrow().is_empty();
                self.world.until("a watch stands", stands);
                self.watches.push(watch);
                return String::new();
            }
            Action::Compact { at: percent } => {
                self.settle();
                let revision = at(*percent) + self.base;
                self.world.ask(Request::Compact { revision })
            }
        };
        self.shown(&reply)
    }
}

fn play(actions: &[Action], worlds: Vec<World>) -> Result<(), TestCaseError> {
    let mut stores: Vec<_> = worlds.into_iter().map(Store::new).collect();
    for (number, action) in actions.iter().enumerate() {
        let answers: Vec<_> = stores.iter_mut().map(|store| store.act(action)).collect();
        let same = answers.windows(2).all(|pair| pair[0] == pair[1]);
        prop_assert!(same, "{number}: {action:?}: {answers:#?}");
    }
    stores.iter().for_each(Store::settle);
    for number in 0..stores[0].watches.len() {
        let told: Vec<_> = stores.iter().map(|store| store.watched(number)).collect();
        prop_assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "watch {number}: {told:#?}");
    }
    Ok(())
}

fn agree(cases: u32, worlds: impl Fn() -> Vec<World>) {
    // PROPTEST_CASES says otherwise.
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new(config).run(&actions(), |actions| play(&actions, worlds()));
    done.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_directory_and_the_model_agree() {
    agree(24, || vec![crate::in_memory(), crate::in_a_directory()]);
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_a_directory_and_the_model_agree() {
    use kubesim_backends::store::etcd::{Etcd, Options};
    use std::cell::Cell;
    use std::rc::Rc;
    crate::on_machines_with_etcd(|| {
        let server = crate::etcd::Server::start(2379);
        let number = Cell::new(0);
        let in_etcd = || {
            number.set(number.get() + 1);
            let mut options = Options::new([server.endpoint()]);
            options.root = format!("/case/{}", number.get());
            World::new((), || -> Driver { Rc::new(Etcd::new(options).expect("options")) })
        };
        agree(16, || vec![crate::in_memory(), crate::in_a_directory(), in_etcd()]);
    });
}
