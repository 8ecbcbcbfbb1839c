//! What is written for what is told, and what is not.

use super::*;
use crate::objects::{Event, Key, Kind};
use kubesim_runtime::{Answers, Clocks, Digest, Hasher, Outbox, Rng, Stream, TimerOp};
use serde_json::{Value, json};

/// A component that does nothing but tell.
#[derive(Clone, Debug)]
struct Teller;
#[derive(Clone, Debug)]
struct Nothing;
#[derive(Clone, Debug)]
struct Asked(api::Effect);

impl Digest for Nothing {
    fn digest(&self, _: &mut Hasher) {}
}
impl kubesim_runtime::Effect for Asked {
    fn answers(&self) -> Answers {
        self.0.answers()
    }
}
impl Actor for Teller {
    const NAME: &'static str = "teller";
    type Config = ();
    type Event = Nothing;
    type Effect = Asked;
    type Timer = ();
    fn start((): &(), _: &mut Context<'_, Self>) -> Self {
        Teller
    }
    fn handle(&mut self, _: Nothing, _: &mut Context<'_, Self>) {}
    fn timeout(&mut self, (): (), _: &mut Context<'_, Self>) {}
}

/// A recorder, its clock, and an API that has what was written.
struct World {
    recorder: Recorder,
    now: Time,
    dice: Rng,
    ticket: u64,
    alarm: Option<Time>,
    /// Every write, in its order.
    writes: Vec<Arc<Request>>,
    there: Vec<Key>,
    /// What calls come to, if not what they ask for.
    broken: Option<Reason>,
}

impl World {
    fn new(recorder: Recorder) -> World {
        let stream = Stream { seed: 1, label: "test", index: 0, incarnation: 0 };
        let (now, dice) = (Time::from_secs(1), Rng::new(stream));
        let (writes, there) = (Vec::new(), Vec::new());
        World { recorder, now, dice, ticket: 0, alarm: None, writes, there, broken: None }
    }

    fn step(&mut self, with: &mut dyn FnMut(&mut Recorder, &mut Context<'_, Teller>)) {
        let wall = Wall::from_unix_secs(1_700_000_000) + self.now.since(Time::ZERO);
        let clocks = Clocks { now: self.now, boot: self.now, wall };
        let mut out = Outbox::new(false);
        let mut ctx = Context::new(clocks, &mut self.dice, &mut self.ticket, &mut out);
        self.recorder.begin(wall);
        with(&mut self.recorder, &mut ctx);
        self.recorder.go_on(&mut ctx, Asked, ());
        for op in out.timers {
            self.alarm = match op {
                TimerOp::Set((), at) => Some(at),
                TimerOp::Clear(()) => None,
            };
        }
        for (_, Asked(effect)) in out.effects {
            let api::Effect::Call { tag, request } = effect else { panic!("{effect:?}") };
            let result = self.write(request);
            let answer = Answer { tag, result };
            self.step(&mut |recorder, ctx| assert!(recorder.answered(&answer, ctx)));
        }
    }

    fn write(&mut self, request: Arc<Request>) -> Result<api::Reply, api::Error> {
        let (_, key) = request.subject();
        self.writes.push(Arc::clone(&request));
        if let Some(reason) = self.broken {
            return Err(api::Error::new(reason, "broken"));
        }
        match &*request {
            Request::Create { object } => {
                assert!(!self.there.contains(&key), "{key} is there");
                self.there.push(key);
                Ok(api::Reply::Object(Arc::clone(object)))
            }
            _ if !self.there.contains(&key) => Err(api::Error::new(Reason::NotFound, "gone")),
            _ => Ok(api::Reply::Object(Arc::new(pod()))),
        }
    }

    fn tell(&mut self, what: &Tidings, message: &str) {
        let pod = pod();
        self.step(&mut |recorder, _| {
            recorder.tell("teller", &pod, what.clone(), || message.to_owned());
        });
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.alarm.take_if(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(&mut |_, _| {});
        }
        self.now = end;
    }

    /// How often each was said to have happened, in the order of the writes.
    fn counts(&self) -> Vec<i64> {
        let count = |request: &Arc<Request>| match &**request {
            Request::Create { object } => i64::from(event(object).count.unwrap_or(0)),
            Request::Patch { patch, .. } => patch["count"].as_i64().unwrap_or(-1),
            other => panic!("{other:?}"),
        };
        self.writes.iter().map(count).collect()
    }
}

fn pod() -> Object {
    let meta = json!({"name": "web", "namespace": "team",
                      "uid": "00000000-0000-4000-8000-000000000001"});
    Object::from_json_of(Kind::Pod, json!({"metadata": meta})).expect("a pod")
}

fn event(object: &Object) -> &Event {
    object.event().expect("an event")
}

fn patch(request: &Request) -> &Value {
    let Request::Patch { patch, .. } = request else { panic!("{request:?}") };
    patch
}

#[test]
fn an_event_says_what_happened_to_whom_and_who_tells() {
    let mut world = World::new(Recorder::counting("n1"));
    world.tell(&Tidings::normal("Started"), "Started container c");
    let Request::Create { object } = &*world.writes[0] else { panic!("{:?}", world.writes) };
    let told = object.to_json();
    assert_eq!(told["metadata"]["namespace"], "team");
    let name = told["metadata"]["name"].as_str().expect("a name");
    assert_eq!(name, format!("web.{:x}", 1_700_000_001_000_000_000_i64));
    let uid = "00000000-0000-4000-8000-000000000001";
    let about = json!({"apiVersion": "v1", "kind": "Pod", "namespace": "team", "name": "web",
                       "uid": uid});
    assert_eq!(told["involvedObject"], about);
    assert_eq!(told["source"], json!({"component": "teller", "host": "n1"}));
    for (field, value) in [
        ("type", "Normal"),
        ("reason", "Started"),
        ("message", "Started container c"),
        ("reportingComponent", "teller"),
        ("reportingInstance", "n1"),
        ("firstTimestamp", "2023-11-14T22:13:21Z"),
        ("lastTimestamp", "2023-11-14T22:13:21Z"),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
}

#[test]
fn the_same_again_is_counted_and_made_anew_when_it_is_gone() {
    let mut world = World::new(Recorder::counting(""));
    let (what, other) = (Tidings::warning("BackOff"), Tidings::warning("Failed"));
    for (what, message) in [(&what, "a"), (&what, "a"), (&what, "b"), (&other, "a"), (&what, "a")] {
        world.tell(what, message);
    }
    assert_eq!(world.counts(), [1, 2, 1, 1, 3]);
    world.there.clear();
    world.tell(&what, "a");
    assert_eq!(world.counts()[5..], [4, 4], "what is patched is gone and so made");
    let Request::Create { object } = &*world.writes[6] else { panic!("{:?}", world.writes) };
    let told = event(object);
    assert!(told.first_timestamp < told.last_timestamp || told.count == Some(4));
}

#[test]
fn what_differs_in_its_words_only_is_put_together() {
    let mut world = World::new(Recorder::counting(""));
    for number in 0..12 {
        world.wait(300);
        world.tell(&Tidings::warning("Failed"), &format!("attempt {number}"));
    }
    assert_eq!(world.counts(), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3]);
    let Request::Create { object } = &*world.writes[9] else { panic!("{:?}", world.writes) };
    let combined = "(combined from similar events): attempt 9";
    assert_eq!(event(object).message.as_deref(), Some(combined));
    assert_eq!(patch(&world.writes[11])["message"], "(combined from similar events): attempt 11");
    // After a while they are news again.
    world.wait(601);
    world.tell(&Tidings::warning("Failed"), "attempt 12");
    assert_eq!(world.counts()[12], 1);
}

#[test]
fn of_one_object_no_more_is_told_than_is_bearable() {
    let mut world = World::new(Recorder::counting(""));
    for _ in 0..40 {
        world.tell(&Tidings::normal("Pulled"), "again");
    }
    assert_eq!(world.counts().last(), Some(&25));
    world.wait(299);
    world.tell(&Tidings::normal("Pulled"), "again");
    assert_eq!(world.writes.len(), 25);
    world.wait(2);
    for _ in 0..3 {
        world.tell(&Tidings::normal("Pulled"), "again");
    }
    assert_eq!(world.writes.len(), 26, "one each five minutes");
}

#[test]
fn what_does_not_arrive_is_tried_again_and_what_is_refused_is_not() {
    let mut world = World::new(Recorder::counting(""));
    world.broken = Some(Reason::Forbidden);
    world.tell(&Tidings::normal("Created"), "a");
    world.wait(600);
    assert_eq!(world.writes.len(), 1);
    world.broken = Some(Reason::Unreachable);
    world.tell(&Tidings::normal("Created"), "b");
    world.tell(&Tidings::normal("Created"), "c");
    world.wait(15);
    let first = world.writes[1].subject();
    let same = world.writes[1..].iter().all(|one| one.subject() == first);
    assert!(same && world.writes.len() >= 3, "one after the other");
    world.broken = None;
    world.wait(10);
    assert_eq!(world.there.len(), 2);
    world.broken = Some(Reason::Unknown);
    let before = world.writes.len();
    world.tell(&Tidings::normal("Created"), "d");
    world.wait(3600);
    assert_eq!(world.writes.len(), before + 12, "and not for ever");
}

#[test]
fn a_series_is_written_when_it_begins_now_and_then_and_when_it_ends() {
    let mut world = World::new(Recorder::in_series("host"));
    let what = Tidings::warning("FailedScheduling").doing("Scheduling");
    world.tell(&what, "0/1 nodes are available");
    let Request::Create { object } = &*world.writes[0] else { panic!("{:?}", world.writes) };
    let first = event(object);
    assert!(first.event_time.is_some() && first.series.is_none() && first.count.is_none());
    assert_eq!(first.reporting_instance.as_deref(), Some("teller-host"));
    assert_eq!(first.action.as_deref(), Some("Scheduling"));
    for _ in 0..50 {
        world.wait(60);
        world.tell(&what, "0/2 nodes are available");
    }
    let count = |request: &Arc<Request>| patch(request)["series"]["count"].as_i64();
    assert_eq!(count(&world.writes[1]), Some(2));
    assert_eq!(world.writes.len(), 3, "once more within 50 minutes");
    world.wait(3600);
    assert_eq!(count(world.writes.last().expect("a write")), Some(51));
    assert_eq!((world.writes.len(), world.alarm), (4, None), "an idle one wakes nobody");
    world.tell(&what, "0/2 nodes are available");
    assert!(matches!(&*world.writes[4], Request::Create { .. }), "another one");
}

#[test]
fn a_silent_one_asks_for_nothing() {
    let mut world = World::new(Recorder::default());
    world.step(&mut |recorder, _| {
        recorder.tell("teller", &pod(), Tidings::normal("a"), || panic!("nobody listens"));
    });
    assert_eq!((world.writes.len(), world.alarm), (0, None));
}
