//! A node's actors under the production host, and which driver carries out what they ask for.

use super::clients::{Api, Clients};
use super::relay::Relay;
use super::server::Serving;
use crate::drive::{
    self, Drivers, Running, dns_effect, kubelet_effect, netd_effect, proxy_effect, to,
};
use crate::lab::mail::{Mail, News};
use crate::lab::plan::{Behind, Config, Plan};
use crate::status::Board;
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::dns::{self, Dns};
use kubesim_actors::kubelet;
use kubesim_actors::netd::{self, Netd};
use kubesim_actors::ports::api;
use kubesim_actors::proxy;
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_backends::containers::Processes;
use kubesim_backends::http::client::Trust;
use kubesim_backends::port::{Local, Port};
use kubesim_runtime::Actor;
use kubesim_runtime::host::{AnswerTo, Seen, Settings};
use kubesim_sim::profiles::flannel::Flannel;
use kubesim_sim::profiles::kube_dns::KubeDns;
use kubesim_sim::world::Cell;
use std::rc::Rc;

/// The API as the node's components have it, and its drivers.
#[derive(Clone)]
pub struct Ports {
    pub clients: Clients,
    pub trust: Trust,
    pub drivers: Drivers<Processes>,
}

type Means = drive::Means<Api, Processes>;

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
            Some(api) => {
                self.client_of(cell, config, Means { api, drivers: self.ports.drivers.clone() })
            }
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
                self.client(cell, config, means, controllers_effect, controllers::Event::Api)
            }
            Config::Scheduler(config) => {
                self.client(cell, config, means, scheduler_effect, scheduler::Event::Api)
            }
            Config::Kubelet(config) => {
                self.client(cell, config, means, kubelet_effect, kubelet::Event::Api)
            }
            Config::Netd(config) => {
                self.client(cell, config, means, netd_effect::<Netd, _>, netd::Event::Api)
            }
            Config::Flannel(config) => {
                self.client(cell, config, means, netd_effect::<Flannel, _>, netd::Event::Api)
            }
            Config::Proxy(config) => {
                self.client(cell, config, means, proxy_effect, proxy::Event::Api)
            }
            Config::Dns(config) => {
                self.client(cell, config, means, dns_effect::<Dns, _>, dns::Event::Api)
            }
            Config::KubeDns(config) => {
                self.client(cell, config, means, dns_effect::<KubeDns, _>, dns::Event::Api)
            }
        })
    }

    /// An actor that is told of the API connection.
    fn client<A: Actor>(
        &self,
        cell: Cell,
        config: A::Config,
        means: Means,
        perform: impl Fn(&Means, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
        event: fn(api::Event) -> A::Event,
    ) -> Box<dyn Running> {
        let connections = means.api.listen();
        let driver = drive::on::<A, _, _>(means, perform);
        // How it is, the run says.
        let board = Board::default();
        drive::start(config, driver, (connections, event), self.settings(cell), &board)
    }

    fn settings(&self, cell: Cell) -> Settings {
        let mail = self.mail.clone();
        let observer = move |seen| match seen {
            Seen::Note { text, .. } => mail.send(News::Noted(cell, text)),
            Seen::Failed { cause, .. } => mail.send(News::Failed(cell, cause)),
            Seen::Step { .. } => {}
        };
        Settings {
            seed: self.plan.seed,
            index: cell.index.into(),
            steps: false,
            observer: Box::new(observer),
        }
    }
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
