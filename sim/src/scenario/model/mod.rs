//! A scenario as plain data: what the file says, checked, with every default filled in, every
//! template expanded and every name resolved. No behaviour and no world.

mod expect;
mod fault;
mod probe;
mod program;

pub use expect::{Anchor, Deadline, Expect, Expectation, Moment};
pub use fault::{
    ActorName, Disturbance, Fault, FaultKind, LinkTarget, Loss, ObjectRef, Place, Which, WriteHow,
};
pub use probe::{PodRef, Probe, ProbeFrom, ProbeKind, ProbeTarget, RecordType, ServiceVia};
pub use program::{Call, Crash, FindHost, HttpRoute, Image, StreamClient};

use ipnet::Ipv4Net;
use kubesim_actors::objects::{Kind, Name, Object};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub title: String,
    /// What it shows and what must hold, for a reader.
    pub shows: String,
    /// Where it was seen: `owner/repo#n` and field notes.
    pub seen: Vec<String>,
    /// What the seed varies, for a reader.
    pub seeds: String,
    /// Virtual time of a whole run.
    pub duration: Duration,
    pub networks: Vec<Network>,
    pub links: Vec<Link>,
    pub upstreams: Vec<Upstream>,
    pub clients: Vec<Client>,
    pub cluster: Cluster,
    /// Every machine, templates expanded, in the order of the file.
    pub nodes: Vec<Node>,
    /// What is not here cannot be pulled.
    pub images: BTreeMap<Name, Image>,
    pub workloads: Vec<Workload>,
    pub faults: Vec<Fault>,
    pub probes: Vec<Probe>,
    pub expectations: Vec<Expectation>,
    pub invariants: Vec<Invariant>,
    /// The profile that was asked for; its overrides are applied already.
    pub profile: Option<Profile>,
    /// Names of the profiles the file has.
    pub profiles: Vec<String>,
}

/// A span of time out of which the seed draws; exact when both ends are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    pub from: Duration,
    /// Not before `from`.
    pub to: Duration,
}

impl Span {
    pub const fn exact(at: Duration) -> Self {
        Span { from: at, to: at }
    }
    pub fn is_exact(self) -> bool {
        self.from == self.to
    }
}

/// How a cable or a network treats frames. Probabilities are 0.0..=1.0.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Quality {
    /// One way.
    pub latency: Duration,
    /// Up to this much more, drawn per frame.
    pub jitter: Duration,
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
}

/// A LAN: one switch and one router (its gateway) on it.
#[derive(Clone, Debug)]
pub struct Network {
    pub name: Name,
    pub cidr: Ipv4Net,
    /// The router's address here.
    pub gateway: Ipv4Addr,
    pub mtu: u32,
    /// Of one cable to the switch.
    pub quality: Quality,
    pub dhcp: Option<Dhcp>,
}

/// The router's DHCP server.
#[derive(Clone, Debug)]
pub struct Dhcp {
    /// Inclusive pool.
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    pub lease: Duration,
    /// DNS servers handed out.
    pub dns: Vec<Ipv4Addr>,
}

/// A cable between the routers of two networks; routers know the way to every network that is
/// reachable without crossing a NAT from its outside.
#[derive(Clone, Debug)]
pub struct Link {
    pub name: Name,
    pub between: (Name, Name),
    pub quality: Quality,
    /// The network (one of `between`) whose router masquerades what leaves it over this link.
    pub nat: Option<Name>,
    pub mtu: u32,
}

/// A DNS server that is not ours.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: Name,
    pub network: Name,
    pub address: Ipv4Addr,
    /// Time it takes to answer, the way there not counted.
    pub latency: Duration,
    /// A records, names without the final dot. A name that is not here does not exist.
    pub records: BTreeMap<String, Vec<Ipv4Addr>>,
    pub ttl: Duration,
    pub behaviour: UpstreamBehaviour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamBehaviour {
    Answer,
    /// Takes queries and never answers.
    Hang,
    Refuse,
    ServFail,
    /// Denies every name.
    NxDomain,
}

