//! A pod's spec as the API server makes it complete: defaulting (upstream's
//! `pkg/apis/core/v1/defaults.go`) and admission. A ReplicaSet's controller does it beforehand,
//! once for the spec that its pods share.

use super::PodSpec;
use k8s_openapi::api::core::v1::{Container, Probe, Toleration};

/// Sets what is not there.
pub fn default<T>(field: &mut Option<T>, value: impl FnOnce() -> T) {
    if field.is_none() {
        *field = Some(value());
    }
}

/// Sets what is not there or empty.
pub fn text(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.to_owned());
    }
}

/// What defaulting and admission make of the spec of a new pod. Twice is as good as once.
pub fn admitted(mut spec: PodSpec) -> PodSpec {
    defaults(&mut spec);
    toleration_seconds(&mut spec);
    spec
}

/// What defaulting writes into a pod's spec, and into a template's.
pub fn defaults(spec: &mut PodSpec) {
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
pub fn is_latest(image: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a ReplicaSet's controller has made complete comes out of the API server as it went in.
    #[test]
    fn what_is_complete_stays_as_it_is() {
        let limits = [("cpu".to_owned(), Default::default())].into_iter().collect();
        let container = Container {
            image: Some("web".to_owned()),
            liveness_probe: Some(Probe::default()),
            resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
                limits: Some(limits),
                ..Default::default()
            }),
            ..Container::default()
        };
        let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        let once = admitted(spec.clone());
        assert_ne!(once, spec);
        assert_eq!(once.containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(once.tolerations.as_ref().map(Vec::len), Some(2));
        assert_eq!(admitted(once.clone()), once);
    }
}
