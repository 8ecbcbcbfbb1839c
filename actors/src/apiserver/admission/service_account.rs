//! ServiceAccount (plugin/pkg/admission/serviceaccount): a pod runs as an account that exists, and
//! finds its token where every client looks for it.

use super::{Cache, State, fields};
use crate::apiserver::errors;
use crate::apiserver::generated::with_letters;
use crate::objects::kinds::Fields;
use crate::objects::{Key, Kind, MIRROR, Object, PodSpec};
use crate::ports::api::Error;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    LocalObjectReference, ObjectFieldSelector, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use kubesim_runtime::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where in-cluster clients look (`DefaultAPITokenMountPath`).
const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
/// An hour and seven seconds (`WarnOnlyBoundTokenExpirationSeconds`).
const EXPIRES: i64 = 3607;
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

fn mirrors(pod: &Object) -> bool {
    pod.meta.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
}

pub(super) fn complete(new: &mut Object, state: &mut State<'_>) -> Result<(), Error> {
    if mirrors(new) || new.kind() != Kind::Pod {
        return Ok(());
    }
    let (namespace, name) = (new.key.namespace.clone(), new.key.name.clone());
    let crate::objects::Body::Pod(pod) = &mut new.body else { return Ok(()) };
    let asked = pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty());
    let asked = asked.unwrap_or("default").to_owned();
    let account = account(state.cache, &name, &namespace, &asked)?;
    pod.edit(|spec, _| {
        let spec = Arc::make_mut(spec);
        // The older name of the field says the same (pkg/apis/core/v1/conversion.go).
        spec.service_account_name = Some(asked.clone());
        spec.service_account = Some(asked);
        let mounts = spec.automount_service_account_token;
        let mounts =
            mounts.or(account.at("automountServiceAccountToken").and_then(|v| v.as_bool()));
        if mounts.unwrap_or(true) {
            mount(spec, state.rng);
        }
        let secrets: Vec<LocalObjectReference> = account.part("imagePullSecrets");
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) && !secrets.is_empty() {
            spec.image_pull_secrets = Some(secrets);
        }
    });
    Ok(())
}

fn account<'a>(
    cache: &'a Cache,
    pod: &str,
    namespace: &str,
    name: &str,
) -> Result<&'a Fields, Error> {
    let found = cache.object(Kind::ServiceAccount, &Key::new(namespace, name));
    found.and_then(|account| fields(account)).ok_or_else(|| {
        let why = format_args!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        errors::forbidden(Kind::Pod, pod, why)
    })
}

/// Every container that has nothing there gets the volume; the pod gets it if one does.
fn mount(spec: &mut PodSpec, rng: &mut Rng) {
    let volumes = spec.volumes.iter().flatten();
    let known = volumes.map(|volume| &volume.name).find(|name| name.starts_with(VOLUME)).cloned();
    let name = known.clone().unwrap_or_else(|| with_letters(VOLUME, rng));
    let mut needed = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().any(|mount| mount.mount_path == MOUNTED) {
            continue;
        }
        needed = true;
        mounts.push(VolumeMount {
            name: name.clone(),
            read_only: Some(true),
            mount_path: MOUNTED.to_owned(),
            ..VolumeMount::default()
        });
    }
    if needed && known.is_none() {
        let projected = Some(token());
        let volume = Volume { name, projected, ..Volume::default() };
        spec.volumes.get_or_insert_default().push(volume);
    }
}

/// The token, the authority to check the server by, and the namespace (`TokenVolumeSource`).
fn token() -> ProjectedVolumeSource {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(EXPIRES),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath {
            key: "ca.crt".to_owned(),
            path: "ca.crt".to_owned(),
            mode: None,
        }]),
        ..ConfigMapProjection::default()
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let namespace = DownwardAPIProjection { items: Some(vec![namespace]) };
    let part = VolumeProjection::default;
    ProjectedVolumeSource {
        default_mode: Some(0o644),
        sources: Some(vec![
            VolumeProjection { service_account_token: Some(token), ..part() },
            VolumeProjection { config_map: Some(authority), ..part() },
            VolumeProjection { downward_api: Some(namespace), ..part() },
        ]),
    }
}

pub(super) fn check(new: &Object, cache: &Cache) -> Result<(), Error> {
    let Some((spec, _)) = new.pod() else { return Ok(()) };
    let name = &new.key.name;
    let refused = |why: String| Err(errors::forbidden(Kind::Pod, name, why));
    if mirrors(new) {
        return match mirror(spec) {
            Some(why) => refused(format!("a mirror pod may not {why}")),
            None => Ok(()),
        };
    }
    let namespace = &new.key.namespace;
    let asked = spec.service_account_name.as_deref().unwrap_or_default();
    account(cache, name, namespace, asked)?;
    let Some(held) = cache.object(Kind::ServiceAccount, &Key::new(namespace.clone(), asked)) else {
        return Ok(());
    };
    let enforced = held.meta.annotations.as_ref().and_then(|all| all.get(ENFORCE));
    // As Go's ParseBool.
    let enforced = enforced
        .is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
    match fields(held).filter(|_| enforced).and_then(|account| foreign(spec, asked, account)) {
        Some(why) => refused(why),
        None => Ok(()),
    }
}

/// A kubelet's own pod has nobody's rights.
fn mirror(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("reference service accounts");
    }
    let volumes = || spec.volumes.iter().flatten();
    let mut sources = volumes().filter_map(|v| v.projected.as_ref()?.sources.as_ref()).flatten();
    if volumes().any(|volume| volume.secret.is_some())
        || containers(spec).any(|(_, container)| secrets(container).next().is_some())
    {
        return Some("reference secrets");
    }
    sources
        .any(|source| source.service_account_token.is_some())
        .then_some("use ServiceAccountToken volume projections")
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = (&'static str, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|one| ("init container", one));
    init.chain(spec.containers.iter().map(|one| ("container", one)))
}

/// The secrets of a container's environment: by what each is asked for, and its name.
fn secrets(container: &Container) -> impl Iterator<Item = (String, &str)> {
    let one = container.env.iter().flatten().filter_map(|variable| {
        let key = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((format!("with envVar {}", variable.name), key.name.as_str()))
    });
    let all = container.env_from.iter().flatten().filter_map(|from| {
        Some(("with envFrom".to_owned(), from.secret_ref.as_ref()?.name.as_str()))
    });
    one.chain(all)
}

/// Of an account that says so, a pod has only the secrets that the account lists
/// (`limitSecretReferences`).
fn foreign(spec: &PodSpec, account: &str, fields: &Fields) -> Option<String> {
    let names = |path: &str| -> BTreeSet<String> {
        let all = fields.list(path).iter();
        all.filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
    };
    let (mountable, pulled) = (names("secrets"), names("imagePullSecrets"));
    let end = format!("is not allowed because service account {account} does not reference that");
    for volume in spec.volumes.iter().flatten() {
        let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref());
        if let Some(secret) = secret.filter(|secret| !mountable.contains(*secret)) {
            return Some(format!("volume with secret.secretName=\"{secret}\" {end} secret"));
        }
    }
    for (what, container) in containers(spec) {
        if let Some((how, secret)) = secrets(container).find(|(_, name)| !mountable.contains(*name))
        {
            let name = &container.name;
            return Some(format!(
                "{what} {name} {how} referencing secret.secretName=\"{secret}\" {end} secret"
            ));
        }
    }
    for (at, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !pulled.contains(&secret.name) {
            let name = &secret.name;
            return Some(format!("imagePullSecrets[{at}].name=\"{name}\" {end} imagePullSecret"));
        }
    }
    None
}
