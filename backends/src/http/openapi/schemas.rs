//! The types' schemas in the form in which upstream serves them in OpenAPI v3 (kube-openapi
//! `pkg/generators/openapi.go`, `pkg/builder3`). k8s-openapi made its own from upstream's v2
//! document: it has all descriptions, but no defaults, and what it says of objects is stricter.

use super::facts;
use super::subnet;
use super::types::{self, Kind};
use crate::http::resources;
use kubesim_actors::objects::Definitions;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// What a reference to a schema begins with.
pub const REFERENCE: &str = "#/components/schemas/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
pub const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";

pub struct Schemas {
    kinds: Vec<Kind>,
    all: Map<String, Value>,
}

/// All schemas. They are put in order at the first call, which takes a while.
pub fn all() -> &'static Schemas {
    static ALL: LazyLock<Schemas> = LazyLock::new(Schemas::new);
    &ALL
}

/// The name of a type of `meta/v1`.
pub fn meta(kind: &str) -> String {
    format!("{META}{kind}")
}

pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{name}")})
}

impl Schemas {
    fn new() -> Schemas {
        let (mut kinds, derived) = types::all();
        let shape = |(name, schema): (String, Value)| {
            let shaped = shaped(&name, schema);
            (name, shaped)
        };
        let mut all: Map<String, Value> = derived.into_iter().map(shape).collect();
        subnet::add(&mut kinds, &mut all);
        for kind in &kinds {
            let own = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
            all[&kind.schema][GROUP_VERSION_KIND] = own;
            if let Some(list) = kind.list {
                all.insert(list_name(kind, list), list_of(kind, list));
            }
        }
        of_meta(&mut all);
        Schemas { kinds, all }
    }

    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }

    /// What a kind's schema is called, if it has one.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        self.kind(group, version, kind).map(|kind| kind.schema.as_str())
    }

    /// The same of lists of them.
    pub fn of_list(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let kind = self.kind(group, version, kind)?;
        kind.list.map(|list| list_name(kind, list))
    }

    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Kind> {
        self.kinds
            .iter()
            .find(|known| known.kind == kind && known.group == group && known.version == version)
    }

    /// Adds the schemas that a document names, and those that they name.
    pub fn named_by(&self, document: &Value, found: &mut Map<String, Value>) {
        match document {
            Value::Object(fields) => {
                if let Some(Value::String(path)) = fields.get("$ref") {
                    let name = path.trim_start_matches(REFERENCE);
                    if let Some(schema) = self.get(name).filter(|_| !found.contains_key(name)) {
                        found.insert(name.to_owned(), schema.clone());
                        self.named_by(schema, found);
                    }
                }
                fields.values().for_each(|value| self.named_by(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| self.named_by(item, found)),
            _ => {}
        }
    }
}

fn list_name(kind: &Kind, list: &str) -> String {
    let module = kind.schema.strip_suffix(kind.kind).unwrap_or_default();
    format!("{module}{list}")
}

fn list_of(kind: &Kind, list: &str) -> Value {
    let items = json!({
        "description": format!("items is the list of {} objects.", kind.kind),
        "type": "array", "items": {"allOf": [reference(&kind.schema)], "default": {}},
    });
    json!({
        "description": format!("{list} is a list of {} objects.", kind.kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "items": items,
            "kind": {"description": KIND, "type": "string"},
            "metadata": {
                "description": format!("Standard list metadata. More info: {CONVENTIONS}metadata"),
                "allOf": [reference(&meta("ListMeta"))], "default": {},
            },
        },
        GROUP_VERSION_KIND: [{"group": kind.group, "version": kind.version, "kind": list}],
    })
}

const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#";
/// What is said of these two fields of every kind.
pub const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of \
    an object. Servers should convert recognized schemas to the latest internal value, and may \
    reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/\
    sig-architecture/api-conventions.md#resources";
pub const KIND: &str = "Kind is a string value representing the REST resource this object \
    represents. Servers may infer this from the endpoint the client submits requests to. Cannot \
    be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/\
    sig-architecture/api-conventions.md#types-kinds";

/// Kinds that every group's version has (apimachinery's `AddToGroupVersion`), and the types of
/// what no type of k8s-openapi's stands for.
fn of_meta(all: &mut Map<String, Value>) {
    let event = json!({
        "description": "Event represents a single event to a watched resource.",
        "type": "object", "required": ["type", "object"],
        "properties": {
            "object": {
                "description": "What the event is about: an object as it became, or as it was \
                    before it was deleted; with ERROR, a Status.",
                "allOf": [reference("io.k8s.apimachinery.pkg.runtime.RawExtension")],
            },
            "type": {"type": "string", "default": ""},
        },
    });
    all.insert(meta("WatchEvent"), event);
    let text = json!({"type": "string", "default": ""});
    let names = ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate"];
    let names = names.into_iter().chain(["goVersion", "compiler", "platform"]);
    let required: Vec<&str> = names.clone().collect();
    let properties: Map<String, Value> =
        names.map(|name| (name.to_owned(), text.clone())).collect();
    let info = json!({
        "description": "Info contains versioning information. how we'll want to distribute that \
            information.",
        "type": "object", "required": required, "properties": properties,
    });
    all.insert(super::VERSION_INFO.to_owned(), info);
    let of = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    for kind in ["DeleteOptions", "WatchEvent"] {
        let mut every = vec![of("", "v1", kind)];
        for group in resources::groups(&Definitions::default()) {
            every.extend(group.versions.iter().map(|version| of(group.name, version, kind)));
        }
        all[&meta(kind)][GROUP_VERSION_KIND] = every.into();
    }
    for kind in ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"] {
        all[&meta(kind)][GROUP_VERSION_KIND] = json!([of("", "v1", kind)]);
    }
}

