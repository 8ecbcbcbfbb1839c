//! Endpoints objects: all of a Service in one, as clients from before EndpointSlices read it
//! (upstream `pkg/controller/endpoint/endpoints_controller.go`; deprecated by KEP-4974).
//!
//! One object for each Service with a selector, under its name; it goes with the Service. Whoever
//! made it, it is put right. The annotation with the time of the last change is left out.

use super::reachable::Reachable;
use super::{HEADLESS, Ports, is_headless, subject};
use crate::controllers::world::{Desk, ObjectChange, World, sides};
use crate::controllers::{client::Client, client::Loop, plain};
use crate::objects::{Key, Kind, Object, ObjectMeta, ServiceSpec, Uid};
use crate::ports::api::{DeleteOptions, Request};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Addresses that one object may have (`maxCapacity`).
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const NAME: &str = "endpoint-controller";
/// Of a lock that is held by one: it has no Service and none is missed.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// One was written, or is gone. People may make theirs before their Service, so one that has none
/// is looked at only if it was made here.
pub fn observe(change: &ObjectChange<'_>, world: &World, client: &mut Client) {
    let (key, _, new) = sides(change);
    let ours = new.is_some_and(|object| object.label(MANAGED_BY) == Some(NAME));
    if ours || world.get(Kind::Service, key).is_some() {
        client.mark(subject(key));
    }
}

/// The Service is gone, and what its name stands for with it.
pub fn forget(key: &Key, desk: &mut Desk<'_, '_>) {
    let Some(object) = desk.world.get(Kind::Endpoints, key) else { return };
    if !object.deleting() && object.annotation(LEADER).is_none() {
        let options = DeleteOptions { uid: Some(object.uid), ..DeleteOptions::default() };
        let request = Request::Delete { kind: Kind::Endpoints, key: key.clone(), options };
        desk.ask(Loop::Endpoints, Kind::Service, key, request);
    }
}

