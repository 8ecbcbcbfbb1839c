//! The API server: objects in, objects out, every change durable in the store before it is told.
//!
//! Writes go through the actor: a pure apply, then one store transaction. Reads and watches are
//! served by the front from the [`Cache`] that the actor publishes.

mod admission;
mod apply;
mod cache;
mod defaults;
mod definitions;
mod delete;
mod errors;
mod execute;
mod expiry;
mod fence;
mod follow;
mod generated;
pub mod hub;
mod kinds;
pub mod memory_store;
mod namespaces;
mod networks;
mod patch;
mod pending;
mod plain;
mod quota;
mod ranges;
mod reread;
mod service;
mod services_ip;
#[cfg(test)]
mod tests;

pub use admission::warnings_of;
pub use cache::{Cache, LastWrite};
pub use fence::Hold;
pub use namespaces::SYSTEM;

use crate::objects::kinds::Interner;
use crate::objects::{Name, Object};
use crate::ports::{api, store};
use ipnet::Ipv4Net;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Gives what was left out its defaults, as upstream does when it reads an object.
pub fn default(object: &mut Object) {
    kinds::default_spec(&mut object.body);
}

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
    /// Pods run as a ServiceAccount that must exist, and get its token. Simulated clusters have no
    /// accounts.
    pub service_accounts: bool,
    /// There is a class of storage from the start, the default one, and claims and volumes that
    /// are in use are kept. Somebody has to bind and to release them then.
    pub volumes: bool,
    /// Other servers write to the store as well, so it is followed, and asked when it matters what
    /// is stored now. A store that is ours alone holds what we know.
    pub shared: bool,
    /// Versions kept for watchers that come back; older ones get 410.
    pub history: usize,
    /// What is computed from a version is computed once for all who see it. Off only in the test
    /// that compares the two.
    pub memo: bool,
}

/// Who asked: names the connection and the call for the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    pub connection: u64,
    pub call: u64,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A write; or, of a shared store, a read that is to see all that was acknowledged before it.
    /// Other reads never enter the actor.
    Request {
        id: RequestId,
        request: Arc<api::Request>,
        /// Only tried: checked, completed and answered as if done, and nothing is stored.
        dry_run: bool,
    },
    /// A write of one of several that take turns: done only while it is this one's.
    Leased {
        id: RequestId,
        request: Arc<api::Request>,
        hold: Arc<Hold>,
    },
    Store(store::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Store(store::Request),
    /// What reads and watches are served from, from now on.
    Publish(Cache),
    Respond {
        id: RequestId,
        result: Result<api::Reply, api::Error>,
    },
    /// The configuration cannot work: the process says so and ends.
    Refuse {
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Compact,
    Retry,
    Expire,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Store(request) => request.answers(),
            Effect::Publish(_) | Effect::Respond { .. } | Effect::Refuse { .. } => Answers::None,
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Request { id, request, dry_run } => {
                std::hash::Hash::hash(id, hasher);
                request.digest(hasher);
                if *dry_run {
                    hasher.str("dry run");
                }
            }
            Event::Leased { id, request, hold } => {
                std::hash::Hash::hash(id, hasher);
                request.digest(hasher);
                std::hash::Hash::hash(hold, hasher);
            }
            Event::Store(reply) => reply.digest(hasher),
        }
    }
}

/// How often old versions are forgotten (etcd compaction by the API server, 5 min upstream).
const COMPACTION: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
pub struct ApiServer {
    config: Arc<Config>,
    /// Why nothing can be served.
    refused: Option<Arc<str>>,
    /// As published.
    cache: Cache,
    services: services_ip::Allocations,
    last_pod: defaults::LastPod,
    pending: pending::Pending,
    follow: follow::Follow,
    expiry: expiry::Expiry,
    /// Namespaces being deleted.
    terminating: BTreeSet<Name>,
    /// Those that definitions declare.
    kinds: Interner,
    /// The store was read and what must exist exists.
    open: bool,
    /// Requests from before that.
    waiting: Vec<pending::Job>,
}

impl Actor for ApiServer {
    const NAME: &'static str = "apiserver";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        let refused = networks::overlap(config).filter(|_| config.refuse_overlap);
        let mut server = ApiServer {
            config: Arc::new(config.clone()),
            refused: refused.as_deref().map(Arc::from),
            cache: Cache::default(),
            services: services_ip::Allocations::new(config.service_network, config.node_ports),
            last_pod: defaults::LastPod::default(),
            pending: pending::Pending::default(),
            follow: follow::Follow::default(),
            expiry: expiry::Expiry::default(),
            terminating: BTreeSet::new(),
            kinds: Interner::default(),
            open: false,
            waiting: Vec::new(),
        };
        if let Some(why) = refused {
            ctx.note(|| format!("refuses to start: {why}"));
            ctx.perform(Effect::Refuse { why });
            return server;
        }
        server.ask_range(ctx);
        ctx.set_timer(Timer::Compact, COMPACTION);
        server
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        match event {
            Event::Request { id, request, dry_run } => {
                let job = pending::Job { dry_run, ..pending::Job::of(Some(id), request) };
                self.request(job, ctx);
            }
            Event::Leased { id, request, hold } => {
                let job = pending::Job { hold: Some(hold), ..pending::Job::of(Some(id), request) };
                self.request(job, ctx);
            }
            Event::Store(reply) => self.stored(reply, ctx),
        }
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        match timer {
            Timer::Compact => self.compact(ctx),
            Timer::Retry => self.retry(ctx),
            Timer::Expire => self.expire(ctx),
        }
    }
}

impl ApiServer {
    fn request(&mut self, job: pending::Job, ctx: &mut Context<'_, Self>) {
        if let Some(error) = self.refusal() {
            pending::respond(&job, Err(error), ctx);
        } else if !self.open {
            self.waiting.push(job);
        } else if self.config.shared && job.request.is_read() {
            self.read_as_of_now(job, ctx);
        } else if let Some(result) = self.cache.read(&job.request) {
            pending::respond(&job, result, ctx);
        } else {
            self.submit(job, ctx);
        }
    }

    /// Keeps the newest `history` revisions.
    fn compact(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.set_timer(Timer::Compact, COMPACTION);
        let history = u64::try_from(self.config.history).unwrap_or(u64::MAX);
        let revision = self.cache.revision.saturating_sub(history);
        if self.open && revision > self.cache.compacted {
            ctx.perform(Effect::Store(store::Request::Compact { revision }));
        }
    }
}
