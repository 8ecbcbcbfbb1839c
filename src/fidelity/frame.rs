//! Frames as bytes, and back.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv4Slice, Icmpv4Type,
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, LinkSlice, NetSlice, PacketBuilder,
    SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice, icmpv4,
};
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::rules::Protocol;
use kubesim_sim::body::Body;
use kubesim_sim::kernel::packet::{
    Arp, Ct, Frame, Icmp, IcmpError, L4, Packet, Payload, Quoted, Tcp, TcpFlags,
};
use std::net::Ipv4Addr;

use icmpv4::DestUnreachableHeader as Unreachable;

/// Where vxlan is expected (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// Headers of IPv4, and of it with UDP.
const IP: u32 = 20;
const UDP: u32 = 28;

pub fn encode(frame: &Frame) -> Result<Vec<u8>, String> {
    let (src, dst) = (frame.src.0, frame.dst.0);
    let mut bytes = Vec::new();
    match &frame.payload {
        Payload::Arp(arp) => {
            let ether =
                Ethernet2Header { source: src, destination: dst, ether_type: EtherType::ARP };
            bytes.extend(ether.to_bytes());
            let written = arp_packet(arp)?.write(&mut bytes);
            written.map_err(|error| format!("writing an ARP packet: {error}"))?;
        }
        Payload::Ip(packet) => encode_ip(src, dst, packet, &mut bytes)?,
    }
    Ok(bytes)
}

fn arp_packet(arp: &Arp) -> Result<ArpPacket, String> {
    let operation = if arp.request { ArpOperation::REQUEST } else { ArpOperation::REPLY };
    ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &arp.sender_mac.0,
        &arp.sender_ip.octets(),
        &arp.target_mac.0,
        &arp.target_ip.octets(),
    )
    .map_err(|error| format!("making an ARP packet: {error}"))
}

fn encode_ip(src: [u8; 6], dst: [u8; 6], packet: &Packet, to: &mut Vec<u8>) -> Result<(), String> {
    let header = Ipv4Header {
        time_to_live: packet.ttl,
        dont_fragment: packet.dont_fragment,
        source: packet.src.octets(),
        destination: packet.dst.octets(),
        ..Ipv4Header::default()
    };
    let ip = IpHeaders::Ipv4(header, Ipv4Extensions::default());
    let builder = PacketBuilder::ethernet2(src, dst).ip(ip);
    let written = match &packet.l4 {
        L4::Udp { sport, dport } => {
            let payload = match &packet.body {
                Body::Vxlan { vni, frame } => {
                    let mut payload = vec![8, 0, 0, 0];
                    payload.extend((vni << 8).to_be_bytes());
                    payload.extend(encode(frame)?);
                    payload
                }
                _ => vec![0; packet.len.saturating_sub(UDP) as usize],
            };
            builder.udp(*sport, *dport).write(to, &payload)
        }
        L4::Tcp(tcp) => {
            let mut header = TcpHeader {
                syn: tcp.flags.syn,
                ack: tcp.flags.ack,
                fin: tcp.flags.fin,
                rst: tcp.flags.rst,
                acknowledgment_number: tcp.ack,
                ..TcpHeader::new(tcp.sport, tcp.dport, tcp.seq, 65_535)
            };
            // As every stack does; conntrack begins anew with a SYN's options (tcp_options).
            if tcp.flags.syn
                && header.set_options(&[TcpOptionElement::MaximumSegmentSize(1460)]).is_err()
            {
                return Err("no room for an option".to_owned());
            }
            builder.tcp_header(header).write(to, &vec![0; tcp.payload() as usize])
        }
        L4::Icmp(Icmp::EchoRequest { id, seq }) => {
            builder.icmpv4_echo_request(*id, *seq).write(to, &[])
        }
        L4::Icmp(Icmp::EchoReply { id, seq }) => {
            builder.icmpv4_echo_reply(*id, *seq).write(to, &[])
        }
        L4::Icmp(Icmp::Error { kind, about }) => {
            let kind = match kind {
                IcmpError::NetUnreachable => Unreachable::Network,
                IcmpError::HostUnreachable => Unreachable::Host,
                IcmpError::PortUnreachable => Unreachable::Port,
                IcmpError::AdminProhibited => Unreachable::FilterProhibited,
                IcmpError::FragmentationNeeded { mtu } => {
                    Unreachable::FragmentationNeeded { next_hop_mtu: *mtu as u16 }
                }
                IcmpError::TtlExceeded => {
                    let code = icmpv4::TimeExceededCode::TtlExceededInTransit;
                    let builder = builder.icmpv4(Icmpv4Type::TimeExceeded(code));
                    let written = builder.write(to, &quoted_bytes(about));
                    return written.map_err(|error| format!("writing a packet: {error}"));
                }
            };
            let kind = Icmpv4Type::DestinationUnreachable(kind);
            builder.icmpv4(kind).write(to, &quoted_bytes(about))
        }
    };
    written.map_err(|error| format!("writing a packet: {error}"))
}

