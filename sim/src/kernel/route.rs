//! The forwarding table (net/ipv4/fib_trie.c, fib_semantics.c, fib_frontend.c): the local table
//! and, after it, the main one. The main one is a small sorted table of this machine's own routes
//! beside a block that thousands of machines share (shared_routes.rs).

use super::link::Links;
use super::mutants::{Mutant, mutated};
use super::shared_routes::Installed;
use super::{Errno, Kernel, Namespace, NsId, Output};
use kubesim_actors::ports::network::{Proto, Route};
use kubesim_actors::ports::rules::AddrType;
use kubesim_runtime::Time;
use std::cell::Cell;
use std::net::Ipv4Addr;

/// How far away a destination is (`rt_scope_t`), from far to near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Universe,
    Link,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unicast,
    Local,
    Broadcast,
}

/// A route in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub to: u32,
    pub plen: u8,
    pub kind: Kind,
    pub scope: Scope,
    pub proto: Proto,
    pub onlink: bool,
    pub metric: u32,
    pub via: Option<Ipv4Addr>,
    pub dev: u32,
    pub prefsrc: Option<Ipv4Addr>,
    /// The gateway was one's own address, so that packets go to their destination itself: only a
    /// gateway of link scope is one (rt_set_nexthop, net/ipv4/route.c).
    pub own_gateway: bool,
}

/// What a look-up finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub kind: Kind,
    pub dev: u32,
    pub via: Option<Ipv4Addr>,
    pub prefsrc: Option<Ipv4Addr>,
    /// What a source is chosen for, unless the route prefers one: the gateway that was asked for.
    pub toward: Option<Ipv4Addr>,
}

/// Restricts a look-up: to one output link, and to routes at least so near.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub dev: Option<u32>,
    pub scope: Scope,
}

impl Want {
    pub const ANY: Want = Want { dev: None, scope: Scope::Universe };

    pub fn admits(&self, dev: u32, scope: Scope) -> bool {
        self.dev.is_none_or(|wanted| wanted == dev) && scope >= self.scope
    }
}

pub(super) fn mask(plen: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(plen)).unwrap_or(0)
}

impl Entry {
    fn key(&self) -> (u32, u8, u32) {
        (self.to, self.plen, self.metric)
    }
    fn hop(&self) -> Hop {
        let via = self.via.filter(|_| !self.own_gateway);
        let (kind, dev, prefsrc) = (self.kind, self.dev, self.prefsrc);
        Hop { kind, dev, via, prefsrc, toward: self.via }
    }
}

fn place(to: u32, plen: u8) -> u64 {
    u64::from(to) << 8 | u64::from(plen)
}

/// Routes sorted by destination, prefix length and metric; of equals the first added wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Destination and prefix length of each entry: what a search touches.
    pub(super) keys: Vec<u64>,
    pub(super) entries: Vec<Entry>,
    /// Bit n: there is (or was) a route with prefix length n.
    lengths: u64,
}

impl Table {
    fn insert(&mut self, entry: Entry) {
        let at = self.entries.partition_point(|other| other.key() <= entry.key());
        self.keys.insert(at, place(entry.to, entry.plen));
        self.entries.insert(at, entry);
        self.lengths |= 1 << entry.plen;
    }

    fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(keep);
        self.keys.clear();
        self.keys.extend(self.entries.iter().map(|entry| place(entry.to, entry.plen)));
        self.lengths = self.entries.iter().fold(0, |bits, entry| bits | 1 << entry.plen);
        before - self.entries.len()
    }

    /// The routes to exactly this network, by metric.
    fn exact(&self, to: u32, plen: u8) -> impl Iterator<Item = &Entry> {
        let wanted = place(to, plen);
        let from = self.keys.partition_point(|key| *key < wanted);
        let same = self.keys[from..].iter().take_while(|key| **key == wanted).count();
        self.entries[from..from + same].iter()
    }

    fn find(&self, dst: u32, plen: u8, want: Want) -> Option<&Entry> {
        self.exact(dst & mask(plen), plen).find(|entry| want.admits(entry.dev, entry.scope))
    }
}

const MEMOS: usize = 4;

/// What an unrestricted look-up found, as of a generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memo {
    dst: Ipv4Addr,
    generation: Option<u32>,
    hop: Option<Hop>,
}

