//! The proxy: service addresses lead to ready endpoints, by rules in the kernel.
//!
//! The rules are upstream's (kube-proxy of Kubernetes 1.33 in iptables mode, with its defaults), or
//! the same in flat elements for nftables (see [`crate::ports::rules::flat`]), or as virtual
//! services for IPVS (see [`crate::ports::rules::virtuals`]).
//! They are compiled once per version of the API's views and shared by all nodes; a proxy only
//! decides when to hand them to its kernel, and which remembered connections must go then.

mod account;
mod base;
mod by_service;
mod compile;
mod conntrack;
mod ipvs;
mod local;
mod names;
mod nft;
mod piece;
mod service;

#[cfg(test)]
mod tests;

pub(crate) use by_service::ByService;
pub use compile::{Basis, Compiled, Mode, Shape, compile, compile_anew};
pub use ipvs::{VirtualOverlay, Virtuals, loop_back, virtual_overlay};
pub use local::{Overlay, overlay};
pub use nft::{Flat, FlatOverlay, flat_overlay};

use crate::objects::{Kind, Name, View};
use crate::ports::{api, network, rules};
use ipnet::Ipv4Net;
use kubesim_runtime::{Account, Actor, Answers, Context, Digest, Hasher, Time};
use std::sync::Arc;
use std::time::Duration;

/// Under this name the rules port keeps what is ours.
pub const OWNER: &str = "kube-proxy";

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    /// `--proxy-mode`
    pub mode: Mode,
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

/// The longest wait before rules that the kernel refused are tried again.
const MAX_RETRY: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Proxy {
    config: Config,
    services: Option<View>,
    slices: Option<View>,
    /// The newest compilation and its views: the next one starts from it.
    basis: Option<Basis>,
    /// What the kernel has confirmed.
    applied: Option<Program>,
    in_flight: Option<Program>,
    /// When rules were last sent.
    last_sync: Option<Time>,
    /// A change waits for its turn.
    dirty: bool,
    /// The kernel may differ from what was confirmed: send the rules whatever they were.
    force: bool,
    /// Compare all remembered connections with the rules once these are in place.
    audit: bool,
    /// What a proxy that ran here before had still asked for has been overwritten.
    settled: bool,
    failures: u32,
}

/// The rules of this node at one version.
#[derive(Clone, Debug)]
struct Program {
    compiled: Arc<Compiled>,
    /// What is the node's own, in whichever mode.
    overlay: Overlay,
    flat: FlatOverlay,
    virtuals: VirtualOverlay,
}

impl Actor for Proxy {
    const NAME: &'static str = "proxy";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        for kind in [Kind::Service, Kind::EndpointSlice] {
            ctx.perform(Effect::Api(api::Effect::Watch { kind, scope: api::Scope::All }));
        }
        Proxy {
            config: config.clone(),
            services: None,
            slices: None,
            basis: None,
            applied: None,
            in_flight: None,
            last_sync: None,
            dirty: false,
            force: true,
            audit: true,
            settled: false,
            failures: 0,
        }
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        match event {
            Event::Api(api::Event::News(api::News::View { kind, view, .. })) => {
                match kind {
                    Kind::Service => self.services = Some(view),
                    Kind::EndpointSlice => self.slices = Some(view),
                    _ => return,
                }
                self.changed(ctx);
            }
            // A closed stream comes back by itself: until then the last view is the best one.
            Event::Api(_) => {}
            Event::Rules(rules::Reply::Applied { owner, version, missing, result })
                if owner == OWNER =>
            {
                self.put_back(&missing, ctx);
                self.applied(version, result, ctx);
            }
            Event::Rules(rules::Reply::Verified { owner, intact, missing }) if owner == OWNER => {
                if !intact {
                    self.put_back(&missing, ctx);
                    self.force = true;
                    self.sync(ctx);
                }
            }
            Event::Rules(rules::Reply::Dnat { entries }) => self.audit(&entries, ctx),
            Event::Rules(rules::Reply::ConntrackDeleted { entries }) => {
                if entries > 0 {
                    ctx.note(|| format!("{entries} connections led to no endpoint and are gone"));
                }
            }
            Event::Rules(rules::Reply::Failed { doing, why }) => {
                ctx.note(|| format!("{doing}: {why}"));
                self.audit = true;
            }
            Event::Rules(_) => {}
        }
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        match timer {
            Timer::Sync => self.sync(ctx),
            Timer::Resync => self.resync(ctx),
        }
    }

    fn account(&self) -> Account {
        account::of(self)
    }
}

