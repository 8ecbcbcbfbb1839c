//! How connections go that nobody ends: by age, or to make room.

use super::conntrack::{Age, Conntrack, LOOK, TableFull};
use super::family::Filtered;
use super::tcp_state::TcpState;
use kubesim_runtime::Time;

/// How many slots are searched for a victim when the table is full.
const EVICTION_RANGE: u32 = 64;

impl<F: Filtered> Conntrack<F> {
    /// Collects what has expired, the oldest first. An entry that lives is looked at again when
    /// it would expire, or after [`LOOK`]: whoever waits behind it does not wait longer.
    pub(super) fn sweep(&mut self, now: Time, entries: u32) {
        for _ in 0..entries {
            let Some(age) = self.ages.pop_front_if(|age| age.at <= now) else { return };
            let Some(slot) = self.slot(age.id) else { continue };
            match self.slots[slot as usize].entry.as_ref().map(|entry| entry.expires) {
                Some(expires) if expires <= now => self.remove(slot),
                Some(expires) => {
                    let at = expires.min(now + LOOK);
                    self.ages.push_back(Age { at, id: age.id });
                }
                None => {}
            }
        }
    }

    /// Makes room at the cost of a connection that is not assured or closes (`early_drop`). Looks
    /// at a bounded number of slots, as the kernel looks at a few buckets only.
    pub(super) fn early_drop(&mut self, now: Time) -> Result<(), TableFull> {
        self.sweep(now, EVICTION_RANGE);
        if self.confirmed < self.max {
            return Ok(());
        }
        let slots = self.slots.len() as u32;
        let victim = (1..=EVICTION_RANGE.min(slots)).find_map(|_| {
            self.hand = (self.hand + 1) % slots;
            let slot = self.hand;
            let entry = self.slots[slot as usize].entry.as_ref()?;
            let closing = entry.tcp_state().is_some_and(TcpState::is_closing);
            (entry.confirmed && (!entry.assured || closing)).then_some(slot)
        });
        match victim {
            Some(slot) => self.remove(slot),
            None => {
                self.table_full += 1;
                return Err(TableFull);
            }
        }
        Ok(())
    }
}
