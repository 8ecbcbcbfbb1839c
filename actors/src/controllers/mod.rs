//! The controllers: each compares what is desired with what is, and asks the API for the rest.
//!
//! One actor, one file (or folder) per controller, one shape: `observe` is told each change of a
//! view and marks the subjects it concerns; `sync` looks at one subject and asks for what is
//! missing; `answered` (where it matters) hears how a call ended. The [`client`] keeps the marks,
//! the alarms, the calls and what each subject still has to see before it is judged again.

mod autoscaler;
mod burst;
mod client;
mod collector;
mod cron_job;
mod daemon_set;
mod deployment;
pub mod disruption;
mod endpoints;
mod evictions;
mod history;
mod ipam;
mod job;
mod lifecycle;
mod names;
mod namespaces;
pub(crate) mod plain;
mod pods;
mod replica_set;
pub mod selectors;
mod service_ip;
mod share;
mod stateful_set;
mod tell;
mod template;
#[cfg(test)]
pub(crate) mod tests;
mod volumes;
mod world;

use crate::objects::{Kind, View};
use crate::ports::api::{self, News, Reason, Request, Scope};
use crate::ports::metrics;
use autoscaler::Autoscalers;
use client::{Client, Loop, Outcome, Subject};
use collector::Collector;
pub use collector::collectable;
use cron_job::CronJobs;
use daemon_set::DaemonSets;
use deployment::Deployments;
use disruption::Disruptions;
use endpoints::Endpoints;
use evictions::Evictions;
pub use evictions::stays;
use ipam::Ipam;
use ipnet::Ipv4Net;
use job::Jobs;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher, Time};
use lifecycle::Lifecycle;
use namespaces::Namespaces;
use replica_set::ReplicaSets;
use service_ip::ServiceIps;
use stateful_set::StatefulSets;
use std::sync::Arc;
use std::time::Duration;
use volumes::Volumes;
use world::{Desk, World};

