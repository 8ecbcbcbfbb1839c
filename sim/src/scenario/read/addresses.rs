//! Who has which address: two machines with one, and a pool that gives away what somebody has, are
//! told at the one that is named last.

use super::super::fields::Fields;
use super::super::model::{Fault, FaultKind, Network};
use super::super::tree::{At, Item};
use super::Reader;
use super::network::nth;
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl Reader<'_> {
    /// The routers' addresses are taken from the start.
    pub fn take_gateways(&self, networks: &[Network]) {
        let routers =
            networks.iter().map(|n| (n.gateway, Name::from(format!("{}'s router", n.name))));
        self.taken.borrow_mut().extend(routers);
    }

    /// A machine's own address; false, and a complaint, when it cannot have it.
    pub fn take(&self, at: At, network: &Network, address: Ipv4Addr, name: &Name) -> bool {
        if let Some(pool) = &network.dhcp
            && (pool.first..=pool.last).contains(&address)
        {
            let (lan, first, last) = (&network.name, pool.first, pool.last);
            let message = format!(
                "`{name}` has the address {address}, which the DHCP server of `{lan}` gives away \
                 ({first} to {last})"
            );
            self.log.error(at, message, "take an address outside the pool, or a smaller pool");
            return false;
        }
        if let Some(other) = self.taken.borrow_mut().insert(address, name.clone()) {
            let message = format!("`{name}` and `{other}` both have the address {address}");
            self.log.error(at, message, "");
            return false;
        }
        true
    }

    /// A `move` to an address that a machine of the network has. One that moves itself may be
    /// elsewhere by then.
    pub fn moves(&self, items: &[Item], faults: &[Fault]) {
        let movers: BTreeSet<&Name> = faults
            .iter()
            .filter_map(|fault| match &fault.kind {
                FaultKind::Move { node, .. } => Some(node),
                _ => None,
            })
            .collect();
        for fault in faults {
            let FaultKind::Move { node, address: Some(address), .. } = &fault.kind else {
                continue;
            };
            let taken = self.taken.borrow();
            let Some(other) = taken.get(address).filter(|other| !movers.contains(other)) else {
                continue;
            };
            let named = |item: &&Item| {
                let text = |key| item.table().and_then(|t| t.get(key)).and_then(Item::text);
                text("node") == Some(node) && text("address") == Some(&address.to_string())
            };
            let item = items.iter().find(named).and_then(Item::table);
            let at = item.and_then(|table| table.get("address")).map(|item| item.at);
            let message = format!("`{node}` moves to the address {address}, which `{other}` has");
            self.log.error(at.unwrap_or_default(), message, "");
        }
    }

    /// A range that has room for what is in it by itself: `what` needs two addresses at least.
    pub fn roomy(&self, f: Fields<'_>, key: &str, cidr: Ipv4Net, what: &str) -> bool {
        let roomy = cidr.prefix_len() <= 30;
        if !roomy {
            let message = format!("the network {cidr} has no room for {what}");
            f.error(key, message, "the smallest that has is a /30");
        }
        roomy
    }

    /// Where the cluster DNS answers: in the service network, and not where the API server does
    /// (the `kubernetes` Service has the first address).
    pub fn dns_address(&self, f: Fields<'_>, services: Ipv4Net) -> Ipv4Addr {
        let default = nth(services, 10);
        let wrong = |key: &str, message: String| {
            let (first, last) =
                (nth(services, 2), nth(services, 1 << (32 - services.prefix_len())));
            let last = Ipv4Addr::from(u32::from(last).wrapping_sub(2));
            f.error(key, message, format!("`dns-address` may be {first} to {last}"));
        };
        let Some(address) = f.address("dns-address") else {
            let fits = services.contains(&default) && default != services.broadcast();
            if !fits && f.bool("dns", true) {
                let message =
                    format!("the service network {services} has no tenth address, {default}");
                wrong("service-network", format!("{message}, for the cluster DNS"));
            }
            return default;
        };
        if !services.contains(&address)
            || [services.network(), services.broadcast()].contains(&address)
        {
            let message = format!("{address} is no address of the service network {services}");
            wrong("dns-address", message);
        } else if address == nth(services, 1) {
            let message =
                format!("the cluster DNS and the Service `kubernetes` both have {address}");
            wrong("dns-address", message);
        }
        address
    }
}
