//! A container's process: it serves and calls as its image says.

use super::Seat;
use super::resolver::{Lookup, Next, TIMEOUT};
use crate::body::Body;
use crate::kernel::{SocketEvent, SocketId};
use crate::scenario::{Call, FindHost, Image, Span};
use crate::sorted::Sorted;
use crate::world::World;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container;
use kubesim_runtime::Rng;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// A backend that does not answer for so long counts as gone.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

const OPEN: u32 = 0;
const CRASH: u32 = 1;
const STOPPED: u32 = 2;
const KILLED: u32 = 3;
/// Tokens from here on are errands'.
const FIRST_ERRAND: u32 = 16;

pub struct Container {
    pod: Uid,
    pub(super) spec: Arc<container::Container>,
    pub(super) image: Arc<Image>,
    resolv_conf: Arc<str>,
    /// Ports by listener, and what each accepted connection is.
    pub(super) listeners: Sorted<SocketId, u16>,
    pub(super) connections: Sorted<SocketId, Connection>,
    pub(super) errands: BTreeMap<u32, Errand>,
    next_errand: u32,
    open: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Connection {
    /// Reads and echoes, or serves HTTP where the port has routes.
    Served { port: u16 },
    /// Of an errand.
    Outgoing { errand: u32 },
}

/// Something to be done step by step: a request to be answered after its backends were called, or
/// a stream to be kept open.
pub(super) struct Errand {
    purpose: Purpose,
    stage: Stage,
    /// Steps taken; an alarm set for an earlier one is stale.
    step: u32,
}

#[derive(Clone, Debug)]
enum Purpose {
    Answer { connection: SocketId, route: usize, next_call: usize },
    Stream { index: usize, sent: u64 },
}

enum Stage {
    Waiting,
    Looking { lookup: Lookup, socket: SocketId, port: u16 },
    Calling { socket: SocketId },
    Streaming { socket: SocketId },
}

impl Container {
    pub fn new(
        pod: Uid,
        spec: Arc<container::Container>,
        image: Arc<Image>,
        resolv_conf: Arc<str>,
    ) -> Self {
        Container {
            pod,
            spec,
            image,
            resolv_conf,
            listeners: Sorted::default(),
            connections: Sorted::default(),
            errands: BTreeMap::new(),
            next_errand: FIRST_ERRAND,
            open: false,
        }
    }

    pub(super) fn start(&mut self, world: &mut World, seat: &mut Seat) {
        let delay = draw(&mut seat.rng, self.image.start);
        world.program_alarm_in(seat, delay, OPEN);
        if let Some(crash) = self.image.crash
            && (crash.times == 0 || self.spec.attempt < crash.times)
        {
            let delay = draw(&mut seat.rng, crash.after);
            world.program_alarm_in(seat, delay, CRASH);
        }
    }

    /// SIGTERM: exits after the image's stop time; SIGKILL, once the grace is over before that.
    pub fn terminate(&mut self, world: &mut World, seat: &mut Seat, grace: Duration) {
        let stop = draw(&mut seat.rng, self.image.stop);
        let (delay, token) = if stop <= grace { (stop, STOPPED) } else { (grace, KILLED) };
        world.program_alarm_in(seat, delay, token);
    }

    /// Whether this is that start of that container of its pod.
    pub fn is(&self, name: &str, attempt: u32) -> bool {
        self.spec.name == name && self.spec.attempt == attempt
    }
    pub fn name(&self) -> &str {
        &self.spec.name
    }
    /// Its ports are open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn alarm(&mut self, world: &mut World, seat: &mut Seat, token: u32) {
        match token {
            OPEN => self.open_ports(world, seat),
            CRASH => {
                let code = self.image.crash.map_or(1, |crash| crash.code);
                self.exit(world, seat, code);
            }
            // 128 + SIGTERM, 128 + SIGKILL.
            STOPPED => self.exit(world, seat, 143),
            KILLED => self.exit(world, seat, 137),
            token => self.errand_alarm(world, seat, token),
        }
    }

    fn exit(&mut self, world: &mut World, seat: &Seat, code: i32) {
        let (name, attempt) = (self.spec.name.clone(), self.spec.attempt);
        world.container_exited(seat.machine, seat.slot, self.pod, &name, attempt, code);
    }

