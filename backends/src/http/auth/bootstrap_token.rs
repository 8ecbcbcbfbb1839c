//! Tokens that machines join a cluster with: `ID.SECRET` in a Secret of kube-system (kubernetes
//! `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`).

use super::user::User;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::kinds::Fields;
use kubesim_actors::objects::{Key, Kind};
use kubesim_runtime::Wall;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Whom a token makes of its bearer, if there is such a token now.
pub fn bearer_of(cache: &Cache, token: &str, now: Wall) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let of = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !of(id, 6) || !of(secret, 16) {
        return None;
    }
    let key = Key::new("kube-system", format!("bootstrap-token-{id}"));
    let object = cache.object(Kind::Secret, &key).filter(|object| !object.deleting())?;
    let fields = &object.plain()?.fields;
    let field = |name: &str| data(fields, name);
    let valid = fields.text("type") == TYPE
        && field("token-id") == id
        && same(&field("token-secret"), secret)
        && !expired(&field("expiration"), now)
        && field("usage-bootstrap-authentication") == "true";
    if !valid {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = field("auth-extra-groups");
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        // With another group in it, nothing of it counts.
        group.strip_prefix(GROUP).filter(|rest| rest.starts_with(':') && rest.len() > 1)?;
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

fn data(fields: &Fields, name: &str) -> String {
    let data = fields.at("data").and_then(|data| data.get(name)?.as_str());
    let bytes = data.and_then(|text| BASE64_STANDARD.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// One that is there and no time is over.
fn expired(text: &str, now: Wall) -> bool {
    let now = now.unix_nanos();
    let over = |at: Timestamp| at.as_nanosecond() <= now;
    !text.is_empty() && text.parse::<Timestamp>().map_or(true, over)
}

/// Compares all of it, so that the time it takes tells nothing.
fn same(one: &str, other: &str) -> bool {
    let differ = one.bytes().zip(other.bytes()).fold(0, |found, (a, b)| found | (a ^ b));
    one.len() == other.len() && differ == 0
}
