//! Which objects are a node's business: those that the pods bound to it refer to (kubernetes
//! `plugin/pkg/auth/authorizer/node/graph.go`, `pkg/api/v1/pod/util.go`). Upstream keeps a graph;
//! here the pods are asked, those of one namespace for what is in one.

use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key, Kind, MIRROR, Object};
use serde_json::Value;
use std::collections::BTreeSet;

pub fn related(cache: &Cache, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
    match kind {
        Kind::VolumeAttachment => {
            let there = cache.object(kind, &Key::cluster(name));
            let fields = there.and_then(|there| Some(&there.plain()?.fields));
            fields.is_some_and(|fields| fields.text("spec.nodeName") == node)
        }
        Kind::Pod => {
            let pod = cache.object(kind, &Key::new(namespace, name));
            pod.is_some_and(|pod| bound_to(pod, node))
        }
        Kind::PersistentVolume => claims(cache, node, name),
        Kind::Secret => {
            pods(cache, node, namespace).iter().any(|pod| refers(pod, kind, name))
                || secret_of_a_volume(cache, node, namespace, name)
        }
        _ => pods(cache, node, namespace).iter().any(|pod| refers(pod, kind, name)),
    }
}

fn bound_to(pod: &Object, node: &str) -> bool {
    pod.pod_facts().is_some_and(|facts| facts.node == node)
}

/// Of a namespace, those that are bound to the node.
fn pods<'a>(cache: &'a Cache, node: &str, namespace: &str) -> Vec<&'a Object> {
    let Some(view) = cache.views.get(&Kind::Pod) else { return Vec::new() };
    let first = Key::new(namespace, "");
    let all = view.iter_from(&first).map(|(key, pod)| (key, &**pod));
    let theirs = all.take_while(|(key, _)| key.namespace == namespace).map(|(_, pod)| pod);
    // A mirror stands for a file on the node, and gives it nothing: a node makes it itself.
    theirs.filter(|pod| bound_to(pod, node) && pod.annotation(MIRROR).is_none()).collect()
}

/// Whether a claim to the volume is one of the node's.
fn claims(cache: &Cache, node: &str, volume: &str) -> bool {
    let there = cache.object(Kind::PersistentVolume, &Key::cluster(volume));
    let Some(fields) = there.and_then(|there| Some(&there.plain()?.fields)) else { return false };
    let (namespace, name) =
        (fields.text("spec.claimRef.namespace"), fields.text("spec.claimRef.name"));
    !name.is_empty()
        && pods(cache, node, namespace)
            .iter()
            .any(|pod| refers(pod, Kind::PersistentVolumeClaim, name))
}

/// What a volume is mounted with, in its own namespace or its claim's.
fn secret_of_a_volume(cache: &Cache, node: &str, namespace: &str, name: &str) -> bool {
    let view = cache.views.get(&Kind::PersistentVolume);
    view.into_iter().flat_map(|view| view.iter()).any(|(key, volume)| {
        let Some(plain) = volume.plain() else { return false };
        let theirs = plain.fields.text("spec.claimRef.namespace");
        let mut found = false;
        walk(&Value::Object(plain.fields.0.clone()), &mut |key, value| {
            // `secretRef`, and of a CSI driver `nodePublishSecretRef` and its like.
            let secret = key.ends_with("ecretRef") || key == "azureFile";
            let text = |field: &str| value[field].as_str().unwrap_or_default();
            let names = [text("name"), text("secretName")];
            let of = [text("namespace"), text("secretNamespace")];
            let of = of.into_iter().find(|of| !of.is_empty()).unwrap_or(theirs);
            found |= secret && names.contains(&name) && of == namespace;
        });
        found && claims(cache, node, &key.name)
    })
}

/// Whether a pod uses the object of this name in its namespace.
fn refers(pod: &Object, kind: Kind, name: &str) -> bool {
    names(pod, kind).contains(name)
}

/// The objects of a kind that a pod uses, by their names.
pub fn names(pod: &Object, kind: Kind) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Some((spec, _)) = pod.pod() else { return names };
    if kind == Kind::ServiceAccount {
        // Who says nothing runs as this one.
        let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty());
        names.insert(account.unwrap_or("default").to_owned());
        return names;
    }
    let spec = serde_json::to_value(&**spec).unwrap_or_default();
    walk(&spec, &mut |key, value| {
        let fields: &[&str] = match (kind, key) {
            (Kind::Secret, "secretKeyRef" | "secretRef" | "nodePublishSecretRef") => &["name"],
            (Kind::Secret, "secret") => &["name", "secretName"],
            (Kind::Secret, "azureFile") => &["secretName"],
            (Kind::Secret, "imagePullSecrets") => &["name"],
            (Kind::ConfigMap, "configMapKeyRef" | "configMapRef" | "configMap") => &["name"],
            (Kind::PersistentVolumeClaim, "persistentVolumeClaim") => &["claimName"],
            (Kind::PersistentVolumeClaim, "volumes") if !value["ephemeral"].is_null() => {
                let volume = value["name"].as_str().unwrap_or_default();
                names.insert(format!("{}-{volume}", pod.key.name));
                return;
            }
            _ => return,
        };
        let told = fields.iter().filter_map(|field| value[field].as_str());
        names.extend(told.filter(|name| !name.is_empty()).map(str::to_owned));
    });
    names
}

/// Each object below, with the name of the field that holds it or its list.
fn walk(value: &Value, see: &mut dyn FnMut(&str, &Value)) {
    for (key, below) in value.as_object().into_iter().flatten() {
        for one in below.as_array().map_or(std::slice::from_ref(below), Vec::as_slice) {
            if one.is_object() {
                see(key, one);
                walk(one, see);
            }
        }
    }
}
