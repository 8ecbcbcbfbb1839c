//! Into the table: the packet that made an entry leaves, or is received.

use super::conntrack::{Conntrack, Place};
use super::entry::Entry;
use super::family::Filtered;
use crate::kernel::family::Family;
use crate::kernel::index::hash_of;
use crate::kernel::packet::{Ct, Packet};
use kubesim_actors::ports::rules::Protocol;
use kubesim_runtime::Time;
use std::time::Duration;

/// How long an entry lasts whose original tuple another has (`nf_ct_resolve_clash_harder`).
const CLASHED: Duration = Duration::from_secs(1);

impl<F: Filtered> Conntrack<F> {
    /// `__nf_conntrack_confirm`: from now on the entry is everybody's. `false`: the packet is
    /// lost, as somebody else has a tuple of it by now.
    ///
    /// Of two UDP packets that raced with the very same mapping, the second joins the first; one
    /// that only answers can tell from the first has its own entry for a moment, for them
    /// (`nf_ct_resolve_clash`). Any other clash loses its packet.
    pub fn confirm(&mut self, packet: &mut Packet<F>, now: Time) -> bool {
        let Ct::Entry { id, reply: false, .. } = packet.ct else {
            return true;
        };
        let Some(slot) = self.slot(id) else {
            return true;
        };
        let Some(entry) = &self.slots[slot as usize].entry else {
            return true;
        };
        if entry.confirmed || entry.dying || entry.expires <= now {
            return true;
        }
        let (original, reply, timeout) = (entry.original, entry.reply, entry.timeout);
        let first = self.find(&original, now);
        let second = self.find(&reply, now);
        if first.is_none() && second.is_none() {
            self.insert(slot, now + timeout, false);
            return true;
        }
        let mut rivals = [first, second].into_iter().flatten();
        let one = rivals.find(|rival| self.merges(*rival, slot));
        match (original.protocol, one) {
            (Protocol::Udp, Some(one)) => {
                self.release(slot);
                packet.ct = self.ct(Place { slot: one.slot, reply: false });
                true
            }
            (Protocol::Udp, None) if second.is_none() => {
                self.insert(slot, now + CLASHED, true);
                true
            }
            _ => {
                self.insert_failed += 1;
                self.release(slot);
                false
            }
        }
    }

    fn insert(&mut self, slot: u32, expires: Time, clashed: bool) {
        let Some(entry) = &mut self.slots[slot as usize].entry else { return };
        (entry.confirmed, entry.clashed, entry.expires) = (true, clashed, expires);
        self.rewritten += u32::from(entry.dst_nat);
        self.confirmed += 1;
        for (tuple, reply) in entry.directions() {
            self.tuples.insert(hash_of(&tuple), Place { slot, reply }.number());
        }
    }

    /// Whether two entries are of one connection, seen from either end (`nf_ct_can_merge`).
    fn merges(&self, rival: Place, slot: u32) -> bool {
        let of = |slot: u32| self.slots[slot as usize].entry.as_ref();
        of(rival.slot).zip(of(slot)).is_some_and(|(one, other)| same(one, other))
    }
}

fn same<F: Family>(one: &Entry<F>, other: &Entry<F>) -> bool {
    let tuples = (one.original, one.reply);
    tuples == (other.original, other.reply) || tuples == (other.reply, other.original)
}
