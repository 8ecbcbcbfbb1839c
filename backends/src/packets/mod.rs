//! The packets port on UDP and TCP sockets, for the network namespace of the thread that opens
//! them. Its model is in `sim/src/world/ports.rs` and `sim/src/models/connections.rs`;
//! `tests/port_packets` proves both alike.

pub mod dns;
pub mod peer;
mod socket;
mod tcp;

use self::socket::{Datagram, Udp};
use self::tcp::Tcp;
pub use self::tcp::exchange;
use crate::network;
use crate::port::{Answer, Closed, Local, Port};
use kubesim_actors::ports::network::Errno;
use kubesim_actors::ports::packets::{Body, Reply, Request};
use nix::errno::Errno as System;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

/// What the datagrams that come in are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 1035.
    Dns,
    /// Statements of netds.
    Peer,
}

/// The driver. An address that is bound and no link has is put on the loopback, as node-local DNS
/// caches have it; that takes `CAP_NET_ADMIN`.
#[derive(Clone, Debug)]
pub struct Packets {
    codec: Codec,
    ports: Ports,
    tcp: Tcp,
}

/// By local port.
type Ports = Rc<RefCell<BTreeMap<u16, Rc<Bound>>>>;

#[derive(Debug)]
struct Bound {
    at: SocketAddrV4,
    socket: Udp,
    codec: Codec,
    /// Where what was sent came to nothing and nobody was told yet.
    failed: RefCell<VecDeque<SocketAddrV4>>,
    stirred: Notify,
    /// Who reads; a later one has a higher number.
    reader: Cell<u64>,
}

/// The right to read a bound port, until somebody else takes it. Without a reader it is closed.
struct Reader {
    ports: Ports,
    bound: Rc<Bound>,
    number: u64,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.reads() {
            self.ports.borrow_mut().remove(&self.bound.at.port());
        } else {
            // What rang for the next one may have come to us.
            self.bound.stirred.notify_one();
        }
    }
}

impl Packets {
    /// For datagrams of one kind: an actor speaks one language.
    pub fn new(codec: Codec) -> Packets {
        Packets { codec, ports: Rc::default(), tcp: Tcp::default() }
    }

    /// A port that this driver has bound already is taken over: who asks has started anew.
    fn bind(&self, address: Ipv4Addr, port: u16) -> Result<Reader, Errno> {
        let known = self.ports.borrow().get(&port).cloned();
        let bound = match known.filter(|bound| *bound.at.ip() == address) {
            Some(bound) => bound,
            None => self.open(SocketAddrV4::new(address, port))?,
        };
        let number = bound.reader.get() + 1;
        bound.reader.set(number);
        bound.stirred.notify_waiters();
        Ok(Reader { ports: Rc::clone(&self.ports), bound, number })
    }

    fn open(&self, at: SocketAddrV4) -> Result<Rc<Bound>, Errno> {
        let bind = || Udp::bind(at).map_err(|error| network::errno_of(&error));
        let socket = match bind() {
            Err(Errno::Eaddrnotavail) => network::adopt(*at.ip()).and_then(|()| bind())?,
            bound => bound?,
        };
        let at = socket.address().map_err(|error| network::errno_of(&error))?;
        let bound = Rc::new(Bound {
            at,
            socket,
            codec: self.codec,
            failed: RefCell::default(),
            stirred: Notify::new(),
            reader: Cell::new(0),
        });
        self.ports.borrow_mut().insert(at.port(), Rc::clone(&bound));
        Ok(bound)
    }
}

impl Port for Packets {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        match request {
            Request::Bind { address, port } => match self.bind(address, port) {
                Ok(reader) => Box::pin(async move {
                    // Nobody listens any more, or somebody else does.
                    let _ = reader.run(answer).await;
                }),
                Err(why) => Box::pin(async move {
                    let _ = answer.send(Reply::BindFailed { port, why }).await;
                }),
            },
            Request::Send { from, from_port, to, body } => {
                let bound = self.ports.borrow().get(&from_port).cloned();
                if let Some(bound) = bound {
                    bound.send(from, to, &body);
                }
                Box::pin(async {})
            }
            Request::Listen { address, port } => {
                match self.tcp.listen(SocketAddrV4::new(address, port)) {
                    Ok(listener) => Box::pin(listener.run(answer)),
                    Err(why) => Box::pin(async move {
                        let _ = answer.send(Reply::ListenFailed { port, why }).await;
                    }),
                }
            }
            Request::Respond { connection, message } => {
                self.tcp.respond(connection, message);
                Box::pin(async {})
            }
            Request::Ask { to, message } => Box::pin(async move {
                // Nobody waits any more: the answer is for nobody.
                let _ = answer.send(tcp::ask(to, &message).await).await;
            }),
        }
    }
}

impl Bound {
    fn send(&self, from: Option<Ipv4Addr>, to: SocketAddrV4, body: &Body) {
        let bytes = match body {
            Body::Dns(message) => dns::encode(message).ok(),
            Body::Peer(signed) => Some(peer::encode(signed)),
        };
        let sent = bytes.ok_or(System::EINVAL).and_then(|bytes| {
            self.socket.send(from, to, &bytes).or_else(|_| {
                // It may have been the error of what was sent before, which is told but once.
                self.take_failures();
                self.socket.send(from, to, &bytes)
            })
        });
        match sent {
            // Lost before it left, as it might have been later.
            Ok(()) | Err(System::EAGAIN | System::ENOBUFS) => {}
            Err(_) => self.fail(to),
        }
    }

    fn fail(&self, to: SocketAddrV4) {
        self.failed.borrow_mut().push_back(to);
        self.stirred.notify_one();
    }

    fn take_failures(&self) {
        while let Ok(failed) = self.socket.failed() {
            failed.into_iter().for_each(|to| self.fail(to));
        }
    }

    fn understand(&self, found: &Datagram, bytes: &[u8]) -> Option<Body> {
        match self.codec {
            Codec::Peer => peer::decode(bytes).map(|signed| Body::Peer(Arc::new(signed))),
            Codec::Dns => match dns::decode(bytes) {
                dns::Incoming::Message(message) => Some(Body::Dns(Arc::new(message))),
                dns::Incoming::Answer(bytes) => {
                    // Whoever asks like that may miss it.
                    let _ = self.socket.send(Some(found.local), found.from, &bytes);
                    None
                }
                dns::Incoming::Nothing => None,
            },
        }
    }
}

impl Reader {
    fn reads(&self) -> bool {
        self.bound.reader.get() == self.number
    }

    /// Until nobody listens or somebody else reads.
    async fn run(&self, answer: Answer<Reply>) -> Result<(), Closed> {
        let Bound { at, socket, failed, stirred, .. } = &*self.bound;
        let mut buffer = Vec::new();
        while self.reads() {
            // Others of this thread have their turn, however much comes in.
            consume_budget().await;
            let came_to_nothing = failed.borrow_mut().pop_front();
            if let Some(to) = came_to_nothing {
                answer.send(Reply::Unreachable { to }).await?;
                continue;
            }
            match socket.receive(&mut buffer) {
                Ok(found) => {
                    let body = self.bound.understand(&found, &buffer[..found.len]);
                    if let Some(body) = body {
                        let local = SocketAddrV4::new(found.local, at.port());
                        answer.send(Reply::Datagram { local, from: found.from, body }).await?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::select! {
                    error = socket.ready() => if error { self.bound.take_failures() },
                    () = stirred.notified() => {}
                },
                // Of a datagram that was sent: the error queue has the rest.
                Err(_) => self.bound.take_failures(),
            }
        }
        Ok(())
    }
}
