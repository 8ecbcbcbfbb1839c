//! The container runtime, as the CRI has it: sandboxes (with their network) and containers.
//!
//! It is the runtime's part to make of one request several of the CRI's (StartContainer is
//! ImageStatus, PullImage, CreateContainer and StartContainer there) and to find out what it is
//! not told; which of them failed is [`Fault`].

mod credentials;
mod hosts;
mod isolation;
mod mount;

pub use self::credentials::Credentials;
pub use self::hosts::{Hosts, look_up};
pub use self::isolation::{Capabilities, Resources, Seccomp, Security};
pub use self::mount::{Message, Mount, Propagation};

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
    /// Subscribes to exits ([`Reply::Exited`]), to sandboxes that went by themselves
    /// ([`Reply::SandboxRemoved`]) and to the runtime's being away ([`Reply::Down`]), and lists
    /// what runs ([`Reply::Listed`]).
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
    /// Pulls the image as its policy says, creates and starts.
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
    /// Below which cgroup it is.
    pub qos: Qos,
    /// Some container of it is privileged.
    pub privileged: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
}

impl Sandbox {
    /// One that asks for nothing, on the machine's own network.
    pub fn of(pod: Key) -> Sandbox {
        Sandbox {
            hostname: SmolStr::from(&*pod.name),
            pod,
            network: PodNetwork::Host,
            resolv_conf: Arc::from(""),
            qos: Qos::BestEffort,
            privileged: false,
            host_pid: false,
            host_ipc: false,
        }
    }
}

/// The quality-of-service class of a pod (pkg/apis/core/v1/helper/qos).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Qos {
    Guaranteed,
    Burstable,
    #[default]
    BestEffort,
}

impl Qos {
    /// The API's word.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
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
    pub pull: Pull,
    /// Tried one after the other; without any, the registry is asked without.
    pub credentials: Vec<Credentials>,
    /// The image's own, if empty; so are `args` if both are.
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// The image's, if empty.
    pub working_dir: SmolStr,
    /// Variables that containers of a namespace share: its services. `env` overrides them.
    pub service_env: Arc<[(String, String)]>,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Its /etc/hosts, unless that is the image's, or one of `mounts`.
    pub hosts: Option<Hosts>,
    pub message: Message,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: Box<Security>,
    /// The container of its pod whose processes it sees; empty: only its own.
    pub target: SmolStr,
    /// 0 for the first start of this container in this pod.
    pub attempt: u32,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pull {
    /// The registry is asked at each start.
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl Container {
    /// The first start of one that asks for nothing.
    pub fn of(name: &str, image: &str) -> Container {
        Container {
            name: SmolStr::from(name),
            image: SmolStr::from(image),
            pull: Pull::IfNotPresent,
            credentials: Vec::new(),
            command: Vec::new(),
            args: Vec::new(),
            working_dir: SmolStr::default(),
            service_env: Arc::default(),
            env: Vec::new(),
            mounts: Vec::new(),
            hosts: None,
            message: Message::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            resources: Resources::default(),
            security: Box::default(),
            target: SmolStr::default(),
            attempt: 0,
        }
    }

    /// What its hosts file says of a name, where the machine's own says nothing.
    pub fn knows(&self, host: &str) -> Option<Ipv4Addr> {
        let hosts = self.hosts.as_ref()?;
        look_up(&hosts.head, host).or_else(|| look_up(&hosts.tail, host))
    }

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
    /// Asked for, or found gone or broken (the machine was off, somebody killed it): it is no
    /// more, and neither are its containers.
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
        exit: Exit,
    },
    /// What was asked for this pod could not be done; `what` is `sandbox` or the container's name.
    Refused {
        pod: Uid,
        what: SmolStr,
        why: SmolStr,
        fault: Fault,
    },
    /// StopContainer for one that does not run.
    NotRunning {
        pod: Uid,
        name: SmolStr,
    },
    /// The runtime has not answered for too long, or says that it cannot work: `why`, as the
    /// node's condition has it. What runs may go on; the next [`Reply::Listed`] says that the
    /// runtime is back.
    Down {
        why: SmolStr,
    },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exit {
    pub code: i32,
    /// The runtime's word for it if it knows more than the code (`OOMKilled`, `StartError`), else
    /// empty.
    pub reason: SmolStr,
    pub message: SmolStr,
}

impl Exit {
    /// Of which nothing is known but the code.
    pub fn of(code: i32) -> Exit {
        Exit { code, reason: SmolStr::default(), message: SmolStr::default() }
    }

    pub fn because(reason: &'static str, code: i32) -> Exit {
        Exit { reason: SmolStr::new_static(reason), ..Exit::of(code) }
    }

    /// As a container's status has it.
    pub fn reason(&self) -> &str {
        match (self.reason.as_str(), self.code) {
            ("", 0) => "Completed",
            ("", _) => "Error",
            (reason, _) => reason,
        }
    }
}

/// At which step something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The sandbox is not made, or there is none.
    Sandbox,
    /// The registry does not give the image.
    Pull,
    /// It is not there and may not be pulled.
    NeverPull,
    /// What is asked contradicts the image: a user that may not be root and is.
    Config,
    Create,
    /// It was made and does not start.
    Start,
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
    /// `None` while it runs, else how it ended.
    pub exited: Option<Exit>,
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
