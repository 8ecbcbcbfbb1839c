//! Behind every port stands a model: what an actor asked for is done a little later, and answered.
//! What a dead life asked for is done all the same: it was on its way.

use super::fleet::Fleet;
use super::{Cell, Component, Due, Kind, Life, Owner, World};
use crate::body::Body;
use crate::kernel::{Kernel, NsId, SocketEvent, SocketId};
use crate::models::usage::usage;
use crate::profiles::flannel::Flannel;
use crate::profiles::kube_dns::KubeDns;
use kubesim_actors::apiserver::{self, ApiServer};
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::dns::{self, Dns};
use kubesim_actors::kubelet::{self, Kubelet};
use kubesim_actors::netd::{self, Netd};
use kubesim_actors::ports::{
    api, container, files, metrics, network, packets, probe, rules, store, volumes,
};
use kubesim_actors::proxy::{self, Proxy};
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_runtime::{Ticket, Time};
use std::net::Ipv4Addr;
use std::time::Duration;

/// One netlink request.
const NETLINK: Duration = Duration::from_micros(80);
/// One `iptables-restore`, the size of its change left out.
const RESTORE: Duration = Duration::from_millis(3);
const FILE: Duration = Duration::from_micros(100);
/// What metrics-server takes to answer: it and who asks are on the API server's machine.
const MEASURED: Duration = Duration::from_millis(5);
/// An fsync of the store's disk: at least, and at most so much more.
const FSYNC: Duration = Duration::from_micros(400);
const FSYNC_SPREAD: Duration = Duration::from_micros(600);

/// Something asked of a port, on its way.
#[derive(Debug)]
pub enum Work {
    Network { life: Life, ticket: Ticket, request: network::Request },
    Rules { life: Life, ticket: Ticket, request: rules::Request },
    Files { life: Life, ticket: Ticket, request: files::Request },
    Container { life: Life, ticket: Ticket, request: container::Request },
    Volumes { life: Life, ticket: Ticket, request: volumes::Request },
    Step { machine: u32, boots: u32, step: Box<crate::models::runtime::Step> },
    Store { life: Life, ticket: Ticket, request: store::Request },
    Committed { life: Life, ticket: Ticket, reply: store::Reply },
    Metrics { life: Life, ticket: Ticket, request: metrics::Request },
}

macro_rules! component {
    ($actor:ty, $kind:ident, $fleet:ident, $perform:expr) => {
        impl Component for $actor {
            const KIND: Kind = Kind::$kind;
            fn fleet(world: &mut World) -> &mut Fleet<Self> {
                &mut world.$fleet
            }
            fn perform(world: &mut World, life: Life, ticket: Ticket, effect: Self::Effect) {
                #[allow(clippy::redundant_closure_call)]
                ($perform)(world, life, ticket, effect)
            }
        }
    };
}

component!(ApiServer, ApiServer, apiservers, |world: &mut World, life, ticket, effect| {
    match effect {
        apiserver::Effect::Store(request) => {
            world.later(FILE, Work::Store { life, ticket, request })
        }
        apiserver::Effect::Publish(cache) => world.publish(cache),
        apiserver::Effect::Respond { id, result } => world.front_respond(id, result),
        apiserver::Effect::Refuse { why } => world.refused(life.cell, why),
    }
});
component!(Controllers, Controllers, controllers, |world: &mut World, life, ticket, effect| {
    use controllers::Effect;
    match effect {
        // Nobody asks here who it is that asks.
        Effect::Api(effect) | Effect::Collect(effect) => world.api_effect(life, ticket, effect),
        Effect::Metrics(request) => world.later(MEASURED, Work::Metrics { life, ticket, request }),
    }
});
component!(Scheduler, Scheduler, schedulers, |world: &mut World, life, ticket, effect| {
    let scheduler::Effect::Api(effect) = effect;
    world.api_effect(life, ticket, effect);
});
component!(Kubelet, Kubelet, kubelets, |world: &mut World, life, ticket, effect| match effect {
    kubelet::Effect::Api(effect) => world.api_effect(life, ticket, effect),
    kubelet::Effect::Container(request) => {
        world.later(FILE, Work::Container { life, ticket, request });
    }
    kubelet::Effect::Probe(request) => world.kubelet_probe(life, ticket, request),
    kubelet::Effect::Files(request) => world.later(FILE, Work::Files { life, ticket, request }),
    kubelet::Effect::Volumes(request) => world.volumes_effect(life, ticket, request),
    kubelet::Effect::Rules(request) => world.later(RESTORE, Work::Rules { life, ticket, request }),
    kubelet::Effect::Network(request) =>
        world.later(NETLINK, Work::Network { life, ticket, request }),
});
component!(Netd, Netd, netds, World::netd_effect);
component!(Flannel, Flannel, flannels, World::netd_effect);
component!(Proxy, Proxy, proxies, |world: &mut World, life, ticket, effect| match effect {
    proxy::Effect::Api(effect) => world.api_effect(life, ticket, effect),
    proxy::Effect::Rules(request) => world.later(RESTORE, Work::Rules { life, ticket, request }),
});
component!(Dns, Dns, dns, World::dns_effect);
component!(KubeDns, KubeDns, kube_dns, World::dns_effect);

