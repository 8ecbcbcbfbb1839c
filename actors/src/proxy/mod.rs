//! The proxy: service addresses lead to ready endpoints, by rules in the kernel.

use crate::objects::Name;
use crate::ports::{api, network, rules};
use ipnet::Ipv4Net;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    /// `--cluster-cidr`: what is not from here is masqueraded on its way to a ClusterIP.
    pub cluster_cidr: Ipv4Net,
    /// Changes within this span are carried out together (`--iptables-min-sync-period`, 1 s).
    pub min_sync: Duration,
    /// Everything is compared with the kernel this often (`--iptables-sync-period`, 30 s).
    pub resync: Duration,
    /// `nodePortAddresses: primary` watches the node's addresses here.
    pub interface: network::IfName,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    Rules(rules::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    Rules(rules::Request),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Sync,
    Resync,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) => effect.answers(),
            Effect::Rules(effect) => effect.answers(),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Rules(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Proxy {}

impl Actor for Proxy {
    const NAME: &'static str = "proxy";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        Proxy {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}
