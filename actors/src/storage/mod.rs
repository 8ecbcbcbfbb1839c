//! Claims, volumes and classes of storage: what they say, and which volume is good for which claim
//! (component-helpers/storage/volume, `pv_helpers.go`). Who binds, schedules by and mounts them
//! share it.

use crate::controllers::{labels_match, plain};
use crate::objects::kinds::Fields;
use crate::objects::quantity::thousandths;
use crate::objects::{Key, Kind, Name, Object, PodSpec, Uid, View};
use crate::scheduler::selects;
use k8s_openapi::api::core::v1::{
    NodeSelector, ObjectReference, PersistentVolumeClaimSpec, PersistentVolumeSpec,
    TopologySelectorTerm,
};
use std::sync::Arc;

/// Who makes volumes of directories of nodes: ours.
pub const PROVISIONER: &str = "kubesim.dev/local-path";
/// The class that is there from the start.
pub const CLASS: &str = "local-path";
/// The provisioner of a class whose volumes people make.
pub const NOBODY: &str = "kubernetes.io/no-provisioner";

pub const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const IS_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// Of a claim: on which node its first pod will be.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Of a claim: all that binding writes is written.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Of either: the controllers chose the other, so they may undo it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Of a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Of a claim: who is to make a volume for it.
pub const STORAGE_PROVISIONERS: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

/// Keeps a claim that a pod uses, and a volume that is bound.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Keeps a volume of ours until its directory is removed.
pub const DIRECTORY_PROTECTION: &str = "kubesim.dev/local-path";

/// Of a Node, by its kubelet: below which directory of it volumes are.
pub const DIRECTORY: &str = "volumes.kubesim.dev/directory";
/// Of a Node: the volumes whose directories it is to remove, with commas between.
pub const REMOVE: &str = "volumes.kubesim.dev/remove";
/// Of a Node, by its kubelet: which of these it has removed.
pub const REMOVED: &str = "volumes.kubesim.dev/removed";
/// Of a volume of ours: the Node that has it.
pub const NODE: &str = "volumes.kubesim.dev/node";

const HOSTNAME: &str = "kubernetes.io/hostname";

pub fn fields(object: &Object) -> Option<&Fields> {
    object.plain().map(|plain| &*plain.fields)
}

/// Of a spec, a text by its name; empty for none.
pub fn text<'a>(object: &'a Object, path: &str) -> &'a str {
    fields(object).map_or("", |fields| fields.text(path))
}

/// `status.phase`; empty for none.
pub fn phase(object: &Object) -> &str {
    let status = object.plain().map(|plain| &*plain.status);
    status.and_then(|status| status["phase"].as_str()).unwrap_or_default()
}

/// `GetPersistentVolumeClass` and `GetPersistentVolumeClaimClass`: the old annotation wins.
pub fn class(object: &Object) -> &str {
    object.annotation(CLASS_BETA).unwrap_or_else(|| text(object, "spec.storageClassName"))
}

/// A claim that says nothing of a class, not even that it wants none.
pub fn is_classless(claim: &Object) -> bool {
    claim.annotation(CLASS_BETA).is_none()
        && fields(claim).is_none_or(|fields| {
            fields.at("spec.storageClassName").is_none_or(serde_json::Value::is_null)
        })
}

/// The class of claims that name none: of several, the newest, then the first by name
/// (pkg/volume/util/storageclass.go, `GetDefaultClass`).
pub fn default_class(classes: &View) -> Option<&Arc<Object>> {
    let says = |class: &Object, name| class.annotation(name) == Some("true");
    let defaults = classes.iter().map(|(_, class)| class);
    let defaults = defaults.filter(|one| says(one, IS_DEFAULT) || says(one, IS_DEFAULT_BETA));
    let made = |class: &Object| class.meta.creation_timestamp.as_ref().map(|time| time.0);
    defaults.min_by_key(|class| (std::cmp::Reverse(made(class)), class.key.name.clone()))
}

/// Whether claims of the class are bound only when a pod that uses them has a node.
pub fn waits(class: &Object) -> bool {
    text(class, "volumeBindingMode") == "WaitForFirstConsumer"
}

/// The names of the claims that a pod mounts, each once.
pub fn claims_of(spec: &PodSpec) -> Vec<&str> {
    let mut names = Vec::new();
    let sources = spec.volumes.iter().flatten();
    for source in sources.filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
        if !names.contains(&source.claim_name.as_str()) {
            names.push(source.claim_name.as_str());
        }
    }
    names
}

/// Whether all that binding writes is written.
pub fn is_bound(claim: &Object) -> bool {
    claim.annotation(BIND_COMPLETED).is_some() && !text(claim, "spec.volumeName").is_empty()
}

/// Which claim a volume is for: its key, and its uid if that is said.
pub fn claimed_by(volume: &Object) -> Option<(Key, Option<Uid>)> {
    let reference: ObjectReference = fields(volume)?.at("spec.claimRef").and_then(|value| {
        (!value.is_null()).then(|| serde_json::from_value(value.clone()).ok()).flatten()
    })?;
    let namespace = Name::from(reference.namespace.unwrap_or_default());
    let key = Key::new(namespace, reference.name.unwrap_or_default().as_str());
    let uid = reference.uid.filter(|uid| !uid.is_empty());
    // A uid that is none is nobody's.
    Some((key, uid.map(|uid| Uid::parse(&uid).unwrap_or(Uid::NONE))))
}

