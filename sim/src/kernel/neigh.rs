//! Neighbours: from an IP address on a link to a MAC (net/core/neighbour.c, net/ipv4/arp.c).
//!
//! States are as in Linux, with its default times. An entry that nobody uses has no timer: that
//! REACHABLE became STALE is seen when it is next used. Simplifications: the reachable time is
//! drawn per confirmation (Linux draws it per interface every 300 s), and entries are not
//! collected (Linux collects stale ones above 128 entries and refuses new ones above 1024).

use super::address::select_address;
use super::link::{Kind as LinkKind, Link};
use super::mutants::{Mutant, mutated};
use super::packet::{Arp, Frame, IcmpError, Packet, Payload};
use super::timers::{Alarm, TimerKey};
use super::{Cx, Kernel, Mac, Namespace, NsId};
use kubesim_actors::ports::network::Neighbour;
use kubesim_actors::ports::rules::AddrType;
use kubesim_runtime::{Time, near};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const BASE_REACHABLE: Duration = Duration::from_secs(30);
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
const RETRANS: Duration = Duration::from_secs(1);
/// An entry is not overwritten within this time of its last change, but by a gratuitous ARP.
const LOCKTIME: Duration = Duration::from_secs(1);
/// `mcast_solicit` and `ucast_solicit`.
const PROBES: u8 = 3;
/// `unres_qlen`: what the default of `unres_qlen_bytes` stands for. The oldest packet goes first.
const QUEUE: usize = 101;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    Permanent,
}
use NeighbourState::{Delay, Failed, Incomplete, Permanent, Probe, Reachable, Stale};

/// A line of `ip neigh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    pub ip: Ipv4Addr,
    pub dev: u32,
    pub mac: Option<Mac>,
    pub state: NeighbourState,
}

#[derive(Clone, Debug)]
struct Entry {
    dev: u32,
    ip: Ipv4Addr,
    mac: Mac,
    state: NeighbourState,
    probes: u8,
    confirmed: Time,
    updated: Time,
    /// When REACHABLE ends unless it is confirmed again.
    stale_at: Time,
    alarm: Alarm,
    queue: Vec<Outgoing>,
}

/// A packet on its way to a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub packet: Box<Packet>,
    /// `None`: it is sent, by this machine.
    pub bridged: Option<Bridged>,
}

/// By which port of a bridge a packet came, and from whom, that is bridged on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridged {
    pub port: u32,
    pub src: Mac,
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

/// Entries that were learned, sorted by link and address. The keys stand apart, so that a search
/// touches a cache line or two.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    keys: Vec<u64>,
    entries: Vec<Entry>,
    /// Moves with every new entry, and when one gets, changes or loses its MAC address.
    generation: u64,
}

fn key(dev: u32, ip: Ipv4Addr) -> u64 {
    u64::from(dev) << 32 | u64::from(ip.to_bits())
}

