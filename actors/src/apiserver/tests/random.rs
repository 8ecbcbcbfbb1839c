//! Random writes, crashes, lost answers and late transactions against a small reference: what the
//! answers of each object's writes must have been, in the order in which they were sent.

use super::*;
use crate::apiserver::hub::Hub;
use crate::objects::{Body, ConfigMap};
use crate::ports::api::{News, Reason, Scope};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

const KEYS: u8 = 4;

#[derive(Clone, Debug)]
enum Op {
    Create,
    /// Unconditional, or with the version last seen in an answer.
    Update {
        versioned: bool,
    },
    Patch,
    Delete,
}

/// One write to one key, and how far the world goes on before the next.
#[derive(Clone, Debug)]
struct Step {
    key: u8,
    op: Op,
    deliver: Vec<Fate>,
}

/// What becomes of the next message that is delivered.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// A request reaches the store and its answer comes back, whichever is picked by the number.
    Answered(u8),
    /// It reaches the store, its answer is kept back until a later delivery.
    Held(u8),
    /// It reaches the store, the answer is lost.
    AnswerLost(u8),
    /// It never arrives.
    Lost(u8),
    /// The answer is given up on, and it arrives after all, later.
    Delayed(u8),
    /// What was late lands.
    Late,
    /// The timer.
    Retry,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Quiet,
    /// The process dies: of what is on its way, every second request lands after the restart.
    Crash {
        late: bool,
    },
}

struct Sent {
    key: u8,
    op: Op,
    version: u64,
    value: String,
    call: u64,
    /// Sent to an incarnation that is dead by now.
    orphan: bool,
}

struct World {
    rig: Rig,
    hub: Hub<u8>,
    held: Vec<store::Reply>,
    late: Vec<store::Request>,
    sent: Vec<Sent>,
    /// Per key: what is stored for sure (version and value).
    known: BTreeMap<u8, Option<(u64, String)>>,
    seen: BTreeMap<u8, u64>,
    writes: u64,
}

fn name(key: u8) -> Key {
    Key::new("default", format!("k{key}"))
}

fn object(key: u8, version: u64, value: &str) -> Arc<Object> {
    let data = BTreeMap::from([("v".to_owned(), value.to_owned())]);
    let body = Body::ConfigMap(Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() }));
    Arc::new(Object { version, ..Object::new(name(key), body) })
}

fn value_of(object: &Object) -> Option<String> {
    object.config_map()?.data.as_ref()?.get("v").cloned()
}

impl World {
    fn new() -> World {
        let mut rig = Rig::new();
        rig.answers.clear();
        World {
            rig,
            hub: Hub::new(),
            held: Vec::new(),
            late: Vec::new(),
            sent: Vec::new(),
            known: (0..KEYS).map(|key| (key, None)).collect(),
            seen: BTreeMap::new(),
            writes: 0,
        }
    }

    fn write(&mut self, key: u8, op: &Op) {
        self.writes += 1;
        let value = self.writes.to_string();
        let seen = self.seen.get(&key).copied().unwrap_or(0);
        let version = if matches!(op, Op::Update { versioned: true }) { seen } else { 0 };
        let request = match op {
            Op::Create => Request::Create { object: object(key, 0, &value) },
            Op::Update { .. } => Request::Update { object: object(key, version, &value) },
            Op::Patch => Request::Patch {
                kind: Kind::ConfigMap,
                key: name(key),
                subresource: Subresource::Main,
                patch: json!({"data": {"v": value}}),
            },
            Op::Delete => Request::Delete {
                kind: Kind::ConfigMap,
                key: name(key),
                options: DeleteOptions::default(),
            },
        };
        let call = self.rig.send(request);
        self.sent.push(Sent { key, op: op.clone(), version, value, call, orphan: false });
    }

