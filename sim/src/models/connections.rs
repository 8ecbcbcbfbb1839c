//! DNS over TCP behind the packets port: who listens, who has connected, who was asked. It says
//! what to tell whom; the connections are the modelled kernel's.

use crate::body::Body;
use crate::kernel::{Kernel, NsId, Output, SocketEvent, SocketId};
use kubesim_actors::dns::message::Message;
use kubesim_actors::ports::packets::{Connection, IDLE, MAX_CONNECTIONS, PATIENCE, Reply};
use kubesim_runtime::Time;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

/// Bytes that a message takes over TCP: two say how long it is (RFC 1035, section 4.2.2).
pub fn framed_len(message: &Message) -> u32 {
    2 + message.wire_len() as u32
}

/// Of one machine; `W` is who is told.
#[derive(Clone, Debug)]
pub struct Connections<W> {
    listeners: BTreeMap<SocketId, W>,
    open: BTreeMap<SocketId, Open<W>>,
    asked: BTreeMap<SocketId, Asked<W>>,
    opened: u64,
}

impl<W> Default for Connections<W> {
    fn default() -> Self {
        Connections {
            listeners: BTreeMap::new(),
            open: BTreeMap::new(),
            asked: BTreeMap::new(),
            opened: 0,
        }
    }
}

/// A client's.
#[derive(Clone, Debug)]
struct Open<W> {
    who: W,
    number: Connection,
    unanswered: u32,
    /// The client may ask more: it has not closed its side.
    asks: bool,
    idle: Time,
}

/// To a server.
#[derive(Clone, Debug)]
struct Asked<W> {
    who: W,
    to: SocketAddrV4,
    id: u16,
    give_up: Time,
}

/// The kernel, now, and where what it puts out goes.
pub struct Means<'a> {
    pub kernel: &'a mut Kernel,
    pub now: Time,
    pub out: &'a mut Vec<Output>,
}

impl Means<'_> {
    fn close(&mut self, socket: SocketId) {
        self.kernel.tcp_close(self.now, socket, self.out);
    }

    /// A connection that is gone takes nothing.
    fn send(&mut self, socket: SocketId, message: Arc<Message>) {
        let len = framed_len(&message);
        let _ = self.kernel.tcp_send(self.now, socket, Body::Dns(message), len, self.out);
    }
}

