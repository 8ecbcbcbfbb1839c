//! Services as elements of flat maps: what nftables mode writes instead of chains.
//!
//! What a packet to a Service meets depends on a few numbers (how many endpoints there are, say),
//! so a machine has one chain for each combination of these that occurs, and no chain is any
//! Service's own. One changed endpoint is one or two changed elements, whatever else there is.

use super::Protocol;
use ipnet::Ipv4Net;
use kubesim_runtime::Snapshot;
use serde::{Deserialize, Serialize};
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;

/// The elements one owner keeps. Invariant: a key has a value of its own kind.
pub type FlatSet = Snapshot<FlatKey, FlatValue>;

/// A destination as a client writes it: each has endpoints and clients of its own, also where a
/// Service has several. A node port is on every address of the node but those of
/// 127.0.0.0/8 (as KEP-3866 has it), and is written with the address 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    pub ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FlatKey {
    /// What is sent here goes to an endpoint.
    Service(Front),
    /// One of a front's endpoints, numbered from 0.
    Endpoint { front: Front, list: List, number: u16 },
    /// An endpoint of a sticky front, to be found by its address: to others no client comes back.
    Member { front: Front, list: List, ip: Ipv4Addr },
    /// For how long a client of a sticky front comes back to the endpoint it had.
    Sticky(Front),
    /// A network that may use a guarded front.
    Source { front: Front, net: Ipv4Net },
    /// What is sent here is answered with "port unreachable": there is no endpoint.
    Refused(Front),
    /// What an endpoint here sends to itself through a Service gets the node's address as source.
    Hairpin(Ipv4Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlatValue {
    /// Of [`FlatKey::Service`].
    Treatment(Treatment),
    /// Of [`FlatKey::Endpoint`] and [`FlatKey::Member`].
    To(Ipv4Addr, u16),
    /// Of [`FlatKey::Sticky`].
    Seconds(u32),
    /// Of all others.
    Present,
}

/// Which of a front's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    Everywhere,
    /// On this very node.
    Here,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Treatment {
    pub policy: Policy,
    /// How many endpoints each list has, where the policy uses it; at most [`Treatment::MOST`]
    /// and [`Treatment::MOST_HERE`].
    pub everywhere: u16,
    pub here: u16,
    /// Clients come back to the endpoint they had, while it is one (see [`FlatKey::Sticky`]).
    pub sticky: bool,
    /// Only the networks of [`FlatKey::Source`] may; others are dropped.
    pub guarded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A cluster address: any endpoint. What is not from a pod is masqueraded.
    Inside,
    /// The same with `internalTrafficPolicy: Local`: an endpoint here, or it is dropped.
    InsideLocal,
    /// Any other front: any endpoint, masqueraded.
    Outside,
    /// The same with `externalTrafficPolicy: Local`: an endpoint here with the client's address
    /// as source, or it is dropped; but pods, and masqueraded this node's own processes, get any
    /// endpoint.
    OutsideLocal,
}

impl Front {
    pub fn is_node_port(&self) -> bool {
        self.ip.is_unspecified()
    }
}

impl Treatment {
    pub const MOST: u16 = u16::MAX;
    pub const MOST_HERE: u16 = 2_047;

    /// As the name of its chain: `outside-local-3-1-sticky-guarded`.
    pub fn name(&self) -> SmolStr {
        let Treatment { policy, everywhere, here, sticky, guarded } = *self;
        let name = match policy {
            Policy::Inside => format_smolstr!("inside-{everywhere}"),
            Policy::InsideLocal => format_smolstr!("inside-local-{here}"),
            Policy::Outside => format_smolstr!("outside-{everywhere}"),
            Policy::OutsideLocal => format_smolstr!("outside-local-{everywhere}-{here}"),
        };
        let sticky = if sticky { "-sticky" } else { "" };
        format_smolstr!("{name}{sticky}{}", if guarded { "-guarded" } else { "" })
    }
}
