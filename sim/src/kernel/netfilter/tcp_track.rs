//! What conntrack follows of a TCP connection (net/netfilter/nf_conntrack_proto_tcp.c). Packets
//! have no windows here: sequence numbers are believed, as with `nf_conntrack_tcp_be_liberal=1`,
//! and what was acknowledged is followed.

use super::tcp_state::{Move, Segment, TcpState, step};
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::packet::Tcp;
use std::time::Duration;

/// `TCP_CONNTRACK_UNACK`, while something is unacknowledged or nobody has answered, and
/// `TCP_CONNTRACK_RETRANS`, while one end says the same again and again.
const UNSETTLED: Duration = Duration::from_secs(300);
/// `tcp_max_retrans`
const MAX_RETRANS: u8 = 3;

/// One end of a connection (`struct ip_ct_tcp_state`).
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// It has sent something (`td_maxwin`).
    seen: bool,
    /// It began to close (`IP_CT_TCP_FLAG_CLOSE_INIT`).
    closes: bool,
    /// Not all that it sent was acknowledged (`IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED`).
    unacknowledged: bool,
    /// Behind the last it has sent (`td_end`).
    end: u32,
    /// How far it may go while the other end has opened no window (`td_maxend`).
    limit: Option<u32>,
    /// The last that it has acknowledged (`td_maxack`).
    acked: Option<u32>,
}

/// What was last let through (`last_index` and others of `struct ip_ct_tcp`).
#[derive(Clone, Copy, Debug)]
struct Last {
    segment: Segment,
    reply: bool,
    seq: u32,
    ack: u32,
    end: u32,
    /// A window was seen: not from the start on, nor where the numbers were not believed.
    window: bool,
}

/// What conntrack keeps of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpTrack {
    pub state: TcpState,
    /// Of the original direction and of the reply's.
    ends: [End; 2],
    last: Last,
    /// How often one end has said the very same again.
    retrans: u8,
    /// A SYN in LAST_ACK was let through; an ACK may be a challenge (RFC 5961), not the last one.
    challenge: bool,
    /// `IP_CT_TCP_SIMULTANEOUS_OPEN`
    simultaneous: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// From the state before to the state now, which lasts that long.
    Moved(TcpState, Duration),
    Ignored,
    Invalid,
    /// A SYN upon a finished connection: forget the entry and look again.
    Reopen,
}

fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// `segment_seq_plus_len`
fn end_of(tcp: &Tcp) -> u32 {
    tcp.seq.wrapping_add(tcp.span())
}

impl TcpTrack {
    /// `tcp_new`: of the first segment, which leads to this state, and how long that lasts.
    pub fn new(state: TcpState, tcp: &Tcp) -> (TcpTrack, Duration) {
        let end = end_of(tcp);
        let limit = tcp.flags.syn.then_some(end);
        let end = End { seen: true, end, limit, ..End::default() };
        let last = Last {
            segment: Segment::of(tcp.flags),
            reply: false,
            seq: 0,
            ack: 0,
            end: 0,
            window: false,
        };
        let mut track = TcpTrack {
            state,
            ends: [end, End::default()],
            last,
            retrans: 0,
            challenge: false,
            simultaneous: false,
        };
        track.follow(tcp, false);
        let timeout = track.timeout(last.segment).min(match state {
            TcpState::Established => UNSETTLED,
            _ => Duration::MAX,
        });
        (track, timeout)
    }

    /// `nf_conntrack_tcp_packet`. `answered` and `assured`: what the entry was before.
    pub fn take(&mut self, tcp: &Tcp, reply: bool, answered: bool, assured: bool) -> Judgement {
        let segment = Segment::of(tcp.flags);
        let before = self.state;
        let mut state = match step(before, segment, reply) {
            Move::Invalid => return Judgement::Invalid,
            Move::Ignore => match self.ignore(tcp, segment, reply) {
                Some(state) => state,
                None => return Judgement::Ignored,
            },
            Move::To(TcpState::SynSent) if before >= TcpState::TimeWait => {
                let reset = self.last.reply == reply && self.last.segment == Segment::Rst;
                if self.ends.iter().any(|end| end.closes) || reset {
                    return Judgement::Reopen;
                }
                match self.ignore(tcp, segment, reply) {
                    Some(state) => state,
                    None => return Judgement::Ignored,
                }
            }
            Move::To(state) => state,
        };
        // What came as an answer to an ignored SYN counts as one to the first.
        let before = if segment == Segment::SynAck && state == TcpState::SynRecv {
            TcpState::SynSent
        } else {
            before
        };
        let mut believed = false;
        match state {
            TcpState::TimeWait if self.is_challenge(before, segment, reply) => {
                self.challenge = false;
                return Judgement::Ignored;
            }
            TcpState::SynSent2 => self.simultaneous = true,
            TcpState::SynRecv if reply && segment == Segment::Ack && self.simultaneous => {
                state = TcpState::Established;
            }
            TcpState::Close if segment == Segment::Rst => {
                match self.reset(tcp, reply, answered, assured) {
                    Reset::Invalid => return Judgement::Invalid,
                    Reset::Doubtful => state = before,
                    Reset::Believed => believed = true,
                    Reset::Fine => {}
                }
            }
            _ => {}
        }
        if !believed {
            self.follow(tcp, reply);
        }
        (self.last.segment, self.last.reply) = (segment, reply);
        self.state = state;
        if before != state && state == TcpState::FinWait {
            self.ends[usize::from(reply)].closes = true;
        }
        Judgement::Moved(before, self.timeout(segment))
    }

