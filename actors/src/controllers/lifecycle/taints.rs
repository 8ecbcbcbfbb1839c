//! Which taints a node's conditions call for (upstream `nodelifecycle`:
//! nodeConditionToTaintKeyStatusMap).

use super::zones::Zones;
use super::{condition, ready_status};
use crate::objects::{Object, time};
use k8s_openapi::api::core::v1::Taint;
use kubesim_runtime::Wall;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that are bad when True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Key and effect of every taint that should be and is ours to set.
fn desired(node: &Object, zones: &Zones) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    let key = match ready_status(node) {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = key {
        all.push((key, "NoSchedule"));
        if zones.may_evict(&node.key.name, has_no_execute(node)) {
            all.push((key, "NoExecute"));
        }
    }
    for (type_, key) in PRESSURES {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            all.push((key, "NoSchedule"));
        }
    }
    if node.node().is_some_and(|(spec, _)| spec.unschedulable == Some(true)) {
        all.push((UNSCHEDULABLE, "NoSchedule"));
    }
    all
}

fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&key),
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
                || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
        }
        _ => false,
    }
}

fn taints(node: &Object) -> impl Iterator<Item = &Taint> {
    node.node().into_iter().flat_map(|(spec, _)| spec.taints.iter().flatten())
}

/// The node was chosen for eviction before, by this incarnation or a former one.
pub fn has_no_execute(node: &Object) -> bool {
    taints(node).any(|taint| taint.effect == "NoExecute" && is_ours(taint))
}

/// All taints the node should have, or `None` if it has them.
pub fn wanted(node: &Object, zones: &Zones, now: Wall) -> Option<Vec<Taint>> {
    let desired = desired(node, zones);
    let is_desired = |taint: &Taint| {
        desired.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    let mut all: Vec<Taint> =
        taints(node).filter(|taint| !is_ours(taint) || is_desired(taint)).cloned().collect();
    let mut changed = all.len() != taints(node).count();
    for (key, effect) in desired {
        if !all.iter().any(|taint| taint.key == key && taint.effect == effect) {
            all.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: (effect == "NoExecute").then(|| time(now)),
            });
            changed = true;
        }
    }
    changed.then_some(all)
}
