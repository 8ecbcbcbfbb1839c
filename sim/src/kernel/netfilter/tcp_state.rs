//! TCP as conntrack sees it (net/netfilter/nf_conntrack_proto_tcp.c): which segment moves which
//! state, and how long each state lasts. Windows are not tracked: sequence numbers are believed,
//! as with `nf_conntrack_tcp_be_liberal=1`.

use crate::kernel::packet::{Tcp, TcpFlags};
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

/// `TCP_CONNTRACK_UNACK`: for a connection picked up in its middle and not answered yet.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(300);

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

/// A connection's state, and the last SYN that was let through unjudged.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpTrack {
    pub state: TcpState,
    /// Direction and end of sequence of an ignored SYN: if the peer answers it, the old
    /// connection is gone and this is a new one.
    ignored_syn: Option<(bool, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// From the state before to the state now.
    Moved(TcpState),
    Ignored,
    Invalid,
    /// A SYN upon a finished connection: forget the entry and look again.
    Reopen,
}

impl TcpTrack {
    pub fn new(state: TcpState) -> TcpTrack {
        TcpTrack { state, ignored_syn: None }
    }

    pub fn take(&mut self, tcp: &Tcp, reply: bool) -> Judgement {
        let segment = Segment::of(tcp.flags);
        let before = self.state;
        match step(before, segment, reply) {
            Move::Invalid => Judgement::Invalid,
            Move::Ignore => self.ignore(tcp, segment, reply),
            Move::To(TcpState::SynSent) if before >= TcpState::TimeWait => Judgement::Reopen,
            Move::To(state) => {
                self.state = state;
                self.ignored_syn = None;
                Judgement::Moved(before)
            }
        }
    }

    fn ignore(&mut self, tcp: &Tcp, segment: Segment, reply: bool) -> Judgement {
        let answers = |(of, end): (bool, u32)| of != reply && end == tcp.ack;
        if segment == Segment::SynAck && self.ignored_syn.is_some_and(answers) {
            self.ignored_syn = None;
            self.state = TcpState::SynRecv;
            return Judgement::Moved(TcpState::SynSent);
        }
        let end = tcp.seq.wrapping_add(tcp.len).wrapping_add(1);
        self.ignored_syn = (segment == Segment::Syn).then_some((reply, end));
        Judgement::Ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Tcp {
        let has = |c| text.contains(c);
        let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
        Tcp { sport: 1, dport: 2, seq: 0, ack: 0, flags, len: 0 }
    }

    /// Segments as `>SA`: direction, then flags.
    fn run(segments: &[&str]) -> TcpState {
        let mut track = TcpTrack::new(first(Segment::of(flags(segments[0]).flags)).expect("opens"));
        for segment in &segments[1..] {
            track.take(&flags(segment), segment.starts_with('<'));
        }
        track.state
    }

    #[test]
    fn a_connection_opens_and_closes() {
        assert_eq!(run(&[">S"]), TcpState::SynSent);
        assert_eq!(run(&[">S", "<SA"]), TcpState::SynRecv);
        assert_eq!(run(&[">S", "<SA", ">A"]), TcpState::Established);
        assert_eq!(run(&[">S", "<SA", ">A", ">FA"]), TcpState::FinWait);
        assert_eq!(run(&[">S", "<SA", ">A", ">FA", "<A"]), TcpState::CloseWait);
        assert_eq!(run(&[">S", "<SA", ">A", ">FA", "<A", "<FA"]), TcpState::LastAck);
        assert_eq!(run(&[">S", "<SA", ">A", ">FA", "<A", "<FA", ">A"]), TcpState::TimeWait);
        assert_eq!(run(&[">S", "<RA"]), TcpState::Close);
        assert_eq!(run(&[">A"]), TcpState::Established);
    }

    #[test]
    fn a_syn_ack_or_a_fin_opens_nothing() {
        for text in ["SA", "F", "R", ""] {
            assert_eq!(first(Segment::of(flags(text).flags)), None);
        }
    }

    #[test]
    fn a_syn_reopens_what_is_finished_and_is_ignored_by_what_is_not() {
        let mut done = TcpTrack::new(TcpState::TimeWait);
        assert_eq!(done.take(&flags("S"), false), Judgement::Reopen);
        let mut open = TcpTrack::new(TcpState::Established);
        assert_eq!(open.take(&flags("S"), false), Judgement::Ignored);
        // The peer has rebooted and answers it: the old connection is no more.
        let answer = Tcp { ack: 1, ..flags("SA") };
        assert_eq!(open.take(&answer, true), Judgement::Moved(TcpState::SynSent));
        assert_eq!(open.state, TcpState::SynRecv);
    }
}
