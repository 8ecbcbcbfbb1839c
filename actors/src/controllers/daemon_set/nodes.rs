//! Which nodes a DaemonSet's pods are for, and how a pod is bound to its node
//! (`NodeShouldRunDaemonPod`, pkg/controller/daemon/util/daemonset_util.go).

use crate::controllers::world::node_of;
use crate::objects::{Name, Object, PodSpec};
use crate::scheduler::{Rules, tolerates};
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};

const NODE_NAME: &str = "metadata.name";

/// What a template asks of a node.
pub struct Fit {
    rules: Rules,
    tolerations: Vec<Toleration>,
    /// The only node, if the template names one.
    only: Option<Name>,
}

/// Whether there is to be a pod on a node, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub run: bool,
    pub stay: bool,
}

impl Fit {
    /// Of a pod of the template, with the tolerations that daemons' pods have.
    pub fn of(pod: &Object, spec: &PodSpec) -> Self {
        Fit {
            rules: Rules::of(pod, spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            only: spec.node_name.as_deref().filter(|name| !name.is_empty()).map(Name::from),
        }
    }

    pub fn wants(&self, node: &Object) -> Wanted {
        let named = self.only.as_ref().is_none_or(|name| *name == node.key.name);
        if !named || !self.rules.selects(node) {
            return Wanted { run: false, stay: false };
        }
        let taints = node.node().into_iter().flat_map(|(spec, _)| spec.taints.iter().flatten());
        let bad = |taint: &&Taint| !self.tolerations.iter().any(|one| tolerates(one, taint));
        let bad: Vec<&Taint> = taints.filter(bad).collect();
        let has = |effect: &str| bad.iter().any(|taint| taint.effect == effect);
        let stay = !has("NoExecute");
        Wanted { run: stay && !has("NoSchedule"), stay }
    }
}

/// `AddOrUpdateDaemonPodTolerations`: a daemon is where its node is, whatever ails that.
pub fn tolerate(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let of = |key: &str, effect: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let mut own = vec![
        of("not-ready", "NoExecute"),
        of("unreachable", "NoExecute"),
        of("disk-pressure", "NoSchedule"),
        of("memory-pressure", "NoSchedule"),
        of("pid-pressure", "NoSchedule"),
        of("unschedulable", "NoSchedule"),
    ];
    if host_network {
        own.push(of("network-unavailable", "NoSchedule"));
    }
    let all = spec.tolerations.get_or_insert_default();
    for toleration in own {
        all.retain(|one| one.key != toleration.key || one.effect != toleration.effect);
        all.push(toleration);
    }
}

/// `ReplaceDaemonSetPodNodeNameNodeAffinity`: the scheduler has one node to choose from.
pub fn pin(spec: &mut PodSpec, node: &Name) {
    let fields = vec![NodeSelectorRequirement {
        key: NODE_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_string()]),
    }];
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    match &mut affinity.required_during_scheduling_ignored_during_execution {
        Some(required) if !required.node_selector_terms.is_empty() => {
            for term in &mut required.node_selector_terms {
                term.match_fields = Some(fields.clone());
            }
        }
        required => {
            let term = NodeSelectorTerm { match_fields: Some(fields), match_expressions: None };
            *required = Some(NodeSelector { node_selector_terms: vec![term] });
        }
    }
}

/// The node a daemon's pod is on or for (`GetTargetNodeName`).
pub fn target(pod: &Object) -> Option<Name> {
    if let Some(node) = node_of(pod) {
        return Some(node.clone());
    }
    let affinity = pod.pod()?.0.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter());
    let name = fields.find_map(|all| all.iter().find(|field| field.key == NODE_NAME))?;
    name.values.as_ref()?.first().map(|name| Name::from(name.as_str()))
}
