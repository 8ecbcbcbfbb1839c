//! What happens to the world: the scenario's faults, drawn from the seed before the run.

use super::external::Order;
use super::programs::Task;
use super::{Cell, Due, Kind, World, words};
use crate::scenario::{self, ActorName, Disturbance, FaultKind, LinkTarget, Place, Span};
use crate::wire::{Cut, PortId, Quality};
use kubesim_actors::objects::{Key, Kind as ObjectKind, Name};
use kubesim_runtime::{Loss, Rng, Stream, Time};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A crash to be injected: the actor dies in place of handling its `step`-th event, counted over
/// all its lives from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    pub cell: Cell,
    pub step: u64,
    pub loss: Loss,
}

/// A fault of this run: what the seed drew, and when its moments came.
#[derive(Clone, Debug)]
pub struct Happened {
    pub name: Name,
    pub kind: FaultKind,
    pub at: Time,
    pub lasts: Duration,
    pub began: Option<Time>,
    pub ended: Option<Time>,
    /// Of a move: when the new address was acquired.
    pub address_acquired: Option<Time>,
    /// What it found in place and has to put back.
    before: Vec<(PortId, Quality)>,
}

/// From carrier to address, DHCP included: two round trips on a quiet LAN.
const DHCP_TAKES: Duration = Duration::from_millis(4);

fn draw(rng: &mut Rng, span: Span) -> Duration {
    super::programs::draw(rng, span)
}

impl World {
    /// Expands the scenario's faults and workloads with this run's seed.
    pub(super) fn plan_faults(&mut self) {
        let scenario = self.scenario.clone();
        let seed = self.knobs.seed;
        for (index, fault) in scenario.faults.iter().enumerate() {
            let stream = Stream { seed, label: "fault", index: index as u64, incarnation: 0 };
            let mut rng = Rng::new(stream);
            let at = Time::ZERO + draw(&mut rng, fault.at);
            let lasts = lasts(&fault.kind).map_or(Duration::ZERO, |span| draw(&mut rng, span));
            self.happened.push(Happened {
                name: fault.name.clone(),
                kind: fault.kind.clone(),
                at,
                lasts,
                began: None,
                ended: None,
                address_acquired: None,
                before: Vec::new(),
            });
            self.queue.push(at, Due::Fault { index: index as u32 });
        }
        self.plan_deletions();
        for (index, workload) in scenario.workloads.iter().enumerate() {
            let stream = Stream { seed, label: "workload", index: index as u64, incarnation: 0 };
            let at = Time::ZERO + draw(&mut Rng::new(stream), workload.at);
            self.queue.push(at, Due::Workload { index: index as u32 });
        }
    }

    pub(super) fn fault_begins(&mut self, index: usize) {
        let kind = self.happened[index].kind.clone();
        let name = self.happened[index].name.clone();
        let lasts = self.happened[index].lasts;
        self.happened[index].began = Some(self.now);
        self.line("fault", || format!("{name}: {}", words::fault(&kind, lasts)));
        let moves = matches!(kind, FaultKind::Move { .. });
        if lasts > Duration::ZERO && !moves {
            self.queue.push(self.now + lasts, Due::FaultEnds { index: index as u32 });
        }
        match &kind {
            FaultKind::Move { node, network, outage: _, address } => {
                if self.cable_is_live(&name, node) {
                    self.move_begins(index, node, network, *address, lasts);
                } else {
                    self.happened[index].ended = Some(self.now);
                }
            }
            FaultKind::LinkDown { target, .. } => {
                self.target_is_live(&name, target);
                self.links(target, false);
            }
            FaultKind::LinkUp { target } => {
                self.target_is_live(&name, target);
                self.links(target, true);
            }
            FaultKind::Partition { from, to, one_way, .. } => {
                let (from, to) = (self.machines_of(from), self.machines_of(to));
                let cut = Cut { name: name.to_string(), from, to, both_ways: !one_way };
                self.wire.cut(cut);
            }
            FaultKind::Disturb { target, by, .. } => {
                self.target_is_live(&name, target);
                self.disturb(index, target, *by);
            }
            FaultKind::Kill { actor, nodes, loss, restart } => {
                self.kill_actors(*actor, nodes, *loss, restart.is_some());
            }
            FaultKind::Stop { actor, nodes } => self.stop_actors(*actor, nodes),
            FaultKind::Start { actor, nodes } => self.start_actors(*actor, nodes),
            FaultKind::PowerOff { nodes, .. } => {
                self.each_machine(nodes, |world, machine| world.power_off(machine, Loss::Power));
            }
            FaultKind::PowerOn { nodes } | FaultKind::NodeAdd { nodes } => {
                self.each_machine(nodes, |world, machine| world.boot(machine));
            }
            FaultKind::NodeDelete { nodes, power_off } => {
                if *power_off {
                    self.each_machine(nodes, |world, machine| {
                        world.power_off(machine, Loss::Power)
                    });
                }
                for node in nodes {
                    self.operate_delete(ObjectKind::Node, Key::cluster(node.clone()), &name);
                }
            }
            FaultKind::Apply { objects } => {
                for given in objects {
                    self.operate_create(given);
                }
            }
            FaultKind::Patch { .. } | FaultKind::Delete { .. } | FaultKind::Scale { .. } => {
                self.operate_on(index);
            }
            FaultKind::WriteFile { .. }
            | FaultKind::Sysctl { .. }
            | FaultKind::Iptables { .. }
            | FaultKind::StartSoftware { .. } => self.strike_machines(&name, &kind),
            FaultKind::DhcpPushDns { network, dns } => self.push_dns(network, dns.clone()),
            FaultKind::Upstream { upstream, behaviour } => {
                let behaviour = *behaviour;
                let machine = self.machine_named(upstream);
                self.with_task(machine, |_, _, task| {
                    if let Task::Upstream(server) = task {
                        server.behaviour = behaviour;
                    }
                });
            }
        }
        if lasts.is_zero() && !moves {
            self.happened[index].ended = Some(self.now);
        }
    }

