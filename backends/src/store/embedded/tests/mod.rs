//! The engine on a disk whose power fails.

mod disk;
mod opening;

use self::disk::Disk;
use super::engine::{Engine, Outcome, Step, Write};
use super::reader::Reader;
use kubesim_actors::apiserver::memory_store::Store;
use kubesim_actors::objects::{Body, ConfigMap, Key, Kind, Object};
use kubesim_actors::ports::store::{Change, Op, Range, Reply, Request, StoreKey, Under};
use kubesim_runtime::{Rng, Stream};
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Arc;

const CACHE: usize = 1 << 20;

/// What happens to a disk before its power fails at random, so often.
const LIVES: u64 = 12;

/// A history of transactions, each life ended by a power cut somewhere in it: after each, what was
/// acknowledged is there, and of what was under way all or nothing. The error says what was lost.
fn history(seed: u64, honest: bool) -> Result<u64, String> {
    let disk = Disk::new(seed, honest);
    let mut dice = Rng::new(Stream { seed, label: "history", index: 0, incarnation: 0 });
    let mut model = Store::with_history();
    let mut doubt: Option<Store> = None;
    let mut acknowledged = 0;
    for life in 0..LIVES {
        // The first life gets to its first transaction, any other may end while it is opened.
        let fuel = if life == 0 { 2000 } else { 1 + dice.u64() % 300 };
        let (storage, power) = disk.power(fuel);
        if let Ok(mut engine) = Engine::open(storage, CACHE) {
            if let Some(after) = doubt.take()
                && (engine.state.revision, engine.state.compacted)
                    == (after.revision(), after.compacted())
            {
                model = after;
            }
            same(&engine, &model, seed).map_err(|lost| format!("life {life}: {lost}"))?;
            loop {
                let steps: Vec<_> =
                    (0..1 + dice.u64() % 6).map(|_| step(&mut dice, &model)).collect();
                let mut after = model.clone();
                let expected: Vec<_> = steps.iter().map(|s| after.request(&request(s))).collect();
                let Ok(outcomes) = engine.commit(&steps) else {
                    doubt = Some(after);
                    break;
                };
                agree(&outcomes, &expected);
                acknowledged += outcomes.len() as u64;
                model = after;
                if dice.u64().is_multiple_of(200) {
                    break;
                }
            }
        } else if power.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            return Err(format!("life {life}: the store cannot be opened"));
        }
        disk.fail(&power);
    }
    Ok(acknowledged)
}

fn key(number: u64) -> StoreKey {
    (Kind::ConfigMap, Key::new("default", format!("c{}", number % 8)))
}

fn step(dice: &mut Rng, model: &Store) -> Step {
    if dice.u64().is_multiple_of(20) {
        return Step::Compact { revision: dice.u64() % (model.revision() + 1) };
    }
    let target = key(dice.u64());
    let known = model.get(&target).map_or(0, |object| object.version);
    // Now and then one that does not hold.
    let expected = known + u64::from(dice.u64().is_multiple_of(10));
    let mut then = vec![op(dice, target.clone())];
    let other = key(dice.u64());
    if other != target {
        then.push(op(dice, other));
    }
    let then = then.into_iter().map(Write::of).collect();
    Step::Txn { compare: vec![(target, expected)], then }
}

fn op(dice: &mut Rng, key: StoreKey) -> Op {
    if dice.u64().is_multiple_of(3) {
        return Op::Delete { key };
    }
    // Within a page and over several.
    let size = dice.u64() % if dice.u64().is_multiple_of(4) { 20_000 } else { 200 };
    let text = char::from(b'a' + (size % 26) as u8).to_string().repeat(size as usize);
    let data = BTreeMap::from([("text".to_owned(), text)]);
    let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    let value = Object::new(key.1.clone(), Body::ConfigMap(Arc::new(map)));
    Op::Put { key, value: Arc::new(value) }
}

fn request(step: &Step) -> Request {
    match step {
        Step::Txn { compare, then } => Request::Txn {
            id: 0,
            compare: compare.clone(),
            then: then.iter().map(|write| write.op.clone()).collect(),
        },
        Step::Compact { revision } => Request::Compact { revision: *revision },
    }
}

