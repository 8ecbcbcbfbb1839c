//! Which pod is on which node: as the view shows it, or as assumed since its Bind was asked for.

use super::resources::Load;
use crate::objects::{Key, Object, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Placement {
    pub object: Arc<Object>,
    pub node: u32,
    pub load: Arc<Load>,
    /// The view does not show it yet.
    pub assumed: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Placed {
    by_key: BTreeMap<Key, Placement>,
}

impl Placed {
    pub fn get(&self, key: &Key) -> Option<&Placement> {
        self.by_key.get(key)
    }
    pub fn confirm(&mut self, key: &Key, uid: Uid) {
        if let Some(placement) = self.by_key.get_mut(key).filter(|p| p.object.uid == uid) {
            placement.assumed = false;
        }
    }
    pub fn insert(&mut self, key: &Key, placement: Placement) {
        self.by_key.insert(key.clone(), placement);
    }
    pub fn remove(&mut self, key: &Key) -> Option<Placement> {
        self.by_key.remove(key)
    }
    pub fn pods(&self) -> impl Iterator<Item = (&Object, u32)> {
        self.by_key.values().map(|placement| (&*placement.object, placement.node))
    }
}
