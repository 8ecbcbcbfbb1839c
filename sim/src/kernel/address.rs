//! Addresses of links, and the routes that come and go with them (net/ipv4/devinet.c,
//! net/ipv4/fib_frontend.c).

use super::link::Links;
use super::mutants::{Mutant, mutated};
use super::route::{Entry, Kind, Scope};
use super::{Cx, Errno, Kernel, Namespace, NsId, Output};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::Proto;
use kubesim_runtime::Time;
use std::net::Ipv4Addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address and its prefix length.
    pub net: Ipv4Net,
    /// Another address of the same subnet was there first (`IFA_F_SECONDARY`).
    pub secondary: bool,
    /// Who may know it (`ifa_scope`): with `host` nobody but this machine.
    pub scope: Scope,
}

impl Address {
    pub fn ip(&self) -> Ipv4Addr {
        self.net.addr()
    }
    pub fn scope_word(&self) -> &'static str {
        if self.scope == Scope::Host { "host" } else { "global" }
    }
}

/// As iproute2 sets it where nothing is said.
fn usual_scope(net: Ipv4Net) -> Scope {
    if net.addr().is_loopback() { Scope::Host } else { Scope::Universe }
}

/// The address to send from by `dev` towards `dst` (inet_select_addr): a primary one of the
/// device, if possible of the subnet of `dst`, else one of any device.
pub(super) fn select_address(links: &Links, dev: u32, dst: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let link = links.get(dev)?;
    let usable = |address: &&Address| {
        !address.secondary && (address.scope == Scope::Universe || link.is_loopback())
    };
    let own = || link.addresses.iter().filter(usable);
    let matching = dst.and_then(|dst| own().find(|address| address.net.contains(&dst)));
    matching.or_else(|| own().next()).map(Address::ip).or_else(|| any_address(links))
}

/// As [`select_address`], of those that others may know (RT_SCOPE_UNIVERSE): what packets that
/// leave by `dev` are masqueraded with (nf_nat_masquerade_ipv4).
pub(super) fn masquerade_address(links: &Links, dev: u32, next: Ipv4Addr) -> Option<Ipv4Addr> {
    match links.get(dev)?.is_loopback() {
        true => any_address(links),
        false => select_address(links, dev, Some(next)),
    }
}

fn any_address(links: &Links) -> Option<Ipv4Addr> {
    links
        .iter()
        .flat_map(|link| &link.addresses)
        .find(|address| !address.secondary && address.scope == Scope::Universe)
        .map(Address::ip)
}

impl Namespace {
    /// Makes the local table and the connected routes of a link what its addresses demand: a
    /// local entry for each, even while it is down; broadcast and connected ones while it is up
    /// (fib_add_ifaddr).
    pub(super) fn refresh_addresses(&mut self, index: u32) {
        let Some(link) = self.links.get(index) else {
            return self.fib.set_local_of(index, &[]);
        };
        let mut entries: Vec<Entry> = Vec::new();
        for address in &link.addresses {
            let ip = u32::from(address.ip());
            let prefsrc = self.primary_of(index, address).unwrap_or(ip);
            let local = Entry {
                to: ip,
                plen: 32,
                kind: Kind::Local,
                scope: Scope::Host,
                proto: Proto::KERNEL,
                onlink: false,
                metric: 0,
                via: None,
                dev: index,
                prefsrc: Some(Ipv4Addr::from(prefsrc)),
                own_gateway: false,
            };
            entries.push(local);
            if !link.up || address.secondary {
                continue;
            }
            let (net, plen) = (u32::from(address.net.network()), address.net.prefix_len());
            if plen < 31 && !mutated(Mutant::NoBroadcastRoute) {
                let to = u32::from(address.net.broadcast());
                let kind = Kind::Broadcast;
                entries.push(Entry { to, kind, scope: Scope::Link, ..local });
            }
            if plen == 32 {
                continue;
            }
            let whole = Entry { to: net, plen, ..local };
            if link.is_loopback() {
                entries.push(whole);
            } else {
                self.fib.add_connected(Entry { kind: Kind::Unicast, scope: Scope::Link, ..whole });
            }
        }
        self.fib.set_local_of(index, &entries);
    }

