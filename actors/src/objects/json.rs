//! Objects from and to Kubernetes' JSON.

use super::kinds::{Fields, Parts};
use super::strict::{Log, Path, Reader, UnknownField};
use super::*;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Why a manifest is no object of ours, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(pub String);

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for ParseError {}

macro_rules! whole {
    ($value:expr, $type:ty, $variant:ident) => {{
        let whole = <$type>::deserialize($value)?;
        (
            whole.metadata,
            Body::$variant {
                spec: Arc::new(whole.spec.into_inner()),
                status: Arc::new(whole.status.into_inner()),
            },
        )
    }};
}

impl Object {
    /// Reads a whole object. The apiVersion and kind decide the type.
    pub fn from_json(value: Value) -> Result<Object, ParseError> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some(kind) = Kind::of(api_version, kind) else {
            return Err(unknown_kind(api_version, kind));
        };
        Self::from_json_of(kind, value)
    }

    /// Reads an object whose kind is known (as from a path).
    pub fn from_json_of(kind: Kind, value: Value) -> Result<Object, ParseError> {
        shaped(kind, Reader::unlogged(&value)).map_err(|error| ParseError(error.to_string()))
    }

    /// Reads an object of which only the metadata are told (`PartialObjectMetadata`). Who wrote
    /// which field is left out: it is most of what they weigh.
    pub fn bare(kind: Kind, mut value: Value) -> Result<Object, ParseError> {
        let meta = value["metadata"].take();
        let meta = ObjectMeta::deserialize(Reader::unlogged(&meta));
        let meta = meta.map_err(|error| ParseError(error.to_string()))?;
        let meta = ObjectMeta { managed_fields: None, ..meta };
        Ok(plain(kind, (meta, Map::new(), Value::Null)))
    }

    /// Reads an object, or a patch of one, as [`Object::from_json_of`] does; besides it, every
    /// field that the kind does not have. An error says which value could not be read.
    pub fn from_json_strict(
        kind: Kind,
        value: &Value,
    ) -> (Result<Object, (Path, ParseError)>, Vec<UnknownField>) {
        let log = Log::default();
        let object = shaped(kind, Reader::logged(value, &log));
        let object = object.map_err(|error| (log.failed(), ParseError(error.to_string())));
        (object, log.unknown())
    }

    /// The whole object as Kubernetes writes it.
    pub fn to_json(&self) -> Value {
        let mut value = match &self.body {
            Body::Namespace { spec, status } => spec_status(spec, status),
            Body::Node { spec, status } => spec_status(spec, status),
            Body::Pod(pod) => spec_status(pod.spec(), pod.status()),
            Body::Service { spec, status } => spec_status(spec, status),
            Body::Deployment { spec, status } => spec_status(spec, status),
            Body::ReplicaSet { spec, status } => spec_status(spec, status),
            Body::Subnet { spec, status } => spec_status(spec, status),
            Body::Lease { spec } => Map::from_iter([("spec".to_owned(), json(spec))]),
            Body::ConfigMap(whole) => into_map(json(whole)),
            Body::Event(whole) => into_map(json(whole)),
            Body::EndpointSlice(whole) => into_map(json(whole)),
            Body::Plain(plain) => {
                let mut fields = plain.fields.0.clone();
                if !plain.status.is_null() {
                    fields.insert("status".to_owned(), (*plain.status).clone());
                }
                fields
            }
        };
        value.insert("apiVersion".to_owned(), self.kind().api_version().into());
        value.insert("kind".to_owned(), self.kind().name().into());
        value.insert("metadata".to_owned(), json(&self.full_meta()));
        Value::Object(value)
    }

    /// Metadata with the name, namespace, uid and resource version put back, and whose the fields
    /// are.
    pub fn full_meta(&self) -> ObjectMeta {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ObjectMeta {
            name: some(&self.key.name),
            namespace: some(&self.key.namespace),
            uid: (self.uid != Uid::NONE).then(|| self.uid.to_string()),
            resource_version: (self.version != 0).then(|| self.version.to_string()),
            managed_fields: self.managed.entries(),
            ..(*self.meta).clone()
        }
    }
}

