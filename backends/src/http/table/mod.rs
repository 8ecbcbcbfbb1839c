//! Tables: what `kubectl get` prints, with upstream's columns
//! (kubernetes `pkg/printers/internalversion/printers.go`).

mod declared;
mod path;
mod pod;
mod rows;

use super::read::Show;
use super::writing::Writing;
use kubesim_actors::objects::kinds::{Column, row};
use kubesim_actors::objects::{Kind, Object};
use serde_json::{Value, json};
use std::sync::Arc;

/// What of an object stands beside its row (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// A `meta.k8s.io/v1` Table of these objects; the columns are told once in a watch.
pub fn table(
    kind: Kind,
    objects: &[Arc<Object>],
    meta: Value,
    show: &Show,
    columns_told: bool,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells = match show.served.printed() {
                Some(columns) => declared::cells(object, columns, show),
                None => row(object, show.now).unwrap_or_else(|| rows::cells(object, show.now)),
            };
            let mut row = json!({"cells": cells});
            match show.include {
                Include::None => {}
                Include::Metadata => row["object"] = metadata(object),
                Include::Object => {
                    let text = show.served.text(object, Writing::Go);
                    row["object"] = serde_json::from_slice(&text).unwrap_or_default();
                }
            }
            row
        })
        .collect();
    let definition = |column: &Column| {
        let format = if column.name == "Name" { "name" } else { "" };
        json!({"name": column.name, "type": column.kind, "format": format, "description": "",
               "priority": u8::from(column.wide)})
    };
    let definitions = match (columns_told, show.served.printed()) {
        (false, _) => Value::Null,
        (true, Some(columns)) => declared::definitions(columns),
        (true, None) => kind.declaration().columns.iter().map(definition).collect(),
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The object's metadata, alone.
pub fn metadata(object: &Object) -> Value {
    let meta = serde_json::to_value(object.full_meta()).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
}

#[cfg(test)]
mod tests;