/// The header of the packet that an error is about, and eight bytes more.
fn quoted_bytes(about: &Quoted) -> Vec<u8> {
    let protocol = match about.protocol {
        Protocol::Tcp => IpNumber::TCP,
        Protocol::Udp => IpNumber::UDP,
        Protocol::Icmp => IpNumber::ICMP,
        Protocol::Sctp => IpNumber::SCTP,
    };
    let (src, dst) = (about.src.octets(), about.dst.octets());
    let mut header = Ipv4Header { source: src, destination: dst, ..Ipv4Header::default() };
    header.time_to_live = 63;
    header.protocol = protocol;
    header.total_len = if about.protocol == Protocol::Tcp { 40 } else { 28 };
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = header.to_bytes().to_vec();
    let (sport, dport) = (about.sport.to_be_bytes(), about.dport.to_be_bytes());
    match about.protocol {
        Protocol::Icmp => {
            bytes.extend([8, 0, 0, 0]);
            bytes.extend(sport);
            bytes.extend([0, 1]);
        }
        Protocol::Udp => {
            bytes.extend(sport);
            bytes.extend(dport);
            bytes.extend([0, 8, 0, 0]);
        }
        Protocol::Tcp | Protocol::Sctp => {
            bytes.extend(sport);
            bytes.extend(dport);
            bytes.extend(about.seq.to_be_bytes());
        }
    }
    bytes
}

/// `None` for what the model does not speak (IPv6). The error is what else it is, in words.
pub fn decode(bytes: &[u8]) -> Option<Result<Frame, String>> {
    let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
    let Some(LinkSlice::Ethernet2(ether)) = &sliced.link else { return None };
    let (src, dst) = (Mac(ether.source()), Mac(ether.destination()));
    let payload = match sliced.net.as_ref()? {
        NetSlice::Arp(arp) => Ok(Payload::Arp(decode_arp(&arp.to_packet())?)),
        NetSlice::Ipv4(_) => decode_ip(&sliced)?.map(|packet| Payload::Ip(Box::new(packet))),
        _ => return None,
    };
    Some(payload.map(|payload| Frame { src, dst, payload }))
}

fn decode_arp(arp: &ArpPacket) -> Option<Arp> {
    let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let mac = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).ok().map(Mac);
    Some(Arp {
        request: arp.operation == ArpOperation::REQUEST,
        sender_mac: mac(arp.sender_hw_addr())?,
        sender_ip: ip(arp.sender_protocol_addr())?,
        target_mac: mac(arp.target_hw_addr())?,
        target_ip: ip(arp.target_protocol_addr())?,
    })
}

fn decode_ip(sliced: &SlicedPacket<'_>) -> Option<Result<Packet, String>> {
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return None };
    let header = ip.header();
    let (mut body, len) = (Body::Empty, u32::from(header.total_len()));
    let l4 = match sliced.transport.as_ref()? {
        TransportSlice::Udp(udp) => {
            let (sport, dport) = (udp.source_port(), udp.destination_port());
            if let (VXLAN_PORT, [8, 0, 0, 0, a, b, c, _, inner @ ..]) = (dport, udp.payload())
                && let Some(Ok(frame)) = decode(inner)
            {
                let vni = u32::from_be_bytes([0, *a, *b, *c]);
                body = Body::Vxlan { vni, frame: Box::new(frame) };
            }
            L4::Udp { sport, dport }
        }
        TransportSlice::Tcp(tcp) => {
            let flags = TcpFlags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() };
            L4::Tcp(Tcp {
                sport: tcp.source_port(),
                dport: tcp.destination_port(),
                seq: tcp.sequence_number(),
                ack: tcp.acknowledgment_number(),
                flags,
                len: tcp.payload().len() as u32,
            })
        }
        TransportSlice::Icmpv4(icmp) => match decode_icmp(icmp) {
            Ok(icmp) => L4::Icmp(icmp),
            Err(words) => return Some(Err(words)),
        },
        _ => return None,
    };
    Some(Ok(Packet {
        src: header.source_addr(),
        dst: header.destination_addr(),
        ttl: header.ttl(),
        dont_fragment: header.dont_fragment(),
        len,
        segment: len,
        l4,
        body,
        mark: 0,
        ct: Ct::None,
    }))
}

