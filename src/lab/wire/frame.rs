//! Ethernet frames: the modelled wire's from and to a real kernel's.
//!
//! What no model reads travels as it came ([`Raw`]), so that two real kernels see each other's
//! packets whole; addresses, ports and the TTL, which a modelled router changes, are written anew
//! with their checksums. What the wire has no word for (IPv6, IGMP, fragments) is `None`.

use super::dhcp;
use crate::frames;
use etherparse::{
    ArpPacketSlice, EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Slice,
    Icmpv4Type, IpNumber, Ipv4Header, Ipv4HeaderSlice, TcpHeader, TcpHeaderSlice, UdpHeader,
    UdpHeaderSlice,
};
use kubesim_actors::ports::network::Mac;
use kubesim_backends::packets::dns;
use kubesim_sim::body::{Body, Raw};
use kubesim_sim::kernel::packet::{Arp, Ct, Frame, Icmp, L4, Packet, Payload, Tcp, TcpFlags};
use std::sync::Arc;

const ETHERNET: usize = 14;
const UDP: usize = 8;
const ICMP: usize = 8;
const DNS: u16 = 53;

/// What a real kernel sent.
pub fn decode(bytes: &[u8]) -> Option<Frame> {
    let (header, rest) = Ethernet2Header::from_slice(bytes).ok()?;
    let payload = match header.ether_type {
        EtherType::ARP => Payload::Arp(arp(rest)?),
        EtherType::IPV4 => Payload::Ip(Box::new(packet(rest)?)),
        _ => return None,
    };
    Some(Frame { src: Mac(header.source), dst: Mac(header.destination), payload })
}

fn arp(bytes: &[u8]) -> Option<Arp> {
    frames::read_arp(&ArpPacketSlice::from_slice(bytes).ok()?)
}

fn packet(bytes: &[u8]) -> Option<Packet> {
    let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    if header.is_fragmenting_payload() {
        return None;
    }
    let length = usize::from(header.total_len());
    let payload = bytes.get(usize::from(header.ihl()) * 4..length)?;
    let (l4, body) = transport(header.protocol(), payload)?;
    let raw = || {
        let tos = header.dcp().value() << 2 | header.ecn().value();
        Body::Raw(Arc::new(Raw { tos, id: header.identification(), payload: payload.to_vec() }))
    };
    Some(Packet {
        src: header.source_addr(),
        dst: header.destination_addr(),
        ttl: header.ttl(),
        dont_fragment: header.dont_fragment(),
        len: length as u32,
        segment: length as u32,
        l4,
        body: body.unwrap_or_else(raw),
        mark: 0,
        ct: Ct::None,
    })
}

/// The transport, and the message if a model may want to read it.
fn transport(protocol: IpNumber, payload: &[u8]) -> Option<(L4, Option<Body>)> {
    match protocol {
        IpNumber::TCP => {
            let header = TcpHeaderSlice::from_slice(payload).ok()?;
            let data = payload.len().checked_sub(usize::from(header.data_offset()) * 4)?;
            Some((L4::Tcp(tcp(&header, data)), None))
        }
        IpNumber::UDP => {
            let header = UdpHeaderSlice::from_slice(payload).ok()?;
            let (sport, dport) = (header.source_port(), header.destination_port());
            let body = datagram(sport, dport, payload.get(UDP..)?);
            Some((L4::Udp { sport, dport }, body))
        }
        IpNumber::ICMP => Some((L4::Icmp(icmp(payload)?), None)),
        _ => None,
    }
}

fn tcp(header: &TcpHeaderSlice<'_>, data: usize) -> Tcp {
    let flags =
        TcpFlags { syn: header.syn(), ack: header.ack(), fin: header.fin(), rst: header.rst() };
    let mss = header.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(u32::from(mss)),
        _ => None,
    });
    Tcp {
        sport: header.source_port(),
        dport: header.destination_port(),
        seq: header.sequence_number(),
        ack: header.acknowledgment_number(),
        flags,
        // RFC 9293: 536 where a SYN says nothing.
        len: if flags.syn { mss.unwrap_or(536) } else { data as u32 },
    }
}

fn datagram(sport: u16, dport: u16, data: &[u8]) -> Option<Body> {
    if dhcp::is_port(sport) && dhcp::is_port(dport) {
        return dhcp::decode(data).map(|message| Body::Dhcp(Arc::new(message)));
    }
    if sport == DNS || dport == DNS {
        return match dns::decode(data) {
            dns::Incoming::Message(message) => Some(Body::Dns(Arc::new(message))),
            _ => None,
        };
    }
    None
}

fn icmp(payload: &[u8]) -> Option<Icmp> {
    let found = Icmpv4Slice::from_slice(payload).ok()?;
    match found.icmp_type() {
        Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq }) => Some(Icmp::EchoRequest { id, seq }),
        Icmpv4Type::EchoReply(IcmpEchoHeader { id, seq }) => Some(Icmp::EchoReply { id, seq }),
        error => {
            let kind = frames::error_kind(&error)?;
            Some(Icmp::Error { kind, about: frames::read_quoted(found.payload())? })
        }
    }
}

