//! What is said of a pod: in its status and to people why it waits, and to people where it went
//! (`handleSchedulingFailure` and `bind` of upstream's pkg/scheduler/schedule_one.go).

use super::{Call, Scheduler, What};
use crate::objects::{Kind, Object, time};
use crate::ports::api::{Request, Subresource};
use crate::recorder::Tidings;
use k8s_openapi::api::core::v1::PodCondition;
use kubesim_runtime::Context;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Scheduler {
    /// Says in the pod's status why it waits, if it does not say so yet.
    pub(super) fn tell(&mut self, pod: &Arc<Object>, message: String, ctx: &mut Context<'_, Self>) {
        let Some((_, status)) = pod.pod() else { return };
        let what = Tidings::warning("FailedScheduling").doing("Scheduling");
        self.recorder.tell(&self.name, pod, what, || message.clone());
        let mut conditions = status.conditions.clone().unwrap_or_default();
        let at = conditions.iter().position(|condition| condition.type_ == "PodScheduled");
        let before = at.map(|at| conditions.remove(at));
        let says = |c: &PodCondition| c.status == "False" && c.message.as_ref() == Some(&message);
        if before.as_ref().is_some_and(says) {
            return;
        }
        ctx.note(|| format!("pod {} waits: {message}", pod.key));
        let same = before.filter(|before| before.status == "False");
        conditions.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some("Unschedulable".to_owned()),
            message: Some(message),
            last_transition_time: same
                .and_then(|before| before.last_transition_time)
                .or_else(|| Some(time(ctx.wall()))),
            ..PodCondition::default()
        });
        let patch = json!({
            "metadata": {
                "uid": pod.uid.to_string(),
                "resourceVersion": pod.version.to_string(),
            },
            "status": {"conditions": conditions},
        });
        let (kind, key, subresource) = (Kind::Pod, pod.key.clone(), Subresource::Status);
        let request = Request::Patch { kind, key, subresource, patch };
        let call = Call { pod: pod.key.clone(), what: What::Tell, attempts: 0, request };
        self.waiting_calls.push_back(call);
    }

    /// A Bind was answered.
    pub(super) fn tell_of_bind(&mut self, call: &Call) {
        let Request::Bind { uid, node, .. } = &call.request else { return };
        let Some(placement) = self.placed.get(&call.pod) else { return };
        if placement.object.uid == *uid {
            let what = Tidings::normal("Scheduled").doing("Binding");
            self.recorder.tell(&self.name, &placement.object, what, || {
                format!("Successfully assigned {} to {node}", call.pod)
            });
        }
    }
}

/// Of what no node can help, in the same words.
pub fn of_all(nodes: usize, why: &str) -> String {
    match nodes {
        0 => message(0, BTreeMap::new()),
        _ => format!("0/{nodes} nodes are available: {why}."),
    }
}

/// As `framework.FitError` words it; the reasons are sorted as texts, count first.
pub fn message(nodes: usize, reasons: BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut reasons: Vec<_> = reasons.iter().map(|(text, n)| format!("{n} {text}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}