impl World {
    fn netd_effect(&mut self, life: Life, ticket: Ticket, effect: netd::Effect) {
        match effect {
            netd::Effect::Api(effect) => self.api_effect(life, ticket, effect),
            netd::Effect::Network(request) => {
                self.later(NETLINK, Work::Network { life, ticket, request })
            }
            netd::Effect::Rules(request) => {
                self.later(RESTORE, Work::Rules { life, ticket, request })
            }
            netd::Effect::Files(request) => self.later(FILE, Work::Files { life, ticket, request }),
            netd::Effect::Packets(request) => self.packets_effect(life, ticket, request),
        }
    }

    fn dns_effect(&mut self, life: Life, ticket: Ticket, effect: dns::Effect) {
        match effect {
            dns::Effect::Api(effect) => self.api_effect(life, ticket, effect),
            dns::Effect::Files(request) => self.later(FILE, Work::Files { life, ticket, request }),
            dns::Effect::Packets(request) => self.packets_effect(life, ticket, request),
        }
    }

    pub(super) fn later(&mut self, delay: Duration, work: Work) {
        self.work_at(self.now + delay, work);
    }

    pub(super) fn work_at(&mut self, at: Time, work: Work) {
        let slot = self.work.insert(work) as u32;
        self.queue.push(at, Due::Work { slot });
    }

    pub(super) fn do_work(&mut self, slot: usize) {
        match self.work.remove(slot) {
            Work::Network { life, ticket, request } => self.do_network(life, ticket, &request),
            Work::Rules { life, ticket, request } => self.do_rules(life, ticket, &request),
            Work::Files { life, ticket, request } => self.do_files(life, ticket, &request),
            Work::Container { life, ticket, request } => self.do_container(life, ticket, &request),
            Work::Volumes { life, ticket, request } => self.do_volumes(life, ticket, &request),
            Work::Step { machine, boots, step } => self.do_step(machine, boots, *step),
            Work::Store { life, ticket, request } => self.do_store(life, ticket, &request),
            Work::Committed { life, ticket, reply } => {
                let event = apiserver::Event::Store(reply);
                self.send::<ApiServer>(life, self.now, Some(ticket), event);
            }
            Work::Metrics { life, ticket, request } => self.do_metrics(life, ticket, request),
        }
    }

    fn do_metrics(&mut self, life: Life, ticket: Ticket, request: metrics::Request) {
        if self.is_on(life).is_none() {
            return;
        }
        let result = usage(self.front.cache(), &request, self.wall());
        let reply = metrics::Reply { subject: request.subject, result };
        let event = controllers::Event::Metrics(reply);
        self.send::<Controllers>(life, self.now, Some(ticket), event);
    }

    fn is_on(&self, life: Life) -> Option<u32> {
        let machine = self.machine_of(life.cell);
        self.machines[machine as usize].on.then_some(machine)
    }

    fn do_network(&mut self, life: Life, ticket: Ticket, request: &network::Request) {
        let Some(machine) = self.is_on(life) else { return };
        if matches!(request, network::Request::Observe) {
            let host = &mut self.machines[machine as usize];
            host.observers.retain(|known| known.cell != life.cell);
            host.observers.push(life);
            let state = host.kernel.state();
            let reply = network::Reply::State(std::sync::Arc::new(state));
            self.tell_network(life, None, reply);
            return;
        }
        let reply = self.kernel(machine, |kernel, now, out| kernel.network(now, request, out));
        self.tell_network(life, Some(ticket), reply);
    }

    pub(super) fn tell_network(
        &mut self,
        life: Life,
        ticket: Option<Ticket>,
        reply: network::Reply,
    ) {
        let at = self.now;
        match life.cell.kind {
            Kind::Kubelet => self.send::<Kubelet>(life, at, ticket, kubelet::Event::Network(reply)),
            Kind::Netd => self.send::<Netd>(life, at, ticket, netd::Event::Network(reply)),
            Kind::Flannel => self.send::<Flannel>(life, at, ticket, netd::Event::Network(reply)),
            _ => {}
        }
    }