/// What a real kernel receives; `None` for what only models say to each other.
pub fn encode(frame: &Frame) -> Option<Vec<u8>> {
    let ether_type = match &frame.payload {
        Payload::Arp(_) => EtherType::ARP,
        Payload::Ip(_) => EtherType::IPV4,
        Payload::Ip6(_) => return None,
    };
    let (source, destination) = (frame.src.0, frame.dst.0);
    let mut bytes = Vec::with_capacity(ETHERNET + 1500);
    Ethernet2Header { source, destination, ether_type }.write(&mut bytes).ok()?;
    match &frame.payload {
        Payload::Arp(arp) => bytes.extend(frames::arp_bytes(arp)?),
        Payload::Ip(packet) => put_packet(packet, &mut bytes)?,
        Payload::Ip6(_) => return None,
    }
    Some(bytes)
}

fn put_packet(packet: &Packet, bytes: &mut Vec<u8>) -> Option<()> {
    let (protocol, payload) = match &packet.l4 {
        L4::Tcp(tcp) => (IpNumber::TCP, tcp_bytes(packet, tcp)?),
        L4::Udp { sport, dport } => (IpNumber::UDP, udp_bytes(packet, *sport, *dport)?),
        L4::Icmp(icmp) => (IpNumber::ICMP, icmp_bytes(packet, icmp)?),
    };
    let mut header = ip_header(packet, protocol, payload.len())?;
    if let Body::Raw(raw) = &packet.body {
        header.identification = raw.id;
        header.dscp = (raw.tos >> 2).try_into().ok()?;
        header.ecn = (raw.tos & 3).try_into().ok()?;
        header.header_checksum = header.calc_header_checksum();
    }
    header.write_raw(bytes).ok()?;
    bytes.extend_from_slice(&payload);
    Some(())
}

fn ip_header(packet: &Packet, protocol: IpNumber, length: usize) -> Option<Ipv4Header> {
    let (src, dst) = (packet.src.octets(), packet.dst.octets());
    let length = u16::try_from(length).ok()?;
    let mut header = Ipv4Header::new(length, packet.ttl, protocol, src, dst).ok()?;
    header.dont_fragment = packet.dont_fragment;
    header.header_checksum = header.calc_header_checksum();
    Some(header)
}

fn tcp_bytes(packet: &Packet, tcp: &Tcp) -> Option<Vec<u8>> {
    let (mut header, data) = match &packet.body {
        Body::Raw(raw) => {
            let (header, data) = TcpHeader::from_slice(&raw.payload).ok()?;
            (header, data)
        }
        // What a router itself says: a reset.
        Body::Empty => (TcpHeader::new(tcp.sport, tcp.dport, tcp.seq, 0), &[][..]),
        _ => return None,
    };
    (header.source_port, header.destination_port) = (tcp.sport, tcp.dport);
    (header.sequence_number, header.acknowledgment_number) = (tcp.seq, tcp.ack);
    (header.syn, header.ack) = (tcp.flags.syn, tcp.flags.ack);
    (header.fin, header.rst) = (tcp.flags.fin, tcp.flags.rst);
    let (src, dst) = (packet.src.octets(), packet.dst.octets());
    header.checksum = header.calc_checksum_ipv4_raw(src, dst, data).ok()?;
    let mut bytes = Vec::with_capacity(header.header_len() + data.len());
    header.write(&mut bytes).ok()?;
    bytes.extend_from_slice(data);
    Some(bytes)
}

fn udp_bytes(packet: &Packet, sport: u16, dport: u16) -> Option<Vec<u8>> {
    let made;
    let data = match &packet.body {
        Body::Raw(raw) => raw.payload.get(UDP..)?,
        Body::Dhcp(message) => {
            made = dhcp::encode(message);
            &made
        }
        Body::Dns(message) => {
            made = dns::encode(message).ok()?;
            &made
        }
        _ => return None,
    };
    let ip = ip_header(packet, IpNumber::UDP, UDP + data.len())?;
    let header = UdpHeader::with_ipv4_checksum(sport, dport, &ip, data).ok()?;
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(data);
    Some(bytes)
}

fn icmp_bytes(packet: &Packet, icmp: &Icmp) -> Option<Vec<u8>> {
    let quotes;
    let (kind, data): (Icmpv4Type, &[u8]) = match icmp {
        Icmp::EchoRequest { id, seq } => {
            let echo = IcmpEchoHeader { id: *id, seq: *seq };
            (Icmpv4Type::EchoRequest(echo), echo_data(packet)?)
        }
        Icmp::EchoReply { id, seq } => {
            let echo = IcmpEchoHeader { id: *id, seq: *seq };
            (Icmpv4Type::EchoReply(echo), echo_data(packet)?)
        }
        Icmp::Error { kind, about } => {
            quotes = frames::quoted_bytes(about)?;
            (frames::error_type(*kind), &quotes)
        }
        Icmp::Discovery(never) => match *never {},
    };
    let mut bytes = Icmpv4Header::with_checksum(kind, data).to_bytes().to_vec();
    bytes.extend_from_slice(data);
    Some(bytes)
}

