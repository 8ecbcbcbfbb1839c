//! Whether a pod of a class fits a node, and how well: the node's own side of it (upstream
//! `pkg/scheduler/framework/plugins`: nodeunschedulable, tainttoleration, nodeaffinity, nodeports,
//! noderesources).

use super::nodes::Node;
use super::resources::Load;
use crate::objects::{Object, PodSpec};
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    PreferredSchedulingTerm, Taint, Toleration, TopologySpreadConstraint,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a class of pods demands of a node.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub namespace: String,
    selector: BTreeMap<String, String>,
    required: Option<NodeSelector>,
    preferred: Vec<PreferredSchedulingTerm>,
    tolerations: Vec<Toleration>,
    pub affinity: Vec<PodAffinityTerm>,
    pub anti_affinity: Vec<PodAffinityTerm>,
    /// `DoNotSchedule` constraints only.
    pub spread: Vec<TopologySpreadConstraint>,
}

impl Rules {
    pub fn of(pod: &Object, spec: &PodSpec) -> Self {
        let affinity = spec.affinity.clone().unwrap_or_default();
        let node = affinity.node_affinity.unwrap_or_default();
        let near = affinity.pod_affinity.unwrap_or_default();
        let apart = affinity.pod_anti_affinity.unwrap_or_default();
        let spread = spec.topology_spread_constraints.iter().flatten();
        Rules {
            namespace: pod.key.namespace.to_string(),
            selector: spec.node_selector.clone().unwrap_or_default(),
            required: node.required_during_scheduling_ignored_during_execution,
            preferred: node
                .preferred_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            affinity: near.required_during_scheduling_ignored_during_execution.unwrap_or_default(),
            anti_affinity: apart
                .required_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            spread: spread.filter(|c| c.when_unsatisfiable == "DoNotSchedule").cloned().collect(),
        }
    }

    /// The node selector and the required node affinity hold.
    pub fn selects(&self, node: &Object) -> bool {
        let pairs = self.selector.iter().all(|(k, v)| node.label(k) == Some(v));
        pairs && self.required.as_ref().is_none_or(|required| selects(required, node))
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    }
}

