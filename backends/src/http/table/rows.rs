//! The rows of kinds with types of their own, but for pods.

use super::pod;
use k8s_openapi::api::core::v1::{Container, Event, NodeStatus, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kubesim_actors::objects::kinds::texts as cells;
use kubesim_actors::objects::{Body, LabelSelector, NodeSpec, Object};
use kubesim_runtime::Wall;
use serde_json::Value;
use std::collections::BTreeSet;

/// In the order of the kind's columns.
pub fn cells(object: &Object, now: Wall) -> Vec<Value> {
    let name = Value::from(object.key.name.as_str());
    let age = Value::from(cells::since(object.meta.creation_timestamp.as_ref(), now));
    match &object.body {
        Body::Namespace { status, .. } => {
            vec![name, status.phase.clone().unwrap_or_default().into(), age]
        }
        Body::Node { spec, status } => node(object, spec, status, (name, age)),
        Body::Pod(body) => pod::cells(object, body.spec(), body.status(), now),
        Body::Service { spec, status } => service(spec, status, (name, age)),
        Body::ConfigMap(map) => {
            let plain = map.data.as_ref().map_or(0, |data| data.len());
            let binary = map.binary_data.as_ref().map_or(0, |data| data.len());
            vec![name, (plain + binary).into(), age]
        }
        Body::Event(event) => self::event(object, event, now),
        Body::Deployment { spec, status } => {
            let count = |count: Option<i32>| count.unwrap_or(0);
            let ready = format!("{}/{}", count(status.ready_replicas), count(spec.replicas));
            let pod = spec.template.spec.as_ref();
            let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
            let mut cells = vec![
                name,
                ready.into(),
                count(status.updated_replicas).into(),
                count(status.available_replicas).into(),
                age,
            ];
            cells.extend(of_template(containers, &spec.selector));
            cells
        }
        Body::ReplicaSet { spec, status } => {
            let pod = spec.template.as_ref().and_then(|template| template.spec.as_ref());
            let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
            let counts =
                [spec.replicas.unwrap_or(0), status.replicas, status.ready_replicas.unwrap_or(0)];
            let mut cells = vec![name];
            cells.extend(counts.map(Value::from));
            cells.push(age);
            cells.extend(of_template(containers, &spec.selector));
            cells
        }
        Body::EndpointSlice(slice) => endpoint_slice(slice, (name, age)),
        Body::Lease { spec } => {
            vec![name, spec.holder_identity.clone().unwrap_or_default().into(), age]
        }
        // Its cells are declared with its kind.
        Body::Plain(_) => Vec::new(),
        Body::Subnet { spec, status } => {
            let locator = status.locator.map(|ip| ip.to_string()).unwrap_or_default();
            vec![name, spec.cidr.as_str().into(), cells::or_none(locator).into(), age]
        }
    }
}

fn of_template(containers: &[Container], selector: &LabelSelector) -> [Value; 3] {
    let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    let images: Vec<&str> =
        containers.iter().map(|one| one.image.as_deref().unwrap_or_default()).collect();
    let selector = cells::or_none(cells::requirements(selector));
    [names.join(",").into(), images.join(",").into(), selector.into()]
}

fn node(
    object: &Object,
    spec: &NodeSpec,
    status: &NodeStatus,
    (name, age): (Value, Value),
) -> Vec<Value> {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let mut word = match ready.map(|condition| condition.status == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if spec.unschedulable == Some(true) {
        word.push_str(",SchedulingDisabled");
    }
    let mut roles = BTreeSet::new();
    for (label, value) in object.meta.labels.iter().flatten() {
        match label.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.insert(role),
            None if label == "kubernetes.io/role" && !value.is_empty() => roles.insert(value),
            _ => false,
        };
    }
    let roles: Vec<&str> = roles.into_iter().collect();
    let info = status.node_info.clone().unwrap_or_default();
    let address = |kind: &str| {
        let mut addresses = status.addresses.iter().flatten();
        let found = addresses.find(|address| address.type_ == kind);
        Value::from(cells::or_none(found.map(|found| found.address.clone()).unwrap_or_default()))
    };
    let known =
        |text: String| Value::from(if text.is_empty() { "<unknown>".to_owned() } else { text });
    vec![
        name,
        word.into(),
        cells::or_none(roles.join(",")).into(),
        age,
        info.kubelet_version.into(),
        address("InternalIP"),
        address("ExternalIP"),
        known(info.os_image),
        known(info.kernel_version),
        known(info.container_runtime_version),
    ]
}

fn service(spec: &ServiceSpec, status: &ServiceStatus, (name, age): (Value, Value)) -> Vec<Value> {
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or_default();
            match port.node_port.filter(|port| *port > 0) {
                Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
                None => format!("{}/{protocol}", port.port),
            }
        })
        .collect();
    vec![
        name,
        spec.type_.clone().unwrap_or_default().into(),
        cells::or_none(spec.cluster_ip.clone().unwrap_or_default()).into(),
        external_ip(spec, status).into(),
        cells::or_none(ports.join(",")).into(),
        age,
        cells::labels(spec.selector.as_ref()).into(),
    ]
}

fn external_ip(spec: &ServiceSpec, status: &ServiceStatus) -> String {
    let external = spec.external_ips.clone().unwrap_or_default();
    match spec.type_.as_deref().unwrap_or_default() {
        "ClusterIP" | "NodePort" => cells::or_none(external.join(",")),
        "LoadBalancer" => {
            let ingress = status.load_balancer.iter().flat_map(|all| all.ingress.iter().flatten());
            let own: BTreeSet<String> =
                ingress.filter_map(|one| one.ip.clone().or(one.hostname.clone())).collect();
            let all: Vec<String> = own.into_iter().chain(external).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        _ => "<unknown>".to_owned(),
    }
}

fn endpoint_slice(slice: &EndpointSlice, (name, age): (Value, Value)) -> Vec<Value> {
    let ports = slice.ports.iter().flatten().map(|port| match (port.port, &port.name) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.clone(),
        (None, None) => "*".to_owned(),
    });
    let addresses = slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.clone());
    vec![
        name,
        slice.address_type.as_str().into(),
        cells::first_three(ports).into(),
        cells::first_three(addresses).into(),
        age,
    ]
}

fn event(object: &Object, event: &Event, now: Wall) -> Vec<Value> {
    let mut first = cells::since(event.first_timestamp.as_ref(), now);
    if event.first_timestamp.is_none() {
        first = cells::since_micro(event.event_time.as_ref(), now);
    }
    let mut last = match &event.last_timestamp {
        None => first.clone(),
        last => cells::since(last.as_ref(), now),
    };
    let mut count = event.count.filter(|count| *count > 0).unwrap_or(1);
    if let Some(series) = &event.series {
        last = cells::since_micro(series.last_observed_time.as_ref(), now);
        count = series.count.unwrap_or(count);
    }
    let about = &event.involved_object;
    let kind = about.kind.clone().unwrap_or_default().to_lowercase();
    let target = match about.name.as_deref().unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let source = event.source.clone().unwrap_or_default();
    let or = |first: String, second: &Option<String>| match first.is_empty() {
        true => text(second),
        false => first,
    };
    let component = or(text(&source.component), &event.reporting_component);
    let instance = or(text(&source.host), &event.reporting_instance);
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        last.into(),
        text(&event.type_).into(),
        text(&event.reason).into(),
        target.into(),
        text(&about.field_path).into(),
        source.into(),
        text(&event.message).trim().into(),
        first.into(),
        count.into(),
        object.key.name.as_str().into(),
    ]
}