/// A model answers an echo with what it got.
fn echo_data(packet: &Packet) -> Option<&[u8]> {
    match &packet.body {
        Body::Raw(raw) => raw.payload.get(ICMP..),
        _ => Some(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use kubesim_actors::ports::rules::Protocol;
    use kubesim_sim::kernel::packet::{IcmpError, Quoted};
    use std::net::Ipv4Addr;

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);

    fn builder() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(
            A.octets(),
            B.octets(),
            64,
        )
    }

    #[test]
    fn what_no_model_reads_leaves_as_it_came() {
        let mut bytes = Vec::new();
        let tcp = builder().tcp(40_000, 7_000, 17, 1_024).ack(5).psh();
        tcp.write(&mut bytes, b"hello").expect("a packet");
        let frame = decode(&bytes).expect("a frame");
        let Payload::Ip(packet) = &frame.payload else { panic!("{frame:?}") };
        assert!(matches!(&packet.l4, L4::Tcp(tcp) if tcp.len == 5 && tcp.seq == 17));
        assert_eq!(encode(&frame).expect("bytes"), bytes);
        let mut bytes = Vec::new();
        builder().udp(9, 8_472).write(&mut bytes, &[7; 100]).expect("a packet");
        assert_eq!(encode(&decode(&bytes).expect("a frame")).expect("bytes"), bytes);
    }

    #[test]
    fn what_a_router_rewrites_has_right_checksums() {
        let mut bytes = Vec::new();
        let echo = builder().icmpv4_echo_request(7, 1);
        echo.write(&mut bytes, b"twelve bytes").expect("a packet");
        let mut frame = decode(&bytes).expect("a frame");
        let Payload::Ip(packet) = &mut frame.payload else { panic!("no packet") };
        packet.ttl -= 1;
        packet.src = Ipv4Addr::new(10, 0, 0, 1);
        packet.l4 = L4::Icmp(Icmp::EchoReply { id: 9, seq: 1 });
        let sent = encode(&frame).expect("bytes");
        let header = Ipv4HeaderSlice::from_slice(&sent[ETHERNET..]).expect("a header");
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        let icmp = Icmpv4Slice::from_slice(&sent[ETHERNET + 20..]).expect("a message");
        assert_eq!(icmp.payload(), b"twelve bytes");
        assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
    }

    #[test]
    fn an_error_names_what_it_is_about() {
        let about =
            Quoted { src: A, dst: B, protocol: Protocol::Tcp, sport: 1, dport: 2, seq: 70_000 };
        let kind = IcmpError::FragmentationNeeded { mtu: 1_400 };
        let packet = Packet {
            src: B,
            dst: A,
            ttl: 64,
            dont_fragment: false,
            len: 56,
            segment: 56,
            l4: L4::Icmp(Icmp::Error { kind, about }),
            body: Body::Empty,
            mark: 0,
            ct: Ct::None,
        };
        let frame = Frame {
            src: Mac::default(),
            dst: Mac::default(),
            payload: Payload::Ip(Box::new(packet)),
        };
        let again = decode(&encode(&frame).expect("bytes")).expect("a frame");
        let Payload::Ip(packet) = again.payload else { panic!("no packet") };
        assert_eq!(packet.l4, L4::Icmp(Icmp::Error { kind, about }));
    }

    #[test]
    fn what_the_wire_has_no_word_for_is_nothing() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[0; 13]).is_none());
        let mut six = vec![0; 60];
        (six[12], six[13]) = (0x86, 0xdd);
        assert!(decode(&six).is_none());
        let mut bytes = Vec::new();
        builder().udp(1, 2).write(&mut bytes, &[7; 100]).expect("a packet");
        // More fragments.
        bytes[ETHERNET + 6] = 0x20;
        assert!(decode(&bytes).is_none());
        assert!(decode(&bytes[..30]).is_none());
    }

    proptest::proptest! {
        /// Whatever a card sends: it is read or not, and what was read can be sent on.
        #[test]
        fn no_bytes_do_harm(
            kind in 0..3usize,
            mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
        ) {
            if bytes.len() > ETHERNET + 20 {
                let kinds = [[8, 0], [8, 6], [8, 0]];
                bytes[12..14].copy_from_slice(&kinds[kind]);
                bytes[ETHERNET] = 0x45;
                let length = (bytes.len() - ETHERNET) as u16;
                bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
                bytes[ETHERNET + 6] &= 0x40;
                bytes[ETHERNET + 7] = 0;
                bytes[ETHERNET + 9] = [1, 6, 17][kind];
            }
            if let Some(frame) = decode(&bytes) {
                let _ = encode(&frame);
            }
        }
    }
}
