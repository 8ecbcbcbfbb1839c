//! Packet rules in the shape of iptables, and conntrack.
//!
//! Chains are data. A [`ChainSet`] is a snapshot: one compilation is shared by every machine at
//! its version, and a driver writes only the chains in which two versions differ.

pub mod address;
pub mod flat;
pub mod parse;
pub mod text;
pub mod virtuals;

pub use address::Address;
use flat::{FlatKey, FlatSet, FlatValue, Front};
use ipnet::Ipv4Net;
use kubesim_runtime::{Answers, Digest, Effect, Hasher, Snapshot};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;
use virtuals::{Virtual, VirtualSet};

/// The chains one owner keeps, by table and name.
pub type ChainSet<A = Ipv4Addr> = Snapshot<ChainKey, Arc<Chain<A>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainKey {
    pub table: Table,
    pub name: SmolStr,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain<A: Address = Ipv4Addr> {
    pub rules: Vec<Rule<A>>,
}

/// All matches hold: the target acts. In the order `iptables-save` prints them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule<A: Address = Ipv4Addr> {
    pub matches: Vec<Match<A>>,
    pub target: Target<A>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// That of the addresses' family.
    Icmp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match<A: Address = Ipv4Addr> {
    /// `-m comment --comment`
    Comment(SmolStr),
    /// `-p`
    Protocol { is: Protocol, not: bool },
    /// `-s`
    Source { net: A::Net, not: bool },
    /// `-d`
    Destination { net: A::Net, not: bool },
    /// `--sport`, inclusive
    SourcePort { from: u16, to: u16, not: bool },
    /// `--dport`, inclusive
    DestinationPort { from: u16, to: u16, not: bool },
    /// `-i`; a trailing `+` matches any suffix
    InInterface { name: SmolStr, not: bool },
    /// `-o`
    OutInterface { name: SmolStr, not: bool },
    /// `-m mark --mark value/mask`
    Mark { value: u32, mask: u32, not: bool },
    /// `-m addrtype --src-type`
    SourceType { is: AddrType, not: bool },
    /// `-m addrtype --dst-type`
    DestinationType { is: AddrType, not: bool },
    /// `-m physdev --physdev-is-in`
    PhysdevIsIn { not: bool },
    /// `-m statistic --mode random --probability p`; `p` in units of 1/2^31, as the kernel
    /// keeps it (net/netfilter/xt_statistic.c)
    Random { probability: u32 },
    /// `-m recent --rcheck --seconds s --reap --name n --rsource`
    RecentCheck { name: SmolStr, seconds: u32 },
    /// `-m recent --set --name n --rsource`
    RecentSet { name: SmolStr },
    /// `-m conntrack --ctstate`, any of
    CtState { any: CtStates, not: bool },
    /// `-m conntrack --ctstate DNAT`: the destination is rewritten (`XT_CONNTRACK_STATE_DNAT`)
    CtDnat,
    /// What none of these says, in iptables' words from `-m` on: only read, never applied
    Other(SmolStr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddrType {
    Local,
    Unicast,
    Broadcast,
    Multicast,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtStates {
    pub new: bool,
    pub established: bool,
    pub related: bool,
    pub invalid: bool,
    pub untracked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target<A: Address = Ipv4Addr> {
    /// `-j` to a chain of the same table
    Jump(SmolStr),
    /// `-g`
    Goto(SmolStr),
    Return,
    Accept,
    Drop,
    /// `REJECT --reject-with …`
    Reject(A::RejectWith),
    /// `DNAT --to-destination ip:port`
    Dnat {
        to: A,
        port: Option<u16>,
    },
    /// `SNAT --to-source ip`
    Snat {
        to: A,
    },
    /// `MASQUERADE --random-fully`
    Masquerade {
        random_fully: bool,
    },
    /// `MARK --set-xmark value/mask`: zeroes the bits of `mask`, then xors `value`
    /// (`--or-mark v` is `v/v`, `--xor-mark v` is `v/0`).
    Mark {
        value: u32,
        mask: u32,
    },
    /// `CT --notrack`
    NoTrack,
    /// Any other `-j`, in iptables' words from the target's name on: only read, never applied
    Other(SmolStr),
    /// No `-j`: only counts, and lets matches such as `recent --set` act.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    PortUnreachable,
    HostUnreachable,
    AdminProhibited,
    TcpReset,
}

/// What IPv6 answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith6 {
    PortUnreachable,
    NoRoute,
    AdminProhibited,
    AddressUnreachable,
    TcpReset,
}

/// A rule of ours in a built-in chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseRule<A: Address = Ipv4Addr> {
    pub table: Table,
    /// `PREROUTING`, `INPUT`, `FORWARD`, `OUTPUT` or `POSTROUTING`.
    pub chain: SmolStr,
    pub place: Place,
    pub rule: Rule<A>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Before what others have there (`iptables -I`).
    First,
    /// After it (`iptables -A`).
    Last,
}

/// What `Apply` takes, beside virtual services.
#[derive(Clone, Debug)]
pub struct Chains {
    pub base: Arc<[BaseRule]>,
    pub shared: ChainSet,
    pub local: Arc<[(ChainKey, Arc<Chain>)]>,
}

impl Chains {
    /// The same rules, whatever the versions. O(what the two do not share).
    pub fn same(&self, other: &Chains) -> bool {
        self.base == other.base
            && self.local == other.local
            && self.shared.diff(&other.shared).next().is_none()
    }
}

/// What all of an owner's elements share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlatSettings {
    /// What is from here is a pod's.
    pub pods: Ipv4Net,
    /// The bit of a packet's mark that says: to be masqueraded.
    pub mark: u32,
}

#[derive(Clone, Debug)]
pub enum Request {
    /// One transaction (`iptables-restore --noflush`): the owner's chains become exactly
    /// `shared` and `local`, its base rules exactly `base`. Where both have a chain, `local` wins.
    /// Nothing else is touched.
    Apply {
        owner: SmolStr,
        base: Arc<[BaseRule]>,
        shared: ChainSet,
        local: Arc<[(ChainKey, Arc<Chain>)]>,
    },
    /// nftables mode, one transaction: the owner's table holds exactly the elements of `shared`
    /// and `local`, and what gives them their meaning (see [`flat`]). Where both have a key,
    /// `local` wins. An owner uses this or `Apply`, not both.
    ApplyFlat {
        owner: SmolStr,
        settings: FlatSettings,
        shared: FlatSet,
        local: Arc<[(FlatKey, FlatValue)]>,
    },
    /// ipvs mode: the owner's chains and base rules become those of `chains` (as in `Apply`), and
    /// its virtual services exactly `shared` and `local` (see [`virtuals`]). Where both have a
    /// front, `local` wins. The chains come first. An owner uses this, `Apply` or `ApplyFlat`.
    ApplyVirtual {
        owner: SmolStr,
        chains: Chains,
        shared: VirtualSet,
        local: Arc<[(Front, Arc<Virtual>)]>,
    },
    /// What stands in a built-in chain, foreign rules included.
    ReadBase { table: Table, chain: SmolStr },
    /// Whether the owner's chains and base rules are still as applied.
    Verify { owner: SmolStr },
    /// Deletes every conntrack entry that one of the filters matches.
    DeleteConntrack { filters: Arc<[CtFilter]> },
    /// All entries with a rewritten destination.
    ListDnat,
}

/// All given fields must match the entry. What was not rewritten matches `dnat_to` and `dnat_port`
/// only where `original_dst` is the same address: who asks for connections to an endpoint through
/// a Service does not mean those that go there directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtFilter {
    pub protocol: Option<Protocol>,
    /// The destination the client wrote.
    pub original_dst: Option<Ipv4Addr>,
    pub original_dport: Option<u16>,
    /// The address and port it was rewritten to.
    pub dnat_to: Option<Ipv4Addr>,
    pub dnat_port: Option<u16>,
}

/// A remembered connection. Of ICMP, `sport` and `dnat_port` are the id of the echo and
/// `original_dport` its type and code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CtEntry {
    pub protocol: Protocol,
    pub src: Ipv4Addr,
    pub sport: u16,
    pub original_dst: Ipv4Addr,
    pub original_dport: u16,
    pub dnat_to: Ipv4Addr,
    pub dnat_port: u16,
}

