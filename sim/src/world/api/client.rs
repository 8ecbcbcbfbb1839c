//! A node's API client: one connection, kept up; the calls and informers of all its actors.

use super::super::{Cell, Due, Kind, Life, Owner, World};
use super::stream::Stream;
use super::{Message, PORT};
use crate::body::Body;
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::scenario::Invariant;
use kubesim_actors::objects::{Uid, View};
use kubesim_actors::ports::api::{self, Answer, Error, News, Reason, Reply, Request, Scope};
use kubesim_runtime::{Ticket, Time};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// A call without an answer for so long is given up.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// A connection attempt that long without an answer is given up, and the next address tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Silence after which the client pings, and how long it waits for the pong (the defaults of
/// client-go's HTTP/2 health check are 30 s and 15 s).
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(15);

/// A node's API client: one connection, kept up; calls and informers of all its actors.
#[derive(Debug, Default)]
pub struct Client {
    /// Where the server may be, best first.
    addresses: Vec<Ipv4Addr>,
    next_address: usize,
    connection: Connection,
    failures: u32,
    redial_at: Option<Time>,
    /// In the order of their deadlines.
    calls: VecDeque<(u64, Call)>,
    next_id: u64,
    pub(super) streams: Vec<Stream>,
    /// What the streams show is of this one; one that does not say which it is may be any.
    store: Option<Uid>,
    heard: Time,
    pinged: Option<Time>,
    alarm: Option<Time>,
}

#[derive(Debug, Default)]
enum Connection {
    #[default]
    None,
    Dialling {
        socket: SocketId,
        address: Ipv4Addr,
        since: Time,
    },
    /// The server has proved who it is.
    Up {
        socket: SocketId,
        address: Ipv4Addr,
        local: Option<Ipv4Addr>,
    },
}

#[derive(Debug)]
struct Call {
    life: Life,
    ticket: Ticket,
    tag: u64,
    request: Arc<Request>,
    sent: bool,
    deadline: Time,
}

impl Client {
    pub fn new(addresses: Vec<Ipv4Addr>) -> Self {
        Client { addresses, ..Client::default() }
    }
    pub(in crate::world) fn power_loss(&mut self) {
        *self = Client::new(self.addresses.clone());
    }
    /// Where the server may be, best first.
    pub fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }
    pub fn is_up(&self) -> bool {
        matches!(self.connection, Connection::Up { .. })
    }
    pub(in crate::world) fn socket(&self) -> Option<SocketId> {
        match self.connection {
            Connection::None => None,
            Connection::Dialling { socket, .. } | Connection::Up { socket, .. } => Some(socket),
        }
    }
    fn peer(&self) -> Option<Ipv4Addr> {
        match self.connection {
            Connection::None => None,
            Connection::Dialling { address, .. } | Connection::Up { address, .. } => Some(address),
        }
    }
    fn stream(&mut self, id: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }
    fn next_alarm(&self) -> Option<Time> {
        let call = self.calls.front().map(|(_, call)| call.deadline);
        let line = match self.connection {
            Connection::None => self.redial_at,
            Connection::Dialling { since, .. } => Some(since + DIAL_TIMEOUT),
            Connection::Up { .. } => Some(match self.pinged {
                Some(at) => at + PONG_WITHIN,
                None => self.heard + PING_AFTER,
            }),
        };
        [call, line].into_iter().flatten().min()
    }
}

impl World {
    /// Carries out an effect on the API port.
    pub(in crate::world) fn api_effect(&mut self, life: Life, ticket: Ticket, effect: api::Effect) {
        let machine = self.machine_of(life.cell);
        match effect {
            api::Effect::Call { tag, request } => {
                let deadline = self.now + CALL_DEADLINE;
                let Some(client) = self.client(machine) else { return };
                let id = client.next_id;
                client.next_id += 1;
                let call = Call { life, ticket, tag, request, sent: false, deadline };
                client.calls.push_back((id, call));
                if client.is_up() {
                    self.client_send_calls(machine);
                }
            }
            api::Effect::Watch { kind, scope } => self.client_watch(machine, life, kind, scope),
            api::Effect::Dial { addresses } => {
                let Some(client) = self.client(machine) else { return };
                client.addresses = addresses;
                client.next_address = 0;
                let lost = client.peer().is_none_or(|peer| !client.addresses.contains(&peer));
                if lost {
                    self.client_hang_up(machine);
                    self.client_dial(machine);
                }
            }
        }
        self.client_wind(machine);
    }

