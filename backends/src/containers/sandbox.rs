//! A pod's network namespace, and how it is plugged in.

use crate::namespace::Namespace;
use crate::network::admin::End;
use crate::network::pod::{self, Plug};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{PodNetwork, Sandbox};
use kubesim_actors::ports::network::Mac;
use smol_str::{SmolStr, format_smolstr};
use std::io;
use std::sync::Arc;

const INNER: &str = "eth0";

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
        let [_, rest @ ..] = Mac::from_ip(address.addr()).0;
        let [a, b, c, d, e] = rest;
        let plug = Plug {
            outer: End { name: &name, mac: Mac([0xfe, a, b, c, d, e]) },
            bridge,
            inner: INNER,
            address: *address,
            gateway: *gateway,
            mtu: *mtu,
        };
        let mtu = plug.put(&namespace).map_err(|refusal| refusal.to_string())?;
        Ok(Space { namespace: Some(namespace), resolv_conf, outer: Some(name), mtu })
    }

    pub fn mtu(&self) -> u32 {
        self.mtu
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
        if let Some(name) = &self.outer {
            let _ = pod::pull(name);
        }
    }
}
