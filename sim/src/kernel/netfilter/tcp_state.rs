//! TCP as conntrack sees it (net/netfilter/nf_conntrack_proto_tcp.c): which segment moves which
//! state, and how long each state lasts.

use crate::kernel::packet::TcpFlags;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpState {
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    /// Simultaneous open.
    SynSent2,
}

impl TcpState {
    /// The kernel's default timeouts.
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            TcpState::SynSent | TcpState::SynSent2 => 120,
            TcpState::SynRecv | TcpState::CloseWait => 60,
            TcpState::Established => 5 * 24 * 3600,
            TcpState::FinWait | TcpState::TimeWait => 120,
            TcpState::LastAck => 30,
            TcpState::Close => 10,
        })
    }

    /// Such a connection may be dropped early (`tcp_can_early_drop`).
    pub(super) fn is_closing(self) -> bool {
        use TcpState::{Close, CloseWait, FinWait, LastAck, TimeWait};
        matches!(self, FinWait | CloseWait | LastAck | TimeWait | Close)
    }

    /// As `conntrack -L` prints it.
    pub fn name(self) -> &'static str {
        match self {
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::SynSent2 => "SYN_SENT2",
        }
    }
}

/// The kind of a segment (`get_conntrack_index`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    None,
}

impl Segment {
    pub fn of(flags: TcpFlags) -> Segment {
        match flags {
            TcpFlags { rst: true, .. } => Segment::Rst,
            TcpFlags { syn: true, ack: true, .. } => Segment::SynAck,
            TcpFlags { syn: true, .. } => Segment::Syn,
            TcpFlags { fin: true, .. } => Segment::Fin,
            TcpFlags { ack: true, .. } => Segment::Ack,
            _ => Segment::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    To(TcpState),
    /// Let through, no change of state.
    Ignore,
    Invalid,
}

/// The state a first segment makes. A bare ACK picks up a connection in its middle
/// (`nf_conntrack_tcp_loose=1`).
pub(super) fn first(segment: Segment) -> Option<TcpState> {
    match segment {
        Segment::Syn => Some(TcpState::SynSent),
        Segment::Ack => Some(TcpState::Established),
        Segment::SynAck | Segment::Fin | Segment::Rst | Segment::None => None,
    }
}

pub(super) fn step(state: TcpState, segment: Segment, reply: bool) -> Move {
    use TcpState::*;
    match (segment, reply) {
        (Segment::None, _) => Move::Invalid,
        (Segment::Rst, _) => Move::To(Close),
        (Segment::Fin, _) => match state {
            SynSent | SynSent2 => Move::Invalid,
            SynRecv | Established => Move::To(FinWait),
            FinWait | CloseWait | LastAck => Move::To(LastAck),
            TimeWait | Close => Move::To(state),
        },
        (Segment::Syn, false) => match state {
            SynSent | SynSent2 => Move::To(state),
            TimeWait | Close => Move::To(SynSent),
            _ => Move::Ignore,
        },
        (Segment::Syn, true) => match state {
            SynSent | SynSent2 => Move::To(SynSent2),
            TimeWait => Move::To(SynSent),
            _ => Move::Invalid,
        },
        (Segment::SynAck, false) => match state {
            SynRecv | SynSent2 => Move::To(SynRecv),
            _ => Move::Invalid,
        },
        (Segment::SynAck, true) => match state {
            SynSent | SynSent2 => Move::To(SynRecv),
            _ => Move::Ignore,
        },
        (Segment::Ack, _) => match state {
            SynSent | SynSent2 => {
                if reply {
                    Move::Ignore
                } else {
                    Move::Invalid
                }
            }
            SynRecv => Move::To(if reply { SynRecv } else { Established }),
            Established => Move::To(Established),
            FinWait | CloseWait => Move::To(CloseWait),
            LastAck | TimeWait => Move::To(TimeWait),
            Close => Move::To(Close),
        },
    }
}
