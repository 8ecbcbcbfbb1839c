//! The event queue: a calendar of small tickets, in time order and, within one instant, in push
//! order.

use kubesim_runtime::{Time, near};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// 2^19 ns: about half a millisecond a bucket.
const WIDTH_BITS: u32 = 19;
/// Buckets in the ring: about 17 s ahead of now, past the 10 s of leases and probes.
const RING: usize = 32_768;

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: u64,
    seq: u64,
    item: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.seq)
    }
}
impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A calendar queue (R. Brown, 1988): a ring of buckets for the near future, each unsorted until
/// its time comes, and an ordered map of buckets for the far one. Push and pop are O(1) amortised.
#[derive(Clone, Debug)]
pub struct Calendar<T> {
    /// The bucket being emptied.
    current: BinaryHeap<Reverse<Entry<T>>>,
    /// What is due at the very instant of the last pop, in push order: many steps ask for
    /// something at once, and the end of a queue is nearer than the top of a heap.
    instant: VecDeque<Entry<T>>,
    /// The latest time of a pop.
    now: u64,
    /// The number of the bucket being emptied: `time >> WIDTH_BITS`.
    cursor: u64,
    ring: Vec<Vec<Entry<T>>>,
    /// One bit a ring bucket: it is not empty.
    occupied: [u64; RING / 64],
    far: BTreeMap<u64, Vec<Entry<T>>>,
    seq: u64,
    len: usize,
}

impl<T: Copy> Default for Calendar<T> {
    fn default() -> Self {
        Calendar {
            current: BinaryHeap::new(),
            instant: VecDeque::new(),
            now: 0,
            cursor: 0,
            ring: (0..RING).map(|_| Vec::new()).collect(),
            occupied: [0; RING / 64],
            far: BTreeMap::new(),
            seq: 0,
            len: 0,
        }
    }
}

impl<T: Copy> Calendar<T> {
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A time before the last one popped counts as that one's bucket and comes out next.
    pub fn push(&mut self, at: Time, item: T) {
        let entry = Entry { at: at.as_nanos(), seq: self.seq, item };
        self.seq += 1;
        self.len += 1;
        let bucket = entry.at >> WIDTH_BITS;
        if entry.at == self.now {
            self.instant.push_back(entry);
        } else if bucket <= self.cursor {
            self.current.push(Reverse(entry));
        } else if bucket - self.cursor < RING as u64 {
            self.place(bucket, entry);
        } else {
            self.far.entry(bucket).or_default().push(entry);
        }
    }

    pub fn pop(&mut self) -> Option<(Time, T)> {
        let entry = if self.instant_is_first()? {
            self.instant.pop_front()?
        } else {
            self.current.pop()?.0
        };
        self.now = self.now.max(entry.at);
        self.len -= 1;
        Some((Time::from_nanos(entry.at), entry.item))
    }

    /// When the next item is due.
    pub fn peek(&mut self) -> Option<Time> {
        let first = if self.instant_is_first()? {
            self.instant.front()
        } else {
            self.current.peek().map(|Reverse(entry)| entry)
        };
        first.map(|entry| Time::from_nanos(entry.at))
    }

    /// Whether the next item waits in `instant`; else it is the top of `current`. `None`: there
    /// is none.
    fn instant_is_first(&mut self) -> Option<bool> {
        let Some(first) = self.instant.front() else {
            while self.current.is_empty() {
                if self.len == 0 {
                    return None;
                }
                self.advance();
            }
            return Some(false);
        };
        let top = self.current.peek();
        Some(top.is_none_or(|Reverse(top)| first.key() < top.key()))
    }

    /// The number of the bucket that is being emptied.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Asks for the memory of a later bucket that the ring reaches.
    pub fn approach(&self, bucket: u64) {
        near::slice(&self.ring[bucket as usize % RING], 8);
    }

    /// What waits in a later bucket that the ring reaches, in no order.
    pub fn bucket(&self, bucket: u64) -> impl Iterator<Item = T> {
        self.ring[bucket as usize % RING].iter().map(|entry| entry.item)
    }

    fn place(&mut self, bucket: u64, entry: Entry<T>) {
        let slot = bucket as usize % RING;
        self.ring[slot].push(entry);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Moves the cursor to the next bucket that holds anything.
    fn advance(&mut self) {
        let near = self.next_occupied();
        let far = self.far.keys().next().copied();
        let next = match (near, far) {
            (Some(near), Some(far)) => near.min(far),
            (Some(bucket), None) | (None, Some(bucket)) => bucket,
            (None, None) => return,
        };
        self.cursor = next;
        // What the ring can now reach leaves the far map.
        while let Some(first) = self.far.first_entry() {
            let bucket = *first.key();
            if bucket >= next + RING as u64 {
                break;
            }
            let entries = first.remove();
            if bucket == next {
                self.current.extend(entries.into_iter().map(Reverse));
            } else {
                for entry in entries {
                    self.place(bucket, entry);
                }
            }
        }
        let slot = next as usize % RING;
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        // Keep the bucket's allocation for its next turn.
        let mut entries = std::mem::take(&mut self.ring[slot]);
        self.current.extend(entries.drain(..).map(Reverse));
        self.ring[slot] = entries;
    }

    /// The number of the first non-empty ring bucket after the cursor.
    fn next_occupied(&self) -> Option<u64> {
        let start = (self.cursor as usize + 1) % RING;
        let words = RING / 64;
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied[index];
            if step == 0 {
                word &= !0 << (start % 64);
            } else if step == words {
                word &= !(!0 << (start % 64));
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + RING - self.cursor as usize % RING) % RING;
                return Some(self.cursor + ahead as u64);
            }
        }
        None
    }
}

/// The plain reference: a binary heap behind the same methods.
#[derive(Clone, Debug)]
pub struct Heap<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    seq: u64,
}

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Heap { heap: BinaryHeap::new(), seq: 0 }
    }
}

impl<T: Copy> Heap<T> {
    pub fn push(&mut self, at: Time, item: T) {
        self.heap.push(Reverse(Entry { at: at.as_nanos(), seq: self.seq, item }));
        self.seq += 1;
    }
    pub fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse(entry) = self.heap.pop()?;
        Some((Time::from_nanos(entry.at), entry.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Delays from nothing to minutes, looks and pops in between: both queues say the same.
        #[test]
        fn the_calendar_is_a_heap(
            steps in prop::collection::vec((0u8..4, 0u64..40, 0u64..1 << 20), 1..400)
        ) {
            let (mut calendar, mut heap) = (Calendar::default(), Heap::default());
            let mut now = Time::ZERO;
            for (id, (pops, magnitude, delay)) in steps.into_iter().enumerate() {
                let at = Time::from_nanos(now.as_nanos() + (delay << magnitude >> 20));
                calendar.push(at, id);
                heap.push(at, id);
                for _ in 0..pops {
                    let next = calendar.peek();
                    let popped = calendar.pop();
                    prop_assert_eq!(next, popped.map(|(at, _)| at));
                    prop_assert_eq!(popped, heap.pop());
                    now = popped.map_or(now, |(at, _)| at);
                }
            }
            loop {
                let popped = calendar.pop();
                prop_assert_eq!(popped, heap.pop());
                if popped.is_none() {
                    break;
                }
            }
            prop_assert!(calendar.is_empty());
        }
    }
}