/// One of a kind without types of its own is brought into the shape of Kubernetes' type.
fn shaped(kind: Kind, value: Reader<'_, '_>) -> Result<Object, serde_json::Error> {
    match kind.rules() {
        Some(rules) => (rules.shape)(value).map(|parts| plain(kind, parts)),
        None => read(kind, value),
    }
}

/// One of a kind without types of its own is taken as it stands.
pub(super) fn read<'de, D: Deserializer<'de>>(kind: Kind, value: D) -> Result<Object, D::Error> {
    if kind.rules().is_some() {
        let mut fields = Map::deserialize(value)?;
        let meta = fields.remove("metadata");
        let meta = meta.map(|meta| ObjectMeta::deserialize(Reader::unlogged(&meta))).transpose();
        let meta = meta.map_err(D::Error::custom)?.unwrap_or_default();
        let status = fields.remove("status").unwrap_or_default();
        fields.remove("apiVersion");
        fields.remove("kind");
        return Ok(plain(kind, (meta, fields, status)));
    }
    let (meta, body) = match kind {
        Kind::Namespace => whole!(value, Namespace, Namespace),
        Kind::Node => whole!(value, Node, Node),
        Kind::Pod => {
            let whole = Pod::deserialize(value)?;
            let (spec, status) = (whole.spec.into_inner(), whole.status.into_inner());
            (whole.metadata, Body::Pod(PodBody::new(Arc::new(spec), Arc::new(status))))
        }
        Kind::Service => whole!(value, Service, Service),
        Kind::Deployment => whole!(value, Deployment, Deployment),
        Kind::ReplicaSet => whole!(value, ReplicaSet, ReplicaSet),
        Kind::Subnet => whole!(value, Subnet, Subnet),
        Kind::Lease => {
            let whole = Lease::deserialize(value)?;
            (whole.metadata, Body::Lease { spec: Arc::new(whole.spec.unwrap_or_default()) })
        }
        Kind::ConfigMap => {
            let mut whole = ConfigMap::deserialize(value)?;
            // In Go an empty map is left out (`omitempty`).
            whole.data = whole.data.filter(|data| !data.is_empty());
            whole.binary_data = whole.binary_data.filter(|data| !data.is_empty());
            (std::mem::take(&mut whole.metadata), Body::ConfigMap(Arc::new(whole)))
        }
        Kind::Event => {
            let mut whole = Event::deserialize(value)?;
            (std::mem::take(&mut whole.metadata), Body::Event(Arc::new(whole)))
        }
        Kind::EndpointSlice => {
            let mut whole = EndpointSlice::deserialize(value)?;
            (std::mem::take(&mut whole.metadata), Body::EndpointSlice(Arc::new(whole)))
        }
        // Those with rules are read above.
        _ => return Err(D::Error::custom(format_args!("nothing reads a {kind}"))),
    };
    Ok(assemble(meta, body))
}

fn plain(kind: Kind, (meta, fields, status): Parts) -> Object {
    let (fields, status) = (Arc::new(Fields(fields)), Arc::new(status));
    assemble(meta, Body::Plain(Plain { kind, fields, status }))
}

fn assemble(mut meta: ObjectMeta, body: Body) -> Object {
    let name = meta.name.take().unwrap_or_default();
    let namespace = meta.namespace.take().unwrap_or_default();
    let uid = meta.uid.take().and_then(|uid| Uid::parse(&uid)).unwrap_or_default();
    let version = meta.resource_version.take().and_then(|v| v.parse().ok()).unwrap_or_default();
    let namespaced = body.kind().namespaced();
    let namespace = match (namespaced, namespace.is_empty()) {
        (true, true) => Name::new_static("default"),
        (true, false) => Name::from(namespace),
        (false, _) => Name::default(),
    };
    let key = Key { namespace, name: Name::from(name) };
    let managed = Managed::of(meta.managed_fields.take().as_deref());
    Object { key, uid, version, meta: Arc::new(meta), managed, body }
}

