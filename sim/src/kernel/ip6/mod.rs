//! IPv6 of a namespace (RFC 8200; net/ipv6). What it shares with IPv4 in Linux it shares here: the
//! neighbour core (neigh.rs), links and their bridges. What Linux has twice stands here: addresses
//! and how links configure themselves (address.rs, config.rs), routes (route.rs), the way of a
//! packet (forward.rs), ICMP (icmp.rs), neighbour discovery (ndisc.rs), sysctls (sysctl.rs).
//!
//! It is off in a new namespace, as with `ipv6.disable_ipv6=1`, until
//! `net.ipv6.conf.all.disable_ipv6` is written, and costs nothing so long. Not modelled: duplicate
//! address detection, router advertisements and solicitations, redirects, reports of group
//! membership (MLD), fragments and other extension headers, that a machine hears what it sends to
//! its own groups (`IPV6_MULTICAST_LOOP`), and TCP sockets: a segment for this machine meets none.

mod address;
mod config;
mod dump;
mod filter;
mod forward;
mod icmp;
mod ndisc;
mod route;
mod scope;
mod sysctl;
mod udp;

use super::family::V6;
use super::neigh::Neighbours;
use super::{Errno, Namespace};
use ipnet::Ipv6Net;

pub use self::route::{Placing, Route6};
pub(super) use self::sysctl::Key6;

/// IPv6 is off on the interface that is meant.
const EACCES: Errno = Errno::Other(13);

/// `net.ipv6.conf.<x>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    pub forwarding: bool,
    pub disabled: bool,
}

impl Conf {
    const OFF: Conf = Conf { forwarding: false, disabled: true };
}

/// What IPv6 knows of a link (`struct inet6_dev`).
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub index: u32,
    pub conf: Conf,
    /// It has configured itself since it went up (`IF_READY`).
    ready: bool,
    /// In the order in which they are asked for a source.
    pub addresses: Vec<Ipv6Net>,
}

#[derive(Clone, Debug)]
pub(super) struct Ip6 {
    pub all: Conf,
    pub default: Conf,
    /// One a link, by index.
    pub interfaces: Vec<Interface>,
    pub fib: route::Fib6,
    pub neighbours: Neighbours<V6>,
    /// `net.ipv6.icmp.ratelimit` is 0; else it is its default of a second.
    pub icmp_unlimited: bool,
    limiter: icmp::Limiter6,
}

impl Ip6 {
    fn new(links: impl Iterator<Item = u32>) -> Ip6 {
        let mut ip6 = Ip6 {
            all: Conf::OFF,
            default: Conf::OFF,
            interfaces: Vec::new(),
            fib: route::Fib6::default(),
            neighbours: Neighbours::default(),
            icmp_unlimited: false,
            limiter: icmp::Limiter6::default(),
        };
        links.for_each(|index| ip6.add_interface(index));
        ip6
    }

    pub fn interface(&self, index: u32) -> Option<&Interface> {
        let at = self.interfaces.binary_search_by_key(&index, |i| i.index).ok()?;
        Some(&self.interfaces[at])
    }
    fn interface_mut(&mut self, index: u32) -> Option<&mut Interface> {
        let at = self.interfaces.binary_search_by_key(&index, |i| i.index).ok()?;
        Some(&mut self.interfaces[at])
    }
}

impl Namespace {
    /// IPv6 of this namespace, made where it never was on.
    fn ip6_mut(&mut self) -> &mut Ip6 {
        let links = &self.links;
        self.ip6.get_or_insert_with(|| Box::new(Ip6::new(links.iter().map(|link| link.index))))
    }
}
