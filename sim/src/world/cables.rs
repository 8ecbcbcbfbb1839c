//! Faults of cables: pulled, moved to another LAN, disturbed. What several faults do to one cable
//! adds up, and each takes only its own part back.

use super::external::Order;
use super::programs::Task;
use super::{Machine, World};
use crate::scenario::{Disturbance, FaultKind, LinkTarget};
use crate::wire::{PortId, Quality};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// From carrier to address, DHCP included: two round trips on a quiet LAN.
const DHCP_TAKES: Duration = Duration::from_millis(4);

/// Disturbances at work.
#[derive(Debug, Default)]
pub(super) struct Disturbances {
    cables: BTreeMap<PortId, Disturbed>,
    /// Faults of whole LANs, link-downs among them: they meet whoever is plugged in later.
    lans: Vec<usize>,
}

/// A cable that is not as it is by itself.
#[derive(Debug)]
struct Disturbed {
    own: Quality,
    /// In the order in which they began.
    by: Vec<(usize, Disturbance)>,
}

impl Disturbed {
    fn quality(&self) -> Quality {
        self.by.iter().fold(self.own, |quality, (_, by)| worse(quality, *by))
    }
}

fn worse(before: Quality, by: Disturbance) -> Quality {
    // What holds every frame back adds up; what held a share of them back is one of them now.
    let jitter = match before.reorder >= 1.0 {
        true => before.reorder_by + by.jitter,
        false => before.reorder_by.max(by.jitter),
    };
    Quality {
        latency: before.latency + by.latency,
        loss: by.loss.max(before.loss),
        duplicate: by.duplicate.max(before.duplicate),
        reorder: if by.jitter.is_zero() { by.reorder.max(before.reorder) } else { 1.0 },
        reorder_by: if by.reorder > 0.0 && jitter.is_zero() {
            Duration::from_millis(5)
        } else {
            jitter
        },
    }
}

impl World {
    // Cables without a signal.

    pub(super) fn link_down(&mut self, fault: usize, target: &LinkTarget) {
        self.meets_newcomers(fault, target);
        for port in self.ports_of_target(target) {
            if self.cables.take(port, fault) {
                self.carrier_of(port);
            }
        }
    }

    /// Somebody puts cables back that are out.
    pub(super) fn link_up(&mut self, target: &LinkTarget) {
        let happened = &self.happened;
        let pulled = |fault: usize| matches!(happened[fault].kind, FaultKind::LinkDown { .. });
        self.disturbances.lans.retain(|fault| match &happened[*fault].kind {
            FaultKind::LinkDown { target: down, .. } => down != target,
            _ => true,
        });
        let mut back = Vec::new();
        for port in self.ports_of_target(target) {
            // A cable that is on its way to another LAN is not there to be put back.
            let by: Vec<usize> = self.cables.faults(port).filter(|by| pulled(*by)).collect();
            for fault in &by {
                self.cables.let_go(port, *fault);
            }
            if !by.is_empty() {
                back.push(port);
            }
        }
        for port in back {
            self.carrier_of(port);
        }
    }

    /// A fault's cables have their signal again, but for those that another one holds.
    pub(super) fn cables_back(&mut self, fault: usize) {
        self.disturbances.lans.retain(|other| *other != fault);
        for port in self.cables.let_all_go(fault) {
            self.carrier_of(port);
        }
    }

    /// Tells a card whether its cable has a signal.
    fn carrier_of(&mut self, port: PortId) {
        let up = !self.cables.is_held(port);
        let (machine, link) = self.wire.machine_of(port);
        self.wire.set_up(port, up);
        if !self.machines[machine as usize].on {
            return;
        }
        if !self.ordered(machine, || Order::Carrier(up)) {
            self.kernel(machine, |k, now, out| k.set_carrier(now, link, up, out));
            self.with_task(Some(machine), |world, seat, task| {
                if let Task::DhcpClient(client) = task {
                    client.carrier(world, seat, up);
                }
            });
        }
        if up {
            self.static_move_ends(machine);
        }
    }

