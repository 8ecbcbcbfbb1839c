//! What is particular to each kind when an object is created or updated (upstream's strategies,
//! `pkg/registry/*/*/strategy.go`).

use super::cache::Cache;
use super::defaults::LastPod;
use super::{Config, admission, defaults, definitions, errors, networks, plain};
use crate::objects::validation::Causes;
use crate::objects::{
    Body, DeploymentStatus, Kind, Object, PodBody, PodStatus, ReplicaSetStatus, ServiceStatus,
};
use crate::objects::{kinds, pod_spec, validation as validate};
use crate::ports::api::Error;
use std::sync::Arc;

/// Defaults a new object and takes away the status that only a status write may set. Nodes and
/// subnets keep it: a node registers itself with its addresses.
pub(super) fn prepare_create(
    new: &mut Object,
    last: &mut LastPod,
    cache: &Cache,
) -> Result<(), Error> {
    if new.kind() != Kind::Pod {
        default_spec(&mut new.body);
    }
    match &mut new.body {
        Body::Namespace { status, .. } => {
            Arc::make_mut(status).phase = Some("Active".to_owned());
            let labels = Arc::make_mut(&mut new.meta).labels.get_or_insert_default();
            labels.insert("kubernetes.io/metadata.name".to_owned(), new.key.name.to_string());
        }
        Body::Pod(pod) => {
            let priority = admission::priority_of(&new.key.name, pod.spec(), cache)?;
            let spec = last.admitted(pod.spec(), priority);
            let status = defaults::pod_status(&spec);
            *pod = PodBody::new(spec, Arc::new(status));
        }
        Body::Service { status, .. } => *status = Arc::new(ServiceStatus::default()),
        Body::Deployment { status, .. } => *status = Arc::new(DeploymentStatus::default()),
        Body::ReplicaSet { status, .. } => *status = Arc::new(ReplicaSetStatus::default()),
        Body::Node { .. }
        | Body::Subnet { .. }
        | Body::Lease { .. }
        | Body::ConfigMap(_)
        | Body::Event(_)
        | Body::EndpointSlice(_) => {}
        Body::Plain(plain) if matches!(plain.kind, Kind::Custom(_)) => {
            if definitions::has_status(cache, plain.kind) {
                plain.status = Arc::default();
            }
        }
        Body::Plain(plain) => {
            let new = kinds::New { name: &new.key.name, uid: new.uid };
            plain::prepare_create(plain, new);
        }
    }
    Ok(())
}

pub(super) fn default_spec(body: &mut Body) {
    match body {
        Body::Pod(pod) => pod.edit(|spec, _| pod_spec::defaults(Arc::make_mut(spec))),
        Body::Service { spec, .. } => defaults::service(Arc::make_mut(spec)),
        Body::Deployment { spec, .. } => defaults::deployment(Arc::make_mut(spec)),
        Body::ReplicaSet { spec, .. } => defaults::replica_set(Arc::make_mut(spec)),
        Body::Node { spec, .. } => {
            // podCIDR is the first of podCIDRs, whichever of the two was written.
            let first = spec.pod_cidrs.as_ref().and_then(|all| all.first().cloned());
            if spec.pod_cidr.is_none() && first.is_some() {
                Arc::make_mut(spec).pod_cidr = first;
            } else if let (Some(one), None) = (&spec.pod_cidr, first) {
                let one = one.clone();
                Arc::make_mut(spec).pod_cidrs = Some(vec![one]);
            }
        }
        Body::EndpointSlice(slice) => defaults::endpoint_slice(slice),
        Body::Plain(plain) => plain::complete(plain),
        _ => {}
    }
}

/// The new spec (defaulted) with the old status; shares whatever is equal with the old object.
pub(super) fn with_new_spec(new: &Body, old: &Body, cache: &Cache) -> Body {
    if same_spec(new, old) {
        return old.clone();
    }
    let mut body = new.clone();
    match (&mut body, old) {
        (Body::Namespace { status, .. }, Body::Namespace { status: old, .. }) => {
            *status = old.clone();
        }
        (Body::Node { status, .. }, Body::Node { status: old, .. }) => *status = old.clone(),
        (Body::Pod(pod), Body::Pod(old)) => *pod = pod.with_status(Arc::clone(old.status())),
        (Body::Service { status, .. }, Body::Service { status: old, .. }) => *status = old.clone(),
        (Body::Deployment { status, .. }, Body::Deployment { status: old, .. }) => {
            *status = old.clone();
        }
        (Body::ReplicaSet { status, .. }, Body::ReplicaSet { status: old, .. }) => {
            *status = old.clone();
        }
        (Body::Subnet { status, .. }, Body::Subnet { status: old, .. }) => *status = old.clone(),
        // Without a status of its own, what it says there is said with the rest.
        (Body::Plain(plain), Body::Plain(_))
            if matches!(plain.kind, Kind::Custom(_))
                && !definitions::has_status(cache, plain.kind) => {}
        (Body::Plain(plain), Body::Plain(old)) => plain.status = old.status.clone(),
        _ => {}
    }
    default_spec(&mut body);
    if same_spec(&body, old) { old.clone() } else { body }
}

