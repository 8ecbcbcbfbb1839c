//! When a machine that moves has its new address: at once when the outage is over, if the address
//! is a fixed one; else when its DHCP client has been lent one.

use super::World;
use super::programs::Dropped;
use crate::scenario::{Address, FaultKind};
use std::net::Ipv4Addr;

impl World {
    /// Whether the machine of a move asks nobody for its address.
    pub(super) fn is_static(&self, fault: usize) -> bool {
        let FaultKind::Move { node, address, .. } = &self.happened[fault].kind else {
            return false;
        };
        let own = self.scenario.nodes.iter().find(|own| own.name == *node);
        address.is_some() || own.is_some_and(|own| matches!(own.address, Address::Static(_)))
    }

    /// The last move of a machine that has begun.
    fn last_move(&self, name: &str) -> Option<usize> {
        let moves = |fault: &super::Happened| match &fault.kind {
            FaultKind::Move { node, .. } => node == name,
            _ => false,
        };
        let faults = self.happened.iter().enumerate().filter(|(_, fault)| moves(fault));
        let begun = faults.filter_map(|(index, fault)| Some((fault.began?, index)));
        begun.max().map(|(_, index)| index)
    }

    /// An address is on a card, by DHCP or by hand.
    pub(super) fn address_acquired(&mut self, machine: u32, address: Ipv4Addr) {
        let name = self.machines[machine as usize].name.clone();
        let moved = self.last_move(&name);
        // Without a carrier an address by hand is of no use: it counts when the outage is over.
        let over = |fault: usize| self.happened[fault].ended.is_some();
        if moved.is_some_and(|fault| self.is_static(fault) && !over(fault)) {
            return;
        }
        let mut outage = None;
        if let Some(fault) = moved.map(|fault| &mut self.happened[fault])
            && fault.address_acquired.is_none()
        {
            fault.address_acquired = Some(self.now);
            outage = fault.began.map(|began| self.now.since(began));
            self.ask_for_pictures();
        }
        self.line(&format!("dhcp@{name}"), || match outage {
            Some(outage) => {
                format!("{address} acquired after {:.3} s without one", outage.as_secs_f64())
            }
            None => format!("{address} acquired"),
        });
    }

    /// There is a carrier: a fixed address of a machine that moved counts from now on.
    pub(super) fn static_move_ends(&mut self, machine: u32) {
        let name = self.machines[machine as usize].name.clone();
        let Some(fault) = self.last_move(&name).filter(|fault| self.is_static(*fault)) else {
            return;
        };
        let now = self.now;
        let happened = &mut self.happened[fault];
        if happened.ended.is_none() || happened.address_acquired.is_some() {
            return;
        }
        let outage = happened.began.map_or_else(Default::default, |began| now.since(began));
        happened.address_acquired = Some(now);
        let card = self.places.cards.get(&machine).and_then(|cards| cards.first()?.address);
        let Some(address) = card.map(|net| net.addr()) else { return };
        self.line(&format!("address@{name}"), || {
            let outage = outage.as_secs_f64();
            format!("{address} has a carrier again, after an outage of {outage:.3} s")
        });
        self.ask_for_pictures();
    }

    pub(super) fn address_lost(&mut self, machine: u32, address: Ipv4Addr, why: Dropped) {
        let name = self.machines[machine as usize].name.clone();
        self.line(&format!("dhcp@{name}"), || format!("{address} is off the link: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Trace};
    use crate::world::testing;

    /// A machine that moved to a fixed address comes back from a reboot with the gateway of where
    /// it is. (It had the gateway of where it began, once, and nobody reached it.)
    #[test]
    fn who_moved_to_a_fixed_address_has_a_way_out_after_a_reboot() {
        let more = r#"
[[network]]
name = "cafe"
cidr = "10.9.0.0/24"
[[link]]
between = ["lan", "cafe"]
[[node]]
name = "w"
network = "lan"
address = "192.168.1.13"
[[fault]]
name = "to-cafe"
kind = "move"
at = "25s"
node = "w"
network = "cafe"
address = "10.9.0.9"
[[fault]]
name = "reboot"
kind = "power-off"
at = "50s"
nodes = "w"
lasts = "5s"
[[probe]]
name = "ping"
kind = "ping"
from = { node = "n1" }
to = { node = "w" }
[[expect]]
name = "it is reached where it moved"
kind = "probe"
probe = "ping"
from = "30s"
until = "49s"
[[expect]]
name = "and after the reboot"
kind = "probe"
probe = "ping"
from = "60s"
"#;
        let (report, _) = testing::play(&testing::scenario("", more), Trace::default());
        let held: Vec<_> = report.expectations.iter().map(|e| e.outcome).collect();
        assert_eq!(held, [Outcome::Passed; 2], "{:?}", report.expectations);
    }
}
