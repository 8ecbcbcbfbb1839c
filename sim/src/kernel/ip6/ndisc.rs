//! Neighbour discovery (RFC 4861; net/ipv6/ndisc.c): how a neighbour's MAC address is asked for and
//! told, and what is believed of it. Proxies, redirects and routers' messages are not modelled.

use super::Ip6;
use super::scope::solicited_node;
use crate::body::Body;
use crate::kernel::family::V6;
use crate::kernel::link::Link;
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::neigh::{Entry, NeighbourEntry, NeighbourState, Neighbours, News, Resolves};
use crate::kernel::packet::{Advertised, Ct, Discovery, Icmp, Icmp6Error, L4, Packet, Payload};
use crate::kernel::timers::{Alarm, TimerKey};
use crate::kernel::{Cx, Kernel, Mac, Namespace, NsId};
use std::net::Ipv6Addr;

/// Of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What an entry knows beside its state.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Extra {
    /// Its name among all that there ever were.
    number: u32,
    /// It says that it is a router (`NTF_ROUTER`).
    router: bool,
}

/// `nd_tbl`
impl Resolves for V6 {
    type Key = (u32, Ipv6Addr);
    type Extra = Extra;

    fn key(dev: u32, ip: Ipv6Addr) -> (u32, Ipv6Addr) {
        (dev, ip)
    }
    fn keys_of(dev: u32) -> (Self::Key, Self::Key) {
        ((dev, Ipv6Addr::UNSPECIFIED), (dev, Ipv6Addr::from_bits(u128::MAX)))
    }
    fn extra(number: u64) -> Extra {
        Extra { number: number as u32, router: false }
    }
    fn table(ns: &mut Namespace) -> Option<&mut Neighbours<V6>> {
        ns.ip6.as_mut().map(|ip6| &mut ip6.neighbours)
    }
    fn payload(packet: Box<Packet<V6>>) -> Payload {
        Payload::Ip6(packet)
    }
    fn permanent(_: &Link, _: Ipv6Addr) -> Option<Mac> {
        None
    }
    fn timer(ns: NsId, entry: &Entry<V6>) -> TimerKey {
        TimerKey::Neighbour6 { ns, number: entry.extra.number }
    }
    fn solicit(ns: &mut Namespace, cx: &mut Cx<'_>, dev: u32, ip: Ipv6Addr, to: Option<Mac>) {
        ns.nd_solicit(cx, dev, ip, to);
    }
    /// `ndisc_error_report`, ip6_link_failure
    fn report(ns: &mut Namespace, cx: &mut Cx<'_>, packet: &Packet<V6>) {
        ns.icmp6_error(cx, Icmp6Error::AddressUnreachable, packet, None);
    }
}

impl Ip6 {
    /// A link lost its carrier, or has another MAC address (neigh_carrier_down, neigh_changeaddr).
    pub(in crate::kernel) fn drop_neighbours(&mut self, link: &Link) {
        self.neighbours.retain_of(link.index, |_| false);
    }

    /// The neighbour with this number.
    fn numbered(&self, number: u32) -> Option<(u32, Ipv6Addr)> {
        let found = self.neighbours.iter().find(|entry| entry.extra.number == number);
        found.map(|entry| (entry.dev, entry.ip))
    }
}

impl Namespace {
    pub(in crate::kernel) fn neighbour6_alarm(&mut self, number: u32) -> Option<&mut Alarm> {
        let ip6 = self.ip6.as_deref_mut()?;
        let (dev, ip) = ip6.numbered(number)?;
        ip6.neighbours.alarm(dev, ip)
    }

    pub(in crate::kernel) fn neighbour6_timeout(&mut self, cx: &mut Cx<'_>, number: u32) {
        if let Some((dev, ip)) = self.ip6.as_deref().and_then(|ip6| ip6.numbered(number)) {
            self.neighbour_timeout::<V6>(cx, dev, ip);
        }
    }
}

/// A frame to a group has its last four octets (RFC 2464, section 7).
pub(super) fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

impl Namespace {
    /// `ndisc_solicit`: a neighbour that was known is asked itself, any other by its group. It is
    /// asked from the source of the last packet that waits for it, if that is an address of the
    /// link, else from the link's own; a link without one asks nobody.
    fn nd_solicit(&mut self, cx: &mut Cx<'_>, dev: u32, target: Ipv6Addr, to: Option<Mac>) {
        let Some(ip6) = self.ip6.as_deref() else { return };
        let Some(interface) = ip6.interface(dev) else { return };
        let waiting = ip6.neighbours.get(dev, target).and_then(|entry| entry.queue.last());
        let own = waiting.map(|waiting| waiting.packet.src).filter(|src| interface.has(*src));
        let Some(src) = own.or_else(|| interface.link_local()) else { return };
        let source = self.links.get(dev).map(|link| link.mac);
        let dst = to.map_or_else(|| solicited_node(target), |_| target);
        let mac = to.unwrap_or_else(|| group_mac(dst));
        let message = Discovery::Solicitation { target, source };
        let mut packet = discovery(src, dst, message);
        if self.discovery_passes(cx, dev, &mut packet) {
            self.transmit6(cx, dev, mac, packet);
        }
    }

