//! The hosts at the far ends of the legs: whoever is asked for there is there.

use super::step::{Answer, LEGS};
use super::words::mac_words;
use kubesim_actors::ports::network::Mac;
use kubesim_sim::kernel::family::Family;
use kubesim_sim::kernel::packet::{
    Arp, Ct, Frame, Icmp, L4, Packet, Payload, Quoted, Tcp, TcpFlags,
};
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

/// A packet that left by a leg, in words, and whom it was handed to: the host at the far end that
/// has the address, or a MAC address that is no such host's.
pub fn departed(leg: usize, to: Mac, packet: &str) -> String {
    let [_, a, b, c, d, _] = to.0;
    let ip = Ipv4Addr::new(a, b, c, d);
    let to = if to == far_mac(leg, ip) { ip.to_string() } else { mac_words(to) };
    format!("out by {} to {to}: {packet}", LEGS[leg])
}

/// The answer of the host that is asked for; nobody answers an announcement.
pub fn arp_answer(leg: usize, arp: &Arp) -> Option<Frame> {
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

/// A packet on its way to the router.
pub fn inbound(leg: usize, packet: &Packet) -> Frame {
    let (src, dst) = (far_mac(leg, packet.src), router_mac(leg));
    Frame { src, dst, payload: Payload::Ip(Box::new(packet.clone())) }
}

/// The answer to one of the packets that left, counted from the last.
pub fn answer_to<F: Family>(
    left: &[(usize, Packet<F>)],
    which: usize,
    with: Answer<F>,
) -> Option<(usize, Packet<F>)> {
    let (leg, packet) = left.get(left.len().checked_sub(which + 1)?)?;
    Some((*leg, answer(packet, with)?))
}

/// What the one who got a packet says to it; not all packets can be answered.
fn answer<F: Family>(to: &Packet<F>, answer: Answer<F>) -> Option<Packet<F>> {
    let (l4, len) = match (answer, &to.l4) {
        (Answer::Error(kind), _) => {
            // As much as is needed to know whose it is: a header and eight bytes.
            (L4::Icmp(Icmp::Error { kind, about: quote(to) }), 8 + F::HEADER + 8)
        }
        (_, L4::Udp { sport, dport }) => (L4::Udp { sport: *dport, dport: *sport }, 8),
        (Answer::Reply(flags), L4::Tcp(tcp)) => (L4::Tcp(segment(tcp, flags)), 20),
        (_, L4::Icmp(Icmp::EchoRequest { id, seq })) => {
            (L4::Icmp(Icmp::EchoReply { id: *id, seq: *seq }), 8)
        }
        _ => return None,
    };
    Some(packet(to.dst, to.src, l4, F::HEADER + len))
}

fn segment(to: &Tcp, flags: TcpFlags) -> Tcp {
    let seq = if to.flags.ack { to.ack } else { 5000 };
    let ack = if flags.ack { to.seq.wrapping_add(to.span()) } else { 0 };
    Tcp { sport: to.dport, dport: to.sport, seq, ack, flags, len: 0 }
}

fn quote<F: Family>(packet: &Packet<F>) -> Quoted<F> {
    let (sport, dport) = match &packet.l4 {
        L4::Icmp(Icmp::EchoRequest { id, .. } | Icmp::EchoReply { id, .. }) => (*id, 0),
        _ => packet.ports(),
    };
    let seq = if let L4::Tcp(tcp) = &packet.l4 { tcp.seq } else { 0 };
    Quoted { src: packet.src, dst: packet.dst, protocol: packet.protocol(), sport, dport, seq }
}

/// A packet as a host sends it.
pub fn packet<F: Family>(src: F::Addr, dst: F::Addr, l4: L4<F>, len: u32) -> Packet<F> {
    Packet {
        src,
        dst,
        ttl: 64,
        dont_fragment: F::VERSION == 6,
        len,
        segment: len,
        l4,
        body: Default::default(),
        mark: 0,
        ct: Ct::None,
    }
}
