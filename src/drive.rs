//! A node's actors under the production host, with this machine's drivers: which of these carries
//! out what each of them asks for. What the API is to a component is its owner's matter, and so is
//! what runs containers.

use crate::status::Board;
use kubesim_actors::dns;
use kubesim_actors::kubelet::{self, Kubelet};
use kubesim_actors::netd;
use kubesim_actors::ports::{api, container, network};
use kubesim_actors::proxy::{self, Proxy};
use kubesim_backends::files::Files;
use kubesim_backends::http::client::Client;
use kubesim_backends::network::Network;
use kubesim_backends::packets::Packets;
use kubesim_backends::port::{Answer, Closed, Local, Port};
use kubesim_backends::probe::Probes;
use kubesim_backends::rules::Rules;
use kubesim_backends::volumes::Volumes;
use kubesim_runtime::host::{self, AnswerTo, Driver, Hosted, Settings, SystemClock};
use kubesim_runtime::{Actor, Ticket};
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, spawn_local};

/// The drivers of a node, in its network namespace.
#[derive(Clone)]
pub struct Drivers<C> {
    pub network: Network,
    pub rules: Rc<Rules>,
    pub files: Files,
    pub volumes: Volumes,
    pub containers: C,
    pub probes: Probes,
    pub dns: Packets,
    pub peers: Packets,
}

/// What a component acts with.
pub struct Means<A, C> {
    /// The API as it has it.
    pub api: A,
    pub drivers: Drivers<C>,
}

/// The API port.
pub trait Api: Port<Request = api::Effect, Reply = api::Event> + 'static {}
impl<P: Port<Request = api::Effect, Reply = api::Event> + 'static> Api for P {}

/// The container port.
pub trait Containers: Port<Request = container::Request, Reply = container::Reply> {}
impl<P: Port<Request = container::Request, Reply = container::Reply>> Containers for P {}

/// An actor that runs, whichever it is. With the value end its news of the connection.
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

/// News of the API connection, and the events that they are to an actor.
pub type Connections<A> = (UnboundedReceiver<bool>, fn(api::Event) -> <A as Actor>::Event);

/// Starts an actor that is told of the API connection, whenever it came up or was lost, and that
/// answers by the board.
pub fn start<A: Actor, M: 'static>(
    config: A::Config,
    driver: On<M, impl Fn(&M, A::Effect, AnswerTo<A>) -> Local<()> + 'static>,
    (mut connections, event): Connections<A>,
    settings: Settings,
    board: &Board,
) -> Box<dyn Running> {
    let hosted = Rc::new(host::spawn(config, driver, SystemClock::new(), settings));
    board.add(&hosted);
    let told = Rc::clone(&hosted);
    let connected = spawn_local(async move {
        while let Some(up) = connections.recv().await {
            let _ = told.send(event(api::Event::Connected(up))).await;
        }
    });
    Box::new(Run::<A> { hosted, connected })
}

/// A driver that is a function.
pub struct On<M, F>(M, F);

pub fn on<A, M, F>(means: M, perform: F) -> On<M, F>
where
    A: Actor,
    F: Fn(&M, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
{
    On(means, perform)
}

impl<A, M, F> Driver<A> for On<M, F>
where
    A: Actor,
    M: 'static,
    F: Fn(&M, A::Effect, AnswerTo<A>) -> Local<()> + 'static,
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
pub fn to<A: Actor, R: 'static>(answer: AnswerTo<A>, event: fn(R) -> A::Event) -> Answer<R> {
    let answer = Rc::new(answer);
    Answer::new(move |reply| {
        let (answer, event) = (Rc::clone(&answer), event(reply));
        async move { answer.send(event).await.map_err(|_| Closed) }
    })
}

pub fn kubelet_effect(
    means: &Means<impl Api, impl Containers>,
    effect: kubelet::Effect,
    answer: AnswerTo<Kubelet>,
) -> Local<()> {
    use kubelet::{Effect, Event};
    let drivers = &means.drivers;
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Container(request) => {
            drivers.containers.perform(request, to(answer, Event::Container))
        }
        Effect::Probe(request) => drivers.probes.perform(request, to(answer, Event::Probe)),
        Effect::Files(request) => drivers.files.perform(request, to(answer, Event::Files)),
        Effect::Network(request) => drivers.network.perform(request, to(answer, Event::Network)),
        Effect::Volumes(request) => drivers.volumes.perform(request, to(answer, Event::Volumes)),
        Effect::Rules(request) => drivers.rules.perform(request, to(answer, Event::Rules)),
    }
}

pub fn netd_effect<A, C>(
    means: &Means<impl Api, C>,
    effect: netd::Effect,
    answer: AnswerTo<A>,
) -> Local<()>
where
    A: Actor<Effect = netd::Effect, Event = netd::Event>,
{
    use netd::{Effect, Event};
    let drivers = &means.drivers;
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Network(request) => drivers.network.perform(request, to(answer, Event::Network)),
        Effect::Rules(request) => drivers.rules.perform(request, to(answer, Event::Rules)),
        Effect::Files(request) => drivers.files.perform(request, to(answer, Event::Files)),
        Effect::Packets(request) => drivers.peers.perform(request, to(answer, Event::Packets)),
    }
}

pub fn proxy_effect<C>(
    means: &Means<impl Api, C>,
    effect: proxy::Effect,
    answer: AnswerTo<Proxy>,
) -> Local<()> {
    match effect {
        proxy::Effect::Api(effect) => means.api.perform(effect, to(answer, proxy::Event::Api)),
        proxy::Effect::Rules(request) => {
            means.drivers.rules.perform(request, to(answer, proxy::Event::Rules))
        }
    }
}

pub fn dns_effect<A, C>(
    means: &Means<impl Api, C>,
    effect: dns::Effect,
    answer: AnswerTo<A>,
) -> Local<()>
where
    A: Actor<Effect = dns::Effect, Event = dns::Event>,
{
    use dns::{Effect, Event};
    let drivers = &means.drivers;
    match effect {
        Effect::Api(effect) => means.api.perform(effect, to(answer, Event::Api)),
        Effect::Files(request) => drivers.files.perform(request, to(answer, Event::Files)),
        Effect::Packets(request) => drivers.dns.perform(request, to(answer, Event::Packets)),
    }
}

/// Tells all of a node's clients where the server is.
pub fn dial<'a>(clients: impl Iterator<Item = &'a Client>, effect: &api::Effect) -> Local<()> {
    let told = clients.map(|client| {
        let none = Answer::new(|_| async { Ok(()) });
        client.perform(effect.clone(), none)
    });
    let told: Vec<Local<()>> = told.collect();
    Box::pin(async move {
        for one in told {
            one.await;
        }
    })
}

/// Has somebody (the API's clients) told whenever the node's addresses are others: whether it has
/// one.
pub fn observe_addresses(network: &Network, changed: impl Fn(&dyn Fn(IpAddr) -> bool) + 'static) {
    let answer = Answer::new(move |reply| {
        if let network::Reply::State(state) = reply {
            let all = || state.links.iter().flat_map(|link| &link.addresses);
            changed(&|ip| all().any(|net| net.addr() == ip));
        }
        async { Ok(()) }
    });
    spawn_local(network.perform(network::Request::Observe, answer));
}
