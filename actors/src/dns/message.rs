//! DNS messages (RFC 1035), typed: the codec stands at the edge.

use smol_str::SmolStr;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

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

/// As dig(1) has it.
impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rcode::NoError => "NOERROR",
            Rcode::FormErr => "FORMERR",
            Rcode::ServFail => "SERVFAIL",
            Rcode::NxDomain => "NXDOMAIN",
            Rcode::NotImp => "NOTIMP",
            Rcode::Refused => "REFUSED",
        })
    }
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
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: SmolStr,
    },
    Txt(SmolStr),
    /// Of a negative answer: how long it holds. What else the record says is told to nobody.
    Soa,
    /// Any other type by its number, RFC 1035's bytes with no name compressed.
    Opaque {
        rtype: u16,
        data: Arc<[u8]>,
    },
}

/// Numbers as of RFC 1035, section 3.2, RFC 3596 and RFC 2782.
impl Type {
    pub fn from_number(number: u16) -> Type {
        match number {
            1 => Type::A,
            2 => Type::Ns,
            5 => Type::Cname,
            6 => Type::Soa,
            12 => Type::Ptr,
            16 => Type::Txt,
            28 => Type::Aaaa,
            33 => Type::Srv,
            255 => Type::Any,
            other => Type::Other(other),
        }
    }

    pub fn number(self) -> u16 {
        match self {
            Type::A => 1,
            Type::Ns => 2,
            Type::Cname => 5,
            Type::Soa => 6,
            Type::Ptr => 12,
            Type::Txt => 16,
            Type::Aaaa => 28,
            Type::Srv => 33,
            Type::Any => 255,
            Type::Other(other) => other,
        }
    }
}

impl Message {
    pub fn query(id: u16, name: SmolStr, qtype: Type) -> Self {
        Message {
            id,
            response: false,
            authoritative: false,
            truncated: false,
            recursion_desired: true,
            rcode: Rcode::NoError,
            name,
            qtype,
            answers: Vec::new(),
            additional: Vec::new(),
            udp_size: EDNS_SIZE,
        }
    }

    /// An empty answer to this question.
    pub fn reply(&self, rcode: Rcode) -> Self {
        Message {
            response: true,
            authoritative: false,
            truncated: false,
            rcode,
            answers: Vec::new(),
            additional: Vec::new(),
            name: self.name.clone(),
            ..*self
        }
    }

    /// Bytes on the wire (RFC 1035, section 4) with names compressed as servers do it: whole
    /// names and their suffixes, but none within SRV (RFC 2782). A payload size above 512 is
    /// said in an OPT record (RFC 6891).
    pub fn wire_len(&self) -> usize {
        let mut names = Compressor { seen: Vec::new() };
        let mut len = HEADER + names.put(&self.name) + 4;
        for record in self.answers.iter().chain(&self.additional) {
            len += names.put(&record.name) + 10 + names.data(&record.data);
        }
        len + if self.udp_size > PLAIN_SIZE { OPT } else { 0 }
    }

    /// Takes records away until the message fits into `limit` bytes: first the additional ones,
    /// which nobody needs, then answers, and then it says that it is truncated (RFC 2181, 9).
    pub fn fit(&mut self, limit: u16) {
        let limit = usize::from(limit);
        if self.wire_len() <= limit {
            return;
        }
        self.additional.clear();
        while self.wire_len() > limit && self.answers.pop().is_some() {
            self.truncated = true;
        }
    }
}

/// The longest message of all: over TCP two bytes say how long it is (RFC 1035, section 4.2.2).
pub const LONGEST: u16 = u16::MAX;
/// What a resolver without EDNS takes.
pub const PLAIN_SIZE: u16 = 512;
/// What one without fragments takes (DNS flag day 2020).
pub const EDNS_SIZE: u16 = 1232;
const HEADER: usize = 12;
const OPT: usize = 11;
/// Names of the primary server and the mailbox, which mostly repeat known suffixes, and five
/// numbers.
const SOA: usize = 22 + 20;

struct Compressor<'a> {
    seen: Vec<&'a str>,
}

impl<'a> Compressor<'a> {
    /// Labels up to the longest suffix that stands in the message already, and a pointer to it.
    fn put(&mut self, name: &'a str) -> usize {
        let mut len = 0;
        let mut rest = name;
        while !rest.is_empty() {
            if self.seen.contains(&rest) {
                return len + 2;
            }
            self.seen.push(rest);
            let (label, tail) = rest.split_once('.').unwrap_or((rest, ""));
            len += 1 + label.len();
            rest = tail;
        }
        len + 1
    }

    fn data(&mut self, data: &'a Data) -> usize {
        match data {
            Data::A(_) => 4,
            Data::Aaaa(_) => 16,
            Data::Ptr(name) | Data::Cname(name) => self.put(name),
            Data::Srv { target, .. } => 6 + target.len() + 2,
            Data::Txt(text) => text.len() + text.len().div_ceil(255).max(1),
            Data::Soa => SOA,
            Data::Opaque { data, .. } => data.len(),
        }
    }
}

impl Data {
    pub fn rtype(&self) -> Type {
        match self {
            Data::A(_) => Type::A,
            Data::Aaaa(_) => Type::Aaaa,
            Data::Ptr(_) => Type::Ptr,
            Data::Cname(_) => Type::Cname,
            Data::Srv { .. } => Type::Srv,
            Data::Txt(_) => Type::Txt,
            Data::Soa => Type::Soa,
            Data::Opaque { rtype, .. } => Type::from_number(*rtype),
        }
    }
}
