//! The API's front for visitors, on a thread of its own: what they read is answered there, from
//! what the simulated API server published, and only what they write goes on to the run.
//!
//! The roles that every cluster has are made with the first write: until somebody writes, a run is
//! what it is without visitors, uid by uid, and afterwards it is another one anyway.

use crate::interrupt;
use crate::pki::Pki;
use kubesim_actors::apiserver::{Cache, RequestId};
use kubesim_actors::ports::api::{Error, Reply, Request};
use kubesim_backends::http::{Front, Limits, Tls};
use kubesim_runtime::Wall;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc as from_front;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

/// What comes in.
#[derive(Debug)]
pub enum Inward {
    Write(Write),
    /// ^C, or a polite end.
    Interrupted,
    /// For whoever looks on.
    Remark(String),
    /// Nobody is served any more.
    Broken(String),
}

/// A write; answered by [`Outward::Answered`] with the same id.
#[derive(Debug)]
pub struct Write {
    pub id: RequestId,
    pub request: Arc<Request>,
    pub dry_run: bool,
}

/// What goes out.
#[derive(Debug)]
pub enum Outward {
    Published(Cache),
    Answered(RequestId, Result<Reply, Error>),
    /// The API server ended.
    Ended,
}

pub struct Door {
    pub at: SocketAddrV4,
    inbox: from_front::Receiver<Inward>,
    /// Taken at the end: with it ends the thread.
    told: Option<mpsc::Sender<Vec<Outward>>>,
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

/// The cluster's civil time, in nanoseconds since 1970.
#[derive(Clone, Debug, Default)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn set(&self, now: Wall) {
        let nanos = i64::try_from(now.unix_nanos()).unwrap_or(i64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }
    fn now(&self) -> Wall {
        Wall::from_unix_nanos(self.0.load(Ordering::Relaxed).into())
    }
}

/// Batches that wait to be heard: then the run waits, so that watches miss nothing.
const ROOM: usize = 256;
/// Changes that watches find when they come: a large cluster makes thousands a second (its nodes'
/// leases) where time passes at a multiple, and its pods take a client seconds to list.
const CHANGES: usize = 100_000;
/// How often it is looked whether there is anything to serve yet.
const LOOK: Duration = Duration::from_millis(5);
/// How long requests that are under way may take at the end.
const LAST: Duration = Duration::from_millis(500);

/// What the thread is given.
struct Inside {
    listener: TcpListener,
    tls: Tls,
    token_key: String,
    url: String,
    told: mpsc::Receiver<Vec<Outward>>,
    inbox: from_front::Sender<Inward>,
    clock: Clock,
}

impl Door {
    /// Listens there; served is once something was published.
    pub fn open(listen: SocketAddrV4, pki: &Pki) -> Result<Door, String> {
        let wrong = |error: io::Error| {
            format!("listening at {listen}: {error}; --serve names another address")
        };
        let listener = TcpListener::bind(listen).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        let at = match listener.local_addr().map_err(wrong)? {
            SocketAddr::V4(at) => at,
            SocketAddr::V6(_) => listen,
        };
        let (certificate, key) = pki.server()?;
        let tls = Tls::new(certificate.as_bytes(), key.as_bytes(), pki.authority.as_bytes())?;
        let (told, hears) = mpsc::channel(ROOM);
        let (send, inbox) = from_front::channel();
        let clock = Clock::default();
        let inside = Inside {
            listener,
            tls,
            token_key: pki.token_key.clone(),
            url: format!("https://{at}"),
            told: hears,
            inbox: send.clone(),
            clock: clock.clone(),
        };
        let serves = move || {
            if let Err(why) = serve(inside) {
                let _ = send.send(Inward::Broken(why));
            }
        };
        let thread = thread::Builder::new().name("front".to_owned()).spawn(serves);
        let thread = thread.map_err(|error| format!("starting the API's thread: {error}"))?;
        Ok(Door { at, inbox, told: Some(told), clock, thread: Some(thread) })
    }

    /// What came in, after at most so long.
    pub fn take(&self, within: Duration) -> Vec<Inward> {
        let first = match within {
            Duration::ZERO => self.inbox.try_recv().ok(),
            within => self.inbox.recv_timeout(within).ok(),
        };
        let more = first.is_some().then(|| self.inbox.try_iter());
        first.into_iter().chain(more.into_iter().flatten()).collect()
    }

    /// Tells, in this order. Waits while there is no room.
    pub fn tell(&self, news: Vec<Outward>) {
        if let Some(told) = self.told.as_ref().filter(|_| !news.is_empty()) {
            // A thread that ended has said why.
            let _ = told.blocking_send(news);
        }
    }

    pub fn set_clock(&self, now: Wall) {
        self.clock.set(now);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.told.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(inside: Inside) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("starting the async runtime: {error}"))?;
    LocalSet::new().block_on(&runtime, host(inside))
}

/// Until one of them comes.
async fn any(signals: &mut [Signal]) {
    poll_fn(|context| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn host(inside: Inside) -> Result<(), String> {
    let Inside { listener, tls, token_key, url, told: mut hears, inbox, clock } = inside;
    let listen_to = |kind| signal(kind).map_err(|error| format!("hearing of signals: {error}"));
    let hangup = interrupt::hears_hangups().then(SignalKind::hangup);
    let ending = [SignalKind::interrupt(), SignalKind::terminate()].into_iter().chain(hangup);
    let mut ending = ending.map(listen_to).collect::<Result<Vec<_>, _>>()?;
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = listener.map_err(|error| format!("listening for visitors: {error}"))?;
    let wrote = Rc::new(Notify::new());
    let (first, writes) = (Rc::clone(&wrote), inbox.clone());
    let limits = Limits { changes: CHANGES, ..Limits::default() };
    let front = Front::new(limits, move |id, request, dry_run| {
        first.notify_one();
        // A run that is over takes nothing any more.
        let _ = writes.send(Inward::Write(Write { id, request, dry_run }));
    });
    front.goes_by(move || clock.now());
    front.issue_tokens(token_key.as_bytes(), &url)?;
    let serving = spawn_local(serving(front.clone(), listener, tls));
    let roles = spawn_local(roles(front.clone(), wrote, inbox.clone()));
    loop {
        tokio::select! {
            told = hears.recv() => match told {
                Some(news) => news.into_iter().for_each(|news| hear(&front, news)),
                None => break,
            },
            () = any(&mut ending) => drop(inbox.send(Inward::Interrupted)),
        }
    }
    serving.abort();
    roles.abort();
    let _ = timeout(LAST, front.drain()).await;
    Ok(())
}

async fn serving(front: Front, listener: tokio::net::TcpListener, tls: Tls) {
    while !front.is_open() {
        sleep(LOOK).await;
    }
    match front.serve(listener, tls).await {}
}

/// Makes the roles once somebody writes.
async fn roles(front: Front, wrote: Rc<Notify>, inbox: from_front::Sender<Inward>) {
    wrote.notified().await;
    if let Err(why) = front.reconcile_roles().await {
        let _ = inbox.send(Inward::Remark(why));
    }
}

fn hear(front: &Front, news: Outward) {
    match news {
        Outward::Published(cache) => front.publish(cache),
        Outward::Answered(id, result) => front.respond(id, result),
        Outward::Ended => front.reset(),
    }
}
