//! The kernel of an external machine as its picture shows it, for whoever judges.

use super::external::Picture;
use crate::kernel::{Kernel, NsId};
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::{
    LinkKind, Proto, PublicKey, Request as NetworkRequest, Vxlan, WireguardPeer,
};
use kubesim_actors::proxy;
use kubesim_runtime::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Draws what is in the picture, and returns what of it the model has no word for: rules of other
/// programs, for one. The pods' ends of things are in no picture.
pub(super) fn draw(kernel: &mut Kernel, now: Time, picture: &Picture) -> BTreeSet<String> {
    let (mut out, mut left_out) = (Vec::new(), BTreeSet::new());
    let state = &picture.state;
    for link in &state.links {
        let added = match link.kind {
            LinkKind::Loopback => Ok(Kernel::LO),
            LinkKind::Uplink => kernel.add_uplink(&link.name, link.mac, link.mtu),
            LinkKind::Bridge => kernel.add_bridge(NsId::HOST, &link.name, link.mac, link.mtu),
            LinkKind::Vxlan => kernel.add_vxlan(NsId::HOST, &link.name, &vxlan(link)),
            LinkKind::Dummy => kernel.add_dummy(NsId::HOST, &link.name, link.mac),
            // Its other end is in a pod, of which there is no picture.
            LinkKind::Veth => continue,
            LinkKind::Wireguard => kernel.add_wireguard(&link.name, link.mtu),
        };
        let index = match added {
            Ok(index) => index,
            Err(errno) => {
                left_out.insert(format!("link {}: {errno}", link.name));
                continue;
            }
        };
        kernel.set_carrier(now, index, link.carrier, &mut out);
        let _ = kernel.set_up(now, NsId::HOST, index, link.up, &mut out);
        for net in &link.addresses {
            // The loopback has its own already; a cluster's DNS lives there with scope host.
            let _ = match link.kind {
                LinkKind::Loopback => {
                    kernel.add_host_address(now, NsId::HOST, index, *net, &mut out)
                }
                _ => kernel.add_address(now, NsId::HOST, index, *net, &mut out),
            };
        }
    }
    let forward = u8::from(state.ip_forward).to_string();
    let _ = kernel.set_sysctl(now, NsId::HOST, "net.ipv4.ip_forward", &forward, &mut out);
    for link in &state.links {
        let key = format!("net.ipv4.conf.{}.forwarding", link.name);
        let value = u8::from(link.forwarding).to_string();
        let _ = kernel.set_sysctl(now, NsId::HOST, &key, &value, &mut out);
    }
    for (key, value) in &picture.sysctls {
        if let Err(errno) = kernel.set_sysctl(now, NsId::HOST, key, value, &mut out) {
            left_out.insert(format!("{key}={value}: {errno}"));
        }
    }
    for (route, proto) in picture.routes.iter().filter(|(_, proto)| *proto != Proto::KERNEL) {
        if let Err(errno) = kernel.add_route(now, NsId::HOST, route, *proto, &mut out) {
            left_out.insert(format!("route to {} by {}: {errno}", route.to, route.dev));
        }
    }
    draw_neighbours(kernel, now, picture);
    draw_wireguard_peers(kernel, now, picture, &mut left_out);
    if let Some(netfilter) = kernel.netfilter_mut(NsId::HOST) {
        left_out.extend(netfilter.restore(&picture.rules));
    }
    if let Some(netfilter) = kernel.netfilter_mut(NsId::HOST)
        && !picture.elements.is_empty()
    {
        netfilter.show_flat(proxy::OWNER, Arc::clone(&picture.elements));
    }
    left_out
}

fn vxlan(link: &kubesim_actors::ports::network::Link) -> Vxlan {
    Vxlan {
        vni: 1,
        port: 8472,
        mac: link.mac,
        mtu: link.mtu,
        local: Ipv4Addr::UNSPECIFIED,
        // It comes with the others.
        address: link.addresses.first().copied().unwrap_or_default(),
    }
}

fn draw_neighbours(kernel: &mut Kernel, now: Time, picture: &Picture) {
    let mut out = Vec::new();
    let vxlans = picture.state.links.iter().filter(|link| link.kind == LinkKind::Vxlan);
    for dev in vxlans.map(|link| link.name.clone()) {
        let of = |name: &Name| *name == dev;
        let entries = picture.neighbours.iter().filter(|(name, _)| of(name));
        let entries = entries.map(|(_, entry)| *entry).collect();
        let request = NetworkRequest::SetNeighbours { dev: dev.clone(), entries };
        kernel.network(now, &request, &mut out);
        let entries = picture.fdb.iter().filter(|(name, _)| of(name));
        let entries = entries.map(|(_, entry)| *entry).collect();
        kernel.network(now, &NetworkRequest::SetFdb { dev, entries }, &mut out);
    }
}

/// A peer of the model sends from one network.
fn draw_wireguard_peers(
    kernel: &mut Kernel,
    now: Time,
    picture: &Picture,
    left_out: &mut BTreeSet<String>,
) {
    let mut devices: BTreeMap<&Name, BTreeMap<PublicKey, WireguardPeer>> = BTreeMap::new();
    for (dev, peer) in &picture.wireguard_peers {
        let of_device = devices.entry(dev).or_default();
        if *of_device.entry(peer.public_key).or_insert(*peer) != *peer {
            let WireguardPeer { public_key, allowed, .. } = peer;
            left_out.insert(format!("peer {public_key} by {dev}: sends from {allowed} as well"));
        }
    }
    for (dev, peers) in devices {
        let peers = peers.into_values().collect();
        let request = NetworkRequest::SetWireguardPeers { dev: dev.clone(), peers };
        kernel.network(now, &request, &mut Vec::new());
    }
}
