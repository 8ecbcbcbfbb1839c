//! Cases of IPv6: what routes, forwards and asks for neighbours. Linux does not look for duplicates
//! here (`accept_dad` 0), and heeds no routers' advertisements.

pub mod filter;
pub mod forwarding;
pub mod linux;
pub mod model;
pub mod neighbours;
pub mod routes;

use super::spelling;
use super::step::{Answer, LEGS, Rules};
use super::wire;
use super::words::Ports;
use ipnet::Ipv6Net;
use kubesim_actors::ports::network::{Mac, Proto};
use kubesim_actors::ports::rules::text::{rule_line, table_name};
use kubesim_actors::ports::rules::{Rule, Table};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::family::V6;
use kubesim_sim::kernel::packet::{Advertised, Ct, Discovery, Frame, Icmp, L4, Packet, Payload};
use kubesim_sim::kernel::{Placing, Route6};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;
use std::net::Ipv6Addr;

/// What a case begins with: legs that are up and have given themselves their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Six {
    /// Whoever is asked for answers at once, and what comes of a step are packets and tables.
    Router,
    /// Each leg has an address more; nobody answers but who is told to, and what comes of a step
    /// are frames and neighbours.
    Neighbours,
    /// A router with these addresses, with a default gateway and rules; what comes of a step are
    /// packets and connections.
    Filtered(Rules),
}

impl Six {
    /// The addresses, by leg.
    fn addresses(self) -> &'static [&'static str] {
        match self {
            Six::Router => &[],
            Six::Neighbours | Six::Filtered(_) => &["fd00:1::1/64", "fd00:2::1/64", "fd00:3::1/64"],
        }
    }

    /// Whoever is asked for answers at once.
    fn answers(self) -> bool {
        self != Six::Neighbours
    }
}

