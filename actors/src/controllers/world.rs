//! What the controllers have been shown: the newest view of each kind, and who owns and holds
//! which pods.

use super::Controllers;
use super::client::{Client, Loop, Subject};
use crate::objects::{Key, Kind, Name, Object, Uid, View};
use crate::ports::api::Request;
use kubesim_runtime::{Change, Context};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub type ObjectChange<'a> = Change<'a, Key, Arc<Object>>;

/// The kinds that the controllers work with.
pub const WATCHED: [Kind; 15] = [
    Kind::Node,
    Kind::Pod,
    Kind::Service,
    Kind::Deployment,
    Kind::ReplicaSet,
    Kind::EndpointSlice,
    Kind::Lease,
    Kind::Subnet,
    Kind::Job,
    Kind::CronJob,
    Kind::DaemonSet,
    Kind::StatefulSet,
    Kind::ControllerRevision,
    Kind::PersistentVolumeClaim,
    Kind::PodDisruptionBudget,
];

/// Those whose objects are looked up by what controls them.
pub const CONTROLLED: [Kind; 4] =
    [Kind::Pod, Kind::ReplicaSet, Kind::Job, Kind::ControllerRevision];

#[derive(Clone, Debug, Default)]
pub struct World {
    /// Kinds that were not shown yet and without which nothing can be judged.
    missing: BTreeSet<Kind>,
    views: BTreeMap<Kind, View>,
    /// What is [`CONTROLLED`] by the uid of the owner, as in the view.
    controlled: Index<(Kind, Uid)>,
    /// Pods by the node they are bound to, as in the view.
    bound: Index<Name>,
    /// Pods that nobody controls.
    orphans: BTreeSet<Key>,
}

type Index<I> = BTreeMap<I, BTreeMap<Key, Arc<Object>>>;

/// The change's key, and the object before and after it.
pub fn sides<'a>(
    change: &ObjectChange<'a>,
) -> (&'a Key, Option<&'a Arc<Object>>, Option<&'a Arc<Object>>) {
    match change {
        Change::Added(key, new) => (key, None, Some(new)),
        Change::Changed { key, old, new } => (key, Some(old), Some(new)),
        Change::Removed(key, old) => (key, Some(old), None),
    }
}

/// Deleted and made again under one name between two views, an object is another one: what was
/// known of the first must be forgotten.
pub fn apart(change: ObjectChange<'_>) -> impl Iterator<Item = ObjectChange<'_>> {
    let (first, second) = match change {
        Change::Changed { key, old, new } if old.uid != new.uid => {
            (Change::Removed(key, old), Some(Change::Added(key, new)))
        }
        other => (other, None),
    };
    std::iter::once(first).chain(second)
}

/// The node a pod is bound to.
pub fn node_of(pod: &Object) -> Option<&Name> {
    pod.pod_facts()?.node()
}

impl World {
    /// In which these kinds must be shown before anything is judged.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        World { missing: kinds.into_iter().collect(), ..World::default() }
    }

    pub fn view(&self, kind: Kind) -> Option<&View> {
        self.views.get(&kind)
    }

    /// Every kind that is needed was shown at least once.
    pub fn complete(&self) -> bool {
        self.missing.is_empty()
    }

    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Object>> {
        self.views.get(&kind)?.get(key)
    }

    /// Puts the new view in place and returns the old one (an empty one at first).
    pub fn replace(&mut self, kind: Kind, view: View) -> View {
        let history = view.history();
        self.missing.remove(&kind);
        self.views.insert(kind, view).unwrap_or_else(|| View::empty(history))
    }

    /// Nothing is shown of this kind any more.
    pub fn forget(&mut self, kind: Kind) {
        self.views.remove(&kind);
    }

    pub fn controlled(&self, kind: Kind, owner: Uid) -> impl Iterator<Item = &Arc<Object>> {
        self.controlled.get(&(kind, owner)).into_iter().flat_map(BTreeMap::values)
    }

    pub fn bound_to(&self, node: &Name) -> impl Iterator<Item = &Arc<Object>> {
        self.bound.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// Pods of the namespace that nobody controls.
    pub fn orphans(&self, namespace: &Name) -> impl Iterator<Item = &Arc<Object>> {
        let from = Key::new(namespace.clone(), "");
        let keys = self.orphans.range(from..).take_while(move |key| key.namespace == *namespace);
        keys.filter_map(|key| self.get(Kind::Pod, key))
    }

    /// Keeps the indexes; changes of what is [`CONTROLLED`] only.
    pub fn index(&mut self, kind: Kind, change: &ObjectChange<'_>) {
        let (key, old, new) = sides(change);
        let owner = |object: &Arc<Object>| Some((kind, object.controller()?.1));
        refile(&mut self.controlled, old.and_then(owner), new.and_then(owner), key, new);
        if kind != Kind::Pod {
            return;
        }
        match new {
            Some(pod) if pod.controller().is_none() => _ = self.orphans.insert(key.clone()),
            _ if old.is_some() => _ = self.orphans.remove(key),
            _ => {}
        }
        let node = |pod: &Arc<Object>| node_of(pod).cloned();
        refile(&mut self.bound, old.and_then(node), new.and_then(node), key, new);
    }
}

/// Puts an object where it belongs after a change: `was` and `is` say under what it stood and
/// stands.
fn refile<I: Ord>(
    index: &mut Index<I>,
    was: Option<I>,
    is: Option<I>,
    key: &Key,
    object: Option<&Arc<Object>>,
) {
    if was != is
        && let Some(was) = was
        && let Some(objects) = index.get_mut(&was)
    {
        objects.remove(key);
        if objects.is_empty() {
            index.remove(&was);
        }
    }
    if let (Some(is), Some(object)) = (is, object) {
        let objects = index.entry(is).or_default();
        match objects.get_mut(key) {
            Some(known) => known.clone_from(object),
            None => _ = objects.insert(key.clone(), Arc::clone(object)),
        }
    }
}

/// What a sync works with.
pub struct Desk<'a, 'c> {
    pub world: &'a World,
    pub client: &'a mut Client,
    pub ctx: &'a mut Context<'c, Controllers>,
}

impl Desk<'_, '_> {
    pub fn ask(&mut self, of: Loop, kind: Kind, key: &Key, request: Request) {
        self.client.ask(Subject::new(of, kind, key), request);
    }
}
