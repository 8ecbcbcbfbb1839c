//! A patch of JSON (RFC 6902) within bounds: what it makes is as deep and as large as a body might
//! have been. Without, a few hundred copies of a thing into itself would fill the memory, or nest
//! it beyond what a stack can follow.

use super::body::LARGEST;
use super::status::Failure;
use ::json_patch::{Patch, PatchOperation, patch_unsafe};
use serde_json::{Value, json};

/// Upstream's `maxJSONPatchOperations` (apiserver `pkg/endpoints/handlers/patch.go`).
const MOST: usize = 10_000;
/// What serde_json reads at most: nothing deeper could be read again.
const DEEPEST: usize = 127;

pub fn parse(bytes: &[u8]) -> Result<Patch, Failure> {
    let patch: Patch = serde_json::from_slice(bytes).map_err(|why| {
        let content_type = "application/json-patch+json";
        Failure::bad_request(format!("error decoding patch: no {content_type}: {why}"))
    })?;
    let count = patch.0.len();
    if count > MOST {
        let message =
            format!("The allowed maximum operations in a JSON patch is {MOST}, got {count}");
        return Err(Failure::new(413, "RequestEntityTooLarge", message));
    }
    Ok(patch)
}

/// An object that could not be patched is partly so.
pub fn apply(patch: &Patch, object: &mut Value) -> Result<(), Failure> {
    let mut spent = Spent::default();
    for operation in &patch.0 {
        spent.within(operation, object)?;
        patch_unsafe(object, std::slice::from_ref(operation)).map_err(|_| rejected())?;
    }
    Ok(())
}

/// Upstream tells nobody which operation failed (apimachinery's `NewGenericServerResponse`).
fn rejected() -> Failure {
    let message = "the server rejected our request due to an error in our request";
    Failure { details: Some(json!({})), ..Failure::new(422, "Invalid", message) }
}

/// What a patch has cost so far.
#[derive(Default)]
struct Spent {
    /// Bytes that were copied.
    copied: usize,
    /// Values that were looked at.
    seen: usize,
}

impl Spent {
    fn within(&mut self, operation: &PatchOperation, object: &Value) -> Result<(), Failure> {
        let invalid = |why: String| Err(Failure::new(422, "Invalid", why));
        let put = match operation {
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Move(moves) => object.pointer(moves.from.as_str()),
            PatchOperation::Copy(copy) => object.pointer(copy.from.as_str()),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        let Some(value) = put else { return Ok(()) };
        if let PatchOperation::Copy(_) = operation {
            self.copied += value.to_string().len();
            if self.copied > LARGEST {
                // `AccumulatedCopySizeLimit` of evanphx/json-patch; upstream's is a body's.
                return invalid(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {}, \
                     exceeding the limit {LARGEST}",
                    self.copied
                ));
            }
        }
        let path = operation.path();
        if path.count() + self.depth(value) > DEEPEST {
            return invalid(format!(
                "{path}: what is put there is nested more than {DEEPEST} deep"
            ));
        }
        if self.seen > LARGEST {
            return invalid(format!("{path}: the patch moves more than {LARGEST} values"));
        }
        Ok(())
    }

    /// How many lists and objects are around its innermost value.
    fn depth(&mut self, value: &Value) -> usize {
        self.seen += 1;
        let mut inner = 0;
        match value {
            Value::Array(items) => {
                items.iter().for_each(|item| inner = inner.max(self.depth(item)));
            }
            Value::Object(fields) => {
                fields.values().for_each(|field| inner = inner.max(self.depth(field)));
            }
            _ => return 0,
        }
        1 + inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(patch: &Value) -> Result<Value, Failure> {
        let mut object = json!({"a": {"b": "c"}, "d": {}});
        let patch = parse(patch.to_string().as_bytes())?;
        apply(&patch, &mut object)?;
        Ok(object)
    }

    /// One that nested an object in itself some ten thousand times ended the server.
    #[test]
    fn nothing_is_nested_without_end() {
        let copies = |count| vec![json!({"op": "copy", "from": "/a", "path": "/a/b"}); count];
        assert_eq!(patched(&copies(2).into()).expect("a little"), {
            json!({"a": {"b": {"b": {"b": "c"}}}, "d": {}})
        });
        let refused = patched(&copies(9_000).into()).expect_err("too deep");
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains("nested more than 127 deep"), "{}", refused.message);
        let mut path = String::new();
        let adds = (0..200).map(|_| {
            path += "/d";
            json!({"op": "add", "path": path, "value": {}})
        });
        assert_eq!(patched(&Value::Array(adds.collect())).expect_err("too deep").code, 422);
    }

    #[test]
    fn nothing_grows_without_end() {
        let doubles: Vec<Value> = (0..40)
            .map(|n| json!({"op": "copy", "from": "/d", "path": format!("/d/{n}")}))
            .collect();
        let refused = patched(&doubles.into()).expect_err("too large");
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains("accumulated size increase"), "{}", refused.message);
        let many = vec![json!({"op": "test", "path": "/a/b", "value": "c"}); 10_001];
        let refused = patched(&many.into()).expect_err("too many");
        assert_eq!((refused.code, refused.reason), (413, "RequestEntityTooLarge"));
    }

    #[test]
    fn what_fails_is_refused_as_a_whole() {
        let patch = json!([{"op": "remove", "path": "/a/b"}, {"op": "remove", "path": "/x"}]);
        let refused = patched(&patch).expect_err("nothing is there");
        let told = "the server rejected our request due to an error in our request";
        assert_eq!((refused.code, &*refused.message), (422, told));
    }
}
