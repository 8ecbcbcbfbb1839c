//! What the kubelet asks for, in the words of the CRI (upstream's
//! pkg/kubelet/kuberuntime/kuberuntime_sandbox.go, kuberuntime_container.go, labels.go,
//! helpers.go).

use super::messages::{
    self, Capability, ContainerConfig, ContainerMetadata, DnsConfig, Image, ImageSpec, Int64Value,
    KeyValue, LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Map, MountPropagation, NamespaceMode,
    NamespaceOption, PodSandbox, PodSandboxConfig, PodSandboxMetadata, ProfileType,
    SecurityProfile,
};
use crate::cni;
use kubesim_actors::objects::{Key, Uid};
use kubesim_actors::ports::container::{
    Container, Mount, PodNetwork, Propagation, Qos, Resources, Sandbox, Seccomp, Security,
};
use serde_json::json;
use std::path::{Path, PathBuf};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const FALLBACK: &str = "FallbackToLogsOnError";

/// Annotations of ours, beside the one for the CNI plugin: what a container's creation needs of its
/// sandbox, so that a driver that starts anew finds it there.
const CGROUP_PARENT: &str = "kubesim/cgroup-parent";
const NAMESPACES: &str = "kubesim/namespaces";

/// `defaultMaskedPaths` and `defaultReadonlyPaths` of pkg/securitycontext/util.go.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Below which cgroup a pod is (`cgroupfs` names, pkg/kubelet/cm/pod_container_manager_linux.go).
fn cgroup_parent(root: &str, qos: Qos, pod: Uid) -> String {
    match qos {
        Qos::Guaranteed => format!("{root}/pod{pod}"),
        Qos::Burstable => format!("{root}/burstable/pod{pod}"),
        Qos::BestEffort => format!("{root}/besteffort/pod{pod}"),
    }
}

/// Whether a sandbox was made by a driver whose pods are below this cgroup.
pub fn is_below(found: &PodSandbox, root: &str) -> bool {
    let parent = found.annotations.get(CGROUP_PARENT);
    parent.and_then(|parent| parent.strip_prefix(root)).is_some_and(|rest| rest.starts_with('/'))
}

/// Where the logs of a pod's containers are: `NAMESPACE_NAME_UID`.
pub fn log_directory(logs: &Path, key: &Key, pod: Uid) -> PathBuf {
    logs.join(format!("{}_{}_{pod}", key.namespace, key.name))
}

/// Below that: `CONTAINER/ATTEMPT.log`.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

pub fn labels(key: &Key, pod: Uid) -> Map {
    let uid = pod.to_string();
    let all = [(POD_NAME, &*key.name), (POD_NAMESPACE, &*key.namespace), (POD_UID, &*uid)];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What all of a pod has, and nothing of another one.
pub fn of_pod(pod: Uid) -> Map {
    Map::from([(POD_UID.to_owned(), pod.to_string())])
}

pub fn sandbox(
    (pod, spec): (Uid, &Sandbox),
    attempt: u32,
    logs: &Path,
    cgroup: &str,
) -> PodSandboxConfig {
    let mode = |host: bool, own: NamespaceMode| -> i32 {
        if host { NamespaceMode::Node.into() } else { own.into() }
    };
    let namespaces = NamespaceOption {
        network: mode(spec.network == PodNetwork::Host, NamespaceMode::Pod),
        pid: mode(spec.host_pid, NamespaceMode::Container),
        ipc: mode(spec.host_ipc, NamespaceMode::Pod),
        target_id: String::new(),
    };
    let parent = cgroup_parent(cgroup, spec.qos, pod);
    let NamespaceOption { network, pid, ipc, .. } = namespaces;
    let mut annotations = Map::from([
        (CGROUP_PARENT.to_owned(), parent.clone()),
        (NAMESPACES.to_owned(), format!("{network} {pid} {ipc}")),
    ]);
    let mut hostname = String::new();
    if let PodNetwork::Bridge { bridge, address, gateway, mtu } = &spec.network {
        let network = cni::PodNetwork {
            bridge: bridge.to_string(),
            address: *address,
            gateway: *gateway,
            mtu: *mtu,
        };
        annotations.insert(cni::POD_NETWORK.to_owned(), json!(network).to_string());
        hostname = spec.hostname.to_string();
    }
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: spec.pod.name.to_string(),
            uid: pod.to_string(),
            namespace: spec.pod.namespace.to_string(),
            attempt,
        }),
        hostname,
        log_directory: log_directory(logs, &spec.pod, pod).display().to_string(),
        dns_config: Some(dns(&spec.resolv_conf)),
        labels: labels(&spec.pod, pod),
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: parent,
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                run_as_user: None,
                privileged: spec.privileged,
                seccomp: Some(profile(&Seccomp::RuntimeDefault)),
            }),
        }),
    }
}

