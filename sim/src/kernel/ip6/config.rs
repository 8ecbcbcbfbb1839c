//! How links configure themselves and are configured (net/ipv6/addrconf.c): what comes and goes
//! with a link, an address, forwarding and `disable_ipv6`.

use super::address::{link_local, same_subnet, subnet_router};
use super::route::{Entry6, Kind6, Placing, Route6};
use super::{EACCES, Interface, Ip6};
use crate::kernel::link::Link;
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::{Errno, Kernel, Namespace, NsId, Output};
use ipnet::Ipv6Net;
use kubesim_actors::ports::network::Proto;
use kubesim_runtime::Time;
use std::net::Ipv6Addr;

/// ff00::/8
const GROUPS: Ipv6Addr = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);

impl Ip6 {
    /// A link is new (ipv6_add_dev).
    pub(in crate::kernel) fn add_interface(&mut self, index: u32) {
        let (conf, addresses) = (self.default, Vec::new());
        self.interfaces.push(Interface { index, conf, ready: false, addresses });
    }

    /// A link is no more.
    pub(in crate::kernel) fn remove_interface(&mut self, link: &Link) {
        self.link_down(link);
        self.interfaces.retain(|interface| interface.index != link.index);
    }

    /// A link went up (addrconf_notify): what was configured while it was down gets its routes
    /// (addrconf_permanent_addr), and it configures itself if it has a carrier.
    pub(in crate::kernel) fn link_up(&mut self, link: &Link) {
        let Some(interface) = self.interface(link.index).filter(|i| !i.conf.disabled) else {
            return;
        };
        for net in interface.addresses.clone() {
            self.connect(&net, link);
        }
        self.link_ready(link);
    }

    /// A link that is up has a carrier: it gives itself its address, once.
    pub(in crate::kernel) fn link_ready(&mut self, link: &Link) {
        let Some(interface) = self.interface_mut(link.index).filter(|i| !i.conf.disabled) else {
            return;
        };
        if !link.running() || std::mem::replace(&mut interface.ready, true) {
            return;
        }
        if link.is_loopback() {
            return self.insert(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), link);
        }
        self.join_groups(link);
        let net = Ipv6Net::new_assert(link_local(link.mac), 64);
        self.connect(&net, link);
        self.insert(net, link);
    }

    /// A link went down: with its routes go all of its addresses (addrconf_ifdown with
    /// `keep_addr_on_down` 0).
    pub(in crate::kernel) fn link_down(&mut self, link: &Link) {
        self.fib.flush_device(link.index);
        self.drop_neighbours(link);
        if let Some(interface) = self.interface_mut(link.index) {
            interface.addresses.clear();
            interface.ready = false;
        }
    }

    /// `ip -6 addr add` (inet6_addr_add). `EEXIST`; `EACCES` where IPv6 is off; `EADDRNOTAVAIL`
    /// for what is nobody's address.
    fn add_address(&mut self, net: Ipv6Net, link: &Link) -> Result<(), Errno> {
        let interface = self.interface(link.index).ok_or(Errno::Enodev)?;
        if interface.conf.disabled {
            return Err(EACCES);
        }
        let ip = net.addr();
        if interface.has(ip) {
            return Err(Errno::Eexist);
        }
        self.join_groups(link);
        let loopback = ip.is_loopback() && !link.is_loopback();
        if ip.is_unspecified() || ip.is_multicast() || loopback {
            return Err(Errno::Eaddrnotavail);
        }
        // The subnet's route is there before the address can be used.
        self.connect(&net, link);
        self.insert(net, link);
        Ok(())
    }

    /// `ip -6 addr del` (ipv6_del_addr): its subnet's route goes with the last address there, be
    /// it the kernel's own or not.
    fn del_address(&mut self, net: Ipv6Net, index: u32) -> Result<(), Errno> {
        let interface = self.interface_mut(index).ok_or(Errno::Enodev)?;
        let at = interface.addresses.iter().position(|there| *there == net);
        interface.addresses.remove(at.ok_or(Errno::Eaddrnotavail)?);
        let shared = interface.addresses.iter().any(|there| same_subnet(there, &net));
        let anycast = subnet_router(&net).filter(|_| interface.conf.forwarding);
        let anycast = anycast.filter(|ip| !interface.anycast().any(|other| other == *ip));
        if let Some(ip) = anycast {
            self.remove_own(Kind6::Anycast, ip, index);
        }
        self.remove_own(Kind6::Local, net.addr(), index);
        if !shared && !mutated(Mutant::SubnetOutlivesAddress) {
            let is_meant = |entry: &Entry6| entry.dev == index && entry.via.is_none();
            // Somebody may have deleted it.
            let _ = self.fib.main.remove_first(net.addr(), net.prefix_len(), is_meant);
        }
        Ok(())
    }

    /// An address can be used from now on (addrconf_dad_completed).
    fn insert(&mut self, net: Ipv6Net, link: &Link) {
        let Some(interface) = self.interface_mut(link.index) else { return };
        if interface.has(net.addr()) {
            return;
        }
        let before: Vec<Ipv6Addr> = interface.anycast().collect();
        interface.insert(net);
        let anycast: Vec<Ipv6Addr> =
            interface.anycast().filter(|ip| !before.contains(ip)).collect();
        // Either may be there.
        let _ = self.fib.local.append(Entry6::own(Kind6::Local, net.addr(), link.index));
        for ip in anycast {
            let _ = self.fib.local.append(Entry6::own(Kind6::Anycast, ip, link.index));
        }
    }

    fn remove_own(&mut self, kind: Kind6, ip: Ipv6Addr, index: u32) {
        let is_it = |entry: &Entry6| entry.kind == kind && entry.dev == index;
        // It was never there where another had its place.
        let _ = self.fib.local.remove_first(ip, 128, is_it);
    }

    /// The route to an address' subnet, of a link that is up (addrconf_prefix_route).
    fn connect(&mut self, net: &Ipv6Net, link: &Link) {
        if link.up && !link.is_loopback() {
            let entry = Entry6::connected(Kind6::Unicast, net.addr(), net.prefix_len(), link.index);
            // It may be there.
            let _ = self.fib.main.append(entry);
        }
    }

    /// The route to all groups, of a link that is up (addrconf_add_dev).
    fn join_groups(&mut self, link: &Link) {
        if link.up && !link.is_loopback() {
            let entry = Entry6::connected(Kind6::Multicast, GROUPS, 8, link.index);
            // It may be there.
            let _ = self.fib.local.append(entry);
        }
    }

    /// dev_forward_change: a link that may forward has its subnets' routers' addresses.
    pub(super) fn set_forwarding(&mut self, index: u32, on: bool) {
        let Some(interface) = self.interface_mut(index) else { return };
        if std::mem::replace(&mut interface.conf.forwarding, on) == on {
            return;
        }
        if !on {
            let is_its = |entry: &Entry6| entry.kind == Kind6::Anycast && entry.dev == index;
            return self.fib.local.retain(|entry| !is_its(entry));
        }
        for ip in interface.anycast().collect::<Vec<_>>() {
            // An address of the interface may have the place.
            let _ = self.fib.local.append(Entry6::own(Kind6::Anycast, ip, index));
        }
    }

    /// dev_disable_change: it is as if the link went down or up.
    pub(super) fn set_disabled(&mut self, link: &Link, off: bool) {
        let Some(interface) = self.interface_mut(link.index) else { return };
        if std::mem::replace(&mut interface.conf.disabled, off) == off {
            return;
        }
        match off {
            true => self.link_down(link),
            false if link.up => self.link_up(link),
            false => {}
        }
    }
}

