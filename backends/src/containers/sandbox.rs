//! A pod's network namespace, wired as the CNI bridge plugin does it: a veth into the node's
//! bridge, the pod's address, and a default route by the bridge's.

use crate::namespace::Namespace;
use crate::network::admin::{Admin, End};
use ipnet::Ipv4Net;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{PodNetwork, Sandbox};
use kubesim_actors::ports::network::{Errno, Mac, Proto, Route};
use smol_str::{SmolStr, format_smolstr};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

const INNER: &str = "eth0";
/// The loopback's number in every namespace.
const LO: u32 = 1;

/// A sandbox that is there.
#[derive(Debug)]
pub struct Space {
    /// `None`: the machine's own.
    pub namespace: Option<Namespace>,
    pub resolv_conf: Arc<str>,
    /// The outer end of the veth.
    outer: Option<SmolStr>,
    /// Of its card, as the kernel has it.
    mtu: u32,
}

impl Space {
    /// In the calling thread's network namespace. The error is a runtime's, in words.
    pub fn new(pod: Uid, spec: &Sandbox) -> Result<Space, String> {
        let resolv_conf = Arc::clone(&spec.resolv_conf);
        let PodNetwork::Bridge { bridge, address, gateway, mtu } = &spec.network else {
            return Ok(Space { namespace: None, resolv_conf, outer: None, mtu: 0 });
        };
        let namespace = Namespace::new().map_err(|why| format!("a network namespace: {why}"))?;
        let name = format_smolstr!("veth{:08x}", (pod.0 >> 96) as u32);
        let inner = End { name: INNER, mac: Mac::from_ip(address.addr()) };
        let [_, rest @ ..] = inner.mac.0;
        let [a, b, c, d, e] = rest;
        let outer = End { name: &name, mac: Mac([0xfe, a, b, c, d, e]) };
        let wired = wire(&namespace, (outer, bridge), inner, *mtu);
        wired.map_err(|errno| format!("plugging {name} into {bridge}: {errno}"))?;
        let (namespace, outer) = (Some(namespace), Some(name));
        let mut space = Space { namespace, resolv_conf, outer, mtu: 0 };
        space.mtu = space.configure(*address, *gateway)?;
        Ok(space)
    }

    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The MTU that its card has.
    fn configure(&self, address: Ipv4Net, gateway: Ipv4Addr) -> Result<u32, String> {
        let Some(namespace) = &self.namespace else { return Ok(0) };
        let configured = namespace.run(|| {
            // Pods have no IPv6 here, and its duplicate address detection takes a second.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
            let mut admin = Admin::open()?;
            Ok(address_and_route(&mut admin, address, gateway))
        });
        match configured {
            Ok(Ok(mtu)) => Ok(mtu),
            Ok(Err(errno)) => Err(format!("{address} on {INNER} of a pod: {errno}")),
            Err(error) => Err(format!("the network namespace of a pod: {error}")),
        }
    }

    /// A socket of the pod's own, or of the machine's if the pod is on its network.
    pub fn socket(
        &self,
        open: impl FnOnce() -> io::Result<socket2::Socket> + Send,
    ) -> io::Result<socket2::Socket> {
        match &self.namespace {
            Some(namespace) => namespace.run(open),
            None => open(),
        }
    }
}

impl Drop for Space {
    /// The namespace goes with its last process, the veth at once.
    fn drop(&mut self) {
        if let Some(name) = &self.outer
            && let Ok(mut admin) = Admin::open()
            && let Ok(link) = admin.link(name)
        {
            let _ = admin.delete_link(link);
        }
    }
}

fn wire(
    namespace: &Namespace,
    (outer, bridge): (End<'_>, &str),
    inner: End<'_>,
    mtu: u32,
) -> Result<(), Errno> {
    let mut admin = Admin::open().map_err(|error| crate::network::admin::errno(&error))?;
    let bridge = admin.link(bridge)?;
    admin.add_veth(outer, bridge, (namespace.descriptor(), inner), mtu)?;
    // With br_netfilter a pod that calls a Service and is its own endpoint is answered at the
    // bridge, by the port it came from (br_nf_pre_routing_finish, net/bridge/br_netfilter_hooks.c).
    let port = admin.link(outer.name)?;
    admin.set_hairpin(port)
}

fn address_and_route(admin: &mut Admin, address: Ipv4Net, gateway: Ipv4Addr) -> Result<u32, Errno> {
    admin.set_up(LO, true)?;
    let link = admin.link(INNER)?;
    admin.set_up(link, true)?;
    admin.add_address(link, address)?;
    let route = Route {
        to: Ipv4Net::default(),
        via: Some(gateway),
        dev: INNER.into(),
        onlink: false,
        metric: 0,
    };
    admin.add_route(link, &route, Proto::BOOT)?;
    admin.mtu(link)
}