/// What a container's creation needs to know of a sandbox that is there.
pub fn existing(found: &PodSandbox, logs: &Path) -> PodSandboxConfig {
    let metadata = found.metadata.clone().unwrap_or_default();
    let key = Key::new(metadata.namespace.as_str(), metadata.name.as_str());
    let pod = Uid::parse(&metadata.uid).unwrap_or(Uid::NONE);
    PodSandboxConfig {
        log_directory: log_directory(logs, &key, pod).display().to_string(),
        metadata: Some(metadata),
        labels: found.labels.clone(),
        annotations: found.annotations.clone(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: found.annotations.get(CGROUP_PARENT).cloned().unwrap_or_default(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(found)),
                ..LinuxSandboxSecurityContext::default()
            }),
        }),
        ..PodSandboxConfig::default()
    }
}

fn namespaces(found: &PodSandbox) -> NamespaceOption {
    let words = found.annotations.get(NAMESPACES).map(String::as_str).unwrap_or_default();
    let mut modes = words.split(' ').map(|mode| mode.parse().unwrap_or_default());
    let mut next = || modes.next().unwrap_or_default();
    NamespaceOption { network: next(), pid: next(), ipc: next(), target_id: String::new() }
}

/// The fields of a resolv.conf.
fn dns(resolv_conf: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        let list = match words.next() {
            Some("nameserver") => &mut dns.servers,
            Some("search") => &mut dns.searches,
            Some("options") => &mut dns.options,
            _ => continue,
        };
        list.extend(words.map(str::to_owned));
    }
    dns
}

/// `image` is the runtime's, by whose id the container is made; `target` the id of the container
/// whose processes it sees.
pub fn container(
    found: &PodSandbox,
    spec: &Container,
    image: &Image,
    target: Option<&str>,
) -> ContainerConfig {
    let mut namespaces = namespaces(found);
    if let Some(target) = target {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target.to_owned();
    }
    let mut labels: Map = found.labels.clone();
    labels.insert(CONTAINER_NAME.to_owned(), spec.name.to_string());
    let envs = spec.variables().cloned().map(|(key, value)| KeyValue { key, value });
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: spec.name.to_string(), attempt: spec.attempt }),
        image: Some(ImageSpec {
            image: image.id.clone(),
            user_specified_image: spec.image.to_string(),
        }),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.to_string(),
        envs: envs.collect(),
        mounts: spec.mounts.iter().map(mount).collect(),
        labels,
        annotations: Map::from([
            (RESTART_COUNT.to_owned(), spec.attempt.to_string()),
            (MESSAGE_PATH.to_owned(), spec.message.path.to_string()),
            (MESSAGE_POLICY.to_owned(), message_policy(spec).to_owned()),
        ]),
        log_path: log_path(&spec.name, spec.attempt),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(&spec.resources)),
            security_context: Some(security(&spec.security, &namespaces, image)),
        }),
    }
}

fn message_policy(spec: &Container) -> &'static str {
    if spec.message.or_log { FALLBACK } else { "File" }
}

fn mount(of: &Mount) -> messages::Mount {
    let propagation = match of.propagation {
        Propagation::Private => MountPropagation::Private,
        Propagation::HostToContainer => MountPropagation::HostToContainer,
        Propagation::Bidirectional => MountPropagation::Bidirectional,
    };
    messages::Mount {
        container_path: of.path.to_string(),
        host_path: of.source.to_string(),
        readonly: of.read_only,
        propagation: propagation.into(),
    }
}