/// `wanted`: by ports, the endpoints by the uid of their pod, as for slices.
pub fn sync(
    service: &Object,
    spec: &ServiceSpec,
    wanted: &[(Ports, BTreeMap<Uid, Reachable<'_>>)],
    desk: &mut Desk<'_, '_>,
) {
    let has_ports = spec.ports.as_ref().is_some_and(|ports| !ports.is_empty());
    let publish = spec.publish_not_ready_addresses == Some(true);
    let mut subsets = match has_ports || is_headless(spec) {
        true => subsets(wanted, has_ports, publish),
        false => Vec::new(),
    };
    let truncated = truncate(&mut subsets);
    let mut labels = service.meta.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    if is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let key = &service.key;
    let standing = desk.world.get(Kind::Endpoints, key);
    let mut annotations = standing.and_then(|object| object.meta.annotations.clone());
    if truncated {
        let all = annotations.get_or_insert_default();
        all.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(all) = &mut annotations {
        all.remove(OVER_CAPACITY);
    }
    let request = match standing {
        Some(standing) if standing.deleting() => return,
        Some(standing) => {
            let plain = standing.plain();
            let told: Vec<EndpointSubset> =
                plain.map(|plain| plain.fields.part("subsets")).unwrap_or_default();
            let same = told == subsets
                && standing.meta.labels.as_ref() == Some(&labels)
                && standing.meta.annotations == annotations;
            if same {
                return;
            }
            let meta = ObjectMeta { labels: Some(labels), annotations, ..(*standing.meta).clone() };
            let object = (**standing).clone().with_meta(meta);
            plain::update(&object, |fields| fields.set("subsets", json!(subsets)))
        }
        None => {
            let meta = ObjectMeta { labels: Some(labels), annotations, ..ObjectMeta::default() };
            let fields = json!({"subsets": subsets});
            let object = plain::object(Kind::Endpoints, key.clone(), fields).with_meta(meta);
            Some(Request::Create { object: Arc::new(object) })
        }
    };
    if let Some(request) = request {
        desk.ask(Loop::Endpoints, Kind::Service, key, request);
    }
}

/// An address of a pod, and whether it is ready.
type Addresses = BTreeMap<(String, String), (EndpointAddress, bool)>;

/// Ports that the same addresses have are one subset (`RepackSubsets`; upstream's subsets are in
/// the order of a hash, these in that of their first port).
fn subsets(
    wanted: &[(Ports, BTreeMap<Uid, Reachable<'_>>)],
    has_ports: bool,
    publish: bool,
) -> Vec<EndpointSubset> {
    let mut by_port: BTreeMap<Option<Port>, Addresses> = BTreeMap::new();
    for (ports, endpoints) in wanted {
        let ports: Vec<Option<Port>> = match has_ports {
            true => ports.iter().map(|port| Some(Port::of(port))).collect(),
            // Of a headless Service without ports, the addresses are all.
            false => vec![None],
        };
        // One that is going is told of only if readiness does not matter
        // (`ShouldPodBeInEndpoints`).
        for (uid, reachable) in endpoints.iter().filter(|(_, one)| publish || !one.is_going()) {
            for port in &ports {
                let address = reachable.address();
                let place = (address.ip.clone(), uid.to_string());
                let addresses = by_port.entry(port.clone()).or_default();
                addresses.insert(place, (address, reachable.is_ready()));
            }
        }
    }
    let mut subsets: Vec<(Addresses, Vec<EndpointPort>)> = Vec::new();
    for (port, addresses) in by_port {
        let port = port.map(Port::written);
        match subsets.iter_mut().find(|(known, _)| known.keys().eq(addresses.keys())) {
            Some((_, ports)) => ports.extend(port),
            None => subsets.push((addresses, port.into_iter().collect())),
        }
    }
    let some = |all: Vec<EndpointAddress>| Some(all).filter(|all| !all.is_empty());
    let subset = |(addresses, ports): (Addresses, Vec<EndpointPort>)| {
        let (ready, not): (Vec<_>, Vec<_>) = addresses.into_values().partition(|(_, ready)| *ready);
        let bare =
            |all: Vec<(EndpointAddress, bool)>| all.into_iter().map(|(one, _)| one).collect();
        EndpointSubset {
            addresses: some(bare(ready)),
            not_ready_addresses: some(bare(not)),
            ports: Some(ports).filter(|all| !all.is_empty()),
        }
    };
    subsets.into_iter().map(subset).collect()
}

/// By name, number and protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port(String, i32, String, Option<String>);

impl Port {
    fn of(port: &super::EndpointPort) -> Port {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let protocol = text(&port.protocol);
        Port(text(&port.name), port.port.unwrap_or(0), protocol, port.app_protocol.clone())
    }

    fn written(self) -> EndpointPort {
        let Port(name, port, protocol, app_protocol) = self;
        let name = Some(name).filter(|name| !name.is_empty());
        EndpointPort { name, port, protocol: Some(protocol), app_protocol }
    }
}

/// Leaves no more than an object may have: those that are ready first, of each subset its share
/// (`truncateEndpoints`). True if there were more.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let count = |all: &Option<Vec<EndpointAddress>>| all.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|one| count(&one.addresses)).sum();
    let not: usize = subsets.iter().map(|one| count(&one.not_ready_addresses)).sum();
    if ready + not <= MOST {
        return false;
    }
    let cuts_ready = ready > MOST;
    let (total, room) = if cuts_ready { (ready, MOST) } else { (not, MOST - ready) };
    let mut left = room;
    for subset in subsets {
        if cuts_ready {
            subset.not_ready_addresses = None;
        }
        let list = match cuts_ready {
            true => &mut subset.addresses,
            false => &mut subset.not_ready_addresses,
        };
        let share = (count(list) * room).div_ceil(total).min(left);
        left -= share.min(count(list));
        if let Some(all) = list {
            all.truncate(share);
        }
        list.take_if(|all| all.is_empty());
    }
    true
}
