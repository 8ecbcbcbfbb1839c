//! Service ports and their endpoints, out of Services and EndpointSlices
//! (pkg/proxy/serviceport.go, endpointslicecache.go and topology.go of Kubernetes 1.33).

use super::names::Names;
use crate::objects::{Body, Key, Name, Object};
use crate::ports::rules::Protocol;
use ipnet::Ipv4Net;
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Another implementation serves this Service.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Put on slices of headless Services, and by hand on Services.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` where it is not given.
const AFFINITY_SECONDS: u32 = 10_800;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port`, or `namespace/name` where the port has no name.
    pub name: SmolStr,
    pub names: Names,
    pub protocol: Protocol,
    pub cluster_ip: Ipv4Addr,
    pub port: u16,
    pub node_port: Option<u16>,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer's addresses; empty: everyone.
    pub source_ranges: Vec<Ipv4Net>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`, and for how many seconds.
    pub affinity: Option<u32>,
    pub health_check_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
    /// `ip:port`.
    pub text: SmolStr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Name,
}

impl ServicePort {
    pub fn externally_accessible(&self) -> bool {
        self.node_port.is_some()
            || !self.external_ips.is_empty()
            || !self.load_balancer_ips.is_empty()
    }
    /// Even where external traffic stays local, what pods send to an external address does not.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || self.external_local && self.externally_accessible()
    }
    /// Load-balancer traffic passes a chain that looks at its source.
    pub fn uses_firewall(&self) -> bool {
        !self.load_balancer_ips.is_empty() && !self.source_ranges.is_empty()
    }
}

/// The ports this proxy serves of a Service; none if it is headless, an ExternalName or another
/// proxy's.
pub fn service_ports(service: &Object) -> Vec<(Option<SmolStr>, ServicePort)> {
    let Body::Service { spec, status } = &service.body else {
        return Vec::new();
    };
    let foreign = [PROXY_NAME_LABEL, HEADLESS_LABEL].iter().any(|l| service.label(l).is_some());
    let external_name = spec.type_.as_deref() == Some("ExternalName");
    let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let (false, false, Some(cluster_ip)) = (foreign, external_name, cluster_ip) else {
        return Vec::new();
    };
    let ingress = status.load_balancer.as_ref().and_then(|lb| lb.ingress.as_ref());
    // `ipMode: Proxy` (KEP-1860): the balancer wants to see its own traffic.
    let vips = ingress.into_iter().flatten().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    let load_balancer_ips: Vec<_> = vips.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect();
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let timeout = timeout.and_then(|c| u32::try_from(c.timeout_seconds?).ok());
    let of = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let label = port.name.as_deref().filter(|name| !name.is_empty());
        let name = match label {
            Some(label) => format_smolstr!("{}:{label}", service.key),
            None => format_smolstr!("{}", service.key),
        };
        let protocol = protocol(port.protocol.as_deref())?;
        let served = ServicePort {
            names: Names::of(&name, protocol),
            name,
            protocol,
            cluster_ip,
            port: number(port.port)?,
            node_port: port.node_port.and_then(number),
            external_ips: parsed(&spec.external_ips),
            load_balancer_ips: load_balancer_ips.clone(),
            source_ranges: parsed(&spec.load_balancer_source_ranges),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity: sticky.then_some(timeout.unwrap_or(AFFINITY_SECONDS)),
            health_check_port: spec.health_check_node_port.and_then(number),
        };
        Some((label.map(SmolStr::from), served))
    };
    spec.ports.iter().flatten().filter_map(of).collect()
}

/// The Service whose endpoints this slice lists.
pub fn service_of(slice: &Object) -> Option<Key> {
    Some(Key::new(slice.key.namespace.clone(), slice.label(SERVICE_LABEL)?))
}

/// A slice that this proxy leaves to others.
fn is_foreign(slice: &Object) -> bool {
    slice.label(PROXY_NAME_LABEL).is_some() || slice.label(HEADLESS_LABEL).is_some()
}

/// The endpoints behind a port, each address once, in the order of their text as upstream has it.
pub fn endpoints(label: Option<&str>, protocol: Protocol, slices: &[Arc<Object>]) -> Vec<Endpoint> {
    let mut found: BTreeMap<SmolStr, Endpoint> = BTreeMap::new();
    let slices =
        slices.iter().filter(|slice| !is_foreign(slice)).filter_map(|slice| slice.endpoint_slice());
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        for port in slice.ports.iter().flatten() {
            let named = port.name.as_deref().unwrap_or_default() == label.unwrap_or_default();
            let speaks = self::protocol(port.protocol.as_deref()) == Some(protocol);
            let (true, true, Some(number)) = (named, speaks, port.port.and_then(number)) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter_map(|one| of_slice(one, number)) {
                // Two slices may show one endpoint while it moves between them: it is ready if
                // either says so.
                match found.get(&endpoint.text) {
                    Some(known) if known.ready || !endpoint.ready => {}
                    _ => drop(found.insert(endpoint.text.clone(), endpoint)),
                }
            }
        }
    }
    found.into_values().collect()
}

fn of_slice(one: &k8s_openapi::api::discovery::v1::Endpoint, port: u16) -> Option<Endpoint> {
    let ip: Ipv4Addr = one.addresses.first()?.parse().ok()?;
    let conditions = one.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    Some(Endpoint {
        ip,
        port,
        text: format_smolstr!("{ip}:{port}"),
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        node: one.node_name.as_deref().unwrap_or_default().into(),
    })
}

/// Those that are used: the ready ones, or else those that still serve while they terminate
/// (KEP-1669).
pub fn usable<'a>(endpoints: impl Iterator<Item = &'a Endpoint> + Clone) -> Vec<&'a Endpoint> {
    let ready: Vec<_> = endpoints.clone().filter(|one| one.ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.filter(|one| one.serving && one.terminating).collect()
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// A port that exists: 1 to 65535.
fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn parsed<T: std::str::FromStr>(texts: &Option<Vec<String>>) -> Vec<T> {
    texts.iter().flatten().filter_map(|text| text.trim().parse().ok()).collect()
}
