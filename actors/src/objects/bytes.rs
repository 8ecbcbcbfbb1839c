//! Objects as they are kept: JSON in one pass, without the version, which is the store's to say.

use super::json::{ParseError, read};
use super::*;
use serde::Serialize;

impl Object {
    /// Kubernetes' JSON of the object less its resource version: a write's bytes are the same
    /// whatever revision it gets.
    pub fn to_bytes(&self) -> Vec<u8> {
        Written { object: self, version: 0 }.text()
    }

    /// Kubernetes' JSON of the object, in one pass: what [`Object::to_json`] says, as text.
    pub fn to_text(&self) -> Vec<u8> {
        Written { object: self, version: self.version }.text()
    }

    /// What [`Object::to_bytes`] wrote, at the version that the store has it at.
    pub fn from_bytes(kind: Kind, bytes: &[u8], version: u64) -> Result<Object, ParseError> {
        let cut = Managed::cut(bytes);
        let bytes = cut.as_ref().map_or(bytes, |(_, rest)| rest);
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let object = read(kind, &mut json).and_then(|object| json.end().map(|()| object));
        let mut object = object.map_err(|error| ParseError(error.to_string()))?;
        object.version = version;
        if let Some((managed, _)) = cut {
            object.managed = managed;
        }
        Ok(object)
    }
}

/// An object at a version (0: it says none).
struct Written<'a> {
    object: &'a Object,
    version: u64,
}

impl Written<'_> {
    fn text(&self) -> Vec<u8> {
        let meta = || ObjectMeta {
            resource_version: (self.version != 0).then(|| self.version.to_string()),
            ..self.object.full_meta()
        };
        match &self.object.body {
            // These are held whole: their own serialisation with the metadata put back.
            Body::ConfigMap(whole) => json(&ConfigMap { metadata: meta(), ..(**whole).clone() }),
            Body::Event(whole) => json(&Event { metadata: meta(), ..(**whole).clone() }),
            Body::EndpointSlice(whole) => {
                json(&EndpointSlice { metadata: meta(), ..(**whole).clone() })
            }
            Body::Namespace { spec, status } => self.parts(spec, Some(status)),
            Body::Node { spec, status } => self.parts(spec, Some(status)),
            Body::Pod(pod) => self.parts(pod.spec(), Some(pod.status())),
            Body::Service { spec, status } => self.parts(spec, Some(status)),
            Body::Deployment { spec, status } => self.parts(spec, Some(status)),
            Body::ReplicaSet { spec, status } => self.parts(spec, Some(status)),
            Body::Subnet { spec, status } => self.parts(spec, Some(status)),
            Body::Lease { spec } => self.parts(spec, None::<&()>),
            Body::Plain(plain) => self.fields(plain),
        }
    }

    fn parts(&self, spec: &impl Serialize, status: Option<&impl Serialize>) -> Vec<u8> {
        let mut fields = self.typed();
        fields.add("spec", spec);
        fields.some("status", status);
        fields.end()
    }

    fn fields(&self, plain: &Plain) -> Vec<u8> {
        let mut fields = self.typed();
        for (name, value) in &plain.fields.0 {
            fields.add(name, value);
        }
        fields.some("status", Some(&plain.status).filter(|status| !status.is_null()));
        fields.end()
    }

    fn typed(&self) -> Text {
        let mut fields = Text(Vec::with_capacity(ROOM));
        fields.add("apiVersion", self.object.kind().api_version());
        fields.add("kind", self.object.kind().name());
        fields.name("metadata");
        self.meta(&mut fields);
        fields
    }

    /// What [`Object::full_meta`] says, without a copy of it, and whose the fields are as it
    /// stands.
    fn meta(&self, out: &mut Text) {
        let Object { key, uid, meta, managed, .. } = self.object;
        // All of them, in the order of the alphabet.
        let ObjectMeta {
            annotations,
            creation_timestamp,
            deletion_grace_period_seconds,
            deletion_timestamp,
            finalizers,
            generate_name,
            generation,
            labels,
            managed_fields: _,
            name: _,
            namespace: _,
            owner_references,
            resource_version: _,
            self_link,
            uid: _,
        } = &**meta;
        let some = |text: &Name| (!text.is_empty()).then(|| text.as_str().to_owned());
        out.0.push(b'{');
        out.some("annotations", annotations.as_ref());
        out.some("creationTimestamp", creation_timestamp.as_ref());
        out.some("deletionGracePeriodSeconds", deletion_grace_period_seconds.as_ref());
        out.some("deletionTimestamp", deletion_timestamp.as_ref());
        out.some("finalizers", finalizers.as_ref());
        out.some("generateName", generate_name.as_ref());
        out.some("generation", generation.as_ref());
        out.some("labels", labels.as_ref());
        if let Some(text) = managed.text() {
            out.name("managedFields");
            out.0.extend_from_slice(text.as_bytes());
        }
        out.some("name", some(&key.name).as_ref());
        out.some("namespace", some(&key.namespace).as_ref());
        out.some("ownerReferences", owner_references.as_ref());
        let version = (self.version != 0).then(|| self.version.to_string());
        out.some("resourceVersion", version.as_ref());
        out.some("selfLink", self_link.as_ref());
        out.some("uid", (*uid != Uid::NONE).then(|| uid.to_string()).as_ref());
        out.0.push(b'}');
    }
}

/// Bytes that most objects fit in.
const ROOM: usize = 4096;

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("Kubernetes' types have string keys only")
}

/// The text of a JSON object, field after field.
struct Text(Vec<u8>);

impl Text {
    fn add(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.name(name);
        self.value(value);
    }

    fn some(&mut self, name: &str, value: Option<&impl Serialize>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn name(&mut self, name: &str) {
        match self.0.last() {
            None => self.0.push(b'{'),
            // The first one of an object in it.
            Some(b'{') => {}
            Some(_) => self.0.push(b','),
        }
        self.value(name);
        self.0.push(b':');
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        let written = serde_json::to_writer(&mut self.0, value);
        written.expect("Kubernetes' types have string keys only");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
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
