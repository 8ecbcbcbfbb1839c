//! A node's API client: one connection, kept up; the calls and informers of all its actors.

use super::PORT;
use super::message::{self, Called, Malformed, Message};
use crate::port::{Answer, Local, Port};
use futures_util::{SinkExt, StreamExt};
use kubesim_actors::objects::{Kind, Name, View};
use kubesim_actors::ports::api::{self, Effect, Error, Event, News, Reason, Reply, Request, Scope};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// A call without an answer for so long is given up.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// A connection attempt that long without an answer is given up, and the next address tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Silence after which the client pings, and how long it waits for the pong (the defaults of
/// client-go's HTTP/2 health check are 30 s and 15 s).
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(15);

/// A node's API client. [`Client::run`] keeps its connection.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

struct Inner {
    node: Name,
    state: RefCell<State>,
    /// Rung when another attempt may succeed now.
    dial: Notify,
    /// Rung when the present connection is of no use any more.
    hang_up: Notify,
}

#[derive(Default)]
struct State {
    /// Where the server may be, best first.
    addresses: Vec<Ipv4Addr>,
    next_address: usize,
    failures: u32,
    line: Option<Line>,
    calls: BTreeMap<u64, Call>,
    next_id: u64,
    streams: Vec<Stream>,
    /// What the streams show is of this one.
    store: Option<String>,
    /// Told of connections that come and go.
    listeners: Vec<mpsc::UnboundedSender<bool>>,
}

/// The connection that is up.
struct Line {
    send: mpsc::UnboundedSender<Message>,
    peer: Ipv4Addr,
    local: IpAddr,
}

struct Call {
    request: Arc<Request>,
    sent: bool,
    done: oneshot::Sender<Result<Reply, Error>>,
}

/// One informer, shared by all actors of the node that asked for the same.
struct Stream {
    id: u64,
    kind: Kind,
    scope: Scope,
    subscribers: Vec<mpsc::UnboundedSender<News>>,
    view: Option<View>,
}

impl Client {
    /// Of the node of this name, which looks for the server at these addresses first.
    pub fn new(node: Name, addresses: Vec<Ipv4Addr>) -> Client {
        let state = State { addresses, ..State::default() };
        Client(Rc::new(Inner {
            node,
            state: RefCell::new(state),
            dial: Notify::new(),
            hang_up: Notify::new(),
        }))
    }

    /// Whether a connection came up (`true`) or was lost, from now on.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<bool> {
        let (send, receive) = mpsc::unbounded_channel();
        self.0.state.borrow_mut().listeners.push(send);
        receive
    }

    /// The machine has these addresses now: a connection from one that is gone is dead, and
    /// another attempt may succeed.
    pub fn addresses_changed(&self, has: impl Fn(IpAddr) -> bool) {
        let lost = {
            let state = self.0.state.borrow();
            state.line.as_ref().map(|line| !line.local.is_loopback() && !has(line.local))
        };
        match lost {
            Some(true) => self.0.hang_up.notify_one(),
            Some(false) => {}
            None => self.0.dial.notify_one(),
        }
    }

    /// Keeps the connection up for as long as it is polled.
    pub async fn run(self) {
        loop {
            let Some(address) = self.0.next_address() else {
                self.0.dial.notified().await;
                continue;
            };
            if let Ok(Ok(framed)) = timeout(DIAL_TIMEOUT, self.0.dial(address)).await {
                self.0.serve(framed, address).await;
            }
            let wait = self.0.back_off();
            tokio::select! {
                () = sleep(wait) => {}
                () = self.0.dial.notified() => {}
            }
        }
    }
}

type Connection = Framed<TcpStream, LengthDelimitedCodec>;

fn broken(why: impl ToString) -> Malformed {
    Malformed(why.to_string())
}

impl Inner {
    fn next_address(&self) -> Option<Ipv4Addr> {
        let mut state = self.state.borrow_mut();
        let count = state.addresses.len();
        let address = *state.addresses.get(state.next_address.checked_rem(count)?)?;
        state.next_address += 1;
        Some(address)
    }

