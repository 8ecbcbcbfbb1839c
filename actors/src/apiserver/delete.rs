//! Deletion: at once, within a grace period, or when the last finalizer is gone (apiserver's
//! `pkg/registry/rest/delete.go` and `pkg/registry/generic/registry/store.go`).

use super::apply::{Outcome, State};
use super::{definitions, errors, kinds};
use crate::objects::{Body, Kind, Object, time, wall};
use crate::ports::api::{DeleteOptions, Error, Propagation};
use kubesim_runtime::Wall;
use std::sync::Arc;
use std::time::Duration;

const IMMORTAL: [&str; 3] = ["default", super::namespaces::SYSTEM, "kube-public"];

pub(super) fn delete(
    state: &State<'_>,
    old: &Arc<Object>,
    options: &DeleteOptions,
) -> Result<Outcome, Error> {
    let kind = old.kind();
    if let Some(uid) = options.uid.filter(|uid| *uid != old.uid) {
        return Err(errors::other_uid(kind, &old.key.name, uid, old.uid));
    }
    if let Some(version) = options.version.filter(|version| *version != old.version) {
        return Err(errors::other_version(kind, &old.key.name, version, old.version));
    }
    let grace = match &old.body {
        Body::Pod(pod) => {
            let asked = options.grace.map(|grace| grace.as_secs().min(i64::MAX as u64) as i64);
            kinds::pod_grace(pod.spec(), pod.status(), asked)
        }
        Body::Namespace { .. } if !state.internal => return delete_namespace(state, old),
        Body::Plain(plain) if plain.kind == Kind::CustomResourceDefinition && !state.internal => {
            return Ok(delete_definition(state, old));
        }
        _ => 0,
    };
    // Once a deletion runs within its grace, options change its end and nothing else.
    let before = old.meta.deletion_grace_period_seconds.unwrap_or(0);
    let later = grace >= before || options.grace.is_none() && grace != 0;
    let pending = old.deleting() && before > 0 && later;
    let finalizers = match pending {
        true => finalizers(old).to_vec(),
        false => next_finalizers(old, options.propagation),
    };
    if grace == 0 && finalizers.is_empty() {
        return Ok(Outcome::Remove { object: old.clone(), expected: old.version });
    }
    let marked = match old.deleting() {
        true => shorten(old, options, grace),
        false => mark_deleted(old, grace, state.wall + Duration::from_secs(grace as u64)),
    };
    Ok(with_finalizers(marked, finalizers))
}

fn finalizers(object: &Object) -> &[String] {
    object.meta.finalizers.as_deref().unwrap_or_default()
}

/// The object's own, and that of the garbage collector which the options ask for, or else the
/// object's (`deletionFinalizersForGarbageCollection` of apiserver's `registry/store.go`).
fn next_finalizers(old: &Object, asked: Option<Propagation>) -> Vec<String> {
    let own = finalizers(old);
    let ours = |name: &String| Propagation::of(std::slice::from_ref(name)).is_some();
    let wanted = match old.kind() {
        // Nothing is owned by one (`GarbageCollectionPolicy` of upstream's event strategy).
        Kind::Event => None,
        _ => asked.or(Propagation::of(own)).and_then(Propagation::finalizer),
    };
    if own.iter().filter(|name| ours(name)).map(String::as_str).eq(wanted) {
        return own.to_vec();
    }
    let kept = own.iter().filter(|name| !ours(name)).cloned();
    kept.chain(wanted.map(str::to_owned)).collect()
}

fn with_finalizers(outcome: Outcome, wanted: Vec<String>) -> Outcome {
    let (mut object, expected) = match outcome {
        Outcome::Same(object) if finalizers(&object) != wanted => {
            (Object::clone(&object), object.version)
        }
        Outcome::Put { object, expected } => (object, expected),
        other => return other,
    };
    if finalizers(&object) != wanted {
        Arc::make_mut(&mut object.meta).finalizers = Some(wanted).filter(|all| !all.is_empty());
    }
    Outcome::Put { object, expected }
}

/// Already being deleted: a further request may only shorten the grace period.
fn shorten(old: &Arc<Object>, options: &DeleteOptions, grace: i64) -> Outcome {
    let before = old.meta.deletion_grace_period_seconds.unwrap_or(0);
    if (options.grace.is_none() && grace != 0) || grace >= before {
        return Outcome::Same(old.clone());
    }
    let deadline = old.meta.deletion_timestamp.as_ref().map_or(Wall::default(), |t| wall(t.0));
    let gain = i128::from(before - grace) * 1_000_000_000;
    let earlier = Wall::from_unix_nanos(deadline.unix_nanos() - gain);
    mark_deleted(old, grace, earlier)
}

fn mark_deleted(old: &Arc<Object>, grace: i64, deadline: Wall) -> Outcome {
    let mut object = (**old).clone();
    let meta = Arc::make_mut(&mut object.meta);
    meta.deletion_timestamp = Some(time(deadline));
    meta.deletion_grace_period_seconds = Some(grace);
    meta.generation = meta.generation.map(|n| n + 1);
    Outcome::Put { object, expected: old.version }
}

/// In two steps: marked here, and gone once the server has emptied it.
fn delete_namespace(state: &State<'_>, old: &Arc<Object>) -> Result<Outcome, Error> {
    let name = &old.key.name;
    if IMMORTAL.contains(&name.as_str()) {
        let why = "this namespace may not be deleted";
        return Err(errors::forbidden(Kind::Namespace, name, why));
    }
    if old.deleting() {
        return Ok(Outcome::Same(old.clone()));
    }
    let Outcome::Put { mut object, expected } = mark_deleted(old, 0, state.wall) else {
        return Ok(Outcome::Same(old.clone()));
    };
    if let Body::Namespace { status, .. } = &mut object.body {
        Arc::make_mut(status).phase = Some("Terminating".to_owned());
    }
    Ok(Outcome::Put { object, expected })
}

/// In two steps as well: what it declares goes first.
fn delete_definition(state: &State<'_>, old: &Arc<Object>) -> Outcome {
    if old.deleting() {
        return Outcome::Same(old.clone());
    }
    let mut marked = mark_deleted(old, 0, state.wall);
    if let Outcome::Put { object, .. } = &mut marked {
        definitions::mark(object, state.wall);
    }
    marked
}

/// Being deleted, past its grace, and the last finalizer is gone.
pub(super) fn finally_gone(object: &Object) -> bool {
    object.deleting()
        && object.meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && finalizers(object).is_empty()
        // A namespace goes when it is empty, which the server sees to.
        && object.kind() != Kind::Namespace
}
