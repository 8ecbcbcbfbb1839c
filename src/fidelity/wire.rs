//! Frames in bytes and in words, and the hosts at the far ends of the legs: whoever is asked for
//! there is there.

use super::step::LEGS;
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv4Slice, Icmpv4Type,
    NetSlice, PacketBuilder, SlicedPacket, TransportSlice, icmpv4,
};
use kubesim_actors::ports::network::{Errno, Mac};
use kubesim_sim::kernel::packet::{Arp, Frame, Icmp, IcmpError, L4, Packet, Payload, TcpFlags};
use std::net::Ipv4Addr;

/// The router's end of a leg.
pub fn router_mac(leg: usize) -> Mac {
    Mac([0x02, 0, 0, 0, 0, leg as u8])
}

/// Whoever has this address at the far end of a leg.
pub fn far_mac(leg: usize, ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    Mac([0x06 | (leg as u8) << 4, a, b, c, d, 0])
}

/// What is seen after a change: what came of it, and the table.
pub fn after(done: Result<(), Errno>, mut table: Vec<String>) -> Vec<String> {
    table.sort_unstable();
    table.insert(0, done.err().map_or("done".to_owned(), |errno| errno.to_string()));
    table
}

/// The answer of the host that is asked for; nobody answers an announcement.
pub fn answer(leg: usize, arp: &Arp) -> Option<Frame> {
    if !arp.request || arp.sender_ip == arp.target_ip {
        return None;
    }
    let mac = far_mac(leg, arp.target_ip);
    let answer = Arp {
        request: false,
        sender_mac: mac,
        sender_ip: arp.target_ip,
        target_mac: arp.sender_mac,
        target_ip: arp.sender_ip,
    };
    Some(Frame { src: mac, dst: arp.sender_mac, payload: Payload::Arp(answer) })
}

/// A packet that left by a leg.
pub fn seen(leg: usize, packet: &Packet) -> String {
    format!("out by {}: {}", LEGS[leg], words(packet))
}

pub fn words(packet: &Packet) -> String {
    let Packet { src, dst, ttl, .. } = packet;
    let what = match &packet.l4 {
        L4::Udp { sport, dport } => format!("udp {sport} > {dport}"),
        L4::Tcp(tcp) => {
            let flags = flag_words(tcp.flags);
            format!("tcp {} > {} {flags} seq {} ack {}", tcp.sport, tcp.dport, tcp.seq, tcp.ack)
        }
        L4::Icmp(Icmp::EchoRequest { id, seq }) => format!("echo request {id} {seq}"),
        L4::Icmp(Icmp::EchoReply { id, seq }) => format!("echo reply {id} {seq}"),
        L4::Icmp(Icmp::Error { kind, about }) => {
            format!("{kind} about {} > {}", about.src, about.dst)
        }
    };
    format!("{src} > {dst} ttl {ttl} {what}")
}

fn flag_words(flags: TcpFlags) -> String {
    let all = [(flags.syn, "S"), (flags.ack, "A"), (flags.fin, "F"), (flags.rst, "R")];
    all.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect()
}

/// The bytes of a packet that comes in by a leg.
pub fn frame(leg: usize, packet: &Packet) -> Result<Vec<u8>, String> {
    let (src, dst) = (far_mac(leg, packet.src).0, router_mac(leg).0);
    let builder = PacketBuilder::ethernet2(src, dst).ipv4(
        packet.src.octets(),
        packet.dst.octets(),
        packet.ttl,
    );
    let mut bytes = Vec::new();
    let written = match &packet.l4 {
        L4::Udp { sport, dport } => builder.udp(*sport, *dport).write(&mut bytes, &[]),
        L4::Tcp(tcp) => {
            let mut builder = builder.tcp(tcp.sport, tcp.dport, tcp.seq, 65_535);
            let flags = tcp.flags;
            if flags.syn {
                builder = builder.syn();
            }
            if flags.ack {
                builder = builder.ack(tcp.ack);
            }
            if flags.fin {
                builder = builder.fin();
            }
            if flags.rst {
                builder = builder.rst();
            }
            builder.write(&mut bytes, &[])
        }
        L4::Icmp(Icmp::EchoRequest { id, seq }) => {
            builder.icmpv4_echo_request(*id, *seq).write(&mut bytes, &[])
        }
        L4::Icmp(Icmp::EchoReply { id, seq }) => {
            builder.icmpv4_echo_reply(*id, *seq).write(&mut bytes, &[])
        }
        L4::Icmp(Icmp::Error { .. }) => return Err("no host here sends ICMP errors".to_owned()),
    };
    written.map_err(|error| format!("writing a packet: {error}"))?;
    Ok(bytes)
}

