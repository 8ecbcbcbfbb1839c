//! The container runtime, as the CRI has it: sandboxes (with their network) and containers.

use crate::objects::{Key, Uid};
use crate::ports::network::IfName;
use ipnet::Ipv4Net;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use smol_str::SmolStr;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Subscribes to exits ([`Reply::Exited`]) and lists what runs ([`Reply::Listed`]).
    Observe,
    /// Subscribes to what is pulled ([`Reply::Pulling`], [`Reply::Pulled`]), for who tells people.
    ObservePulls,
    RunSandbox {
        pod: Uid,
        spec: Arc<Sandbox>,
    },
    /// Stops its containers, takes its network away and removes it. Done when it is gone.
    RemoveSandbox {
        pod: Uid,
    },
    /// Pulls the image if it must, creates and starts.
    StartContainer {
        pod: Uid,
        spec: Arc<Container>,
    },
    /// SIGTERM, and SIGKILL after the grace. Answered by the same [`Reply::Exited`] as any exit.
    StopContainer {
        pod: Uid,
        name: SmolStr,
        grace: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sandbox {
    pub pod: Key,
    pub hostname: SmolStr,
    pub network: PodNetwork,
    /// The pod's /etc/resolv.conf.
    pub resolv_conf: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PodNetwork {
    /// The machine's own.
    Host,
    /// A veth into this bridge, with this address and a default route via `gateway`.
    Bridge { bridge: IfName, address: Ipv4Net, gateway: Ipv4Addr, mtu: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    pub name: SmolStr,
    pub image: SmolStr,
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// Variables that containers of a namespace share: its services. `env` overrides them.
    pub service_env: Arc<[(String, String)]>,
    pub env: Vec<(String, String)>,
    /// 0 for the first start of this container in this pod.
    pub attempt: u32,
}

impl Container {
    /// The whole environment, each name once.
    pub fn variables(&self) -> impl Iterator<Item = &(String, String)> {
        let own = |name: &str| self.env.iter().any(|(other, _)| other == name);
        self.service_env.iter().filter(move |(name, _)| !own(name)).chain(&self.env)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Listed {
        sandboxes: Arc<[SandboxState]>,
    },
    SandboxReady {
        pod: Uid,
        ip: Option<Ipv4Addr>,
    },
    SandboxRemoved {
        pod: Uid,
    },
    /// A container's image is not on the machine: it is fetched.
    Pulling {
        pod: Uid,
        name: SmolStr,
    },
    /// It has come, and the container is started.
    Pulled {
        pod: Uid,
        name: SmolStr,
        took: Duration,
        /// In bytes.
        size: u64,
    },
    Started {
        pod: Uid,
        name: SmolStr,
        attempt: u32,
        id: SmolStr,
    },
    /// A container ended, on its own or because it was stopped.
    Exited {
        pod: Uid,
        name: SmolStr,
        attempt: u32,
        code: i32,
    },
    /// What was asked for this pod could not be done; `what` is `sandbox` or the container's name.
    Refused {
        pod: Uid,
        what: SmolStr,
        why: SmolStr,
        image_missing: bool,
    },
    /// StopContainer for one that does not run.
    NotRunning {
        pod: Uid,
        name: SmolStr,
    },
}

/// A sandbox that exists, found at start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SandboxState {
    pub pod: Uid,
    pub key: Key,
    pub ip: Option<Ipv4Addr>,
    pub host_network: bool,
    pub containers: Vec<ContainerState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerState {
    pub name: SmolStr,
    pub attempt: u32,
    pub id: SmolStr,
    /// `None` while it runs, else its exit code.
    pub exited: Option<i32>,
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        match self {
            Request::Observe | Request::ObservePulls => Answers::Stream,
            _ => Answers::One,
        }
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        self.hash(hasher);
    }
}
