//! The API server driven by hand: a rig that carries its requests to a store in memory.

mod admission;
mod cascade;
mod definitions;
mod dry_runs;
mod expiry;
mod random;
mod semantics;
mod services;
mod shared;
mod volumes;

use super::memory_store::Store;
use super::{ApiServer, Cache, Config, Effect, Event, RequestId, Timer};
use crate::objects::{Key, Kind, Object};
use crate::ports::api::{DeleteOptions, Error, Reply, Request, Subresource};
use crate::ports::store;
use kubesim_runtime::{Actor, Clocks, Context, Outbox, Rng, Stream, Time, TimerOp, Wall};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Rig {
    pub config: Config,
    pub server: ApiServer,
    pub store: Store,
    /// Asked of the store by the incarnation that lives, not delivered yet.
    pub outgoing: Vec<store::Request>,
    pub cache: Cache,
    pub answers: BTreeMap<u64, Result<Reply, Error>>,
    pub refused: Option<String>,
    pub retry: bool,
    /// When the server is to be woken for events that are over.
    pub expires: Option<Time>,
    pub now: Time,
    rng: Rng,
    next_ticket: u64,
    incarnation: u32,
    calls: u64,
}

pub(super) fn config() -> Config {
    let net = |text: &str| text.parse().expect("a network");
    Config {
        pod_network: net("10.244.0.0/16"),
        service_network: net("10.96.0.0/16"),
        node_ports: (30000, 32767),
        node_networks: vec![("lan".to_owned(), net("192.168.1.0/24"))],
        refuse_overlap: true,
        shared: false,
        service_accounts: false,
        volumes: false,
        history: 100,
        memo: true,
    }
}

fn dice(incarnation: u32) -> Rng {
    Rng::new(Stream { seed: 1, label: "apiserver", index: 0, incarnation })
}

impl Rig {
    pub fn starting(config: Config) -> Rig {
        let (mut rng, mut next_ticket, mut out) = (dice(0), 0, Outbox::new(false));
        let mut ctx = Context::new(Clocks::default(), &mut rng, &mut next_ticket, &mut out);
        let server = ApiServer::start(&config, &mut ctx);
        let mut rig = Rig {
            config,
            server,
            store: Store::default(),
            outgoing: Vec::new(),
            cache: Cache::default(),
            answers: BTreeMap::new(),
            refused: None,
            retry: false,
            expires: None,
            now: Time::ZERO,
            rng,
            next_ticket,
            incarnation: 0,
            calls: 0,
        };
        rig.collect(out);
        rig
    }

    /// Up and serving.
    pub fn new() -> Rig {
        let mut rig = Rig::starting(config());
        rig.run();
        rig
    }