/// What a frame that left is.
pub enum Read {
    Packet(String),
    /// An ARP request, and the frame that answers it.
    Answer(Vec<u8>),
    Nothing,
}

pub fn read(leg: usize, bytes: &[u8]) -> Read {
    let Ok(sliced) = SlicedPacket::from_ethernet(bytes) else { return Read::Nothing };
    match &sliced.net {
        Some(NetSlice::Arp(arp)) => {
            arp_answer(leg, &arp.to_packet()).map_or(Read::Nothing, Read::Answer)
        }
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (src, dst, ttl) = (header.source_addr(), header.destination_addr(), header.ttl());
            let what = transport(&sliced);
            Read::Packet(format!("out by {}: {src} > {dst} ttl {ttl} {what}", LEGS[leg]))
        }
        _ => Read::Nothing,
    }
}

fn arp_answer(leg: usize, arp: &ArpPacket) -> Option<Vec<u8>> {
    let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let mac = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).ok().map(Mac);
    let question = Arp {
        request: arp.operation == ArpOperation::REQUEST,
        sender_mac: mac(arp.sender_hw_addr())?,
        sender_ip: ip(arp.sender_protocol_addr())?,
        target_mac: Mac::default(),
        target_ip: ip(arp.target_protocol_addr())?,
    };
    let answered = answer(leg, &question)?;
    let Payload::Arp(reply) = answered.payload else { return None };
    let ether = Ethernet2Header {
        source: answered.src.0,
        destination: answered.dst.0,
        ether_type: EtherType::ARP,
    };
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REPLY,
        &reply.sender_mac.0,
        &reply.sender_ip.octets(),
        &reply.target_mac.0,
        &reply.target_ip.octets(),
    )
    .ok()?;
    let mut bytes = ether.to_bytes().to_vec();
    packet.write(&mut bytes).ok()?;
    Some(bytes)
}

fn transport(sliced: &SlicedPacket<'_>) -> String {
    match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            format!("udp {} > {}", udp.source_port(), udp.destination_port())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = TcpFlags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() };
            let (from, to, flags) = (tcp.source_port(), tcp.destination_port(), flag_words(flags));
            let (seq, ack) = (tcp.sequence_number(), tcp.acknowledgment_number());
            format!("tcp {from} > {to} {flags} seq {seq} ack {ack}")
        }
        Some(TransportSlice::Icmpv4(icmp)) => icmp_words(icmp),
        _ => "something else".to_owned(),
    }
}

fn icmp_words(icmp: &Icmpv4Slice<'_>) -> String {
    use icmpv4::DestUnreachableHeader as Unreachable;
    let kind = match icmp.icmp_type() {
        Icmpv4Type::EchoRequest(echo) => return format!("echo request {} {}", echo.id, echo.seq),
        Icmpv4Type::EchoReply(echo) => return format!("echo reply {} {}", echo.id, echo.seq),
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
        other => return format!("{other:?}"),
    };
    let quoted = icmp.payload();
    let address = |at: usize| {
        let bytes = quoted.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
    };
    format!("{kind} about {} > {}", address(12), address(16))
}