    /// A segment that goes through without a change; the next state where it answers a SYN that
    /// went through like this: then the old connection is no more, and this is a new one.
    fn ignore(&mut self, tcp: &Tcp, segment: Segment, reply: bool) -> Option<TcpState> {
        let Last { segment: before, reply: of, end, .. } = self.last;
        if segment == Segment::SynAck && before == Segment::Syn && of != reply && tcp.ack == end {
            let (mine, other) = (usize::from(reply), usize::from(of));
            self.ends[other] = End { seen: true, end, limit: Some(end), ..End::default() };
            self.ends[mine] = End::default();
            return Some(TcpState::SynRecv);
        }
        let (seq, end) = (tcp.seq, end_of(tcp));
        self.last = Last { segment, reply, seq, end, window: true, ..self.last };
        if segment == Segment::Syn && !reply {
            // `last_flags` are written anew.
            self.simultaneous = false;
            self.challenge = self.state == TcpState::LastAck;
        }
        if self.state == TcpState::SynSent && segment == Segment::Ack && reply {
            self.last.ack = tcp.ack;
        }
        None
    }

    fn is_challenge(&self, before: TcpState, segment: Segment, reply: bool) -> bool {
        before == TcpState::LastAck
            && segment == Segment::Ack
            && self.last.reply != reply
            && self.last.segment == Segment::Syn
            && self.challenge
    }

    /// Whether a reset is one: its number has to be what the other end waits for, unless the
    /// connection is closing anyway.
    fn reset(&self, tcp: &Tcp, reply: bool, answered: bool, assured: bool) -> Reset {
        if self.state.is_closing() {
            return Reset::Fine;
        }
        // `nf_conntrack_tcp_established`
        let established = self.state == TcpState::Established && assured;
        let acked = self.ends[usize::from(!reply)].acked;
        if let Some(acked) = acked.filter(|_| self.last.segment != Segment::Syn) {
            if tcp.seq == 0 && !established {
                return Reset::Fine;
            }
            if after(acked, tcp.seq) {
                return Reset::Invalid;
            }
            let Last { segment, reply: of, end, .. } = self.last;
            let train = segment == Segment::Ack && of == reply && tcp.seq == end;
            if !established || tcp.seq == acked || train {
                return Reset::Fine;
            }
        }
        // To what went through unjudged, or to one half of an opening.
        let unjudged = match self.last.segment {
            Segment::Syn => answered,
            Segment::Ack => !assured,
            _ => false,
        };
        match (unjudged && tcp.ack == self.last.end, acked) {
            (true, _) => Reset::Believed,
            (false, Some(_)) if self.last.segment != Segment::Syn => Reset::Doubtful,
            _ => Reset::Fine,
        }
    }

    /// `tcp_in_window`, of which numbers that are not believed change nothing.
    fn follow(&mut self, tcp: &Tcp, reply: bool) {
        let (mine, other) = (usize::from(reply), usize::from(!reply));
        let flags = tcp.flags;
        let mut end = end_of(tcp);
        let (before, receiver) = (self.ends[mine], self.ends[other]);
        let opening = matches!(self.state, TcpState::SynSent | TcpState::SynRecv);
        if !before.seen {
            self.ends[mine] = End { seen: true, end, limit: flags.syn.then_some(end), ..before };
            if flags.syn && !flags.ack {
                return;
            }
            if !flags.syn {
                // Its history is lost, or this answers a keepalive.
                if !receiver.seen || tcp.ack == receiver.end.wrapping_add(1) {
                    self.ends[other].end = tcp.ack;
                }
            }
        } else if flags.syn && after(end, before.end) && opening {
            self.ends[mine] = End { seen: true, end, limit: Some(end), ..End::default() };
            if reply && !flags.ack {
                return;
            }
        }
        let theirs = self.ends[other].end;
        let broken = flags.rst && tcp.ack == 0;
        let ack = if flags.ack && !broken { tcp.ack } else { theirs };
        if flags.rst && tcp.seq == 0 && self.state == TcpState::SynSent {
            end = self.ends[mine].end;
        }
        let beyond = self.ends[mine].limit.is_some_and(|limit| after(tcp.seq, limit));
        if beyond && self.ends[other].seen && !after(ack, theirs) {
            // It may be acknowledged all the same.
            let sender = &mut self.ends[mine];
            (sender.end, sender.unacknowledged) = (end, true);
        }
        if beyond || after(ack, theirs) {
            return;
        }
        self.ends[other].limit = None;
        let sender = &mut self.ends[mine];
        if after(end, sender.end) {
            (sender.end, sender.unacknowledged) = (end, true);
        }
        if flags.ack {
            sender.acked = Some(sender.acked.filter(|acked| !after(ack, *acked)).unwrap_or(ack));
        }
        if ack == theirs {
            self.ends[other].unacknowledged = false;
        }
        if Segment::of(flags) == Segment::Ack {
            self.count_retrans(tcp.seq, ack, end, reply);
        }
    }

