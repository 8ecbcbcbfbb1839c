//! Servers that share a store, of which some move and some die.

use super::{Advertiser, Config, Effect, Event, Timer};
use crate::objects::{Key, Kind, Object};
use crate::ports::api::{self, Error, Reason, Reply, Request};
use kubesim_runtime::{Actor, Clocks, Context, Outbox, Rng, Snapshot, Stream, Time, TimerOp, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, last)
}

/// The objects of all servers.
#[derive(Default)]
struct Api {
    objects: BTreeMap<(Kind, Key), Arc<Object>>,
    version: u64,
    writes: BTreeMap<(Kind, &'static str), usize>,
}

impl Api {
    fn get(&self, kind: Kind, key: &Key) -> Option<Arc<Object>> {
        self.objects.get(&(kind, key.clone())).cloned()
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        self.objects.remove(&(kind, key.clone()));
    }

    fn count(&self, kind: Kind) -> usize {
        self.objects.keys().filter(|(of, _)| *of == kind).count()
    }

    fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        let (kind, key) = request.subject();
        let stored = self.get(kind, &key);
        let missing = || Error::new(Reason::NotFound, format!("{kind} {key} not found"));
        let conflict = || Error::new(Reason::Conflict, format!("{kind} {key} is another"));
        *self.writes.entry((kind, request.verb())).or_default() += 1;
        match request {
            Request::Get { .. } => stored.map(Reply::Object).ok_or_else(missing),
            Request::List { .. } => {
                let mut view = Snapshot::empty(1);
                for ((_, key), object) in self.objects.iter().filter(|((of, _), _)| *of == kind) {
                    view.insert(key.clone(), Arc::clone(object), self.version);
                }
                Ok(Reply::List(view))
            }
            Request::Create { object } | Request::Update { object } => {
                let creates = matches!(request, Request::Create { .. });
                let before = stored.map_or(0, |stored| stored.version);
                if creates != (before == 0) || before != object.version {
                    return Err(conflict());
                }
                self.version += 1;
                let object = Arc::new(Object { version: self.version, ..(**object).clone() });
                self.objects.insert((kind, key), Arc::clone(&object));
                Ok(Reply::Object(object))
            }
            Request::Delete { options, .. } => {
                let stored = stored.ok_or_else(missing)?;
                if options.version.is_some_and(|version| version != stored.version) {
                    return Err(conflict());
                }
                self.remove(kind, &key);
                Ok(Reply::Object(stored))
            }
            other => panic!("{other:?}"),
        }
    }
}

/// One server's advertiser, and when its next round is due.
struct Server {
    actor: Option<Advertiser>,
    rng: Rng,
    ticket: u64,
    due: Time,
    calls: Vec<(u64, Arc<Request>)>,
}

struct World {
    api: Api,
    now: Time,
    servers: Vec<Server>,
}

impl Server {
    fn step(
        &mut self,
        now: Time,
        step: impl FnOnce(&mut Option<Advertiser>, &mut Context<'_, Advertiser>),
    ) {
        let mut out = Outbox::new(true);
        let wall = Wall::from_unix_secs(1_700_000_000) + now.since(Time::ZERO);
        let clocks = Clocks { now, boot: now, wall };
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.ticket, &mut out);
        step(&mut self.actor, &mut ctx);
        assert_eq!(out.failed, None);
        for op in out.timers {
            match op {
                TimerOp::Set(Timer::Round, at) => self.due = at,
                TimerOp::Clear(Timer::Round) => self.due = Time::NEVER,
            }
        }
        for (_, Effect::Api(effect)) in out.effects {
            let api::Effect::Call { tag, request } = effect else { panic!("{effect:?}") };
            self.calls.push((tag, request));
        }
    }
}

impl World {
    fn new() -> World {
        World { api: Api::default(), now: Time::ZERO, servers: Vec::new() }
    }

