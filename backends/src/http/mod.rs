//! The API over HTTPS, for any client of Kubernetes': paths, verbs, codes and texts are upstream's.
//!
//! Reads and watches are served from the [`Cache`] that the API server publishes; writes go in to
//! it, and it answers by [`Front::respond`]. All runs on the thread that made the front.

mod accept;
mod apply;
mod auth;
mod body;
pub mod client;
mod csr;
mod delete;
mod discovery;
mod event;
mod evict;
mod gzip;
mod handle;
mod history;
pub mod host;
mod json_patch;
mod lease;
mod metrics;
pub(crate) mod nodes;
mod openapi;
mod pace;
mod patch;
mod pieces;
mod protobuf;
mod read;
mod resources;
mod route;
mod scale;
mod selector;
mod serve;
mod status;
mod strategic;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod tls;
mod token;
mod types;
mod versions;
mod watch;
mod write;
mod writing;

pub use auth::{is_others_label, roles};
pub use tls::Tls;

use self::auth::Auth;
use self::history::History;
use self::metrics::Metrics;
use self::pace::Connections;
use self::read::initializing;
use self::route::Target;
use self::status::Failure;
use self::texts::Texts;
use self::writing::Writing;
use bytes::Bytes;
use kubesim_actors::apiserver::{Cache, Hold, RequestId, warnings_of};
use kubesim_actors::objects::{Definitions, Key, Kind, Object};
use kubesim_actors::ports::api::{Error, Reason, Reply, Request};
use kubesim_runtime::Wall;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{oneshot, watch as channel};
use tokio::time::{sleep, timeout};

/// What a front allows its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a request's body may take, and how long the request may.
    pub request: Duration,
    /// How long a connection may take to greet and to send a request's head.
    pub head: Duration,
    /// Requests that are served at once, but for watches (upstream's `--max-requests-inflight`
    /// and `--max-mutating-requests-inflight` together): those beyond get 429.
    pub in_flight: usize,
    /// Connections at once. One more takes the place of one on which nothing is asked, or waits.
    pub connections: usize,
    /// How long a connection may be there without a request.
    pub idle: Duration,
    /// Bytes of all requests' bodies at once: those beyond get 429.
    pub bodies: usize,
    /// Bytes of large answers that clients have not taken yet, all together: who asks beyond gets
    /// 429.
    pub answers: usize,
    /// Changes that are remembered for watches that lag or come back; fewer if they are large.
    pub changes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request: Duration::from_secs(60),
            head: Duration::from_secs(32),
            in_flight: 600,
            connections: 4096,
            idle: pace::IDLE,
            bodies: 256 << 20,
            answers: 512 << 20,
            changes: history::CHANGES,
        }
    }
}

/// How long clients have to end their connections when the server does (net/http waits 1 s for
/// the answer to a GOAWAY; apiserver's `RunWithContext` says so and waits 2 s).
const GOODBYE: Duration = Duration::from_secs(2);

/// How long a read waits for a version that is not there yet (apiserver's cacher: 3 s).
const NEWER: Duration = Duration::from_secs(3);

/// The front. Clones are the same one.
#[derive(Clone)]
pub struct Front(Rc<Inner>);

struct Inner {
    /// Hands a write on to the API server; or one that is to be tried only.
    write: Box<dyn Fn(RequestId, Arc<Request>, bool)>,
    /// Hands a write on that is by a lease.
    leased: OnceCell<Leased>,
    /// Other servers write to the store as well.
    shared: Cell<bool>,
    /// Of ages, and of what a write says of its time.
    clock: OnceCell<Clock>,
    limits: Limits,
    state: RefCell<State>,
    /// The newest revision.
    news: channel::Sender<u64>,
    /// Rung when a life of the API server ends.
    ended: channel::Sender<()>,
    /// Rung when connections are to end with what is under way on them.
    closing: channel::Sender<()>,
    metrics: Metrics,
    connections: Connections,
    auth: Auth,
    /// Its nodes, by the connections that they have dialled.
    links: nodes::Links,
    /// What OpenAPI says of declared kinds.
    declared: openapi::Declared,
}

type Leased = Box<dyn Fn(RequestId, Arc<Request>, Arc<Hold>)>;
type Clock = Box<dyn Fn() -> Wall>;

#[derive(Default)]
struct State {
    history: History,
    texts: [Texts; 2],
    calls: BTreeMap<u64, oneshot::Sender<Result<Reply, Error>>>,
    next_call: u64,
    /// Watches end when they have told what there is.
    ending: bool,
    /// It is not ready for anybody new.
    stopping: bool,
}

