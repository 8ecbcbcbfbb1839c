//! What happens to the world: the scenario's faults, drawn from the seed before the run.

use super::external::Order;
use super::holds::Holder;
use super::programs::Task;
use super::{Cell, Due, Kind, World, words};
use crate::scenario::{self, ActorName, FaultKind, Span};
use kubesim_actors::objects::{Key, Kind as ObjectKind, Name};
use kubesim_runtime::{Loss, Rng, Stream, Time};
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
}

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
                self.move_begins(index, node, network, *address);
            }
            FaultKind::LinkDown { target, .. } => self.link_down(index, target),
            FaultKind::LinkUp { target } => self.link_up(target),
            FaultKind::Partition { .. } => self.partition_begins(index),
            FaultKind::Disturb { target, by, .. } => self.disturb(index, target, *by),
            FaultKind::Kill { actor, nodes, loss, .. } => {
                self.kill_actors(index, *actor, nodes, *loss);
            }
            FaultKind::Stop { actor, nodes } => {
                self.kill_actors(index, *actor, nodes, scenario::Loss::Process);
            }
            FaultKind::Start { actor, nodes } => self.start_actors(*actor, nodes),
            FaultKind::PowerOff { nodes, .. } => self.switch_off(index, nodes, Loss::Power),
            FaultKind::PowerOn { nodes } | FaultKind::NodeAdd { nodes } => {
                self.switch_on(nodes);
            }
            FaultKind::NodeDelete { nodes, power_off } => {
                if *power_off {
                    self.switch_off(index, nodes, Loss::Power);
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
        self.ask_for_pictures();
    }

    pub(super) fn fault_ends(&mut self, index: usize) {
        if self.happened[index].ended.is_some() {
            return;
        }
        let kind = self.happened[index].kind.clone();
        let name = self.happened[index].name.clone();
        self.happened[index].ended = Some(self.now);
        match &kind {
            FaultKind::Move { .. } | FaultKind::LinkDown { .. } => self.cables_back(index),
            FaultKind::Partition { .. } => self.wire.mend(index),
            FaultKind::Disturb { .. } => self.disturbance_ends(index),
            FaultKind::Kill { .. } | FaultKind::PowerOff { .. } => {
                for cell in self.stopped.let_all_go(index) {
                    self.start_actor(cell);
                }
                for machine in self.switched_off.let_all_go(index) {
                    self.boot(machine);
                }
            }
            _ => {}
        }
        self.line("fault", || format!("{name}: over"));
        self.ask_for_pictures();
    }

    // Machines.

    fn switch_off(&mut self, fault: usize, nodes: &[Name], loss: Loss) {
        for node in nodes {
            if let Some(machine) = self.machine_named(node) {
                self.switched_off.take(machine, fault);
                self.power_off(machine, loss);
            }
        }
    }

    /// Somebody presses the button.
    fn switch_on(&mut self, nodes: &[Name]) {
        for node in nodes {
            if let Some(machine) = self.machine_named(node) {
                self.switched_off.free(machine);
                self.boot(machine);
            }
        }
    }

    /// A machine's time to boot by itself has come: if it has power.
    pub(super) fn boot_due(&mut self, machine: u32) {
        self.switched_off.let_go(machine, Holder::NotYet);
        if !self.switched_off.is_held(machine) {
            self.boot(machine);
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

    /// Ends actors (a stop is a kill that nobody restarts), or what they run on.
    fn kill_actors(
        &mut self,
        fault: usize,
        actor: ActorName,
        nodes: &[Name],
        loss: scenario::Loss,
    ) {
        for cell in self.cells_of(actor, nodes) {
            let machine = self.machine_of(cell);
            let loss = match loss {
                scenario::Loss::Process => {
                    self.stopped.take(cell, fault);
                    let on = self.machines[machine as usize].on;
                    if on && !self.ordered(machine, || Order::Kill(cell.kind)) {
                        self.drop_actor(cell);
                    }
                    continue;
                }
                scenario::Loss::Power => Loss::Power,
                scenario::Loss::Disk => Loss::Disk,
            };
            self.switched_off.take(machine, fault);
            self.power_off(machine, loss);
        }
    }

    fn start_actors(&mut self, actor: ActorName, nodes: &[Name]) {
        for cell in self.cells_of(actor, nodes) {
            self.stopped.free(cell);
            self.start_actor(cell);
        }
    }

    /// Nothing holds the actor down any more; on a machine that is off it starts with the machine.
    fn start_actor(&mut self, cell: Cell) {
        let machine = self.machine_of(cell);
        if !self.machines[machine as usize].on {
            return;
        }
        if !self.ordered(machine, || Order::Start(cell.kind)) {
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

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Trace};
    use crate::world::Kind;
    use crate::world::testing::{self, pings};

    fn text(faults: &[&str]) -> String {
        let fault =
            |(number, fault)| format!("[[fault]]\nname = \"f{number}\"\nnodes = \"n1\"\n{fault}\n");
        faults.iter().enumerate().map(fault).collect()
    }

    const KILL_20_TO_40: &str =
        "kind = \"kill\"\nactor = \"netd\"\nat = \"20s\"\nrestart = \"20s\"";

    fn netd_lives(faults: &[&str]) -> bool {
        let world = testing::world_after(testing::scenario("", &text(faults)));
        let machine = world.machine_named("n1").expect("a machine");
        world.alive(world.cell_of(machine, Kind::Netd).expect("a netd"))
    }

    #[test]
    fn an_actor_that_was_stopped_while_it_was_dead_stays_so() {
        let stop = "kind = \"stop\"\nactor = \"netd\"\nat = \"30s\"";
        let start = "kind = \"start\"\nactor = \"netd\"\nat = \"35s\"";
        assert!(netd_lives(&[KILL_20_TO_40]));
        assert!(!netd_lives(&[KILL_20_TO_40, stop]));
        assert!(netd_lives(&[KILL_20_TO_40, stop, start]));
    }

    #[test]
    fn a_machine_that_two_faults_switched_off_is_on_when_both_are_over() {
        let off = |at: u32, lasts: &str| {
            format!("kind = \"power-off\"\nat = \"{at}s\"\nnodes = \"w2\"\n{lasts}")
        };
        let (short, long) = (off(20, "lasts = \"10s\""), off(25, "lasts = \"40s\""));
        pings(&[&short, &long], &[(10, 19, true), (21, 64, false), (68, 99, true)]);
        pings(&[&short, &off(25, "")], &[(21, 99, false)]);
        let on = "kind = \"power-on\"\nat = \"28s\"\nnodes = \"w2\"";
        let windows = [(21, 27, false), (31, 34, true), (36, 44, false), (48, 99, true)];
        pings(&[&short, on, &off(35, "lasts = \"10s\"")], &windows);
    }

    #[test]
    fn what_is_as_it_is_wanted_is_left_alone() {
        let off = "kind = \"power-off\"\nat = \"50s\"\nlasts = \"60s\"";
        let on = "kind = \"power-on\"\nat = \"20s\"";
        let start = "kind = \"start\"\nactor = \"netd\"\nat = \"60s\"";
        let up = text(&["kind = \"link-up\"\nnode = \"n1\"\nat = \"20s\""])
            .replace("nodes = \"n1\"\n", "")
            .replace("f0", "up");
        let dead = &KILL_20_TO_40.replace("\"20s\"", "\"55s\"");
        let text = text(&[on, off, start, dead]) + &up;
        let (report, _) = testing::play(&testing::scenario("", &text), Trace::default());
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
    }

    /// A machine that is off for another reason than a fault stays so when the fault is over.
    #[test]
    fn the_end_of_a_fault_switches_nothing_on_that_was_off_before() {
        let cut = "kind = \"power-off\"\nat = \"10s\"\nnodes = \"w2\"\nlasts = \"5s\"";
        let last = |more: &str| {
            let node = "[[node]]\nname = \"w2\"\nnetwork = \"lan\"\naddress = \"192.168.1.13\"\n";
            let text = format!("{node}{more}\n[[fault]]\nname = \"cut\"\n{cut}\n");
            let scenario = testing::scenario("", &text);
            let (_, said) = testing::play(&scenario, Trace::default());
            let ready =
                said.by("kubelet@w2").into_iter().find(|(_, text)| text.contains("is Ready"));
            ready.map(|(at, _)| at.since(kubesim_runtime::Time::ZERO).as_secs())
        };
        assert_eq!(last("off = true"), None);
        assert!(last("boot-delay = \"60s\"").is_some_and(|at| at >= 60));
        assert!(last("").is_some());
    }

    /// What is stopped on a machine that is off does not start with it.
    #[test]
    fn a_stop_while_the_machine_is_off_counts() {
        let off = "kind = \"power-off\"\nat = \"10s\"\nlasts = \"20s\"";
        let stop = "kind = \"stop\"\nactor = \"netd\"\nat = \"20s\"";
        assert!(netd_lives(&[off]) && !netd_lives(&[off, stop]));
    }
}