fn unknown_kind(api_version: &str, kind: &str) -> ParseError {
    let known: Vec<_> = Kind::ALL.iter().map(|k| format!("{} {k}", k.api_version())).collect();
    ParseError(format!(
        "no kind {kind:?} in version {api_version:?}; known are {}",
        known.join(", ")
    ))
}

fn json<T: Serialize>(part: &T) -> Value {
    serde_json::to_value(part).expect("Kubernetes' types have string keys only")
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn spec_status<S: Serialize, T: Serialize>(spec: &S, status: &T) -> Map<String, Value> {
    Map::from_iter([("spec".to_owned(), json(spec)), ("status".to_owned(), json(status))])
}

/// `spec` and `status` are optional in most of Kubernetes' types and plain in ours.
trait IntoInner<T> {
    fn into_inner(self) -> T;
}
impl<T: Default> IntoInner<T> for Option<T> {
    fn into_inner(self) -> T {
        self.unwrap_or_default()
    }
}
impl IntoInner<SubnetSpec> for SubnetSpec {
    fn into_inner(self) -> SubnetSpec {
        self
    }
}
impl IntoInner<SubnetStatus> for SubnetStatus {
    fn into_inner(self) -> SubnetStatus {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_comes_back_as_it_went() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "x", "labels": {"app": "a"}, "resourceVersion": "7",
                         "uid": "ffffffff-ffff-4fff-8123-456789abcdef"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running"},
        });
        let object = Object::from_json(pod.clone()).unwrap();
        assert_eq!(object.key, Key::new("x", "a"));
        assert_eq!(object.version, 7);
        assert_eq!(object.label("app"), Some("a"));
        assert_eq!(object.to_json(), pod);
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let error = Object::from_json(json!({"apiVersion": "v1", "kind": "Pood"})).unwrap_err();
        assert!(error.0.contains("\"Pood\"") && error.0.contains("v1 Pod"), "{error}");
    }

    #[test]
    fn a_strict_reading_tells_what_a_plain_one_drops() {
        let manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "lables": {}},
            "spec": {"replica": 3, "template": {"metadata": {"labels": {"any": "key"}},
                "spec": {"containers": [{"name": "c"}, {"name": "d", "imagee": "x"}]}}},
        });
        let (object, unknown) = Object::from_json_strict(Kind::Deployment, &manifest);
        assert_eq!(object.unwrap(), Object::from_json(manifest).unwrap());
        let told: Vec<_> = unknown.iter().map(|u| u.path.to_string()).collect();
        let places = ["metadata.lables", "spec.replica", "spec.template.spec.containers[1].imagee"];
        assert_eq!(told, places);
        assert!(unknown[1].known.contains(&"replicas"));
        let bad = json!({"spec": {"ports": [{"port": 80}, {"port": "http"}]}});
        let (object, _) = Object::from_json_strict(Kind::Service, &bad);
        let (path, why) = object.unwrap_err();
        assert_eq!(path.to_string(), "spec.ports[1].port");
        assert!(why.0.contains("expected i32"), "{why}");
    }

    #[test]
    fn every_kind_reads_strictly_what_it_writes() {
        for kind in Kind::ALL {
            let bare = json!({"apiVersion": kind.api_version(), "kind": kind.name(),
                              "metadata": {"name": "a"}});
            let whole = Object::from_json(bare).unwrap().to_json();
            let (object, unknown) = Object::from_json_strict(*kind, &whole);
            assert!(object.is_ok() && unknown.is_empty(), "{kind}: {unknown:?}");
        }
    }
}
