//! What a node told the kernel.

use super::super::hosts::{BRIDGE, OWN};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{self, Errno, Proto, RouteSet};
use kubesim_actors::ports::rules::{self, ChainSet};
use kubesim_actors::{kubelet, netd, proxy};
use kubesim_backends::network::Network;
use kubesim_backends::network::admin::{Admin, Link};
use kubesim_backends::port::{Answer, Port};
use kubesim_backends::rules::Rules;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

/// Its devices, the ports of pods that its bridge may still have, and the address of DNS.
pub fn links(cluster_dns: Ipv4Addr) -> Result<(), String> {
    let mut admin = Admin::open().map_err(|error| format!("a netlink socket: {error}"))?;
    let said = |errno: Errno| errno.to_string();
    let bridge = admin.find(|link| link.name == BRIDGE).map_err(said)?.map(|link| link.index);
    let ours = |link: &Link| {
        let of_bridge = bridge.is_some() && link.master == bridge;
        let port = of_bridge && link.name.starts_with("veth");
        port || link.name == BRIDGE || OWN[1..].iter().any(|own| link.name.starts_with(own))
    };
    while let Some(link) = admin.find(ours).map_err(said)? {
        match admin.delete_link(link.index) {
            Ok(()) | Err(Errno::Enodev) => {}
            Err(errno) => return Err(format!("{}: {errno}", link.name)),
        }
    }
    let loopback = admin.link("lo").map_err(said)?;
    match admin.del_address(loopback, Ipv4Net::from(cluster_dns)) {
        Ok(()) | Err(Errno::Eaddrnotavail) => Ok(()),
        Err(errno) => Err(format!("{cluster_dns} of lo: {errno}")),
    }
}

/// Those that are left with our tag: most have gone with their devices.
pub async fn routes() -> Result<(), String> {
    let network = Network::open().map_err(|error| format!("a netlink socket: {error}"))?;
    let none = RouteSet { shared: Arc::new([]), except: None };
    let request = network::Request::SetRoutes { proto: Proto::NETD, routes: none };
    match asked(&network, request).await {
        Some(network::Reply::RoutesSet { .. }) => Ok(()),
        other => Err(format!("the kernel said {other:?}")),
    }
}

/// First each owner's chains are emptied, by which all that it ever made of them is found; then
/// they go.
pub async fn rules() -> Result<(), String> {
    let driver = Rules::new(Default::default());
    for footing in [kubelet::footing(), netd::guard::footing(), proxy::footing()] {
        let rules::Request::Apply { owner, .. } = &footing else { continue };
        let (base, shared, local) = (Arc::new([]), ChainSet::empty(0), Arc::new([]));
        let nothing = rules::Request::Apply { owner: owner.clone(), base, shared, local };
        for request in [footing, nothing] {
            match asked(&driver, request).await {
                Some(rules::Reply::Applied { result, .. }) => result?,
                other => return Err(format!("the kernel said {other:?}")),
            }
        }
    }
    Ok(())
}

/// The answer to one request.
async fn asked<P: Port>(port: &P, request: P::Request) -> Option<P::Reply>
where
    P::Reply: 'static,
{
    let told = Rc::new(RefCell::new(None));
    let tell = Rc::clone(&told);
    let answer = Answer::new(move |reply| {
        tell.replace(Some(reply));
        async { Ok(()) }
    });
    port.perform(request, answer).await;
    told.take()
}