fn decode_icmp(icmp: &Icmpv4Slice<'_>) -> Result<Icmp, String> {
    let kind = match icmp.icmp_type() {
        Icmpv4Type::EchoRequest(echo) => {
            return Ok(Icmp::EchoRequest { id: echo.id, seq: echo.seq });
        }
        Icmpv4Type::EchoReply(echo) => return Ok(Icmp::EchoReply { id: echo.id, seq: echo.seq }),
        Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit) => {
            IcmpError::TtlExceeded
        }
        Icmpv4Type::DestinationUnreachable(Unreachable::Network) => IcmpError::NetUnreachable,
        Icmpv4Type::DestinationUnreachable(Unreachable::Host) => IcmpError::HostUnreachable,
        Icmpv4Type::DestinationUnreachable(Unreachable::Port) => IcmpError::PortUnreachable,
        Icmpv4Type::DestinationUnreachable(Unreachable::FilterProhibited) => {
            IcmpError::AdminProhibited
        }
        Icmpv4Type::DestinationUnreachable(Unreachable::FragmentationNeeded { next_hop_mtu }) => {
            IcmpError::FragmentationNeeded { mtu: next_hop_mtu.into() }
        }
        other => return Err(format!("{other:?}")),
    };
    let about = quoted(icmp.payload()).ok_or("an error about something short")?;
    Ok(Icmp::Error { kind, about })
}

fn quoted(bytes: &[u8]) -> Option<Quoted> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let l4 = IP as usize;
    let protocol = match bytes.get(9)? {
        1 => Protocol::Icmp,
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let (sport, dport, seq) = match protocol {
        Protocol::Icmp => (short(l4 + 4)?, 0, 0),
        Protocol::Tcp => (short(l4)?, short(l4 + 2)?, word(l4 + 4)?),
        _ => (short(l4)?, short(l4 + 2)?, 0),
    };
    let (src, dst) = (Ipv4Addr::from_bits(word(12)?), Ipv4Addr::from_bits(word(16)?));
    Some(Quoted { src, dst, protocol, sport, dport, seq })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(l4: L4, len: u32, body: Body) -> Packet {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 1, 0, 9));
        let (dont_fragment, ct) = (false, Ct::None);
        Packet { src, dst, ttl: 9, dont_fragment, len, segment: len, l4, body, mark: 0, ct }
    }

    fn back(payload: Payload) -> String {
        let frame = Frame { src: Mac([2; 6]), dst: Mac([4; 6]), payload };
        let bytes = encode(&frame).expect("bytes");
        let read = decode(&bytes).expect("IPv4 or ARP").expect("known");
        assert_eq!(format!("{frame:?}"), format!("{read:?}"));
        format!("{read:?}")
    }

    #[test]
    fn what_is_written_is_read() {
        let ip = |l4, len, body| Payload::Ip(Box::new(packet(l4, len, body)));
        let flags = TcpFlags { syn: true, ack: true, ..TcpFlags::default() };
        let tcp = Tcp { sport: 1, dport: 2, seq: 3, ack: 4, flags, len: 0 };
        // With the option that says the largest segment.
        back(ip(L4::Tcp(tcp), 44, Body::Empty));
        back(ip(L4::Icmp(Icmp::EchoRequest { id: 5, seq: 6 }), 28, Body::Empty));
        let (src, dst) = (Ipv4Addr::new(10, 1, 0, 9), Ipv4Addr::new(10, 0, 0, 9));
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            let (dport, seq) = if protocol == Protocol::Tcp { (8, 9) } else { (0, 0) };
            let about = Quoted { src, dst, protocol, sport: 7, dport, seq };
            let kind = IcmpError::FragmentationNeeded { mtu: 1400 };
            back(ip(L4::Icmp(Icmp::Error { kind, about }), 56, Body::Empty));
        }
        let (sender_mac, target_mac) = (Mac([2; 6]), Mac([0; 6]));
        let (request, sender_ip, target_ip) = (true, src, dst);
        let arp = Arp { request, sender_mac, sender_ip, target_mac, target_ip };
        back(Payload::Arp(arp));
        let inner = Frame { src: Mac([6; 6]), dst: Mac([8; 6]), payload: Payload::Arp(arp) };
        let body = Body::Vxlan { vni: 77, frame: Box::new(inner) };
        let udp = L4::Udp { sport: 40_000, dport: VXLAN_PORT };
        assert!(back(ip(udp, 78, body)).contains("vni: 77"));
    }
}
