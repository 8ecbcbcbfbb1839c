//! What modelled packets carry: typed messages instead of bytes. Their length on the wire is
//! given beside them.

use kubesim_actors::dns::message::Message as DnsMessage;
use kubesim_actors::netd::peer::Signed;
use smol_str::SmolStr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::packet::Frame;

#[derive(Clone, Debug, Default)]
pub enum Body {
    #[default]
    Empty,
    /// A frame inside a vxlan datagram.
    Vxlan {
        vni: u32,
        frame: Box<Frame>,
    },
    Dns(Arc<DnsMessage>),
    Peer(Arc<Signed>),
    Dhcp(Arc<Dhcp>),
    HttpRequest {
        path: SmolStr,
    },
    HttpResponse {
        status: u16,
        text: SmolStr,
    },
    /// Number `seq` of an application's stream of small messages.
    Stream {
        seq: u64,
    },
    Text(SmolStr),
    /// A message between an API client and an API server.
    Api(Arc<crate::world::api::Message>),
}

/// A DHCP message (RFC 2131), as much of it as lease and renewal need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp {
    pub kind: DhcpKind,
    pub transaction: u32,
    pub client: kubesim_actors::ports::network::Mac,
    /// The address offered, requested or leased.
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    pub router: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub lease: Duration,
    pub server: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpKind {
    Discover,
    Offer,
    Request,
    Ack,
    Nak,
    Release,
}
