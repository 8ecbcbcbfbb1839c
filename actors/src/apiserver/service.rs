//! A service's ClusterIP and node ports, given, kept and refused as upstream's
//! `pkg/registry/core/service/storage/alloc.go` does.

use super::apply::State;
use super::errors;
use super::services_ip::Taken;
use crate::objects::validation as validate;
use crate::objects::validation::Causes;
use crate::objects::{Body, Key, Kind, Object, ServiceSpec};
use crate::ports::api::Error;
use std::sync::Arc;

fn kind_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn needs_address(spec: &ServiceSpec) -> bool {
    kind_of(spec) != "ExternalName"
}

fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match kind_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// An update that leaves out what the server gave keeps it; a change of type drops what the new
/// type has no use for.
pub(super) fn keep_allocated(new: &mut Body, old: &Body) {
    let (Body::Service { spec: new, .. }, Body::Service { spec: old, .. }) = (new, old) else {
        return;
    };
    if Arc::ptr_eq(new, old) {
        return;
    }
    let spec = Arc::make_mut(new);
    if needs_address(spec) && needs_address(old) {
        if spec.cluster_ip.as_deref().is_none_or(str::is_empty) {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if !needs_address(spec) && spec.cluster_ip == old.cluster_ip {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
    }
    let wants = needs_node_ports(spec);
    let had = kind_of(old) != kind_of(spec);
    for port in spec.ports.iter_mut().flatten() {
        let same = |p: &&k8s_openapi::api::core::v1::ServicePort| {
            p.port == port.port && p.protocol == port.protocol
        };
        let before = old.ports.iter().flatten().find(same).and_then(|p| p.node_port);
        if wants && port.node_port.is_none_or(|p| p == 0) {
            port.node_port = before;
        } else if !wants && had && port.node_port == before {
            port.node_port = None;
        }
    }
}

/// Claims what the spec names and draws what it leaves out. On an error nothing is kept.
pub(super) fn allocate(state: &mut State<'_>, object: &mut Object) -> Result<(), Error> {
    let Body::Service { spec, .. } = &mut object.body else {
        return Ok(());
    };
    let spec = Arc::make_mut(spec);
    let done = address(state, &object.key, spec).and_then(|()| ports(state, &object.key, spec));
    if done.is_err() {
        let stored = state.cache.object(Kind::Service, &object.key);
        let stored = stored.and_then(|o| o.service()).map(|(spec, _)| &**spec);
        state.services.settle(&object.key, stored);
    }
    done
}

fn address(state: &mut State<'_>, key: &Key, spec: &mut ServiceSpec) -> Result<(), Error> {
    if !needs_address(spec) {
        return Ok(());
    }
    let first = spec.cluster_ips.as_ref().and_then(|all| all.first().cloned());
    let asked = spec.cluster_ip.clone().filter(|ip| !ip.is_empty()).or(first);
    let given = match asked {
        Some(ip) if ip == "None" => ip,
        Some(ip) => {
            claim_address(state, key, &ip)?;
            ip
        }
        None => match state.services.draw_address(key, state.rng) {
            Some(ip) => ip.to_string(),
            None => {
                let why = "failed to allocate a serviceIP: range is full";
                return Err(errors::internal(why));
            }
        },
    };
    spec.cluster_ips = Some(vec![given.clone()]);
    spec.cluster_ip = Some(given);
    Ok(())
}

fn claim_address(state: &mut State<'_>, key: &Key, ip: &str) -> Result<(), Error> {
    let mut causes = Causes::default();
    let shown = validate::golang::list(Some(&[ip.to_owned()]));
    let Some(address) = validate::ipv4(ip) else {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.invalid("spec.clusterIPs[0]", format_args!("{ip:?}"), why);
        return errors::unless_valid(causes, Kind::Service, &key.name);
    };
    let network = state.services.network();
    match state.services.claim_address(address, key) {
        Ok(()) => {}
        Err(Taken::Allocated) => {
            let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
            causes.invalid("spec.clusterIPs", shown, why);
        }
        Err(Taken::OutOfRange) => {
            let why = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. \
                 The range of valid IPs is {network}"
            );
            causes.invalid("spec.clusterIPs", shown, why);
        }
    }
    errors::unless_valid(causes, Kind::Service, &key.name)
}

fn ports(state: &mut State<'_>, key: &Key, spec: &mut ServiceSpec) -> Result<(), Error> {
    if !needs_node_ports(spec) {
        return Ok(());
    }
    let (first, last) = state.config.node_ports;
    let mut causes = Causes::default();
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        let asked = port.node_port.filter(|number| *number != 0);
        let Some(number) = asked else {
            let Some(number) = state.services.draw_port(key, state.rng) else {
                return Err(errors::internal("failed to allocate a nodePort: range is full"));
            };
            port.node_port = i32::try_from(number).ok();
            continue;
        };
        let field = format!("spec.ports[{index}].nodePort");
        match state.services.claim_port(u32::try_from(number).unwrap_or(0), key) {
            Ok(()) => {}
            Err(Taken::Allocated) => {
                causes.invalid(field, number, "provided port is already allocated");
            }
            Err(Taken::OutOfRange) => {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is \
                     {first}-{last}"
                );
                causes.invalid(field, number, why);
            }
        }
    }
    errors::unless_valid(causes, Kind::Service, &key.name)
}