    fn start(&mut self, last: u8) {
        let config = Config {
            address: address(last),
            port: 6443,
            period: Duration::from_secs(10),
            lasts: Duration::from_secs(15),
        };
        let rng = Rng::new(Stream { seed: 1, label: "advertiser", index: 0, incarnation: 0 });
        let mut server =
            Server { actor: None, rng, ticket: 0, due: Time::NEVER, calls: Vec::new() };
        server.step(self.now, |actor, ctx| *actor = Some(Advertiser::start(&config, ctx)));
        self.servers.push(server);
        self.settle();
    }

    fn settle(&mut self) {
        for server in &mut self.servers {
            while let Some((tag, request)) = server.calls.pop() {
                let result = self.api.call(&request);
                let event = Event::Api(api::Event::Answer(api::Answer { tag, result }));
                let actor = |actor: &mut Option<Advertiser>, ctx: &mut Context<'_, Advertiser>| {
                    actor.as_mut().expect("it runs").handle(event, ctx);
                };
                server.step(self.now, actor);
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.servers.iter().map(|server| server.due).min()
            && at <= end
        {
            self.now = at;
            for server in self.servers.iter_mut().filter(|server| server.due <= at) {
                server.due = Time::NEVER;
                server.step(at, |actor, ctx| {
                    actor.as_mut().expect("it runs").timeout(Timer::Round, ctx);
                });
            }
            self.settle();
        }
        self.now = end;
    }

    fn moves(&mut self, index: usize, last: u8) {
        self.servers[index].step(self.now, |actor, ctx| {
            actor.as_mut().expect("it runs").handle(Event::Moved(address(last)), ctx);
        });
        self.settle();
    }

    /// What each of the two records says.
    #[track_caller]
    fn says(&self, last: &[u8]) {
        let wanted: BTreeSet<String> = last.iter().map(|last| address(*last).to_string()).collect();
        let key = Key::new("default", "kubernetes");
        let slice = self.api.get(Kind::EndpointSlice, &key).expect("a slice").to_json();
        let of = super::record::said_by_slice(&slice);
        assert_eq!(of, (wanted.clone(), vec![("https".to_owned(), 6443)]));
        let endpoints = self.api.get(Kind::Endpoints, &key).expect("endpoints").to_json();
        assert_eq!(super::record::said_by_endpoints(&endpoints).0, wanted);
    }
}

#[test]
fn one_server_says_where_it_is_and_writes_no_more_than_its_lease() {
    let mut world = World::new();
    world.start(10);
    world.says(&[10]);
    let written = |world: &World| world.api.writes.get(&(Kind::EndpointSlice, "update")).copied();
    world.run(Duration::from_secs(100));
    world.says(&[10]);
    assert_eq!(written(&world), None);
}

#[test]
fn a_server_that_moves_is_where_it_is_at_once() {
    let mut world = World::new();
    world.start(10);
    world.run(Duration::from_secs(25));
    world.moves(0, 77);
    world.says(&[77]);
    world.run(Duration::from_secs(60));
    world.says(&[77]);
    // And back.
    world.moves(0, 10);
    world.says(&[10]);
}

#[test]
fn a_server_that_dies_is_no_more_behind_the_service() {
    let mut world = World::new();
    for last in [10, 11, 12] {
        world.start(last);
    }
    world.run(Duration::from_secs(10));
    world.says(&[10, 11, 12]);
    world.servers.remove(1);
    world.run(Duration::from_secs(30));
    world.says(&[10, 12]);
    let leases = |world: &World| world.api.count(Kind::Lease);
    world.run(Duration::from_secs(20));
    assert_eq!(leases(&world), 2, "its lease is gone");
    world.start(11);
    world.run(Duration::from_secs(10));
    world.says(&[10, 11, 12]);
}

/// Somebody writes nonsense: it is put right with the next round.
#[test]
fn what_others_write_is_put_right() {
    let mut world = World::new();
    world.start(10);
    let key = Key::new("default", "kubernetes");
    world.api.remove(Kind::EndpointSlice, &key);
    world.api.remove(Kind::Lease, &Key::new("kube-system", "api-server-192.168.1.10"));
    world.run(Duration::from_secs(11));
    world.says(&[10]);
}
