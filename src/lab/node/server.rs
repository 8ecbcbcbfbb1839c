//! The API server: its store, its front, and the person at its machine.

use super::clients::{PORT, client};
use super::mirror;
use crate::drive::Running;
use crate::lab::identity::PROFILES;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::{Behind, Door, Front as Served};
use crate::seed::seed;
use kubesim_actors::apiserver::{Config, memory_store};
use kubesim_actors::ports::api::{Effect, Event, Request};
use kubesim_actors::ports::store::{Reply, Request as StoreRequest};
use kubesim_backends::http::client::Client;
use kubesim_backends::http::host::{Heard, Server};
use kubesim_backends::http::{Front, Limits};
use kubesim_backends::port::{Answer, Local, Port};
use kubesim_sim::world::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

/// Who the server is in tokens, wherever it is: a name of its certificate.
const URL: &str = "https://kubernetes.default.svc";
/// How often a server that starts is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// One life of the API server's process: with it end its connections.
pub struct Serving {
    server: Rc<Server>,
    listens: JoinHandle<()>,
}

impl Serving {
    pub fn start(cell: Cell, config: Config, served: &Served, mail: &Mail) -> Serving {
        let told = mail.clone();
        let heard = move |heard: Heard<'_>| match heard {
            Heard::Note(text) => told.send(News::Noted(cell, text)),
            Heard::Published(cache) => told.send(News::Published(cache.clone())),
            Heard::Failed { cause, .. } => told.send(News::Failed(cell, cause)),
            Heard::Refused(why) => told.send(News::Refused(cell, why)),
        };
        let disk = Rc::new(Disk(Arc::clone(&served.store)));
        let server = Rc::new(Server::start(config, disk, Limits::default(), seed(), heard));
        let (front, served, mail) = (server.front.clone(), served.clone(), mail.clone());
        let listens = spawn_local(async move {
            if let Err(why) = serve(front, served).await {
                mail.send(News::Broken(format!("serving the API: {why}")));
            }
        });
        Serving { server, listens }
    }
}

impl Running for Serving {
    fn stop(&self) -> Local<()> {
        self.listens.abort();
        let server = Rc::clone(&self.server);
        Box::pin(async move {
            server.stop().await;
            server.front.reset();
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

/// Serves on every address of the machine, once the cluster has its roles, for as long as it is
/// polled.
async fn serve(front: Front, served: Served) -> Result<(), String> {
    front.issue_tokens(served.token_key.as_bytes(), URL)?;
    while !front.is_open() {
        sleep(LOOK).await;
    }
    front.reconcile_roles().await?;
    front.reconcile_table(PROFILES).await?;
    let wrong = |error: io::Error| format!("listening for clients: {error}");
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.map_err(wrong)?;
    let nodes = front.clone().serve(listener, served.tls.clone());
    let Some(visitors) = served.visitors else { match nodes.await {} };
    let visitors = visitors.try_clone().and_then(TcpListener::from_std).map_err(wrong)?;
    let (never, _) = tokio::join!(nodes, front.serve(visitors, served.tls));
    match never {}
}

/// The store, which outlives the server and the power of its machine.
struct Disk(Arc<Mutex<memory_store::Store>>);

impl Port for Disk {
    type Request = StoreRequest;
    type Reply = Reply;

    fn perform(&self, request: StoreRequest, answer: Answer<Reply>) -> Local<()> {
        let reply = {
            let mut store = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
            store.request(&request)
        };
        Box::pin(async move {
            // Nobody waits any more: it is done all the same.
            let _ = answer.send(reply).await;
        })
    }
}

/// A person at the server's machine, with the administrator's certificate.
pub struct Person {
    client: Client,
    mail: Mail,
}

impl Person {
    pub fn new(door: &Door, mail: &Mail) -> Person {
        let client = client(&door.person, &[Ipv4Addr::LOCALHOST], mail);
        if let Behind::Outside(_) = door.behind {
            mirror::keep(&client, mail);
        }
        Person { client, mail: mail.clone() }
    }

    /// A write that nobody takes now is not kept: people try again.
    pub fn operate(&self, call: u64, request: Arc<Request>) {
        if !self.client.is_connected() {
            return;
        }
        let mail = self.mail.clone();
        let answer = Answer::new(move |event| {
            if let Event::Answer(answer) = event {
                mail.send(News::Operated(answer.tag, answer.result));
            }
            async { Ok(()) }
        });
        spawn_local(self.client.perform(Effect::Call { tag: call, request }, answer));
    }
}