impl Proxy {
    /// Syncs now if the last sync is `min_sync` ago, else when it is: the first change after a
    /// quiet time goes at once, the rest together (`BoundedFrequencyRunner`).
    fn changed(&mut self, ctx: &mut Context<'_, Self>) {
        if self.dirty || self.services.is_none() || self.slices.is_none() {
            return;
        }
        let due = self.last_sync.map_or(Time::ZERO, |last| last + self.config.min_sync);
        self.dirty = true;
        if due <= ctx.now() {
            self.sync(ctx);
        } else {
            ctx.set_timer(Timer::Sync, due.since(ctx.now()));
        }
    }

    fn sync(&mut self, ctx: &mut Context<'_, Self>) {
        let (Some(services), Some(slices)) = (&self.services, &self.slices) else {
            return;
        };
        if self.in_flight.is_some() {
            return;
        }
        self.dirty = false;
        let Config { mode, cluster_cidr, .. } = self.config;
        let shape = Shape { mode, cluster_cidr };
        let compiled = compile(services, slices, shape, self.basis.as_ref());
        self.basis = Some(Basis {
            services: services.clone(),
            slices: slices.clone(),
            compiled: Arc::clone(&compiled),
        });
        let program = Program::new(compiled, &self.config.node);
        if !self.force && self.applied.as_ref().is_some_and(|applied| applied.same(&program)) {
            // The rules are the same, but an endpoint that was in none of them may be gone.
            let old = self.applied.replace(program);
            old.iter().for_each(|old| self.flush(&old.compiled, ctx));
            return;
        }
        self.last_sync = Some(ctx.now());
        ctx.perform(Effect::Rules(program.apply()));
        self.in_flight = Some(program);
    }

    fn applied(&mut self, version: u64, result: Result<(), String>, ctx: &mut Context<'_, Self>) {
        let ours = |program: &mut Program| program.compiled.chains.version() == version;
        let Some(program) = self.in_flight.take_if(ours) else {
            return;
        };
        if let Err(why) = result {
            return self.refused(&why, ctx);
        }
        self.failures = 0;
        self.force = false;
        let (services, endpoints) = (program.compiled.services(), program.compiled.endpoints());
        match self.applied.replace(program) {
            Some(old) => self.flush(&old.compiled, ctx),
            None => {
                ctx.set_timer(Timer::Resync, self.config.resync);
                ctx.note(|| format!("{services} services with {endpoints} endpoints programmed"));
            }
        }
        if std::mem::take(&mut self.audit) {
            ctx.perform(Effect::Rules(rules::Request::ListDnat));
        }
        if std::mem::take(&mut self.dirty) {
            self.changed(ctx);
        }
    }

    fn refused(&mut self, why: &str, ctx: &mut Context<'_, Self>) {
        ctx.note(|| format!("the kernel refused the rules: {why}"));
        self.failures += 1;
        self.force = true;
        self.dirty = true;
        let doublings = (self.failures - 1).min(10);
        let wait = self.config.min_sync.max(Duration::from_secs(1)) * (1 << doublings);
        ctx.set_timer(Timer::Sync, wait.min(MAX_RETRY));
    }

    /// The rules are in place: now, and not before, what they would not make again is deleted,
    /// so that no packet in between makes it anew.
    fn flush(&self, old: &Compiled, ctx: &mut Context<'_, Self>) {
        let Some(new) = &self.applied else { return };
        delete(conntrack::stale(old, &new.compiled), ctx);
    }

    fn audit(&self, entries: &[rules::CtEntry], ctx: &mut Context<'_, Self>) {
        let Some(applied) = &self.applied else { return };
        let mut filters = conntrack::stale_entries(&applied.compiled, entries);
        filters.extend(conntrack::never_rewritten(&applied.compiled));
        delete(filters.into(), ctx);
    }

