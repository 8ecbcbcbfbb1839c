//! Frames and packets, typed.

use super::family::{Family, V4, V6};
use crate::body::Body;
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::rules::Protocol;
use kubesim_runtime::Hasher;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    pub src: Mac,
    pub dst: Mac,
    pub payload: Payload,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    Arp(Arp),
    Ip(Box<Packet>),
    Ip6(Box<Packet<V6>>),
}

/// RFC 826. A gratuitous one names one address twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arp {
    pub request: bool,
    pub sender_mac: Mac,
    pub sender_ip: Ipv4Addr,
    pub target_mac: Mac,
    pub target_ip: Ipv4Addr,
}

/// An IP packet, or several segments of one size that travel as one (as Linux' GSO/GRO has it).
/// What is local to a machine is not written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Packet<F: Family = V4> {
    pub src: F::Addr,
    pub dst: F::Addr,
    /// IPv6's hop limit.
    pub ttl: u8,
    /// Of IPv6 it says nothing: routers never fragment it (RFC 8200, section 5).
    pub dont_fragment: bool,
    /// Bytes of IP in all, headers of one packet included.
    pub len: u32,
    /// Bytes of IP of the largest segment: what an MTU is compared with.
    pub segment: u32,
    pub l4: L4<F>,
    pub body: Body,
    /// `skb->mark`: local to the machine.
    #[serde(skip)]
    pub mark: u32,
    /// The conntrack entry this packet belongs to: local to the machine's namespace.
    #[serde(skip)]
    pub ct: Ct,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ct {
    /// Conntrack has not seen it.
    #[default]
    None,
    Untracked,
    Invalid,
    /// An answer to what is not tracked: it has no entry and is not new (nf_conntrack_attach,
    /// net/netfilter/nf_conntrack_core.c, leaves `IP_CT_RELATED` without one), so that NOTRACK
    /// lets it be and conntrack looks for one.
    Attached,
    /// An entry by its number, the direction, and whether this packet made it (NEW).
    Entry {
        id: u32,
        reply: bool,
        new: bool,
        related: bool,
    },
}

impl Ct {
    /// It has nothing of conntrack (`_nfct` is 0): nor has what was found to be invalid, which is
    /// looked at anew, or not tracked, where it comes in again by the loopback.
    pub fn is_unseen(self) -> bool {
        matches!(self, Ct::None | Ct::Invalid)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "", rename_all = "snake_case", deny_unknown_fields)]
pub enum L4<F: Family = V4> {
    Tcp(Tcp),
    Udp { sport: u16, dport: u16 },
    Icmp(Icmp<F>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: TcpFlags,
    /// Bytes of payload; of a SYN, which carries none, the value of its MSS option (RFC 9293).
    pub len: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpFlags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

/// RFC 792, or RFC 4443.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "", rename_all = "snake_case", deny_unknown_fields)]
pub enum Icmp<F: Family = V4> {
    EchoRequest {
        id: u16,
        seq: u16,
    },
    EchoReply {
        id: u16,
        seq: u16,
    },
    /// An error about the packet that `about` names.
    Error {
        kind: F::Error,
        about: Quoted<F>,
    },
    /// Of IPv6 only.
    Discovery(F::Discovery),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IcmpError {
    NetUnreachable,
    HostUnreachable,
    PortUnreachable,
    /// Fragmentation needed and DF set, with the next hop's MTU (RFC 1191).
    FragmentationNeeded {
        mtu: u32,
    },
    AdminProhibited,
    TtlExceeded,
}

/// As ping(8) has it.
impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IcmpError::NetUnreachable => f.write_str("destination net unreachable"),
            IcmpError::HostUnreachable => f.write_str("destination host unreachable"),
            IcmpError::PortUnreachable => f.write_str("destination port unreachable"),
            IcmpError::FragmentationNeeded { mtu } => {
                write!(f, "frag needed and DF set (mtu = {mtu})")
            }
            IcmpError::AdminProhibited => f.write_str("packet filtered"),
            IcmpError::TtlExceeded => f.write_str("time to live exceeded"),
        }
    }
}

/// What ICMPv6 complains of (RFC 4443, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Icmp6Error {
    NoRoute,
    AdminProhibited,
    /// The source address means nothing where the destination is.
    BeyondScope,
    AddressUnreachable,
    PortUnreachable,
    /// With the next hop's MTU.
    PacketTooBig {
        mtu: u32,
    },
    HopLimitExceeded,
}

/// As ping(8) has it.
impl fmt::Display for Icmp6Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Icmp6Error::NoRoute => "destination unreachable: no route",
            Icmp6Error::AdminProhibited => "destination unreachable: administratively prohibited",
            Icmp6Error::BeyondScope => "destination unreachable: beyond scope of source address",
            Icmp6Error::AddressUnreachable => "destination unreachable: address unreachable",
            Icmp6Error::PortUnreachable => "destination unreachable: port unreachable",
            Icmp6Error::PacketTooBig { mtu } => return write!(f, "packet too big: mtu={mtu}"),
            Icmp6Error::HopLimitExceeded => "time exceeded: hop limit",
        })
    }
}

