//! Links: what stands in `ip link`, and making, joining and removing them.

use super::address::Address;
use super::arp::PermanentSet;
use super::bridge::Bridge;
use super::ip6::Ip6;
use super::vxlan::VxlanDevice;
use super::wireguard::Device;
use super::{Cx, Errno, Frame, IfName, Kernel, Mac, Namespace, NsId, Output, Spaces, Work};
use kubesim_actors::ports::network::LinkKind;
use kubesim_runtime::Time;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Link {
    /// Numbered from 1 in each namespace and never reused.
    pub index: u32,
    pub name: IfName,
    pub mac: Mac,
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// `IFF_LOWER_UP`: a cable with a live other end.
    pub carrier: bool,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// `net.ipv4.conf.<name>.forwarding`.
    pub forwarding: bool,
    /// `net.ipv4.conf.<name>.rp_filter`: 0 off, 1 strict, 2 loose (RFC 3704).
    pub rp_filter: u8,
    /// `net.ipv4.conf.<name>.route_localnet`.
    pub route_localnet: bool,
    pub addresses: Vec<Address>,
    pub(super) kind: Kind,
    pub(super) permanent: Option<Arc<PermanentSet>>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Loopback,
    Uplink,
    Bridge(Box<Bridge>),
    Veth { ns: NsId, peer: u32 },
    Vxlan(Box<VxlanDevice>),
    Dummy,
    Wireguard(Box<Device>),
}

impl Link {
    pub fn link_kind(&self) -> LinkKind {
        match self.kind {
            Kind::Loopback => LinkKind::Loopback,
            Kind::Uplink => LinkKind::Uplink,
            Kind::Bridge(_) => LinkKind::Bridge,
            Kind::Veth { .. } => LinkKind::Veth,
            Kind::Vxlan(_) => LinkKind::Vxlan,
            Kind::Dummy => LinkKind::Dummy,
            Kind::Wireguard(_) => LinkKind::Wireguard,
        }
    }
    pub(super) fn is_loopback(&self) -> bool {
        matches!(self.kind, Kind::Loopback)
    }
    /// Whoever is behind it has no address of its own to be asked for (`IFF_NOARP`).
    pub(super) fn asks_nobody(&self) -> bool {
        matches!(self.kind, Kind::Loopback | Kind::Wireguard(_))
    }
    /// Frames pass: up, with a carrier.
    pub(super) fn running(&self) -> bool {
        self.up && self.carrier
    }
}

/// The links of one namespace, by index.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
    last: u32,
}

impl Links {
    pub fn approach(&self) {
        kubesim_runtime::near::slice(&self.links, 10);
    }
    pub fn position(&self, index: u32) -> Option<usize> {
        // Indexes are dense while nothing was deleted.
        let guess = (index as usize).wrapping_sub(1);
        if self.links.get(guess).is_some_and(|link| link.index == index) {
            return Some(guess);
        }
        self.links.binary_search_by_key(&index, |link| link.index).ok()
    }
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.position(index).map(|at| &self.links[at])
    }
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.position(index).map(|at| &mut self.links[at])
    }
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Link> {
        self.links.iter()
    }
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }
    pub fn name(&self, index: u32) -> Option<&str> {
        self.get(index).map(|link| link.name.as_str())
    }
    fn remove(&mut self, index: u32) -> Option<Link> {
        self.position(index).map(|at| self.links.remove(at))
    }
}

impl Namespace {
    /// Adds a link, down, with the sysctls of `conf.default` (inetdev_init, net/ipv4/devinet.c).
    pub(super) fn add_link(
        &mut self,
        name: &str,
        mac: Mac,
        mtu: u32,
        kind: Kind,
    ) -> Result<u32, Errno> {
        // By the attribute's policy the one, by dev_valid_name the other.
        if name.len() > 15 {
            return Err(Errno::Erange);
        }
        if name.is_empty() || name.contains(['/', ' ', ':']) || [".", ".."].contains(&name) {
            return Err(Errno::Einval);
        }
        if self.links.named(name).is_some() {
            return Err(Errno::Eexist);
        }
        self.links.last += 1;
        let index = self.links.last;
        let carrier = !matches!(kind, Kind::Veth { .. });
        self.links.links.push(Link {
            index,
            name: IfName::new(name),
            mac,
            mtu,
            up: false,
            carrier,
            master: None,
            forwarding: self.sysctls.forwarding_default,
            rp_filter: self.sysctls.rp_filter_default,
            route_localnet: self.sysctls.localnet_default,
            addresses: Vec::new(),
            kind,
            permanent: None,
        });
        if let Some(ip6) = &mut self.ip6 {
            ip6.add_interface(index);
        }
        Ok(index)
    }

