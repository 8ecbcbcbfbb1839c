//! A tracked connection.

use super::conntrack::Conntrack;
use super::family::Filtered;
use super::tcp_state::TcpState;
use super::tcp_track::TcpTrack;
use super::tuple::Tuple;
use crate::kernel::family::{Family, V4};
use kubesim_actors::ports::rules::Protocol;
use kubesim_runtime::Time;
use std::time::Duration;

/// One tracked connection.
#[derive(Clone, Debug)]
pub struct Entry<F: Family = V4> {
    /// What the client wrote.
    pub original: Tuple<F>,
    /// What an answer looks like when it arrives here.
    pub reply: Tuple<F>,
    /// `IPS_SEEN_REPLY`; `[UNREPLIED]` without it.
    pub seen_reply: bool,
    /// `IPS_ASSURED`: not dropped early when the table is full.
    pub assured: bool,
    /// `IPS_SRC_NAT`, `IPS_DST_NAT`: the source, the destination is rewritten.
    pub src_nat: bool,
    pub dst_nat: bool,
    pub(super) src_nat_done: bool,
    pub(super) dst_nat_done: bool,
    /// The hash of the link it was masqueraded to leave by (`masq_index`).
    pub(super) masqueraded: Option<u32>,
    pub(super) confirmed: bool,
    /// Another entry has its original tuple, so that only answers find it, and nobody sees it
    /// (`IPS_NAT_CLASH`).
    pub(super) clashed: bool,
    /// Out of the table for good (`IPS_DYING`).
    pub(super) dying: bool,
    pub(super) expires: Time,
    /// How long it lasts from when it is confirmed on.
    pub(super) timeout: Duration,
    /// When UDP becomes a stream.
    pub(super) stream_from: Time,
    pub(super) tcp: Option<TcpTrack>,
}

impl<F: Family> Entry<F> {
    pub fn tcp_state(&self) -> Option<TcpState> {
        self.tcp.map(|tcp| tcp.state)
    }
    /// From when on it counts as absent, whether collected or not.
    pub fn expires(&self) -> Time {
        self.expires
    }
    pub fn protocol(&self) -> Protocol {
        self.original.protocol
    }
    /// What the table finds it by, and whether that is the reply's tuple. Somebody who talks to
    /// himself (same address, same port) has one tuple for both: the reply's is put before the
    /// original's (`__nf_conntrack_hash_insert`), so it alone is ever found.
    pub(super) fn directions(&self) -> impl Iterator<Item = (Tuple<F>, bool)> + use<F> {
        let (original, reply) = (self.original, self.reply);
        let first = (original != reply && !self.clashed).then_some((original, false));
        first.into_iter().chain([(reply, true)])
    }
}

impl<F: Filtered> Conntrack<F> {
    /// The confirmed ones that are listed, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<F>> {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.filter(|entry| entry.confirmed && !entry.clashed)
    }
}
