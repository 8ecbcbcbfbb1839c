//! The modelled kernel of one machine: network namespaces with their links, addresses, routes,
//! neighbours, packet rules and sockets, as Linux 6.18 has them.
//!
//! Sans-IO: a frame, an alarm or a call comes in, [`Output`]s go out. Everything inside the
//! machine (a pod's veth, the bridge, the host, its uplink) is walked within the one call, with a
//! local queue in place of Linux' per-CPU backlog.
//!
//! The way of a packet: [`Kernel::receive`] -> `ether_input` (bridge.rs takes ports) ->
//! `ip_input` (forward.rs: hooks, routing) -> `tcp`/`udp`/`icmp` or `finish_output` (neigh.rs
//! finds the MAC) -> `transmit` (link.rs). IPv6 has a way of its own between bridge and neighbour
//! (ip6/forward.rs).

mod address;
mod approach;
mod arp;
mod bridge;
mod dump;
pub mod family;
mod forward;
mod heed;
mod icmp;
mod index;
mod input;
mod inspect;
mod ip6;
mod link;
pub mod mutants;
mod neigh;
pub mod netfilter;
pub mod packet;
mod port;
mod route;
mod shared_routes;
mod socket;
pub mod sysctl;
mod tcp;
#[cfg(test)]
mod tests;
mod timers;
mod udp;
mod virtuals;
mod vxlan;
mod wireguard;

use self::family::{Family, V4};
use self::icmp::{Limiter, PathMtu};
use self::ip6::Ip6;
use self::link::Links;
use self::neigh::Neighbours;
use self::netfilter::{Netfilter, Netfilter6};
use self::packet::{Ct, Frame, IcmpError, Packet, Payload};
use self::route::Fib;
use self::socket::Sockets;
use self::sysctl::Sysctls;
use self::timers::{TimerKey, Timers};
use crate::backlog::Backlog;
use crate::body::Body;
use kubesim_actors::ports::network::{Errno, IfName, Mac};
use kubesim_runtime::{Hasher, Rng, Time};
use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

pub use self::address::Address;
pub use self::heed::{Announced, ArpInterest};
pub use self::ip6::{Placing, Route6};
pub use self::link::Link;
pub use self::neigh::{NeighbourEntry, NeighbourState};
pub use self::netfilter::ChainPool;
pub use self::route::Scope;
pub use self::shared_routes::RouteBlocks;
pub use self::socket::SocketId;
pub use self::wireguard::Message as WireguardMessage;

/// A network namespace of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NsId(pub u32);

impl NsId {
    pub const HOST: NsId = NsId(0);
}

/// An opaque tag of whoever opened a socket. Children of a listener inherit it.
pub type Owner = u64;

/// What a call made happen outside the kernel.
#[derive(Clone, Debug)]
pub enum Output {
    /// A frame leaves by an uplink (its index in the host namespace).
    Transmit {
        link: u32,
        frame: Frame,
    },
    Socket {
        owner: Owner,
        socket: SocketId,
        event: SocketEvent,
    },
    /// Links, addresses, sysctls or routes of the host namespace changed other than by a
    /// `SetRoutes`: what a netlink subscriber is told, once a call.
    Changed {
        ns: NsId,
    },
}

#[derive(Clone, Debug)]
pub enum SocketEvent {
    Connected,
    /// A connection to `listener` is established; the event's socket is the child's.
    Accepted {
        listener: SocketId,
        local: SocketAddrV4,
        peer: SocketAddrV4,
    },
    /// A whole message of `len` bytes, in the order they were sent.
    Received {
        body: Body,
        len: u32,
    },
    Datagram {
        from: SocketAddrV4,
        local: SocketAddrV4,
        body: Body,
        len: u32,
    },
    /// Of IPv6; the scope of an address that is of one link is that link's index.
    Datagram6 {
        from: SocketAddrV6,
        local: SocketAddrV6,
        body: Body,
        len: u32,
    },
    /// The peer will send no more (FIN).
    PeerClosed,
    /// Both sides are done; the socket is gone.
    Closed,
    /// Reset, refused, timed out, unreachable; the socket is gone.
    Failed(Errno),
    EchoReply {
        from: Ipv4Addr,
        id: u16,
        seq: u16,
        ttl: u8,
    },
    /// An ICMP error about a datagram or an echo sent there.
    Icmp {
        kind: IcmpError,
        to: SocketAddrV4,
    },
}

