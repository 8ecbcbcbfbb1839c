//! EndpointSlices by the Service they belong to, kept from version to version.

use super::service::service_of;
use crate::objects::{Key, Object, View};
use imbl::OrdMap;
use kubesim_runtime::Change;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The slices of each Service, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct ByService(OrdMap<Key, Arc<[Arc<Object>]>>);

impl ByService {
    pub fn get(&self, service: &Key) -> &[Arc<Object>] {
        self.0.get(service).map_or(&[], |slices| slices)
    }

    /// Goes from one pair of versions to a newer one. Returns the keys of all Services whose
    /// object or slices differ. O(what differs).
    pub fn advance(&mut self, old: (&View, &View), new: (&View, &View)) -> BTreeSet<Key> {
        let ((old_services, old_slices), (services, slices)) = (old, new);
        let mut changed = BTreeSet::new();
        for change in old_services.diff(services) {
            let (Change::Added(key, _) | Change::Changed { key, .. } | Change::Removed(key, _)) =
                change;
            changed.insert(key.clone());
        }
        for change in old_slices.diff(slices) {
            let (old, new) = match change {
                Change::Added(_, new) => (None, Some(new)),
                Change::Changed { old, new, .. } => (Some(old), Some(new)),
                Change::Removed(_, old) => (Some(old), None),
            };
            changed.extend(old.and_then(|slice| self.forget(slice)));
            changed.extend(new.and_then(|slice| self.learn(slice)));
        }
        changed
    }

    fn forget(&mut self, slice: &Object) -> Option<Key> {
        let service = service_of(slice)?;
        let all = self.get(&service).iter();
        let rest: Arc<[_]> = all.filter(|one| one.key != slice.key).cloned().collect();
        if rest.is_empty() {
            self.0.remove(&service);
        } else {
            self.0.insert(service.clone(), rest);
        }
        Some(service)
    }

    fn learn(&mut self, slice: &Arc<Object>) -> Option<Key> {
        let service = service_of(slice)?;
        let mut all = self.get(&service).to_vec();
        let place = all.partition_point(|one| one.key < slice.key);
        all.insert(place, Arc::clone(slice));
        self.0.insert(service.clone(), all.into());
        Some(service)
    }
}
