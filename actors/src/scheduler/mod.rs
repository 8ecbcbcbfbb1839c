//! The scheduler: one pod at a time, from a queue with back-off, onto the best node it fits.
//!
//! Pods that ask for the same are a [`class::Class`]; each class keeps its nodes sorted by score
//! and catches up with the nodes that changed, so that a pod costs O(log nodes) and no scan.
//! A pod is assumed to be on its node from the moment its Bind is asked for until the view shows
//! it or the Bind is refused.

mod bind;
mod class;
mod filter;
mod nodes;
mod placed;
mod queue;
mod resources;
mod tell;
mod terms;
#[cfg(test)]
mod tests;
mod volumes;

use crate::objects::{Key, Kind, Name, Object, PodSpec, View};
use crate::ports::api::{self, News, Request, Scope};
use crate::recorder::Recorder;
use crate::storage;
use class::Class;
pub use filter::tolerates;
pub(crate) use filter::{Rules, selects};
use kubesim_runtime::{Actor, Answers, Change, Context, Digest, Hasher, Lookup, Time};
use nodes::Nodes;
use placed::{Placed, Placement};
use queue::Queue;
use resources::Load;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use terms::Terms;
use volumes::Held;

/// Pods tried in one step.
const BATCH: usize = 256;
/// Calls out at one time.
const IN_FLIGHT: usize = 256;
/// Between two steps while pods wait.
const STEP: Duration = Duration::from_millis(1);
/// A stuck class is tried again this long after a change that did not help it: its message may
/// have changed.
const REVIEW: Duration = Duration::from_secs(10);
/// Specs known by address before the table is emptied.
const KNOWN_SPECS: usize = 4096;

#[derive(Clone, Debug)]
pub struct Config {
    /// `spec.schedulerName` of the pods it serves.
    pub name: String,
    /// Tell people what happens, by Events: as the instance on this machine.
    pub events: Option<Name>,
    /// Heed what pods claim of storage.
    pub volumes: bool,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Schedule,
    Backoff,
    Events,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        let Effect::Api(effect) = self;
        effect.answers()
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        let Event::Api(event) = self;
        event.digest(hasher);
    }
}

#[derive(Clone, Debug)]
pub struct Scheduler {
    name: String,
    recorder: Recorder,
    views: BTreeMap<Kind, View>,
    nodes: Nodes,
    placed: Placed,
    terms: Terms,
    queue: Queue,
    classes: Vec<Class>,
    class_of_key: BTreeMap<String, usize>,
    /// Class by the address of a spec, which is held so that the address stays its own. Only
    /// looked up: addresses have no influence on what happens.
    class_of_spec: Lookup<(usize, Name), (Arc<PodSpec>, usize)>,
    calls: BTreeMap<u64, Call>,
    waiting_calls: VecDeque<Call>,
    /// Binds of unknown outcome, to be asked for again.
    rebinds: BTreeMap<(Time, Key), u32>,
    watches_claims: bool,
    /// Pods whose claims are being bound.
    held: Held,
    last_tag: u64,
    /// A node or the set of placed pods changed for the better.
    stirred: bool,
    /// When stuck classes are tried again in any case.
    review_at: Option<Time>,
    schedule_at: Option<Time>,
    wake_at: Option<Time>,
}

#[derive(Clone, Debug)]
struct Call {
    pod: Key,
    what: What,
    attempts: u32,
    request: Request,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Bind,
    /// Why the pod waits.
    Tell,
    /// A choice for a claim of the pod.
    Claim,
}

impl Actor for Scheduler {
    const NAME: &'static str = "scheduler";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        let claims = config.volumes.then_some(volumes::WATCHED).into_iter().flatten();
        for kind in [Kind::Node, Kind::Pod].into_iter().chain(claims) {
            ctx.perform(Effect::Api(api::Effect::Watch { kind, scope: Scope::All }));
        }
        Scheduler {
            name: config.name.clone(),
            recorder: config.events.as_deref().map(Recorder::in_series).unwrap_or_default(),
            views: BTreeMap::new(),
            nodes: Nodes::default(),
            placed: Placed::default(),
            terms: Terms::default(),
            queue: Queue::default(),
            classes: Vec::new(),
            class_of_key: BTreeMap::new(),
            class_of_spec: Lookup::default(),
            calls: BTreeMap::new(),
            waiting_calls: VecDeque::new(),
            rebinds: BTreeMap::new(),
            watches_claims: config.volumes,
            held: Held::default(),
            last_tag: 0,
            stirred: false,
            review_at: None,
            schedule_at: None,
            wake_at: None,
        }
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        let Event::Api(event) = event;
        self.recorder.begin(ctx.wall());
        match event {
            api::Event::Answer(answer) if self.recorder.answered(&answer, ctx) => {}
            api::Event::News(News::View { kind, view, .. }) => self.look(kind, view, ctx),
            api::Event::News(News::Closed { .. }) | api::Event::Connected(_) => {}
            api::Event::Answer(answer) => self.answered(answer, ctx),
        }
        self.go_on(ctx);
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        self.recorder.begin(ctx.wall());
        match timer {
            Timer::Events => {}
            Timer::Schedule => {
                self.schedule_at = None;
                self.schedule(ctx);
            }
            Timer::Backoff => self.wake_at = None,
        }
        self.go_on(ctx);
    }
}

