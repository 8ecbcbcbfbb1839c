//! Whether a configuration is one of its type (structured-merge-diff's `typed/validate.go`).

use super::fields::Step;
use super::walk::step_of;
use crate::http::types::{Many, Owned, Place, Type};
use kubesim_actors::objects::schema::Schema;
use serde_json::Value;

/// Each error with its path, in upstream's words; a field that the type does not have is one.
pub fn check(place: Place<'_>, value: &Value) -> Result<(), String> {
    let mut check = Check { path: Vec::new(), errors: Vec::new() };
    check.value(place, value);
    match &check.errors[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Check {
    path: Vec<Step>,
    errors: Vec<String>,
}

impl Check {
    fn error(&mut self, why: &str) {
        let path: String = self.path.iter().map(Step::to_string).collect();
        self.errors.push(format!("{path}: {why}"));
    }

    fn value(&mut self, place: Place<'_>, value: &Value) {
        let kind = match place {
            Place::Declared { schema, .. } => return self.declared(place, schema, value),
            Place::Object(message) => Some((Many::One, Type::Message(message.name))),
            Place::Field(field) => Some((field.many, field.kind)),
            Place::Each(field) => Some((Many::One, field.kind)),
            Place::Unknown => None,
        };
        if value.is_null() || matches!(kind, Some((Many::One, Type::Json))) {
            return;
        }
        let list = matches!(kind, Some((Many::List, _)) | Some((Many::One, Type::Strings)));
        let map = matches!(kind, Some((Many::Map, _)) | Some((Many::One, Type::Message(_))));
        match (kind, value) {
            (_, Value::Object(fields)) if map || kind.is_none() => {
                for (name, value) in fields {
                    self.field(place, name, value);
                }
            }
            (_, Value::Array(items)) if list || kind.is_none() => self.items(place, items),
            (Some(_), other) if map => self.error(&format!("expected map, got &{{{}}}", go(other))),
            (Some(_), other) if list => {
                self.error(&format!("expected list, got &{{{}}}", go(other)));
            }
            (Some((_, kind)), scalar) => self.scalar(kind, scalar),
            (None, _) => {}
        }
    }

    /// Of a type that a definition declares.
    fn declared(&mut self, place: Place<'_>, schema: &Schema, value: &Value) {
        let kind = match schema.r#type.as_str() {
            _ if schema.int_or_string => Type::IntOrString,
            "string" => Type::String,
            "boolean" => Type::Bool,
            "integer" | "number" => Type::Int,
            _ => Type::Json,
        };
        match (schema.r#type.as_str(), value) {
            (_, Value::Null) => {}
            ("object" | "", Value::Object(fields)) if !schema.int_or_string => {
                for (name, value) in fields {
                    self.field(place, name, value);
                }
            }
            ("array" | "", Value::Array(items)) if !schema.int_or_string => {
                self.items(place, items);
            }
            ("object", other) => self.error(&format!("expected map, got &{{{}}}", go(other))),
            ("array", other) => self.error(&format!("expected list, got &{{{}}}", go(other))),
            (_, scalar) => self.scalar(kind, scalar),
        }
    }

    fn field(&mut self, place: Place<'_>, name: &str, value: &Value) {
        self.path.push(Step::field(name));
        // An object in a list has these too.
        let of_objects = ["apiVersion", "kind"].contains(&name) && place.declares("metadata");
        if place.forbids(name) {
            if !of_objects {
                self.error("field not declared in schema");
            }
        } else {
            self.value(place.field(name), value);
        }
        self.path.pop();
    }

    fn items(&mut self, place: Place<'_>, items: &[Value]) {
        let owned = place.owned(true);
        let mut seen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mut step = Step::Index(u64::try_from(index).unwrap_or_default());
            if owned != Owned::Atomic {
                match step_of(place.element(), &owned, item) {
                    Err(why) => {
                        self.error(&format!("element {index}: {why}"));
                        continue;
                    }
                    Ok(known) if seen.contains(&known) => {
                        self.error(&format!("duplicate entries for key {known}"));
                        continue;
                    }
                    Ok(known) => {
                        seen.push(known.clone());
                        step = known;
                    }
                }
            }
            self.path.push(step);
            self.value(place.element(), item);
            self.path.pop();
        }
    }

    fn scalar(&mut self, kind: Type, value: &Value) {
        let simple = value.is_number() || value.is_string() || value.is_boolean();
        let go_type = match value {
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Array(_) => "[]interface {}",
            _ => "map[string]interface {}",
        };
        let why = match kind {
            Type::String | Type::Bytes | Type::Time | Type::MicroTime if !value.is_string() => {
                format!("expected string, got &value.valueUnstructured{{Value:{}}}", go(value))
            }
            Type::Bool if !value.is_boolean() => {
                format!("expected boolean, got &{{{}}}", go(value))
            }
            Type::Int if !value.is_number() => {
                format!("expected numeric (int or float), got {go_type}")
            }
            Type::Quantity | Type::IntOrString if !simple => {
                format!("expected any scalar, got &{{{}}}", go(value))
            }
            _ => return,
        };
        self.error(&why);
    }
}

/// Much as Go prints it.
fn go(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