    pub(super) fn fault_ends(&mut self, index: usize) {
        let kind = self.happened[index].kind.clone();
        let name = self.happened[index].name.clone();
        self.happened[index].ended = Some(self.now);
        match &kind {
            FaultKind::Move { node, .. } => {
                if let Some(machine) = self.machine_named(node) {
                    self.carrier(machine, true);
                    self.static_move_ends(index, machine);
                }
            }
            FaultKind::LinkDown { target, .. } => self.links(target, true),
            FaultKind::Partition { .. } => self.wire.mend(&name),
            FaultKind::Disturb { .. } => {
                for (port, quality) in std::mem::take(&mut self.happened[index].before) {
                    self.wire.set_quality(port, quality);
                }
            }
            FaultKind::Kill { actor, nodes, loss, .. } => {
                if *loss == scenario::Loss::Process {
                    self.start_actors(*actor, nodes);
                } else {
                    self.each_machine(nodes, |world, machine| world.boot(machine));
                }
            }
            FaultKind::PowerOff { nodes, .. } => {
                self.each_machine(nodes, |world, machine| world.boot(machine));
            }
            _ => {}
        }
        self.line("fault", || format!("{name}: over"));
    }

    // Machines and links.

    fn each_machine(&mut self, nodes: &[Name], mut act: impl FnMut(&mut World, u32)) {
        for node in nodes {
            if let Some(machine) = self.machine_named(node) {
                act(self, machine);
            }
        }
    }

    fn machines_of(&self, places: &[Place]) -> BTreeSet<u32> {
        let mut machines = BTreeSet::new();
        for place in places {
            match place {
                Place::Node(name) | Place::Client(name) | Place::Upstream(name) => {
                    machines.extend(self.machine_named(name));
                }
                Place::Network(name) => {
                    let ports = self.ports_of_network(name);
                    machines.extend(ports.into_iter().map(|port| self.wire.machine_of(port).0));
                }
            }
        }
        machines
    }

    fn ports_of_network(&self, name: &str) -> Vec<PortId> {
        let Some(switch) = self.switch_named(name) else { return Vec::new() };
        let mut ports = Vec::new();
        for machine in &self.machines {
            for (_, port) in &machine.ports {
                let reached = self.wire.switch_of(*port);
                if reached == Some(switch)
                    || reached.is_some_and(|s| self.rack_of(s) == Some(switch))
                {
                    ports.push(*port);
                }
            }
        }
        ports
    }

    fn ports_of_target(&self, target: &LinkTarget) -> Vec<PortId> {
        match target {
            LinkTarget::Node(name) => {
                let machine = self.machine_named(name).map(|m| &self.machines[m as usize]);
                machine
                    .and_then(super::Machine::first_port)
                    .map(|(_, port)| port)
                    .into_iter()
                    .collect()
            }
            LinkTarget::Link(name) => self.link_ports(name),
            LinkTarget::Network(name) => self.ports_of_network(name),
        }
    }

    fn links(&mut self, target: &LinkTarget, up: bool) {
        for port in self.ports_of_target(target) {
            let (machine, link) = self.wire.machine_of(port);
            self.wire.set_up(port, up);
            if self.ordered(machine, || Order::Carrier(up)) {
                continue;
            }
            self.kernel(machine, |k, now, out| k.set_carrier(now, link, up, out));
            self.dhcp_carrier(machine, up);
        }
    }

    /// The carrier of a machine's first card, and what its DHCP client makes of it.
    fn carrier(&mut self, machine: u32, up: bool) {
        if self.ordered(machine, || Order::Carrier(up)) {
            return;
        }
        let Some((link, _)) = self.machines[machine as usize].first_port() else { return };
        self.kernel(machine, |k, now, out| k.set_carrier(now, link, up, out));
        self.dhcp_carrier(machine, up);
    }

    fn dhcp_carrier(&mut self, machine: u32, up: bool) {
        self.with_task(Some(machine), |world, seat, task| {
            if let Task::DhcpClient(client) = task {
                client.carrier(world, seat, up);
            }
        });
    }

