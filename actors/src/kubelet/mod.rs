//! The kubelet: the pods bound to its node run, and the API knows how they are.

use crate::objects::Name;
use crate::ports::{api, container, files, network, probe};
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    pub labels: BTreeMap<String, String>,
    /// Taints the node registers with, `key=value:Effect`.
    pub taints: Vec<String>,
    /// The link whose first address is the node's InternalIP.
    pub interface: network::IfName,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub max_pods: u32,
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    /// Written by netd; the pod network's bridge, subnet and MTU.
    pub subnet_env: Name,
    /// The node's own resolver, for pods with `dnsPolicy: Default`.
    pub resolv_conf: Name,
    /// Static pods; empty for none.
    pub manifests: Name,
    pub lease_duration: Duration,
    /// An unchanged node status is written this often (5 min upstream).
    pub status_period: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    Container(container::Reply),
    Probe(probe::Reply),
    Files(files::Reply),
    Network(network::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    Container(container::Request),
    Probe(probe::Request),
    Files(files::Request),
    Network(network::Request),
}

/// The probe and restart alarms name a slot of the kubelet's own pod table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Lease,
    NodeStatus,
    Retry,
    Pod(crate::objects::Uid),
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) => effect.answers(),
            Effect::Container(effect) => effect.answers(),
            Effect::Probe(effect) => effect.answers(),
            Effect::Files(effect) => effect.answers(),
            Effect::Network(effect) => effect.answers(),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Container(reply) => reply.digest(hasher),
            Event::Probe(reply) => reply.digest(hasher),
            Event::Files(reply) => reply.digest(hasher),
            Event::Network(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Kubelet {}

impl Actor for Kubelet {
    const NAME: &'static str = "kubelet";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        Kubelet {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}
