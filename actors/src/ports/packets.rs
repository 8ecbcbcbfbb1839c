//! What the node itself (host network) says by UDP: DNS, and what netds tell each other. And DNS
//! over TCP (RFC 7766), for answers that no datagram holds.
//! A driver encodes, decodes and frames at the edge; here messages are typed and whole.

use crate::dns::message::Message as DnsMessage;
use crate::netd::peer::Signed;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use std::hash::Hash;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// A connection that queries come over. A driver gives each a number of its own, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// Connections that queries come over, at once and together for one who listens: BIND's
/// `tcp-clients`. One more is closed before it says anything.
pub const MAX_CONNECTIONS: usize = 150;
/// One on which no whole message came or went for so long is closed (RFC 7766, section 6.2.3;
/// `IdleTimeout` of miekg/dns, the library of CoreDNS).
pub const IDLE: Duration = Duration::from_secs(8);
/// An answer over TCP that is not there by then does not come. Longer than any asker waits, so
/// that it is he who decides when to ask another.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Listens on a UDP port, on one address or on all (0.0.0.0). Datagrams come until it closes.
    Bind { address: Ipv4Addr, port: u16 },
    /// `from_port` must be bound. From `from` if it is given, so that an answer leaves from the
    /// address that was asked; else from the address the route prefers.
    Send { from: Option<Ipv4Addr>, from_port: u16, to: SocketAddrV4, body: Body },
    /// Listens for DNS over TCP on one address or on all (0.0.0.0). Queries come until it closes,
    /// any number over one connection; see [`MAX_CONNECTIONS`] and [`IDLE`].
    Listen { address: Ipv4Addr, port: u16 },
    /// Answers a query, in whatever order (RFC 7766, section 6.2.1.1). A connection that is gone
    /// takes no answer.
    Respond { connection: Connection, message: Arc<DnsMessage> },
    /// Asks a server over a connection of its own, which closes with the answer. Told is
    /// [`Reply::Answer`], or [`Reply::Unanswered`] after [`PATIENCE`] at the latest.
    Ask { to: SocketAddrV4, message: Arc<DnsMessage> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    Dns(Arc<DnsMessage>),
    Peer(Arc<Signed>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Datagram {
        local: SocketAddrV4,
        from: SocketAddrV4,
        body: Body,
    },
    /// The port could not be bound.
    BindFailed {
        port: u16,
        why: crate::ports::network::Errno,
    },
    /// An ICMP error came back for what was sent there.
    Unreachable {
        to: SocketAddrV4,
    },
    /// A query that came over a connection.
    Query {
        connection: Connection,
        message: Arc<DnsMessage>,
    },
    /// Nobody can connect to the port: another listens, or the address is not ours.
    ListenFailed {
        port: u16,
        why: crate::ports::network::Errno,
    },
    /// Of [`Request::Ask`]: a response with the id that was asked under.
    Answer {
        from: SocketAddrV4,
        message: Arc<DnsMessage>,
    },
    /// Of [`Request::Ask`]: no connection, or it ended before the answer to `id` came.
    Unanswered {
        by: SocketAddrV4,
        id: u16,
    },
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        match self {
            Request::Bind { .. } | Request::Listen { .. } => Answers::Stream,
            Request::Send { .. } | Request::Respond { .. } => Answers::None,
            Request::Ask { .. } => Answers::One,
        }
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        self.hash(hasher);
    }
}