    /// Whether a machine's first card has no signal.
    pub(super) fn is_unplugged(&self, machine: u32) -> bool {
        let mut cables = self.machines[machine as usize].cables();
        cables.next().is_some_and(|port| self.cables.is_held(port))
    }

    // Cables that move.

    pub(super) fn move_begins(
        &mut self,
        fault: usize,
        node: &str,
        network: &str,
        address: Option<Ipv4Addr>,
    ) {
        let (Some(machine), Some(switch)) = (self.machine_named(node), self.switch_named(network))
        else {
            return;
        };
        // It has a cable while it is off, and no link.
        let host = &self.machines[machine as usize];
        let Some(port) = host.cables().next() else { return };
        let link = host.first_port().map(|(link, _)| link);
        if self.cables.take(port, fault) {
            self.carrier_of(port);
        }
        self.overtaken(fault, port);
        self.unplugged(port);
        self.wire.plug(port, switch, self.network_quality(network));
        self.plugged(port);
        self.partitions_regroup();
        self.machines[machine as usize].home = Some(switch);
        match address {
            Some(address) => self.readdress(machine, link, network, address),
            None => self.gives_up_fixed_address(machine, link),
        }
        // DHCP takes its share of the outage.
        let share = if self.is_static(fault) { Duration::ZERO } else { DHCP_TAKES };
        let back = self.now + self.happened[fault].lasts.saturating_sub(share);
        self.queue.push(back, super::Due::FaultEnds { index: fault as u32 });
    }

    /// Moves of this cable that have not arrived never will: it is taken elsewhere.
    fn overtaken(&mut self, fault: usize, port: PortId) {
        let moves = |by: &usize| matches!(self.happened[*by].kind, FaultKind::Move { .. });
        let others = self.cables.faults(port).filter(|by| *by != fault);
        let before: Vec<usize> = others.filter(moves).collect();
        for earlier in before {
            self.cables.let_go(port, earlier);
            self.happened[earlier].ended = Some(self.now);
            let [name, by] = [earlier, fault].map(|fault| self.happened[fault].name.clone());
            self.line("fault", || format!("{name}: overtaken by {by} before it had arrived"));
        }
    }

    /// A cable leaves its LAN, and what befell that LAN's cables.
    fn unplugged(&mut self, port: PortId) {
        for fault in self.disturbances.lans.clone() {
            self.cables.let_go(port, fault);
            if let Some(disturbed) = self.disturbances.cables.get_mut(&port) {
                disturbed.by.retain(|(by, _)| *by != fault);
            }
        }
    }

    /// A cable is in another LAN: it has that one's quality and troubles.
    fn plugged(&mut self, port: PortId) {
        if let (Some(disturbed), Some(own)) =
            (self.disturbances.cables.get_mut(&port), self.wire.quality(port))
        {
            disturbed.own = own;
        }
        for fault in self.disturbances.lans.clone() {
            match self.happened[fault].kind.clone() {
                FaultKind::LinkDown { target, .. } if self.is_target(&target, port) => {
                    self.cables.take(port, fault);
                }
                FaultKind::Disturb { target, by, .. } if self.is_target(&target, port) => {
                    self.disturb_cable(fault, port, by);
                }
                _ => {}
            }
        }
        self.quality_of(port);
        self.wire.set_up(port, !self.cables.is_held(port));
    }

    fn is_target(&self, target: &LinkTarget, port: PortId) -> bool {
        self.ports_of_target(target).contains(&port)
    }

    fn meets_newcomers(&mut self, fault: usize, target: &LinkTarget) {
        if matches!(target, LinkTarget::Network(_)) {
            self.disturbances.lans.push(fault);
        }
    }

    // Cables of bad quality.

    pub(super) fn disturb(&mut self, fault: usize, target: &LinkTarget, by: Disturbance) {
        self.meets_newcomers(fault, target);
        for port in self.ports_of_target(target) {
            self.disturb_cable(fault, port, by);
            self.quality_of(port);
        }
    }

