//! What definitions declare, in OpenAPI (apiextensions-apiserver
//! `pkg/controller/openapi/builder/builder.go`): made when it is asked for, and kept until the
//! definitions change.

use super::schemas::{API_VERSION, GROUP_VERSION_KIND, KIND, REFERENCE, meta};
use super::{Document, Documents, document_with, documents, list, of_group, older_with, paths};
use crate::http::resources;
use crate::http::versions::Served;
use bytes::Bytes;
use kubesim_actors::objects::Definitions;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// The documents of the definitions that were there last.
#[derive(Default)]
pub struct Declared(RefCell<Option<Known>>);

struct Known {
    of: Arc<Definitions>,
    documents: Rc<Documents>,
    /// Of version 2, once somebody asked for it.
    older: Option<Rc<(Document, Bytes)>>,
}

impl Declared {
    /// Those that say more or another thing than without definitions, if there are any; their list
    /// is that of all.
    pub(super) fn documents(&self, definitions: &Arc<Definitions>) -> Option<Rc<Documents>> {
        definitions.iter().next()?;
        self.know(definitions);
        self.0.borrow().as_ref().map(|known| Rc::clone(&known.documents))
    }

    pub(super) fn older(&self, definitions: &Arc<Definitions>) -> Option<Rc<(Document, Bytes)>> {
        definitions.iter().next()?;
        self.know(definitions);
        let mut known = self.0.borrow_mut();
        let known = known.as_mut()?;
        let made = || {
            let documents = all(definitions).into_iter();
            let more: Vec<Value> = documents.map(|(_, document)| for_v2(document)).collect();
            Rc::new(older_with(&more))
        };
        Some(Rc::clone(known.older.get_or_insert_with(made)))
    }

    fn know(&self, definitions: &Arc<Definitions>) {
        let mut known = self.0.borrow_mut();
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.of, definitions)) {
            return;
        }
        let versions = all(definitions).into_iter();
        let versions: BTreeMap<String, Document> =
            versions.map(|(path, value)| (path, Document::new(&value))).collect();
        let built_in = documents().versions.iter();
        let others = built_in.filter(|(path, _)| !versions.contains_key(*path));
        let root = list(others.chain(&versions));
        let documents = Rc::new(Documents { versions, root });
        *known = Some(Known { of: Arc::clone(definitions), documents, older: None });
    }
}

/// By their paths.
fn all(definitions: &Definitions) -> Vec<(String, Value)> {
    let kinds = definitions.iter().map(|definition| definition.kind.group());
    let groups: BTreeSet<&str> = kinds.collect();
    let mut all = Vec::new();
    let known = resources::groups(definitions);
    for group in known.into_iter().filter(|group| groups.contains(group.name)) {
        all.push(of_group(group.name));
        for version in group.versions {
            let mut own = Map::new();
            for served in resources::in_version(group.name, version, definitions) {
                if let Some(schema) = served.schema() {
                    own.insert(name(&served, served.kind.name()), of_kind(&served, schema));
                    own.insert(name(&served, &served.list_kind()), of_list(&served));
                }
            }
            let paths = paths::of_version(group.name, version, definitions);
            all.push((resources::prefix(group.name, version), document_with(paths, own)));
        }
    }
    let path = |path: String| path.trim_start_matches('/').to_owned();
    all.into_iter().map(|(at, document)| (path(at), document)).collect()
}

/// `com.example.v1.Widget`.
pub(super) fn name(served: &Served, kind: &str) -> String {
    let group: Vec<&str> = served.group().rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), served.version())
}

const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/\
    contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/\
    contributors/devel/sig-architecture/api-conventions.md#types-kinds";

fn described(name: &str, said: &str) -> Value {
    json!({"description": said, "$ref": format!("{REFERENCE}{name}")})
}

fn text(said: &str) -> Value {
    json!({"description": said, "type": "string"})
}

fn of_kind(served: &Served, schema: &Value) -> Value {
    let mut whole = schema.clone();
    objects(&mut whole);
    if !whole["properties"].is_object() {
        whole["properties"] = json!({});
    }
    whole["properties"]["apiVersion"] = text(API_VERSION);
    whole["properties"]["kind"] = text(KIND);
    whole["properties"]["metadata"] = described(&meta("ObjectMeta"), METADATA);
    let (group, version, kind) = served.type_of(None);
    whole[GROUP_VERSION_KIND] = json!([{"group": group, "version": version, "kind": kind}]);
    whole
}

/// Objects inside say which they are.
fn objects(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(objects);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            objects(inner);
        }
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        schema["properties"]["apiVersion"] = text(API_VERSION);
        schema["properties"]["kind"] = text(KIND);
        schema["properties"]["metadata"] = described(&meta("ObjectMeta"), METADATA);
    }
}

fn of_list(served: &Served) -> Value {
    let (group, version, kind) = served.type_of(None);
    let (list, plural) = (served.list_kind(), served.kind.plural());
    let said = format!(
        "List of {plural}. More info: https://git.k8s.io/community/contributors/devel/\
         sig-architecture/api-conventions.md"
    );
    let item = format!("{REFERENCE}{}", name(served, kind));
    json!({
        "description": format!("{list} is a list of {kind}"),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": text(API_VERSION),
            "items": {"description": said, "type": "array", "items": {"$ref": item}},
            "kind": text(KIND),
            "metadata": described(&meta("ListMeta"), LIST_METADATA),
        },
        GROUP_VERSION_KIND: [{"group": group, "version": version, "kind": list}],
    })
}

/// Less of what version 2 has no words for (upstream's `ToStructuralOpenAPIV2`).
fn for_v2(mut document: Value) -> Value {
    if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") {
        let kubernetes = |name: &str| name.starts_with("io.k8s.");
        schemas.iter_mut().filter(|(name, _)| !kubernetes(name)).for_each(|(_, one)| plain(one));
    }
    document
}

fn plain(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let either = fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    for name in ["anyOf", "allOf", "oneOf", "not", "nullable", "default"] {
        fields.remove(name);
    }
    if open {
        // Who checks by it would refuse what is not said.
        fields.retain(|name, _| name.starts_with("x-") || name == "description");
    }
    if either {
        fields.remove("type");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(plain);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(inner) {
            plain(inner);
        }
    }
}
