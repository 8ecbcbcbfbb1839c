//! Asks for the memory that connection tracking touches (see `kubesim_runtime::near`).

use super::conntrack::{Conntrack, GENERATION_SHIFT, SWEEP};
use super::family::Filtered;
use crate::kernel::index::hash_of;
use kubesim_runtime::near;

impl<F: Filtered> Conntrack<F> {
    /// Asks for what a new entry touches, and the old ones that it sweeps away.
    pub fn approach(&self, pass: usize) {
        let aged = self.ages.iter().take(SWEEP as usize);
        match pass {
            0 => {
                self.free.last().into_iter().for_each(near::value);
                self.ages.front().into_iter().for_each(near::value);
            }
            1 => {
                let aged = aged.map(|age| age.id & ((1 << GENERATION_SHIFT) - 1));
                for slot in self.free.last().copied().into_iter().chain(aged) {
                    near::value(&self.slots[slot as usize]);
                    near::value(&self.slots[slot as usize].generation);
                }
            }
            _ => {
                for entry in aged.filter_map(|age| self.get(age.id)) {
                    self.tuples.approach(hash_of(&entry.original));
                    self.tuples.approach(hash_of(&entry.reply));
                }
            }
        }
    }
}