    fn client_watch(
        &mut self,
        machine: u32,
        life: Life,
        kind: kubesim_actors::objects::Kind,
        scope: Scope,
    ) {
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        let up = client.is_up();
        let known = client.streams.iter_mut().find(|s| s.kind == kind && s.scope == scope);
        if let Some(stream) = known {
            stream.subscribers.retain(|known| known.cell != life.cell);
            stream.subscribers.push(life);
            if !up {
                // It has seen nothing yet: the stream is opened from the beginning.
                stream.view = None;
            } else if let Some(view) = stream.view.clone() {
                let news = News::View { kind, scope, view };
                self.tell_api(life, now, None, api::Event::News(news));
            }
            return;
        }
        let id = client.next_id;
        client.next_id += 1;
        client.streams.push(Stream::new(id, kind, scope.clone(), life));
        if up {
            self.client_say(machine, Message::Open { stream: id, kind, scope, from: None }, 0);
        }
    }

    /// An actor's life ended: nobody is told for it any more.
    pub(in crate::world) fn client_forgets(&mut self, machine: u32, cell: Cell) {
        if let Some(client) = self.client(machine) {
            for stream in &mut client.streams {
                stream.subscribers.retain(|life| life.cell != cell);
            }
        }
    }

    pub(in crate::world) fn client_dial(&mut self, machine: u32) {
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        if client.addresses.is_empty() || client.socket().is_some() {
            return;
        }
        let address = client.addresses[client.next_address % client.addresses.len()];
        client.next_address += 1;
        client.redial_at = None;
        let to = SocketAddrV4::new(address, PORT);
        let owner = Owner::ApiClient.pack();
        let dialled =
            self.kernel(machine, |k, now, out| k.tcp_connect(now, NsId::HOST, to, owner, out));
        match dialled {
            Ok(socket) => {
                if let Some(client) = self.client(machine) {
                    client.connection = Connection::Dialling { socket, address, since: now };
                }
            }
            Err(_) => self.client_lost(machine),
        }
        self.client_wind(machine);
    }

    /// The connection is gone: calls under way may have happened, informers are stale, and the
    /// next attempt comes after a back-off of 50 ms to 2 s.
    fn client_lost(&mut self, machine: u32) {
        let mut rng = self.rng.clone();
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        let was_up = client.is_up();
        client.connection = Connection::None;
        client.pinged = None;
        client.failures += 1;
        let base = Duration::from_millis(50 << client.failures.min(6)).min(Duration::from_secs(2));
        client.redial_at = Some(now + rng.jitter(base, 0.5));
        self.rng = rng;
        if was_up {
            self.client_interrupted(machine);
        }
        self.client_wind(machine);
    }

    /// What was under way on a connection that is gone.
    fn client_interrupted(&mut self, machine: u32) {
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        let (sent, waiting): (VecDeque<_>, VecDeque<_>) =
            client.calls.drain(..).partition(|(_, call)| call.sent);
        client.calls = waiting;
        let mut closed = Vec::new();
        for stream in &mut client.streams {
            for &life in &stream.subscribers {
                closed.push((life, stream.kind, stream.scope.clone()));
            }
        }
        for (_, call) in sent {
            let error = Error::new(Reason::Unknown, "the connection to the API server was lost");
            self.answer_call(call, now, Err(error));
        }
        for (life, kind, scope) in closed {
            self.tell_api(life, now, None, api::Event::News(News::Closed { kind, scope }));
        }
        self.tell_connected(machine, false);
    }

    fn tell_connected(&mut self, machine: u32, up: bool) {
        let now = self.now;
        for cell in self.machines[machine as usize].cells.clone() {
            if cell.kind != Kind::ApiServer && self.alive(cell) {
                self.tell_api(self.life(cell), now, None, api::Event::Connected(up));
            }
        }
    }