    /// Runs something on each of a machine's own programs.
    fn with_task(
        &mut self,
        machine: Option<u32>,
        mut act: impl FnMut(&mut World, &mut super::programs::Seat, &mut Task),
    ) {
        let Some(machine) = machine else { return };
        for slot in self.machines[machine as usize].programs.clone() {
            self.run_program(slot, &mut act);
        }
    }

    fn move_begins(
        &mut self,
        index: usize,
        node: &str,
        network: &str,
        address: Option<Ipv4Addr>,
        outage: Duration,
    ) {
        let (Some(machine), Some(switch)) = (self.machine_named(node), self.switch_named(network))
        else {
            return;
        };
        let Some((link, port)) = self.machines[machine as usize].first_port() else { return };
        let quality = self.network_quality(network);
        self.carrier(machine, false);
        self.wire.plug(port, switch, quality);
        self.machines[machine as usize].home = Some(switch);
        if let Some(address) = address {
            self.readdress(machine, link, network, address);
        }
        // DHCP takes its share of the outage.
        let share = if self.is_static(index) { Duration::ZERO } else { DHCP_TAKES };
        let back = self.now + outage.saturating_sub(share);
        self.happened[index].lasts = outage;
        self.queue.push(back, Due::FaultEnds { index: index as u32 });
    }

    fn disturb(&mut self, index: usize, target: &LinkTarget, by: Disturbance) {
        for port in self.ports_of_target(target) {
            let Some(before) = self.wire.quality(port) else { continue };
            self.happened[index].before.push((port, before));
            let jitter = if by.jitter.is_zero() { before.reorder_by } else { by.jitter };
            let quality = Quality {
                latency: before.latency + by.latency,
                loss: by.loss.max(before.loss),
                duplicate: by.duplicate.max(before.duplicate),
                reorder: if by.jitter.is_zero() { by.reorder.max(before.reorder) } else { 1.0 },
                reorder_by: if by.reorder > 0.0 && jitter.is_zero() {
                    Duration::from_millis(5)
                } else {
                    jitter
                },
            };
            self.wire.set_quality(port, quality);
        }
    }

    fn push_dns(&mut self, network: &str, dns: Vec<Ipv4Addr>) {
        let router = self.router_of(network);
        self.with_task(router, |world, seat, task| {
            if let Task::DhcpServer(server) = task {
                server.push_dns(world, seat, dns.clone());
            }
        });
    }

    // Actors.

    pub(super) fn cells_of(&self, actor: ActorName, nodes: &[Name]) -> Vec<Cell> {
        let matches = |kind: Kind| match actor {
            ActorName::Apiserver => kind == Kind::ApiServer,
            ActorName::Controllers => kind == Kind::Controllers,
            ActorName::Scheduler => kind == Kind::Scheduler,
            ActorName::Kubelet => kind == Kind::Kubelet,
            ActorName::Netd => matches!(kind, Kind::Netd | Kind::Flannel),
            ActorName::Proxy => kind == Kind::Proxy,
            ActorName::Dns => matches!(kind, Kind::Dns | Kind::KubeDns),
        };
        let on_node = |machine: &&super::Machine| nodes.is_empty() || nodes.contains(&machine.name);
        let machines = self.machines.iter().filter(on_node);
        machines.flat_map(|m| m.cells.iter().copied()).filter(|cell| matches(cell.kind)).collect()
    }

    fn kill_actors(&mut self, actor: ActorName, nodes: &[Name], loss: scenario::Loss, again: bool) {
        let loss = match loss {
            scenario::Loss::Process => Loss::Process,
            scenario::Loss::Power => Loss::Power,
            scenario::Loss::Disk => Loss::Disk,
        };
        let order = || Order::Kill { actor, again };
        if loss == Loss::Process && self.order_actors(actor, nodes, &order) {
            return;
        }
        for cell in self.cells_of(actor, nodes) {
            if loss == Loss::Process {
                self.drop_actor(cell);
                self.set_stopped(cell, !again);
            } else {
                self.power_off(self.machine_of(cell), loss);
            }
        }
    }

    fn stop_actors(&mut self, actor: ActorName, nodes: &[Name]) {
        if self.order_actors(actor, nodes, &|| Order::Kill { actor, again: false }) {
            return;
        }
        for cell in self.cells_of(actor, nodes) {
            self.drop_actor(cell);
            self.set_stopped(cell, true);
        }
    }

    fn start_actors(&mut self, actor: ActorName, nodes: &[Name]) {
        if self.order_actors(actor, nodes, &|| Order::Start(actor)) {
            return;
        }
        for cell in self.cells_of(actor, nodes) {
            // On a machine that is off it starts with the machine.
            self.set_stopped(cell, false);
            let life = self.life(cell);
            self.queue.push(self.now, Due::Start { life });
        }
    }
}

fn lasts(kind: &FaultKind) -> Option<Span> {
    match kind {
        FaultKind::Move { outage, .. } => Some(*outage),
        FaultKind::LinkDown { lasts, .. } | FaultKind::PowerOff { lasts, .. } => *lasts,
        FaultKind::Partition { lasts, .. } | FaultKind::Disturb { lasts, .. } => Some(*lasts),
        FaultKind::Kill { restart, .. } => *restart,
        _ => None,
    }
}
