//! DNS: the cluster zone from the API, everything else from upstream resolvers that may change
//! while it runs.

pub mod message;

use crate::objects::Name;
use crate::ports::{api, files, packets};
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    /// The cluster DNS address, which every node's DNS answers on.
    pub listen: Ipv4Addr,
    pub cluster_domain: String,
    pub service_network: ipnet::Ipv4Net,
    pub pod_network: ipnet::Ipv4Net,
    /// Answer `1-2-3-4.ns.pod.<domain>`.
    pub pod_records: bool,
    pub upstreams: Upstreams,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    Explicit(Vec<SocketAddrV4>),
    /// The nameservers of this file, which is watched.
    File(Name),
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    Files(files::Reply),
    Packets(packets::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    Files(files::Request),
    Packets(packets::Request),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The earliest deadline of a forwarded query or cached answer.
    Deadline,
    /// Ask upstreams whether they live.
    Health,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) => effect.answers(),
            Effect::Files(effect) => effect.answers(),
            Effect::Packets(effect) => effect.answers(),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Files(reply) => reply.digest(hasher),
            Event::Packets(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Dns {}

impl Actor for Dns {
    const NAME: &'static str = "dns";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        Dns {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}
