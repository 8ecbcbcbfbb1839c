use super::fault::ActorName;
use super::probe::PodRef;
use kubesim_actors::objects::{Key, Name};
use kubesim_actors::proxy::Mode;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What must hold, under a name that says it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// A readable sentence.
    pub name: String,
    pub expect: Expect,
}

/// A moment of the run, for "within X of E".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The start of the run.
    Start,
    Fault {
        fault: Name,
        moment: Moment,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When the fault happens.
    Begins,
    /// When it is over: carrier back, partition healed, actor started again.
    Ends,
    /// When the node that moved has its new address.
    AddressAcquired,
}

/// `by = "60s"` is 60 s after the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub after: Anchor,
    pub within: Duration,
}

#[derive(Clone, Debug)]
pub enum Expect {
    /// Every matching pod that is not being deleted is Ready at some moment before the deadline,
    /// and there are `count` of them (when `None`: at least one).
    PodsReady {
        pods: PodRef,
        count: Option<u32>,
        by: Deadline,
    },
    NodesReady {
        nodes: Vec<Name>,
        by: Deadline,
    },
    /// Every try that began in `from..until` succeeded (or, `fails`, failed: 100 % loss), and there
    /// was at least one.
    Probe {
        probe: Name,
        from: Duration,
        until: Duration,
        fails: bool,
    },
    /// A try that began after the anchor (of a stream: a delivery after it) succeeds within the
    /// deadline.
    Resumes {
        probe: Name,
        by: Deadline,
    },
    /// No time longer than this without a success, from the first one on.
    MaxGap {
        probe: Name,
        within: Duration,
    },
    /// The pod subnet of each node is the same from its first lease to the end.
    SubnetKept {
        nodes: Vec<Name>,
    },
    /// The address of the pod bridge too.
    BridgeKept {
        nodes: Vec<Name>,
    },
    /// No matching container restarted more often, and no pod was replaced when 0.
    Restarts {
        pods: PodRef,
        at_most: u32,
    },
    /// From the deadline on until the next fault (or the end) no node of these has a route, FDB or
    /// neighbour entry under netd's tag, or through a pod subnet, that is not the live owner's.
    RoutesClean {
        nodes: Vec<Name>,
        by: Deadline,
    },
    /// Every pattern matches a line of `iptables-save` on every node (`*` stands for any text), and
    /// no `absent` pattern does, at some moment before the deadline. Where they are the rules of a
    /// proxy mode, they are only looked for in that.
    Rules {
        nodes: Vec<Name>,
        mode: Option<Mode>,
        has: Vec<String>,
        absent: Vec<String>,
        by: Deadline,
    },
    /// The actor refused to start and its reason contains every text.
    Refused {
        actor: ActorName,
        text: Vec<String>,
        by: Deadline,
    },
    /// A dig probe's last answer before the deadline is exactly this set.
    DnsAnswer {
        probe: Name,
        answer: Vec<Ipv4Addr>,
        by: Deadline,
    },
    /// The cluster DNS of the node sent a query to this upstream within the deadline, and after it
    /// to no other until the next fault.
    UpstreamUsed {
        node: Name,
        upstream: Name,
        by: Deadline,
    },
    /// `interface`: a link of the node, or `eth0` of every pod on it when `pods`.
    Mtu {
        nodes: Vec<Name>,
        interface: Name,
        pods: bool,
        mtu: u32,
        by: Deadline,
    },
    /// Ready pods of this Deployment or ReplicaSet.
    Replicas {
        deployment: Key,
        ready: u32,
        by: Deadline,
    },
    /// Every Deployment with these labels: observed, updated, available and no old pods left.
    Rollout {
        labels: BTreeMap<String, String>,
        by: Deadline,
    },
    /// A note of the actor (any, when `None`) on the node (any) contains every text.
    Says {
        actor: Option<ActorName>,
        node: Option<Name>,
        text: Vec<String>,
        by: Deadline,
    },
    Sysctl {
        nodes: Vec<Name>,
        key: String,
        value: i64,
        by: Deadline,
    },
    /// The file on each node contains every text.
    File {
        nodes: Vec<Name>,
        path: Name,
        contains: Vec<String>,
        by: Deadline,
    },
    /// The node's chain policy (`FORWARD` accepts what its pods send): a packet of its pod network
    /// passes.
    Forwards {
        nodes: Vec<Name>,
        by: Deadline,
    },
    /// The subnet of `from`, after it was deleted, belongs to `to`.
    SubnetReassigned {
        from: Name,
        to: Name,
        by: Deadline,
    },
}

impl Expect {
    /// By when it has to be so, if it is not about the run as a whole.
    pub fn deadline(&self) -> Option<&Deadline> {
        match self {
            Expect::PodsReady { by, .. }
            | Expect::NodesReady { by, .. }
            | Expect::Resumes { by, .. }
            | Expect::RoutesClean { by, .. }
            | Expect::Rules { by, .. }
            | Expect::Refused { by, .. }
            | Expect::DnsAnswer { by, .. }
            | Expect::UpstreamUsed { by, .. }
            | Expect::Mtu { by, .. }
            | Expect::Replicas { by, .. }
            | Expect::Rollout { by, .. }
            | Expect::Says { by, .. }
            | Expect::Sysctl { by, .. }
            | Expect::File { by, .. }
            | Expect::Forwards { by, .. }
            | Expect::SubnetReassigned { by, .. } => Some(by),
            _ => None,
        }
    }
}
