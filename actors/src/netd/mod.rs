//! netd: the pod network. A node's subnet belongs to its identity; its address is only a locator.

pub mod peer;

use crate::objects::Name;
use crate::ports::{api, files, network, packets, rules};
use ipnet::Ipv4Net;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    /// The link whose address is the locator.
    pub interface: network::IfName,
    /// flannel's `net-conf.json`, read at start.
    pub net_conf: Name,
    /// Where to write FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ.
    pub subnet_env: Name,
    /// The bridge pods are attached to.
    pub bridge: network::IfName,
    /// Seed of the node's ed25519 key; in production the key file's content.
    pub key_seed: [u8; 32],
    /// The API servers' nodes by name and the address to try first.
    pub servers: Vec<(Name, std::net::Ipv4Addr)>,
    pub service_network: Ipv4Net,
    /// Everything is compared with what should be this often, told or not.
    pub resync: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    Network(network::Reply),
    Rules(rules::Reply),
    Files(files::Reply),
    Packets(packets::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    Network(network::Request),
    Rules(rules::Request),
    Files(files::Request),
    Packets(packets::Request),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Compare everything.
    Resync,
    /// Carry out what changed, together.
    Sync,
    /// Tell peers again that did not answer.
    Announce,
    /// A call to the API failed: try again.
    Retry,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) => effect.answers(),
            Effect::Network(effect) => effect.answers(),
            Effect::Rules(effect) => effect.answers(),
            Effect::Files(effect) => effect.answers(),
            Effect::Packets(effect) => effect.answers(),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Network(reply) => reply.digest(hasher),
            Event::Rules(reply) => reply.digest(hasher),
            Event::Files(reply) => reply.digest(hasher),
            Event::Packets(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Netd {}

impl Actor for Netd {
    const NAME: &'static str = "netd";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        Netd {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}