    fn deliver(&mut self, fate: Fate) {
        if matches!(fate, Fate::Late) && !self.late.is_empty() {
            let late = self.late.remove(0);
            self.rig.store.request(&late);
        }
        let count = self.rig.outgoing.len() + self.held.len();
        let n = match fate {
            Fate::Answered(n) | Fate::Held(n) | Fate::AnswerLost(n) => n,
            Fate::Lost(n) | Fate::Delayed(n) => n,
            Fate::Late => return,
            Fate::Retry if self.rig.retry => return self.rig.timeout(Timer::Retry),
            Fate::Retry => return,
        };
        let Some(pick) = usize::from(n).checked_rem(count) else {
            return;
        };
        let Some(index) = pick.checked_sub(self.held.len()) else {
            let reply = self.held.remove(pick);
            return self.rig.reply(reply);
        };
        let request = self.rig.outgoing.remove(index);
        let unknown = match &request {
            store::Request::Txn { id, .. } => store::Reply::Unknown { id: *id },
            _ => store::Reply::Unknown { id: 0 },
        };
        match fate {
            Fate::Lost(_) => self.rig.reply(unknown),
            Fate::Delayed(_) => {
                self.rig.reply(unknown);
                self.late.push(request);
            }
            Fate::AnswerLost(_) => {
                self.rig.store.request(&request);
                self.rig.reply(unknown);
            }
            Fate::Held(_) => self.held.push(self.rig.store.request(&request)),
            _ => {
                let reply = self.rig.store.request(&request);
                self.rig.reply(reply);
            }
        }
    }

    /// Everything on its way arrives, and one more write shows the server what it missed.
    fn quiet(&mut self) {
        for late in std::mem::take(&mut self.late) {
            self.rig.store.request(&late);
        }
        for round in 0..2 {
            loop {
                for reply in std::mem::take(&mut self.held) {
                    self.rig.reply(reply);
                }
                self.rig.run();
                let before = self.rig.outgoing.len();
                self.rig.timeout(Timer::Retry);
                if self.rig.outgoing.len() == before {
                    break;
                }
            }
            if round == 0 {
                self.writes += 1;
                let probe = Op::Create;
                self.write(KEYS + (self.writes % 200) as u8, &probe);
            }
        }
        assert_eq!(self.rig.cache.revision, self.rig.store.revision());
        let stored: Vec<_> = self.rig.store.objects().map(|o| (o.uid, o.version)).collect();
        let views = self.rig.cache.views.values().flat_map(|view| view.values());
        assert_eq!(views.map(|o| (o.uid, o.version)).collect::<Vec<_>>(), stored);
    }

    fn crash(&mut self, late: bool) {
        let outgoing = std::mem::take(&mut self.rig.outgoing);
        let lands = |(index, _): &(usize, store::Request)| late && index % 2 == 0;
        self.late = outgoing.into_iter().enumerate().filter(lands).map(|(_, r)| r).collect();
        self.held.clear();
        self.sent.iter_mut().for_each(|sent| sent.orphan = true);
        self.rig.restart();
    }

    /// Judges the answers so far. After that the reference knows what the store holds.
    fn judge(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        for key in 0..KEYS {
            let mut state = Some(self.known[&key].clone());
            let mut candidates = BTreeSet::new();
            for sent in sent.iter().filter(|sent| sent.key == key) {
                let answer = self.rig.answers.get(&sent.call);
                assert!(answer.is_some() || sent.orphan, "{:?} was never answered", sent.op);
                let before = state.clone().flatten().map(|(_, value)| value);
                if state.is_some() {
                    candidates = BTreeSet::from([before]);
                }
                state = judge_one(sent, answer, state);
                let value = (!matches!(sent.op, Op::Delete)).then(|| sent.value.clone());
                if state.is_none() && !matches!(answer, Some(Err(e)) if e.reason != Reason::Unknown)
                {
                    candidates.insert(value);
                }
            }
            let stored = self.rig.store.get(&(Kind::ConfigMap, name(key)));
            let stored = stored.map(|o| (o.version, value_of(o).unwrap_or_default()));
            match state {
                Some(state) => assert_eq!(stored, state, "key {key}"),
                None => {
                    let value = stored.clone().map(|(_, value)| value);
                    assert!(candidates.contains(&value), "key {key}: {value:?} {candidates:?}");
                }
            }
            self.known.insert(key, stored);
        }
    }
}

