//! Which pod has which address of the node's subnet.
//!
//! The runtime's sandboxes are the truth: a pool is rebuilt from them at start, and an address is
//! held exactly as long as a sandbox has it or is being made with it. Nothing is written to disk,
//! so nothing can leak there (containernetworking/plugins#252).

use crate::objects::Uid;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The node's part of the pod network, as netd writes it to `subnet.env`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSubnet {
    /// The bridge's own address with the prefix length: `10.244.1.1/24`.
    pub gateway: Ipv4Net,
    pub mtu: u32,
}

impl PodSubnet {
    /// Reads `FLANNEL_SUBNET` and `FLANNEL_MTU`; `None` if the first is missing or no network.
    pub fn parse(text: &str) -> Option<PodSubnet> {
        let value = |name: &str| {
            let assignment = |line: &str| {
                let (left, right) = line.split_once('=')?;
                (left.trim() == name).then(|| right.trim().trim_matches('"').to_owned())
            };
            text.lines().find_map(assignment)
        };
        let gateway: Ipv4Net = value("FLANNEL_SUBNET")?.parse().ok()?;
        let mtu = value("FLANNEL_MTU").and_then(|mtu| mtu.parse().ok()).unwrap_or(1500);
        (gateway.prefix_len() <= 30).then_some(PodSubnet { gateway, mtu })
    }
}

/// Addresses in use, and where to look next. Round robin, as host-local allocates: an address just
/// freed is the last to be given again, so that late packets for a dead pod find nobody.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    held: BTreeMap<Ipv4Addr, Uid>,
    last: Option<Ipv4Addr>,
}

impl Ipam {
    /// A free address of the subnet for this pod; `None` when all are held.
    pub fn allocate(&mut self, subnet: Ipv4Net, pod: Uid) -> Option<Ipv4Addr> {
        let (network, broadcast) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
        let (first, count) = (network + 1, broadcast.saturating_sub(network + 1));
        let from = match self.last.map(u32::from) {
            Some(last) if (first..broadcast).contains(&last) => last - first + 1,
            _ => 0,
        };
        let candidates = (0..count).map(|step| Ipv4Addr::from(first + (from + step) % count));
        let mut free = candidates.filter(|ip| *ip != subnet.addr() && !self.held.contains_key(ip));
        let ip = free.next()?;
        self.held.insert(ip, pod);
        self.last = Some(ip);
        Some(ip)
    }

    /// The runtime says that this pod has this address. `Err` with the pod that holds it already.
    pub fn adopt(&mut self, ip: Ipv4Addr, pod: Uid) -> Result<(), Uid> {
        match self.held.get(&ip) {
            Some(holder) if *holder != pod => Err(*holder),
            Some(_) => Ok(()),
            None => {
                self.held.insert(ip, pod);
                self.last = self.last.max(Some(ip));
                Ok(())
            }
        }
    }

    /// The pod's sandbox is gone. An address that meanwhile is another pod's stays with that one.
    pub fn release(&mut self, ip: Ipv4Addr, pod: Uid) {
        if self.held.get(&ip) == Some(&pod) {
            self.held.remove(&ip);
        }
    }

    #[cfg(test)]
    pub fn held(&self) -> impl Iterator<Item = (Ipv4Addr, Uid)> + '_ {
        self.held.iter().map(|(ip, pod)| (*ip, *pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Ipv4Net {
        "10.244.1.1/29".parse().unwrap()
    }

    #[test]
    fn the_network_the_gateway_and_the_broadcast_are_nobodys() {
        let mut ipam = Ipam::default();
        let given: Vec<_> = (1..=6).map(|pod| ipam.allocate(subnet(), Uid(pod))).collect();
        let ip = |last| Some(Ipv4Addr::new(10, 244, 1, last));
        assert_eq!(given, [ip(2), ip(3), ip(4), ip(5), ip(6), None]);
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_given_again() {
        let mut ipam = Ipam::default();
        let first = ipam.allocate(subnet(), Uid(1)).unwrap();
        ipam.release(first, Uid(1));
        let next: Vec<_> = (2..=6).map(|pod| ipam.allocate(subnet(), Uid(pod)).unwrap()).collect();
        assert_eq!(next.last(), Some(&first));
    }

    #[test]
    fn a_release_by_another_pod_changes_nothing() {
        let mut ipam = Ipam::default();
        let ip = ipam.allocate(subnet(), Uid(1)).unwrap();
        ipam.release(ip, Uid(2));
        assert_eq!(ipam.adopt(ip, Uid(2)), Err(Uid(1)));
    }

    #[test]
    fn subnet_env_is_read_as_flannel_writes_it() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let subnet = PodSubnet::parse(text).unwrap();
        assert_eq!(subnet, PodSubnet { gateway: "10.244.7.1/24".parse().unwrap(), mtu: 1450 });
        assert_eq!(PodSubnet::parse("FLANNEL_MTU=1450"), None);
        assert_eq!(PodSubnet::parse("FLANNEL_SUBNET=10.244.7.1/40"), None);
    }
}
