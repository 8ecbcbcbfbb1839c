use super::{Name, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A node's lease of a pod network, and where to send what is for it: `net.kubesim.dev/v1`,
/// cluster-wide, named after its node and owned by it.
///
/// The lease is keyed by the node's identity (`spec.node_uid` and `spec.public_key`); its address
/// is only a locator that changes as the machine moves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SubnetSpec,
    #[serde(default)]
    pub status: SubnetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubnetSpec {
    pub node: Name,
    #[serde(with = "uid_text")]
    pub node_uid: Uid,
    /// The pod network this node leases, `10.244.1.0/24`.
    pub cidr: String,
    /// The node's ed25519 key, 64 hex digits: what it tells its peers directly is signed with it.
    pub public_key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubnetStatus {
    /// The node's address now; `None` while it has none.
    pub locator: Option<Ipv4Addr>,
    /// The prefix length of the locator's network: peers within it are on-link.
    pub prefix_length: u8,
    /// Counts the locator's changes; the higher one is the newer one.
    pub generation: u64,
    /// The MAC address of the node's vxlan device, `0a:58:…`; empty without one.
    pub vtep_mac: String,
}

mod uid_text {
    use super::Uid;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(uid: &Uid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(uid)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uid, D::Error> {
        let text = String::deserialize(deserializer)?;
        Uid::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no UUID")))
    }
}