/// A type's schema.
fn shaped(name: &str, schema: Value) -> Value {
    let Value::Object(mut fields) = schema else { return schema };
    if let Some(own) = of_own_encoding(name) {
        fields.retain(|key, _| key == "description");
        fields.extend(own.as_object().cloned().unwrap_or_default());
        return fields.into();
    }
    let required = required(name, &mut fields);
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for (field, property) in properties {
            of_field(name, field, property, required.contains(field));
        }
    }
    if !required.is_empty() {
        fields.insert("required".to_owned(), required.into());
    }
    facts::extend_type(name, &mut fields);
    fields.into()
}

/// The fields that have to be there. k8s-openapi always wants the metadata of a kind, since it has
/// no type for one without.
fn required(name: &str, fields: &mut Map<String, Value>) -> Vec<String> {
    let derived = fields.remove("required").unwrap_or_default();
    let derived = derived.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(Value::Object(properties)) = fields.get("properties") else { return Vec::new() };
    let kind = properties.contains_key("apiVersion");
    let required = |field: &&String| {
        let said = !(kind && *field == "metadata") && derived.contains(&json!(field));
        facts::of(name, field).required.unwrap_or(said)
    };
    properties.keys().filter(required).cloned().collect()
}

/// Types that encode themselves, so that what they are made of says nothing.
fn of_own_encoding(name: &str) -> Option<Value> {
    let kind = name.rsplit('.').next().unwrap_or_default();
    Some(match kind {
        "IntOrString" => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        "Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "JSON" => json!({}),
        kind if kind.starts_with("JSONSchemaPropsOr") => json!({}),
        "Patch" => json!({"type": "object"}),
        _ => return None,
    })
}

fn of_field(name: &str, field: &str, property: &mut Value, required: bool) {
    let facts = facts::of(name, field);
    let default = match &facts.default {
        Some(default) => Some(default.clone()).filter(|default| !default.is_null()),
        None if facts.pointer.unwrap_or(!required && field != "metadata") => None,
        None => zero(property, required),
    };
    let refers = property.get("$ref").is_some();
    let Some(fields) = property.as_object_mut() else { return };
    if refers {
        wrap(fields);
    }
    let plain = ["items", "additionalProperties"].into_iter().find(|key| fields.contains_key(*key));
    match plain {
        Some(key) => of_items(&mut fields[key], facts.values.as_ref()),
        None => facts::extend_values(fields, facts.values.as_ref()),
    }
    if let (Some(_), Some(values)) = (plain, &facts.values) {
        facts::describe_values(fields, values);
    }
    if let Some(default) = default {
        fields.insert("default".to_owned(), default);
    }
    fields.extend(facts.merging);
}

/// What a list or a map has. Each of them is there, so it has a default.
fn of_items(items: &mut Value, values: Option<&Vec<String>>) {
    let default = zero(items, true);
    let Some(fields) = items.as_object_mut() else { return };
    if let Some(inner) = fields.get_mut("items") {
        of_items(inner, None);
    }
    if let Some(default) = default {
        if fields.contains_key("$ref") {
            wrap(fields);
        }
        fields.insert("default".to_owned(), default);
    }
    if let Some(values) = values {
        fields.insert("enum".to_owned(), values.clone().into());
    }
}

/// A reference cannot have anything beside it in OpenAPI 3.0.
fn wrap(fields: &mut Map<String, Value>) {
    if let Some(reference) = fields.remove("$ref") {
        fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

/// Go's zero of what a schema describes, if it is one that JSON shows (kube-openapi's
/// `mustEnforceDefault`).
fn zero(schema: &Value, required: bool) -> Option<Value> {
    if let Some(Value::String(path)) = schema.get("$ref") {
        let name = path.trim_start_matches(REFERENCE);
        let kind = name.rsplit('.').next().unwrap_or_default();
        let encoded = ["Time", "MicroTime", "RawExtension", "FieldsV1"].contains(&kind);
        return (!encoded && of_own_encoding(name).is_none()).then(|| json!({}));
    }
    match (schema["type"].as_str()?, schema["format"].as_str()) {
        _ if !required => None,
        // A slice.
        ("string", Some("byte")) => None,
        ("string", _) => Some(json!("")),
        ("boolean", _) => Some(json!(false)),
        ("integer" | "number", _) => Some(json!(0)),
        _ => None,
    }
}
