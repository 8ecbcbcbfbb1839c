//! A world out of a scenario: its wire, its machines, its actors.

use super::api::Client;
use super::configs::*;
use super::holds::Holder;
use super::{Cell, Component, Due, Knobs, Machine, Role, World};
use crate::kernel::Kernel;
use crate::profiles::flannel::Flannel;
use crate::profiles::kube_dns::KubeDns;
use crate::scenario::{Address, DnsProgram, NetdProgram, Scenario};
use crate::wire::{Quality, SwitchId};
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::ApiServer;
use kubesim_actors::controllers::Controllers;
use kubesim_actors::dns::Dns;
use kubesim_actors::kubelet::Kubelet;
use kubesim_actors::netd::Netd;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::Mac;
use kubesim_actors::proxy::Proxy;
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_runtime::{Rng, Stream, Time};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Where the flannel-shaped configuration lies on every node.
pub const NET_CONF: &str = "/etc/kubesim/net-conf.json";
pub const SUBNET_ENV: &str = "/run/flannel/subnet.env";
pub const NETD_MEMORY: &str = "/var/lib/kubesim/netd.json";
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where nodes keep the volumes that are claimed.
pub(super) const VOLUMES: &str = "/var/lib/kubesim/volumes";
pub(super) const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The scenario's names for places of the wire.
#[derive(Debug, Default)]
pub struct Places {
    /// One switch a network.
    switches: BTreeMap<Name, SwitchId>,
    /// Rack switches and the network's switch they are cabled to.
    racks: BTreeMap<Name, (SwitchId, SwitchId)>,
    routers: BTreeMap<Name, u32>,
    /// The ports of the two routers at the ends of a link.
    links: BTreeMap<Name, Vec<crate::wire::PortId>>,
    /// Router interfaces by machine: name, MAC, address and how it is cabled.
    pub(super) cards: BTreeMap<u32, Vec<Card>>,
}

