//! Admission: what the server makes of a request that was allowed and is well formed, and what it
//! refuses for reasons that lie in other objects. The plugins that upstream has on by default and
//! that say anything of the kinds there are, in its order (pkg/kubeapiserver/options/plugins.go):
//! first they complete the new object, then, when it is validated, they judge it.
//!
//! NamespaceLifecycle is in [`super::apply`], DefaultTolerationSeconds in
//! [`crate::objects::pod_spec`], ResourceQuota, which comes last, in [`super::quota`].

mod limits;
mod pod_security;
mod priority;
mod service_account;
mod volumes;

pub use pod_security::warnings as warnings_of;
pub(super) use priority::{
    Priority, SYSTEM as SYSTEM_CLASSES, of_pod as priority_of, validate as validate_class,
};

use super::apply::State;
use super::cache::Cache;
use crate::objects::kinds::Fields;
use crate::objects::{Key, Kind, Object};
use crate::ports::api::Error;
use std::sync::Arc;

/// Completes a new object that has its defaults.
pub(super) fn complete(new: &mut Object, state: &mut State<'_>) -> Result<(), Error> {
    limits::complete(new, state.cache);
    if state.config.service_accounts {
        service_account::complete(new, state)?;
    }
    if state.config.volumes {
        volumes::complete(new, state.cache);
    }
    Ok(())
}

/// Judges a valid object, a new one or one in place of another.
pub(super) fn check(new: &Object, old: Option<&Object>, state: &State<'_>) -> Result<(), Error> {
    limits::check(new, old, state.cache)?;
    if state.config.service_accounts && old.is_none() {
        service_account::check(new, state.cache)?;
    }
    pod_security::check(new, old, state.cache)?;
    priority::check(new, old, state)
}

/// The objects of a kind in a namespace.
pub(super) fn in_namespace<'a>(
    cache: &'a Cache,
    kind: Kind,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let first = Key::new(namespace, "");
    let from = cache.views.get(&kind).map(|view| view.iter_from(&first)).into_iter().flatten();
    from.take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| object)
}

/// What an object of a kind without types of its own says.
pub(super) fn fields(object: &Object) -> Option<&Fields> {
    object.plain().map(|plain| &*plain.fields)
}
