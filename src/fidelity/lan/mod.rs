//! Cases of frames rather than packets: a bridge, neighbours, a tunnel. Nobody answers here but
//! who is told to, except behind a tunnel.

pub mod bridge;
pub mod linux;
pub mod model;
pub mod neighbours;
pub mod vxlan;

use super::spelling;
use super::step::{LEGS, ip, net};
use super::words::{Ports, mac_words};
use kubesim_actors::ports::network::{FdbEntry, Mac, Neighbour};
use kubesim_sim::kernel::packet::{Arp, Frame};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::time::Duration;

/// What a case begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    /// A router with an address on each leg.
    Neighbours,
    /// [`BRIDGE`] over all legs, with an address. The last leg never goes down, so that the
    /// bridge keeps its carrier: Linux takes its time over that (net/core/link_watch.c).
    Bridge,
    /// The same, and what is bridged meets the rules of iptables as well (br_netfilter).
    Filtered,
    /// [`VXLAN`] over the first leg, and hosts behind the second.
    Vxlan,
}

pub const BRIDGE: &str = "br0";
/// Whether what is bridged meets the rules.
pub const CALLED: &str = "net.bridge.bridge-nf-call-iptables";
pub const VXLAN: &str = "vx0";
/// The MAC address of either.
pub const OWN_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0xbb]);
pub const VNI: u32 = 7;
/// What other machines of the tunnel have behind them, each by the gateway of its number.
pub const BEHIND: [(&str, &str); 2] =
    [("10.244.1.0/24", "10.9.0.2"), ("10.244.2.0/24", "10.9.0.3")];

/// Longer than it takes to give up a neighbour that does not answer, and to ask for one that was
/// not heard of since it was used.
pub const PAUSE: Duration = Duration::from_millis(5_300);

impl Lan {
    /// The addresses, and which links have them.
    pub fn addresses(self) -> Vec<(&'static str, ipnet::Ipv4Net)> {
        match self {
            Lan::Neighbours => vec![
                (LEGS[0], net("10.0.0.1/16")),
                (LEGS[1], net("10.1.0.1/16")),
                (LEGS[1], net("10.1.0.2/16")),
                (LEGS[2], net("10.2.0.1/16")),
            ],
            Lan::Bridge | Lan::Filtered => vec![(BRIDGE, net("10.9.0.1/24"))],
            Lan::Vxlan => vec![
                (LEGS[0], net("10.0.0.1/16")),
                (LEGS[1], net("10.1.0.1/16")),
                (VXLAN, net("10.9.0.1/24")),
            ],
        }
    }

    fn has_bridge(self) -> bool {
        matches!(self, Lan::Bridge | Lan::Filtered)
    }

    /// Whoever is asked for answers at once.
    fn answers(self) -> bool {
        self == Lan::Vxlan
    }
}

/// The outer address of the tunnel.
pub fn local() -> Ipv4Addr {
    ip("10.0.0.1")
}

/// What is done to it, beside what is done to any router.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Comes in by a leg.
    Frame(#[serde(with = "spelling::leg")] usize, Box<Frame>),
    /// Whoever was asked for answers: the last one at 0, the one before at 1. With another
    /// MAC address than its own where that is given.
    Tell(usize, Option<Mac>),
    /// A leg becomes a port of the bridge, or ceases to be one.
    Port(#[serde(with = "spelling::leg")] usize, bool),
    /// What came by a leg may go back by it, or may not.
    Hairpin(#[serde(with = "spelling::leg")] usize, bool),
    /// All entries of the tunnel's forwarding database.
    Fdb(Vec<FdbEntry>),
    /// All permanent neighbours behind the tunnel.
    Permanent(Vec<Neighbour>),
    /// [`PAUSE`] passes.
    Pause,
}

/// What left by a leg, in words; and who was asked for.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ports: Ports,
    asked: Vec<(usize, Arp)>,
}

impl Seen {
    fn frame(&mut self, leg: usize, frame: &Frame) -> String {
        if let kubesim_sim::kernel::packet::Payload::Arp(arp) = &frame.payload
            && arp.request
        {
            self.asked.push((leg, *arp));
        }
        format!("out by {}: {}", LEGS[leg], self.ports.frame(frame))
    }

    fn answer(&self, which: usize, mac: Option<Mac>) -> Option<(usize, Frame)> {
        let (leg, arp) = self.asked.get(self.asked.len().checked_sub(which + 1)?)?;
        let mut frame = super::wire::arp_answer(*leg, arp)?;
        if let (Some(mac), kubesim_sim::kernel::packet::Payload::Arp(answer)) =
            (mac, &mut frame.payload)
        {
            (answer.sender_mac, frame.src) = (mac, mac);
        }
        Some((*leg, frame))
    }
}

/// As `ip` wants it.
fn hairpin_words(leg: usize, on: bool) -> String {
    let value = if on { "on" } else { "off" };
    format!("link set {} type bridge_slave hairpin {value}", LEGS[leg])
}

/// Where a frame stands among those of one step. Whose timer rings first, of two neighbours that
/// were asked for within a jiffy, is chance: questions are ordered by whom they ask for.
fn place(leg: usize, frame: Option<&Frame>) -> (usize, u32) {
    match frame.map(|frame| &frame.payload) {
        Some(kubesim_sim::kernel::packet::Payload::Arp(arp)) if arp.request => {
            (leg, arp.target_ip.to_bits())
        }
        _ => (leg, 0),
    }
}

/// A line of `ip neigh`.
fn neighbour_line(ip: Ipv4Addr, dev: &str, mac: Option<Mac>, state: &str) -> String {
    let mac = mac.map_or(String::new(), |mac| format!(" at {mac}"));
    format!("neighbour {ip} dev {dev}{mac} {state}")
}

/// A line of `bridge fdb`.
fn fdb_line(mac: Mac, dev: &str) -> String {
    format!("fdb {} dev {dev}", mac_words(mac))
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Act::Frame(leg, frame) => {
                write!(f, "in by {}: {}", LEGS[*leg], Ports::default().frame(frame))
            }
            Act::Tell(which, None) => write!(f, "answer to question -{which}"),
            Act::Tell(which, Some(mac)) => write!(f, "answer to question -{which} by {mac}"),
            Act::Port(leg, true) => write!(f, "ip link set {} master {BRIDGE}", LEGS[*leg]),
            Act::Port(leg, false) => write!(f, "ip link set {} nomaster", LEGS[*leg]),
            Act::Hairpin(leg, on) => write!(f, "ip {}", hairpin_words(*leg, *on)),
            Act::Fdb(entries) => write!(f, "fdb of {VXLAN}: {entries:?}"),
            Act::Permanent(neighbours) => write!(f, "neighbours of {VXLAN}: {neighbours:?}"),
            Act::Pause => write!(f, "wait {} ms in real time", PAUSE.as_millis()),
        }
    }
}
