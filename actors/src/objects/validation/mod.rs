//! Names, labels and specs, refused in upstream's words.

mod amounts;
mod causes;
pub mod config;
pub(crate) mod ephemeral;
pub(crate) mod golang;
mod lifecycle;
mod service;

pub use causes::Causes;
pub(crate) use service::{service, service_update};

use super::{DeploymentSpec, Kind, LabelSelector, Object, ObjectMeta, PodSpec, names};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' \
    (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// As the kind's declaration has it.
pub(crate) fn name(kind: Kind, name: &str, causes: &mut Causes) {
    for why in (kind.declaration().name)(name) {
        causes.invalid("metadata.name", format_args!("{name:?}"), why);
    }
}

pub(crate) fn labels(field: &str, labels: Option<&BTreeMap<String, String>>, causes: &mut Causes) {
    for (key, value) in labels.into_iter().flatten() {
        for why in names::qualified(key) {
            causes.invalid(field, format_args!("{key:?}"), why);
        }
        for why in names::label_value(value) {
            causes.invalid(field, format_args!("{value:?}"), why);
        }
    }
}

pub(crate) fn meta(meta: &ObjectMeta, causes: &mut Causes) {
    labels("metadata.labels", meta.labels.as_ref(), causes);
    for (index, owner) in meta.owner_references.iter().flatten().enumerate() {
        let field = format!("metadata.ownerReferences[{index}]");
        let parts = [("name", &owner.name), ("uid", &owner.uid), ("kind", &owner.kind)];
        for (part, value) in parts {
            if value.is_empty() {
                causes.required(format_args!("{field}.{part}"), "must not be empty");
            }
        }
    }
    let owners = meta.owner_references.iter().flatten();
    if owners.filter(|owner| owner.controller == Some(true)).count() > 1 {
        causes.invalid(
            "metadata.ownerReferences",
            "[]",
            "Only one reference can have Controller set to true",
        );
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn pod_spec(field: &str, spec: &PodSpec, causes: &mut Causes) {
    if spec.containers.is_empty() {
        causes.required(format_args!("{field}.containers"), "");
    }
    let mut seen = BTreeSet::new();
    let lists = [("initContainers", spec.init_containers.as_deref().unwrap_or_default())];
    for (list, containers) in lists.into_iter().chain([("containers", &spec.containers[..])]) {
        for (index, each) in containers.iter().enumerate() {
            let field = format!("{field}.{list}[{index}]");
            container(&field, each, &mut seen, causes);
            let init = list == "initContainers";
            let grace = spec.termination_grace_period_seconds;
            lifecycle::container(&field, each, (init, grace), causes);
        }
    }
    ephemeral::list(field, spec, seen, causes);
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        let supported = ["Always", "OnFailure", "Never"];
        causes.unsupported(format_args!("{field}.restartPolicy"), policy, &supported);
    }
    let dns = spec.dns_policy.as_deref().unwrap_or_default();
    let supported = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    if !supported.contains(&dns) {
        causes.unsupported(format_args!("{field}.dnsPolicy"), dns, &supported);
    }
    labels(&format!("{field}.nodeSelector"), spec.node_selector.as_ref(), causes);
}

/// That of pods to be made (`ValidatePodTemplateSpec`).
pub(crate) fn template_spec(field: &str, spec: &PodSpec, causes: &mut Causes) {
    pod_spec(field, spec, causes);
    if spec.ephemeral_containers.as_ref().is_some_and(|all| !all.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        causes.forbidden(format_args!("{field}.ephemeralContainers"), why);
    }
}

fn container<'a>(
    field: &str,
    container: &'a Container,
    seen: &mut BTreeSet<&'a str>,
    causes: &mut Causes,
) {
    let name = &container.name;
    if name.is_empty() {
        causes.required(format_args!("{field}.name"), "");
    }
    for why in names::label(name).into_iter().filter(|_| !name.is_empty()) {
        causes.invalid(format_args!("{field}.name"), format_args!("{name:?}"), why);
    }
    if container.image.as_deref().is_none_or(str::is_empty) {
        causes.required(format_args!("{field}.image"), "");
    }
    let supported = ["Always", "IfNotPresent", "Never"];
    if let Some(pull) = container.image_pull_policy.as_deref().filter(|p| !supported.contains(p)) {
        causes.unsupported(format_args!("{field}.imagePullPolicy"), pull, &supported);
    }
    amounts::container(field, container, causes);
    for (index, port) in container.ports.iter().flatten().enumerate() {
        port_number(
            format_args!("{field}.ports[{index}].containerPort"),
            port.container_port,
            causes,
        );
    }
    if !seen.insert(name) {
        causes.duplicate(format_args!("{field}.name"), format_args!("{name:?}"));
    }
}

fn port_number(field: std::fmt::Arguments<'_>, port: i32, causes: &mut Causes) {
    if !(1..=65535).contains(&port) {
        causes.invalid(field, port, "must be between 1 and 65535, inclusive");
    }
}

