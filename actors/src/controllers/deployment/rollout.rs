//! How large each ReplicaSet may be now: pure arithmetic, as upstream's `deployment/rolling.go`,
//! `sync.go` and `util/deployment_util.go` do it.

use super::{DESIRED, MAX, Member, Sync};
use crate::controllers::selectors::Labels;
use crate::controllers::share;
use crate::objects::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How far a rollout may stray from `spec.replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub replicas: i32,
    pub surge: i32,
    pub unavailable: i32,
    pub recreate: bool,
}

impl Limits {
    /// `ResolveFenceposts`: a percentage of surge is rounded up, one of unavailability down; if
    /// both come out as 0, one pod may be unavailable, or nothing could ever move.
    pub fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        let recreate = strategy.is_some_and(|s| s.type_.as_deref() == Some("Recreate"));
        if recreate {
            return Limits { replicas, surge: 0, unavailable: 0, recreate };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = share(rolling.and_then(|r| r.max_surge.as_ref()), replicas, true);
        let down = share(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, false);
        let down = if surge == 0 && down == 0 { 1 } else { down };
        Limits { replicas, surge, unavailable: down.min(replicas), recreate }
    }

    fn most(&self) -> i32 {
        self.replicas + self.surge
    }

    pub fn annotate(&self, annotations: &mut Labels) {
        annotations.insert(DESIRED.to_owned(), self.replicas.to_string());
        annotations.insert(MAX.to_owned(), self.most().to_string());
    }
}

/// A count, or a percentage of `total`; 25 % by default.
fn share(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let quarter = IntOrString::String("25%".to_owned());
    share::of(value.unwrap_or(&quarter), total, up)
}

/// `NewRSNewReplicas` of a rolling update: as many as the surge leaves room for.
pub(crate) fn new_replicas(new: i32, old: &[Member], limits: &Limits) -> i32 {
    let current = new + old.iter().map(|member| member.replicas).sum::<i32>();
    let room = limits.most() - current;
    if room <= 0 { new } else { new + room.min(limits.replicas - new).max(0) }
}

/// One step of a rolling update: the new one up, or else the old ones down.
pub(crate) fn step(sync: &mut Sync<'_>) {
    let Some(new) = &mut sync.new else { return };
    let limits = &sync.limits;
    let wanted = if new.replicas > limits.replicas {
        limits.replicas
    } else {
        new_replicas(new.replicas, &sync.old, limits)
    };
    if wanted != new.replicas {
        new.replicas = wanted;
        return;
    }
    let (replicas, available) = (new.replicas, new.available());
    shrink_old(replicas, available, &mut sync.old, limits);
}

/// `reconcileOldReplicaSets`: unhealthy pods first, for they serve nobody; then healthy ones as
/// far as enough stay available.
fn shrink_old(new: i32, new_available: i32, old: &mut [Member], limits: &Limits) {
    let total = new + old.iter().map(|member| member.replicas).sum::<i32>();
    let least = limits.replicas - limits.unavailable;
    let budget = total - least - (new - new_available);
    if budget <= 0 {
        return;
    }
    let mut cleaned = 0;
    for member in old.iter_mut().filter(|member| member.replicas > member.available()) {
        let unhealthy = member.replicas - member.available();
        let take = unhealthy.min(budget - cleaned);
        member.replicas -= take;
        cleaned += take;
    }
    let available = new_available + old.iter().map(Member::available).sum::<i32>();
    let mut spare = available - least;
    for member in old.iter_mut() {
        let take = member.replicas.min(spare).max(0);
        member.replicas -= take;
        spare -= take;
    }
}

/// `spec.replicas` changed: in a rollout every ReplicaSet grows or shrinks in proportion, so that
/// no more of the pods are at risk than before.
pub(crate) fn scale(sync: &mut Sync<'_>) {
    let limits = sync.limits;
    let active = sync.new.iter().chain(&sync.old).filter(|member| member.replicas > 0).count();
    if active <= 1 {
        let only = sync.old.iter().position(|member| member.replicas > 0);
        let lone = match only {
            Some(at) => Some(&mut sync.old[at]),
            None if sync.new.is_some() => sync.new.as_mut(),
            None => sync.old.last_mut(),
        };
        if let Some(member) = lone {
            resize(member, limits.replicas);
        }
        return;
    }
    let saturated = sync.new.as_ref().is_some_and(|new| {
        let desired = new.number(DESIRED).unwrap_or(0);
        let all = i64::from(limits.replicas);
        new.replicas == limits.replicas && desired == all && new.available() == limits.replicas
    });
    if saturated {
        sync.old.iter_mut().for_each(|member| resize(member, 0));
    } else if !limits.recreate {
        proportionally(sync, &limits);
    }
}

fn resize(member: &mut Member, replicas: i32) {
    member.replicas = replicas;
    member.touch = true;
}

fn proportionally(sync: &mut Sync<'_>, limits: &Limits) {
    let mut all: Vec<&mut Member> =
        sync.new.iter_mut().chain(&mut sync.old).filter(|member| member.replicas > 0).collect();
    let total: i32 = all.iter().map(|member| member.replicas).sum();
    let allowed = if limits.replicas > 0 { limits.most() } else { 0 };
    let to_add = allowed - total;
    // The largest first; among equals the newest when growing and the oldest when shrinking.
    all.sort_by_key(|member| member.age());
    if to_add > 0 {
        all.reverse();
    }
    all.sort_by_key(|member| std::cmp::Reverse(member.replicas));
    let mut added = 0;
    for member in &mut all {
        let share = if to_add == 0 { 0 } else { proportion(member, limits, to_add, added) };
        added += share;
        resize(member, member.replicas + share);
    }
    if let Some(largest) = all.first_mut() {
        let left = to_add - added;
        resize(largest, (largest.replicas + left).max(0));
    }
}

/// `GetReplicaSetProportion`: this one's part of what is to be added (or, below 0, taken away).
fn proportion(member: &Member, limits: &Limits, to_add: i32, added: i32) -> i32 {
    let before = member.number(MAX).filter(|max| *max > 0).unwrap_or(i64::from(limits.replicas));
    let grown = f64::from(member.replicas) * f64::from(limits.most()) / (before.max(1) as f64);
    let fraction = if limits.replicas == 0 {
        -member.replicas
    } else {
        grown.round() as i32 - member.replicas
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Body, Key, Object, ReplicaSetSpec, ReplicaSetStatus};
    use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
    use std::sync::Arc;

    fn limits(replicas: i32, surge: &str, down: &str) -> Limits {
        let of = |text: &str| {
            Some(match text.parse() {
                Ok(count) => IntOrString::Int(count),
                Err(_) => IntOrString::String(text.to_owned()),
            })
        };
        let rolling = RollingUpdateDeployment { max_surge: of(surge), max_unavailable: of(down) };
        Limits::of(&DeploymentSpec {
            replicas: Some(replicas),
            strategy: Some(DeploymentStrategy { type_: None, rolling_update: Some(rolling) }),
            ..DeploymentSpec::default()
        })
    }

    fn member(replicas: i32, available: i32) -> Member {
        let spec = ReplicaSetSpec { replicas: Some(replicas), ..Default::default() };
        let status = ReplicaSetStatus { available_replicas: Some(available), ..Default::default() };
        let body = Body::ReplicaSet { spec: Arc::new(spec), status: Arc::new(status) };
        Member::of(&Arc::new(Object::new(Key::new("x", "a"), body)))
    }

    #[test]
    fn percentages_round_as_upstream() {
        assert_eq!((limits(10, "25%", "25%").surge, limits(10, "25%", "25%").unavailable), (3, 2));
        assert_eq!((limits(1, "25%", "25%").surge, limits(1, "25%", "25%").unavailable), (1, 0));
        assert_eq!((limits(4, "0", "0%").surge, limits(4, "0", "0%").unavailable), (0, 1));
        assert_eq!(limits(2, "0", "5").unavailable, 2);
    }

    #[test]
    fn old_pods_go_only_as_far_as_enough_stay_available() {
        let limits = limits(10, "3", "2");
        // 8 healthy old ones, 5 new ones of which none is available: nothing may go.
        let mut old = vec![member(8, 8)];
        shrink_old(5, 0, &mut old, &limits);
        assert_eq!(old[0].replicas, 8);
        // Three new ones became available: three old ones may go.
        shrink_old(5, 3, &mut old, &limits);
        assert_eq!(old[0].replicas, 5);
        // Unhealthy old ones go first and free of charge.
        let mut old = vec![member(3, 0), member(7, 7)];
        shrink_old(3, 3, &mut old, &limits);
        assert_eq!((old[0].replicas, old[1].replicas), (0, 5));
    }
}
