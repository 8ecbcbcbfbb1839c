//! TCP (net/ipv4/tcp*.c): the handshake, a reliable sequence of messages, retransmission times,
//! what ICMP errors do to it, and its end.
//!
//! An application sends messages; the sequence is cut into super-packets of up to 64 KB as GSO
//! has them. The body of a message travels with its last byte.
//!
//! Simplifications: the window is wide open and there is no congestion control, so all that is
//! written leaves at once, but nothing new leaves between a retransmission timeout and the next
//! acknowledgement. No SACK, TLP, RACK or keepalive (which is off by default). RTTs are sampled
//! by Karn's rule, not by timestamps, though the option's 12 bytes are counted. TIME_WAIT is
//! empty: a socket is gone once both directions are done, and a FIN that comes again is answered
//! with RST, which ends a peer that is done as well.

mod api;
mod input;
mod output;
mod timer;

use super::{Errno, SocketId};
use crate::body::Body;
use kubesim_runtime::{Time, near};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// IPv4 and TCP with the timestamp option.
const HEADERS: u32 = 52;
/// IPv4 and TCP with the options of a SYN.
const SYN_HEADERS: u32 = 60;
/// IPv4 and TCP without options: the difference of MTU and MSS.
const BARE_HEADERS: u32 = 40;
/// What one super-packet carries at most.
const MAX_PAYLOAD: u32 = 65_160;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    SynSent,
    SynReceived,
    /// And everything after it: which sides are done says [`Connection::fin_acked`] and
    /// [`Connection::fin_received`].
    Established,
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    local: SocketAddrV4,
    peer: SocketAddrV4,
    state: State,
    listener: Option<SocketId>,

    /// Oldest byte not acknowledged, next byte never sent, next byte to write.
    una: u32,
    nxt: u32,
    written: u32,
    /// What is not acknowledged; the first `sent` are on their way.
    queue: VecDeque<Segment>,
    sent: usize,
    fin_queued: bool,
    fin_acked: bool,

    rtt: Rtt,
    /// The timeout in force, backed off.
    rto: Duration,
    backoff: u8,
    retransmits: u8,
    /// When the first retransmission since the last progress was.
    retransmitting_since: Time,
    rto_at: Time,
    dup_acks: u8,
    /// Fast recovery lasts until this is acknowledged.
    recover: Option<u32>,
    soft_error: Option<Errno>,

    rcv_nxt: u32,
    /// Segments that came before their time, by sequence.
    early: Vec<Arrived>,
    /// Bytes received of a message that is not complete.
    partial: u32,
    fin_received: bool,
    /// Bytes not acknowledged to the peer, and when that is due at the latest.
    owed: u32,
    ack_at: Time,

    peer_mss: u32,
    path: Path,
}

impl Connection {
    /// Asks for the memory that an alarm touches.
    pub fn approach(&self) {
        near::value(&self.local);
        near::value(&self.queue);
        near::value(&self.rto_at);
        near::value(&self.early);
        near::value(&self.ack_at);
    }
}

#[derive(Clone, Debug)]
struct Segment {
    seq: u32,
    len: u32,
    syn: bool,
    fin: bool,
    body: Body,
    /// Of the last transmission; NEVER: none yet.
    sent_at: Time,
    again: bool,
}

#[derive(Clone, Debug)]
struct Arrived {
    seq: u32,
    len: u32,
    fin: bool,
    body: Body,
}

/// What routing said, as of a generation of the forwarding table.
#[derive(Clone, Copy, Debug)]
struct Path {
    generation: Option<u32>,
    mtu: u32,
    says_df: bool,
    next_hop: Option<(u32, Ipv4Addr)>,
    confirmed: Time,
}

/// RFC 6298 as Linux has it (tcp_rtt_estimator): the variance term is at least 200 ms.
#[derive(Clone, Copy, Debug, Default)]
struct Rtt {
    smoothed: Option<Duration>,
    variance: Duration,
}

impl Rtt {
    const MIN_RTO: Duration = Duration::from_millis(200);
    const INITIAL_RTO: Duration = Duration::from_secs(1);
    const MAX_RTO: Duration = Duration::from_secs(120);

    fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variance = rtt / 2;
            }
            Some(smoothed) => {
                let error = smoothed.abs_diff(rtt);
                self.variance = (self.variance * 3 + error) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    fn timeout(&self) -> Duration {
        match self.smoothed {
            None => Self::INITIAL_RTO,
            Some(smoothed) => {
                (smoothed + (self.variance * 4).max(Self::MIN_RTO)).min(Self::MAX_RTO)
            }
        }
    }

    fn backed_off(&self, backoff: u8) -> Duration {
        let factor = 1u32.checked_shl(u32::from(backoff)).unwrap_or(u32::MAX);
        self.timeout().saturating_mul(factor).min(Self::MAX_RTO)
    }
}

/// `a` is before `b` in sequence space.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Segment {
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len + u32::from(self.syn) + u32::from(self.fin))
    }
}

impl Connection {
    fn new(local: SocketAddrV4, peer: SocketAddrV4, state: State, iss: u32) -> Self {
        let rtt = Rtt::default();
        let mut connection = Connection {
            local,
            peer,
            state,
            listener: None,
            una: iss,
            nxt: iss,
            written: iss,
            queue: VecDeque::new(),
            sent: 0,
            fin_queued: false,
            fin_acked: false,
            rtt,
            rto: rtt.timeout(),
            backoff: 0,
            retransmits: 0,
            retransmitting_since: Time::ZERO,
            rto_at: Time::NEVER,
            dup_acks: 0,
            recover: None,
            soft_error: None,
            rcv_nxt: 0,
            early: Vec::new(),
            partial: 0,
            fin_received: false,
            owed: 0,
            ack_at: Time::NEVER,
            peer_mss: 536,
            path: Path {
                generation: None,
                mtu: 1500,
                says_df: true,
                next_hop: None,
                confirmed: Time::ZERO,
            },
        };
        connection.write(0, true, false, Body::Empty);
        connection
    }

    /// Appends to what is to be sent.
    fn write(&mut self, len: u32, syn: bool, fin: bool, body: Body) {
        let seq = self.written;
        let (sent_at, again) = (Time::NEVER, false);
        let segment = Segment { seq, len, syn, fin, body, sent_at, again };
        self.written = segment.end();
        self.queue.push_back(segment);
    }

    fn deadline(&self) -> Time {
        self.rto_at.min(self.ack_at)
    }
    /// The oldest byte that is not acknowledged.
    #[cfg(test)]
    pub fn oldest(&self) -> u32 {
        self.una
    }
    /// Both directions are done.
    fn is_done(&self) -> bool {
        self.fin_acked && self.fin_received
    }
}