/// The kernel of one machine.
#[derive(Clone, Debug)]
pub struct Kernel {
    spaces: Spaces,
    core: Core,
    shared: Shared,
    /// What the last [`ArpInterest`] was computed from.
    heard: Option<heed::Basis>,
}

/// What many kernels index or compile once, since they have it alike.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    routes: RouteBlocks,
    chains: ChainPool,
}

/// The namespaces, by number; a removed one leaves a hole.
#[derive(Clone, Debug, Default)]
struct Spaces(Vec<Option<Box<Namespace>>>);

impl Spaces {
    fn get(&self, ns: NsId) -> Option<&Namespace> {
        self.0.get(ns.0 as usize)?.as_deref()
    }
    fn get_mut(&mut self, ns: NsId) -> Option<&mut Namespace> {
        self.0.get_mut(ns.0 as usize)?.as_deref_mut()
    }
}

/// What all namespaces of a machine share.
#[derive(Clone, Debug)]
struct Core {
    rng: Rng,
    timers: Timers,
    sockets: Sockets,
    /// Frames that crossed a veth, a loopback or a tunnel and wait to be received.
    work: Backlog<Work>,
    host_changed: bool,
    /// Frames passed from one interface to another in here, and a hash of them all.
    walked: u64,
    hasher: Hasher,
}

impl Core {
    /// Hands a frame to another interface of the machine.
    fn pass(&mut self, work: Work) {
        self.walked += 1;
        self.hasher.u64(u64::from(work.ns.0) << 32 | u64::from(work.link));
        work.frame.digest(&mut self.hasher);
        self.work.push(work);
    }
}

#[derive(Clone, Debug)]
struct Work {
    ns: NsId,
    link: u32,
    frame: Frame,
}

/// One call's surroundings.
struct Cx<'a> {
    now: Time,
    core: &'a mut Core,
    out: &'a mut Vec<Output>,
}

impl Cx<'_> {
    fn changed(&mut self, ns: NsId) {
        self.core.host_changed |= ns == NsId::HOST;
    }
    fn tell(&mut self, owner: Owner, socket: SocketId, event: SocketEvent) {
        self.out.push(Output::Socket { owner, socket, event });
    }
}

#[derive(Clone, Debug)]
struct Namespace {
    id: NsId,
    links: Links,
    fib: Fib,
    neighbours: Neighbours<V4>,
    netfilter: Netfilter,
    netfilter6: Netfilter6,
    sysctls: Sysctls,
    limiter: Limiter,
    /// Sorted by destination.
    path_mtus: Vec<PathMtu>,
    /// Open vxlan ports: port, vni, the device.
    vxlan_ports: Vec<(u16, u32, u32)>,
    /// Ports of WireGuard devices: port, the device.
    wireguard_ports: Vec<(u16, u32)>,
    /// `None` until it is switched on.
    ip6: Option<Box<Ip6>>,
}

impl Namespace {
    /// A new namespace has a loopback, which is down (net/core/net_namespace.c).
    fn new(id: NsId) -> Self {
        let mut ns = Namespace {
            id,
            links: Links::default(),
            fib: Fib::default(),
            neighbours: Neighbours::default(),
            netfilter: Netfilter::default(),
            netfilter6: Netfilter6::default(),
            sysctls: Sysctls::default(),
            limiter: Limiter::default(),
            path_mtus: Vec::new(),
            vxlan_ports: Vec::new(),
            wireguard_ports: Vec::new(),
            ip6: None,
        };
        ns.add_link("lo", Mac::default(), 65_536, link::Kind::Loopback)
            .expect("the first link of a namespace has a free name");
        ns
    }
}

impl Kernel {
    /// Index of the loopback in every namespace.
    pub const LO: u32 = 1;