    /// What the namespace has to do when a link goes up or down (fib_netdev_event).
    fn admin_changed(&mut self, cx: &mut Cx<'_>, index: u32, up: bool) {
        if up {
            self.refresh_addresses(index);
            self.announce_addresses(cx, index);
            self.configure6(index, Ip6::link_up);
        } else {
            self.fib.flush_device(index);
            self.configure6(index, Ip6::link_down);
            self.refresh_addresses(index);
            self.drop_neighbours(index, true);
            self.forget_port(index);
        }
        let running = self.links.get(index).is_some_and(Link::running);
        if running || !up {
            self.port_changed(index);
        }
        if self.links.iter().any(|port| port.master == Some(index) && port.running()) {
            self.refresh_bridge(index);
        }
        cx.changed(self.id);
    }

    /// With its MAC a link loses its neighbours, permanent ones too (neigh_changeaddr).
    pub(super) fn set_mac(&mut self, cx: &mut Cx<'_>, index: u32, mac: Mac) {
        let Some(link) = self.links.get_mut(index).filter(|link| link.mac != mac) else { return };
        link.mac = mac;
        if let Some(bridge) = link.master {
            self.count_ports(bridge);
        }
        self.drop_neighbours(index, true);
        self.configure6(index, Ip6::drop_neighbours);
        cx.changed(self.id);
    }

    fn carrier_changed(&mut self, cx: &mut Cx<'_>, index: u32, carrier: bool) {
        let Some(link) = self.links.get_mut(index) else { return };
        if link.carrier == carrier {
            return;
        }
        link.carrier = carrier;
        self.fib.touch();
        if carrier {
            self.announce_addresses(cx, index);
            self.configure6(index, Ip6::link_ready);
        } else {
            // neigh_carrier_down: everything but permanent entries goes.
            self.drop_neighbours(index, false);
            self.configure6(index, Ip6::drop_neighbours);
            self.forget_port(index);
        }
        if self.links.get(index).is_some_and(|link| link.up) {
            self.port_changed(index);
        }
        cx.changed(self.id);
    }

    /// A port of a bridge began or ceased to run (br_stp_enable_port, br_stp_disable_port).
    fn port_changed(&mut self, port: u32) {
        let master = self.links.get(port).and_then(|link| link.master);
        if let Some(bridge) = master.filter(|bridge| self.links.get(*bridge).is_some_and(|b| b.up))
        {
            self.refresh_bridge(bridge);
        }
    }

    /// A bridge's carrier follows its ports (br_port_state_selection, net/bridge/br_stp.c), but is
    /// only looked at when one begins or ceases to run: one that joins without running takes
    /// nothing away.
    fn refresh_bridge(&mut self, bridge: u32) {
        let live = self.links.iter().any(|link| link.master == Some(bridge) && link.running());
        if let Some(link) = self.links.get_mut(bridge) {
            link.carrier = live && link.up;
        }
    }

    /// Hands a frame to a link for sending (dev_queue_xmit). Links without a carrier lose it.
    pub(super) fn transmit(&mut self, cx: &mut Cx<'_>, index: u32, mut frame: Frame) {
        let Some(link) = self.links.get(index) else { return };
        if !link.running() {
            return;
        }
        match &link.kind {
            Kind::Uplink => {
                frame.leave_machine();
                cx.out.push(Output::Transmit { link: index, frame });
            }
            Kind::Loopback => cx.core.pass(Work { ns: self.id, link: index, frame }),
            Kind::Veth { ns, peer } => {
                if *ns != self.id {
                    // skb_scrub_packet: what is local to a namespace stays there.
                    frame.leave_machine();
                }
                cx.core.pass(Work { ns: *ns, link: *peer, frame });
            }
            Kind::Bridge(_) => self.bridge_transmit(cx, index, frame),
            Kind::Vxlan(_) => self.vxlan_transmit(cx, index, frame),
            Kind::Wireguard(_) => self.wireguard_transmit(cx, index, frame),
            // dummy_xmit, drivers/net/dummy.c
            Kind::Dummy => {}
        }
    }
}