impl Scheduler {
    fn look(&mut self, kind: Kind, view: View, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let empty = View::empty(view.history());
        let old = self.views.insert(kind, view.clone()).unwrap_or(empty);
        for change in old.diff(&view) {
            let (key, old, new) = match change {
                Change::Added(key, new) => (key, None, Some(new)),
                Change::Changed { key, old, new } => (key, Some(old), Some(new)),
                Change::Removed(key, old) => (key, Some(old), None),
            };
            match kind {
                Kind::Node => self.node_changed(key, old, new),
                Kind::Pod => self.pod_changed(key, new, now),
                // A pod may have waited for that.
                _ => self.stirred = true,
            }
        }
        self.terms.recount(&self.placed, &self.nodes);
    }

    fn node_changed(&mut self, key: &Key, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        // A heartbeat is no change.
        let shows = |node: &Arc<Object>| {
            let (spec, status) = node.node()?;
            let spec = (spec.taints.clone(), spec.unschedulable);
            let volumes = node.annotation(storage::DIRECTORY).map(str::to_owned);
            let labels = node.meta.labels.clone();
            Some((node.uid, labels, spec, status.allocatable.clone(), volumes))
        };
        if old.is_some() && new.is_some() && old.and_then(shows) == new.and_then(shows) {
            return;
        }
        self.nodes.set(&key.name, new);
        self.stirred |= new.is_some();
    }

    fn pod_changed(&mut self, key: &Key, new: Option<&Arc<Object>>, now: Time) {
        let other = |uid| new.is_none_or(|pod| pod.uid != uid);
        if self.placed.get(key).is_some_and(|placement| other(placement.object.uid)) {
            self.displace(key);
        }
        if self.queue.get(key).is_some_and(|pending| other(pending.object.uid)) {
            self.queue.take(key);
        }
        let Some(pod) = new else { return };
        let Some(body) = pod.pod_body() else { return };
        let (spec, facts) = (body.spec(), body.facts());
        let ended = facts.phase.ended();
        let node = facts.node();
        match node {
            // What has ended takes nothing; what is ending still does.
            _ if ended => {
                self.queue.take(key);
                self.displace(key);
            }
            Some(node) => {
                self.queue.take(key);
                self.held.forget(key);
                self.bound(pod, spec, node);
            }
            None if pod.deleting() => {
                self.queue.take(key);
                self.displace(key);
            }
            None => {
                let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
                let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
                if name == self.name && !gated {
                    let class = self.class_of(pod, spec);
                    self.queue.put(pod, class, now);
                }
            }
        }
    }

    /// The view shows a pod on a node.
    fn bound(&mut self, pod: &Arc<Object>, spec: &Arc<PodSpec>, node: &str) {
        let number = self.nodes.number(node);
        let before = self.placed.get(&pod.key);
        if before.is_some_and(|placement| placement.node == number) {
            self.placed.confirm(&pod.key, pod.uid);
            return;
        }
        let load = before.map(|placement| Arc::clone(&placement.load));
        if before.is_some() {
            self.displace(&pod.key);
        }
        let load = load.unwrap_or_else(|| Arc::new(Load::of(spec)));
        let object = Arc::clone(pod);
        self.place(Placement { object, node: number, load, assumed: false });
    }

    fn place(&mut self, placement: Placement) {
        let Placement { object, node, load, .. } = placement.clone();
        self.nodes.load(node, &load, 1);
        self.terms.place(&object, node, true, &self.placed, &self.nodes);
        self.placed.insert(&object.key, placement);
        // Somebody may have waited for such a neighbour.
        self.stirred |= !self.terms.is_empty();
    }

    fn displace(&mut self, key: &Key) {
        self.held.forget(key);
        if let Some(placement) = self.placed.remove(key) {
            let Placement { object, node, load, .. } = placement;
            self.nodes.load(node, &load, -1);
            self.terms.place(&object, node, false, &self.placed, &self.nodes);
            self.stirred = true;
        }
    }

    fn class_of(&mut self, pod: &Object, spec: &Arc<PodSpec>) -> usize {
        let address = (Arc::as_ptr(spec) as usize, pod.key.namespace.clone());
        if let Some((_, class)) = self.class_of_spec.get(&address) {
            return *class;
        }
        let key = class::key_of(pod, spec);
        let class = *self.class_of_key.entry(key).or_insert_with(|| {
            self.classes.push(Class::new(pod, spec));
            self.classes.len() - 1
        });
        if self.class_of_spec.len() >= KNOWN_SPECS {
            self.class_of_spec.clear();
        }
        self.class_of_spec.insert(address, (Arc::clone(spec), class));
        class
    }