impl<W: Copy + PartialEq> Connections<W> {
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.open.is_empty() && self.asked.is_empty()
    }

    /// Queries that come to this socket are for `who`.
    pub fn listen(&mut self, who: W, socket: SocketId) {
        self.listeners.insert(socket, who);
    }

    pub fn respond(&mut self, means: &mut Means<'_>, number: Connection, message: Arc<Message>) {
        let found = self.open.iter_mut().find(|(_, open)| open.number == number);
        let Some((&socket, open)) = found else { return };
        open.unanswered = open.unanswered.saturating_sub(1);
        open.idle = means.now + IDLE;
        means.send(socket, message);
        self.close_if_done(means, socket);
    }

    /// Asks a server over a socket of the kernel's `owner`. What is told at once is that it cannot
    /// be reached.
    pub fn ask(
        &mut self,
        means: &mut Means<'_>,
        owner: u64,
        who: W,
        to: SocketAddrV4,
        message: Arc<Message>,
    ) -> Option<Reply> {
        let id = message.id;
        let now = means.now;
        let Ok(socket) = means.kernel.tcp_connect(now, NsId::HOST, to, owner, means.out) else {
            return Some(Reply::Unanswered { by: to, id });
        };
        let give_up = now + PATIENCE;
        means.send(socket, message);
        self.asked.insert(socket, Asked { who, to, id, give_up });
        None
    }

    /// Something happened to a socket.
    pub fn event(
        &mut self,
        means: &mut Means<'_>,
        socket: SocketId,
        event: SocketEvent,
    ) -> Option<(W, Reply)> {
        match event {
            SocketEvent::Accepted { listener, .. } => self.accept(means, listener, socket),
            SocketEvent::Received { body, .. } if self.open.contains_key(&socket) => {
                return self.query(means, socket, body);
            }
            SocketEvent::Received { body: Body::Dns(message), .. } => {
                return self.answer(means, socket, message);
            }
            SocketEvent::PeerClosed => {
                if let Some(open) = self.open.get_mut(&socket) {
                    open.asks = false;
                    self.close_if_done(means, socket);
                } else if self.asked.contains_key(&socket) {
                    means.close(socket);
                    return self.unanswered(socket);
                }
            }
            SocketEvent::Closed | SocketEvent::Failed(_) => {
                self.open.remove(&socket);
                return self.unanswered(socket);
            }
            _ => {}
        }
        None
    }

    fn accept(&mut self, means: &mut Means<'_>, listener: SocketId, socket: SocketId) {
        let who = self.listeners.get(&listener).copied();
        let his = self.open.values().filter(|open| Some(open.who) == who).count();
        let Some(who) = who.filter(|_| his < MAX_CONNECTIONS) else {
            return means.close(socket);
        };
        let number = Connection(self.opened);
        self.opened += 1;
        let idle = means.now + IDLE;
        self.open.insert(socket, Open { who, number, unanswered: 0, asks: true, idle });
    }

    /// Who says anything but queries is not listened to.
    fn query(&mut self, means: &mut Means<'_>, socket: SocketId, body: Body) -> Option<(W, Reply)> {
        let open = self.open.get_mut(&socket)?;
        match body {
            Body::Dns(message) if !message.response => {
                open.unanswered += 1;
                open.idle = means.now + IDLE;
                Some((open.who, Reply::Query { connection: open.number, message }))
            }
            _ => {
                self.open.remove(&socket);
                means.close(socket);
                None
            }
        }
    }

    fn answer(
        &mut self,
        means: &mut Means<'_>,
        socket: SocketId,
        message: Arc<Message>,
    ) -> Option<(W, Reply)> {
        let asked = self.asked.get(&socket)?;
        if !message.response || message.id != asked.id {
            return None;
        }
        let Asked { who, to, .. } = self.asked.remove(&socket)?;
        means.close(socket);
        Some((who, Reply::Answer { from: to, message }))
    }

    fn unanswered(&mut self, socket: SocketId) -> Option<(W, Reply)> {
        let Asked { who, to, id, .. } = self.asked.remove(&socket)?;
        Some((who, Reply::Unanswered { by: to, id }))
    }

    fn close_if_done(&mut self, means: &mut Means<'_>, socket: SocketId) {
        if self.open.get(&socket).is_some_and(|open| !open.asks && open.unanswered == 0) {
            self.open.remove(&socket);
            means.close(socket);
        }
    }

    /// When something is to be given up.
    pub fn next_deadline(&self) -> Option<Time> {
        let idle = self.open.values().map(|open| open.idle);
        idle.chain(self.asked.values().map(|asked| asked.give_up)).min()
    }

    /// Gives up what is due.
    pub fn timeout(&mut self, means: &mut Means<'_>) -> Vec<(W, Reply)> {
        let now = means.now;
        let idle = self.open.iter().filter(|(_, open)| open.idle <= now);
        let idle: Vec<SocketId> = idle.map(|(socket, _)| *socket).collect();
        let late = self.asked.iter().filter(|(_, asked)| asked.give_up <= now);
        let late: Vec<SocketId> = late.map(|(socket, _)| *socket).collect();
        for socket in &idle {
            self.open.remove(socket);
        }
        idle.iter().chain(&late).for_each(|socket| means.close(*socket));
        late.into_iter().filter_map(|socket| self.unanswered(socket)).collect()
    }

    /// Closes what somebody had open: his process has ended.
    pub fn forget(&mut self, means: &mut Means<'_>, whose: impl Fn(W) -> bool) {
        let mut gone: Vec<SocketId> = Vec::new();
        let mut goes = |socket: &SocketId, who: W| {
            let goes = whose(who);
            gone.extend(goes.then_some(*socket));
            !goes
        };
        self.listeners.retain(|socket, who| goes(socket, *who));
        self.open.retain(|socket, open| goes(socket, open.who));
        self.asked.retain(|socket, asked| goes(socket, asked.who));
        gone.into_iter().for_each(|socket| means.close(socket));
    }
}
