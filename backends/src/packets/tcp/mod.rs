//! DNS over TCP (RFC 7766): who listens has the queries of all who connect, and answers them over
//! the connection they came by.

mod ask;
mod connection;
mod frames;

pub use ask::{ask, exchange};

use crate::network;
use crate::port::{Answer, Closed};
use connection::serve;
use kubesim_actors::dns::message::Message;
use kubesim_actors::ports::network::Errno;
use kubesim_actors::ports::packets::{Connection, MAX_CONNECTIONS, Reply};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Until a connection is taken again after none could be, as for want of files.
const PAUSE: Duration = Duration::from_millis(50);

/// The listeners of a driver, and the connections that came by them.
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    /// By port.
    listeners: Rc<RefCell<BTreeMap<u16, Held>>>,
    connections: Connections,
}

#[derive(Debug)]
struct Held {
    at: SocketAddrV4,
    socket: Rc<TcpListener>,
    /// Dropped when somebody else listens.
    _holder: oneshot::Sender<()>,
}

/// The right to take the connections that come in, until somebody else takes it.
pub struct Listener {
    tcp: Tcp,
    port: u16,
    socket: Rc<TcpListener>,
    taken: oneshot::Receiver<()>,
}

impl Tcp {
    /// A port that this driver listens on already is taken over, as who asks has started anew; the
    /// connections of his earlier life are closed.
    pub fn listen(&self, at: SocketAddrV4) -> Result<Listener, Errno> {
        let mut listeners = self.listeners.borrow_mut();
        let socket = match listeners.get(&at.port()).filter(|held| held.at == at) {
            Some(held) => Rc::clone(&held.socket),
            None => Rc::new(open(at)?),
        };
        let (_holder, taken) = oneshot::channel();
        listeners.insert(at.port(), Held { at, socket: Rc::clone(&socket), _holder });
        Ok(Listener { tcp: self.clone(), port: at.port(), socket, taken })
    }

    /// Over a connection that is gone nothing is said.
    pub fn respond(&self, connection: Connection, message: Arc<Message>) {
        if let Some(way) = self.connections.ways.borrow().get(&connection) {
            let _ = way.send(message);
        }
    }
}

fn open(at: SocketAddrV4) -> Result<TcpListener, Errno> {
    // The standard library sets SO_REUSEADDR: what an earlier process said lingers in TIME_WAIT.
    let bind = || std::net::TcpListener::bind(at).map_err(|error| network::errno_of(&error));
    let socket = match bind() {
        Err(Errno::Eaddrnotavail) => network::adopt(*at.ip()).and_then(|()| bind())?,
        bound => bound?,
    };
    let listener = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
    listener.map_err(|error| network::errno_of(&error))
}

impl Listener {
    /// Until nobody hears the queries, or somebody else listens. Its connections end with it.
    pub async fn run(mut self, answer: Answer<Reply>) {
        let answer = Rc::new(answer);
        let mut open: JoinSet<Result<(), Closed>> = JoinSet::new();
        loop {
            tokio::select! {
                _ = &mut self.taken => return,
                Some(ended) = open.join_next() => if let Ok(Err(Closed)) = ended { return },
                accepted = self.socket.accept() => match accepted {
                    // One too many hears that there is no place for it by being closed.
                    Ok(_) if open.len() >= MAX_CONNECTIONS => {}
                    Ok((stream, _)) => {
                        let line = self.tcp.connections.open();
                        open.spawn_local(serve(stream, line, Rc::clone(&answer)));
                    }
                    Err(error) if is_theirs(&error) => {}
                    Err(_) => sleep(PAUSE).await,
                },
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = matches!(self.taken.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if is_ours {
            self.tcp.listeners.borrow_mut().remove(&self.port);
        }
    }
}

/// Whoever connected has gone before he was taken (accept(2)).
fn is_theirs(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// The ways to those who asked, by the number that a connection has.
#[derive(Clone, Debug, Default)]
struct Connections {
    ways: Rc<RefCell<BTreeMap<Connection, UnboundedSender<Arc<Message>>>>>,
    opened: Rc<Cell<u64>>,
}

/// What is to be said over one connection, while that is open.
struct Line {
    connections: Connections,
    number: Connection,
    answers: UnboundedReceiver<Arc<Message>>,
}

impl Connections {
    fn open(&self) -> Line {
        let number = Connection(self.opened.replace(self.opened.get() + 1));
        let (way, answers) = unbounded_channel();
        self.ways.borrow_mut().insert(number, way);
        Line { connections: self.clone(), number, answers }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connections.ways.borrow_mut().remove(&self.number);
    }
}