    fn client_hang_up(&mut self, machine: u32) {
        let Some(client) = self.client(machine) else { return };
        let Some(socket) = client.socket() else { return };
        let was_up = client.is_up();
        client.connection = Connection::None;
        client.pinged = None;
        self.kernel(machine, |k, now, out| k.tcp_abort(now, socket, out));
        if was_up {
            self.client_interrupted(machine);
        }
    }

    /// The machine's addresses changed: a connection from one that is gone is dead, and another
    /// attempt may succeed now.
    pub(in crate::world) fn client_addresses_changed(&mut self, machine: u32) {
        let host = &self.machines[machine as usize];
        let has = |ip: Ipv4Addr| {
            ip.is_loopback()
                || host.told.as_ref().is_some_and(|state| {
                    state.links.iter().any(|l| l.addresses.iter().any(|net| net.addr() == ip))
                })
        };
        let Some(client) = &host.client else { return };
        match client.connection {
            Connection::Up { local: Some(local), .. } if !has(local) => {
                self.client_hang_up(machine);
                self.client_dial(machine);
            }
            Connection::None => self.client_dial(machine),
            _ => {}
        }
    }

    pub(in crate::world) fn client_socket(
        &mut self,
        machine: u32,
        socket: SocketId,
        event: SocketEvent,
    ) {
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        if client.socket() != Some(socket) {
            return;
        }
        match event {
            SocketEvent::Connected => {
                let node = self.machines[machine as usize].name.clone();
                self.client_write(machine, socket, Message::Hello { node }, 0);
            }
            SocketEvent::Received { body: Body::Api(message), .. } => {
                client.heard = now;
                client.pinged = None;
                self.client_hears(machine, &message);
            }
            SocketEvent::Failed(_) | SocketEvent::Closed | SocketEvent::PeerClosed => {
                if matches!(event, SocketEvent::PeerClosed) {
                    self.kernel(machine, |k, now, out| k.tcp_abort(now, socket, out));
                }
                self.client_lost(machine);
            }
            _ => {}
        }
        self.client_wind(machine);
    }

    pub(super) fn client_hears(&mut self, machine: u32, message: &Message) {
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        match message {
            Message::Welcome { store } => self.client_welcomed(machine, *store),
            Message::Answer { id, result } => {
                let position = client.calls.iter().position(|(known, _)| known == id);
                if let Some((_, call)) = position.and_then(|at| client.calls.remove(at)) {
                    self.answer_call(call, now, result.clone());
                }
            }
            Message::News { stream, view } => {
                let Some(known) = client.stream(*stream) else { return };
                let goes_back = known.hears(view);
                let (kind, scope) = (known.kind, known.scope.clone());
                for life in known.subscribers.clone() {
                    let news = News::View { kind, scope: scope.clone(), view: view.clone() };
                    self.tell_api(life, now, None, api::Event::News(news));
                }
                let judged = self.scenario.invariants.contains(&Invariant::I15);
                if let Some(what) = goes_back.filter(|_| judged) {
                    self.violations.push(format!("I15 at {now}: {what}"));
                }
            }
            Message::Expired { stream } => {
                let Some(known) = client.stream(*stream) else { return };
                known.view = None;
                let open = Message::Open {
                    stream: known.id,
                    kind: known.kind,
                    scope: known.scope.clone(),
                    from: None,
                };
                self.client_say(machine, open, 0);
            }
            _ => {}
        }
    }

    fn client_welcomed(&mut self, machine: u32, store: Option<Uid>) {
        let Some(client) = self.client(machine) else { return };
        let Connection::Dialling { socket, address, .. } = client.connection else { return };
        client.failures = 0;
        if std::mem::replace(&mut client.store, store) != store || store.is_none() {
            client.streams.iter_mut().for_each(Stream::forget);
        }
        let opens: Vec<Message> = client
            .streams
            .iter()
            .map(|s| Message::Open {
                stream: s.id,
                kind: s.kind,
                scope: s.scope.clone(),
                from: s.view.as_ref().map(View::version),
            })
            .collect();
        let local = self.machines[machine as usize].kernel.local_address(socket);
        if let Some(client) = self.client(machine) {
            client.connection = Connection::Up { socket, address, local };
        }
        for open in opens {
            self.client_say(machine, open, 0);
        }
        self.tell_connected(machine, true);
        self.client_send_calls(machine);
    }

