//! The world of one run: machines with their modelled kernels, the actors they host, the wire
//! between them, and the event loop that moves all of it through virtual time.
//!
//! - `fleet`: all actors of one kind, stepped in one way
//! - `machine`: one machine: kernel, files, containers, programs
//! - `kernels`, `owner`: what goes into machines' kernels and what comes out
//! - `ports`: what an actor asked for is carried out by a model
//! - `api`: the API's client and server ends, over modelled TCP
//! - `programs`: what runs on machines and in pods
//! - `external`: machines that are played elsewhere; `visitors`: clients from outside
//! - `faults`, `probes`: what happens to the world and what is tried in it; `cables`, `partitions`:
//!   faults of the wire; `unapplied`: faults of single machines, and those that cannot be applied;
//!   `moved`: who has moved
//! - `build`, `configs`: a world out of a scenario; `boot`: power-on

mod ahead;
pub mod api;
mod boot;
mod build;
mod cables;
mod configs;
mod connections;
mod containers;
mod draw;
pub mod external;
mod faults;
pub mod fleet;
mod holds;
mod kernels;
mod machine;
mod moved;
mod operator;
#[cfg(test)]
mod outages;
mod owner;
mod partitions;
mod pictures;
mod ports;
pub mod probes;
mod programs;
#[cfg(test)]
pub(crate) mod testing;
pub mod unapplied;
pub mod visitors;
pub mod words;

pub use build::{NET_CONF, SUBNET_ENV, build};
pub use faults::{Happened, Kill};
pub use machine::{Machine, Role};
pub use operator::Refusal;
pub(crate) use owner::Owner;
pub use programs::{Dropped, resolver, software};

use crate::backlog::Backlog;
use crate::kernel::{Announced, ArpInterest, Output, Shared};
use crate::profiles::flannel::Flannel;
use crate::profiles::kube_dns::KubeDns;
use crate::queue::Calendar;
use crate::report::Trace;
use crate::scenario::Scenario;
use crate::store::Store;
use crate::wire::{Delivery, Wire};
use api::Front;
use fleet::{Fleet, Input, Pending};
use kubesim_actors::apiserver::ApiServer;
use kubesim_actors::controllers::Controllers;
use kubesim_actors::dns::Dns;
use kubesim_actors::kubelet::Kubelet;
use kubesim_actors::netd::Netd;
use kubesim_actors::proxy::Proxy;
use kubesim_actors::scheduler::Scheduler;
use kubesim_runtime::{
    Actor, Answers, Backoff, Clocks, Effect as _, Hasher, Loss, Rng, Stream, Ticket, Time, Wall,
};
use slab::Slab;
use std::sync::Arc;
use std::time::Duration;

/// Which kind of actor a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ApiServer,
    Controllers,
    Scheduler,
    Kubelet,
    Netd,
    Flannel,
    Proxy,
    Dns,
    KubeDns,
}

/// One actor of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    pub kind: Kind,
    pub index: u32,
}

/// One life of an actor: what an answer is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    pub cell: Cell,
    pub incarnation: u32,
}

/// What the queue holds: small and `Copy`; the rest lies in slabs.
#[derive(Clone, Copy, Debug)]
enum Due {
    Event { kind: Kind, slot: u32 },
    Alarm { life: Life, id: u32 },
    Start { life: Life },
    Frame { slot: u32 },
    Kernel { machine: u32 },
    Connections { machine: u32 },
    Netlink { machine: u32 },
    Work { slot: u32 },
    ApiClient { machine: u32 },
    Fanout,
    Program { slot: u32, generation: u32, token: u32 },
    Probe { slot: u32 },
    ProbeEnds { slot: u32, number: u32 },
    KubeletProbe { slot: u32, generation: u32 },
    Fault { index: u32 },
    FaultEnds { index: u32 },
    Workload { index: u32 },
    Operator { call: u64 },
    OperateOn { index: u32 },
    Boot { machine: u32 },
    Software { machine: u32, boots: u32, index: u32 },
}

/// An actor kind that the world hosts.
pub trait Component: Actor {
    const KIND: Kind;
    fn fleet(world: &mut World) -> &mut Fleet<Self>;
    /// Carries out an effect, now or later.
    fn perform(world: &mut World, life: Life, ticket: Ticket, effect: Self::Effect);
}

