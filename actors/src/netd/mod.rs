//! netd: the pod network. A node's subnet belongs to its identity; its address is only a locator.
//!
//! What happens is noted where it arrives; then one [`Netd::sync`] compares what should be with
//! what was seen or asked for, and asks for the rest. What the kernel does not show (neighbours,
//! FDB entries, a route's gateway) is set again at a thorough resync.

mod account;
mod announce;
pub mod conf;
mod dial;
pub mod guard;
mod kernel;
mod lease;
mod memory;
pub mod peer;
pub mod plan;
mod seek;
#[cfg(test)]
mod tests;
pub mod wireguard;

pub use kernel::{gateway, subnet_env};

use crate::objects::{Key, Kind, Name, Object, View};
use crate::ports::{api, files, network, packets, rules};
use conf::NetConf;
use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use kubesim_runtime::{Account, Actor, Answers, Context, Digest, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Up to this many subnets a cluster is small: peers are remembered across restarts without the
/// API, changes are carried out at once and every resync is thorough.
pub const SMALL: usize = 200;
/// In larger clusters one resync in so many is thorough.
const THOROUGH: u32 = 8;

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    /// The link whose address is the locator.
    pub interface: network::IfName,
    /// flannel's `net-conf.json`, read at start.
    pub net_conf: Name,
    /// Where to write FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ.
    pub subnet_env: Name,
    /// Where to keep what a restart must not lose.
    pub memory: Name,
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
pub struct Netd {
    config: Config,
    key: SigningKey,
    /// The public half, as the Subnet object has it.
    public_key: Name,
    vtep_mac: network::Mac,
    /// The last good net-conf.json.
    conf: Option<NetConf>,
    node: Option<Arc<Object>>,
    subnets: Option<View>,
    lease: lease::Lease,
    told: announce::Told,
    announce: announce::Announce,
    memory: memory::Memory,
    dial: dial::Dial,
    kernel: kernel::Kernel,
    guard: guard::Guard,
    sync_due: bool,
    resyncs: u32,
}

impl Actor for Netd {
    const NAME: &'static str = "netd";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        let key = SigningKey::from_bytes(&config.key_seed);
        let mut netd = Netd {
            public_key: peer::key_text(&key).into(),
            vtep_mac: lease::vtep_mac(&key),
            key,
            conf: None,
            node: None,
            subnets: None,
            lease: Default::default(),
            told: Default::default(),
            announce: Default::default(),
            memory: Default::default(),
            dial: Default::default(),
            kernel: Default::default(),
            guard: Default::default(),
            sync_due: false,
            resyncs: 0,
            config: config.clone(),
        };
        for path in [&config.net_conf, &config.subnet_env, &config.memory] {
            ctx.perform(Effect::Files(files::Request::Watch { path: path.clone() }));
        }
        ctx.perform(Effect::Network(network::Request::Observe));
        ctx.perform(Effect::Packets(packets::Request::Bind {
            address: std::net::Ipv4Addr::UNSPECIFIED,
            port: peer::PORT,
        }));
        netd.sync_dial(ctx);
        let (kind, scope) = (Kind::Node, api::Scope::Node(config.node.clone()));
        ctx.perform(Effect::Api(api::Effect::Watch { kind, scope }));
        let (kind, scope) = (Kind::Subnet, api::Scope::All);
        ctx.perform(Effect::Api(api::Effect::Watch { kind, scope }));
        // Machines that boot together do not compare together ever after.
        let phase = ctx.rng().jitter(config.resync, 1.0);
        ctx.set_timer(Timer::Resync, phase);
        netd
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        match event {
            Event::Api(api::Event::News(news)) => self.on_news(news, ctx),
            Event::Api(api::Event::Answer(answer)) => self.on_answer(answer, ctx),
            Event::Api(api::Event::Connected(up)) => self.on_connected(up, ctx),
            Event::Network(reply) => self.on_network(reply, ctx),
            Event::Rules(reply) => self.on_rules(reply, ctx),
            Event::Files(reply) => self.on_file(reply, ctx),
            Event::Packets(reply) => self.on_packet(reply, ctx),
        }
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        match timer {
            Timer::Sync => self.sync(ctx),
            Timer::Resync => self.resync(ctx),
            Timer::Announce => self.announce_again(ctx),
            Timer::Retry => {
                self.lease.retry_at_will();
                self.sync(ctx);
            }
        }
    }

    fn account(&self) -> Account {
        account::of(self)
    }
}

impl Netd {
    /// Compares what should be with what was seen, and asks for the rest.
    fn sync(&mut self, ctx: &mut Context<'_, Self>) {
        self.sync_due = false;
        if self.conf.is_none() {
            return;
        }
        self.adopt_subnet(ctx);
        self.adopt_locator(ctx);
        self.announce_untold(ctx);
        self.sync_lease(ctx);
        self.sync_dial(ctx);
        self.sync_kernel(ctx);
        self.sync_rules(ctx);
        self.sync_memory(ctx);
    }