impl CtFilter {
    /// Only an entry with a rewritten destination can match.
    pub fn wants_rewritten(&self) -> bool {
        let to_itself = self.original_dst.is_some() && self.original_dst == self.dnat_to;
        (self.dnat_to.is_some() || self.dnat_port.is_some()) && !to_itself
    }

    pub fn matches(&self, entry: &CtEntry) -> bool {
        let CtFilter { protocol, original_dst, original_dport, dnat_to, dnat_port } = *self;
        protocol.is_none_or(|protocol| protocol == entry.protocol)
            && original_dst.is_none_or(|dst| dst == entry.original_dst)
            && original_dport.is_none_or(|port| port == entry.original_dport)
            && (!self.wants_rewritten() || entry.is_rewritten())
            && dnat_to.is_none_or(|to| to == entry.dnat_to)
            && dnat_port.is_none_or(|port| port == entry.dnat_port)
    }
}

impl CtEntry {
    /// Answers come from elsewhere than the client wrote to (`IPS_DST_NAT`).
    pub fn is_rewritten(&self) -> bool {
        let port = self.protocol != Protocol::Icmp && self.dnat_port != self.original_dport;
        self.dnat_to != self.original_dst || port
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// `version` is that of the shared set applied. `missing` is what stood there no more of what
    /// the owner had applied before, where that was noticed: it is put back with this.
    Applied {
        owner: SmolStr,
        version: u64,
        missing: Vec<String>,
        result: Result<(), String>,
    },
    Base {
        table: Table,
        chain: SmolStr,
        policy_drop: bool,
        rules: Arc<[Rule]>,
    },
    Verified {
        owner: SmolStr,
        intact: bool,
        missing: Vec<String>,
    },
    ConntrackDeleted {
        entries: u32,
    },
    Dnat {
        entries: Arc<[CtEntry]>,
    },
    /// A request other than Apply could not be carried out: which, and why.
    Failed {
        doing: SmolStr,
        why: String,
    },
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        Answers::One
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        self.hash(hasher);
    }
}