/// Settings of a run that are no part of the scenario.
#[derive(Clone, Debug, Default)]
pub struct Knobs {
    pub seed: u64,
    pub trace: Trace,
    /// Build remarks for people.
    pub notes: bool,
    /// Steps of each actor kept for the report of a failure.
    pub keep_steps: usize,
    /// A crash to be injected.
    pub kill: Option<Kill>,
    /// Compute everything anew for everyone: the memos of snapshots are off.
    pub forgets: bool,
    /// Compare runs: remember the digest after every so many events.
    pub checkpoints: u64,
    /// Nodes are played elsewhere: see `external`.
    pub external: bool,
    /// People look in and write what no scenario knows of: garbage of every kind is collected, and
    /// what happens is told by Events. Both cost, and nobody looks in where thousands of nodes are
    /// simulated.
    pub visitors: bool,
}

/// A remark for whoever watches.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Time,
    pub who: String,
    pub text: String,
}

pub struct World {
    pub now: Time,
    pub scenario: Arc<Scenario>,
    pub knobs: Knobs,
    queue: Calendar<Due>,
    ahead: ahead::Ahead,
    pub digest: Hasher,
    pub checkpoints: Vec<u64>,
    pub counts: Counts,
    pub machines: Vec<Machine>,
    pub wire: Wire,
    /// Routes and chains that kernels have alike.
    shared: Shared,
    frames: Slab<Delivery>,
    /// Kernel outputs that wait to be acted on.
    outputs: Backlog<(u32, Output)>,
    scratch: Vec<Output>,
    deliveries: Vec<Delivery>,
    /// By machine: which broadcasts are worth a look.
    arp_interests: Vec<ArpInterest>,
    announced: Announced,
    /// Machines whose kernels ran since their alarms were last looked at.
    touched: Vec<u32>,
    work: Slab<ports::Work>,
    rings: Vec<(Time, u32)>,

    pub apiservers: Fleet<ApiServer>,
    pub controllers: Fleet<Controllers>,
    pub schedulers: Fleet<Scheduler>,
    pub kubelets: Fleet<Kubelet>,
    pub netds: Fleet<Netd>,
    pub flannels: Fleet<Flannel>,
    pub proxies: Fleet<Proxy>,
    pub dns: Fleet<Dns>,
    pub kube_dns: Fleet<KubeDns>,

    pub store: Store,
    pub front: Front,
    programs: Slab<programs::Entry>,
    program_generation: u32,
    images: std::collections::BTreeMap<smol_str::SmolStr, Arc<crate::scenario::Image>>,
    pub probes: Vec<probes::Probe>,
    kubelet_probes: Slab<containers::ProbeRun>,
    pub happened: Vec<Happened>,
    operator: operator::Operator,
    /// When the injected kill came.
    pub killed: Option<Time>,
    /// What the API refused to a person, and when.
    pub refused_writes: Vec<Refusal>,
    /// Faults that could not be applied.
    unapplied: Vec<Refusal>,
    /// Queries that cluster DNSes sent upstream.
    pub forwarded: Vec<(Time, Cell, std::net::Ipv4Addr)>,
    places: build::Places,
    /// Actors that faults stopped, machines they switched off, cables they pulled.
    stopped: holds::Holds<Cell>,
    switched_off: holds::Holds<u32>,
    cables: holds::Holds<crate::wire::PortId>,
    disturbances: cables::Disturbances,
    holders: partitions::Holders,
    pub lines: Vec<Line>,
    /// Why an actor refused to run.
    pub refusals: Vec<(Cell, String, Time)>,
    /// What broke a rule of the simulator itself or of an actor.
    pub violations: Vec<String>,
    pub notes: Vec<(Time, Cell, String)>,
    /// What is to happen on external machines.
    orders: Vec<(u32, external::Order)>,
    visitors: visitors::Visitors,
    rng: Rng,
    disk: Time,
}

/// What the run cost and moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps of the event loop (actor events and alarms, packets that arrived, kernel alarms,
    /// ports' work; superseded alarms are not counted) and packets inside machines.
    pub events: u64,
    pub actor_events: u64,
    pub packets: u64,
    /// Packets handed from one interface to another inside a machine: across a veth, a loopback,
    /// out of a tunnel. No time passes, so the loop does not queue them; they are events all the
    /// same.
    pub local_packets: u64,
    pub api_writes: u64,
    pub api_reads: u64,
    pub news: u64,
}

/// The civil time at which a run begins: 2026-01-01T00:00:00Z.
const EPOCH: Wall = Wall::from_unix_secs(1_767_225_600);

