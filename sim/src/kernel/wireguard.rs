//! WireGuard devices: what of a packet goes to whom, and from whom it is taken. The protocol of
//! two peers is `wireguard/peer.rs`.

mod peer;

use super::link::Kind;
use super::packet::{Ct, Frame, IcmpError, L4, Packet, Payload};
use super::timers::{Alarm, TimerKey};
use super::{Cx, Errno, Kernel, Mac, Namespace, NsId, Output, Work};
use crate::body::Body;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{LinkKind, PrivateKey, PublicKey, Wireguard, WireguardPeer};
use kubesim_runtime::Time;
pub use peer::Message;
use peer::{Peer, Send};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// IPv4 and UDP around a message.
const HEADERS: u32 = 28;
/// Header and tag of a data message (the paper's section 5.4.6).
const DATA: u32 = 32;
/// `MESSAGE_INITIATION_SIZE`, `MESSAGE_RESPONSE_SIZE`
const INITIATION: u32 = 148;
const RESPONSE: u32 = 92;

#[derive(Clone, Debug)]
pub(super) struct Device {
    spec: Wireguard,
    public_key: PublicKey,
    /// By the network each is allowed.
    peers: Vec<Peer>,
    /// The endpoints that were wanted last.
    wanted: BTreeMap<PublicKey, SocketAddrV4>,
    alarm: Alarm,
}

impl Device {
    /// Whom a packet goes to: of networks within each other the smallest counts.
    fn peer_for(&self, to: Ipv4Addr) -> Option<usize> {
        let end = self.peers.partition_point(|peer| peer.allowed.network() <= to);
        (0..end).rev().find(|at| self.peers[*at].allowed.contains(&to))
    }

    /// As the driver does it (backends/src/network/wireguard/plan.rs).
    fn set_peers(&mut self, wanted: &[WireguardPeer], now: Time) {
        let mut old: BTreeMap<PublicKey, Peer> =
            self.peers.drain(..).map(|peer| (peer.key, peer)).collect();
        let before = std::mem::take(&mut self.wanted);
        for want in wanted.iter().filter(|want| want.public_key != self.public_key) {
            if self.wanted.insert(want.public_key, want.endpoint).is_some() {
                continue;
            }
            let Some(mut peer) = old.remove(&want.public_key) else {
                self.peers.push(Peer::new(want));
                continue;
            };
            let moved = before.get(&want.public_key).is_some_and(|known| *known != want.endpoint);
            peer.allowed = want.allowed;
            if moved || !peer.speaks(now) {
                peer.endpoint = want.endpoint;
            }
            self.peers.push(peer);
        }
        self.peers.sort_by_key(|peer| (peer.allowed.network(), peer.allowed.prefix_len()));
    }

    fn wake(&mut self, cx: &mut Cx<'_>, ns: NsId, dev: u32, at: usize) {
        let first = self.peers[at].deadline().min(self.alarm.at);
        if first != Time::NEVER {
            cx.core.timers.set(&mut self.alarm, first, TimerKey::Wireguard { ns, dev });
        }
    }
}

impl Namespace {
    fn wireguard_mut(&mut self, index: u32) -> Option<&mut Device> {
        match &mut self.links.get_mut(index)?.kind {
            Kind::Wireguard(device) => Some(device),
            _ => None,
        }
    }

    pub(super) fn wireguard_alarm(&mut self, index: u32) -> Option<&mut Alarm> {
        self.wireguard_mut(index).map(|device| &mut device.alarm)
    }

