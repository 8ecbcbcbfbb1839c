//! A world out of a scenario: its wire, its machines, its actors; and what happens at power-on.

use super::api::Client;
use super::external::Order;
use super::programs::{DhcpClient, DhcpServer, Task, Upstream};
use super::{Cell, Component, Due, Knobs, Machine, Role, World};
use crate::kernel::{Kernel, NsId};
use crate::profiles::flannel::Flannel;
use crate::profiles::kube_dns::KubeDns;
use crate::scenario::{
    Address, Backend, DnsProgram, DnsUpstreams, NetdProgram, Overlap, Scenario, SoftwareKind,
};
use crate::wire::{Quality, SwitchId};
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::{self, ApiServer};
use kubesim_actors::controllers::{self, Controllers};
use kubesim_actors::dns::{self, Dns};
use kubesim_actors::kubelet::{self, Kubelet};
use kubesim_actors::netd::{self, Netd};
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_actors::proxy::{self, Proxy};
use kubesim_actors::scheduler::{self, Scheduler};
use kubesim_runtime::{Rng, Stream, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// Where the flannel-shaped configuration lies on every node.
pub const NET_CONF: &str = "/etc/kubesim/net-conf.json";
pub const SUBNET_ENV: &str = "/run/flannel/subnet.env";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const MANIFESTS: &str = "/etc/kubernetes/manifests";

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
    cards: BTreeMap<u32, Vec<Card>>,
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
fn mac(machine: u32, card: usize) -> Mac {
    let [a, b, c, d] = machine.to_be_bytes();
    Mac([0x02, card as u8, a, b, c, d])
}

fn within(address: Ipv4Addr, network: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new_assert(address, network.prefix_len())
}

const EVERYWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

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
            self.build_files(machine, node);
            self.build_actors(machine, index);
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

    fn build_files(&mut self, machine: u32, node: &crate::scenario::Node) {
        let conf = net_conf(&self.scenario);
        let files = &mut self.machines[machine as usize].files;
        files.rename_over(NET_CONF, conf.into());
        for (path, content) in &node.files {
            files.rename_over(path, content.as_str().into());
        }
    }

    fn build_actors(&mut self, machine: u32, node: usize) {
        let scenario = self.scenario.clone();
        let cluster = &scenario.cluster;
        let mut cells = Vec::new();
        if scenario.nodes[node].server && self.apiservers.hosts.is_empty() {
            self.front.machine = machine;
            cells.push(
                self.cell::<ApiServer>(machine, apiserver_config(&scenario, !self.knobs.forgets)),
            );
            cells.push(self.cell::<Controllers>(machine, controllers_config(&scenario)));
            let name = "default-scheduler".to_owned();
            cells.push(self.cell::<Scheduler>(machine, scheduler::Config { name }));
        }
        let server = scenario.nodes[node].server;
        let config = netd_config(&scenario, node, self.knobs.seed, server);
        self.machines[machine as usize].client = Some(Client::new(dial_first(&scenario, server)));
        cells.push(match cluster.netd {
            NetdProgram::Kubesim => self.cell::<Netd>(machine, config),
            NetdProgram::Flannel => self.cell::<Flannel>(machine, config),
        });
        cells.push(self.cell::<Kubelet>(machine, kubelet_config(&scenario, node)));
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

    // Power-on.

    /// The machine comes up: links, addresses, sysctls, programs, actors.
    pub(super) fn boot(&mut self, machine: u32) {
        if self.machines[machine as usize].on {
            return;
        }
        self.machines[machine as usize].on = true;
        if self.is_external(machine) {
            return self.boot_external(machine);
        }
        let links = self.boot_links(machine);
        match self.machines[machine as usize].role {
            Role::Node(index) => self.boot_node(machine, index, links[0]),
            Role::Router(index) => self.boot_router(machine, index, links[0]),
            Role::Upstream(index) => {
                self.default_route(
                    machine,
                    "eth0",
                    &self.scenario.upstreams[index].network.clone(),
                );
                let server = self.scenario.upstreams[index].clone();
                self.run_own(machine, Task::Upstream(Upstream::new(server)));
            }
            Role::Client(index) => {
                let client = self.scenario.clients[index].clone();
                self.default_route(machine, "eth0", &client.network);
                for (to, via) in client.routes {
                    let route =
                        Route { to, via: Some(via), dev: "eth0".into(), onlink: false, metric: 0 };
                    self.route(machine, &route, Proto::STATIC);
                }
            }
        }
    }

    fn run_own(&mut self, machine: u32, task: Task) {
        let slot = self.spawn(machine, NsId::HOST, task);
        self.machines[machine as usize].programs.push(slot);
    }

    /// Brings the cards up with their static addresses; returns their link indexes.
    fn boot_links(&mut self, machine: u32) -> Vec<u32> {
        let cards = self.places.cards.get(&machine).cloned().unwrap_or_default();
        let ports = std::mem::take(&mut self.machines[machine as usize].parked);
        let mut links = Vec::new();
        for (card, port) in cards.iter().zip(ports) {
            let (name, mac, mtu, address) = (card.name.clone(), card.mac, card.mtu, card.address);
            let link = self.kernel(machine, |k, now, out| {
                let link = k.add_uplink(&name, mac, mtu)?;
                k.set_carrier(now, link, true, out);
                k.set_up(now, NsId::HOST, link, true, out).map(|()| link)
            });
            // Names are a scenario's and checked to differ; a second link of one name is no card.
            let Ok(link) = link else { continue };
            self.wire.rename_link(port, link);
            // The card is known before its address: a gratuitous ARP must find its way out.
            self.machines[machine as usize].ports.push((link, port));
            if let Some(address) = address {
                let _ = self.kernel(machine, |k, now, out| {
                    k.add_address(now, NsId::HOST, link, address, out)
                });
            }
            links.push(link);
        }
        links
    }

    fn route(&mut self, machine: u32, route: &Route, proto: Proto) {
        // A route that the kernel refuses is visible in its absence: `kernel.ip_route`.
        let _ = self.kernel(machine, |k, now, out| k.add_route(now, NsId::HOST, route, proto, out));
    }

    fn default_route(&mut self, machine: u32, dev: &str, network: &str) {
        let gateway = self.scenario.networks.iter().find(|n| n.name == network).map(|n| n.gateway);
        let route =
            Route { to: EVERYWHERE, via: gateway, dev: dev.into(), onlink: false, metric: 100 };
        self.route(machine, &route, Proto::STATIC);
    }

    fn boot_router(&mut self, machine: u32, index: usize, lan: u32) {
        let scenario = self.scenario.clone();
        let network = &scenario.networks[index];
        let _ = self.kernel(machine, |k, now, out| {
            k.set_sysctl(now, NsId::HOST, "net.ipv4.ip_forward", "1", out)
        });
        for (to, via, dev) in router_routes(&scenario, index) {
            let route = Route { to, via: Some(via), dev, onlink: false, metric: 0 };
            self.route(machine, &route, Proto::STATIC);
        }
        for (link_index, link) in scenario.links.iter().enumerate() {
            if link.nat.as_ref() == Some(&network.name) {
                self.iptables(
                    machine,
                    &format!("-t nat -A POSTROUTING -o link{link_index} -j MASQUERADE"),
                );
            }
        }
        if let Some(conf) = network.dhcp.clone() {
            let mut server = DhcpServer::new(conf, network.cidr, network.gateway, lan);
            for (client, address) in self.reservations(&network.name) {
                server.reserve(client, address);
            }
            self.run_own(machine, Task::DhcpServer(server));
        }
    }

    /// The network's own machines keep one address each, in the scenario's order, as a home router
    /// is told to.
    fn reservations(&self, network: &str) -> Vec<(Mac, Ipv4Addr)> {
        let scenario = &self.scenario;
        let Some(lan) = scenario.networks.iter().find(|n| n.name == network) else {
            return Vec::new();
        };
        let Some(conf) = &lan.dhcp else { return Vec::new() };
        let own =
            scenario.nodes.iter().filter(|n| n.network == network && n.address == Address::Dhcp);
        let pool = (conf.first.to_bits()..=conf.last.to_bits()).map(Ipv4Addr::from_bits);
        own.zip(pool)
            .filter_map(|(node, address)| {
                let machine = self.machine_named(&node.name)?;
                Some((mac(machine, 0), address))
            })
            .collect()
    }

    fn boot_node(&mut self, machine: u32, index: usize, link: u32) {
        let scenario = self.scenario.clone();
        let node = &scenario.nodes[index];
        for (key, value) in &node.sysctls {
            let value = value.to_string();
            let _ =
                self.kernel(machine, |k, now, out| k.set_sysctl(now, NsId::HOST, key, &value, out));
        }
        match node.address {
            Address::Static(_) => self.default_route(machine, &node.interface, &node.network),
            Address::Dhcp => {
                let manages = node.software.iter().any(|s| s.kind == SoftwareKind::NetworkManager);
                let card = self.places.cards.get(&machine).and_then(|cards| cards.first());
                let mac = card.map_or_else(Mac::default, |card| card.mac);
                let client = DhcpClient::new(link, node.interface.clone(), mac, manages);
                self.run_own(machine, Task::DhcpClient(client));
            }
        }
        self.plan_software(machine, index, |_| true);
        for cell in self.machines[machine as usize].cells.clone() {
            if !self.is_stopped(cell) {
                let life = self.life(cell);
                self.queue.push(self.now, Due::Start { life });
            }
        }
        self.client_dial(machine);
    }

    pub(super) fn plan_software(
        &mut self,
        machine: u32,
        node: usize,
        which: impl Fn(&crate::scenario::Software) -> bool,
    ) {
        let scenario = self.scenario.clone();
        let boots = self.machines[machine as usize].boots;
        let all = scenario.nodes[node].software.iter().enumerate();
        for (position, software) in all.filter(|(_, software)| which(software)) {
            let due = Due::Software { machine, boots, index: position as u32 };
            self.queue.push(self.now + software.start, due);
        }
    }

    pub(super) fn software_due(&mut self, machine: u32, boots: u32, index: usize) {
        let host = &self.machines[machine as usize];
        let Role::Node(node) = host.role else { return };
        if host.on && host.boots == boots {
            let software = self.scenario.nodes[node].software[index].clone();
            self.start_software(machine, &software);
        }
    }

    /// A static address for another network, and the way out of it.
    pub(super) fn readdress(&mut self, machine: u32, link: u32, network: &str, address: Ipv4Addr) {
        let scenario = self.scenario.clone();
        let Some(lan) = scenario.networks.iter().find(|n| n.name == network) else { return };
        let net = within(address, lan.cidr);
        let old = self.places.cards.get(&machine).and_then(|cards| cards.first()?.address);
        if let Some(card) = self.places.cards.get_mut(&machine).and_then(|cards| cards.first_mut())
        {
            card.address = Some(net);
        }
        let order = || Order::Readdress { address: net, gateway: lan.gateway };
        if self.ordered(machine, order) {
            return;
        }
        let _ = self.kernel(machine, |k, now, out| {
            if let Some(old) = old {
                let _ = k.del_address(now, NsId::HOST, link, old, out);
            }
            k.add_address(now, NsId::HOST, link, net, out)
        });
        let Role::Node(node) = self.machines[machine as usize].role else { return };
        self.default_route(machine, &scenario.nodes[node].interface, network);
        self.address_acquired(machine, address);
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
    pub(super) fn link_ports(&self, name: &str) -> Vec<crate::wire::PortId> {
        self.places.links.get(name).cloned().unwrap_or_default()
    }
    pub(super) fn network_quality(&self, name: &str) -> Quality {
        let network = self.scenario.networks.iter().find(|n| n.name == name);
        network.map_or(Quality::perfect(Duration::from_micros(100)), |n| quality(n.quality))
    }
}

/// The way from one router to every network that is not behind another's NAT: breadth first.
fn router_routes(scenario: &Scenario, start: usize) -> Vec<(Ipv4Net, Ipv4Addr, Name)> {
    let mut routes = Vec::new();
    let mut seen = vec![false; scenario.networks.len()];
    seen[start] = true;
    // Each entry: a network, and the first hop that leads there.
    let mut queue = VecDeque::from([(start, None::<(Ipv4Addr, Name)>)]);
    while let Some((at, hop)) = queue.pop_front() {
        for (index, link) in scenario.links.iter().enumerate() {
            let name = &scenario.networks[at].name;
            let (near, far) = match (&link.between.0 == name, &link.between.1 == name) {
                (true, _) => (0, &link.between.1),
                (_, true) => (1, &link.between.0),
                _ => continue,
            };
            let Some(next) = scenario.networks.iter().position(|n| n.name == *far) else {
                continue;
            };
            // From outside, a masquerading router hides its network.
            if seen[next] || link.nat.as_ref() == Some(far) {
                continue;
            }
            seen[next] = true;
            let base = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + 256 * index as u32;
            let first = (Ipv4Addr::from(base + 2 - near), Name::from(format!("link{index}")));
            let hop = hop.clone().unwrap_or(first);
            routes.push((scenario.networks[next].cidr, hop.0, hop.1.clone()));
            queue.push_back((next, Some(hop)));
        }
    }
    routes
}

/// flannel's network configuration, as the cluster's settings say.
fn net_conf(scenario: &Scenario) -> String {
    let cluster = &scenario.cluster;
    let backend = match cluster.backend {
        Backend::HostGw => serde_json::json!({"Type": "host-gw"}),
        Backend::Vxlan { direct_routing, vni, port } => serde_json::json!({
            "Type": "vxlan", "VNI": vni, "Port": port, "DirectRouting": direct_routing,
        }),
    };
    let conf = serde_json::json!({
        "Network": cluster.pod_network.to_string(),
        "SubnetLen": cluster.node_mask,
        // flannel's own default leaves the first subnet out; our allocation of podCIDRs does not.
        "SubnetMin": cluster.pod_network.network().to_string(),
        "Backend": backend,
    });
    conf.to_string()
}

fn server(scenario: &Scenario) -> Option<&crate::scenario::Node> {
    scenario.nodes.iter().find(|node| node.server)
}

/// Where a node looks for the API first: itself, or the server's first address.
fn dial_first(scenario: &Scenario, is_server: bool) -> Vec<Ipv4Addr> {
    if is_server {
        return vec![Ipv4Addr::LOCALHOST];
    }
    server(scenario).and_then(|node| first_address(scenario, node)).into_iter().collect()
}

fn first_address(scenario: &Scenario, node: &crate::scenario::Node) -> Option<Ipv4Addr> {
    match node.address {
        Address::Static(address) => Some(address),
        Address::Dhcp => {
            let lan = scenario.networks.iter().find(|n| n.name == node.network)?;
            let own = scenario
                .nodes
                .iter()
                .filter(|n| n.network == node.network && n.address == Address::Dhcp);
            let place = own.take_while(|n| n.name != node.name).count() as u32;
            Some(Ipv4Addr::from_bits(lan.dhcp.as_ref()?.first.to_bits() + place))
        }
    }
}

fn apiserver_config(scenario: &Scenario, memo: bool) -> apiserver::Config {
    let cluster = &scenario.cluster;
    apiserver::Config {
        pod_network: cluster.pod_network,
        service_network: cluster.service_network,
        node_ports: cluster.node_ports,
        node_networks: scenario
            .networks
            .iter()
            .filter(|network| scenario.nodes.iter().any(|node| node.network == network.name))
            .map(|network| (network.name.to_string(), network.cidr))
            .collect(),
        refuse_overlap: cluster.overlap == Overlap::Refuse,
        history: cluster.history as usize,
        memo,
    }
}

fn controllers_config(scenario: &Scenario) -> controllers::Config {
    let cluster = &scenario.cluster;
    controllers::Config {
        pod_network: cluster.pod_network,
        node_mask: cluster.node_mask,
        node_grace: cluster.node_grace,
        node_monitor: cluster.node_monitor,
    }
}

fn kubelet_config(scenario: &Scenario, index: usize) -> kubelet::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    kubelet::Config {
        node: node.name.clone(),
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        interface: node.interface.clone(),
        cpu_millis: node.cpu_millis,
        memory_bytes: node.memory_bytes,
        max_pods: node.max_pods,
        cluster_dns: cluster.dns_address,
        cluster_domain: cluster.domain.clone(),
        subnet_env: SUBNET_ENV.into(),
        resolv_conf: RESOLV_CONF.into(),
        manifests: MANIFESTS.into(),
        lease_duration: cluster.lease_duration,
        status_period: cluster.status_period,
    }
}

fn netd_config(scenario: &Scenario, index: usize, seed: u64, is_server: bool) -> netd::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    let mut rng = Rng::new(Stream { seed, label: "node key", index: index as u64, incarnation: 0 });
    let mut key_seed = [0; 32];
    for chunk in key_seed.chunks_exact_mut(8) {
        chunk.copy_from_slice(&rng.u64().to_le_bytes());
    }
    let servers = server(scenario).and_then(|node| {
        let first = if is_server { Ipv4Addr::LOCALHOST } else { first_address(scenario, node)? };
        Some((node.name.clone(), first))
    });
    netd::Config {
        node: node.name.clone(),
        interface: node.interface.clone(),
        net_conf: NET_CONF.into(),
        subnet_env: SUBNET_ENV.into(),
        bridge: node.bridge.clone(),
        key_seed,
        servers: servers.into_iter().collect(),
        service_network: cluster.service_network,
        resync: cluster.netd_resync,
    }
}

fn proxy_config(scenario: &Scenario, index: usize) -> proxy::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    proxy::Config {
        mode: cluster.proxy_mode,
        node: node.name.clone(),
        cluster_cidr: cluster.pod_network,
        min_sync: cluster.proxy_min_sync,
        resync: cluster.proxy_resync,
        interface: node.interface.clone(),
    }
}

fn dns_config(scenario: &Scenario, index: usize) -> dns::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    dns::Config {
        node: node.name.clone(),
        listen: cluster.dns_address,
        cluster_domain: cluster.domain.clone(),
        service_network: cluster.service_network,
        pod_network: cluster.pod_network,
        pod_records: cluster.pod_records,
        upstreams: match &cluster.dns_upstreams {
            DnsUpstreams::Explicit(servers) => dns::Upstreams::Explicit(
                servers.iter().map(|ip| SocketAddrV4::new(*ip, 53)).collect(),
            ),
            DnsUpstreams::File(path) => dns::Upstreams::File(path.clone()),
        },
    }
}
