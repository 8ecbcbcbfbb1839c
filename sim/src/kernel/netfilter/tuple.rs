//! What identifies one direction of a connection.

use crate::kernel::packet::{Icmp, L4, Packet, Quoted};
use kubesim_actors::ports::rules::Protocol;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

/// Echo request and reply, as a tuple has them in `dport`: type and code.
const ECHO_REQUEST: u16 = 8 << 8;
const ECHO_REPLY: u16 = 0;

/// One direction of a connection. For ICMP, `sport` is the echo's id (the same in both
/// directions) and `dport` its type and code, as in `struct nf_conntrack_tuple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub sport: u16,
    pub dport: u16,
    pub protocol: Protocol,
}

impl Tuple {
    pub fn of(packet: &Packet) -> Tuple {
        let (sport, dport) = match &packet.l4 {
            L4::Tcp(tcp) => (tcp.sport, tcp.dport),
            L4::Udp { sport, dport } => (*sport, *dport),
            L4::Icmp(Icmp::EchoRequest { id, .. }) => (*id, ECHO_REQUEST),
            L4::Icmp(Icmp::EchoReply { id, .. }) => (*id, ECHO_REPLY),
            L4::Icmp(Icmp::Error { .. } | Icmp::Discovery(_)) => (0, 0),
        };
        Tuple { src: packet.src, dst: packet.dst, sport, dport, protocol: packet.protocol() }
    }

    /// Of the packet that an ICMP error quotes. Only requests are answered with errors.
    pub(super) fn quoted(about: &Quoted) -> Tuple {
        let Quoted { src, dst, protocol, sport, dport, .. } = *about;
        let dport = if protocol == Protocol::Icmp { ECHO_REQUEST } else { dport };
        Tuple { src, dst, sport, dport, protocol }
    }

    /// The other direction.
    pub fn inverse(&self) -> Tuple {
        let Tuple { src, dst, sport, dport, protocol } = *self;
        let (sport, dport) = match (protocol, dport) {
            (Protocol::Icmp, ECHO_REQUEST) => (sport, ECHO_REPLY),
            (Protocol::Icmp, _) => (sport, ECHO_REQUEST),
            _ => (dport, sport),
        };
        Tuple { src: dst, dst: src, sport, dport, protocol }
    }
}

/// Two words: this is hashed for every packet.
impl Hash for Tuple {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(u64::from(self.src.to_bits()) << 32 | u64::from(self.dst.to_bits()));
        let ports = u64::from(self.sport) << 16 | u64::from(self.dport);
        hasher.write_u64(ports << 8 | self.protocol as u64);
    }
}

/// As `conntrack -L` prints it.
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src={} dst={} ", self.src, self.dst)?;
        match self.protocol {
            Protocol::Icmp => {
                let (kind, code) = (self.dport >> 8, self.dport & 0xff);
                write!(f, "type={kind} code={code} id={}", self.sport)
            }
            _ => write!(f, "sport={} dport={}", self.sport, self.dport),
        }
    }
}
