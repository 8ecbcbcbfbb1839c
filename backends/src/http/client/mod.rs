//! The API port over HTTPS: one connection to the API server, shared by the actors that have one
//! identity (a node's, say), with its calls and informers.
//!
//! - `trust`, `pin`, `connection`: TCP, TLS and HTTP/2
//! - `request`, `answer`: calls as HTTP, and back
//! - `watch`, `view`, `inbox`: informers
//! - `metrics`: what pods use

mod answer;
mod connection;
mod inbox;
mod metrics;
mod pin;
mod request;
#[cfg(test)]
mod tests;
mod trust;
mod view;
mod watch;

pub use connection::Credentials;
pub(crate) use connection::words;
pub use metrics::Metrics;
pub use pin::Pin;
pub use trust::Trust;

use self::connection::{Line, Sent, Store, Wire, dial};
use self::inbox::Inbox;
use self::watch::Stream;
use crate::port::{Answer, Local, Port};
use bytes::Bytes;
use hyper::Method;
use kubesim_actors::objects::{Key, Kind, Object, Uid, View};
use kubesim_actors::ports::api::{self, Effect, Error, Event, News, Reason, Reply, Request, Scope};
use kubesim_runtime::{Rng, Stream as RandomStream};
use serde_json::Value;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A call without an answer for so long is given up.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// A connection attempt that long without an answer is given up, and the next address tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// After so many failures in a row people are told.
const PATIENCE: u32 = 6;

/// What a client is made with.
pub struct Options {
    /// Where the server may be, best first.
    pub addresses: Vec<Ipv4Addr>,
    pub port: u16,
    pub credentials: Credentials,
    /// What the client's patience is drawn from: another one for each.
    pub seed: u64,
    /// Told of what keeps the client from its work, in words.
    pub notes: Box<dyn Fn(String)>,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub local: IpAddr,
    pub server: SocketAddrV4,
}

/// The client. [`Client::run`] keeps its connection; clones are the same one.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

struct Inner {
    port: u16,
    credentials: Credentials,
    notes: Box<dyn Fn(String)>,
    state: RefCell<State>,
    dice: RefCell<Rng>,
    /// Rung when another attempt may succeed now.
    dial: Notify,
    /// Rung when the present connection is of no use any more.
    hang_up: Notify,
    /// Rung when a connection came up.
    up: Notify,
}

#[derive(Default)]
struct State {
    addresses: Vec<Ipv4Addr>,
    next_address: usize,
    failures: u32,
    line: Option<Line>,
    streams: Vec<Rc<Stream>>,
    /// What the streams show is of this one: the uid of `kube-system`
    /// ([`Cache::identity`](kubesim_actors::apiserver::Cache::identity)).
    store: Option<Uid>,
    /// Another history for each view that did not grow out of one before.
    histories: u64,
    /// Told of connections that come and go.
    listeners: Vec<mpsc::UnboundedSender<bool>>,
}

impl Client {
    pub fn new(options: Options) -> Client {
        let Options { addresses, port, credentials, seed, notes } = options;
        let state = RefCell::new(State { addresses, ..State::default() });
        let stream = RandomStream { seed, label: "API client", index: 0, incarnation: 0 };
        let dice = RefCell::new(Rng::new(stream));
        let (dial, hang_up, up) = (Notify::new(), Notify::new(), Notify::new());
        Client(Rc::new(Inner { port, credentials, notes, state, dice, dial, hang_up, up }))
    }

    /// Whether a connection came up (`true`) or was lost, from now on.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<bool> {
        let (send, receive) = mpsc::unbounded_channel();
        self.0.state.borrow_mut().listeners.push(send);
        receive
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.0.line().is_some()
    }

    /// Where the connection is that there is now.
    pub fn place(&self) -> Option<Place> {
        let line = self.0.line()?;
        Some(Place { local: line.local, server: SocketAddrV4::new(line.peer, self.0.port) })
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

    /// Makes what the port has no word for, a review say: a body for one of upstream's paths, and
    /// the answer's.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.0.exchange(Method::POST, path, body).await
    }

    /// Reads what the port has no word for. The error is the answer's code, if there was one, and
    /// why.
    pub async fn get(&self, path: &str) -> Result<Value, (u16, String)> {
        let request = request::plain(path).map_err(|why| (0, why))?;
        let (code, bytes) = self.0.asked(request, path).await.map_err(|e| (0, e.message))?;
        if !(200..300).contains(&code) {
            return Err((code, answer::refusal(code, &bytes).message));
        }
        serde_json::from_slice(&bytes).map_err(|error| (code, error.to_string()))
    }

    /// Replaces it, an approval say.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.0.exchange(Method::PUT, path, body).await
    }

    /// Keeps the connection up for as long as it is polled.
    pub async fn run(self) {
        loop {
            let Some(address) = self.0.next_address() else {
                self.0.dial.notified().await;
                continue;
            };
            match timeout(DIAL_TIMEOUT, self.0.connect(address)).await {
                Ok(Ok((line, wire))) => self.0.serve(line, wire).await,
                Ok(Err(why)) => self.0.no_connection(address, &why),
                Err(_) => self.0.no_connection(address, "no answer within 3 s"),
            }
            let wait = self.0.back_off();
            tokio::select! {
                () = sleep(wait) => {}
                () = self.0.dial.notified() => {}
            }
        }
    }
}