    /// A machine with its host namespace, whose loopback is up with 127.0.0.1/8.
    pub fn new(rng: Rng) -> Self {
        Kernel::sharing(rng, Shared::default())
    }

    /// As [`Kernel::new`]; kernels with the same `shared` hold sets of routes and chains that are
    /// alike once.
    pub fn sharing(rng: Rng, shared: Shared) -> Self {
        let core = Core {
            rng,
            timers: Timers::default(),
            sockets: Sockets::default(),
            work: Backlog::default(),
            host_changed: false,
            walked: 0,
            hasher: Hasher::default(),
        };
        let chains = shared.chains.clone();
        let mut kernel = Kernel { spaces: Spaces::default(), core, shared, heard: None };
        let host = kernel.add_namespace();
        if let Some(netfilter) = kernel.netfilter_mut(host) {
            netfilter.share(chains);
        }
        kernel
    }

    /// What this kernel leaves to chance is drawn from here from now on.
    pub fn set_rng(&mut self, rng: Rng) {
        self.core.rng = rng;
    }

    /// A namespace whose loopback is up with 127.0.0.1/8, as runtimes leave it.
    pub fn add_namespace(&mut self) -> NsId {
        let id = NsId(self.spaces.0.len() as u32);
        self.spaces.0.push(Some(Box::new(Namespace::new(id))));
        let mut ignored = Vec::new();
        let net = ipnet::Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8);
        self.set_up(Time::ZERO, id, Self::LO, true, &mut ignored)
            .and_then(|()| self.add_address(Time::ZERO, id, Self::LO, net, &mut ignored))
            .expect("a new loopback takes its address");
        id
    }

    /// The namespace ends with its links, the other ends of its veths, and its sockets, which
    /// vanish without a word to anyone.
    pub fn remove_namespace(&mut self, now: Time, ns: NsId, out: &mut Vec<Output>) {
        if ns == NsId::HOST {
            return;
        }
        let veths: Vec<_> = self.links(ns).map(|link| (link.index, link.kind.clone())).collect();
        self.with(now, out, |spaces, cx| {
            for (index, kind) in veths {
                if let link::Kind::Veth { ns: peer_ns, peer } = kind {
                    spaces.detach(cx, ns, index);
                    spaces.detach(cx, peer_ns, peer);
                }
            }
            cx.core.sockets.remove_namespace(ns);
            if let Some(slot) = spaces.0.get_mut(ns.0 as usize) {
                *slot = None;
            }
        });
    }

    /// A frame came in by an uplink of the host namespace.
    pub fn receive(&mut self, now: Time, link: u32, frame: Frame, out: &mut Vec<Output>) {
        self.core.work.push(Work { ns: NsId::HOST, link, frame });
        self.settle(now, out);
    }

    /// How many frames passed from one interface to another inside the machine since the last
    /// call, and a hash of all that ever did.
    pub fn take_walk(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.core.walked), self.core.hasher.finish())
    }

    /// When [`Kernel::timeout`] wants to be called; earlier calls do no harm.
    pub fn next_deadline(&self) -> Option<Time> {
        self.core.timers.first().map(|(at, _)| at)
    }

    /// Acts on every deadline that has come.
    pub fn timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some((at, key)) = self.core.timers.first() {
            if at > now {
                break;
            }
            if !self.entry_stands(at, key) {
                continue;
            }
            let mut cx = Cx { now, core: &mut self.core, out };
            match key {
                TimerKey::Neighbour { ns, dev, ip } => {
                    if let Some(ns) = self.spaces.get_mut(ns) {
                        ns.neighbour_timeout::<V4>(&mut cx, dev, ip);
                    }
                }
                TimerKey::Neighbour6 { ns, number } => {
                    if let Some(ns) = self.spaces.get_mut(ns) {
                        ns.neighbour6_timeout(&mut cx, number);
                    }
                }
                TimerKey::Wireguard { ns, dev } => {
                    if let Some(ns) = self.spaces.get_mut(ns) {
                        ns.wireguard_timeout(&mut cx, dev);
                    }
                }
                TimerKey::Socket(id) => {
                    let ns = cx.core.sockets.namespace(id);
                    if let Some(ns) = ns.and_then(|ns| self.spaces.get_mut(ns)) {
                        ns.socket_timeout(&mut cx, id);
                    }
                }
            }
            self.drain(now, out);
        }
        self.settle(now, out);
    }

    /// Whether the first timer entry is for a deadline that still holds.
    fn entry_stands(&mut self, at: Time, key: TimerKey) -> bool {
        let alarm = match key {
            TimerKey::Neighbour { ns, dev, ip } => {
                self.spaces.get_mut(ns).and_then(|ns| ns.neighbours.alarm(dev, ip))
            }
            TimerKey::Neighbour6 { ns, number } => {
                self.spaces.get_mut(ns).and_then(|ns| ns.neighbour6_alarm(number))
            }
            TimerKey::Wireguard { ns, dev } => {
                self.spaces.get_mut(ns).and_then(|ns| ns.wireguard_alarm(dev))
            }
            TimerKey::Socket(id) => self.core.sockets.alarm(id),
        };
        self.core.timers.check_first(at, key, alarm)
    }

    /// Receives what waits in the local queue.
    fn drain(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(work) = self.core.work.pop() {
            let Some(ns) = self.spaces.get_mut(work.ns) else { continue };
            let mut cx = Cx { now, core: &mut self.core, out };
            ns.link_input(&mut cx, work.link, work.frame);
        }
    }

    /// Ends a call: the local queue, one notification, and a first timer that is real.
    fn settle(&mut self, now: Time, out: &mut Vec<Output>) {
        self.drain(now, out);
        if std::mem::take(&mut self.core.host_changed) {
            out.push(Output::Changed { ns: NsId::HOST });
        }
        while let Some((at, key)) = self.core.timers.first() {
            if self.entry_stands(at, key) {
                break;
            }
        }
    }

    /// Runs a change of configuration with a context, then settles.
    fn with<R>(
        &mut self,
        now: Time,
        out: &mut Vec<Output>,
        change: impl FnOnce(&mut Spaces, &mut Cx<'_>) -> R,
    ) -> R {
        let result = change(&mut self.spaces, &mut Cx { now, core: &mut self.core, out });
        self.settle(now, out);
        result
    }

    /// Runs `act` in one namespace, then settles.
    fn within<R>(
        &mut self,
        now: Time,
        ns: NsId,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Namespace, &mut Cx<'_>) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let space = self.spaces.get_mut(ns).ok_or(Errno::Einval)?;
        let result = act(space, &mut Cx { now, core: &mut self.core, out });
        self.settle(now, out);
        result
    }

    fn namespace(&self, ns: NsId) -> Option<&Namespace> {
        self.spaces.get(ns)
    }
    fn namespace_mut(&mut self, ns: NsId) -> Option<&mut Namespace> {
        self.spaces.get_mut(ns)
    }

    /// The packet rules of a namespace.
    pub fn netfilter(&self, ns: NsId) -> Option<&Netfilter> {
        self.namespace(ns).map(|ns| &ns.netfilter)
    }
    pub fn netfilter_mut(&mut self, ns: NsId) -> Option<&mut Netfilter> {
        self.namespace_mut(ns).map(|ns| &mut ns.netfilter)
    }
    /// What ip6tables writes.
    pub fn netfilter6(&self, ns: NsId) -> Option<&Netfilter6> {
        Some(&self.namespace(ns)?.netfilter6)
    }
    pub fn netfilter6_mut(&mut self, ns: NsId) -> Option<&mut Netfilter6> {
        Some(&mut self.namespace_mut(ns)?.netfilter6)
    }
}

impl Frame {
    /// Forgets what is local to a machine's namespace.
    fn leave_machine(&mut self) {
        match &mut self.payload {
            Payload::Arp(_) => {}
            Payload::Ip(packet) => packet.leave_machine(),
            Payload::Ip6(packet) => packet.leave_machine(),
        }
    }
}

impl<F: Family> Packet<F> {
    fn leave_machine(&mut self) {
        self.mark = 0;
        self.ct = Ct::None;
    }
}
