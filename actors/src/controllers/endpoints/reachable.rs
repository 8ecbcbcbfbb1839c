//! A pod as an endpoint of a Service (`podToEndpoint`).

use super::pack::Target;
use crate::objects::{Name, Object, ServiceSpec};
use k8s_openapi::api::core::v1::{EndpointAddress, ObjectReference};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use std::collections::BTreeMap;

/// What an endpoint shows of a pod, not yet written down: most of a Service's endpoints stand in
/// a slice already and only need to be compared with it.
#[derive(Clone, Copy, Debug)]
pub struct Reachable<'a> {
    pod: &'a Object,
    address: &'a str,
    ready: bool,
    serving: bool,
    terminating: bool,
    hostname: Option<&'a str>,
    node: Option<&'a str>,
    zone: Option<&'a str>,
}

impl<'a> Reachable<'a> {
    /// `None` for a pod without an address or one that has ended.
    pub fn of(
        pod: &'a Object,
        service: &Object,
        spec: &ServiceSpec,
        zones: &'a BTreeMap<Name, String>,
    ) -> Option<Reachable<'a>> {
        let body = pod.pod_body()?;
        let facts = body.facts();
        if facts.ip.is_empty() || facts.phase.ended() {
            return None;
        }
        let (serving, terminating) = (facts.ready, pod.deleting());
        let publish = spec.publish_not_ready_addresses == Some(true);
        let (address, node) = (facts.ip.as_str(), facts.node());
        let zone = node.and_then(|node| zones.get(node)).map(String::as_str);
        let named = Some(body.spec())
            .filter(|spec| facts.subdomain && spec.subdomain.as_deref() == Some(&service.key.name));
        let hostname = named.and_then(|spec| spec.hostname.as_deref());
        let hostname = hostname.filter(|name| !name.is_empty());
        let ready = publish || serving && !terminating;
        let node = node.map(Name::as_str);
        Some(Reachable { pod, address, ready, serving, terminating, hostname, node, zone })
    }
}

impl Reachable<'_> {
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// It is being deleted.
    pub fn is_going(&self) -> bool {
        self.terminating
    }

    fn target(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(self.pod.key.namespace.to_string()),
            name: Some(self.pod.key.name.to_string()),
            uid: Some(self.pod.uid.to_string()),
            ..ObjectReference::default()
        }
    }

    /// As an Endpoints object says it (`podToEndpointAddressForService`).
    pub fn address(&self) -> EndpointAddress {
        EndpointAddress {
            hostname: self.hostname.map(str::to_owned),
            ip: self.address.to_owned(),
            node_name: self.node.map(str::to_owned),
            target_ref: Some(self.target()),
        }
    }
}

impl Target for Reachable<'_> {
    fn is(&self, endpoint: &Endpoint) -> bool {
        let Endpoint { addresses, conditions, hostname, node_name, zone, target_ref, .. } =
            endpoint;
        let facts = conditions.as_ref().map(|c| (c.ready, c.serving, c.terminating));
        let wanted = (Some(self.ready), Some(self.serving), Some(self.terminating));
        let key = &self.pod.key;
        let names_pod = target_ref.as_ref().is_some_and(|to| {
            to.name.as_deref() == Some(&key.name)
                && to.namespace.as_deref() == Some(&key.namespace)
                && to.kind.as_deref() == Some("Pod")
        });
        names_pod
            && facts == Some(wanted)
            && addresses.len() == 1
            && addresses[0] == self.address
            && hostname.as_deref() == self.hostname
            && node_name.as_deref() == self.node
            && zone.as_deref() == self.zone
            && endpoint.hints.is_none()
            && endpoint.deprecated_topology.is_none()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            addresses: vec![self.address.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(self.ready),
                serving: Some(self.serving),
                terminating: Some(self.terminating),
            }),
            hostname: self.hostname.map(str::to_owned),
            node_name: self.node.map(str::to_owned),
            target_ref: Some(self.target()),
            zone: self.zone.map(str::to_owned),
            ..Endpoint::default()
        }
    }
}