    /// Tries the pods whose turn it is.
    fn schedule(&mut self, ctx: &mut Context<'_, Self>) {
        for _ in 0..BATCH {
            if self.calls.len() + self.waiting_calls.len() >= IN_FLIGHT {
                break;
            }
            let Some(key) = self.queue.pop() else { break };
            self.try_pod(&key, ctx);
        }
    }

    fn try_pod(&mut self, key: &Key, ctx: &mut Context<'_, Self>) {
        let Some(pending) = self.queue.get(key) else { return };
        let (pod, class) = (Arc::clone(&pending.object), pending.class);
        self.classes[class].catch_up(&self.nodes, ctx.rng());
        let class = &self.classes[class];
        let demand = self.terms.demand(&pod, &class.rules, &self.placed, &self.nodes);
        let needs = pod.pod().map_or(Ok(None), |(spec, _)| self.needs(&pod, spec));
        let needs = match needs {
            Ok(needs) => needs,
            Err(why) => {
                let message = tell::of_all(self.nodes.live, &why);
                self.queue.park(key, ctx.now());
                return self.tell(&pod, message, ctx);
            }
        };
        let mut refused: BTreeMap<String, usize> = BTreeMap::new();
        let chosen = match (demand, &needs) {
            (None, None) => class.best().next(),
            (demand, needs) => class.best().find(|number| {
                let node = &self.nodes.all[*number as usize];
                let near = demand.as_ref().and_then(|demand| self.terms.refusal(demand, node));
                let of_volumes = || {
                    let (needs, object) = needs.as_ref().zip(node.object.as_ref())?;
                    self.unreachable(needs, object)
                };
                let Some(reason) = of_volumes().or(near) else { return true };
                *refused.entry(reason.to_owned()).or_default() += 1;
                false
            }),
        };
        match chosen {
            Some(node) => {
                let load = Arc::clone(&class.load);
                self.assume(&pod, node, load);
                let held = needs.is_some_and(|needs| self.hold(&pod, &needs, node, ctx.now()));
                if !held {
                    self.ask_to_bind(pod.key.clone(), pod.uid, node);
                }
            }
            None => {
                refused.extend(class.reasons());
                let message = tell::message(self.nodes.live, refused);
                self.queue.park(key, ctx.now());
                self.tell(&pod, message, ctx);
            }
        }
    }

    /// What every step ends with: moves the queue, sends calls, sets timers.
    fn go_on(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        self.queue.wake(now);
        self.rebind(now);
        if !self.held.is_empty() {
            self.release_held(ctx);
        }
        self.release_stuck(ctx);
        while self.calls.len() < IN_FLIGHT
            && let Some(call) = self.waiting_calls.pop_front()
        {
            self.last_tag += 1;
            let (tag, request) = (self.last_tag, Arc::new(call.request.clone()));
            ctx.perform(Effect::Api(api::Effect::Call { tag, request }));
            self.calls.insert(tag, call);
        }
        self.recorder.go_on(ctx, Effect::Api, Timer::Events);
        self.set_timers(ctx);
    }

    /// After a change for the better: pods of classes that fit somewhere now are tried again. Of
    /// the others the message may have changed; that can wait.
    fn release_stuck(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let review = self.review_at.is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.stirred) && !review {
            return;
        }
        if review {
            self.review_at = None;
        }
        for class in self.queue.stuck_classes() {
            self.classes[class].catch_up(&self.nodes, ctx.rng());
            if review || self.classes[class].fits_somewhere() {
                self.queue.release(class, now);
            } else if self.review_at.is_none() {
                self.review_at = Some(now + REVIEW);
            }
        }
    }

    fn set_timers(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let room = self.calls.len() + self.waiting_calls.len() < IN_FLIGHT;
        let kinds = if self.watches_claims { 2 + volumes::WATCHED.len() } else { 2 };
        if self.views.len() == kinds
            && self.queue.has_active()
            && room
            && self.schedule_at.is_none()
        {
            self.schedule_at = Some(now + STEP);
            ctx.set_timer(Timer::Schedule, STEP);
        }
        let rebind = self.rebinds.first_key_value().map(|((at, _), _)| *at);
        let wake = self.queue.next_wake().into_iter().chain(rebind).chain(self.review_at);
        let wake = wake.chain(self.held.due()).min();
        if wake != self.wake_at {
            match wake {
                Some(at) => ctx.set_timer(Timer::Backoff, at.since(now)),
                None => ctx.clear_timer(Timer::Backoff),
            }
            self.wake_at = wake;
        }
    }
}
