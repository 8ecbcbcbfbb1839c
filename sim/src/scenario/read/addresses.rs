//! Who has which address: two machines with one, and a pool that gives away what somebody has, are
//! told at the one that is named last.

use super::super::fields::Fields;
use super::super::model::Network;
use super::super::tree::At;
use super::Reader;
use super::network::{nth, overlap};
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use std::net::Ipv4Addr;

/// Ranges that are no machine's, pod's or Service's (RFC 6890, 2.2.2; RFC 5771): Linux takes what
/// is from them for martians (net/ipv4/route.c: ip_route_input_slow).
const RESERVED: [(&str, &str); 3] = [
    ("0.0.0.0/8", "which means \"this network\""),
    ("127.0.0.0/8", "the loopback's"),
    ("224.0.0.0/4", "which is multicast"),
];
/// It is of one link (RFC 3927, 2.6.2): no router forwards it.
const LINK_LOCAL: (&str, &str) = ("169.254.0.0/16", "link-local, which nobody forwards");

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

    /// A range that has room for what is in it by itself: `what` needs two addresses at least.
    pub fn roomy(&self, f: Fields<'_>, key: &str, cidr: Ipv4Net, what: &str) -> bool {
        let roomy = cidr.prefix_len() <= 30;
        if !roomy {
            let message = format!("the network {cidr} has no room for {what}");
            f.error(key, message, "the smallest that has is a /30");
        }
        roomy
    }

    /// A range that addresses can be in; `routed` ones are reached over routers.
    pub fn usable(&self, f: Fields<'_>, key: &str, cidr: Ipv4Net, routed: bool) {
        let link_local = routed.then_some(LINK_LOCAL);
        let clash = RESERVED
            .into_iter()
            .chain(link_local)
            .find(|(range, _)| range.parse().is_ok_and(|range: Ipv4Net| overlap(range, cidr)));
        if let Some((range, why)) = clash {
            let message = format!("the network {cidr} has addresses of {range}, {why}");
            f.error(key, message, "take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
        }
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