/// The old spec with the new status; `None` if this kind has no status.
pub(super) fn with_new_status(new: &Body, old: &Body) -> Option<Body> {
    macro_rules! join {
        ($($kind:ident),*) => {
            match (new, old) {
                $((Body::$kind { status, .. }, Body::$kind { spec, status: before }) => {
                    let same = same(status, before);
                    let status = if same { before } else { status };
                    Body::$kind { spec: spec.clone(), status: status.clone() }
                })*
                (Body::Pod(new), Body::Pod(old)) => {
                    let status = same_class(new.status(), old.status());
                    let same = same(&status, old.status());
                    Body::Pod(if same { old.clone() } else { old.with_status(status) })
                }
                (Body::Plain(new), Body::Plain(old)) => Body::Plain(plain::with_status(new, old)?),
                _ => return None,
            }
        };
    }
    Some(join!(Namespace, Node, Service, Deployment, ReplicaSet, Subnet))
}

/// A pod's class is what it was made with, whoever leaves it out (`podStatusStrategy` in
/// pkg/registry/core/pod/strategy.go).
fn same_class(new: &Arc<PodStatus>, old: &PodStatus) -> Arc<PodStatus> {
    let mut status = Arc::clone(new);
    if new.qos_class.is_none() && old.qos_class.is_some() {
        Arc::make_mut(&mut status).qos_class.clone_from(&old.qos_class);
    }
    status
}

fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Everything but the status is equal.
pub(super) fn same_spec(a: &Body, b: &Body) -> bool {
    macro_rules! compare {
        ($($kind:ident),*) => {
            match (a, b) {
                $((Body::$kind { spec: a, .. }, Body::$kind { spec: b, .. }) => same(a, b),)*
                (Body::Pod(a), Body::Pod(b)) => same(a.spec(), b.spec()),
                (Body::ConfigMap(a), Body::ConfigMap(b)) => same(a, b),
                (Body::Event(a), Body::Event(b)) => same(a, b),
                (Body::EndpointSlice(a), Body::EndpointSlice(b)) => same(a, b),
                (Body::Plain(a), Body::Plain(b)) => plain::same_spec(a, b),
                _ => false,
            }
        };
    }
    compare!(Namespace, Node, Service, Deployment, ReplicaSet, Lease, Subnet)
}

/// Whether two bodies share their status, as [`with_new_status`] makes them if nothing changed.
pub(super) fn shared_status(a: &Body, b: &Body) -> bool {
    macro_rules! compare {
        ($($kind:ident),*) => {
            match (a, b) {
                $((Body::$kind { status: a, .. }, Body::$kind { status: b, .. }) => {
                    Arc::ptr_eq(a, b)
                })*
                (Body::Pod(a), Body::Pod(b)) => Arc::ptr_eq(a.status(), b.status()),
                (Body::Plain(a), Body::Plain(b)) => Arc::ptr_eq(&a.status, &b.status),
                _ => true,
            }
        };
    }
    compare!(Namespace, Node, Service, Deployment, ReplicaSet, Subnet)
}

/// Whether this object may be stored, as a new one or in place of `old`.
pub(super) fn validate(new: &Object, old: Option<&Object>, config: &Config) -> Result<(), Error> {
    let mut causes = Causes::default();
    let kind = new.kind();
    if old.is_none() {
        validate::name(kind, &new.key.name, &mut causes);
    }
    let meta_changed = old.is_none_or(|old| !Arc::ptr_eq(&old.meta, &new.meta));
    if meta_changed {
        validate::meta(&new.meta, &mut causes);
    }
    if let Some(old) = old {
        validate::no_new_finalizers(new, old, &mut causes);
    }
    let unchanged = old.is_some_and(|old| same_spec(&new.body, &old.body));
    if !unchanged {
        validate_spec(new, old, &mut causes);
    }
    if let Body::Node { status, .. } = &new.body
        && old.and_then(Object::node).is_none_or(|(_, before)| !Arc::ptr_eq(before, status))
    {
        networks::check_node(config, status, &mut causes);
    }
    errors::unless_valid(causes, kind, &new.key.name)
}

