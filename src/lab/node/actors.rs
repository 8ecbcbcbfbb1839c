//! A node's actors under the production host, and which driver carries out what they ask for.

use super::clients::{Api, Clients};
use super::relay::Relay;
use super::server::Serving;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::{Behind, Config, Plan};
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::dns::{self, Dns};
use kubesim_actors::kubelet::{self, Kubelet};
use kubesim_actors::netd::{self, Netd};
use kubesim_actors::ports::api;
use kubesim_actors::proxy::{self, Proxy};
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_backends::containers::Processes;
use kubesim_backends::files::Files;
use kubesim_backends::http::client::Trust;
use kubesim_backends::network::Network;
use kubesim_backends::packets::Packets;
use kubesim_backends::port::{Answer, Closed, Local, Port};
use kubesim_backends::probe::Probes;
use kubesim_backends::rules::Rules;
use kubesim_runtime::host::{self, AnswerTo, Driver, Hosted, Seen, Settings, SystemClock};
use kubesim_runtime::{Actor, Ticket};
use kubesim_sim::profiles::flannel::Flannel;
use kubesim_sim::profiles::kube_dns::KubeDns;
use kubesim_sim::world::Cell;
use std::future::Future;
use std::rc::Rc;
use tokio::task::{JoinHandle, spawn_local};

/// The drivers of a node.
#[derive(Clone)]
pub struct Ports {
    pub clients: Clients,
    pub trust: Trust,
    pub network: Network,
    pub rules: Rc<Rules>,
    pub files: Files,
    pub containers: Processes,
    pub probes: Probes,
    pub dns: Packets,
    pub peers: Packets,
}

/// An actor that runs, whichever it is.
pub trait Running {
    fn stop(&self) -> Local<()>;
}

struct Run<A: Actor> {
    hosted: Rc<Hosted<A>>,
    connected: JoinHandle<()>,
}

impl<A: Actor> Running for Run<A> {
    fn stop(&self) -> Local<()> {
        let hosted = Rc::clone(&self.hosted);
        Box::pin(async move { hosted.stop().await })
    }
}

impl<A: Actor> Drop for Run<A> {
    fn drop(&mut self) {
        self.connected.abort();
    }
}

/// The actors of a node, those that run and those that do not.
pub struct Hosts {
    plan: Rc<Plan>,
    ports: Ports,
    mail: Mail,
    running: Vec<(Cell, Box<dyn Running>)>,
}

impl Hosts {
    pub fn new(plan: &Rc<Plan>, ports: &Ports, mail: &Mail) -> Hosts {
        let (plan, ports, mail) = (Rc::clone(plan), ports.clone(), mail.clone());
        Hosts { plan, ports, mail, running: Vec::new() }
    }

    pub fn start_all(&mut self) {
        for (cell, config) in self.plan.actors.clone() {
            self.start(cell, config);
        }
    }

    /// Starts those that do not run.
    pub fn start_again(&mut self, which: impl Fn(Cell) -> bool) {
        for (cell, config) in self.plan.actors.clone() {
            let runs = self.running.iter().any(|(known, _)| *known == cell);
            if which(cell) && !runs {
                self.start(cell, config);
            }
        }
    }

    /// Ends those that run, for good or until their supervisor starts them anew.
    pub async fn end(&mut self, which: impl Fn(Cell) -> bool) {
        let running = std::mem::take(&mut self.running);
        let (ending, kept) = running.into_iter().partition(|(cell, _)| which(*cell));
        self.running = kept;
        let ending: Vec<(Cell, Box<dyn Running>)> = ending;
        for (_, actor) in ending {
            actor.stop().await;
        }
    }

    fn start(&mut self, cell: Cell, config: Config) {
        // What is no client serves.
        let running = match self.ports.clients.of(cell.kind) {
            Some(api) => self.client_of(cell, config, Means { api, ports: self.ports.clone() }),
            None => self.server_of(cell, config),
        };
        self.running.extend(running.map(|running| (cell, running)));
    }

    fn server_of(&self, cell: Cell, config: Config) -> Option<Box<dyn Running>> {
        let (Config::ApiServer(config), Some(door)) = (config, &self.plan.door) else {
            return None;
        };
        Some(match &door.behind {
            Behind::Server(front) => Box::new(Serving::start(cell, config, front, &self.mail)),
            Behind::Outside(outside) => Box::new(Relay::start(outside, &self.mail)),
        })
    }

    fn client_of(&self, cell: Cell, config: Config, means: Means) -> Option<Box<dyn Running>> {
        Some(match config {
            Config::ApiServer(_) => return None,
            Config::Controllers(config) => {
                self.client(cell, config, on(means, controllers_effect), controllers::Event::Api)
            }
            Config::Scheduler(config) => {
                self.client(cell, config, on(means, scheduler_effect), scheduler::Event::Api)
            }
            Config::Kubelet(config) => {
                self.client(cell, config, on(means, kubelet_effect), kubelet::Event::Api)
            }
            Config::Netd(config) => {
                self.client(cell, config, on(means, netd_effect::<Netd>), netd::Event::Api)
            }
            Config::Flannel(config) => {
                self.client(cell, config, on(means, netd_effect::<Flannel>), netd::Event::Api)
            }
            Config::Proxy(config) => {
                self.client(cell, config, on(means, proxy_effect), proxy::Event::Api)
            }
            Config::Dns(config) => {
                self.client(cell, config, on(means, dns_effect::<Dns>), dns::Event::Api)
            }
            Config::KubeDns(config) => {
                self.client(cell, config, on(means, dns_effect::<KubeDns>), dns::Event::Api)
            }
        })
    }

