//! Services that are made at several servers side by side: nothing is given twice.

use super::{Cluster, possible};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const EACH: usize = 19;

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
}

/// The network is nearly used up, so that servers that do not know of each other give the same
/// addresses.
#[test]
fn no_address_and_no_port_is_given_twice() {
    if !possible() {
        return;
    }
    let alone = &[
        "--without=scheduler,controllers",
        "--disable-admission-plugins=ServiceAccount",
        "--service-network=10.96.0.0/26",
    ];
    let cluster = Cluster::start(alone, |_| {});
    let ends = &cluster.ends;
    std::thread::scope(|scope| {
        for server in 0..super::SERVERS {
            scope.spawn(move || {
                for number in 0..EACH {
                    let body = service(&format!("s{server}-{number}"));
                    let (code, why) = ends.ask(server, &format!("POST {SERVICES}"), &body, "");
                    assert_eq!(code, 201, "{why}");
                }
            });
        }
    });
    let list = ends.get(0, SERVICES);
    let items = list["items"].as_array().expect("a list");
    let ours = items.iter().filter(|item| item["metadata"]["name"] != "kubernetes");
    let specs: Vec<&Value> = ours.map(|item| &item["spec"]).collect();
    assert_eq!(specs.len(), super::SERVERS * EACH);
    for (what, path) in [("address", "/clusterIP"), ("port", "/ports/0/nodePort")] {
        let given: BTreeSet<String> =
            specs.iter().map(|spec| spec.pointer(path).expect(what).to_string()).collect();
        assert_eq!(given.len(), specs.len(), "one {what} is given twice");
    }
}
