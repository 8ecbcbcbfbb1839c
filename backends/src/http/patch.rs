//! The kinds of patch: of JSON (RFC 6902), merged (RFC 7386), and Kubernetes' strategic merge.

use super::status::Failure;
use super::versions::Served;
use super::writing::Writing;
use super::{apply, json_patch, strategic};
use kubesim_actors::objects::Object;
use serde_json::{Map, Value};

#[derive(Debug)]
pub enum Patch {
    Json(::json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

const STRATEGIC: &str = "application/strategic-merge-patch+json";

pub const ACCEPTED: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    STRATEGIC,
    // It is no patch: `apply` does it.
    apply::options::MEDIA_TYPE,
];

fn accepted(served: &Served) -> Vec<&'static str> {
    let strategic = !served.is_declared();
    ACCEPTED.into_iter().filter(|kind| strategic || *kind != STRATEGIC).collect()
}

/// Strategies are what types of Go say of themselves: no definition says such a thing.
pub fn parse(bytes: &[u8], content_type: &str, served: &Served) -> Result<Patch, Failure> {
    let wrong = |why: serde_json::Error| {
        Failure::bad_request(format!("error decoding patch: no {content_type}: {why}"))
    };
    let object = || {
        let value: Value = serde_json::from_slice(bytes).map_err(wrong)?;
        if value.is_object() {
            return Ok(value);
        }
        let message = format!("error decoding patch: a {content_type} is an object of fields");
        Err(Failure::bad_request(message))
    };
    match content_type {
        "application/json-patch+json" => json_patch::parse(bytes).map(Patch::Json),
        "application/merge-patch+json" => Ok(Patch::Merge(object()?)),
        STRATEGIC if !served.is_declared() => Ok(Patch::Strategic(object()?)),
        other => Err(Failure::media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {}; found: {other}",
            accepted(served).join(", ")
        ))),
    }
}

impl Patch {
    /// Whether whose the fields are is nothing to it, which spares showing them to it.
    pub fn leaves_managers(&self) -> bool {
        let (Patch::Merge(patch) | Patch::Strategic(patch)) = self else { return false };
        let Value::Object(patch) = patch else { return false };
        let directs = |fields: &Map<String, Value>| fields.keys().any(|name| name.starts_with('$'));
        match patch.get("metadata") {
            _ if directs(patch) => false,
            None => true,
            Some(Value::Object(meta)) => !directs(meta) && !meta.contains_key("managedFields"),
            Some(_) => false,
        }
    }

    /// The object as the patch is to see it: operations name fields by their places, so all are
    /// there that the client was shown.
    pub fn base(&self, served: &Served, object: &Object) -> Value {
        match self {
            Patch::Json(_) => {
                serde_json::from_slice(&served.text(object, Writing::Go)).unwrap_or_default()
            }
            Patch::Merge(_) | Patch::Strategic(_) => served.json(object),
        }
    }

    /// Makes of the object what the patch says.
    pub fn apply(&self, served: &Served, object: &mut Value) -> Result<(), Failure> {
        match self {
            Patch::Json(patch) => json_patch::apply(patch, object)?,
            Patch::Merge(patch) => ::json_patch::merge(object, patch),
            Patch::Strategic(patch) => {
                strategic::apply(served.message(), object, patch).map_err(Failure::bad_request)?;
            }
        }
        if object.is_object() {
            return Ok(());
        }
        Err(Failure::new(422, "Invalid", "what the patch makes is no object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::objects::Kind;
    use serde_json::json;

    #[test]
    fn each_kind_of_patch_does_what_it_says() {
        let patched = |bytes: &str, kind: &str| {
            let mut object = json!({"a": 1, "b": {"c": 2}});
            let served = Served::held(Kind::ConfigMap);
            let patch = parse(bytes.as_bytes(), kind, &served)?;
            patch.apply(&served, &mut object)?;
            Ok::<_, Failure>(object)
        };
        let [json, merge, strategic, _] = ACCEPTED;
        let remove =
            r#"[{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/a"}]"#;
        assert_eq!(patched(remove, json), Ok(json!({"b": {"c": 2}})));
        let leaves = |bytes: &str, kind: &str| {
            let patch = parse(bytes.as_bytes(), kind, &Served::held(Kind::ConfigMap));
            patch.expect("a patch").leaves_managers()
        };
        assert!(leaves("{}", merge) && leaves(r#"{"metadata": {"labels": null}}"#, strategic));
        assert!(!leaves("[]", json) && !leaves(r#"{"metadata": null}"#, merge));
        assert!(!leaves(r#"{"metadata": {"managedFields": []}}"#, merge));
        assert!(!leaves(r#"{"$patch": "replace"}"#, strategic));
        assert!(!leaves(r#"{"metadata": {"$patch": "replace"}}"#, strategic));
        let failed = r#"[{"op": "test", "path": "/a", "value": 2}]"#;
        assert_eq!(patched(failed, json).expect_err("another value").code, 422);
        let merged = r#"{"a": null, "b": {"d": 3}}"#;
        assert_eq!(patched(merged, merge), Ok(json!({"b": {"c": 2, "d": 3}})));
        assert_eq!(patched(merged, strategic), Ok(json!({"b": {"c": 2, "d": 3}})));
        for (bytes, kind, code) in [
            ("[]", merge, 400),
            ("{", merge, 400),
            (r#"[{"op": "jump"}]"#, json, 400),
            ("a: b", "application/yaml", 415),
            ("{}", "application/json", 415),
        ] {
            assert_eq!(patched(bytes, kind).expect_err(bytes).code, code, "{bytes}");
        }
    }
}
