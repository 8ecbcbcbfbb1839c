//! ResourceQuota: what a namespace may use in all.
//!
//! Upstream's admission plugin (apiserver pkg/admission/plugin/resourcequota) raises a quota's
//! `status.used` in a write of its own before the object is made, and a controller counts anew when
//! objects go or that object was not made after all. Here a write and what it uses or gives back
//! are one transaction of the store, so `used` is what there is at every version, also when several
//! servers write and when one dies. Only a quota that is new or was changed is counted from all
//! that its namespace holds.

mod scopes;
mod usage;

use super::admission::{fields, in_namespace};
use super::apply::Outcome;
use super::cache::Cache;
use super::errors;
use crate::objects::kinds::Fields;
use crate::objects::pod_resources::{self as resources, Amounts};
use crate::objects::quantity::Quantity;
use crate::objects::{Body, Key, Kind, Object, Plain};
use crate::ports::api::Error;
use crate::ports::store::StoreKey;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What a write changes beside its object (a quota, say), in the same transaction: as it is once
/// that is done, in place of the version it was computed from.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub key: StoreKey,
    /// 0: it is not there.
    pub expected: u64,
    pub object: Arc<Object>,
}

pub(super) fn any(cache: &Cache, namespace: &str) -> bool {
    in_namespace(cache, Kind::ResourceQuota, namespace).next().is_some()
}

/// What a write changes in the quotas of its namespace, or why it must not be made.
pub(super) fn charges(
    cache: &Cache,
    (kind, key): &StoreKey,
    outcome: &Outcome,
) -> Result<Vec<Charge>, Error> {
    let new = match outcome {
        Outcome::Same(_) => return Ok(Vec::new()),
        Outcome::Put { object, .. } => Some(object),
        Outcome::Remove { .. } => None,
    };
    let old = cache.object(*kind, key).map(|old| &**old);
    let mut charges = Vec::new();
    for quota in in_namespace(cache, Kind::ResourceQuota, &key.namespace) {
        charges.extend(charge(quota, old, new)?);
    }
    // Quotas that count quotas are counted anew after it: each would wait for the other's lane.
    if *kind == Kind::ResourceQuota {
        charges.clear();
    }
    Ok(charges)
}

fn charge(
    quota: &Arc<Object>,
    old: Option<&Object>,
    new: Option<&Object>,
) -> Result<Option<Charge>, Error> {
    let Some(spec) = fields(quota) else { return Ok(None) };
    let of = |object: Option<&Object>| object.map(|o| counted(spec, o)).unwrap_or_default();
    let (before, after) = (of(old), of(new));
    if before == after && old.is_some() == new.is_some() {
        return Ok(None);
    }
    let status = Status::read(quota);
    if let Some(new) = new.filter(|new| judged(new, old)) {
        permit(quota, spec, &status, new, (&before, &after))?;
    }
    let mut used = status.used.clone();
    for (name, was) in &mut used {
        let (gone, come) = (amount(&before, name), amount(&after, name));
        *was = was.plus(come).minus(gone);
    }
    if used == status.used {
        return Ok(None);
    }
    Ok(Some(Charge {
        key: (Kind::ResourceQuota, quota.key.clone()),
        expected: quota.version,
        object: Arc::new(with_status(quota, &Status { used, ..status })),
    }))
}

fn amount(of: &Amounts, name: &str) -> Quantity {
    of.get(name).copied().unwrap_or(Quantity::ZERO)
}

/// What of an object this quota counts.
fn counted(quota: &Fields, object: &Object) -> Amounts {
    if !scopes::hold(quota, object) {
        return Amounts::new();
    }
    let mut all = usage::of(object);
    all.retain(|name, _| quota.map("spec.hard").any(|(hard, _)| hard == name));
    all
}

