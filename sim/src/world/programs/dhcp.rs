//! A machine's DHCP client (RFC 2131), as NetworkManager runs it: an address lost with the carrier
//! is taken off the link at once. A lease is renewed as [`crate::dhcp`] says. As long as somebody
//! has given the card a fixed address, it asks nobody.

use super::Seat;
use crate::body::{Body, Dhcp, DhcpKind};
use crate::dhcp::{self, Phase};
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::scenario;
use crate::world::World;
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_runtime::Time;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
/// Of a DHCP message with its options, UDP header not counted.
const LEN: u32 = 300;

/// Out of a card that may have no address yet.
pub(super) fn broadcast(
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
    /// When the last request was sent.
    asked: Time,
    /// Alarms set for an earlier round are stale.
    round: u32,
    /// Write /etc/resolv.conf from what the server says.
    writes_resolv_conf: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Idle,
    Selecting,
    Requesting {
        offer: Arc<Dhcp>,
    },
    /// `since`: when it was asked for.
    Bound {
        lease: Arc<Dhcp>,
        since: Time,
    },
}

/// Why an address that DHCP gave is taken off its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    NoCarrier,
    Expired,
    Refused,
    Replaced,
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dropped::NoCarrier => "no carrier",
            Dropped::Expired => "its lease has ended",
            Dropped::Refused => "the server refuses to renew its lease",
            Dropped::Replaced => "the server gave another one",
        })
    }
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
            asked: Time::ZERO,
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
        if !world.is_unplugged(seat.machine) {
            self.carrier(world, seat, true);
        }
    }

    pub fn carrier(&mut self, world: &mut World, seat: &mut Seat, up: bool) {
        if up {
            if !world.has_fixed_address(seat.machine) {
                self.discover(world, seat);
            }
        } else {
            self.unbind(world, seat, Dropped::NoCarrier);
            self.state = State::Idle;
            self.round += 1;
        }
    }

    fn unbind(&mut self, world: &mut World, seat: &mut Seat, why: Dropped) {
        let State::Bound { lease, .. } = &self.state else { return };
        let (link, net) = (self.link, net_of(lease));
        world
            .kernel(seat.machine, |k, now, out| k.del_address(now, NsId::HOST, link, net, out))
            .ok();
        world.address_lost(seat.machine, net.addr(), why);
    }

    fn discover(&mut self, world: &mut World, seat: &mut Seat) {
        self.state = State::Selecting;
        self.tries = 0;
        self.transaction = seat.rng.u64() as u32;
        self.send(world, seat);
    }

    /// Sends what the state wants and rings for the next try: without a lease after 1 s, 2 s, 4 s
    /// up to 16 s, with one when RFC 2131 wants it.
    fn send(&mut self, world: &mut World, seat: &mut Seat) {
        self.asked = world.now;
        let wait = match &self.state {
            State::Idle => return,
            State::Selecting => {
                let none = Ipv4Addr::UNSPECIFIED;
                self.broadcast(world, seat, DhcpKind::Discover, none, none);
                self.patience()
            }
            State::Requesting { offer } => {
                let (address, server) = (offer.address, offer.server);
                self.broadcast(world, seat, DhcpKind::Request, address, server);
                self.patience()
            }
            State::Bound { lease, since } => {
                let (lease, elapsed) = (lease.clone(), world.now.since(*since));
                self.renew(world, seat, &lease, elapsed);
                dhcp::next(lease.lease, elapsed) - elapsed
            }
        };
        self.ring(world, seat, wait);
    }

    fn patience(&mut self) -> Duration {
        let wait = Duration::from_secs(1 << self.tries.min(4));
        self.tries += 1;
        wait
    }

    fn ring(&mut self, world: &mut World, seat: &Seat, wait: Duration) {
        self.round += 1;
        world.program_alarm_in(seat, wait, self.round);
    }

    /// Asks for the address it has: its server, or any.
    fn renew(&mut self, world: &mut World, seat: &Seat, lease: &Dhcp, elapsed: Duration) {
        // Which server is meant is not said (4.3.2).
        let any = Ipv4Addr::UNSPECIFIED;
        match (dhcp::phase(lease.lease, elapsed), self.socket) {
            (Phase::Renewing, Some(socket)) => {
                let to = SocketAddrV4::new(lease.server, SERVER_PORT);
                let body =
                    Body::Dhcp(Arc::new(self.message(DhcpKind::Request, lease.address, any)));
                // Where there is no way to it there is no answer, and it asks again.
                let _ = world.kernel(seat.machine, |k, now, out| {
                    k.udp_send(now, socket, Some(lease.address), to, body, LEN, out)
                });
            }
            (Phase::Rebinding, _) => {
                self.broadcast(world, seat, DhcpKind::Request, lease.address, any);
            }
            _ => {}
        }
    }

    fn broadcast(
        &self,
        world: &mut World,
        seat: &Seat,
        kind: DhcpKind,
        address: Ipv4Addr,
        server: Ipv4Addr,
    ) {
        let message = self.message(kind, address, server);
        broadcast(world, seat, self.socket, self.link, SERVER_PORT, message);
    }

    fn message(&self, kind: DhcpKind, address: Ipv4Addr, server: Ipv4Addr) -> Dhcp {
        Dhcp {
            kind,
            transaction: self.transaction,
            client: self.mac,
            address,
            prefix_length: 0,
            router: None,
            dns: Vec::new(),
            lease: Duration::ZERO,
            server,
        }
    }

    pub(super) fn alarm(&mut self, world: &mut World, seat: &mut Seat, token: u32) {
        if token != self.round {
            return;
        }
        if let State::Bound { lease, since } = &self.state
            && dhcp::phase(lease.lease, world.now.since(*since)) == Phase::Expired
        {
            self.unbind(world, seat, Dropped::Expired);
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
                // An unasked one, as a server has it answered that forces a renewal (RFC 3203).
                let since = if said.transaction == 0 { world.now } else { self.asked };
                self.bind(world, seat, said, since)
            }
            (DhcpKind::Nak, State::Requesting { .. } | State::Bound { .. }) => {
                self.unbind(world, seat, Dropped::Refused);
                self.discover(world, seat);
            }
            _ => {}
        }
    }

    /// A lease begins when it was asked for, not when it was given (4.4.1).
    fn bind(&mut self, world: &mut World, seat: &mut Seat, lease: Arc<Dhcp>, since: Time) {
        let net = net_of(&lease);
        let renewed = matches!(&self.state, State::Bound { lease: old, .. } if net_of(old) == net);
        if !renewed {
            self.unbind(world, seat, Dropped::Replaced);
            self.configure(world, seat, &lease, net);
        }
        if self.writes_resolv_conf {
            let text: String = lease.dns.iter().map(|ip| format!("nameserver {ip}\n")).collect();
            world.write_file(seat.machine, "/etc/resolv.conf", &text, scenario::WriteHow::Rename);
        }
        let next = since + dhcp::next(lease.lease, Duration::ZERO);
        self.state = State::Bound { lease, since };
        self.ring(world, seat, next.since(world.now));
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

#[cfg(test)]
mod tests {
    use crate::report::Trace;
    use crate::world::testing::{self, Said};
    use kubesim_runtime::Time;
    use std::time::Duration;

    const POOL: &str =
        "dhcp = { first = \"192.168.1.100\", last = \"192.168.1.110\", lease = \"60s\" }";
    const CLIENT: &str = "[[node]]\nname = \"n2\"\nnetwork = \"lan\"\n";
    const DISCOVERS: &str = "udp 0.0.0.0:68 > 255.255.255.255:67 328 bytes";
    const RENEWS: &str = "udp 192.168.1.100:68 > 192.168.1.1:67 328 bytes";
    const REBINDS: &str = "udp 192.168.1.100:68 > 255.255.255.255:67 328 bytes";

    fn play(more: &str) -> Said {
        let scenario = testing::scenario(POOL, &format!("{CLIENT}{more}"));
        let trace = Trace { packets: true, nodes: vec!["n2".to_owned()], ..Trace::default() };
        testing::play(&scenario, trace).1
    }

    /// What the client asked its servers, and when.
    fn asked(said: &Said) -> Vec<(Time, &str)> {
        let sent = said.by("kernel@n2").into_iter();
        let sent = sent.filter_map(|(at, text)| Some((at, text.strip_prefix("sends ")?)));
        sent.filter(|(_, text)| text.starts_with("udp") && text.contains(":67 ")).collect()
    }

    #[test]
    fn a_lease_is_renewed_at_its_half_from_the_address_to_its_server() {
        let said = play("");
        let asked = asked(&said);
        let words: Vec<&str> = asked.iter().map(|(_, text)| *text).collect();
        assert_eq!(words[..2], [DISCOVERS, DISCOVERS], "DISCOVER and REQUEST");
        assert_eq!(words[2..], [RENEWS; 5], "within 160 s");
        for pair in asked[1..].windows(2) {
            // Where the router's MAC address has to be asked for, that much later.
            let apart = pair[1].0.since(pair[0].0).abs_diff(Duration::from_secs(30));
            assert!(apart < Duration::from_millis(1), "{apart:?}");
        }
        assert_eq!(said.by("dhcp@n2").len(), 1, "one address, for good");
    }

    #[test]
    fn a_lease_that_nobody_renews_ends_when_it_ends() {
        let said = play(
            "[[fault]]\nkind = \"partition\"\nat = \"5s\"\nfrom = [\"n2\"]\nto = [\"lan\"]\n\
             lasts = \"100s\"\n",
        );
        let asked = asked(&said);
        let begun = asked[1].0;
        let after = |what: &str| {
            let times = asked.iter().filter(|(_, text)| *text == what);
            times.map(|(at, _)| at.since(begun)).collect::<Vec<_>>()
        };
        // Nobody says where the server is: the first question gets as far as to ask that.
        let wants = |(at, text): &(Time, &str)| {
            at.since(begun) == Duration::from_secs(30) && text.contains("ARP who has 192.168.1.1")
        };
        assert!(said.by("kernel@n2").iter().any(wants), "T1");
        assert_eq!(after(REBINDS)[0], Duration::from_millis(52_500), "T2");
        assert!(after(REBINDS).len() > 2);
        let remarks = said.by("dhcp@n2");
        let (at, text) = remarks[1];
        assert_eq!(text, "192.168.1.100 is off the link: its lease has ended");
        assert_eq!(at.since(begun), Duration::from_secs(60));
        // From then on as one that never had an address.
        let (first, what) = *asked.iter().find(|(time, _)| *time >= at).unwrap();
        assert_eq!((first, what), (at, DISCOVERS));
        assert!(remarks[2].1.starts_with("192.168.1.100 acquired"), "{remarks:?}");
        assert!(remarks[2].0 >= Time::from_millis(105_000));
    }

    #[test]
    fn an_address_that_went_with_the_carrier_says_so() {
        let said =
            play("[[fault]]\nkind = \"link-down\"\nat = \"5s\"\nnode = \"n2\"\nlasts = \"1s\"\n");
        assert_eq!(said.by("dhcp@n2")[1].1, "192.168.1.100 is off the link: no carrier");
    }
}
