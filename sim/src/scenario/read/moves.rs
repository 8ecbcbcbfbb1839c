//! Where a `move` leads: what is certain to be a mistake whatever the seed draws.

use super::super::model::{Address, Fault, FaultKind, Network, Node};
use super::super::tree::{At, Item};
use super::Reader;
use kubesim_actors::objects::Name;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// A fault and its table.
pub type Placed<'a> = (Fault, &'a Item);

/// Where the value of a key of a fault's table is, or the table.
pub fn place(item: &Item, key: &str) -> At {
    item.table().and_then(|table| table.get(key)).map_or(item.at, |item| item.at)
}

/// A move, taken apart.
struct Move<'a> {
    fault: &'a Fault,
    item: &'a Item,
    node: &'a Name,
    network: &'a Name,
    address: Option<Ipv4Addr>,
}

impl<'a> Move<'a> {
    fn of((fault, item): &'a Placed<'_>) -> Option<Move<'a>> {
        let FaultKind::Move { node, network, address, .. } = &fault.kind else { return None };
        Some(Move { fault, item, node, network, address: *address })
    }

    /// After this one and before another, for all that the seed may draw.
    fn may_be_between(&self, first: &Move<'_>, last: &Move<'_>) -> bool {
        self.fault.at.to >= first.fault.at.from && self.fault.at.from <= last.fault.at.to
    }
}

impl Reader<'_> {
    pub fn moves(&self, placed: &[Placed<'_>], nodes: &[Node]) {
        let moves: Vec<Move<'_>> = placed.iter().filter_map(Move::of).collect();
        for step in &moves {
            let lan = self.networks.iter().find(|lan| lan.name == *step.network);
            match (step.address, lan) {
                (Some(address), Some(lan)) => self.move_to(step, address, lan, &moves),
                (None, Some(lan)) if lan.dhcp.is_none() => self.move_without(step, lan, nodes),
                _ => {}
            }
        }
    }

    /// Onto an address that is somebody's. Who moves itself may be elsewhere by then.
    fn move_to(&self, step: &Move<'_>, address: Ipv4Addr, lan: &Network, moves: &[Move<'_>]) {
        let at = place(step.item, "address");
        let node = step.node;
        if let Some(pool) = &lan.dhcp
            && (pool.first..=pool.last).contains(&address)
        {
            let message = format!(
                "`{node}` moves to {address}, which the DHCP server of `{}` gives away",
                lan.name
            );
            let pool = format!("its pool is {} to {}", pool.first, pool.last);
            return self.log.error(at, message, format!("{pool}: take an address outside"));
        }
        let movers: BTreeSet<&Name> = moves.iter().map(|step| step.node).collect();
        let taken = self.taken.borrow();
        if let Some(other) = taken.get(&address).filter(|other| !movers.contains(other)) {
            let message = format!("`{node}` moves to the address {address}, which `{other}` has");
            return self.log.error(at, message, "");
        }
        let stays = |first: &Move<'_>, last: &Move<'_>| {
            let other =
                |step: &&Move<'_>| step.node == first.node && step.fault.name != first.fault.name;
            !moves.iter().filter(other).any(|step| step.may_be_between(first, last))
        };
        let before = moves.iter().take_while(|other| other.fault.name != step.fault.name);
        let clash = before.filter(|other| other.address == Some(address) && other.node != node);
        if let Some(other) =
            clash.into_iter().find(|other| stays(other, step) && stays(step, other))
        {
            let message = format!(
                "`{}` and `{node}` both move to the address {address}, in `{}` and `{}`",
                other.node, other.fault.name, step.fault.name
            );
            self.log.error(at, message, "give them an address each, or let the first leave again");
        }
    }

    /// Without an address, and with nobody who gives one.
    fn move_without(&self, step: &Move<'_>, lan: &Network, nodes: &[Node]) {
        let asks = |node: &&Node| node.name == *step.node && node.address == Address::Dhcp;
        if nodes.iter().any(|node| asks(&node)) {
            let message = format!(
                "`{}` asks DHCP for its address, and `{}` has no DHCP server",
                step.node, lan.name
            );
            let help = "give the move an address, or the network a dhcp table";
            self.log.error(place(step.item, "network"), message, help);
        }
    }
}
