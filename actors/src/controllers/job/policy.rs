//! `podFailurePolicy` (KEP-3329, pkg/controller/job/pod_failure_policy.go): what a failed pod is
//! held to be, by its containers' exit codes or its conditions.

use crate::objects::Object;
use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

/// What the first rule that matches says of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards `backoffLimit`: so does a pod that no rule matches.
    Counts,
    Ignored,
    /// The Job fails, for this reason.
    FailsJob(String),
}

pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Object) -> Verdict {
    let Some((_, status)) = pod.pod() else { return Verdict::Counts };
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (at, rule) in rules.iter().enumerate() {
        let action = &rule.action;
        let key = || format!("{}/{}", pod.key.namespace, pod.key.name);
        let matched = if let Some(codes) = &rule.on_exit_codes {
            by_exit_code(codes, status).map(|(name, code)| {
                format!(
                    "Container {name} for pod {} failed with exit code {code} matching {action} \
                     rule at index {at}",
                    key()
                )
            })
        } else {
            by_condition(rule.on_pod_conditions.as_deref().unwrap_or_default(), status).map(
                |condition| {
                    let kind = &condition.type_;
                    format!(
                        "Pod {} has condition {kind} matching {action} rule at index {at}",
                        key()
                    )
                },
            )
        };
        match (matched, action.as_str()) {
            (Some(_), "Ignore") => return Verdict::Ignored,
            (Some(_), "Count") => return Verdict::Counts,
            (Some(message), "FailJob") => return Verdict::FailsJob(message),
            _ => {}
        }
    }
    Verdict::Counts
}

/// The first container that ended with such a code, main ones before init ones.
fn by_exit_code<'a>(
    rule: &PodFailurePolicyOnExitCodesRequirement,
    status: &'a PodStatus,
) -> Option<(&'a str, i32)> {
    let mains = status.container_statuses.iter().flatten();
    let all = mains.chain(status.init_container_statuses.iter().flatten());
    let named = |container: &&ContainerStatus| {
        rule.container_name.as_ref().is_none_or(|name| *name == container.name)
    };
    all.filter(named).find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = rule.values.contains(&code);
        let matches = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (code != 0 && matches).then_some((container.name.as_str(), code))
    })
}

fn by_condition<'a>(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    status: &'a PodStatus,
) -> Option<&'a PodCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| {
        patterns
            .iter()
            .any(|pattern| pattern.type_ == condition.type_ && pattern.status == condition.status)
    })
}
