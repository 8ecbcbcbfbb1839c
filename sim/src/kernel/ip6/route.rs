//! The forwarding table of IPv6 (net/ipv6/ip6_fib.c, route.c): the local table and, after it, the
//! main one. There are no scopes as in IPv4; a metric of 0 that is asked for is 1024, and routes
//! that differ in it stand beside each other. Not modelled: several next hops of one route, routes
//! by source, expiry, redirects, and probes of routers that may be dead (rt6_probe).

use super::scope::{host_bits, is_of_one_link, network};
use super::{EACCES, Errno, Ip6};
use crate::kernel::link::Links;
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::neigh::NeighbourState;
use ipnet::Ipv6Net;
use kubesim_actors::ports::network::{IfName, Proto};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::net::Ipv6Addr;

/// `IP6_RT_PRIO_USER` and `IP6_RT_PRIO_ADDRCONF`.
const METRIC: u32 = 1024;
pub(super) const KERNEL_METRIC: u32 = 256;

/// A route as `ip -6 route` wants it and shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route6 {
    /// Bits behind the prefix are overlooked.
    pub to: Ipv6Net,
    pub via: Option<Ipv6Addr>,
    pub dev: IfName,
    /// The gateway is taken to be on the link.
    pub onlink: bool,
    /// 0: 1024 to a route that is added, any to one that is deleted.
    pub metric: u32,
}

/// How a route is put beside those to its destination with its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placing {
    /// `ip route add`: there may be none (`NLM_F_EXCL`).
    Alone,
    /// `ip route append`: behind them, unless one has its next hop. Of several with gateways Linux
    /// makes one route with as many next hops; here the first is taken.
    Behind,
    /// `ip route replace`: instead of one (`NLM_F_REPLACE`).
    Instead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Kind6 {
    Unicast,
    Local,
    /// Delivered here as well, but nobody speaks in its name.
    Anycast,
    Multicast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Entry6 {
    pub to: Ipv6Addr,
    pub plen: u8,
    pub kind: Kind6,
    pub proto: Proto,
    pub onlink: bool,
    pub metric: u32,
    pub via: Option<Ipv6Addr>,
    pub dev: u32,
}

impl Entry6 {
    /// Of an address of the kernel's own (addrconf_f6i_alloc).
    pub fn own(kind: Kind6, to: Ipv6Addr, dev: u32) -> Entry6 {
        let (proto, via) = (Proto::KERNEL, None);
        Entry6 { to, plen: 128, kind, proto, onlink: false, metric: 0, via, dev }
    }
    /// To a subnet of a link (addrconf_prefix_route, addrconf_add_mroute).
    pub fn connected(kind: Kind6, to: Ipv6Addr, plen: u8, dev: u32) -> Entry6 {
        let metric = KERNEL_METRIC;
        Entry6 { to: network(to, plen), plen, metric, ..Entry6::own(kind, to, dev) }
    }

    /// Where it stands: in the order of a walk through the tree of prefixes, in which a node comes
    /// after what is below it (fib6_walk_continue).
    fn place(&self) -> Place {
        place(self.to, self.plen)
    }
}

type Place = (u128, Reverse<u8>);

fn place(to: Ipv6Addr, plen: u8) -> Place {
    (to.to_bits() | host_bits(plen), Reverse(plen))
}

/// Routes by prefix, then metric, then age.
#[derive(Clone, Debug, Default)]
pub(in crate::kernel) struct Table6 {
    entries: Vec<Entry6>,
    /// The lengths of prefixes that there are, ascending.
    lengths: Vec<u8>,
}

impl Table6 {
    pub fn entries(&self) -> &[Entry6] {
        &self.entries
    }

    /// The routes to exactly this network (a `fib6_node`).
    fn exact(&self, to: Ipv6Addr, plen: u8) -> &[Entry6] {
        let wanted = place(network(to, plen), plen);
        let from = self.entries.partition_point(|entry| entry.place() < wanted);
        let same = self.entries[from..].iter().take_while(|entry| entry.place() == wanted).count();
        &self.entries[from..from + same]
    }

    /// Behind those of the same metric, as the kernel itself adds: `EEXIST` if there is one with
    /// the same next hop (fib6_add_rt2node, rt6_duplicate_nexthop).
    pub fn append(&mut self, entry: Entry6) -> Result<(), Errno> {
        let next_hop = |e: &Entry6| (e.metric, e.dev, e.via);
        if self.exact(entry.to, entry.plen).iter().any(|e| next_hop(e) == next_hop(&entry)) {
            return Err(Errno::Eexist);
        }
        let key = |e: &Entry6| (e.place(), e.metric);
        let at = self.entries.partition_point(|other| key(other) <= key(&entry));
        self.entries.insert(at, entry);
        if let Err(at) = self.lengths.binary_search(&entry.plen) {
            self.lengths.insert(at, entry.plen);
        }
        Ok(())
    }

    /// In the place of the first of the same metric that has a gateway if this one has, and else
    /// has none; if there is no such, of the first (fib6_add_rt2node with `NLM_F_REPLACE`).
    fn replace(&mut self, entry: Entry6) -> Result<(), Errno> {
        let key = |e: &Entry6| (e.place(), e.metric);
        let wanted = key(&entry);
        let from = self.entries.partition_point(|other| key(other) < wanted);
        let count = self.entries[from..].iter().take_while(|other| key(other) == wanted).count();
        let same = &self.entries[from..from + count];
        let like = same.iter().position(|other| other.via.is_some() == entry.via.is_some());
        match like.or((count > 0).then_some(0)) {
            Some(at) => {
                self.entries[from + at] = entry;
                Ok(())
            }
            None => self.append(entry),
        }
    }

    pub fn retain(&mut self, keep: impl FnMut(&Entry6) -> bool) {
        self.entries.retain(keep);
        let Table6 { entries, lengths } = self;
        lengths.retain(|plen| entries.iter().any(|entry| entry.plen == *plen));
    }

    /// Removes the first route to a network that is meant.
    pub fn remove_first(
        &mut self,
        to: Ipv6Addr,
        plen: u8,
        is_meant: impl Fn(&Entry6) -> bool,
    ) -> Result<(), Errno> {
        let found = self.exact(to, plen).iter().find(|entry| is_meant(entry)).copied();
        let gone = found.ok_or(Errno::Esrch)?;
        let mut first = true;
        self.retain(|entry| *entry != gone || !std::mem::take(&mut first));
        Ok(())
    }

    /// The longest prefix that has a usable route (fib6_table_lookup).
    fn lookup(&self, dst: Ipv6Addr, want: &Want6<'_>) -> Option<&Entry6> {
        let nodes = self.lengths.iter().rev().map(|plen| self.exact(dst, *plen));
        nodes.filter(|node| !node.is_empty()).find_map(|node| want.select(node))
    }
}

/// Restricts a look-up.
pub(super) struct Want6<'a> {
    /// The link that packets are to leave by, or came in by.
    pub dev: Option<u32>,
    /// No other link will do (`RT6_LOOKUP_F_IFACE`).
    pub strict: bool,
    /// Whether a gateway is known to be dead; such routes are left out
    /// (`RT6_LOOKUP_F_REACHABLE`).
    pub dead: &'a dyn Fn(u32, Ipv6Addr) -> bool,
}

