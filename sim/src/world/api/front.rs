//! The API server's front: its connections, the cache reads are served from, and the news.

use super::super::operator::OPERATOR;
use super::super::visitors::{Told, VISITOR};
use super::super::{Cell, Due, Kind, Owner, World};
use super::{Message, PORT};
use crate::body::Body;
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::models::tokens;
use kubesim_actors::apiserver::hub::Hub;
use kubesim_actors::apiserver::{self, ApiServer, Cache, RequestId};
use kubesim_actors::ports::api::{Error, News, Reply, Request, Scope};
use kubesim_runtime::Time;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// From a request's arrival to a read's answer.
const SERVE: Duration = Duration::from_micros(200);

/// Who watches: the connection and the client's number of the stream.
type Watcher = (u64, u64);

/// The API server's connections, and the cache that reads and watches are served from.
#[derive(Default)]
pub struct Front {
    pub machine: u32,
    listener: Option<SocketId>,
    connections: BTreeMap<u64, SocketId>,
    by_socket: FxHashMap<SocketId, u64>,
    next_connection: u64,
    hub: Hub<Watcher>,
    /// The streams that each connection opened.
    streams: BTreeMap<u64, Vec<u64>>,
    cache: Option<Cache>,
    /// When the next two rounds of news are due.
    fanout_at: Option<Time>,
    wide_at: Option<Time>,
    /// Streams of a whole kind by other machines than the server's own.
    wide: FxHashSet<Watcher>,
    /// Those of them that have news and wait for their turn.
    waiting: Vec<Watcher>,
    wide_due: Time,
    /// Connections of the server's own node.
    local: BTreeSet<u64>,
    /// News gather for so long before they are told.
    pub gather: Duration,
    /// The same for streams that every node has.
    pub gather_all: Duration,
}

impl Front {
    /// The newest published views; `None` while no server has read its store.
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }
    /// What an external server published.
    pub(in crate::world) fn show(&mut self, cache: Cache) {
        self.cache = Some(cache);
    }
}

impl World {
    /// The server process ended: its sockets with it.
    pub(in crate::world) fn front_dies(&mut self) {
        let machine = self.front.machine;
        let sockets: Vec<SocketId> =
            self.front.connections.values().copied().chain(self.front.listener.take()).collect();
        self.front.connections.clear();
        self.front.by_socket.clear();
        self.front.streams.clear();
        self.front.wide.clear();
        self.front.waiting.clear();
        self.front.local.clear();
        self.front.hub = Hub::default();
        self.front.cache = None;
        self.tell_visitors(|| Told::Ended);
        if self.machines[machine as usize].on {
            for socket in sockets {
                self.kernel(machine, |k, now, out| k.tcp_abort(now, socket, out));
            }
        }
    }

    /// The server has read its store: it listens, and news go out soon.
    pub(in crate::world) fn publish(&mut self, cache: Cache) {
        let machine = self.front.machine;
        self.tell_visitors(|| Told::Published(cache.clone()));
        self.front.hub.publish(cache.clone());
        let first = self.front.cache.replace(cache).is_none();
        self.note_doomed();
        if first && self.front.listener.is_none() {
            let owner = Owner::ApiFront.pack();
            let any = Ipv4Addr::UNSPECIFIED;
            let bound = self.kernel(machine, |k, _, _| k.tcp_listen(NsId::HOST, any, PORT, owner));
            self.front.listener = bound.ok();
        }
        self.fanout_soon();
    }

    fn fanout_soon(&mut self) {
        if self.front.fanout_at.is_none() {
            let at = self.now + self.front.gather;
            self.front.fanout_at = Some(at);
            self.queue.push(at, Due::Fanout);
        }
    }

    /// Tells every watcher that has news the newest version it may see.
    pub(in crate::world) fn fanout(&mut self) {
        self.front.fanout_at.take_if(|at| *at <= self.now);
        self.front.wide_at.take_if(|at| *at <= self.now);
        let mut ready = self.front.hub.take_ready();
        if self.now >= self.front.wide_due {
            self.front.wide_due = self.now + self.front.gather_all;
            ready.append(&mut self.front.waiting);
        } else {
            let front = &mut self.front;
            let (wide, own): (Vec<_>, Vec<_>) =
                ready.into_iter().partition(|w| front.wide.contains(w));
            front.waiting.extend(wide);
            ready = own;
        }
        if !self.front.waiting.is_empty() && self.front.wide_at.is_none() {
            let at = self.front.wide_due;
            self.front.wide_at = Some(at);
            self.queue.push(at, Due::Fanout);
        }
        for watcher in ready {
            let bytes = self.front.hub.bytes(watcher).min(u64::from(u32::MAX)) as u32;
            let Some(News::View { view, .. }) = self.front.hub.take(watcher) else { continue };
            self.counts.news += 1;
            self.front_say(watcher.0, Message::News { stream: watcher.1, view }, bytes);
        }
    }

