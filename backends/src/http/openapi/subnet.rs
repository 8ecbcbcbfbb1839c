//! The schema of the one kind that is not upstream's (`actors/src/objects/subnet.rs`).

use super::schemas::{API_VERSION, KIND, meta, reference};
use super::types::Kind;
use serde_json::{Map, Value, json};

const NAME: &str = "dev.kubesim.net.v1.Subnet";

pub fn add(kinds: &mut Vec<Kind>, schemas: &mut Map<String, Value>) {
    kinds.push(Kind {
        group: "net.kubesim.dev",
        version: "v1",
        kind: "Subnet",
        schema: NAME.to_owned(),
        list: Some("SubnetList"),
    });
    schemas.insert(NAME.to_owned(), schema());
}

fn schema() -> Value {
    let text = |said: &str| json!({"description": said, "type": "string"});
    let number = |said: &str, format: &str| json!({"description": said, "type": "integer", "format": format});
    let spec = json!({
        "cidr": text("The pod network that this node leases, 10.244.1.0/24."),
        "node": text("The name of the node."),
        "nodeUid": text("The UID of the node: the lease is keyed by it and by the public key."),
        "publicKey": text(
            "The node's ed25519 key, 64 hex digits: what it tells its peers directly is signed \
             with it."
        ),
    });
    let status = json!({
        "generation": number("Counts the locator's changes; the higher one is the newer one.",
            "int64"),
        "locator": text("The node's IPv4 address now; not there while it has none."),
        "prefixLength": number(
            "The prefix length of the locator's network: peers within it are on-link.", "int32"
        ),
        "vtepMac": text("The MAC address of the node's vxlan device; empty without one."),
    });
    json!({
        "description": "Subnet is a node's lease of a pod network, and where to send what is for \
            it. It is named after its node and owned by it.",
        "type": "object",
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            "metadata": {
                "description": "Standard object's metadata.",
                "allOf": [reference(&meta("ObjectMeta"))], "default": {},
            },
            "spec": {"description": "What is leased, and to whom.", "type": "object",
                "properties": spec},
            "status": {"description": "Where the node is now.", "type": "object",
                "properties": status},
        },
    })
}
