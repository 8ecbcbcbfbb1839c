//! Frames as bytes, and back.

use super::frame6;
use crate::frames;
use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Slice, Icmpv4Type, IpHeaders, Ipv4Extensions, Ipv4Header,
    LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpOptionElement, TcpSlice,
    TransportSlice,
};
use kubesim_actors::ports::network::Mac;
use kubesim_sim::body::Body;
use kubesim_sim::kernel::packet::{Ct, Frame, Icmp, L4, Packet, Payload, Tcp, TcpFlags};

/// Where vxlan is expected (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// Headers of IPv4 with UDP, or with an echo.
const HEADERS: u32 = 28;

pub fn encode(frame: &Frame) -> Result<Vec<u8>, String> {
    let (src, dst) = (frame.src.0, frame.dst.0);
    let mut bytes = Vec::new();
    match &frame.payload {
        Payload::Arp(arp) => {
            let ether =
                Ethernet2Header { source: src, destination: dst, ether_type: EtherType::ARP };
            bytes.extend(ether.to_bytes());
            bytes.extend(frames::arp_bytes(arp).ok_or("an ARP packet that is none")?);
        }
        Payload::Ip(packet) => encode_ip(src, dst, packet, &mut bytes)?,
        Payload::Ip6(packet) => frame6::encode(src, dst, packet, &mut bytes)?,
    }
    Ok(bytes)
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
    let data = vec![0; packet.len.saturating_sub(HEADERS) as usize];
    let written = match &packet.l4 {
        L4::Udp { sport, dport } => {
            let payload = match &packet.body {
                Body::Vxlan { vni, frame } => {
                    let mut payload = vec![8, 0, 0, 0];
                    payload.extend((vni << 8).to_be_bytes());
                    payload.extend(encode(frame)?);
                    payload
                }
                _ => data,
            };
            builder.udp(*sport, *dport).write(to, &payload)
        }
        L4::Tcp(tcp) => {
            builder.tcp_header(tcp_header(tcp)?).write(to, &vec![0; tcp.payload() as usize])
        }
        L4::Icmp(Icmp::EchoRequest { id, seq }) => {
            builder.icmpv4_echo_request(*id, *seq).write(to, &data)
        }
        L4::Icmp(Icmp::EchoReply { id, seq }) => {
            builder.icmpv4_echo_reply(*id, *seq).write(to, &data)
        }
        L4::Icmp(Icmp::Error { kind, about }) => {
            let quoted = frames::quoted_bytes(about).ok_or("an error about nothing")?;
            builder.icmpv4(frames::error_type(*kind)).write(to, &quoted)
        }
        L4::Icmp(Icmp::Discovery(never)) => match *never {},
    };
    written.map_err(|error| format!("writing a packet: {error}"))
}

pub(super) fn tcp_header(tcp: &Tcp) -> Result<TcpHeader, String> {
    let mut header = TcpHeader {
        syn: tcp.flags.syn,
        ack: tcp.flags.ack,
        fin: tcp.flags.fin,
        rst: tcp.flags.rst,
        acknowledgment_number: tcp.ack,
        ..TcpHeader::new(tcp.sport, tcp.dport, tcp.seq, 65_535)
    };
    // As every stack does; conntrack begins anew with a SYN's options (tcp_options).
    if tcp.flags.syn && header.set_options(&[TcpOptionElement::MaximumSegmentSize(1460)]).is_err() {
        return Err("no room for an option".to_owned());
    }
    Ok(header)
}

pub(super) fn read_tcp(tcp: &TcpSlice<'_>) -> Tcp {
    Tcp {
        sport: tcp.source_port(),
        dport: tcp.destination_port(),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        flags: TcpFlags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() },
        len: tcp.payload().len() as u32,
    }
}

/// `None` for what the model does not speak. The error is what else it is, in words.
pub fn decode(bytes: &[u8]) -> Option<Result<Frame, String>> {
    let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
    let Some(LinkSlice::Ethernet2(ether)) = &sliced.link else { return None };
    let (src, dst) = (Mac(ether.source()), Mac(ether.destination()));
    let payload = match sliced.net.as_ref()? {
        NetSlice::Arp(arp) => Ok(Payload::Arp(frames::read_arp(arp)?)),
        NetSlice::Ipv4(_) => decode_ip(&sliced)?.map(|packet| Payload::Ip(Box::new(packet))),
        NetSlice::Ipv6(_) => frame6::decode(&sliced)?.map(|packet| Payload::Ip6(Box::new(packet))),
    };
    Some(payload.map(|payload| Frame { src, dst, payload }))
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
        TransportSlice::Tcp(tcp) => L4::Tcp(read_tcp(tcp)),
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
    match icmp.icmp_type() {
        Icmpv4Type::EchoRequest(echo) => Ok(Icmp::EchoRequest { id: echo.id, seq: echo.seq }),
        Icmpv4Type::EchoReply(echo) => Ok(Icmp::EchoReply { id: echo.id, seq: echo.seq }),
        other => {
            let kind = frames::error_kind(&other).ok_or_else(|| format!("{other:?}"))?;
            let about = frames::read_quoted(icmp.payload());
            Ok(Icmp::Error { kind, about: about.ok_or("an error about something short")? })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::ports::rules::Protocol;
    use kubesim_sim::kernel::packet::{Arp, IcmpError, Quoted};
    use std::net::Ipv4Addr;

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
