//! `serviceaccounts/token`: a token is asked for and answered, and not kept (kubernetes
//! `pkg/registry/core/serviceaccount/storage/token.go`). `kubectl create token` asks there, and so
//! does a kubelet for its pods.

use super::Inner;
use super::auth::{self, Audiences, Bound, Claims, ISSUER, Named, User, account_name};
use super::body::Answer;
use super::read::initializing;
use super::route::Target;
use super::status::Failure;
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key, Kind, Name, Object, Uid};
use serde::Deserialize;
use serde_json::{Value, json};

/// Seconds that a token is good for if it is not said (`pkg/apis/authentication/v1/defaults.go`).
const USUAL: i64 = 3600;
/// The least and the most (`pkg/apis/authentication/validation/validation.go`).
const LEAST: i64 = 600;
const MOST: i64 = 1 << 32;
/// What a kubelet asks for where a person does not say: clients that never read their token again
/// are told to for this long, and locked out after a year
/// (`--service-account-extend-token-expiration`).
const INJECTED: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * 3600;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// `authentication.k8s.io/v1.TokenRequestSpec`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    audiences: Option<Vec<String>>,
    expiration_seconds: Option<i64>,
    bound_object_ref: Option<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reference {
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// The request with its answer.
pub fn create(
    inner: &Inner,
    target: &Target,
    user: &User,
    mut asked: Value,
) -> Result<Answer, Failure> {
    let issuer = inner.auth.issuer().ok_or_else(Failure::no_such_resource)?;
    let key = &issuer.keys.first;
    auth::expect_type(&mut asked, &format!("{GROUP}/v1"), KIND)?;
    let account = inner.object(target)?;
    settle_name(&mut asked, &account.key)?;
    let spec = spec(&asked)?;
    let seconds = spec.expiration_seconds.unwrap_or(USUAL);
    let audiences = spec.audiences.filter(|list| !list.is_empty());
    let audiences = audiences.unwrap_or_else(|| vec![ISSUER.to_owned()]);
    let why = match seconds {
        ..LEAST => Some("may not specify a duration less than 10 minutes"),
        LEAST..=MOST => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(why) = why {
        let cause = format!("spec.expirationSeconds: Invalid value: {seconds}: {why}");
        return Err(invalid("", &cause));
    }
    inner.restrict_token(user, &account.key, &asked)?;
    let mut bound = bound(inner, &account, spec.bound_object_ref.as_ref())?;
    let mut lasts = seconds;
    let ours = audiences.iter().all(|audience| audience == ISSUER);
    let now = inner.now().unix_secs();
    if bound.pod.is_some() && seconds == INJECTED && ours {
        lasts = EXTENDED;
        bound.warnafter = Some(now + seconds);
    }
    let no_luck = || Failure::new(500, "InternalError", "the machine has no randomness");
    let drawn = u128::from_be_bytes(key.random().ok_or_else(no_luck)?);
    let claims = Claims {
        aud: Audiences(audiences.clone()),
        exp: now + lasts,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: Uid::from_random((drawn >> 64) as u64, drawn as u64).to_string(),
        kubernetes: bound,
        nbf: now,
        sub: account_name(&account.key.namespace, &account.key.name),
    };
    let token = key.sign(&json!(claims)).ok_or_else(no_luck)?;
    let time = |at: i64| Timestamp::from_second(at).map(|at| at.to_string()).unwrap_or_default();
    asked["metadata"]["creationTimestamp"] = time(now).into();
    asked["spec"]["audiences"] = json!(audiences);
    asked["spec"]["expirationSeconds"] = seconds.into();
    asked["status"] = json!({"token": token, "expirationTimestamp": time(now + seconds)});
    Ok(Answer::json(&asked).created())
}

/// What is asked for; it may be nothing.
fn spec(asked: &Value) -> Result<Spec, Failure> {
    let wrong = |why: &str| Failure::bad_request(format!("{KIND} cannot be read: spec: {why}"));
    match &asked["spec"] {
        Value::Null => Ok(Spec::default()),
        spec @ Value::Object(_) => Spec::deserialize(spec).map_err(|why| wrong(&why.to_string())),
        _ => Err(wrong("it must be an object of fields")),
    }
}

/// The request is named as its account.
fn settle_name(asked: &mut Value, account: &Key) -> Result<(), Failure> {
    if !asked["metadata"].is_object() {
        asked["metadata"] = json!({});
    }
    for (field, name) in [("name", &account.name), ("namespace", &account.namespace)] {
        let theirs = asked["metadata"][field].as_str().unwrap_or_default();
        if !["", name.as_str()].contains(&theirs) {
            let cause = format!(
                "metadata.{field}: Invalid value: {theirs:?}: must match the service account \
                 {field} if specified"
            );
            return Err(invalid(&account.name, &cause));
        }
        asked["metadata"][field] = name.as_str().into();
    }
    Ok(())
}

fn invalid(name: &str, cause: &str) -> Failure {
    let message = format!("{KIND}.{GROUP} {name:?} is invalid: {cause}");
    let mut details = json!({"group": GROUP, "kind": KIND});
    if !name.is_empty() {
        details["name"] = name.into();
    }
    let failure = Failure::new(422, "Invalid", message);
    Failure { details: Some(details), ..failure }.with_causes()
}

/// Whose the token will be, and what it will go with.
fn bound(inner: &Inner, account: &Object, to: Option<&Reference>) -> Result<Bound, Failure> {
    let mut bound = Bound {
        namespace: account.key.namespace.to_string(),
        serviceaccount: Named::of(account),
        ..Bound::default()
    };
    let Some(to) = to else { return Ok(bound) };
    let state = inner.state.borrow();
    let cache = state.history.cache().ok_or_else(initializing)?;
    let namespace = &account.key.namespace;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (version, kind) = (text(&to.api_version), text(&to.kind));
    let (name, uid) = (text(&to.name), text(&to.uid));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let found = match (group, kind.as_str()) {
        ("", "Pod") => {
            let pod = find(cache, Kind::Pod, namespace, &name)?;
            let spec = pod.pod().map(|(spec, _)| spec);
            let runs_as = spec.and_then(|spec| spec.service_account_name.as_deref());
            // Who says nothing runs as this one.
            if runs_as.filter(|name| !name.is_empty()).unwrap_or("default") != account.key.name {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different \
                     serviceaccount name.",
                    account.key.name
                )));
            }
            bound.pod = Some(Named::of(pod));
            let node = spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
            if !node.is_empty() {
                // One that is not there is named all the same.
                let named = || Named { name: node.to_owned(), ..Named::default() };
                let there = find(cache, Kind::Node, &Name::default(), node).ok();
                bound.node = Some(there.map_or_else(named, Named::of));
            }
            pod
        }
        ("", "Node") => {
            let node = find(cache, Kind::Node, &Name::default(), &name)?;
            bound.node = Some(Named::of(node));
            node
        }
        ("", "Secret") => {
            let secret = find(cache, Kind::Secret, namespace, &name)?;
            bound.secret = Some(Named::of(secret));
            secret
        }
        (_, kind) => {
            return Err(Failure::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    if !uid.is_empty() && Uid::parse(&uid) != Some(found.uid) {
        let message = format!(
            "Operation cannot be fulfilled on {kind} {name:?}: the UID in the bound object \
             reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        let details = json!({"name": name, "kind": kind});
        let failure = Failure::new(409, "Conflict", message);
        return Err(Failure { details: Some(details), ..failure });
    }
    Ok(bound)
}

fn find<'a>(
    cache: &'a Cache,
    kind: Kind,
    namespace: &Name,
    name: &str,
) -> Result<&'a Object, Failure> {
    let key = Key::new(namespace.as_str(), name);
    let object = cache.object(kind, &key).map(|object| &**object);
    object.ok_or_else(|| Failure::not_found(kind, name))
}
