//! EndpointSlices: for each Service with a selector, where its pods can be reached (upstream
//! `pkg/controller/endpointslice` and `staging/.../endpointslice`), and on demand the same in one
//! object (`legacy`).

mod legacy;
mod pack;
mod reachable;

use super::client::{Client, Loop, Subject};
use super::names;
use super::selectors::{SelectorIndex, includes, labels};
use super::world::{Desk, ObjectChange, World, sides};
use crate::objects::{
    Body, EndpointSlice, Key, Kind, Name, Object, ObjectMeta, PodSpec, ServiceSpec, Uid,
};
use crate::ports::api::{DeleteOptions, Request};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubesim_runtime::Time;
use pack::{Packed, Shelf, Standing};
use reachable::Reachable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Changes of one Service within this time cost one write (`--endpoint-updates-batch-period`);
/// longer where every write is told to many nodes.
const BATCH: Duration = Duration::from_millis(50);
const BATCH_OF_MANY: Duration = Duration::from_secs(1);
const MANY_NODES: usize = 1000;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Endpoints objects are written besides.
    legacy: bool,
    selectors: SelectorIndex,
    /// The pods whose labels match, by Service, as in the view.
    members: BTreeMap<Key, BTreeMap<Key, Arc<Object>>>,
    /// Our slices, by Service.
    slices: BTreeMap<Key, BTreeSet<Key>>,
    /// Our slices as last written, by their keys: seeing them come back is no news.
    written: BTreeMap<Key, Arc<EndpointSlice>>,
    /// The zones of nodes that have one.
    zones: BTreeMap<Name, String>,
    batch: Duration,
    /// Services whose alarm is set.
    scheduled: BTreeSet<Key>,
}

/// What tells one group of slices from another: pods that resolve a named port differently are
/// in different slices.
type Ports = Vec<EndpointPort>;

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::Endpoints, Kind::Service, key)
}

