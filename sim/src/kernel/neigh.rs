//! Neighbours: from an IP address on a link to a MAC (net/core/neighbour.c). Who asks for whom, and
//! what is believed of what is heard, is ARP's (arp.rs) and neighbour discovery's (ip6/ndisc.rs).
//!
//! States are as in Linux, with its default times. An entry that nobody uses has no timer: that
//! REACHABLE became STALE is seen when it is next used. Simplifications: the reachable time is
//! drawn per confirmation (Linux draws it per interface every 300 s), and entries are not
//! collected (Linux collects stale ones above 128 entries and refuses new ones above 1024).

use super::family::{Family, V4};
use super::link::Link;
use super::packet::{Frame, Packet, Payload};
use super::timers::{Alarm, TimerKey};
use super::{Cx, Mac, Namespace, NsId};
use kubesim_runtime::{Time, near};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::time::Duration;

const BASE_REACHABLE: Duration = Duration::from_secs(30);
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
const RETRANS: Duration = Duration::from_secs(1);
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
pub struct NeighbourEntry<F: Family = V4> {
    pub ip: F::Addr,
    pub dev: u32,
    pub mac: Option<Mac>,
    pub state: NeighbourState,
}

/// What of the neighbour core is the family's own (`struct neigh_table`).
pub(super) trait Resolves: Family {
    /// A link and an address, to sort by.
    type Key: Copy + Debug + Ord;
    /// What an entry knows beside.
    type Extra: Clone + Debug;

    fn key(dev: u32, ip: Self::Addr) -> Self::Key;
    /// The first and the last key that a link's entries can have.
    fn keys_of(dev: u32) -> (Self::Key, Self::Key);
    /// Of an entry that is made as the `number`th of its table.
    fn extra(number: u64) -> Self::Extra;
    /// `None`: the family is off.
    fn table(ns: &mut Namespace) -> Option<&mut Neighbours<Self>>;
    fn payload(packet: Box<Packet<Self>>) -> Payload;
    /// The MAC address that was configured for a neighbour.
    fn permanent(link: &Link, ip: Self::Addr) -> Option<Mac>;
    fn timer(ns: NsId, entry: &Entry<Self>) -> TimerKey;
    /// Asks whoever has this MAC address, or everybody, for an address.
    fn solicit(ns: &mut Namespace, cx: &mut Cx<'_>, dev: u32, ip: Self::Addr, to: Option<Mac>);
    /// Tells the source of a packet that its next hop does not answer.
    fn report(ns: &mut Namespace, cx: &mut Cx<'_>, packet: &Packet<Self>);
}

#[derive(Clone, Debug)]
pub(super) struct Entry<F: Resolves> {
    pub dev: u32,
    pub ip: F::Addr,
    mac: Mac,
    pub state: NeighbourState,
    probes: u8,
    confirmed: Time,
    pub updated: Time,
    /// When REACHABLE ends unless it is confirmed again.
    stale_at: Time,
    alarm: Alarm,
    pub queue: Vec<Outgoing<F>>,
    pub extra: F::Extra,
}

/// A packet on its way to a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Outgoing<F: Family> {
    pub packet: Box<Packet<F>>,
    /// `None`: it is sent, by this machine.
    pub bridged: Option<Bridged>,
}

/// By which port of a bridge a packet came, and from whom, that is bridged on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridged {
    pub port: u32,
    pub src: Mac,
}

impl<F: Family> From<Box<Packet<F>>> for Outgoing<F> {
    fn from(packet: Box<Packet<F>>) -> Self {
        Outgoing { packet, bridged: None }
    }
}

/// What is said of a neighbour (the arguments of neigh_update).
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    /// `None`: nothing of its MAC address.
    pub mac: Option<Mac>,
    pub state: NeighbourState,
    /// Another MAC address than that which is known is right (`NEIGH_UPDATE_F_OVERRIDE`).
    pub overrides: bool,
    /// If it does not override, it makes a reachable neighbour doubtful
    /// (`NEIGH_UPDATE_F_WEAK_OVERRIDE`).
    pub doubts: bool,
}