    /// Syncs a moment later, together with what else changes until then: 10 ms in a small
    /// cluster, growing to 250 ms. The moments are multiples of the period, so that machines with
    /// the same clock look at the same version and share what is computed from it.
    fn sync_soon(&mut self, ctx: &mut Context<'_, Self>) {
        if self.sync_due {
            return;
        }
        self.sync_due = true;
        let period = (self.subnet_count() as u64 / 8).clamp(10, 250) * 1_000_000;
        let into = ctx.now().as_nanos() % period;
        ctx.set_timer(Timer::Sync, Duration::from_nanos(period - into));
    }

    fn resync(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.set_timer(Timer::Resync, self.config.resync);
        self.resyncs = self.resyncs.wrapping_add(1);
        let thorough = self.subnet_count() <= SMALL || self.resyncs.is_multiple_of(THOROUGH);
        self.resync_kernel(thorough, ctx);
        self.resync_rules(thorough, ctx);
        self.memory.rewrite_if_lost();
        if thorough {
            self.dial.repeat();
        }
        self.rebind(ctx);
        if !self.announce.api_found && !self.announce.api_lost {
            // Not a word from the API since the start.
            return self.on_connected(false, ctx);
        }
        self.sync(ctx);
    }

    fn subnet_count(&self) -> usize {
        self.subnets.as_ref().map_or(self.memory.peers.len(), |view| view.len())
    }

    fn on_news(&mut self, news: api::News, ctx: &mut Context<'_, Self>) {
        match news {
            api::News::View { kind: Kind::Node, view, .. } => {
                let node = view.get(&Key::cluster(self.config.node.clone())).cloned();
                // Heartbeats of the node's status are no news here.
                let same = |a: &Object, b: &Object| {
                    let (a, b) = (a.node(), b.node());
                    a.zip(b).is_some_and(|(a, b)| a.0.pod_cidr == b.0.pod_cidr)
                };
                let unchanged = match (&self.node, &node) {
                    (Some(old), Some(new)) => old.uid == new.uid && same(old, new),
                    (None, None) => true,
                    _ => false,
                };
                self.node = node;
                if !unchanged || self.lease.contested {
                    self.sync(ctx);
                }
            }
            api::News::View { kind: Kind::Subnet, view, .. } => {
                let first = self.subnets.is_none();
                self.announce.api_found = true;
                self.memory.changed |= first;
                self.remember_moves(&view);
                self.remember_servers(&view);
                self.forget_answers(&view);
                self.subnets = Some(view);
                self.forget_told();
                self.dial.outdated = true;
                match first {
                    true => self.sync(ctx),
                    false => self.sync_soon(ctx),
                }
            }
            // The client opens the stream again by itself; the last view stays the best we know.
            api::News::View { .. } | api::News::Closed { .. } => {}
        }
    }

    fn on_connected(&mut self, up: bool, ctx: &mut Context<'_, Self>) {
        self.announce.api_lost = !up;
        self.announce.api_found |= up;
        let now = ctx.now();
        self.announce.lost_at = (!up).then(|| self.announce.lost_at.unwrap_or(now));
        self.announce.remarked &= !up;
        self.dial.outdated = true;
        if up {
            self.lease.retry_at_will();
        } else {
            self.seek_servers(ctx);
        }
        self.sync(ctx);
    }

    fn on_file(&mut self, reply: files::Reply, ctx: &mut Context<'_, Self>) {
        match reply {
            files::Reply::Content { path, content } if path == self.config.net_conf => {
                self.on_conf(content, ctx);
            }
            files::Reply::Content { path, content } if path == self.config.subnet_env => {
                self.kernel.on_env(content);
                self.sync(ctx);
            }
            files::Reply::Content { path, content } if path == self.config.memory => {
                self.on_memory(content, ctx);
            }
            files::Reply::Written { path, result } => {
                if let Err(why) = &result {
                    ctx.note(|| format!("{path} could not be written: {why}"));
                }
                if path == self.config.memory {
                    self.on_remembered(result.is_ok(), ctx);
                }
            }
            files::Reply::Content { .. } => {}
        }
    }

    fn on_conf(&mut self, content: Option<Arc<str>>, ctx: &mut Context<'_, Self>) {
        let path = &self.config.net_conf;
        let result = match &content {
            Some(text) => NetConf::parse(text),
            None => Err("expected flannel's net-conf.json, found no file".to_owned()),
        };
        match result {
            Ok(conf) if self.conf == Some(conf) => {}
            Ok(conf) => {
                let former = self.conf.replace(conf);
                self.drop_former_overlay(former, ctx);
                self.sync(ctx);
            }
            Err(why) => {
                let kept = match self.conf {
                    Some(_) => "the last good one stays in force",
                    None => "nothing is done until it is corrected",
                };
                ctx.note(|| format!("{path}: {why}; {kept}"));
            }
        }
    }
}
