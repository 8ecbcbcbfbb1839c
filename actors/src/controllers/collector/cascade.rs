//! Deletion in the foreground, what is owned first, and deletion that lets go what is owned: the
//! API server marks the owner and holds it by a finalizer, which is taken off here when that is
//! done (`processDeletingDependentsItem`, `attemptToDeleteItem` and `attemptToOrphanWorker` of
//! upstream's `pkg/controller/garbagecollector/garbagecollector.go`).

use super::owner::Standing;
use super::{Collector, owners, subject};
use crate::controllers::client::{Client, Loop};
use crate::controllers::world::{Desk, World};
use crate::objects::{Key, Kind, Object, OwnerReference, Uid};
use crate::ports::api::{DeleteOptions, Propagation, Request, Subresource};
use serde_json::{Value, json};
use std::sync::Arc;

/// What its deletion waits for.
pub(super) fn asked(object: &Object) -> Option<Propagation> {
    let finalizers = object.meta.finalizers.as_deref().unwrap_or_default();
    Propagation::of(finalizers).filter(|_| object.deleting())
}

impl Collector {
    pub(super) fn wait_changed(
        &mut self,
        kind: Kind,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        client: &mut Client,
    ) {
        let ask = |object: Option<&Arc<Object>>| object.and_then(|object| asked(object));
        let (was, is) = (ask(old), ask(new));
        if let Some(old) = old.filter(|_| was.is_some()) {
            self.waiting.remove(&old.uid);
        }
        let Some(new) = new.filter(|_| is.is_some()) else { return };
        self.waiting.insert(new.uid, (kind, key.clone()));
        if was != is {
            client.mark(subject(kind, key));
            for (kind, key) in self.dependents.get(&new.uid).into_iter().flatten() {
                client.mark(subject(*kind, key));
            }
        }
    }

    /// What the views show of what an object owns, each with its reference to the owner.
    fn owned<'w>(
        &self,
        owner: &Object,
        world: &'w World,
    ) -> impl Iterator<Item = (&'w Arc<Object>, &'w OwnerReference)> {
        let keys = self.dependents.get(&owner.uid).into_iter().flatten();
        let uid = owner.uid;
        keys.filter_map(move |(kind, key)| {
            let object = world.get(*kind, key)?;
            let (reference, _) = owners(object).find(|(_, of)| *of == uid)?;
            Some((object, reference))
        })
    }

    /// The object is being deleted and waits.
    pub(super) fn cascade(&self, how: Propagation, object: &Object, desk: &mut Desk<'_, '_>) {
        let world = desk.world;
        if let Some(until) = self.kinds.unknown_until(desk.ctx.now()) {
            // What is not shown yet may be its own.
            return desk.client.mark_at(until, subject(object.kind(), &object.key));
        }
        let mut done = true;
        for (dependent, reference) in self.owned(object, world) {
            match how {
                Propagation::Orphan => {
                    let request = without_owners(dependent, |uid| uid == object.uid);
                    desk.ask(Loop::Collector, object.kind(), &object.key, request);
                    done = false;
                }
                // It marks this one when it goes.
                _ if reference.block_owner_deletion == Some(true) => done = false,
                _ => {}
            }
        }
        if done && let Some(finalizer) = how.finalizer() {
            let request = without_finalizer(object, finalizer);
            desk.ask(Loop::Collector, object.kind(), &object.key, request);
        }
    }

    /// The last kind of all is shown: what waited for that is looked at.
    pub(super) fn all_shown(&self, client: &mut Client) {
        self.waiting.values().for_each(|(kind, key)| client.mark(subject(*kind, key)));
    }

    /// Those of its owners that wait for it, or would if it had no others.
    pub(super) fn waiting_owners(&self, object: &Object, world: &World) -> Vec<Uid> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let waits = |(owner, uid): (&OwnerReference, Uid)| {
            let owner = self.shown(owner, uid, &object.key, world)?;
            (asked(owner) == Some(Propagation::Foreground)).then_some(uid)
        };
        owners(object).filter_map(waits).collect()
    }

    /// Goes before its owner; or if it has another owner that stays, leaves the one that goes.
    pub(super) fn precede(&mut self, object: &Arc<Object>, going: &[Uid], desk: &mut Desk<'_, '_>) {
        let world = desk.world;
        let mut stays = false;
        for (owner, uid) in owners(object).filter(|(_, uid)| !going.contains(uid)) {
            match self.standing(owner, uid, object, desk) {
                Standing::Gone => {}
                Standing::There => stays = true,
                // The answer decides.
                Standing::Asked => return,
            }
        }
        let (kind, key) = (object.kind(), object.key.clone());
        let request = match stays {
            true => without_owners(object, |uid| going.contains(&uid) || self.dead.contains(&uid)),
            false => {
                let mut owned = self.owned(object, world).peekable();
                // In a circle, nobody could be the first: upstream unblocks this one's owners.
                let in_front = owned.peek().is_some()
                    && !owned.any(|(one, _)| asked(one) == Some(Propagation::Foreground));
                let propagation = in_front.then_some(Propagation::Foreground);
                let uid = Some(object.uid);
                let options = DeleteOptions { uid, propagation, ..DeleteOptions::default() };
                Request::Delete { kind, key: key.clone(), options }
            }
        };
        desk.ask(Loop::Collector, kind, &key, request);
    }
}

/// Takes owners off an object, if it still is as it was seen.
pub(super) fn without_owners(object: &Object, goes: impl Fn(Uid) -> bool) -> Request {
    let all = object.meta.owner_references.iter().flatten();
    let kept = all.filter(|owner| !Uid::parse(&owner.uid).is_some_and(&goes));
    patch(object, "ownerReferences", kept.map(|owner| json!(owner)).collect())
}

fn without_finalizer(object: &Object, finalizer: &str) -> Request {
    let all = object.meta.finalizers.iter().flatten();
    patch(object, "finalizers", all.filter(|name| *name != finalizer).map(|n| json!(n)).collect())
}

fn patch(object: &Object, field: &str, list: Vec<Value>) -> Request {
    let list = if list.is_empty() { Value::Null } else { list.into() };
    let patch = json!({"metadata": {
        "uid": object.uid.to_string(), "resourceVersion": object.version.to_string(), field: list,
    }});
    let (kind, key) = (object.kind(), object.key.clone());
    Request::Patch { kind, key, subresource: Subresource::Main, patch }
}
