//! ControllerRevisions: the templates that a DaemonSet or a StatefulSet has had, newest with the
//! highest number (upstream `pkg/controller/history`).

use super::client::Outcome;
use super::deployment::template_hash;
use super::world::{Desk, World};
use super::{Loop, plain, pods};
use crate::objects::{Key, Kind, Object, ObjectMeta, Uid, typed};
use crate::ports::api::{DeleteOptions, Request};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The label by which a pod, and a revision itself, says which revision it is.
pub const HASH: &str = "controller-revision-hash";

/// Names of revisions that turned out to be taken by something else.
#[derive(Clone, Debug, Default)]
pub struct Collisions(BTreeSet<Key>);

impl Collisions {
    /// What a look-up found after a create that met an object of that name.
    pub fn answered(&mut self, outcome: &Outcome, owner: Option<Uid>) {
        let (Request::Get { kind: Kind::ControllerRevision, key }, Ok(Some(found))) =
            (&*outcome.request, &outcome.result)
        else {
            return;
        };
        if found.controller().map(|(_, uid)| uid) != owner {
            self.0.insert(key.clone());
        }
    }
}

/// The revisions of one owner, oldest first.
pub struct History(Vec<Arc<Object>>);

/// How a present template stands in a history.
pub enum Present {
    /// It is the newest one.
    Is(Arc<Object>),
    /// It was asked for, or is to be renumbered.
    Asked,
    /// Its name is taken: the hash takes the next collision count.
    Collides,
}

impl History {
    pub fn of(owner: Uid, world: &World) -> Self {
        let mut all: Vec<_> =
            world.controlled(Kind::ControllerRevision, owner).map(Arc::clone).collect();
        all.sort_by_key(|object| (revision(object), pods::age(object)));
        History(all)
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Object>> {
        self.0.iter().find(|object| object.key.name == name)
    }

    /// The revision of the owner's template; made, or made the newest, if it is not.
    pub fn present(
        &self,
        owner: &Object,
        collision_count: Option<i32>,
        collisions: &mut Collisions,
        of: Loop,
        desk: &mut Desk<'_, '_>,
    ) -> Present {
        let template = owner.plain().and_then(|plain| plain.fields.at("spec.template"));
        let data = data(template.cloned().unwrap_or_default());
        let newest = self.0.last().map_or(0, revision);
        let same = |object: &&Arc<Object>| {
            object.plain().is_some_and(|plain| plain.fields.at("data") == Some(&data))
        };
        if let Some(found) = self.0.iter().rfind(same) {
            if revision(found) == newest {
                return Present::Is(Arc::clone(found));
            }
            // What was rolled back to is the newest again.
            let number = |fields: &mut crate::objects::kinds::Fields| {
                fields.set("revision", newest + 1);
            };
            if let Some(request) = plain::update(found, number) {
                desk.ask(of, owner.kind(), &owner.key, request);
            }
            return Present::Asked;
        }
        let parsed: Option<PodTemplateSpec> = template.and_then(|template| typed(template).ok());
        let hash = template_hash(&parsed.unwrap_or_default(), collision_count);
        let name = format!("{}-{hash}", owner.key.name);
        let key = Key::new(owner.key.namespace.clone(), name);
        if collisions.0.remove(&key) {
            return Present::Collides;
        }
        let labels = template.map(|template| &template["metadata"]["labels"]);
        let labels = labels.and_then(|all| typed(all).ok());
        let mut labels: BTreeMap<String, String> = labels.unwrap_or_default();
        labels.insert(HASH.to_owned(), hash);
        let meta = ObjectMeta {
            labels: Some(labels),
            annotations: owner.meta.annotations.clone(),
            owner_references: Some(vec![owner.as_controller()]),
            ..ObjectMeta::default()
        };
        let fields = json!({"data": data, "revision": newest + 1});
        let object = plain::object(Kind::ControllerRevision, key, fields).with_meta(meta);
        let request = Request::Create { object: Arc::new(object) };
        desk.ask(of, owner.kind(), &owner.key, request);
        Present::Asked
    }

    /// Deletes the oldest of the revisions that are `counted` beyond the limit; those that are
    /// `live` stay. True if any was.
    pub fn trim(
        &self,
        owner: &Object,
        limit: Option<i32>,
        (counted, live): (impl Fn(&Object) -> bool, impl Fn(&Object) -> bool),
        of: Loop,
        desk: &mut Desk<'_, '_>,
    ) -> bool {
        let limit = limit.unwrap_or(10).max(0) as usize;
        let there = || self.0.iter().filter(|object| !object.deleting());
        let surplus = there().filter(|object| counted(object)).count().saturating_sub(limit);
        let idle: Vec<_> = there().filter(|object| !live(object)).take(surplus).collect();
        for object in &idle {
            let options = DeleteOptions { uid: Some(object.uid), ..DeleteOptions::default() };
            let (kind, key) = (Kind::ControllerRevision, object.key.clone());
            desk.ask(of, owner.kind(), &owner.key, Request::Delete { kind, key, options });
        }
        !idle.is_empty()
    }
}

/// What a revision keeps of its owner: a patch that puts the template back (`getPatch`).
fn data(mut template: Value) -> Value {
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

pub fn revision(object: &Arc<Object>) -> i64 {
    object.plain().and_then(|plain| plain.fields.number("revision")).unwrap_or(0)
}

/// The template that a revision keeps.
pub fn template(object: &Object) -> PodTemplateSpec {
    object.plain().map(|plain| plain.fields.part("data.spec.template")).unwrap_or_default()
}
