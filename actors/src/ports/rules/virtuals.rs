//! Services as virtual services of IPVS: what ipvs mode writes instead of rules that choose.
//!
//! The kernel hands each new connection to the next endpoint (scheduler `rr`), rewrites its
//! destination (forwarding `masq`, which is NAT) and keeps it there. A front without endpoints is
//! answered with "port unreachable" by IPVS itself (ip_vs_leave, net/netfilter/ipvs/ip_vs_core.c).
//!
//! What is written to an address is only seen by IPVS where that address is local. So every front's
//! address (but see [`Virtual::is_held`]) is on a device, [`DEVICE`], which is never up: an address
//! is local without that.
//!
//! What goes is drained: an endpoint of TCP that is no longer wanted gets weight 0, and goes once
//! it has no connections; that is looked at by each Apply and each Verify. Those of other protocols
//! go at once, and with them what was on its way to them (`expire_nodest_conn`), as upstream has it
//! (pkg/proxy/ipvs/graceful_termination.go of Kubernetes 1.33).
//!
//! A front with the address 0.0.0.0 is a node port: it is on every address that the node has when
//! it is applied, but for 127.0.0.0/8 and those of the device. An address that came since is missed
//! by Verify; upstream finds it as late, in its next round.

use super::flat::Front;
use ipnet::Ipv4Net;
use kubesim_runtime::Snapshot;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The device that holds the addresses: upstream's name. Every address on it is its owner's.
pub const DEVICE: &str = "kube-ipvs0";

/// What must be so for IPVS to do what the fronts say, as upstream sets it at start (`NewProxier`,
/// with `--ipvs-strict-arp`: an address that all nodes have is no one's to answer for in ARP).
pub const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.vs.conntrack", "1"),
    ("net.ipv4.vs.expire_nodest_conn", "1"),
    ("net.ipv4.vs.expire_quiescent_template", "1"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.arp_ignore", "1"),
    ("net.ipv4.conf.all.arp_announce", "2"),
];

/// The virtual services one owner keeps, by what a client writes.
pub type VirtualSet = Snapshot<Front, Arc<Virtual>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Virtual {
    /// Each once, in their order.
    pub endpoints: Vec<(Ipv4Addr, u16)>,
    /// For how many seconds a client comes back to the endpoint it had.
    pub sticky: Option<u32>,
    /// The address may be some machine's own (`spec.externalIPs`).
    pub elsewhere: bool,
}

impl Virtual {
    /// Whether a front's address is to be on the device, of a node with these addresses. Not one
    /// that the node has anyway, as upstream has it. And, unlike there, not one that may be a
    /// machine's of a network the node is connected to: the node would lose that machine, which
    /// may be where its API server is. What its pods send there goes to that machine.
    pub fn is_held(&self, front: &Front, node: &[Ipv4Net]) -> bool {
        let taken =
            |net: &Ipv4Net| net.addr() == front.ip || self.elsewhere && net.contains(&front.ip);
        !front.is_node_port() && !node.iter().any(taken)
    }
}