/// The reference: one write against what is known (`None`: not for sure).
fn judge_one(
    sent: &Sent,
    answer: Option<&Result<Reply, Error>>,
    state: Option<Option<(u64, String)>>,
) -> Option<Option<(u64, String)>> {
    let reason = match answer {
        None => return None,
        Some(Err(error)) if error.reason == Reason::Unknown => return None,
        Some(Err(error)) => Some(error.reason),
        Some(Ok(_)) => None,
    };
    let now = state?;
    let stale = now.as_ref().is_some_and(|(v, _)| sent.version != 0 && sent.version != *v);
    let expected = match (&sent.op, &now) {
        (Op::Create, Some(_)) => Some(Reason::AlreadyExists),
        (Op::Create, None) => None,
        (_, None) => Some(Reason::NotFound),
        (_, Some(_)) => stale.then_some(Reason::Conflict),
    };
    assert_eq!(reason, expected, "{:?} of {} on {now:?}", sent.op, sent.key);
    let Some(Ok(Reply::Object(object))) = answer else {
        return Some(now);
    };
    if matches!(sent.op, Op::Delete) {
        return Some(None);
    }
    assert_eq!(value_of(object).as_ref(), Some(&sent.value));
    assert!(now.is_none_or(|(version, _)| object.version > version), "versions only grow");
    Some(Some((object.version, sent.value.clone())))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Create),
        3 => any::<bool>().prop_map(|versioned| Op::Update { versioned }),
        2 => Just(Op::Patch),
        2 => Just(Op::Delete),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        10 => any::<u8>().prop_map(Fate::Answered),
        6 => any::<u8>().prop_map(Fate::Held),
        1 => any::<u8>().prop_map(Fate::AnswerLost),
        1 => any::<u8>().prop_map(Fate::Lost),
        1 => any::<u8>().prop_map(Fate::Delayed),
        2 => Just(Fate::Late),
        1 => Just(Fate::Retry),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let deliver = prop::collection::vec(fate(), 0..4);
    (0..KEYS, op(), deliver).prop_map(|(key, op, deliver)| Step { key, op, deliver })
}

fn phase() -> impl Strategy<Value = (Vec<Step>, End)> {
    let end = prop_oneof![Just(End::Quiet), any::<bool>().prop_map(|late| End::Crash { late }),];
    (prop::collection::vec(step(), 0..25), end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_does_what_the_reference_does(phases in prop::collection::vec(phase(), 1..4)) {
        let mut world = World::new();
        let scope = Scope::All;
        world.hub.open(0, Kind::ConfigMap, scope, None).expect("nothing is compacted");
        for (steps, end) in phases {
            for step in steps {
                world.write(step.key, &step.op);
                for fate in step.deliver {
                    world.deliver(fate);
                }
                for sent in &world.sent {
                    if let Some(Ok(Reply::Object(o))) = world.rig.answers.get(&sent.call) {
                        world.seen.insert(sent.key, o.version);
                    }
                }
                if !world.rig.cache.views.is_empty() {
                    world.hub.publish(world.rig.cache.clone());
                }
            }
            match end {
                End::Quiet => {
                    world.quiet();
                    world.judge();
                }
                // What it did not answer is judged once all is quiet.
                End::Crash { late } => world.crash(late),
            }
            if world.rig.cache.views.is_empty() {
                continue;
            }
            world.hub.publish(world.rig.cache.clone());
            let ready = world.hub.take_ready();
            if let Some(News::View { view, .. }) = world.hub.take(0) {
                prop_assert_eq!(ready, vec![0]);
                let now = &world.rig.cache.views[&Kind::ConfigMap];
                prop_assert!(view.diff(now).next().is_none());
            }
        }
        world.quiet();
        world.judge();
    }
}
