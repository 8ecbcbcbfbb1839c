//! ARP (RFC 826; net/ipv4/arp.c): how a neighbour's MAC address is asked for and told, and what is
//! believed of it. Neighbours that were configured on a link are here too.

use super::address::select_address;
use super::family::V4;
use super::link::{Kind as LinkKind, Link};
use super::mutants::{Mutant, mutated};
use super::neigh::{Entry, NeighbourEntry, NeighbourState, Neighbours, News, Resolves};
use super::packet::{Arp, Frame, IcmpError, Packet, Payload};
use super::timers::TimerKey;
use super::{Cx, Kernel, Mac, Namespace, NsId};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::Neighbour;
use kubesim_actors::ports::rules::AddrType;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// An entry is not overwritten within this time of its last change, but by a gratuitous ARP.
const LOCKTIME: Duration = Duration::from_secs(1);

/// `arp_tbl`
impl Resolves for V4 {
    type Key = u64;
    type Extra = ();

    fn key(dev: u32, ip: Ipv4Addr) -> u64 {
        u64::from(dev) << 32 | u64::from(ip.to_bits())
    }
    fn keys_of(dev: u32) -> (u64, u64) {
        (Self::key(dev, Ipv4Addr::UNSPECIFIED), Self::key(dev, Ipv4Addr::BROADCAST))
    }
    fn extra(_: u64) {}
    fn table(ns: &mut Namespace) -> Option<&mut Neighbours<V4>> {
        Some(&mut ns.neighbours)
    }
    fn payload(packet: Box<Packet>) -> Payload {
        Payload::Ip(packet)
    }
    fn permanent(link: &Link, ip: Ipv4Addr) -> Option<Mac> {
        link.permanent.as_ref()?.get(ip)
    }
    fn timer(ns: NsId, entry: &Entry<V4>) -> TimerKey {
        TimerKey::Neighbour { ns, dev: entry.dev, ip: entry.ip }
    }
    fn solicit(ns: &mut Namespace, cx: &mut Cx<'_>, dev: u32, ip: Ipv4Addr, to: Option<Mac>) {
        ns.arp_solicit(cx, dev, ip, to.unwrap_or(Mac::BROADCAST));
    }
    /// `arp_error_report`
    fn report(ns: &mut Namespace, cx: &mut Cx<'_>, packet: &Packet) {
        ns.icmp_error(cx, IcmpError::HostUnreachable, packet);
    }
}

impl Neighbours<V4> {
    /// Whether a broadcast ARP frame from this sender would change its entry, if it has one: all
    /// that such a frame says is STALE, which is no news about a MAC address that is known
    /// (neigh_update, net/core/neighbour.c).
    pub fn heeds(&self, dev: u32, ip: Ipv4Addr, mac: Mac) -> bool {
        self.get(dev, ip).is_some_and(|entry| entry.mac() != Some(mac))
    }
}

/// Permanent neighbours of a link, sorted by address; shared by every machine that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PermanentSet {
    pub given: Arc<[Neighbour]>,
    /// `None`: `given` is sorted itself.
    sorted: Option<Arc<[Neighbour]>>,
}

impl PermanentSet {
    pub fn new(given: Arc<[Neighbour]>) -> Self {
        let sorted = (!given.is_sorted_by_key(|n| n.ip)).then(|| {
            let mut copy = given.to_vec();
            copy.sort_by_key(|n| n.ip);
            copy.into()
        });
        PermanentSet { given, sorted }
    }
    fn slice(&self) -> &[Neighbour] {
        self.sorted.as_deref().unwrap_or(&self.given)
    }
    fn get(&self, ip: Ipv4Addr) -> Option<Mac> {
        let slice = self.slice();
        slice.binary_search_by_key(&ip, |n| n.ip).ok().map(|at| slice[at].mac)
    }
}