impl Neighbours {
    pub fn approach(&self) {
        near::slice(&self.keys, 4);
    }
    pub fn approach_all(&self) {
        near::slice(&self.entries, 4);
    }
    pub fn approach_one(&self, dev: u32, ip: Ipv4Addr) {
        if let Ok(at) = self.find(dev, ip) {
            near::value(&self.entries[at]);
        }
    }
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// Link, address and MAC address of every entry.
    pub fn known(&self) -> impl Iterator<Item = (u32, Ipv4Addr, Option<Mac>)> {
        let mac = |entry: &Entry| entry.has_mac().then_some(entry.mac);
        self.entries.iter().map(move |entry| (entry.dev, entry.ip, mac(entry)))
    }
    fn find(&self, dev: u32, ip: Ipv4Addr) -> Result<usize, usize> {
        self.keys.binary_search(&key(dev, ip))
    }
    /// Whether a broadcast ARP frame from this sender would change its entry, if it has one: all
    /// that such a frame says is STALE, which is no news about a MAC address that is known
    /// (neigh_update, net/core/neighbour.c).
    pub fn heeds(&self, dev: u32, ip: Ipv4Addr, mac: Mac) -> bool {
        let entry = self.find(dev, ip).ok().map(|at| &self.entries[at]);
        entry.is_some_and(|entry| !entry.has_mac() || entry.mac != mac)
    }
    fn get_mut(&mut self, dev: u32, ip: Ipv4Addr) -> Option<&mut Entry> {
        self.find(dev, ip).ok().map(|at| &mut self.entries[at])
    }
    pub fn alarm(&mut self, dev: u32, ip: Ipv4Addr) -> Option<&mut Alarm> {
        self.get_mut(dev, ip).map(|entry| &mut entry.alarm)
    }
    fn obtain(&mut self, dev: u32, ip: Ipv4Addr) -> usize {
        self.find(dev, ip).unwrap_or_else(|at| {
            let entry = Entry {
                dev,
                ip,
                mac: Mac::default(),
                state: Failed,
                probes: 0,
                confirmed: Time::ZERO,
                updated: Time::ZERO,
                stale_at: Time::ZERO,
                alarm: Alarm::default(),
                queue: Vec::new(),
            };
            self.generation += 1;
            self.keys.insert(at, key(dev, ip));
            self.entries.insert(at, entry);
            at
        })
    }
}

impl Entry {
    fn has_mac(&self) -> bool {
        matches!(self.state, Reachable | Stale | Delay | Probe)
    }
    fn wake(&mut self, cx: &mut Cx<'_>, ns: NsId, at: Time) {
        let key = TimerKey::Neighbour { ns, dev: self.dev, ip: self.ip };
        cx.core.timers.set(&mut self.alarm, at, key);
    }
    /// REACHABLE from now on (`neigh_rand_reach_time`: half to one and a half of the base).
    fn confirm(&mut self, cx: &mut Cx<'_>) {
        self.state = Reachable;
        self.confirmed = cx.now;
        self.stale_at = cx.now + cx.core.rng.between(BASE_REACHABLE / 2, BASE_REACHABLE * 3 / 2);
        self.alarm.at = Time::NEVER;
    }
}

impl Namespace {
    /// Sends a packet to a neighbour on a link, or keeps it until the neighbour answers.
    pub(super) fn send_to_neighbour(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: Ipv4Addr,
        packet: Outgoing,
    ) {
        let Some(link) = self.links.get(dev) else { return };
        if let Some(dst) = link.permanent.as_ref().and_then(|set| set.get(ip)) {
            return self.send_to_mac(cx, dev, dst, packet);
        }
        let at = self.neighbours.obtain(dev, ip);
        let entry = &mut self.neighbours.entries[at];
        match entry.state {
            Reachable if cx.now < entry.stale_at => {}
            // neigh_event_send: use wakes a stale entry; it is probed 5 s later if nobody
            // confirmed it.
            Reachable | Stale => {
                entry.state = Delay;
                entry.updated = cx.now;
                entry.wake(cx, self.id, cx.now + DELAY_FIRST_PROBE);
            }
            Delay | Probe | Permanent => {}
            Incomplete => {
                if entry.queue.len() == QUEUE {
                    entry.queue.remove(0);
                }
                return entry.queue.push(packet);
            }
            Failed => {
                entry.state = Incomplete;
                entry.probes = 1;
                entry.updated = cx.now;
                entry.queue.push(packet);
                entry.wake(cx, self.id, cx.now + RETRANS);
                return self.solicit(cx, dev, ip, Mac::BROADCAST);
            }
        }
        let dst = entry.mac;
        self.send_to_mac(cx, dev, dst, packet);
    }

    fn send_to_mac(&mut self, cx: &mut Cx<'_>, dev: u32, dst: Mac, packet: Outgoing) {
        let Outgoing { packet, bridged } = packet;
        let payload = Payload::Ip(packet);
        match bridged {
            // br_nf_pre_routing_finish_bridge_slow
            Some(Bridged { port, src }) => {
                self.bridge_onward(cx, dev, port, Frame { src, dst, payload });
            }
            None => {
                let Some(src) = self.links.get(dev).map(|link| link.mac) else { return };
                self.transmit(cx, dev, Frame { src, dst, payload });
            }
        }
    }

