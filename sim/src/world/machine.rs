//! One machine: its kernel, its place on the wire, its files and containers, the actors it hosts;
//! and what power does to all of them.

use super::api::Client;
use super::connections::Whose;
use super::{Cell, Due, Kind, Life, World};
use crate::kernel::{Kernel, NsId, SocketId};
use crate::models::connections::Connections;
use crate::models::files::Files;
use crate::models::runtime::Runtime;
use crate::models::volumes::Volumes;
use crate::wire::{PortId, SwitchId};
use kubesim_actors::objects::{Name, Uid};
use kubesim_actors::ports::network;
use kubesim_runtime::{Loss, Rng, Stream, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// The longest that an effect may wait: a call of the API is given up after 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What a machine is in the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node, by its place in the scenario's list.
    Node(usize),
    /// The router of a network, by its place in the scenario's list.
    Router(usize),
    Upstream(usize),
    Client(usize),
}

pub struct Machine {
    pub name: Name,
    pub role: Role,
    pub kernel: Kernel,
    /// Cards by link index, in the order in which they were built.
    pub ports: Vec<(u32, PortId)>,
    pub on: bool,
    /// Counts power-ons.
    pub boots: u32,
    pub skew: Duration,
    pub files: Files,
    pub volumes: Volumes,
    pub runtime: Runtime,
    /// Namespaces of pods that have a sandbox.
    pub pods: BTreeMap<Uid, PodSpace>,
    pub client: Option<Client>,
    /// Actors in the order in which they start.
    pub cells: Vec<Cell>,
    /// Programs of the machine itself, not of pods.
    pub programs: Vec<u32>,
    /// UDP sockets of actors.
    pub sockets: Vec<(Life, u16, SocketId)>,
    /// Their DNS over TCP, and when it has something to give up.
    pub(super) connections: Connections<Whose>,
    pub(super) connections_due: Time,
    /// Who is told of the network's state, and what was told last.
    pub observers: Vec<Life>,
    pub told: Option<Arc<network::State>>,
    /// Of an external machine: the addresses that its sandboxes hold, and their cards' MTUs.
    pub(super) sandboxes: Option<Vec<(Ipv4Addr, u32)>>,
    /// When it was asked for the last picture that it has shown.
    pub(super) shown: Option<Time>,
    /// And what of its kernel no picture can have.
    pub(super) left_out: BTreeSet<String>,
    pub(super) netlink_pending: bool,
    pub(super) armed: Time,
    pub(super) touched: bool,
    /// Its cards while it is off: they keep their place on the wire.
    pub(super) parked: Vec<PortId>,
    /// The switch the machine's first card goes into.
    pub home: Option<SwitchId>,
}

/// What the world made for a pod's sandbox.
#[derive(Clone, Debug)]
pub struct PodSpace {
    /// The machine's own for host-network pods.
    pub ns: NsId,
    pub host_network: bool,
    pub resolv_conf: Arc<str>,
    /// The programs of its containers.
    pub programs: Vec<u32>,
}

impl Machine {
    pub fn new(name: Name, role: Role, kernel: Kernel) -> Self {
        Machine {
            name,
            role,
            kernel,
            ports: Vec::new(),
            on: false,
            boots: 0,
            skew: Duration::ZERO,
            files: Files::default(),
            volumes: Volumes::default(),
            runtime: Runtime::default(),
            pods: BTreeMap::new(),
            client: None,
            cells: Vec::new(),
            programs: Vec::new(),
            sockets: Vec::new(),
            connections: Connections::default(),
            connections_due: Time::NEVER,
            observers: Vec::new(),
            told: None,
            left_out: BTreeSet::new(),
            sandboxes: None,
            shown: None,
            netlink_pending: false,
            armed: Time::NEVER,
            touched: false,
            parked: Vec::new(),
            home: None,
        }
    }

    /// The ports of its cards, whether it is on or off.
    pub fn cables(&self) -> impl Iterator<Item = PortId> + '_ {
        self.ports.iter().map(|(_, port)| *port).chain(self.parked.iter().copied())
    }

    /// The first card's link index and port, while the machine is on.
    pub fn first_port(&self) -> Option<(u32, PortId)> {
        self.ports.first().copied()
    }
}

pub(super) fn kernel_rng(seed: u64, index: u32, boots: u32) -> Rng {
    Rng::new(Stream { seed, label: "kernel", index: index.into(), incarnation: boots })
}

impl World {
    pub fn machine_named(&self, name: &str) -> Option<u32> {
        self.machines.iter().position(|m| m.name == name).map(|index| index as u32)
    }