/// What is done to it, beside what is done to any router.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    AddAddress(#[serde(with = "spelling::leg")] usize, Ipv6Net),
    DelAddress(#[serde(with = "spelling::leg")] usize, Ipv6Net),
    AddRoute(Placing, Route6, Proto),
    DelRoute(Route6, Proto),
    /// `ip -6 route get`
    Get(Ipv6Addr),
    /// The router's own process sends an empty datagram from one of [`super::step::SOCKETS`].
    Send(u16, Ipv6Addr, u16),
    /// Comes in by a leg, from whoever has its source.
    Packet(#[serde(with = "spelling::leg")] usize, Box<Packet<V6>>),
    Frame(#[serde(with = "spelling::leg")] usize, Box<Frame>),
    /// Whoever was asked for answers: the last one at 0, the one before at 1. With another MAC
    /// address than its own where that is given.
    Tell(usize, Option<Mac>),
    /// [`super::lan::PAUSE`] passes.
    Pause,
    /// `ip6tables -t … -A …`; the second may be refused.
    Append(Table, SmolStr, #[serde(with = "spelling::rule")] Rule<Ipv6Addr>),
    Try(Table, SmolStr, #[serde(with = "spelling::rule")] Rule<Ipv6Addr>),
    /// Whoever got a packet that left answers it: the last one at 0, the one before at 1.
    Answer(usize, Answer<V6>),
}

/// Whoever has this address at the far end of a leg.
pub fn far_mac(leg: usize, ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    Mac([0x06 | (leg as u8) << 4, ip.octets()[3], a, b, c, d])
}

/// Whom a frame to a group is for (RFC 2464, section 7).
pub fn group_mac(ip: Ipv6Addr) -> Option<Mac> {
    let [.., a, b, c, d] = ip.octets();
    ip.is_multicast().then_some(Mac([0x33, 0x33, a, b, c, d]))
}

/// A packet on its way to the router, or to a group.
pub fn inbound(leg: usize, packet: &Packet<V6>) -> Frame {
    let dst = group_mac(packet.dst).unwrap_or(wire::router_mac(leg));
    let src = far_mac(leg, packet.src);
    Frame { src, dst, payload: Payload::Ip6(Box::new(packet.clone())) }
}

/// A packet as a host sends it.
pub fn packet(src: Ipv6Addr, dst: Ipv6Addr, l4: L4<V6>, len: u32) -> Packet<V6> {
    let (dont_fragment, body, ct) = (true, Body::Empty, Ct::None);
    Packet { src, dst, ttl: 64, dont_fragment, len, segment: len, l4, body, mark: 0, ct }
}

/// What a host says of addresses on its link.
pub fn discovery(src: Ipv6Addr, dst: Ipv6Addr, message: Discovery) -> Packet<V6> {
    let len = 64 + if message.link_address().is_some() { 8 } else { 0 };
    Packet { ttl: 255, ..packet(src, dst, L4::Icmp(Icmp::Discovery(message)), len) }
}

/// What somebody is asked for, if this is a question.
pub fn asked(frame: &Frame) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let Payload::Ip6(packet) = &frame.payload else { return None };
    match packet.l4 {
        L4::Icmp(Icmp::Discovery(Discovery::Solicitation { target, .. })) => {
            Some((target, packet.src))
        }
        _ => None,
    }
}

/// The answer of the host that is asked for, at a MAC address that may be another's.
fn answer(leg: usize, (target, to): (Ipv6Addr, Ipv6Addr), mac: Option<Mac>) -> Frame {
    let mac = mac.unwrap_or(far_mac(leg, target));
    let flags = Advertised { router: false, solicited: true, overrides: true };
    let message = Discovery::Advertisement { target, flags, link: Some(mac) };
    Frame { src: mac, ..inbound(leg, &discovery(target, to, message)) }
}

/// What left by a leg, in words; and who was asked for.
#[derive(Clone, Debug, Default)]
struct Seen {
    ports: Ports,
    asked: Vec<(usize, (Ipv6Addr, Ipv6Addr))>,
}

impl Seen {
    fn frame(&mut self, leg: usize, frame: &Frame) -> String {
        self.asked.extend(asked(frame).map(|question| (leg, question)));
        format!("out by {}: {}", LEGS[leg], self.ports.frame(frame))
    }
    fn packet(&mut self, leg: usize, to: Mac, packet: &Packet<V6>) -> String {
        wire::departed(leg, to, &self.ports.packet(packet))
    }
    fn answer(&self, which: usize, mac: Option<Mac>) -> Option<(usize, Frame)> {
        let (leg, question) = self.asked.get(self.asked.len().checked_sub(which + 1)?)?;
        Some((*leg, answer(*leg, *question, mac)))
    }
}

/// Where a frame stands among those of one step. Whose timer rings first, of two neighbours that
/// were asked for within a jiffy, is chance: questions are ordered by whom they ask for.
fn place(leg: usize, frame: Option<&Frame>) -> (usize, u128) {
    (leg, frame.and_then(asked).map_or(0, |(target, _)| target.to_bits()))
}

/// A line of `ip -6 neigh`.
fn neighbour_line(ip: Ipv6Addr, dev: &str, mac: Option<Mac>, state: &str, router: bool) -> String {
    let mac = mac.map_or(String::new(), |mac| format!(" at {mac}"));
    let router = if router { " router" } else { "" };
    format!("neighbour {ip} dev {dev}{mac}{router} {state}")
}

/// What a process of the router got.
fn got_line(port: u16, from: Ipv6Addr, sport: &str) -> String {
    format!("socket {port} got something from [{from}]:{sport}")
}

fn route_words(route: &Route6, proto: Proto) -> String {
    let Route6 { to, via, dev, onlink, metric } = route;
    let via = via.map_or(String::new(), |via| format!(" via {via}"));
    let onlink = if *onlink { " onlink" } else { "" };
    format!("{to}{via} dev {dev} proto {} metric {metric}{onlink}", proto.0)
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::AddAddress(leg, net) => write!(f, "ip addr add {net} dev {}", LEGS[*leg]),
            Act::DelAddress(leg, net) => write!(f, "ip addr del {net} dev {}", LEGS[*leg]),
            Act::AddRoute(placing, to, proto) => {
                let verb = match placing {
                    Placing::Alone => "add",
                    Placing::Behind => "append",
                    Placing::Instead => "replace",
                };
                write!(f, "ip -6 route {verb} {}", route_words(to, *proto))
            }
            Act::DelRoute(to, proto) => write!(f, "ip -6 route del {}", route_words(to, *proto)),
            Act::Get(dst) => write!(f, "ip -6 route get {dst}"),
            Act::Send(from, to, port) => write!(f, "socket {from} sends to [{to}]:{port}"),
            Act::Packet(leg, packet) => {
                write!(f, "in by {}: {}", LEGS[*leg], Ports::default().packet(packet))
            }
            Act::Frame(leg, frame) => {
                write!(f, "in by {}: {}", LEGS[*leg], Ports::default().frame(frame))
            }
            Act::Tell(which, None) => write!(f, "answer to question -{which}"),
            Act::Tell(which, Some(mac)) => write!(f, "answer to question -{which} by {mac}"),
            Act::Append(table, chain, rule) | Act::Try(table, chain, rule) => {
                write!(f, "ip6tables -t {} {}", table_name(*table), rule_line(chain, rule))
            }
            Act::Answer(which, answer) => f.write_str(&answer.words(*which)),
            Act::Pause => {
                write!(f, "wait {} ms in real time", super::lan::PAUSE.as_millis())
            }
        }
    }
}

/// `fd00::/8` is one's own choice of host bits.
pub fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap_or_default()
}

pub fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap_or(Ipv6Addr::UNSPECIFIED)
}