impl Namespace {
    /// Where IPv6 is on, it heeds what happened to a link.
    pub(in crate::kernel) fn configure6(&mut self, index: u32, heed: impl Fn(&mut Ip6, &Link)) {
        if let (Some(ip6), Some(link)) = (&mut self.ip6, self.links.get(index)) {
            heed(ip6, link);
        }
    }

    fn ip6_and_link(&mut self, index: u32) -> Result<(&mut Ip6, &Link), Errno> {
        let link = self.links.get(index).ok_or(Errno::Enodev)?;
        Ok((self.ip6.as_mut().ok_or(EACCES)?, link))
    }
}

/// `ip -6 addr` and `ip -6 route`.
impl Kernel {
    /// `EEXIST` if the link has it already; `EACCES` (as [`Errno::Other`]) while IPv6 is off there.
    pub fn add_address6(
        &mut self,
        now: Time,
        ns: NsId,
        link: u32,
        address: Ipv6Net,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            let (ip6, link) = space.ip6_and_link(link)?;
            ip6.add_address(address, link)?;
            cx.changed(ns);
            Ok(())
        })
    }

    /// `EADDRNOTAVAIL` if the link has no such address.
    pub fn del_address6(
        &mut self,
        now: Time,
        ns: NsId,
        link: u32,
        address: Ipv6Net,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            let (ip6, link) = space.ip6_and_link(link)?;
            ip6.del_address(address, link.index)?;
            cx.changed(ns);
            Ok(())
        })
    }

    /// The addresses of a link, as `ip -6 addr` lists them.
    pub fn addresses6(&self, ns: NsId, link: u32) -> &[Ipv6Net] {
        let ip6 = self.namespace(ns).and_then(|ns| ns.ip6.as_ref());
        let interface = ip6.and_then(|ip6| ip6.interface(link));
        interface.map_or(&[], |interface| &interface.addresses)
    }

    /// `EEXIST` for a destination and metric that is there, unless it may be, or for a next hop
    /// that it has; `EHOSTUNREACH` for a gateway that is not on-link, `EINVAL` for one that is no
    /// neighbour's address; `ENODEV`, `ENETDOWN`.
    pub fn add_route6(
        &mut self,
        now: Time,
        ns: NsId,
        (route, proto): (&Route6, Proto),
        placing: Placing,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            let Namespace { ip6, links, .. } = space;
            ip6.as_mut().ok_or(Errno::Enodev)?.add_route(route, proto, placing, links)?;
            cx.changed(ns);
            Ok(())
        })
    }

    /// The first that has what is said; `ESRCH` if there is none.
    pub fn del_route6(
        &mut self,
        now: Time,
        ns: NsId,
        route: &Route6,
        proto: Proto,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            let Namespace { ip6, links, .. } = space;
            ip6.as_mut().ok_or(Errno::Esrch)?.del_route(route, proto, links)?;
            cx.changed(ns);
            Ok(())
        })
    }
}
