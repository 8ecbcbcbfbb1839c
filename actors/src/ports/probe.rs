//! Probes of containers and hooks of their lives, made from the node.

use crate::objects::Uid;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use smol_str::SmolStr;
use std::fmt;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// What an answer is for. A hook may outlive the container's attempt that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    Startup,
    Liveness,
    Readiness,
    PostStart { attempt: u32 },
    PreStop { attempt: u32 },
}

impl Purpose {
    pub fn is_hook(self) -> bool {
        matches!(self, Purpose::PostStart { .. } | Purpose::PreStop { .. })
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Startup => "startup",
            Purpose::Liveness => "liveness",
            Purpose::Readiness => "readiness",
            Purpose::PostStart { .. } => "postStart",
            Purpose::PreStop { .. } => "preStop",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Of the host that the request names, or of this address.
    Http {
        ip: Ipv4Addr,
        get: Arc<Get>,
    },
    Tcp {
        ip: Ipv4Addr,
        port: u16,
    },
    Exec {
        command: Vec<String>,
    },
}

/// A GET request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Get {
    /// Another host than the pod, by its address or its name, if not empty.
    pub host: SmolStr,
    pub port: u16,
    /// With the query, as the spec has it; begins with a slash.
    pub path: SmolStr,
    /// By TLS, whoever the server is.
    pub tls: bool,
    /// `Host`, `User-Agent` and `Accept` among them take the place of what is said without them.
    pub headers: Box<[(SmolStr, SmolStr)]>,
}

impl Get {
    /// Whom it goes to, as Go's net.JoinHostPort has it.
    pub fn authority(&self, ip: Ipv4Addr) -> String {
        match self.host.as_str() {
            "" => format!("{ip}:{}", self.port),
            host if host.contains(':') => format!("[{host}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}

/// What an HTTPS server is found not to be (net/http's words).
pub const NOT_TLS: &str = "http: server gave HTTP response to HTTPS client";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub pod: Uid,
    pub container: SmolStr,
    pub purpose: Purpose,
    pub check: Check,
    /// `None` for as long as it takes: a hook is left, not ended.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    pub pod: Uid,
    pub container: SmolStr,
    pub purpose: Purpose,
    /// What went wrong, in the kubelet's words: `connect: connection refused`. To a hook, any
    /// response over HTTP is as good as another.
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