fn agree(outcomes: &[Outcome], expected: &[Reply]) {
    for pair in outcomes.iter().zip(expected) {
        match pair {
            (Outcome::Committed { revision: a, .. }, Reply::Committed { revision: b, .. })
            | (Outcome::Compacted { revision: a }, Reply::Compacted { revision: b })
            | (Outcome::Mismatch { found: a, .. }, Reply::Mismatch { found: b, .. })
                if a == b => {}
            _ => panic!("{pair:?}"),
        }
    }
}

/// What was at a fifth of all revisions and at the newest, and all that changed since.
fn same(engine: &Engine, model: &Store, seed: u64) -> Result<(), String> {
    let reader = Reader::new(Arc::clone(&engine.database));
    let mut model = model.clone();
    let last = model.revision();
    let broken = |broken: super::Broken| broken.0.to_string();
    let looked_at = |revision: &u64| revision % 5 == seed % 5 || revision + 3 > last;
    for revision in (0..=last).filter(looked_at) {
        let range = Range { revision, ..Range::default() };
        let found = shown(&reader.range(&range).map_err(broken)?);
        let expected = shown(&model.request(&Request::Range(range)));
        if found != expected {
            return Err(format!("at {revision}: {found} instead of {expected}"));
        }
        let found = shown(&reader.changes(0, &Under::All, revision).map_err(broken)?);
        let expected = shown(&model.changes(0, &Under::All, revision));
        if found != expected {
            return Err(format!("since {revision}: {found} instead of {expected}"));
        }
    }
    Ok(())
}

fn shown(reply: &Reply) -> String {
    let object = |object: &Arc<Object>| {
        let bytes = object.to_bytes();
        (object.key.to_string(), object.version, bytes.len(), bytes.get(bytes.len() / 2).copied())
    };
    match reply {
        Reply::Range { revision, compacted, objects, more, .. } => {
            let objects: Vec<_> = objects.iter().map(object).collect();
            format!("{revision} {compacted} {more} {objects:?}")
        }
        Reply::Watched { revision, changes, .. } => {
            let change = |change: &Change| match change {
                Change::Put(put) => format!("{:?}", object(put)),
                Change::Deleted { key, revision } => format!("{key:?} ends at {revision}"),
            };
            format!("{revision} {:?}", changes.iter().map(change).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

fn seeds() -> std::ops::Range<u64> {
    1..if cfg!(debug_assertions) { 25 } else { 250 }
}

#[test]
fn what_is_acknowledged_survives_power_cuts() {
    let mut acknowledged = 0;
    for seed in seeds() {
        acknowledged += history(seed, true).unwrap_or_else(|lost| panic!("seed {seed}: {lost}"));
    }
    let expected = seeds().count() as u64 * 20;
    assert!(acknowledged > expected, "the histories are no empty ones: {acknowledged}");
}

/// A store that forgets to sync looks like a disk that does not.
#[test]
fn a_missing_sync_is_noticed() {
    // redb may panic where a page is another's.
    let lost = |seed: &u64| !matches!(catch_unwind(|| history(*seed, false)), Ok(Ok(_)));
    let noticed = (1..20).filter(lost).count();
    assert!(noticed >= 18, "in {noticed} of 19 histories");
}

/// Much to forget, in parts, while other work goes on and after it.
#[test]
fn what_is_compacted_is_removed_and_nothing_else() {
    let disk = Disk::new(1, true);
    let mut dice = Rng::new(Stream { seed: 1, label: "history", index: 0, incarnation: 0 });
    let mut model = Store::with_history();
    let mut engine = Engine::open(disk.power(u64::MAX).0, CACHE).expect("a store");
    for _ in 0..30 {
        let steps = (0..100).map(|n| {
            let then = vec![Write::of(op(&mut dice, key(n)))];
            Step::Txn { compare: vec![], then }
        });
        let steps: Vec<_> = steps.collect();
        steps.iter().for_each(|step| drop(model.request(&request(step))));
        engine.commit(&steps).expect("committed");
    }
    let records = |engine: &Engine| engine.records().expect("read");
    let (all, revision) = (records(&engine), engine.state.revision);
    engine.commit(&[Step::Compact { revision: revision - 10 }]).expect("committed");
    model.request(&Request::Compact { revision: revision - 10 });
    assert!(engine.sweeping() && records(&engine) < all, "a part at a time");
    same(&engine, &model, 0).expect("only what is forgotten went");
    while engine.sweeping() {
        engine.commit(&[]).expect("swept");
    }
    same(&engine, &model, 0).expect("only what is forgotten went");
    assert!(records(&engine) <= 8 + 10, "{} of {all} are left", records(&engine));
}
