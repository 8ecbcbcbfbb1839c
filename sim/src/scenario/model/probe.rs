use kubesim_actors::objects::Name;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Something tried again and again and written down.
#[derive(Clone, Debug)]
pub struct Probe {
    pub name: Name,
    pub kind: ProbeKind,
    pub from: ProbeFrom,
    /// For a dig: the server asked.
    pub to: ProbeTarget,
    pub start: Duration,
    /// The end of the run when the file does not say.
    pub until: Duration,
    /// Between two tries (or two messages of a stream); `None` tries once, at `start`.
    pub every: Option<Duration>,
    /// A try without an answer for so long has failed.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A new connection and one GET; success is this status.
    Http {
        path: Name,
        status: u16,
    },
    /// One connection for the whole probe, a numbered message each `every`; a message counts when
    /// the receiver's program has read it. A broken connection is not opened again.
    TcpStream,
    Ping,
    Dig {
        query: Name,
        record: RecordType,
        /// Over a connection, which brings the whole of a long answer.
        tcp: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    A,
    Aaaa,
    Srv,
    Ptr,
}

#[derive(Clone, Debug)]
pub enum ProbeFrom {
    Node(Name),
    Client(Name),
    /// Inside the pod's network namespace; when the pod is gone, the next one that matches.
    Pod(PodRef),
}

#[derive(Clone, Debug)]
pub enum ProbeTarget {
    Pod {
        pod: PodRef,
        port: u16,
    },
    Service {
        namespace: Name,
        name: Name,
        port: u16,
        via: ServiceVia,
    },
    /// The node's present address.
    Node {
        node: Name,
        port: u16,
    },
    Address {
        address: Ipv4Addr,
        port: u16,
    },
    /// A DNS name, looked up by whoever probes, each time.
    Host {
        host: Name,
        port: u16,
    },
    /// The apiserver: a GET of `/readyz` at the server's present address.
    Api,
    /// The cluster DNS address.
    ClusterDns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceVia {
    ClusterIp,
    ExternalIp,
    /// The service's node port on this node's present address.
    NodePort(Name),
}

/// Pods by labels, by name, by node; empty parts match everything. The first ready one in the order
/// of their names is taken where one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRef {
    /// Empty: every namespace.
    pub namespace: Name,
    pub name: Option<Name>,
    pub labels: BTreeMap<String, String>,
    pub node: Option<Name>,
}
