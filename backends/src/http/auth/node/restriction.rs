//! What a node may write: itself, and what it runs (kubernetes
//! `plugin/pkg/admission/noderestriction/admission.go`). Its authorizer has let the request in by
//! its path; here it is looked at.

use crate::http::Inner;
use crate::http::auth::User;
use crate::http::read::initializing;
use crate::http::resources::Sub;
use crate::http::status::Failure;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key, Kind, MIRROR, Object, Uid};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a write makes of what: `old` to nothing is a deletion, or an eviction.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub sub: Option<Sub>,
    pub old: Option<&'a Object>,
    pub new: Option<&'a Object>,
}

impl Inner {
    /// Whether a user, if it is a node or a node's netd, may write this.
    pub fn restrict(&self, user: &User, change: Change<'_>) -> Result<(), Failure> {
        let Some(object) = change.new.or(change.old) else { return Ok(()) };
        let (kind, name) = (object.kind(), &object.key.name);
        if let (Some(node), Kind::Subnet) = (super::netd_of(user), kind) {
            let same = same(node, name, "subnet");
            return same.map_err(|why| Failure::forbidden(kind, name, &why));
        }
        let Some(node) = super::of(user) else { return Ok(()) };
        let why = match kind {
            _ if node.is_empty() => {
                Err(format!("could not determine node from user {:?}", user.name))
            }
            Kind::Pod => {
                let state = self.state.borrow();
                let cache = state.history.cache().ok_or_else(initializing)?;
                pod(cache, node, change)
            }
            Kind::Node => itself(node, name, change),
            Kind::PersistentVolumeClaim => claim(node, change),
            Kind::Lease => same(node, name, "node lease"),
            Kind::CSINode => same(node, name, "CSINode"),
            _ => Ok(()),
        };
        why.map_err(|why| Failure::forbidden(kind, name, &why))
    }

    /// A node asks for tokens of its pods only.
    pub fn restrict_token(&self, user: &User, account: &Key, asked: &Value) -> Result<(), Failure> {
        let Some(node) = super::of(user) else { return Ok(()) };
        let bound = &asked["spec"]["boundObjectRef"];
        let text = |field: &str| bound[field].as_str().unwrap_or_default();
        let refused = |why: &str| Failure::forbidden(Kind::ServiceAccount, &account.name, why);
        if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
            return Err(refused("node requested token not bound to a pod"));
        }
        if text("uid").is_empty() {
            return Err(refused("node requested token with a pod binding without a uid"));
        }
        let state = self.state.borrow();
        let cache = state.history.cache().ok_or_else(initializing)?;
        let key = Key::new(account.namespace.clone(), text("name"));
        let pod = cache.object(Kind::Pod, &key);
        let pod = pod.ok_or_else(|| Failure::not_found(Kind::Pod, text("name")))?;
        if Uid::parse(text("uid")) != Some(pod.uid) {
            return Err(refused(&format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The \
                 object might have been deleted and then recreated",
                text("uid")
            )));
        }
        if !runs(pod, node) {
            let why = "node requested token bound to a pod scheduled on a different node";
            return Err(refused(why));
        }
        Ok(())
    }
}

fn runs(pod: &Object, node: &str) -> bool {
    pod.pod_facts().is_some_and(|facts| facts.node == node)
}

fn same(node: &str, name: &str, what: &str) -> Result<(), String> {
    if name == node {
        return Ok(());
    }
    Err(format!("can only access {what} with the same name as the requesting node"))
}

fn pod(cache: &Cache, node: &str, change: Change<'_>) -> Result<(), String> {
    match (change.sub, change.old, change.new) {
        (None, None, Some(new)) => mirror(cache, node, new),
        (None, Some(old), None) if !runs(old, node) => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (None, Some(_), Some(_)) => Err(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
        (Some(Sub::Eviction), Some(old), _) if !runs(old, node) => {
            Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        (Some(Sub::Status), Some(old), _) if !runs(old, node) => Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        )),
        (Some(Sub::Status), Some(old), Some(new)) if labels(Some(old)) != labels(Some(new)) => {
            Err(format!("node {node:?} cannot update labels through pod status"))
        }
        (None | Some(Sub::Status | Sub::Eviction), ..) => Ok(()),
        (Some(sub), ..) => Err(format!(
            "unexpected pod subresource {:?}, only 'status' and 'eviction' are allowed",
            sub.name()
        )),
    }
}

