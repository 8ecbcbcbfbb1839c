//! The rules port of the host namespace: what of virtual services is not netfilter's, which is the
//! device that holds their addresses and the sysctls they need.

use super::{Errno, Kernel, Mac, NsId, Output};
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::virtuals::{DEVICE, SYSCTLS};
use kubesim_actors::ports::rules::{Reply, Request};
use kubesim_runtime::Time;
use std::net::Ipv4Addr;

impl Kernel {
    /// Carries a request out at once and answers it.
    pub fn rules(&mut self, now: Time, request: &Request, out: &mut Vec<Output>) -> Option<Reply> {
        let node = match request {
            Request::ApplyVirtual { .. } | Request::Verify { .. } => self.node_addresses(),
            _ => Vec::new(),
        };
        let mut reply = self.netfilter_mut(NsId::HOST)?.request_at(request, &node, now);
        match (request, &mut reply) {
            (Request::ApplyVirtual { owner, .. }, Reply::Applied { result, .. })
                if result.is_ok() =>
            {
                let held = self.hold(owner, &node, now, out);
                *result = held.map_err(|errno| format!("the device {DEVICE}: {errno}"));
            }
            (Request::Verify { owner }, Reply::Verified { intact, missing, .. }) => {
                missing.extend(self.unheld(owner, &node));
                *intact = missing.is_empty();
            }
            _ => {}
        }
        Some(reply)
    }

    /// Those a node port is on, with their networks.
    fn node_addresses(&self) -> Vec<Ipv4Net> {
        let links = self.links(NsId::HOST).filter(|link| link.name != DEVICE);
        let all = links.flat_map(|link| &link.addresses).map(|address| address.net);
        all.filter(|net| !net.addr().is_loopback()).collect()
    }

    /// Makes the addresses of the device those that the owner's services want, and sets sysctls.
    fn hold(
        &mut self,
        owner: &str,
        node: &[Ipv4Net],
        now: Time,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let wanted = self.netfilter(NsId::HOST).and_then(|n| n.virtual_addresses(owner, node));
        let wanted = wanted.unwrap_or_default();
        for (key, value) in SYSCTLS {
            self.set_sysctl(now, NsId::HOST, key, value, out)?;
        }
        let index = match self.link(NsId::HOST, DEVICE).map(|link| link.index) {
            Some(index) => index,
            None => self.add_dummy(NsId::HOST, DEVICE, Mac([2, 0, 0, 0, 0, 1]))?,
        };
        let held = self.held();
        for ip in wanted.iter().filter(|ip| !held.contains(ip)) {
            self.add_address(now, NsId::HOST, index, Ipv4Net::from(*ip), out)?;
        }
        for ip in held.iter().filter(|ip| !wanted.contains(ip)) {
            self.del_address(now, NsId::HOST, index, Ipv4Net::from(*ip), out)?;
        }
        Ok(())
    }

    fn held(&self) -> Vec<Ipv4Addr> {
        let device = self.link(NsId::HOST, DEVICE).into_iter();
        device.flat_map(|link| &link.addresses).map(|address| address.ip()).collect()
    }

    /// What is not as [`Kernel::hold`] left it.
    fn unheld(&self, owner: &str, node: &[Ipv4Net]) -> Vec<String> {
        let wanted = self.netfilter(NsId::HOST).and_then(|n| n.virtual_addresses(owner, node));
        let Some(wanted) = wanted else { return Vec::new() };
        let mut missing = Vec::new();
        if self.link(NsId::HOST, DEVICE).is_none() {
            missing.push(format!("the device {DEVICE} is gone"));
        } else {
            let held = self.held();
            let gone = wanted.iter().filter(|ip| !held.contains(ip));
            missing.extend(gone.map(|ip| format!("{DEVICE}: {ip} is gone")));
            let strange = held.iter().filter(|ip| !wanted.contains(ip));
            missing.extend(strange.map(|ip| format!("{DEVICE}: {ip} is no service's")));
        }
        let differs =
            |(key, value): &(&str, &str)| self.sysctl(NsId::HOST, key).as_deref() != Some(value);
        let unset = SYSCTLS.into_iter().filter(differs);
        missing.extend(unset.map(|(key, value)| format!("sysctl {key} is not {value}")));
        missing
    }
}
