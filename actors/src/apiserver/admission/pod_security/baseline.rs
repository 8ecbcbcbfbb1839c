//! `baseline`: nothing by which a container leaves its node's cage (policy/check_*.go).

use super::annotation;
use super::checks::{Check, Pod, Violation, containers, plural, quoted, setters};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, SELinuxOptions, SeccompProfile, WindowsSecurityContextOptions,
};
use std::collections::BTreeSet;

/// By upstream's ids, each with the version from which on a check of `restricted` stands in for it.
pub static CHECKS: [(Option<u64>, Check); 11] = [
    (None, app_armor),
    (Some(22), capabilities),
    (None, host_namespaces),
    (Some(0), host_paths),
    (None, host_ports),
    (None, privileged),
    (None, proc_mount),
    (None, se_linux),
    (Some(19), seccomp),
    (None, sysctls),
    (None, host_process),
];

/// Annotations of before there was a field.
pub const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Types of both kinds of profiles.
const PROFILES: [&str; 2] = ["RuntimeDefault", "Localhost"];

/// check_appArmorProfile.go: by field, and by annotation as before 1.30.
pub fn app_armor(pod: Pod<'_>) -> Option<Violation> {
    fn bad(profile: Option<&AppArmorProfile>) -> Option<&str> {
        profile.map(|profile| profile.type_.as_str()).filter(|kind| !PROFILES.contains(kind))
    }
    let own = pod.security().and_then(|own| bad(own.app_armor_profile.as_ref()));
    let mut types = BTreeSet::from_iter(own);
    let names = pod.named(|one| {
        let bad = one.security.and_then(|own| bad(own.app_armor_profile.as_ref()));
        types.extend(bad);
        bad.is_some()
    });
    let annotations = pod.meta.annotations.iter().flatten().filter(|(key, value)| {
        let fine = ["", "runtime/default"].contains(&value.as_str());
        key.starts_with(APP_ARMOR) && !fine && !value.starts_with("localhost/")
    });
    let mut annotations: Vec<_> =
        annotations.map(|(key, value)| format!("{key}={value:?}")).collect();
    annotations.sort();
    let mut who = setters(own.is_some(), &names);
    if !annotations.is_empty() {
        who.push(plural("annotation", annotations.len()));
    }
    if who.is_empty() {
        return None;
    }
    let what: Vec<&str> =
        types.iter().copied().chain(annotations.iter().map(String::as_str)).collect();
    let reason = match &what[..] {
        [_] => "forbidden AppArmor profile",
        _ => "forbidden AppArmor profiles",
    };
    let (who, what) = (who.join(" and "), quoted(what));
    Violation::new(reason, format!("{who} must not set AppArmor profile type to {what}"))
}

/// What a runtime gives by itself, but for `NET_RAW`.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// check_capabilities_baseline.go
pub fn capabilities(pod: Pod<'_>) -> Option<Violation> {
    let what = added(pod, &CAPABILITIES)?;
    Violation::new("non-default capabilities", what)
}

/// Who adds others than these.
pub fn added(pod: Pod<'_>, allowed: &[&str]) -> Option<String> {
    let mut others = BTreeSet::<&str>::new();
    let names = pod.named(|one| {
        let own = one.security.and_then(|own| own.capabilities.as_ref());
        let all = own.and_then(|own| own.add.as_ref()).into_iter().flatten();
        let bad: Vec<_> = all.map(String::as_str).filter(|one| !allowed.contains(one)).collect();
        others.extend(bad.iter().copied());
        !bad.is_empty()
    });
    let (who, what) = (containers(&names), quoted(others));
    (!names.is_empty())
        .then(|| format!("{who} must not include {what} in securityContext.capabilities.add"))
}

/// check_hostNamespaces.go
pub fn host_namespaces(pod: Pod<'_>) -> Option<Violation> {
    let asked = [
        (pod.spec.host_network, "hostNetwork=true"),
        (pod.spec.host_pid, "hostPID=true"),
        (pod.spec.host_ipc, "hostIPC=true"),
    ];
    let asked = asked.into_iter().filter(|(asked, _)| *asked == Some(true));
    let asked: Vec<_> = asked.map(|(_, text)| text).collect();
    (!asked.is_empty()).then(|| Violation::new("host namespaces", asked.join(", "))).flatten()
}

