//! The volume that is made for a claim: a directory of the node that the scheduler has chosen, by a
//! controller of ours. Of other provisioners, people are told that they are waited for
//! (`provisionClaimOperationExternal` of pv_controller.go).
//!
//! It is a `local` volume and no `hostPath`, which rancher's local-path makes by default: such a
//! volume is where its `nodeAffinity` says and nowhere else, and the kubelet gives it to the pod's
//! `fsGroup`, as it does with no path of the machine itself.

use super::{annotate, ask, claim_subject, say};
use crate::controllers::plain;
use crate::controllers::world::Desk;
use crate::objects::{Key, Kind, Object, ObjectMeta};
use crate::ports::api::{Request, Subresource};
use crate::recorder::Tidings;
use crate::storage::{self, Wish};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn provision(claim: &Arc<Object>, class: &Object, desk: &mut Desk<'_, '_>) {
    let provisioner = storage::text(class, "provisioner");
    if provisioner == storage::NOBODY {
        let why = "no persistent volumes available for this claim and no storage class is set";
        return say(claim, Tidings::normal("FailedBinding"), why.to_owned(), desk);
    }
    let told = storage::STORAGE_PROVISIONERS;
    if told.iter().any(|name| claim.annotation(name) != Some(provisioner)) {
        let mut next = (**claim).clone();
        told.iter().for_each(|name| annotate(&mut next, name, provisioner));
        let request = Request::Update { object: Arc::new(next) };
        return ask(&claim_subject(&claim.key), Some(request), desk);
    }
    if provisioner != storage::PROVISIONER {
        let why = format!(
            "Waiting for a volume to be created either by the external provisioner \
             '{provisioner}' or manually by the system administrator. If volume creation is \
             delayed, please verify that the provisioner is running and correctly registered."
        );
        return say(claim, Tidings::normal("ExternalProvisioning"), why, desk);
    }
    match volume(claim, class, desk) {
        Ok(volume) => {
            let request = Request::Create { object: Arc::new(volume) };
            desk.client.ask(claim_subject(&claim.key), request);
        }
        Err(why) => refuse(claim, class, &why, desk),
    }
}

/// Why there can be none.
enum Refusal {
    /// Not for this claim at all.
    Never(String),
    /// Not on the node that was chosen.
    There(String),
}

fn volume(claim: &Object, class: &Object, desk: &Desk<'_, '_>) -> Result<Object, Refusal> {
    let wish = Wish::of(claim);
    let never = |why: &str| Err(Refusal::Never(why.to_owned()));
    if wish.spec.selector.as_ref().is_some_and(|selector| *selector != Default::default()) {
        return never("claim.Spec.Selector is not supported");
    }
    if wish.spec.volume_mode.as_deref() == Some("Block") {
        return never("a directory of a node is no block device");
    }
    let modes = wish.spec.access_modes.unwrap_or_default();
    if modes.iter().any(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        let why = "a directory of a node only supports ReadWriteOnce and ReadWriteOncePod access \
             modes";
        return never(why);
    }
    let Some(name) = claim.annotation(storage::SELECTED_NODE) else {
        let why = "no node was selected: the class needs volumeBindingMode WaitForFirstConsumer";
        return never(why);
    };
    let there = |why: String| Err(Refusal::There(why));
    let Some(node) = desk.world.get(Kind::Node, &Key::cluster(name)) else {
        return there(format!("node \"{name}\" not found"));
    };
    let Some(directory) = node.annotation(storage::DIRECTORY) else {
        let says = storage::DIRECTORY;
        return there(format!(
            "node \"{name}\" has no volumes of this kind: it does not say {says}"
        ));
    };
    let own = format!("pvc-{}", claim.uid);
    let policy = storage::text(class, "reclaimPolicy");
    let (label, value) = storage::hostname(node);
    let storage = wish.spec.resources.and_then(|all| all.requests?.get("storage").cloned());
    let fields = json!({"spec": {
        "capacity": {"storage": storage},
        "accessModes": modes,
        "claimRef": storage::reference(claim),
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": class.key.name,
        "volumeMode": "Filesystem",
        "local": {"path": format!("{}/{own}", directory.trim_end_matches('/'))},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": label, "operator": "In", "values": [value]},
        ]}]}},
    }});
    let annotations = [(storage::PROVISIONED_BY, storage::PROVISIONER), (storage::NODE, name)];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let meta = ObjectMeta {
        annotations: Some(BTreeMap::from(annotations)),
        finalizers: (policy == "Delete").then(|| vec![storage::DIRECTORY_PROTECTION.to_owned()]),
        ..ObjectMeta::default()
    };
    let key = Key::cluster(own.as_str());
    Ok(plain::object(Kind::PersistentVolume, key, fields).with_meta(meta))
}

/// People are told; another node is to be chosen if that may help.
fn refuse(claim: &Object, class: &Object, why: &Refusal, desk: &mut Desk<'_, '_>) {
    let (Refusal::Never(text) | Refusal::There(text)) = why;
    let class = &class.key.name;
    let message = format!("failed to provision volume with StorageClass \"{class}\": {text}");
    say(claim, Tidings::warning("ProvisioningFailed"), message, desk);
    if matches!(why, Refusal::There(_)) {
        let patch = json!({"metadata": {
            "uid": claim.uid.to_string(),
            "resourceVersion": claim.version.to_string(),
            "annotations": {storage::SELECTED_NODE: Value::Null},
        }});
        let (kind, key) = (Kind::PersistentVolumeClaim, claim.key.clone());
        let request = Request::Patch { kind, key, subresource: Subresource::Main, patch };
        desk.client.ask(claim_subject(&claim.key), request);
    }
}