    pub(super) fn machine_of(&self, cell: Cell) -> u32 {
        let index = cell.index as usize;
        match cell.kind {
            Kind::ApiServer => self.apiservers.hosts[index].machine,
            Kind::Controllers => self.controllers.hosts[index].machine,
            Kind::Scheduler => self.schedulers.hosts[index].machine,
            Kind::Kubelet => self.kubelets.hosts[index].machine,
            Kind::Netd => self.netds.hosts[index].machine,
            Kind::Flannel => self.flannels.hosts[index].machine,
            Kind::Proxy => self.proxies.hosts[index].machine,
            Kind::Dns => self.dns.hosts[index].machine,
            Kind::KubeDns => self.kube_dns.hosts[index].machine,
        }
    }

    pub fn life(&self, cell: Cell) -> Life {
        let index = cell.index as usize;
        let incarnation = match cell.kind {
            Kind::ApiServer => self.apiservers.hosts[index].incarnation,
            Kind::Controllers => self.controllers.hosts[index].incarnation,
            Kind::Scheduler => self.schedulers.hosts[index].incarnation,
            Kind::Kubelet => self.kubelets.hosts[index].incarnation,
            Kind::Netd => self.netds.hosts[index].incarnation,
            Kind::Flannel => self.flannels.hosts[index].incarnation,
            Kind::Proxy => self.proxies.hosts[index].incarnation,
            Kind::Dns => self.dns.hosts[index].incarnation,
            Kind::KubeDns => self.kube_dns.hosts[index].incarnation,
        };
        Life { cell, incarnation }
    }

    pub(super) fn with_supervision<R>(
        &mut self,
        cell: Cell,
        change: impl FnOnce(&mut u32, &mut Time) -> R,
    ) -> R {
        let index = cell.index as usize;
        macro_rules! of {
            ($fleet:ident) => {{
                let host = &mut self.$fleet.hosts[index];
                change(&mut host.failures, &mut host.last_failure)
            }};
        }
        match cell.kind {
            Kind::ApiServer => of!(apiservers),
            Kind::Controllers => of!(controllers),
            Kind::Scheduler => of!(schedulers),
            Kind::Kubelet => of!(kubelets),
            Kind::Netd => of!(netds),
            Kind::Flannel => of!(flannels),
            Kind::Proxy => of!(proxies),
            Kind::Dns => of!(dns),
            Kind::KubeDns => of!(kube_dns),
        }
    }

    /// Whether the actor is alive now.
    pub fn alive(&self, cell: Cell) -> bool {
        let index = cell.index as usize;
        match cell.kind {
            Kind::ApiServer => self.apiservers.hosts[index].actor.is_some(),
            Kind::Controllers => self.controllers.hosts[index].actor.is_some(),
            Kind::Scheduler => self.schedulers.hosts[index].actor.is_some(),
            Kind::Kubelet => self.kubelets.hosts[index].actor.is_some(),
            Kind::Netd => self.netds.hosts[index].actor.is_some(),
            Kind::Flannel => self.flannels.hosts[index].actor.is_some(),
            Kind::Proxy => self.proxies.hosts[index].actor.is_some(),
            Kind::Dns => self.dns.hosts[index].actor.is_some(),
            Kind::KubeDns => self.kube_dns.hosts[index].actor.is_some(),
        }
    }

    /// Events the actor has handled in all its lives.
    pub fn steps(&self, cell: Cell) -> u64 {
        let index = cell.index as usize;
        match cell.kind {
            Kind::ApiServer => self.apiservers.hosts[index].steps,
            Kind::Controllers => self.controllers.hosts[index].steps,
            Kind::Scheduler => self.schedulers.hosts[index].steps,
            Kind::Kubelet => self.kubelets.hosts[index].steps,
            Kind::Netd => self.netds.hosts[index].steps,
            Kind::Flannel => self.flannels.hosts[index].steps,
            Kind::Proxy => self.proxies.hosts[index].steps,
            Kind::Dns => self.dns.hosts[index].steps,
            Kind::KubeDns => self.kube_dns.hosts[index].steps,
        }
    }

    /// Effects of living actors that nobody answered within [`ANSWER_WITHIN`], in words: every
    /// effect is owed one answer, if only that its outcome is unknown.
    pub fn unanswered(&self) -> Vec<String> {
        let since = self.now - ANSWER_WITHIN;
        let late = [
            (Kind::ApiServer, self.apiservers.unanswered(since)),
            (Kind::Controllers, self.controllers.unanswered(since)),
            (Kind::Scheduler, self.schedulers.unanswered(since)),
            (Kind::Kubelet, self.kubelets.unanswered(since)),
            (Kind::Netd, self.netds.unanswered(since)),
            (Kind::Flannel, self.flannels.unanswered(since)),
            (Kind::Proxy, self.proxies.unanswered(since)),
            (Kind::Dns, self.dns.unanswered(since)),
            (Kind::KubeDns, self.kube_dns.unanswered(since)),
        ];
        let mut told = Vec::new();
        for (kind, late) in late {
            for (index, ticket, asked) in late {
                let who = self.who(Cell { kind, index });
                told.push(format!(
                    "effect {} of {who}, asked for at {asked}, was never answered",
                    ticket.0
                ));
            }
        }
        told
    }

