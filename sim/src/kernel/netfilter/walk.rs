//! A packet's way through the chains of one table.

use super::compile::{Action, Compiled};
use super::matches::{Scene, state};
use super::table::Ruleset;
use crate::kernel::mutants::{Mutant, mutated};
use kubesim_actors::ports::rules::RejectWith;
use std::cell::Cell;
use std::net::Ipv4Addr;

/// A table's last word about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accept,
    Drop,
    Reject(RejectWith),
    Dnat { to: Ipv4Addr, port: Option<u16> },
    Snat { to: Ipv4Addr },
    Masquerade { random_fully: bool },
}

/// Deeper than any sane ruleset: a packet in a loop of chains is dropped, as `ipt_do_table` does
/// when its jump stack is full. (The kernel refuses loops when they are loaded.)
const MAX_DEPTH: u32 = 64;

pub(super) struct Walk<'a> {
    pub rules: &'a Ruleset,
    pub scene: Scene<'a>,
    /// `CT --notrack` was met.
    pub notrack: bool,
}

/// A chain with the packet counters of its rules, where it has any.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    pub chain: &'a Compiled,
    pub packets: &'a [Cell<u64>],
}

impl<'a> Walk<'a> {
    /// `None`: the chain came to its end, or said RETURN.
    pub fn chain(&mut self, at: Counted<'a>, depth: u32) -> Option<Outcome> {
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
