//! A DHCP client (RFC 2131), as NetworkManager runs one: an address that was lost with the carrier
//! is taken off the link at once. Its model is `sim/src/world/programs/dhcp.rs`.

use super::frames::Frames;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::Plan;
use crate::lab::wire::dhcp::{self, CLIENT_PORT, SERVER_PORT};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_backends::network::admin::Admin;
use kubesim_runtime::{Rng, Stream};
use kubesim_sim::body::{Body, Dhcp, DhcpKind};
use kubesim_sim::dhcp::{self as renewal, Phase};
use kubesim_sim::kernel::packet::{Ct, Frame, L4, Packet, Payload};
use kubesim_sim::world::Dropped;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// From a carrier to the card's queue being open (linkwatch_do_dev, net/core/link_watch.c).
const SETTLE: Duration = Duration::from_millis(2);
/// The first try is repeated sooner than RFC 2131 has it: that queue may not be open yet.
const FIRST: Duration = Duration::from_millis(250);

pub struct Client {
    plan: Rc<Plan>,
    mail: Mail,
    card: u32,
    admin: Admin,
    socket: UdpSocket,
    frames: Frames,
    rng: Rng,
    lease: Option<Dhcp>,
    /// When it asked last.
    asked: Instant,
}

/// Why a client stops what it does.
enum Interrupted {
    /// The carrier came or went.
    Carrier,
    /// The machine is off.
    Off,
}

impl Client {
    pub fn new(plan: Rc<Plan>, mail: Mail, card: u32) -> io::Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        // Without an address there is no route: the card is the way.
        socket.bind_device(Some(plan.card.name.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let frames = Frames::out_of(&plan.card.name)?;
        let seed = plan.seed ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64);
        let rng = Rng::new(Stream { seed, label: "dhcp", index: card.into(), incarnation: 0 });
        let (admin, asked) = (Admin::open()?, Instant::now());
        Ok(Client { plan, mail, card, admin, socket, frames, rng, lease: None, asked })
    }