impl State {
    /// An object as text: written once in a version, whoever asks first and in which way.
    fn text(&mut self, object: &Arc<Object>, writing: Writing) -> Bytes {
        let history = &self.history;
        let write = || history.text(object, writing).unwrap_or_else(|| writing.text(object));
        self.texts[writing as usize].of(object, write)
    }

    fn publish(&mut self, cache: Cache) {
        let mut place = self.history.end();
        self.history.publish(cache);
        while let Ok(Some((change, next))) = self.history.next(place) {
            for (texts, writing) in self.texts.iter_mut().zip(Writing::ALL) {
                let text = || self.history.event(change, writing).object();
                texts.changed(change.old.as_ref(), change.new.as_ref(), text);
            }
            place = next;
        }
    }
}

impl Front {
    /// `write` gets every write and whether it is a dry run, and answers by [`Front::respond`].
    pub fn new(limits: Limits, write: impl Fn(RequestId, Arc<Request>, bool) + 'static) -> Front {
        let history = History::of(limits.changes);
        Front(Rc::new(Inner {
            write: Box::new(write),
            leased: OnceCell::new(),
            shared: Cell::new(false),
            clock: OnceCell::new(),
            limits,
            state: RefCell::new(State { history, ..State::default() }),
            news: channel::Sender::new(0),
            ended: channel::Sender::new(()),
            closing: channel::Sender::new(()),
            metrics: Metrics::default(),
            connections: Connections::default(),
            auth: Auth::default(),
            links: nodes::Links::default(),
            declared: openapi::Declared::default(),
        }))
    }

    /// `leased` gets every write that is by a lease, and answers by [`Front::respond`].
    pub fn take_leased(&self, leased: impl Fn(RequestId, Arc<Request>, Arc<Hold>) + 'static) {
        let _ = self.0.leased.set(Box::new(leased));
    }

    /// Other servers write to the store as well: a read that does not say how old its answer may be
    /// asks the API server, as a write does, and is answered when that knows what is stored now.
    pub fn shares_its_store(&self) {
        self.0.shared.set(true);
    }

    /// The cluster's time is another one than this machine's.
    pub fn goes_by(&self, clock: impl Fn() -> Wall + 'static) {
        let _ = self.0.clock.set(Box::new(clock));
    }

    /// From now on nodes may dial, and are asked for what their pods say and do.
    pub fn asks_nodes(&self) {
        self.0.links.begin();
    }

    /// Issues tokens to service accounts from now on, and knows their bearers. `keys` are private
    /// keys of P-256 in PKCS #8 as PEM: the first one signs, and what the others have signed is
    /// good. `url` is where the server is, `https://10.0.0.1:6443`.
    pub fn issue_tokens(&self, keys: &[u8], url: &str) -> Result<(), String> {
        self.0.auth.issue(keys, url)
    }

    /// The API server's newest views: they are served from now on, and watches are told.
    pub fn publish(&self, cache: Cache) {
        let revision = cache.revision;
        self.0.state.borrow_mut().publish(cache);
        self.0.news.send_replace(revision);
    }

    /// The API server's answer to a write.
    pub fn respond(&self, id: RequestId, result: Result<Reply, Error>) {
        let call = self.0.state.borrow_mut().calls.remove(&id.call);
        if let Some(call) = call {
            // Whoever asked may have gone.
            let _ = call.send(result);
        }
    }

    /// The API server ended: nothing is served until another publishes, and what was under way may
    /// have happened. Connections end, as they would with a process: so each is of one life, and
    /// what a client has learnt on it is of one store.
    pub fn reset(&self) {
        let mut state = self.0.state.borrow_mut();
        state.history.reset();
        state.texts.iter_mut().for_each(Texts::clear);
        state.calls.clear();
        drop(state);
        self.0.news.send_replace(0);
        self.0.ended.send_replace(());
    }

    /// From now on `/readyz` says that the server ends, so that whoever chooses among servers sends
    /// nobody here. All is served as before.
    pub fn stop_soon(&self) {
        self.0.state.borrow_mut().stopping = true;
    }

