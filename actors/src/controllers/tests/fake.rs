//! A small API server, wire and clock around one actor, with delays, losses and restarts.

use crate::objects::{Body, Key, Kind, Name, Object, Uid, View, time};
use crate::ports::api::{
    Answer, Effect, Error, Event, News, Propagation, Reason, Reply, Request, Scope,
};
use crate::ports::metrics;
use kubesim_runtime::{Actor, Clocks, Context, Outbox, Rng, Stream, Time, TimerOp, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What an actor asks for.
pub enum Asked {
    Api(Effect),
    Metrics(metrics::Request),
}

/// An actor that speaks to the API, and asks for metrics at most.
pub trait Client: Actor {
    fn event(event: Event) -> Self::Event;
    fn effect(effect: Self::Effect) -> Asked;
    fn measured(_: metrics::Reply) -> Option<Self::Event> {
        None
    }
}

impl Client for crate::controllers::Controllers {
    fn event(event: Event) -> Self::Event {
        crate::controllers::Event::Api(event)
    }
    fn effect(effect: Self::Effect) -> Asked {
        use crate::controllers::Effect;
        match effect {
            Effect::Api(effect) | Effect::Collect(effect) => Asked::Api(effect),
            Effect::Metrics(request) => Asked::Metrics(request),
        }
    }
    fn measured(reply: metrics::Reply) -> Option<Self::Event> {
        Some(crate::controllers::Event::Metrics(reply))
    }
}

impl Client for crate::scheduler::Scheduler {
    fn event(event: Event) -> Self::Event {
        crate::scheduler::Event::Api(event)
    }
    fn effect(effect: Self::Effect) -> Asked {
        let crate::scheduler::Effect::Api(effect) = effect;
        Asked::Api(effect)
    }
}

/// How bad the wire is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub max_delay_ms: u64,
    pub lost_requests: f64,
    pub lost_answers: f64,
    /// Extra lateness of views.
    pub view_delay_ms: u64,
}

enum Action<A: Actor> {
    Timer(A::Timer),
    Arrive { tag: u64, request: Arc<Request> },
    Hear(Event),
    Measured(metrics::Reply),
}

pub struct World<A: Client> {
    pub config: A::Config,
    pub actor: A,
    pub now: Time,
    pub views: BTreeMap<Kind, View>,
    pub weather: Weather,
    pub rng: Rng,
    pub writes: BTreeMap<(Kind, &'static str), usize>,
    /// Nothing of this kind is made, as with a quota that is used up.
    pub refused: Option<Kind>,
    /// What pods use, whoever is asked for.
    pub measured: Result<Arc<BTreeMap<Name, metrics::Usage>>, String>,
    revision: u64,
    uids: u64,
    incarnation: u32,
    ticket: u64,
    dice: Rng,
    timers: BTreeMap<A::Timer, u64>,
    agenda: BTreeMap<(Time, u64), (u32, Action<A>)>,
    sequence: u64,
    view_due: BTreeMap<Kind, Time>,
    watched: BTreeMap<Kind, Scope>,
}

const EPOCH: i64 = 1_700_000_000;

fn stream(seed: u64, incarnation: u32) -> Rng {
    Rng::new(Stream { seed, label: "test", index: 0, incarnation })
}

impl<A: Client> World<A> {
    pub fn new(config: A::Config, seed: u64, weather: Weather) -> Self {
        let mut dice = stream(seed, 0);
        let mut out = Outbox::new(false);
        let mut ticket = 0;
        let clocks = clocks(Time::ZERO);
        let actor = A::start(&config, &mut Context::new(clocks, &mut dice, &mut ticket, &mut out));
        let mut world = World {
            config,
            actor,
            now: Time::ZERO,
            views: Kind::ALL.iter().map(|kind| (*kind, View::empty(1))).collect(),
            weather,
            rng: stream(seed, 1_000),
            writes: BTreeMap::new(),
            refused: None,
            measured: Err("nobody measures".to_owned()),
            revision: 1,
            uids: 0,
            incarnation: 0,
            ticket,
            dice,
            timers: BTreeMap::new(),
            agenda: BTreeMap::new(),
            sequence: 0,
            view_due: BTreeMap::new(),
            watched: BTreeMap::new(),
        };
        world.carry_out(out);
        world
    }

