//! The network port (`kubesim_actors::ports::network`), as a driver on netlink and /proc/sys
//! would serve it, for the host namespace.

use super::arp::PermanentSet;
use super::link::Kind;
use super::route::Scope;
use super::vxlan::FdbSet;
use super::{Cx, Errno, Kernel, Mac, Namespace, NsId, Output, RouteBlocks};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{
    FdbEntry, Link, Neighbour, Proto, Reply, Request, State, Vxlan,
};
use kubesim_runtime::Time;
use smol_str::SmolStr;
use std::sync::Arc;

impl Kernel {
    /// Carries a request out at once and answers it. `Observe` is answered with the state now;
    /// the caller sends another after each [`Output::Changed`].
    pub fn network(&mut self, now: Time, request: &Request, out: &mut Vec<Output>) -> Reply {
        match request {
            Request::Observe => Reply::State(Arc::new(self.state())),
            Request::EnsureBridge { name, address, mtu } => {
                let result = self.ensure_bridge(now, name, *address, *mtu, out);
                done(name, result)
            }
            Request::EnsureVxlan { name, spec } => {
                let result = self.ensure_vxlan(now, name, spec, out);
                done(name, result)
            }
            Request::DeleteLink { name } => {
                let index = self.link(NsId::HOST, name).map(|link| link.index);
                let result = index
                    .ok_or(Errno::Enodev)
                    .and_then(|index| self.del_link(now, NsId::HOST, index, out));
                done(name, result)
            }
            Request::SetRoutes { proto, routes } => {
                let blocks: RouteBlocks = self.shared.routes.clone();
                let host = self.spaces.get_mut(NsId::HOST);
                let refused = host.map(|host| {
                    let Namespace { fib, links, .. } = host;
                    fib.set_routes(*proto, routes, links, &blocks)
                });
                Reply::RoutesSet { proto: *proto, refused: refused.unwrap_or_default() }
            }
            Request::SetNeighbours { dev, entries } => {
                done(dev, self.set_neighbours(now, dev, entries, out))
            }
            Request::SetFdb { dev, entries } => done(dev, self.set_fdb(dev, entries)),
            Request::EnsureWireguard { name, spec } => {
                let result = self.ensure_wireguard(now, name, spec, out);
                done(name, result)
            }
            Request::SetWireguardPeers { dev, peers } => {
                done(dev, self.set_wireguard_peers(now, dev, peers))
            }
            Request::SetSysctl { key, value } => {
                done(key, self.set_sysctl(now, NsId::HOST, key, value, out))
            }
            Request::GetSysctl { key } => {
                let value = self.sysctl(NsId::HOST, key).map(SmolStr::from);
                Reply::Sysctl { key: key.clone(), value }
            }
        }
    }

    /// Links, addresses and sysctls of the host namespace now.
    pub fn state(&self) -> State {
        let Some(host) = self.namespace(NsId::HOST) else { return State::default() };
        let default = host.fib.default_dev();
        let links = host.links.iter().map(|link| Link {
            name: link.name.clone(),
            index: link.index,
            kind: link.link_kind(),
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            carrier: link.carrier,
            master: link.master.and_then(|master| host.links.get(master)).map(|l| l.name.clone()),
            addresses: link.addresses.iter().map(|address| address.net).collect(),
            forwarding: link.forwarding,
            default_route: default == Some(link.index),
        });
        State {
            links: links.collect(),
            netd_routes: host.fib.count(Proto::NETD),
            ip_forward: host.sysctls.forwarding_all,
            bridge_nf: host.sysctls.bridge_nf_call_iptables,
        }
    }

    fn ensure_bridge(
        &mut self,
        now: Time,
        name: &str,
        address: Ipv4Net,
        mtu: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let index = match self.link(NsId::HOST, name) {
            Some(link) if matches!(link.kind, Kind::Bridge(_)) => link.index,
            Some(_) => return Err(Errno::Eexist),
            None => {
                let mac = self.random_mac();
                self.add_bridge(NsId::HOST, name, mac, mtu)?
            }
        };
        self.set_mtu(now, NsId::HOST, index, mtu, out)?;
        self.set_up(now, NsId::HOST, index, true, out)?;
        self.within(now, NsId::HOST, out, |host, cx| only_address(host, cx, index, address))
    }