impl World {
    pub fn new(scenario: Arc<Scenario>, knobs: Knobs) -> Self {
        let (seed, notes, keep) = (knobs.seed, knobs.notes, knobs.keep_steps);
        World {
            now: Time::ZERO,
            queue: Calendar::default(),
            ahead: Default::default(),
            digest: Hasher::default(),
            checkpoints: Vec::new(),
            counts: Counts::default(),
            machines: Vec::new(),
            wire: Wire::new(seed),
            shared: Shared::default(),
            frames: Slab::new(),
            outputs: Backlog::default(),
            scratch: Vec::new(),
            deliveries: Vec::new(),
            arp_interests: Vec::new(),
            announced: Announced::default(),
            touched: Vec::new(),
            work: Slab::new(),
            rings: Vec::new(),
            apiservers: Fleet::new(seed, notes, keep),
            controllers: Fleet::new(seed, notes, keep),
            schedulers: Fleet::new(seed, notes, keep),
            kubelets: Fleet::new(seed, notes, keep),
            netds: Fleet::new(seed, notes, keep),
            flannels: Fleet::new(seed, notes, keep),
            proxies: Fleet::new(seed, notes, keep),
            dns: Fleet::new(seed, notes, keep),
            kube_dns: Fleet::new(seed, notes, keep),
            store: Store::default(),
            front: Front::default(),
            programs: Slab::new(),
            program_generation: 0,
            images: Default::default(),
            probes: Vec::new(),
            kubelet_probes: Slab::new(),
            happened: Vec::new(),
            operator: operator::Operator::default(),
            killed: None,
            refused_writes: Vec::new(),
            unapplied: Vec::new(),
            forwarded: Vec::new(),
            places: build::Places::default(),
            stopped: Default::default(),
            switched_off: Default::default(),
            cables: Default::default(),
            disturbances: Default::default(),
            holders: Default::default(),
            lines: Vec::new(),
            refusals: Vec::new(),
            violations: Vec::new(),
            notes: Vec::new(),
            orders: Vec::new(),
            visitors: visitors::Visitors::default(),
            rng: Rng::new(Stream { seed, label: "world", index: 0, incarnation: 0 }),
            disk: Time::ZERO,
            scenario,
            knobs,
        }
    }

    /// Runs until `until`; events due later stay in the queue.
    pub fn run_until(&mut self, until: Time) {
        while let Some(at) = self.queue.peek() {
            if at > until {
                break;
            }
            let Some((at, due)) = self.queue.pop() else { break };
            self.look_ahead();
            self.now = at.max(self.now);
            self.dispatch(due);
            self.settle();
            // A superseded alarm does not count: the same number may stand here again.
            let marks = self.counts.events.checked_div(self.knobs.checkpoints).unwrap_or(0);
            if marks > self.checkpoints.len() as u64 {
                self.checkpoints.push(self.digest.finish());
            }
        }
        self.now = until.max(self.now);
    }

    /// When something happens next.
    pub fn next_at(&mut self) -> Option<Time> {
        self.queue.peek()
    }

    fn dispatch(&mut self, due: Due) {
        self.counts.events += 1;
        match due {
            Due::Event { kind, slot } => self.dispatch_event(kind, slot as usize),
            Due::Alarm { life, id } => self.dispatch_alarm(life, id),
            Due::Start { life } => self.dispatch_start(life),
            Due::Frame { slot } => self.frame_arrives(slot as usize),
            Due::Kernel { machine } => self.kernel_alarm(machine),
            Due::Connections { machine } => self.connections_due(machine),
            Due::Netlink { machine } => self.netlink(machine),
            Due::Work { slot } => self.do_work(slot as usize),
            Due::ApiClient { machine } => self.client_alarm(machine),
            Due::Fanout => self.fanout(),
            Due::Program { slot, generation, token } => self.program_alarm(slot, generation, token),
            Due::Probe { slot } => self.probe_due(slot as usize),
            Due::ProbeEnds { slot, number } => self.probe_ends(slot as usize, number),
            Due::KubeletProbe { slot, generation } => self.kubelet_probe_ends(slot, generation),
            Due::Fault { index } => self.fault_begins(index as usize),
            Due::FaultEnds { index } => self.fault_ends(index as usize),
            Due::Workload { index } => self.apply_workload(index as usize),
            Due::Operator { call } => self.operate_again(call),
            Due::OperateOn { index } => self.operate_on(index as usize),
            Due::Software { machine, boots, index } => {
                self.software_due(machine, boots, index as usize)
            }
            Due::Boot { machine } => self.boot_due(machine),
        }
    }

