//! What the modelled wire says, in bytes: the parts that the lab and `kubesim fidelity` read and
//! write alike.

use etherparse::icmpv4::{DestUnreachableHeader as Unreachable, TimeExceededCode};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, ArpPacketSlice, EtherType, Icmpv4Type, IpNumber,
    Ipv4Header, Ipv4HeaderSlice,
};
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::rules::Protocol;
use kubesim_sim::kernel::packet::{Arp, IcmpError, Quoted};
use std::net::Ipv4Addr;

/// RFC 826, of IPv4 on Ethernet. `None` for another kind.
pub fn read_arp(found: &ArpPacketSlice<'_>) -> Option<Arp> {
    let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let mac = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).ok().map(Mac);
    Some(Arp {
        request: found.operation() == ArpOperation::REQUEST,
        sender_mac: mac(found.sender_hw_addr())?,
        sender_ip: ip(found.sender_protocol_addr())?,
        target_mac: mac(found.target_hw_addr())?,
        target_ip: ip(found.target_protocol_addr())?,
    })
}

/// The bytes of an ARP packet, without its Ethernet header.
pub fn arp_bytes(arp: &Arp) -> Option<Vec<u8>> {
    let operation = if arp.request { ArpOperation::REQUEST } else { ArpOperation::REPLY };
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &arp.sender_mac.0,
        &arp.sender_ip.octets(),
        &arp.target_mac.0,
        &arp.target_ip.octets(),
    );
    Some(packet.ok()?.to_bytes().to_vec())
}

/// What an ICMP error says, if the model has a word for it.
pub fn error_kind(kind: &Icmpv4Type) -> Option<IcmpError> {
    let unreachable = match kind {
        Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit) => {
            return Some(IcmpError::TtlExceeded);
        }
        Icmpv4Type::DestinationUnreachable(unreachable) => unreachable,
        _ => return None,
    };
    Some(match unreachable {
        Unreachable::Network => IcmpError::NetUnreachable,
        Unreachable::Host => IcmpError::HostUnreachable,
        Unreachable::Port => IcmpError::PortUnreachable,
        Unreachable::FilterProhibited => IcmpError::AdminProhibited,
        Unreachable::FragmentationNeeded { next_hop_mtu } => {
            IcmpError::FragmentationNeeded { mtu: (*next_hop_mtu).into() }
        }
        _ => return None,
    })
}

pub fn error_type(kind: IcmpError) -> Icmpv4Type {
    Icmpv4Type::DestinationUnreachable(match kind {
        IcmpError::TtlExceeded => {
            return Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit);
        }
        IcmpError::NetUnreachable => Unreachable::Network,
        IcmpError::HostUnreachable => Unreachable::Host,
        IcmpError::PortUnreachable => Unreachable::Port,
        IcmpError::AdminProhibited => Unreachable::FilterProhibited,
        IcmpError::FragmentationNeeded { mtu } => {
            let next_hop_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            Unreachable::FragmentationNeeded { next_hop_mtu }
        }
    })
}

/// The header that an error quotes, and the first eight bytes after it (RFC 792).
pub fn read_quoted(bytes: &[u8]) -> Option<Quoted> {
    let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let rest = bytes.get(usize::from(header.ihl()) * 4..)?;
    let pair =
        |at: usize| rest.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (protocol, sport, dport) = match header.protocol() {
        IpNumber::TCP => (Protocol::Tcp, pair(0)?, pair(2)?),
        IpNumber::UDP => (Protocol::Udp, pair(0)?, pair(2)?),
        // An echo's identifier.
        IpNumber::ICMP => (Protocol::Icmp, pair(4)?, 0),
        _ => return None,
    };
    let seq = match protocol {
        Protocol::Tcp => u32::from(pair(4)?) << 16 | u32::from(pair(6)?),
        _ => 0,
    };
    let (src, dst) = (header.source_addr(), header.destination_addr());
    Some(Quoted { src, dst, protocol, sport, dport, seq })
}

/// As much of the packet in question as an error says: its header and eight bytes. It had passed
/// one router.
pub fn quoted_bytes(about: &Quoted) -> Option<Vec<u8>> {
    const TTL: u8 = 63;
    let (protocol, payload) = match about.protocol {
        Protocol::Tcp => (IpNumber::TCP, 20),
        Protocol::Udp => (IpNumber::UDP, 8),
        Protocol::Icmp => (IpNumber::ICMP, 8),
        Protocol::Sctp => (IpNumber::SCTP, 8),
    };
    let (src, dst) = (about.src.octets(), about.dst.octets());
    let mut header = Ipv4Header::new(payload, TTL, protocol, src, dst).ok()?;
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = header.to_bytes().to_vec();
    let [a, b] = about.sport.to_be_bytes();
    let [c, d] = about.dport.to_be_bytes();
    let [e, f, g, h] = about.seq.to_be_bytes();
    bytes.extend(match about.protocol {
        Protocol::Icmp => [8, 0, 0, 0, a, b, 0, 1],
        Protocol::Udp => [a, b, c, d, 0, 8, 0, 0],
        Protocol::Tcp | Protocol::Sctp => [a, b, c, d, e, f, g, h],
    });
    Some(bytes)
}
