//! Where the API servers are, for pods: the addresses behind the Service `kubernetes`. Each server
//! keeps a lease by its address, and what it writes into the Service's EndpointSlice and Endpoints
//! is the addresses of all whose leases are renewed (kubernetes
//! `pkg/controlplane/reconcilers/lease.go`, which has its leases beside the objects in etcd).
//!
//! No two clocks are compared: a lease has run out when it was not seen to change for its
//! duration. One that has is removed, and whoever had it makes it again when it is back.

mod record;
#[cfg(test)]
mod tests;

use crate::objects::{Kind, Name, Object};
use crate::ports::api::{self, DeleteOptions, Error, Reason, Reply, Request};
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    /// This server's, as pods reach it.
    pub address: Ipv4Addr,
    /// All servers have the same.
    pub port: u16,
    /// How often the lease is renewed and the others' are looked at (10 s upstream).
    pub period: Duration,
    /// How long a lease is good for (15 s upstream). Longer than the period.
    pub lasts: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    /// This server has another address.
    Moved(Ipv4Addr),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Round,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        let Effect::Api(effect) = self;
        effect.answers()
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Moved(address) => hasher.str(&address.to_string()),
        }
    }
}

/// After a call that failed, the next round is begun.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Advertiser {
    config: Arc<Config>,
    address: Ipv4Addr,
    /// Leases of addresses that this server had before.
    left: BTreeSet<Name>,
    /// Others' leases: the version that was seen last, and since when.
    seen: BTreeMap<Name, (u64, Time)>,
    calls: u64,
    /// The call of the round that is under way.
    asked: Option<(u64, Step)>,
}

/// A round, step by step.
#[derive(Clone, Debug)]
enum Step {
    /// A lease that is left goes.
    Leave(Name),
    Look,
    Renew,
    List,
    /// What the Service has of a kind, and what it should have.
    Read(Record, BTreeSet<Ipv4Addr>),
    Write(Record, BTreeSet<Ipv4Addr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Slice,
    Endpoints,
}

impl Actor for Advertiser {
    const NAME: &'static str = "advertiser";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        let mut advertiser = Advertiser {
            config: Arc::new(config.clone()),
            address: config.address,
            left: BTreeSet::new(),
            seen: BTreeMap::new(),
            calls: 0,
            asked: None,
        };
        advertiser.begin(ctx);
        advertiser
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        match event {
            Event::Api(api::Event::Answer(answer)) => {
                let asked = self.asked.take_if(|(tag, _)| *tag == answer.tag);
                if let Some((_, step)) = asked {
                    self.answered(step, answer.result, ctx);
                }
            }
            Event::Moved(address) if address != self.address => {
                ctx.note(|| {
                    format!("this server is at {address} now, no more at {}", self.address)
                });
                self.left.insert(record::name(self.address));
                self.left.remove(&record::name(address));
                self.address = address;
                self.begin(ctx);
            }
            // It has no informers, and a call waits for a connection by itself.
            Event::Moved(_) | Event::Api(api::Event::News(_) | api::Event::Connected(_)) => {}
        }
    }

    fn timeout(&mut self, Timer::Round: Timer, ctx: &mut Context<'_, Self>) {
        self.begin(ctx);
    }
}

impl Advertiser {
    /// A round; of one that is under way the rest is left out.
    fn begin(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.set_timer(Timer::Round, self.config.period);
        match self.left.first().cloned() {
            Some(lease) => self.leave(lease, None, ctx),
            None => self.look(ctx),
        }
    }

    fn ask(&mut self, step: Step, request: Request, ctx: &mut Context<'_, Self>) {
        self.calls += 1;
        let tag = self.calls;
        self.asked = Some((tag, step));
        ctx.perform(Effect::Api(api::Effect::Call { tag, request: Arc::new(request) }));
    }

    /// If it still is at this version.
    fn leave(&mut self, lease: Name, version: Option<u64>, ctx: &mut Context<'_, Self>) {
        let (kind, key) = (Kind::Lease, record::lease_key(&lease));
        let options = DeleteOptions { version, ..DeleteOptions::default() };
        self.ask(Step::Leave(lease), Request::Delete { kind, key, options }, ctx);
    }

