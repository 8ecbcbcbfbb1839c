//! Connection tracking of one namespace (net/netfilter/nf_conntrack_core.c).

use super::entry::Entry;
use super::family::Filtered;
use super::moved::Moved;
use super::tcp_state::{self, Segment, TcpState};
use super::tcp_track::{Judgement, TcpTrack, Unanswered, unanswered};
use super::tuple::Tuple;
use crate::kernel::family::{Family, V4};
use crate::kernel::index::{Index, hash_of};
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::packet::{Ct, Icmp, L4, Packet};
use kubesim_runtime::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// `nf_conntrack_max` of a machine with some gigabytes of memory.
const DEFAULT_MAX: u32 = 262_144;
/// How many old entries each new one looks at, so that garbage cannot outgrow what lives.
pub(super) const SWEEP: u32 = 2;
/// An entry is looked at as late as this after the last time; short-lived ones sooner.
pub(super) const LOOK: Duration = Duration::from_secs(120);
/// A packet passes its hooks in one go; an entry that is not (or no longer) in the table is kept
/// this long for the packet that still refers to it.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// Where an entry's number has its generation.
pub(super) const GENERATION_SHIFT: u32 = 20;

const UDP_UNREPLIED: Duration = Duration::from_secs(30);
const UDP_STREAM: Duration = Duration::from_secs(120);
/// Traffic both ways after this long makes UDP a stream.
const UDP_STREAM_AFTER: Duration = Duration::from_secs(2);
const ICMP: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Slot<F: Family = V4> {
    pub(super) generation: u16,
    pub(super) entry: Option<Entry<F>>,
}

impl<F: Family> Slot<F> {
    const EMPTY: Slot<F> = Slot { generation: 0, entry: None };
}

/// Where a tuple leads: a slot, and whether the tuple is the reply's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) reply: bool,
}

impl Place {
    pub(super) fn number(self) -> u32 {
        self.slot << 1 | u32::from(self.reply)
    }
    fn of(number: u32) -> Place {
        Place { slot: number >> 1, reply: number & 1 == 1 }
    }
}

/// The number of an entry, and when it may have expired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    pub(super) at: Time,
    pub(super) id: u32,
}

#[derive(Clone, Debug)]
pub struct Conntrack<F: Family = V4> {
    pub(super) slots: Vec<Slot<F>>,
    pub(super) free: Vec<u32>,
    /// Both tuples of every confirmed entry, as [`Place::number`]s.
    pub(super) tuples: Index,
    pub(super) confirmed: u32,
    /// How many of the confirmed ones have a rewritten destination.
    pub(super) rewritten: u32,
    /// Entries in the order in which they were made or last looked at, and from when on that is
    /// worth while: the way to what has expired without a walk through what has not.
    pub(super) ages: VecDeque<Age>,
    pub(super) hand: u32,
    pub(super) moved: Moved<F>,
    pub max: u32,
    /// `conntrack -S`: entries that lost their race, packets dropped because the table was full.
    pub insert_failed: u64,
    pub table_full: u64,
}

impl<F: Family> Default for Conntrack<F> {
    fn default() -> Self {
        Conntrack {
            slots: Vec::new(),
            free: Vec::new(),
            tuples: Index::default(),
            confirmed: 0,
            rewritten: 0,
            ages: VecDeque::new(),
            hand: 0,
            moved: Moved::default(),
            max: DEFAULT_MAX,
            insert_failed: 0,
            table_full: 0,
        }
    }
}

/// The table is full and nothing can be dropped early: the packet goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableFull;

impl<F: Filtered> Conntrack<F> {
    /// `nf_conntrack_in`: finds or makes the packet's entry. What was seen before (loopback) or
    /// must not be tracked is left alone.
    pub(super) fn track(&mut self, packet: &mut Packet<F>, now: Time) -> Result<(), TableFull> {
        if !packet.ct.is_unseen() && packet.ct != Ct::Attached {
            return Ok(());
        }
        // Who has an address is nobody's connection (nf_conntrack_icmpv6_error).
        let discovery = matches!(packet.l4, L4::Icmp(Icmp::Discovery(_)));
        if discovery && !mutated(Mutant::DiscoveryTracked) {
            packet.ct = Ct::Untracked;
            return Ok(());
        }
        if let L4::Icmp(Icmp::Error { .. }) = packet.l4 {
            let nobodys = if packet.ct == Ct::Attached { Ct::Attached } else { Ct::Invalid };
            packet.ct = self.related(packet, now).unwrap_or(nobodys);
            return Ok(());
        }
        let tuple = Tuple::of(packet);
        let place = match self.find(&tuple, now) {
            Some(place) => place,
            None => match self.create(packet, tuple, now)? {
                Some(place) => place,
                None => {
                    packet.ct = Ct::Invalid;
                    return Ok(());
                }
            },
        };
        packet.ct = match self.update(place, packet, now) {
            Judged::Fine => self.ct(place),
            Judged::Invalid => Ct::Invalid,
            Judged::Reopen => {
                self.kill(place.slot, now);
                match self.create(packet, tuple, now)? {
                    Some(place) => self.ct(place),
                    None => Ct::Invalid,
                }
            }
        };
        Ok(())
    }