/// Entries that were learned, sorted by link and address. The keys stand apart, so that a search
/// touches a cache line or two.
#[derive(Clone, Debug)]
pub(super) struct Neighbours<F: Resolves> {
    keys: Vec<F::Key>,
    entries: Vec<Entry<F>>,
    /// Moves with every new entry, and when one gets, changes or loses its MAC address.
    generation: u64,
}

impl<F: Resolves> Default for Neighbours<F> {
    fn default() -> Self {
        Neighbours { keys: Vec::new(), entries: Vec::new(), generation: 0 }
    }
}

impl<F: Resolves> Neighbours<F> {
    pub fn approach(&self) {
        near::slice(&self.keys, 4);
    }
    pub fn approach_all(&self) {
        near::slice(&self.entries, 4);
    }
    pub fn approach_one(&self, dev: u32, ip: F::Addr) {
        if let Ok(at) = self.find(dev, ip) {
            near::value(&self.entries[at]);
        }
    }
    pub fn generation(&self) -> u64 {
        self.generation
    }
    pub fn iter(&self) -> impl Iterator<Item = &Entry<F>> {
        self.entries.iter()
    }
    /// Link, address and MAC address of every entry.
    pub fn known(&self) -> impl Iterator<Item = (u32, F::Addr, Option<Mac>)> {
        self.entries.iter().map(|entry| (entry.dev, entry.ip, entry.mac()))
    }
    fn find(&self, dev: u32, ip: F::Addr) -> Result<usize, usize> {
        self.keys.binary_search(&F::key(dev, ip))
    }
    pub fn get(&self, dev: u32, ip: F::Addr) -> Option<&Entry<F>> {
        self.find(dev, ip).ok().map(|at| &self.entries[at])
    }
    pub fn get_mut(&mut self, dev: u32, ip: F::Addr) -> Option<&mut Entry<F>> {
        self.find(dev, ip).ok().map(|at| &mut self.entries[at])
    }
    pub fn alarm(&mut self, dev: u32, ip: F::Addr) -> Option<&mut Alarm> {
        self.get_mut(dev, ip).map(|entry| &mut entry.alarm)
    }
    pub fn obtain(&mut self, dev: u32, ip: F::Addr) -> usize {
        self.find(dev, ip).unwrap_or_else(|at| {
            self.generation += 1;
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
                extra: F::extra(self.generation),
            };
            self.keys.insert(at, F::key(dev, ip));
            self.entries.insert(at, entry);
            at
        })
    }
    /// Forgets those of a link that are not to be kept, and what waits for them without a word.
    pub fn retain_of(&mut self, dev: u32, mut keep: impl FnMut(&mut Entry<F>) -> bool) {
        let (first, last) = F::keys_of(dev);
        let from = self.keys.partition_point(|key| *key < first);
        if self.keys.get(from).is_none_or(|key| *key > last) {
            return;
        }
        self.entries.retain_mut(|entry| entry.dev != dev || keep(entry));
        self.keys.clear();
        self.keys.extend(self.entries.iter().map(|entry| F::key(entry.dev, entry.ip)));
    }
}

