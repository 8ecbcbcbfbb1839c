//! Bridges and vxlan devices.

use super::Node;
use super::message::Link;
use super::socket::Socket;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, LinkKind, Mac, Vxlan};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage::{
    DelAddress, DelLink, NewAddress, NewLink, SetLink,
};
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::{InfoKind, LinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use std::net::Ipv4Addr;

/// The loopback's number in every namespace.
pub const LO: u32 = 1;
/// What `register_netdevice` gives a link that asks for nothing (`ETH_DATA_LEN`).
const DEFAULT_MTU: u32 = 1500;

impl Node {
    pub(super) fn ensure_bridge(
        &mut self,
        name: &str,
        address: Ipv4Net,
        mtu: u32,
    ) -> Result<(), Errno> {
        self.refresh()?;
        match self.mirror.link(name) {
            Some(link) if link.kind == LinkKind::Bridge => {}
            Some(_) => return Err(Errno::Eexist),
            None => self.new_bridge(name, mtu)?,
        }
        let link = self.known(name)?;
        self.adjust(&link, None, mtu)?;
        self.only_address(link.index, address)
    }

    /// A bridge takes its MTU and its MAC from its ports, and pods would lose their gateway with
    /// each change, until somebody says what they are to be. Saying what they are already does
    /// for the MAC (netif_set_mac_address; another one would take the carrier away as well:
    /// br_stp_change_bridge_id), but not for the MTU (br_change_mtu), so that starts as another.
    fn new_bridge(&mut self, name: &str, mtu: u32) -> Result<(), Errno> {
        let other = if mtu == DEFAULT_MTU { DEFAULT_MTU - 1 } else { DEFAULT_MTU };
        self.create(LinkBridge::new(name).mtu(other).build())?;
        let link = self.known(name)?;
        let own = by_index(&link).address(link.mac.0.to_vec());
        self.requests.call(SetLink(own.build()), 0)
    }

    pub(super) fn ensure_vxlan(&mut self, name: &str, spec: &Vxlan) -> Result<(), Errno> {
        self.refresh()?;
        match self.mirror.link(name).cloned() {
            Some(link) if link.kind == LinkKind::Vxlan => {
                if !self.as_specified(&link, spec) {
                    self.requests.call(DelLink(by_index(&link).build()), 0)?;
                    self.create(new_vxlan(name, spec))?;
                }
            }
            Some(_) => return Err(Errno::Eexist),
            None => self.create(new_vxlan(name, spec))?,
        }
        let link = self.known(name)?;
        self.adjust(&link, Some(spec.mac), spec.mtu)?;
        self.only_address(link.index, spec.address)
    }

    /// `EOPNOTSUPP` for what only its hardware can take away, and for the loopback.
    pub(super) fn delete_link(&mut self, name: &str) -> Result<(), Errno> {
        self.refresh()?;
        let link = self.mirror.link(name).ok_or(Errno::Enodev)?;
        let message = by_index(link).build();
        self.requests.call(DelLink(message), 0)
    }

    pub(super) fn create(&mut self, message: LinkMessage) -> Result<(), Errno> {
        self.requests.call(NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The link as it is now.
    pub(super) fn known(&mut self, name: &str) -> Result<Link, Errno> {
        self.refresh()?;
        self.mirror.link(name).cloned().ok_or(Errno::Enodev)
    }

    /// Whether the device does as `spec` says, if need be after a change. Linux changes neither
    /// VNI nor port, but the outer source and learning (vxlan_nl2conf).
    fn as_specified(&mut self, link: &Link, spec: &Vxlan) -> bool {
        let Some(found) = link.vxlan else { return false };
        if (found.vni, found.port) != (spec.vni, spec.port) {
            return false;
        }
        if found.local == source(spec) && !found.learning {
            return true;
        }
        let change = LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan)
            .index(link.index)
            .local(spec.local)
            .learning(false);
        self.requests.call(NewLink(change.build()), 0).is_ok()
    }

    pub(super) fn adjust(&mut self, link: &Link, mac: Option<Mac>, mtu: u32) -> Result<(), Errno> {
        let mut change = by_index(link);
        let mac = mac.filter(|mac| *mac != link.mac);
        if link.up && mac.is_none() && link.mtu == mtu {
            return Ok(());
        }
        if let Some(mac) = mac {
            change = change.address(mac.0.to_vec());
        }
        if link.mtu != mtu {
            change = change.mtu(mtu);
        }
        self.requests.call(SetLink(change.up().build()), 0)
    }

    /// Makes the addresses of a link be exactly one. The new one comes first, so that the routes
    /// by the link outlive the change.
    pub(super) fn only_address(&mut self, link: u32, address: Ipv4Net) -> Result<(), Errno> {
        self.refresh()?;
        let have = self.mirror.addresses(link).to_vec();
        if !have.contains(&address) {
            self.add_address(link, address)?;
        }
        for other in have.iter().filter(|net| **net != address) {
            match self.requests.call(DelAddress(of_link(link, *other)), 0) {
                // A secondary may have gone with its primary already.
                Ok(()) | Err(Errno::Eaddrnotavail) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.refresh()?;
        // The wanted one may itself have been a secondary of one that went.
        match self.mirror.addresses(link).contains(&address) {
            true => Ok(()),
            false => self.add_address(link, address),
        }
    }

    fn add_address(&mut self, link: u32, address: Ipv4Net) -> Result<(), Errno> {
        let message = NewAddress(of_link(link, address));
        self.requests.call(message, NLM_F_CREATE | NLM_F_EXCL)
    }
}

/// An address of its own on the loopback; it may be there already. Nothing that leaves the machine
/// is to have it for its source, as Linux would have it on a link without an address
/// (inet_select_addr, net/ipv4/devinet.c): its scope is the host.
pub fn adopt(socket: &mut Socket, address: Ipv4Addr) -> Result<(), Errno> {
    let mut own = of_link(LO, Ipv4Net::from(address));
    own.header.scope = AddressScope::Host;
    let message = NewAddress(own);
    match socket.call(message, NLM_F_CREATE | NLM_F_EXCL) {
        Err(Errno::Eexist) => Ok(()),
        done => done,
    }
}

fn by_index(link: &Link) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(link.index)
}

fn of_link(link: u32, net: Ipv4Net) -> netlink_packet_route::address::AddressMessage {
    AddressMessageBuilder::<Ipv4Addr>::new()
        .index(link)
        .address(net.addr(), net.prefix_len())
        .build()
}

/// `None`: whatever the route prefers.
fn source(spec: &Vxlan) -> Option<Ipv4Addr> {
    Some(spec.local).filter(|local| !local.is_unspecified())
}

fn new_vxlan(name: &str, spec: &Vxlan) -> LinkMessage {
    let mut new = LinkVxlan::new(name, spec.vni)
        .port(spec.port)
        .learning(false)
        .address(spec.mac.0.to_vec())
        .mtu(spec.mtu)
        .up();
    if let Some(local) = source(spec) {
        new = new.local(local);
    }
    new.build()
}
