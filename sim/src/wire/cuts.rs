//! Partitions: who does not hear whom. One LAN's frames are judged here, by the cards they go
//! between; packets that are routed are judged by whoever knows the ends of their way.

use super::{PortId, Wire};
use std::collections::BTreeSet;

/// One of the two groups of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub machines: BTreeSet<u32>,
    /// Of a network that is named only those in its own switches, and not the cards with which its
    /// router is on cables to others.
    pub cards: BTreeSet<PortId>,
}

/// What machines of one side send to those of the other is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The fault's place in the scenario's list.
    pub fault: usize,
    pub from: Side,
    pub to: Side,
    pub both_ways: bool,
}

impl Cut {
    fn separates<T: Ord>(&self, members: fn(&Side) -> &BTreeSet<T>, from: &T, to: &T) -> bool {
        let (a, b) = (members(&self.from), members(&self.to));
        a.contains(from) && b.contains(to) || self.both_ways && b.contains(from) && a.contains(to)
    }
}

impl Wire {
    /// A partition begins, or has other members than before.
    pub fn cut(&mut self, cut: Cut) {
        self.mend(cut.fault);
        self.cuts.push(cut);
    }
    pub fn mend(&mut self, fault: usize) {
        self.cuts.retain(|cut| cut.fault != fault);
    }
    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Whether a partition keeps a card's frames from another.
    pub(super) fn is_cut(&self, from: PortId, to: PortId) -> bool {
        self.cuts.iter().any(|cut| cut.separates(|side| &side.cards, &from, &to))
    }

    /// Whether a partition keeps a machine's packets from another, whichever way they take.
    pub fn separates(&self, from: u32, to: u32) -> bool {
        self.cuts.iter().any(|cut| cut.separates(|side| &side.machines, &from, &to))
    }
}