fn resources(of: &Resources) -> LinuxContainerResources {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    LinuxContainerResources {
        cpu_period: signed(of.cpu_period),
        cpu_quota: signed(of.cpu_quota),
        cpu_shares: signed(of.cpu_shares),
        memory_limit_in_bytes: signed(of.memory_limit),
        oom_score_adj: of.oom_score.into(),
    }
}

fn security(
    of: &Security,
    namespaces: &NamespaceOption,
    image: &Image,
) -> LinuxContainerSecurityContext {
    let number = |value: Option<i64>| value.map(|value| Int64Value { value });
    let names = |list: &[&str]| -> Vec<String> {
        let shown = of.privileged || of.unmasked_proc;
        list.iter().filter(|_| !shown).map(|path| (*path).to_owned()).collect()
    };
    // A group alone is refused: who runs is said as well, which is whom the image names.
    let (user, username) = match number(of.user) {
        Some(user) => (Some(user), String::new()),
        None => (image.uid, image.username.clone()),
    };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: of.capabilities.add.clone(),
            drop_capabilities: of.capabilities.drop.clone(),
        }),
        privileged: of.privileged,
        namespace_options: Some(namespaces.clone()),
        run_as_user: user,
        run_as_group: number(of.group),
        run_as_username: username,
        readonly_rootfs: of.read_only,
        supplemental_groups: of.groups.clone(),
        no_new_privs: of.no_new_privileges,
        masked_paths: names(&MASKED),
        readonly_paths: names(&READ_ONLY),
        seccomp: Some(profile(&of.seccomp)),
    }
}

fn profile(seccomp: &Seccomp) -> SecurityProfile {
    let of = |kind: ProfileType, file: &str| SecurityProfile {
        profile_type: kind as i32,
        localhost_ref: file.to_owned(),
    };
    match seccomp {
        Seccomp::Unconfined => of(ProfileType::Unconfined, ""),
        Seccomp::RuntimeDefault => of(ProfileType::RuntimeDefault, ""),
        Seccomp::Localhost(file) => of(ProfileType::Localhost, file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Uid = Uid(0x0102_0304 << 96);

    #[test]
    fn a_container_learns_of_its_sandbox_what_the_sandbox_was_made_with() {
        let spec = Sandbox { qos: Qos::Burstable, ..Sandbox::of(Key::new("ns", "a")) };
        let made = sandbox((POD, &spec), 2, Path::new("/var/log/pods"), "/kubepods");
        let found = PodSandbox {
            id: "0".to_owned(),
            metadata: made.metadata.clone(),
            state: 0,
            labels: made.labels.clone(),
            annotations: made.annotations.clone(),
        };
        let again = existing(&found, Path::new("/var/log/pods"));
        let uid = "01020304-0000-0000-0000-000000000000";
        assert_eq!(again.log_directory, format!("/var/log/pods/ns_a_{uid}"));
        assert_eq!(again.log_directory, made.log_directory);
        let (again, made) = (again.linux.unwrap(), made.linux.unwrap());
        assert_eq!(again.cgroup_parent, format!("/kubepods/burstable/pod{uid}"));
        assert_eq!(again.cgroup_parent, made.cgroup_parent);
        let options = |linux: LinuxPodSandboxConfig| linux.security_context.unwrap();
        let network = options(made).namespace_options.unwrap();
        assert_eq!(network.network, NamespaceMode::Node as i32);
        assert_eq!(options(again).namespace_options, Some(network));
    }

    #[test]
    fn a_resolv_conf_is_taken_apart() {
        let dns = dns("nameserver 10.96.0.10\nsearch a b\noptions ndots:5 edns0\n");
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(dns.searches, ["a", "b"]);
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
    }

    #[test]
    fn who_runs_is_the_specs_word_and_else_the_images() {
        let image = Image { uid: Some(Int64Value { value: 8 }), ..Image::default() };
        let of = |user| Security { user, group: Some(1), ..Security::default() };
        let options = &NamespaceOption::default();
        assert_eq!(security(&of(Some(5)), options, &image).run_as_user.unwrap().value, 5);
        assert_eq!(security(&of(None), options, &image).run_as_user.unwrap().value, 8);
        assert_eq!(security(&of(None), options, &image).masked_paths.len(), MASKED.len());
        let all = Security { privileged: true, ..Security::default() };
        assert!(security(&all, options, &image).masked_paths.is_empty());
    }
}
