//! DNS messages (RFC 1035), typed: the codec stands at the edge.

use smol_str::SmolStr;
use std::net::{Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    pub id: u16,
    pub response: bool,
    pub authoritative: bool,
    pub truncated: bool,
    pub recursion_desired: bool,
    pub rcode: Rcode,
    /// The one question.
    pub name: SmolStr,
    pub qtype: Type,
    pub answers: Vec<Record>,
    pub additional: Vec<Record>,
    /// The largest UDP payload the sender takes: 512, or what its EDNS option says.
    pub udp_size: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rcode {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    A,
    Aaaa,
    Ptr,
    Srv,
    Cname,
    Txt,
    Soa,
    Ns,
    Any,
    Other(u16),
}

/// Names are lower case, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub name: SmolStr,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(SmolStr),
    Cname(SmolStr),
    Srv { priority: u16, weight: u16, port: u16, target: SmolStr },
    Txt(SmolStr),
    Soa,
}
