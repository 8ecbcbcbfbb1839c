//! DHCP (RFC 2131): a router's server and a machine's client, the latter as NetworkManager runs
//! it: an address lost with the carrier is taken off the link at once.

use super::Seat;
use crate::body::{Body, Dhcp, DhcpKind};
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::scenario;
use crate::world::World;
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_runtime::Time;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Of a DHCP message with its options, UDP header not counted.
const LEN: u32 = 300;

pub struct DhcpServer {
    conf: scenario::Dhcp,
    network: Ipv4Net,
    router: Ipv4Addr,
    link: u32,
    socket: Option<SocketId>,
    /// A client gets the address it had.
    leases: BTreeMap<Mac, Ipv4Addr>,
}

impl DhcpServer {
    pub fn new(conf: scenario::Dhcp, network: Ipv4Net, router: Ipv4Addr, link: u32) -> Self {
        DhcpServer { conf, network, router, link, socket: None, leases: BTreeMap::new() }
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
        let Some(address) = self.address_for(asked.client) else { return };
        let refused = kind == DhcpKind::Ack && asked.address != address;
        let kind = if refused { DhcpKind::Nak } else { kind };
        let answer = self.message(kind, asked.client, address, asked.transaction);
        self.say(world, seat, answer);
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

fn broadcast(
    world: &mut World,
    seat: &Seat,
    socket: Option<SocketId>,
    link: u32,
    port: u16,
    message: Dhcp,
) {
    let Some(socket) = socket else { return };
    let body = Body::Dhcp(Arc::new(message));
    // A link without carrier loses it, as a radio out of range does; the client asks again.
    let _ = world.kernel(seat.machine, |k, now, out| {
        k.udp_broadcast(now, NsId::HOST, link, socket, port, body, LEN, out)
    });
}

pub struct DhcpClient {
    link: u32,
    link_name: Name,
    mac: Mac,
    socket: Option<SocketId>,
    state: State,
    transaction: u32,
    tries: u32,
    /// Alarms set for an earlier round are stale.
    round: u32,
    /// Write /etc/resolv.conf from what the server says.
    writes_resolv_conf: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Idle,
    Selecting,
    Requesting { offer: Arc<Dhcp> },
    Bound { lease: Arc<Dhcp>, since: Time },
}

impl DhcpClient {
    pub fn new(link: u32, link_name: Name, mac: Mac, writes_resolv_conf: bool) -> Self {
        DhcpClient {
            link,
            link_name,
            mac,
            socket: None,
            state: State::Idle,
            transaction: 0,
            tries: 0,
            round: 0,
            writes_resolv_conf,
        }
    }

    pub(super) fn start(&mut self, world: &mut World, seat: &mut Seat) {
        let owner = seat.owner();
        let any = Ipv4Addr::UNSPECIFIED;
        let bound =
            world.kernel(seat.machine, |k, _, _| k.udp_bind(NsId::HOST, any, CLIENT_PORT, owner));
        self.socket = bound.ok();
        self.discover(world, seat);
    }

    pub fn carrier(&mut self, world: &mut World, seat: &mut Seat, up: bool) {
        if up {
            self.discover(world, seat);
        } else {
            self.unbind(world, seat);
            self.state = State::Idle;
            self.round += 1;
        }
    }

    fn unbind(&mut self, world: &mut World, seat: &mut Seat) {
        let State::Bound { lease, .. } = &self.state else { return };
        let (link, net) = (self.link, net_of(lease));
        world
            .kernel(seat.machine, |k, now, out| k.del_address(now, NsId::HOST, link, net, out))
            .ok();
        world.address_lost(seat.machine, net.addr());
    }

    fn discover(&mut self, world: &mut World, seat: &mut Seat) {
        self.state = State::Selecting;
        self.tries = 0;
        self.transaction = seat.rng.u64() as u32;
        self.send(world, seat);
    }

    /// Sends what the state wants and rings for the next try: 1 s, 2 s, 4 s up to 16 s.
    fn send(&mut self, world: &mut World, seat: &mut Seat) {
        let (kind, address, server) = match &self.state {
            State::Selecting => (DhcpKind::Discover, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
            State::Requesting { offer } => (DhcpKind::Request, offer.address, offer.server),
            State::Bound { lease, .. } => (DhcpKind::Request, lease.address, lease.server),
            State::Idle => return,
        };
        let message = Dhcp {
            kind,
            transaction: self.transaction,
            client: self.mac,
            address,
            prefix_length: 0,
            router: None,
            dns: Vec::new(),
            lease: Duration::ZERO,
            server,
        };
        if let (State::Bound { .. }, Some(socket)) = (&self.state, self.socket) {
            let to = SocketAddrV4::new(server, SERVER_PORT);
            let body = Body::Dhcp(Arc::new(message));
            let _ = world.kernel(seat.machine, |k, now, out| {
                k.udp_send(now, socket, None, to, body, LEN, out)
            });
        } else {
            broadcast(world, seat, self.socket, self.link, SERVER_PORT, message);
        }
        self.round += 1;
        let wait = Duration::from_secs(1 << self.tries.min(4));
        self.tries += 1;
        world.program_alarm_in(seat, wait, self.round);
    }

    pub(super) fn alarm(&mut self, world: &mut World, seat: &mut Seat, token: u32) {
        if token != self.round {
            return;
        }
        if let State::Bound { lease, since } = &self.state
            && world.now.since(*since) >= lease.lease
        {
            self.unbind(world, seat);
            return self.discover(world, seat);
        }
        if matches!(self.state, State::Requesting { .. }) && self.tries > 4 {
            return self.discover(world, seat);
        }
        self.send(world, seat);
    }

    pub(super) fn socket(&mut self, world: &mut World, seat: &mut Seat, event: SocketEvent) {
        let SocketEvent::Datagram { body: Body::Dhcp(said), .. } = event else { return };
        let ours = said.client == self.mac
            && (said.transaction == self.transaction || said.transaction == 0);
        if !ours {
            return;
        }
        match (said.kind, &self.state) {
            (DhcpKind::Offer, State::Selecting) => {
                self.state = State::Requesting { offer: said };
                self.tries = 0;
                self.send(world, seat);
            }
            (DhcpKind::Ack, State::Requesting { .. } | State::Bound { .. }) => {
                self.bind(world, seat, said)
            }
            (DhcpKind::Nak, State::Requesting { .. } | State::Bound { .. }) => {
                self.unbind(world, seat);
                self.discover(world, seat);
            }
            _ => {}
        }
    }

    fn bind(&mut self, world: &mut World, seat: &mut Seat, lease: Arc<Dhcp>) {
        let net = net_of(&lease);
        let renewed = matches!(&self.state, State::Bound { lease: old, .. } if net_of(old) == net);
        if !renewed {
            self.unbind(world, seat);
            self.configure(world, seat, &lease, net);
        }
        if self.writes_resolv_conf {
            let text: String = lease.dns.iter().map(|ip| format!("nameserver {ip}\n")).collect();
            world.write_file(seat.machine, "/etc/resolv.conf", &text, scenario::WriteHow::Rename);
        }
        let renew = lease.lease / 2;
        self.state = State::Bound { lease, since: world.now };
        self.tries = 4;
        self.round += 1;
        world.program_alarm_in(seat, renew, self.round);
    }

    fn configure(&mut self, world: &mut World, seat: &mut Seat, lease: &Dhcp, net: Ipv4Net) {
        let (link, dev) = (self.link, self.link_name.clone());
        let default = lease.router.map(|via| Route {
            to: Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0),
            via: Some(via),
            dev,
            onlink: false,
            metric: 100,
        });
        world
            .kernel(seat.machine, |k, now, out| {
                let added = k.add_address(now, NsId::HOST, link, net, out);
                if let Some(route) = default {
                    let _ = k.add_route(now, NsId::HOST, &route, Proto::DHCP, out);
                }
                added
            })
            .ok();
        world.address_acquired(seat.machine, net.addr());
    }
}

fn net_of(lease: &Dhcp) -> Ipv4Net {
    Ipv4Net::new(lease.address, lease.prefix_length)
        .unwrap_or_else(|_| Ipv4Net::new_assert(lease.address, 32))
}