/// Any of the selector's terms holds of the node.
pub fn selects(selector: &NodeSelector, node: &Object) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// An empty term matches nothing (`nodeaffinity.NodeSelector`).
fn term_matches(term: &NodeSelectorTerm, node: &Object) -> bool {
    let expressions = || term.match_expressions.iter().flatten();
    let fields = || term.match_fields.iter().flatten();
    if expressions().next().is_none() && fields().next().is_none() {
        return false;
    }
    expressions().all(|r| holds(r, node.label(&r.key)))
        && fields().all(|r| r.key == "metadata.name" && holds(r, Some(&node.key.name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = || requirement.values.iter().flatten();
    let listed = value.is_some_and(|value| values().any(|v| v == value));
    let numbers = || {
        let bound = values().next().and_then(|bound| bound.parse::<i64>().ok());
        value.and_then(|value| value.parse::<i64>().ok()).zip(bound)
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The first filter that refuses the node, in upstream's order and words; `None` if it fits.
pub fn refusals(rules: &Rules, load: &Load, node: &Node, object: &Object) -> Option<Arc<[String]>> {
    let one = |reason: &str| Some(Arc::from([reason.to_owned()]));
    let (spec, _) = object.node()?;
    if spec.unschedulable == Some(true) && !rules.tolerates(&unschedulable()) {
        return one("node(s) were unschedulable");
    }
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let mut taints = spec.taints.iter().flatten().filter(hard);
    if let Some(taint) = taints.find(|taint| !rules.tolerates(taint)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return one(&format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    if !rules.selects(object) {
        return one("node(s) didn't match Pod's node affinity/selector");
    }
    let clash = |(protocol, ip, port): &(String, String, i32)| {
        node.ports.iter().any(|(p, i, n)| {
            n == port && p == protocol && (i == ip || i.is_empty() || ip.is_empty())
        })
    };
    if load.ports.iter().any(clash) {
        return one("node(s) didn't have free ports for the requested pod ports");
    }
    let short = shortages(load, node);
    (!short.is_empty()).then(|| Arc::from(short))
}

fn unschedulable() -> Taint {
    Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

/// `noderesources.fitsRequest`.
fn shortages(load: &Load, node: &Node) -> Vec<String> {
    let mut short = Vec::new();
    if node.pods + 1 > node.max_pods {
        short.push("Too many pods".to_owned());
    }
    let asked = &load.requests;
    let lacks = |asked: i64, used: i64, all: i64| asked > 0 && asked > all - used;
    if lacks(asked.cpu, node.used.cpu, node.allocatable.cpu) {
        short.push("Insufficient cpu".to_owned());
    }
    if lacks(asked.memory, node.used.memory, node.allocatable.memory) {
        short.push("Insufficient memory".to_owned());
    }
    for (name, amount) in &asked.other {
        let of = |all: &BTreeMap<String, i64>| all.get(name).copied().unwrap_or(0);
        if lacks(*amount, of(&node.used.other), of(&node.allocatable.other)) {
            short.push(format!("Insufficient {name}"));
        }
    }
    short
}

/// The sum of upstream's scores with upstream's default weights: LeastAllocated 1,
/// BalancedAllocation 1, NodeAffinity 2, TaintToleration 3; each from 0 to 100.
///
/// The last two are scaled upstream by the best node of the moment; here by the class itself (all
/// its preferences met; no taint in the way), so that a node's score depends on that node alone.
pub fn score(rules: &Rules, load: &Load, node: &Node, object: &Object) -> i64 {
    least_allocated(load, node)
        + balanced(load, node)
        + 2 * preference(rules, object)
        + 3 * taint_score(rules, object)
}

fn least_allocated(load: &Load, node: &Node) -> i64 {
    let free = |asked: i64, used: i64, all: i64| {
        let wanted = used + asked;
        if all == 0 || wanted > all { 0 } else { (all - wanted) * 100 / all }
    };
    let cpu = free(load.assumed.0, node.assumed.0, node.allocatable.cpu);
    let memory = free(load.assumed.1, node.assumed.1, node.allocatable.memory);
    (cpu + memory) / 2
}

/// 100 times one less the standard deviation of the used shares (half their difference, for two).
fn balanced(load: &Load, node: &Node) -> i64 {
    let share = |asked: i64, used: i64, all: i64| {
        if all == 0 { 1.0 } else { ((used + asked) as f64 / all as f64).min(1.0) }
    };
    let cpu = share(load.requests.cpu, node.used.cpu, node.allocatable.cpu);
    let memory = share(load.requests.memory, node.used.memory, node.allocatable.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
}

fn preference(rules: &Rules, node: &Object) -> i64 {
    let weight = |terms: &mut dyn Iterator<Item = &PreferredSchedulingTerm>| -> i64 {
        terms.map(|term| i64::from(term.weight.max(0))).sum()
    };
    let all = weight(&mut rules.preferred.iter());
    if all == 0 {
        return 0;
    }
    let met = |term: &&PreferredSchedulingTerm| term_matches(&term.preference, node);
    weight(&mut rules.preferred.iter().filter(met)) * 100 / all
}

fn taint_score(rules: &Rules, node: &Object) -> i64 {
    let taints = node.node().into_iter().flat_map(|(spec, _)| spec.taints.iter().flatten());
    let soft = taints.filter(|taint| taint.effect == "PreferNoSchedule");
    100 / (1 + soft.filter(|taint| !rules.tolerates(taint)).count() as i64)
}

/// `Toleration.ToleratesTaint` (core/v1 `toleration.go`).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => text(&toleration.value) == text(&taint.value),
        Some(_) => false,
    }
}
