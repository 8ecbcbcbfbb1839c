//! vxlan devices (drivers/net/vxlan, RFC 7348) with `nolearning`: the forwarding database is what
//! was configured, and ARP on them is answered by permanent neighbours.

use super::family::Family;
use super::link::Kind;
use super::mutants::{Mutant, mutated};
use super::packet::{Ct, Frame, L4, Packet, Payload};
use super::{Cx, Errno, Kernel, Mac, Namespace, NsId};
use crate::body::Body;
use kubesim_actors::ports::network::{FdbEntry, Vxlan};
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Inner Ethernet 14, vxlan 8, UDP 8, outer IPv4 20.
pub const OVERHEAD: u32 = 50;

#[derive(Clone, Debug)]
pub(super) struct VxlanDevice {
    pub vni: u32,
    pub port: u16,
    /// `local`: the outer source; unspecified: whatever the route prefers.
    pub local: Ipv4Addr,
    pub fdb: FdbSet,
}

/// A device's forwarding database, shared by every machine that has the same.
#[derive(Clone, Debug)]
pub(super) struct FdbSet {
    pub given: Arc<[FdbEntry]>,
    /// `None`: `given` is sorted by MAC itself.
    sorted: Option<Arc<[FdbEntry]>>,
}

impl FdbSet {
    pub fn new(given: Arc<[FdbEntry]>) -> Self {
        let sorted = (!given.is_sorted_by_key(|entry| entry.mac)).then(|| {
            let mut copy = given.to_vec();
            copy.sort_by_key(|entry| entry.mac);
            copy.into()
        });
        FdbSet { given, sorted }
    }
    pub fn slice(&self) -> &[FdbEntry] {
        self.sorted.as_deref().unwrap_or(&self.given)
    }
    fn remote(&self, mac: Mac) -> Option<Ipv4Addr> {
        let slice = self.slice();
        slice.binary_search_by_key(&mac, |entry| entry.mac).ok().map(|at| slice[at].remote)
    }
}

impl Namespace {
    pub(super) fn vxlan_mut(&mut self, index: u32) -> Option<&mut VxlanDevice> {
        match &mut self.links.get_mut(index)?.kind {
            Kind::Vxlan(device) => Some(device),
            _ => None,
        }
    }

    /// `vxlan_xmit`: wraps the frame for the machine its MAC lives on. Group frames need a
    /// default destination, which is never configured here, and are dropped.
    ///
    /// The outer packet may be fragmented (`df unset`), keeps the mark, and forgets conntrack.
    pub(super) fn vxlan_transmit(&mut self, cx: &mut Cx<'_>, index: u32, mut frame: Frame) {
        let Some(device) = self.vxlan_mut(index) else { return };
        let Some(remote) = device.fdb.remote(frame.dst) else { return };
        let (vni, dport, src) = (device.vni, device.port, device.local);
        let (len, segment, mark) = match &mut frame.payload {
            Payload::Ip(inner) => enter_tunnel(inner),
            Payload::Ip6(inner) => enter_tunnel(inner),
            Payload::Arp(_) => (28, 28, 0),
        };
        let packet = Packet {
            src,
            dst: remote,
            ttl: 64,
            dont_fragment: false,
            len: len + OVERHEAD,
            segment: segment + OVERHEAD,
            l4: L4::Udp { sport: source_port(&frame), dport },
            body: Body::Vxlan { vni, frame: Box::new(frame) },
            mark,
            ct: Ct::None,
        };
        // A route to the remote that leads into the tunnel is a loop ("circular route").
        if self.route_output(remote, None).is_ok_and(|hop| hop.dev != index) {
            // Refusals are counted as carrier errors there and told to nobody.
            let _ = self.output(cx, Box::new(packet), None);
        }
    }

    /// A datagram for a vxlan port: unwraps it, and drops what no device is for (vxlan_rcv). Gives
    /// it back if there is no such port, as while its devices are down.
    pub(super) fn vxlan_input(
        &mut self,
        cx: &mut Cx<'_>,
        dport: u16,
        packet: Box<Packet>,
    ) -> Result<(), Box<Packet>> {
        let is_up = |index: u32| self.links.get(index).is_some_and(|link| link.up);
        let ports = self.vxlan_ports.iter().filter(|(port, ..)| *port == dport);
        let mut found = ports.filter(|(.., index)| is_up(*index)).peekable();
        if found.peek().is_none() {
            return Err(packet);
        }
        if let Body::Vxlan { vni, frame } = packet.body
            && let Some(&(.., index)) =
                found.find(|(_, of, _)| *of == vni || mutated(Mutant::AnyVni))
        {
            cx.core.pass(super::Work { ns: self.id, link: index, frame: *frame });
        }
        Ok(())
    }
}

/// Bytes in all and of a segment, and the mark, which the outer packet takes over.
fn enter_tunnel<F: Family>(inner: &mut Packet<F>) -> (u32, u32, u32) {
    inner.ct = Ct::None;
    (inner.len, inner.segment, std::mem::take(&mut inner.mark))
}

/// `udp_flow_src_port`: one port of the ephemeral range for each inner flow.
fn source_port(frame: &Frame) -> u16 {
    let mut hasher = FxHasher::default();
    match &frame.payload {
        Payload::Arp(_) => {}
        Payload::Ip(packet) => (packet.src, packet.dst, packet.ports()).hash(&mut hasher),
        Payload::Ip6(packet) => (packet.src, packet.dst, packet.ports()).hash(&mut hasher),
    }
    32_768 + (hasher.finish() >> 32) as u16 % 28_232
}

impl Kernel {
    /// `ip link add NAME type vxlan id VNI dstport PORT local IP nolearning`, down and without
    /// its address. `EEXIST` for a second device of the same port and vni.
    pub fn add_vxlan(&mut self, ns: NsId, name: &str, spec: &Vxlan) -> Result<u32, Errno> {
        self.namespace_mut(ns).ok_or(Errno::Einval)?.add_vxlan(name, spec)
    }
}

impl Namespace {
    pub(super) fn add_vxlan(&mut self, name: &str, spec: &Vxlan) -> Result<u32, Errno> {
        if self.vxlan_ports.iter().any(|(port, vni, _)| (*port, *vni) == (spec.port, spec.vni)) {
            return Err(Errno::Eexist);
        }
        let device = VxlanDevice {
            vni: spec.vni,
            port: spec.port,
            local: spec.local,
            fdb: FdbSet::new(Arc::new([])),
        };
        let index = self.add_link(name, spec.mac, spec.mtu, Kind::Vxlan(Box::new(device)))?;
        self.vxlan_ports.push((spec.port, spec.vni, index));
        Ok(index)
    }
}
