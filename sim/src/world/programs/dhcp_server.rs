//! A router's DHCP server (RFC 2131). It gives a client the address that it had, and remembers that
//! for as long as the router is on.

use super::Seat;
use super::dhcp::{CLIENT_PORT, SERVER_PORT, broadcast};
use crate::body::{Body, Dhcp, DhcpKind};
use crate::kernel::{SocketEvent, SocketId};
use crate::scenario::{self, Network};
use crate::world::World;
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub struct DhcpServer {
    conf: scenario::Dhcp,
    name: Name,
    network: Ipv4Net,
    router: Ipv4Addr,
    link: u32,
    socket: Option<SocketId>,
    /// A client gets the address it had.
    leases: BTreeMap<Mac, Ipv4Addr>,
    /// Who asked in vain, and was told of.
    denied: BTreeSet<Mac>,
}

impl DhcpServer {
    /// Of a network, by the router's card there.
    pub fn new(conf: scenario::Dhcp, network: &Network, link: u32) -> Self {
        DhcpServer {
            conf,
            name: network.name.clone(),
            network: network.cidr,
            router: network.gateway,
            link,
            socket: None,
            leases: BTreeMap::new(),
            denied: BTreeSet::new(),
        }
    }

    /// This client gets this address and nobody else does.
    pub fn reserve(&mut self, client: Mac, address: Ipv4Addr) {
        self.leases.insert(client, address);
    }

    pub(super) fn start(&mut self, world: &mut World, seat: &mut Seat) {
        let (ns, owner) = (seat.ns, seat.owner());
        let any = Ipv4Addr::UNSPECIFIED;
        let bound = world.kernel(seat.machine, |k, _, _| k.udp_bind(ns, any, SERVER_PORT, owner));
        self.socket = bound.ok();
    }

    /// Other DNS servers from now on; every client is told by an unasked ACK, as with
    /// FORCERENEW (RFC 3203) and the renewal that follows it.
    pub fn push_dns(&mut self, world: &mut World, seat: &mut Seat, dns: Vec<Ipv4Addr>) {
        self.conf.dns = dns;
        for (client, address) in self.leases.clone() {
            let ack = self.message(DhcpKind::Ack, client, address, 0);
            self.say(world, seat, ack);
        }
    }

    pub(super) fn socket(&mut self, world: &mut World, seat: &mut Seat, event: SocketEvent) {
        let SocketEvent::Datagram { body: Body::Dhcp(asked), .. } = event else { return };
        let kind = match asked.kind {
            DhcpKind::Discover => DhcpKind::Offer,
            DhcpKind::Request => DhcpKind::Ack,
            DhcpKind::Release => {
                self.leases.remove(&asked.client);
                return;
            }
            _ => return,
        };
        let Some(address) = self.address_for(asked.client) else {
            return self.deny(world, seat, asked.client);
        };
        self.denied.remove(&asked.client);
        let refused = kind == DhcpKind::Ack && asked.address != address;
        let kind = if refused { DhcpKind::Nak } else { kind };
        let answer = self.message(kind, asked.client, address, asked.transaction);
        self.say(world, seat, answer);
    }

    /// There is no answer to that in RFC 2131: the client asks again and again, which is told once.
    fn deny(&mut self, world: &mut World, seat: &Seat, client: Mac) {
        if self.denied.insert(client) {
            let who = format!("dhcp@{}", world.machines[seat.machine as usize].name);
            let (name, first, last) = (&self.name, self.conf.first, self.conf.last);
            let asks = world.name_of_card(client).map_or_else(|| client.to_string(), String::from);
            let text =
                format!("the pool of {name} ({first} to {last}) is exhausted: none for {asks}");
            world.line(&who, || text);
        }
    }

    fn address_for(&mut self, client: Mac) -> Option<Ipv4Addr> {
        if let Some(&address) = self.leases.get(&client) {
            return Some(address);
        }
        let (first, last) = (self.conf.first.to_bits(), self.conf.last.to_bits());
        let taken = |ip: &Ipv4Addr| self.leases.values().any(|leased| leased == ip);
        let free = (first..=last).map(Ipv4Addr::from_bits).find(|ip| !taken(ip))?;
        self.leases.insert(client, free);
        Some(free)
    }

    fn message(&self, kind: DhcpKind, client: Mac, address: Ipv4Addr, transaction: u32) -> Dhcp {
        Dhcp {
            kind,
            transaction,
            client,
            address,
            prefix_length: self.network.prefix_len(),
            router: Some(self.router),
            dns: self.conf.dns.clone(),
            lease: self.conf.lease,
            server: self.router,
        }
    }

    fn say(&self, world: &mut World, seat: &Seat, message: Dhcp) {
        broadcast(world, seat, self.socket, self.link, CLIENT_PORT, message);
    }
}

#[cfg(test)]
mod tests {
    use crate::report::Trace;
    use crate::world::testing;

    /// Whoever got no address only found its network unreachable.
    #[test]
    fn an_exhausted_pool_says_whose_it_is_and_who_asked() {
        let pool = "dhcp = { first = \"192.168.1.100\", last = \"192.168.1.100\" }";
        let clients = "[[node]]\nname = \"w\"\nnetwork = \"lan\"\ncount = 2\n";
        let said = testing::play(&testing::scenario(pool, clients), Trace::default()).1;
        let text = "the pool of lan (192.168.1.100 to 192.168.1.100) is exhausted: none for w2";
        let told: Vec<&str> =
            said.by("dhcp@lan-router").into_iter().map(|(_, text)| text).collect();
        assert_eq!(told, [text], "once, however often it asks");
        assert_eq!((said.by("dhcp@w1").len(), said.by("dhcp@w2").len()), (1, 0));
    }
}
