//! What a spec that leaves a field out means (upstream's `pkg/apis/*/v1/defaults.go`). Of pods it
//! is in [`crate::objects::pod_spec`], since a ReplicaSet's controller makes its template complete.

use super::admission::Priority;
use crate::objects::pod_spec::{self as pod, default, text};
use crate::objects::{DeploymentSpec, EndpointSlice, PodSpec, ReplicaSetSpec, ServiceSpec};
use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ClientIPConfig, PodCondition, PodStatus, PodTemplateSpec, SessionAffinityConfig,
};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// The spec of a pod that was created last, as it came, with what priority, and as it is stored.
/// The pods of a ReplicaSet come one after the other with one spec between them, and keep to share
/// one.
#[derive(Clone, Debug, Default)]
pub(super) struct LastPod(Option<(Arc<PodSpec>, Priority, Arc<PodSpec>)>);

impl LastPod {
    pub fn admitted(&mut self, spec: &Arc<PodSpec>, priority: Priority) -> Arc<PodSpec> {
        match &self.0 {
            Some((came, of, stored)) if Arc::ptr_eq(came, spec) && *of == priority => {
                Arc::clone(stored)
            }
            _ => {
                let mut new = pod::admitted(PodSpec::clone(spec));
                priority.write(&mut new);
                let stored = Arc::new(new);
                self.0 = Some((Arc::clone(spec), priority, Arc::clone(&stored)));
                stored
            }
        }
    }
}

/// The status of a pod nobody has looked at yet. One that is not to be scheduled yet says so
/// (`applySchedulingGatedCondition` in pkg/registry/core/pod/strategy.go).
pub(super) fn pod_status(spec: &PodSpec) -> PodStatus {
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let waits = || PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    };
    PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(qos_class(spec).to_owned()),
        conditions: gated.then(|| vec![waits()]),
        ..PodStatus::default()
    }
}

/// `Guaranteed` if every container limits cpu and memory to what it requests, `BestEffort` if none
/// asks for either, else `Burstable`.
pub(super) fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        for name in ["cpu", "memory"] {
            let limit = limits.and_then(|l| l.get(name));
            let request = requests.and_then(|r| r.get(name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn template(template: &mut PodTemplateSpec) {
    pod::defaults(template.spec.get_or_insert_default());
}

pub(super) fn deployment(spec: &mut DeploymentSpec) {
    default(&mut spec.replicas, || 1);
    default(&mut spec.revision_history_limit, || 10);
    default(&mut spec.progress_deadline_seconds, || 600);
    let strategy = spec.strategy.get_or_insert_with(DeploymentStrategy::default);
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDeployment::default);
        default(&mut rolling.max_surge, || IntOrString::String("25%".to_owned()));
        default(&mut rolling.max_unavailable, || IntOrString::String("25%".to_owned()));
    }
    template(&mut spec.template);
}

pub(super) fn replica_set(spec: &mut ReplicaSetSpec) {
    default(&mut spec.replicas, || 1);
    if let Some(pods) = &mut spec.template {
        template(pods);
    }
}

/// Clients rely on both of them: kubectl's `describe` fails without a protocol. A slice that says
/// them stays shared.
pub(super) fn endpoint_slice(slice: &mut Arc<EndpointSlice>) {
    let lacks = |port: &EndpointPort| port.name.is_none() || port.protocol.is_none();
    if !slice.ports.iter().flatten().any(lacks) {
        return;
    }
    for port in Arc::make_mut(slice).ports.iter_mut().flatten() {
        default(&mut port.name, String::new);
        text(&mut port.protocol, "TCP");
    }
}

pub(super) fn service(spec: &mut ServiceSpec) {
    text(&mut spec.type_, "ClusterIP");
    text(&mut spec.session_affinity, "None");
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config =
            spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
        let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
        default(&mut client.timeout_seconds, || 10_800);
    }
    for port in spec.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        let number = port.port;
        let unset = matches!(&port.target_port, None | Some(IntOrString::Int(0)))
            || matches!(&port.target_port, Some(IntOrString::String(name)) if name.is_empty());
        if unset {
            port.target_port = Some(IntOrString::Int(number));
        }
    }
    let kind = spec.type_.as_deref().unwrap_or_default();
    if kind == "ExternalName" {
        return;
    }
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    if kind == "LoadBalancer" {
        default(&mut spec.allocate_load_balancer_node_ports, || true);
    }
    if external {
        text(&mut spec.external_traffic_policy, "Cluster");
    }
    text(&mut spec.internal_traffic_policy, "Cluster");
    text(&mut spec.ip_family_policy, "SingleStack");
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
    }
}
