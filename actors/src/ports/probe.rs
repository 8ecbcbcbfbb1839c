//! Probes of containers, made from the node.

use crate::objects::Uid;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use smol_str::SmolStr;
use std::fmt;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    Startup,
    Liveness,
    Readiness,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Startup => "startup",
            Purpose::Liveness => "liveness",
            Purpose::Readiness => "readiness",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    Http { ip: Ipv4Addr, port: u16, path: SmolStr },
    Tcp { ip: Ipv4Addr, port: u16 },
    Exec { command: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub pod: Uid,
    pub container: SmolStr,
    pub purpose: Purpose,
    pub check: Check,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    pub pod: Uid,
    pub container: SmolStr,
    pub purpose: Purpose,
    /// What went wrong, in the kubelet's words: `connect: connection refused`.
    pub result: Result<(), SmolStr>,
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