impl Default for Memo {
    fn default() -> Self {
        Memo { dst: Ipv4Addr::UNSPECIFIED, generation: None, hop: None }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Fib {
    pub(super) local: Table,
    pub(super) main: Table,
    block: Option<Box<Installed>>,
    /// The last answers: a flow asks for its two addresses many times a packet.
    pub(super) memo: [Cell<Memo>; MEMOS],
    /// Moves with every change, so that others may cache what they computed from this.
    pub(super) generation: u32,
}

impl Fib {
    pub fn touch(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn lookup(&self, dst: Ipv4Addr, want: Want) -> Option<Hop> {
        self.lookup_local(dst, want).or_else(|| self.lookup_main(dst, want))
    }

    /// The route to an address, by whatever link and scope.
    pub fn route(&self, dst: Ipv4Addr) -> Option<Hop> {
        let slot = &self.memo[(dst.to_bits().wrapping_mul(0x9e37_79b9) >> 30) as usize % MEMOS];
        let memo = slot.get();
        if memo.dst == dst && memo.generation == Some(self.generation) {
            return memo.hop;
        }
        let hop = self.lookup(dst, Want::ANY);
        slot.set(Memo { dst, generation: Some(self.generation), hop });
        hop
    }

    fn lookup_local(&self, dst: Ipv4Addr, want: Want) -> Option<Hop> {
        let mut lengths = self.local.lengths;
        while lengths != 0 {
            let plen = (63 - lengths.leading_zeros()) as u8;
            lengths &= !(1 << plen);
            if let Some(entry) = self.local.find(u32::from(dst), plen, want) {
                return Some(entry.hop());
            }
        }
        None
    }

    /// Longest prefix, then lowest metric.
    fn lookup_main(&self, dst: Ipv4Addr, want: Want) -> Option<Hop> {
        let dst = u32::from(dst);
        let shared = self.block.as_deref();
        let mut lengths = self.main.lengths | shared.map_or(0, Installed::lengths);
        while lengths != 0 {
            let plen = (63 - lengths.leading_zeros()) as u8;
            lengths &= !(1 << plen);
            let own = self.main.find(dst, plen, want);
            let shared = shared.and_then(|block| block.find(dst & mask(plen), plen, want));
            match (own, shared) {
                (Some(own), Some((metric, hop))) => {
                    return Some(if own.metric <= metric { own.hop() } else { hop });
                }
                (Some(own), None) => return Some(own.hop()),
                (None, Some((_, hop))) => return Some(hop),
                (None, None) => {}
            }
        }
        None
    }

    pub fn is_local(&self, ip: Ipv4Addr) -> bool {
        // Only the local table has routes of this kind, and it is asked first.
        self.route(ip).is_some_and(|hop| hop.kind == Kind::Local)
    }

    /// As [`Fib::is_local`], of an address that will not be asked for again.
    pub fn is_local_once(&self, ip: Ipv4Addr) -> bool {
        self.lookup_local(ip, Want::ANY).is_some_and(|hop| hop.kind == Kind::Local)
    }

    /// `inet_addr_type`.
    pub fn addr_type(&self, ip: Ipv4Addr) -> AddrType {
        if ip.is_broadcast() || ip.is_unspecified() {
            return AddrType::Broadcast;
        }
        if ip.is_multicast() {
            return AddrType::Multicast;
        }
        match self.route(ip).map(|hop| hop.kind) {
            Some(Kind::Local) => AddrType::Local,
            Some(Kind::Broadcast) => AddrType::Broadcast,
            _ => AddrType::Unicast,
        }
    }

    /// Makes the local entries of a link be exactly these. What was there keeps its place: of two
    /// links' equal entries the older is found (NLM_F_APPEND in fib_magic).
    pub fn set_local_of(&mut self, dev: u32, wanted: &[Entry]) {
        self.local.retain(|entry| entry.dev != dev || wanted.contains(entry));
        for entry in wanted {
            if !self.local.exact(entry.to, entry.plen).any(|there| there == entry) {
                self.local.insert(*entry);
            }
        }
        self.touch();
    }

    /// Connected routes of one subnet by several links stand beside each other
    /// (NLM_F_APPEND in fib_magic).
    pub fn add_connected(&mut self, entry: Entry) {
        let is_there = |e: &Entry| e.dev == entry.dev && e.proto == Proto::KERNEL;
        if !self.main.exact(entry.to, entry.plen).any(is_there) {
            self.main.insert(entry);
            self.touch();
        }
    }
    pub fn remove_connected(&mut self, dev: u32, net: ipnet::Ipv4Net) {
        let (to, plen) = (u32::from(net.network()), net.prefix_len());
        let proto = Proto::KERNEL;
        self.main.retain(|e| (e.dev, e.proto, e.to, e.plen) != (dev, proto, to, plen));
        self.touch();
    }

    /// Every route by this link goes (fib_sync_down_dev, fib_flush).
    pub fn flush_device(&mut self, dev: u32) {
        self.main.retain(|entry| entry.dev != dev);
        if self.block.as_mut().is_some_and(|block| block.flush_device(dev)) {
            self.block = None;
        }
        self.touch();
    }

    /// Every route that prefers this source goes (fib_sync_down_addr).
    pub fn flush_source(&mut self, ip: Ipv4Addr) {
        if self.main.retain(|entry| entry.prefsrc != Some(ip)) > 0 {
            self.touch();
        }
    }

    /// Checks a route as fib_create_info and fib_check_nh do, and puts it into numbers.
    pub fn check(&self, route: &Route, proto: Proto, links: &Links) -> Result<Entry, Errno> {
        if route.to != route.to.trunc() {
            return Err(Errno::Einval);
        }
        let link = links.named(&route.dev).ok_or(Errno::Enodev)?;
        if route.onlink && route.via.is_none() {
            return Err(Errno::Einval);
        }
        if !link.up && (route.via.is_none() || route.onlink) {
            return Err(Errno::Enetdown);
        }
        let own_gateway = match route.via {
            Some(via) => self.check_gateway(via, link.index, route.onlink)? == Kind::Local,
            None => false,
        };
        // By a link that is down only its own addresses are found.
        if !link.up {
            return Err(Errno::Enetdown);
        }
        Ok(Entry {
            to: u32::from(route.to.network()),
            plen: route.to.prefix_len(),
            kind: Kind::Unicast,
            scope: if route.via.is_some() { Scope::Universe } else { Scope::Link },
            proto,
            onlink: route.onlink,
            metric: route.metric,
            via: route.via,
            dev: link.index,
            prefsrc: None,
            own_gateway,
        })
    }

    /// "Nexthop has invalid gateway" (fib_check_nh_v4_gw): an on-link gateway must be of unicast
    /// type; any other must be reached by the link without a gateway. One's own address passes
    /// the second check, as it does in Linux. The kind of address that it is.
    pub fn check_gateway(&self, via: Ipv4Addr, dev: u32, onlink: bool) -> Result<Kind, Errno> {
        if onlink {
            if mutated(Mutant::BroadcastGateway) {
                return Ok(Kind::Unicast);
            }
            let unicast = self.addr_type(via) == AddrType::Unicast;
            return if unicast { Ok(Kind::Unicast) } else { Err(Errno::Einval) };
        }
        let found = self.lookup(via, Want { dev: Some(dev), scope: Scope::Link });
        match found.ok_or(Errno::Enetunreach)?.kind {
            Kind::Broadcast => Err(Errno::Einval),
            kind => Ok(kind),
        }
    }

    /// `ip route add`: exclusive in destination and metric.
    pub fn add(&mut self, entry: Entry) -> Result<(), Errno> {
        let taken = self.main.exact(entry.to, entry.plen).any(|e| e.metric == entry.metric);
        let shared = self.block.as_ref().and_then(|b| b.position(entry.to, entry.plen));
        let in_block = shared.zip(self.block.as_ref());
        if taken || in_block.is_some_and(|(at, b)| b.route(at).metric == entry.metric) {
            return Err(Errno::Eexist);
        }
        self.main.insert(entry);
        self.touch();
        Ok(())
    }

    /// `ip route del` of this route; `ESRCH` if there is none. Without a metric it is the first
    /// that has the rest (fib_nh_match, net/ipv4/fib_semantics.c).
    pub fn delete(&mut self, route: &Route, proto: Proto, dev: u32) -> Result<(), Errno> {
        let (to, plen) = (u32::from(route.to.network()), route.to.prefix_len());
        let is_it = |e: &Entry| {
            e.to == to
                && e.plen == plen
                && [0, e.metric].contains(&route.metric)
                && e.dev == dev
                && e.proto == proto
                && e.via == route.via
        };
        let first = self.main.entries.iter().position(is_it);
        if let Some(at) = first {
            let mut place = 0;
            self.main.retain(|_| {
                place += 1;
                place - 1 != at
            });
            self.touch();
            return Ok(());
        }
        let block = self.block.as_mut().filter(|block| block.proto == proto);
        let block = block.ok_or(Errno::Esrch)?;
        let at = block.position(to, plen).filter(|&at| block.is_meant(at, route));
        block.kill(at.ok_or(Errno::Esrch)?);
        self.touch();
        Ok(())
    }

    pub(super) fn block(&self) -> Option<&Installed> {
        self.block.as_deref()
    }
    pub(super) fn take_block(&mut self) -> Option<Box<Installed>> {
        self.touch();
        self.block.take()
    }
    pub(super) fn put_block(&mut self, block: Option<Box<Installed>>) {
        self.block = block;
        self.touch();
    }
    pub(super) fn main_entries(&self) -> &[Entry] {
        &self.main.entries
    }
    pub(super) fn local_entries(&self) -> &[Entry] {
        &self.local.entries
    }
    pub(super) fn retain_main(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.main.retain(keep);
        self.touch();
    }

    /// How many routes of this owner are in the table.
    pub fn count(&self, proto: Proto) -> usize {
        let own = self.main.entries.iter().filter(|entry| entry.proto == proto).count();
        own + self.block.as_ref().filter(|b| b.proto == proto).map_or(0, |b| b.live())
    }

    /// The link of the default route with the lowest metric.
    pub fn default_dev(&self) -> Option<u32> {
        let own = self.main.exact(0, 0).next().map(|entry| (entry.metric, entry.dev));
        let shared = self.block.as_ref().and_then(|b| b.find(0, 0, Want::ANY));
        let shared = shared.map(|(metric, hop)| (metric, hop.dev));
        [own, shared].into_iter().flatten().min().map(|(_, dev)| dev)
    }
}

impl Namespace {
    /// All routes of the main table, the way they are asked for, in the order of `ip route`.
    pub(super) fn routes(&self) -> Vec<(Route, Proto)> {
        let mut routes: Vec<(Route, Proto)> =
            self.fib.main_entries().iter().filter_map(|entry| self.route_of(entry)).collect();
        if let Some(block) = self.fib.block() {
            routes.extend(block.iter().map(|route| (route.clone(), block.proto)));
        }
        routes.sort_by_key(|(route, _)| {
            (route.to.network(), std::cmp::Reverse(route.to.prefix_len()), route.metric)
        });
        routes
    }

    fn route_of(&self, entry: &Entry) -> Option<(Route, Proto)> {
        let dev = self.links.get(entry.dev)?.name.clone();
        let to = ipnet::Ipv4Net::new(Ipv4Addr::from(entry.to), entry.plen).ok()?;
        let (via, onlink, metric) = (entry.via, entry.onlink, entry.metric);
        Some((Route { to, via, dev, onlink, metric }, entry.proto))
    }
}

/// `ip route`.
impl Kernel {
    /// `EEXIST` for a destination and metric that is there, `ENETUNREACH` for a gateway that is
    /// not on-link, `EINVAL` for one that is no neighbour's address, `ENODEV`, `ENETDOWN`.
    pub fn add_route(
        &mut self,
        now: Time,
        ns: NsId,
        route: &Route,
        proto: Proto,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            let entry = space.fib.check(route, proto, &space.links)?;
            space.fib.add(entry)?;
            cx.changed(ns);
            Ok(())
        })
    }

    pub fn del_route(
        &mut self,
        now: Time,
        ns: NsId,
        route: &Route,
        proto: Proto,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            let dev = space.links.named(&route.dev).ok_or(Errno::Enodev)?.index;
            space.fib.delete(route, proto, dev)?;
            cx.changed(ns);
            Ok(())
        })
    }

    /// The kernel's and everybody's routes of the main table with the source that each prefers,
    /// but for a block that is shared.
    pub fn routes_with_source(
        &self,
        ns: NsId,
    ) -> impl Iterator<Item = (Route, Proto, Option<Ipv4Addr>)> {
        let space = self.namespace(ns);
        let entries = space.map(|space| space.fib.main_entries()).unwrap_or_default();
        entries.iter().filter_map(move |entry| {
            let (route, proto) = space?.route_of(entry)?;
            Some((route, proto, entry.prefsrc))
        })
    }

    /// The main table in the order of `ip route`.
    pub fn routes(&self, ns: NsId) -> impl Iterator<Item = (Route, Proto)> {
        self.namespace(ns).map(Namespace::routes).unwrap_or_default().into_iter()
    }
}
