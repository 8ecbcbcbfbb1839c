//! The scheduler, the controllers and the signer of certificates: clients of the API server as any
//! others, by the same door and each with a certificate of its own. Where several servers have one
//! store, those of one of them work.

use super::advertise::{self, Advertised};
use super::aggregate;
use super::lead::{self, Election};
use super::signer::{self, Seal};
use crate::pki::Pki;
use crate::seed::seed;
use crate::status::Board;
use kubesim_actors::apiserver::Hold;
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::objects::{Kind, View};
use kubesim_actors::ports::api::{self, Effect, Event, News, Scope};
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_backends::http::client::{Client, Credentials, Metrics, Options};
use kubesim_backends::port::{Answer, Closed, Local, Port};
use kubesim_runtime::host::{self, AnswerTo, Driver, Seen, Settings, SystemClock};
use kubesim_runtime::{Actor, Ticket};
use std::borrow::Cow;
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};

/// What runs, where it finds the server, and as whom.
pub struct Plan {
    /// By which actors say how they are.
    pub board: Board,
    pub server: Ipv4Addr,
    /// Between them and those of other servers; without, these are the only ones.
    pub election: Option<Election>,
    pub scheduler: Option<(scheduler::Config, Credentials)>,
    pub manager: Option<Manager>,
    /// Where pods find the server.
    pub advertised: Advertised,
}

/// What upstream's kube-controller-manager is: the controllers, and what works beside them.
#[derive(Clone)]
pub struct Manager {
    pub config: controllers::Config,
    pub controllers: Credentials,
    /// As whom these collect garbage.
    pub collector: Credentials,
    pub seal: Seal,
    pub signer: Credentials,
    pub aggregator: Credentials,
}

impl Manager {
    /// `lasts`: how long a certificate is good that it signs.
    pub fn new(config: controllers::Config, pki: &Pki, lasts: Duration) -> Result<Manager, String> {
        Ok(Manager {
            config,
            controllers: CONTROLLERS.credentials(pki)?,
            collector: COLLECTOR.credentials(pki)?,
            seal: Seal { authority: Arc::clone(&pki.signs), lasts },
            signer: SIGNER.credentials(pki)?,
            aggregator: AGGREGATOR.credentials(pki)?,
        })
    }

    /// Works for this server until it is stopped.
    fn start(&self, (server, port): (Ipv4Addr, u16), board: &Board) -> Running {
        let asks = |name, known: &Credentials| client(name, server, port, known.clone());
        let signs = sign(asks("signer", &self.signer), self.seal.clone());
        let completes = complete(asks("aggregator", &self.aggregator));
        let clients = [&self.controllers, &self.collector].map(|known| asks("controllers", known));
        let event = controllers::Event::Api;
        let works = run((self.config.clone(), board), clients.into(), controllers_effect, event);
        Running::together(vec![signs, completes, works])
    }
}

/// Who a client is: what it calls itself, and the user of its certificate with his groups.
#[derive(Clone, Debug)]
pub struct Who {
    pub agent: &'static str,
    pub user: Cow<'static, str>,
    pub groups: &'static [&'static str],
}

/// Users as upstream's kubeadm names them. The scheduler has upstream's role of its name.
pub const SCHEDULER: Who = Who::new("kube-scheduler", "system:kube-scheduler");

/// Upstream's controllers ask with a token of a service account each, and its role. Ours share a
/// connection, so they are one user with one role, of what they do and no more. It is not
/// `system:kube-controller-manager`, who may read every Secret.
const CONTROLLERS: Who = Who::new("kubesim-controllers", "system:kubesim-controllers");

/// The garbage collector may see and delete anything, so it alone is upstream's service account.
const COLLECTOR: Who = Who::new(
    "generic-garbage-collector",
    "system:serviceaccount:kube-system:generic-garbage-collector",
);

/// The signer does what upstream's does, and is the service account that it is there.
const SIGNER: Who = Who::new("signer", "system:serviceaccount:kube-system:certificate-controller");

/// Where the servers are, the server says itself (upstream's loopback client).
pub const SERVER: Who = Who {
    agent: "kube-apiserver",
    user: Cow::Borrowed("system:apiserver"),
    groups: &["system:masters"],
};

/// And so does who completes roles that aggregate others.
const AGGREGATOR: Who = Who::new(
    "clusterrole-aggregation-controller",
    "system:serviceaccount:kube-system:clusterrole-aggregation-controller",
);

impl Who {
    const fn new(agent: &'static str, user: &'static str) -> Who {
        Who { agent, user: Cow::Borrowed(user), groups: &[] }
    }

    pub fn credentials(&self, pki: &Pki) -> Result<Credentials, String> {
        let (certificate, key) = pki.client(&self.user, self.groups)?;
        let authority = pki.authority.as_bytes();
        Credentials::new(self.agent, authority, certificate.as_bytes(), key.as_bytes())
    }

    /// With another certificate from now on.
    pub fn renew(&self, pki: &Pki, credentials: &Credentials) -> Result<(), String> {
        let (certificate, key) = pki.client(&self.user, self.groups)?;
        credentials.renew(pki.authority.as_bytes(), certificate.as_bytes(), key.as_bytes())
    }
}