    /// A new incarnation with empty memory. What was on its way is the caller's to lose.
    pub fn restart(&mut self) {
        self.incarnation += 1;
        self.rng = dice(self.incarnation);
        self.next_ticket = 0;
        self.outgoing.clear();
        self.cache = Cache::default();
        let mut out = Outbox::new(false);
        let clocks = self.clocks();
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.next_ticket, &mut out);
        self.server = ApiServer::start(&self.config, &mut ctx);
        self.collect(out);
    }

    fn clocks(&self) -> Clocks {
        let wall = Wall::from_unix_secs(1_700_000_000) + self.now.since(Time::ZERO);
        Clocks { now: self.now, boot: self.now, wall }
    }

    fn step(&mut self, act: impl FnOnce(&mut ApiServer, &mut Context<'_, ApiServer>)) {
        let mut out = Outbox::new(true);
        let clocks = self.clocks();
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.next_ticket, &mut out);
        act(&mut self.server, &mut ctx);
        self.collect(out);
    }

    fn collect(&mut self, out: Outbox<ApiServer>) {
        assert_eq!(out.failed, None);
        for op in out.timers {
            match op {
                TimerOp::Set(Timer::Retry, _) => self.retry = true,
                TimerOp::Set(Timer::Expire, at) => self.expires = Some(at),
                TimerOp::Clear(Timer::Expire) => self.expires = None,
                _ => {}
            }
        }
        for (_, effect) in out.effects {
            match effect {
                Effect::Store(request) => self.outgoing.push(request),
                Effect::Publish(cache) => self.published(cache),
                Effect::Respond { id, result } => self.answered(id.call, result),
                Effect::Refuse { why } => self.refused = Some(why),
            }
        }
    }

    /// Revisions are durable before they are published, and none is skipped or repeated.
    fn published(&mut self, cache: Cache) {
        assert!(cache.revision <= self.store.revision());
        match &cache.last {
            Some(_) => assert_eq!(cache.revision, self.cache.revision + 1),
            None => assert!(cache.revision >= self.cache.revision),
        }
        self.cache = cache;
    }

    /// An answer speaks of what is durable and published.
    fn answered(&mut self, call: u64, result: Result<Reply, Error>) {
        if let Ok(Reply::Object(object)) = &result {
            assert!(object.version <= self.cache.revision, "{object:?} is not published");
        }
        assert!(self.answers.insert(call, result).is_none(), "call {call} is answered twice");
    }

    pub fn send(&mut self, request: Request) -> u64 {
        self.ask(request, false)
    }

    fn ask(&mut self, request: Request, dry_run: bool) -> u64 {
        self.calls += 1;
        let id = RequestId { connection: 1, call: self.calls };
        let request = Arc::new(request);
        self.step(|server, ctx| server.handle(Event::Request { id, request, dry_run }, ctx));
        id.call
    }

    /// Only tried: nothing is asked of the store, and no version is used up.
    pub fn dry_run(&mut self, request: Request) -> Result<Arc<Object>, String> {
        let before = (self.store.revision(), self.cache.revision);
        let call = self.ask(request, true);
        assert!(self.outgoing.is_empty(), "the store is asked: {:?}", self.outgoing);
        assert_eq!((self.store.revision(), self.cache.revision), before);
        match self.answers.remove(&call).expect("every call is answered") {
            Ok(Reply::Object(object)) => Ok(object),
            Ok(_) => Err("no object".to_owned()),
            Err(error) => Err(error.message),
        }
    }

    pub fn reply(&mut self, reply: store::Reply) {
        self.step(|server, ctx| server.handle(Event::Store(reply), ctx));
    }

    pub fn timeout(&mut self, timer: Timer) {
        self.step(|server, ctx| server.timeout(timer, ctx));
    }

    /// Until nothing is on its way.
    pub fn run(&mut self) {
        while !self.outgoing.is_empty() {
            let request = self.outgoing.remove(0);
            let reply = self.store.request(&request);
            self.reply(reply);
        }
    }

    pub fn call(&mut self, request: Request) -> Result<Reply, Error> {
        let call = self.send(request);
        self.run();
        self.answers.remove(&call).expect("every call is answered")
    }

    /// The object in the answer, or the error's message.
    pub fn object(&mut self, request: Request) -> Result<Arc<Object>, String> {
        match self.call(request) {
            Ok(Reply::Object(object)) => Ok(object),
            Ok(_) => Err("no object".to_owned()),
            Err(error) => Err(error.message),
        }
    }

    pub fn create(&mut self, manifest: Value) -> Result<Arc<Object>, String> {
        let object = Arc::new(Object::from_json(manifest).expect("a manifest"));
        self.object(Request::Create { object })
    }

    pub fn patch(
        &mut self,
        kind: Kind,
        key: Key,
        subresource: Subresource,
        patch: Value,
    ) -> Result<Arc<Object>, String> {
        self.object(Request::Patch { kind, key, subresource, patch })
    }

    pub fn delete(&mut self, kind: Kind, key: Key) -> Result<Arc<Object>, String> {
        self.object(Request::Delete { kind, key, options: DeleteOptions::default() })
    }

    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Object>> {
        self.cache.object(kind, key)
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}
