//! UDP datagrams of the node itself (host network): DNS, and what netds tell each other.
//! A driver encodes and decodes at the edge; here messages are typed.

use crate::dns::message::Message as DnsMessage;
use crate::netd::peer::Signed;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use std::hash::Hash;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Listens on a UDP port, on one address or on all (0.0.0.0). Datagrams come until it closes.
    Bind { address: Ipv4Addr, port: u16 },
    /// `from_port` must be bound. From `from` if it is given, so that an answer leaves from the
    /// address that was asked; else from the address the route prefers.
    Send { from: Option<Ipv4Addr>, from_port: u16, to: SocketAddrV4, body: Body },
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
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        match self {
            Request::Bind { .. } => Answers::Stream,
            Request::Send { .. } => Answers::None,
        }
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        self.hash(hasher);
    }
}
