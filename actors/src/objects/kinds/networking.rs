//! `networking.k8s.io/v1` and `discovery.k8s.io/v1`.

use super::cells::{AGE, Cell, NAME, Shown, column, own};
use super::declaration::{STATUS, cluster, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules, templates};
use crate::objects::names;
use crate::objects::validation::Causes;
use k8s_openapi::api::networking::v1::{
    Ingress, IngressBackend, IngressClass, IngressRule, NetworkPolicy,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) static ENDPOINT_SLICE: Declaration = Declaration {
    columns: &[own("Name"), own("AddressType"), own("Ports"), own("Endpoints"), own("Age")],
    generation: true,
    ..namespaced(Kind::EndpointSlice, "discovery.k8s.io/v1", "endpointslices")
};

const GROUP: &str = "networking.k8s.io/v1";

pub(super) static INGRESS: Declaration = Declaration {
    short: &["ing"],
    subresources: STATUS,
    columns: &[
        NAME,
        column("Class", Cell::Or("spec.ingressClassName", "<none>")),
        column("Hosts", Cell::Made(hosts)),
        column("Address", Cell::Made(address)),
        column("Ports", Cell::Made(ports)),
        AGE,
    ],
    generation: true,
    rules: Some(Rules { validate: ingress, ..rules::<Ingress>() }),
    ..namespaced(Kind::Ingress, GROUP, "ingresses")
};

/// `formatHosts`: of the first three rules.
fn hosts(shown: &Shown<'_>) -> Value {
    let rules = shown.fields.list("spec.rules");
    let named = rules.iter().filter_map(|rule| rule["host"].as_str()).filter(|h| !h.is_empty());
    let first: Vec<&str> = named.take(3).collect();
    match (first.len(), rules.len()) {
        (0, _) => "*".into(),
        (3, count) if count > 3 => format!("{} + {} more...", first.join(","), count - 3).into(),
        _ => first.join(",").into(),
    }
}

fn address(shown: &Shown<'_>) -> Value {
    let points = shown.fields.list("status.loadBalancer.ingress").iter();
    let of = |point: &Value| point["ip"].as_str().or(point["hostname"].as_str()).map(str::to_owned);
    let all: BTreeSet<String> = points.filter_map(of).collect();
    all.into_iter().collect::<Vec<_>>().join(",").into()
}

fn ports(shown: &Shown<'_>) -> Value {
    if shown.fields.list("spec.tls").is_empty() { "80" } else { "80, 443" }.into()
}

/// `ValidateIngressSpec` (pkg/apis/networking/validation).
fn ingress(fields: &Fields, causes: &mut Causes) {
    let rules: Vec<IngressRule> = fields.part("spec.rules");
    let default: Option<IngressBackend> = fields.part("spec.defaultBackend");
    if rules.is_empty() && default.is_none() {
        let value = fields.at("spec").cloned().unwrap_or_default();
        causes.invalid("spec", value, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = &default {
        backend("spec.defaultBackend", default, causes);
    }
    for (index, rule) in rules.iter().enumerate() {
        let place = format!("spec.rules[{index}]");
        let host = rule.host.as_deref().unwrap_or_default();
        let wrong = match host.strip_prefix("*.") {
            _ if host.is_empty() => Vec::new(),
            Some(rest) => names::subdomain(rest),
            None => names::subdomain(host),
        };
        for why in wrong {
            causes.invalid(format_args!("{place}.host"), format_args!("{host:?}"), why);
        }
        let Some(http) = &rule.http else { continue };
        if http.paths.is_empty() {
            causes.required(format_args!("{place}.http.paths"), "");
        }
        for (index, path) in http.paths.iter().enumerate() {
            let place = format!("{place}.http.paths[{index}]");
            let kind = path.path_type.as_str();
            let supported = ["Exact", "ImplementationSpecific", "Prefix"];
            if kind.is_empty() {
                causes.required(format_args!("{place}.pathType"), "pathType must be specified");
            } else if !supported.contains(&kind) {
                causes.unsupported(format_args!("{place}.pathType"), kind, &supported);
            } else {
                let text = path.path.as_deref().unwrap_or_default();
                let absolute = text.starts_with('/');
                if !absolute && (kind != "ImplementationSpecific" || !text.is_empty()) {
                    let value = format_args!("{text:?}");
                    causes.invalid(format_args!("{place}.path"), value, "must be an absolute path");
                }
            }
            backend(&format!("{place}.backend"), &path.backend, causes);
        }
    }
}

fn backend(place: &str, backend: &IngressBackend, causes: &mut Causes) {
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            causes.invalid(place, "\"\"", "cannot set both resource and service backends");
        }
        (None, None) => causes.required(place, "either a service or resource backend is required"),
        (None, Some(_)) => {}
        (Some(service), None) => {
            if service.name.is_empty() {
                causes.required(format_args!("{place}.service.name"), "");
            }
            for why in Some(&service.name)
                .filter(|n| !n.is_empty())
                .map_or(Vec::new(), |name| names::label_1035(name))
            {
                let field = format_args!("{place}.service.name");
                causes.invalid(field, format_args!("{:?}", service.name), why);
            }
            let port = service.port.as_ref();
            let named = port.and_then(|port| port.name.as_deref()).is_some_and(|n| !n.is_empty());
            match port.and_then(|port| port.number).filter(|number| *number != 0) {
                Some(_) if named => {
                    let why = "cannot set both port name & port number";
                    causes.invalid(place, "\"\"", why);
                }
                Some(number) if !(1..=65535).contains(&number) => {
                    let field = format_args!("{place}.service.port.number");
                    causes.invalid(field, number, "must be between 1 and 65535, inclusive");
                }
                None if !named => {
                    causes.required(place, "port name or number is required");
                }
                _ => {}
            }
        }
    }
}