/// check_hostPathVolumes.go
pub fn host_paths(pod: Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let names: Vec<_> = volumes.map(|volume| volume.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let what = plural("volume", names.len());
    Violation::new("hostPath volumes", format!("{what} {}", quoted(names)))
}

/// check_hostPorts.go: the ports in the order of their digits.
pub fn host_ports(pod: Pod<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::<String>::new();
    let names = pod.named(|one| {
        let mut bad = one.ports.iter().filter_map(|port| port.host_port).filter(|port| *port != 0);
        let first = bad.next();
        ports.extend(first.into_iter().chain(bad).map(|port| port.to_string()));
        first.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    let use_ = if names.len() == 1 { "uses" } else { "use" };
    let what = plural("hostPort", ports.len());
    let ports: Vec<_> = ports.into_iter().collect();
    Violation::new("hostPort", format!("{who} {use_} {what} {}", ports.join(", ")))
}

/// check_privileged.go
pub fn privileged(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|one| one.security.and_then(|own| own.privileged) == Some(true));
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    Violation::new("privileged", format!("{who} must not set securityContext.privileged=true"))
}

/// check_procMount.go
pub fn proc_mount(pod: Pod<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::<&str>::new();
    let names = pod.named(|one| {
        let kind = one.security.and_then(|own| own.proc_mount.as_deref());
        let bad = kind.filter(|kind| *kind != "Default");
        kinds.extend(bad);
        bad.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let (who, what) = (containers(&names), quoted(kinds));
    Violation::new("procMount", format!("{who} must not set securityContext.procMount to {what}"))
}

/// check_seLinuxOptions.go
pub fn se_linux(pod: Pod<'_>) -> Option<Violation> {
    fn set(text: &Option<String>) -> bool {
        text.as_ref().is_some_and(|text| !text.is_empty())
    }
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let own = pod.security().and_then(|own| own.se_linux_options.as_ref());
    let refused = |one: &SELinuxOptions| {
        let kind = one.type_.as_deref().unwrap_or_default();
        let fine = ["", "container_t", "container_init_t", "container_kvm_t"].contains(&kind)
            || pod.since(31) && kind == "container_engine_t";
        (!fine, set(&one.user), set(&one.role))
    };
    let mut bad = |one: Option<&SELinuxOptions>| {
        let Some(one) = one else { return false };
        let (bad_type, bad_user, bad_role) = refused(one);
        types.extend(one.type_.clone().filter(|_| bad_type));
        user |= bad_user;
        role |= bad_role;
        bad_type || bad_user || bad_role
    };
    let own = bad(own);
    let names = pod.named(|one| bad(one.security.and_then(|own| own.se_linux_options.as_ref())));
    let who = setters(own, &names);
    if who.is_empty() {
        return None;
    }
    let count = types.len();
    let kinds = (count > 0).then(|| format!("{} {}", plural("type", count), quoted(types)));
    let user = user.then(|| "user may not be set".to_owned());
    let role = role.then(|| "role may not be set".to_owned());
    let what: Vec<_> = kinds.into_iter().chain(user).chain(role).collect();
    let (who, what) = (who.join(" and "), what.join("; "));
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {what}");
    Violation::new("seLinuxOptions", detail)
}

/// check_seccompProfile_baseline.go: by annotation until there was a field.
pub fn seccomp(pod: Pod<'_>) -> Option<Violation> {
    if pod.since(19) {
        return seccomp_fields(pod);
    }
    let mut found = BTreeSet::new();
    let mut look = |key: &str| {
        let value = annotation(pod.meta, key);
        let there = pod.meta.annotations.as_ref().is_some_and(|all| all.contains_key(key));
        let fine = ["runtime/default", "docker/default"].contains(&value);
        if there && !fine && !value.starts_with("localhost/") {
            found.insert(format!("{key}={value:?}"));
        }
    };
    look(SECCOMP_OF_POD);
    for name in pod.named(|_| true) {
        look(&format!("{SECCOMP_OF_CONTAINER}{name}"));
    }
    if found.is_empty() {
        return None;
    }
    let what = plural("annotation", found.len());
    let found: Vec<_> = found.into_iter().collect();
    Violation::new("seccompProfile", format!("forbidden {what} {}", found.join(", ")))
}

/// A profile, if one is named, is a confining one.
pub fn seccomp_fields(pod: Pod<'_>) -> Option<Violation> {
    fn bad(profile: Option<&SeccompProfile>) -> Option<&str> {
        profile.map(|profile| profile.type_.as_str()).filter(|kind| !PROFILES.contains(kind))
    }
    let own = pod.security().and_then(|own| bad(own.seccomp_profile.as_ref()));
    let mut types = BTreeSet::from_iter(own);
    let names = pod.named(|one| {
        let bad = one.security.and_then(|own| bad(own.seccomp_profile.as_ref()));
        types.extend(bad);
        bad.is_some()
    });
    let who = setters(own.is_some(), &names);
    if who.is_empty() {
        return None;
    }
    let (who, what) = (who.join(" and "), quoted(types));
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {what}");
    Violation::new("seccompProfile", detail)
}

/// Those of the network namespace, and one that does no harm; each from its version on.
const SYSCTLS: [(u64, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

/// check_sysctls.go
pub fn sysctls(pod: Pod<'_>) -> Option<Violation> {
    let fine =
        |name: &str| SYSCTLS.iter().any(|(since, known)| pod.since(*since) && *known == name);
    let all = pod.security().and_then(|own| own.sysctls.as_ref()).into_iter().flatten();
    let bad: Vec<_> = all.map(|one| one.name.as_str()).filter(|name| !fine(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", "))).flatten()
}

/// check_windowsHostProcess.go
pub fn host_process(pod: Pod<'_>) -> Option<Violation> {
    fn asks(own: Option<&WindowsSecurityContextOptions>) -> bool {
        own.and_then(|own| own.host_process) == Some(true)
    }
    let own = asks(pod.security().and_then(|own| own.windows_options.as_ref()));
    let names = pod.named(|one| asks(one.security.and_then(|own| own.windows_options.as_ref())));
    let who = setters(own, &names);
    if who.is_empty() {
        return None;
    }
    let who = who.join(" and ");
    let what = "must not set securityContext.windowsOptions.hostProcess=true";
    Violation::new("hostProcess", format!("{who} {what}"))
}