impl Endpoints {
    pub fn new(legacy: bool) -> Self {
        Endpoints { legacy, ..Endpoints::default() }
    }

    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        let many = world.view(Kind::Node).is_some_and(|nodes| nodes.len() > MANY_NODES);
        self.batch = if many { BATCH_OF_MANY } else { BATCH };
        match kind {
            Kind::Service => self.service_changed(change, world, client, now),
            Kind::Pod => self.pod_changed(change, world, client, now),
            Kind::EndpointSlice => self.slice_changed(change, client, now),
            Kind::Node => self.node_changed(change, world, client, now),
            Kind::Endpoints if self.legacy => legacy::observe(change, world, client),
            _ => {}
        }
    }

    fn schedule(&mut self, service: &Key, client: &mut Client, now: Time) {
        if self.scheduled.insert(service.clone()) {
            client.mark_at(now + self.batch, subject(service));
        }
    }

    fn service_changed(
        &mut self,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        let (key, old, new) = sides(change);
        let selector = |object: Option<&Arc<Object>>| {
            let (spec, _) = object?.service()?;
            spec.selector.clone().filter(|pairs| !pairs.is_empty())
        };
        let (was, is) = (selector(old), selector(new));
        if was != is {
            self.members.remove(key);
            self.selectors.remove(key);
            if let Some(pairs) = &is {
                self.selectors.insert(key, pairs);
                let members = self.members.entry(key.clone()).or_default();
                let from = Key::new(key.namespace.clone(), "");
                let all = world.view(Kind::Pod).into_iter().flat_map(|pods| pods.iter_from(&from));
                for (pod, object) in all.take_while(|(pod, _)| pod.namespace == key.namespace) {
                    if includes(labels(object.meta.labels.as_ref()), pairs) {
                        members.insert(pod.clone(), Arc::clone(object));
                    }
                }
            }
        }
        self.schedule(key, client, now);
    }

    fn pod_changed(
        &mut self,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        let (key, old, new) = sides(change);
        let mut concerned = BTreeSet::new();
        let relabelled = match (old, new) {
            (Some(old), Some(new)) => {
                !Arc::ptr_eq(&old.meta, &new.meta) && old.meta.labels != new.meta.labels
            }
            _ => true,
        };
        for (pod, there) in [(old.filter(|_| relabelled), None), (new, new)] {
            let Some(pod) = pod else { continue };
            let of = labels(pod.meta.labels.as_ref());
            for service in self.selectors.candidates(&key.namespace, of) {
                let spec = world.get(Kind::Service, &service).and_then(|o| o.service());
                let pairs = spec.and_then(|(spec, _)| spec.selector.as_ref());
                if !pairs.is_some_and(|pairs| includes(of, pairs)) {
                    continue;
                }
                let members = self.members.entry(service.clone()).or_default();
                match (there, members.get_mut(key)) {
                    (Some(pod), Some(known)) => known.clone_from(pod),
                    (Some(pod), None) => _ = members.insert(key.clone(), Arc::clone(pod)),
                    (None, _) => _ = members.remove(key),
                }
                concerned.insert(service);
            }
        }
        for service in concerned {
            if !old.zip(new).is_some_and(|(old, new)| !relabelled && same_endpoint(old, new)) {
                self.schedule(&service, client, now);
            }
        }
    }

    fn slice_changed(&mut self, change: &ObjectChange<'_>, client: &mut Client, now: Time) {
        let (key, old, new) = sides(change);
        let service = |object: Option<&Arc<Object>>| {
            let object = object.filter(|o| o.label(MANAGED_BY) == Some(CONTROLLER))?;
            Some(Key::new(key.namespace.clone(), object.label(SERVICE_NAME)?))
        };
        let (was, is) = (service(old), service(new));
        if let Some(service) = &was
            && was != is
        {
            if let Some(slices) = self.slices.get_mut(service) {
                slices.remove(key);
            }
            self.written.remove(key);
            self.schedule(service, client, now);
        }
        if let Some(service) = is {
            self.slices.entry(service.clone()).or_default().insert(key.clone());
            let body = new.and_then(|object| object.endpoint_slice());
            let ours = self.written.get(key).zip(body);
            if !ours.is_some_and(|(ours, now)| Arc::ptr_eq(ours, now) || ours == now) {
                self.schedule(&service, client, now);
            }
        }
    }

    /// A node's zone is part of its pods' endpoints.
    fn node_changed(
        &mut self,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
        now: Time,
    ) {
        let (key, old, new) = sides(change);
        let zone = |node: Option<&Arc<Object>>| node.and_then(|n| n.label(ZONE)).map(str::to_owned);
        let (was, is) = (zone(old), zone(new));
        if was == is {
            return;
        }
        match is {
            Some(zone) => _ = self.zones.insert(key.name.clone(), zone),
            None => _ = self.zones.remove(&key.name),
        }
        let pods: Vec<_> = world.bound_to(&key.name).cloned().collect();
        for pod in pods {
            let of = labels(pod.meta.labels.as_ref());
            for service in self.selectors.candidates(&pod.key.namespace, of) {
                self.schedule(&service, client, now);
            }
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        self.scheduled.remove(key);
        let Some(service) = desk.world.get(Kind::Service, key).cloned() else {
            // A deleted Service's slices go with it: see the collector.
            if self.legacy {
                legacy::forget(key, desk);
            }
            return;
        };
        let Some((spec, _)) = service.service() else { return };
        if service.deleting() || spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
            return;
        }
        if spec.type_.as_deref() == Some("ExternalName") {
            // It is only a name (kubernetes/kubernetes#105986).
            return;
        }
        let world = desk.world;
        let wanted = self.wanted(&service, spec);
        if self.legacy {
            legacy::sync(&service, spec, &wanted, desk);
        }
        let slices = self.slices.get(key).into_iter().flatten();
        let present: Vec<&Arc<Object>> = slices
            .filter_map(|slice| world.get(Kind::EndpointSlice, slice))
            .filter(|slice| !slice.deleting())
            .collect();
        let standing: Vec<Standing<'_>> = present.iter().map(|slice| standing(slice)).collect();
        let packed = pack::pack(&standing, wanted);
        for request in requests(&service, &present, packed, world) {
            if let Request::Create { object } | Request::Update { object } = &request
                && let Some(slice) = object.endpoint_slice()
            {
                self.written.insert(object.key.clone(), Arc::clone(slice));
            }
            desk.ask(Loop::Endpoints, Kind::Service, key, request);
        }
    }

    /// The endpoints that should be, by the ports they resolve.
    fn wanted<'a>(
        &'a self,
        service: &'a Object,
        spec: &ServiceSpec,
    ) -> Vec<(Ports, BTreeMap<Uid, Reachable<'a>>)> {
        let mut groups: Vec<(Ports, BTreeMap<Uid, Reachable<'a>>)> = Vec::new();
        // Only a port's name is resolved by what the pod's containers say.
        let by_name = spec.ports.iter().flatten().any(|port| port_name(port).is_some());
        // Pods of one template have the same containers, and with them the ports.
        let mut last: Option<(&PodSpec, usize)> = None;
        for pod in self.members.get(&service.key).into_iter().flat_map(BTreeMap::values) {
            let Some(reachable) = Reachable::of(pod, service, spec, &self.zones) else { continue };
            let containers = pod.pod().map(|(spec, _)| &**spec);
            let group = match last.zip(containers) {
                Some(((_, at), _)) if !by_name => at,
                Some(((known, at), now)) if known.containers == now.containers => at,
                _ => {
                    let ports = resolve(spec, pod);
                    let known = groups.iter().position(|(has, _)| *has == ports);
                    known.unwrap_or_else(|| {
                        groups.push((ports, BTreeMap::new()));
                        groups.len() - 1
                    })
                }
            };
            last = containers.map(|spec| (spec, group));
            groups[group].1.insert(pod.uid, reachable);
        }
        if groups.is_empty() {
            // A Service without endpoints has one empty slice, so that it is known to be empty.
            groups.push((Vec::new(), BTreeMap::new()));
        }
        groups
    }
}

