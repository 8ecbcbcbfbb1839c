//! What a spec that leaves a field out means (upstream's `pkg/apis/*/v1/defaults.go`).

use crate::objects::{DeploymentSpec, PodSpec, ReplicaSetSpec, ServiceSpec};
use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ClientIPConfig, Container, PodStatus, PodTemplateSpec, Probe, SessionAffinityConfig, Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

fn default<T>(field: &mut Option<T>, value: impl FnOnce() -> T) {
    if field.is_none() {
        *field = Some(value());
    }
}

fn text(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.to_owned());
    }
}

/// The spec of a pod that was created last, as it came and as it is stored. The pods of a
/// ReplicaSet come one after the other with one spec between them, and keep to share one.
#[derive(Clone, Debug, Default)]
pub(super) struct LastPod(Option<[Arc<PodSpec>; 2]>);

impl LastPod {
    pub fn admitted(&mut self, spec: &Arc<PodSpec>) -> Arc<PodSpec> {
        match &self.0 {
            Some([came, stored]) if Arc::ptr_eq(came, spec) => Arc::clone(stored),
            _ => {
                let mut stored = PodSpec::clone(spec);
                pod_spec(&mut stored);
                toleration_seconds(&mut stored);
                let stored = Arc::new(stored);
                self.0 = Some([Arc::clone(spec), Arc::clone(&stored)]);
                stored
            }
        }
    }
}

pub(super) fn pod_spec(spec: &mut PodSpec) {
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    default(&mut spec.termination_grace_period_seconds, || 30);
    default(&mut spec.enable_service_links, || true);
    default(&mut spec.security_context, Default::default);
    let host_network = spec.host_network == Some(true);
    for each in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        container(each, host_network);
    }
}

fn container(container: &mut Container, host_network: bool) {
    if container.image_pull_policy.as_deref().is_none_or(str::is_empty) {
        let image = container.image.as_deref().unwrap_or_default();
        let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
        container.image_pull_policy = Some(policy.to_owned());
    }
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        if host_network {
            let number = port.container_port;
            default(&mut port.host_port, || number);
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    // A limit without a request is a request of as much.
    if let Some(resources) = &mut container.resources
        && let Some(limits) = &resources.limits
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}

/// The tag is `latest` or missing, and no digest pins the image.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn probe(probe: &mut Probe) {
    default(&mut probe.timeout_seconds, || 1);
    default(&mut probe.period_seconds, || 10);
    default(&mut probe.success_threshold, || 1);
    default(&mut probe.failure_threshold, || 3);
    if let Some(get) = &mut probe.http_get {
        text(&mut get.path, "/");
        text(&mut get.scheme, "HTTP");
    }
}

/// The DefaultTolerationSeconds admission plugin: a pod stays 300 s on a node that is not ready or
/// unreachable, unless it says otherwise.
fn toleration_seconds(spec: &mut PodSpec) {
    let tolerations = spec.tolerations.get_or_insert_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Toleration| {
            let any_key = t.key.as_deref().is_none_or(str::is_empty);
            let effect = t.effect.as_deref().unwrap_or_default();
            (any_key || t.key.as_deref() == Some(key)) && matches!(effect, "" | "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(300),
                value: None,
            });
        }
    }
}

/// The status of a pod nobody has looked at yet.
pub(super) fn pod_status(spec: &PodSpec) -> PodStatus {
    PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(qos_class(spec).to_owned()),
        ..PodStatus::default()
    }
}

/// `Guaranteed` if every container limits cpu and memory to what it requests, `BestEffort` if none
/// asks for either, else `Burstable`.
fn qos_class(spec: &PodSpec) -> &'static str {
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
    pod_spec(template.spec.get_or_insert_default());
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
