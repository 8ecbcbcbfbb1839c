//! What becomes of a volume (`syncVolume` and `reclaimVolume` of pv_controller.go,
//! pv_protection_controller.go), and how a node is told to remove the directory of one of ours.
//!
//! The node's kubelet watches its Node and nothing else of the cluster, so that is where it is
//! told, by an annotation that lists names, as upstream tells it in `status.volumesAttached` what
//! was attached; it answers by another. A volume is gone when its node has said so, or is gone.

use super::{Volumes, ask, enter, say, subject, without};
use crate::controllers::plain;
use crate::controllers::world::{Desk, World};
use crate::objects::{Key, Kind, Object, Uid};
use crate::ports::api::{DeleteOptions, Request, Subresource};
use crate::recorder::Tidings;
use crate::storage;
use serde_json::{Value, json};
use std::sync::Arc;

impl Volumes {
    pub fn volume(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(volume) = desk.world.get(Kind::PersistentVolume, key).cloned() else { return };
        let of = subject(Kind::PersistentVolume, key);
        match storage::claimed_by(&volume) {
            None | Some((_, None)) => {
                if !volume.deleting() && enter(&of, &volume, "Available", desk) {
                    return;
                }
            }
            Some((claim, Some(uid))) => {
                if !self.claimed(&volume, &claim, uid, desk) {
                    return;
                }
            }
        }
        if storage::phase(&volume) == "Bound" {
            return;
        }
        reclaim(&volume, desk);
    }

    /// True if there is nothing to be done for its claim.
    fn claimed(
        &mut self,
        volume: &Arc<Object>,
        claim: &Key,
        uid: Uid,
        desk: &mut Desk<'_, '_>,
    ) -> bool {
        let of = subject(Kind::PersistentVolume, &volume.key);
        let there = desk.world.get(Kind::PersistentVolumeClaim, claim);
        let Some(object) = there.filter(|claim| claim.uid == uid) else {
            if self.gone.contains(&uid) {
                let failed = storage::phase(volume) == "Failed";
                return failed || !enter(&of, volume, "Released", desk);
            }
            // What is removed is gone for good: the view may be behind.
            let (kind, key) = (Kind::PersistentVolumeClaim, claim.clone());
            ask(&of, Some(Request::Get { kind, key }), desk);
            return false;
        };
        let named = storage::text(object, "spec.volumeName");
        if named == volume.key.name {
            return !enter(&of, volume, "Bound", desk);
        }
        if named.is_empty() {
            // It is being bound.
            return volume.deleting();
        }
        // It got another one.
        if is_ours(volume) && deletes(volume) {
            return !enter(&of, volume, "Released", desk);
        }
        ask(&of, let_go(volume), desk);
        false
    }
}

/// `unbindVolume`: what people chose they may choose again.
fn let_go(volume: &Object) -> Option<Request> {
    let mut next = volume.clone();
    let meta = Arc::make_mut(&mut next.meta);
    let chosen = meta.annotations.as_mut().and_then(|all| all.remove(storage::BOUND_BY_CONTROLLER));
    plain::update(&next, |fields| match chosen {
        Some(_) => fields.set("spec.claimRef", Value::Null),
        None => fields.set("spec.claimRef.uid", ""),
    })
}

fn is_ours(volume: &Object) -> bool {
    volume.annotation(storage::PROVISIONED_BY) == Some(storage::PROVISIONER)
}

fn deletes(volume: &Object) -> bool {
    storage::text(volume, "spec.persistentVolumeReclaimPolicy") == "Delete"
}

/// Whether its directory is to be removed.
fn leaves(volume: &Object) -> bool {
    let over = match storage::phase(volume) {
        "Released" => true,
        "Bound" => false,
        _ => volume.deleting(),
    };
    over && is_ours(volume) && deletes(volume)
}

/// A volume that nobody has.
fn reclaim(volume: &Arc<Object>, desk: &mut Desk<'_, '_>) {
    let of = subject(Kind::PersistentVolume, &volume.key);
    let released = storage::phase(volume) == "Released";
    if leaves(volume) {
        if !is_removed(volume, desk.world) {
            let node = volume.annotation(storage::NODE).unwrap_or_default();
            desk.client.mark(subject(Kind::Node, &Key::cluster(node)));
            return;
        }
        if !volume.deleting() {
            let options = DeleteOptions { uid: Some(volume.uid), ..DeleteOptions::default() };
            let (kind, key) = (Kind::PersistentVolume, volume.key.clone());
            return ask(&of, Some(Request::Delete { kind, key, options }), desk);
        }
    }
    if volume.deleting() {
        let all = [storage::VOLUME_PROTECTION, storage::DIRECTORY_PROTECTION];
        return ask(&of, without(volume, &all), desk);
    }
    let by_another = volume.annotation(storage::PROVISIONED_BY).is_some();
    if released && !by_another {
        fail(volume, desk);
    }
}

/// There is nobody here who removes or empties what people made (`VolumeFailedDelete`).
fn fail(volume: &Object, desk: &mut Desk<'_, '_>) {
    let name = &volume.key.name;
    let (reason, message) = match storage::text(volume, "spec.persistentVolumeReclaimPolicy") {
        "Delete" => (
            "VolumeFailedDelete",
            format!(
                "error getting deleter volume plugin for volume \"{name}\": no deletable volume \
                 plugin matched"
            ),
        ),
        "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        _ => return,
    };
    let status = json!({"phase": "Failed", "message": message});
    let of = subject(Kind::PersistentVolume, &volume.key);
    ask(&of, plain::write_status(volume, &status), desk);
    say(volume, Tidings::warning(reason), message, desk);
}

/// Its node has said so; with a node, its directories went.
fn is_removed(volume: &Object, world: &World) -> bool {
    let Some(node) = volume.annotation(storage::NODE) else { return true };
    let Some(node) = world.get(Kind::Node, &Key::cluster(node)) else { return true };
    storage::listed(node, storage::REMOVED).any(|name| name == volume.key.name)
}

/// Tells a node which directories it is to remove.
pub fn node(key: &Key, desk: &mut Desk<'_, '_>) {
    let Some(node) = desk.world.get(Kind::Node, key) else { return };
    let volumes = desk.world.view(Kind::PersistentVolume);
    let volumes = volumes.into_iter().flat_map(|view| view.iter()).map(|(_, volume)| volume);
    let own = volumes.filter(|one| one.annotation(storage::NODE) == Some(key.name.as_str()));
    let names: Vec<&str> =
        own.filter(|volume| leaves(volume)).map(|volume| volume.key.name.as_str()).collect();
    if storage::listed(node, storage::REMOVE).eq(names.iter().copied()) {
        return;
    }
    let names = if names.is_empty() { Value::Null } else { Value::from(names.join(",")) };
    let patch = json!({"metadata": {
        "uid": node.uid.to_string(),
        "annotations": {storage::REMOVE: names},
    }});
    let (kind, key) = (Kind::Node, key.clone());
    let of = subject(kind, &key);
    let request = Request::Patch { kind, key, subresource: Subresource::Main, patch };
    ask(&of, Some(request), desk);
}