    fn ensure_vxlan(
        &mut self,
        now: Time,
        name: &str,
        spec: &Vxlan,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let found = self.link(NsId::HOST, name).map(|link| (link.index, link.kind.clone()));
        let standing = match found {
            // vxlan_nl2conf: neither VNI nor port can change, the outer source can.
            Some((index, Kind::Vxlan(device))) => {
                if (device.vni, device.port) == (spec.vni, spec.port) {
                    Some(index)
                } else {
                    self.del_link(now, NsId::HOST, index, out)?;
                    None
                }
            }
            Some(_) => return Err(Errno::Eexist),
            None => None,
        };
        let index = match standing {
            Some(index) => index,
            None => self.add_vxlan(NsId::HOST, name, spec)?,
        };
        self.within(now, NsId::HOST, out, |host, cx| {
            if let Some(device) = host.vxlan_mut(index) {
                device.local = spec.local;
            }
            host.set_mac(cx, index, spec.mac);
            Ok(())
        })?;
        self.set_mtu(now, NsId::HOST, index, spec.mtu, out)?;
        self.set_up(now, NsId::HOST, index, true, out)?;
        self.within(now, NsId::HOST, out, |host, cx| only_address(host, cx, index, spec.address))
    }

    fn set_neighbours(
        &mut self,
        now: Time,
        dev: &str,
        entries: &Arc<[Neighbour]>,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let host = self.namespace_mut(NsId::HOST).ok_or(Errno::Einval)?;
        let link = host.links.iter_mut().find(|link| link.name == dev).ok_or(Errno::Enodev)?;
        let same = link.permanent.as_ref().is_some_and(|set| Arc::ptr_eq(&set.given, entries));
        if same {
            return Ok(());
        }
        link.permanent = Some(Arc::new(PermanentSet::new(Arc::clone(entries))));
        let index = link.index;
        self.within(now, NsId::HOST, out, |host, cx| {
            host.heed_permanent(cx, index);
            Ok(())
        })
    }

    fn set_fdb(&mut self, dev: &str, entries: &Arc<[FdbEntry]>) -> Result<(), Errno> {
        let host = self.namespace_mut(NsId::HOST).ok_or(Errno::Einval)?;
        let index = host.links.named(dev).ok_or(Errno::Enodev)?.index;
        let device = host.vxlan_mut(index).ok_or(Errno::Eopnotsupp)?;
        if !Arc::ptr_eq(&device.fdb.given, entries) {
            device.fdb = FdbSet::new(Arc::clone(entries));
        }
        Ok(())
    }

    /// `eth_hw_addr_random`: a locally administered one.
    fn random_mac(&mut self) -> Mac {
        let word = self.core.rng.u64().to_le_bytes();
        let mut mac = [word[0], word[1], word[2], word[3], word[4], word[5]];
        mac[0] = mac[0] & 0xfe | 0x02;
        Mac(mac)
    }
}

/// Makes the addresses of a link be exactly one. The new one comes first, so that the routes by
/// the link outlive the change.
pub(super) fn only_address(
    host: &mut Namespace,
    cx: &mut Cx<'_>,
    index: u32,
    address: Ipv4Net,
) -> Result<(), Errno> {
    let link = host.links.get(index).ok_or(Errno::Enodev)?;
    let have: Vec<Ipv4Net> = link.addresses.iter().map(|a| a.net).collect();
    if !have.contains(&address) {
        host.insert_address(cx, index, address, Scope::Universe)?;
    }
    for other in have.into_iter().filter(|net| *net != address) {
        // A secondary may have gone with its primary already.
        let _ = host.remove_address(cx, index, other);
    }
    // The wanted one may itself have been a secondary of one that went.
    if !host.links.get(index).is_some_and(|l| l.addresses.iter().any(|a| a.net == address)) {
        host.insert_address(cx, index, address, Scope::Universe)?;
    }
    Ok(())
}

fn done(subject: &str, result: Result<(), Errno>) -> Reply {
    Reply::Done { subject: SmolStr::new(subject), result }
}
