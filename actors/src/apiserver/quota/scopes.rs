//! Which pods a quota is about (`podMatchesScopeFunc`, pkg/quota/v1/evaluator/core/pods.go). One
//! with scopes is about nothing but pods.

use crate::apiserver::defaults;
use crate::objects::kinds::Fields;
use crate::objects::{Object, PodSpec};
use k8s_openapi::api::core::v1::{
    PodAffinityTerm, ScopeSelector, ScopedResourceSelectorRequirement,
};

pub(super) fn hold(quota: &Fields, object: &Object) -> bool {
    let plain = quota.list("spec.scopes").iter().filter_map(|scope| scope.as_str());
    let selector: ScopeSelector = quota.part("spec.scopeSelector");
    let asked = selector.match_expressions.unwrap_or_default();
    let Some((spec, _)) = object.pod() else {
        return plain.count() == 0 && asked.is_empty();
    };
    plain.into_iter().all(|scope| is_in(scope, spec)) && asked.iter().all(|one| matches(one, spec))
}

fn is_in(scope: &str, spec: &PodSpec) -> bool {
    let terminating = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    let best_effort = || defaults::qos_class(spec) == "BestEffort";
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => class(spec).is_some(),
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    }
}

fn class(spec: &PodSpec) -> Option<&str> {
    spec.priority_class_name.as_deref().filter(|class| !class.is_empty())
}

fn matches(asked: &ScopedResourceSelectorRequirement, spec: &PodSpec) -> bool {
    if asked.scope_name != "PriorityClass" || asked.operator == "Exists" {
        return is_in(&asked.scope_name, spec);
    }
    let named =
        class(spec).is_some_and(|class| asked.values.iter().flatten().any(|value| value == class));
    match asked.operator.as_str() {
        "In" => named,
        "NotIn" => !named,
        "DoesNotExist" => class(spec).is_none(),
        _ => false,
    }
}

/// It wants to be near or far from pods of other namespaces.
fn crosses_namespaces(spec: &PodSpec) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|all| !all.is_empty())
            || term.namespace_selector.is_some()
    };
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let required = [
        near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    required.into_iter().flatten().flatten().any(crosses)
        || preferred.into_iter().flatten().flatten().any(|one| crosses(&one.pod_affinity_term))
}
