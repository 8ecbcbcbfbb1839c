//! What a case is made of, and how it is written down.

use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Proto, Route};
use kubesim_sim::kernel::packet::Packet;
use std::fmt;
use std::net::Ipv4Addr;

/// The router's links. The far end of each is the test's.
pub const LEGS: [&str; 3] = ["leg0", "leg1", "leg2"];

/// One thing done to a router.
#[derive(Clone, Debug)]
pub enum Step {
    AddAddress(usize, Ipv4Net),
    DelAddress(usize, Ipv4Net),
    SetUp(usize, bool),
    AddRoute(Route, Proto),
    DelRoute(Route, Proto),
    /// `ip route get`
    Get(Ipv4Addr),
    Sysctl(String, u8),
    /// Comes in by a leg.
    Packet(usize, Box<Packet>),
}

/// The steps of one case, in order, from a router whose legs are up and which has nothing else.
pub type Case = Vec<Step>;

/// A router that plays cases: the model or Linux.
pub trait Router {
    /// Back to legs that are up, without addresses, routes, rules or connections.
    /// The error says what the environment lacks.
    fn reset(&mut self) -> Result<(), String>;
    /// What can be seen of what a step did: a fact a line.
    fn act(&mut self, step: &Step) -> Result<Vec<String>, String>;
}

/// As `ip` and `sysctl` want it.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AddAddress(leg, net) => write!(f, "ip addr add {net} brd + dev {}", LEGS[*leg]),
            Step::DelAddress(leg, net) => write!(f, "ip addr del {net} dev {}", LEGS[*leg]),
            Step::SetUp(leg, up) => {
                write!(f, "ip link set {} {}", LEGS[*leg], if *up { "up" } else { "down" })
            }
            Step::AddRoute(to, proto) => write!(f, "ip route add {}", route_words(to, *proto)),
            Step::DelRoute(to, proto) => write!(f, "ip route del {}", route_words(to, *proto)),
            Step::Get(dst) => write!(f, "ip route get {dst}"),
            Step::Sysctl(key, value) => write!(f, "sysctl -w {key}={value}"),
            Step::Packet(leg, packet) => {
                write!(f, "in by {}: {}", LEGS[*leg], super::wire::words(packet))
            }
        }
    }
}

fn route_words(route: &Route, proto: Proto) -> String {
    let scope = if route.via.is_some() { "global" } else { "link" };
    format!("{} scope {scope}", route_line(route, proto, None))
}

/// A line of `ip -N route`.
pub fn route_line(route: &Route, proto: Proto, src: Option<Ipv4Addr>) -> String {
    let Route { to, via, dev, onlink, metric } = route;
    let via = via.map_or(String::new(), |via| format!(" via {via}"));
    let onlink = if *onlink { " onlink" } else { "" };
    let src = src.map_or(String::new(), |src| format!(" src {src}"));
    format!("{to}{via} dev {dev} proto {}{src} metric {metric}{onlink}", proto.0)
}

/// `10.0.0.0/8` is one's own choice of host bits.
pub fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap_or_default()
}

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}