/// A machine outside the cluster, for probes.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: Name,
    pub network: Name,
    pub address: Ipv4Addr,
    /// Routes it has besides the gateway of its network: destination and next hop.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub pod_network: Ipv4Net,
    pub service_network: Ipv4Net,
    /// Prefix length of a node's share of the pod network.
    pub node_mask: u8,
    pub backend: Backend,
    /// Inclusive.
    pub node_ports: (u16, u16),
    /// Run the cluster DNS.
    pub dns: bool,
    pub dns_address: Ipv4Addr,
    pub domain: String,
    pub pod_records: bool,
    pub dns_upstreams: DnsUpstreams,
    /// Run the proxy on every node.
    pub proxy: bool,
    pub proxy_mode: kubesim_actors::proxy::Mode,
    pub proxy_min_sync: Duration,
    pub proxy_resync: Duration,
    pub netd_resync: Duration,
    pub lease_duration: Duration,
    pub status_period: Duration,
    pub node_grace: Duration,
    pub node_monitor: Duration,
    /// Versions kept for watchers that come back.
    pub history: u32,
    /// How long news of a new version takes to reach a watcher.
    pub watch_delay: Span,
    /// What the apiserver does about overlapping networks.
    pub overlap: Overlap,
    /// Which program does a component's work.
    pub netd: NetdProgram,
    pub dns_program: DnsProgram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    HostGw,
    /// `direct_routing`: peers on the same LAN get plain routes.
    Vxlan {
        direct_routing: bool,
        vni: u32,
        port: u16,
    },
    Wireguard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsUpstreams {
    Explicit(Vec<Ipv4Addr>),
    /// A path on the node.
    File(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Refuse,
    /// As kubeadm does.
    Accept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetdProgram {
    Kubesim,
    /// flannel's documented behaviour: the lease is keyed by the address, the interface is read
    /// once, missing routes are put back and unknown ones stay, forwarding is nobody's business.
    Flannel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsProgram {
    Kubesim,
    /// kube-dns' documented behaviour: resolv.conf is read at start only.
    KubeDns,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: Name,
    /// The name in the file of the `[[node]]` this machine was made from.
    pub template: Name,
    /// Runs etcd's model, apiserver, controllers and scheduler too.
    pub server: bool,
    /// `rack-1`, ... when the template has a rack size.
    pub rack: Option<Name>,
    pub network: Name,
    pub interface: Name,
    pub address: Address,
    pub labels: BTreeMap<String, String>,
    /// `key=value:Effect`.
    pub taints: Vec<String>,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub max_pods: u32,
    /// Machine that is off until a `node-add` fault.
    pub off: bool,
    /// From the start of the run to power on.
    pub boot_delay: Span,
    /// Written at boot, before any program starts, in this order.
    pub sysctls: Vec<(String, i64)>,
    /// Path and content, present at boot.
    pub files: BTreeMap<Name, String>,
    pub software: Vec<Software>,
    /// Bridge that pods are attached to.
    pub bridge: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    Dhcp,
    Static(Ipv4Addr),
}

/// A foreign program on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software {
    pub kind: SoftwareKind,
    /// After the machine's boot; programs of kubesim start at zero.
    pub start: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftwareKind {
    /// Creates docker0 (172.17.0.1/16) and, if ip_forward was 0, writes 1. From 1.13 on it also
    /// sets the FORWARD policy to DROP, only if it turned ip_forward on itself (moby/moby#28257).
    Docker { major: u32, minor: u32 },
    /// FORWARD policy DROP and its chains.
    Ufw,
    /// Writes /etc/resolv.conf by rename from what DHCP says.
    NetworkManager,
}

/// Objects given to the API at a time.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: Name,
    pub at: Span,
    /// In the order of the files; created, or replaced when they exist.
    pub objects: Vec<Manifest>,
}

/// An object that a person gives to the API.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub object: Arc<Object>,
    /// The file and line that it comes from: `dir/web.yaml:6`.
    pub place: Name,
    /// It is, or makes, a pod with a port of its node.
    pub host_ports: bool,
    /// It is of storage, or makes a pod that claims some.
    pub claims: bool,
}

impl Manifest {
    pub fn new(object: Arc<Object>, place: Name) -> Manifest {
        let text = object.to_json().to_string();
        let host_ports = text.contains(r#""hostPort":"#);
        let claims = matches!(
            object.kind(),
            Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::StorageClass
        );
        let claims = claims
            || text.contains(r#""persistentVolumeClaim":"#)
            || text.contains(r#""volumeClaimTemplates":"#);
        Manifest { object, place, host_ports, claims }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    I12,
    I13,
    I14,
    I15,
    I16,
    I17,
    I18,
    I19,
    I20,
}

#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    /// What goes wrong under it.
    pub shows: String,
}
