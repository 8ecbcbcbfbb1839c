//! Tokens that machines join a cluster with: `ID.SECRET` in a Secret of kube-system (kubernetes
//! `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`).

use super::user::User;
use crate::http::Front;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::kinds::Fields;
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_actors::ports::api::Request;
use kubesim_runtime::Wall;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use std::sync::Arc;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
/// What an id and a secret are made of, and how long each is.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

impl Front {
    /// Whether a machine that comes with this token, `ID.SECRET`, is let in now.
    pub fn knows_bootstrap_token(&self, token: &str) -> bool {
        let state = self.0.state.borrow();
        let cache = state.history.cache();
        cache.is_some_and(|cache| bearer_of(cache, token, self.0.now()).is_some())
    }

    /// Makes a token that machines are let in with for as long as its Secret is there (its fields
    /// are kubeadm's: `cmd/kubeadm/app/apis/bootstraptoken/v1/utils.go`). The error is for people.
    pub async fn make_bootstrap_token(&self) -> Result<String, String> {
        let wrong = |why: &str| format!("making a token for machines that join: {why}");
        let text = |length| drawn(length).ok_or_else(|| wrong("the system has no random numbers"));
        let (id, secret) = (text(ID)?, text(SECRET)?);
        let said = [
            ("description", "Machines join by it: made by kubesim server, without an end."),
            ("token-id", id.as_str()),
            ("token-secret", secret.as_str()),
            ("usage-bootstrap-authentication", "true"),
        ];
        let data =
            said.map(|(name, value)| (name.to_owned(), BASE64_STANDARD.encode(value).into()));
        let data = serde_json::Map::from_iter(data);
        let name = format!("bootstrap-token-{id}");
        let object = Object::from_json(json!({
            "apiVersion": "v1", "kind": "Secret", "type": TYPE, "data": data,
            "metadata": {"namespace": "kube-system", "name": name},
        }));
        let object = Arc::new(object.map_err(|error| wrong(&error.to_string()))?);
        let made = self.0.call(Request::Create { object }, false).await;
        made.map_err(|error| wrong(&error.message))?;
        Ok(format!("{id}.{secret}"))
    }
}

/// Letters that nobody guesses. Bytes that would make some likelier than others are drawn again.
fn drawn(length: usize) -> Option<String> {
    let fair = 256 / LETTERS.len() * LETTERS.len();
    let mut text = String::new();
    while text.len() < length {
        let mut byte = [0];
        SystemRandom::new().fill(&mut byte).ok()?;
        let byte = usize::from(byte[0]);
        if byte < fair {
            text.push(char::from(LETTERS[byte % LETTERS.len()]));
        }
    }
    Some(text)
}

/// Whom a token makes of its bearer, if there is such a token now.
pub fn bearer_of(cache: &Cache, token: &str, now: Wall) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let of = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !of(id, ID) || !of(secret, SECRET) {
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
