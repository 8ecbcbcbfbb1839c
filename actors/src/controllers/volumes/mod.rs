//! PersistentVolumes and their claims: bound to each other, made and removed (upstream
//! pkg/controller/volume: persistentvolume, pvcprotection, pvprotection; and, of the volumes that
//! are directories of a node, what sig-storage-lib-external-provisioner does beside it).
//!
//! - `claims`: the volume that a claim gets
//! - `provision`: the volume that is made for one
//! - `reclaim`: what becomes of a volume whose claim is gone, and who is told to remove it
//!
//! A step writes one object; what it wrote being seen, the subject is looked at again. So a life
//! that ends between two of the four writes of a binding leaves nothing that the next cannot end.

mod claims;
mod provision;
mod reclaim;

use super::client::{Client, Loop, Outcome, Subject};
use super::plain;
use super::tell;
use super::world::{Desk, ObjectChange, World, sides};
use crate::objects::{Key, Kind, Object, Uid};
use crate::ports::api::{Reason, Request};
use crate::recorder::Tidings;
use crate::storage;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The kinds that are watched for this besides those that the controllers watch anyway.
pub const WATCHED: [Kind; 2] = [Kind::PersistentVolume, Kind::StorageClass];

#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// Pods by the claims that they name.
    users: BTreeMap<Key, BTreeSet<Key>>,
    /// Claims of volumes that were looked up and not found.
    gone: BTreeSet<Uid>,
}

fn subject(kind: Kind, key: &Key) -> Subject {
    Subject::new(Loop::Volume, kind, key)
}

fn claim_subject(key: &Key) -> Subject {
    subject(Kind::PersistentVolumeClaim, key)
}

impl Volumes {
    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
    ) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::Pod => self.pod_changed(key, old, new, client),
            Kind::PersistentVolumeClaim => claim_changed(key, old, new, world, client),
            Kind::PersistentVolume => self.volume_changed(key, old, new, world, client),
            Kind::StorageClass if new.is_some() => mark_unbound(world, client),
            Kind::Node => node_changed(key, old, new, world, client),
            _ => {}
        }
    }

    fn pod_changed(
        &mut self,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        client: &mut Client,
    ) {
        if let (Some(old), None) = (old, new) {
            for claim in claims_of(old) {
                if let Some(users) = self.users.get_mut(&claim) {
                    users.remove(key);
                    if users.is_empty() {
                        self.users.remove(&claim);
                    }
                }
                client.mark(claim_subject(&claim));
            }
        }
        if let (None, Some(new)) = (old, new) {
            for claim in claims_of(new) {
                client.mark(claim_subject(&claim));
                self.users.entry(claim).or_default().insert(key.clone());
            }
        }
    }

    fn volume_changed(
        &mut self,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        world: &World,
        client: &mut Client,
    ) {
        client.mark(subject(Kind::PersistentVolume, key));
        for volume in old.into_iter().chain(new) {
            if let Some((claim, _)) = storage::claimed_by(volume) {
                client.mark(claim_subject(&claim));
            }
            if let Some(node) = volume.annotation(storage::NODE) {
                client.mark(subject(Kind::Node, &Key::cluster(node)));
            }
        }
        match new {
            // It may be what somebody waits for.
            Some(volume) if storage::claimed_by(volume).is_none() => mark_unbound(world, client),
            Some(_) => {}
            None => {
                let claim = old.and_then(|old| storage::claimed_by(old)).and_then(|(_, uid)| uid);
                claim.map(|uid| self.gone.remove(&uid));
            }
        }
    }

    pub fn sync(&mut self, kind: Kind, key: &Key, desk: &mut Desk<'_, '_>) {
        match kind {
            Kind::PersistentVolumeClaim => self.claim(key, desk),
            Kind::PersistentVolume => self.volume(key, desk),
            Kind::Node => reclaim::node(key, desk),
            _ => {}
        }
    }

    pub fn answered(&mut self, outcome: &Outcome, world: &World, client: &mut Client) {
        let Subject { kind, key, .. } = &outcome.subject;
        match (&*outcome.request, &outcome.result) {
            (Request::Get { kind: Kind::PersistentVolumeClaim, .. }, found) => {
                let volume = world.get(*kind, key);
                let Some((_, Some(uid))) = volume.and_then(|volume| storage::claimed_by(volume))
                else {
                    return;
                };
                let gone = match found {
                    Ok(Some(claim)) => claim.uid != uid,
                    Ok(None) => false,
                    Err(error) => error.reason == Reason::NotFound,
                };
                if gone {
                    self.gone.insert(uid);
                    client.mark(outcome.subject.clone());
                }
            }
            (Request::Create { object }, Ok(Some(_)))
                if object.kind() == Kind::PersistentVolume =>
            {
                let Some(claim) = world.get(*kind, key) else { return };
                client.recorder.tell(
                    storage::PROVISIONER,
                    claim,
                    Tidings::normal("ProvisioningSucceeded"),
                    || format!("Successfully provisioned volume {}", object.key.name),
                );
            }
            _ => {}
        }
    }
}

