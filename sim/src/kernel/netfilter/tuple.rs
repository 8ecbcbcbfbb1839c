//! What identifies one direction of a connection.

use super::family::Filtered;
use crate::kernel::family::{Family, V4};
use crate::kernel::packet::{Icmp, L4, Packet, Quoted};
use kubesim_actors::ports::rules::Protocol;
use std::fmt;
use std::hash::{Hash, Hasher};

/// One direction of a connection. For ICMP, `sport` is the echo's id (the same in both
/// directions) and `dport` its type and code, as in `struct nf_conntrack_tuple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple<F: Family = V4> {
    pub src: F::Addr,
    pub dst: F::Addr,
    pub sport: u16,
    pub dport: u16,
    pub protocol: Protocol,
}

/// Type and code of an echo, as a tuple has them in `dport`.
fn echo<F: Filtered>(reply: bool) -> u16 {
    u16::from(F::ECHO[usize::from(reply)]) << 8
}

impl<F: Filtered> Tuple<F> {
    pub fn of(packet: &Packet<F>) -> Self {
        let (sport, dport) = match &packet.l4 {
            L4::Tcp(tcp) => (tcp.sport, tcp.dport),
            L4::Udp { sport, dport } => (*sport, *dport),
            L4::Icmp(Icmp::EchoRequest { id, .. }) => (*id, echo::<F>(false)),
            L4::Icmp(Icmp::EchoReply { id, .. }) => (*id, echo::<F>(true)),
            L4::Icmp(Icmp::Error { .. } | Icmp::Discovery(_)) => (0, 0),
        };
        Tuple { src: packet.src, dst: packet.dst, sport, dport, protocol: packet.protocol() }
    }

    /// Of the packet that an ICMP error quotes. Only requests are answered with errors.
    pub(super) fn quoted(about: &Quoted<F>) -> Self {
        let Quoted { src, dst, protocol, sport, dport, .. } = *about;
        let dport = if protocol == Protocol::Icmp { echo::<F>(false) } else { dport };
        Tuple { src, dst, sport, dport, protocol }
    }

    /// The other direction.
    pub fn inverse(&self) -> Self {
        let Tuple { src, dst, sport, dport, protocol } = *self;
        let (sport, dport) = match protocol {
            Protocol::Icmp => (sport, echo::<F>(dport == echo::<F>(false))),
            _ => (dport, sport),
        };
        Tuple { src: dst, dst: src, sport, dport, protocol }
    }
}

/// Of IPv4 two words: this is hashed for every packet.
impl<F: Family> Hash for Tuple<F> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let (src, dst) = (F::to_bits(self.src), F::to_bits(self.dst));
        if F::BITS == 32 {
            hasher.write_u64((src << 32 | dst) as u64);
        } else {
            hasher.write_u128(src);
            hasher.write_u128(dst);
        }
        let ports = u64::from(self.sport) << 16 | u64::from(self.dport);
        hasher.write_u64(ports << 8 | self.protocol as u64);
    }
}

/// As `conntrack -L` prints it.
impl<F: Family> fmt::Display for Tuple<F> {
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