    fn disturb_cable(&mut self, fault: usize, port: PortId, by: Disturbance) {
        let Some(own) = self.wire.quality(port) else { return };
        let first = || Disturbed { own, by: Vec::new() };
        self.disturbances.cables.entry(port).or_insert_with(first).by.push((fault, by));
    }

    pub(super) fn disturbance_ends(&mut self, fault: usize) {
        self.disturbances.lans.retain(|other| *other != fault);
        let ports: Vec<PortId> = self.disturbances.cables.keys().copied().collect();
        for port in ports {
            if let Some(disturbed) = self.disturbances.cables.get_mut(&port) {
                disturbed.by.retain(|(by, _)| *by != fault);
            }
            self.quality_of(port);
        }
    }

    /// A disturbed cable gets what its disturbances make of it.
    fn quality_of(&mut self, port: PortId) {
        let Some(disturbed) = self.disturbances.cables.get(&port) else { return };
        self.wire.set_quality(port, disturbed.quality());
        if disturbed.by.is_empty() {
            self.disturbances.cables.remove(&port);
        }
    }

    // Places.

    /// The ports of a LAN, machines that are off included: their cables are in.
    pub(super) fn ports_of_network(&self, name: &str) -> Vec<PortId> {
        let Some(switch) = self.switch_named(name) else { return Vec::new() };
        let within = |port: &PortId| {
            let reached = self.wire.switch_of(*port);
            reached == Some(switch) || reached.is_some_and(|s| self.rack_of(s) == Some(switch))
        };
        self.machines.iter().flat_map(Machine::cables).filter(within).collect()
    }