impl Inner {
    /// 50 ms doubled by each failure, up to 2 s; or less, down to half of it, so that clients who
    /// lost the server together do not come back together.
    fn pause(&self, failures: u32) -> Duration {
        let longest = Duration::from_millis(50 << failures.min(6)).min(Duration::from_secs(2));
        self.dice.borrow_mut().between(longest / 2, longest)
    }

    fn next_address(&self) -> Option<Ipv4Addr> {
        let mut state = self.state.borrow_mut();
        let count = state.addresses.len();
        let address = *state.addresses.get(state.next_address.checked_rem(count)?)?;
        state.next_address += 1;
        Some(address)
    }

    fn back_off(&self) -> Duration {
        let mut state = self.state.borrow_mut();
        state.failures += 1;
        self.pause(state.failures)
    }

    /// Said once, not at each attempt, and not of a server that is about to begin.
    fn no_connection(&self, address: Ipv4Addr, why: &str) {
        if self.state.borrow().failures == PATIENCE {
            (self.notes)(format!("connecting to the API server at {address}:{}: {why}", self.port));
        }
    }

    /// A connection is one when its server has answered a request: what a server thinks of a
    /// client's certificate, TLS 1.3 tells after the handshake (RFC 8446, section 2).
    async fn connect(&self, address: Ipv4Addr) -> Result<(Line, Wire), String> {
        let (line, mut wire) = dial(&self.credentials, address, self.port).await?;
        let told = tokio::select! {
            told = watch::ask_store(&line) => told?,
            () = wire.end() => return Err("the server closed the connection".to_owned()),
        };
        self.meets(&line, told);
        Ok((line, wire))
    }

    /// One connection to its end, and those that take its place without a gap.
    async fn serve(&self, line: Line, mut wire: Wire) {
        let mut renewals = self.credentials.renewals();
        let peer = line.peer;
        {
            let mut state = self.state.borrow_mut();
            state.failures = 0;
            state.line = Some(line);
            state.listeners.retain(|listener| listener.send(true).is_ok());
        }
        self.up.notify_waiters();
        loop {
            tokio::select! {
                () = wire.end() => break,
                () = self.hang_up.notified() => break,
                (line, new) = self.renewed(&mut renewals, peer) => {
                    self.state.borrow_mut().line = Some(line);
                    let mut old = std::mem::replace(&mut wire, new);
                    // What was asked on it is answered there.
                    spawn_local(async move { drop(timeout(CALL_DEADLINE, old.end()).await) });
                }
            }
        }
        let mut state = self.state.borrow_mut();
        state.line = None;
        state.listeners.retain(|listener| listener.send(false).is_ok());
    }

    /// A connection with a new certificate, when there is one. If it cannot be had, the present one
    /// lasts until its server ends it.
    async fn renewed(
        &self,
        renewals: &mut channel::Receiver<Arc<rustls::ClientConfig>>,
        peer: Ipv4Addr,
    ) -> (Line, Wire) {
        loop {
            if renewals.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            for failures in 0..PATIENCE {
                match timeout(DIAL_TIMEOUT, self.connect(peer)).await {
                    Ok(Ok(connected)) => return connected,
                    _ => sleep(self.pause(failures)).await,
                }
            }
            (self.notes)(format!("connecting to {peer} with a renewed certificate: no success"));
        }
    }

    /// Of another store than before, all that was heard is of no use, however late or early. One
    /// that does not say which it is may be any.
    fn meets(&self, line: &Line, told: Store<Uid>) {
        let store = match told {
            Store::Untold => return,
            Store::Any => None,
            Store::Is(uid) => Some(uid),
        };
        line.told.set(true);
        let mut state = self.state.borrow_mut();
        if state.store != store || store.is_none() {
            state.store = store;
            state.streams.iter().for_each(|stream| stream.forget());
        }
    }

    fn line(&self) -> Option<Line> {
        self.state.borrow().line.clone()
    }

    /// A connection, when there is one.
    async fn connected(&self) -> Line {
        loop {
            match self.line() {
                Some(line) => return line,
                None => self.up.notified().await,
            }
        }
    }

    fn new_history(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.histories += 1;
        state.histories
    }

    /// An object as an informer shows it.
    fn known(&self, kind: Kind, key: &Key) -> Option<Arc<Object>> {
        let state = self.state.borrow();
        let mut streams = state.streams.iter().filter(|stream| stream.kind == kind);
        streams.find_map(|stream| stream.view().and_then(|view| view.get(key).cloned()))
    }

    /// Queues the call if there is a connection to queue it on.
    fn begin(&self, call: &Request) -> Begun {
        let Some(line) = self.line() else { return Begun::Waits };
        match request::of(call) {
            Ok(request) => Begun::Sent(Box::pin(line.send(request))),
            Err(why) => Begun::Wrong(why),
        }
    }