impl Namespace {
    /// Sends an ARP request. Its sender is the last queued packet's source if that is ours, else
    /// the link's best address towards the target (arp_solicit, arp_announce 0); with arp_announce
    /// 1 only if the target is in its subnet on this link (inet_addr_onlink), with 2 never.
    fn arp_solicit(&mut self, cx: &mut Cx<'_>, dev: u32, ip: Ipv4Addr, dst: Mac) {
        let queued = self.neighbours.get_mut(dev, ip).and_then(|entry| entry.queue.last());
        let own = queued.map(|waiting| waiting.packet.src).filter(|src| self.fib.is_local(*src));
        let own = own.filter(|own| match self.sysctls.arp_announce {
            0 => true,
            1 => self.are_neighbours(dev, *own, ip),
            _ => false,
        });
        let chosen = own.or_else(|| select_address(&self.links, dev, Some(ip)));
        let sender_ip = chosen.unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.send_arp(cx, dev, dst, true, sender_ip, Mac::default(), ip);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of an ARP packet")]
    fn send_arp(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        dst: Mac,
        request: bool,
        sender_ip: Ipv4Addr,
        target_mac: Mac,
        target_ip: Ipv4Addr,
    ) {
        let Some(link) = self.links.get(dev) else { return };
        let arp = Arp { request, sender_mac: link.mac, sender_ip, target_mac, target_ip };
        let frame = Frame { src: link.mac, dst, payload: Payload::Arp(arp) };
        self.transmit(cx, dev, frame);
    }

    /// Tells the neighbourhood of a link that an address lives here: a gratuitous ARP request, as
    /// with `arp_notify`, or by whoever configures links.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>, dev: u32, ip: Ipv4Addr) {
        let Some(link) = self.links.get(dev) else { return };
        if link.running() && matches!(link.kind, LinkKind::Uplink) {
            self.send_arp(cx, dev, Mac::BROADCAST, true, ip, Mac::default(), ip);
        }
    }

    pub(super) fn announce_addresses(&mut self, cx: &mut Cx<'_>, dev: u32) {
        let addresses = self.links.get(dev).map(|link| link.addresses.clone());
        for address in addresses.unwrap_or_default() {
            self.announce(cx, dev, address.ip());
        }
    }

    /// `arp_process`: requests for a local address are answered and teach us their sender, if a
    /// packet could come from there, or are ignored whole; anything else only updates what we know
    /// already (arp_accept 0). What is addressed to a group or, where that is not routed, to
    /// 127.0.0.0/8 is nothing.
    pub(super) fn arp_input(&mut self, cx: &mut Cx<'_>, dev: u32, arp: &Arp, to_us: bool) {
        let localnet = self.links.get(dev).is_some_and(|link| self.routes_localnet(link));
        if arp.target_ip.is_multicast() || (arp.target_ip.is_loopback() && !localnet) {
            return;
        }
        let asks_us = arp.request
            && arp.sender_ip != arp.target_ip
            && self.fib.addr_type(arp.target_ip) == AddrType::Local
            && (arp.sender_ip.is_unspecified()
                || !self.is_martian(dev, arp.sender_ip, arp.target_ip)
                    && self.source_is_valid(dev, arp.sender_ip));
        if asks_us {
            if self.ignores(dev, arp) && !mutated(Mutant::IgnoresNothing) {
                return;
            }
            // Of no other kind anything is learned (arp_constructor: NUD_NOARP).
            if self.fib.addr_type(arp.sender_ip) == AddrType::Unicast {
                self.neighbours.obtain(dev, arp.sender_ip);
                self.arp_learn(cx, dev, arp, NeighbourState::Stale, true);
            }
            let (to, ip) = (arp.sender_mac, arp.sender_ip);
            return self.send_arp(cx, dev, to, false, arp.target_ip, to, ip);
        }
        // Of answers only those that name the sender twice (arp_is_garp).
        let gratuitous = arp.sender_ip == arp.target_ip
            && (arp.request || arp.sender_mac == arp.target_mac)
            && self.fib.addr_type(arp.sender_ip) == AddrType::Unicast;
        if gratuitous && mutated(Mutant::LearnsFromAnnouncements) {
            self.neighbours.obtain(dev, arp.sender_ip);
        }
        let Some(entry) = self.neighbours.get_mut(dev, arp.sender_ip) else { return };
        let unlocked = cx.now.since(entry.updated) > LOCKTIME || mutated(Mutant::NoLocktime);
        let answers = !arp.request && to_us;
        let state = if answers { NeighbourState::Reachable } else { NeighbourState::Stale };
        self.arp_learn(cx, dev, arp, state, unlocked || gratuitous);
    }

