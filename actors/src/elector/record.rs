//! The lease and what it says.

use super::Config;
use crate::objects::{Body, LeaseSpec, Object, micro_time};
use kubesim_runtime::Wall;
use std::sync::Arc;
use std::time::Duration;

/// Nobody, where it was given up.
pub fn holder(lease: &Object) -> &str {
    let spec = lease.lease();
    spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// How long it is good for after each renewal.
pub fn duration(lease: &Object) -> Duration {
    let seconds = lease.lease().and_then(|spec| spec.lease_duration_seconds);
    Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0))
}

/// Held by nobody, and for others to take at once (`release` of client-go's leaderelection.go).
pub fn released(old: &Object, now: Wall) -> Object {
    let before = old.lease().and_then(|spec| spec.lease_transitions);
    let spec = LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        lease_transitions: before,
        acquire_time: Some(micro_time(now)),
        renew_time: Some(micro_time(now)),
        ..LeaseSpec::default()
    };
    Object { body: Body::Lease { spec: Arc::new(spec) }, ..old.clone() }
}

/// Held by this one from now on, or still: then it was acquired when it says. It is an update of
/// the version that is given, or a new one.
pub fn held(config: &Config, old: Option<&Object>, now: Wall) -> Object {
    let before = old.and_then(|lease| lease.lease()).map(|spec| (**spec).clone());
    let mut spec = before.unwrap_or_default();
    let still = spec.holder_identity.as_deref() == Some(&config.identity);
    if !still {
        spec.acquire_time = Some(micro_time(now));
        let before = old.map(|_| spec.lease_transitions.unwrap_or(0));
        spec.lease_transitions = Some(before.map_or(0, |count| count.saturating_add(1)));
    }
    let spec = LeaseSpec {
        holder_identity: Some(config.identity.to_string()),
        lease_duration_seconds: i32::try_from(config.duration.as_secs()).ok(),
        renew_time: Some(micro_time(now)),
        ..spec
    };
    let body = Body::Lease { spec: Arc::new(spec) };
    match old {
        Some(old) => Object { body, ..old.clone() },
        None => Object::new(config.lease.clone(), body),
    }
}
