//! A packet's way through the chains of one table.

use super::compile::{Action, Compiled};
use super::family::{Filtered, RejectWith};
use super::matches::{Scene, state};
use super::table::Ruleset;
use crate::kernel::family::{Family, V4};
use crate::kernel::mutants::{Mutant, mutated};
use std::cell::Cell;

/// A table's last word about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<F: Family = V4> {
    Accept,
    Drop,
    Reject(RejectWith<F>),
    Dnat { to: F::Addr, port: Option<u16> },
    Snat { to: F::Addr },
    Masquerade { random_fully: bool },
}

/// Deeper than any sane ruleset: a packet in a loop of chains is dropped, as `ipt_do_table` does
/// when its jump stack is full. (The kernel refuses loops when they are loaded.)
const MAX_DEPTH: u32 = 64;

pub(super) struct Walk<'a, F: Family = V4> {
    pub rules: &'a Ruleset<F>,
    pub scene: Scene<'a, F>,
    /// `CT --notrack` was met.
    pub notrack: bool,
}

/// A chain with the packet counters of its rules, where it has any.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a, F: Family = V4> {
    pub chain: &'a Compiled<F>,
    pub packets: &'a [Cell<u64>],
}

impl<'a, F: Filtered> Walk<'a, F> {
    /// `None`: the chain came to its end, or said RETURN.
    pub fn chain(&mut self, at: Counted<'a, F>, depth: u32) -> Option<Outcome<F>> {
        if depth == MAX_DEPTH {
            return Some(Outcome::Drop);
        }
        for number in at.chain.candidates(&self.scene.key) {
            let rule = &at.chain.rules[number as usize];
            if !at.chain.tests(rule).iter().all(|test| self.scene.holds(test)) {
                continue;
            }
            if let Some(packets) = at.packets.get(number as usize) {
                packets.set(packets.get() + 1);
            }
            match rule.action {
                Action::Jump(id) => {
                    if let Some(next) = self.rules.find(id)
                        && let Some(outcome) = self.chain(next, depth + 1)
                    {
                        return Some(outcome);
                    }
                }
                // The end of a chain gone to is the end of this one.
                Action::Goto(id) => return self.chain(self.rules.find(id)?, depth + 1),
                Action::Return if mutated(Mutant::ReturnAccepts) => return Some(Outcome::Accept),
                Action::Return => return None,
                Action::End(outcome) => return Some(outcome),
                Action::Mark { value, .. } if mutated(Mutant::MarkWithoutMask) => {
                    self.scene.mark = value;
                }
                Action::Mark { value, mask } => self.scene.mark = (self.scene.mark & !mask) ^ value,
                Action::NoTrack => {
                    self.notrack = true;
                    // What conntrack has seen stays as it is (xt_ct_target).
                    if self.scene.untouched {
                        self.scene.state = state::UNTRACKED;
                    }
                }
                Action::None => {}
            }
        }
        None
    }
}