impl Spaces {
    /// Takes one link out of its namespace with everything that hangs on it.
    pub(super) fn detach(&mut self, cx: &mut Cx<'_>, ns: NsId, index: u32) {
        let Some(ns) = self.get_mut(ns) else { return };
        if ns.links.get(index).is_none() {
            return;
        }
        ns.fib.flush_device(index);
        ns.configure6(index, Ip6::remove_interface);
        ns.drop_neighbours(index, true);
        ns.forget_port(index);
        if let Some(link) = ns.links.get_mut(index) {
            link.addresses.clear();
        }
        ns.refresh_addresses(index);
        let Some(link) = ns.links.remove(index) else { return };
        ns.sysctls.forget_link(&link.name);
        if let Some(bridge) = link.master {
            ns.count_ports(bridge);
            ns.refresh_bridge(bridge);
        }
        if matches!(link.kind, Kind::Bridge(_)) {
            ns.links.iter_mut().filter(|port| port.master == Some(index)).for_each(|port| {
                port.master = None;
            });
            ns.fib.touch();
        }
        if let Kind::Vxlan(device) = &link.kind {
            ns.vxlan_ports.retain(|(port, vni, _)| (*port, *vni) != (device.port, device.vni));
        }
        ns.wireguard_ports.retain(|(_, device)| *device != index);
        cx.changed(ns.id);
    }
}