    fn front_say(&mut self, connection: u64, message: Message, news_bytes: u32) {
        let machine = self.front.machine;
        let Some(&socket) = self.front.connections.get(&connection) else { return };
        let len = message.wire_len(news_bytes);
        let body = Body::Api(Arc::new(message));
        let _ = self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, len, out));
    }

    pub(in crate::world) fn front_socket(
        &mut self,
        machine: u32,
        socket: SocketId,
        event: SocketEvent,
    ) {
        match event {
            SocketEvent::Accepted { .. } => {
                let id = self.front.next_connection;
                self.front.next_connection += 1;
                self.front.connections.insert(id, socket);
                self.front.by_socket.insert(socket, id);
            }
            SocketEvent::Received { body: Body::Api(message), .. } => {
                if let Some(&connection) = self.front.by_socket.get(&socket) {
                    self.front_hears(connection, &message);
                }
            }
            SocketEvent::Received { body: Body::HttpRequest { path }, .. } => {
                let ready = self.front.cache.is_some()
                    && matches!(&*path, "/readyz" | "/livez" | "/healthz");
                let (status, text) =
                    if ready { (200, "ok".into()) } else { (404, "not found".into()) };
                let body = Body::HttpResponse { status, text };
                let _ = self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, 180, out));
            }
            SocketEvent::PeerClosed => {
                self.kernel(machine, |k, now, out| k.tcp_close(now, socket, out));
                self.front_loses(socket);
            }
            SocketEvent::Failed(_) | SocketEvent::Closed => self.front_loses(socket),
            _ => {}
        }
    }

    fn front_loses(&mut self, socket: SocketId) {
        if let Some(connection) = self.front.by_socket.remove(&socket) {
            self.front.connections.remove(&connection);
            for stream in self.front.streams.remove(&connection).unwrap_or_default() {
                self.front.hub.close((connection, stream));
                self.front.wide.remove(&(connection, stream));
            }
        }
    }

    fn front_hears(&mut self, connection: u64, message: &Message) {
        match message {
            Message::Hello { node } => {
                if *node == self.machines[self.front.machine as usize].name {
                    self.front.local.insert(connection);
                }
                let store = self.front.cache.as_ref().and_then(Cache::identity);
                self.front_say(connection, Message::Welcome { store }, 0);
            }
            Message::Ping => self.front_say(connection, Message::Pong, 0),
            Message::Call { id, request } => self.front_call(connection, *id, request),
            Message::Open { stream, kind, scope, from } => {
                let watcher = (connection, *stream);
                self.front.streams.entry(connection).or_default().push(*stream);
                if !matches!(scope, Scope::Node(_)) && !self.front.local.contains(&connection) {
                    self.front.wide.insert(watcher);
                }
                match self.front.hub.open(watcher, *kind, scope.clone(), *from) {
                    Ok(()) => self.fanout_soon(),
                    Err(_) => self.front_say(connection, Message::Expired { stream: *stream }, 0),
                }
            }
            _ => {}
        }
    }

    fn front_call(&mut self, connection: u64, id: u64, request: &Arc<Request>) {
        let read = self.front.cache.as_ref().and_then(|cache| match &**request {
            Request::Token(asked) => Some(tokens::issue(cache, asked, self.wall())),
            request => cache.read(request),
        });
        self.trace_call(connection, id, request);
        if let Some(result) = read {
            self.counts.api_reads += 1;
            self.trace_api(connection, id, || outcome(&result));
            self.front_say(connection, Message::Answer { id, result }, 0);
            return;
        }
        self.counts.api_writes += 1;
        let life = self.life(Cell { kind: Kind::ApiServer, index: 0 });
        let event = apiserver::Event::Request {
            id: RequestId { connection, call: id },
            request: request.clone(),
            dry_run: false,
        };
        self.send::<ApiServer>(life, self.now + SERVE, None, event);
    }

    /// The actor's answer to a write.
    pub(in crate::world) fn front_respond(&mut self, id: RequestId, result: Result<Reply, Error>) {
        self.trace_api(id.connection, id.call, || outcome(&result));
        match id.connection {
            OPERATOR => self.operator_answered(id.call, result),
            VISITOR => self.tell_visitors(|| Told::Answered { call: id.call, result }),
            _ => self.front_say(id.connection, Message::Answer { id: id.call, result }, 0),
        }
    }

    pub(in crate::world) fn trace_call(&mut self, connection: u64, call: u64, request: &Request) {
        self.trace_api(connection, call, || {
            let (kind, key) = request.subject();
            format!("{} {kind} {key}", request.verb())
        });
    }

    /// A line of `--trace api`; call and answer have the same number.
    fn trace_api(&mut self, connection: u64, call: u64, text: impl FnOnce() -> String) {
        if self.knobs.trace.api {
            let from = match connection {
                OPERATOR => "kubectl".to_owned(),
                VISITOR => "visitor".to_owned(),
                connection => format!("connection {connection}"),
            };
            self.line("api", || format!("{from} call {call}: {}", text()));
        }
    }
}

