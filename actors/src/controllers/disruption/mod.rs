//! PodDisruptionBudget: how many of its pods may go at will just now, in its status, for the
//! eviction to go by (upstream `pkg/controller/disruption`).
//!
//! A budget's pods are kept by name, so that a change of a pod costs a look at the budgets that may
//! select it. Who evicts notes the pod in the status; until its deletion is seen, for two minutes
//! at most, it counts as gone.

pub mod condition;
mod expected;

use super::client::{Client, Loop, Subject};
use super::selectors::{self, SelectorIndex, labels};
use super::world::{Desk, ObjectChange, World, sides};
use super::{plain, pods};
use crate::objects::{Key, Kind, LabelSelector, Object, wall};
use crate::ports::api::{Request, Subresource};
use expected::Counts;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::api::policy::v1::{PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use kubesim_runtime::Wall;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long an evicted pod that is not being deleted counts as gone, and how long one may be marked
/// as about to be disrupted (`DeletionTimeout`, `stalePodDisruptionTimeout`).
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Default)]
pub struct Disruptions {
    selectors: SelectorIndex,
    budgets: BTreeMap<Key, Budget>,
}

/// One with a selector; without, it is about no pod.
#[derive(Clone, Debug)]
struct Budget {
    selector: LabelSelector,
    pods: BTreeSet<Key>,
}

fn subject(budget: &Key) -> Subject {
    Subject::new(Loop::Disruption, Kind::PodDisruptionBudget, budget)
}

fn stale(pod: &Key) -> Subject {
    Subject::new(Loop::Disruption, Kind::Pod, pod)
}

impl Disruptions {
    pub fn observe(
        &mut self,
        kind: Kind,
        change: &ObjectChange<'_>,
        world: &World,
        client: &mut Client,
    ) {
        let (key, old, new) = sides(change);
        match kind {
            Kind::PodDisruptionBudget => {
                self.select(key, new, world);
                client.mark(subject(key));
            }
            Kind::Pod => {
                self.sort(key, old, new, client);
                if new.is_some_and(|pod| marked(pod).is_some()) {
                    client.mark(stale(key));
                }
            }
            _ => {}
        }
    }

    /// What the budget is about now.
    fn select(&mut self, key: &Key, budget: Option<&Arc<Object>>, world: &World) {
        let spec: PodDisruptionBudgetSpec = budget.map(|b| plain::spec(b)).unwrap_or_default();
        let known = self.budgets.get(key).map(|budget| &budget.selector);
        if known == spec.selector.as_ref() {
            return;
        }
        self.selectors.remove(key);
        self.budgets.remove(key);
        let Some(selector) = spec.selector else { return };
        self.selectors.insert(key, labels(selector.match_labels.as_ref()));
        let from = Key::new(key.namespace.clone(), "");
        let there = world.view(Kind::Pod).into_iter().flat_map(|view| view.iter_from(&from));
        let near = there.take_while(|(pod, _)| pod.namespace == key.namespace);
        let selected = near.filter(|(_, pod)| matches(&selector, pod));
        let pods = selected.map(|(pod, _)| pod.clone()).collect();
        self.budgets.insert(key.clone(), Budget { selector, pods });
    }

    /// Puts a pod where it belongs, and has the budgets looked at for which it changed.
    fn sort(
        &mut self,
        key: &Key,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        client: &mut Client,
    ) {
        if self.budgets.is_empty() {
            return;
        }
        let mut concerned = BTreeSet::new();
        for pod in old.into_iter().chain(new) {
            let labels = labels(pod.meta.labels.as_ref());
            concerned.extend(self.selectors.candidates(&key.namespace, labels));
        }
        let same = old.map(|pod| facts(pod)) == new.map(|pod| facts(pod));
        for budget_key in concerned {
            let Some(budget) = self.budgets.get_mut(&budget_key) else { continue };
            let is = new.is_some_and(|pod| matches(&budget.selector, pod));
            let changed = match is {
                true => budget.pods.insert(key.clone()) || !same,
                false => budget.pods.remove(key),
            };
            if changed {
                client.mark(subject(&budget_key));
            }
        }
    }

    pub fn sync(&mut self, kind: Kind, key: &Key, desk: &mut Desk<'_, '_>) {
        if kind == Kind::Pod {
            return unmark(key, desk);
        }
        let Some(object) = desk.world.get(kind, key).cloned() else { return };
        let (world, now) = (desk.world, desk.ctx.wall());
        let own = self.budgets.get(key).into_iter().flat_map(|budget| &budget.pods);
        let own: Vec<&Arc<Object>> = own.filter_map(|pod| world.get(Kind::Pod, pod)).collect();
        let stored: PodDisruptionBudgetStatus = plain::status(&object);
        let next = match expected::counts(&plain::spec(&object), &own, world) {
            Ok(counts) => {
                let (next, again) = status(&object, &stored, &own, counts, now);
                if let Some(at) = again {
                    wake(subject(key), at, desk);
                }
                next
            }
            Err(why) => {
                let mut next =
                    PodDisruptionBudgetStatus { disruptions_allowed: 0, ..stored.clone() };
                condition::say(&mut next, condition::Word::Failed(&why), now);
                next
            }
        };
        if next != stored
            && let Some(request) = plain::write_status(&object, &next)
        {
            desk.ask(Loop::Disruption, kind, key, request);
        }
    }
}

