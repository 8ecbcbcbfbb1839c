//! Whether an owner is there (`isDangling` of upstream's garbage collector): by its view, or if
//! that does not show it, which may be late, by a look-up.

use super::{Collector, subject};
use crate::controllers::client::{Client, Loop};
use crate::controllers::world::{Desk, World};
use crate::objects::{Key, Object, OwnerReference, Uid};
use crate::ports::api::Request;
use std::sync::Arc;
use std::time::Duration;

/// Nobody tells when an owner goes whose kind is not shown: it is looked up again after this.
const GOOD_FOR: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Gone,
    /// Or it is not known: then nothing is done for it.
    There,
    /// It is being looked up.
    Asked,
}

impl Collector {
    /// The owner as its view shows it.
    pub(super) fn shown<'w>(
        &self,
        owner: &OwnerReference,
        uid: Uid,
        dependent: &Key,
        world: &'w World,
    ) -> Option<&'w Arc<Object>> {
        let (kind, key) = self.kinds.place(owner, dependent)?;
        world.get(kind, &key).filter(|owner| owner.uid == uid)
    }

    pub(super) fn standing(
        &mut self,
        owner: &OwnerReference,
        uid: Uid,
        object: &Object,
        desk: &mut Desk<'_, '_>,
    ) -> Standing {
        if self.dead.contains(&uid) {
            return Standing::Gone;
        }
        let Some((kind, key)) = self.kinds.place(owner, &object.key) else {
            return Standing::There;
        };
        let now = desk.ctx.now();
        if desk.world.view(kind).is_some() {
            let seen = self.shown(owner, uid, &object.key, desk.world).is_some();
            if seen || self.alive.contains(&uid) {
                return Standing::There;
            }
        } else {
            let good = self.looked_up.get(&uid).filter(|until| **until > now).copied();
            let again = good.unwrap_or(now + GOOD_FOR);
            desk.client.mark_at(again, subject(object.kind(), &object.key));
            if good.is_some() {
                return Standing::There;
            }
            // Others that it owns wait for the same answer.
            self.looked_up.insert(uid, again);
        }
        desk.ask(Loop::Collector, object.kind(), &object.key, Request::Get { kind, key });
        Standing::Asked
    }

    /// What a look-up found out about an owner.
    pub(super) fn told(&mut self, watched: bool, uid: Uid, there: bool, client: &mut Client) {
        if !there {
            self.dead.insert(uid);
            for (kind, key) in self.dependents.get(&uid).into_iter().flatten() {
                client.mark(subject(*kind, key));
            }
        } else if watched {
            self.alive.insert(uid);
        }
    }
}
