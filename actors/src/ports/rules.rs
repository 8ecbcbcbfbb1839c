//! Packet rules in the shape of iptables, and conntrack.
//!
//! Chains are data. A [`ChainSet`] is a snapshot: one compilation is shared by every machine at
//! its version, and a driver writes only the chains in which two versions differ.

use ipnet::Ipv4Net;
use kubesim_runtime::{Answers, Digest, Effect, Hasher, Snapshot};
use smol_str::SmolStr;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The chains one owner keeps, by table and name.
pub type ChainSet = Snapshot<ChainKey, Arc<Chain>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
pub struct Chain {
    pub rules: Vec<Rule>,
}

/// All matches hold: the target acts. In the order `iptables-save` prints them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// `-m comment --comment`
    Comment(SmolStr),
    /// `-p`
    Protocol { is: Protocol, not: bool },
    /// `-s`
    Source { net: Ipv4Net, not: bool },
    /// `-d`
    Destination { net: Ipv4Net, not: bool },
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
    /// `-m conntrack --ctstatus DNAT`
    CtDnat,
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
pub enum Target {
    /// `-j` to a chain of the same table
    Jump(SmolStr),
    /// `-g`
    Goto(SmolStr),
    Return,
    Accept,
    Drop,
    /// `REJECT --reject-with …`
    Reject(RejectWith),
    /// `DNAT --to-destination ip:port`
    Dnat {
        to: Ipv4Addr,
        port: Option<u16>,
    },
    /// `SNAT --to-source ip`
    Snat {
        to: Ipv4Addr,
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

/// A rule of ours in a built-in chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseRule {
    pub table: Table,
    /// `PREROUTING`, `INPUT`, `FORWARD`, `OUTPUT` or `POSTROUTING`.
    pub chain: SmolStr,
    pub place: Place,
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Before what others have there (`iptables -I`).
    First,
    /// After it (`iptables -A`).
    Last,
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
    /// What stands in a built-in chain, foreign rules included.
    ReadBase { table: Table, chain: SmolStr },
    /// Whether the owner's chains and base rules are still as applied.
    Verify { owner: SmolStr },
    /// Deletes every conntrack entry that one of the filters matches.
    DeleteConntrack { filters: Arc<[CtFilter]> },
    /// All entries with a rewritten destination.
    ListDnat,
}

/// All given fields must match the entry.
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// `version` is that of the shared set applied.
    Applied {
        owner: SmolStr,
        version: u64,
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
