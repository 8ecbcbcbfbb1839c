//! IPv6 packets as bytes, and back.

use super::frame::{read_tcp, tcp_header};
use etherparse::icmpv6::{DestUnreachableCode as Unreachable, TimeExceededCode};
use etherparse::{
    Icmpv6Slice, Icmpv6Type, IpHeaders, IpNumber, Ipv6Extensions, Ipv6Header, Ipv6HeaderSlice,
    NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::rules::Protocol;
use kubesim_sim::body::Body;
use kubesim_sim::kernel::family::V6;
use kubesim_sim::kernel::packet::{
    Advertised, Ct, Discovery, Icmp, Icmp6Error, L4, Packet, Quoted,
};
use std::net::Ipv6Addr;

/// Headers of IPv6 with UDP, or with an echo.
const HEADERS: u32 = 48;
/// Options of neighbour discovery with one's own MAC address (RFC 4861, section 4.6.1).
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
/// What Linux says without being asked and the model does not: group membership (RFC 2710, RFC
/// 3810), routers' messages and redirects (RFC 4861).
const UNHEARD: [u8; 6] = [131, 132, 143, 133, 134, 137];

pub fn encode(
    src: [u8; 6],
    dst: [u8; 6],
    packet: &Packet<V6>,
    to: &mut Vec<u8>,
) -> Result<(), String> {
    let header = Ipv6Header {
        hop_limit: packet.ttl,
        source: packet.src.octets(),
        destination: packet.dst.octets(),
        ..Ipv6Header::default()
    };
    let ip = IpHeaders::Ipv6(header, Ipv6Extensions::default());
    let builder = PacketBuilder::ethernet2(src, dst).ip(ip);
    let data = vec![0; packet.len.saturating_sub(HEADERS) as usize];
    let written = match &packet.l4 {
        L4::Udp { sport, dport } => builder.udp(*sport, *dport).write(to, &data),
        L4::Tcp(tcp) => {
            builder.tcp_header(tcp_header(tcp)?).write(to, &vec![0; tcp.payload() as usize])
        }
        L4::Icmp(Icmp::EchoRequest { id, seq }) => {
            builder.icmpv6_echo_request(*id, *seq).write(to, &data)
        }
        L4::Icmp(Icmp::EchoReply { id, seq }) => {
            builder.icmpv6_echo_reply(*id, *seq).write(to, &data)
        }
        L4::Icmp(Icmp::Error { kind, about }) => {
            builder.icmpv6(error_type(*kind)).write(to, &quoted_bytes(about)?)
        }
        L4::Icmp(Icmp::Discovery(message)) => {
            let rest = [message.flags(), 0, 0, 0];
            builder.icmpv6_raw(message.kind(), 0, rest).write(to, &discovery_bytes(message))
        }
    };
    written.map_err(|error| format!("writing a packet: {error}"))
}

fn discovery_bytes(message: &Discovery) -> Vec<u8> {
    let mut bytes = message.target().octets().to_vec();
    let kind = if let Discovery::Solicitation { .. } = message { SOURCE } else { TARGET };
    if let Some(mac) = message.link_address() {
        // Its length is counted in eights.
        bytes.extend([kind, 1]);
        bytes.extend(mac.0);
    }
    bytes
}

fn error_type(kind: Icmp6Error) -> Icmpv6Type {
    Icmpv6Type::DestinationUnreachable(match kind {
        Icmp6Error::PacketTooBig { mtu } => return Icmpv6Type::PacketTooBig { mtu },
        Icmp6Error::HopLimitExceeded => {
            return Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded);
        }
        Icmp6Error::NoRoute => Unreachable::NoRoute,
        Icmp6Error::AdminProhibited => Unreachable::Prohibited,
        Icmp6Error::BeyondScope => Unreachable::BeyondScope,
        Icmp6Error::AddressUnreachable => Unreachable::Address,
        Icmp6Error::PortUnreachable => Unreachable::Port,
    })
}

