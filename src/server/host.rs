//! The API server under the production host: its store, and its front.

use crate::Exit;
use kubesim_actors::apiserver::{ApiServer, Config, Effect, Event, RequestId};
use kubesim_actors::ports::api::{Error, Reason};
use kubesim_actors::ports::store;
use kubesim_backends::http::{Front, Limits, Tls};
use kubesim_backends::port::{Answer, Closed, Port};
use kubesim_backends::store::embedded::{self, Embedded};
use kubesim_runtime::Ticket;
use kubesim_runtime::host::{self, AnswerTo, Driver, Hosted, Seen, Settings, SystemClock};
use std::cell::RefCell;
use std::future::Future;
use std::io::Read;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

/// Where objects are kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the data directory.
    Embedded,
    /// `http://10.0.0.1:2379`.
    Etcd(Vec<String>),
}

type Store = Rc<dyn Port<Request = store::Request, Reply = store::Reply>>;

/// What is wrong, for the exit status and for people.
type Failed = (Exit, String);

/// How long requests that are under way may take when the server ends.
const LAST: Duration = Duration::from_secs(5);

/// Serves until it is told to end; `ready` is told where.
pub fn run(
    config: Config,
    place: (&Path, &Place),
    listen: (SocketAddrV4, Tls),
    ready: &mut dyn FnMut(SocketAddrV4) -> Result<(), String>,
) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| (Exit::Environment, format!("starting the async runtime: {error}")))?;
    let local = LocalSet::new();
    local.block_on(&runtime, serve(config, place, listen, ready))
}

async fn serve(
    config: Config,
    place: (&Path, &Place),
    (listen, tls): (SocketAddrV4, Tls),
    ready: &mut dyn FnMut(SocketAddrV4) -> Result<(), String>,
) -> Result<(), Failed> {
    let environment = |why: String| (Exit::Environment, why);
    let mut signals = signals().map_err(environment)?;
    let store = open(place).map_err(environment)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        environment(format!("listening at {listen}: {error}; --listen names another address"))
    })?;
    let (front, hosted, mut refused) = start(config, store);
    let opened = async {
        while !front.is_open() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = opened => {}
        Some(why) = refused.recv() => return Err((Exit::Input, why)),
        () = end(&mut signals) => return Ok(()),
    }
    front.reconcile_roles().await.map_err(environment)?;
    let at = match listener.local_addr() {
        Ok(SocketAddr::V4(at)) => at,
        _ => listen,
    };
    let serving = spawn_local(front.clone().serve(listener, tls));
    ready(at).map_err(environment)?;
    let ended = tokio::select! {
        Some(why) = refused.recv() => Err((Exit::Input, why)),
        () = end(&mut signals) => Ok(()),
    };
    serving.abort();
    front.drain(LAST).await;
    hosted.stop().await;
    ended
}

fn signals() -> Result<[Signal; 2], String> {
    let hear = |kind| signal(kind).map_err(|error| format!("hearing of signals: {error}"));
    Ok([hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?])
}

/// Until SIGTERM or SIGINT.
async fn end([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn open((data_dir, place): (&Path, &Place)) -> Result<Store, String> {
    match place {
        Place::Embedded => {
            let path = data_dir.join("store");
            let opened = Embedded::open(&path, embedded::Options::default());
            Ok(Rc::new(opened.map_err(|error| error.to_string())?))
        }
        #[cfg(feature = "etcd")]
        Place::Etcd(endpoints) => {
            use kubesim_backends::store::etcd::{Etcd, Options};
            Ok(Rc::new(Etcd::new(Options::new(endpoints.clone()))?))
        }
        #[cfg(not(feature = "etcd"))]
        Place::Etcd(endpoints) => Err(format!(
            "using the store at {}: this kubesim was built without its feature `etcd`; build it \
             with --features server,etcd, or use --store embedded",
            endpoints.join(",")
        )),
    }
}

type Refused = mpsc::UnboundedReceiver<String>;

fn start(config: Config, store: Store) -> (Front, Rc<Hosted<ApiServer>>, Refused) {
    let actor: Rc<RefCell<Weak<Hosted<ApiServer>>>> = Rc::default();
    let front = Rc::new(RefCell::new(None::<Front>));
    let (writes, answers) = (Rc::clone(&actor), Rc::clone(&front));
    let made = Front::new(Limits::default(), move |id, request, dry_run| {
        let event = Event::Request { id, request, dry_run };
        write(writes.borrow().upgrade(), answers.borrow().clone(), id, event);
    });
    *front.borrow_mut() = Some(made.clone());
    let (send, refused) = mpsc::unbounded_channel();
    let driver = ApiDriver { store, front: made.clone(), refused: send };
    let served = made.clone();
    let observer = move |seen| match seen {
        Seen::Note { text, .. } => eprintln!("apiserver: {text}"),
        Seen::Failed { cause, retry, .. } => {
            served.reset();
            eprintln!("apiserver: failed, starts again in {} s: {cause}", retry.as_secs_f64());
        }
        Seen::Step { .. } => {}
    };
    let settings = Settings { seed: seed(), index: 0, steps: false, observer: Box::new(observer) };
    let hosted = Rc::new(host::spawn(config, driver, SystemClock::new(), settings));
    *actor.borrow_mut() = Rc::downgrade(&hosted);
    (made, hosted, refused)
}

/// What uids are drawn from: another one at every start.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_ne_bytes(bytes),
        // Without it, the time is another one as well.
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64),
    }
}

fn write(actor: Option<Rc<Hosted<ApiServer>>>, front: Option<Front>, id: RequestId, event: Event) {
    spawn_local(async move {
        let sent = match actor {
            Some(actor) => actor.send(event).await.is_ok(),
            None => false,
        };
        if let Some(front) = front.filter(|_| !sent) {
            let why = "the API server starts again: nothing happened, ask again";
            front.respond(id, Err(Error::new(Reason::Unreachable, why)));
        }
    });
}

/// Carries out what the API server asks for.
struct ApiDriver {
    store: Store,
    front: Front,
    refused: mpsc::UnboundedSender<String>,
}

impl Driver<ApiServer> for ApiDriver {
    fn perform(
        &self,
        _: Ticket,
        effect: Effect,
        answer: AnswerTo<ApiServer>,
    ) -> impl Future<Output = ()> + 'static {
        let stored = match effect {
            Effect::Store(request) => {
                let answer = Rc::new(answer);
                let answer = Answer::new(move |reply| {
                    let answer = Rc::clone(&answer);
                    async move { answer.send(Event::Store(reply)).await.map_err(|_| Closed) }
                });
                Some(self.store.perform(request, answer))
            }
            Effect::Publish(cache) => {
                self.front.publish(cache);
                None
            }
            Effect::Respond { id, result } => {
                self.front.respond(id, result);
                None
            }
            Effect::Refuse { why } => {
                // Who listens no more ends already.
                let _ = self.refused.send(why);
                None
            }
        };
        async move {
            if let Some(stored) = stored {
                stored.await;
            }
        }
    }
}