    fn dispatch_event(&mut self, kind: Kind, slot: usize) {
        match kind {
            Kind::ApiServer => self.deliver::<ApiServer>(slot),
            Kind::Controllers => self.deliver::<Controllers>(slot),
            Kind::Scheduler => self.deliver::<Scheduler>(slot),
            Kind::Kubelet => self.deliver::<Kubelet>(slot),
            Kind::Netd => self.deliver::<Netd>(slot),
            Kind::Flannel => self.deliver::<Flannel>(slot),
            Kind::Proxy => self.deliver::<Proxy>(slot),
            Kind::Dns => self.deliver::<Dns>(slot),
            Kind::KubeDns => self.deliver::<KubeDns>(slot),
        }
    }

    fn dispatch_alarm(&mut self, life: Life, id: u32) {
        match life.cell.kind {
            Kind::ApiServer => self.ring::<ApiServer>(life, id),
            Kind::Controllers => self.ring::<Controllers>(life, id),
            Kind::Scheduler => self.ring::<Scheduler>(life, id),
            Kind::Kubelet => self.ring::<Kubelet>(life, id),
            Kind::Netd => self.ring::<Netd>(life, id),
            Kind::Flannel => self.ring::<Flannel>(life, id),
            Kind::Proxy => self.ring::<Proxy>(life, id),
            Kind::Dns => self.ring::<Dns>(life, id),
            Kind::KubeDns => self.ring::<KubeDns>(life, id),
        }
    }

    fn dispatch_start(&mut self, life: Life) {
        match life.cell.kind {
            Kind::ApiServer => self.enter::<ApiServer>(life, Input::Start),
            Kind::Controllers => self.enter::<Controllers>(life, Input::Start),
            Kind::Scheduler => self.enter::<Scheduler>(life, Input::Start),
            Kind::Kubelet => self.enter::<Kubelet>(life, Input::Start),
            Kind::Netd => self.enter::<Netd>(life, Input::Start),
            Kind::Flannel => self.enter::<Flannel>(life, Input::Start),
            Kind::Proxy => self.enter::<Proxy>(life, Input::Start),
            Kind::Dns => self.enter::<Dns>(life, Input::Start),
            Kind::KubeDns => self.enter::<KubeDns>(life, Input::Start),
        }
    }

    fn deliver<A: Component>(&mut self, slot: usize) {
        let Pending { host, incarnation, ticket, event } = A::fleet(self).events.remove(slot);
        let life = Life { cell: Cell { kind: A::KIND, index: host }, incarnation };
        self.enter::<A>(life, Input::Event { ticket, event });
    }

    fn ring<A: Component>(&mut self, life: Life, id: u32) {
        self.enter::<A>(life, Input::Alarm { id });
    }

    /// One step of an actor, unless the input is for another life.
    fn enter<A: Component>(&mut self, life: Life, input: Input<A>) {
        let index = life.cell.index;
        if !A::fleet(self).admits(index, life.incarnation, &input) {
            self.counts.events -= 1;
            return;
        }
        let (machine, steps) = {
            let host = &A::fleet(self).hosts[index as usize];
            (host.machine, host.steps)
        };
        if !self.machines[machine as usize].on {
            return;
        }
        if let Some(kill) = self.knobs.kill
            && kill.cell == life.cell
            && kill.step == steps + 1
        {
            self.knobs.kill = None;
            self.killed = Some(self.now);
            let who = self.who(life.cell);
            self.line("fault", || format!("{who} dies at its event {}", kill.step));
            self.crash(life.cell, kill.loss);
            return;
        }
        self.counts.actor_events += 1;
        let clocks = self.clocks(machine);
        let mut digest = self.digest;
        digest.u64(self.now.as_nanos());
        digest.u64((A::KIND as u64) << 32 | u64::from(index));
        let wanted = |host: &Machine| self.knobs.trace.wants(&host.name);
        let trace = self.knobs.trace.events && wanted(&self.machines[machine as usize]);
        let shown = trace.then(|| format!("{input:?}"));
        let paid = A::fleet(self).step(index, clocks, input, &mut digest);
        self.digest = digest;
        if let Err(twice) = paid {
            let text =
                format!("effect {} of {} was answered twice", twice.0.0, self.who(life.cell));
            self.violations.push(text);
        }
        if let Some(shown) = shown {
            let effects: Vec<String> =
                A::fleet(self).outbox.effects.iter().map(|(_, e)| format!("{e:?}")).collect();
            let who = self.who(life.cell);
            self.line(&who, || format!("{shown} -> [{}]", effects.join(", ")));
        }
        self.after_step::<A>(life);
    }

