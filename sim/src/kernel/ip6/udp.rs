//! UDP sockets of IPv6 (net/ipv6/udp.c), each of this family only (`IPV6_V6ONLY`). Not modelled:
//! what one says to a group, which one hears as well; fragments; a scope beside an address.

use super::route::Hop6;
use crate::body::Body;
use crate::kernel::family::V6;
use crate::kernel::forward::Arrival;
use crate::kernel::packet::{Icmp6Error, L4, Packet};
use crate::kernel::socket::Demux;
use crate::kernel::{Cx, Errno, Kernel, Namespace, NsId, Output, Owner, SocketEvent, SocketId};
use kubesim_runtime::Time;
use std::net::{Ipv6Addr, SocketAddrV6};

const HEADERS: u32 = 48;

impl Namespace {
    /// A datagram for this machine: for who is bound to its address, or to all. A group's is
    /// nobody's fault.
    pub(super) fn udp6_input(
        &mut self,
        cx: &mut Cx<'_>,
        (dev, hop): (u32, Hop6),
        (sport, dport): (u16, u16),
        packet: Box<Packet<V6>>,
        arrival: Arrival,
    ) {
        let (ns, dst) = (self.id, packet.dst);
        let bound = |addr| cx.core.sockets.lookup(&Demux::Udp6 { ns, addr, port: dport });
        let Some(socket) = bound(dst).or_else(|| bound(Ipv6Addr::UNSPECIFIED)) else {
            let from = Some((dev, arrival.to_us));
            return self.icmp6_error(cx, Icmp6Error::PortUnreachable, &packet, from);
        };
        let Some(owner) = cx.core.sockets.owner(socket) else { return };
        // What is of one link is told with it.
        let of_link = |ip: Ipv6Addr| if ip.is_unicast_link_local() { hop.dev } else { 0 };
        let event = SocketEvent::Datagram6 {
            from: SocketAddrV6::new(packet.src, sport, 0, of_link(packet.src)),
            local: SocketAddrV6::new(dst, dport, 0, of_link(dst)),
            len: packet.len - HEADERS.min(packet.len),
            body: packet.body,
        };
        cx.tell(owner, socket, event);
    }
}

impl Kernel {
    /// Binds a UDP port on one address or on all. `EADDRNOTAVAIL` for an address that is not this
    /// namespace's, `EADDRINUSE`. (inet6_bind)
    pub fn udp6_bind(
        &mut self,
        ns: NsId,
        addr: Ipv6Addr,
        port: u16,
        owner: Owner,
    ) -> Result<SocketId, Errno> {
        let Kernel { spaces, core, .. } = self;
        let space = spaces.get(ns).ok_or(Errno::Einval)?;
        let ip6 = space.ip6.as_deref();
        let all = || ip6.into_iter().flat_map(|ip6| &ip6.interfaces).flat_map(|i| &i.addresses);
        let any = addr.is_unspecified();
        if !any && !all().any(|net| net.addr() == addr) {
            return Err(Errno::Eaddrnotavail);
        }
        // A socket on all addresses and one on a single address exclude each other.
        let is_free = |addr| core.sockets.is_free(&Demux::Udp6 { ns, addr, port });
        let clash = any && !all().all(|net| is_free(net.addr()));
        if clash || !is_free(Ipv6Addr::UNSPECIFIED) {
            return Err(Errno::Eaddrinuse);
        }
        core.sockets.open(owner, Demux::Udp6 { ns, addr, port }, None)
    }

    /// Sends a datagram of `len` bytes, from the bound address, else from what suits the
    /// destination best (udpv6_sendmsg). `ENETUNREACH`, `EADDRNOTAVAIL`, `EMSGSIZE`, `EPERM` where
    /// a rule drops it.
    pub fn udp6_send(
        &mut self,
        now: Time,
        socket: SocketId,
        to: (Ipv6Addr, u16),
        body: Body,
        len: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let demux = self.core.sockets.get(socket).map(|socket| socket.demux);
        let Some(Demux::Udp6 { ns, addr, port }) = demux else {
            return Err(if demux.is_some() { Errno::Eopnotsupp } else { Errno::Einval });
        };
        self.within(now, ns, out, |space, cx| {
            let own = Some(addr).filter(|addr| !addr.is_unspecified());
            let (hop, src) = space.route_output6(to.0, own, None)?;
            let l4 = L4::Udp { sport: port, dport: to.1 };
            let packet = super::icmp::packet(src, to.0, HEADERS + len, l4, body);
            let mtu = space.links.get(hop.dev).map_or(0, |link| link.mtu);
            if packet.len > mtu {
                return Err(Errno::Emsgsize);
            }
            space.local_out6(cx, hop, packet)
        })
    }
}