/// Syncs of a busy moment are made together: this long after the last round.
const ROUND: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
pub struct Config {
    pub pod_network: Ipv4Net,
    /// Prefix length of one node's share of it.
    pub node_mask: u8,
    /// A node whose lease is older is not ready (`--node-monitor-grace-period`, 50 s upstream).
    pub node_grace: Duration,
    /// How often leases are judged (`--node-monitor-period`, 5 s upstream).
    pub node_monitor: Duration,
    /// What the API server's certificate is signed by, as PEM. With it, each namespace gets what
    /// it has upstream from the start: its ServiceAccount and the ConfigMap with this.
    pub root_ca: Option<Arc<str>>,
    /// Kinds that are watched for garbage only: what owns or is owned besides what the controllers
    /// work with. With CustomResourceDefinitions among them, all that are declared as well.
    /// [`collectable`] are all; each one that nobody uses still costs a watch.
    pub collects: Vec<Kind>,
    /// Tell people what happens, by Events.
    pub events: bool,
    /// Write Endpoints objects beside EndpointSlices, for clients that read those.
    pub endpoints: bool,
    /// Scale what HorizontalPodAutoscalers tell to.
    pub autoscales: bool,
    /// Bind PersistentVolumeClaims to PersistentVolumes, and make and remove those of nodes.
    pub volumes: bool,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    Metrics(metrics::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    /// Asked for as the garbage collector, who may see and delete what the others must not: where
    /// there are rights, it is a client of its own.
    Collect(api::Effect),
    Metrics(metrics::Request),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Sync,
    NodeMonitor,
    Events,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) | Effect::Collect(effect) => effect.answers(),
            Effect::Metrics(request) => request.answers(),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Metrics(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Controllers {
    world: World,
    client: Client,
    loops: Loops,
    /// No round of syncs before this.
    quiet_until: Time,
    /// What the timers are set to.
    sync_at: Option<Time>,
    check_at: Option<Time>,
}

#[derive(Clone, Debug)]
struct Loops {
    deployments: Deployments,
    replica_sets: ReplicaSets,
    endpoints: Endpoints,
    service_ips: ServiceIps,
    ipam: Ipam,
    lifecycle: Lifecycle,
    evictions: Evictions,
    collector: Collector,
    namespaces: Option<Namespaces>,
    jobs: Jobs,
    daemon_sets: DaemonSets,
    stateful_sets: StatefulSets,
    disruptions: Disruptions,
    cron_jobs: CronJobs,
    autoscalers: Autoscalers,
    volumes: Option<Volumes>,
}

impl Actor for Controllers {
    const NAME: &'static str = "controllers";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        let namespaces = config.root_ca.clone().map(Namespaces::new);
        let more = namespaces.iter().flat_map(|_| namespaces::WATCHED);
        let more = more.chain(config.endpoints.then_some(Kind::Endpoints));
        let more = more.chain(config.autoscales.then_some(Kind::HorizontalPodAutoscaler));
        let more = more.chain(config.volumes.then_some(volumes::WATCHED).into_iter().flatten());
        let watched: Vec<Kind> = world::WATCHED.into_iter().chain(more).collect();
        for &kind in &watched {
            ctx.perform(Effect::Api(api::Effect::Watch { kind, scope: Scope::All }));
        }
        let collects = config.collects.iter().copied().filter(|kind| !watched.contains(kind));
        let collector = Collector::start(collects, ctx);
        let incarnation = ctx.rng().u64();
        Controllers {
            world: World::new(watched),
            client: Client::new(config.events),
            loops: Loops {
                deployments: Deployments::default(),
                replica_sets: ReplicaSets::default(),
                endpoints: Endpoints::new(config.endpoints),
                service_ips: ServiceIps::default(),
                ipam: Ipam::new(config.pod_network, config.node_mask, incarnation),
                lifecycle: Lifecycle::new(config.node_grace, config.node_monitor),
                evictions: Evictions::default(),
                collector,
                namespaces,
                jobs: Jobs::default(),
                daemon_sets: DaemonSets::default(),
                stateful_sets: StatefulSets::default(),
                disruptions: Disruptions::default(),
                cron_jobs: CronJobs::default(),
                autoscalers: Autoscalers::default(),
                volumes: config.volumes.then(Volumes::default),
            },
            quiet_until: Time::ZERO,
            sync_at: None,
            check_at: None,
        }
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        self.client.recorder.begin(ctx.wall());
        match event {
            Event::Api(event) => self.heard(event, ctx),
            Event::Metrics(reply) => self.loops.autoscalers.measured(reply, &mut self.client),
        }
        self.round(ctx);
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        self.client.recorder.begin(ctx.wall());
        match timer {
            Timer::Events => {}
            Timer::Sync => self.sync_at = None,
            Timer::NodeMonitor => {
                self.check_at = None;
                let (now, client) = (ctx.now(), &mut self.client);
                self.loops.lifecycle.check(client, now, |remark| ctx.note(|| remark));
            }
        }
        self.round(ctx);
    }
}

impl Controllers {
    fn heard(&mut self, event: api::Event, ctx: &mut Context<'_, Self>) {
        match event {
            api::Event::Answer(answer) if self.client.recorder.answered(&answer, ctx) => {}
            api::Event::News(News::View { kind, view, .. }) => self.look(kind, view, ctx),
            api::Event::News(News::Closed { kind: Kind::Lease, .. }) => {
                self.loops.lifecycle.blinded();
            }
            api::Event::News(News::Closed { .. }) => {}
            api::Event::Connected(true) => self.client.hurry(ctx.now()),
            api::Event::Connected(false) => self.loops.lifecycle.blinded(),
            api::Event::Answer(answer) => {
                let now = ctx.now();
                if let Some(outcome) = self.client.answered(answer, &self.world, now, ctx.rng()) {
                    self.answered(&outcome, ctx);
                }
            }
        }
    }

