//! The controllers: each compares what is desired with what is, and asks the API for the rest.

use crate::ports::api;
use ipnet::Ipv4Net;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub pod_network: Ipv4Net,
    /// Prefix length of one node's share of it.
    pub node_mask: u8,
    /// A node whose lease is older is not ready (`--node-monitor-grace-period`, 50 s upstream).
    pub node_grace: Duration,
    /// How often leases are judged (`--node-monitor-period`, 5 s upstream).
    pub node_monitor: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Sync,
    NodeMonitor,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        let Effect::Api(effect) = self;
        effect.answers()
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        let Event::Api(event) = self;
        event.digest(hasher);
    }
}

#[derive(Clone, Debug)]
pub struct Controllers {}

impl Actor for Controllers {
    const NAME: &'static str = "controllers";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        Controllers {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}