/// Updates are refused of Services and claims only, whose spec says how much they use
/// (`Evaluator.Handles`); of other objects they are no more than counted.
fn judged(new: &Object, old: Option<&Object>) -> bool {
    old.is_none() || matches!(new.kind(), Kind::Service | Kind::PersistentVolumeClaim)
}

/// Refuses what would use more than there is (`CheckRequest`).
fn permit(
    quota: &Object,
    spec: &Fields,
    status: &Status,
    new: &Object,
    (before, after): (&Amounts, &Amounts),
) -> Result<(), Error> {
    let name = &quota.key.name;
    let refused = |why: String| Err(errors::forbidden(new.kind(), &new.key.name, why));
    if let Some((pod, _)) = new.pod().filter(|_| scopes::hold(spec, new))
        && let Some(missing) = usage::unsaid(pod, spec)
    {
        return refused(format!("failed quota: {name}: must specify {missing}"));
    }
    let mut more = Amounts::new();
    for (what, amount) in after {
        let more_of = amount.minus(self::amount(before, what));
        if more_of.exceeds(Quantity::ZERO) {
            more.insert(what.clone(), more_of);
        }
    }
    let unknown: Vec<&str> =
        more.keys().filter(|what| !status.used.contains_key(*what)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let what = unknown.join(", ");
        return refused(format!("status unknown for quota: {name}, resources: {what}"));
    }
    let over = |what: &str, more: Quantity| {
        let hard = status.hard.get(what);
        hard.is_some_and(|hard| amount(&status.used, what).plus(more).exceeds(*hard))
    };
    more.retain(|what, more| over(what, *more));
    if more.is_empty() {
        return Ok(());
    }
    let of = |amounts: &Amounts| {
        let texts = more.keys().map(|what| format!("{what}={}", amount(amounts, what)));
        texts.collect::<Vec<_>>().join(",")
    };
    refused(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        of(&more),
        of(&status.used),
        of(&status.hard)
    ))
}

/// A quota's status as it is when all that its namespace holds is counted.
pub(super) fn recounted(quota: &Object, cache: &Cache) -> Object {
    let Some(spec) = fields(quota) else { return quota.clone() };
    let hard = amounts(spec.at("spec.hard"));
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    let kinds = cache.views.keys();
    let kinds = kinds.filter(|kind| kind.namespaced() && usage::names(**kind, spec));
    for kind in kinds {
        for object in in_namespace(cache, *kind, &quota.key.namespace) {
            resources::add(&mut used, &counted(spec, object));
        }
    }
    with_status(quota, &Status { hard, used })
}

#[derive(Clone, Debug, PartialEq)]
struct Status {
    hard: Amounts,
    used: Amounts,
}

impl Status {
    fn read(quota: &Object) -> Status {
        let status = quota.plain().map(|plain| &*plain.status);
        let part = |name: &str| amounts(status.and_then(|status| status.get(name)));
        Status { hard: part("hard"), used: part("used") }
    }
}

fn amounts(of: Option<&Value>) -> Amounts {
    let all = of.and_then(Value::as_object).into_iter().flatten();
    let read = |text: &Value| Quantity::parse(text.as_str()?);
    all.filter_map(|(name, text)| Some((name.clone(), read(text)?))).collect()
}

fn with_status(quota: &Object, status: &Status) -> Object {
    let texts = |of: &Amounts| -> Map<String, Value> {
        of.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect()
    };
    let status = json!({"hard": texts(&status.hard), "used": texts(&status.used)});
    let body = match &quota.body {
        Body::Plain(plain) if *plain.status != status => {
            Body::Plain(Plain { status: Arc::new(status), ..plain.clone() })
        }
        body => body.clone(),
    };
    Object { body, ..quota.clone() }
}

/// The quotas of a namespace.
pub(super) fn keys(cache: &Cache, namespace: &str) -> Vec<Key> {
    let all = in_namespace(cache, Kind::ResourceQuota, namespace);
    all.map(|quota| quota.key.clone()).collect()
}
