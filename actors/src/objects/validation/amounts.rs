//! What a container asks for and how it is probed, refused in upstream's words
//! (kubernetes pkg/apis/core/validation/validation.go: `validateContainerResourceName`,
//! `ValidateNonnegativeQuantity`, `validateProbe`).

use super::Causes;
use crate::objects::quantity::thousandths;
use k8s_openapi::api::core::v1::{Container, Probe, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

pub(super) const FORM: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";

pub(super) fn container(field: &str, container: &Container, causes: &mut Causes) {
    if let Some(wanted) = &container.resources {
        resources(&format!("{field}.resources"), wanted, causes);
    }
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (name, each) in probes {
        if let Some(each) = each {
            probe(&format!("{field}.{name}"), each, causes);
        }
    }
}

fn resources(field: &str, wanted: &ResourceRequirements, causes: &mut Causes) {
    quantities(&format!("{field}.limits"), wanted.limits.as_ref(), causes);
    quantities(&format!("{field}.requests"), wanted.requests.as_ref(), causes);
    for (name, request) in wanted.requests.iter().flatten() {
        let Some(limit) = wanted.limits.as_ref().and_then(|limits| limits.get(name)) else {
            continue;
        };
        let more = thousandths(&request.0).zip(thousandths(&limit.0)).is_some_and(|(r, l)| r > l);
        if more {
            let why = format!("must be less than or equal to {name} limit of {}", limit.0);
            causes.invalid(format_args!("{field}.requests"), format_args!("{:?}", request.0), why);
        }
    }
}

fn quantities(field: &str, all: Option<&BTreeMap<String, Quantity>>, causes: &mut Causes) {
    for (name, Quantity(text)) in all.into_iter().flatten() {
        let why = match thousandths(text) {
            None => FORM,
            Some(..0) => NEGATIVE,
            Some(_) => continue,
        };
        causes.invalid(format_args!("{field}[{name}]"), format_args!("{text:?}"), why);
    }
}

fn probe(field: &str, probe: &Probe, causes: &mut Causes) {
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        if let Some(number) = number.filter(|number| *number < 0) {
            causes.invalid(format_args!("{field}.{name}"), number, NEGATIVE);
        }
    }
}
