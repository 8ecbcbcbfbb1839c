//! The volume that a claim gets (`syncClaim` and `bind` of pv_controller.go), and a claim that is
//! used staying (pvc_protection_controller.go).

use super::{Volumes, annotate, ask, claim_subject, enter, provision, say, without};
use crate::controllers::client::Subject;
use crate::controllers::plain;
use crate::controllers::world::{Desk, node_of};
use crate::objects::{Key, Kind, Object};
use crate::ports::api::Request;
use crate::recorder::Tidings;
use crate::storage::{self, Wish};
use serde_json::{Value, json};
use std::sync::Arc;

impl Volumes {
    pub fn claim(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(claim) = desk.world.get(Kind::PersistentVolumeClaim, key).cloned() else { return };
        if claim.deleting() {
            if !self.is_used(key, desk) {
                ask(&claim_subject(key), without(&claim, &[storage::CLAIM_PROTECTION]), desk);
            }
            return;
        }
        let named = storage::text(&claim, "spec.volumeName").to_owned();
        let completed = claim.annotation(storage::BIND_COMPLETED).is_some();
        let volume = desk.world.get(Kind::PersistentVolume, &Key::cluster(named.as_str())).cloned();
        match volume {
            _ if named.is_empty() && completed => lost(&claim, LOST, desk),
            _ if named.is_empty() => self.unbound(&claim, desk),
            None if completed => lost(&claim, LOST, desk),
            // It may come.
            None => _ = enter(&claim_subject(key), &claim, "Pending", desk),
            Some(volume) => chosen(&volume, &claim, completed, desk),
        }
    }

    /// A pod that is bound to a node names it; one that is over counts until it is deleted.
    fn is_used(&self, claim: &Key, desk: &Desk<'_, '_>) -> bool {
        let users = self.users.get(claim).into_iter().flatten();
        let mut pods = users.filter_map(|pod| desk.world.get(Kind::Pod, pod));
        pods.any(|pod| node_of(pod).is_some())
    }

    /// `syncUnboundClaim`, of a claim that names no volume.
    fn unbound(&mut self, claim: &Arc<Object>, desk: &mut Desk<'_, '_>) {
        let of = claim_subject(&claim.key);
        let classes = desk.world.view(Kind::StorageClass);
        if storage::is_classless(claim)
            && let Some(class) = classes.and_then(storage::default_class)
        {
            let name = class.key.name.to_string();
            let assigned = plain::update(claim, |fields| fields.set("spec.storageClassName", name));
            return ask(&of, assigned, desk);
        }
        let name = storage::class(claim).to_owned();
        let class = classes.and_then(|all| all.get(&Key::cluster(name.as_str()))).cloned();
        let selected = claim.annotation(storage::SELECTED_NODE).is_some();
        let delayed = class.as_ref().is_some_and(|class| storage::waits(class)) && !selected;
        let volumes = desk.world.view(Kind::PersistentVolume);
        let wish = Wish::of(claim);
        let found = volumes.and_then(|all| wish.best(all, None, delayed || selected, |_| false));
        if let Some(volume) = found.cloned() {
            return bind(&volume, claim, desk);
        }
        if enter(&of, claim, "Pending", desk) {
            return;
        }
        match class {
            _ if delayed => self.waits_for_a_pod(claim, desk),
            Some(class) => provision::provision(claim, &class, desk),
            None if name.is_empty() => {
                let why = "no persistent volumes available for this claim and no storage class is \
                     set";
                say(claim, Tidings::normal("FailedBinding"), why.to_owned(), desk);
            }
            None => {
                let why = format!("storageclass.storage.k8s.io \"{name}\" not found");
                say(claim, Tidings::warning("ProvisioningFailed"), why, desk);
            }
        }
    }

    /// `emitEventForUnboundDelayBindingClaim`.
    fn waits_for_a_pod(&self, claim: &Object, desk: &mut Desk<'_, '_>) {
        let users = self.users.get(&claim.key).into_iter().flatten();
        let pods = users.filter_map(|pod| desk.world.get(Kind::Pod, pod));
        let names: Vec<&str> =
            pods.filter(|pod| node_of(pod).is_none()).map(|pod| pod.key.name.as_str()).collect();
        let (reason, message) = match &names[..] {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            all => {
                let all = all.join(",");
                ("WaitForPodScheduled", format!("waiting for pods {all} to be scheduled"))
            }
        };
        say(claim, Tidings::normal(reason), message, desk);
    }
}