    /// An actor that is told of the API connection.
    fn client<A: Actor>(
        &self,
        cell: Cell,
        config: A::Config,
        driver: On<impl Fn(&Means, A::Effect, AnswerTo<A>) -> Local<()> + 'static>,
        event: fn(api::Event) -> A::Event,
    ) -> Box<dyn Running> {
        let mut connections = driver.0.api.listen();
        let hosted = Rc::new(self.spawn(cell, config, driver));
        let told = Rc::clone(&hosted);
        let connected = spawn_local(async move {
            while let Some(up) = connections.recv().await {
                let _ = told.send(event(api::Event::Connected(up))).await;
            }
        });
        Box::new(Run::<A> { hosted, connected })
    }

    fn spawn<A: Actor>(&self, cell: Cell, config: A::Config, driver: impl Driver<A>) -> Hosted<A> {
        let mail = self.mail.clone();
        let observer = move |seen| match seen {
            Seen::Note { text, .. } => mail.send(News::Noted(cell, text)),
            Seen::Failed { cause, .. } => mail.send(News::Failed(cell, cause)),
            Seen::Step { .. } => {}
        };
        let settings = Settings {
            seed: self.plan.seed,
            index: cell.index.into(),
            steps: false,
            observer: Box::new(observer),
        };
        host::spawn(config, driver, SystemClock::new(), settings)
    }
}

/// What a component acts with: the API as it has it, and the node's drivers.
struct Means {
    api: Api,
    ports: Ports,
}

/// A driver that is a function.
struct On<F>(Means, F);

fn on<A, F>(means: Means, perform: F) -> On<F>
where
    A: Actor,
    F: Fn(&Means, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
{
    On(means, perform)
}

impl<A, F> Driver<A> for On<F>
where
    A: Actor,
    F: Fn(&Means, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
{
    fn perform(
        &self,
        _: Ticket,
        effect: A::Effect,
        answer: AnswerTo<A>,
    ) -> impl Future<Output = ()> + 'static {
        (self.1)(&self.0, effect, answer)
    }
}

/// An answer's way back, as the event it is to the actor.
fn to<A: Actor, R: 'static>(answer: AnswerTo<A>, event: fn(R) -> A::Event) -> Answer<R> {
    let answer = Rc::new(answer);
    Answer::new(move |reply| {
        let (answer, event) = (Rc::clone(&answer), event(reply));
        async move { answer.send(event).await.map_err(|_| Closed) }
    })
}

fn controllers_effect(
    means: &Means,
    effect: controllers::Effect,
    answer: AnswerTo<Controllers>,
) -> Local<()> {
    use controllers::{Effect, Event};
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Collect(effect) => means.api.as_other().perform(effect, to(answer, Event::Api)),
        Effect::Metrics(request) => {
            means.api.metrics().perform(request, to(answer, Event::Metrics))
        }
    }
}

fn scheduler_effect(
    means: &Means,
    effect: scheduler::Effect,
    answer: AnswerTo<Scheduler>,
) -> Local<()> {
    let scheduler::Effect::Api(effect) = effect;
    means.api.perform(effect, to(answer, scheduler::Event::Api))
}

fn kubelet_effect(means: &Means, effect: kubelet::Effect, answer: AnswerTo<Kubelet>) -> Local<()> {
    use kubelet::{Effect, Event};
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Container(request) => {
            means.ports.containers.perform(request, to(answer, Event::Container))
        }
        Effect::Probe(request) => means.ports.probes.perform(request, to(answer, Event::Probe)),
        Effect::Files(request) => means.ports.files.perform(request, to(answer, Event::Files)),
        Effect::Network(request) => {
            means.ports.network.perform(request, to(answer, Event::Network))
        }
    }
}

fn netd_effect<A>(means: &Means, effect: netd::Effect, answer: AnswerTo<A>) -> Local<()>
where
    A: Actor<Effect = netd::Effect, Event = netd::Event>,
{
    use netd::{Effect, Event};
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Network(request) => {
            means.ports.network.perform(request, to(answer, Event::Network))
        }
        Effect::Rules(request) => means.ports.rules.perform(request, to(answer, Event::Rules)),
        Effect::Files(request) => means.ports.files.perform(request, to(answer, Event::Files)),
        Effect::Packets(request) => means.ports.peers.perform(request, to(answer, Event::Packets)),
    }
}

fn proxy_effect(means: &Means, effect: proxy::Effect, answer: AnswerTo<Proxy>) -> Local<()> {
    match effect {
        proxy::Effect::Api(effect) => means.api.perform(effect, to(answer, proxy::Event::Api)),
        proxy::Effect::Rules(request) => {
            means.ports.rules.perform(request, to(answer, proxy::Event::Rules))
        }
    }
}

fn dns_effect<A>(means: &Means, effect: dns::Effect, answer: AnswerTo<A>) -> Local<()>
where
    A: Actor<Effect = dns::Effect, Event = dns::Event>,
{
    use dns::{Effect, Event};
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Files(request) => means.ports.files.perform(request, to(answer, Event::Files)),
        Effect::Packets(request) => means.ports.dns.perform(request, to(answer, Event::Packets)),
    }
}
