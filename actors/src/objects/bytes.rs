//! Objects as they are kept: JSON in one pass, without the version, which is the store's to say.

use super::json::{ParseError, read};
use super::*;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

impl Object {
    /// Kubernetes' JSON of the object less its resource version: a write's bytes are the same
    /// whatever revision it gets.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.written(ObjectMeta { resource_version: None, ..self.full_meta() })
    }

    /// Kubernetes' JSON of the object, in one pass: what [`Object::to_json`] says, as text.
    pub fn to_text(&self) -> Vec<u8> {
        self.written(self.full_meta())
    }

    fn written(&self, meta: ObjectMeta) -> Vec<u8> {
        let object = Kept { object: self, meta };
        serde_json::to_vec(&object).expect("Kubernetes' types have string keys only")
    }

    /// What [`Object::to_bytes`] wrote, at the version that the store has it at.
    pub fn from_bytes(kind: Kind, bytes: &[u8], version: u64) -> Result<Object, ParseError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let object = read(kind, &mut json).and_then(|object| json.end().map(|()| object));
        let mut object = object.map_err(|error| ParseError(error.to_string()))?;
        object.version = version;
        Ok(object)
    }
}

struct Kept<'a> {
    object: &'a Object,
    meta: ObjectMeta,
}

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let meta = || self.meta.clone();
        match &self.object.body {
            // These are held whole: their own serialisation with the metadata put back.
            Body::ConfigMap(whole) => {
                ConfigMap { metadata: meta(), ..(**whole).clone() }.serialize(serializer)
            }
            Body::Event(whole) => {
                Event { metadata: meta(), ..(**whole).clone() }.serialize(serializer)
            }
            Body::EndpointSlice(whole) => {
                EndpointSlice { metadata: meta(), ..(**whole).clone() }.serialize(serializer)
            }
            Body::Namespace { spec, status } => self.parts(serializer, spec, Some(status)),
            Body::Node { spec, status } => self.parts(serializer, spec, Some(status)),
            Body::Pod(pod) => self.parts(serializer, pod.spec(), Some(pod.status())),
            Body::Service { spec, status } => self.parts(serializer, spec, Some(status)),
            Body::Deployment { spec, status } => self.parts(serializer, spec, Some(status)),
            Body::ReplicaSet { spec, status } => self.parts(serializer, spec, Some(status)),
            Body::Subnet { spec, status } => self.parts(serializer, spec, Some(status)),
            Body::Lease { spec } => self.parts(serializer, spec, None::<&()>),
            Body::Plain(plain) => self.fields(serializer, plain),
        }
    }
}

impl Kept<'_> {
    fn parts<S: Serializer>(
        &self,
        serializer: S,
        spec: &impl Serialize,
        status: Option<&impl Serialize>,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", self.object.kind().api_version())?;
        map.serialize_entry("kind", self.object.kind().name())?;
        map.serialize_entry("metadata", &self.meta)?;
        map.serialize_entry("spec", spec)?;
        if let Some(status) = status {
            map.serialize_entry("status", status)?;
        }
        map.end()
    }

    fn fields<S: Serializer>(&self, serializer: S, plain: &Plain) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", plain.kind.api_version())?;
        map.serialize_entry("kind", plain.kind.name())?;
        map.serialize_entry("metadata", &self.meta)?;
        for (name, value) in &plain.fields.0 {
            map.serialize_entry(name, value)?;
        }
        if !plain.status.is_null() {
            map.serialize_entry("status", &plain.status)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_kind_comes_back_as_it_went_at_the_stores_version() {
        for kind in Kind::ALL {
            let written = json!({"apiVersion": kind.api_version(), "kind": kind.name(),
                "metadata": {"name": "a", "labels": {"x": "y"}, "resourceVersion": "7",
                             "uid": "ffffffff-ffff-4fff-8123-456789abcdef"}});
            let object = Object::from_json(written).expect("an object");
            let bytes = object.to_bytes();
            let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(value["metadata"].get("resourceVersion"), None);
            value["metadata"]["resourceVersion"] = "7".into();
            assert_eq!(value, object.to_json(), "the same as in one piece: {kind}");
            let text: Value = serde_json::from_slice(&object.to_text()).expect("JSON");
            assert_eq!(text, value);
            let again = Object::from_bytes(*kind, &bytes, 9).expect("an object");
            assert_eq!((again.version, again.uid), (9, object.uid));
            assert_eq!(again.to_bytes(), bytes);
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_no_object() {
        let object = Object::from_json(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a"}}));
        let bytes = object.expect("a pod").to_bytes();
        assert!(Object::from_bytes(Kind::Pod, &bytes[..bytes.len() - 1], 1).is_err());
        assert!(Object::from_bytes(Kind::Pod, &[&*bytes, b"{}"].concat(), 1).is_err());
        assert!(Object::from_bytes(Kind::Pod, b"k8s\0", 1).is_err());
    }
}
