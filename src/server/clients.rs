//! The scheduler, the controllers and the signer of certificates: clients of the API server as any
//! others, by the same door and each with a certificate of its own. Where several servers have one
//! store, those of one of them work.

use super::lead::{self, Election};
use super::signer;
use crate::certificate::Authority;
use crate::pki::Pki;
use crate::seed::seed;
use kubesim_actors::apiserver::Hold;
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::ports::api;
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_backends::http::client::{Client, Credentials, Metrics, Options};
use kubesim_backends::port::{Answer, Closed, Local, Port};
use kubesim_runtime::host::{self, AnswerTo, Driver, Seen, Settings, SystemClock};
use kubesim_runtime::{Actor, Ticket};
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_local};

/// What runs, where it finds the server, and as whom.
pub struct Plan {
    pub server: Ipv4Addr,
    /// Between them and those of other servers; without, these are the only ones.
    pub election: Option<Election>,
    pub scheduler: Option<(scheduler::Config, Credentials)>,
    pub controllers: Option<Manager>,
    pub signer: Option<(Arc<Authority>, Credentials)>,
}

/// The controllers, as whom they work and as whom they collect garbage.
#[derive(Clone)]
pub struct Manager {
    pub config: controllers::Config,
    pub controllers: Credentials,
    pub collector: Credentials,
}

/// Users as upstream's kubeadm names them. The scheduler has upstream's role of its name.
pub fn scheduler_credentials(pki: &Pki) -> Result<Credentials, String> {
    credentials(pki, "kube-scheduler", "system:kube-scheduler")
}

/// Upstream's controllers ask with a token of a service account each, and its role. Ours share a
/// connection, so they are one user with one role, of what they do and no more. It is not
/// `system:kube-controller-manager`, who may read every Secret.
pub fn controllers_credentials(pki: &Pki) -> Result<Credentials, String> {
    credentials(pki, "kubesim-controllers", "system:kubesim-controllers")
}

/// The garbage collector may see and delete anything, so it alone is upstream's service account.
pub fn collector_credentials(pki: &Pki) -> Result<Credentials, String> {
    let user = "system:serviceaccount:kube-system:generic-garbage-collector";
    credentials(pki, "generic-garbage-collector", user)
}

/// The signer does what upstream's does, and is the service account that it is there.
pub fn signer_credentials(pki: &Pki) -> Result<Credentials, String> {
    credentials(pki, "signer", "system:serviceaccount:kube-system:certificate-controller")
}

fn credentials(pki: &Pki, agent: &str, user: &str) -> Result<Credentials, String> {
    let (certificate, key) = pki.client(user, &[])?;
    Credentials::new(agent, pki.authority.as_bytes(), certificate.as_bytes(), key.as_bytes())
}

/// Those that run.
pub struct Clients(Vec<Running>);

/// Something that runs until it is told to end.
pub struct Running {
    stop: Local<()>,
    /// What keeps its connection, and what tells it of that.
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn new(stop: impl Future<Output = ()> + 'static, tasks: Vec<JoinHandle<()>>) -> Running {
        Running { stop: Box::pin(stop), tasks }
    }

    /// What it has asked for and was not answered may happen still.
    pub async fn stop(self) {
        self.stop.await;
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Clients {
    pub fn start(plan: &Plan, port: u16) -> Result<Clients, String> {
        let server = plan.server;
        let mut running = Vec::new();
        if let Some(Manager { config, controllers, collector }) = plan.controllers.clone() {
            // Upstream's lease of those, so that not both do their work.
            let lease = "kube-controller-manager";
            let role = Role { lease, plan, port, credentials: vec![controllers, collector] };
            running.push(role.start(move |credentials| {
                let client = |credentials| client("controllers", server, port, credentials);
                let clients = credentials.into_iter().map(client).collect();
                run(config.clone(), clients, controllers_effect, controllers::Event::Api)
            })?);
        }
        if let Some((config, credentials)) = plan.scheduler.clone() {
            let lease = "kube-scheduler";
            let role = Role { lease, plan, port, credentials: vec![credentials] };
            running.push(role.start(move |credentials| {
                let client = |credentials| client("scheduler", server, port, credentials);
                let clients = credentials.into_iter().map(client).collect();
                run(config.clone(), clients, scheduler_effect, scheduler::Event::Api)
            })?);
        }
        if let Some((authority, credentials)) = plan.signer.clone() {
            let client = client("signer", plan.server, port, credentials);
            let note = |note: String| eprintln!("signer: {note}");
            let signs = spawn_local(signer::run(client.clone(), authority, note));
            running.push(Running::new(async {}, vec![spawn_local(client.run()), signs]));
        }
        Ok(Clients(running))
    }

    pub async fn stop(self) {
        for running in self.0 {
            running.stop().await;
        }
    }
}

/// What one of several servers does.
struct Role<'a> {
    /// In `kube-system`.
    lease: &'static str,
    plan: &'a Plan,
    port: u16,
    /// As whom it works; the first one stands for election.
    credentials: Vec<Credentials>,
}

impl Role<'_> {
    /// Works at once, or while it leads.
    fn start(
        self,
        work: impl Fn(Vec<Credentials>) -> Running + 'static,
    ) -> Result<Running, String> {
        let Role { lease, plan, port, credentials } = self;
        let Some(election) = &plan.election else { return Ok(work(credentials)) };
        let config = election.config(lease);
        let hold = Hold { lease: config.lease.clone(), holder: config.identity.clone() };
        let leading = credentials.iter().map(|one| one.clone().leading_by(&hold));
        let leading = leading.collect::<Result<Vec<Credentials>, String>>()?;
        let stands = credentials.into_iter().next().ok_or("nobody stands for election")?;
        let client = client("elector", plan.server, port, stands);
        Ok(lead::while_elected(config, client, move || work(leading.clone())))
    }
}

