//! Bridging (net/bridge): a forwarding database that learns and ages, flooding, and the hooks of
//! br_netfilter. No spanning tree: ports forward from the start (`stp_state 0`, delay 0).

use super::forward::Arrival;
use super::link::Kind;
use super::mutants::{Mutant, mutated};
use super::neigh::{Bridged, Outgoing};
use super::netfilter::{Hook, Verdict};
use super::packet::{Frame, Payload};
use super::{Cx, Errno, Kernel, Mac, Namespace, NsId};
use crate::sorted::Sorted;
use kubesim_runtime::{Time, near};
use std::time::Duration;

/// Bytes of an 802.1Q tag (VLAN_HLEN).
const VLAN_TAG: u32 = 4;

/// `ageing_time`.
const AGEING: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Default)]
pub(super) struct Bridge {
    /// Where each MAC (its [`Mac::bits`]) was last seen, and when.
    fdb: Sorted<u64, (u32, Time)>,
    /// The MACs of its own ports: frames for them go up.
    ports: Vec<Mac>,
    /// Ports by which what came by them goes back (`BR_HAIRPIN_MODE`).
    hairpins: Vec<u32>,
}

impl Bridge {
    fn port_of(&self, mac: Mac, now: Time) -> Option<u32> {
        let (port, seen) = self.fdb.get(&mac.bits())?;
        (now.since(*seen) < AGEING).then_some(*port)
    }
    /// Whether what came by a port may go by another, or the same (should_deliver).
    fn delivers(&self, from: u32, to: u32) -> bool {
        from != to || self.hairpins.contains(&to) || mutated(Mutant::Hairpin)
    }
    /// Entries in order of MAC.
    pub fn entries(&self) -> Vec<(Mac, u32, Time)> {
        self.fdb.iter().map(|(mac, (port, at))| (Mac::from_bits(*mac), *port, *at)).collect()
    }
    pub fn approach(&self) {
        self.fdb.approach(8);
        near::slice(&self.ports, 4);
    }
}

pub(super) fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 == 1
}