    fn count_retrans(&mut self, seq: u32, ack: u32, end: u32, reply: bool) {
        let Last { segment, reply: of, window, .. } = self.last;
        let before = (of, self.last.seq, self.last.ack, self.last.end, window);
        if before == (reply, seq, ack, end, true) {
            self.retrans = self.retrans.saturating_add(1);
        } else {
            self.last = Last { segment, reply, seq, ack, end, window: true };
            self.retrans = 0;
        }
    }

    /// How long the state lasts, after this segment.
    fn timeout(&self, segment: Segment) -> Duration {
        let timeout = self.state.timeout();
        let unacknowledged = self.ends.iter().any(|end| end.unacknowledged);
        if self.retrans >= MAX_RETRANS && timeout > UNSETTLED {
            UNSETTLED
        } else if segment == Segment::Rst {
            TcpState::Close.timeout()
        } else if unacknowledged || !self.last.window {
            timeout.min(UNSETTLED)
        } else {
            timeout
        }
    }
}

enum Reset {
    Fine,
    Invalid,
    /// The state stays, in case the other end challenges it.
    Doubtful,
    /// It ends the connection, whatever its numbers.
    Believed,
}

/// Of a connection that nobody has answered (`IPS_SEEN_REPLY` is not set).
pub(super) fn unanswered(before: TcpState, state: TcpState, tcp: &Tcp) -> Unanswered {
    if tcp.flags.rst && !mutated(Mutant::ResetEndsNothing) {
        Unanswered::Ends
    } else if Segment::of(tcp.flags) == Segment::Syn
        && before == TcpState::SynSent
        && !mutated(Mutant::SynRenews)
    {
        // Whoever sends it again and again must not keep the entry for ever.
        Unanswered::AsBefore
    } else if state == TcpState::Established {
        Unanswered::AtMost(UNSETTLED)
    } else {
        Unanswered::AtMost(Duration::MAX)
    }
}

pub(super) enum Unanswered {
    Ends,
    /// The timeout is not renewed.
    AsBefore,
    AtMost(Duration),
}

#[cfg(test)]
mod tests {
    use super::super::tcp_state::first;
    use super::*;
    use crate::kernel::packet::TcpFlags;

    fn flags(text: &str) -> Tcp {
        let has = |c| text.contains(c);
        let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
        Tcp { sport: 1, dport: 2, seq: 0, ack: 0, flags, len: 0 }
    }

    /// Segments as `>SA`: direction, then flags.
    fn run(segments: &[&str]) -> TcpState {
        let first = first(Segment::of(flags(segments[0]).flags)).expect("opens");
        let (mut track, _) = TcpTrack::new(first, &flags(segments[0]));
        for segment in &segments[1..] {
            track.take(&flags(segment), segment.starts_with('<'), true, true);
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
        let whole = [">S", "<SA", ">A", ">FA", "<A", "<FA", ">A"];
        let (mut done, _) = TcpTrack::new(TcpState::SynSent, &flags("S"));
        for segment in &whole[1..] {
            done.take(&flags(segment), segment.starts_with('<'), true, true);
        }
        assert_eq!(done.state, TcpState::TimeWait);
        assert_eq!(done.take(&flags("S"), false, true, true), Judgement::Reopen);
        let (mut open, _) = TcpTrack::new(TcpState::Established, &flags("A"));
        assert_eq!(open.take(&flags("S"), false, true, true), Judgement::Ignored);
        // The peer has rebooted and answers it: the old connection is no more.
        let answer = Tcp { ack: 1, ..flags("SA") };
        let judged = open.take(&answer, true, true, true);
        assert!(matches!(judged, Judgement::Moved(TcpState::SynSent, _)), "{judged:?}");
        assert_eq!(open.state, TcpState::SynRecv);
    }
}