pub(super) static INGRESS_CLASS: Declaration = Declaration {
    columns: &[
        NAME,
        column("Controller", Cell::Or("spec.controller", "")),
        column("Parameters", Cell::Made(parameters)),
        AGE,
    ],
    generation: true,
    rules: Some(Rules {
        validate: |fields, causes| {
            if fields.text("spec.controller").is_empty() {
                causes.required("spec.controller", "");
            }
        },
        update: |new, old, causes| templates::immutable(new, old, &["spec.controller"], causes),
        ..rules::<IngressClass>()
    }),
    ..cluster(Kind::IngressClass, GROUP, "ingressclasses")
};

fn parameters(shown: &Shown<'_>) -> Value {
    let text = |field: &str| shown.fields.text(&format!("spec.parameters.{field}"));
    match (text("kind"), text("apiGroup"), text("name")) {
        ("", ..) => "<none>".into(),
        (kind, "", name) => format!("{kind}/{name}").into(),
        (kind, group, name) => format!("{kind}.{group}/{name}").into(),
    }
}

pub(super) static NETWORK_POLICY: Declaration = Declaration {
    short: &["netpol"],
    columns: &[NAME, column("Pod-Selector", Cell::Selector("spec.podSelector")), AGE],
    generation: true,
    rules: Some(Rules { defaults: complete_policy, validate: policy, ..rules::<NetworkPolicy>() }),
    ..namespaced(Kind::NetworkPolicy, GROUP, "networkpolicies")
};

/// `SetDefaults_NetworkPolicy` and `SetDefaults_NetworkPolicyPort`.
fn complete_policy(fields: &mut Fields) {
    if fields.list("spec.policyTypes").is_empty() {
        let mut types = vec!["Ingress"];
        if !fields.list("spec.egress").is_empty() {
            types.push("Egress");
        }
        fields.set("spec.policyTypes", json!(types));
    }
    for side in ["spec.ingress", "spec.egress"] {
        let mut rules = fields.list(side).to_vec();
        for rule in &mut rules {
            for port in rule["ports"].as_array_mut().into_iter().flatten() {
                if port["protocol"].is_null() {
                    port["protocol"] = "TCP".into();
                }
            }
            if rule["ports"].is_null()
                && let Some(map) = rule.as_object_mut()
            {
                map.remove("ports");
            }
        }
        if !rules.is_empty() {
            fields.set(side, rules);
        }
    }
}

fn policy(fields: &Fields, causes: &mut Causes) {
    let types = fields.list("spec.policyTypes");
    if types.len() > 2 {
        let value = json!(types);
        causes.invalid("spec.policyTypes", value, "may not specify more than two policyTypes");
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        if !["Egress", "Ingress"].contains(&kind) {
            let field = format_args!("spec.policyTypes[{index}]");
            causes.unsupported(field, kind, &["Egress", "Ingress"]);
        }
    }
}
