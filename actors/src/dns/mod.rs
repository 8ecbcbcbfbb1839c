//! DNS: the cluster zone from the API, everything else from upstream resolvers that may change
//! while it runs.
//!
//! The zone is an index made once per version of the API's views and shared by all nodes. The
//! upstream servers are an input that is watched: a changed file counts from the next query on,
//! an empty one never, and a server that leads back to us is left out while it does.

mod account;
mod answer;
mod cache;
mod forward;
pub mod message;
mod resolv;
mod upstream;
mod way;
mod zone;

#[cfg(test)]
mod tests;

pub use zone::{Basis, Entry, Zone, zone, zone_anew};

use crate::objects::{Kind, Name, View};
use crate::ports::network::Errno;
use crate::ports::{api, files, packets};
use answer::Answer;
use forward::{Client, Forwarder};
use kubesim_runtime::{Account, Actor, Answers, Context, Digest, Hasher};
use message::{Data, Message, Rcode, Record, Type};
use resolv::ResolvConf;
use smol_str::{SmolStr, StrExt};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use way::{Transport, Way};

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

/// Where queries come in.
const PORT: u16 = 53;
/// Where ours go out from: one of the ephemeral ports (RFC 6335), drawn at start.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Aliases that are followed within the cluster for one question.
const MAX_ALIASES: usize = 8;

#[derive(Clone, Debug)]
pub struct Dns {
    config: Arc<Config>,
    services: Option<View>,
    slices: Option<View>,
    basis: Option<Basis>,
    forwarder: Forwarder,
    /// The port for queries could not be had: tried again.
    deaf: BTreeSet<Transport>,
    health_armed: bool,
}

impl Actor for Dns {
    const NAME: &'static str = "dns";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        for kind in [Kind::Service, Kind::EndpointSlice] {
            ctx.perform(Effect::Api(api::Effect::Watch { kind, scope: api::Scope::All }));
        }
        let nonce = ctx.rng().u64();
        let port = source_port(ctx);
        let mut dns = Dns {
            config: Arc::new(config.clone()),
            services: None,
            slices: None,
            basis: None,
            forwarder: Forwarder::new(nonce, port),
            deaf: BTreeSet::new(),
            health_armed: false,
        };
        for transport in Transport::ALL {
            transport.listen(config.listen, ctx);
        }
        way::bind(Ipv4Addr::UNSPECIFIED, port, ctx);
        match &config.upstreams {
            Upstreams::Explicit(servers) => {
                let conf = ResolvConf { servers: servers.clone(), ..ResolvConf::default() };
                dns.upstreams("the configuration", conf, ctx);
            }
            Upstreams::File(path) => {
                let path = path.clone();
                ctx.perform(Effect::Files(files::Request::Watch { path }));
            }
        }
        dns
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        match event {
            Event::Api(api::Event::News(api::News::View { kind, view, .. })) => match kind {
                Kind::Service => self.services = Some(view),
                Kind::EndpointSlice => self.slices = Some(view),
                _ => {}
            },
            // A closed stream comes back by itself: until then the last view is the best one.
            Event::Api(_) => {}
            Event::Files(files::Reply::Content { path, content }) => {
                if self.config.upstreams == Upstreams::File(path.clone()) {
                    let conf = content.map(|text| ResolvConf::parse(&text)).unwrap_or_default();
                    self.upstreams(&path, conf, ctx);
                }
            }
            Event::Files(files::Reply::Written { .. }) => {}
            Event::Packets(reply) => self.packet(reply, ctx),
        }
        self.watch_health(ctx);
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        match timer {
            Timer::Deadline => self.forwarder.deadline(ctx),
            Timer::Health => {
                self.health_armed = false;
                for transport in std::mem::take(&mut self.deaf) {
                    transport.listen(self.config.listen, ctx);
                }
                self.forwarder.servers.health(ctx);
            }
        }
        self.watch_health(ctx);
    }

    fn account(&self) -> Account {
        account::of(self)
    }
}

impl Dns {
    fn packet(&mut self, reply: packets::Reply, ctx: &mut Context<'_, Self>) {
        match reply {
            packets::Reply::Datagram { local, from, body: packets::Body::Dns(message) } => {
                if local.port() == self.forwarder.port() {
                    self.forwarder.heard(Transport::Udp, from, &message, ctx);
                } else if local.port() == PORT && !message.response {
                    self.query(Way::Datagram { local: *local.ip(), from }, message, ctx);
                }
            }
            packets::Reply::Datagram { .. } => {}
            packets::Reply::Query { connection, message } => {
                self.query(Way::Connection(connection), message, ctx);
            }
            packets::Reply::BindFailed { port, why } if port == PORT => {
                self.deafened(Transport::Udp, why, ctx);
            }
            packets::Reply::BindFailed { port, .. } if port == self.forwarder.port() => {
                let port = source_port(ctx);
                self.forwarder.set_port(port);
                way::bind(Ipv4Addr::UNSPECIFIED, port, ctx);
            }
            packets::Reply::BindFailed { .. } => {}
            packets::Reply::ListenFailed { why, .. } => self.deafened(Transport::Tcp, why, ctx),
            packets::Reply::Unreachable { to } => self.forwarder.unreachable(to, ctx),
            packets::Reply::Answer { from, message } => {
                self.forwarder.heard(Transport::Tcp, from, &message, ctx);
            }
            packets::Reply::Unanswered { by, id } => self.forwarder.unanswered(by, id, ctx),
        }
    }

