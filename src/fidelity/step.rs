//! What a case is made of, and how it is written down.

use super::lan::{self, Act, Lan};
use super::six::{self, Six};
use super::spelling;
use super::words::Ports;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Proto, Route};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_actors::ports::rules::text::{rule_line, table_name};
use kubesim_actors::ports::rules::{FlatSettings, Rule, Table};
use kubesim_sim::kernel::family::{Family, V4};
use kubesim_sim::kernel::packet::{Packet, TcpFlags};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The router's links. The far end of each is the test's.
pub const LEGS: [&str; 3] = ["leg0", "leg1", "leg2"];

/// Of a leg, at first.
pub const MTU: u32 = 1500;

/// One thing done to a router.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    AddAddress(#[serde(with = "spelling::leg")] usize, Ipv4Net),
    DelAddress(#[serde(with = "spelling::leg")] usize, Ipv4Net),
    SetUp(#[serde(with = "spelling::leg")] usize, bool),
    /// Of IPv6 at least 1280, below which there is none.
    Mtu(#[serde(with = "spelling::leg")] usize, u32),
    AddRoute(Route, Proto),
    DelRoute(Route, Proto),
    /// `ip route get`
    Get(Ipv4Addr),
    Sysctl(#[serde(with = "spelling::sysctl")] String, u8),
    /// Comes in by a leg.
    Packet(#[serde(with = "spelling::leg")] usize, Box<Packet>),
    /// The router's own process sends a datagram of so many bytes from one of [`SOCKETS`].
    Send(u16, Ipv4Addr, u16, u32),
    /// Whoever got a packet that left answers it: the last one at 0, the one before at 1.
    Answer(usize, Answer),
    /// `iptables -t … -A …`
    Append(Table, SmolStr, #[serde(with = "spelling::rule")] Rule),
    /// The same, which may be refused; all rules that are not tried come first.
    Try(Table, SmolStr, #[serde(with = "spelling::rule")] Rule),
    /// `iptables -P … DROP` of a chain in the filter table.
    PolicyDrop(SmolStr),
    /// A Service as nftables mode has it, or a part of it that is a node's own.
    Elements(Vec<(FlatKey, FlatValue)>),
    /// It is gone.
    NoElements(Vec<FlatKey>),
    /// How many packets each rule has matched so far.
    Counters,
    /// A step, and then the counters: chance may have decided what else nobody sees.
    Counted(Box<Step>),
    /// So many seconds pass for all timeouts of connections; a multiple of ten. Not where there
    /// is UDP: when it becomes a stream is told by another clock.
    Wait(u32),
    /// [`PAUSE`] passes, by any clock.
    Pause,
    /// Something done to a lan.
    Lan(Act),
    /// Something of IPv6.
    Six(six::Act),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", bound = "")]
pub enum Answer<F: Family = V4> {
    /// The other way round: of a segment with these flags, of an echo request the reply.
    Reply(TcpFlags),
    Error(F::Error),
}

/// Which packet it is an answer to: the last one that left at 0.
impl<F: Family> Answer<F> {
    pub fn words(&self, which: usize) -> String {
        match self {
            Answer::Reply(flags) => format!("answer to packet -{which}: {flags:?}"),
            Answer::Error(kind) => format!("answer to packet -{which}: {kind}"),
        }
    }
}

/// Longer than it takes until UDP may be a stream (nf_conntrack_proto_udp.c).
pub const PAUSE: Duration = Duration::from_millis(2100);
/// UDP ports that a process of the router is bound to.
pub const SOCKETS: [u16; 2] = [5000, 5001];
/// Chains that rules may be in beside the built-in ones. There they always are, in every table.
pub const CHAINS: [&str; 4] = ["U0", "U1", "U2", "U3"];
/// The only list of `-m recent`.
pub const LIST: &str = "seen";
/// The router's addresses, by leg, where a case begins with them.
pub const ADDRESSES: [&str; 3] = ["10.0.0.1/16", "10.1.0.1/16", "10.2.0.1/16"];
/// By the first leg.
pub const DEFAULT_GATEWAY: &str = "10.0.0.9";

/// What a case begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Legs that are up, and nothing else.
    Bare,
    /// A router with its addresses and a default gateway, that forwards and tracks connections.
    Router(Rules),
    /// Frames rather than packets.
    Lan(Lan),
    /// IPv6.
    Six(Six),
}

/// What writes a router's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// `iptables-legacy`
    Legacy,
    /// `iptables-nft`
    Nft,
    /// This project's driver of nftables mode.
    Flat,
}

/// Who owns the flat elements, and who some that are always there.
pub const OWNERS: [&str; 2] = ["services", "keep"];
/// Of flat elements: pods are behind the second leg.
pub fn flat_settings() -> FlatSettings {
    FlatSettings { pods: net("10.1.0.0/16"), mark: 0x4000 }
}
/// Keeps the hooks of nftables mode in place.
pub const KEPT: (FlatKey, FlatValue) =
    (FlatKey::Hairpin(Ipv4Addr::new(192, 0, 2, 1)), FlatValue::Present);

/// The steps of one case, in order.
pub type Case = Vec<Step>;

/// A router that plays cases: the model or Linux.
pub trait Router {
    /// Back to what cases begin with. The error says what the environment lacks.
    fn reset(&mut self) -> Result<(), String>;
    /// What outlives a reset on purpose is to end with the next one as well.
    fn forget(&mut self) {}
    /// What can be seen of what a step did: a fact a line.
    fn act(&mut self, step: &Step) -> Result<Vec<String>, String>;
}

impl Setup {
    /// It has rules, and chance may decide what they do.
    pub fn has_rules(self) -> bool {
        use self::Lan::Filtered;
        matches!(self, Setup::Router(_) | Setup::Lan(Filtered) | Setup::Six(Six::Filtered(_)))
    }
}

impl Step {
    /// Whether chance may decide what comes of it, where there are rules.
    pub fn throws_dice(&self) -> bool {
        use lan::Act::{Frame, Tell};
        use six::Act::{Answer, Packet, Send};
        matches!(
            self,
            Step::Packet(..)
                | Step::Send(..)
                | Step::Answer(..)
                | Step::Counted(_)
                | Step::Lan(Frame(..) | Tell(..))
                | Step::Six(Packet(..) | Answer(..) | Send(..))
        )
    }
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
            Step::Mtu(leg, mtu) => write!(f, "ip link set {} mtu {mtu}", LEGS[*leg]),
            Step::AddRoute(to, proto) => write!(f, "ip route add {}", route_words(to, *proto)),
            Step::DelRoute(to, proto) => write!(f, "ip route del {}", route_words(to, *proto)),
            Step::Get(dst) => write!(f, "ip route get {dst}"),
            Step::Sysctl(key, value) => write!(f, "sysctl -w {key}={value}"),
            Step::Packet(leg, packet) => {
                write!(f, "in by {}: {}", LEGS[*leg], Ports::default().packet(packet))
            }
            Step::Send(from, to, port, len) => {
                write!(f, "socket {from} sends {len} bytes to {to}:{port}")
            }
            Step::Answer(which, answer) => f.write_str(&answer.words(*which)),
            Step::Append(table, chain, rule) | Step::Try(table, chain, rule) => {
                write!(f, "iptables -t {} {}", table_name(*table), rule_line(chain, rule))
            }
            Step::PolicyDrop(chain) => write!(f, "iptables -P {chain} DROP"),
            Step::Elements(elements) => {
                f.write_str("elements")?;
                elements.iter().try_for_each(|(key, value)| write!(f, "\n    {key:?}: {value:?}"))
            }
            Step::NoElements(keys) => write!(f, "without the elements of {:?}", keys.first()),
            Step::Counters => f.write_str("iptables -S -v"),
            Step::Counted(step) => write!(f, "{step}; iptables -S -v"),
            Step::Lan(act) => write!(f, "{act}"),
            Step::Six(act) => write!(f, "{act}"),
            Step::Pause => write!(f, "wait {} ms in real time", PAUSE.as_millis()),
            Step::Wait(seconds) => write!(f, "wait {seconds} s"),
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
