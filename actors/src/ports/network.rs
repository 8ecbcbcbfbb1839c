//! The machine's network: links, addresses, routes, neighbours, sysctls (rtnetlink and /proc/sys).

use ipnet::Ipv4Net;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use std::fmt;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;

mod wireguard;

pub use wireguard::{PrivateKey, PublicKey, Wireguard, WireguardPeer};

/// A link's name, at most 15 bytes (`IFNAMSIZ` - 1).
pub type IfName = SmolStr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// `0a:58` and the address: how the CNI bridge plugin names a pod's interface.
    pub fn from_ip(ip: Ipv4Addr) -> Mac {
        let [a, b, c, d] = ip.octets();
        Mac([0x0a, 0x58, a, b, c, d])
    }

    /// As a number, of the same order.
    pub fn bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
    pub fn from_bits(bits: u64) -> Mac {
        let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
        Mac([a, b, c, d, e, f])
    }

    pub fn parse(text: &str) -> Option<Mac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        parts.next().is_none().then_some(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As it is displayed.
impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(from)?;
        Mac::parse(&text).ok_or_else(|| D::Error::custom(format!("no MAC address: {text}")))
    }
}

/// Who put a route there (`rtm_protocol`, include/uapi/linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Proto(pub u8);

impl Proto {
    pub const KERNEL: Proto = Proto(2);
    pub const BOOT: Proto = Proto(3);
    pub const STATIC: Proto = Proto(4);
    pub const DHCP: Proto = Proto(16);
    /// Ours: everything under this tag is netd's, and nothing under another.
    pub const NETD: Proto = Proto(98);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub to: Ipv4Net,
    pub via: Option<Ipv4Addr>,
    pub dev: IfName,
    /// The gateway need not be within a connected network (`RTNH_F_ONLINK`).
    pub onlink: bool,
    pub metric: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    pub ip: Ipv4Addr,
    pub mac: Mac,
}

/// Frames for `mac` leave a vxlan device for the machine at `remote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbEntry {
    pub mac: Mac,
    pub remote: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Subscribes: the state now and after every change of a link, address, sysctl or owned
    /// route, as [`Reply::State`], until the machine ends.
    Observe,
    /// A bridge of this name with this address and MTU; one that differs is corrected.
    /// Other addresses on it are removed.
    EnsureBridge {
        name: IfName,
        address: Ipv4Net,
        mtu: u32,
    },
    /// A vxlan device without learning (`nolearning`), sending from `local`; one that differs is
    /// corrected (deleted and made anew where Linux cannot change it).
    EnsureVxlan {
        name: IfName,
        spec: Vxlan,
    },
    DeleteLink {
        name: IfName,
    },
    /// Makes the routes tagged `proto` be exactly these: missing ones are added, others of the
    /// same tag removed. What the kernel refuses is reported and the rest still done.
    SetRoutes {
        proto: Proto,
        routes: RouteSet,
    },
    /// Makes the permanent neighbours of a device be exactly these.
    SetNeighbours {
        dev: IfName,
        entries: Arc<[Neighbour]>,
    },
    /// Makes a vxlan device's FDB be exactly these.
    SetFdb {
        dev: IfName,
        entries: Arc<[FdbEntry]>,
    },
    /// `net.ipv4.conf.all.forwarding` = `1`.
    SetSysctl {
        key: SmolStr,
        value: SmolStr,
    },
    GetSysctl {
        key: SmolStr,
    },
    /// A WireGuard device with this key on this port; one that differs is corrected in place.
    /// `EOPNOTSUPP`: the kernel has no WireGuard.
    EnsureWireguard {
        name: IfName,
        spec: Wireguard,
    },
    /// Makes the peers of a WireGuard device be exactly these, whoever set others; a peer with the
    /// device's own key is passed over, so that machines can share one set. Writes differences
    /// only. An endpoint that the kernel has found out itself (roaming) stays while its peer
    /// answers there, unless another one is wanted than before.
    SetWireguardPeers {
        dev: IfName,
        peers: Arc<[WireguardPeer]>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vxlan {
    pub vni: u32,
    pub port: u16,
    pub mac: Mac,
    pub mtu: u32,
    pub local: Ipv4Addr,
    pub address: Ipv4Net,
}

/// A set of routes that many machines may share, less the one destination that is this machine's
/// own. `shared` is sorted by `to` and names each destination once.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RouteSet {
    pub shared: Arc<[Route]>,
    pub except: Option<Ipv4Net>,
}

