//! Services (`ValidateService`, pkg/apis/core/validation), in upstream's order.

use super::{Causes, golang, labels, names, port_number};
use crate::objects::ServiceSpec;
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;
use std::net::IpAddr;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(crate) fn service(spec: &ServiceSpec, causes: &mut Causes) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && kind != "ExternalName" {
        causes.required("spec.ports", "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format_args!("may not be set to 'None' for {kind} services");
        causes.invalid("spec.clusterIPs[0]", "\"None\"", why);
    }
    if kind == "ExternalName" {
        if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
            causes.forbidden("spec.clusterIPs", "may not be set for ExternalName services");
        }
        if spec.external_name.as_deref().is_none_or(str::is_empty) {
            causes.required("spec.externalName", "");
        }
    }
    let mut seen = BTreeSet::new();
    for (index, each) in ports.iter().enumerate() {
        port(&format!("spec.ports[{index}]"), each, ports.len() > 1, &mut seen, causes);
    }
    labels("spec.selector", spec.selector.as_ref(), causes);
    let affinity = spec.session_affinity.as_deref().unwrap_or_default();
    if !matches!(affinity, "None" | "ClientIP") {
        causes.unsupported("spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    }
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        if let Some(why) = bad_external_ip(ip) {
            causes.invalid(format_args!("spec.externalIPs[{index}]"), format_args!("{ip:?}"), why);
        }
    }
    if !TYPES.contains(&kind) {
        causes.unsupported("spec.type", kind, &TYPES);
    }
    numbers(ports, kind, causes);
}

/// `validateServicePort`; each name once.
fn port<'a>(
    field: &str,
    port: &'a ServicePort,
    of_many: bool,
    seen: &mut BTreeSet<&'a str>,
    causes: &mut Causes,
) {
    let name = port.name.as_deref().unwrap_or_default();
    if name.is_empty() && of_many {
        causes.required(format_args!("{field}.name"), "");
    } else if !name.is_empty() {
        for why in names::label(name) {
            causes.invalid(format_args!("{field}.name"), format_args!("{name:?}"), why);
        }
        if !seen.insert(name) {
            causes.duplicate(format_args!("{field}.name"), format_args!("{name:?}"));
        }
    }
    port_number(format_args!("{field}.port"), port.port, causes);
    let protocol = port.protocol.as_deref().unwrap_or_default();
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        let supported = ["SCTP", "TCP", "UDP"];
        causes.unsupported(format_args!("{field}.protocol"), protocol, &supported);
    }
    if let Some(IntOrString::Int(target)) = port.target_port {
        port_number(format_args!("{field}.targetPort"), target, causes);
    }
}

/// What may be there once, of a protocol.
fn numbers(ports: &[ServicePort], kind: &str, causes: &mut Causes) {
    let asked = |port: &ServicePort| port.node_port.filter(|number| *number != 0);
    for (index, _) in ports.iter().enumerate().filter(|(_, port)| asked(port).is_some()) {
        if matches!(kind, "ClusterIP" | "ExternalName") {
            let why = format_args!("may not be used when `type` is '{kind}'");
            causes.forbidden(format_args!("spec.ports[{index}].nodePort"), why);
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = asked(port) else { continue };
        if !seen.insert((number, port.protocol.as_deref())) {
            causes.duplicate(format_args!("spec.ports[{index}].nodePort"), number);
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !seen.insert((port.port, protocol)) {
            let value = golang::service_port(port.port, protocol);
            causes.duplicate(format_args!("spec.ports[{index}]"), value);
        }
    }
}

fn bad_external_ip(text: &str) -> Option<&'static str> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    };
    if ip.is_unspecified() {
        return Some("may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        return Some("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local.then_some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
}

/// `spec.clusterIP` may be left out of an update, but not changed.
pub(crate) fn service_update(new: &ServiceSpec, old: &ServiceSpec, causes: &mut Causes) {
    let set = |spec: &ServiceSpec| spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
    let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    if external(new) || external(old) {
        return;
    }
    if let Some(before) = set(old)
        && set(new) != Some(before)
    {
        // Who changes the one means the list as well (`NormalizeClusterIPs`).
        let now = set(new).map(|ip| vec![ip]).or(new.cluster_ips.clone());
        let value = golang::list(now.as_deref());
        causes.invalid("spec.clusterIPs[0]", value, "may not change once set");
    }
}