impl Plan {
    /// Who works, and as whom.
    pub fn identities(&self) -> Vec<(Who, Credentials)> {
        let scheduler = self.scheduler.as_ref().map(|(_, known)| (SCHEDULER, known.clone()));
        let manager = self.manager.iter().flat_map(|manager| {
            let Manager { controllers, collector, signer, aggregator, .. } = manager.clone();
            [
                (CONTROLLERS, controllers),
                (COLLECTOR, collector),
                (SIGNER, signer),
                (AGGREGATOR, aggregator),
            ]
        });
        let server = (SERVER, self.advertised.credentials.clone());
        scheduler.into_iter().chain(manager).chain([server]).collect()
    }
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

    /// Several that work as one: they are stopped one after the other.
    fn together(all: Vec<Running>) -> Running {
        let stop = async move {
            for one in all {
                one.stop().await;
            }
        };
        Running::new(stop, Vec::new())
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
        if let Some(manager) = &plan.manager {
            // Upstream's lease of all those, so that not both do their work.
            let role = Role { lease: "kube-controller-manager", plan, port };
            let works = Manager {
                controllers: role.leading(&manager.controllers)?,
                collector: role.leading(&manager.collector)?,
                signer: role.leading(&manager.signer)?,
                aggregator: role.leading(&manager.aggregator)?,
                ..manager.clone()
            };
            let elector = manager.controllers.clone();
            let board = plan.board.clone();
            running.push(role.start(elector, move || works.start((server, port), &board)));
        }
        if let Some((config, credentials)) = plan.scheduler.clone() {
            let role = Role { lease: "kube-scheduler", plan, port };
            let known = role.leading(&credentials)?;
            let board = plan.board.clone();
            running.push(role.start(credentials, move || {
                let clients = vec![client("scheduler", server, port, known.clone())];
                run((config.clone(), &board), clients, scheduler_effect, scheduler::Event::Api)
            }));
        }
        let Advertised { address, credentials } = plan.advertised.clone();
        let asks = client("advertiser", server, port, credentials);
        running.push(advertise::start(address, port, asks));
        Ok(Clients(running))
    }

    pub async fn stop(self) {
        for running in self.0 {
            running.stop().await;
        }
    }
}

/// All objects of a kind, whenever one changed; late views are left out.
pub fn views(client: &Client, kind: Kind) -> mpsc::Receiver<View> {
    let (send, views) = mpsc::channel(1);
    let watch = Effect::Watch { kind, scope: Scope::All };
    let answer = Answer::new(move |event| {
        let send = send.clone();
        async move {
            match event {
                Event::News(News::View { view, .. }) => send.send(view).await.map_err(|_| Closed),
                _ => Ok(()),
            }
        }
    });
    spawn_local(client.perform(watch, answer));
    views
}

/// Signs certificates until it is stopped.
fn sign(client: Client, seal: Seal) -> Running {
    let note = |note: String| eprintln!("signer: {note}");
    let signs = spawn_local(signer::run(client.clone(), seal, note));
    Running::new(async {}, vec![spawn_local(client.run()), signs])
}

/// Completes roles until it is stopped.
fn complete(client: Client) -> Running {
    let note = |note: String| eprintln!("aggregator: {note}");
    let completes = spawn_local(aggregate::run(client.clone(), note));
    Running::new(async {}, vec![spawn_local(client.run()), completes])
}

/// What one of several servers does.
struct Role<'a> {
    /// In `kube-system`.
    lease: &'static str,
    plan: &'a Plan,
    port: u16,
}

impl Role<'_> {
    /// Whoever works in this role writes so.
    fn leading(&self, credentials: &Credentials) -> Result<Credentials, String> {
        let credentials = credentials.clone();
        let Some(election) = &self.plan.election else { return Ok(credentials) };
        let config = election.config(self.lease);
        credentials.leading_by(&Hold { lease: config.lease, holder: config.identity })
    }

    /// Works at once, or while it leads. The elector asks with these credentials.
    fn start(self, elector: Credentials, work: impl Fn() -> Running + 'static) -> Running {
        let Role { lease, plan, port } = self;
        let Some(election) = &plan.election else { return work() };
        let client = client("elector", plan.server, port, elector);
        lead::while_elected(election.config(lease), client, work)
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
pub type Perform<A> = fn(&[Client], <A as Actor>::Effect, AnswerTo<A>) -> Local<()>;

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
pub fn to<A: Actor, R: 'static>(answer: AnswerTo<A>, event: fn(R) -> A::Event) -> Answer<R> {
    let answer = Rc::new(answer);
    Answer::new(move |reply| {
        let (answer, event) = (Rc::clone(&answer), event(reply));
        async move { answer.send(event).await.map_err(|_| Closed) }
    })
}

/// Carries out what an actor asks for that speaks to the API only, by these clients.
pub fn driver<A: Actor>(clients: Vec<Client>, perform: Perform<A>) -> impl Driver<A> {
    OverTheApi { clients, perform }
}

/// Its first client is the one whose connection the actor is told of.
fn run<A: Actor>(
    (config, board): (A::Config, &Board),
    clients: Vec<Client>,
    perform: Perform<A>,
    event: fn(api::Event) -> A::Event,
) -> Running {
    let connections = clients.first().map(Client::listen);
    let driver = OverTheApi { clients: clients.clone(), perform };
    let hosted = Rc::new(host::spawn::<A>(config, driver, SystemClock::new(), settings::<A>()));
    board.add(&hosted);
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