    pub async fn run(mut self, mut carrier: watch::Receiver<bool>) {
        loop {
            if !*carrier.borrow_and_update() {
                self.unbind(Dropped::NoCarrier);
                if carrier.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if let Err(Interrupted::Off) = self.lead(&mut carrier).await {
                return;
            }
        }
    }

    /// As long as there is a carrier: a lease, and its renewals.
    async fn lead(&mut self, carrier: &mut watch::Receiver<bool>) -> Result<(), Interrupted> {
        tokio::time::sleep(SETTLE).await;
        loop {
            let transaction = self.rng.u64() as u32;
            let discover = self.message(DhcpKind::Discover, transaction, None);
            let offer = self.ask(&discover, DhcpKind::Offer, u32::MAX, carrier).await?;
            let Some(offer) = offer else { continue };
            let request = self.message(DhcpKind::Request, transaction, Some(&offer));
            let Some(lease) = self.ask(&request, DhcpKind::Ack, 4, carrier).await? else {
                continue;
            };
            self.bind(lease);
            self.keep(transaction, carrier).await?;
        }
    }

    /// Renews the lease when RFC 2131 wants it, and hears what is said unasked, until it is lost.
    async fn keep(
        &mut self,
        transaction: u32,
        carrier: &mut watch::Receiver<bool>,
    ) -> Result<(), Interrupted> {
        let mut since = self.asked;
        loop {
            let Some(lease) = self.lease.clone() else { return Ok(()) };
            let elapsed = since.elapsed();
            match renewal::phase(lease.lease, elapsed) {
                Phase::Bound => {}
                Phase::Renewing => self.renew(transaction, &lease, lease.server).await,
                Phase::Rebinding => self.renew(transaction, &lease, Ipv4Addr::BROADCAST).await,
                Phase::Expired => self.unbind(Dropped::Expired),
            }
            let next = since + renewal::next(lease.lease, elapsed);
            match self.hear(transaction, next, carrier).await? {
                Some(said) if said.kind == DhcpKind::Ack => {
                    since = if said.transaction == 0 { Instant::now() } else { self.asked };
                    self.bind(said);
                }
                Some(said) if said.kind == DhcpKind::Nak => self.unbind(Dropped::Refused),
                _ => {}
            }
        }
    }

    /// Asks for the address that it has.
    async fn renew(&mut self, transaction: u32, lease: &Dhcp, to: Ipv4Addr) {
        let mut request = self.message(DhcpKind::Request, transaction, Some(lease));
        request.server = Ipv4Addr::UNSPECIFIED;
        self.asked = Instant::now();
        let to = SocketAddrV4::new(to, SERVER_PORT);
        // Where there is no way to it there is no answer, and it asks again.
        let _ = self.socket.send_to(&dhcp::encode(&request), to).await;
    }

    /// From nobody yet.
    fn to_everybody(&self, message: &Dhcp) -> Frame {
        let packet = Packet {
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::BROADCAST,
            ttl: 64,
            dont_fragment: false,
            // What is in it says how long it is.
            len: 0,
            segment: 0,
            l4: L4::Udp { sport: CLIENT_PORT, dport: SERVER_PORT },
            body: Body::Dhcp(Arc::new(message.clone())),
            mark: 0,
            ct: Ct::None,
        };
        let src = self.plan.card.mac;
        Frame { src, dst: Mac::BROADCAST, payload: Payload::Ip(Box::new(packet)) }
    }

    fn message(&self, kind: DhcpKind, transaction: u32, about: Option<&Dhcp>) -> Dhcp {
        Dhcp {
            kind,
            transaction,
            client: self.plan.card.mac,
            address: about.map_or(Ipv4Addr::UNSPECIFIED, |offer| offer.address),
            prefix_length: 0,
            router: None,
            dns: Vec::new(),
            lease: Duration::ZERO,
            server: about.map_or(Ipv4Addr::UNSPECIFIED, |offer| offer.server),
        }
    }

    /// Asks again after 1 s, 2 s, 4 s and so on up to 16 s; `None`: refused, or never answered.
    async fn ask(
        &mut self,
        message: &Dhcp,
        wanted: DhcpKind,
        tries: u32,
        carrier: &mut watch::Receiver<bool>,
    ) -> Result<Option<Dhcp>, Interrupted> {
        for number in 0..tries {
            // A link without carrier loses it, as a radio out of range does.
            self.asked = Instant::now();
            self.frames.send(&self.to_everybody(message));
            let wait = match number {
                0 => FIRST,
                number => Duration::from_secs(1 << (number - 1).min(4)),
            };
            let until = Instant::now() + wait;
            while let Some(said) = self.hear(message.transaction, until, carrier).await? {
                match said.kind {
                    kind if kind == wanted => return Ok(Some(said)),
                    DhcpKind::Nak => return Ok(None),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// The next message for this client; one with the number 0 is unasked.
    async fn hear(
        &mut self,
        transaction: u32,
        until: Instant,
        carrier: &mut watch::Receiver<bool>,
    ) -> Result<Option<Dhcp>, Interrupted> {
        let mut buffer = [0; 2048];
        loop {
            let received = tokio::select! {
                changed = carrier.changed() => {
                    return Err(changed.map_or(Interrupted::Off, |()| Interrupted::Carrier));
                }
                received = timeout_at(until, self.socket.recv_from(&mut buffer)) => received,
            };
            let Ok(received) = received else { return Ok(None) };
            let Ok((length, _)) = received else { continue };
            let ours = dhcp::decode(&buffer[..length]).filter(|said| {
                let asked = said.transaction == transaction || said.transaction == 0;
                said.client == self.plan.card.mac && asked
            });
            if let Some(said) = ours {
                return Ok(Some(said));
            }
        }
    }

    fn bind(&mut self, lease: Dhcp) {
        let renewed = self.lease.as_ref().is_some_and(|old| net_of(old) == net_of(&lease));
        if !renewed {
            self.unbind(Dropped::Replaced);
            self.configure(&lease);
        }
        if self.plan.writes_resolv_conf {
            let text: String = lease.dns.iter().map(|ip| format!("nameserver {ip}\n")).collect();
            self.write_resolv_conf(&text);
        }
        self.lease = Some(lease);
    }

    fn configure(&mut self, lease: &Dhcp) {
        let net = net_of(lease);
        let added = self.admin.add_address(self.card, net).and_then(|()| match lease.router {
            None => Ok(()),
            via => {
                let (to, dev) = (Ipv4Net::default(), self.plan.card.name.clone());
                let route = Route { to, via, dev, onlink: false, metric: 100 };
                self.admin.add_route(self.card, &route, Proto::DHCP)
            }
        });
        match added {
            Ok(()) => self.mail.send(News::AddressTaken(net.addr())),
            Err(errno) => self.mail.send(News::Remark(
                format!("dhcp@{}", self.plan.name),
                format!("{net} on {}: {errno}", self.plan.card.name),
            )),
        }
    }

    fn unbind(&mut self, why: Dropped) {
        let Some(lease) = self.lease.take() else { return };
        let net = net_of(&lease);
        if self.admin.del_address(self.card, net).is_ok() {
            self.mail.send(News::AddressDropped(net.addr(), why));
        }
    }

    /// By rename, as NetworkManager does.
    fn write_resolv_conf(&self, text: &str) {
        let full = self.plan.root.join("etc/resolv.conf");
        let beside = full.with_extension("conf.new");
        let written = std::fs::create_dir_all(self.plan.root.join("etc"))
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, &full));
        if let Err(error) = written {
            let why = format!("writing {}: {error}", full.display());
            self.mail.send(News::Remark(format!("dhcp@{}", self.plan.name), why));
        }
    }
}

fn net_of(lease: &Dhcp) -> Ipv4Net {
    Ipv4Net::new(lease.address, lease.prefix_length)
        .unwrap_or_else(|_| Ipv4Net::new_assert(lease.address, 32))
}
