//! The way of a packet: input, forwarding and output (net/ipv6/ip6_input.c, ip6_output.c).

use super::Ip6;
use super::filter::Way;
use super::ndisc::group_mac;
use super::route::{Hop6, Kind6};
use crate::kernel::family::V6;
use crate::kernel::forward::Arrival;
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::netfilter::Hook;
use crate::kernel::packet::{Ct, Frame, Icmp6Error, L4, Packet, Payload};
use crate::kernel::{Cx, Errno, Kernel, Mac, Namespace};
use std::net::Ipv6Addr;

/// `IPV6_MIN_MTU` (RFC 8200, section 5)
const MIN_MTU: u32 = 1280;

impl Namespace {
    /// A packet came in (ip6_rcv_core, ip6_rcv_finish).
    pub(in crate::kernel) fn ip6_input(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        mut packet: Box<Packet<V6>>,
        arrival: Arrival,
    ) {
        let Some(ip6) = self.ip6.as_deref() else { return };
        let disabled = ip6.interface(dev).is_none_or(|interface| interface.conf.disabled);
        let loopback = self.links.get(dev).is_some_and(|link| link.is_loopback());
        if disabled || is_martian(&packet, loopback) {
            return;
        }
        let way = Way { input: Some(dev), output: None, to_us: arrival.to_us };
        if !self.passes6(cx, Hook::Prerouting, &mut packet, way) {
            return;
        }
        let Some(ip6) = self.ip6.as_deref() else { return };
        // What this machine says to itself keeps the way that was found for it, and counts as come
        // by the link that has the address.
        let hop = ip6.route(packet.dst, Some(dev).filter(|_| !loopback), false);
        let (came, dev) = (dev, hop.filter(|_| loopback).map_or(dev, |hop| hop.dev));
        match hop {
            None => self.icmp6_error(cx, Icmp6Error::NoRoute, &packet, arrived(dev, arrival)),
            Some(hop) if hop.kind == Kind6::Multicast => {
                // ip6_mc_input
                if ip6.interface(dev).is_some_and(|i| i.listens_to(packet.dst)) {
                    self.local_input6(cx, (came, dev), packet, hop, arrival);
                }
            }
            Some(hop) if hop.is_here() => {
                self.local_input6(cx, (came, dev), packet, hop, arrival);
            }
            Some(hop) => self.forward6(cx, dev, hop, packet, arrival),
        }
    }

    /// ip6_input: INPUT, then whoever it is for (ip6_protocol_deliver_rcu). By which link it came,
    /// which rules ask for, and by which it counts as come.
    fn local_input6(
        &mut self,
        cx: &mut Cx<'_>,
        (came, dev): (u32, u32),
        mut packet: Box<Packet<V6>>,
        hop: Hop6,
        arrival: Arrival,
    ) {
        let way = Way { input: Some(came), output: None, to_us: arrival.to_us };
        if !self.passes6(cx, Hook::Input, &mut packet, way) {
            return;
        }
        // Transports know nothing of it (nf_reset_ct in ip6_protocol_deliver_rcu).
        packet.ct = Ct::None;
        match &packet.l4 {
            // Nobody speaks for a group (tcp_v6_rcv, tcp_v6_send_reset).
            L4::Tcp(_) if arrival.to_us && hop.kind == Kind6::Local => {
                self.reset6(cx, dev, &packet);
            }
            L4::Tcp(_) => {}
            L4::Udp { sport, dport } => {
                let ports = (*sport, *dport);
                self.udp6_input(cx, (dev, hop), ports, packet, arrival);
            }
            L4::Icmp(_) => self.icmp6_input(cx, dev, packet, hop),
        }
    }

