//! What happens at power-on: links, addresses, routes, sysctls, programs, actors.

use super::build::{EVERYWHERE, mac, within};
use super::external::Order;
use super::programs::{DhcpClient, DhcpServer, Task, Upstream};
use super::{Due, Role, World};
use crate::kernel::NsId;
use crate::scenario::{Address, Scenario, SoftwareKind};
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

impl World {
    /// The machine comes up: links, addresses, sysctls, programs, actors.
    pub(super) fn boot(&mut self, machine: u32) {
        if self.machines[machine as usize].on {
            return;
        }
        self.machines[machine as usize].on = true;
        if !self.is_unplugged(machine) {
            self.static_move_ends(machine);
        }
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
            let pulled = self.cables.is_held(port);
            let link = self.kernel(machine, |k, now, out| {
                let link = k.add_uplink(&name, mac, mtu)?;
                k.set_carrier(now, link, !pulled, out);
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
                let rule = format!("-t nat -A POSTROUTING -o link{link_index} -j MASQUERADE");
                self.iptables_of_software(machine, &rule);
            }
        }
        if let Some(conf) = network.dhcp.clone() {
            let mut server = DhcpServer::new(conf, network, lan);
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
            if let Err(why) = self.write_sysctl(machine, key, *value) {
                let what = format!("sysctl {key}={value} at its boot: {why}");
                self.unapplied(&format!("the sysctls of node `{}`", node.name), what);
            }
        }
        // Also of one that usually asks DHCP and was moved to a fixed address.
        if let Some(network) = self.network_of_card(machine) {
            self.default_route(machine, &node.interface, &network);
        }
        if node.address == Address::Dhcp {
            let manages = node.software.iter().any(|s| s.kind == SoftwareKind::NetworkManager);
            let card = self.places.cards.get(&machine).and_then(|cards| cards.first());
            let mac = card.map_or_else(Mac::default, |card| card.mac);
            let client = DhcpClient::new(link, node.interface.clone(), mac, manages);
            self.run_own(machine, Task::DhcpClient(client));
        }
        self.plan_software(machine, index, |_| true);
        for cell in self.machines[machine as usize].cells.clone() {
            if !self.stopped.is_held(cell) {
                let life = self.life(cell);
                self.queue.push(self.now, Due::Start { life });
            }
        }
        self.client_dial(machine);
    }

    /// The LAN that a machine's fixed address is of: after a move not the one it began in.
    fn network_of_card(&self, machine: u32) -> Option<Name> {
        let address = self.places.cards.get(&machine)?.first()?.address?.addr();
        let lan = self.scenario.networks.iter().find(|lan| lan.cidr.contains(&address))?;
        Some(lan.name.clone())
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
    /// `link`: the card's, of a machine that is on.
    pub(super) fn readdress(
        &mut self,
        machine: u32,
        link: Option<u32>,
        network: &str,
        address: Ipv4Addr,
    ) {
        let scenario = self.scenario.clone();
        let Some(lan) = scenario.networks.iter().find(|n| n.name == network) else { return };
        let net = within(address, lan.cidr);
        let old = self.places.cards.get(&machine).and_then(|cards| cards.first()?.address);
        if let Some(card) = self.places.cards.get_mut(&machine).and_then(|cards| cards.first_mut())
        {
            card.address = Some(net);
        }
        let Some(link) = link else { return };
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