    /// The actor's memory is lost; what it asked for may still land.
    pub fn restart(&mut self) {
        self.incarnation += 1;
        self.dice = stream(7, self.incarnation);
        self.timers.clear();
        self.view_due.clear();
        self.watched.clear();
        let mut out = Outbox::new(false);
        let mut context =
            Context::new(clocks(self.now), &mut self.dice, &mut self.ticket, &mut out);
        self.actor = A::start(&self.config, &mut context);
        self.carry_out(out);
    }

    fn delay(&mut self, most_ms: u64) -> Duration {
        Duration::from_micros(100 + self.rng.below(most_ms * 1000 + 1))
    }

    fn plan(&mut self, at: Time, action: Action<A>) -> u64 {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), (self.incarnation, action));
        self.sequence
    }

    fn carry_out(&mut self, out: Outbox<A>) {
        for (_, effect) in out.effects {
            let effect = match A::effect(effect) {
                Asked::Api(effect) => effect,
                Asked::Metrics(request) => {
                    let measured = self.measured.clone();
                    let reply = metrics::Reply { subject: request.subject, result: measured };
                    self.plan(self.now + Duration::from_millis(5), Action::Measured(reply));
                    continue;
                }
            };
            match effect {
                Effect::Call { tag, request } => {
                    let delay = self.delay(self.weather.max_delay_ms);
                    if self.rng.chance(self.weather.lost_requests) {
                        let error = Error::new(Reason::Unknown, "no answer");
                        self.answer(tag, Err(error), Duration::from_millis(300));
                    } else {
                        self.plan(self.now + delay, Action::Arrive { tag, request });
                    }
                }
                Effect::Watch { kind, scope } => {
                    self.watched.insert(kind, scope);
                    self.show(kind);
                }
                Effect::Dial { .. } => {}
            }
        }
        for op in out.timers {
            match op {
                TimerOp::Set(timer, at) => {
                    let sequence = self.plan(at, Action::Timer(timer));
                    self.timers.insert(timer, sequence);
                }
                TimerOp::Clear(timer) => _ = self.timers.remove(&timer),
            }
        }
    }

    fn answer(&mut self, tag: u64, result: Result<Reply, Error>, delay: Duration) {
        let event = Event::Answer(Answer { tag, result });
        self.plan(self.now + delay, Action::Hear(event));
    }

    /// The watcher will be shown the kind as it is now, later, in order.
    fn show(&mut self, kind: Kind) {
        let Some(scope) = self.watched.get(&kind).cloned() else { return };
        let late = self.weather.max_delay_ms + self.weather.view_delay_ms;
        let at = self.now + self.delay(late);
        let due = self.view_due.entry(kind).or_insert(at);
        *due = at.max(*due + Duration::from_nanos(1));
        let (at, whole) = (*due, self.view(kind));
        let view = if scope == Scope::Metadata { bare(&whole) } else { whole };
        self.plan(at, Action::Hear(Event::News(News::View { kind, scope, view })));
    }

    /// Plays until then.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((&(at, sequence), _)) = self.agenda.first_key_value() {
            if at > end {
                break;
            }
            let (_, (incarnation, action)) = self.agenda.pop_first().expect("looked at above");
            self.now = at;
            let alive = incarnation == self.incarnation;
            match action {
                Action::Arrive { tag, request } => {
                    let result = self.apply(&request);
                    if !alive {
                        continue;
                    }
                    let lost = self.rng.chance(self.weather.lost_answers);
                    let delay = self.delay(self.weather.max_delay_ms);
                    let unknown = Err(Error::new(Reason::Unknown, "no answer"));
                    self.answer(tag, if lost { unknown } else { result }, delay);
                }
                Action::Hear(event) if alive => self.step(|actor, ctx| {
                    actor.handle(A::event(event), ctx);
                }),
                Action::Measured(reply) if alive => {
                    if let Some(event) = A::measured(reply) {
                        self.step(|actor, ctx| actor.handle(event, ctx));
                    }
                }
                Action::Timer(timer) if alive && self.timers.get(&timer) == Some(&sequence) => {
                    self.timers.remove(&timer);
                    self.step(|actor, ctx| actor.timeout(timer, ctx));
                }
                _ => {}
            }
        }
        self.now = end;
    }

    fn step(&mut self, with: impl FnOnce(&mut A, &mut Context<'_, A>)) {
        let mut out = Outbox::new(false);
        let mut context =
            Context::new(clocks(self.now), &mut self.dice, &mut self.ticket, &mut out);
        with(&mut self.actor, &mut context);
        self.carry_out(out);
    }

    fn view(&self, kind: Kind) -> View {
        self.views.get(&kind).cloned().unwrap_or_else(|| View::empty(1))
    }
    pub fn all(&self, kind: Kind) -> Vec<Arc<Object>> {
        self.view(kind).values().cloned().collect()
    }
    pub fn get(&self, kind: Kind, key: &Key) -> Option<Arc<Object>> {
        self.view(kind).get(key).cloned()
    }

    /// Writes as somebody else.
    pub fn put(&mut self, mut object: Object) {
        self.revision += 1;
        let before = self.get(object.kind(), &object.key);
        match before {
            Some(before) => object.uid = before.uid,
            None => {
                self.uids += 1;
                object.uid = Uid::from_random(7, self.uids);
                let created = Some(time(clocks(self.now).wall));
                Arc::make_mut(&mut object.meta).creation_timestamp = created;
            }
        }
        self.store(object);
    }

    fn store(&mut self, mut object: Object) -> Arc<Object> {
        object.version = self.revision;
        let (kind, key) = (object.kind(), object.key.clone());
        let object = Arc::new(object);
        let view = self.views.entry(kind).or_insert_with(|| View::empty(1));
        view.insert(key, Arc::clone(&object), self.revision);
        self.show(kind);
        object
    }

    pub fn remove(&mut self, kind: Kind, key: &Key) {
        self.revision += 1;
        let view = self.views.entry(kind).or_insert_with(|| View::empty(1));
        view.remove(key, self.revision);
        self.show(kind);
    }

    pub fn apply(&mut self, request: &Request) -> Result<Reply, Error> {
        let (kind, key) = request.subject();
        *self.writes.entry((kind, request.verb())).or_default() += 1;
        let stored = self.get(kind, &key);
        let missing = || Error::new(Reason::NotFound, format!("{kind} {key} not found"));
        let conflict = || Error::new(Reason::Conflict, format!("{kind} {key} has changed"));
        let reply = match request {
            Request::Token(_) => panic!("no controller shows a token"),
            Request::UpdateEphemeralContainers { .. } => panic!("no controller looks into a pod"),
            Request::Get { .. } => stored.ok_or_else(missing)?,
            Request::List { .. } => return Ok(Reply::List(self.view(kind))),
            Request::Create { .. } if self.refused == Some(kind) => {
                return Err(Error::new(Reason::Forbidden, "exceeded quota"));
            }
            Request::Create { object } => {
                if stored.is_some() {
                    return Err(Error::new(Reason::AlreadyExists, format!("{key} already exists")));
                }
                self.put((**object).clone());
                self.get(kind, &key).expect("just put")
            }
            Request::Update { object } | Request::UpdateStatus { object } => {
                let stored = stored.ok_or_else(missing)?;
                if object.version != 0 && object.version != stored.version {
                    return Err(conflict());
                }
                self.revision += 1;
                let mut next = Object { uid: stored.uid, ..(**object).clone() };
                if matches!(request, Request::Update { .. }) {
                    let generation = stored.meta.generation.unwrap_or(0) + 1;
                    Arc::make_mut(&mut next.meta).generation = Some(generation);
                    let let_go = stored.meta.finalizers.is_some() && next.meta.finalizers.is_none();
                    if let_go && next.deleting() {
                        self.remove(kind, &key);
                        return Ok(Reply::Object(stored));
                    }
                }
                self.store(next)
            }
            Request::Patch { patch, .. } => self.patch(stored.ok_or_else(missing)?, patch)?,
            Request::Delete { options, .. } => {
                let stored = stored.ok_or_else(missing)?;
                if options.uid.is_some_and(|uid| uid != stored.uid) {
                    return Err(conflict());
                }
                let bound = stored.pod().is_some_and(|(spec, _)| spec.node_name.is_some());
                let finalizer = options.propagation.and_then(Propagation::finalizer);
                let held = finalizer.is_some() || stored.meta.finalizers.is_some();
                if held || bound && options.grace != Some(Duration::ZERO) {
                    self.mark(&stored, finalizer)
                } else {
                    self.remove(kind, &key);
                    stored
                }
            }
            Request::Bind { uid, node, .. } => {
                let stored = stored.ok_or_else(missing)?;
                let mut next = (*stored).clone();
                let Body::Pod(pod) = &mut next.body else { return Err(conflict()) };
                if stored.uid != *uid || pod.facts().node().is_some() || stored.deleting() {
                    return Err(conflict());
                }
                pod.edit(|spec, _| Arc::make_mut(spec).node_name = Some(node.to_string()));
                self.revision += 1;
                self.store(next)
            }
        };
        Ok(Reply::Object(reply))
    }

    /// It is being deleted.
    fn mark(&mut self, stored: &Object, finalizer: Option<&str>) -> Arc<Object> {
        self.revision += 1;
        let mut next = stored.clone();
        let meta = Arc::make_mut(&mut next.meta);
        meta.deletion_timestamp = Some(time(clocks(self.now).wall));
        if let Some(finalizer) = finalizer {
            meta.finalizers.get_or_insert_default().push(finalizer.to_owned());
        }
        self.store(next)
    }

    fn patch(
        &mut self,
        stored: Arc<Object>,
        patch: &serde_json::Value,
    ) -> Result<Arc<Object>, Error> {
        let conflict = || Error::new(Reason::Conflict, format!("{} has changed", stored.key));
        let meta = &patch["metadata"];
        let differs = |name: &str, value: String| {
            meta.get(name).is_some_and(|wanted| wanted.as_str() != Some(&value))
        };
        if differs("uid", stored.uid.to_string())
            || differs("resourceVersion", stored.version.to_string())
        {
            return Err(conflict());
        }
        let mut value = stored.to_json();
        merge(&mut value, patch);
        let next = Object::from_json_of(stored.kind(), value)
            .map_err(|error| Error::new(Reason::Invalid, error.to_string()))?;
        if stored.meta.finalizers.is_some() && next.meta.finalizers.is_none() && next.deleting() {
            self.remove(next.kind(), &next.key);
            return Ok(stored);
        }
        self.revision += 1;
        Ok(self.store(next))
    }
}

/// No more of the objects than their metadata.
fn bare(whole: &View) -> View {
    let mut view = View::empty(whole.history());
    for object in whole.values() {
        let bare = Object::bare(object.kind(), object.to_json()).expect("it has metadata");
        view.insert(object.key.clone(), Arc::new(bare), whole.version());
    }
    view.advance(whole.version());
    view
}

/// As RFC 7386 has it.
pub fn merge(into: &mut serde_json::Value, patch: &serde_json::Value) {
    match (into, patch) {
        (serde_json::Value::Object(into), serde_json::Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name.clone()).or_insert(serde_json::Value::Null), value);
                }
            }
        }
        (into @ serde_json::Value::Null, serde_json::Value::Object(_)) => {
            *into = serde_json::json!({});
            merge(into, patch);
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn clocks(now: Time) -> Clocks {
    let wall = Wall::from_unix_secs(EPOCH) + now.since(Time::ZERO);
    Clocks { now, boot: now, wall }
}

/// Reads an object from JSON.
pub fn object(value: serde_json::Value) -> Object {
    Object::from_json(value).expect("a test's object parses")
}