fn matches(selector: &LabelSelector, pod: &Object) -> bool {
    selectors::matches(selector, labels(pod.meta.labels.as_ref()))
}

/// What a budget's status depends on, of a pod.
fn facts(pod: &Object) -> (bool, bool, Option<crate::objects::Uid>) {
    (pods::is_ready(pod), pod.deleting(), pod.controller().map(|(_, uid)| uid))
}

/// The status as it is to be, and when it is to be looked at again.
fn status(
    budget: &Object,
    stored: &PodDisruptionBudgetStatus,
    own: &[&Arc<Object>],
    counts: Counts,
    now: Wall,
) -> (PodDisruptionBudgetStatus, Option<Wall>) {
    let evicted = stored.disrupted_pods.as_ref();
    let end = |name: &str| Some(wall(evicted?.get(name)?.0) + TIMEOUT);
    let staying: Vec<_> = own.iter().filter(|pod| !pod.deleting()).collect();
    let mut disrupted = BTreeMap::new();
    let mut again = None;
    for pod in &staying {
        let name = pod.key.name.as_str();
        if let Some(end) = end(name).filter(|end| *end >= now) {
            again = Some(again.map_or(end, |at: Wall| at.min(end)));
            disrupted.extend(evicted.and_then(|all| all.get_key_value(name)));
        }
    }
    let healthy = staying
        .iter()
        .filter(|pod| pods::is_ready(pod) && end(&pod.key.name).is_none_or(|end| end <= now));
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    // None before the first pods are there: they are not all known yet.
    let allowed = if counts.expected <= 0 { 0 } else { (healthy - counts.desired).max(0) };
    let disrupted: BTreeMap<_, _> =
        disrupted.into_iter().map(|(name, at)| (name.clone(), at.clone())).collect();
    let mut next = PodDisruptionBudgetStatus {
        conditions: stored.conditions.clone(),
        current_healthy: healthy,
        desired_healthy: counts.desired,
        disrupted_pods: Some(disrupted).filter(|all| !all.is_empty()),
        disruptions_allowed: allowed,
        expected_pods: counts.expected,
        observed_generation: budget.meta.generation,
    };
    condition::say(&mut next, condition::Word::Counted, now);
    // At the very moment it counts as gone no more, but is listed still.
    (next, again.map(|at| at + Duration::from_nanos(1)))
}

const TARGET: &str = "DisruptionTarget";

/// Since when the pod is about to be disrupted, but for one that the kubelet ends in its own time.
fn marked(pod: &Object) -> Option<Wall> {
    let (_, status) = pod.pod()?;
    let condition = pods::condition(status, TARGET).filter(|one| one.status == "True")?;
    let ours = condition.reason.as_deref() != Some("TerminationByKubelet");
    if !ours || pod.deleting() || pods::is_terminated(pod) {
        return None;
    }
    let since = condition.last_transition_time.as_ref().map(|time| wall(time.0));
    Some(since.unwrap_or(Wall::from_unix_nanos(0)))
}

/// Nobody disrupted the pod after all (`syncStalePodDisruption`).
fn unmark(key: &Key, desk: &mut Desk<'_, '_>) {
    let Some(pod) = desk.world.get(Kind::Pod, key) else { return };
    let Some(since) = marked(pod) else { return };
    let (end, now) = (since + TIMEOUT, desk.ctx.wall());
    if end > now {
        return wake(stale(key), end, desk);
    }
    let conditions = pod.pod().and_then(|(_, status)| status.conditions.clone());
    let mut conditions = conditions.unwrap_or_default();
    for one in conditions.iter_mut().filter(|one| one.type_ == TARGET) {
        *one = PodCondition {
            type_: TARGET.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(crate::objects::time(now)),
            ..PodCondition::default()
        };
    }
    let patch = json!({
        "metadata": {"uid": pod.uid.to_string(), "resourceVersion": pod.version.to_string()},
        "status": {"conditions": conditions},
    });
    let (kind, subresource) = (Kind::Pod, Subresource::Status);
    let request = Request::Patch { kind, key: key.clone(), subresource, patch };
    desk.ask(Loop::Disruption, kind, key, request);
}

/// Looks at it again at that moment of the civil clock.
fn wake(subject: Subject, at: Wall, desk: &mut Desk<'_, '_>) {
    let delay = at.since(desk.ctx.wall()).max(Duration::from_millis(1));
    desk.client.mark_at(desk.ctx.now() + delay, subject);
}