impl Places {
    pub(super) fn first_card(&self, machine: u32) -> Option<Card> {
        self.cards.get(&machine)?.first().cloned()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Card {
    pub(super) name: Name,
    pub(super) mac: Mac,
    pub(super) address: Option<Ipv4Net>,
    pub(super) mtu: u32,
    switch: SwitchId,
    quality: Quality,
    link: Option<Name>,
}

/// Makes the world; nothing has happened in it yet.
pub fn build(scenario: &Arc<Scenario>, knobs: Knobs) -> World {
    let mut world = World::new(scenario.clone(), knobs);
    world.build_networks();
    world.build_links();
    for (index, upstream) in scenario.upstreams.iter().enumerate() {
        let role = Role::Upstream(index);
        world.build_host(upstream.name.clone(), role, &upstream.network, upstream.address);
    }
    for (index, client) in scenario.clients.iter().enumerate() {
        let role = Role::Client(index);
        world.build_host(client.name.clone(), role, &client.network, client.address);
    }
    world.build_nodes();
    (world.front.gather, world.front.gather_all) = gather(scenario);
    world.plan_faults();
    world.plan_probes();
    world
}

/// News gather longer in bigger clusters, so that a watcher is told of many changes at once: what
/// is a node's own after the first span, what all nodes hear after the second. The scenario's
/// watch delay comes on top.
fn gather(scenario: &Scenario) -> (Duration, Duration) {
    let (own, all) = match scenario.nodes.len() {
        0..=100 => (5, 5),
        101..=1000 => (50, 250),
        _ => (100, 1000),
    };
    let delay = scenario.cluster.watch_delay.from;
    (delay + Duration::from_millis(own), delay + Duration::from_millis(all))
}

fn quality(q: crate::scenario::Quality) -> Quality {
    Quality {
        latency: q.latency,
        loss: q.loss,
        duplicate: q.duplicate,
        reorder: if q.jitter.is_zero() { q.reorder } else { 1.0 },
        reorder_by: if q.jitter.is_zero() { Duration::from_millis(2) } else { q.jitter },
    }
}

/// A locally administered MAC address: the machine and which of its cards.
pub(super) fn mac(machine: u32, card: usize) -> Mac {
    let [a, b, c, d] = machine.to_be_bytes();
    Mac([0x02, card as u8, a, b, c, d])
}

pub(super) fn within(address: Ipv4Addr, network: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new_assert(address, network.prefix_len())
}

pub(super) const EVERYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

impl World {
    fn add_machine(&mut self, name: Name, role: Role) -> u32 {
        let index = self.machines.len() as u32;
        let rng = super::machine::kernel_rng(self.knobs.seed, index, 0);
        let kernel = Kernel::sharing(rng, self.shared.clone());
        self.machines.push(Machine::new(name, role, kernel));
        index
    }

    /// Puts a card on a machine that is off: it gets its place on the wire now and its link at
    /// every boot.
    fn add_card(&mut self, machine: u32, mut card: Card) {
        let cards = self.places.cards.entry(machine).or_default();
        card.mac = mac(machine, cards.len());
        let port = self.wire.add_port(machine, 0, card.mac);
        self.wire.plug(port, card.switch, card.quality);
        if let Some(link) = &card.link {
            self.places.links.entry(link.clone()).or_default().push(port);
        }
        cards.push(card);
        self.machines[machine as usize].parked.push(port);
    }

    fn build_networks(&mut self) {
        let scenario = self.scenario.clone();
        for (index, network) in scenario.networks.iter().enumerate() {
            let switch = self.wire.add_switch();
            self.places.switches.insert(network.name.clone(), switch);
            let name = Name::from(format!("{}-router", network.name));
            let machine = self.add_machine(name, Role::Router(index));
            self.places.routers.insert(network.name.clone(), machine);
            let card = Card {
                name: "lan0".into(),
                mac: Mac::default(),
                address: Some(within(network.gateway, network.cidr)),
                mtu: network.mtu,
                switch,
                quality: quality(network.quality),
                link: None,
            };
            self.add_card(machine, card);
            self.queue.push(Time::ZERO, Due::Boot { machine });
        }
    }

    /// A link between two routers is a transit network of its own: 100.64.n.0/30.
    fn build_links(&mut self) {
        let scenario = self.scenario.clone();
        for (index, link) in scenario.links.iter().enumerate() {
            let switch = self.wire.add_switch();
            let base = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + 256 * index as u32;
            for (end, network) in [&link.between.0, &link.between.1].into_iter().enumerate() {
                let Some(&machine) = self.places.routers.get(network) else { continue };
                let address = Ipv4Net::new_assert(Ipv4Addr::from(base + 1 + end as u32), 30);
                let card = Card {
                    name: Name::from(format!("link{index}")),
                    mac: Mac::default(),
                    address: Some(address),
                    mtu: link.mtu,
                    switch,
                    // Each half of the cable has half of the latency, and one half all the rest.
                    quality: Quality {
                        latency: link.quality.latency / 2,
                        ..if end == 0 {
                            quality(link.quality)
                        } else {
                            Quality::perfect(Duration::ZERO)
                        }
                    },
                    link: Some(link.name.clone()),
                };
                self.add_card(machine, card);
            }
        }
    }

    fn build_host(&mut self, name: Name, role: Role, network: &str, address: Ipv4Addr) {
        let scenario = self.scenario.clone();
        let Some(lan) = scenario.networks.iter().find(|n| n.name == network) else { return };
        let Some(&switch) = self.places.switches.get(&lan.name) else { return };
        let machine = self.add_machine(name, role);
        let card = Card {
            name: "eth0".into(),
            mac: Mac::default(),
            address: Some(within(address, lan.cidr)),
            mtu: lan.mtu,
            switch,
            quality: quality(lan.quality),
            link: None,
        };
        self.add_card(machine, card);
        self.queue.push(Time::ZERO, Due::Boot { machine });
    }

    fn build_nodes(&mut self) {
        let scenario = self.scenario.clone();
        for (index, node) in scenario.nodes.iter().enumerate() {
            let Some(lan) = scenario.networks.iter().find(|n| n.name == node.network) else {
                continue;
            };
            let switch = self.rack_switch(node, lan);
            let machine = self.add_machine(node.name.clone(), Role::Node(index));
            let address = match node.address {
                Address::Static(address) => Some(within(address, lan.cidr)),
                Address::Dhcp => None,
            };
            let card = Card {
                name: node.interface.clone(),
                mac: Mac::default(),
                address,
                mtu: lan.mtu,
                switch,
                quality: quality(lan.quality),
                link: None,
            };
            self.add_card(machine, card);
            self.machines[machine as usize].home = Some(switch);
            self.install(machine, index);
            self.build_actors(machine, index);
            self.switched_off.take(machine, Holder::NotYet);
            if !node.off {
                let stream = Stream {
                    seed: self.knobs.seed,
                    label: "boot",
                    index: machine.into(),
                    incarnation: 0,
                };
                let delay = super::programs::draw(&mut Rng::new(stream), node.boot_delay);
                self.queue.push(Time::ZERO + delay, Due::Boot { machine });
            }
        }
    }

    fn rack_switch(
        &mut self,
        node: &crate::scenario::Node,
        lan: &crate::scenario::Network,
    ) -> SwitchId {
        let Some(&spine) = self.places.switches.get(&lan.name) else {
            return self.wire.add_switch();
        };
        let Some(rack) = &node.rack else { return spine };
        if let Some((switch, _)) = self.places.racks.get(rack) {
            return *switch;
        }
        let switch = self.wire.add_switch();
        self.wire.join(switch, spine, quality(lan.quality));
        self.places.racks.insert(rack.clone(), (switch, spine));
        switch
    }

    /// What stands on a node's disk, and on a new one, before it is switched on.
    pub(super) fn install(&mut self, machine: u32, node: usize) {
        let scenario = self.scenario.clone();
        let conf = net_conf(&scenario);
        let files = &mut self.machines[machine as usize].files;
        files.rename_over(NET_CONF, conf.into());
        for (path, content) in &scenario.nodes[node].files {
            files.rename_over(path, content.as_str().into());
        }
    }

    fn build_actors(&mut self, machine: u32, node: usize) {
        let scenario = self.scenario.clone();
        let cluster = &scenario.cluster;
        let mut cells = Vec::new();
        if scenario.nodes[node].server && self.apiservers.hosts.is_empty() {
            self.front.machine = machine;
            let visitors = self.knobs.visitors;
            let config = apiserver_config(&scenario, !self.knobs.forgets, visitors);
            cells.push(self.cell::<ApiServer>(machine, config));
            let config = controllers_config(&scenario, visitors);
            cells.push(self.cell::<Controllers>(machine, config));
            let name = "default-scheduler".to_owned();
            let events = visitors.then(|| scenario.nodes[node].name.clone());
            let volumes = claims(&scenario, visitors);
            let config = scheduler::Config { name, events, volumes };
            cells.push(self.cell::<Scheduler>(machine, config));
        }
        let server = scenario.nodes[node].server;
        let config = netd_config(&scenario, node, self.knobs.seed, server);
        self.machines[machine as usize].client = Some(Client::new(dial_first(&scenario, server)));
        cells.push(match cluster.netd {
            NetdProgram::Kubesim => self.cell::<Netd>(machine, config),
            NetdProgram::Flannel => self.cell::<Flannel>(machine, config),
        });
        let config = kubelet_config(&scenario, node, self.knobs.visitors);
        cells.push(self.cell::<Kubelet>(machine, config));
        if cluster.proxy {
            cells.push(self.cell::<Proxy>(machine, proxy_config(&scenario, node)));
        }
        if cluster.dns {
            let config = dns_config(&scenario, node);
            cells.push(match cluster.dns_program {
                DnsProgram::Kubesim => self.cell::<Dns>(machine, config),
                DnsProgram::KubeDns => self.cell::<KubeDns>(machine, config),
            });
        }
        self.machines[machine as usize].cells = cells;
    }

    fn cell<A: Component>(&mut self, machine: u32, config: A::Config) -> Cell {
        Cell { kind: A::KIND, index: A::fleet(self).add(machine, config) }
    }

    // Places by name.

    pub(super) fn switch_named(&self, name: &str) -> Option<SwitchId> {
        let rack = self.places.racks.get(name).map(|(switch, _)| *switch);
        self.places.switches.get(name).copied().or(rack)
    }
    pub(super) fn rack_of(&self, switch: SwitchId) -> Option<SwitchId> {
        self.places.racks.values().find(|(rack, _)| *rack == switch).map(|(_, spine)| *spine)
    }
    pub(super) fn router_of(&self, network: &str) -> Option<u32> {
        self.places.routers.get(network).copied()
    }
    /// The machine with this card.
    pub(super) fn name_of_card(&self, mac: Mac) -> Option<&str> {
        let has = |cards: &[Card]| cards.iter().any(|card| card.mac == mac);
        let (machine, _) = self.places.cards.iter().find(|(_, cards)| has(cards))?;
        Some(&self.machines[*machine as usize].name)
    }
    pub(super) fn link_ports(&self, name: &str) -> Vec<crate::wire::PortId> {
        self.places.links.get(name).cloned().unwrap_or_default()
    }
    pub(super) fn network_quality(&self, name: &str) -> Quality {
        let network = self.scenario.networks.iter().find(|n| n.name == name);
        network.map_or(Quality::perfect(Duration::from_micros(100)), |n| quality(n.quality))
    }
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Trace};
    use crate::world::testing;

    /// A worker whose disk is lost comes back as it was installed, and is ready again. (Without its
    /// network configuration netd waited for ever.)
    #[test]
    fn a_new_disk_has_what_was_installed_on_the_first() {
        let more = r#"
[[node]]
name = "w"
network = "lan"
address = "192.168.1.12"
files = { "/etc/own" = "mine" }
[[fault]]
name = "lost"
kind = "kill"
actor = "netd"
nodes = "w"
loss = "disk"
restart = "5s"
at = "50s"
[[expect]]
name = "ready again"
kind = "nodes-ready"
after = "lost"
within = "60s"
[[expect]]
name = "its own file"
kind = "file"
nodes = "w"
path = "/etc/own"
contains = "mine"
"#;
        let (report, _) = testing::play(&testing::scenario("", more), Trace::default());
        let held: Vec<_> = report.expectations.iter().map(|e| e.outcome).collect();
        assert_eq!(held, [Outcome::Passed; 2], "{:?}", report.expectations);
    }
}