fn error_kind(kind: &Icmpv6Type) -> Option<Icmp6Error> {
    let code = match kind {
        Icmpv6Type::PacketTooBig { mtu } => return Some(Icmp6Error::PacketTooBig { mtu: *mtu }),
        Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded) => {
            return Some(Icmp6Error::HopLimitExceeded);
        }
        Icmpv6Type::DestinationUnreachable(code) => code,
        _ => return None,
    };
    Some(match code {
        Unreachable::NoRoute => Icmp6Error::NoRoute,
        Unreachable::Prohibited => Icmp6Error::AdminProhibited,
        Unreachable::BeyondScope => Icmp6Error::BeyondScope,
        Unreachable::Address => Icmp6Error::AddressUnreachable,
        Unreachable::Port => Icmp6Error::PortUnreachable,
        _ => return None,
    })
}

/// As much of the packet in question as the model knows: its header and eight bytes.
fn quoted_bytes(about: &Quoted<V6>) -> Result<Vec<u8>, String> {
    let [a, b] = about.sport.to_be_bytes();
    let [c, d] = about.dport.to_be_bytes();
    let [e, f, g, h] = about.seq.to_be_bytes();
    let (next_header, rest) = match about.protocol {
        Protocol::Udp => (IpNumber::UDP, [a, b, c, d, 0, 8, 0, 0]),
        Protocol::Tcp => (IpNumber::TCP, [a, b, c, d, e, f, g, h]),
        Protocol::Icmp => (IpNumber::IPV6_ICMP, [128, 0, 0, 0, a, b, 0, 1]),
        Protocol::Sctp => return Err("an error about SCTP".to_owned()),
    };
    let header = Ipv6Header {
        payload_length: 8,
        next_header,
        hop_limit: 63,
        source: about.src.octets(),
        destination: about.dst.octets(),
        ..Ipv6Header::default()
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(rest);
    Ok(bytes)
}

fn read_quoted(bytes: &[u8]) -> Option<Quoted<V6>> {
    let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
    let rest = bytes.get(HEADERS as usize - 8..)?;
    let pair =
        |at: usize| rest.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (protocol, sport, dport) = match header.next_header() {
        IpNumber::TCP => (Protocol::Tcp, pair(0)?, pair(2)?),
        IpNumber::UDP => (Protocol::Udp, pair(0)?, pair(2)?),
        // An echo's identifier; discovery has none.
        IpNumber::IPV6_ICMP if matches!(rest, [128 | 129, ..]) => (Protocol::Icmp, pair(4)?, 0),
        IpNumber::IPV6_ICMP => (Protocol::Icmp, 0, 0),
        _ => return None,
    };
    let seq = match protocol {
        Protocol::Tcp => u32::from(pair(4)?) << 16 | u32::from(pair(6)?),
        _ => 0,
    };
    let (src, dst) = (header.source_addr(), header.destination_addr());
    Some(Quoted { src, dst, protocol, sport, dport, seq })
}

/// `None` for what the model does not speak. The error is what else it is, in words.
pub fn decode(sliced: &SlicedPacket<'_>) -> Option<Result<Packet<V6>, String>> {
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { return None };
    let header = ip.header();
    let len = u32::from(header.payload_length()) + HEADERS - 8;
    let l4 = match sliced.transport.as_ref()? {
        TransportSlice::Udp(udp) => {
            L4::Udp { sport: udp.source_port(), dport: udp.destination_port() }
        }
        TransportSlice::Tcp(tcp) => L4::Tcp(read_tcp(tcp)),
        TransportSlice::Icmpv6(icmp) if UNHEARD.contains(&icmp.type_u8()) => return None,
        TransportSlice::Icmpv6(icmp) => match decode_icmp(icmp) {
            Ok(icmp) => L4::Icmp(icmp),
            Err(words) => return Some(Err(words)),
        },
        _ => return None,
    };
    Some(Ok(Packet {
        src: header.source_addr(),
        dst: header.destination_addr(),
        ttl: header.hop_limit(),
        dont_fragment: true,
        len,
        segment: len,
        l4,
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    }))
}

fn decode_icmp(icmp: &Icmpv6Slice<'_>) -> Result<Icmp<V6>, String> {
    let (target, option) = target_and_option(icmp.payload());
    let target = target.ok_or("a message about nothing");
    match icmp.icmp_type() {
        Icmpv6Type::EchoRequest(echo) => Ok(Icmp::EchoRequest { id: echo.id, seq: echo.seq }),
        Icmpv6Type::EchoReply(echo) => Ok(Icmp::EchoReply { id: echo.id, seq: echo.seq }),
        Icmpv6Type::NeighborSolicitation => {
            Ok(Icmp::Discovery(Discovery::Solicitation { target: target?, source: option }))
        }
        Icmpv6Type::NeighborAdvertisement(says) => {
            let (router, solicited, overrides) = (says.router, says.solicited, says.r#override);
            let flags = Advertised { router, solicited, overrides };
            let message = Discovery::Advertisement { target: target?, flags, link: option };
            Ok(Icmp::Discovery(message))
        }
        other => {
            let kind = error_kind(&other).ok_or_else(|| format!("{other:?}"))?;
            let about = read_quoted(icmp.payload());
            Ok(Icmp::Error { kind, about: about.ok_or("an error about something short")? })
        }
    }
}

/// Of a solicitation or an advertisement; neither has more than one option here.
fn target_and_option(bytes: &[u8]) -> (Option<Ipv6Addr>, Option<Mac>) {
    let target = bytes.get(..16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let option = match bytes.get(16..) {
        Some([SOURCE | TARGET, 1, mac @ ..]) => <[u8; 6]>::try_from(mac).ok().map(Mac),
        _ => None,
    };
    (target.map(Ipv6Addr::from), option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::frame;
    use kubesim_sim::kernel::packet::{Frame, Payload, Tcp, TcpFlags};

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 9);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 9);

    fn back(l4: L4<V6>, len: u32) {
        let (dont_fragment, body, ct) = (true, Body::Empty, Ct::None);
        let packet = Packet {
            src: A,
            dst: B,
            ttl: 9,
            dont_fragment,
            len,
            segment: len,
            l4,
            body,
            mark: 0,
            ct,
        };
        let payload = Payload::Ip6(Box::new(packet));
        let frame = Frame { src: Mac([2; 6]), dst: Mac([4; 6]), payload };
        let bytes = frame::encode(&frame).expect("bytes");
        let read = frame::decode(&bytes).expect("IPv6").expect("known");
        assert_eq!(format!("{frame:?}"), format!("{read:?}"));
    }

    #[test]
    fn what_is_written_is_read() {
        back(L4::Udp { sport: 1, dport: 2 }, 1300);
        back(L4::Icmp(Icmp::EchoRequest { id: 5, seq: 6 }), 48);
        let flags = TcpFlags { syn: true, ..TcpFlags::default() };
        back(L4::Tcp(Tcp { sport: 1, dport: 2, seq: 3, ack: 0, flags, len: 0 }), 64);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            let (dport, seq) = if protocol == Protocol::Tcp { (8, 9) } else { (0, 0) };
            let about = Quoted { src: B, dst: A, protocol, sport: 7, dport, seq };
            let kind = Icmp6Error::PacketTooBig { mtu: 1400 };
            back(L4::Icmp(Icmp::Error { kind, about }), 96);
        }
        let source = Some(Mac([6; 6]));
        back(L4::Icmp(Icmp::Discovery(Discovery::Solicitation { target: A, source })), 72);
        let flags = Advertised { router: true, solicited: false, overrides: true };
        let message = Discovery::Advertisement { target: A, flags, link: None };
        back(L4::Icmp(Icmp::Discovery(message)), 64);
    }
}
