//! UDP sockets (net/ipv4/udp.c).

use super::forward::Arrival;
use super::packet::{Ct, IcmpError, L4, Packet, Quoted};
use super::socket::Demux;
use super::{Cx, Errno, Kernel, Namespace, NsId, Output, Owner, SocketEvent, SocketId};
use crate::body::Body;
use kubesim_actors::ports::rules::AddrType;
use kubesim_runtime::Time;
use std::net::{Ipv4Addr, SocketAddrV4};

const HEADERS: u32 = 28;
/// Bytes that a datagram carries at most: its length is a 16-bit number (ip_append_data).
const MOST: u32 = 0xffff - HEADERS;

fn datagram(src: SocketAddrV4, dst: SocketAddrV4, body: Body, len: u32) -> Box<Packet> {
    Box::new(Packet {
        src: *src.ip(),
        dst: *dst.ip(),
        ttl: 64,
        dont_fragment: false,
        len: HEADERS + len,
        segment: HEADERS + len,
        l4: L4::Udp { sport: src.port(), dport: dst.port() },
        body,
        mark: 0,
        ct: Ct::None,
    })
}

impl Namespace {
    /// As a socket with IP_PMTUDISC_WANT: what fits the path, as far as it is known, says DF; what
    /// does not leaves in fragments (__ip_make_skb, net/ipv4/ip_output.c).
    fn send_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        mut packet: Box<Packet>,
        dev: Option<u32>,
    ) -> Result<(), Errno> {
        let hop = self.route_output(packet.dst, dev)?;
        let fits = packet.len <= self.path_mtu(packet.dst, &hop, cx.now);
        packet.dont_fragment = fits && self.may_say_df(packet.dst, cx.now);
        self.output(cx, packet, dev)
    }

    fn udp_socket(&self, cx: &Cx<'_>, addr: Ipv4Addr, port: u16) -> Option<SocketId> {
        let at = |addr| cx.core.sockets.lookup(&Demux::Udp { ns: self.id, addr, port });
        at(addr).or_else(|| at(Ipv4Addr::UNSPECIFIED))
    }

    pub(super) fn udp_input(
        &mut self,
        cx: &mut Cx<'_>,
        sport: u16,
        dport: u16,
        packet: Box<Packet>,
        arrival: Arrival,
    ) {
        let packet = match self.vxlan_input(cx, dport, packet) {
            Ok(()) => return,
            Err(packet) => packet,
        };
        let packet = match self.wireguard_input(cx, (sport, dport), packet) {
            Ok(()) => return,
            Err(packet) => packet,
        };
        let Some(socket) = self.udp_socket(cx, packet.dst, dport) else {
            if arrival.to_us && self.fib.addr_type(packet.dst) == AddrType::Local {
                self.icmp_error(cx, IcmpError::PortUnreachable, &packet);
            }
            return;
        };
        let Some(owner) = cx.core.sockets.owner(socket) else { return };
        let event = SocketEvent::Datagram {
            from: SocketAddrV4::new(packet.src, sport),
            local: SocketAddrV4::new(packet.dst, dport),
            len: packet.len - HEADERS.min(packet.len),
            body: packet.body,
        };
        cx.tell(owner, socket, event);
    }

    /// An error about a datagram: its socket is told, as one with IP_RECVERR is.
    pub(super) fn udp_error(
        &mut self,
        cx: &mut Cx<'_>,
        kind: IcmpError,
        about: &Quoted,
        to: SocketAddrV4,
    ) {
        let Some(socket) = self.udp_socket(cx, about.src, about.sport) else { return };
        if let Some(owner) = cx.core.sockets.owner(socket) {
            self.heed_path_mtu(cx, kind, about.dst);
            cx.tell(owner, socket, SocketEvent::Icmp { kind, to });
        }
    }
}