/// An answer in a few words.
fn outcome(result: &Result<Reply, Error>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::Options;
    use crate::report::{Outcome, Trace};
    use crate::scenario::Scenario;
    use crate::world::testing;

    /// With the server's disk the store is lost, and counts anew: nodes whose machines never went
    /// off are told so, register again and lease their subnets again. (Their watches waited, once,
    /// for a version that was far away.)
    #[test]
    fn a_cluster_comes_together_again_when_its_store_was_lost() {
        let more = r#"
[[node]]
name = "w"
count = 2
network = "lan"
address = "192.168.1.12"
[[fault]]
name = "lost"
kind = "kill"
actor = "apiserver"
nodes = "n1"
loss = "disk"
restart = "5s"
at = "60s"
[[expect]]
name = "all are ready again"
kind = "nodes-ready"
after = "lost"
within = "40s"
"#;
        let mut scenario = testing::scenario("", more);
        scenario.invariants = crate::oracles::JUDGED.to_vec();
        let (report, _) = testing::play(&scenario, Trace::default());
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
        assert_eq!(report.not_judged, []);
    }

    /// Lost so early that the new one has counted further by the time the nodes are back: they
    /// went on with a history that never was, once, and wrote 25 times a second for ever.
    #[test]
    fn a_store_that_was_lost_early_is_no_continuation_of_it() {
        let more = r#"
[[node]]
name = "w"
count = 3
network = "lan"
address = "192.168.1.12"
[image.web]
tcp = [80]
[[workload]]
name = "x"
at = "2s"
generate = { deployments = 2, replicas = 3, image = "web" }
[[fault]]
name = "lost"
kind = "kill"
actor = "apiserver"
nodes = "n1"
loss = "disk"
restart = "5s"
at = "31s"
[[expect]]
name = "all are ready again"
kind = "nodes-ready"
after = "lost"
within = "60s"
"#;
        let mut scenario = testing::scenario("", more);
        scenario.invariants = crate::oracles::JUDGED.to_vec();
        let (report, _) = testing::play(&scenario, Trace::default());
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
        let writes = report.measures.iter().find(|(name, _)| name == "API writes");
        let writes: u64 = writes.expect("it is counted").1.parse().expect("a number");
        assert!(writes < 1_000, "{writes} writes");
    }

    /// Who connects in the instant in which a new store has nothing that tells it from others did
    /// so at its first start, too, and took the second one for the first, once.
    #[test]
    fn a_store_that_does_not_say_which_it_is_is_met_anew() {
        let text = r#"
name = "lost"
duration = "160s"
invariants = []
[[network]]
name = "lan"
cidr = "192.168.1.0/24"
dhcp = { first = "192.168.1.100", last = "192.168.1.150" }
[[node]]
name = "n1"
role = "server"
network = "lan"
[[node]]
name = "w"
count = 2
network = "lan"
[[fault]]
name = "lost"
kind = "kill"
actor = "apiserver"
nodes = "n1"
loss = "disk"
restart = "45s"
at = "60s"
[[expect]]
name = "all are ready again"
kind = "nodes-ready"
after = "lost"
moment = "ends"
within = "50s"
"#;
        let none = |pattern: &str| Err(format!("no {pattern}"));
        let scenario = Scenario::parse("a.toml", text, &none, &[], None).expect("a scenario");
        for seed in 1..=40 {
            let options = Options { seed, ..Options::default() };
            let report = crate::run(&scenario, &options, &mut testing::Said::default());
            let met = &report.expectations[0];
            assert_eq!(report.outcome, Outcome::Passed, "seed {seed}: {}", met.reason);
        }
    }

    /// An actor that starts while its machine cannot reach the API is shown what there is once it
    /// can, also of kinds of which nothing is new. (Its netd waited for its own lease, once.)
    #[test]
    fn who_starts_while_the_line_is_down_is_shown_everything_later() {
        let more = r#"
[[network]]
name = "cafe"
cidr = "10.9.0.0/24"
[[link]]
between = ["lan", "cafe"]
[[node]]
name = "w"
network = "lan"
address = "192.168.1.12"
[[node]]
name = "other"
network = "lan"
address = "192.168.1.13"
[[fault]]
name = "away"
kind = "move"
at = "42s"
node = "w"
network = "cafe"
address = "10.9.0.9"
outage = "30s"
[[fault]]
name = "restart"
kind = "kill"
actor = "netd"
nodes = "w"
restart = "1s"
at = "48s"
"#;
        let mut scenario = testing::scenario("", more);
        scenario.invariants = crate::oracles::JUDGED.to_vec();
        let (report, _) = testing::play(&scenario, Trace::default());
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
        assert_eq!(report.not_judged, []);
    }
}
