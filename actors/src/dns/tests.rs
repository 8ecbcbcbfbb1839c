//! The actor driven by hand: one node's DNS, its clock and what it sends.

mod connections;
mod forwarding;
mod spec;

use super::*;
use crate::objects::{Key, Object, Uid};
use kubesim_runtime::{Clocks, Outbox, Rng, Stream, Time, TimerOp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const LISTEN: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 10);
const RESOLV: &str = "/etc/resolv.conf";

fn config(upstreams: Upstreams) -> Config {
    Config {
        node: "w1".into(),
        listen: LISTEN,
        cluster_domain: "cluster.local".into(),
        service_network: "10.3.0.0/24".parse().unwrap(),
        pod_network: "10.2.0.0/16".parse().unwrap(),
        pod_records: true,
        upstreams,
    }
}

fn put(view: &mut View, manifest: Value) {
    let mut object = Object::from_json(manifest).unwrap();
    let version = view.version() + 1;
    (object.version, object.uid) = (version, Uid(1));
    view.insert(object.key.clone(), Arc::new(object), version);
}

fn service(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

fn slice(service: &str, name: &str, ports: Value, endpoints: Value) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"name": name, "namespace": "default",
                        "labels": {"kubernetes.io/service-name": service,
                                   "service.kubernetes.io/headless": ""}},
           "endpoints": endpoints, "ports": ports})
}

fn server(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, last), 53)
}

fn client(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, last), 40_000)
}

struct Rig {
    dns: Dns,
    now: Time,
    rng: Rng,
    next: u64,
    timers: BTreeMap<Timer, Time>,
    /// Sent and not looked at yet: `from_port`, to, message.
    sent: Vec<(u16, SocketAddrV4, Arc<Message>)>,
    asked: Vec<Effect>,
    notes: Vec<String>,
}

impl Rig {
    fn new(upstreams: Upstreams) -> Self {
        Self::incarnation(upstreams, 0)
    }

    fn incarnation(upstreams: Upstreams, incarnation: u32) -> Self {
        let mut rng = Rng::new(Stream { seed: 7, label: "dns", index: 0, incarnation });
        let (mut next, mut out) = (0, Outbox::new(true));
        let mut ctx = Context::new(Clocks::default(), &mut rng, &mut next, &mut out);
        let dns = Dns::start(&config(upstreams), &mut ctx);
        let mut rig = Rig {
            dns,
            now: Time::ZERO,
            rng,
            next,
            timers: BTreeMap::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            notes: Vec::new(),
        };
        rig.take(out);
        rig
    }

    fn take(&mut self, out: Outbox<Dns>) {
        self.notes.extend(out.notes);
        for (_, effect) in out.effects {
            match effect {
                Effect::Packets(packets::Request::Send { from, from_port, to, body }) => {
                    let packets::Body::Dns(message) = body else { panic!("only DNS") };
                    assert_eq!(from, (from_port == PORT).then_some(LISTEN));
                    self.sent.push((from_port, to, message));
                }
                other => self.asked.push(other),
            }
        }
        for timer in out.timers {
            match timer {
                TimerOp::Set(timer, at) => drop(self.timers.insert(timer, at)),
                TimerOp::Clear(timer) => drop(self.timers.remove(&timer)),
            }
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut Dns, &mut Context<'_, Dns>)) {
        let mut out = Outbox::new(true);
        let clocks = Clocks { now: self.now, ..Clocks::default() };
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.next, &mut out);
        step(&mut self.dns, &mut ctx);
        self.take(out);
    }

    fn handle(&mut self, event: Event) {
        self.step(|dns, ctx| dns.handle(event, ctx));
    }

    fn pass(&mut self, span: Duration) {
        let to = self.now + span;
        while let Some((at, timer)) = self.timers.iter().map(|(t, at)| (*at, *t)).min() {
            if at > to {
                break;
            }
            self.timers.remove(&timer);
            self.now = at;
            self.step(|dns, ctx| dns.timeout(timer, ctx));
        }
        self.now = to;
    }

    fn show(&mut self, services: &View, slices: &View) {
        for (kind, view) in [(Kind::Service, services), (Kind::EndpointSlice, slices)] {
            let (scope, view) = (api::Scope::All, view.clone());
            self.handle(Event::Api(api::Event::News(api::News::View { kind, scope, view })));
        }
    }

    fn file(&mut self, content: Option<&str>) {
        let content = content.map(Arc::from);
        self.handle(Event::Files(files::Reply::Content { path: RESOLV.into(), content }));
    }

    fn datagram(&mut self, local: SocketAddrV4, from: SocketAddrV4, message: Message) {
        let body = packets::Body::Dns(Arc::new(message));
        self.handle(Event::Packets(packets::Reply::Datagram { local, from, body }));
    }

    /// A client's query; the answers to clients that it causes at once.
    fn ask(&mut self, from: SocketAddrV4, name: &str, qtype: Type) -> Vec<Arc<Message>> {
        let query = Message::query(77, name.into(), qtype);
        self.datagram(SocketAddrV4::new(LISTEN, PORT), from, query);
        self.client_mail()
    }

    fn client_mail(&mut self) -> Vec<Arc<Message>> {
        let (clients, rest) = self.sent.drain(..).partition(|(port, ..)| *port == PORT);
        self.sent = rest;
        clients.into_iter().map(|(_, _, message): (u16, SocketAddrV4, _)| message).collect()
    }

    /// Queries sent to upstream servers, without probes.
    fn server_mail(&mut self) -> Vec<(SocketAddrV4, Arc<Message>)> {
        let all = self.sent.drain(..).filter(|(port, ..)| *port != PORT);
        let all = all.filter(|(_, _, message)| !message.name.ends_with("loop.kubesim"));
        all.map(|(_, to, message)| (to, message)).collect()
    }

    fn probes(&mut self) -> Vec<(SocketAddrV4, Arc<Message>)> {
        let all = self.sent.drain(..);
        let all = all.filter(|(_, _, message)| message.name.ends_with("loop.kubesim"));
        all.map(|(_, to, message)| (to, message)).collect()
    }

    /// An upstream server's reply to a query of ours.
    fn reply(&mut self, from: SocketAddrV4, reply: Message) -> Vec<Arc<Message>> {
        let local = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 50), self.dns.forwarder.port());
        self.datagram(local, from, reply);
        self.client_mail()
    }

    fn synced(mut self) -> Self {
        self.show(&View::empty(1), &View::empty(2));
        self
    }
}

fn address(query: &Message, last: u8, ttl: u32) -> Message {
    let mut reply = query.reply(Rcode::NoError);
    let data = Data::A(Ipv4Addr::new(203, 0, 113, last));
    reply.answers.push(Record { name: query.name.clone(), ttl, data });
    reply
}