    /// One request on the connection that there is, or comes.
    async fn exchange(&self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        let request = request::json(method, path, body);
        let request = request.map_err(|why| Error::new(Reason::BadRequest, why))?;
        let (code, bytes) = self.asked(request, path).await?;
        if !(200..300).contains(&code) {
            return Err(answer::refusal(code, &bytes));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Reason::Unknown, error.to_string()))
    }

    /// What comes back within the deadline.
    async fn asked(&self, request: request::Sent, path: &str) -> Result<(u16, Bytes), Error> {
        let unknown = |why: String| Error::new(Reason::Unknown, why);
        let answered = async {
            match self.connected().await.send(request).await {
                Sent::Answered(response) => answer::body(response).await.map_err(unknown),
                Sent::Unsent => Err(Error::new(Reason::Unreachable, "the connection ended")),
                Sent::Lost(why) => Err(unknown(why)),
            }
        };
        let Ok(answered) = timeout(CALL_DEADLINE, answered).await else {
            return Err(unknown(format!("no answer from the API server to {path} within 10 s")));
        };
        answered
    }

    /// The call's answer, within its deadline.
    async fn call(&self, call: &Request, begun: Begun) -> Result<Reply, Error> {
        let mut sent = matches!(begun, Begun::Sent(_));
        let deadline = Instant::now() + CALL_DEADLINE;
        let answered = timeout_at(deadline, self.carry(call, begun, &mut sent)).await;
        match answered {
            Ok(result) => result,
            Err(_) if sent => {
                Err(Error::new(Reason::Unknown, "no answer from the API server within 10 s"))
            }
            Err(_) => {
                Err(Error::new(Reason::Unreachable, "no connection to the API server within 10 s"))
            }
        }
    }

    /// `sent` says whether the call is on its way.
    async fn carry(
        &self,
        call: &Request,
        mut begun: Begun,
        sent: &mut bool,
    ) -> Result<Reply, Error> {
        let lost = |why: String| {
            let message = format!("the connection to the API server was lost: {why}");
            Error::new(Reason::Unknown, message)
        };
        loop {
            *sent = matches!(begun, Begun::Sent(_));
            let answer = match begun {
                Begun::Waits => None,
                Begun::Wrong(why) => return Err(Error::new(Reason::BadRequest, why)),
                Begun::Sent(answer) => match answer.await {
                    Sent::Answered(response) => Some(response),
                    Sent::Unsent => None,
                    Sent::Lost(why) => return Err(lost(why)),
                },
            };
            if let Some(response) = answer {
                let (code, bytes) = answer::body(response).await.map_err(lost)?;
                let known = |kind, key: &Key| self.known(kind, key);
                return answer::of(call, (code, &bytes), self.new_history(), known);
            }
            *sent = false;
            if self.line().is_some() {
                // It is one that ends just now.
                sleep(self.pause(0)).await;
            }
            self.connected().await;
            begun = self.begin(call);
        }
    }

    fn watch(this: &Rc<Inner>, kind: Kind, scope: Scope) -> Rc<Inbox> {
        let inbox = Inbox::new();
        let mut state = this.state.borrow_mut();
        let known = state.streams.iter().find(|s| s.kind == kind && s.scope == scope);
        if let Some(stream) = known {
            stream.subscribe(&inbox);
            return inbox;
        }
        let stream = Rc::new(Stream::new(kind, scope));
        stream.subscribe(&inbox);
        state.streams.push(Rc::clone(&stream));
        spawn_local(watch::follow(Rc::clone(this), stream));
        inbox
    }

    fn dial_only(&self, addresses: Vec<Ipv4Addr>) {
        let peer = {
            let mut state = self.state.borrow_mut();
            state.addresses = addresses;
            state.next_address = 0;
            state.line.as_ref().map(|line| state.addresses.contains(&line.peer))
        };
        match peer {
            Some(true) => {}
            Some(false) => self.hang_up.notify_one(),
            None => self.dial.notify_one(),
        }
    }
}

/// A call's first step, taken in the order of calls.
enum Begun {
    Waits,
    Wrong(String),
    Sent(Local<Sent>),
}

impl Port for Client {
    type Request = Effect;
    type Reply = Event;

    fn perform(&self, effect: Effect, answer: Answer<Event>) -> Local<()> {
        match effect {
            Effect::Call { tag, request } => {
                let begun = self.0.begin(&request);
                let inner = Rc::clone(&self.0);
                Box::pin(async move {
                    let result = inner.call(&request, begun).await;
                    let _ = answer.send(Event::Answer(api::Answer { tag, result })).await;
                })
            }
            Effect::Watch { kind, scope } => {
                let inbox = Inner::watch(&self.0, kind, scope);
                Box::pin(async move {
                    while answer.send(Event::News(inbox.next().await)).await.is_ok() {}
                })
            }
            Effect::Dial { addresses } => {
                self.0.dial_only(addresses);
                Box::pin(async {})
            }
        }
    }
}