    fn open_ports(&mut self, world: &mut World, seat: &mut Seat) {
        self.open = true;
        let (machine, ns, owner) = (seat.machine, seat.ns, seat.owner());
        let any = Ipv4Addr::UNSPECIFIED;
        let mut ports: Vec<u16> = self.image.tcp.clone();
        ports.extend(self.image.http.iter().map(|route| route.port));
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            if let Ok(socket) = world.kernel(machine, |k, _, _| k.tcp_listen(ns, any, port, owner))
            {
                self.listeners.insert(socket, port);
            }
        }
        for &port in &self.image.udp {
            // A port that another container of the pod has stays that one's, as bind(2) says.
            let _ = world.kernel(machine, |k, _, _| k.udp_bind(ns, any, port, owner));
        }
        for index in 0..self.image.streams.len() {
            self.begin(world, seat, Purpose::Stream { index, sent: 0 });
        }
    }

    pub(super) fn socket(
        &mut self,
        world: &mut World,
        seat: &mut Seat,
        socket: SocketId,
        event: SocketEvent,
    ) {
        match event {
            SocketEvent::Accepted { listener, .. } => {
                if let Some(&port) = self.listeners.get(&listener) {
                    self.connections.insert(socket, Connection::Served { port });
                }
            }
            SocketEvent::Connected => self.errand_connected(world, seat, socket),
            SocketEvent::Received { body, len } => self.received(world, seat, socket, body, len),
            SocketEvent::Datagram { from, local, body, len } => {
                self.datagram(world, seat, socket, (from, local), body, len);
            }
            SocketEvent::PeerClosed => {
                world.kernel(seat.machine, |k, now, out| k.tcp_close(now, socket, out));
                self.gone(world, seat, socket);
            }
            SocketEvent::Closed | SocketEvent::Failed(_) => self.gone(world, seat, socket),
            SocketEvent::EchoReply { .. } | SocketEvent::Icmp { .. } => {}
            SocketEvent::Datagram6 { .. } => {}
        }
    }

    fn received(
        &mut self,
        world: &mut World,
        seat: &mut Seat,
        socket: SocketId,
        body: Body,
        len: u32,
    ) {
        match (self.connections.get(&socket).copied(), body) {
            (Some(Connection::Served { port }), Body::HttpRequest { path }) => {
                self.request(world, seat, socket, port, &path);
            }
            (Some(Connection::Served { .. }), body) => {
                if let Body::Stream { seq } = body {
                    world.stream_read(seq);
                }
                // An echo to a connection that just broke is lost with it.
                let _ = world
                    .kernel(seat.machine, |k, now, out| k.tcp_send(now, socket, body, len, out));
            }
            (Some(Connection::Outgoing { errand }), _) => {
                self.errand_answered(world, seat, errand, socket)
            }
            (None, _) => {}
        }
    }

    fn datagram(
        &mut self,
        world: &mut World,
        seat: &mut Seat,
        socket: SocketId,
        (from, local): (SocketAddrV4, SocketAddrV4),
        body: Body,
        len: u32,
    ) {
        if let Body::Dns(message) = &body
            && message.response
        {
            let message = message.clone();
            let looking =
                self.errands.iter_mut().find_map(|(id, errand)| match &mut errand.stage {
                    Stage::Looking { lookup, socket: known, port } if *known == socket => {
                        Some((*id, lookup.answered(&message), *port))
                    }
                    _ => None,
                });
            if let Some((id, next, port)) = looking {
                self.looked_up(world, seat, id, next, port);
            }
            return;
        }
        let _ = world.kernel(seat.machine, |k, now, out| {
            k.udp_send(now, socket, Some(*local.ip()), from, body, len, out)
        });
    }

    fn gone(&mut self, world: &mut World, seat: &mut Seat, socket: SocketId) {
        if let Some(Connection::Outgoing { errand }) = self.connections.remove(&socket) {
            self.errand_failed(world, seat, errand);
        }
    }

    // HTTP.

    fn request(
        &mut self,
        world: &mut World,
        seat: &mut Seat,
        socket: SocketId,
        port: u16,
        path: &str,
    ) {
        let found = self.image.http.iter().position(|r| r.port == port && r.path == path);
        let Some(route) = found else {
            return self.respond(world, seat, socket, 404, "not found".into());
        };
        let purpose = Purpose::Answer { connection: socket, route, next_call: 0 };
        let id = self.begin(world, seat, purpose);
        let delay = draw(&mut seat.rng, self.image.http[route].delay);
        if delay.is_zero() {
            self.advance(world, seat, id);
        } else {
            self.wait(world, seat, id, delay);
        }
    }

    fn respond(
        &mut self,
        world: &mut World,
        seat: &mut Seat,
        socket: SocketId,
        status: u16,
        text: SmolStr,
    ) {
        let len = 200 + text.len() as u32;
        let body = Body::HttpResponse { status, text };
        // The client may have hung up while the answer was made.
        let _ = world.kernel(seat.machine, |k, now, out| k.tcp_send(now, socket, body, len, out));
    }

    // Errands.

    fn begin(&mut self, world: &mut World, seat: &mut Seat, purpose: Purpose) -> u32 {
        let id = self.next_errand;
        self.next_errand += 1;
        let streams = matches!(purpose, Purpose::Stream { .. });
        self.errands.insert(id, Errand { purpose, stage: Stage::Waiting, step: 0 });
        if streams {
            self.advance(world, seat, id);
        }
        id
    }

    /// Rings for an errand; 12 bits of the token say for which of its steps.
    fn wait(&mut self, world: &mut World, seat: &mut Seat, id: u32, delay: Duration) {
        if let Some(errand) = self.errands.get_mut(&id) {
            errand.step = (errand.step + 1) & 0xfff;
            world.program_alarm_in(seat, delay, id << 12 | errand.step);
        }
    }

    fn errand_alarm(&mut self, world: &mut World, seat: &mut Seat, token: u32) {
        let (id, step) = (token >> 12, token & 0xfff);
        let Some(errand) = self.errands.get_mut(&id) else { return };
        if errand.step != step {
            return;
        }
        match &mut errand.stage {
            Stage::Waiting => self.advance(world, seat, id),
            Stage::Looking { lookup, port, .. } => {
                let (next, port) = (lookup.timed_out(), *port);
                self.looked_up(world, seat, id, next, port);
            }
            Stage::Calling { .. } => self.errand_failed(world, seat, id),
            Stage::Streaming { .. } => self.stream_on(world, seat, id),
        }
    }

    /// Takes an errand's next step: the next backend, or the answer.
    fn advance(&mut self, world: &mut World, seat: &mut Seat, id: u32) {
        let image = self.image.clone();
        let Some(errand) = self.errands.get(&id) else { return };
        let call = match &errand.purpose {
            Purpose::Answer { route, next_call, .. } => image.http[*route].calls.get(*next_call),
            Purpose::Stream { index, .. } => Some(&image.streams[*index].to),
        };
        match call {
            Some(call) => self.call(world, seat, id, call),
            None => self.finish(world, seat, id, true),
        }
    }

    fn call(&mut self, world: &mut World, seat: &mut Seat, id: u32, call: &Call) {
        let spec = self.spec.clone();
        let env =
            |name: &str| spec.variables().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
        let by_env = match &call.find {
            FindHost::Env => true,
            FindHost::Dns => false,
            FindHost::Variable(name) => env(name) == Some("env"),
        };
        if by_env {
            let variable = format!("{}_SERVICE_HOST", call.host.to_uppercase().replace('-', "_"));
            match env(&variable).and_then(|ip| ip.parse().ok()) {
                Some(ip) => self.connect(world, seat, id, ip, call.port),
                None => self.errand_failed(world, seat, id),
            }
            return;
        }
        if let Some(ip) = call.host.parse().ok().or_else(|| spec.knows(&call.host)) {
            return self.connect(world, seat, id, ip, call.port);
        }
        let lookup = Lookup::new(&self.resolv_conf, &call.host, seat.rng.u64() as u16);
        let (machine, ns, owner) = (seat.machine, seat.ns, seat.owner());
        let bound =
            world.kernel(machine, |k, _, _| k.udp_bind(ns, Ipv4Addr::UNSPECIFIED, 0, owner));
        let Ok(socket) = bound else { return self.errand_failed(world, seat, id) };
        if let Some(errand) = self.errands.get_mut(&id) {
            errand.stage = Stage::Looking { lookup, socket, port: call.port };
        }
        self.ask(world, seat, id);
    }

    fn ask(&mut self, world: &mut World, seat: &mut Seat, id: u32) {
        let Some(Errand { stage: Stage::Looking { lookup, socket, .. }, .. }) =
            self.errands.get(&id)
        else {
            return;
        };
        let socket = *socket;
        let Some((to, message)) = lookup.query() else {
            return self.errand_failed(world, seat, id);
        };
        let len = message.wire_len() as u32;
        let body = Body::Dns(Arc::new(message));
        // A query that could not be sent times out like one that was lost.
        let _ = world
            .kernel(seat.machine, |k, now, out| k.udp_send(now, socket, None, to, body, len, out));
        self.wait(world, seat, id, TIMEOUT);
    }

    fn looked_up(&mut self, world: &mut World, seat: &mut Seat, id: u32, next: Next, port: u16) {
        match next {
            Next::Ask => self.ask(world, seat, id),
            Next::Found(ip) => {
                self.close_lookup(world, seat, id);
                self.connect(world, seat, id, ip, port);
            }
            Next::Failed(_) => self.errand_failed(world, seat, id),
        }
    }

    fn close_lookup(&mut self, world: &mut World, seat: &mut Seat, id: u32) {
        if let Some(errand) = self.errands.get_mut(&id)
            && let Stage::Looking { socket, .. } = errand.stage
        {
            errand.stage = Stage::Waiting;
            world.kernel(seat.machine, |k, now, out| k.close(now, socket, out));
        }
    }

    fn connect(&mut self, world: &mut World, seat: &mut Seat, id: u32, ip: Ipv4Addr, port: u16) {
        let (machine, ns, owner) = (seat.machine, seat.ns, seat.owner());
        let to = SocketAddrV4::new(ip, port);
        let opened = world.kernel(machine, |k, now, out| k.tcp_connect(now, ns, to, owner, out));
        match opened {
            Ok(socket) => {
                self.connections.insert(socket, Connection::Outgoing { errand: id });
                if let Some(errand) = self.errands.get_mut(&id) {
                    errand.stage = Stage::Calling { socket };
                }
                self.wait(world, seat, id, CALL_TIMEOUT);
            }
            Err(_) => self.errand_failed(world, seat, id),
        }
    }

    fn errand_connected(&mut self, world: &mut World, seat: &mut Seat, socket: SocketId) {
        let Some(Connection::Outgoing { errand: id }) = self.connections.get(&socket).copied()
        else {
            return;
        };
        let Some(errand) = self.errands.get_mut(&id) else { return };
        if matches!(errand.purpose, Purpose::Stream { .. }) {
            errand.stage = Stage::Streaming { socket };
            return self.stream_on(world, seat, id);
        }
        let body = Body::Text("PING".into());
        let _ = world.kernel(seat.machine, |k, now, out| k.tcp_send(now, socket, body, 64, out));
    }

    fn stream_on(&mut self, world: &mut World, seat: &mut Seat, id: u32) {
        let Some(errand) = self.errands.get_mut(&id) else { return };
        let (Purpose::Stream { index, sent }, Stage::Streaming { socket }) =
            (&mut errand.purpose, &errand.stage)
        else {
            return;
        };
        *sent += 1;
        let (socket, every) = (*socket, self.image.streams[*index].every);
        let body = Body::Text("tick".into());
        let _ = world.kernel(seat.machine, |k, now, out| k.tcp_send(now, socket, body, 64, out));
        self.wait(world, seat, id, every);
    }

    fn errand_answered(&mut self, world: &mut World, seat: &mut Seat, id: u32, socket: SocketId) {
        let Some(errand) = self.errands.get_mut(&id) else { return };
        if let Purpose::Answer { next_call, .. } = &mut errand.purpose {
            *next_call += 1;
            errand.stage = Stage::Waiting;
            self.connections.remove(&socket);
            world.kernel(seat.machine, |k, now, out| k.tcp_close(now, socket, out));
            self.advance(world, seat, id);
        }
    }

    fn errand_failed(&mut self, world: &mut World, seat: &mut Seat, id: u32) {
        self.close_lookup(world, seat, id);
        let Some(errand) = self.errands.get_mut(&id) else { return };
        if let Stage::Calling { socket } | Stage::Streaming { socket } = errand.stage {
            self.connections.remove(&socket);
            world.kernel(seat.machine, |k, now, out| k.tcp_abort(now, socket, out));
        }
        errand.stage = Stage::Waiting;
        match errand.purpose {
            Purpose::Answer { .. } => self.finish(world, seat, id, false),
            // A stream is tried again after a second.
            Purpose::Stream { .. } => self.wait(world, seat, id, Duration::from_secs(1)),
        }
    }

    fn finish(&mut self, world: &mut World, seat: &mut Seat, id: u32, reached: bool) {
        let Some(errand) = self.errands.remove(&id) else { return };
        let Purpose::Answer { connection, route, .. } = errand.purpose else { return };
        let image = self.image.clone();
        let route = &image.http[route];
        if reached {
            self.respond(world, seat, connection, route.status, route.text.clone());
        } else {
            self.respond(world, seat, connection, 502, "a backend did not answer".into());
        }
    }
}

/// A time out of a span.
pub fn draw(rng: &mut Rng, span: Span) -> Duration {
    if span.is_exact() { span.from } else { rng.between(span.from, span.to) }
}
