//! `pods/eviction`: a deletion that a PodDisruptionBudget may hold up (kubernetes
//! `pkg/registry/core/pod/storage/eviction.go`). No kind of that name is served.
//!
//! What a budget allows, its controller writes into its status; an eviction takes one of it and
//! notes the pod there, before the pod goes.

use super::Inner;
use super::body::Answer;
use super::delete::{Deletion, checked, remove};
use super::read::initializing;
use super::route::Target;
use super::status::Failure;
use super::write::{call, done};
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use kubesim_actors::controllers::disruption::condition::{self, Word};
use kubesim_actors::controllers::selectors;
use kubesim_actors::objects::{Body, Key, Kind, Object, Phase, Plain, time};
use kubesim_actors::ports::api::{Error, Reason, Request};
use kubesim_runtime::Wall;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Versions of Eviction that are taken.
const EVICTIONS: [&str; 3] = ["policy/v1", "policy/v1beta1", ""];

/// How often a write is tried that others come before, and the pause between (`EvictionsRetry`,
/// whose pauses are ten times as long).
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A budget that has more evicted pods, which its controller has not seen go, allows no more
/// (`MaxDisruptedPodSize`).
const DISRUPTED: usize = 2000;

pub async fn evict(
    inner: &Inner,
    target: &Target,
    value: Value,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let mut deletion = read(target, value)?;
    deletion.dry_run |= dry_run;
    let pod = again(deletion.options.version.is_some(), async || {
        let pod = inner.object(target)?;
        if !is_beyond_budgets(&pod) {
            return Ok(Some(pod));
        }
        // It is no disruption, unless it has become ready meanwhile.
        let version = deletion.options.version.or((!has_ended(&pod)).then_some(pod.version));
        delete(inner, target, &deletion.of(version)).await.map(|()| None)
    });
    let Some(pod) = pod.await? else { return Ok(done()) };
    let budget = match &budgets(inner, &pod)?[..] {
        [] => None,
        [budget] => Some(Arc::clone(budget)),
        // An answer that tells of a failure, and not a failure: as upstream has it.
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction \
                           subresource does not support.";
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                                "status": "Failure", "message": message, "code": 500});
            return Ok(Answer::json(&status).created());
        }
    };
    let Some(budget) = budget else {
        return delete(inner, target, &deletion).await.map(|()| done());
    };
    if !disrupts(&pod, &budget) {
        let version = deletion.options.version.or(Some(pod.version));
        let gone = delete(inner, target, &deletion.of(version)).await;
        return match gone {
            // It may be ready by now.
            Err(failure) if failure.reason == "Conflict" && deletion.options.version.is_none() => {
                Err(still_processed(&budget))
            }
            gone => gone.map(|()| done()),
        };
    }
    let taken = again(false, async || take_one(inner, &pod, &budget, deletion.dry_run).await);
    taken.await.map_err(|failure| match failure.reason {
        "Conflict" => {
            let name = budget.key.name.as_str();
            let why = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
            Failure { retry_after: Some(10), ..Failure::timeout(format!("Timeout: {why}")) }
        }
        _ => failure,
    })?;
    delete(inner, target, &deletion).await.map(|()| done())
}

/// What is asked.
fn read(target: &Target, mut value: Value) -> Result<Deletion, Failure> {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !EVICTIONS.contains(&version.as_str()) || !["Eviction", ""].contains(&kind.as_str()) {
        return Err(Failure::bad_request(format!(
            "the data is a {kind:?} of {version:?}: what is sent here is an Eviction of policy/v1"
        )));
    }
    value["apiVersion"] = "policy/v1".into();
    value["kind"] = "Eviction".into();
    let eviction: Eviction = serde_json::from_value(value).map_err(|why| {
        let message = format!("Eviction in version \"v1\" cannot be handled as a Eviction: {why}");
        Failure::bad_request(message)
    })?;
    let key = target.key();
    if eviction.metadata.name.as_deref() != Some(key.name.as_str()) {
        let message = "name in URL does not match name in Eviction object";
        return Err(Failure::bad_request(message));
    }
    let named = eviction.metadata.namespace.filter(|namespace| !namespace.is_empty());
    if named.is_some_and(|namespace| namespace != key.namespace.as_str()) {
        let message = "the namespace of the provided object does not match the namespace sent on \
                       the request";
        return Err(Failure::bad_request(message));
    }
    checked(eviction.delete_options.unwrap_or_default())
}

