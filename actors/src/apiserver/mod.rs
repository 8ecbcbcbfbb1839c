//! The API server: objects in, objects out, every change durable in the store before it is told.
//!
//! Writes go through the actor: a pure apply, then one store transaction. Reads and watches are
//! served by the front from the [`Cache`] that the actor publishes.

use crate::objects::{Kind, View};
use crate::ports::{api, store};
use ipnet::Ipv4Net;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Config {
    pub pod_network: Ipv4Net,
    pub service_network: Ipv4Net,
    /// Inclusive.
    pub node_ports: (u16, u16),
    /// The networks the machines are on, by name: pods and services must not overlap them.
    pub node_networks: Vec<(String, Ipv4Net)>,
    /// Refuse to start when networks overlap. Only an upstream profile turns it off.
    pub refuse_overlap: bool,
    /// Versions kept for watchers that come back; older ones get 410.
    pub history: usize,
}

/// Who asked: names the connection and the call for the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    pub connection: u64,
    pub call: u64,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A write (a read never enters the actor).
    Request { id: RequestId, request: Arc<api::Request> },
    Store(store::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Store(store::Request),
    /// What reads and watches are served from, from now on.
    Publish(Cache),
    Respond { id: RequestId, result: Result<api::Reply, api::Error> },
    /// The configuration cannot work: the process says so and ends.
    Refuse { why: String },
}

/// The newest views, by kind; absent until the store was read.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    pub views: BTreeMap<Kind, View>,
    /// The store revision this is a view of.
    pub revision: u64,
    /// Watches from before this revision get 410.
    pub compacted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Compact,
    Retry,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Store(_) => Answers::One,
            Effect::Publish(_) | Effect::Respond { .. } | Effect::Refuse { .. } => Answers::None,
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Request { id, request } => {
                std::hash::Hash::hash(id, hasher);
                request.digest(hasher);
            }
            Event::Store(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct ApiServer {}

impl Actor for ApiServer {
    const NAME: &'static str = "apiserver";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        ApiServer {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}
