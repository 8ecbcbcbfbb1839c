//! What comes back, as the port's answers: an object, a list, or why not.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use kubesim_actors::objects::{Body, Key, Kind, Object, Plain, Uid, wall};
use kubesim_actors::ports::api::{Error, Reason, Reply, Request, Scope};
use serde_json::{Value, json};
use std::sync::Arc;

/// No answer is larger: a list of all that a cluster of a few hundred nodes has is far less.
const LARGEST: usize = 256 << 20;

/// An answer's body.
pub async fn body(response: Response<Incoming>) -> Result<(u16, Bytes), String> {
    let code = response.status().as_u16();
    let whole = Limited::new(response.into_body(), LARGEST).collect().await;
    Ok((code, whole.map_err(|error| error.to_string())?.to_bytes()))
}

/// What a call came to. `known` is an object as it was seen last, for answers that do not show it.
pub fn of(
    call: &Request,
    (code, bytes): (u16, &[u8]),
    history: u64,
    known: impl FnOnce(Kind, &Key) -> Option<Arc<Object>>,
) -> Result<Reply, Error> {
    if !(200..300).contains(&code) {
        return Err(refusal(code, bytes));
    }
    let unreadable = |why: String| {
        let (kind, key) = call.subject();
        let verb = call.verb();
        let message = format!("reading the answer to {verb} {kind} {key}: {why}");
        Error::new(Reason::Unknown, message)
    };
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    let (kind, key) = call.subject();
    if matches!(call, Request::List { .. }) {
        let view =
            super::view::listed(kind, &Scope::All, value, None, history).map_err(unreadable)?;
        return Ok(Reply::List(view));
    }
    if matches!(call, Request::Token(_)) {
        let status = &value["status"];
        let ends = status["expirationTimestamp"].as_str().and_then(|at| at.parse().ok()).map(wall);
        let text = status["token"].as_str().map(Arc::from);
        return match (text, ends) {
            (Some(text), Some(ends)) => Ok(Reply::Token { text, ends }),
            _ => Err(unreadable("it has no token, or does not say until when".to_owned())),
        };
    }
    // A Status says that it was done, and of what was deleted the uid.
    if value["kind"] == "Status" {
        let uid = value["details"]["uid"].as_str().and_then(Uid::parse);
        let known = known(kind, &key).filter(|object| uid.is_none_or(|uid| object.uid == uid));
        let object = known.unwrap_or_else(|| Arc::new(bare(kind, key, uid.unwrap_or_default())));
        return Ok(Reply::Object(object));
    }
    let object = Object::from_json_of(kind, value).map_err(|error| unreadable(error.0))?;
    Ok(Reply::Object(Arc::new(object)))
}

/// One of which no more is known.
fn bare(kind: Kind, key: Key, uid: Uid) -> Object {
    let mut object = match Object::from_json_of(kind, json!({"metadata": {}})) {
        Ok(object) => object,
        Err(_) => {
            let plain = Plain { kind, fields: Arc::default(), status: Arc::default() };
            Object::new(Key::default(), Body::Plain(plain))
        }
    };
    (object.key, object.uid) = (key, uid);
    object
}

/// Why not, as the `metav1.Status` says; one that comes from elsewhere (a proxy) has a code only.
pub fn refusal(code: u16, bytes: &[u8]) -> Error {
    let status: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let reason = match status["reason"].as_str().unwrap_or_default() {
        "BadRequest" => Reason::BadRequest,
        "Forbidden" | "Unauthorized" => Reason::Forbidden,
        "NotFound" => Reason::NotFound,
        "AlreadyExists" => Reason::AlreadyExists,
        "Conflict" => Reason::Conflict,
        "Expired" | "Gone" => Reason::Expired,
        "Invalid" => Reason::Invalid,
        "TooManyRequests" => Reason::TooManyRequests,
        "InternalError" => Reason::InternalError,
        // A server of Kubernetes' own that says so has not begun.
        "ServiceUnavailable" => Reason::Unreachable,
        _ => by_code(code),
    };
    let message = match status["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the server answered with the code {code} and no reason"),
    };
    Error { reason, message }
}

fn by_code(code: u16) -> Reason {
    match code {
        401 | 403 => Reason::Forbidden,
        404 => Reason::NotFound,
        409 => Reason::Conflict,
        410 => Reason::Expired,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        400..500 => Reason::BadRequest,
        500 => Reason::InternalError,
        // Whoever stands in between may have passed it on.
        _ => Reason::Unknown,
    }
}

/// The version that metadata name.
pub fn version(meta: &Value) -> Option<u64> {
    meta["resourceVersion"].as_str()?.parse().ok()
}
