//! What is refused, as `metav1.Status`: the codes and reasons of apimachinery's
//! `pkg/api/errors/errors.go`.

use kubesim_actors::objects::Kind;
use kubesim_actors::ports::api::{Error, Reason};
use serde_json::{Value, json};

/// A request that failed, and what its client is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u32>,
}

impl Failure {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, reason, message: message.into(), details: None, retry_after: None }
    }
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }
    /// A path that nothing is at. Its details are there and say nothing, by which clients tell it
    /// from an object that is not there (kubectl `pkg/cmd/debug/debug.go`, which reads them
    /// unseen).
    pub fn no_such_resource() -> Failure {
        let message = "the server could not find the requested resource";
        Failure { details: Some(json!({})), ..Failure::new(404, "NotFound", message) }
    }
    pub fn not_found(kind: Kind, name: &str) -> Failure {
        let message = format!("{} {name:?} not found", qualified(kind));
        Failure::new(404, "NotFound", message).about(kind, name)
    }
    /// A write that is not admitted (apiserver's `pkg/admission/errors.go`).
    pub fn forbidden(kind: Kind, name: &str, why: &str) -> Failure {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(kind));
        Failure::new(403, "Forbidden", message).about(kind, name)
    }
    pub fn no_such_method() -> Failure {
        let message = "the server does not allow this method on the requested resource";
        Failure::new(405, "MethodNotAllowed", message)
    }
    pub fn not_acceptable(accepted: &str) -> Failure {
        let message = format!("only the following media types are accepted: {accepted}");
        Failure::new(406, "NotAcceptable", message)
    }
    /// Options that are no options (apimachinery's `NewInvalid`); `kind` is `DeleteOptions` or so.
    pub fn invalid_options(kind: &str, cause: &str) -> Failure {
        let message = format!("{kind}.meta.k8s.io \"\" is invalid: {cause}");
        let details = json!({"group": "meta.k8s.io", "kind": kind});
        let failure = Failure::new(422, "Invalid", message);
        Failure { details: Some(details), ..failure }.with_causes()
    }
    pub fn timeout(message: impl Into<String>) -> Failure {
        Failure::new(504, "Timeout", message)
    }
    pub fn expired(message: impl Into<String>) -> Failure {
        Failure::new(410, "Expired", message)
    }
    pub fn media_type(message: impl Into<String>) -> Failure {
        Failure::new(415, "UnsupportedMediaType", message)
    }
    pub fn too_many(message: impl Into<String>) -> Failure {
        let failure = Failure::new(429, "TooManyRequests", message);
        Failure { retry_after: Some(1), ..failure }
    }
    /// The store is not there yet (apiserver's `storage.NewTooLargeResourceVersionError`).
    pub fn too_large(asked: u64, current: u64) -> Failure {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let cause = json!({"reason": "ResourceVersionTooLarge",
                           "message": "Too large resource version"});
        let details = json!({"causes": [cause], "retryAfterSeconds": 1});
        let failure = Failure::timeout(message);
        Failure { details: Some(details), retry_after: Some(1), ..failure }
    }

    /// Names the object that it is about.
    pub fn about(mut self, kind: Kind, name: &str) -> Failure {
        // Of what is invalid, the kind; else, the resource.
        let word = if self.reason == "Invalid" { kind.name() } else { kind.plural() };
        let mut details = json!({"kind": word});
        for (field, text) in [("name", name), ("group", kind.group())] {
            if !text.is_empty() {
                details[field] = text.into();
            }
        }
        self.details = Some(details);
        self
    }

    /// The API server's refusal of a request about this object.
    pub fn of(error: Error, kind: Kind, name: &str) -> Failure {
        let (code, reason) = match error.reason {
            Reason::BadRequest => (400, "BadRequest"),
            Reason::Forbidden => (403, "Forbidden"),
            Reason::NotFound => (404, "NotFound"),
            Reason::AlreadyExists => (409, "AlreadyExists"),
            Reason::Conflict => (409, "Conflict"),
            Reason::Expired => (410, "Expired"),
            Reason::Invalid => (422, "Invalid"),
            Reason::TooManyRequests => (429, "TooManyRequests"),
            Reason::InternalError => (500, "InternalError"),
            Reason::Unreachable => (503, "ServiceUnavailable"),
            Reason::Unknown => (504, "Timeout"),
        };
        let retry_after = matches!(code, 429 | 503).then_some(1);
        let failure = Failure { retry_after, ..Failure::new(code, reason, error.message) };
        match error.reason {
            // It is its namespace that is not there.
            Reason::NotFound if failure.message.starts_with("namespaces ") => {
                let name = failure.message.split('"').nth(1).unwrap_or_default().to_owned();
                failure.about(Kind::Namespace, &name)
            }
            Reason::Invalid => failure.about(kind, name).with_causes(),
            Reason::Forbidden | Reason::NotFound | Reason::AlreadyExists | Reason::Conflict => {
                failure.about(kind, name)
            }
            _ => failure,
        }
    }

    /// Which fields are wrong and why: `kubectl` prints these and not the message.
    pub fn with_causes(mut self) -> Failure {
        let causes = causes(&self.message);
        if let Some(details) = self.details.as_mut().filter(|_| !causes.is_empty()) {
            details["causes"] = causes.into();
        }
        self
    }

    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(seconds) = self.retry_after {
            status["details"]["retryAfterSeconds"] = seconds.into();
        }
        status
    }
}

