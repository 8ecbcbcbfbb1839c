//! What the lab brings into a cluster that is somebody else's, and takes away when it ends: roles
//! that its components have in no other cluster, Nodes with the pods on them, and what the
//! scenario's workloads and faults made. So the next run finds what this one found. What was there
//! before and was changed stays changed.

use crate::lab::identity::{Known, PROFILES};
use crate::seed::seed;
use kubesim_actors::objects::{Key, Kind, Name, Object, Uid};
use kubesim_actors::ports::api::{DeleteOptions, Effect, Error, Event, Reason, Reply, Request};
use kubesim_backends::http::client::{Client, Options};
use kubesim_backends::http::roles;
use kubesim_backends::port::{Answer, Port};
use kubesim_sim::scenario::Scenario;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// The server is on this machine; one that does not answer for so long is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cluster's administrator, in this machine's own network.
pub struct Guest {
    at: SocketAddrV4,
    person: Known,
    roles: Vec<Arc<Object>>,
    nodes: BTreeSet<Name>,
    /// The scenario's writes under way that make something.
    making: BTreeSet<u64>,
    /// What they made, oldest first.
    made: Vec<Arc<Object>>,
}

impl Guest {
    pub fn new(at: SocketAddrV4, person: Known, scenario: &Scenario) -> Result<Guest, String> {
        let roles = match &scenario.profile {
            Some(_) => roles(PROFILES)?.into_iter().map(Arc::new).collect(),
            None => Vec::new(),
        };
        let nodes = scenario.nodes.iter().map(|node| node.name.clone()).collect();
        Ok(Guest { at, person, roles, nodes, making: BTreeSet::new(), made: Vec::new() })
    }

    /// Before the nodes come. What a killed run left is there already.
    pub fn arrive(&self) -> Result<(), String> {
        if self.roles.is_empty() {
            return Ok(());
        }
        self.talk(async |client| {
            for object in &self.roles {
                let request = Request::Create { object: Arc::clone(object) };
                done(client, request, &[Reason::AlreadyExists]).await?;
            }
            Ok(())
        })
    }

    /// The scenario writes something.
    pub fn asks(&mut self, call: u64, request: &Request) {
        if matches!(request, Request::Create { .. }) {
            self.making.insert(call);
        }
    }

    /// A write's answer. One that was lost leaves open whose the object is: it stays.
    pub fn told(&mut self, call: u64, result: &Result<Reply, Error>) {
        if self.making.remove(&call)
            && let Ok(Reply::Object(object)) = result
        {
            self.made.push(Arc::clone(object));
        }
    }

    /// When the machines are off, so that no kubelet registers its Node again.
    pub fn leave(&self) -> Result<(), String> {
        self.talk(async |client| {
            for node in &self.nodes {
                gone(client, Kind::Node, Key::cluster(node.clone()), Default::default()).await?;
            }
            for object in self.made.iter().rev().chain(&self.roles) {
                // Only if it still is the one that was made here.
                let uid = Some(object.uid).filter(|uid| *uid != Uid::default());
                let options = DeleteOptions { uid, ..Default::default() };
                gone(client, object.kind(), object.key.clone(), options).await?;
            }
            // Upstream's podgc waits 40 s; a run that comes sooner would find them on its nodes.
            let of_all = Request::List { kind: Kind::Pod, namespace: Name::default() };
            let Some(Reply::List(pods)) = done(client, of_all, &[]).await? else { return Ok(()) };
            let ours = |pod: &&Arc<Object>| {
                let node = pod.pod_facts().and_then(|facts| facts.node());
                node.is_some_and(|node| self.nodes.contains(node))
            };
            for pod in pods.values().filter(ours) {
                let (uid, grace) = (Some(pod.uid), Some(Duration::ZERO));
                let options = DeleteOptions { uid, grace, ..Default::default() };
                gone(client, Kind::Pod, pod.key.clone(), options).await?;
            }
            Ok(())
        })
    }

    /// To the server, whose answers are waited for.
    fn talk(&self, talk: impl AsyncFnOnce(&Client) -> Result<(), String>) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("starting an event loop: {error}"))?;
        LocalSet::new().block_on(&runtime, async {
            let client = Client::new(Options {
                addresses: vec![*self.at.ip()],
                port: self.at.port(),
                credentials: self.person.credentials.clone(),
                seed: seed(),
                // What keeps it from its work is in the answer.
                notes: Box::new(|_| {}),
            });
            spawn_local(client.clone().run());
            talk(&client).await
        })
    }
}

/// What is gone already, or is another one by now, is nobody's business here.
async fn gone(client: &Client, kind: Kind, key: Key, options: DeleteOptions) -> Result<(), String> {
    let request = Request::Delete { kind, key, options };
    done(client, request, &[Reason::NotFound, Reason::Conflict]).await.map(drop)
}

/// One request's answer; `None` for a refusal that says that there was nothing to do.
async fn done(
    client: &Client,
    request: Request,
    nothing: &[Reason],
) -> Result<Option<Reply>, String> {
    let (kind, key) = request.subject();
    let what = format!("{} {kind} {key}", request.verb());
    match timeout(PATIENCE, call(client, request)).await {
        Ok(Ok(reply)) => Ok(Some(reply)),
        Ok(Err(error)) if nothing.contains(&error.reason) => Ok(None),
        Ok(Err(error)) => Err(format!("{what}: {}", error.message)),
        Err(_) => Err(format!("{what}: the server does not answer")),
    }
}

async fn call(client: &Client, request: Request) -> Result<Reply, Error> {
    let (told, answered) = oneshot::channel();
    let told = Cell::new(Some(told));
    let answer = Answer::new(move |event| {
        if let (Event::Answer(answer), Some(told)) = (event, told.take()) {
            // Who asked may have given up.
            let _ = told.send(answer.result);
        }
        async { Ok(()) }
    });
    client.perform(Effect::Call { tag: 0, request: Arc::new(request) }, answer).await;
    let lost = |_| Err(Error::new(Reason::Unknown, "its client ended"));
    answered.await.unwrap_or_else(lost)
}