    fn do_rules(&mut self, life: Life, ticket: Ticket, request: &rules::Request) {
        let Some(machine) = self.is_on(life) else { return };
        let reply = self.kernel(machine, |kernel, now, out| kernel.rules(now, request, out));
        let Some(reply) = reply else { return };
        let at = self.now;
        match life.cell.kind {
            Kind::Kubelet => {
                self.send::<Kubelet>(life, at, Some(ticket), kubelet::Event::Rules(reply));
            }
            Kind::Proxy => self.send::<Proxy>(life, at, Some(ticket), proxy::Event::Rules(reply)),
            Kind::Netd => self.send::<Netd>(life, at, Some(ticket), netd::Event::Rules(reply)),
            Kind::Flannel => {
                self.send::<Flannel>(life, at, Some(ticket), netd::Event::Rules(reply))
            }
            _ => {}
        }
    }

    fn do_files(&mut self, life: Life, ticket: Ticket, request: &files::Request) {
        let Some(machine) = self.is_on(life) else { return };
        let streams = matches!(request, files::Request::Watch { .. });
        let replies = self.machines[machine as usize].files.request(request, life.pack());
        for (index, (watcher, reply)) in replies.into_iter().enumerate() {
            // The first reply answers the request itself; the others tell watchers.
            let Some(watcher) = Life::unpack(watcher) else { continue };
            let answers = index == 0 && !streams && watcher == life;
            self.tell_files(watcher, answers.then_some(ticket), reply);
        }
    }

    pub(super) fn tell_files(&mut self, life: Life, ticket: Option<Ticket>, reply: files::Reply) {
        let at = self.now;
        match life.cell.kind {
            Kind::Kubelet => self.send::<Kubelet>(life, at, ticket, kubelet::Event::Files(reply)),
            Kind::Netd => self.send::<Netd>(life, at, ticket, netd::Event::Files(reply)),
            Kind::Flannel => self.send::<Flannel>(life, at, ticket, netd::Event::Files(reply)),
            Kind::Dns => self.send::<Dns>(life, at, ticket, dns::Event::Files(reply)),
            Kind::KubeDns => self.send::<KubeDns>(life, at, ticket, dns::Event::Files(reply)),
            _ => {}
        }
    }

    /// A node that has no volumes has nothing to say of them.
    fn volumes_effect(&mut self, life: Life, ticket: Ticket, request: volumes::Request) {
        let machine = self.machine_of(life.cell);
        let lists = matches!(request, volumes::Request::List);
        if !lists || !self.machines[machine as usize].volumes.is_empty() {
            self.later(FILE, Work::Volumes { life, ticket, request });
        }
    }

    fn do_volumes(&mut self, life: Life, ticket: Ticket, request: &volumes::Request) {
        let Some(machine) = self.is_on(life) else { return };
        let lists = matches!(request, volumes::Request::List);
        let reply = self.machines[machine as usize].volumes.request(request);
        let Some(reply) = reply else { return };
        let ticket = Some(ticket).filter(|_| !lists);
        self.send::<Kubelet>(life, self.now, ticket, kubelet::Event::Volumes(reply));
    }

    /// The store applies at once and acknowledges after the disk has synced. Acknowledgements come
    /// in the order of their revisions.
    fn do_store(&mut self, life: Life, ticket: Ticket, request: &store::Request) {
        if self.is_on(life).is_none() {
            return;
        }
        let reply = self.store.request(request);
        let wait = self.rng.between(FSYNC, FSYNC + FSYNC_SPREAD);
        self.disk = (self.now + wait).max(self.disk);
        self.work_at(self.disk, Work::Committed { life, ticket, reply });
    }

    pub(super) fn tell_api(
        &mut self,
        life: Life,
        at: Time,
        ticket: Option<Ticket>,
        event: api::Event,
    ) {
        match life.cell.kind {
            Kind::Controllers => {
                self.send::<Controllers>(life, at, ticket, controllers::Event::Api(event))
            }
            Kind::Scheduler => {
                self.send::<Scheduler>(life, at, ticket, scheduler::Event::Api(event))
            }
            Kind::Kubelet => self.send::<Kubelet>(life, at, ticket, kubelet::Event::Api(event)),
            Kind::Netd => self.send::<Netd>(life, at, ticket, netd::Event::Api(event)),
            Kind::Flannel => self.send::<Flannel>(life, at, ticket, netd::Event::Api(event)),
            Kind::Proxy => self.send::<Proxy>(life, at, ticket, proxy::Event::Api(event)),
            Kind::Dns => self.send::<Dns>(life, at, ticket, dns::Event::Api(event)),
            Kind::KubeDns => self.send::<KubeDns>(life, at, ticket, dns::Event::Api(event)),
            Kind::ApiServer => {}
        }
    }

    pub(super) fn tell_container(
        &mut self,
        life: Life,
        ticket: Option<Ticket>,
        reply: container::Reply,
    ) {
        if life.cell.kind == Kind::Kubelet {
            self.send::<Kubelet>(life, self.now, ticket, kubelet::Event::Container(reply));
        }
    }

