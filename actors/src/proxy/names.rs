//! Names of chains: upstream's own, so that tools and people who know them find them here
//! (pkg/proxy/iptables/proxier.go of Kubernetes 1.33: `portProtoHash` and its callers).

use crate::ports::rules::Protocol;
use crate::ports::rules::text::protocol_name;
use sha2::{Digest, Sha256};
use smol_str::{SmolStr, format_smolstr};

pub const SERVICES: &str = "KUBE-SERVICES";
pub const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
pub const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub const POSTROUTING: &str = "KUBE-POSTROUTING";
/// In ipvs mode; upstream's name for a set.
pub const LOOP_BACK: &str = "KUBE-LOOP-BACK";
pub const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub const FORWARD: &str = "KUBE-FORWARD";
pub const FIREWALL: &str = "KUBE-FIREWALL";
pub const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";

/// `--iptables-masquerade-bit 14`.
pub const MASQUERADE_MARK: u32 = 0x4000;

/// The chains of one service port. All but an endpoint's share one hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `KUBE-SVC-…`: to endpoints anywhere.
    pub cluster: SmolStr,
    /// `KUBE-SVL-…`: to endpoints on this node.
    pub local: SmolStr,
    /// `KUBE-EXT-…`: what comes for node ports, external and load-balancer addresses.
    pub external: SmolStr,
    /// `KUBE-FW-…`: load-balancer traffic by source range.
    pub firewall: SmolStr,
}

impl Names {
    /// Of the port that is called `namespace/name:port`, or `namespace/name` if it has no name.
    pub fn of(port: &str, protocol: Protocol) -> Self {
        let hash = hash(&[port, protocol_name(protocol)]);
        Names {
            cluster: format_smolstr!("KUBE-SVC-{hash}"),
            local: format_smolstr!("KUBE-SVL-{hash}"),
            external: format_smolstr!("KUBE-EXT-{hash}"),
            firewall: format_smolstr!("KUBE-FW-{hash}"),
        }
    }
}

/// `KUBE-SEP-…` of an endpoint written `ip:port`.
pub fn endpoint(port: &str, protocol: Protocol, endpoint: &str) -> SmolStr {
    format_smolstr!("KUBE-SEP-{}", hash(&[port, protocol_name(protocol), endpoint]))
}

/// The first 16 characters of the base32 (RFC 4648) of the parts' SHA-256: its first 80 bits.
fn hash(parts: &[&str]) -> SmolStr {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.as_bytes());
    }
    let digest = sha.finalize();
    let bits = digest[..10].iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let digit = |i: u32| char::from(ALPHABET[(bits >> (75 - 5 * i)) as usize & 31]);
    (0..16).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that pkg/proxy/iptables/proxier_test.go and countless dumps of clusters show.
    #[test]
    fn the_names_are_upstreams() {
        assert_eq!(Names::of("ns1/svc1:p80", Protocol::Tcp).cluster, "KUBE-SVC-XPGD46QRK7WJZT7O");
        assert_eq!(
            endpoint("ns1/svc1:p80", Protocol::Tcp, "10.180.0.1:80"),
            "KUBE-SEP-SXIVWICOYRO3J4NJ"
        );
        let kubernetes = Names::of("default/kubernetes:https", Protocol::Tcp);
        assert_eq!(kubernetes.cluster, "KUBE-SVC-NPX46M4PTMTKRN6Y");
        let dns = Names::of("kube-system/kube-dns:dns", Protocol::Udp);
        assert_eq!(dns.cluster, "KUBE-SVC-TCOU7JCQXEZGVUNU");
    }

    #[test]
    fn an_unnamed_port_has_the_name_of_its_service() {
        // The chain of note B's guestbook, whose port has no name.
        let frontend = Names::of("default/frontend", Protocol::Tcp);
        assert_eq!(
            frontend.local.strip_prefix("KUBE-SVL-"),
            frontend.cluster.strip_prefix("KUBE-SVC-")
        );
    }
}