/// The claims that a pod names.
fn claims_of(pod: &Object) -> Vec<Key> {
    let Some((spec, _)) = pod.pod() else { return Vec::new() };
    let names = storage::claims_of(spec).into_iter();
    names.map(|name| Key::new(pod.key.namespace.clone(), name)).collect()
}

fn claim_changed(
    key: &Key,
    old: Option<&Arc<Object>>,
    new: Option<&Arc<Object>>,
    world: &World,
    client: &mut Client,
) {
    client.mark(claim_subject(key));
    for claim in old.into_iter().chain(new) {
        let volume = storage::text(claim, "spec.volumeName");
        if !volume.is_empty() {
            client.mark(subject(Kind::PersistentVolume, &Key::cluster(volume)));
        }
    }
    // What was made for it and not yet named by it.
    if new.is_none() {
        let volumes = world.view(Kind::PersistentVolume).into_iter().flat_map(|view| view.iter());
        for (volume, object) in volumes {
            if storage::claimed_by(object).is_some_and(|(claim, _)| claim == *key) {
                client.mark(subject(Kind::PersistentVolume, volume));
            }
        }
    }
}

/// A node that came or went, or said something of its volumes.
fn node_changed(
    key: &Key,
    old: Option<&Arc<Object>>,
    new: Option<&Arc<Object>>,
    world: &World,
    client: &mut Client,
) {
    let says = |node: &Arc<Object>| {
        let all = [storage::DIRECTORY, storage::REMOVE, storage::REMOVED];
        all.map(|name| node.annotation(name).map(str::to_owned))
    };
    if old.is_some() && new.is_some() && old.map(says) == new.map(says) {
        return;
    }
    client.mark(subject(Kind::Node, key));
    let volumes = world.view(Kind::PersistentVolume).into_iter().flat_map(|view| view.iter());
    for (volume, object) in volumes {
        if object.annotation(storage::NODE) == Some(key.name.as_str()) {
            client.mark(subject(Kind::PersistentVolume, volume));
        }
    }
    mark_unbound(world, client);
}

fn mark_unbound(world: &World, client: &mut Client) {
    let claims = world.view(Kind::PersistentVolumeClaim).into_iter().flat_map(|view| view.iter());
    for (key, _) in claims.filter(|(_, claim)| !storage::is_bound(claim)) {
        client.mark(claim_subject(key));
    }
}

// What the steps share.

fn say(about: &Object, what: Tidings, message: String, desk: &mut Desk<'_, '_>) {
    let component = tell::name(Loop::Volume);
    desk.client.recorder.tell(component, about, what, || message);
}

/// The object with another phase is asked for, if it has not this one. True if it was.
fn enter(of: &Subject, object: &Object, phase: &str, desk: &mut Desk<'_, '_>) -> bool {
    if storage::phase(object) == phase {
        return false;
    }
    ask(of, plain::write_status(object, &json!({"phase": phase})), desk);
    true
}

fn ask(of: &Subject, request: Option<Request>, desk: &mut Desk<'_, '_>) {
    if let Some(request) = request {
        desk.client.ask(of.clone(), request);
    }
}

fn annotate(object: &mut Object, name: &str, value: &str) {
    let meta = Arc::make_mut(&mut object.meta);
    meta.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

/// The object without these finalizers; `None` if it has none of them.
fn without(object: &Object, finalizers: &[&str]) -> Option<Request> {
    let there = object.meta.finalizers.as_ref()?;
    let rest: Vec<String> =
        there.iter().filter(|one| !finalizers.contains(&one.as_str())).cloned().collect();
    if rest.len() == there.len() {
        return None;
    }
    let mut next = object.clone();
    Arc::make_mut(&mut next.meta).finalizers = (!rest.is_empty()).then_some(rest);
    Some(Request::Update { object: Arc::new(next) })
}