    /// A newer view: every loop is told what changed.
    fn look(&mut self, kind: Kind, view: View, ctx: &mut Context<'_, Self>) {
        if !self.loops.collector.has(kind) {
            return;
        }
        self.follow(kind, view.clone(), ctx);
        for gone in self.loops.collector.looked(kind, &mut self.client) {
            self.follow(gone, View::empty(view.history()), ctx);
            self.world.forget(gone);
        }
    }

    fn follow(&mut self, kind: Kind, view: View, ctx: &mut Context<'_, Self>) {
        let (world, client, loops, now) =
            (&mut self.world, &mut self.client, &mut self.loops, ctx.now());
        let old = world.replace(kind, view.clone());
        let changes = old.diff(&view).flat_map(world::apart);
        for change in changes {
            if world::CONTROLLED.contains(&kind) {
                world.index(kind, &change);
            }
            let (key, before, after) = world::sides(&change);
            if before.is_some() {
                client.object_left(kind, key, after.map(|object| &**object));
            }
            loops.observe(kind, &change, world, client, ctx);
        }
        match kind {
            Kind::Node => {
                let nodes = view.iter().filter(|(_, node)| !has_share(node));
                loops.ipam.first_view_seen(nodes.map(|(key, node)| (key.name.clone(), node.uid)));
                loops.lifecycle.settle_zones(client, |remark| ctx.note(|| remark));
            }
            Kind::Lease => loops.lifecycle.sighted(now),
            _ => {}
        }
        client.view_moved(kind, &old, &view);
    }

    fn answered(&mut self, outcome: &Outcome, ctx: &mut Context<'_, Self>) {
        let (world, client, loops) = (&self.world, &mut self.client, &mut self.loops);
        tell::of(outcome, world, &mut client.recorder);
        match (&*outcome.request, &outcome.result) {
            (Request::Create { object }, Err(error)) if error.reason == Reason::AlreadyExists => {
                // The answer does not say which version that is: the look-up does.
                let (kind, key) = (object.kind(), object.key.clone());
                client.ask(outcome.subject.clone(), Request::Get { kind, key });
            }
            (Request::Get { .. }, Ok(Some(found))) => {
                client.expect(found, &outcome.subject, world);
            }
            (_, Err(error)) if matches!(error.reason, Reason::Invalid | Reason::Forbidden) => {
                let Subject { kind, key, .. } = &outcome.subject;
                let verb = outcome.request.verb();
                ctx.note(|| format!("{kind} {key}: {verb} was refused: {error}"));
            }
            _ => {}
        }
        match outcome.subject.of {
            Loop::Deployment => loops.deployments.answered(outcome, world, client),
            Loop::ReplicaSet => loops.replica_sets.answered(outcome, client),
            Loop::Ipam => loops.ipam.answered(outcome, client),
            Loop::Collector => loops.collector.answered(outcome, world, client, ctx.now()),
            Loop::Job => loops.jobs.answered(outcome, world, client),
            Loop::DaemonSet => loops.daemon_sets.answered(outcome, world, client),
            Loop::StatefulSet => loops.stateful_sets.answered(outcome, world),
            Loop::CronJob => loops.cron_jobs.answered(outcome),
            Loop::Autoscaler => {
                let now = autoscaler::Now { time: ctx.now(), wall: ctx.wall() };
                loops.autoscalers.answered(outcome, world, client, now);
            }
            Loop::Volume => {
                if let Some(volumes) = &mut loops.volumes {
                    volumes.answered(outcome, world, client);
                }
            }
            Loop::Endpoints
            | Loop::Lifecycle
            | Loop::Eviction
            | Loop::Namespaces
            | Loop::Disruption => {}
        }
    }

    /// Syncs what is marked (if the last round is long enough ago), sends calls, sets timers.
    fn round(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        self.client.wake(now);
        if self.world.complete() && self.client.has_dirty() && now >= self.quiet_until {
            self.quiet_until = now + ROUND;
            while let Some(subject) = self.client.next_dirty(now) {
                let (world, client) = (&self.world, &mut self.client);
                self.loops.sync(&subject, &mut Desk { world, client, ctx: &mut *ctx });
            }
        }
        self.client.pump(ctx);
        self.client.recorder.go_on(ctx, Effect::Api, Timer::Events);
        self.set_timers(ctx);
    }