impl Want6<'_> {
    /// One of the routes to a network (find_rr_leaf): of those of the lowest metric that has any,
    /// the first by the link that is wanted; else the first. Behind them the metric says nothing.
    fn select<'t>(&self, node: &'t [Entry6]) -> Option<&'t Entry6> {
        let lowest = node.partition_point(|entry| entry.metric == node[0].metric);
        [&node[..lowest], &node[lowest..]].into_iter().find_map(|group| {
            let usable = || group.iter().filter(|entry| self.admits(entry));
            usable().find(|entry| self.prefers(entry)).or_else(|| usable().next())
        })
    }

    fn prefers(&self, entry: &Entry6) -> bool {
        mutated(Mutant::AnyLinkOfMetric) || self.dev.is_none_or(|dev| dev == entry.dev)
    }

    /// `rt6_score_route` is not a failure.
    fn admits(&self, entry: &Entry6) -> bool {
        let by_link = !self.strict || self.dev.is_none_or(|dev| dev == entry.dev);
        by_link && !entry.via.is_some_and(|via| (self.dead)(entry.dev, via))
    }
}

/// What a look-up finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Hop6 {
    pub kind: Kind6,
    pub dev: u32,
    pub via: Option<Ipv6Addr>,
    /// The first address of the network, where that is on the link and not of two only.
    first: Option<Ipv6Addr>,
}

impl Hop6 {
    fn of(entry: &Entry6) -> Hop6 {
        let Entry6 { to, plen, kind, dev, via, .. } = *entry;
        Hop6 { kind, dev, via, first: (plen < 127 && via.is_none()).then_some(to) }
    }
    /// Several may have the destination, be they known here or not (ipv6_anycast_destination; RFC
    /// 4291, section 2.6.1).
    pub fn is_anycast(&self, dst: Ipv6Addr) -> bool {
        self.kind == Kind6::Anycast || self.first == Some(dst)
    }
    /// It is for this machine (`RTF_LOCAL | RTF_ANYCAST`).
    pub fn is_here(&self) -> bool {
        matches!(self.kind, Kind6::Local | Kind6::Anycast)
    }
}

#[derive(Clone, Debug, Default)]
pub(in crate::kernel) struct Fib6 {
    pub local: Table6,
    pub main: Table6,
}