/// `IsVolumeBoundToClaim`: the volume is for this claim, or for one of its name.
pub fn is_for(volume: &Object, claim: &Object) -> bool {
    claimed_by(volume)
        .is_some_and(|(key, uid)| key == claim.key && uid.is_none_or(|uid| uid == claim.uid))
}

/// Whether the volume can be used on the node.
pub fn reaches(volume: &Object, node: &Object) -> bool {
    let affinity = fields(volume).map(|fields| fields.part("spec.nodeAffinity.required"));
    let required: Option<NodeSelector> = affinity.unwrap_or_default();
    required.is_none_or(|required| selects(&required, node))
}

/// Whether the class makes volumes for that node: `allowedTopologies`.
pub fn allows(class: &Object, node: &Object) -> bool {
    let terms: Vec<TopologySelectorTerm> =
        fields(class).map(|fields| fields.part("allowedTopologies")).unwrap_or_default();
    let holds = |term: &TopologySelectorTerm| {
        let mut all = term.match_label_expressions.iter().flatten();
        all.all(|one| node.label(&one.key).is_some_and(|has| one.values.iter().any(|v| v == has)))
    };
    terms.is_empty() || terms.iter().any(holds)
}

/// A node as the affinity of a volume that only it has names it: key and value of its label.
pub fn hostname(node: &Object) -> (&'static str, &str) {
    (HOSTNAME, node.label(HOSTNAME).unwrap_or(&node.key.name))
}

/// What a claim asks of its volume.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    claim: &'a Object,
    pub spec: PersistentVolumeClaimSpec,
    class: &'a str,
    /// In thousandths of bytes.
    storage: i64,
}

/// What is wrong with a volume that somebody chose for a claim
/// (`checkVolumeSatisfyClaim` of pv_controller.go).
pub type Mismatch = &'static str;

impl<'a> Wish<'a> {
    pub fn of(claim: &'a Object) -> Wish<'a> {
        let spec: PersistentVolumeClaimSpec = plain::spec(claim);
        let requests = spec.resources.as_ref().and_then(|all| all.requests.as_ref());
        let storage = requests.and_then(|all| thousandths(&all.get("storage")?.0)).unwrap_or(0);
        Wish { claim, spec, class: class(claim), storage }
    }

    /// Why the volume cannot be its; `None` if it can.
    pub fn mismatch(&self, volume: &Object) -> Option<Mismatch> {
        let spec: PersistentVolumeSpec = plain::spec(volume);
        if capacity(&spec) < self.storage {
            return Some("requested PV is too small");
        }
        if class(volume) != self.class {
            return Some("storageClassName does not match");
        }
        if !self.has_mode(&spec) {
            return Some("incompatible volumeMode");
        }
        (!self.has_access(&spec)).then_some("incompatible accessMode")
    }

    fn has_mode(&self, volume: &PersistentVolumeSpec) -> bool {
        let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
        mode(&self.spec.volume_mode) == mode(&volume.volume_mode)
    }

    fn has_access(&self, volume: &PersistentVolumeSpec) -> bool {
        let offered = volume.access_modes.as_deref().unwrap_or_default();
        self.spec.access_modes.iter().flatten().all(|mode| offered.contains(mode))
    }

    /// `FindMatchingVolume`: the volume that is kept for the claim, else the smallest free one that
    /// is large enough. With a node, it can be used there; without one, only a volume that is kept
    /// for the claim will do where the choice is the scheduler's (`delayed`). `taken` are spoken
    /// for by others.
    pub fn best<'v>(
        &self,
        volumes: &'v View,
        node: Option<&Object>,
        delayed: bool,
        taken: impl Fn(&Object) -> bool,
    ) -> Option<&'v Arc<Object>> {
        let mut best: Option<(i64, &Arc<Object>)> = None;
        for (_, volume) in volumes.iter() {
            if volume.deleting() || taken(volume) {
                continue;
            }
            let kept = is_for(volume, self.claim);
            let free = phase(volume) == "Available" && claimed_by(volume).is_none();
            if !kept && (!free || delayed && node.is_none() || class(volume) != self.class) {
                continue;
            }
            let spec: PersistentVolumeSpec = plain::spec(volume);
            let size = capacity(&spec);
            let there = node.is_none_or(|node| reaches(volume, node));
            if size < self.storage || !self.has_mode(&spec) || !there {
                continue;
            }
            if kept {
                return Some(volume);
            }
            let selector = self.spec.selector.as_ref();
            let selected = selector.is_none_or(|selector| labels_match(selector, volume));
            let smaller = best.is_none_or(|(known, _)| size < known);
            if selected && smaller && self.has_access(&spec) {
                best = Some((size, volume));
            }
        }
        best.map(|(_, volume)| volume)
    }
}

fn capacity(volume: &PersistentVolumeSpec) -> i64 {
    let all = volume.capacity.as_ref();
    all.and_then(|all| thousandths(&all.get("storage")?.0)).unwrap_or(0)
}

/// A claim as its volume names it.
pub fn reference(claim: &Object) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": Kind::PersistentVolumeClaim.api_version(),
        "kind": Kind::PersistentVolumeClaim.name(),
        "namespace": claim.key.namespace,
        "name": claim.key.name,
        "uid": claim.uid.to_string(),
        "resourceVersion": claim.version.to_string(),
    })
}

/// The names that a Node's annotation lists.
pub fn listed<'a>(node: &'a Object, annotation: &str) -> impl Iterator<Item = &'a str> {
    node.annotation(annotation).unwrap_or_default().split(',').filter(|name| !name.is_empty())
}
