//! Tokens of service accounts: what they claim, and whom they make of their bearer while what they
//! are bound to is there (KEP-1205, KEP-2799, KEP-4193; kubernetes `pkg/serviceaccount/claims.go`).

use super::jwt::{self, Keys};
use super::user::{self, CREDENTIAL, User};
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key as Place, Kind, Object, Uid};
use kubesim_runtime::Wall;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who issues tokens, by the name that the API server has in the cluster; kubeadm's default.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How far clocks may differ (go-jose's `jwt.DefaultLeeway`).
const LEEWAY: Duration = Duration::from_secs(60);

/// What a token says. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub aud: Audiences,
    pub exp: i64,
    pub iat: i64,
    #[serde(default)]
    pub iss: String,
    /// By which the token is known.
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    pub nbf: i64,
    #[serde(default)]
    pub sub: String,
}

/// RFC 7519, 4.1.3: one may stand without its list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Audiences(pub Vec<String>);

impl<'de> Deserialize<'de> for Audiences {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Said::deserialize(from)? {
            Said::One(one) => Audiences(vec![one]),
            Said::Many(many) => Audiences(many),
        })
    }
}

/// Whose token it is, and what it goes with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    #[serde(default)]
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    #[serde(default)]
    pub serviceaccount: Named,
    /// From when on the bearer should have fetched a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Named {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Named {
    pub fn of(object: &Object) -> Named {
        Named { name: object.key.name.to_string(), uid: object.uid.to_string() }
    }
}

/// Whose token it is and for which of the audiences, as far as it is one of ours; or what is wrong
/// with it, in upstream's words.
pub fn bearer_of(
    cache: &Cache,
    keys: &Keys,
    token: &str,
    audiences: &[String],
    now: Wall,
) -> Option<Result<(User, Vec<String>), String>> {
    jwt::claimed(token).filter(|claims| claims["iss"] == ISSUER)?;
    let signed = keys.verify(token).ok_or("go-jose/go-jose: error in cryptographic primitive");
    let claims = signed.map_err(str::to_owned).and_then(|claims| {
        serde_json::from_value::<Claims>(claims).map_err(|error| error.to_string())
    });
    Some(claims.and_then(|claims| {
        let meant = |one: &&String| audiences.contains(one);
        let heard: Vec<String> = claims.aud.0.iter().filter(meant).cloned().collect();
        if heard.is_empty() {
            let (theirs, ours) = (list(&claims.aud.0), list(audiences));
            return Err(format!(
                "token audiences {theirs} is invalid for the target audiences {ours}"
            ));
        }
        in_time(&claims, now)?;
        stands(cache, &claims.kubernetes, now)?;
        Ok((user(&claims), heard))
    }))
}

/// `["a" "b"]`, as Go prints a slice.
fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn in_time(claims: &Claims, now: Wall) -> Result<(), String> {
    let (now, leeway) = (now.unix_secs(), LEEWAY.as_secs() as i64);
    let what = if now + leeway < claims.nbf {
        "is not valid yet"
    } else if now - leeway > claims.exp {
        "has expired"
    } else if now + leeway < claims.iat {
        "is issued in the future"
    } else {
        return Ok(());
    };
    Err(format!("service account token {what}"))
}

/// Whether the account is there and what its token is bound to.
fn stands(cache: &Cache, bound: &Bound, now: Wall) -> Result<(), String> {
    let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
    let found = find(cache, Kind::ServiceAccount, namespace, &account.name)
        .ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
    let uid = found.uid;
    if !is(found, &account.uid) {
        let claimed = &account.uid;
        return Err(format!("service account UID ({uid}) does not match claim ({claimed})"));
    }
    if gone(found, now) {
        return Err(format!("service account {namespace}/{} has been deleted", account.name));
    }
    let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
    for (kind, word, named) in [
        (Kind::Secret, "secret", bound.secret.as_ref()),
        (Kind::Pod, "pod", bound.pod.as_ref()),
        (Kind::Node, "node", node),
    ] {
        let Some(Named { name, uid }) = named else { continue };
        let namespace = if kind.namespaced() { namespace.as_str() } else { "" };
        let invalidated = || "service account token has been invalidated".to_owned();
        let found = find(cache, kind, namespace, name).ok_or_else(invalidated)?;
        if !is(found, uid) {
            return Err(format!(
                "{word} UID ({}) does not match service account {word} ref claim ({uid})",
                found.uid
            ));
        }
        if gone(found, now) {
            return Err(invalidated());
        }
    }
    Ok(())
}

fn find<'a>(cache: &'a Cache, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
    cache.object(kind, &Place::new(namespace, name)).map(|object| &**object)
}

fn is(object: &Object, uid: &str) -> bool {
    Uid::parse(uid) == Some(object.uid)
}

/// Deleted, and it was a while ago.
fn gone(object: &Object, now: Wall) -> bool {
    let deleted = object.meta.deletion_timestamp.as_ref();
    let limit = now.unix_nanos() - LEEWAY.as_nanos() as i128;
    deleted.is_some_and(|at| at.0.as_nanosecond() < limit)
}

/// apiserver `pkg/authentication/serviceaccount/util.go`, `ServiceAccountInfo.UserInfo`.
fn user(claims: &Claims) -> User {
    let Bound { namespace, node, pod, serviceaccount, .. } = &claims.kubernetes;
    let mut user = User {
        name: user::account_name(namespace, &serviceaccount.name),
        uid: serviceaccount.uid.clone(),
        groups: user::account_groups(namespace),
        ..User::default()
    };
    let mut say = |what: &str, text: &str| {
        if !text.is_empty() {
            let key = format!("authentication.kubernetes.io/{what}");
            user.extra.insert(key, vec![text.to_owned()]);
        }
    };
    for (named, name, uid) in [(pod, "pod-name", "pod-uid"), (node, "node-name", "node-uid")] {
        if let Some(named) = named {
            say(name, &named.name);
            say(uid, &named.uid);
        }
    }
    if !claims.jti.is_empty() {
        let credential = format!("JTI={}", claims.jti);
        user.extra.insert(CREDENTIAL.to_owned(), vec![credential]);
    }
    user
}
