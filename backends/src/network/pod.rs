//! A pod's network as the CNI bridge plugin makes it: a veth into the node's bridge, the pod's
//! address, and a default route by the bridge's.

use super::admin::{Admin, End};
use super::errno_of;
use crate::namespace::Namespace;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Mac, Proto, Route};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;

/// The loopback's number in every namespace.
pub const LO: u32 = 1;

/// What is plugged in, and where.
#[derive(Clone, Copy, Debug)]
pub struct Plug<'a> {
    /// The end in the machine's network.
    pub outer: End<'a>,
    pub bridge: &'a str,
    /// The name of the pod's end; its MAC follows from the address.
    pub inner: &'a str,
    pub address: Ipv4Net,
    pub gateway: Ipv4Addr,
    pub mtu: u32,
}

/// What was not done, and what the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub what: String,
    pub errno: Errno,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.errno)
    }
}

impl Plug<'_> {
    pub fn inner(&self) -> End<'_> {
        End { name: self.inner, mac: Mac::from_ip(self.address.addr()) }
    }

    /// From the calling thread's network namespace into `space`. The MTU that the pod's card has.
    /// `EEXIST`: one of the ends has a name that another link has; nothing was done then, and what
    /// was begun is undone with any other refusal.
    pub fn put(&self, space: &Namespace) -> Result<u32, Refusal> {
        let mut admin = Admin::open().map_err(|error| self.unplugged(errno_of(&error)))?;
        let bridge = admin.link(self.bridge).map_err(|errno| self.unplugged(errno))?;
        let inner = (space.descriptor(), self.inner());
        let added = admin.add_veth(self.outer, bridge, inner, self.mtu);
        added.map_err(|errno| self.unplugged(errno))?;
        let finished = self.finish(&mut admin, space);
        if finished.is_err() {
            let _ = admin.link(self.outer.name).and_then(|link| admin.delete_link(link));
        }
        finished
    }

    fn finish(&self, admin: &mut Admin, space: &Namespace) -> Result<u32, Refusal> {
        // With br_netfilter a pod that calls a Service and is its own endpoint is answered at the
        // bridge, by the port it came from (br_nf_pre_routing_finish,
        // net/bridge/br_netfilter_hooks.c).
        let port = admin.link(self.outer.name).and_then(|port| admin.set_hairpin(port));
        port.map_err(|errno| self.unplugged(errno))?;
        let configured = space.run(|| {
            // Pods have no IPv6 here, and its duplicate address detection takes a second.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
            Ok(self.configure())
        });
        configured.unwrap_or_else(|error| Err(errno_of(&error))).map_err(|errno| {
            let what = format!("{} on {} of a pod", self.address, self.inner);
            Refusal { what, errno }
        })
    }

    /// In the pod's namespace.
    fn configure(&self) -> Result<u32, Errno> {
        let mut admin = Admin::open().map_err(|error| errno_of(&error))?;
        admin.set_up(LO, true)?;
        let link = admin.link(self.inner)?;
        admin.set_up(link, true)?;
        admin.add_address(link, self.address)?;
        let route = Route {
            to: Ipv4Net::default(),
            via: Some(self.gateway),
            dev: self.inner.into(),
            onlink: false,
            metric: 0,
        };
        admin.add_route(link, &route, Proto::BOOT)?;
        admin.mtu(link)
    }

    fn unplugged(&self, errno: Errno) -> Refusal {
        Refusal { what: format!("plugging {} into {}", self.outer.name, self.bridge), errno }
    }
}

/// Takes a veth out of the calling thread's network namespace, and with it the pod's end, at once.
pub fn pull(outer: &str) -> io::Result<Result<(), Errno>> {
    let mut admin = Admin::open()?;
    Ok(admin.link(outer).and_then(|link| admin.delete_link(link)))
}
