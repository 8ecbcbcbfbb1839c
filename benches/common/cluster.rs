//! Services with one endpoint each, as the views that informers hold.

use kubesim_actors::objects::{Object, Uid, View};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Every endpoint's address unless one is changed.
pub const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The address of the Service with this number, in 10.96.0.0/12.
pub fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number)
}

fn service(number: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": format!("web-{number}"), "namespace": "default"},
           "spec": {"clusterIP": cluster_ip(number), "ports": [{"port": 80}]}})
}

/// The slice of the Service with this number.
pub fn put_slice(slices: &mut View, number: u32, endpoint: Ipv4Addr, version: u64) {
    put_slice_of(slices, number, &[endpoint], version);
}

/// The same with any endpoints.
pub fn put_slice_of(slices: &mut View, number: u32, endpoints: &[Ipv4Addr], version: u64) {
    let endpoint = |ip: &Ipv4Addr| {
        json!({"addresses": [ip], "nodeName": "n1",
               "conditions": {"ready": true, "serving": true, "terminating": false}})
    };
    let name = format!("web-{number}");
    let manifest = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "default",
                     "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"port": 80, "protocol": "TCP"}]});
    put(slices, manifest, version);
}

fn put(view: &mut View, manifest: Value, version: u64) {
    let mut object = Object::from_json(manifest).expect("a manifest");
    object.version = version;
    object.uid = Uid(1);
    view.insert(object.key.clone(), Arc::new(object), version);
}

/// Services and their EndpointSlices, at version `count`.
pub fn views(count: u32) -> (View, View) {
    let (mut services, mut slices) = (View::empty(1), View::empty(2));
    for number in 0..count {
        let version = u64::from(number) + 1;
        put(&mut services, service(number), version);
        put_slice(&mut slices, number, BACKEND, version);
    }
    (services, slices)
}
