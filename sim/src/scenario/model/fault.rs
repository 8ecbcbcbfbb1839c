use super::{Manifest, Software, Span, UpstreamBehaviour};
use kubesim_actors::objects::{Key, Kind, Name};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Something that happens to the world.
#[derive(Clone, Debug)]
pub struct Fault {
    pub name: Name,
    pub at: Span,
    pub kind: FaultKind,
}

#[derive(Clone, Debug)]
pub enum FaultKind {
    /// The cable (or the radio) leaves one LAN and, after `outage`, has carrier on another.
    /// `outage` is from carrier loss to the moment the new address is acquired, DHCP included where
    /// it is that fast; a static address stays unless `address` gives a new one.
    Move {
        node: Name,
        network: Name,
        outage: Span,
        address: Option<Ipv4Addr>,
    },
    LinkDown {
        target: LinkTarget,
        lasts: Option<Span>,
    },
    LinkUp {
        target: LinkTarget,
    },
    /// Frames from `from` do not reach `to`; nor the other way unless `one_way`.
    Partition {
        from: Vec<Place>,
        to: Vec<Place>,
        one_way: bool,
        lasts: Span,
    },
    Disturb {
        target: LinkTarget,
        by: Disturbance,
        lasts: Span,
    },
    /// The actor's memory is lost; it starts again after `restart` or, when `None`, never.
    Kill {
        actor: ActorName,
        nodes: Vec<Name>,
        loss: Loss,
        restart: Option<Span>,
    },
    /// A clean stop, until a `Start`.
    Stop {
        actor: ActorName,
        nodes: Vec<Name>,
    },
    Start {
        actor: ActorName,
        nodes: Vec<Name>,
    },
    PowerOff {
        nodes: Vec<Name>,
        lasts: Option<Span>,
    },
    PowerOn {
        nodes: Vec<Name>,
    },
    /// A machine that was `off` boots for the first time.
    NodeAdd {
        nodes: Vec<Name>,
    },
    /// `kubectl delete node`, and the machine off (before) when `power_off`.
    NodeDelete {
        nodes: Vec<Name>,
        power_off: bool,
    },
    Apply {
        objects: Vec<Manifest>,
    },
    /// A merge patch (RFC 7386), to one object or to every object of the kind with the labels.
    Patch {
        of: ObjectRef,
        patch: Arc<Value>,
    },
    Delete {
        of: ObjectRef,
    },
    Scale {
        of: ObjectRef,
        replicas: u32,
    },
    WriteFile {
        nodes: Vec<Name>,
        path: Name,
        how: WriteHow,
        text: String,
    },
    Sysctl {
        nodes: Vec<Name>,
        key: String,
        value: i64,
    },
    /// A rule in iptables' own words, without `iptables`: `-P FORWARD DROP`, `-t nat -A ...`.
    Iptables {
        nodes: Vec<Name>,
        command: String,
    },
    /// The DHCP server hands these out from now on and tells its clients at once (a renewed ACK).
    DhcpPushDns {
        network: Name,
        dns: Vec<Ipv4Addr>,
    },
    StartSoftware {
        nodes: Vec<Name>,
        software: Software,
    },
    Upstream {
        upstream: Name,
        behaviour: UpstreamBehaviour,
    },
}

/// Objects of a kind: one by key, or all with these labels (in every namespace).
#[derive(Clone, Debug)]
pub struct ObjectRef {
    pub kind: Kind,
    pub which: Which,
}

#[derive(Clone, Debug)]
pub enum Which {
    Key(Key),
    Labels(std::collections::BTreeMap<String, String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// The node's cable.
    Node(Name),
    /// The cable between two routers.
    Link(Name),
    /// Every cable of the LAN.
    Network(Name),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Node(Name),
    Network(Name),
    Client(Name),
    Upstream(Name),
}

impl Place {
    pub fn name(&self) -> &Name {
        let (Place::Node(name)
        | Place::Network(name)
        | Place::Client(name)
        | Place::Upstream(name)) = self;
        name
    }
}

/// What is added to (latency, jitter) or taken in place of (the rest) a link's own quality.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Disturbance {
    pub latency: Duration,
    pub jitter: Duration,
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActorName {
    Apiserver,
    Controllers,
    Scheduler,
    Kubelet,
    Netd,
    Proxy,
    Dns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Process,
    Power,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteHow {
    /// A new file renamed over the old one, as NetworkManager does.
    Rename,
    /// The path becomes a symlink to another file with this text.
    Symlink,
    InPlace,
    /// Truncated.
    Empty,
}