impl Fib6 {
    /// First the local table, then the main one; in each a dead gateway is better than none
    /// (fib6_rule_lookup without rules, fib6_table_lookup).
    fn lookup(&self, dst: Ipv6Addr, want: &Want6<'_>) -> Option<Hop6> {
        let alive = Want6 { dead: &|_, _| false, ..*want };
        let found = [&self.local, &self.main]
            .into_iter()
            .find_map(|table| table.lookup(dst, want).or_else(|| table.lookup(dst, &alive)));
        found.map(Hop6::of)
    }

    /// Every route by a link goes with it (rt6_sync_down_dev).
    pub fn flush_device(&mut self, dev: u32) {
        self.local.retain(|entry| entry.dev != dev);
        self.main.retain(|entry| entry.dev != dev);
    }
}

impl Ip6 {
    /// The route to an address (ip6_pol_route): by `dev` where that matters, and `strict`ly.
    /// Hosts, but not routers, leave out gateways that did not answer.
    pub(super) fn route(&self, dst: Ipv6Addr, dev: Option<u32>, strict: bool) -> Option<Hop6> {
        let dead = |dev, via| {
            let known = self.neighbours.get(dev, via);
            !self.all.forwarding && known.is_some_and(|n| n.state == NeighbourState::Failed)
        };
        let strict = strict || is_of_one_link(dst);
        self.fib.lookup(dst, &Want6 { dev, strict, dead: &dead })
    }

    /// `ip -6 route add` and its kin (ip6_route_info_create, fib6_nh_init).
    pub(super) fn add_route(
        &mut self,
        route: &Route6,
        proto: Proto,
        placing: Placing,
        links: &Links,
    ) -> Result<(), Errno> {
        let link = links.named(&route.dev).ok_or(Errno::Enodev)?;
        let interface = self.interface(link.index).ok_or(Errno::Enodev)?;
        if route.onlink && !link.up {
            return Err(Errno::Enetdown);
        }
        if let Some(via) = route.via {
            self.check_gateway(via, link.index, route.onlink)?;
        }
        if interface.conf.disabled {
            return Err(EACCES);
        }
        if !link.up {
            return Err(Errno::Enetdown);
        }
        let (to, plen) = (network(route.to.addr(), route.to.prefix_len()), route.to.prefix_len());
        let metric = if route.metric == 0 { METRIC } else { route.metric };
        let (onlink, via, dev) = (route.onlink, route.via, link.index);
        let kind = Kind6::Unicast;
        let entry = Entry6 { to, plen, kind, proto, onlink, metric, via, dev };
        let table = &mut self.fib.main;
        let taken = || table.exact(to, plen).iter().any(|entry| entry.metric == metric);
        match placing {
            Placing::Alone if taken() => Err(Errno::Eexist),
            Placing::Alone | Placing::Behind => table.append(entry),
            Placing::Instead => table.replace(entry),
        }
    }

    /// `ip6_validate_gw`: no address of one's own; of the link, or reached by it without another
    /// gateway. A default route says nothing against an on-link one.
    fn check_gateway(&self, via: Ipv6Addr, dev: u32, onlink: bool) -> Result<(), Errno> {
        let own = |interface: &&super::Interface| interface.has(via);
        let near = via.is_unicast_link_local();
        let mut here = self.interfaces.iter().filter(|i| !near || i.index == dev);
        if here.any(|interface| own(&interface)) || via.is_unspecified() || via.is_multicast() {
            return Err(Errno::Einval);
        }
        if near {
            return Ok(());
        }
        let main = &self.fib.main;
        let want = Want6 { dev: Some(dev), strict: !onlink, dead: &|_, _| false };
        if onlink {
            let found = main.lookup(via, &want).filter(|entry| !entry.to.is_unspecified());
            let other = found.is_some_and(|entry| entry.dev != dev);
            return if other { Err(Errno::Einval) } else { Ok(()) };
        }
        let direct = |entry: Option<&Entry6>| entry.is_some_and(|entry| entry.via.is_none());
        let reached = direct(main.lookup(via, &want))
            || direct(self.fib.local.lookup(via, &want).or_else(|| main.lookup(via, &want)));
        if reached { Ok(()) } else { Err(Errno::Ehostunreach) }
    }

    /// `ip -6 route del` (ip6_route_del): the first that has what is said; `ESRCH`.
    pub(super) fn del_route(
        &mut self,
        route: &Route6,
        proto: Proto,
        links: &Links,
    ) -> Result<(), Errno> {
        let dev = links.named(&route.dev).ok_or(Errno::Enodev)?.index;
        self.fib.main.remove_first(route.to.addr(), route.to.prefix_len(), |entry| {
            [0, entry.metric].contains(&route.metric)
                && entry.proto == proto
                && entry.dev == dev
                && (route.via.is_none() || entry.via == route.via)
        })
    }
}