    /// Ends an actor's life and closes what its process had open.
    pub(super) fn drop_actor(&mut self, cell: Cell) {
        let machine = self.machine_of(cell);
        let life = self.life(cell);
        let index = cell.index;
        match cell.kind {
            Kind::ApiServer => self.apiservers.drop_actor(index),
            Kind::Controllers => self.controllers.drop_actor(index),
            Kind::Scheduler => self.schedulers.drop_actor(index),
            Kind::Kubelet => self.kubelets.drop_actor(index),
            Kind::Netd => self.netds.drop_actor(index),
            Kind::Flannel => self.flannels.drop_actor(index),
            Kind::Proxy => self.proxies.drop_actor(index),
            Kind::Dns => self.dns.drop_actor(index),
            Kind::KubeDns => self.kube_dns.drop_actor(index),
        }
        let host = &mut self.machines[machine as usize];
        host.observers.retain(|life| life.cell != cell);
        host.files.forget(life.pack());
        let (gone, kept) = host.sockets.drain(..).partition(|(life, _, _)| life.cell == cell);
        host.sockets = kept;
        let gone: Vec<(Life, u16, SocketId)> = gone;
        for (_, _, socket) in gone {
            self.kernel(machine, |kernel, now, out| kernel.close(now, socket, out));
        }
        self.connections_forget(machine, cell);
        self.client_forgets(machine, cell);
        if cell.kind == Kind::ApiServer {
            self.front_dies();
        }
    }

    /// The machine goes dark: memory, kernel, containers and connections are gone; the wire
    /// sees its cards fall silent.
    pub(super) fn power_off(&mut self, machine: u32, loss: Loss) {
        let cells = self.machines[machine as usize].cells.clone();
        let seed = self.knobs.seed;
        let host = &mut self.machines[machine as usize];
        if !host.on {
            if loss == Loss::Disk {
                self.disk_lost(machine);
            }
            return;
        }
        if self.knobs.external && matches!(host.role, Role::Node(_) | Role::Client(_)) {
            self.orders.push((machine, super::external::Order::PowerOff(loss)));
        }
        host.on = false;
        host.armed = Time::NEVER;
        host.boots += 1;
        let boots = host.boots;
        host.kernel = Kernel::sharing(kernel_rng(seed, machine, boots), self.shared.clone());
        host.sockets.clear();
        host.connections = Connections::default();
        host.connections_due = Time::NEVER;
        host.observers.clear();
        host.told = None;
        host.runtime.power_loss();
        let mut programs = std::mem::take(&mut host.programs);
        for (_, pod) in std::mem::take(&mut host.pods) {
            programs.extend(pod.programs);
        }
        let ports: Vec<PortId> = host.ports.iter().map(|(_, port)| *port).collect();
        host.ports.clear();
        host.files.power_loss();
        host.volumes.power_loss();
        for program in programs {
            self.programs.try_remove(program as usize);
        }
        for cell in cells {
            self.drop_actor(cell);
        }
        if let Some(client) = self.client(machine) {
            client.power_loss();
        }
        self.machines[machine as usize].parked = ports;
        if loss == Loss::Disk {
            self.disk_lost(machine);
        }
        let name = self.machines[machine as usize].name.clone();
        self.line(&format!("power@{name}"), || "off".to_owned());
    }

    /// A machine that is off gets a new disk, with what is installed on one.
    fn disk_lost(&mut self, machine: u32) {
        let host = &mut self.machines[machine as usize];
        host.files.disk_loss();
        host.volumes.disk_loss();
        host.runtime.disk_loss();
        if let Role::Node(node) = host.role {
            self.install(machine, node);
        }
        if self.apiservers.hosts.first().is_some_and(|host| host.machine == machine) {
            self.store.wipe();
        }
    }

    /// Netlink has news for those who observe the machine's network: told a moment later, so that
    /// a burst of changes is one message.
    pub(super) fn kernel_changed(&mut self, machine: u32) {
        let host = &mut self.machines[machine as usize];
        if !host.netlink_pending && (!host.observers.is_empty() || host.client.is_some()) {
            host.netlink_pending = true;
            self.queue.push(self.now + Duration::from_millis(1), Due::Netlink { machine });
        }
    }

    pub(super) fn netlink(&mut self, machine: u32) {
        let host = &mut self.machines[machine as usize];
        host.netlink_pending = false;
        if !host.on {
            return;
        }
        let state = Arc::new(host.kernel.state());
        if host.told.as_deref() == Some(&*state) {
            return;
        }
        host.told = Some(state.clone());
        let observers = host.observers.clone();
        for life in observers {
            self.tell_network(life, None, network::Reply::State(state.clone()));
        }
        self.client_addresses_changed(machine);
    }
}
