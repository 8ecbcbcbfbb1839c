//! LimitRanger (plugin/pkg/admission/limitranger): what a container gets that asks for nothing, and
//! how much one may ask for, by the LimitRanges of its namespace.

use super::{Cache, fields, in_namespace};
use crate::apiserver::{defaults, errors};
use crate::objects::pod_resources::{self as resources, Amounts};
use crate::objects::quantity::Quantity;
use crate::objects::{Body, Kind, Object, PodSpec};
use crate::ports::api::Error;
use k8s_openapi::api::core::v1::{Container, LimitRangeItem, PersistentVolumeClaimSpec};
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn ranges<'a>(cache: &'a Cache, namespace: &'a str) -> impl Iterator<Item = Vec<LimitRangeItem>> {
    let ranges = in_namespace(cache, Kind::LimitRange, namespace);
    ranges.filter_map(|range| Some(fields(range)?.part("spec.limits")))
}

/// Gives the containers of a pod the defaults of their namespace.
pub(super) fn complete(new: &mut Object, cache: &Cache) {
    if new.kind() != Kind::Pod {
        return;
    }
    for range in ranges(cache, &new.key.namespace.clone()) {
        let Body::Pod(pod) = &mut new.body else { return };
        let mut set = Vec::new();
        pod.edit(|spec, status| {
            let spec = Arc::make_mut(spec);
            for container in &mut spec.containers {
                fill(container, "container", &range, &mut set);
            }
            for container in spec.init_containers.iter_mut().flatten() {
                fill(container, "init container", &range, &mut set);
            }
            *status = Arc::new(defaults::pod_status(spec));
        });
        if !set.is_empty() {
            let text = format!("LimitRanger plugin set: {}", set.join("; "));
            let meta = Arc::make_mut(&mut new.meta);
            meta.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
        }
    }
}

/// Notes what was set, as in the annotation.
fn fill(container: &mut Container, what: &str, range: &[LimitRangeItem], set: &mut Vec<String>) {
    let own = container.resources.get_or_insert_default();
    let items = || range.iter().filter(|item| item.type_ == "Container");
    let parts = [
        ("request", &mut own.requests, items().rev().find_map(|i| i.default_request.as_ref())),
        ("limit", &mut own.limits, items().rev().find_map(|i| i.default.as_ref())),
    ];
    for (part, own, defaults) in parts {
        let missing = |name: &str| own.as_ref().is_none_or(|own| !own.contains_key(name));
        let all = defaults.into_iter().flatten();
        let new: Vec<_> =
            all.filter(|(name, _)| missing(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        if new.is_empty() {
            continue;
        }
        let names: Vec<&str> = new.iter().map(|(name, _)| name.as_str()).collect();
        set.push(format!("{} {part} for {what} {}", names.join(", "), container.name));
        own.get_or_insert_default().extend(new);
    }
}

pub(super) fn check(new: &Object, old: Option<&Object>, cache: &Cache) -> Result<(), Error> {
    let mut whys = Vec::new();
    // The containers of a pod cannot change, and what a claim asks for can.
    if let (Some((spec, _)), None) = (new.pod(), old) {
        for range in ranges(cache, &new.key.namespace) {
            check_pod(spec, &range, &mut whys);
        }
    } else if new.kind() == Kind::PersistentVolumeClaim
        && let Some(claim) = fields(new)
    {
        let claim: PersistentVolumeClaimSpec = claim.part("spec");
        for range in ranges(cache, &new.key.namespace) {
            check_claim(&claim, &range, &mut whys);
        }
    }
    match &whys[..] {
        [] => Ok(()),
        [one] => Err(errors::forbidden(new.kind(), &new.key.name, one)),
        many => {
            Err(errors::forbidden(new.kind(), &new.key.name, format_args!("[{}]", many.join(", "))))
        }
    }
}

fn check_pod(spec: &PodSpec, range: &[LimitRangeItem], whys: &mut Vec<String>) {
    for item in range {
        match item.type_.as_str() {
            "Container" => {
                for one in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let own = one.resources.as_ref();
                    let requests = resources::amounts(own.and_then(|own| own.requests.as_ref()));
                    let limits = resources::amounts(own.and_then(|own| own.limits.as_ref()));
                    bounds(item, &requests, &limits, whys);
                }
            }
            // Overhead is not counted.
            "Pod" => {
                let requests = resources::total(spec, |own| own.requests.as_ref());
                let limits = resources::total(spec, |own| own.limits.as_ref());
                bounds(item, &requests, &limits, whys);
            }
            _ => {}
        }
    }
}

fn bounds(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, whys: &mut Vec<String>) {
    let kind = &item.type_;
    for (name, least) in resources::amounts(item.min.as_ref()) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        whys.extend(too_little(kind, &name, least, request, limit));
    }
    for (name, most) in resources::amounts(item.max.as_ref()) {
        whys.extend(too_much(kind, &name, most, requests.get(&name), limits.get(&name)));
    }
    for (name, ratio) in resources::amounts(item.max_limit_request_ratio.as_ref()) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        whys.extend(too_far_apart(kind, &name, ratio, request, limit));
    }
}

fn too_little(
    kind: &str,
    name: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if least.exceeds(*request) => {
            Some(format!("{start}, but request is {request}"))
        }
        (_, Some(limit)) if least.exceeds(*limit) => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

fn too_much(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("maximum {name} usage per {kind} is {most}");
    match (limit, request) {
        (None, _) => Some(format!("{start}.  No limit is specified")),
        (Some(limit), _) if limit.exceeds(most) => Some(format!("{start}, but limit is {limit}")),
        (_, Some(request)) if request.exceeds(most) => {
            Some(format!("{start}, but request is {request}"))
        }
        _ => None,
    }
}

fn too_far_apart(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {most}");
    let some = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
    let Some(request) = some(request) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(limit) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.over(request);
    (ratio > most.over(Quantity::count(1)))
        .then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

/// Of a claim, the request alone.
fn check_claim(
    claim: &PersistentVolumeClaimSpec,
    range: &[LimitRangeItem],
    whys: &mut Vec<String>,
) {
    let asked = claim.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = resources::amounts(asked);
    for item in range.iter().filter(|item| item.type_ == "PersistentVolumeClaim") {
        for (name, least) in resources::amounts(item.min.as_ref()) {
            whys.extend(too_little(&item.type_, &name, least, asked.get(&name), None));
        }
        for (name, most) in resources::amounts(item.max.as_ref()) {
            let start = format!("maximum {name} usage per {} is {most}", item.type_);
            match asked.get(&name) {
                None => whys.push(format!("{start}.  No request is specified")),
                Some(asked) if asked.exceeds(most) => {
                    whys.push(format!("{start}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
}