    /// `ndisc_recv_ns`, ndisc_recv_na
    pub(super) fn discovery_input(&mut self, cx: &mut Cx<'_>, dev: u32, packet: &Packet<V6>) {
        let L4::Icmp(Icmp::Discovery(message)) = packet.l4 else { return };
        // What has passed a router is nobody's word of this link; a group is no neighbour.
        if packet.ttl != 255 || message.target().is_multicast() {
            return;
        }
        match message {
            Discovery::Solicitation { target, source } => {
                self.solicited(cx, dev, packet, target, source);
            }
            Discovery::Advertisement { target, flags, link } => {
                self.advertised(cx, dev, packet.dst, target, flags, link);
            }
        }
    }

    /// Somebody asks for an address; it is learned where it is, and answered. Who is about to take
    /// the address (it speaks from none) is told that it is taken.
    fn solicited(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        packet: &Packet<V6>,
        target: Ipv6Addr,
        source: Option<Mac>,
    ) {
        let (from, to_group) = (packet.src, packet.dst.is_multicast());
        let takes = from.is_unspecified();
        let malformed = takes && (source.is_some() || !is_solicited_node(packet.dst));
        let interface = self.ip6.as_ref().and_then(|ip6| ip6.interface(dev));
        let Some(interface) = interface.filter(|_| !malformed) else { return };
        let own = interface.has(target);
        if !own && !interface.anycast().any(|ip| ip == target) {
            return;
        }
        let router = interface.conf.forwarding;
        if takes {
            let flags = Advertised { router, solicited: false, overrides: own };
            return self.advertise(cx, dev, ALL_NODES, target, flags, true);
        }
        let Some(table) = V6::table(self) else { return };
        // Who says no MAC address, and asked this machine itself, is asked for it.
        let known = table.get(dev, from).is_some();
        if !known && to_group && source.is_none() {
            return;
        }
        table.obtain(dev, from);
        let state = NeighbourState::Stale;
        self.learn::<V6>(cx, dev, from, News { mac: source, state, overrides: true, doubts: true });
        let flags = Advertised { router, solicited: true, overrides: own && to_group };
        self.advertise(cx, dev, from, target, flags, to_group);
    }

    /// `ndisc_send_na`; in an anycast address' name nobody speaks.
    fn advertise(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        dst: Ipv6Addr,
        target: Ipv6Addr,
        flags: Advertised,
        says_mac: bool,
    ) {
        let Some(ip6) = self.ip6.as_deref() else { return };
        let own = ip6.interface(dev).is_some_and(|interface| interface.has(target));
        let src = if own { Some(target) } else { ip6.source(dst, Some(dev)) };
        let Some(src) = src else { return };
        let mac = self.links.get(dev).map(|link| link.mac);
        let message = Discovery::Advertisement { target, flags, link: mac.filter(|_| says_mac) };
        let mut packet = discovery(src, dst, message);
        if !self.discovery_passes(cx, dev, &mut packet) {
            return;
        }
        match dst.is_multicast() {
            true => self.transmit6(cx, dev, group_mac(dst), packet),
            false => self.send_to_neighbour(cx, dev, dst, packet),
        }
    }

    /// Somebody says where an address is: that is believed of whom this machine knows or asks for,
    /// and of nobody else (`accept_untracked_na` 0).
    fn advertised(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        dst: Ipv6Addr,
        target: Ipv6Addr,
        flags: Advertised,
        mac: Option<Mac>,
    ) {
        let interface = self.ip6.as_ref().and_then(|ip6| ip6.interface(dev));
        let own = interface.is_some_and(|interface| interface.has(target));
        if own || (dst.is_multicast() && flags.solicited) {
            return;
        }
        let known = V6::table(self).and_then(|table| table.get(dev, target));
        if known.is_none_or(|entry| entry.state == NeighbourState::Failed) {
            return;
        }
        let answers = flags.solicited;
        let state = if answers { NeighbourState::Reachable } else { NeighbourState::Stale };
        let overrides = flags.overrides || mutated(Mutant::OverrideIgnored);
        let believed =
            self.learn::<V6>(cx, dev, target, News { mac, state, overrides, doubts: true });
        if let Some(entry) = V6::table(self).and_then(|table| table.get_mut(dev, target))
            && believed
        {
            entry.extra.router = flags.router;
        }
    }
}

/// `ipv6_addr_is_solict_mult`
fn is_solicited_node(ip: Ipv6Addr) -> bool {
    solicited_node(ip) == ip
}

fn discovery(src: Ipv6Addr, dst: Ipv6Addr, message: Discovery) -> Box<Packet<V6>> {
    // The header, the message, and its option.
    let len = 40 + 24 + if message.link_address().is_some() { 8 } else { 0 };
    Box::new(Packet {
        src,
        dst,
        ttl: 255,
        dont_fragment: true,
        len,
        segment: len,
        l4: L4::Icmp(Icmp::Discovery(message)),
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    })
}

impl Kernel {
    /// The lines of `ip -6 neigh` by link and address, and who says that it is a router.
    pub fn neighbours6(&self, ns: NsId) -> impl Iterator<Item = (NeighbourEntry<V6>, bool)> {
        let ip6 = self.namespace(ns).and_then(|ns| ns.ip6.as_deref());
        ip6.into_iter().flat_map(|ip6| ip6.neighbours.iter()).map(|entry| {
            let (ip, dev, mac, state) = (entry.ip, entry.dev, entry.mac(), entry.state);
            (NeighbourEntry { ip, dev, mac, state }, entry.extra.router)
        })
    }
}