    fn arp_learn(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        arp: &Arp,
        state: NeighbourState,
        overrides: bool,
    ) {
        let news = News { mac: Some(arp.sender_mac), state, overrides, doubts: false };
        self.learn::<V4>(cx, dev, arp.sender_ip, news);
    }

    /// `arp_ignore`: 0 answers for an address of any link, 1 of this one, 2 of this one to who is
    /// in its subnet (inet_confirm_addr, net/ipv4/devinet.c).
    fn ignores(&self, dev: u32, arp: &Arp) -> bool {
        let how = self.sysctls.arp_ignore;
        let link = self.links.get(dev).filter(|_| how > 0);
        link.is_some_and(|link| {
            let here = link.addresses.iter().any(|address| address.ip() == arp.target_ip);
            let anybody = how == 1 || arp.sender_ip.is_unspecified();
            !here || !(anybody || self.are_neighbours(dev, arp.target_ip, arp.sender_ip))
        })
    }

    /// Whether some subnet of a link has both.
    fn are_neighbours(&self, dev: u32, one: Ipv4Addr, other: Ipv4Addr) -> bool {
        let both = |net: &Ipv4Net| net.contains(&one) && net.contains(&other);
        let link = self.links.get(dev);
        link.is_some_and(|link| link.addresses.iter().any(|address| both(&address.net)))
    }

    /// The permanent neighbours of a link are others: what was learned of them is no more, and
    /// who waits for them can go.
    pub(super) fn heed_permanent(&mut self, cx: &mut Cx<'_>, dev: u32) {
        let Some(set) = self.links.get(dev).and_then(|link| link.permanent.clone()) else { return };
        let mut waiting = Vec::new();
        self.neighbours.retain_of(dev, |entry| {
            let known = set.get(entry.ip).is_some();
            if known {
                waiting.extend(entry.queue.drain(..).map(|packet| (entry.ip, packet)));
            }
            !known
        });
        for (ip, packet) in waiting {
            self.send_to_neighbour(cx, dev, ip, packet);
        }
    }

    /// Forgets the entries of a link (neigh_flush_dev); `all` includes permanent ones
    /// (neigh_ifdown), else they stay (neigh_carrier_down).
    pub(super) fn drop_neighbours(&mut self, dev: u32, all: bool) {
        self.neighbours.retain_of(dev, |_| false);
        if all && let Some(link) = self.links.get_mut(dev) {
            link.permanent = None;
        }
    }
}

impl Kernel {
    /// The lines of `ip neigh`: by link and address, permanent ones first.
    pub fn neighbours(&self, ns: NsId) -> impl Iterator<Item = NeighbourEntry> {
        let permanent = self.links(ns).flat_map(permanent_of);
        let learned = self.namespace(ns).into_iter().flat_map(|ns| ns.neighbours.iter());
        permanent.chain(learned.map(|entry| NeighbourEntry {
            ip: entry.ip,
            dev: entry.dev,
            mac: entry.mac(),
            state: entry.state,
        }))
    }
}

fn permanent_of(link: &Link) -> impl Iterator<Item = NeighbourEntry> {
    let set = link.permanent.as_deref().map(PermanentSet::slice).unwrap_or_default();
    set.iter().map(|neighbour| NeighbourEntry {
        ip: neighbour.ip,
        dev: link.index,
        mac: Some(neighbour.mac),
        state: NeighbourState::Permanent,
    })
}