/// Whether a pod may have its new ephemeral containers.
pub(super) fn validate_ephemeral(new: &Object, old: &Object) -> Result<(), Error> {
    let mut causes = Causes::default();
    if let (Some((now, _)), Some((before, _))) = (new.pod(), old.pod()) {
        validate::pod_spec("spec", now, &mut causes);
        validate::ephemeral::update(old, now, before, &mut causes);
    }
    errors::unless_valid(causes, new.kind(), &new.key.name)
}

fn validate_spec(new: &Object, old: Option<&Object>, causes: &mut Causes) {
    match &new.body {
        Body::Pod(pod) => {
            let spec = pod.spec();
            validate::pod_spec("spec", spec, causes);
            match old.and_then(Object::pod) {
                Some((before, _)) => validate::pod_update(spec, before, causes),
                None if spec.ephemeral_containers.as_ref().is_some_and(|all| !all.is_empty()) => {
                    causes.forbidden("spec.ephemeralContainers", "cannot be set on create");
                }
                None => {}
            }
        }
        Body::Service { spec, .. } => {
            validate::service(spec, causes);
            if let Some((before, _)) = old.and_then(Object::service) {
                validate::service_update(spec, before, causes);
            }
        }
        Body::Deployment { spec, .. } => {
            validate::not_negative("spec.replicas", spec.replicas, causes);
            validate::selector(&spec.selector, Some(&spec.template), causes);
            validate::strategy(spec, causes);
            let before = old.and_then(Object::deployment).map(|(spec, _)| &spec.selector);
            immutable_selector(&spec.selector, before, causes);
        }
        Body::ReplicaSet { spec, .. } => {
            validate::not_negative("spec.replicas", spec.replicas, causes);
            validate::selector(&spec.selector, spec.template.as_ref(), causes);
            let before = old.and_then(Object::replica_set).map(|(spec, _)| &spec.selector);
            immutable_selector(&spec.selector, before, causes);
        }
        Body::Node { spec, .. } => {
            let before = old.and_then(Object::node).and_then(|(spec, _)| spec.pod_cidr.as_ref());
            if before.is_some() && before != spec.pod_cidr.as_ref() {
                let why = "node updates may not change podCIDR except from \"\" to valid";
                causes.forbidden("spec.podCIDRs", why);
            }
        }
        Body::EndpointSlice(slice) => {
            let supported = ["FQDN", "IPv4", "IPv6"];
            if !supported.contains(&slice.address_type.as_str()) {
                causes.unsupported("addressType", &slice.address_type, &supported);
            }
        }
        Body::ConfigMap(map) => {
            let before = old.and_then(Object::config_map).map(|map| &**map);
            validate::config::config_map(map, before, causes);
        }
        Body::Plain(plain) => {
            if plain.kind == Kind::PriorityClass {
                admission::validate_class(&new.key.name, &plain.fields, causes);
            }
            if plain.kind == Kind::CustomResourceDefinition {
                definitions::validate(new, old, causes);
            }
            plain::validate(plain, old.and_then(Object::plain), causes);
        }
        _ => {}
    }
}

fn immutable_selector(
    now: &crate::objects::LabelSelector,
    before: Option<&crate::objects::LabelSelector>,
    causes: &mut Causes,
) {
    if before.is_some_and(|before| before != now) {
        causes.invalid(
            "spec.selector",
            validate::golang::label_selector(now),
            "field is immutable",
        );
    }
}

/// Seconds a pod is given to end: none if it runs nowhere or has ended already.
pub(super) fn pod_grace(
    spec: &crate::objects::PodSpec,
    status: &PodStatus,
    asked: Option<i64>,
) -> i64 {
    let placed = spec.node_name.as_deref().is_some_and(|node| !node.is_empty());
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if !placed || ended {
        return 0;
    }
    // A negative period means one second, as upstream has it.
    match asked.or(spec.termination_grace_period_seconds).unwrap_or(30) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}
