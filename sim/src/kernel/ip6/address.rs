//! Addresses of links: where they stand, and which of them a packet is sent from (net/ipv6/
//! addrconf.c). Duplicates are not looked for: it is as with `accept_dad` 0, and so no address is
//! ever tentative. Lifetimes, temporary addresses and router advertisements are not modelled.

use super::scope::{
    LINK_LOCAL, common_prefix, is_orchid, label, network, prefix_equal, scope, solicited_node,
};
use super::{Interface, Ip6};
use crate::kernel::Mac;
use ipnet::Ipv6Net;
use std::net::Ipv6Addr;

/// Groups that every interface listens to: all nodes, of this interface and of its link.
const ALL_NODES: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)];
/// And every router: those of interface, link and site (dev_forward_change).
const ALL_ROUTERS: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2),
];

/// The address that a link gives itself (addrconf_ifid_eui48; RFC 4291, appendix A).
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(id)))
}

impl Interface {
    /// The newest of those of a scope comes first, and far before near (ipv6_link_dev_addr).
    pub(super) fn insert(&mut self, net: Ipv6Net) {
        let own = scope(net.addr());
        let at = self.addresses.iter().position(|there| own >= scope(there.addr()));
        self.addresses.insert(at.unwrap_or(self.addresses.len()), net);
    }

    pub(super) fn has(&self, ip: Ipv6Addr) -> bool {
        self.addresses.iter().any(|net| net.addr() == ip)
    }

    /// Routers' addresses of the subnets (RFC 4291, section 2.6.1), which a link has that may
    /// forward (addrconf_join_anycast): each once.
    pub(super) fn anycast(&self) -> impl Iterator<Item = Ipv6Addr> {
        let all = self.addresses.iter().enumerate().filter_map(|(at, net)| {
            let prefix = subnet_router(net)?;
            let earlier = self.addresses[..at].iter().any(|net| subnet_router(net) == Some(prefix));
            (!earlier).then_some(prefix)
        });
        all.filter(|_| self.conf.forwarding)
    }

    /// Whether it is a member of a group (ipv6_chk_mcast_addr).
    pub(super) fn listens_to(&self, group: Ipv6Addr) -> bool {
        let solicited = |ip| solicited_node(ip) == group;
        ALL_NODES.contains(&group)
            || (self.conf.forwarding && ALL_ROUTERS.contains(&group))
            || self.addresses.iter().any(|net| solicited(net.addr()))
            || self.anycast().any(solicited)
    }

    /// `ipv6_get_lladdr`
    pub(super) fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().map(Ipv6Net::addr).find(Ipv6Addr::is_unicast_link_local)
    }
}

/// `addrconf_join_anycast`: none of a link between two (RFC 6164), nor of everything.
pub(super) fn subnet_router(net: &Ipv6Net) -> Option<Ipv6Addr> {
    let prefix = network(net.addr(), net.prefix_len());
    (net.prefix_len() != 127 && !prefix.is_unspecified()).then_some(prefix)
}

/// How good an address is to send from: the rules of RFC 6724, section 5, in their order
/// (ipv6_get_saddr_eval). Those about deprecated, home and temporary addresses decide nothing
/// here.
type Score = (bool, i32, bool, bool, bool, u8);

fn score(net: &Ipv6Net, index: u32, dst: Ipv6Addr, dev: Option<u32>) -> Score {
    let ip = net.addr();
    let (own, wanted) = (i32::from(scope(ip)), i32::from(scope(dst)));
    // Rule 2: the nearest of those that reach so far; else the farthest.
    let reach = if own >= wanted { -own } else { own - 128 };
    let prefix = common_prefix(ip, dst).min(net.prefix_len());
    (
        ip == dst,
        reach,
        dev.is_none_or(|dev| dev == index),
        label(ip) == label(dst),
        is_orchid(ip) == is_orchid(dst),
        prefix,
    )
}

impl Ip6 {
    /// The address to send from by `dev` towards `dst` (ipv6_dev_get_saddr): of any interface,
    /// but to what is of one link only of that link. Of equals the first.
    pub(super) fn source(&self, dst: Ipv6Addr, dev: Option<u32>) -> Option<Ipv6Addr> {
        let only = dst.is_multicast() || scope(dst) <= LINK_LOCAL;
        let candidates = self
            .interfaces
            .iter()
            .filter(|interface| !only || dev.is_none_or(|dev| dev == interface.index))
            .flat_map(|interface| interface.addresses.iter().map(|net| (interface.index, net)));
        let mut best: Option<(Score, Ipv6Addr)> = None;
        for (index, net) in candidates {
            let score = score(net, index, dst, dev);
            if best.is_none_or(|(other, _)| score > other) {
                best = Some((score, net.addr()));
            }
        }
        best.map(|(_, ip)| ip)
    }

    /// Whether an address is one of the namespace's, as seen by an interface (ipv6_chk_addr): one
    /// of a link only there.
    pub(super) fn is_own(&self, ip: Ipv6Addr, dev: u32) -> bool {
        let near = scope(ip) == LINK_LOCAL;
        let here = |interface: &&Interface| !near || interface.index == dev;
        self.interfaces.iter().filter(here).any(|interface| interface.has(ip))
    }

    /// `ipv6_chk_acast_addr_src`
    pub(super) fn is_own_anycast(&self, ip: Ipv6Addr, dev: u32) -> bool {
        let near = ip.is_unicast_link_local();
        let here = |interface: &&Interface| !near || interface.index == dev;
        let mut all = self.interfaces.iter().filter(here).flat_map(Interface::anycast);
        all.any(|own| own == ip)
    }
}

/// Whether two addresses share their subnet and its length.
pub(super) fn same_subnet(a: &Ipv6Net, b: &Ipv6Net) -> bool {
    a.prefix_len() == b.prefix_len() && prefix_equal(a.addr(), b.addr(), a.prefix_len())
}