    /// 50 ms to 2 s.
    fn back_off(&self) -> Duration {
        let mut state = self.state.borrow_mut();
        state.failures += 1;
        Duration::from_millis(50 << state.failures.min(6)).min(Duration::from_secs(2))
    }

    async fn dial(&self, address: Ipv4Addr) -> Result<Connection, Malformed> {
        let socket = TcpStream::connect((address, PORT)).await.map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        let mut framed = Framed::new(socket, message::codec());
        let hello = Message::Hello { node: self.node.clone() };
        framed.send(message::to_bytes(&hello)).await.map_err(broken)?;
        let bytes = framed.next().await.ok_or_else(|| broken("the end"))?.map_err(broken)?;
        match message::from_bytes(&bytes)? {
            Message::Welcome { store } => {
                self.state.borrow_mut().meets(store);
                Ok(framed)
            }
            other => Err(broken(format!("{other:?} in place of a welcome"))),
        }
    }

    /// One connection, from its welcome to its end.
    async fn serve(&self, mut framed: Connection, peer: Ipv4Addr) {
        let Ok(local) = framed.get_ref().local_addr() else { return };
        let (send, mut out) = mpsc::unbounded_channel();
        self.comes_up(Line { send, peer, local: local.ip() });
        let mut heard = Instant::now();
        let mut pinged = None;
        loop {
            let due = pinged.map_or(heard + PING_AFTER, |at: Instant| at + PONG_WITHIN);
            let next = tokio::select! {
                next = framed.next() => next,
                Some(message) = out.recv() => {
                    if framed.send(message::to_bytes(&message)).await.is_err() {
                        break;
                    }
                    continue;
                }
                () = self.hang_up.notified() => break,
                () = sleep_until(due) => {
                    if pinged.is_some() {
                        break;
                    }
                    pinged = Some(Instant::now());
                    if framed.send(message::to_bytes(&Message::Ping)).await.is_err() {
                        break;
                    }
                    continue;
                }
            };
            let Some(Ok(bytes)) = next else { break };
            (heard, pinged) = (Instant::now(), None);
            let heard = message::from_bytes(&bytes).and_then(|message| self.hears(message));
            if heard.is_err() {
                break;
            }
        }
        self.goes_down();
    }

    fn comes_up(&self, line: Line) {
        let mut state = self.state.borrow_mut();
        state.failures = 0;
        for stream in &state.streams {
            let from = stream.view.as_ref().map(View::version);
            let _ = line.send.send(stream.open(from));
        }
        for (id, call) in &mut state.calls {
            call.sent = true;
            let _ = line.send.send(Message::Call { id: *id, request: Called::of(&call.request) });
        }
        state.line = Some(line);
        state.listeners.retain(|listener| listener.send(true).is_ok());
    }

    /// Calls under way may have happened, informers are stale.
    fn goes_down(&self) {
        let mut state = self.state.borrow_mut();
        state.line = None;
        let (sent, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut state.calls).into_iter().partition(|(_, call)| call.sent);
        state.calls = waiting;
        for call in sent.into_values() {
            let why = "the connection to the API server was lost";
            let _ = call.done.send(Err(Error::new(Reason::Unknown, why)));
        }
        for stream in &mut state.streams {
            let (kind, scope) = (stream.kind, stream.scope.clone());
            let closed = News::Closed { kind, scope };
            stream.subscribers.retain(|one| one.send(closed.clone()).is_ok());
        }
        state.listeners.retain(|listener| listener.send(false).is_ok());
    }

