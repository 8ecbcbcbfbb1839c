//! Versions that a CustomResourceDefinition declares. All of a kind say the same (its conversion is
//! none), each by a schema of its own: what comes in and what goes out is completed and cut by it,
//! and what comes in is checked by it (apiextensions-apiserver
//! `pkg/apiserver/customresource_handler.go`).

use crate::http::types::Place;
use kubesim_actors::objects::definition::{Definition, Version};
use kubesim_actors::objects::validation::Causes;
use kubesim_actors::objects::{Body, Kind, Object, ParseError, Path};
use serde_json::Value;
use std::sync::Arc;

/// One version of those that are served.
#[derive(Clone)]
pub struct Declared {
    definition: Arc<Definition>,
    index: usize,
}

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// While it is being deleted.
const LAST_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

impl Declared {
    pub fn all(definition: &Arc<Definition>) -> impl Iterator<Item = Declared> {
        let definition = Arc::clone(definition);
        let indices = 0..definition.versions.len();
        indices.map(move |index| Declared { definition: Arc::clone(&definition), index })
    }

    /// Those of the same kind, itself among them.
    pub fn others(&self) -> impl Iterator<Item = Declared> {
        Declared::all(&self.definition)
    }

    pub fn kind(&self) -> Kind {
        self.definition.kind
    }
    pub fn version(&self) -> &Version {
        &self.definition.versions[self.index]
    }
    pub fn short(&self) -> Vec<&str> {
        self.definition.short.iter().map(String::as_str).collect()
    }
    pub fn categories(&self) -> Vec<&str> {
        self.definition.categories.iter().map(String::as_str).collect()
    }
    pub fn singular(&self) -> String {
        self.definition.singular.clone()
    }
    pub fn list_kind(&self) -> String {
        self.definition.list_kind.clone()
    }
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.definition.terminating { LAST_VERBS } else { VERBS }
    }
    pub fn place(&self) -> Place<'_> {
        Place::Declared { schema: &self.version().schema, object: true }
    }

    /// A value of another version, or one that is stored, in this one.
    pub fn converted(&self, mut value: Value) -> Value {
        value["apiVersion"] = self.version().api_version.into();
        self.completed(&mut value);
        value
    }

    /// With its defaults, and without what the version does not know: that is told.
    fn completed(&self, value: &mut Value) -> Vec<String> {
        let schema = &self.version().schema;
        schema.drop_nulls(value);
        schema.fill(value);
        schema.prune(value)
    }

    pub fn read(&self, value: &Value) -> (Result<Object, (Path, ParseError)>, Vec<String>) {
        let mut value = value.clone();
        let mut unknown = self.completed(&mut value);
        let (object, of_metadata) = Object::from_json_strict(self.kind(), &value);
        unknown.extend(super::places(&of_metadata));
        (object, unknown)
    }

    /// What is wrong with the object that there will be, and was not with the one that is there:
    /// who changes one thing need not mend another that was allowed once (KEP-4008, which looks at
    /// values where this looks at what is said of them).
    pub fn check(&self, object: &Object, live: Option<&Object>, status: bool, causes: &mut Causes) {
        let mut whole = object.clone();
        let old = live.and_then(Object::plain);
        if let Body::Plain(new) = &mut whole.body {
            match old {
                Some(old) if status => new.fields = Arc::clone(&old.fields),
                _ if !self.definition.has_status => {}
                Some(old) => new.status = Arc::clone(&old.status),
                None => new.status = Arc::default(),
            }
        }
        let known = live.map(|live| self.wrong(live)).unwrap_or_default();
        causes.add_new(self.wrong(&whole), &known);
    }

    fn wrong(&self, object: &Object) -> Causes {
        let mut causes = Causes::default();
        self.version().schema.check(&self.converted(object.to_json()), &mut causes);
        causes
    }
}
