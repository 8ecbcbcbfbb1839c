//! `restricted`: also what keeps a program small within its cage (policy/check_*.go).

use super::baseline;
use super::checks::{Check, Pod, Seen, Violation, containers, plural, quoted, setters};
use k8s_openapi::api::core::v1::Volume;
use std::collections::BTreeSet;

/// By upstream's ids, each from its version on.
pub static CHECKS: [(u64, Check); 6] = [
    (8, privilege_escalation),
    (22, capabilities),
    (0, volumes),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp),
];

/// check_allowPrivilegeEscalation.go
pub fn privilege_escalation(pod: Pod<'_>) -> Option<Violation> {
    let allowed = |one: Seen<'_>| one.security.and_then(|own| own.allow_privilege_escalation);
    let names = pod.named(|one| allowed(one) != Some(false));
    if names.is_empty() || pod.spared() {
        return None;
    }
    let who = containers(&names);
    let detail = format!("{who} must set securityContext.allowPrivilegeEscalation=false");
    Violation::new("allowPrivilegeEscalation != false", detail)
}

/// check_capabilities_restricted.go: all are dropped, and one may be added.
pub fn capabilities(pod: Pod<'_>) -> Option<Violation> {
    if pod.spared() {
        return None;
    }
    let keeping = pod.named(|one| {
        let own = one.security.and_then(|own| own.capabilities.as_ref());
        let mut dropped = own.and_then(|own| own.drop.as_ref()).into_iter().flatten();
        !dropped.any(|one| one == "ALL")
    });
    let kept = (!keeping.is_empty()).then(|| {
        let who = containers(&keeping);
        format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]")
    });
    let added = baseline::added(pod, &["NET_BIND_SERVICE"]);
    let what: Vec<_> = kept.into_iter().chain(added).collect();
    (!what.is_empty())
        .then(|| Violation::new("unrestricted capabilities", what.join("; ")))
        .flatten()
}

/// check_restrictedVolumes.go
pub fn volumes(pod: Pod<'_>) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec.volumes.iter().flatten() {
        if let Some(kind) = restricted(volume) {
            names.push(volume.name.as_str());
            kinds.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let who = format!("{} {}", plural("volume", names.len()), quoted(names));
    let what = format!("{} {}", plural("restricted volume type", kinds.len()), quoted(kinds));
    Violation::new("restricted volume types", format!("{who} {uses} {what}"))
}

/// The type of a volume that is none of those that are fine; of an image, too, since 1.33 (pull
/// request 130394), whatever the version of the standard.
fn restricted(volume: &Volume) -> Option<&'static str> {
    let fine = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if fine {
        return None;
    }
    let kinds = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    let kind = kinds.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind);
    Some(kind.unwrap_or("unknown"))
}

/// check_runAsNonRoot.go: who refuses is named first, and only then who is silent.
pub fn run_as_non_root(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let own = pod.security().and_then(|own| own.run_as_non_root);
    let set = |one: Seen<'_>| one.security.and_then(|own| own.run_as_non_root);
    let who = setters(own == Some(false), &pod.named(|one| set(one) == Some(false)));
    if !who.is_empty() {
        let who = who.join(" and ");
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Violation::new(REASON, detail);
    }
    let silent = pod.named(|one| set(one).is_none());
    if silent.is_empty() || own == Some(true) {
        return None;
    }
    let who = containers(&silent);
    Violation::new(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

/// check_runAsUser.go
pub fn run_as_user(pod: Pod<'_>) -> Option<Violation> {
    let own = pod.security().and_then(|own| own.run_as_user) == Some(0);
    let names = pod.named(|one| one.security.and_then(|own| own.run_as_user) == Some(0));
    let who = setters(own, &names);
    if who.is_empty() {
        return None;
    }
    let who = who.join(" and ");
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

/// check_seccompProfile_restricted.go: a profile must be named, by the pod or by each container.
pub fn seccomp(pod: Pod<'_>) -> Option<Violation> {
    if pod.spared() {
        return None;
    }
    if let Some(bad) = baseline::seccomp_fields(pod) {
        return Some(bad);
    }
    let own = pod.security().is_some_and(|own| own.seccomp_profile.is_some());
    let set = |one: Seen<'_>| one.security.is_some_and(|own| own.seccomp_profile.is_some());
    let silent = pod.named(|one| !set(one));
    if silent.is_empty() || own {
        return None;
    }
    let who = containers(&silent);
    let what = "securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    Violation::new("seccompProfile", format!("pod or {who} must set {what}"))
}