    fn deafened(&mut self, transport: Transport, why: Errno, ctx: &mut Context<'_, Self>) {
        let listen = self.config.listen;
        ctx.note(|| format!("cannot listen on {listen}:{PORT}/{transport}: {why}"));
        self.deaf.insert(transport);
    }

    fn query(&mut self, way: Way, query: Arc<Message>, ctx: &mut Context<'_, Self>) {
        let mut name = canonical(&query.name);
        if self.forwarder.looped(&name, ctx) {
            return way.answer(query.reply(Rcode::Refused), ctx);
        }
        let config = Arc::clone(&self.config);
        let Some(zone) = self.zone() else {
            return self.unsynced(way, name, query, ctx);
        };
        let mut aliases: Vec<Record> = Vec::new();
        loop {
            match answer::answer(&zone, &config, &name, query.qtype) {
                Answer::Elsewhere => {
                    let client = Client { query: Arc::clone(&query), way, aliases };
                    return self.forwarder.ask((name, query.qtype), client, ctx);
                }
                Answer::Alias { cname, target }
                    if query.qtype != Type::Cname && aliases.len() < MAX_ALIASES =>
                {
                    aliases.push(cname);
                    name = target;
                }
                found => {
                    let mut reply = found.into_reply(&query, &config.cluster_domain);
                    shuffle(&mut reply.answers, ctx);
                    aliases.append(&mut reply.answers);
                    reply.answers = aliases;
                    return way.answer(reply, ctx);
                }
            }
        }
    }

    /// What the zone would say is not known yet; what it has no say in is.
    fn unsynced(
        &mut self,
        way: Way,
        name: SmolStr,
        query: Arc<Message>,
        ctx: &mut Context<'_, Self>,
    ) {
        match answer::answer(&Zone::default(), &self.config, &name, query.qtype) {
            Answer::Elsewhere => {
                let question = (name, query.qtype);
                let client = Client { query, way, aliases: Vec::new() };
                self.forwarder.ask(question, client, ctx);
            }
            _ => way.answer(query.reply(Rcode::ServFail), ctx),
        }
    }

    /// The index at the newest versions; `None` until both views have been seen.
    fn zone(&mut self) -> Option<Arc<Zone>> {
        let (services, slices) = (self.services.as_ref()?, self.slices.as_ref()?);
        if let Some(basis) = &self.basis
            && basis.is_at(services, slices)
        {
            return Some(Arc::clone(&basis.zone));
        }
        let zone = zone(services, slices, self.basis.as_ref());
        let (services, slices) = (services.clone(), slices.clone());
        self.basis = Some(Basis { services, slices, zone: Arc::clone(&zone) });
        Some(zone)
    }

    /// The servers that `source` names from now on. One that names none (a file that is gone,
    /// empty or half written) changes nothing.
    fn upstreams(&mut self, source: &str, conf: ResolvConf, ctx: &mut Context<'_, Self>) {
        let listen = self.config.listen;
        let own = |server: &SocketAddrV4| *server.ip() == listen || server.ip().is_unspecified();
        let (own, servers): (Vec<_>, Vec<_>) = conf.servers.iter().partition(|one| own(one));
        if !own.is_empty() {
            ctx.note(|| format!("{source} names ourselves ({listen}) as upstream: left out"));
        }
        if servers.is_empty() {
            let kept = self.forwarder.servers.addresses();
            ctx.note(|| match kept.is_empty() {
                true => format!("{source} names no server"),
                false => format!("{source} names no server: {} stays", words(&kept)),
            });
            if self.forwarder.servers.is_empty() {
                self.forwarder.no_servers(ctx);
            }
            return;
        }
        let old = self.forwarder.servers.addresses();
        if old != servers {
            ctx.note(|| format!("upstream is {} (was {})", words(&servers), words(&old)));
        }
        self.forwarder.set_servers(&servers, conf.timeout, conf.rotate, ctx);
    }

    fn watch_health(&mut self, ctx: &mut Context<'_, Self>) {
        let needed = !self.deaf.is_empty() || self.forwarder.servers.any_ill();
        if needed && !self.health_armed {
            self.health_armed = true;
            ctx.set_timer(Timer::Health, upstream::HEALTH);
        }
    }
}

/// Lower case, without the final dot.
fn canonical(name: &str) -> SmolStr {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_ascii_lowercase_smolstr()
    } else {
        name.into()
    }
}

fn words(servers: &[SocketAddrV4]) -> String {
    let words: Vec<_> = servers.iter().map(ToString::to_string).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Addresses in a new order each time, so that clients who take the first one spread
/// (CoreDNS' loadbalance).
fn shuffle(answers: &mut [Record], ctx: &mut Context<'_, Dns>) {
    if answers.len() > 1 && answers.iter().all(|one| matches!(one.data, Data::A(_))) {
        ctx.rng().shuffle(answers);
    }
}

fn source_port(ctx: &mut Context<'_, Dns>) -> u16 {
    let (first, last) = (*SOURCE_PORTS.start(), *SOURCE_PORTS.end());
    first + ctx.rng().below(u64::from(last - first) + 1) as u16
}
