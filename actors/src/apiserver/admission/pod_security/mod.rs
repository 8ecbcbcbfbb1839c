//! PodSecurity (KEP-2579, staging/src/k8s.io/pod-security-admission): what the pods of a namespace
//! may ask of their nodes. The namespace's labels say to which standard they are held; without
//! labels to none, as upstream's configuration is if nobody writes one.
//!
//! `policy` reads the labels, `checks` holds a pod against a standard, `baseline` and `restricted`
//! are the standards.

mod baseline;
mod checks;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;

use super::{Cache, fields};
use crate::apiserver::errors;
use crate::objects::{Key, Kind, Object, ObjectMeta, PodSpec};
use crate::ports::api::Error;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use policy::{Labels, Policy};

/// Judges a new pod or a changed one, and the labels of a namespace.
pub(super) fn check(new: &Object, old: Option<&Object>, cache: &Cache) -> Result<(), Error> {
    if new.kind() == Kind::Namespace {
        return namespace(new, old);
    }
    let Some((spec, _)) = new.pod() else { return Ok(()) };
    if old.is_some_and(|old| !significant(new, old)) {
        return Ok(());
    }
    let (policy, _) = Policy::of(labels(new, cache));
    match checks::violations(policy.enforce, &new.meta, spec) {
        None => Ok(()),
        Some(what) => {
            let why = format_args!("violates PodSecurity \"{}\": {what}", policy.enforce);
            Err(errors::forbidden(Kind::Pod, &new.key.name, why))
        }
    }
}

/// A namespace says nothing that cannot be read, unless it said so before (`ValidateNamespace`,
/// admission/admission.go).
fn namespace(new: &Object, old: Option<&Object>) -> Result<(), Error> {
    let causes = |object: &Object| Policy::of(object.meta.labels.as_ref()).1;
    if old.is_some_and(|old| causes(old).into_list() == causes(new).into_list()) {
        return Ok(());
    }
    errors::unless_valid(causes(new), Kind::Namespace, &new.key.name)
}

/// What a client is told of a pod, or of something that makes pods, that was let in
/// (`ValidatePod`, `ValidatePodController`).
pub fn warnings(new: &Object, old: Option<&Object>, cache: &Cache) -> Vec<String> {
    let labels = labels(new, cache);
    if labels.is_none() {
        return Vec::new();
    }
    if let Some((spec, _)) = new.pod() {
        let looked_at = old.is_none_or(|old| significant(new, old));
        return looked_at.then(|| warning(&new.meta, spec, labels)).flatten().into_iter().collect();
    }
    let Some(template) = template(new) else { return Vec::new() };
    let (meta, spec) = (template.metadata.unwrap_or_default(), template.spec.unwrap_or_default());
    warning(&meta, &spec, labels).into_iter().collect()
}

/// What a namespace with these labels says of such a pod.
fn warning(meta: &ObjectMeta, spec: &PodSpec, labels: Option<&Labels>) -> Option<String> {
    let (policy, _) = Policy::of(labels);
    let what = checks::violations(policy.warn, meta, spec)?;
    Some(format!("would violate PodSecurity \"{}\": {what}", policy.warn))
}

fn labels<'a>(object: &Object, cache: &'a Cache) -> Option<&'a Labels> {
    let namespace = Key::cluster(object.key.namespace.clone());
    cache.object(Kind::Namespace, &namespace)?.meta.labels.as_ref()
}

/// `DefaultPodSpecExtractor` (admission/admission.go).
fn template(object: &Object) -> Option<PodTemplateSpec> {
    let path = match object.kind() {
        Kind::Deployment => return object.deployment().map(|(spec, _)| spec.template.clone()),
        Kind::ReplicaSet => return object.replica_set()?.0.template.clone(),
        Kind::ReplicationController | Kind::StatefulSet | Kind::DaemonSet | Kind::Job => {
            "spec.template"
        }
        Kind::CronJob => "spec.jobTemplate.spec.template",
        Kind::PodTemplate => "template",
        _ => return None,
    };
    fields(object)?.part(path)
}

/// Whether a pod changed in what may change and is of interest: images, what containers there are,
/// and the annotations that once named seccomp profiles (`isSignificantPodUpdate`).
fn significant(new: &Object, old: &Object) -> bool {
    let (Some((spec, _)), Some((was, _))) = (new.pod(), old.pod()) else { return true };
    let annotated = |key: &str| annotation(&new.meta, key) != annotation(&old.meta, key);
    let changed = |name: &str, image: &Option<String>, was: &Option<String>| {
        image.as_deref().unwrap_or_default() != was.as_deref().unwrap_or_default()
            || annotated(&format!("{}{name}", baseline::SECCOMP_OF_CONTAINER))
    };
    let none = Vec::new();
    let init = spec.init_containers.as_ref().unwrap_or(&none);
    let init_was = was.init_containers.as_ref().unwrap_or(&none);
    if annotated(baseline::SECCOMP_OF_POD)
        || spec.containers.len() != was.containers.len()
        || init.len() != init_was.len()
    {
        return true;
    }
    let mut pairs = spec.containers.iter().zip(&was.containers).chain(init.iter().zip(init_was));
    pairs.any(|(one, was)| changed(&one.name, &one.image, &was.image))
        || spec.ephemeral_containers.iter().flatten().any(|one| {
            let mut all = was.ephemeral_containers.iter().flatten();
            let was = all.find(|was| was.name == one.name);
            was.is_none_or(|was| changed(&one.name, &one.image, &was.image))
        })
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> &'a str {
    let all = meta.annotations.as_ref();
    all.and_then(|all| all.get(key)).map(String::as_str).unwrap_or_default()
}