    pub(super) fn tell_probe(&mut self, life: Life, ticket: Ticket, reply: probe::Reply) {
        if life.cell.kind == Kind::Kubelet {
            self.send::<Kubelet>(life, self.now, Some(ticket), kubelet::Event::Probe(reply));
        }
    }

    /// A cluster DNS sent a query on.
    pub(super) fn query_forwarded(&mut self, cell: Cell, to: Ipv4Addr) {
        self.forwarded.push((self.now, cell, to));
    }

    /// The actor's own remark has said it to whoever watches.
    pub(super) fn refused(&mut self, cell: Cell, why: String) {
        let now = self.now;
        let known =
            self.refusals.iter_mut().find(|(known, text, _)| *known == cell && *text == why);
        match known {
            Some((.., at)) => *at = now,
            None => self.refusals.push((cell, why, now)),
        }
    }

    // Datagrams of actors; their connections are in `connections`.

    fn packets_effect(&mut self, life: Life, ticket: Ticket, request: packets::Request) {
        let Some(machine) = self.is_on(life) else { return };
        match request {
            packets::Request::Bind { address, port } => self.bind(machine, life, address, port),
            packets::Request::Send { from, from_port, to, body } => {
                let host = &self.machines[machine as usize];
                let bound =
                    host.sockets.iter().find(|(l, port, _)| *l == life && *port == from_port);
                let Some(&(_, _, socket)) = bound else { return };
                let (len, body) = match body {
                    packets::Body::Dns(message) => {
                        if !message.response {
                            self.query_forwarded(life.cell, *to.ip());
                        }
                        (message.wire_len() as u32, Body::Dns(message))
                    }
                    packets::Body::Peer(signed) => (180, Body::Peer(signed)),
                };
                let sent = self.kernel(machine, |k, now, out| {
                    k.udp_send(now, socket, from, to, body, len, out)
                });
                if sent.is_err() {
                    self.tell_packets(life, None, packets::Reply::Unreachable { to });
                }
            }
            packets::Request::Listen { address, port } => {
                self.listen(machine, life, address, port);
            }
            packets::Request::Respond { connection, message } => {
                self.respond(machine, connection, message);
            }
            packets::Request::Ask { to, message } => {
                self.ask_over_tcp(machine, (life, ticket), to, message);
            }
        }
    }

    fn bind(&mut self, machine: u32, life: Life, address: Ipv4Addr, port: u16) {
        self.have_address(machine, address);
        let owner = Owner::Actor(life.cell).pack();
        match self.kernel(machine, |k, _, _| k.udp_bind(NsId::HOST, address, port, owner)) {
            Ok(socket) => self.machines[machine as usize].sockets.push((life, port, socket)),
            Err(why) => self.tell_packets(life, None, packets::Reply::BindFailed { port, why }),
        }
    }

    /// An address that is the service's own lives on lo, as node-local DNS caches have it, and no
    /// packet of the machine's own is to have it: on a link without an address it would be taken
    /// for the source (inet_select_addr).
    pub(super) fn have_address(&mut self, machine: u32, address: Ipv4Addr) {
        if !address.is_unspecified() {
            let net = ipnet::Ipv4Net::new_assert(address, 32);
            let lo = Kernel::LO;
            // It may be there already.
            let _ = self
                .kernel(machine, |k, now, out| k.add_host_address(now, NsId::HOST, lo, net, out));
        }
    }

    pub(super) fn tell_packets(
        &mut self,
        life: Life,
        ticket: Option<Ticket>,
        reply: packets::Reply,
    ) {
        let at = self.now;
        match life.cell.kind {
            Kind::Netd => self.send::<Netd>(life, at, ticket, netd::Event::Packets(reply)),
            Kind::Flannel => self.send::<Flannel>(life, at, ticket, netd::Event::Packets(reply)),
            Kind::Dns => self.send::<Dns>(life, at, ticket, dns::Event::Packets(reply)),
            Kind::KubeDns => self.send::<KubeDns>(life, at, ticket, dns::Event::Packets(reply)),
            _ => {}
        }
    }

    pub(super) fn actor_socket(
        &mut self,
        machine: u32,
        cell: Cell,
        socket: SocketId,
        event: SocketEvent,
    ) {
        let life = self.life(cell);
        match event {
            SocketEvent::Datagram { from, local, body, .. } => {
                let body = match body {
                    Body::Dns(message) => packets::Body::Dns(message),
                    Body::Peer(signed) => packets::Body::Peer(signed),
                    _ => return,
                };
                self.tell_packets(life, None, packets::Reply::Datagram { local, from, body });
            }
            SocketEvent::Icmp { to, .. } => {
                self.tell_packets(life, None, packets::Reply::Unreachable { to });
            }
            event => self.connection_event(machine, socket, event),
        }
    }
}