    /// Carries out what a step asked for.
    fn after_step<A: Component>(&mut self, life: Life) {
        let index = life.cell.index;
        let mut rings = std::mem::take(&mut self.rings);
        let fleet = A::fleet(self);
        let mut ops = std::mem::take(&mut fleet.outbox.timers);
        fleet.set_alarms(index, &mut ops, &mut rings);
        fleet.outbox.timers = ops;
        fleet.outbox.cancelled.clear();
        let mut effects = std::mem::take(&mut fleet.outbox.effects);
        let failed = fleet.outbox.failed.take();
        let notes = std::mem::take(&mut fleet.outbox.notes);
        for (at, id) in rings.drain(..) {
            self.queue.push(at, Due::Alarm { life, id });
        }
        self.rings = rings;
        for note in notes {
            self.note(life.cell, note);
        }
        for (ticket, effect) in effects.drain(..) {
            if effect.answers() == Answers::One {
                let now = self.now;
                A::fleet(self).owe(index, ticket, now);
            }
            A::perform(self, life, ticket, effect);
        }
        A::fleet(self).outbox.effects = effects;
        if let Some(cause) = failed {
            let who = self.who(life.cell);
            self.line(&who, || format!("failed: {cause}"));
            self.crash(life.cell, Loss::Process);
        }
    }

    /// Puts an event on its way to an actor.
    fn send<A: Component>(
        &mut self,
        life: Life,
        at: Time,
        ticket: Option<Ticket>,
        event: A::Event,
    ) {
        let pending =
            Pending { host: life.cell.index, incarnation: life.incarnation, ticket, event };
        let slot = A::fleet(self).events.insert(pending) as u32;
        self.queue.push(at, Due::Event { kind: A::KIND, slot });
    }

    /// Drops an actor (and, with its machine's power, everything beside it); the supervisor
    /// starts it again.
    pub fn crash(&mut self, cell: Cell, loss: Loss) {
        let machine = self.machine_of(cell);
        if loss == Loss::Process {
            self.drop_actor(cell);
            self.start_again(cell);
        } else {
            self.power_off(machine, loss);
            let at = self.now + Duration::from_secs(5);
            self.queue.push(at, Due::Boot { machine });
        }
    }

    fn start_again(&mut self, cell: Cell) {
        let mut rng = self.rng.clone();
        let now = self.now;
        let delay = self.with_supervision(cell, |failures, last| {
            if now.since(*last) > Backoff::SUPERVISOR.reset_after {
                *failures = 0;
            }
            *failures += 1;
            *last = now;
            Backoff::SUPERVISOR.delay(*failures, &mut rng)
        });
        self.rng = rng;
        let life = self.life(cell);
        self.queue.push(self.now + delay, Due::Start { life });
    }

    fn clocks(&self, machine: u32) -> Clocks {
        let skew = self.machines[machine as usize].skew;
        let since = self.now.since(Time::ZERO);
        Clocks { now: self.now, boot: self.now, wall: EPOCH + since + skew }
    }

    /// The civil time at an instant of the run, on a machine without skew.
    pub fn wall(&self) -> Wall {
        EPOCH + self.now.since(Time::ZERO)
    }

    /// `netd@laptop`.
    pub fn who(&self, cell: Cell) -> String {
        let machine = &self.machines[self.machine_of(cell) as usize];
        let name = match cell.kind {
            Kind::ApiServer => ApiServer::NAME,
            Kind::Controllers => Controllers::NAME,
            Kind::Scheduler => Scheduler::NAME,
            Kind::Kubelet => Kubelet::NAME,
            Kind::Netd => Netd::NAME,
            Kind::Flannel => "flannel",
            Kind::Proxy => Proxy::NAME,
            Kind::Dns => Dns::NAME,
            Kind::KubeDns => "kube-dns",
        };
        format!("{name}@{}", machine.name)
    }

    fn line(&mut self, who: &str, text: impl FnOnce() -> String) {
        let line = Line { at: self.now, who: who.to_owned(), text: text() };
        self.lines.push(line);
    }

    fn note(&mut self, cell: Cell, text: String) {
        let who = self.who(cell);
        self.notes.push((self.now, cell, text.clone()));
        self.line(&who, || text);
    }
}
