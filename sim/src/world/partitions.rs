//! Partitions: two groups of machines that do not hear each other, though each is well.
//!
//! A packet is lost if the machine that its outermost source address is of is in one group, and
//! that of its destination in the other, on whichever cable it is seen so: after a NAT it is seen
//! as the router's own. A machine that forwards is no end of the way, so what others send through a
//! member's router gets through. Between the cards of one LAN nothing passes, ARP and broadcasts
//! included.

use super::{Role, World};
use crate::kernel::packet::{Frame, Payload};
use crate::scenario::{FaultKind, Place};
use crate::wire::{Cut, Side};
use rustc_hash::FxHashMap;
use std::net::Ipv4Addr;

/// Who was found to have an address the last time; looked up only.
pub(super) type Holders = FxHashMap<Ipv4Addr, u32>;

impl World {
    pub(super) fn partition_begins(&mut self, fault: usize) {
        let FaultKind::Partition { from, to, one_way, .. } = self.happened[fault].kind.clone()
        else {
            return;
        };
        let (from, to) = (self.side(&from), self.side(&to));
        self.wire.cut(Cut { fault, from, to, both_ways: !one_way });
    }

    /// A cable is in another LAN: who left a network that is cut off is so no more, who is in it
    /// now is.
    pub(super) fn partitions_regroup(&mut self) {
        if self.wire.is_whole() {
            return;
        }
        for fault in 0..self.happened.len() {
            let happened = &self.happened[fault];
            if happened.began.is_some() && happened.ended.is_none() {
                self.partition_begins(fault);
            }
        }
    }

    fn side(&self, places: &[Place]) -> Side {
        let mut side = Side::default();
        for place in places {
            match place {
                Place::Node(name) | Place::Client(name) | Place::Upstream(name) => {
                    let machine = self.machine_named(name).map(|m| &self.machines[m as usize]);
                    side.cards.extend(machine.into_iter().flat_map(|machine| machine.cables()));
                }
                Place::Network(name) => side.cards.extend(self.ports_of_network(name)),
            }
        }
        side.machines = side.cards.iter().map(|card| self.wire.machine_of(*card).0).collect();
        side
    }

    /// Whether a partition keeps what a machine puts on the wire from the end of its way. Asked
    /// only while there is one.
    pub(super) fn is_kept_off(&mut self, machine: u32, frame: &Frame) -> bool {
        let Payload::Ip(packet) = &frame.payload else { return false };
        let (src, dst) = (packet.src, packet.dst);
        let routes = matches!(self.machines[machine as usize].role, Role::Router(_));
        // A pod's address is on no card: its packets come from its node.
        let sender = match self.holder(src) {
            _ if self.has_on_a_card(machine, src) => Some(machine),
            None if !routes => Some(machine),
            found => found,
        };
        let (Some(from), Some(to)) = (sender, self.holder(dst)) else { return false };
        self.wire.separates(from, to)
    }

    /// The machine that has an address on one of its cards.
    fn holder(&mut self, address: Ipv4Addr) -> Option<u32> {
        if self.scenario.cluster.pod_network.contains(&address) {
            return None;
        }
        let before = self.holders.get(&address).copied();
        if let Some(machine) = before.filter(|machine| self.has_on_a_card(*machine, address)) {
            return Some(machine);
        }
        let found = (0..self.machines.len() as u32).find(|m| self.has_on_a_card(*m, address))?;
        self.holders.insert(address, found);
        Some(found)
    }

