//! The connections that nodes have dialled, by the nodes' names.

use super::flow::{Flow, next};
use super::{PROTOCOL, Peer, STREAMS, WINDOW, What, Window};
use crate::http::auth::{Attributes, User, serves};
use crate::http::body::Answer;
use crate::http::client::words;
use crate::http::status::Failure;
use crate::http::{Inner, serve::Here};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{CONNECTION, HeaderName, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout, timeout_at};

/// Silence after which a node is pinged, and how long its answer may take.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);
/// How long a node has to dial whose server has just started, or whose connection was lost just
/// now, as with its address; and how long that is just now.
const COMES: Duration = Duration::from_secs(5);
const NOW: Duration = Duration::from_secs(10);
/// How long a node may take to begin to answer.
const BEGINS: Duration = Duration::from_secs(60);
/// What is read of a node's refusal.
const REFUSAL: usize = 4 << 10;

/// Which nodes are connected.
pub struct Links {
    /// Whether nodes are asked at all.
    asks: Cell<bool>,
    all: RefCell<BTreeMap<String, Known>>,
    /// Rung when one has dialled.
    news: channel::Sender<u64>,
    since: Instant,
}

/// What is known of a node that has dialled.
struct Known {
    at: SocketAddr,
    /// Its present connection.
    link: Option<Link>,
    /// When the last one ended, and why.
    gone: Option<(Instant, String)>,
}

#[derive(Clone)]
struct Link {
    id: u64,
    send: SendRequest<Flow>,
    /// Streams that are open.
    open: Rc<Cell<u32>>,
    /// Rung when another connection takes its place.
    replaced: Rc<channel::Sender<()>>,
}