    fn look(&mut self, ctx: &mut Context<'_, Self>) {
        let (kind, key) = (Kind::Lease, record::lease_key(&record::name(self.address)));
        self.ask(Step::Look, Request::Get { kind, key }, ctx);
    }

    fn answered(&mut self, step: Step, result: Result<Reply, Error>, ctx: &mut Context<'_, Self>) {
        let result = match result {
            Ok(reply) => Some(reply),
            Err(error) if error.reason == Reason::NotFound && step.may_miss() => None,
            Err(error) => {
                ctx.note(|| format!("keeping the Service kubernetes: {error}"));
                return ctx.set_timer(Timer::Round, AGAIN);
            }
        };
        match step {
            Step::Leave(lease) => {
                self.left.remove(&lease);
                self.seen.remove(&lease);
                match self.left.first().cloned() {
                    Some(lease) => self.leave(lease, None, ctx),
                    None => self.look(ctx),
                }
            }
            Step::Look => {
                let old = result.as_ref().and_then(object);
                let lease = record::renewed(self.address, self.config.lasts, old, ctx.wall());
                self.ask(Step::Renew, write(lease, old.is_some()), ctx);
            }
            Step::Renew => {
                let (kind, namespace) = (Kind::Lease, record::LEASES.into());
                self.ask(Step::List, Request::List { kind, namespace }, ctx);
            }
            Step::List => {
                let Some(Reply::List(leases)) = result else { return };
                let alive = self.alive(leases.iter().map(|(_, lease)| &**lease), ctx.now());
                self.read(Record::Slice, alive, ctx);
            }
            Step::Read(of, alive) => {
                let old = result.as_ref().and_then(object);
                match record::wrong(of, old, &alive, self.config.port) {
                    Some(record) => {
                        ctx.note(|| format!("the API is at {alive:?}, says the {}", record.kind()));
                        self.ask(Step::Write(of, alive), write(record, old.is_some()), ctx);
                    }
                    None => self.read_next(of, alive, ctx),
                }
            }
            Step::Write(of, alive) => self.read_next(of, alive, ctx),
        }
    }

    fn read(&mut self, of: Record, alive: BTreeSet<Ipv4Addr>, ctx: &mut Context<'_, Self>) {
        let (kind, key) = (of.kind(), record::service());
        self.ask(Step::Read(of, alive), Request::Get { kind, key }, ctx);
    }

    fn read_next(&mut self, of: Record, alive: BTreeSet<Ipv4Addr>, ctx: &mut Context<'_, Self>) {
        match of {
            Record::Slice => self.read(Record::Endpoints, alive, ctx),
            Record::Endpoints => {}
        }
    }

    /// Addresses whose leases are renewed, and this server's in any case. Those that are not are
    /// left with the next round.
    fn alive<'a>(
        &mut self,
        leases: impl Iterator<Item = &'a Object>,
        now: Time,
    ) -> BTreeSet<Ipv4Addr> {
        let own = record::name(self.address);
        let mut alive = BTreeSet::from([self.address]);
        let mut known = BTreeMap::new();
        for lease in leases {
            let Some(address) = record::address(lease) else { continue };
            let name = &lease.key.name;
            if *name == own || self.left.contains(name) {
                continue;
            }
            let before = self.seen.get(name).filter(|(version, _)| *version == lease.version);
            let since = before.map_or(now, |(_, since)| *since);
            if now.since(since) >= self.config.lasts {
                self.left.insert(name.clone());
            } else {
                alive.insert(address);
                known.insert(name.clone(), (lease.version, since));
            }
        }
        self.seen = known;
        alive
    }
}

impl Step {
    /// What it is about need not be there.
    fn may_miss(&self) -> bool {
        matches!(self, Step::Leave(_) | Step::Look | Step::Read(..))
    }
}

impl Record {
    fn kind(self) -> Kind {
        match self {
            Record::Slice => Kind::EndpointSlice,
            Record::Endpoints => Kind::Endpoints,
        }
    }
}

fn object(reply: &Reply) -> Option<&Object> {
    match reply {
        Reply::Object(object) => Some(object),
        _ => None,
    }
}

/// In the place of what is there, or new.
fn write(object: Object, there: bool) -> Request {
    let object = Arc::new(object);
    match there {
        true => Request::Update { object },
        false => Request::Create { object },
    }
}
