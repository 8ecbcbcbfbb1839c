//! A volume that a pod claims: the claim's volume, once the two are bound to each other
//! (`getPVCExtractPV` and `getPVSpec` of pkg/kubelet/volumemanager/populator/
//! desired_state_of_world_populator.go).

use super::objects::{Lack, Objects};
use super::volume::path_kind;
use crate::controllers::plain;
use crate::objects::{Key, Kind, Object, Uid};
use crate::ports::volumes::{Access, Plugin, Request, Volume};
use crate::storage;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, LocalVolumeSource, PersistentVolumeClaimVolumeSource,
    PersistentVolumeSpec,
};
use smol_str::SmolStr;
use std::sync::Arc;

/// What the pod's claim has come to.
#[derive(Clone, Debug)]
pub struct Found {
    /// The volume's name.
    pub name: SmolStr,
    spec: PersistentVolumeSpec,
    ours: bool,
}

/// The volume's key, once the claim says it: it has to be asked for as well.
pub fn volume(claim: &Object) -> Option<Key> {
    let name = storage::text(claim, "spec.volumeName");
    (!name.is_empty()).then(|| Key::cluster(name))
}

/// The volume, or what is missing; in upstream's words if people have to see to it.
pub fn find(
    source: &PersistentVolumeClaimVolumeSource,
    namespace: &str,
    objects: &Objects,
) -> Result<Found, Lack> {
    let name = &source.claim_name;
    let wrong =
        |why: String| Lack::Wrong(format!("error processing PVC {namespace}/{name}: {why}"));
    let get = |kind, key: &Key, what: &str| -> Result<Arc<Object>, Lack> {
        let data = objects.get(kind, key, false).map_err(|lack| match lack {
            Lack::Wrong(why) => wrong(format!("failed to fetch {what} from API server: {why}")),
            coming @ Lack::Coming => coming,
        })?;
        data.and_then(|data| data.object.clone()).ok_or(Lack::Coming)
    };
    let key = Key::new(namespace, name.as_str());
    let claim = get(Kind::PersistentVolumeClaim, &key, "PVC")?;
    if claim.deleting() {
        return Err(wrong("PVC is being deleted".to_owned()));
    }
    let key = volume(&claim).filter(|_| storage::phase(&claim) == "Bound");
    let key = key.ok_or_else(|| wrong("PVC is not bound".to_owned()))?;
    let volume = get(Kind::PersistentVolume, &key, &format!("PV {}", key.name))?;
    let of: Option<Option<Uid>> = storage::claimed_by(&volume).map(|(_, uid)| uid);
    match of {
        Some(Some(uid)) if uid == claim.uid => {}
        None => {
            let why = "but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the \
                 claim";
            return Err(wrong(format!("found PV object {} {why}", key.name)));
        }
        Some(uid) => {
            let (uid, own) = (uid.map(|uid| uid.to_string()).unwrap_or_default(), claim.uid);
            return Err(wrong(format!(
                "found PV object {} but its pv.Spec.ClaimRef.UID {uid} does not point to \
                 claim.UID {own}",
                key.name
            )));
        }
    }
    Ok(Found {
        name: SmolStr::from(key.name.as_str()),
        spec: plain::spec(&volume),
        ours: volume.annotation(storage::PROVISIONED_BY) == Some(storage::PROVISIONER),
    })
}

impl Found {
    /// How it is had, for the pod's group.
    pub fn request(&self, pod: Uid, name: &str, access: Access) -> Result<Request, String> {
        let volume = |plugin| Volume { pod, name: SmolStr::from(name), plugin };
        if let Some(LocalVolumeSource { path, .. }) = &self.spec.local {
            let (volume, path) = (volume(Plugin::Local), SmolStr::from(path));
            return Ok(Request::Local { volume, path, make: self.ours, access });
        }
        if let Some(source) = &self.spec.host_path {
            let HostPathVolumeSource { path, .. } = source;
            let (volume, path) = (volume(Plugin::HostPath), SmolStr::from(path));
            return Ok(Request::HostPath { volume, path, kind: path_kind(source)? });
        }
        let source = serde_json::to_value(&self.spec).unwrap_or_default();
        const OTHERS: [&str; 9] = [
            "accessModes",
            "capacity",
            "claimRef",
            "mountOptions",
            "nodeAffinity",
            "persistentVolumeReclaimPolicy",
            "storageClassName",
            "volumeAttributesClassName",
            "volumeMode",
        ];
        let mut fields = source.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        let kind = fields.find(|field| !OTHERS.contains(field)).unwrap_or("none");
        Err(format!("this kubelet has no volumes of the kind {kind}"))
    }
}
