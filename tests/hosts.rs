//! The same actor, hosted by actix in (paused) real time and by the simulator's way of stepping in
//! virtual time, takes the same steps: what happened to it, what it asked for, when and in which
//! order, with the same dice, through two crashes.
//!
//! The actor is a node's DNS: it watches the API and a file, binds ports, talks to upstream
//! servers of which one is silent, and draws ports, ids and the order of its answers.

use kubesim_actors::dns::message::{Data, Message, Rcode, Record, Type};
use kubesim_actors::dns::{Config, Dns, Effect, Event, Upstreams};
use kubesim_actors::objects::{Kind, Object, Uid, View};
use kubesim_actors::ports::{api, files, packets};
use kubesim_runtime::host::{self, AnswerTo, Clock, Driver, Seen, Settings};
use kubesim_runtime::{Actor, Backoff, Clocks, Hasher, Rng, Stream, Ticket, Time, TimerOp, Wall};
use kubesim_sim::world::fleet::{Fleet, Input};
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

const LISTEN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const RESOLV: &str = "/etc/resolv.conf";
const SEED: u64 = 11;
const INDEX: u64 = 0;
const STEPS: usize = 10_000;

fn config() -> Config {
    Config {
        node: "n1".into(),
        listen: LISTEN,
        cluster_domain: "cluster.local".into(),
        service_network: "10.96.0.0/16".parse().expect("a network"),
        pod_network: "10.244.0.0/16".parse().expect("a network"),
        pod_records: false,
        upstreams: Upstreams::File(RESOLV.into()),
    }
}

/// What happens to the actor from outside.
#[derive(Clone, Debug)]
enum Outside {
    /// A client's datagram.
    Query(u8, &'static str),
    Kill,
}

fn script() -> Vec<(u64, Outside)> {
    use Outside::{Kill, Query};
    vec![
        (100, Query(1, "web.default.svc.cluster.local")),
        (150, Query(2, "example.com")),
        (160, Query(3, "example.com")),
        (900, Query(4, "web.default.svc.cluster.local")),
        (1_000, Query(5, "slow.example.org")),
        (1_500, Kill),
        (1_550, Query(6, "into.the.void")),
        (2_000, Query(7, "web.default.svc.cluster.local")),
        (2_100, Query(8, "example.com")),
        (2_103, Kill),
        (3_500, Query(9, "example.net")),
        (9_000, Query(10, "web.default.svc.cluster.local")),
        (12_000, Query(11, "slow.example.org")),
    ]
}

/// When the run is over.
const END: u64 = 20_000;

fn query(client: u8, name: &str) -> Event {
    let message = Message::query(u16::from(client), name.into(), Type::A);
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, client), 40_000);
    datagram(SocketAddrV4::new(LISTEN, 53), from, message)
}

fn datagram(local: SocketAddrV4, from: SocketAddrV4, message: Message) -> Event {
    let body = packets::Body::Dns(Arc::new(message));
    Event::Packets(packets::Reply::Datagram { local, from, body })
}

/// The model behind all ports, the same in both worlds: what comes back for an effect, in how many
/// milliseconds. `None` as the port: through the effect's own stream; else through the stream of
/// the socket on that port.
fn model(effect: &Effect) -> Option<(u64, Option<u16>, Event)> {
    match effect {
        Effect::Api(api::Effect::Watch { kind, scope }) => {
            let delay = if *kind == Kind::Service { 3 } else { 7 };
            let (kind, scope, view) = (*kind, scope.clone(), view(*kind));
            Some((delay, None, Event::Api(api::Event::News(api::News::View { kind, scope, view }))))
        }
        Effect::Files(files::Request::Watch { path }) => {
            let content = Some("nameserver 192.168.1.1\nnameserver 192.168.1.2\n".into());
            let path = path.clone();
            Some((5, None, Event::Files(files::Reply::Content { path, content })))
        }
        Effect::Packets(packets::Request::Send { from_port, to, body, .. }) if to.port() == 53 => {
            let packets::Body::Dns(query) = body else { return None };
            // The second server is silent, and so is the first about slow names.
            if to.ip().octets()[3] == 2 || query.name.starts_with("slow") {
                return None;
            }
            let mut reply = query.reply(Rcode::NoError);
            let data = Data::A(Ipv4Addr::new(203, 0, 113, 9));
            reply.answers.push(Record { name: query.name.clone(), ttl: 30, data });
            let local = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 50), *from_port);
            Some((11, Some(*from_port), datagram(local, *to, reply)))
        }
        _ => None,
    }
}

fn view(kind: Kind) -> View {
    let object = match kind {
        Kind::Service => json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "None", "selector": {"app": "web"},
                     "ports": [{"port": 80, "protocol": "TCP"}]}}),
        _ => json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "default",
                         "labels": {"kubernetes.io/service-name": "web",
                                    "service.kubernetes.io/headless": ""}},
            "endpoints": (1..9).map(|i| json!({"addresses": [format!("10.244.1.{i}")],
                                               "conditions": {"ready": true}})).collect::<Vec<_>>(),
            "ports": [{"port": 80, "protocol": "TCP"}]}),
    };
    let mut object = Object::from_json(object).expect("an object");
    (object.version, object.uid) = (1, Uid(1));
    let mut view = View::empty(if kind == Kind::Service { 1 } else { 2 });
    view.insert(object.key.clone(), Arc::new(object), 1);
    view
}