/// The one pod that a node makes: that of a file on it, which uses nothing of the API.
fn mirror(cache: &Cache, node: &str, new: &Object) -> Result<(), String> {
    let only = |what: &str| Err(format!("node {node:?} can only create pods with {what}"));
    let not = |what: &str| Err(format!("node {node:?} can not create pods that reference {what}"));
    if new.annotation(MIRROR).is_none() {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !runs(new, node) {
        return only("spec.nodeName set to itself");
    }
    let owners = new.meta.owner_references.as_deref().unwrap_or_default();
    let owner = match owners {
        [] => return only("an owner reference set to itself"),
        [owner] => owner,
        _ => return only("a single owner reference set to itself"),
    };
    if (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str())
        != ("v1", "Node", node)
    {
        return only("an owner reference set to itself");
    }
    if owner.controller != Some(true) {
        return only("a controller owner reference set to itself");
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let itself = cache.object(Kind::Node, &Key::cluster(node));
    let itself = itself.ok_or_else(|| format!("nodes {node:?} not found"))?;
    if Uid::parse(&owner.uid) != Some(itself.uid) {
        let (expected, got) = (&owner.uid, itself.uid);
        return Err(format!("node {node} UID mismatch: expected {expected} got {got}"));
    }
    let Some((spec, _)) = new.pod() else { return Ok(()) };
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return not("a service account");
    }
    for (kind, what) in [
        (Kind::Secret, "secrets"),
        (Kind::ConfigMap, "configmaps"),
        (Kind::PersistentVolumeClaim, "persistentvolumeclaims"),
    ] {
        if !super::related::names(new, kind).is_empty() {
            return not(what);
        }
    }
    Ok(())
}

fn labels(object: Option<&Object>) -> BTreeMap<String, String> {
    object.and_then(|object| object.meta.labels.clone()).unwrap_or_default()
}

fn itself(node: &str, name: &str, change: Change<'_>) -> Result<(), String> {
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = change.new else { return Ok(()) };
    let taints = |object: &Object| {
        let taints = object.node().and_then(|(spec, _)| spec.taints.clone());
        taints.unwrap_or_default()
    };
    if change.old.is_some_and(|old| taints(old) != taints(new)) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let (old, new) = (labels(change.old), labels(Some(new)));
    let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = all.into_iter().filter(|key| old.get(*key) != new.get(*key));
    let refused: Vec<&str> = changed.map(String::as_str).filter(|key| is_others(key)).collect();
    match (&refused[..], change.old) {
        ([], _) => Ok(()),
        (all, None) => Err(format!(
            "node {node:?} is not allowed to set the following labels: {}",
            all.join(", ")
        )),
        (all, Some(_)) => Err(format!("is not allowed to modify labels: {}", all.join(", "))),
    }
}

/// Labels of Kubernetes' that a node may set on itself (`k8s.io/kubelet/pkg/apis/
/// well_known_labels.go`), and namespaces of such.
const OWN: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a label decides what may run on a node, so that it is for others to set.
pub fn is_others(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |of: &str| {
        namespace.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = OWN.contains(&label) || OWN_NAMESPACES.into_iter().any(within);
    within("node-restriction.kubernetes.io") || kubernetes && !own
}

/// Of its pods' claims a node reports how large they are.
fn claim(node: &str, change: Change<'_>) -> Result<(), String> {
    let (Some(Sub::Status), Some(old), Some(new)) = (change.sub, change.old, change.new) else {
        return Err("may only update PVC status".to_owned());
    };
    let rest = |object: &Object| {
        let mut rest = object.to_json();
        for field in ["resourceVersion", "managedFields"] {
            rest["metadata"][field].take();
        }
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            rest["status"][field].take();
        }
        rest
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let what = "update fields other than status.capacity and status.conditions";
    Err(format!("node {node:?} is not allowed to {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_steer_pods_are_others() {
        for label in [
            "node-restriction.kubernetes.io/a",
            "a.node-restriction.kubernetes.io/b",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/a",
            "a.k8s.io/b",
        ] {
            assert!(is_others(label), "{label}");
        }
        for label in [
            "a",
            "example.com/a",
            "notkubernetes.io/a",
            "kubernetes.io/hostname",
            "a.node.kubernetes.io/b",
        ] {
            assert!(!is_others(label), "{label}");
        }
    }
}