const LOST: (&str, &str) =
    ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
const MISBOUND: (&str, &str) =
    ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly");

fn lost(claim: &Object, (reason, message): (&str, &str), desk: &mut Desk<'_, '_>) {
    if enter(&claim_subject(&claim.key), claim, "Lost", desk) {
        say(claim, Tidings::warning(reason), message.to_owned(), desk);
    }
}

/// A claim that names this volume.
fn chosen(volume: &Arc<Object>, claim: &Arc<Object>, completed: bool, desk: &mut Desk<'_, '_>) {
    let of = claim_subject(&claim.key);
    match storage::claimed_by(volume) {
        _ if storage::is_for(volume, claim) => bind(volume, claim, desk),
        Some(_) if completed => lost(claim, MISBOUND, desk),
        Some(_) => {
            if !enter(&of, claim, "Pending", desk) {
                let name = &volume.key.name;
                let why = format!("volume \"{name}\" already bound to a different claim.");
                say(claim, Tidings::warning("FailedBinding"), why, desk);
            }
        }
        None => match Wish::of(claim).mismatch(volume) {
            Some(why) if !completed => {
                if !enter(&of, claim, "Pending", desk) {
                    let name = &volume.key.name;
                    let why = format!("Cannot bind to requested volume \"{name}\": {why}");
                    say(claim, Tidings::warning("VolumeMismatch"), why, desk);
                }
            }
            _ => bind(volume, claim, desk),
        },
    }
}

/// The next of the four writes that bind the two; none if they are bound.
fn bind(volume: &Arc<Object>, claim: &Arc<Object>, desk: &mut Desk<'_, '_>) {
    let of = claim_subject(&claim.key);
    if let Some(request) = name_claim(volume, claim) {
        return ask(&of, Some(request), desk);
    }
    if enter(&of, volume, "Bound", desk) {
        return;
    }
    match name_volume(volume, claim) {
        Some(request) => ask(&of, Some(request), desk),
        None => show_bound(&of, volume, claim, desk),
    }
}

/// `GetBindVolumeToClaim`.
fn name_claim(volume: &Object, claim: &Object) -> Option<Request> {
    let before = storage::claimed_by(volume);
    if before.as_ref().is_some_and(|(_, uid)| *uid == Some(claim.uid)) {
        return None;
    }
    let mut volume = volume.clone();
    if before.is_none() {
        annotate(&mut volume, storage::BOUND_BY_CONTROLLER, "yes");
    }
    plain::update(&volume, |fields| fields.set("spec.claimRef", storage::reference(claim)))
}

/// `bindClaimToVolume`.
fn name_volume(volume: &Object, claim: &Object) -> Option<Request> {
    if storage::is_bound(claim) {
        return None;
    }
    let mut claim = claim.clone();
    if storage::text(&claim, "spec.volumeName").is_empty() {
        annotate(&mut claim, storage::BOUND_BY_CONTROLLER, "yes");
    }
    annotate(&mut claim, storage::BIND_COMPLETED, "yes");
    let name = volume.key.name.to_string();
    plain::update(&claim, |fields| fields.set("spec.volumeName", name))
}

/// What the claim got, in its status.
fn show_bound(of: &Subject, volume: &Object, claim: &Object, desk: &mut Desk<'_, '_>) {
    let part = |path: &str| storage::fields(volume).and_then(|fields| fields.at(path)).cloned();
    let status = json!({
        "phase": "Bound",
        "accessModes": part("spec.accessModes").unwrap_or(Value::Null),
        "capacity": part("spec.capacity").unwrap_or(Value::Null),
    });
    let told = claim.plain().map(|plain| &*plain.status);
    let same = |name: &str| told.is_some_and(|told| told[name] == status[name]);
    if !["phase", "accessModes", "capacity"].into_iter().all(same) {
        ask(of, plain::write_status(claim, &status), desk);
    }
}
