//! What a write would do to the known state: a pure function, but for the dice (uids, addresses).
//! Nothing happens until the store has committed it.

use super::cache::Cache;
use super::defaults::LastPod;
use super::services_ip::Allocations;
use super::{Config, admission, definitions, delete, errors, kinds, patch, quota, service};
use crate::objects::{Body, Key, Kind, Object, ObjectMeta, PodBody, Uid, pod_spec, time};
use crate::ports::api::{Error, Request, Subresource};
use k8s_openapi::api::core::v1::PodCondition;
use kubesim_runtime::{Rng, Wall};
use std::sync::Arc;

/// What an apply may see and use.
pub(super) struct State<'a> {
    pub cache: &'a Cache,
    pub config: &'a Config,
    pub services: &'a mut Allocations,
    pub last_pod: &'a mut LastPod,
    pub wall: Wall,
    pub rng: &'a mut Rng,
    /// The server's own write at start: the namespace need not be there yet.
    pub internal: bool,
    /// For a definition, the other ones that are being written.
    pub under_way: Vec<Arc<Object>>,
}

/// `expected` is the version that the store must still have (0: absent).
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing to write: the object is so already.
    Same(Arc<Object>),
    Put {
        object: Object,
        expected: u64,
    },
    /// Removed; the object is as last seen.
    Remove {
        object: Arc<Object>,
        expected: u64,
    },
}

/// `key` is the subject, with a generated name where the request left it out.
pub(super) fn apply(state: State<'_>, request: &Request, key: &Key) -> Result<Outcome, Error> {
    let (kind, _) = request.subject();
    if let Request::Create { object } = request {
        return create(state, object, key);
    }
    let Some(old) = state.cache.object(kind, key).cloned() else {
        return Err(errors::not_found(kind, &key.name));
    };
    match request {
        Request::Update { object } => update(state, object, &old),
        Request::UpdateStatus { object } => update_status(&state, object, &old),
        Request::UpdateEphemeralContainers { object } => update_ephemeral(&state, object, &old),
        Request::Patch { subresource, patch, .. } => {
            let new = patch::merged(&old, *subresource, patch)?;
            match subresource {
                Subresource::Main => update(state, &new, &old),
                Subresource::Status => update_status(&state, &new, &old),
            }
        }
        Request::Delete { options, .. } => delete::delete(&state, &old, options),
        Request::Bind { uid, node, .. } => bind(&state, &old, *uid, node),
        // None of these writes.
        Request::Create { .. } | Request::Get { .. } | Request::List { .. } | Request::Token(_) => {
            Ok(Outcome::Same(old))
        }
    }
}

fn create(mut state: State<'_>, object: &Object, key: &Key) -> Result<Outcome, Error> {
    let kind = object.kind();
    if object.version != 0 {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(errors::bad_request(why));
    }
    if kind.namespaced() && !state.internal {
        namespace_open(state.cache, kind, key)?;
    }
    definitions::may_create(state.cache, kind, key)?;
    let mut new = object.clone();
    new.key = key.clone();
    new.uid = Uid::from_random(state.rng.u64(), state.rng.u64());
    let meta = Arc::make_mut(&mut new.meta);
    meta.creation_timestamp = Some(time(state.wall));
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.generation = kind.declaration().generation.then_some(1);
    strip(meta);
    new.managed = object.managed.some();
    kinds::prepare_create(&mut new, state.last_pod, state.cache)?;
    admission::complete(&mut new, &mut state)?;
    if kind == Kind::CustomResourceDefinition {
        definitions::settle(&mut new, &state);
    }
    kinds::validate(&new, None, state.config)?;
    admission::check(&new, None, &state)?;
    if state.cache.object(kind, key).is_some() {
        return Err(errors::already_exists(kind, &key.name));
    }
    service::allocate(&mut state, &mut new)?;
    Ok(Outcome::Put { object: new, expected: 0 })
}

/// What the key, the uid and the version say already; and what says nothing, being empty, as
/// upstream's `omitempty` leaves it out (apimachinery, pkg/apis/meta/v1/types.go, ObjectMeta).
fn strip(meta: &mut ObjectMeta) {
    meta.annotations.take_if(|all| all.is_empty());
    meta.labels.take_if(|all| all.is_empty());
    meta.finalizers.take_if(|all| all.is_empty());
    meta.owner_references.take_if(|all| all.is_empty());
    meta.name = None;
    meta.namespace = None;
    meta.uid = None;
    meta.resource_version = None;
}

/// The NamespaceLifecycle admission plugin.
fn namespace_open(cache: &Cache, kind: Kind, key: &Key) -> Result<(), Error> {
    let Some(namespace) = cache.object(Kind::Namespace, &Key::cluster(key.namespace.clone()))
    else {
        return Err(errors::not_found(Kind::Namespace, &key.namespace));
    };
    if !namespace.deleting() {
        return Ok(());
    }
    let why = format_args!(
        "unable to create new content in namespace {} because it is being terminated",
        key.namespace
    );
    Err(errors::forbidden(kind, &key.name, why))
}

/// The uid, if given, must be the stored one, and so must the version.
fn same_object(new: &Object, old: &Object) -> Result<(), Error> {
    if new.uid != Uid::NONE && new.uid != old.uid {
        return Err(errors::other_uid(old.kind(), &old.key.name, new.uid, old.uid));
    }
    if new.version != 0 && new.version != old.version {
        return Err(errors::modified(old.kind(), &old.key.name));
    }
    Ok(())
}