/// Messages of neighbour discovery (RFC 4861, sections 4.3 and 4.4). The hop limit of their
/// packets is 255, so that they cannot have passed a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Discovery {
    /// Who has `target`? `source`: the sender's own MAC address, where it says it.
    Solicitation { target: Ipv6Addr, source: Option<Mac> },
    /// `target` is at `link`.
    Advertisement { target: Ipv6Addr, flags: Advertised, link: Option<Mac> },
}

/// R, S and O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertised {
    /// Who says it is a router.
    pub router: bool,
    /// It answers a question.
    pub solicited: bool,
    /// A MAC address that is known otherwise is wrong.
    pub overrides: bool,
}

impl Discovery {
    /// ICMPv6's number of it.
    pub fn kind(&self) -> u8 {
        match self {
            Discovery::Solicitation { .. } => 135,
            Discovery::Advertisement { .. } => 136,
        }
    }
    pub fn target(&self) -> Ipv6Addr {
        match self {
            Discovery::Solicitation { target, .. } | Discovery::Advertisement { target, .. } => {
                *target
            }
        }
    }
    /// Its option of source or target link-layer address.
    pub fn link_address(&self) -> Option<Mac> {
        match self {
            Discovery::Solicitation { source, .. } => *source,
            Discovery::Advertisement { link, .. } => *link,
        }
    }
    /// The octet that follows the checksum.
    pub fn flags(&self) -> u8 {
        match self {
            Discovery::Solicitation { .. } => 0,
            Discovery::Advertisement { flags, .. } => {
                let Advertised { router, solicited, overrides } = *flags;
                u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(overrides) << 5
            }
        }
    }
}

/// The header that an ICMP error quotes. For echo requests the ports are the id and 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Quoted<F: Family = V4> {
    pub src: F::Addr,
    pub dst: F::Addr,
    pub protocol: Protocol,
    pub sport: u16,
    pub dport: u16,
    /// TCP's sequence number; 0 for others.
    pub seq: u32,
}

impl Tcp {
    /// Bytes of payload.
    pub fn payload(&self) -> u32 {
        if self.flags.syn { 0 } else { self.len }
    }
    /// How far it moves the sequence: its payload, and one each for SYN and FIN.
    pub fn span(&self) -> u32 {
        self.payload() + u32::from(self.flags.syn) + u32::from(self.flags.fin)
    }
}

impl<F: Family> Packet<F> {
    /// ICMP is that of the family.
    pub fn protocol(&self) -> Protocol {
        match self.l4 {
            L4::Tcp(_) => Protocol::Tcp,
            L4::Udp { .. } => Protocol::Udp,
            L4::Icmp(_) => Protocol::Icmp,
        }
    }
    /// Source and destination port; an echo's id stands for both (as conntrack has it), 0 for
    /// errors and for discovery.
    pub fn ports(&self) -> (u16, u16) {
        match &self.l4 {
            L4::Tcp(tcp) => (tcp.sport, tcp.dport),
            L4::Udp { sport, dport } => (*sport, *dport),
            L4::Icmp(Icmp::EchoRequest { id, .. } | Icmp::EchoReply { id, .. }) => (*id, *id),
            L4::Icmp(Icmp::Error { .. } | Icmp::Discovery(_)) => (0, 0),
        }
    }
}

impl Frame {
    /// What of a frame counts for the digest of a run: all that kernels decide by.
    pub fn digest(&self, hasher: &mut Hasher) {
        match &self.payload {
            Payload::Arp(arp) => {
                V4::digest_pair(arp.sender_ip, arp.target_ip, hasher);
                hasher.u64(u64::from(arp.request));
            }
            Payload::Ip(packet) => packet.digest(hasher),
            Payload::Ip6(packet) => packet.digest(hasher),
        }
    }
}

impl<F: Family> Packet<F> {
    pub(super) fn digest(&self, hasher: &mut Hasher) {
        F::digest_pair(self.src, self.dst, hasher);
        let (sport, dport) = self.ports();
        let ports = u64::from(sport) << 16 | u64::from(dport);
        hasher.u64(u64::from(self.len) << 40 | u64::from(self.ttl) << 32 | ports);
        match &self.l4 {
            L4::Tcp(tcp) => {
                let TcpFlags { syn, ack, fin, rst } = tcp.flags;
                let flags =
                    [syn, ack, fin, rst].iter().fold(0, |bits, f| bits << 1 | u64::from(*f));
                hasher.u64(u64::from(tcp.seq) << 32 | u64::from(tcp.ack));
                hasher.u64(1 << 8 | flags);
            }
            L4::Udp { .. } => hasher.u64(2 << 8),
            L4::Icmp(Icmp::EchoRequest { seq, .. }) => hasher.u64(3 << 16 | u64::from(*seq)),
            L4::Icmp(Icmp::EchoReply { seq, .. }) => hasher.u64(4 << 16 | u64::from(*seq)),
            L4::Icmp(Icmp::Error { about, .. }) => F::digest_one(5, about.dst, hasher),
            L4::Icmp(Icmp::Discovery(message)) => F::digest_discovery(message, hasher),
        }
        if let Body::Vxlan { frame, .. } = &self.body {
            frame.digest(hasher);
        }
        if let Body::Wireguard(message) = &self.body {
            message.digest(hasher);
        }
    }
}