    /// `wg_xmit` (drivers/net/wireguard/device.c): whoever is nobody's is unreachable.
    pub(super) fn wireguard_transmit(&mut self, cx: &mut Cx<'_>, index: u32, frame: Frame) {
        let Payload::Ip(mut packet) = frame.payload else { return };
        let ns = self.id;
        let Some(device) = self.wireguard_mut(index) else { return };
        let Some(at) = device.peer_for(packet.dst) else {
            return self.icmp_error(cx, IcmpError::HostUnreachable, &packet);
        };
        (packet.ct, packet.mark) = (Ct::None, 0);
        let mut sends = Vec::new();
        let own = device.public_key;
        device.peers[at].transmit(cx.now, &mut cx.core.rng, own, packet, &mut sends);
        device.wake(cx, ns, index, at);
        self.wireguard_send(cx, index, sends);
    }

    /// A datagram for a device's port. Gives it back if no device that is up has it.
    pub(super) fn wireguard_input(
        &mut self,
        cx: &mut Cx<'_>,
        (sport, dport): (u16, u16),
        packet: Box<Packet>,
    ) -> Result<(), Box<Packet>> {
        let is_up = |index: u32| self.links.get(index).is_some_and(|link| link.up);
        let mut found = self.wireguard_ports.iter().filter(|(port, _)| *port == dport);
        let Some(&(_, index)) = found.find(|(_, index)| is_up(*index)) else {
            return Err(packet);
        };
        let (ns, from) = (self.id, SocketAddrV4::new(packet.src, sport));
        let Some(device) = self.wireguard_mut(index) else { return Err(packet) };
        // Whatever else comes there is dropped (wg_receive_handshake_packet, wg_packet_receive).
        let Body::Wireguard(message) = packet.body else { return Ok(()) };
        let own = device.public_key;
        let Some(at) = device.peers.iter().position(|peer| peer.is_from(&message, own)) else {
            return Ok(());
        };
        let mut sends = Vec::new();
        let peer = &mut device.peers[at];
        let inner = peer.receive(cx.now, &mut cx.core.rng, own, (from, *message), &mut sends);
        device.wake(cx, ns, index, at);
        self.wireguard_send(cx, index, sends);
        if let Some(packet) = inner {
            let mac = Mac::default();
            let frame = Frame { src: mac, dst: mac, payload: Payload::Ip(packet) };
            cx.core.pass(Work { ns, link: index, frame });
        }
        Ok(())
    }

    /// Something is due for some peers.
    pub(super) fn wireguard_timeout(&mut self, cx: &mut Cx<'_>, index: u32) {
        let ns = self.id;
        let Some(device) = self.wireguard_mut(index) else { return };
        cx.core.timers.take_first(&mut device.alarm);
        let (own, mut sends) = (device.public_key, Vec::new());
        for at in 0..device.peers.len() {
            device.peers[at].timeout(cx.now, &mut cx.core.rng, own, &mut sends);
            device.wake(cx, ns, index, at);
        }
        self.wireguard_send(cx, index, sends);
    }

    /// Sends datagrams, which may be fragmented (`wg_socket_send_skb_to_peer`, df 0), if the device
    /// is up.
    fn wireguard_send(&mut self, cx: &mut Cx<'_>, index: u32, sends: Vec<Send>) {
        let Some(link) = self.links.get(index).filter(|link| link.up) else { return };
        let Kind::Wireguard(device) = &link.kind else { return };
        let (sport, mtu) = (device.spec.port, link.mtu);
        for Send { to, message } in sends {
            let (len, segment) = message.lengths(mtu);
            let packet = Packet {
                src: Ipv4Addr::UNSPECIFIED,
                dst: *to.ip(),
                ttl: 64,
                dont_fragment: false,
                len: len + HEADERS,
                segment: segment + HEADERS,
                l4: L4::Udp { sport, dport: to.port() },
                body: Body::Wireguard(Box::new(message)),
                mark: 0,
                ct: Ct::None,
            };
            // A way to the peer that leads into the tunnel is a loop.
            if self.route_output(*to.ip(), None).is_ok_and(|hop| hop.dev != index) {
                let _ = self.output(cx, Box::new(packet), None);
            }
        }
    }
}