fn update(mut state: State<'_>, new: &Object, old: &Arc<Object>) -> Result<Outcome, Error> {
    same_object(new, old)?;
    let mut body = kinds::with_new_spec(&new.body, &old.body, state.cache);
    service::keep_allocated(&mut body, &old.body);
    let spec_changed = !kinds::same_spec(&body, &old.body);
    let meta = next_meta(&new.meta, old, spec_changed);
    let managed = new.managed.some();
    let unchanged = Arc::ptr_eq(&meta, &old.meta) && managed == old.managed && !spec_changed;
    if unchanged {
        return Ok(Outcome::Same(old.clone()));
    }
    let mut object = Object { meta, managed, body, ..(**old).clone() };
    if spec_changed && object.kind() == Kind::CustomResourceDefinition {
        definitions::settle(&mut object, &state);
    }
    kinds::validate(&object, Some(old), state.config)?;
    if delete::finally_gone(&object) {
        let object = Arc::new(object);
        return Ok(Outcome::Remove { object, expected: old.version });
    }
    admission::check(&object, Some(old), &state)?;
    if spec_changed {
        service::allocate(&mut state, &mut object)?;
    }
    Ok(Outcome::Put { object, expected: old.version })
}

/// The new metadata with what only the server writes; the old one itself if nothing differs.
fn next_meta(new: &Arc<ObjectMeta>, old: &Object, spec_changed: bool) -> Arc<ObjectMeta> {
    let bump = spec_changed && old.kind().declaration().generation;
    if Arc::ptr_eq(new, &old.meta) && !bump {
        return old.meta.clone();
    }
    let mut meta = (**new).clone();
    strip(&mut meta);
    meta.creation_timestamp.clone_from(&old.meta.creation_timestamp);
    meta.deletion_timestamp.clone_from(&old.meta.deletion_timestamp);
    meta.deletion_grace_period_seconds = old.meta.deletion_grace_period_seconds;
    meta.generate_name.clone_from(&old.meta.generate_name);
    meta.generation = old.meta.generation.map(|n| n + i64::from(bump));
    if meta == *old.meta { old.meta.clone() } else { Arc::new(meta) }
}

fn update_status(state: &State<'_>, new: &Object, old: &Arc<Object>) -> Result<Outcome, Error> {
    if state.internal && old.kind() == Kind::ResourceQuota {
        return Ok(recount(state, old));
    }
    if state.internal && old.kind() == Kind::CustomResourceDefinition {
        return Ok(definitions::resettle(state, old));
    }
    same_object(new, old)?;
    let Some(body) = kinds::with_new_status(&new.body, &old.body) else {
        return Err(errors::not_found(old.kind(), &old.key.name));
    };
    // Whose the fields are now, if this was written on the stored version.
    let managed = if new.version == old.version { &new.managed } else { &old.managed };
    if kinds::shared_status(&body, &old.body) && *managed == old.managed {
        return Ok(Outcome::Same(old.clone()));
    }
    let object = Object { body, managed: managed.clone(), ..(**old).clone() };
    kinds::validate(&object, Some(old), state.config)?;
    Ok(Outcome::Put { object, expected: old.version })
}

/// `podEphemeralContainersStrategy` of pkg/registry/core/pod/strategy.go: nothing else that was
/// written there counts.
fn update_ephemeral(state: &State<'_>, new: &Object, old: &Arc<Object>) -> Result<Outcome, Error> {
    same_object(new, old)?;
    let (Some((said, _)), Some(before)) = (new.pod(), old.pod_body()) else {
        return Err(errors::not_found(old.kind(), &old.key.name));
    };
    let mut spec = Arc::clone(before.spec());
    let ephemeral = &mut Arc::make_mut(&mut spec).ephemeral_containers;
    ephemeral.clone_from(&said.ephemeral_containers);
    pod_spec::defaults(Arc::make_mut(&mut spec));
    let (same, managed) = (spec == *before.spec(), new.managed.some());
    if same && managed == old.managed {
        return Ok(Outcome::Same(old.clone()));
    }
    let meta = next_meta(&old.meta, old, !same);
    let body = Body::Pod(PodBody::new(spec, Arc::clone(before.status())));
    let object = Object { meta, managed, body, ..(**old).clone() };
    kinds::validate_ephemeral(&object, old)?;
    admission::check(&object, Some(old), state)?;
    Ok(Outcome::Put { object, expected: old.version })
}

/// The server writes the status of one kind itself, and what it says then.
fn recount(state: &State<'_>, old: &Arc<Object>) -> Outcome {
    let new = quota::recounted(old, state.cache);
    match kinds::shared_status(&new.body, &old.body) {
        true => Outcome::Same(old.clone()),
        false => Outcome::Put { object: new, expected: old.version },
    }
}

fn bind(state: &State<'_>, old: &Arc<Object>, uid: Uid, node: &str) -> Result<Outcome, Error> {
    let name = &old.key.name;
    let Some(pod) = old.pod_body() else {
        return Err(errors::not_found(Kind::Pod, name));
    };
    if uid != Uid::NONE && uid != old.uid {
        return Err(errors::other_uid(Kind::Pod, name, uid, old.uid));
    }
    if node.is_empty() {
        return Err(errors::bad_request("target.name: Required value"));
    }
    if old.deleting() {
        let why = format_args!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(errors::conflict(Kind::Pod, name, why));
    }
    if let Some(other) = pod.facts().node() {
        let why = format_args!("pod {name} is already assigned to node {other:?}");
        return Err(errors::conflict(Kind::Pod, name, why));
    }
    let (mut spec, mut status) = (pod.spec().clone(), pod.status().clone());
    Arc::make_mut(&mut spec).node_name = Some(node.to_owned());
    let conditions = Arc::make_mut(&mut status).conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(time(state.wall)),
        ..PodCondition::default()
    });
    let object = Object { body: Body::Pod(PodBody::new(spec, status)), ..(**old).clone() };
    Ok(Outcome::Put { object, expected: old.version })
}
