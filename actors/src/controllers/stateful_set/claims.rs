//! The claims of a StatefulSet's pods, made of its templates, and whose they are: what goes with
//! the set or with a pod that is one too many is owned by it, as
//! `persistentVolumeClaimRetentionPolicy` says (KEP-1847, `updateClaimOwnerRefForSetAndPod`).

use super::subject;
use crate::controllers::plain;
use crate::controllers::world::Desk;
use crate::objects::{Key, Kind, Name, Object, OwnerReference};
use crate::ports::api::{Request, Subresource};
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use serde_json::json;
use std::sync::Arc;

pub fn key(set: &Object, template: &str, ordinal: i32) -> Key {
    let name = format!("{template}-{}-{ordinal}", set.key.name);
    Key::new(set.key.namespace.clone(), Name::from(name))
}

fn keys(set: &Object, spec: &StatefulSetSpec, ordinal: i32) -> Vec<Key> {
    let templates = spec.volume_claim_templates.iter().flatten();
    templates
        .map(|claim| key(set, claim.metadata.name.as_deref().unwrap_or_default(), ordinal))
        .collect()
}

/// What pod number `ordinal` needs and lacks is asked for. True if nothing stands in its way: a
/// claim that is being deleted is another pod's.
pub fn provide(
    set: &Object,
    spec: &StatefulSetSpec,
    ordinal: i32,
    desk: &mut Desk<'_, '_>,
) -> bool {
    let templates = spec.volume_claim_templates.iter().flatten();
    let mut ready = true;
    for (key, claim) in keys(set, spec, ordinal).into_iter().zip(templates) {
        match desk.world.get(Kind::PersistentVolumeClaim, &key) {
            Some(there) if there.deleting() => ready = false,
            Some(_) => {}
            None => {
                let mut meta = claim.metadata.clone();
                (meta.name, meta.namespace) = (None, None);
                let labels = meta.labels.get_or_insert_default();
                labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
                let fields = json!({"spec": claim.spec});
                let object = plain::object(Kind::PersistentVolumeClaim, key, fields);
                let request = Request::Create { object: Arc::new(object.with_meta(meta)) };
                desk.client.ask(subject(&set.key), request);
            }
        }
    }
    ready
}

/// The claims of pod number `ordinal` get the owners they are to have; `surplus` is that pod, if
/// it is one too many. True if any had not.
pub fn own(
    set: &Object,
    spec: &StatefulSetSpec,
    ordinal: i32,
    surplus: Option<&Object>,
    desk: &mut Desk<'_, '_>,
) -> bool {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    let with_pod = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let with_set = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let owner = match surplus {
        Some(pod) if with_pod => Some(pod),
        _ if with_set => Some(set),
        _ => None,
    };
    let owner = owner.map(reference);
    let mut changed = false;
    for key in keys(set, spec, ordinal) {
        let Some(claim) = desk.world.get(Kind::PersistentVolumeClaim, &key) else { continue };
        let before = claim.meta.owner_references.clone().unwrap_or_default();
        let pod = super::identity::key(set, ordinal).name;
        let ours = |one: &OwnerReference| {
            one.kind == "Pod" && pod == one.name
                || one.kind == "StatefulSet" && set.key.name == one.name
        };
        let others = before.iter().filter(|one| !ours(one)).cloned();
        let after: Vec<OwnerReference> = others.chain(owner.clone()).collect();
        if after == before || claim.deleting() {
            continue;
        }
        let patch = json!({"metadata": {
            "uid": claim.uid.to_string(),
            "resourceVersion": claim.version.to_string(),
            "ownerReferences": if after.is_empty() { json!(null) } else { json!(after) },
        }});
        let (kind, subresource) = (Kind::PersistentVolumeClaim, Subresource::Main);
        desk.client.ask(subject(&set.key), Request::Patch { kind, key, subresource, patch });
        changed = true;
    }
    changed
}

/// An owner that does not control what it owns.
fn reference(of: &Object) -> OwnerReference {
    OwnerReference { controller: None, block_owner_deletion: None, ..of.as_controller() }
}