/// `ip link`.
impl Kernel {
    /// A network card of the host namespace, down, with its cable plugged in.
    pub fn add_uplink(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<u32, Errno> {
        let ns = self.namespace_mut(NsId::HOST).ok_or(Errno::Einval)?;
        ns.add_link(name, mac, mtu, Kind::Uplink)
    }

    /// A device that swallows what it sends, down (drivers/net/dummy.c).
    pub fn add_dummy(&mut self, ns: NsId, name: &str, mac: Mac) -> Result<u32, Errno> {
        let ns = self.namespace_mut(ns).ok_or(Errno::Einval)?;
        ns.add_link(name, mac, 1500, Kind::Dummy)
    }

    /// A bridge, down. It has a carrier until the first port comes, and then follows its ports.
    pub fn add_bridge(&mut self, ns: NsId, name: &str, mac: Mac, mtu: u32) -> Result<u32, Errno> {
        let ns = self.namespace_mut(ns).ok_or(Errno::Einval)?;
        ns.add_link(name, mac, mtu, Kind::Bridge(Box::default()))
    }

    /// A pair of links, both down, each with its own MAC. Returns their indexes.
    pub fn add_veth(
        &mut self,
        a: (NsId, &str, Mac),
        b: (NsId, &str, Mac),
        mtu: u32,
    ) -> Result<(u32, u32), Errno> {
        if self.namespace(b.0).is_none_or(|ns| ns.links.named(b.1).is_some()) {
            return Err(Errno::Eexist);
        }
        let ns_a = self.namespace_mut(a.0).ok_or(Errno::Einval)?;
        let first = ns_a.add_link(a.1, a.2, mtu, Kind::Veth { ns: b.0, peer: 0 })?;
        let ns_b = self.namespace_mut(b.0).ok_or(Errno::Einval)?;
        let second = match ns_b.add_link(b.1, b.2, mtu, Kind::Veth { ns: a.0, peer: first }) {
            Ok(index) => index,
            Err(error) => {
                self.namespace_mut(a.0).and_then(|ns| ns.links.remove(first));
                return Err(error);
            }
        };
        let link = self.namespace_mut(a.0).and_then(|ns| ns.links.get_mut(first));
        if let Some(link) = link {
            link.kind = Kind::Veth { ns: b.0, peer: second };
        }
        Ok((first, second))
    }

    /// `ip link del`. The other end of a veth goes with it; sockets stay.
    pub fn del_link(
        &mut self,
        now: Time,
        ns: NsId,
        index: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let link = self.namespace(ns).and_then(|n| n.links.get(index)).ok_or(Errno::Enodev)?;
        let peer = match link.kind {
            Kind::Loopback => return Err(Errno::Eopnotsupp),
            Kind::Veth { ns, peer } => Some((ns, peer)),
            _ => None,
        };
        self.with(now, out, |spaces, cx| {
            spaces.detach(cx, ns, index);
            if let Some((ns, peer)) = peer {
                spaces.detach(cx, ns, peer);
            }
        });
        Ok(())
    }

    /// `ip link set up|down`.
    pub fn set_up(
        &mut self,
        now: Time,
        ns: NsId,
        index: u32,
        up: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let link =
            self.namespace_mut(ns).and_then(|n| n.links.get_mut(index)).ok_or(Errno::Enodev)?;
        if link.up == up {
            return Ok(());
        }
        link.up = up;
        let peer = match link.kind {
            Kind::Veth { ns, peer } => Some((ns, peer)),
            _ => None,
        };
        self.with(now, out, |spaces, cx| {
            if let Some(space) = spaces.get_mut(ns) {
                space.admin_changed(cx, index, up);
            }
            // Each end of a veth has a carrier while both are up (veth_open, veth_close).
            if let Some((peer_ns, peer)) = peer {
                let both = up
                    && spaces
                        .get(peer_ns)
                        .and_then(|n| n.links.get(peer))
                        .is_some_and(|link| link.up);
                for (ns, index) in [(ns, index), (peer_ns, peer)] {
                    if let Some(space) = spaces.get_mut(ns) {
                        space.carrier_changed(cx, index, both);
                    }
                }
            }
        });
        Ok(())
    }

    /// The cable of an uplink of the host namespace is plugged in or pulled. Addresses and routes
    /// stay; the routes are marked `linkdown` and still used.
    pub fn set_carrier(&mut self, now: Time, link: u32, carrier: bool, out: &mut Vec<Output>) {
        self.with(now, out, |spaces, cx| {
            if let Some(host) = spaces.get_mut(NsId::HOST) {
                host.carrier_changed(cx, link, carrier);
            }
        });
    }

    /// `ip link set master BRIDGE` (`None`: `nomaster`).
    pub fn set_master(
        &mut self,
        now: Time,
        ns: NsId,
        index: u32,
        bridge: Option<u32>,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let space = self.namespace_mut(ns).ok_or(Errno::Einval)?;
        if let Some(bridge) = bridge {
            let master = space.links.get(bridge).ok_or(Errno::Enodev)?;
            if !matches!(master.kind, Kind::Bridge(_)) {
                return Err(Errno::Eopnotsupp);
            }
        }
        let link = space.links.get_mut(index).ok_or(Errno::Enodev)?;
        // br_add_if refuses loopbacks and bridges (-EINVAL, -ELOOP).
        if matches!(link.kind, Kind::Loopback | Kind::Bridge(_)) && bridge.is_some() {
            return Err(Errno::Einval);
        }
        let before = std::mem::replace(&mut link.master, bridge);
        self.with(now, out, |spaces, cx| {
            let Some(space) = spaces.get_mut(ns) else { return };
            if before != bridge {
                space.fib.touch();
                if let Some(before) = before {
                    space.forget_bridge_port(before, index);
                    space.count_ports(before);
                    space.refresh_bridge(before);
                }
                if let Some(bridge) = bridge {
                    space.count_ports(bridge);
                }
                if space.links.get(index).is_some_and(Link::running) {
                    space.port_changed(index);
                }
                cx.changed(ns);
            }
        });
        Ok(())
    }

    /// `ip link set mtu`; at least 68 (RFC 791).
    pub fn set_mtu(
        &mut self,
        now: Time,
        ns: NsId,
        index: u32,
        mtu: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        if !(68..=65_535).contains(&mtu) {
            return Err(Errno::Einval);
        }
        let space = self.namespace_mut(ns).ok_or(Errno::Einval)?;
        let link = space.links.get_mut(index).ok_or(Errno::Enodev)?;
        if link.mtu != mtu {
            link.mtu = mtu;
            space.fib.touch();
            self.with(now, out, |_, cx| cx.changed(ns));
        }
        Ok(())
    }

    /// The links of a namespace, by index.
    pub fn links(&self, ns: NsId) -> impl Iterator<Item = &Link> {
        self.namespace(ns).into_iter().flat_map(|ns| ns.links.iter())
    }
    pub fn link(&self, ns: NsId, name: &str) -> Option<&Link> {
        self.namespace(ns)?.links.named(name)
    }
}