    /// Sends an ARP request. Its sender is the last queued packet's source if that is ours, else
    /// the link's best address towards the target (arp_solicit, arp_announce 0); with arp_announce
    /// 2 always the latter.
    fn solicit(&mut self, cx: &mut Cx<'_>, dev: u32, ip: Ipv4Addr, dst: Mac) {
        let queued = self.neighbours.get_mut(dev, ip).and_then(|entry| entry.queue.last());
        let own = queued.map(|waiting| waiting.packet.src).filter(|src| self.fib.is_local(*src));
        let own = own.filter(|_| self.sysctls.arp_announce < 2);
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

    /// `arp_process`: requests for a local address are answered (arp_ignore 0: one of any link; 1:
    /// of this one)
    /// and teach us their sender, if a packet could come from there; anything else only updates
    /// what we know already (arp_accept 0).
    pub(super) fn arp_input(&mut self, cx: &mut Cx<'_>, dev: u32, arp: &Arp, to_us: bool) {
        let answered = arp.request
            && arp.sender_ip != arp.target_ip
            && self.fib.addr_type(arp.target_ip) == AddrType::Local
            && !arp.target_ip.is_loopback()
            && !self.ignores(dev, arp.target_ip)
            && self.source_is_valid(dev, arp.sender_ip);
        if answered {
            if !arp.sender_ip.is_unspecified() && !self.fib.is_local(arp.sender_ip) {
                self.neighbours.obtain(dev, arp.sender_ip);
                self.learn(cx, dev, arp.sender_ip, arp.sender_mac, Stale, true);
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
        let state = if !arp.request && to_us { Reachable } else { Stale };
        self.learn(cx, dev, arp.sender_ip, arp.sender_mac, state, unlocked || gratuitous);
    }

    /// `arp_ignore`
    fn ignores(&self, dev: u32, target: Ipv4Addr) -> bool {
        let link = self.links.get(dev).filter(|_| self.sysctls.arp_ignore > 0);
        link.is_some_and(|link| !link.addresses.iter().any(|address| address.ip() == target))
    }

    /// The permanent neighbours of a link are others: what was learned of them is no more, and
    /// who waits for them can go.
    pub(super) fn heed_permanent(&mut self, cx: &mut Cx<'_>, dev: u32) {
        let Some(set) = self.links.get(dev).and_then(|link| link.permanent.clone()) else { return };
        let Neighbours { keys, entries, .. } = &mut self.neighbours;
        let mut waiting = Vec::new();
        if entries.iter().any(|entry| entry.dev == dev) {
            entries.retain_mut(|entry| {
                let known = entry.dev == dev && set.get(entry.ip).is_some();
                if known {
                    waiting.extend(entry.queue.drain(..).map(|packet| (entry.ip, packet)));
                }
                !known
            });
            *keys = entries.iter().map(|entry| key(entry.dev, entry.ip)).collect();
        }
        for (ip, packet) in waiting {
            self.send_to_neighbour(cx, dev, ip, packet);
        }
    }

    /// `neigh_update` of an entry that exists.
    fn learn(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: Ipv4Addr,
        mac: Mac,
        state: NeighbourState,
        override_mac: bool,
    ) {
        let Ok(at) = self.neighbours.find(dev, ip) else { return };
        let entry = &mut self.neighbours.entries[at];
        let known = entry.has_mac();
        let same = known && entry.mac == mac;
        if known && !same && !override_mac {
            return;
        }
        if same && state == Stale {
            return;
        }
        if !same {
            self.neighbours.generation += 1;
            entry.mac = mac;
            // The old confirmation was about another machine.
            entry.confirmed = Time::ZERO;
        }
        if !same || entry.state != state {
            entry.updated = cx.now;
        }
        if state == Reachable {
            entry.confirm(cx);
        } else {
            entry.state = Stale;
            entry.alarm.at = Time::NEVER;
        }
        let mut waiting = std::mem::take(&mut entry.queue);
        for packet in waiting.drain(..) {
            self.send_to_neighbour(cx, dev, ip, packet);
        }
    }

    /// A transport got a sign of life through this neighbour (dst_confirm).
    pub(super) fn confirm_neighbour(&mut self, cx: &mut Cx<'_>, dev: u32, ip: Ipv4Addr) {
        if let Some(entry) = self.neighbours.get_mut(dev, ip) {
            entry.confirmed = cx.now;
            if entry.state == Delay {
                entry.confirm(cx);
            } else if entry.state == Reachable {
                entry.stale_at = entry.stale_at.max(cx.now + BASE_REACHABLE / 2);
            }
        }
    }

    /// `neigh_timer_handler`.
    pub(super) fn neighbour_timeout(&mut self, cx: &mut Cx<'_>, dev: u32, ip: Ipv4Addr) {
        let ns = self.id;
        let Ok(at) = self.neighbours.find(dev, ip) else { return };
        let entry = &mut self.neighbours.entries[at];
        cx.core.timers.take_first(&mut entry.alarm);
        match entry.state {
            Delay if cx.now.since(entry.confirmed) <= DELAY_FIRST_PROBE => entry.confirm(cx),
            Delay => {
                entry.state = Probe;
                entry.probes = 1;
                entry.updated = cx.now;
                let mac = entry.mac;
                entry.wake(cx, ns, cx.now + RETRANS);
                self.solicit(cx, dev, ip, mac);
            }
            Incomplete | Probe if entry.probes < PROBES => {
                entry.probes += 1;
                let mac = if entry.state == Probe { entry.mac } else { Mac::BROADCAST };
                entry.wake(cx, ns, cx.now + RETRANS);
                self.solicit(cx, dev, ip, mac);
            }
            Incomplete | Probe => {
                let lost = entry.has_mac();
                entry.state = Failed;
                entry.updated = cx.now;
                let waiting = std::mem::take(&mut entry.queue);
                self.neighbours.generation += u64::from(lost);
                self.report_unreachable(cx, dev, ip, waiting);
            }
            Reachable | Stale | Failed | Permanent => {}
        }
    }

    /// `neigh_invalidate`: whoever waits is told (arp_error_report), as long as the neighbour is
    /// failed. An error for this very neighbour asks for it anew; then the queue, that error in
    /// it, is purged.
    fn report_unreachable(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: Ipv4Addr,
        waiting: impl IntoIterator<Item = Outgoing>,
    ) {
        for Outgoing { packet, .. } in waiting {
            self.icmp_error(cx, IcmpError::HostUnreachable, &packet);
            let entry = self.neighbours.get_mut(dev, ip).filter(|entry| entry.state != Failed);
            if let Some(entry) = entry {
                entry.queue.clear();
                return;
            }
        }
    }

    /// Forgets the entries of a link, and what waits for them without a word (neigh_flush_dev);
    /// `all` includes permanent ones (neigh_ifdown), else they stay (neigh_carrier_down).
    pub(super) fn drop_neighbours(&mut self, dev: u32, all: bool) {
        let Neighbours { keys, entries, .. } = &mut self.neighbours;
        keys.retain(|key| (key >> 32) as u32 != dev);
        entries.retain(|entry| entry.dev != dev);
        if all && let Some(link) = self.links.get_mut(dev) {
            link.permanent = None;
        }
    }
}

impl Kernel {
    /// The lines of `ip neigh`: by link and address, permanent ones first.
    pub fn neighbours(&self, ns: NsId) -> impl Iterator<Item = NeighbourEntry> {
        let permanent = self.links(ns).flat_map(permanent_of);
        let learned = self.namespace(ns).into_iter().flat_map(|ns| &ns.neighbours.entries);
        permanent.chain(learned.map(|entry| NeighbourEntry {
            ip: entry.ip,
            dev: entry.dev,
            mac: entry.has_mac().then_some(entry.mac),
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
        state: Permanent,
    })
}
