//! The front of the API server: its connections, the cache reads are served from, and the news.

use super::PORT;
use super::message::{self, Answered, Malformed, Message};
use futures_util::{SinkExt, StreamExt};
use kubesim_actors::apiserver::hub::Hub;
use kubesim_actors::apiserver::{Cache, RequestId};
use kubesim_actors::objects::{Kind, View};
use kubesim_actors::ports::api::{Error, News, Reply, Request};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_util::codec::Framed;

/// News gather for so long, so that a watcher is told of many changes at once.
const GATHER: Duration = Duration::from_millis(5);
/// Before a listener that cannot accept tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// The connection and the client's number of the stream.
type Watcher = (u64, u64);

/// The front. Clones are the same one.
#[derive(Clone)]
pub struct Server(Rc<Inner>);

struct Inner {
    /// Hands a write on to the API server.
    write: Box<dyn Fn(RequestId, Arc<Request>)>,
    state: RefCell<State>,
    fanout: Cell<bool>,
}

#[derive(Default)]
struct State {
    cache: Option<Cache>,
    hub: Hub<Watcher>,
    connections: BTreeMap<u64, mpsc::UnboundedSender<Message>>,
    next_connection: u64,
    opened: BTreeSet<Watcher>,
    /// What each stream was told last.
    told: BTreeMap<Watcher, View>,
    /// The kind each write under way is about.
    calls: BTreeMap<(u64, u64), Kind>,
}

impl Server {
    /// `write` gets every write, and answers by [`Server::respond`].
    pub fn new(write: impl Fn(RequestId, Arc<Request>) + 'static) -> Server {
        let state = RefCell::default();
        Server(Rc::new(Inner { write: Box::new(write), state, fanout: Cell::new(false) }))
    }

    /// Serves on every address of the machine, for as long as it is polled.
    pub async fn listen(self) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    spawn_local(Rc::clone(&self.0).connection(socket));
                }
                // Out of descriptors, or a connection that was reset meanwhile.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// The API server's newest views: they are served from now on, and news go out soon.
    pub fn publish(&self, cache: Cache) {
        {
            let mut state = self.0.state.borrow_mut();
            state.hub.publish(cache.clone());
            state.cache = Some(cache);
        }
        Inner::fanout_soon(&self.0);
    }

    /// The API server ended: so do its connections, and nothing is served until another publishes.
    pub fn reset(&self) {
        let mut state = self.0.state.borrow_mut();
        let next_connection = state.next_connection;
        *state = State { next_connection, ..State::default() };
    }

    /// Whether there is anything to serve.
    pub fn is_open(&self) -> bool {
        self.0.state.borrow().cache.is_some()
    }

    /// The API server's answer to a write.
    pub fn respond(&self, id: RequestId, result: &Result<Reply, Error>) {
        let mut state = self.0.state.borrow_mut();
        let kind = state.calls.remove(&(id.connection, id.call)).unwrap_or(Kind::Pod);
        let result = Answered::of(kind, result);
        state.say(id.connection, Message::Answer { id: id.call, result });
    }
}

impl State {
    /// To a connection that is gone is to nobody.
    fn say(&self, connection: u64, message: Message) {
        if let Some(connection) = self.connections.get(&connection) {
            let _ = connection.send(message);
        }
    }

    fn fanout(&mut self) {
        for watcher in self.hub.take_ready() {
            let Some(News::View { view, .. }) = self.hub.take(watcher) else { continue };
            let news = message::News::between(watcher.1, self.told.get(&watcher), &view);
            self.told.insert(watcher, view);
            self.say(watcher.0, Message::News(news));
        }
    }

    fn close(&mut self, connection: u64) {
        self.connections.remove(&connection);
        let streams = self.opened.range((connection, 0)..=(connection, u64::MAX));
        for watcher in streams.copied().collect::<Vec<_>>() {
            self.opened.remove(&watcher);
            self.told.remove(&watcher);
            self.hub.close(watcher);
        }
    }
}

impl Inner {
    fn fanout_soon(this: &Rc<Inner>) {
        if !this.fanout.replace(true) {
            let this = Rc::clone(this);
            spawn_local(async move {
                sleep(GATHER).await;
                this.fanout.set(false);
                this.state.borrow_mut().fanout();
            });
        }
    }

    async fn connection(self: Rc<Inner>, mut socket: TcpStream) {
        let _ = socket.set_nodelay(true);
        // A length of messages never looks like a request of HTTP's: it would be a gigabyte.
        let mut first = [0; 4];
        let is_http = matches!(socket.peek(&mut first).await, Ok(4) if &first == b"GET ");
        if is_http {
            let _ = self.health(&mut socket).await;
            return;
        }
        let mut framed = Framed::new(socket, message::codec());
        let (send, mut out) = mpsc::unbounded_channel();
        let id = {
            let mut state = self.state.borrow_mut();
            let id = state.next_connection;
            state.next_connection += 1;
            state.connections.insert(id, send);
            id
        };
        loop {
            tokio::select! {
                next = framed.next() => {
                    let Some(Ok(bytes)) = next else { break };
                    let message = message::from_bytes(&bytes);
                    if message.and_then(|message| Inner::hears(&self, id, message)).is_err() {
                        break;
                    }
                }
                said = out.recv() => {
                    let Some(message) = said else { break };
                    if framed.send(message::to_bytes(&message)).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.state.borrow_mut().close(id);
    }

    fn hears(this: &Rc<Inner>, connection: u64, message: Message) -> Result<(), Malformed> {
        match message {
            Message::Hello { .. } => {
                let state = this.state.borrow();
                let store = state.cache.as_ref().and_then(Cache::identity);
                let store = store.map(|uid| uid.to_string());
                state.say(connection, Message::Welcome { store });
            }
            Message::Ping => this.state.borrow().say(connection, Message::Pong),
            Message::Call { id, request } => this.call(connection, id, request.request()?),
            Message::Open { stream, kind, scope, from } => {
                let (watcher, kind) = ((connection, stream), message::kind(&kind)?);
                let opened = {
                    let mut state = this.state.borrow_mut();
                    state.told.remove(&watcher);
                    state.opened.insert(watcher);
                    state.hub.open(watcher, kind, message::scope(scope), from)
                };
                match opened {
                    Ok(()) => Inner::fanout_soon(this),
                    Err(_) => this.state.borrow().say(connection, Message::Expired { stream }),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn call(&self, connection: u64, id: u64, request: Request) {
        let (kind, _) = request.subject();
        let read = {
            let state = self.state.borrow();
            state.cache.as_ref().and_then(|cache| cache.read(&request))
        };
        let mut state = self.state.borrow_mut();
        if let Some(result) = read {
            let result = Answered::of(kind, &result);
            return state.say(connection, Message::Answer { id, result });
        }
        state.calls.insert((connection, id), kind);
        drop(state);
        (self.write)(RequestId { connection, call: id }, Arc::new(request));
    }

    /// One request for the server's health, in HTTP.
    async fn health(&self, socket: &mut TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 8 << 10 {
            let mut byte = [0];
            if socket.read(&mut byte).await? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let known = matches!(path, b"/readyz" | b"/livez" | b"/healthz");
        let open = self.state.borrow().cache.is_some();
        let answer: &[u8] = if known && open {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        } else {
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found"
        };
        socket.write_all(answer).await?;
        socket.shutdown().await
    }
}