impl Kernel {
    /// Binds a UDP port, 0 for an ephemeral one, on one address or on all. `EADDRNOTAVAIL` for
    /// an address that is not this namespace's, `EADDRINUSE`.
    pub fn udp_bind(
        &mut self,
        ns: NsId,
        addr: Ipv4Addr,
        port: u16,
        owner: Owner,
    ) -> Result<SocketId, Errno> {
        let Kernel { spaces, core, .. } = self;
        let space = spaces.get(ns).ok_or(Errno::Einval)?;
        if !addr.is_unspecified() && space.fib.addr_type(addr) == AddrType::Unicast {
            return Err(Errno::Eaddrnotavail);
        }
        let demux = |port| Demux::Udp { ns, addr, port };
        let port = if port == 0 { core.ephemeral(demux)? } else { port };
        // A socket on all addresses and one on a single address exclude each other
        // (inet_rcv_saddr_equal without SO_REUSEADDR).
        let any = Demux::Udp { ns, addr: Ipv4Addr::UNSPECIFIED, port };
        if !core.sockets.is_free(&any) {
            return Err(Errno::Eaddrinuse);
        }
        if addr.is_unspecified() {
            let clash = space_addresses(space)
                .any(|addr| !core.sockets.is_free(&Demux::Udp { ns, addr, port }));
            if clash {
                return Err(Errno::Eaddrinuse);
            }
        }
        core.sockets.open(owner, demux(port), None)
    }

    /// The port a UDP or TCP socket is bound to.
    pub fn local_port(&self, socket: SocketId) -> Option<u16> {
        match self.core.sockets.get(socket)?.demux {
            Demux::Udp { port, .. } | Demux::Udp6 { port, .. } => Some(port),
            Demux::Listener { port, .. } => Some(port),
            Demux::Connection { local, .. } => Some(local.port()),
            Demux::Ping { .. } => None,
        }
    }

    /// Sends a datagram of `len` bytes, from `from` if given (it must be this namespace's), else
    /// from the bound address, else from what the route prefers.
    #[allow(clippy::too_many_arguments, reason = "the fields of a datagram")]
    pub fn udp_send(
        &mut self,
        now: Time,
        socket: SocketId,
        from: Option<Ipv4Addr>,
        to: SocketAddrV4,
        body: Body,
        len: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let (ns, bound, port) = self.udp_of(socket)?;
        self.within(now, ns, out, |space, cx| {
            if from.is_some_and(|from| !space.fib.is_local(from)) {
                return Err(Errno::Einval);
            }
            if len > MOST {
                return Err(Errno::Emsgsize);
            }
            let src = SocketAddrV4::new(from.unwrap_or(bound), port);
            space.send_datagram(cx, datagram(src, to, body, len), None)
        })
    }

    /// Sends to 255.255.255.255 by a link, from its address or, without one, from 0.0.0.0.
    #[allow(clippy::too_many_arguments, reason = "the fields of a datagram")]
    pub fn udp_broadcast(
        &mut self,
        now: Time,
        ns: NsId,
        link: u32,
        socket: SocketId,
        dst_port: u16,
        body: Body,
        len: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let (_, bound, port) = self.udp_of(socket)?;
        self.within(now, ns, out, |space, cx| {
            let device = space.links.get(link).ok_or(Errno::Enodev)?;
            let own = device.addresses.first().map(|address| address.ip());
            let src = if bound.is_unspecified() { own } else { Some(bound) };
            let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, dst_port);
            let Some(src) = src else {
                // As a packet socket sends, which is how DHCP clients do: nobody chooses a source.
                let hop = space.route_output(Ipv4Addr::BROADCAST, Some(link))?;
                let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
                return space.output_by(cx, hop, datagram(from, to, body, len), Some(link));
            };
            let src = SocketAddrV4::new(src, port);
            space.send_datagram(cx, datagram(src, to, body, len), Some(link))
        })
    }

    fn udp_of(&self, socket: SocketId) -> Result<(NsId, Ipv4Addr, u16), Errno> {
        match self.core.sockets.get(socket).map(|socket| socket.demux) {
            Some(Demux::Udp { ns, addr, port }) => Ok((ns, addr, port)),
            Some(_) => Err(Errno::Eopnotsupp),
            None => Err(Errno::Einval),
        }
    }
}

fn space_addresses(space: &Namespace) -> impl Iterator<Item = Ipv4Addr> {
    space.links.iter().flat_map(|link| &link.addresses).map(|address| address.ip())
}
