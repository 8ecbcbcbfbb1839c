//! What a container may use and may do, of its pod's spec and its own: cgroup, security context,
//! and whether its image is asked of the registry.

use crate::objects::PodSpec;
use crate::objects::pod_spec::is_latest;
use crate::objects::quantity::thousandths;
use crate::ports::container::{Capabilities, Message, Pull, Qos, Resources, Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, SeccompProfile, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use smol_str::SmolStr;
use std::collections::BTreeMap;

// pkg/kubelet/cm/helpers_linux.go.
const SHARES_PER_CPU: u64 = 1024;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// Microseconds.
const QUOTA_PERIOD: u64 = 100_000;
const MIN_QUOTA: u64 = 1_000;

// pkg/kubelet/qos/policy.go.
const GUARANTEED_OOM_SCORE: i32 = -997;
const BEST_EFFORT_OOM_SCORE: i32 = 1000;

/// `SystemCriticalPriority` (pkg/apis/scheduling/types.go).
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// pkg/apis/core/v1/helper/qos.
pub fn qos(spec: &PodSpec) -> Qos {
    let none = BTreeMap::new();
    let (mut any, mut guaranteed) = (false, true);
    for container in all(spec) {
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|r| r.requests.as_ref()).unwrap_or(&none);
        let limits = resources.and_then(|r| r.limits.as_ref()).unwrap_or(&none);
        any |= !requests.is_empty() || !limits.is_empty();
        guaranteed &= ["cpu", "memory"].iter().all(|name| {
            let limit = limits.get(*name);
            limit.is_some() && requests.get(*name).is_none_or(|request| Some(request) == limit)
        });
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The policy the API has defaulted, or would.
pub fn pull(container: &Container) -> Pull {
    let latest = || is_latest(container.image.as_deref().unwrap_or_default());
    match container.image_pull_policy.as_deref() {
        Some("Always") => Pull::Always,
        Some("Never") => Pull::Never,
        Some("IfNotPresent") => Pull::IfNotPresent,
        _ if latest() => Pull::Always,
        _ => Pull::IfNotPresent,
    }
}

/// Where its last words are looked for.
pub fn message(container: &Container) -> Message {
    let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let policy = container.termination_message_policy.as_deref();
    Message {
        path: SmolStr::from(path.unwrap_or("/dev/termination-log")),
        or_log: policy == Some("FallbackToLogsOnError"),
    }
}

/// `calculateLinuxResources` (pkg/kubelet/kuberuntime/kuberuntime_container_linux.go). `memory` is
/// the node's, in bytes.
pub fn resources(container: &Container, spec: &PodSpec, memory: u64) -> Resources {
    let given = container.resources.as_ref();
    let requests = given.and_then(|r| r.requests.as_ref());
    let limits = given.and_then(|r| r.limits.as_ref());
    let cpu_limit = thousandths_of(limits, "cpu");
    // Who has a limit only asks for as much.
    let cpu_asked = match thousandths_of(requests, "cpu") {
        0 => cpu_limit,
        asked => asked,
    };
    let asked = thousandths_of(requests, "memory").div_ceil(1000);
    Resources {
        cpu_shares: (cpu_asked * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES),
        cpu_quota: match cpu_limit {
            0 => 0,
            limit => (limit * QUOTA_PERIOD / 1000).max(MIN_QUOTA),
        },
        cpu_period: QUOTA_PERIOD,
        memory_limit: thousandths_of(limits, "memory").div_ceil(1000),
        oom_score: oom_score(spec, asked, memory),
    }
}

/// `GetContainerOOMScoreAdjust`: who asks for a tenth of the node's memory gets 900.
fn oom_score(spec: &PodSpec, asked: u64, memory: u64) -> i32 {
    let critical = spec.priority_class_name.as_deref() == Some("system-node-critical");
    if critical && spec.priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL) {
        return GUARANTEED_OOM_SCORE;
    }
    match qos(spec) {
        Qos::Guaranteed => GUARANTEED_OOM_SCORE,
        Qos::BestEffort => BEST_EFFORT_OOM_SCORE,
        Qos::Burstable => {
            let share = i32::try_from(1000 * asked / memory.max(1)).unwrap_or(i32::MAX);
            let lowest = 1000 + GUARANTEED_OOM_SCORE;
            1000_i32.saturating_sub(share).clamp(lowest, BEST_EFFORT_OOM_SCORE - 1)
        }
    }
}

/// In thousandths; 0 for what is not given.
fn thousandths_of(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> u64 {
    let amount = list.and_then(|list| thousandths(&list.get(name)?.0));
    amount.and_then(|amount| u64::try_from(amount).ok()).unwrap_or(0)
}

pub fn is_privileged(spec: &PodSpec) -> bool {
    let of = |c: &Container| c.security_context.as_ref().and_then(|own| own.privileged);
    all(spec).any(|container| of(container) == Some(true))
}

/// The container's own word, else the pod's (`DetermineEffectiveSecurityContext` of
/// pkg/securitycontext/util.go).
pub fn security(container: &Container, spec: &PodSpec) -> Security {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let pod = spec.security_context.as_ref();
    let profile = own.seccomp_profile.as_ref();
    let groups = pod.and_then(|pod| pod.supplemental_groups.as_ref()).into_iter().flatten();
    let capabilities = own.capabilities.as_ref();
    Security {
        privileged: own.privileged == Some(true),
        user: own.run_as_user.or_else(|| pod?.run_as_user),
        group: own.run_as_group.or_else(|| pod?.run_as_group),
        non_root: own.run_as_non_root.or_else(|| pod?.run_as_non_root) == Some(true),
        groups: pod.and_then(|pod| pod.fs_group).into_iter().chain(groups.copied()).collect(),
        read_only: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        capabilities: Capabilities {
            add: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
            drop: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
        },
        seccomp: profile
            .or_else(|| pod?.seccomp_profile.as_ref())
            .map_or(Seccomp::Unconfined, seccomp),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    }
}

fn seccomp(profile: &SeccompProfile) -> Seccomp {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Seccomp::RuntimeDefault,
        ("Localhost", Some(file)) => Seccomp::Localhost(SmolStr::from(file)),
        _ => Seccomp::Unconfined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const GIB: u64 = 1 << 30;

    fn spec(container: Value, pod: Value) -> PodSpec {
        let mut spec = json!({ "containers": [{ "name": "c", "image": "nginx:1" }] });
        let extend = |to: &mut Value, more: &Value| {
            let more = more.as_object().expect("an object").clone();
            to.as_object_mut().expect("an object").extend(more);
        };
        extend(&mut spec["containers"][0], &container);
        extend(&mut spec, &pod);
        serde_json::from_value(spec).expect("a pod's spec")
    }

    fn asked(requests: Value, limits: Value) -> Resources {
        let spec =
            spec(json!({ "resources": { "requests": requests, "limits": limits } }), json!({}));
        resources(&spec.containers[0], &spec, 4 * GIB)
    }

    /// Numbers of upstream's kuberuntime_container_linux_test.go and cm/helpers_linux_test.go.
    #[test]
    fn requests_are_weights_and_limits_are_quotas() {
        let one = asked(json!({ "cpu": "1" }), json!({ "cpu": "2", "memory": "128Mi" }));
        assert_eq!((one.cpu_shares, one.cpu_quota, one.cpu_period), (1024, 200_000, 100_000));
        assert_eq!(one.memory_limit, 134_217_728);
        let limit_only = asked(json!({}), json!({ "cpu": "500m" }));
        assert_eq!((limit_only.cpu_shares, limit_only.cpu_quota), (512, 50_000));
        let least = asked(json!({ "cpu": "1m" }), json!({ "cpu": "1m" }));
        assert_eq!((least.cpu_shares, least.cpu_quota), (2, 1_000));
        let none = asked(json!({}), json!({}));
        assert_eq!((none.cpu_shares, none.cpu_quota, none.memory_limit), (2, 0, 0));
    }

    #[test]
    fn who_asks_for_memory_is_killed_later() {
        assert_eq!(asked(json!({}), json!({})).oom_score, 1000);
        assert_eq!(asked(json!({ "memory": "1Gi" }), json!({})).oom_score, 750);
        assert_eq!(asked(json!({ "memory": "1" }), json!({})).oom_score, 999);
        assert_eq!(asked(json!({ "memory": "4Gi" }), json!({})).oom_score, 3);
        let all = json!({ "cpu": "1", "memory": "1Gi" });
        assert_eq!(asked(all.clone(), all).oom_score, -997);
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let spec = spec(
            json!({ "securityContext": {
                "runAsUser": 7, "allowPrivilegeEscalation": false,
                "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] },
            }}),
            json!({ "securityContext": {
                "runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "fsGroup": 3,
                "supplementalGroups": [4], "seccompProfile": { "type": "RuntimeDefault" },
            }}),
        );
        let security = security(&spec.containers[0], &spec);
        assert_eq!((security.user, security.group), (Some(7), Some(2)));
        assert_eq!(security.groups, [3, 4]);
        assert!(security.non_root && security.no_new_privileges && !security.privileged);
        assert_eq!(security.capabilities.add, ["NET_ADMIN"]);
        assert_eq!(security.seccomp, Seccomp::RuntimeDefault);
        assert!(!is_privileged(&spec));
    }

    #[test]
    fn an_image_without_a_tag_is_asked_of_the_registry_each_time() {
        let of = |container: Value| pull(&spec(container, json!({})).containers[0]);
        assert_eq!(of(json!({})), Pull::IfNotPresent);
        assert_eq!(of(json!({ "image": "nginx" })), Pull::Always);
        assert_eq!(of(json!({ "image": "nginx", "imagePullPolicy": "Never" })), Pull::Never);
    }
}