    /// ip6_forward: who forwards at all says `conf.all`; that of a link says only what it tells
    /// its neighbours. The hop limit, the source, the MTU. No redirects are sent.
    fn forward6(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        hop: Hop6,
        mut packet: Box<Packet<V6>>,
        arrival: Arrival,
    ) {
        let forwards = self.ip6.as_ref().is_some_and(|ip6| ip6.all.forwarding);
        if !forwards || !arrival.to_us {
            return;
        }
        let from = arrived(dev, arrival);
        if packet.ttl <= 1 {
            return self.icmp6_error(cx, Icmp6Error::HopLimitExceeded, &packet, from);
        }
        // What leaves by the link that it came in by is not asked: it would be redirected.
        if hop.dev != dev {
            let src = packet.src;
            if src.is_unspecified() || src.is_multicast() || src.is_loopback() {
                return;
            }
            if src.is_unicast_link_local() && !mutated(Mutant::LinkLocalForwarded) {
                return self.icmp6_error(cx, Icmp6Error::BeyondScope, &packet, from);
            }
        }
        let Some(mtu) = self.links.get(hop.dev).map(|link| link.mtu.max(MIN_MTU)) else { return };
        if packet.segment > mtu {
            return self.icmp6_error(cx, Icmp6Error::PacketTooBig { mtu }, &packet, from);
        }
        packet.ttl -= 1;
        let way = Way { input: Some(dev), output: Some(hop.dev), to_us: arrival.to_us };
        if self.passes6(cx, Hook::Forward, &mut packet, way) {
            // Nobody is told what POSTROUTING drops.
            let _ = self.finish_output6(cx, hop, packet, Some(dev));
        }
    }

    /// The route for a packet of this machine's own, by `dev` if the sender chose the link, and
    /// its source (ip6_dst_lookup_tail).
    pub(super) fn route_output6(
        &self,
        dst: Ipv6Addr,
        src: Option<Ipv6Addr>,
        dev: Option<u32>,
    ) -> Result<(Hop6, Ipv6Addr), Errno> {
        let ip6 = self.ip6.as_deref().ok_or(Errno::Enetunreach)?;
        let hop = ip6.route(dst, dev, dev.is_some() && src.is_none());
        // Without a way it is asked for first all the same.
        let src = src.or_else(|| ip6.source(dst, hop.map(|hop| hop.dev)));
        let src = src.ok_or(Errno::Eaddrnotavail)?;
        Ok((hop.ok_or(Errno::Enetunreach)?, src))
    }

    /// POSTROUTING, then to a group at once, to anybody else by way of its neighbour (ip6_output,
    /// ip6_finish_output2). `input`: the link that it came in by. `EPERM` where it was dropped.
    pub(super) fn finish_output6(
        &mut self,
        cx: &mut Cx<'_>,
        hop: Hop6,
        mut packet: Box<Packet<V6>>,
        input: Option<u32>,
    ) -> Result<(), Errno> {
        let dev = if hop.is_here() { Kernel::LO } else { hop.dev };
        let disabled = |ip6: &Ip6| ip6.interface(dev).is_none_or(|i| i.conf.disabled);
        if self.ip6.as_deref().is_none_or(disabled) {
            return Ok(());
        }
        let way = Way { input, ..Way::out(dev) };
        if !self.passes6(cx, Hook::Postrouting, &mut packet, way) {
            return Err(Errno::Eperm);
        }
        if packet.dst.is_multicast() {
            self.transmit6(cx, dev, group_mac(packet.dst), packet);
            return Ok(());
        }
        match self.links.get(dev).is_some_and(|link| link.asks_nobody()) {
            true => self.transmit6(cx, dev, Mac::default(), packet),
            false => self.send_to_neighbour(cx, dev, hop.via.unwrap_or(packet.dst), packet),
        }
        Ok(())
    }

    pub(super) fn transmit6(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        dst: Mac,
        packet: Box<Packet<V6>>,
    ) {
        let Some(src) = self.links.get(dev).map(|link| link.mac) else { return };
        self.transmit(cx, dev, Frame { src, dst, payload: Payload::Ip6(packet) });
    }
}

/// By which link something came in, and whether in a frame for this very machine.
fn arrived(dev: u32, arrival: Arrival) -> Option<(u32, bool)> {
    Some((dev, arrival.to_us))
}

/// What no packet may say (ip6_rcv_core): the loopback's address elsewhere (RFC 4291, section
/// 2.5.3), a group as its source, a group of this interface only (errata 3480), or of nobody.
fn is_martian(packet: &Packet<V6>, loopback: bool) -> bool {
    let (src, dst) = (packet.src, packet.dst);
    let reach = dst.is_multicast().then(|| dst.octets()[1] & 0xf);
    src.is_multicast()
        || reach == Some(0)
        || (!loopback && (src.is_loopback() || dst.is_loopback() || reach == Some(1)))
}
