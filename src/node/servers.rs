//! Which nodes the API's servers are on. A server's address is what a machine joins by; what it is
//! found by when it has another one is its node, of which the network hears where it is now
//! (`actors/src/netd/seek.rs`). What was found out is kept, for a start while no server is where it
//! was.

use super::join::{Joined, Talk};
use crate::pki;
use kubesim_actors::objects::Name;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Those that are known, with the addresses that they had.
pub type Servers = Vec<(Name, Ipv4Addr)>;

/// The slices of the Service `kubernetes`, as a list, which is what a proxy may ask for.
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
                      ?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes";
const NODES: &str = "/api/v1/nodes";

/// A server that has just begun is not a node yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where some are known, it is not waited long for news of them.
const SHORT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(300);

/// Where it is kept.
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("servers.json")
}

/// What an earlier life found out; none if there was none.
pub fn known(data_dir: &Path) -> Servers {
    let text = fs::read_to_string(file(data_dir)).unwrap_or_default();
    let kept: BTreeMap<String, Ipv4Addr> = serde_json::from_str(&text).unwrap_or_default();
    kept.into_iter().map(|(node, address)| (Name::from(node.as_str()), address)).collect()
}

/// What the API says, or else what is known. Of servers that are on no node there are none.
pub async fn find(data_dir: &Path, at: SocketAddrV4, joined: &Joined) -> Result<Servers, String> {
    let known = known(data_dir);
    let patience = if known.is_empty() { PATIENCE } else { SHORT };
    let talk = Talk::new(at, joined.network.clone());
    let look = async {
        loop {
            let slices = talk.client.get(SLICES).await.unwrap_or_default();
            let nodes = talk.client.get(NODES).await.unwrap_or_default();
            let found = on_nodes(&slices, &nodes);
            if !found.is_empty() {
                return found;
            }
            sleep(LOOK).await;
        }
    };
    let Ok(found) = timeout(patience, look).await else { return Ok(known) };
    let text = serde_json::to_string(&found).map_err(|error| error.to_string())?;
    pki::write(&file(data_dir), &text)?;
    Ok(found.into_iter().map(|(node, address)| (Name::from(node.as_str()), address)).collect())
}

/// The nodes that have an address behind the Service `kubernetes`.
fn on_nodes(slices: &Value, nodes: &Value) -> BTreeMap<String, Ipv4Addr> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let slices = list(&slices["items"]);
    let endpoints: Vec<Value> = slices.iter().flat_map(|one| list(&one["endpoints"])).collect();
    let servers: Vec<Value> = endpoints.iter().flat_map(|one| list(&one["addresses"])).collect();
    let of_node = |node: &Value| {
        let addresses = list(&node["status"]["addresses"]);
        let own = addresses.iter().filter(|one| one["type"] == "InternalIP");
        let address = own.map(|one| &one["address"]).find(|address| servers.contains(address))?;
        let name = node["metadata"]["name"].as_str()?;
        Some((name.to_owned(), address.as_str()?.parse().ok()?))
    };
    list(&nodes["items"]).iter().filter_map(of_node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, address: &str) -> Value {
        let addresses = [("Hostname", name), ("InternalIP", address)]
            .map(|(kind, address)| json!({ "type": kind, "address": address }));
        json!({ "metadata": { "name": name }, "status": { "addresses": addresses } })
    }

    #[test]
    fn a_server_is_the_node_that_has_its_address() {
        let endpoints = json!([{ "addresses": ["10.0.0.1"] }, { "addresses": ["10.0.0.3"] }]);
        let slices = json!({ "items": [{ "endpoints": endpoints }] });
        let nodes = json!({ "items": [node("a", "10.0.0.1"), node("b", "10.0.0.2"), json!({})] });
        let found = on_nodes(&slices, &nodes);
        assert_eq!(found, BTreeMap::from([("a".to_owned(), Ipv4Addr::new(10, 0, 0, 1))]));
        assert!(on_nodes(&Value::Null, &Value::Null).is_empty());
    }
}
