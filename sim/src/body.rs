//! What modelled packets carry: typed messages instead of bytes. Their length on the wire is
//! given beside them.

use kubesim_actors::dns::message::Message as DnsMessage;
use kubesim_actors::netd::peer::Signed;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::packet::Frame;

/// Of these only [`Body::Empty`] and [`Body::Vxlan`] can be written down.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    #[default]
    Empty,
    /// A frame inside a vxlan datagram.
    Vxlan { vni: u32, frame: Box<Frame> },
    #[serde(skip)]
    Wireguard(Box<crate::kernel::WireguardMessage>),
    #[serde(skip)]
    Dns(Arc<DnsMessage>),
    #[serde(skip)]
    Peer(Arc<Signed>),
    #[serde(skip)]
    Dhcp(Arc<Dhcp>),
    #[serde(skip)]
    HttpRequest { path: SmolStr },
    #[serde(skip)]
    HttpResponse { status: u16, text: SmolStr },
    /// Number `seq` of an application's stream of small messages.
    #[serde(skip)]
    Stream { seq: u64 },
    #[serde(skip)]
    Text(SmolStr),
    /// What a machine played elsewhere sent and no model reads.
    #[serde(skip)]
    Raw(Arc<Raw>),
    /// A message between an API client and an API server.
    #[serde(skip)]
    Api(Arc<crate::world::api::Message>),
}

/// The parts of an IPv4 packet from outside that no model looks at, so that it leaves as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    pub tos: u8,
    pub id: u16,
    /// The transport's header and what follows.
    pub payload: Vec<u8>,
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