/// A stream while it is open.
pub struct Open(Rc<Cell<u32>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// What a node answered; who takes it holds the stream open.
pub struct Answered {
    pub response: Response<Incoming>,
    pub open: Open,
    pub at: SocketAddr,
}

/// Why there is none.
pub enum Refused {
    /// As the node has it: a code, and words that upstream's kubelet would have.
    Node(StatusCode, String),
    /// It was not asked, or did not answer.
    Unasked(Failure),
}

impl Default for Links {
    fn default() -> Self {
        Links {
            asks: Cell::new(false),
            all: RefCell::default(),
            news: channel::Sender::new(0),
            since: Instant::now(),
        }
    }
}

impl Links {
    pub fn begin(&self) {
        self.asks.set(true);
    }

    /// Whether there is a node that measures what is used: one has dialled, now or before.
    pub fn measure(&self) -> bool {
        self.asks.get() && !self.all.borrow().is_empty()
    }

    /// Whether nodes are asked.
    pub fn open(&self, what: What) -> Result<(), Failure> {
        if self.asks.get() {
            return Ok(());
        }
        let why = format!(
            "pods/{} is asked of the pod's node, and this server asks no node: what runs on the \
             nodes of a scenario are models of programs, which write no logs and run no commands",
            what.name()
        );
        Err(Failure::new(405, "MethodNotAllowed", why))
    }

    fn find(&self, node: &str) -> Option<(Link, SocketAddr)> {
        let all = self.all.borrow();
        let known = all.get(node)?;
        Some((known.link.clone()?, known.at))
    }

    /// The node's connection, if there is one or it comes soon.
    async fn connected(&self, node: &str) -> Result<(Link, SocketAddr), Failure> {
        let mut news = self.news.subscribe();
        let deadline = Instant::now() + if self.is_new(node) { COMES } else { Duration::ZERO };
        loop {
            if let Some(found) = self.find(node) {
                return Ok(found);
            }
            if !matches!(timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                return Err(self.gone(node));
            }
        }
    }

    fn is_new(&self, node: &str) -> bool {
        let all = self.all.borrow();
        let gone = all.get(node).and_then(|known| known.gone.as_ref());
        gone.map_or(self.since, |(since, _)| *since).elapsed() < NOW
    }

    fn gone(&self, node: &str) -> Failure {
        let all = self.all.borrow();
        let why = match all.get(node).map(|known| (known.at, &known.gone)) {
            Some((at, Some((since, why)))) => format!(
                "it dialled from {at}, and its connection was lost {} s ago: {why}",
                since.elapsed().as_secs()
            ),
            _ => format!(
                "it has not dialled since this server started {} s ago",
                self.since.elapsed().as_secs()
            ),
        };
        unavailable(format!(
            "node {node:?} is not connected to this server, so it cannot be asked: {why}; see \
             whether `kubesim node` runs there and what it says"
        ))
    }
}

fn unavailable(why: String) -> Failure {
    Failure::new(503, "ServiceUnavailable", why)
}

impl Inner {
    /// Asks a node; what goes to it is the body.
    pub async fn ask(
        &self,
        node: &str,
        path: String,
        headers: HeaderMap,
        body: Flow,
    ) -> Result<Answered, Refused> {
        let (mut link, at) = self.links.connected(node).await.map_err(Refused::Unasked)?;
        if link.open.get() >= STREAMS {
            let why = format!("node {node:?} at {at} already has {STREAMS} streams open");
            return Err(Refused::Unasked(Failure::too_many(why)));
        }
        link.open.set(link.open.get() + 1);
        let open = Open(Rc::clone(&link.open));
        let lost = |why: &str| {
            Refused::Unasked(unavailable(format!("asking node {node:?} at {at} for {path}: {why}")))
        };
        let mut request = Request::post(format!("http://node{path}"))
            .body(body)
            .map_err(|error| lost(&error.to_string()))?;
        *request.headers_mut() = headers;
        let answered = timeout(BEGINS, link.send.send_request(request)).await;
        let answered = answered.map_err(|_| lost("no answer within 60 s"))?;
        let mut response = answered.map_err(|error| lost(&words(&error)))?;
        if response.status() == StatusCode::OK {
            return Ok(Answered { response, open, at });
        }
        let mut said = Vec::new();
        while let Some(Ok(piece)) = next(response.body_mut()).await {
            said.extend_from_slice(&piece);
            if said.len() > REFUSAL {
                break;
            }
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        Err(match response.status() {
            StatusCode::BAD_GATEWAY => Refused::Unasked(Failure::new(
                502,
                "InternalError",
                format!("node {node:?}, connected from {at}: {said}"),
            )),
            code => Refused::Node(code, said),
        })
    }
}

/// A node dials: from its answer on, the connection is ours to ask on.
pub(in crate::http) fn dialled<B>(
    inner: &Rc<Inner>,
    user: &User,
    node: &str,
    request: &mut Request<B>,
) -> Result<Answer, Failure> {
    if let Err(why) = serves(user, node) {
        let attributes = Attributes::read("GET", &super::path(node), &Default::default());
        return Err(crate::http::auth::forbidden(user, &attributes, &why));
    }
    if !inner.links.asks.get() {
        return Err(Failure::no_such_resource());
    }
    if upgrade(request.headers()) != PROTOCOL {
        return Err(Failure::bad_request(format!("Upgrade request required, to {PROTOCOL}")));
    }
    let at = request.extensions().get::<Peer>().map_or(([0; 4], 0).into(), |peer| peer.0);
    let (on, node) = (hyper::upgrade::on(request), node.to_owned());
    let inner = Rc::clone(inner);
    spawn_local(async move {
        let mut ended = inner.ended.subscribe();
        tokio::select! {
            _ = ended.changed() => {}
            () = keep(&inner, &node, at, on) => {}
        }
    });
    Ok(switching(PROTOCOL))
}

/// What the client wants to speak instead, in lower case.
pub fn upgrade(headers: &HeaderMap) -> String {
    let text = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_lowercase()
    };
    match text(CONNECTION).contains("upgrade") {
        true => text(UPGRADE),
        false => String::new(),
    }
}

/// The answer after which that is spoken.
pub fn switching(to: &str) -> Answer {
    let answer =
        Answer { code: StatusCode::SWITCHING_PROTOCOLS, ..Answer::bytes("", Bytes::new()) };
    answer.with(CONNECTION, "Upgrade").with(UPGRADE, to)
}

/// A node's connection, to its end.
async fn keep(inner: &Inner, node: &str, at: SocketAddr, on: OnUpgrade) {
    let Ok(Ok(wire)) = timeout(inner.limits.head, on).await else { return };
    let links = &inner.links;
    let (send, connection) = match client(wire).await {
        Ok(client) => client,
        Err(_) => return,
    };
    let (replaced, mut is_replaced) = channel::channel(());
    links.news.send_modify(|count| *count += 1);
    let id = *links.news.borrow();
    let link = Link { id, send, open: Rc::default(), replaced: Rc::new(replaced) };
    let known = Known { at, link: Some(link), gone: None };
    let before = links.all.borrow_mut().insert(node.to_owned(), known);
    if let Some(link) = before.and_then(|known| known.link) {
        let _ = link.replaced.send(());
    }
    let why = tokio::select! {
        ended = connection => match ended {
            Ok(()) => "the node closed it".to_owned(),
            Err(error) => words(&error),
        },
        _ = is_replaced.changed() => return,
    };
    if let Some(known) = links.all.borrow_mut().get_mut(node)
        && known.link.as_ref().is_some_and(|link| link.id == id)
    {
        known.link = None;
        known.gone = Some((Instant::now(), why));
    }
}

type Connection = http2::Connection<Upgraded, Flow, Here>;

async fn client(wire: Upgraded) -> hyper::Result<(SendRequest<Flow>, Connection)> {
    http2::Builder::new(Here)
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW.stream)
        .initial_connection_window_size(WINDOW.connection)
        .max_send_buf_size(Window::BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .handshake(wire)
        .await
}