    fn client_send_calls(&mut self, machine: u32) {
        let Some(client) = self.client(machine) else { return };
        let mut unsent = Vec::new();
        // Unsent calls stand at the end: what is asked is sent at once while the line is up.
        for (id, call) in client.calls.iter_mut().rev() {
            if call.sent {
                break;
            }
            call.sent = true;
            unsent.push(Message::Call { id: *id, request: call.request.clone() });
        }
        for call in unsent.into_iter().rev() {
            self.client_say(machine, call, 0);
        }
    }

    fn client_say(&mut self, machine: u32, message: Message, news_bytes: u32) {
        let Some(client) = self.client(machine) else { return };
        if let Connection::Up { socket, .. } = client.connection {
            self.client_write(machine, socket, message, news_bytes);
        }
    }

    fn client_write(&mut self, machine: u32, socket: SocketId, message: Message, news_bytes: u32) {
        let len = message.wire_len(news_bytes);
        let body = Body::Api(Arc::new(message));
        // A socket that broke says so by an event of its own.
        let _ = self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, len, out));
    }

    fn answer_call(&mut self, call: Call, at: Time, result: Result<Reply, Error>) {
        let answer = Answer { tag: call.tag, result };
        self.tell_api(call.life, at, Some(call.ticket), api::Event::Answer(answer));
    }

    /// Winds the client's alarm clock to the next thing it waits for.
    pub(in crate::world) fn client_wind(&mut self, machine: u32) {
        let Some(client) = self.client(machine) else { return };
        let Some(at) = client.next_alarm() else { return };
        if client.alarm.is_none_or(|armed| at < armed) {
            client.alarm = Some(at);
            self.queue.push(at, Due::ApiClient { machine });
        }
    }

    pub(in crate::world) fn client_alarm(&mut self, machine: u32) {
        let now = self.now;
        if !self.machines[machine as usize].on {
            return;
        }
        let Some(client) = self.client(machine) else { return };
        if client.alarm != Some(now) {
            self.counts.events -= 1;
            return;
        }
        client.alarm = None;
        let overdue = |(_, call): &mut (u64, Call)| call.deadline <= now;
        if let Some((_, call)) = client.calls.pop_front_if(overdue) {
            let error = if call.sent {
                Error::new(Reason::Unknown, "no answer from the API server within 10 s")
            } else {
                Error::new(Reason::Unreachable, "no connection to the API server within 10 s")
            };
            self.answer_call(call, now, Err(error));
            let Some(again) = self.machines[machine as usize].client.as_mut() else { return };
            if !again.calls.is_empty() {
                return self.client_alarm_again(machine);
            }
        }
        self.client_line_alarm(machine);
        self.client_wind(machine);
    }

    fn client_alarm_again(&mut self, machine: u32) {
        let now = self.now;
        if let Some(client) = self.client(machine) {
            client.alarm = Some(now);
        }
        self.client_alarm(machine);
    }

    fn client_line_alarm(&mut self, machine: u32) {
        let now = self.now;
        let Some(client) = self.client(machine) else { return };
        match client.connection {
            Connection::None if client.redial_at.is_some_and(|at| at <= now) => {
                self.client_dial(machine);
            }
            Connection::Dialling { socket, since, .. } if since + DIAL_TIMEOUT <= now => {
                self.kernel(machine, |k, now, out| k.tcp_abort(now, socket, out));
                self.client_lost(machine);
            }
            Connection::Up { socket, .. } => match client.pinged {
                Some(at) if at + PONG_WITHIN <= now => {
                    self.kernel(machine, |k, now, out| k.tcp_abort(now, socket, out));
                    self.client_lost(machine);
                }
                None if client.heard + PING_AFTER <= now => {
                    client.pinged = Some(now);
                    self.client_say(machine, Message::Ping, 0);
                }
                _ => {}
            },
            _ => {}
        }
    }
}