    fn set_timers(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let dirty = self.world.complete() && self.client.has_dirty();
        let round = dirty.then_some(self.quiet_until);
        let sync_at = self.client.next_alarm().into_iter().chain(round).min();
        let check_at = self.loops.lifecycle.next_check(now);
        for (timer, wanted, set) in [
            (Timer::Sync, sync_at, &mut self.sync_at),
            (Timer::NodeMonitor, check_at, &mut self.check_at),
        ] {
            if *set != wanted {
                match wanted {
                    Some(at) => ctx.set_timer(timer, at.since(now)),
                    None => ctx.clear_timer(timer),
                }
                *set = wanted;
            }
        }
    }
}

/// The selector matches the object's labels.
pub(crate) fn labels_match(
    selector: &crate::objects::LabelSelector,
    object: &crate::objects::Object,
) -> bool {
    selectors::matches(selector, selectors::labels(object.meta.labels.as_ref()))
}

fn has_share(node: &crate::objects::Object) -> bool {
    node.node().is_some_and(|(spec, _)| spec.pod_cidr.is_some())
}

impl Loops {
    fn observe(
        &mut self,
        kind: Kind,
        change: &world::ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        ctx: &mut Context<'_, Controllers>,
    ) {
        if let Some(namespaces) = &self.namespaces {
            namespaces.observe(kind, change, client);
        }
        let now = ctx.now();
        self.lifecycle.observe(kind, change, client, now);
        self.collector.observe(kind, change, world, client, now);
        if kind == Kind::CustomResourceDefinition {
            self.collector.definition_changed(change, ctx);
        }
        if let Some(volumes) = &mut self.volumes {
            volumes.observe(kind, change, world, client);
        }
        match kind {
            Kind::Lease | Kind::Subnet => return,
            Kind::Node => self.ipam.observe(change, client),
            Kind::Service => self.service_ips.observe(change, ctx),
            _ => {}
        }
        self.deployments.observe(kind, change, client);
        self.replica_sets.observe(kind, change, world, client);
        self.endpoints.observe(kind, change, world, client, now);
        self.evictions.observe(kind, change, world, client, now);
        self.jobs.observe(kind, change, world, client);
        self.daemon_sets.observe(kind, change, client);
        self.stateful_sets.observe(kind, change, world, client);
        self.disruptions.observe(kind, change, world, client);
        self.cron_jobs.observe(kind, change, client);
        self.autoscalers.observe(kind, change, client);
    }

    fn sync(&mut self, subject: &Subject, desk: &mut Desk<'_, '_>) {
        let key = &subject.key;
        match subject.of {
            Loop::Deployment => self.deployments.sync(key, desk),
            Loop::ReplicaSet => self.replica_sets.sync(key, desk),
            Loop::Endpoints => self.endpoints.sync(key, desk),
            Loop::Ipam => self.ipam.sync(key, desk),
            Loop::Lifecycle => self.lifecycle.sync(key, desk),
            Loop::Eviction => self.evictions.sync(key, desk),
            Loop::Collector => self.collector.sync(subject.kind, key, desk),
            Loop::Job => self.jobs.sync(subject.kind, key, desk),
            Loop::DaemonSet => self.daemon_sets.sync(key, desk),
            Loop::StatefulSet => self.stateful_sets.sync(key, desk),
            Loop::Disruption => self.disruptions.sync(subject.kind, key, desk),
            Loop::CronJob => self.cron_jobs.sync(key, desk),
            Loop::Autoscaler => self.autoscalers.sync(key, desk),
            Loop::Volume => {
                if let Some(volumes) = &mut self.volumes {
                    volumes.sync(subject.kind, key, desk);
                }
            }
            Loop::Namespaces => {
                if let Some(namespaces) = &self.namespaces {
                    namespaces.sync(key, desk);
                }
            }
        }
    }
}