fn client(name: &'static str, server: Ipv4Addr, port: u16, credentials: Credentials) -> Client {
    let notes = Box::new(move |note| eprintln!("{name}: {note}"));
    Client::new(Options { addresses: vec![server], port, credentials, seed: seed(), notes })
}

/// What is told of an actor, and its dice.
pub fn settings<A: Actor>() -> Settings {
    let observer = |seen| match seen {
        Seen::Note { text, .. } => eprintln!("{}: {text}", A::NAME),
        Seen::Failed { cause, retry, .. } => {
            let retry = retry.as_secs_f64();
            eprintln!("{}: failed, starts again in {retry} s: {cause}", A::NAME);
        }
        Seen::Step { .. } => {}
    };
    Settings { seed: seed(), index: 0, steps: false, observer: Box::new(observer) }
}

/// Has one of an actor's clients carry out what it asks for.
type Perform<A> = fn(&[Client], <A as Actor>::Effect, AnswerTo<A>) -> Local<()>;

fn controllers_effect(
    clients: &[Client],
    effect: controllers::Effect,
    answer: AnswerTo<Controllers>,
) -> Local<()> {
    use controllers::{Effect, Event};
    match effect {
        Effect::Api(effect) => clients[0].perform(effect, to(answer, Event::Api)),
        Effect::Collect(effect) => clients[1].perform(effect, to(answer, Event::Api)),
        Effect::Metrics(request) => {
            Metrics(clients[0].clone()).perform(request, to(answer, Event::Metrics))
        }
    }
}

fn scheduler_effect(
    clients: &[Client],
    scheduler::Effect::Api(effect): scheduler::Effect,
    answer: AnswerTo<Scheduler>,
) -> Local<()> {
    clients[0].perform(effect, to(answer, scheduler::Event::Api))
}

/// An answer's way back, as the event it is to the actor.
fn to<A: Actor, R: 'static>(answer: AnswerTo<A>, event: fn(R) -> A::Event) -> Answer<R> {
    let answer = Rc::new(answer);
    Answer::new(move |reply| {
        let (answer, event) = (Rc::clone(&answer), event(reply));
        async move { answer.send(event).await.map_err(|_| Closed) }
    })
}

/// Its first client is the one whose connection the actor is told of.
fn run<A: Actor>(
    config: A::Config,
    clients: Vec<Client>,
    perform: Perform<A>,
    event: fn(api::Event) -> A::Event,
) -> Running {
    let connections = clients.first().map(Client::listen);
    let driver = OverTheApi { clients: clients.clone(), perform };
    let hosted = Rc::new(host::spawn::<A>(config, driver, SystemClock::new(), settings::<A>()));
    let told = Rc::clone(&hosted);
    let tells = spawn_local(async move {
        let Some(mut connections) = connections else { return };
        while let Some(up) = connections.recv().await {
            // One that is down hears it from its informers when it is up.
            let _ = told.send(event(api::Event::Connected(up))).await;
        }
    });
    let keeps = clients.into_iter().map(|client| spawn_local(client.run()));
    let tasks = keeps.chain([tells]).collect();
    Running::new(async move { hosted.stop().await }, tasks)
}

/// Carries out what an actor asks for that speaks to the API only.
struct OverTheApi<A: Actor> {
    clients: Vec<Client>,
    perform: Perform<A>,
}

impl<A: Actor> Driver<A> for OverTheApi<A> {
    fn perform(
        &self,
        _: Ticket,
        effect: A::Effect,
        answer: AnswerTo<A>,
    ) -> impl Future<Output = ()> + 'static {
        (self.perform)(&self.clients, effect, answer)
    }
}