    fn hears(&self, message: Message) -> Result<(), Malformed> {
        let mut state = self.state.borrow_mut();
        let State { streams, calls, line, .. } = &mut *state;
        match message {
            Message::Answer { id, result } => {
                let result = result.result()?;
                if let Some(call) = calls.remove(&id) {
                    let _ = call.done.send(result);
                }
            }
            Message::News(news) => {
                let known = streams.iter_mut().find(|stream| stream.id == news.stream);
                let Some(stream) = known else { return Ok(()) };
                let view = news.after(stream.view.as_ref())?;
                stream.view = Some(view);
                stream.tell();
            }
            Message::Expired { stream: id } => {
                let known = streams.iter_mut().find(|stream| stream.id == id);
                if let (Some(stream), Some(line)) = (known, line) {
                    stream.view = None;
                    let _ = line.send.send(stream.open(None));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn call(&self, request: Arc<Request>) -> (u64, oneshot::Receiver<Result<Reply, Error>>) {
        let mut state = self.state.borrow_mut();
        let id = state.next_id;
        state.next_id += 1;
        let (done, answer) = oneshot::channel();
        let sent = state.line.as_ref().is_some_and(|line| {
            line.send.send(Message::Call { id, request: Called::of(&request) }).is_ok()
        });
        state.calls.insert(id, Call { request, sent, done });
        (id, answer)
    }

    fn give_up(&self, id: u64) -> Error {
        let call = self.state.borrow_mut().calls.remove(&id);
        if call.is_none_or(|call| call.sent) {
            Error::new(Reason::Unknown, "no answer from the API server within 10 s")
        } else {
            Error::new(Reason::Unreachable, "no connection to the API server within 10 s")
        }
    }

    fn watch(&self, kind: Kind, scope: Scope) -> mpsc::UnboundedReceiver<News> {
        let (send, receive) = mpsc::unbounded_channel();
        let mut state = self.state.borrow_mut();
        let State { streams, line, next_id, .. } = &mut *state;
        let known = streams.iter_mut().find(|s| s.kind == kind && s.scope == scope);
        if let Some(stream) = known {
            if line.is_none() {
                // It has seen nothing yet: the stream is opened from the beginning.
                stream.view = None;
            } else if let Some(view) = &stream.view {
                let _ = send.send(News::View { kind, scope, view: view.clone() });
            }
            stream.subscribers.push(send);
            return receive;
        }
        let stream = Stream { id: *next_id, kind, scope, subscribers: vec![send], view: None };
        *next_id += 1;
        if let Some(line) = line {
            let _ = line.send.send(stream.open(None));
        }
        streams.push(stream);
        receive
    }

    fn dial_only(&self, addresses: Vec<Ipv4Addr>) {
        let peer = {
            let mut state = self.state.borrow_mut();
            state.addresses = addresses;
            state.next_address = 0;
            state.line.as_ref().map(|line| (line.peer, state.addresses.contains(&line.peer)))
        };
        match peer {
            Some((_, true)) => {}
            Some((_, false)) => self.hang_up.notify_one(),
            None => self.dial.notify_one(),
        }
    }
}

impl State {
    /// Of another store than before, all that was heard is of no use, however late or early. One
    /// that does not say which it is may be any.
    fn meets(&mut self, store: Option<String>) {
        if self.store != store || store.is_none() {
            self.store = store;
            self.streams.iter_mut().for_each(|stream| stream.view = None);
        }
    }
}

impl Stream {
    fn open(&self, from: Option<u64>) -> Message {
        let (kind, scope) = (self.kind.name().to_owned(), message::node_of(&self.scope));
        Message::Open { stream: self.id, kind, scope, from }
    }

    fn tell(&mut self) {
        let Some(view) = &self.view else { return };
        let news = News::View { kind: self.kind, scope: self.scope.clone(), view: view.clone() };
        self.subscribers.retain(|one| one.send(news.clone()).is_ok());
    }
}

impl Port for Client {
    type Request = Effect;
    type Reply = Event;

    fn perform(&self, effect: Effect, answer: Answer<Event>) -> Local<()> {
        match effect {
            Effect::Call { tag, request } => {
                let (id, done) = self.0.call(request);
                let inner = Rc::clone(&self.0);
                Box::pin(async move {
                    let result = match timeout(CALL_DEADLINE, done).await {
                        Ok(Ok(result)) => result,
                        _ => Err(inner.give_up(id)),
                    };
                    let _ = answer.send(Event::Answer(api::Answer { tag, result })).await;
                })
            }
            Effect::Watch { kind, scope } => {
                let mut news = self.0.watch(kind, scope);
                Box::pin(async move {
                    while let Some(news) = news.recv().await {
                        if answer.send(Event::News(news)).await.is_err() {
                            break;
                        }
                    }
                })
            }
            Effect::Dial { addresses } => {
                self.0.dial_only(addresses);
                Box::pin(async {})
            }
        }
    }
}