/// Tries what others came before, unless the client wants one version only.
async fn again<T>(
    conditional: bool,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt().await {
            Err(failure) if failure.reason == "Conflict" && !conditional && tries < TRIES => {
                sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn has_ended(pod: &Object) -> bool {
    pod.deleting() || pod.pod_facts().is_some_and(|facts| facts.phase.ended())
}

/// Nobody is disrupted by what has ended, is going, or has not begun (`canIgnorePDB`).
fn is_beyond_budgets(pod: &Object) -> bool {
    has_ended(pod) || pod.pod_facts().is_some_and(|facts| facts.phase == Phase::Pending)
}

/// The budgets that are about the pod.
fn budgets(inner: &Inner, pod: &Object) -> Result<Vec<Arc<Object>>, Failure> {
    let state = inner.state.borrow();
    let cache = state.history.cache().ok_or_else(initializing)?;
    let (kind, namespace) = (Kind::PodDisruptionBudget, &pod.key.namespace);
    let labels = selectors::labels(pod.meta.labels.as_ref());
    let from = Key::new(namespace.clone(), "");
    let all = cache.views.get(&kind).into_iter().flat_map(|view| view.iter_from(&from));
    let near = all.take_while(|(key, _)| key.namespace == *namespace);
    let selecting = near.filter(|(_, budget)| {
        let selector = spec(budget).selector;
        selector.is_some_and(|selector| selectors::matches(&selector, labels))
    });
    Ok(selecting.map(|(_, budget)| Arc::clone(budget)).collect())
}

fn spec(budget: &Object) -> PodDisruptionBudgetSpec {
    budget.plain().map(|plain| plain.fields.part("spec")).unwrap_or_default()
}

fn status(budget: &Object) -> PodDisruptionBudgetStatus {
    let status = budget.plain().map(|plain| (*plain.status).clone());
    status.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default()
}

/// A pod that is not ready counts for nothing: it may go if the budget says so, or is kept.
fn disrupts(pod: &Object, budget: &Object) -> bool {
    if pod.pod_facts().is_some_and(|facts| facts.ready) {
        return true;
    }
    let status = status(budget);
    let kept = status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy;
    let always = spec(budget).unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
    !always && !kept
}

/// Takes one disruption of what the budget has left (`checkAndDecrement`).
async fn take_one(
    inner: &Inner,
    pod: &Object,
    budget: &Object,
    dry_run: bool,
) -> Result<(), Failure> {
    let (kind, key) = (Kind::PodDisruptionBudget, &budget.key);
    let budget = {
        let state = inner.state.borrow();
        let cache = state.history.cache().ok_or_else(initializing)?;
        let found = cache.object(kind, key).cloned();
        found.ok_or_else(|| Failure::not_found(kind, &key.name))?
    };
    let mut status = status(&budget);
    if status.observed_generation.unwrap_or(0) < budget.meta.generation.unwrap_or(0) {
        return Err(still_processed(&budget));
    }
    let forbidden = |why: &str| {
        let message = format!("poddisruptionbudget.policy {:?} is forbidden: {why}", &*key.name);
        let details = json!({"name": key.name, "group": "policy", "kind": "poddisruptionbudget"});
        let failure = Failure::new(403, "Forbidden", message);
        Failure { details: Some(details), ..failure }
    };
    if status.disruptions_allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > DISRUPTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(why));
    }
    if status.disruptions_allowed == 0 {
        let (wanted, is) = (status.desired_healthy, status.current_healthy);
        let (name, needs) = (&key.name, format!("needs {wanted} healthy pods and has {is}"));
        return Err(violates(&format!("The disruption budget {name} {needs} currently"), None));
    }
    let now = inner.now();
    status.disruptions_allowed -= 1;
    if status.disruptions_allowed == 0 {
        condition::say(&mut status, Word::Counted, now);
    }
    if dry_run {
        return Ok(());
    }
    let disrupted = status.disrupted_pods.get_or_insert_default();
    disrupted.insert(pod.key.name.to_string(), time(now));
    let mut next = (*budget).clone();
    if let Body::Plain(Plain { status: place, .. }) = &mut next.body {
        *place = Arc::new(json!(status));
    }
    let request = Request::UpdateStatus { object: Arc::new(next) };
    call(inner, kind, &key.name, request, false).await.map(|_| ())
}

fn still_processed(budget: &Object) -> Failure {
    let name = &budget.key.name;
    let cause = format!("The disruption budget {name} is still being processed by the server.");
    violates(&cause, Some(10))
}

fn violates(cause: &str, retry_after: Option<u32>) -> Failure {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
    let failure = Failure::new(429, "TooManyRequests", message);
    Failure { details: Some(details), retry_after, ..failure }
}

/// Says in the pod's status why it goes, and deletes it (`addConditionAndDeletePod`).
async fn delete(inner: &Inner, target: &Target, deletion: &Deletion) -> Result<(), Failure> {
    let mut deletion = deletion.of(deletion.options.version);
    if !deletion.dry_run {
        let version = again(deletion.options.version.is_some(), async || {
            mark(inner, target, &deletion).await
        });
        let version = version.await?;
        // The mark itself has made it another version.
        deletion.options.version = deletion.options.version.and(Some(version));
    }
    remove(inner, Kind::Pod, &target.key(), &deletion).await.map(|_| ())
}

/// The version of the marked pod.
async fn mark(inner: &Inner, target: &Target, deletion: &Deletion) -> Result<u64, Failure> {
    let pod = inner.object(target)?;
    let options = &deletion.options;
    let differs = |what: &str, wanted: String, is: String, perhaps: &str| {
        let name = pod.key.name.as_str();
        let message = format!(
            "Operation cannot be fulfilled on Pod {name:?}: the {what} in the precondition \
             ({wanted}) does not match the {what} in record ({is}). The object might have been \
             {perhaps}"
        );
        Failure::of(Error::new(Reason::Conflict, message), Kind::Pod, name)
    };
    if let Some(uid) = options.uid.filter(|uid| *uid != pod.uid) {
        let perhaps = "deleted and then recreated";
        return Err(differs("UID", uid.to_string(), pod.uid.to_string(), perhaps));
    }
    if let Some(version) = options.version.filter(|version| *version != pod.version) {
        let (wanted, is) = (version.to_string(), pod.version.to_string());
        return Err(differs("ResourceVersion", wanted, is, "modified"));
    }
    let mut next = (*pod).clone();
    let Body::Pod(body) = &mut next.body else { return Ok(pod.version) };
    let mut changed = false;
    body.edit(|_, status| {
        let conditions = Arc::make_mut(status).conditions.get_or_insert_default();
        changed = evicted(conditions, inner.now());
    });
    if !changed {
        return Ok(pod.version);
    }
    let request = Request::UpdateStatus { object: Arc::new(next) };
    Ok(call(inner, Kind::Pod, &pod.key.name, request, false).await?.version)
}

/// Adds to a pod's conditions that it is evicted. False if they say so.
fn evicted(conditions: &mut Vec<PodCondition>, now: Wall) -> bool {
    const TARGET: &str = "DisruptionTarget";
    let known = conditions.iter().position(|one| one.type_ == TARGET);
    let was = known.map(|at| &conditions[at]);
    let since = was.filter(|one| one.status == "True");
    let since = since.and_then(|one| one.last_transition_time.clone());
    let next = PodCondition {
        type_: TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: since.or_else(|| Some(time(now))),
        ..PodCondition::default()
    };
    if was == Some(&next) {
        return false;
    }
    match known {
        Some(at) => conditions[at] = next,
        None => conditions.push(next),
    }
    true
}
