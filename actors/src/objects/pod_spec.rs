//! A pod's spec as the API server makes it complete: defaulting (upstream's
//! `pkg/apis/core/v1/defaults.go`) and admission. A ReplicaSet's controller does it beforehand,
//! once for the spec that its pods share.

use super::{PodSpec, ephemeral};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HTTPGetAction, ObjectFieldSelector, Probe, Toleration, Volume,
};

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
    for each in spec.ephemeral_containers.iter_mut().flatten() {
        let mut like = ephemeral::container(each);
        container(&mut like, false);
        ephemeral::set(each, like);
    }
    spec.volumes.iter_mut().flatten().for_each(volume);
}

/// The version of which a pod's own fields are.
fn field_of_v1(field: &mut ObjectFieldSelector) {
    text(&mut field.api_version, "v1");
}

/// Who may read the files that are made of objects: everybody, and the owner may write them.
const FILES: i32 = 0o644;
/// Of a token, in seconds.
const LIFE: i64 = 3600;

fn volume(volume: &mut Volume) {
    let fields = |files: &mut Option<Vec<DownwardAPIVolumeFile>>| {
        let files = files.iter_mut().flatten();
        files.filter_map(|file| file.field_ref.as_mut()).for_each(field_of_v1);
    };
    if let Some(secret) = &mut volume.secret {
        default(&mut secret.default_mode, || FILES);
    }
    if let Some(map) = &mut volume.config_map {
        default(&mut map.default_mode, || FILES);
    }
    if let Some(downward) = &mut volume.downward_api {
        default(&mut downward.default_mode, || FILES);
        fields(&mut downward.items);
    }
    if let Some(projected) = &mut volume.projected {
        default(&mut projected.default_mode, || FILES);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                default(&mut token.expiration_seconds, || LIFE);
            }
            if let Some(downward) = &mut source.downward_api {
                fields(&mut downward.items);
            }
        }
    }
    if let Some(path) = &mut volume.host_path {
        default(&mut path.type_, String::new);
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
    let sources = container.env.iter_mut().flatten().filter_map(|env| env.value_from.as_mut());
    sources.filter_map(|source| source.field_ref.as_mut()).for_each(field_of_v1);
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    let hooks = container.lifecycle.iter_mut();
    let hooks = hooks.flat_map(|hooks| [&mut hooks.post_start, &mut hooks.pre_stop]);
    hooks.flatten().filter_map(|hook| hook.http_get.as_mut()).for_each(http_get);
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
    probe.http_get.iter_mut().for_each(http_get);
}

fn http_get(get: &mut HTTPGetAction) {
    text(&mut get.path, "/");
    text(&mut get.scheme, "HTTP");
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
    use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource};

    fn own_name() -> EnvVar {
        let field_path = "metadata.name".to_owned();
        let field_ref = Some(ObjectFieldSelector { field_path, ..Default::default() });
        let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
        EnvVar { name: "NAME".to_owned(), value_from, ..EnvVar::default() }
    }

    /// What a ReplicaSet's controller has made complete comes out of the API server as it went in.
    #[test]
    fn what_is_complete_stays_as_it_is() {
        let limits = [("cpu".to_owned(), Default::default())].into_iter().collect();
        let container = Container {
            image: Some("web".to_owned()),
            env: Some(vec![own_name()]),
            liveness_probe: Some(Probe::default()),
            resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
                limits: Some(limits),
                ..Default::default()
            }),
            ..Container::default()
        };
        let volume = Volume { secret: Some(Default::default()), ..Volume::default() };
        let volumes = Some(vec![volume]);
        let spec = PodSpec { containers: vec![container], volumes, ..PodSpec::default() };
        let once = admitted(spec.clone());
        assert_ne!(once, spec);
        assert_eq!(once.containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(once.tolerations.as_ref().map(Vec::len), Some(2));
        let mode =
            once.volumes.iter().flatten().filter_map(|one| one.secret.as_ref()?.default_mode);
        assert_eq!(mode.collect::<Vec<_>>(), [420]);
        let env = once.containers[0].env.as_ref().and_then(|env| env[0].value_from.as_ref());
        let field = env.and_then(|source| source.field_ref.as_ref()?.api_version.as_deref());
        assert_eq!(field, Some("v1"));
        assert_eq!(admitted(once.clone()), once);
    }
}
