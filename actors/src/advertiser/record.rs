//! The objects that say where servers are.

use super::Record;
use crate::objects::{Body, Key, LeaseSpec, Name, Object, ObjectMeta, micro_time};
use kubesim_runtime::Wall;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// The namespace of the servers' leases.
pub const LEASES: &str = "kube-system";
/// Of a server's lease; its value is the address.
const LABEL: &str = "kubesim/api-server";

pub fn name(address: Ipv4Addr) -> Name {
    Name::from(format!("api-server-{address}"))
}

pub fn lease_key(name: &str) -> Key {
    Key::new(LEASES, name)
}

/// Whose lease it is, if it is a server's.
pub fn address(lease: &Object) -> Option<Ipv4Addr> {
    lease.label(LABEL)?.parse().ok()
}

pub fn renewed(address: Ipv4Addr, lasts: Duration, old: Option<&Object>, now: Wall) -> Object {
    let since = old.and_then(|old| old.lease()?.acquire_time.clone());
    let spec = LeaseSpec {
        holder_identity: Some(address.to_string()),
        lease_duration_seconds: i32::try_from(lasts.as_secs()).ok(),
        acquire_time: since.or_else(|| Some(micro_time(now))),
        renew_time: Some(micro_time(now)),
        ..LeaseSpec::default()
    };
    let body = Body::Lease { spec: Arc::new(spec) };
    match old {
        Some(old) => Object { body, ..old.clone() },
        None => {
            let labels = BTreeMap::from([(LABEL.to_owned(), address.to_string())]);
            let meta = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
            Object::new(lease_key(&name(address)), body).with_meta(meta)
        }
    }
}

/// By which name and in which namespace all of it is.
pub fn service() -> Key {
    Key::new("default", "kubernetes")
}

/// What should be there instead of what is; `None` if that is right.
pub fn wrong(
    of: Record,
    old: Option<&Object>,
    alive: &BTreeSet<Ipv4Addr>,
    port: u16,
) -> Option<Object> {
    let wanted = match of {
        Record::Slice => slice(alive, port),
        Record::Endpoints => endpoints(alive, port),
    };
    let said = |value: &Value| match of {
        Record::Slice => said_by_slice(value),
        Record::Endpoints => said_by_endpoints(value),
    };
    let before = old.map(|old| old.to_json());
    if before.as_ref().is_some_and(|before| said(before) == said(&wanted)) {
        return None;
    }
    let mut record = Object::from_json(wanted).ok()?;
    if let Some(old) = old {
        (record.uid, record.version) = (old.uid, old.version);
    }
    Some(record)
}

/// pkg/controlplane/reconcilers/endpointsadapter.go.
fn slice(alive: &BTreeSet<Ipv4Addr>, port: u16) -> Value {
    let one = |address| json!({ "addresses": [address], "conditions": { "ready": true } });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": "IPv4",
        "endpoints": alive.iter().map(one).collect::<Vec<_>>(),
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    })
}

fn endpoints(alive: &BTreeSet<Ipv4Addr>, port: u16) -> Value {
    let addresses: Vec<Value> = alive.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": addresses,
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        }],
    })
}

/// Addresses and ports, each with its name: no more is ours to judge.
type Said = (BTreeSet<String>, Vec<(String, i64)>);

pub(super) fn said_by_slice(slice: &Value) -> Said {
    let all = slice["endpoints"].as_array().into_iter().flatten();
    let all = all.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    (all.map(text).collect(), ports(&slice["ports"]))
}

pub(super) fn said_by_endpoints(endpoints: &Value) -> Said {
    let subsets = || endpoints["subsets"].as_array().into_iter().flatten();
    let all = subsets().flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
    let addresses = all.map(|address| text(&address["ip"])).collect();
    (addresses, subsets().flat_map(|subset| ports(&subset["ports"])).collect())
}

fn ports(list: &Value) -> Vec<(String, i64)> {
    let all = list.as_array().into_iter().flatten();
    all.map(|port| (text(&port["name"]), port["port"].as_i64().unwrap_or(0))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
