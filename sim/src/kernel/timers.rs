//! One heap of deadlines a kernel, with lazy deletion.
//!
//! Whoever owns a deadline keeps an [`Alarm`]: when it wants to be woken, and for when an entry
//! stands in the heap. Moving a deadline later costs nothing; the entry is moved on when it comes
//! up. So a TCP flow re-arms its retransmission timer with every packet for free.

use super::{NsId, SocketId};
use kubesim_runtime::{Time, near};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    Neighbour {
        ns: NsId,
        dev: u32,
        ip: Ipv4Addr,
    },
    /// Of IPv6, by its number, as an address is four times as long as all of this.
    Neighbour6 {
        ns: NsId,
        number: u32,
    },
    Socket(SocketId),
    Wireguard {
        ns: NsId,
        dev: u32,
    },
}

/// A deadline and the heap's entry for it. Invariant: while `at` is not NEVER, an entry for
/// `queued <= at` stands in the heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    pub at: Time,
    pub queued: Time,
}

impl Default for Alarm {
    fn default() -> Self {
        Alarm { at: Time::NEVER, queued: Time::NEVER }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, u64, TimerKey)>>,
    pushed: u64,
}

impl Timers {
    pub fn approach(&self) {
        self.heap.peek().into_iter().for_each(near::value);
    }

    pub fn set(&mut self, alarm: &mut Alarm, at: Time, key: TimerKey) {
        alarm.at = at;
        if at < alarm.queued {
            alarm.queued = at;
            self.push(at, key);
        }
    }

    /// Of equal deadlines, the last one comes first: Linux puts a timer at the head of its bucket
    /// and empties that from the head (enqueue_timer, expire_timers in kernel/time/timer.c).
    fn push(&mut self, at: Time, key: TimerKey) {
        self.pushed += 1;
        self.heap.push(Reverse((at, u64::MAX - self.pushed, key)));
    }

    pub fn first(&self) -> Option<(Time, TimerKey)> {
        self.heap.peek().map(|Reverse((at, _, key))| (*at, *key))
    }

    /// Looks at the first entry, which is for `at`, on behalf of its owner's alarm (`None`: the
    /// owner is gone). True if it stands; else it was dropped or moved to where it belongs.
    pub fn check_first(&mut self, at: Time, key: TimerKey, alarm: Option<&mut Alarm>) -> bool {
        let Some(alarm) = alarm else {
            self.heap.pop();
            return false;
        };
        if alarm.queued == at && alarm.at == at {
            return true;
        }
        self.heap.pop();
        if alarm.queued == at {
            alarm.queued = alarm.at;
            if alarm.at != Time::NEVER {
                self.push(alarm.at, key);
            }
        }
        false
    }

    /// Takes the first entry out, for its owner to act on.
    pub fn take_first(&mut self, alarm: &mut Alarm) {
        self.heap.pop();
        *alarm = Alarm::default();
    }
}
