//! JSON merge patch (RFC 7386). Only the parts a patch names take the way through JSON.

use super::errors;
use crate::objects::{Body, Kind, Object, Plain, Uid, typed};
use crate::ports::api::{Error, Subresource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The object that the patch makes of `old`. Its uid and version are the patch's preconditions
/// (or none and 0).
pub(super) fn merged(
    old: &Object,
    subresource: Subresource,
    patch: &Value,
) -> Result<Object, Error> {
    let Value::Object(patch) = patch else {
        return Err(errors::bad_request("a merge patch of an object must be an object"));
    };
    let mut new = Object { uid: Uid::NONE, version: 0, ..old.clone() };
    check_type(old.kind(), patch)?;
    if let Some(meta) = patch.get("metadata") {
        let Value::Object(meta) = meta else {
            return Err(errors::bad_request("metadata: must be an object"));
        };
        preconditions(&mut new, meta)?;
        if subresource == Subresource::Main {
            let mut meta = meta.clone();
            // What says which object it is, and what an object holds beside its metadata.
            for apart in ["name", "namespace", "uid", "resourceVersion", "managedFields"] {
                meta.remove(apart);
            }
            if !meta.is_empty() {
                merge_part(&mut new.meta, &Value::Object(meta))?;
            }
        }
    }
    match subresource {
        Subresource::Main => merge_main(&mut new.body, patch)?,
        Subresource::Status => {
            if let Some(status) = patch.get("status") {
                merge_status(&mut new.body, status)?;
            }
        }
    }
    Ok(new)
}

fn check_type(kind: Kind, patch: &Map<String, Value>) -> Result<(), Error> {
    let differs = |field: &str, ours: &str| {
        patch.get(field).is_some_and(|theirs| theirs.as_str() != Some(ours))
    };
    if differs("kind", kind.name()) || differs("apiVersion", kind.api_version()) {
        return Err(errors::bad_request(format!(
            "the API version and kind in the data do not match the expected {} {kind}",
            kind.api_version()
        )));
    }
    Ok(())
}

fn preconditions(new: &mut Object, meta: &Map<String, Value>) -> Result<(), Error> {
    if let Some(Value::String(uid)) = meta.get("uid") {
        let parsed = Uid::parse(uid);
        new.uid = parsed.ok_or_else(|| errors::bad_request(format!("invalid uid {uid:?}")))?;
    }
    if let Some(Value::String(version)) = meta.get("resourceVersion") {
        let why = || errors::bad_request(format!("invalid resource version {version:?}"));
        new.version = version.parse().map_err(|_| why())?;
    }
    for (field, ours) in [("name", &new.key.name), ("namespace", &new.key.namespace)] {
        let theirs = meta.get(field).and_then(Value::as_str);
        if theirs.is_some_and(|theirs| theirs != ours.as_str()) {
            return Err(errors::bad_request(format!(
                "the {field} of the object ({}) does not match the {field} on the URL ({ours})",
                theirs.unwrap_or_default()
            )));
        }
    }
    Ok(())
}

fn merge_main(body: &mut Body, patch: &Map<String, Value>) -> Result<(), Error> {
    let whole = || {
        let mut patch = patch.clone();
        for elsewhere in ["metadata", "apiVersion", "kind"] {
            patch.remove(elsewhere);
        }
        Value::Object(patch)
    };
    let spec = patch.get("spec");
    match body {
        Body::ConfigMap(part) => return merge_part(part, &whole()),
        Body::Event(part) => return merge_part(part, &whole()),
        Body::EndpointSlice(part) => return merge_part(part, &whole()),
        Body::Plain(plain) => return merge_plain(plain, &whole()),
        _ => {}
    }
    let Some(patch) = spec else { return Ok(()) };
    match body {
        Body::Namespace { spec, .. } => merge_part(spec, patch),
        Body::Node { spec, .. } => merge_part(spec, patch),
        Body::Pod(pod) => pod.edit(|spec, _| merge_part(spec, patch)),
        Body::Service { spec, .. } => merge_part(spec, patch),
        Body::Deployment { spec, .. } => merge_part(spec, patch),
        Body::ReplicaSet { spec, .. } => merge_part(spec, patch),
        Body::Lease { spec } => merge_part(spec, patch),
        Body::Subnet { spec, .. } => merge_part(spec, patch),
        Body::ConfigMap(_) | Body::Event(_) | Body::EndpointSlice(_) | Body::Plain(_) => Ok(()),
    }
}

/// By way of the kind's type, which may refuse what comes of it.
fn merge_plain(plain: &mut Plain, patch: &Value) -> Result<(), Error> {
    let mut value = Value::Object(plain.fields.0.clone());
    if !plain.status.is_null() {
        value["status"] = (*plain.status).clone();
    }
    merge(&mut value, patch);
    let object = Object::from_json_of(plain.kind, value);
    let object = object.map_err(|error| errors::bad_request(error.to_string()))?;
    if let Body::Plain(merged) = object.body {
        *plain = merged;
    }
    Ok(())
}

fn merge_status(body: &mut Body, patch: &Value) -> Result<(), Error> {
    match body {
        Body::Namespace { status, .. } => merge_part(status, patch),
        Body::Node { status, .. } => merge_part(status, patch),
        Body::Pod(pod) => pod.edit(|_, status| merge_part(status, patch)),
        Body::Service { status, .. } => merge_part(status, patch),
        Body::Deployment { status, .. } => merge_part(status, patch),
        Body::ReplicaSet { status, .. } => merge_part(status, patch),
        Body::Subnet { status, .. } => merge_part(status, patch),
        Body::Plain(plain) => merge_plain(plain, &json!({"status": patch})),
        Body::Lease { .. } | Body::ConfigMap(_) | Body::Event(_) | Body::EndpointSlice(_) => Ok(()),
    }
}

fn merge_part<T: Serialize + DeserializeOwned + PartialEq>(
    part: &mut Arc<T>,
    patch: &Value,
) -> Result<(), Error> {
    let bad = |error: serde_json::Error| errors::bad_request(error.to_string());
    let mut value = serde_json::to_value(&**part).map_err(bad)?;
    merge(&mut value, patch);
    if value.is_null() {
        value = Value::Object(Map::new());
    }
    let new: T = typed(&value).map_err(|error| errors::bad_request(error.to_string()))?;
    if new != **part {
        *part = Arc::new(new);
    }
    Ok(())
}

/// RFC 7386, section 2.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 7386, appendix A.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in cases {
            merge(&mut target, &patch);
            assert_eq!(target, expected);
        }
    }
}
