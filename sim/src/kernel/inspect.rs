//! What judges and drivers read of a kernel: single facts, without a dump.

use super::packet::Arp;
use super::route::Want;
use super::{Kernel, NsId, Output, Owner, SocketId, link};
use kubesim_actors::ports::network::{IfName, Mac};
use kubesim_runtime::Time;
use rustc_hash::FxHashMap;
use std::net::Ipv4Addr;

impl Kernel {
    /// The address a socket sends from; `None` for one that is not connected, or gone.
    pub fn local_address(&self, socket: SocketId) -> Option<Ipv4Addr> {
        match self.core.sockets.get(socket)?.demux {
            super::socket::Demux::Connection { local, .. } => Some(*local.ip()),
            _ => None,
        }
    }

    /// Whether a broadcast ARP frame that comes in by a card would change anything: it asks for an
    /// address of the machine, it is for a bridge, or its sender is known by another MAC address
    /// (net/ipv4/arp.c: arp_process makes no entry for a request that asks for somebody else).
    pub fn heeds_arp(&self, link: u32, arp: &Arp) -> bool {
        let Some(host) = self.namespace(NsId::HOST) else { return false };
        let bridged = host.links.get(link).is_none_or(|link| link.master.is_some());
        bridged
            || host.fib.is_local_once(arp.target_ip)
            || host.neighbours.heeds(link, arp.sender_ip, arp.sender_mac)
    }

    /// Whether a card of the machine has the address.
    pub fn has_address(&self, link: u32, address: Ipv4Addr) -> bool {
        let link = self.namespace(NsId::HOST).and_then(|host| host.links.get(link));
        link.is_some_and(|link| link.addresses.iter().any(|own| own.ip() == address))
    }

    /// The machine's addresses but those of the loopback, with the index of the link of each.
    pub fn addresses(&self) -> impl Iterator<Item = (u32, Ipv4Addr)> {
        let all = self
            .links(NsId::HOST)
            .flat_map(|link| link.addresses.iter().map(|address| (link.index, address.ip())));
        all.filter(|(_, ip)| !ip.is_loopback())
    }

    /// The machine's devices but the loopback, its first card first.
    pub fn devices(&self) -> impl Iterator<Item = &IfName> {
        self.links(NsId::HOST).filter(|link| link.index != Self::LO).map(|link| &link.name)
    }

    /// The device by which packets to an address leave.
    pub fn device_to(&self, ip: Ipv4Addr) -> Option<IfName> {
        let host = self.namespace(NsId::HOST)?;
        host.links.get(host.fib.lookup(ip, Want::ANY)?.dev).map(|link| link.name.clone())
    }

    pub fn mtu(&self, ns: NsId, name: &str) -> Option<u32> {
        self.link(ns, name).map(|link| link.mtu)
    }

    pub fn is_vxlan(&self, ns: NsId, name: &str) -> bool {
        self.link(ns, name).is_some_and(|link| matches!(link.kind, link::Kind::Vxlan(_)))
    }

    /// Where each MAC address behind a vxlan device of the namespace lives.
    pub fn vxlan_remotes(&self, ns: NsId) -> FxHashMap<Mac, Ipv4Addr> {
        let devices = self.links(ns).filter_map(|link| match &link.kind {
            link::Kind::Vxlan(device) => Some(device),
            _ => None,
        });
        devices.flat_map(|device| device.fdb.slice().iter().map(|e| (e.mac, e.remote))).collect()
    }

    /// The MAC address that a link knows for an address, permanent or learned.
    pub fn neighbour_mac(&self, ns: NsId, name: &str, ip: Ipv4Addr) -> Option<Mac> {
        let dev = self.link(ns, name)?.index;
        self.neighbours(ns).find(|known| known.dev == dev && known.ip == ip)?.mac
    }

    /// The process that owned these sockets ended: connections are closed, the rest is gone.
    pub fn close_all(&mut self, now: Time, owner: Owner, out: &mut Vec<Output>) {
        let owned: Vec<SocketId> = self
            .core
            .sockets
            .iter()
            .filter(|(_, socket)| socket.owner == owner)
            .map(|(id, _)| id)
            .collect();
        for socket in owned {
            self.close(now, socket, out);
        }
    }
}