/// How a cause begins after its field, and its `metav1.CauseType`.
const CAUSES: [(&str, &str); 7] = [
    ("Required value", "FieldValueRequired"),
    ("Invalid value", "FieldValueInvalid"),
    ("Forbidden", "FieldValueForbidden"),
    ("Duplicate value", "FieldValueDuplicate"),
    ("Unsupported value", "FieldValueNotSupported"),
    ("Not found", "FieldValueNotFound"),
    ("Too long", "FieldValueTooLong"),
];

/// The causes in the message of what is invalid, `Pod "a" is invalid: [CAUSE, CAUSE]`. Each begins
/// with its field and one of [`CAUSES`]; commas stand in causes as well.
fn causes(message: &str) -> Vec<Value> {
    let Some((_, list)) = message.split_once(" is invalid: ") else { return Vec::new() };
    let list = list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or(list);
    let mut causes: Vec<(&str, &str, String)> = Vec::new();
    for part in list.split(", ") {
        let begins = part.split_once(": ").and_then(|(field, body)| {
            let known = CAUSES.iter().find(|(words, _)| body.starts_with(words));
            known.filter(|_| !field.contains(' ')).map(|(_, reason)| (field, *reason, body))
        });
        match (begins, causes.last_mut()) {
            (Some((field, reason, body)), _) => causes.push((field, reason, body.to_owned())),
            (None, Some((_, _, body))) => *body += &format!(", {part}"),
            (None, None) => {}
        }
    }
    let cause = |(field, reason, message): (&str, &str, String)| json!({"reason": reason, "message": message, "field": field});
    causes.into_iter().map(cause).collect()
}

/// `pods`, `deployments.apps`.
fn qualified(kind: Kind) -> String {
    match kind.group() {
        "" => kind.plural().to_owned(),
        group => format!("{}.{group}", kind.plural()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_one_by_one() {
        let told = |message: &str| {
            let status = Failure::of(Error::new(Reason::Invalid, message), Kind::Pod, "a").status();
            status["details"]["causes"].clone()
        };
        let one = "Pod \"a\" is invalid: spec.containers: Required value";
        let expected = json!([{"reason": "FieldValueRequired", "message": "Required value",
                               "field": "spec.containers"}]);
        assert_eq!(told(one), expected);
        let two = "Pod \"a\" is invalid: [x[0].y: Invalid value: \"a, b\": must be c, or d, \
                   z: Unsupported value: \"q\": supported values: \"r\", \"s\"]";
        let expected = json!([
            {"reason": "FieldValueInvalid", "field": "x[0].y",
             "message": "Invalid value: \"a, b\": must be c, or d"},
            {"reason": "FieldValueNotSupported", "field": "z",
             "message": "Unsupported value: \"q\": supported values: \"r\", \"s\""},
        ]);
        assert_eq!(told(two), expected);
        assert_eq!(told("something else"), Value::Null);
    }

    #[test]
    fn a_refusal_names_what_it_is_about() {
        let error = Error::new(Reason::NotFound, "deployments.apps \"a\" not found");
        let status = Failure::of(error, Kind::Deployment, "a").status();
        assert_eq!(status["code"], 404);
        let details = json!({"name": "a", "group": "apps", "kind": "deployments"});
        assert_eq!(status["details"], details);
        let error = Error::new(Reason::NotFound, "namespaces \"x\" not found");
        let status = Failure::of(error, Kind::Pod, "a").status();
        assert_eq!(status["details"], json!({"name": "x", "kind": "namespaces"}));
        let error = Error::new(Reason::Invalid, "Pod \"a\" is invalid: …");
        let status = Failure::of(error, Kind::Pod, "a").status();
        assert_eq!((&status["code"], &status["details"]["kind"]), (&json!(422), &json!("Pod")));
    }
}