    fn has_on_a_card(&self, machine: u32, address: Ipv4Addr) -> bool {
        let machine = &self.machines[machine as usize];
        machine.ports.iter().any(|(link, _)| machine.kernel.has_address(*link, address))
    }
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Trace};
    use crate::world::testing::{self, pings};

    const MOVE: &str = "kind = \"move\"\nnode = \"w2\"\nnetwork = \"cafe\"\naddress = \"10.9.0.9\"";

    fn cut(from: &str, to: &str) -> String {
        format!(
            "kind = \"partition\"\nat = \"20s\"\nfrom = \"{from}\"\nto = \"{to}\"\nlasts = \"40s\""
        )
    }

    /// Nothing was lost between machines of two networks, once: what was looked at were the ends
    /// of a cable, and each had a router at one of its ends.
    #[test]
    fn machines_of_different_networks_are_cut_off_from_each_other() {
        let first = &format!("{MOVE}\nat = \"10s\"");
        let windows = [(13, 19, true), (21, 59, false), (62, 99, true)];
        pings(&[first, &cut("w1", "w2")], &windows);
        pings(&[first, &cut("lan", "w2")], &windows);
        pings(&[first, &cut("w1", "cafe")], &windows);
        pings(&[first, &cut("lan", "cafe")], &windows);
        pings(&[first, &cut("n1", "w2")], &[(13, 99, true)]);
    }

    #[test]
    fn who_moves_into_a_network_is_cut_off_with_it_and_who_leaves_it_is_so_no_more() {
        let away = &format!("{MOVE}\nat = \"30s\"");
        let windows = [(10, 29, true), (33, 59, false), (62, 99, true)];
        pings(&[&cut("lan", "cafe"), away], &windows);
        let away = &format!("{MOVE}\nat = \"10s\"");
        let back = "kind = \"move\"\nat = \"30s\"\nnode = \"w2\"\nnetwork = \"lan\"\n\
                    address = \"192.168.1.13\"";
        let windows = [(13, 19, true), (21, 29, false), (33, 99, true)];
        pings(&[away, &cut("lan", "cafe"), back], &windows);
        // A machine that is named is cut off wherever it goes.
        pings(&[&cut("w1", "w2"), back], &[(10, 19, true), (21, 59, false), (62, 99, true)]);
    }

    /// Two pings for three minutes, `w` to `cafe`'s client and to `hall`'s, which is behind the
    /// cafe. Which of them arrive between 20 s and 150 s?
    fn arrive(link: &str, from: &str, to: &str) -> [Outcome; 2] {
        let mut text = format!(
            "[[network]]\nname = \"cafe\"\ncidr = \"10.9.0.0/24\"\n\
             [[network]]\nname = \"hall\"\ncidr = \"10.10.0.0/24\"\n\
             [[link]]\nbetween = [\"lan\", \"cafe\"]\n{link}\n\
             [[link]]\nbetween = [\"cafe\", \"hall\"]\n\
             [[node]]\nname = \"w\"\nnetwork = \"lan\"\naddress = \"192.168.1.12\"\n\
             [[fault]]\nname = \"cut\"\nkind = \"partition\"\nat = \"15s\"\nfrom = \"{from}\"\n\
             to = \"{to}\"\nlasts = \"140s\"\n"
        );
        for (place, address) in [("cafe", "10.9.0.5"), ("hall", "10.10.0.5")] {
            text += &format!(
                "[[client]]\nname = \"in-{place}\"\nnetwork = \"{place}\"\naddress = \"{address}\"\n\
                 [[probe]]\nname = \"{place}\"\nkind = \"ping\"\nfrom = {{ node = \"w\" }}\n\
                 to = {{ address = \"{address}\" }}\n\
                 [[expect]]\nname = \"{place}\"\nkind = \"probe\"\nprobe = \"{place}\"\n\
                 from = \"20s\"\nuntil = \"150s\"\n"
            );
        }
        let (report, _) = testing::play(&testing::scenario("", &text), Trace::default());
        assert_eq!(report.failure, None);
        [0, 1].map(|number| report.expectations[number].outcome)
    }

    /// Also when the routers' neighbour entries of each other are old.
    #[test]
    fn what_only_passes_through_a_network_is_not_cut_off_with_it() {
        let (gone, there) = (Outcome::Failed, Outcome::Passed);
        assert_eq!(arrive("", "lan", "cafe"), [gone, there]);
        assert_eq!(arrive("", "lan", "hall"), [there, gone]);
        assert_eq!(arrive("", "n1", "cafe"), [there, there]);
    }

    #[test]
    fn a_nat_on_the_way_hides_nobody() {
        let (gone, there) = (Outcome::Failed, Outcome::Passed);
        for nat in ["nat = \"lan\"", "nat = \"cafe\""] {
            let hidden = nat.contains("cafe");
            assert_eq!(arrive(nat, "w", "in-cafe")[0], gone);
            assert_eq!(arrive(nat, "w", "in-hall"), [if hidden { gone } else { there }, gone]);
        }
    }
}