/// The selector of a Deployment or ReplicaSet must be there and match the pods it makes: one that
/// is not there matches none (`ValidateDeploymentSpec`, pkg/apis/apps/validation).
pub(crate) fn selector(
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    causes: &mut Causes,
) {
    let labels = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty);
    let expressions = selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    let missing = labels && expressions;
    if missing {
        causes.required("spec.selector", "");
    }
    let labels = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    if missing || !matches(selector, labels.unwrap_or(&BTreeMap::new())) {
        let why = "`selector` does not match template `labels`";
        causes.invalid("spec.template.metadata.labels", golang::map(labels), why);
    }
    match template.and_then(|t| t.spec.as_ref()) {
        None => causes.required("spec.template.spec.containers", ""),
        Some(spec) => {
            template_spec("spec.template.spec", spec, causes);
            if spec.restart_policy.as_deref() != Some("Always") {
                let policy = spec.restart_policy.as_deref().unwrap_or_default();
                causes.unsupported("spec.template.spec.restartPolicy", policy, &["Always"]);
            }
        }
    }
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    exact.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().all(|each| {
            let found = labels.get(&each.key);
            let listed = found.is_some_and(|v| each.values.iter().flatten().any(|x| x == v));
            match each.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

pub(crate) fn not_negative(field: &str, number: Option<i32>, causes: &mut Causes) {
    if let Some(number) = number.filter(|n| *n < 0) {
        causes.invalid(field, number, "must be greater than or equal to 0");
    }
}

/// `ValidateDeploymentStrategy` (pkg/apis/apps/validation).
pub(crate) fn strategy(spec: &DeploymentSpec, causes: &mut Causes) {
    let Some(strategy) = &spec.strategy else { return };
    let kind = strategy.type_.as_deref().unwrap_or_default();
    match (kind, &strategy.rolling_update) {
        ("Recreate", Some(_)) => causes.forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        ("RollingUpdate", Some(rolling)) => {
            let field = "spec.strategy.rollingUpdate.maxUnavailable";
            let (unavailable, surge) = (&rolling.max_unavailable, &rolling.max_surge);
            int_or_percent(field, unavailable.as_ref(), causes);
            int_or_percent("spec.strategy.rollingUpdate.maxSurge", surge.as_ref(), causes);
            if amount(unavailable.as_ref()) == Some(0) && amount(surge.as_ref()) == Some(0) {
                let value = golang::int_or_string(unavailable.as_ref());
                causes.invalid(field, value, "may not be 0 when `maxSurge` is 0");
            }
            let share = matches!(unavailable, Some(IntOrString::String(_)));
            if share && amount(unavailable.as_ref()).is_some_and(|percent| percent > 100) {
                let value = golang::int_or_string(unavailable.as_ref());
                causes.invalid(field, value, "must not be greater than 100%");
            }
        }
        ("Recreate" | "RollingUpdate", _) => {}
        _ => {
            let supported = ["Recreate", "RollingUpdate"];
            causes.unsupported("spec.strategy.type", kind, &supported);
        }
    }
}

/// `ValidatePositiveIntOrPercent`.
fn int_or_percent(field: &str, value: Option<&IntOrString>, causes: &mut Causes) {
    match value {
        Some(IntOrString::Int(number)) => not_negative(field, Some(*number), causes),
        Some(IntOrString::String(text)) if amount(value).is_none() => {
            causes.invalid(field, format_args!("{text:?}"), PERCENT);
        }
        _ => {}
    }
}

/// The number, of pods or of hundredths.
fn amount(value: Option<&IntOrString>) -> Option<u64> {
    match value? {
        IntOrString::Int(number) => u64::try_from(*number).ok(),
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%')?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        }
    }
}

const POD_FIELDS: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What a write may change in a pod once it exists.
pub(crate) fn pod_update(new: &PodSpec, old: &PodSpec, causes: &mut Causes) {
    if let Some(seconds) = new.active_deadline_seconds.filter(|s| *s < 1) {
        let why = "must be between 1 and 2147483647, inclusive";
        causes.invalid("spec.activeDeadlineSeconds", seconds, why);
    }
    let mut same = new.clone();
    let pairs = same.containers.iter_mut().zip(&old.containers);
    let init = same.init_containers.iter_mut().flatten();
    let init = init.zip(old.init_containers.iter().flatten());
    for (new, old) in pairs.chain(init) {
        new.image.clone_from(&old.image);
    }
    same.active_deadline_seconds = old.active_deadline_seconds;
    let kept = old.tolerations.iter().flatten();
    let now = new.tolerations.as_deref().unwrap_or_default();
    if kept.into_iter().all(|old| now.contains(old)) {
        same.tolerations.clone_from(&old.tolerations);
    } else {
        causes.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
        return;
    }
    if same != *old {
        causes.forbidden("spec", POD_FIELDS);
    }
}

pub(crate) fn no_new_finalizers(new: &Object, old: &Object, causes: &mut Causes) {
    let before = old.meta.finalizers.as_deref().unwrap_or_default();
    let now = new.meta.finalizers.iter().flatten();
    let added: Vec<_> = now.filter(|f| !before.contains(f)).collect();
    if old.deleting() && !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
        );
        causes.forbidden("metadata.finalizers", why);
    }
}

/// The IPv4 address in a field, if it is one.
pub(crate) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}