    /// The primary address of the subnet of `address`.
    fn primary_of(&self, index: u32, address: &Address) -> Option<u32> {
        let link = self.links.get(index)?;
        let same = |other: &&Address| !other.secondary && other.net.trunc() == address.net.trunc();
        link.addresses.iter().find(same).map(|primary| u32::from(primary.ip()))
    }

    /// `ip addr add` (inet_insert_ifa): primaries stand before secondaries.
    pub(super) fn insert_address(
        &mut self,
        cx: &mut Cx<'_>,
        index: u32,
        net: Ipv4Net,
        scope: Scope,
    ) -> Result<(), Errno> {
        let link = self.links.get_mut(index).ok_or(Errno::Enodev)?;
        let same_net = |a: &Address| a.net.trunc() == net.trunc();
        if link.addresses.iter().any(|a| same_net(a) && a.ip() == net.addr()) {
            return Err(Errno::Eexist);
        }
        let secondary = link.addresses.iter().any(same_net);
        let primaries = link.addresses.iter().take_while(|a| !a.secondary).count();
        let at = if secondary { link.addresses.len() } else { primaries };
        link.addresses.insert(at, Address { net, secondary, scope });
        self.refresh_addresses(index);
        self.announce(cx, index, net.addr());
        cx.changed(self.id);
        Ok(())
    }

    /// `ip addr del`: the secondaries of a primary's subnet go with it (promote_secondaries 0),
    /// every route that prefers one of them as source goes (fib_sync_down_addr), and with the
    /// last address of a link every route by that link (fib_disable_ip). While another address
    /// remains, routes by gateways of the subnet that went stay: Linux does not check them again.
    pub(super) fn remove_address(
        &mut self,
        cx: &mut Cx<'_>,
        index: u32,
        net: Ipv4Net,
    ) -> Result<(), Errno> {
        let link = self.links.get_mut(index).ok_or(Errno::Enodev)?;
        let is_it = |a: &Address| a.net == net;
        let gone = *link.addresses.iter().find(|a| is_it(a)).ok_or(Errno::Eaddrnotavail)?;
        let leaves = |a: &Address| {
            is_it(a) || (!gone.secondary && a.secondary && a.net.trunc() == net.trunc())
        };
        let removed: Vec<Ipv4Addr> =
            link.addresses.iter().filter(|a| leaves(a)).map(Address::ip).collect();
        link.addresses.retain(|a| !leaves(a));
        let last = link.addresses.is_empty();
        if !gone.secondary {
            self.fib.remove_connected(index, net.trunc());
        }
        self.refresh_addresses(index);
        for ip in removed {
            if !self.fib.is_local(ip) {
                self.fib.flush_source(ip);
            }
        }
        if last {
            self.fib.flush_device(index);
            self.drop_neighbours(index, true);
        }
        cx.changed(self.id);
        Ok(())
    }
}

/// `ip addr`.
impl Kernel {
    /// `EEXIST` if the link has it already. On an uplink and its kin that are up, the address is
    /// announced with a gratuitous ARP request: Linux does so with `arp_notify`, and DHCP clients
    /// and NetworkManager do it themselves (RFC 5227), so it is on here.
    pub fn add_address(
        &mut self,
        now: Time,
        ns: NsId,
        link: u32,
        address: Ipv4Net,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let scope = usual_scope(address);
        self.within(now, ns, out, |space, cx| space.insert_address(cx, link, address, scope))
    }

    /// The same with `scope host`: nothing that leaves the machine has it for its source unless
    /// somebody says so.
    pub fn add_host_address(
        &mut self,
        now: Time,
        ns: NsId,
        link: u32,
        address: Ipv4Net,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| space.insert_address(cx, link, address, Scope::Host))
    }

    /// `EADDRNOTAVAIL` if the link has no such address.
    pub fn del_address(
        &mut self,
        now: Time,
        ns: NsId,
        link: u32,
        address: Ipv4Net,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| space.remove_address(cx, link, address))
    }
}
