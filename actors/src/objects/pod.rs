use super::{Name, PodSpec, PodStatus};
use std::sync::Arc;

/// A pod's spec and status, and what everybody asks of them.
///
/// Who watches pods reads a few words of each, again and again: is it ready, where is it. In the
/// types as Kubernetes has them every such word is three or four cold cache lines away (the status,
/// its conditions, a condition's name and its value), so they are read out once, when a spec or
/// status is put in place, and stand in the object itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PodBody {
    spec: Arc<PodSpec>,
    status: Arc<PodStatus>,
    facts: PodFacts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// `spec.nodeName`; empty until the pod is bound.
    pub node: Name,
    /// `status.podIP`; empty until the pod has one.
    pub ip: Name,
    pub phase: Phase,
    /// The Ready condition is true.
    pub ready: bool,
    /// `spec.subdomain` is set: the pod may have a name of its own in DNS.
    pub subdomain: bool,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody has said, or a word that Kubernetes does not have.
    #[default]
    Unsaid,
    Pending,
    Unknown,
    Running,
    Succeeded,
    Failed,
}

/// Whose annotation says that a pod is told of only: a node has it of a manifest
/// (`MirrorPodAnnotationKey`).
pub const MIRROR: &str = "kubernetes.io/config.mirror";

impl PodBody {
    pub fn new(spec: Arc<PodSpec>, status: Arc<PodStatus>) -> Self {
        let facts = PodFacts::of(&spec, &status);
        PodBody { spec, status, facts }
    }
    pub fn spec(&self) -> &Arc<PodSpec> {
        &self.spec
    }
    pub fn status(&self) -> &Arc<PodStatus> {
        &self.status
    }
    pub fn facts(&self) -> &PodFacts {
        &self.facts
    }
    /// Changes spec and status in place, and what was read out of them.
    pub fn edit<R>(&mut self, by: impl FnOnce(&mut Arc<PodSpec>, &mut Arc<PodStatus>) -> R) -> R {
        let answer = by(&mut self.spec, &mut self.status);
        self.facts = PodFacts::of(&self.spec, &self.status);
        answer
    }
    pub fn with_status(&self, status: Arc<PodStatus>) -> Self {
        PodBody::new(Arc::clone(&self.spec), status)
    }
}

impl PodFacts {
    fn of(spec: &PodSpec, status: &PodStatus) -> Self {
        let name = |text: Option<&str>| text.map(Name::from).unwrap_or_default();
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        PodFacts {
            node: name(spec.node_name.as_deref()),
            ip: name(status.pod_ip.as_deref()),
            phase: Phase::of(status.phase.as_deref()),
            subdomain: spec.subdomain.as_ref().is_some_and(|name| !name.is_empty()),
            ready: ready.is_some_and(|condition| condition.status == "True"),
        }
    }
    /// The node that the pod is bound to.
    pub fn node(&self) -> Option<&Name> {
        Some(&self.node).filter(|node| !node.is_empty())
    }
}

impl Phase {
    fn of(word: Option<&str>) -> Self {
        match word {
            Some("Pending") => Phase::Pending,
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            Some("Unknown") => Phase::Unknown,
            _ => Phase::Unsaid,
        }
    }
    /// Succeeded or Failed: the pod will never run again.
    pub fn ended(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn what_is_read_out_follows_an_edit() {
        let mut pod = PodBody::new(Arc::default(), Arc::default());
        assert_eq!(*pod.facts(), PodFacts::default());
        pod.edit(|spec, status| {
            Arc::make_mut(spec).node_name = Some("n1".to_owned());
            let status = Arc::make_mut(status);
            status.phase = Some("Running".to_owned());
            status.pod_ip = Some("10.244.1.7".to_owned());
            let condition = |kind: &str, value: &str| PodCondition {
                type_: kind.to_owned(),
                status: value.to_owned(),
                ..PodCondition::default()
            };
            status.conditions =
                Some(vec![condition("Initialized", "False"), condition("Ready", "True")]);
        });
        let facts = pod.facts();
        assert_eq!((facts.node.as_str(), facts.ip.as_str()), ("n1", "10.244.1.7"));
        assert_eq!((facts.phase, facts.ready), (Phase::Running, true));
        let failed = PodStatus { phase: Some("Failed".to_owned()), ..PodStatus::default() };
        let failed = pod.with_status(Arc::new(failed));
        assert!(failed.facts().phase.ended() && !failed.facts().ready);
        assert_eq!(failed.facts().node(), Some(&Name::from("n1")));
    }
}