impl RouteSet {
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.shared.iter().filter(|route| Some(route.to) != self.except)
    }
}

impl fmt::Debug for RouteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} routes except {:?}", self.shared.len(), self.except)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    State(Arc<State>),
    /// The request about this subject (a link's name, a sysctl's key) is done or was refused.
    Done {
        subject: SmolStr,
        result: Result<(), Errno>,
    },
    RoutesSet {
        proto: Proto,
        refused: Vec<(Ipv4Net, Errno)>,
    },
    Sysctl {
        key: SmolStr,
        value: Option<SmolStr>,
    },
}

/// Links, addresses and the sysctls we care for, as the kernel has them now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub links: Vec<Link>,
    /// Destinations of the routes tagged [`Proto::NETD`] that are in the table, when their number
    /// last changed other than by a `SetRoutes`: a flush by the kernel or by a third party.
    pub netd_routes: usize,
    /// `net.ipv4.ip_forward`, which is `conf.all.forwarding`.
    pub ip_forward: bool,
    /// `net.bridge.bridge-nf-call-iptables`: bridged packets walk iptables. Without it an answer
    /// from a pod to its neighbour on the bridge never meets the NAT that the question met.
    pub bridge_nf: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    pub name: IfName,
    pub index: u32,
    pub kind: LinkKind,
    pub mac: Mac,
    pub mtu: u32,
    pub up: bool,
    pub carrier: bool,
    pub master: Option<IfName>,
    pub addresses: Vec<Ipv4Net>,
    /// `net.ipv4.conf.<name>.forwarding`.
    pub forwarding: bool,
    /// Has the default route with the lowest metric.
    pub default_route: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    Loopback,
    /// A network card.
    Uplink,
    Bridge,
    Veth,
    Vxlan,
    /// Swallows what it sends: a place for addresses.
    Dummy,
    Wireguard,
}

/// What Linux says when it refuses (include/uapi/asm-generic/errno-base.h, errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Errno {
    /// No such process: "route not found".
    Esrch,
    Enodev,
    Eexist,
    Einval,
    Eopnotsupp,
    Eaddrinuse,
    Eaddrnotavail,
    Enetdown,
    /// "Nexthop has invalid gateway" where the gateway is not on-link.
    Enetunreach,
    Ehostunreach,
    Econnrefused,
    Econnreset,
    Etimedout,
    Emsgsize,
    Eperm,
    /// A link's name is too long.
    Erange,
    /// Whatever else it says, by number.
    Other(u16),
}

/// As strerror(3) has it.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Errno::Other(number) => return write!(f, "error {number} of errno(3)"),
            Errno::Esrch => "no such process",
            Errno::Enodev => "no such device",
            Errno::Eexist => "file exists",
            Errno::Einval => "invalid argument",
            Errno::Eopnotsupp => "operation not supported",
            Errno::Eaddrinuse => "address already in use",
            Errno::Eaddrnotavail => "cannot assign requested address",
            Errno::Enetdown => "network is down",
            Errno::Enetunreach => "network is unreachable",
            Errno::Ehostunreach => "no route to host",
            Errno::Econnrefused => "connection refused",
            Errno::Econnreset => "connection reset by peer",
            Errno::Etimedout => "connection timed out",
            Errno::Emsgsize => "message too long",
            Errno::Eperm => "operation not permitted",
            Errno::Erange => "numerical result out of range",
        })
    }
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        match self {
            Request::Observe => Answers::Stream,
            _ => Answers::One,
        }
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        self.hash(hasher);
    }
}