    pub(super) fn ct(&mut self, place: Place) -> Ct {
        let id = self.id(place.slot);
        let Some(entry) = &mut self.slots[place.slot as usize].entry else {
            return Ct::Invalid;
        };
        entry.seen_reply |= place.reply;
        // All packets of one direction are NEW until the other has answered.
        Ct::Entry { id, reply: place.reply, new: !entry.seen_reply, related: false }
    }

    /// An error belongs to the connection that it is about (`nf_conntrack_inet_error`): the quoted
    /// header, turned round, is the tuple of the direction that the error travels in, and the
    /// error must be addressed to the one who wrote the quoted packet.
    fn related(&mut self, packet: &Packet<F>, now: Time) -> Option<Ct> {
        let L4::Icmp(Icmp::Error { about, .. }) = &packet.l4 else { return None };
        let inner = Tuple::quoted(about).inverse();
        let place = self.find(&inner, now).filter(|_| inner.dst == packet.dst)?;
        let id = self.id(place.slot);
        Some(Ct::Entry { id, reply: place.reply, new: false, related: true })
    }

    fn place(&self, tuple: &Tuple<F>) -> Option<Place> {
        let found = self.tuples.find(hash_of(tuple), |number| {
            let Place { slot, reply } = Place::of(number);
            let entry = self.slots[slot as usize].entry.as_ref();
            entry.is_some_and(|e| *tuple == if reply { e.reply } else { e.original })
        });
        found.map(Place::of)
    }

    pub(super) fn find(&mut self, tuple: &Tuple<F>, now: Time) -> Option<Place> {
        let place = self.place(tuple)?;
        let entry = self.slots[place.slot as usize].entry.as_ref()?;
        if entry.expires <= now {
            self.remove(place.slot);
            return None;
        }
        Some(place)
    }