impl Namespace {
    fn bridge_mut(&mut self, index: u32) -> Option<&mut Bridge> {
        match &mut self.links.get_mut(index)?.kind {
            Kind::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// A frame came in by a port (br_handle_frame).
    pub(super) fn bridge_input(&mut self, cx: &mut Cx<'_>, index: u32, port: u32, frame: Frame) {
        let Some(link) = self.links.get(index) else { return };
        // Nobody is a group (is_valid_ether_addr in br_handle_frame).
        if !link.up || is_group(frame.src) || frame.src == Mac::default() {
            return;
        }
        // What PREROUTING drops teaches nothing.
        if let Some(frame) = self.bridge_prerouting(cx, index, port, frame) {
            self.bridge_onward(cx, index, port, frame, self.sysctls.bridge_nf_call_iptables);
        }
    }

    /// Learn, then up, along, or both (br_handle_frame_finish, net/bridge/br_input.c). What
    /// br_netfilter has `noted` when it came stays in its hands, whatever the sysctl is by now.
    pub(super) fn bridge_onward(
        &mut self,
        cx: &mut Cx<'_>,
        index: u32,
        port: u32,
        mut frame: Frame,
        noted: bool,
    ) {
        let Some(own) = self.links.get(index).map(|link| link.mac) else { return };
        let (of_port, now) = (self.links.get(port).map(|link| link.mac), cx.now);
        let Some(bridge) = self.bridge_mut(index) else { return };
        let local = frame.dst == own || bridge.ports.contains(&frame.dst);
        if frame.src != own && !bridge.ports.contains(&frame.src) {
            bridge.fdb.insert(frame.src.bits(), (port, now));
        }
        if is_group(frame.dst) {
            self.flood(cx, index, Some(port), &frame, noted);
            return self.ether_input(cx, index, frame, true);
        }
        // What is for another port is nobody's (PACKET_OTHERHOST, by eth_type_trans).
        if local {
            if Some(frame.dst) == of_port {
                frame.dst = own;
            }
            return self.ether_input(cx, index, frame, true);
        }
        match self.bridge_mut(index).and_then(|bridge| bridge.port_of(frame.dst, now)) {
            Some(_) if mutated(Mutant::FloodKnown) => {
                self.flood(cx, index, Some(port), &frame, noted)
            }
            Some(to) => {
                if self.bridge_mut(index).is_some_and(|bridge| bridge.delivers(port, to)) {
                    self.forward_along(cx, index, to, frame, noted);
                }
            }
            None => self.flood(cx, index, Some(port), &frame, noted),
        }
    }

    /// With bridge-nf-call-iptables a bridged packet walks PREROUTING. Where that rewrote its
    /// destination (br_nf_pre_routing_finish, net/bridge/br_netfilter_hooks.c), it goes up to be
    /// routed, unless its way leads by this very bridge: then it is bridged on to that neighbour,
    /// with the client's MAC address and without a hop, once the neighbour is known
    /// (br_nf_pre_routing_finish_bridge). Gives back what goes on now.
    fn bridge_prerouting(
        &mut self,
        cx: &mut Cx<'_>,
        index: u32,
        port: u32,
        mut frame: Frame,
    ) -> Option<Frame> {
        if !self.sysctls.bridge_nf_call_iptables || self.netfilter.is_idle() {
            return Some(frame);
        }
        let Payload::Ip(packet) = &mut frame.payload else { return Some(frame) };
        let before = packet.dst;
        let verdict = self.hook(cx, Hook::Prerouting, packet, Some(index), None, Arrival::BRIDGED);
        if verdict != Verdict::Accept {
            return None;
        }
        if packet.dst == before {
            return Some(frame);
        }
        if !self.may_come_by(index, packet) {
            return None;
        }
        let next = self.next_hop_by(index, packet.dst);
        match (next, frame) {
            (Some(next), Frame { src, payload: Payload::Ip(packet), .. }) => {
                let bridged = Some(Bridged { port, src });
                self.send_to_neighbour(cx, index, next, Outgoing { packet, bridged });
                None
            }
            (_, frame) => self.links.get(index).map(|link| Frame { dst: link.mac, ..frame }),
        }
    }

    /// To another port, through FORWARD and POSTROUTING where br_netfilter asks for it (which has
    /// an `nf_bridge_info` of it: br_nf_forward_ip, br_nf_post_routing).
    fn forward_along(
        &mut self,
        cx: &mut Cx<'_>,
        index: u32,
        to: u32,
        mut frame: Frame,
        noted: bool,
    ) {
        if noted
            && !self.netfilter.is_idle()
            && let Payload::Ip(packet) = &mut frame.payload
        {
            for (hook, input) in [(Hook::Forward, Some(index)), (Hook::Postrouting, None)] {
                if self.hook(cx, hook, packet, input, Some(index), Arrival::BRIDGED)
                    != Verdict::Accept
                {
                    return;
                }
            }
        }
        let length = match &frame.payload {
            // What may be cut up stands for its fragments, of which each fits (see `forward`).
            Payload::Ip(packet) if !packet.dont_fragment => None,
            Payload::Ip(packet) => Some(packet.segment),
            Payload::Ip6(packet) => Some(packet.segment),
            Payload::Arp(_) => None,
        };
        // There is room for a VLAN's tag, with or without one (is_skb_forwardable, net/core/dev.c).
        let most = self.links.get(to).map(|link| link.mtu + VLAN_TAG);
        if length.is_none_or(|length| most.is_some_and(|most| length <= most)) {
            self.transmit(cx, to, frame);
        }
    }

    fn flood(&mut self, cx: &mut Cx<'_>, index: u32, but: Option<u32>, frame: &Frame, noted: bool) {
        let back = but.filter(|port| {
            self.bridge_mut(index).is_some_and(|bridge| bridge.hairpins.contains(port))
        });
        let ports: smallvec::SmallVec<[u32; 16]> = self
            .links
            .iter()
            .filter(|l| l.master == Some(index) && l.running())
            .map(|l| l.index)
            .filter(|port| Some(*port) != but || Some(*port) == back)
            .collect();
        for port in ports {
            self.forward_along(cx, index, port, frame.clone(), noted);
        }
    }

    /// The machine itself sends by the bridge (br_dev_xmit).
    pub(super) fn bridge_transmit(&mut self, cx: &mut Cx<'_>, index: u32, frame: Frame) {
        let (dst, now) = (frame.dst, cx.now);
        // The bridge's own addresses are entries like any: its MAC leads nowhere, and a port's
        // out by that port (BR_FDB_LOCAL).
        if self.links.get(index).is_some_and(|link| link.mac == dst) {
            return;
        }
        let Some(bridge) = self.bridge_mut(index) else { return };
        let known = match bridge.ports.contains(&dst) {
            false => bridge.port_of(dst, now),
            true => {
                let mut ports = self.links.iter().filter(|link| link.master == Some(index));
                ports.find(|link| link.mac == dst).map(|link| link.index)
            }
        };
        match known {
            Some(port) if !is_group(frame.dst) => self.transmit(cx, port, frame),
            _ => self.flood_own(cx, index, &frame),
        }
    }

    fn flood_own(&mut self, cx: &mut Cx<'_>, index: u32, frame: &Frame) {
        let of_bridge = |l: &&super::Link| l.master == Some(index) && l.running();
        let ports: smallvec::SmallVec<[u32; 16]> =
            self.links.iter().filter(of_bridge).map(|l| l.index).collect();
        for port in ports {
            self.transmit(cx, port, frame.clone());
        }
    }

    /// After a port came, went or changed its MAC address.
    pub(super) fn count_ports(&mut self, index: u32) {
        let of_bridge = || self.links.iter().filter(|link| link.master == Some(index));
        let ports = of_bridge().map(|link| link.mac).collect();
        let numbers: smallvec::SmallVec<[u32; 16]> = of_bridge().map(|link| link.index).collect();
        if let Some(bridge) = self.bridge_mut(index) {
            bridge.ports = ports;
            bridge.hairpins.retain(|port| numbers.contains(port));
            // What was learned of them before is wrong (fdb_add_local).
            for mac in &bridge.ports {
                bridge.fdb.remove(&mac.bits());
            }
        }
    }

    /// A port went down: what was learned by it is forgotten (br_stp_disable_port).
    pub(super) fn forget_port(&mut self, port: u32) {
        if let Some(bridge) = self.links.get(port).and_then(|link| link.master) {
            self.forget_bridge_port(bridge, port);
        }
    }

    pub(super) fn forget_bridge_port(&mut self, bridge: u32, port: u32) {
        if let Some(bridge) = self.bridge_mut(bridge) {
            bridge.fdb.retain(|_, (at, _)| *at != port);
        }
    }
}

impl Kernel {
    /// `ip link set … type bridge_slave hairpin on`, until it is a port of another bridge.
    pub fn set_hairpin(&mut self, ns: NsId, port: u32, on: bool) -> Result<(), Errno> {
        let space = self.namespace_mut(ns).ok_or(Errno::Einval)?;
        let master = space.links.get(port).ok_or(Errno::Enodev)?.master;
        let bridge = master.and_then(|bridge| space.bridge_mut(bridge)).ok_or(Errno::Eopnotsupp)?;
        bridge.hairpins.retain(|known| *known != port);
        bridge.hairpins.extend(on.then_some(port));
        Ok(())
    }

    /// What a bridge has learned: MAC, port, when it was last seen. In order of MAC.
    pub fn fdb(&self, ns: NsId, bridge: u32) -> Vec<(Mac, u32, Time)> {
        match self.namespace(ns).and_then(|ns| ns.links.get(bridge)).map(|link| &link.kind) {
            Some(Kind::Bridge(bridge)) => bridge.entries(),
            _ => Vec::new(),
        }
    }
}
