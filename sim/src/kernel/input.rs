//! What a link hands up: to its bridge, to ARP, or to IP.

use super::bridge::is_group;
use super::forward::Arrival;
use super::packet::{Frame, Payload};
use super::{Cx, Mac, Namespace};

impl Namespace {
    /// A frame arrived at a link (`__netif_receive_skb_core`).
    pub(super) fn link_input(&mut self, cx: &mut Cx<'_>, index: u32, frame: Frame) {
        let Some(link) = self.links.get(index) else { return };
        if !link.running() {
            return;
        }
        match link.master {
            Some(bridge) => self.bridge_input(cx, bridge, index, frame),
            None => self.ether_input(cx, index, frame, false),
        }
    }

    /// A frame for the machine itself; `bridged` if it came in by a bridge's port.
    pub(super) fn ether_input(&mut self, cx: &mut Cx<'_>, index: u32, frame: Frame, bridged: bool) {
        let Some(link) = self.links.get(index) else { return };
        let to_us = frame.dst == link.mac;
        // PACKET_OTHERHOST; groups are IPv6's only (RFC 2464).
        let to_group = matches!(frame.payload, Payload::Ip6(_)) && is_group(frame.dst);
        if !to_us && frame.dst != Mac::BROADCAST && !to_group {
            return;
        }
        let arrival = Arrival::new(bridged && self.sysctls.bridge_nf_call_iptables, to_us);
        match frame.payload {
            Payload::Arp(arp) if !link.is_loopback() => self.arp_input(cx, index, &arp, to_us),
            Payload::Arp(_) => {}
            Payload::Ip(packet) => self.ip_input(cx, index, packet, arrival),
            Payload::Ip6(packet) => self.ip6_input(cx, index, packet, arrival),
        }
    }
}