fn standing(slice: &Object) -> Standing<'_> {
    let slice = slice.endpoint_slice();
    Standing {
        ports: slice.and_then(|slice| slice.ports.as_deref()).unwrap_or_default(),
        endpoints: slice.map(|slice| slice.endpoints.as_slice()).unwrap_or_default(),
    }
}

fn requests(
    service: &Arc<Object>,
    present: &[&Arc<Object>],
    packed: Packed,
    world: &World,
) -> Vec<Request> {
    let meta = slice_meta(service);
    let body = |shelf: Shelf| {
        let ports = Some(shelf.ports);
        let endpoints = shelf.endpoints;
        let address_type = "IPv4".to_owned();
        Body::EndpointSlice(Arc::new(EndpointSlice {
            address_type,
            endpoints,
            ports,
            metadata: ObjectMeta::default(),
        }))
    };
    let mut requests = Vec::new();
    for (object, shelf) in present.iter().zip(packed.kept) {
        match shelf {
            pack::Fate::Delete => {
                let options = DeleteOptions { uid: Some(object.uid), ..DeleteOptions::default() };
                let (kind, key) = (Kind::EndpointSlice, object.key.clone());
                requests.push(Request::Delete { kind, key, options });
            }
            pack::Fate::Keep if object.meta.labels == meta.labels => {}
            pack::Fate::Keep => {
                let object = Object { meta: relabelled(object, &meta), ..(***object).clone() };
                requests.push(Request::Update { object: Arc::new(object) });
            }
            pack::Fate::Write(shelf) => {
                let meta = relabelled(object, &meta);
                let object = Object { meta, body: body(shelf), ..(***object).clone() };
                requests.push(Request::Update { object: Arc::new(object) });
            }
        }
    }
    let (namespace, name) = (&service.key.namespace, &service.key.name);
    let taken = |key: &Key| world.get(Kind::EndpointSlice, key).is_some();
    let keys = names::free_children(namespace, name, service.uid, packed.new.len(), taken);
    for (key, shelf) in keys.into_iter().zip(packed.new) {
        let object = Object::new(key, body(shelf)).with_meta(meta.clone());
        requests.push(Request::Create { object: Arc::new(object) });
    }
    requests
}

fn relabelled(object: &Object, wanted: &ObjectMeta) -> Arc<ObjectMeta> {
    if object.meta.labels == wanted.labels {
        return Arc::clone(&object.meta);
    }
    let mut meta = (*object.meta).clone();
    meta.labels.clone_from(&wanted.labels);
    Arc::new(meta)
}

/// The Service's own labels, and those by which its slices are found.
fn slice_meta(service: &Arc<Object>) -> ObjectMeta {
    let mut all = service.meta.labels.clone().unwrap_or_default();
    all.insert(SERVICE_NAME.to_owned(), service.key.name.to_string());
    all.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if service.service().is_none_or(|(spec, _)| is_headless(spec)) {
        all.insert(HEADLESS.to_owned(), String::new());
    } else {
        all.remove(HEADLESS);
    }
    ObjectMeta {
        labels: Some(all),
        generate_name: Some(format!("{}-", service.key.name)),
        owner_references: Some(vec![service.as_controller()]),
        ..ObjectMeta::default()
    }
}

/// It has no address of its own (`IsServiceIPSet`).
fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None")
}

/// Nothing that an endpoint shows differs.
fn same_endpoint(old: &Object, new: &Object) -> bool {
    let (Some(was), Some(is)) = (old.pod_facts(), new.pod_facts()) else { return false };
    let same_place = old.uid == new.uid && was.ip == is.ip && was.node == is.node;
    let same_phase = was.ready == is.ready && was.phase.ended() == is.phase.ended();
    same_place && same_phase && old.deleting() == new.deleting()
}

/// The name that the port's `targetPort` is, if it is one and no number.
fn port_name(port: &ServicePort) -> Option<&str> {
    match port.target_port.as_ref()? {
        IntOrString::String(text) if text.parse::<i32>().is_err() => Some(text),
        _ => None,
    }
}

/// `getEndpointPorts`: each port of the Service as this pod serves it; a name that no container
/// has is left out.
fn resolve(spec: &ServiceSpec, pod: &Object) -> Ports {
    let containers = pod.pod().map(|(spec, _)| spec.containers.as_slice()).unwrap_or_default();
    let mut ports = Vec::new();
    for port in spec.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let named = |name: &str| {
            let mut all = containers.iter().flat_map(|c| c.ports.iter().flatten());
            let same = all.find(|p| {
                p.name.as_deref() == Some(name)
                    && p.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            same.map(|p| p.container_port)
        };
        let number = match &port.target_port {
            None => Some(port.port),
            Some(IntOrString::Int(0)) => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(text)) => match port_name(port) {
                Some(name) => named(name),
                None => text.parse().ok(),
            },
        };
        let Some(number) = number else { continue };
        ports.push(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(protocol.to_owned()),
            app_protocol: port.app_protocol.clone(),
        });
    }
    ports
}
