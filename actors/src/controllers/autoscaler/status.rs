//! What an autoscaler's status says.

use crate::objects::time;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use kubesim_runtime::Wall;

/// Sets a condition; its time is that of the change (`setConditionInList`).
pub fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Wall,
) {
    let holds = if holds { "True" } else { "False" };
    let all = status.conditions.get_or_insert_default();
    let at = all.iter().position(|condition| condition.type_ == kind).unwrap_or_else(|| {
        let type_ = kind.to_owned();
        all.push(HorizontalPodAutoscalerCondition { type_, ..Default::default() });
        all.len() - 1
    });
    let condition = &mut all[at];
    if condition.status != holds {
        condition.last_transition_time = Some(time(now));
    }
    condition.status = holds.to_owned();
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.to_owned());
}