    /// Ends watches, takes no more requests on the connections that there are, and waits until all
    /// that were taken are answered, for as long as a request may take ([`Limits::request`]).
    pub async fn drain(&self) {
        self.0.state.borrow_mut().ending = true;
        self.0.news.send_modify(|_| ());
        self.0.closing.send_replace(());
        let metrics = &self.0.metrics;
        let answered = async {
            while metrics.in_flight.get() + metrics.watches.get() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(self.0.limits.request, answered).await;
        // What was answered last is on its way; who does not read it, or does not hang up, is left.
        let closed = async {
            while metrics.connections.get() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(GOODBYE, closed).await;
    }

    /// Whether there is anything to serve.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl Inner {
    fn is_open(&self) -> bool {
        self.state.borrow().history.cache().is_some()
    }

    async fn call(&self, request: Request, dry_run: bool) -> Result<Reply, Error> {
        let (send, answer) = oneshot::channel();
        let id = {
            let mut state = self.state.borrow_mut();
            state.next_call += 1;
            let call = state.next_call;
            state.calls.insert(call, send);
            RequestId { connection: 0, call }
        };
        // Who goes away before the answer leaves nothing behind.
        let _forgets = Forgets(self, id.call);
        let request = Arc::new(request);
        // What is not answered with the object is written here.
        let counts = matches!(&*request, Request::Bind { .. } | Request::Delete { .. });
        match lease::current().filter(|_| !dry_run && !request.is_read()) {
            None => (self.write)(id, request, dry_run),
            Some(hold) => match self.leased.get() {
                Some(leased) => leased(id, request, hold),
                None => {
                    let why = "no write is taken by a lease here";
                    return Err(Error::new(Reason::BadRequest, why));
                }
            },
        }
        let unknown =
            |why: &str| Error::new(Reason::Unknown, format!("{why}: it may have happened"));
        match timeout(self.limits.request, answer).await {
            Ok(Ok(result)) => {
                if let (Ok(Reply::Object(object)), true) = (&result, counts && !dry_run) {
                    // Of what clients write, the history is to know how much it is.
                    self.state.borrow().history.text(object, Writing::Go);
                }
                result
            }
            Ok(Err(_)) => Err(unknown("the API server ended under the request")),
            Err(_) => Err(unknown("the API server did not answer in time")),
        }
    }

    /// The civil time of the cluster.
    fn now(&self) -> Wall {
        self.clock.get().map_or_else(civil, |clock| clock())
    }

    /// The kinds that are declared now.
    fn definitions(&self) -> Arc<Definitions> {
        let state = self.state.borrow();
        state.history.cache().map(|cache| Arc::clone(&cache.definitions)).unwrap_or_default()
    }

    /// The one object that a path names.
    fn object(&self, target: &Target) -> Result<Arc<Object>, Failure> {
        let state = self.state.borrow();
        read::get(state.history.cache().ok_or_else(initializing)?, target)
    }

    /// From now on all is served that was acknowledged before, by any server of the store.
    async fn as_of_now(&self) -> Result<(), Failure> {
        if !self.shared.get() {
            return Ok(());
        }
        // Any will do: that it is answered says how new the version is that was published before.
        let (kind, key) = (Kind::Namespace, Key::cluster("default"));
        match self.call(Request::Get { kind, key: key.clone() }, false).await {
            Err(error) if error.reason != Reason::NotFound => {
                Err(Failure::of(error, kind, &key.name))
            }
            _ => Ok(()),
        }
    }

    /// Waits until there is a version that is not older.
    async fn not_older(&self, revision: u64) -> Result<(), Failure> {
        let mut news = self.news.subscribe();
        let there = news.wait_for(|newest| *newest >= revision);
        match timeout(NEWER, there).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Failure::too_large(revision, *self.news.borrow())),
        }
    }
}

/// How long a pod waits for its namespace's account.
const ACCOUNT: Duration = Duration::from_secs(1);

impl Inner {
    /// The account of a new namespace is made by a controller a moment later, and who makes the
    /// namespace and then a pod need not know (`getServiceAccount`,
    /// plugin/pkg/admission/serviceaccount). True if the pod had none to run as, and now has.
    async fn account_comes(&self, pod: &Object) -> bool {
        let Some((spec, _)) = pod.pod() else { return false };
        let asked = spec.service_account_name.as_deref().unwrap_or_default();
        let key = Key::new(pod.key.namespace.clone(), "default");
        let there = || {
            let state = self.state.borrow();
            let cache = state.history.cache();
            cache.is_some_and(|cache| cache.object(Kind::ServiceAccount, &key).is_some())
        };
        if !["", "default"].contains(&asked) || there() {
            return false;
        }
        let mut news = self.news.subscribe();
        let comes = news.wait_for(|_| there());
        matches!(timeout(ACCOUNT, comes).await, Ok(Ok(_)))
    }
}

impl Inner {
    /// What the client of a write is told beside it.
    fn advised(
        &self,
        new: &Object,
        old: Option<&Object>,
        mut warnings: Vec<String>,
    ) -> Vec<String> {
        let state = self.state.borrow();
        let cache = state.history.cache();
        warnings.extend(cache.into_iter().flat_map(|cache| warnings_of(new, old, cache)));
        warnings
    }
}

struct Forgets<'a>(&'a Inner, u64);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().calls.remove(&self.1);
    }
}

/// The machine's civil time.
fn civil() -> Wall {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall::from_unix_nanos(0) + unix
}