impl<F: Resolves> Entry<F> {
    fn has_mac(&self) -> bool {
        matches!(self.state, Reachable | Stale | Delay | Probe)
    }
    pub fn mac(&self) -> Option<Mac> {
        self.has_mac().then_some(self.mac)
    }
    /// `NUD_REACHABLE`, which ends by itself.
    fn is_reachable(&self, now: Time) -> bool {
        self.state == Reachable && now < self.stale_at
    }
    fn wake(&mut self, cx: &mut Cx<'_>, ns: NsId, at: Time) {
        let key = F::timer(ns, self);
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
    pub(super) fn send_to_neighbour<F: Resolves>(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: F::Addr,
        packet: impl Into<Outgoing<F>>,
    ) {
        let (id, packet) = (self.id, packet.into());
        let Some(link) = self.links.get(dev) else { return };
        if let Some(dst) = F::permanent(link, ip) {
            return self.send_to_mac(cx, dev, dst, packet);
        }
        let Some(table) = F::table(self) else { return };
        let at = table.obtain(dev, ip);
        let entry = &mut table.entries[at];
        match entry.state {
            Reachable if cx.now < entry.stale_at => {}
            // neigh_event_send: use wakes a stale entry; it is probed 5 s later if nobody
            // confirmed it.
            Reachable | Stale => {
                entry.state = Delay;
                entry.updated = cx.now;
                entry.wake(cx, id, cx.now + DELAY_FIRST_PROBE);
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
                entry.wake(cx, id, cx.now + RETRANS);
                return F::solicit(self, cx, dev, ip, None);
            }
        }
        let dst = entry.mac;
        self.send_to_mac(cx, dev, dst, packet);
    }

    fn send_to_mac<F: Resolves>(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        dst: Mac,
        packet: Outgoing<F>,
    ) {
        let payload = F::payload(packet.packet);
        match packet.bridged {
            // br_nf_pre_routing_finish_bridge_slow
            Some(Bridged { port, src }) => {
                self.bridge_onward(cx, dev, port, Frame { src, dst, payload }, true);
            }
            None => {
                let Some(src) = self.links.get(dev).map(|link| link.mac) else { return };
                self.transmit(cx, dev, Frame { src, dst, payload });
            }
        }
    }

    /// `neigh_update` of an entry that exists. Whether it was believed, if it said nothing new.
    pub(super) fn learn<F: Resolves>(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: F::Addr,
        news: News,
    ) -> bool {
        let Some(table) = F::table(self) else { return false };
        let Ok(at) = table.find(dev, ip) else { return false };
        let entry = &mut table.entries[at];
        let known = entry.has_mac();
        let Some(mut mac) = news.mac.or(entry.mac()) else { return false };
        let (mut same, mut state, mut believed) = (known && entry.mac == mac, news.state, true);
        if known && !same && !news.overrides {
            if !news.doubts || !entry.is_reachable(cx.now) {
                return false;
            }
            (mac, same, state, believed) = (entry.mac, true, Stale, false);
        } else if same && state == Stale {
            return true;
        }
        if !same {
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
        let waiting = std::mem::take(&mut entry.queue);
        table.generation += u64::from(!same);
        for packet in waiting {
            self.send_to_neighbour(cx, dev, ip, packet);
        }
        believed
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
    pub(super) fn neighbour_timeout<F: Resolves>(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: F::Addr,
    ) {
        let ns = self.id;
        let Some(table) = F::table(self) else { return };
        let Ok(at) = table.find(dev, ip) else { return };
        let entry = &mut table.entries[at];
        cx.core.timers.take_first(&mut entry.alarm);
        match entry.state {
            Delay if cx.now.since(entry.confirmed) <= DELAY_FIRST_PROBE => entry.confirm(cx),
            Delay => {
                entry.state = Probe;
                entry.probes = 1;
                entry.updated = cx.now;
                let mac = entry.mac;
                entry.wake(cx, ns, cx.now + RETRANS);
                F::solicit(self, cx, dev, ip, Some(mac));
            }
            Incomplete | Probe if entry.probes < PROBES => {
                entry.probes += 1;
                let mac = (entry.state == Probe).then_some(entry.mac);
                entry.wake(cx, ns, cx.now + RETRANS);
                F::solicit(self, cx, dev, ip, mac);
            }
            Incomplete | Probe => {
                let lost = entry.has_mac();
                entry.state = Failed;
                entry.updated = cx.now;
                let waiting = std::mem::take(&mut entry.queue);
                table.generation += u64::from(lost);
                self.report_unreachable(cx, dev, ip, waiting);
            }
            Reachable | Stale | Failed | Permanent => {}
        }
    }

    /// `neigh_invalidate`: whoever waits is told, as long as the neighbour is failed. An error for
    /// this very neighbour asks for it anew; then the queue, that error in it, is purged.
    fn report_unreachable<F: Resolves>(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        ip: F::Addr,
        waiting: Vec<Outgoing<F>>,
    ) {
        for Outgoing { packet, .. } in waiting {
            F::report(self, cx, &packet);
            let entry = F::table(self).and_then(|table| table.get_mut(dev, ip));
            if let Some(entry) = entry.filter(|entry| entry.state != Failed) {
                entry.queue.clear();
                return;
            }
        }
    }
}