impl Kernel {
    /// `ip link add NAME type wireguard` in the host namespace, down: without a key and on no port.
    pub fn add_wireguard(&mut self, name: &str, mtu: u32) -> Result<u32, Errno> {
        let private_key = PrivateKey([0; 32]);
        let spec = Wireguard { private_key, port: 0, mtu, address: Ipv4Net::default() };
        self.namespace_mut(NsId::HOST).ok_or(Errno::Einval)?.add_wireguard(name, &spec)
    }

    pub(super) fn ensure_wireguard(
        &mut self,
        now: Time,
        name: &str,
        spec: &Wireguard,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let host = self.namespace_mut(NsId::HOST).ok_or(Errno::Einval)?;
        let found = host.links.named(name).map(|link| (link.index, link.link_kind()));
        let index = match found {
            Some((index, LinkKind::Wireguard)) => index,
            Some(_) => return Err(Errno::Eexist),
            None => host.add_wireguard(name, spec)?,
        };
        let taken = host.wireguard_ports.iter().any(|at| at.0 == spec.port && at.1 != index)
            || host.vxlan_ports.iter().any(|(port, ..)| *port == spec.port);
        if taken {
            return Err(Errno::Eaddrinuse);
        }
        host.wireguard_ports.retain(|(_, at)| *at != index);
        host.wireguard_ports.push((spec.port, index));
        if let Some(device) = host.wireguard_mut(index) {
            if device.spec.private_key != spec.private_key {
                // Nobody knows that one yet (wg_noise_expire_current_peer_keypairs).
                device.peers.iter_mut().for_each(Peer::forget_sessions);
            }
            (device.spec, device.public_key) = (spec.clone(), spec.private_key.public_key());
        }
        self.set_mtu(now, NsId::HOST, index, spec.mtu, out)?;
        self.set_up(now, NsId::HOST, index, true, out)?;
        let address = spec.address;
        self.within(now, NsId::HOST, out, |host, cx| {
            super::port::only_address(host, cx, index, address)
        })
    }

    pub(super) fn set_wireguard_peers(
        &mut self,
        now: Time,
        dev: &str,
        peers: &[WireguardPeer],
    ) -> Result<(), Errno> {
        let host = self.namespace_mut(NsId::HOST).ok_or(Errno::Einval)?;
        let index = host.links.named(dev).ok_or(Errno::Enodev)?.index;
        let device = host.wireguard_mut(index).ok_or(Errno::Eopnotsupp)?;
        device.set_peers(peers, now);
        Ok(())
    }

    /// Devices with the public halves of their keys and their ports, and the peers of each.
    pub fn wireguard_devices(
        &self,
        ns: NsId,
    ) -> impl Iterator<Item = (&str, PublicKey, u16, Vec<WireguardPeer>)> {
        self.links(ns).filter_map(|link| match &link.kind {
            Kind::Wireguard(device) => {
                let peers = device.peers.iter().map(Peer::standing).collect();
                Some((link.name.as_str(), device.public_key, device.spec.port, peers))
            }
            _ => None,
        })
    }

    /// Where packets for a destination by a WireGuard device go; `None` if it is none, or they go
    /// nowhere.
    pub fn wireguard_endpoint(&self, ns: NsId, dev: &str, to: Ipv4Addr) -> Option<Ipv4Addr> {
        match &self.link(ns, dev)?.kind {
            Kind::Wireguard(device) => {
                device.peer_for(to).map(|at| *device.peers[at].endpoint.ip())
            }
            _ => None,
        }
    }
}

impl Namespace {
    fn add_wireguard(&mut self, name: &str, spec: &Wireguard) -> Result<u32, Errno> {
        let device = Device {
            spec: spec.clone(),
            public_key: spec.private_key.public_key(),
            peers: Vec::new(),
            wanted: BTreeMap::new(),
            alarm: Alarm::default(),
        };
        self.add_link(name, Mac::default(), spec.mtu, Kind::Wireguard(Box::new(device)))
    }
}
