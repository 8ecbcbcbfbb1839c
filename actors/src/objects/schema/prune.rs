//! Pruning: what a schema does not know is taken out (`pkg/apiserver/schema/pruning`).

use super::{Additional, Schema};
use serde_json::Value;

/// What says of an object what it is.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Takes out of a whole object the fields that it cannot have, and says which, as upstream
    /// names them: `spec.a[0].b`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let (mut path, mut pruned) = (String::new(), Vec::new());
        let keeps = self.preserve_unknown_fields;
        fields(Some(self), Known { meta: true, keeps }, object, &mut path, &mut pruned);
        pruned
    }
}

/// What there may be besides what the schema says.
#[derive(Clone, Copy)]
struct Known {
    meta: bool,
    /// Any field.
    keeps: bool,
}

impl Known {
    fn of(schema: Option<&Schema>) -> Known {
        Known {
            meta: schema.is_some_and(|schema| schema.embedded_resource),
            keeps: schema.is_some_and(|schema| schema.preserve_unknown_fields),
        }
    }
}

fn fields(
    schema: Option<&Schema>,
    known: Known,
    value: &mut Value,
    path: &mut String,
    pruned: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            if known.meta && META.contains(&name.as_str()) {
                return true;
            }
            let length = path.len();
            path.push_str(if length == 0 { "" } else { "." });
            path.push_str(name);
            let below = schema.and_then(|schema| below(schema, name));
            if let Some(below) = below {
                fields(below, Known::of(below), value, path, pruned);
            } else if !known.keeps {
                pruned.push(path.clone());
            }
            path.truncate(length);
            below.is_some() || known.keeps
        }),
        Value::Array(items) => {
            let each = schema.and_then(|schema| schema.items.as_deref());
            if known.keeps && each.is_none() {
                return;
            }
            // What keeps any field does so in each of its items.
            let own = Known::of(each);
            let known = Known { keeps: own.keeps || known.keeps, ..own };
            for (index, item) in items.iter_mut().enumerate() {
                let length = path.len();
                *path += &format!("[{index}]");
                fields(each, known, item, path, pruned);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// The schema of a field that there may be, if it has one.
fn below<'a>(schema: &'a Schema, name: &str) -> Option<Option<&'a Schema>> {
    match (schema.properties.get(name), &schema.additional_properties) {
        (Some(property), _) => Some(Some(property)),
        (None, Some(Additional::Each(each))) => Some(Some(each)),
        (None, Some(Additional::Allowed(true))) => Some(None),
        (None, _) => None,
    }
}
