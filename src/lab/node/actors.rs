//! A node's actors under the production host, and which driver carries out what they ask for.

use super::server::ApiDriver;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::{Config, Plan};
use kubesim_actors::apiserver::ApiServer;
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::dns::{self, Dns};
use kubesim_actors::kubelet::{self, Kubelet};
use kubesim_actors::netd::{self, Netd};
use kubesim_actors::ports::api;
use kubesim_actors::proxy::{self, Proxy};
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_backends::api::Client;
use kubesim_backends::containers::Processes;
use kubesim_backends::files::Files;
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
    pub api: Client,
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
    connected: Option<JoinHandle<()>>,
}

impl<A: Actor> Running for Run<A> {
    fn stop(&self) -> Local<()> {
        let hosted = Rc::clone(&self.hosted);
        Box::pin(async move { hosted.stop().await })
    }
}

impl<A: Actor> Drop for Run<A> {
    fn drop(&mut self) {
        if let Some(task) = self.connected.take() {
            task.abort();
        }
    }
}

/// The actors of a node, those that run and those that do not.
pub struct Hosts {
    plan: Rc<Plan>,
    ports: Ports,
    mail: Mail,
    api: ApiDriver,
    running: Vec<(Cell, Box<dyn Running>)>,
}

impl Hosts {
    pub fn new(plan: &Rc<Plan>, ports: &Ports, mail: &Mail) -> Hosts {
        let api = ApiDriver::new(Rc::clone(plan), mail.clone());
        let (plan, ports, mail) = (Rc::clone(plan), ports.clone(), mail.clone());
        Hosts { plan, ports, mail, api, running: Vec::new() }
    }

    pub fn start_all(&mut self) {
        for (cell, config) in self.plan.actors.clone() {
            self.start(cell, config);
        }
    }

    /// The API server's driver: it is where people's writes go in.
    pub fn api(&self) -> &ApiDriver {
        &self.api
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
        let ports = self.ports.clone();
        let running: Box<dyn Running> = match config {
            Config::ApiServer(config) => {
                let hosted = Rc::new(self.spawn::<ApiServer>(cell, config, self.api.clone()));
                self.api.serves(cell, &hosted);
                Box::new(Run { hosted, connected: None })
            }
            Config::Controllers(config) => {
                self.client(cell, config, on(ports, controllers_effect), controllers::Event::Api)
            }
            Config::Scheduler(config) => {
                self.client(cell, config, on(ports, scheduler_effect), scheduler::Event::Api)
            }
            Config::Kubelet(config) => {
                self.client(cell, config, on(ports, kubelet_effect), kubelet::Event::Api)
            }
            Config::Netd(config) => {
                self.client(cell, config, on(ports, netd_effect::<Netd>), netd::Event::Api)
            }
            Config::Flannel(config) => {
                self.client(cell, config, on(ports, netd_effect::<Flannel>), netd::Event::Api)
            }
            Config::Proxy(config) => {
                self.client(cell, config, on(ports, proxy_effect), proxy::Event::Api)
            }
            Config::Dns(config) => {
                self.client(cell, config, on(ports, dns_effect::<Dns>), dns::Event::Api)
            }
            Config::KubeDns(config) => {
                self.client(cell, config, on(ports, dns_effect::<KubeDns>), dns::Event::Api)
            }
        };
        self.running.push((cell, running));
    }

    /// An actor that is told of the API connection.
    fn client<A: Actor>(
        &self,
        cell: Cell,
        config: A::Config,
        driver: impl Driver<A>,
        event: fn(api::Event) -> A::Event,
    ) -> Box<dyn Running> {
        let hosted = Rc::new(self.spawn(cell, config, driver));
        let (mut connections, told) = (self.ports.api.listen(), Rc::clone(&hosted));
        let connected = spawn_local(async move {
            while let Some(up) = connections.recv().await {
                let _ = told.send(event(api::Event::Connected(up))).await;
            }
        });
        Box::new(Run::<A> { hosted, connected: Some(connected) })
    }

    fn spawn<A: Actor>(&self, cell: Cell, config: A::Config, driver: impl Driver<A>) -> Hosted<A> {
        let mail = self.mail.clone();
        let api = self.api.clone();
        let observer = move |seen| match seen {
            Seen::Note { text, .. } => mail.send(News::Noted(cell, text)),
            Seen::Failed { cause, .. } => {
                api.failed(cell);
                mail.send(News::Failed(cell, cause));
            }
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

/// A driver that is a function.
struct On<F>(Ports, F);

fn on<A, F>(ports: Ports, perform: F) -> On<F>
where
    A: Actor,
    F: Fn(&Ports, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
{
    On(ports, perform)
}

impl<A, F> Driver<A> for On<F>
where
    A: Actor,
    F: Fn(&Ports, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
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
    ports: &Ports,
    effect: controllers::Effect,
    answer: AnswerTo<Controllers>,
) -> Local<()> {
    let controllers::Effect::Api(effect) = effect;
    ports.api.perform(effect, to(answer, controllers::Event::Api))
}

fn scheduler_effect(
    ports: &Ports,
    effect: scheduler::Effect,
    answer: AnswerTo<Scheduler>,
) -> Local<()> {
    let scheduler::Effect::Api(effect) = effect;
    ports.api.perform(effect, to(answer, scheduler::Event::Api))
}

fn kubelet_effect(ports: &Ports, effect: kubelet::Effect, answer: AnswerTo<Kubelet>) -> Local<()> {
    use kubelet::{Effect, Event};
    match effect {
        Effect::Api(effect) => ports.api.perform(effect, to(answer, Event::Api)),
        Effect::Container(request) => {
            ports.containers.perform(request, to(answer, Event::Container))
        }
        Effect::Probe(request) => ports.probes.perform(request, to(answer, Event::Probe)),
        Effect::Files(request) => ports.files.perform(request, to(answer, Event::Files)),
        Effect::Network(request) => ports.network.perform(request, to(answer, Event::Network)),
    }
}

fn netd_effect<A>(ports: &Ports, effect: netd::Effect, answer: AnswerTo<A>) -> Local<()>
where
    A: Actor<Effect = netd::Effect, Event = netd::Event>,
{
    use netd::{Effect, Event};
    match effect {
        Effect::Api(effect) => ports.api.perform(effect, to(answer, Event::Api)),
        Effect::Network(request) => ports.network.perform(request, to(answer, Event::Network)),
        Effect::Rules(request) => ports.rules.perform(request, to(answer, Event::Rules)),
        Effect::Files(request) => ports.files.perform(request, to(answer, Event::Files)),
        Effect::Packets(request) => ports.peers.perform(request, to(answer, Event::Packets)),
    }
}

fn proxy_effect(ports: &Ports, effect: proxy::Effect, answer: AnswerTo<Proxy>) -> Local<()> {
    match effect {
        proxy::Effect::Api(effect) => ports.api.perform(effect, to(answer, proxy::Event::Api)),
        proxy::Effect::Rules(request) => {
            ports.rules.perform(request, to(answer, proxy::Event::Rules))
        }
    }
}

fn dns_effect<A>(ports: &Ports, effect: dns::Effect, answer: AnswerTo<A>) -> Local<()>
where
    A: Actor<Effect = dns::Effect, Event = dns::Event>,
{
    use dns::{Effect, Event};
    match effect {
        Effect::Api(effect) => ports.api.perform(effect, to(answer, Event::Api)),
        Effect::Files(request) => ports.files.perform(request, to(answer, Event::Files)),
        Effect::Packets(request) => ports.dns.perform(request, to(answer, Event::Packets)),
    }
}
