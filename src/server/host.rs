//! The server from its start to its end: the API server on its store, then whoever works with it.

use super::backup;
use super::clients::{Clients, Plan};
use super::joining;
use super::renew::Renewal;
use super::tokens::Tokens;
use crate::Exit;
use crate::ending::Ending;
use crate::pki::token_file;
use crate::seed::seed;
use crate::token::Token;
use kubesim_actors::apiserver::Config;
use kubesim_backends::http::host::{Heard, Server, Store as Opened};
use kubesim_backends::http::{Front, Limits, Tls};
use kubesim_backends::store::embedded::{self, Copier, Embedded};
use kubesim_backends::store::memory::Memory;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

/// Where objects are kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// In the data directory.
    Embedded,
    /// In this process, with which they end.
    Memory,
    /// `http://10.0.0.1:2379`.
    Etcd(Vec<String>),
}

/// Where clients come in, and what they are known by.
pub struct Door {
    pub listen: SocketAddrV4,
    /// Where other machines find it, if they do.
    pub outward: Option<Ipv4Addr>,
    pub tls: Tls,
    /// What tokens of service accounts are signed by, as PEM.
    pub token_key: String,
    /// Where that and the authority are kept.
    pub keys: PathBuf,
    /// Of what it is known by, and its clients.
    pub renewal: Renewal,
    /// How long it serves on when it is told to end.
    pub delay: Duration,
}

/// What is wrong, for the exit status and for people.
type Failed = (Exit, String);

/// A server that serves.
pub struct Served {
    /// Where clients on its machine find it.
    pub at: SocketAddrV4,
    /// Where and by what other machines join its cluster, if they reach it.
    pub joined: Option<(SocketAddrV4, Token)>,
}

impl Served {
    pub fn url(&self) -> String {
        format!("https://{}", self.at)
    }
}

/// Runs to the end in a runtime of its own, on this thread.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| (Exit::Environment, format!("starting the async runtime: {error}")))?;
    LocalSet::new().block_on(&runtime, future)
}

/// Serves until it is told to end; `ready` is told where.
pub async fn serve(
    config: Config,
    place: (&Path, &Store),
    Door { listen, outward, tls, token_key, keys, renewal, delay }: Door,
    plan: &Plan,
    (mut ending, ready): (Ending, impl FnOnce(Served) -> Result<(), String>),
) -> Result<(), Failed> {
    let environment = |why: String| (Exit::Environment, why);
    let (store, copier) = open(place).map_err(environment)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        environment(format!("listening at {listen}: {error}; --listen names another address"))
    })?;
    let at = match listener.local_addr() {
        Ok(SocketAddr::V4(at)) => at,
        _ => listen,
    };
    let (server, mut refused) = start(config, store);
    let front = server.front.clone();
    let mut served = Served { at: SocketAddrV4::new(plan.server, at.port()), joined: None };
    front.asks_nodes();
    let url = served.url();
    front.issue_tokens(token_key.as_bytes(), &url).map_err(|why| {
        environment(format!(
            "using the key of service accounts' tokens, sa.key: {why}; with that file \
             removed, another one is made, and tokens that were issued are good no more"
        ))
    })?;
    let opened = async {
        while !front.is_open() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = opened => {}
        Some(why) = refused.recv() => return Err((Exit::Input, why)),
        () = ending.told() => return Ok(()),
    }
    front.reconcile_roles().await.map_err(environment)?;
    if let Some(address) = outward {
        let token = joining::token(&front, place.0, &renewal.pki.authority).await;
        served.joined = Some((SocketAddrV4::new(address, at.port()), token.map_err(environment)?));
    }
    let tokens = Tokens { file: token_file(&keys), said: token_key, url: url.clone() };
    let tokens = spawn_local(tokens.follow(front.clone()));
    let backups = copier.map(|copier| {
        let source = backup::Source { copier, keys };
        spawn_local(backup::serve(place.0.to_owned(), source))
    });
    let serving = spawn_local(front.clone().serve(listener, tls));
    let clients = Clients::start(plan, at.port()).map_err(environment)?;
    ready(served).map_err(environment)?;
    let told = spawn_local(plan.board.clone().serve(place.0.to_owned()));
    let renews = spawn_local(renewal.run(url));
    let ended = tokio::select! {
        Some(why) = refused.recv() => Err((Exit::Input, why)),
        () = ending.told() => Ok(()),
    };
    tokio::select! {
        () = drain(&front, clients, &serving, delay) => {}
        // Asked again, it does not wait.
        () = ending.told() => {}
    }
    [backups, Some(renews), Some(tokens), Some(told)].iter().flatten().for_each(JoinHandle::abort);
    server.stop().await;
    ended
}

/// As kube-apiserver's `RunWithContext` (pkg/server/genericapiserver.go): it is not ready, then
/// after the delay it takes nobody more, then it ends what is under way.
async fn drain<T>(front: &Front, clients: Clients, serving: &JoinHandle<T>, delay: Duration) {
    front.stop_soon();
    sleep(delay).await;
    clients.stop().await;
    serving.abort();
    front.drain().await;
}

/// The store, and what takes copies of it if that is ours to do.
fn open((data_dir, store): (&Path, &Store)) -> Result<(Opened, Option<Copier>), String> {
    match store {
        Store::Embedded => {
            let path = data_dir.join("store");
            let opened = Embedded::open(&path, embedded::Options::default());
            let opened = opened.map_err(|error| error.to_string())?;
            let copier = opened.copier();
            Ok((Rc::new(opened), Some(copier)))
        }
        Store::Memory => Ok((Rc::new(Memory::new()), None)),
        #[cfg(feature = "etcd")]
        Store::Etcd(endpoints) => {
            use kubesim_backends::store::etcd::{Etcd, Options};
            Ok((Rc::new(Etcd::new(Options::new(endpoints.clone()))?), None))
        }
        #[cfg(not(feature = "etcd"))]
        Store::Etcd(endpoints) => Err(format!(
            "using the store at {}: this kubesim was built without its feature `etcd`; build it \
             with --features server,etcd, or use --store embedded",
            endpoints.join(",")
        )),
    }
}

type Refused = mpsc::UnboundedReceiver<String>;

fn start(config: Config, store: Opened) -> (Server, Refused) {
    let (send, refused) = mpsc::unbounded_channel();
    let heard = move |heard: Heard<'_>| match heard {
        Heard::Note(text) => eprintln!("apiserver: {text}"),
        Heard::Failed { cause, retry } => {
            eprintln!("apiserver: failed, starts again in {} s: {cause}", retry.as_secs_f64());
        }
        Heard::Refused(why) => {
            // Who listens no more ends already.
            let _ = send.send(why);
        }
        Heard::Published(_) => {}
    };
    (Server::start(config, store, Limits::default(), seed(), heard), refused)
}