/// One line a step, in the form of the simulator's own report.
type Lines = Vec<String>;

// --- the simulator's way of stepping -----------------------------------------------------------

/// What is due in the hand-driven world.
enum Due {
    Outside(Outside),
    Start { incarnation: u32 },
    Alarm { incarnation: u32, id: u32 },
    Event { incarnation: u32, ticket: Option<Ticket>, event: Event },
}

struct Virtual {
    fleet: Fleet<Dns>,
    now: Time,
    queue: BTreeMap<(Time, u64), Due>,
    sequence: u64,
    /// Which incarnation holds the socket of a port.
    sockets: BTreeMap<u16, u32>,
    /// The supervisor's.
    dice: Rng,
    failures: u32,
}

/// Tokio's wheel turns in milliseconds, and never early.
fn whole_millis(at: Time) -> Time {
    Time::from_millis(at.as_nanos().div_ceil(1_000_000))
}

impl Virtual {
    fn push(&mut self, at: Time, due: Due) {
        self.sequence += 1;
        self.queue.insert((whole_millis(at), self.sequence), due);
    }

    fn run(seed: u64) -> Lines {
        let stream = Stream { seed, label: Dns::NAME, index: INDEX, incarnation: u32::MAX };
        let mut world = Virtual {
            fleet: Fleet::new(seed, false, STEPS),
            now: Time::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            sockets: BTreeMap::new(),
            dice: Rng::new(stream),
            failures: 0,
        };
        world.fleet.add(0, config());
        world.push(Time::ZERO, Due::Start { incarnation: 0 });
        for (at, outside) in script() {
            world.push(Time::from_millis(at), Due::Outside(outside));
        }
        while let Some(((at, _), due)) = world.queue.pop_first() {
            if at > Time::from_millis(END) {
                break;
            }
            world.now = at;
            world.dispatch(due);
        }
        world.fleet.last_steps(0)
    }

    fn dispatch(&mut self, due: Due) {
        match due {
            Due::Outside(Outside::Kill) => self.crash(),
            Due::Outside(Outside::Query(client, name)) => {
                if let Some(incarnation) = self.sockets.get(&53).copied() {
                    let event = query(client, name);
                    self.enter(incarnation, Input::Event { ticket: None, event });
                }
            }
            Due::Start { incarnation } => self.enter(incarnation, Input::Start),
            Due::Alarm { incarnation, id } => self.enter(incarnation, Input::Alarm { id }),
            Due::Event { incarnation, ticket, event } => {
                self.enter(incarnation, Input::Event { ticket, event });
            }
        }
    }

    fn crash(&mut self) {
        self.fleet.drop_actor(0);
        self.failures += 1;
        let at = self.now + Backoff::SUPERVISOR.delay(self.failures, &mut self.dice);
        self.push(at, Due::Start { incarnation: self.fleet.hosts[0].incarnation });
    }

    fn enter(&mut self, incarnation: u32, input: Input<Dns>) {
        if !self.fleet.admits(0, incarnation, &input) {
            return;
        }
        let mut digest = Hasher::default();
        let paid = self.fleet.step(0, clocks(self.now), input, &mut digest);
        assert_eq!(paid, Ok(()));
        let mut rings = Vec::new();
        let mut ops: Vec<TimerOp<_>> = std::mem::take(&mut self.fleet.outbox.timers);
        self.fleet.set_alarms(0, &mut ops, &mut rings);
        for (at, id) in rings {
            self.push(at, Due::Alarm { incarnation, id });
        }
        let effects = std::mem::take(&mut self.fleet.outbox.effects);
        self.fleet.outbox.clear();
        for (_, effect) in effects {
            self.perform(incarnation, &effect);
        }
    }

    fn perform(&mut self, incarnation: u32, effect: &Effect) {
        if let Effect::Packets(packets::Request::Bind { port, .. }) = effect {
            self.sockets.insert(*port, incarnation);
        }
        if let Some((delay, _, event)) = model(effect) {
            let at = self.now + Duration::from_millis(delay);
            self.push(at, Due::Event { incarnation, ticket: None, event });
        }
    }
}

fn clocks(now: Time) -> Clocks {
    let wall = Wall::from_unix_secs(1_767_225_600) + now.since(Time::ZERO);
    Clocks { now, boot: now, wall }
}

// --- actix -------------------------------------------------------------------------------------

type Sockets = Rc<RefCell<BTreeMap<u16, Rc<AnswerTo<Dns>>>>>;

struct Model {
    sockets: Sockets,
}

