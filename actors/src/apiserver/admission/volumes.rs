//! DefaultStorageClass (plugin/pkg/admission/storage/storageclass/setdefault): a claim that says
//! nothing of a class gets the default one. StorageObjectInUseProtection
//! (plugin/pkg/admission/storage/storageobjectinuseprotection): what is in use stays.

use super::Cache;
use crate::objects::{Body, Kind, Object};
use crate::storage;
use std::sync::Arc;

pub(super) fn complete(new: &mut Object, cache: &Cache) {
    match new.kind() {
        Kind::PersistentVolume => protect(new, storage::VOLUME_PROTECTION),
        Kind::PersistentVolumeClaim => {
            protect(new, storage::CLAIM_PROTECTION);
            classify(new, cache);
        }
        _ => {}
    }
}

fn protect(new: &mut Object, finalizer: &str) {
    let finalizers = Arc::make_mut(&mut new.meta).finalizers.get_or_insert_default();
    if !finalizers.iter().any(|one| one == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

fn classify(new: &mut Object, cache: &Cache) {
    let classes = cache.views.get(&Kind::StorageClass);
    let default = classes.and_then(storage::default_class);
    if let Some(class) = default.filter(|_| storage::is_classless(new))
        && let Body::Plain(plain) = &mut new.body
    {
        Arc::make_mut(&mut plain.fields).set("spec.storageClassName", class.key.name.as_str());
    }
}
