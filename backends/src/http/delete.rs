//! Deletion, of one object or of a collection. What may be asked of one is in `DeleteOptions`: read
//! as apiserver's `handlers/delete.go` does, refused as apimachinery's `ValidateDeleteOptions` does
//! (`pkg/apis/meta/v1/validation`).

use super::Inner;
use super::auth::Change;
use super::body::{self, Answer};
use super::read::{self, initializing, shown};
use super::route::{Query, Target};
use super::selector::Selector;
use super::status::Failure;
use super::write::{self, Sent, call, parse_uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_actors::ports::api::{DeleteOptions, Propagation, Request};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub async fn delete(inner: &Inner, target: &Target, sent: Sent<'_>) -> Result<Answer, Failure> {
    let deletion = deletion(&sent)?;
    if let Ok(old) = inner.object(target) {
        inner.restrict(sent.user, Change { sub: None, old: Some(&old), new: None })?;
    }
    let gone = remove(inner, target.kind(), &target.key(), &deletion).await?;
    let still = match deletion.dry_run {
        true => gone.deleting(),
        false => inner.object(target).is_ok_and(|object| object.uid == gone.uid),
    };
    // Upstream's strategies say which: pods and Services return themselves. A definition does when
    // it is marked, and may have gone since.
    let marked = target.kind() == Kind::CustomResourceDefinition && gone.deleting();
    let returned = still || marked || [Kind::Pod, Kind::Service].contains(&target.kind());
    if returned {
        return Ok(Answer::bytes(body::JSON, shown(&gone, &sent.show)));
    }
    let kind = target.kind();
    let mut details =
        json!({"name": gone.key.name, "kind": kind.plural(), "uid": gone.uid.to_string()});
    if !kind.group().is_empty() {
        details["group"] = kind.group().into();
    }
    Ok(Answer::json(&json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                            "status": "Success", "details": details})))
}

pub async fn remove(
    inner: &Inner,
    kind: Kind,
    key: &Key,
    Deletion { options, dry_run }: &Deletion,
) -> Result<Arc<Object>, Failure> {
    let request = Request::Delete { kind, key: key.clone(), options: options.clone() };
    call(inner, kind, &key.name, request, *dry_run).await
}

/// Each of them that is there now; those that go meanwhile are gone.
pub async fn delete_collection(
    inner: &Inner,
    target: &Target,
    selector: &Selector,
    sent: Sent<'_>,
) -> Result<Answer, Failure> {
    let Deletion { options, dry_run } = deletion(&sent)?;
    let (revision, objects) = {
        let state = inner.state.borrow();
        let cache = state.history.cache().ok_or_else(initializing)?;
        (cache.revision, read::list_all(cache, target, selector))
    };
    // One that another came for meanwhile is gone as well; a client's own conditions must hold.
    let gone = |failure: &Failure| {
        let unconditional = options.uid.is_none() && options.version.is_none();
        failure.reason == "NotFound" || failure.reason == "Conflict" && unconditional
    };
    for object in &objects {
        let options = DeleteOptions { uid: options.uid.or(Some(object.uid)), ..options.clone() };
        let deletion = Deletion { options, dry_run };
        match remove(inner, target.kind(), &object.key, &deletion).await {
            Err(failure) if !gone(&failure) => return Err(failure),
            _ => {}
        }
    }
    let page = read::Page { revision, objects, next: None };
    let state = &mut inner.state.borrow_mut();
    Ok(Answer::pieces(read::render(target, &page, &sent.show, state)))
}

const OPTIONS: &str = "DeleteOptions";

/// A deletion, or one to be tried only.
pub struct Deletion {
    pub options: DeleteOptions,
    pub dry_run: bool,
}

impl Deletion {
    /// The same of this version only.
    pub fn of(&self, version: Option<u64>) -> Deletion {
        let options = DeleteOptions { version, ..self.options.clone() };
        Deletion { options, dry_run: self.dry_run }
    }
}

fn deletion(sent: &Sent<'_>) -> Result<Deletion, Failure> {
    let mut deletion = checked(asked(sent)?)?;
    // Upstream does not read the query if there is a body. What is to be tried only is not done.
    deletion.dry_run |= write::dry_run(sent.query, OPTIONS)?;
    Ok(deletion)
}

/// The options of the body, or if it has none those of the query.
fn asked(sent: &Sent<'_>) -> Result<meta::DeleteOptions, Failure> {
    if sent.bytes.is_empty() {
        return of_query(sent.query);
    }
    let value = body::value(sent.bytes, sent.content_type)?;
    let kind = value["kind"].as_str().unwrap_or_default();
    if !["", OPTIONS].contains(&kind) {
        let message =
            format!("decoded object cannot be converted to DeleteOptions: it is a {kind}");
        return Err(Failure::bad_request(message));
    }
    serde_json::from_value(value).map_err(|why| {
        let message =
            format!("DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {why}");
        Failure::bad_request(message)
    })
}

fn of_query(query: &Query) -> Result<meta::DeleteOptions, Failure> {
    let text = |name: &str| Some(query.text(name).to_owned()).filter(|text| !text.is_empty());
    let grace = text("gracePeriodSeconds").map(|text| {
        text.parse().map_err(|_| {
            let why =
                format!("gracePeriodSeconds: Invalid value: {text:?}: must be a whole number");
            Failure::bad_request(why)
        })
    });
    Ok(meta::DeleteOptions {
        grace_period_seconds: grace.transpose()?,
        propagation_policy: text("propagationPolicy"),
        orphan_dependents: query.is_set("orphanDependents").then(|| query.flag("orphanDependents")),
        ..meta::DeleteOptions::default()
    })
}

/// What the API server is to do of it.
pub fn checked(asked: meta::DeleteOptions) -> Result<Deletion, Failure> {
    let invalid = |cause: &str| Failure::invalid_options(OPTIONS, cause);
    let policy = asked.propagation_policy.as_deref();
    if asked.orphan_dependents.is_some() && policy.is_some() {
        return Err(invalid(&format!(
            "propagationPolicy: Invalid value: {:?}: orphanDependents and deletionPropagation \
             cannot be both set",
            policy.unwrap_or_default()
        )));
    }
    let known = |name: &str| Propagation::ALL.into_iter().find(|one| one.name() == name);
    let unsupported = |name: &str| {
        invalid(&format!(
            "propagationPolicy: Unsupported value: {name:?}: supported values: \"Foreground\", \
             \"Background\", \"Orphan\", \"nil\""
        ))
    };
    let propagation = match (policy, asked.orphan_dependents) {
        (Some(name), _) => Some(known(name).ok_or_else(|| unsupported(name))?),
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (None, None) => None,
    };
    let dry_run = write::all_of_it(asked.dry_run.as_deref().unwrap_or_default(), OPTIONS)?;
    let conditions = asked.preconditions.unwrap_or_default();
    let uid = conditions.uid.as_deref().map(parse_uid).transpose()?;
    let version = conditions.resource_version.as_deref().map(parse_version).transpose()?;
    // A negative one is one second (`rest.BeforeDelete`).
    let grace = asked.grace_period_seconds.map(|seconds| u64::try_from(seconds).unwrap_or(1));
    let grace = grace.map(Duration::from_secs);
    let options = DeleteOptions { uid, version, grace, propagation };
    Ok(Deletion { options, dry_run })
}

fn parse_version(text: &str) -> Result<u64, Failure> {
    let wrong = || format!("preconditions.resourceVersion: Invalid value: {text:?}: no number");
    text.parse().map_err(|_| Failure::bad_request(wrong()))
}