    fn resync(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.set_timer(Timer::Resync, self.config.resync);
        if self.in_flight.is_some() {
            return;
        }
        if std::mem::replace(&mut self.settled, true) {
            ctx.perform(Effect::Rules(rules::Request::Verify { owner: OWNER.into() }));
            // It was to be done before and could not.
            if std::mem::take(&mut self.audit) {
                ctx.perform(Effect::Rules(rules::Request::ListDnat));
            }
        } else {
            // A write of the proxy that ran here before may have landed after our first one.
            self.force = true;
            self.audit = true;
            self.sync(ctx);
        }
    }

    /// Rules of ours were gone, for how long nobody knows.
    fn put_back(&mut self, missing: &[String], ctx: &mut Context<'_, Self>) {
        if missing.is_empty() {
            return;
        }
        ctx.note(|| {
            let some = missing.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
            format!("{} rules were gone and are put back: {some}", missing.len())
        });
        self.audit = true;
    }
}

/// The chains of iptables mode with nothing in them, and what leads to them: what takes the place
/// of all that stand.
pub fn footing() -> rules::Request {
    let common = piece::COMMON.iter().map(|(table, name)| (*table, (*name).into()));
    let fixed = base::fixed_chains().into_iter().map(|(key, _)| (key.table, key.name));
    let empty = |(table, name)| {
        (rules::ChainKey { table, name }, Arc::new(rules::Chain { rules: Vec::new() }))
    };
    rules::Request::Apply {
        owner: OWNER.into(),
        base: base::base_rules(),
        shared: rules::ChainSet::empty(0),
        local: common.chain(fixed).map(empty).collect(),
    }
}

/// What the table of nftables mode depends on beside its elements.
pub fn flat_settings(cluster_cidr: Ipv4Net) -> rules::FlatSettings {
    rules::FlatSettings { pods: cluster_cidr.trunc(), mark: names::MASQUERADE_MARK }
}

fn delete(filters: Arc<[rules::CtFilter]>, ctx: &mut Context<'_, Proxy>) {
    if !filters.is_empty() {
        ctx.perform(Effect::Rules(rules::Request::DeleteConntrack { filters }));
    }
}

impl Program {
    fn new(compiled: Arc<Compiled>, node: &str) -> Self {
        let (mut chains, mut flat): (Overlay, FlatOverlay) = (Arc::new([]), Arc::new([]));
        let mut virtuals: VirtualOverlay = Arc::new([]);
        match compiled.shape.mode {
            Mode::Iptables => chains = overlay(&compiled, node),
            Mode::Nftables => flat = flat_overlay(&compiled, node),
            Mode::Ipvs => {
                chains = loop_back(&compiled, node);
                virtuals = virtual_overlay(&compiled, node);
            }
        }
        Program { compiled, overlay: chains, flat, virtuals }
    }

    fn apply(&self) -> rules::Request {
        let Shape { mode, cluster_cidr } = self.compiled.shape;
        match mode {
            Mode::Iptables => rules::Request::Apply {
                owner: OWNER.into(),
                base: Arc::clone(&self.compiled.base),
                shared: self.compiled.chains.clone(),
                local: Arc::clone(&self.overlay),
            },
            Mode::Nftables => rules::Request::ApplyFlat {
                owner: OWNER.into(),
                settings: flat_settings(cluster_cidr),
                shared: self.compiled.flat.set.clone(),
                local: Arc::clone(&self.flat),
            },
            Mode::Ipvs => rules::Request::ApplyVirtual {
                owner: OWNER.into(),
                chains: rules::Chains {
                    base: Arc::clone(&self.compiled.base),
                    shared: self.compiled.chains.clone(),
                    local: Arc::clone(&self.overlay),
                },
                shared: self.compiled.virtuals.set.clone(),
                local: Arc::clone(&self.virtuals),
            },
        }
    }

    fn same(&self, other: &Program) -> bool {
        self.overlay == other.overlay
            && self.flat == other.flat
            && self.virtuals == other.virtuals
            && (Arc::ptr_eq(&self.compiled, &other.compiled)
                || self.compiled.same_rules(&other.compiled))
    }
}