    /// `init_conntrack`: an entry that only its packet knows until it is confirmed. `None` if
    /// such a packet cannot open a connection.
    fn create(
        &mut self,
        packet: &Packet<F>,
        original: Tuple<F>,
        now: Time,
    ) -> Result<Option<Place>, TableFull> {
        let (mut tcp, mut timeout) = (None, UDP_UNREPLIED);
        match &packet.l4 {
            L4::Tcp(segment) => match tcp_state::first(Segment::of(segment.flags)) {
                Some(state) => {
                    let (track, lasts) = TcpTrack::new(state, segment);
                    (tcp, timeout) = (Some(track), lasts);
                }
                None => return Ok(None),
            },
            L4::Udp { .. } => {}
            L4::Icmp(Icmp::EchoRequest { .. }) => timeout = ICMP,
            L4::Icmp(_) => return Ok(None),
        }
        self.sweep(now, SWEEP);
        if self.confirmed >= self.max {
            self.early_drop(now)?;
        }
        let reply = original.inverse();
        self.tuples.approach(hash_of(&reply));
        let entry = Entry {
            original,
            reply,
            seen_reply: false,
            assured: false,
            src_nat: false,
            dst_nat: false,
            src_nat_done: false,
            dst_nat_done: false,
            masqueraded: None,
            confirmed: false,
            clashed: false,
            dying: false,
            expires: now + IN_FLIGHT,
            timeout,
            stream_from: now + UDP_STREAM_AFTER,
            tcp,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::EMPTY);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize].entry = Some(entry);
        let look = if tcp.is_some() { LOOK } else { UDP_UNREPLIED };
        self.ages.push_back(Age { at: now + look, id: self.id(slot) });
        Ok(Some(Place { slot, reply: false }))
    }

    /// The protocol's own view: moves its state and puts off the end.
    fn update(&mut self, place: Place, packet: &Packet<F>, now: Time) -> Judged {
        let Some(entry) = &mut self.slots[place.slot as usize].entry else {
            return Judged::Invalid;
        };
        if !entry.confirmed {
            return Judged::Fine;
        }
        match (&packet.l4, &mut entry.tcp) {
            (L4::Tcp(segment), Some(tcp)) => {
                // Only what came before counts as an answer to what comes now.
                let answered = entry.seen_reply;
                let taken = tcp.take(segment, place.reply, answered, entry.assured);
                let (before, mut timeout) = match taken {
                    Judgement::Invalid => return Judged::Invalid,
                    Judgement::Reopen => return Judged::Reopen,
                    Judgement::Ignored => return Judged::Fine,
                    Judgement::Moved(before, timeout) => (before, timeout),
                };
                let state = tcp.state;
                if answered {
                    let opened = matches!(before, TcpState::SynRecv | TcpState::Established);
                    entry.assured |= opened && state == TcpState::Established;
                } else {
                    match unanswered(before, state, segment) {
                        Unanswered::Ends => {
                            self.kill(place.slot, now);
                            return Judged::Fine;
                        }
                        Unanswered::AsBefore => return Judged::Fine,
                        Unanswered::AtMost(most) => timeout = timeout.min(most),
                    }
                }
                entry.expires = now + timeout;
            }
            // Its timeout is fixed (IPS_FIXED_TIMEOUT), and it is never assured.
            (L4::Udp { .. }, _) if entry.clashed => {}
            (L4::Udp { .. }, _) => {
                let at_once = mutated(Mutant::UdpStreamAtOnce);
                let stream = entry.seen_reply && (at_once || now > entry.stream_from);
                entry.assured |= stream;
                entry.expires = now + if stream { UDP_STREAM } else { UDP_UNREPLIED };
            }
            _ => entry.expires = now + ICMP,
        }
        Judged::Fine
    }

    /// Whether a tuple belongs to an entry of the table (`nf_conntrack_tuple_taken`), other than
    /// of a packet that raced with the one at hand: what wrote this `original`.
    pub fn taken(&self, tuple: &Tuple<F>, original: &Tuple<F>, now: Time) -> bool {
        let entry =
            self.place(tuple).and_then(|place| self.slots[place.slot as usize].entry.as_ref());
        entry.is_some_and(|entry| entry.expires > now && entry.original != *original)
    }

    fn id(&self, slot: u32) -> u32 {
        let generation = u32::from(self.slots[slot as usize].generation);
        generation << GENERATION_SHIFT | slot
    }
    pub(super) fn slot(&self, id: u32) -> Option<u32> {
        let slot = id & ((1 << GENERATION_SHIFT) - 1);
        let generation = (id >> GENERATION_SHIFT) as u16;
        let found = self.slots.get(slot as usize)?;
        (found.generation == generation && found.entry.is_some()).then_some(slot)
    }
    pub fn get(&self, id: u32) -> Option<&Entry<F>> {
        self.slots[self.slot(id)? as usize].entry.as_ref()
    }
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Entry<F>> {
        let slot = self.slot(id)?;
        self.slots[slot as usize].entry.as_mut()
    }

    /// The packet is gone: so is the entry that only it knew.
    pub fn forget(&mut self, ct: Ct) {
        if let Ct::Entry { id, .. } = ct
            && let Some(slot) = self.slot(id)
            && self.slots[slot as usize].entry.as_ref().is_some_and(|entry| !entry.confirmed)
        {
            self.release(slot);
        }
    }

    /// Out of the table; the packet at hand may still be rewritten by it.
    fn kill(&mut self, slot: u32, now: Time) {
        self.unlink(slot);
        if let Some(entry) = &mut self.slots[slot as usize].entry {
            entry.expires = now + IN_FLIGHT;
            entry.dying = true;
        }
    }

    pub fn kill_id(&mut self, id: u32, now: Time) {
        if let Some(slot) = self.slot(id) {
            self.kill(slot, now);
        }
    }

    /// `nf_conntrack_tcp_set_closing`
    pub fn close(&mut self, id: u32, now: Time) {
        let Some(entry) = self.get_mut(id).filter(|entry| entry.confirmed) else { return };
        if let Some(tcp) = entry.tcp.as_mut().filter(|tcp| tcp.state != TcpState::Close) {
            tcp.state = TcpState::Close;
            entry.expires = now + TcpState::Close.timeout();
        }
    }

    fn unlink(&mut self, slot: u32) {
        self.forget_moved(slot);
        let Some(entry) = &mut self.slots[slot as usize].entry else {
            return;
        };
        if std::mem::take(&mut entry.confirmed) {
            self.confirmed -= 1;
            self.rewritten -= u32::from(entry.dst_nat);
            for (tuple, reply) in entry.directions() {
                self.tuples.remove(hash_of(&tuple), Place { slot, reply }.number());
            }
        }
    }

    fn forget_moved(&mut self, slot: u32) {
        let entry = self.slots[slot as usize].entry.as_ref();
        if let Some(entry) = entry.filter(|entry| entry.src_nat) {
            self.moved.remove(self.id(slot), &entry.original);
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.release(slot);
    }

    pub(super) fn release(&mut self, slot: u32) {
        self.forget_moved(slot);
        let held = &mut self.slots[slot as usize];
        held.entry = None;
        held.generation = (held.generation + 1) & 0xfff;
        self.free.push(slot);
    }

    /// Whether the destination of any confirmed entry is rewritten.
    pub fn rewrites(&self) -> bool {
        self.rewritten > 0
    }

    /// Takes out every confirmed entry that is so; says how many.
    pub fn delete(&mut self, now: Time, mut which: impl FnMut(&Entry<F>) -> bool) -> u32 {
        let mut deleted = 0;
        for slot in 0..self.slots.len() as u32 {
            let entry = self.slots[slot as usize].entry.as_ref();
            let Some(entry) = entry.filter(|entry| entry.confirmed) else { continue };
            let expired = entry.expires <= now;
            if expired || which(entry) {
                deleted += u32::from(!expired);
                self.remove(slot);
            }
        }
        deleted
    }
}

enum Judged {
    Fine,
    Invalid,
    Reopen,
}