    fn ports_of_target(&self, target: &LinkTarget) -> Vec<PortId> {
        match target {
            LinkTarget::Node(name) => {
                let machine = self.machine_named(name).map(|m| &self.machines[m as usize]);
                machine.and_then(|machine| machine.cables().next()).into_iter().collect()
            }
            LinkTarget::Link(name) => self.link_ports(name),
            LinkTarget::Network(name) => self.ports_of_network(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::world::testing::pings;

    const DOWN_20_TO_40: &str =
        "kind = \"link-down\"\nat = \"20s\"\nnode = \"w2\"\nlasts = \"20s\"";
    const MOVE_AT_25: &str = "kind = \"move\"\nat = \"25s\"\nnode = \"w2\"\nnetwork = \"cafe\"\n\
                              address = \"10.9.0.9\"";

    #[test]
    fn a_cable_that_two_faults_pulled_is_back_when_both_are_over() {
        let longer = "kind = \"link-down\"\nat = \"30s\"\nnode = \"w2\"\nlasts = \"40s\"";
        pings(&[DOWN_20_TO_40, longer], &[(10, 19, true), (21, 69, false), (75, 99, true)]);
        let all = "kind = \"link-down\"\nat = \"30s\"\nnetwork = \"lan\"\nlasts = \"40s\"";
        pings(&[DOWN_20_TO_40, all], &[(21, 69, false), (75, 99, true)]);
    }

    #[test]
    fn who_puts_a_cable_back_ends_what_pulled_it() {
        let up = "kind = \"link-up\"\nat = \"30s\"\nnode = \"w2\"";
        let again = "kind = \"link-down\"\nat = \"35s\"\nnode = \"w2\"\nlasts = \"20s\"";
        let windows = [(21, 29, false), (32, 34, true), (36, 54, false), (60, 99, true)];
        pings(&[DOWN_20_TO_40, up, again], &windows);
    }

    #[test]
    fn a_cable_that_is_pulled_has_no_signal_in_the_next_network_either() {
        pings(&[DOWN_20_TO_40, MOVE_AT_25], &[(21, 39, false), (45, 99, true)]);
    }

    #[test]
    fn a_reboot_does_not_put_a_cable_back() {
        let reboot = "kind = \"power-off\"\nat = \"22s\"\nnodes = \"w2\"\nlasts = \"2s\"";
        pings(&[DOWN_20_TO_40, reboot], &[(21, 39, false), (45, 99, true)]);
        let slow = &format!("{MOVE_AT_25}\noutage = \"20s\"");
        let reboot = "kind = \"power-off\"\nat = \"30s\"\nnodes = \"w2\"\nlasts = \"2s\"";
        pings(&[slow, reboot], &[(26, 44, false), (50, 99, true)]);
    }

    #[test]
    fn a_move_on_the_way_of_another_goes_on_alone() {
        let slow = &format!("{MOVE_AT_25}\noutage = \"20s\"");
        let back = "kind = \"move\"\nat = \"30s\"\nnode = \"w2\"\nnetwork = \"lan\"\n\
                    address = \"192.168.1.13\"\noutage = \"5s\"";
        pings(&[slow, back], &[(26, 34, false), (37, 99, true)]);
        let late = &back.replace("30s", "44s").replace("5s", "20s");
        pings(&[slow, late], &[(26, 63, false), (66, 99, true)]);
    }

    #[test]
    fn disturbances_of_one_cable_add_up_and_end_one_by_one() {
        let losses = "kind = \"disturb\"\nat = \"20s\"\nnode = \"w2\"\nloss = 1.0\nlasts = \"20s\"";
        let slow =
            "kind = \"disturb\"\nat = \"30s\"\nnode = \"w2\"\nlatency = \"2s\"\nlasts = \"20s\"";
        let windows = [(10, 19, true), (21, 49, false), (51, 99, true)];
        pings(&[losses, slow], &windows);
        pings(&[&losses.replace("node = \"w2\"", "network = \"lan\""), slow], &windows);
    }

    /// A second jitter took the place of the first, once, however small it was.
    #[test]
    fn jitters_of_one_cable_add_up() {
        let long = "kind = \"disturb\"\nat = \"20s\"\nnode = \"w2\"\njitter = \"10000s\"\n\
                    lasts = \"40s\"";
        let short = "kind = \"disturb\"\nat = \"30s\"\nnode = \"w2\"\njitter = \"1ms\"\n\
                     lasts = \"10s\"";
        let windows = [(10, 19, true), (21, 59, false), (62, 99, true)];
        pings(&[long, short], &windows);
        pings(&[&long.replace("node = \"w2\"", "network = \"lan\""), short], &windows);
        pings(&[short, &long.replace("20s", "32s")], &[(10, 31, true), (33, 71, false)]);
    }

    /// Somebody carries it elsewhere, or pulls its cable, while it is off.
    #[test]
    fn a_machine_that_is_off_has_a_cable() {
        let off = "kind = \"power-off\"\nat = \"20s\"\nnodes = \"w2\"\nlasts = \"20s\"";
        let out = "kind = \"link-down\"\nat = \"30s\"\nnode = \"w2\"\nlasts = \"30s\"";
        pings(&[off, out], &[(10, 19, true), (21, 59, false), (62, 99, true)]);
        let moved = "kind = \"move\"\nat = \"30s\"\nnode = \"w2\"\nnetwork = \"cafe\"\n\
                     address = \"10.9.0.9\"";
        pings(&[off, moved], &[(10, 19, true), (21, 39, false), (43, 99, true)]);
        pings(&[off, &moved.replace("30s", "39.5s")], &[(21, 39, false), (43, 99, true)]);
    }

    #[test]
    fn what_befalls_a_network_stays_there() {
        let lan =
            "kind = \"disturb\"\nat = \"20s\"\nnetwork = \"cafe\"\nloss = 1.0\nlasts = \"40s\"";
        pings(&[lan, MOVE_AT_25], &[(10, 24, true), (27, 59, false), (62, 99, true)]);
        let down = "kind = \"link-down\"\nat = \"20s\"\nnetwork = \"cafe\"\nlasts = \"40s\"";
        let back = "kind = \"move\"\nat = \"40s\"\nnode = \"w2\"\nnetwork = \"lan\"\n\
                    address = \"192.168.1.13\"";
        pings(&[down, MOVE_AT_25, back], &[(10, 24, true), (27, 39, false), (43, 99, true)]);
    }
}