impl Driver<Dns> for Model {
    fn perform(
        &self,
        _: Ticket,
        effect: Effect,
        answer: AnswerTo<Dns>,
    ) -> impl Future<Output = ()> + 'static {
        let answer = Rc::new(answer);
        if let Effect::Packets(packets::Request::Bind { port, .. }) = &effect {
            self.sockets.borrow_mut().insert(*port, Rc::clone(&answer));
        }
        let modelled = model(&effect);
        // The datagram comes back to the socket that is bound now, not to a later one.
        let socket = |port| self.sockets.borrow().get(&port).cloned();
        let way = modelled.as_ref().and_then(|(_, port, _)| port.and_then(socket));
        async move {
            let Some((delay, _, event)) = modelled else { return };
            sleep(Duration::from_millis(delay)).await;
            // A dead incarnation's answer goes nowhere.
            let _ = way.as_ref().unwrap_or(&answer).send(event).await;
        }
    }
}

/// Tokio's clock from its start.
struct Paused(Instant);

impl Clock for Paused {
    fn clocks(&self) -> Clocks {
        clocks(Time::ZERO + self.0.elapsed())
    }
}

fn by_actix(seed: u64) -> (Lines, Vec<String>) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, live(seed, Rc::clone(&seen)));
    let (mut steps, mut failures) = (Lines::new(), Vec::new());
    for seen in seen.take() {
        match seen {
            Seen::Step { step, .. } => {
                let effects: Vec<_> = step.effects.iter().map(|effect| brief(effect)).collect();
                let event = brief(&step.event);
                steps.push(format!("{} {event} -> {}", step.time, effects.join(", ")));
            }
            Seen::Failed { incarnation, cause, .. } => {
                failures.push(format!("{incarnation}: {cause}"));
            }
            Seen::Note { .. } => {}
        }
    }
    (steps, failures)
}

async fn live(seed: u64, seen: Rc<RefCell<Vec<Seen>>>) {
    let start = Instant::now();
    let sockets = Sockets::default();
    let observer = Box::new(move |one| seen.borrow_mut().push(one));
    let settings = Settings { seed, index: INDEX, steps: true, observer };
    let model = Model { sockets: Rc::clone(&sockets) };
    let hosted = host::spawn::<Dns>(config(), model, Paused(start), settings);
    for (at, outside) in script() {
        sleep_until(start + Duration::from_millis(at)).await;
        match outside {
            Outside::Kill => hosted.kill("killed").await,
            Outside::Query(client, name) => {
                let socket = sockets.borrow().get(&53).cloned();
                if let Some(socket) = socket {
                    let _ = socket.send(query(client, name)).await;
                }
            }
        }
    }
    sleep_until(start + Duration::from_millis(END)).await;
}

/// As the simulator's report cuts: at most 400 characters.
fn brief(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

// --- the tests ---------------------------------------------------------------------------------

#[test]
fn both_hosts_take_the_same_steps() {
    for seed in [SEED, SEED + 1, SEED + 2] {
        let (actix, failures) = by_actix(seed);
        let simulated = Virtual::run(seed);
        let first = actix.iter().zip(&simulated).position(|(a, b)| a != b);
        if let Some(at) = first {
            panic!(
                "seed {seed}: step {at} differs\nactix: {}\nsimulator: {}\nbefore: {}",
                actix[at],
                simulated[at],
                actix[..at].last().map_or("", String::as_str),
            );
        }
        assert_eq!(actix.len(), simulated.len(), "{actix:#?}");
        assert_eq!(failures, ["0: killed", "1: killed"]);
    }
}

#[test]
fn the_run_walks_what_it_claims_to() {
    let (steps, _) = by_actix(SEED);
    for (what, times) in [
        ("start of life 0", 1),
        ("start of life 1", 1),
        ("start of life 2", 1),
        ("into.the.void", 0),
        ("alarm Deadline", 1),
        ("alarm Health", 1),
        ("rcode: ServFail", 1),
    ] {
        let found = steps.iter().filter(|step| step.contains(what)).count();
        let right = if times == 0 { found == 0 } else { found >= times };
        assert!(right, "{what}: {found} times in {steps:#?}");
    }
    assert!(steps.len() >= 30, "{} steps", steps.len());
}

#[test]
fn other_dice_are_other_steps() {
    assert_ne!(by_actix(SEED).0, by_actix(SEED + 1).0);
    assert_ne!(Virtual::run(SEED), Virtual::run(SEED + 1));
}

#[test]
fn a_stopped_actor_takes_no_step_more() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
    let told = Rc::clone(&seen);
    LocalSet::new().block_on(&runtime, async move {
        let observer = Box::new(move |one| told.borrow_mut().push(one));
        let settings = Settings { seed: SEED, index: INDEX, steps: true, observer };
        let model = Model { sockets: Sockets::default() };
        let hosted = host::spawn::<Dns>(config(), model, Paused(Instant::now()), settings);
        assert_eq!(hosted.send(query(1, "web.default.svc.cluster.local")).await, Ok(()));
        hosted.stop().await;
        let steps = seen.borrow().len();
        assert!(steps > 1);
        assert_eq!(hosted.send(query(2, "example.com")).await, Err(host::Closed));
        // Neither its alarms nor its supervisor nor what it had asked for wakes it.
        sleep(Duration::from_secs(600)).await;
        assert_eq!(seen.borrow().len(), steps);
    });
}
