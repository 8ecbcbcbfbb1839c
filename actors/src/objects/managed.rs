//! Who wrote which fields of an object (`metadata.managedFields`, KEP-555): half of what a pod
//! says, and hardly anybody asks. So it is held beside the other metadata as the text that it is
//! stored and told as, and read when a write needs it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde::Serialize;
use serde::de::IgnoredAny;
use std::ops::Range;
use std::sync::Arc;

/// A JSON list of `ManagedFieldsEntry`, or nothing. Equal ones say the same in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed(Option<Arc<str>>);

impl Managed {
    /// Of entries in Kubernetes' JSON, however they are held. An empty list is kept as one: it is
    /// how a client has them forgotten.
    pub fn of<T: Serialize>(entries: Option<&[T]>) -> Managed {
        let text = |entries| {
            serde_json::to_string(entries).expect("Kubernetes' types have string keys only").into()
        };
        Managed(entries.map(text))
    }

    /// `None` if there are none, or if the store holds what is no list of entries.
    pub fn entries(&self) -> Option<Vec<ManagedFieldsEntry>> {
        serde_json::from_str(self.text()?).ok()
    }

    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// No list, where an empty one says nothing else.
    pub fn some(&self) -> Managed {
        Managed(self.0.clone().filter(|text| &**text != "[]"))
    }

    /// Takes the list out of an object's bytes as [`super::Object::to_bytes`] writes them, which
    /// spares reading it field by field. `None` if they were written in another way, or have none.
    pub(super) fn cut(bytes: &[u8]) -> Option<(Managed, Vec<u8>)> {
        let metadata = field(bytes, "metadata", 0)?;
        let list = field(bytes, "managedFields", metadata.start)?;
        let text = std::str::from_utf8(&bytes[list.clone()]).ok().filter(|t| t.starts_with('['))?;
        let rest = [&bytes[..list.start], b"null", &bytes[list.end..]].concat();
        Some((Managed(Some(text.into())), rest))
    }
}

/// Where the value of a field is, of the object without white space that begins at `start`.
fn field(bytes: &[u8], name: &str, start: usize) -> Option<Range<usize>> {
    let mut at = start;
    let mut before = b'{';
    while bytes.get(at) == Some(&before) {
        let key = at + 1..value_end(bytes, at + 1)?;
        let value = key.end + 1..value_end(bytes, key.end + 1)?;
        if bytes[key].strip_prefix(b"\"")?.strip_suffix(b"\"")? == name.as_bytes() {
            return Some(value);
        }
        (at, before) = (value.end, b',');
    }
    None
}

fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let json = serde_json::Deserializer::from_slice(bytes.get(start..)?);
    let mut values = json.into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(start + values.byte_offset())
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Object};
    use super::*;
    use serde_json::json;

    fn pod(more: serde_json::Value) -> Object {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"managedFields": "[\"metadata\":{"}},
            "spec": {"containers": []}});
        pod["metadata"]["managedFields"] = more;
        Object::from_json(pod).expect("a pod")
    }

    #[test]
    fn it_is_told_as_it_was_said_and_stored_in_its_place() {
        let entries = json!([{"apiVersion": "v1", "fieldsType": "FieldsV1", "manager": "kubectl",
            "fieldsV1": {"f:metadata": {"f:labels": {"k:{\"a\":\"ü]\"}": {}}}},
            "operation": "Update", "time": "2026-01-02T03:04:05Z"}]);
        let object = pod(entries.clone());
        assert_eq!(object.meta.managed_fields, None, "it is held once");
        assert_eq!(object.to_json()["metadata"]["managedFields"], entries);
        let bytes = object.to_bytes();
        assert_eq!(bytes, object.to_json().to_string().as_bytes(), "in the order of the alphabet");
        let (managed, rest) = Managed::cut(&bytes).expect("its own form");
        assert_eq!((managed.text(), &managed), (Some(&*entries.to_string()), &object.managed));
        assert!(rest.len() < bytes.len());
        let again = Object::from_bytes(Kind::Pod, &bytes, 7).expect("a pod");
        assert_eq!((&again.managed, again.to_bytes()), (&object.managed, bytes.clone()));
        // However it stands there.
        let spaced = serde_json::to_vec_pretty(&object.to_json()).expect("JSON");
        assert_eq!(Managed::cut(&spaced), None);
        let again = Object::from_bytes(Kind::Pod, &spaced, 7).expect("a pod");
        assert_eq!(again.to_bytes(), bytes);
        for end in 0..bytes.len() {
            assert!(Object::from_bytes(Kind::Pod, &bytes[..end], 7).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn none_is_told_from_an_empty_list() {
        let (none, empty) = (pod(json!(null)), pod(json!([])));
        assert_eq!((none.managed.text(), empty.managed.text()), (None, Some("[]")));
        assert_eq!((none.managed.entries(), empty.managed.entries()), (None, Some(Vec::new())));
        assert_eq!(empty.managed.some(), none.managed);
        assert_eq!(Managed::cut(&none.to_bytes()), None);
        assert_eq!(empty.to_json()["metadata"]["managedFields"], json!([]));
    }

    #[test]
    fn what_is_no_list_of_entries_is_not_read() {
        assert!(Managed::cut(br#"{"metadata":{"managedFields":7,"name":"a"}}"#).is_none());
        assert!(Managed::cut(br#"{"metadata":7}"#).is_none());
        assert!(Managed::cut(br#"{"spec":{"managedFields":[]}}"#).is_none());
        let (managed, _) = Managed::cut(br#"{"metadata":{"managedFields":[7]}}"#).expect("a list");
        assert_eq!(managed.entries(), None);
    }
}
