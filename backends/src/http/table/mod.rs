//! Tables: what `kubectl get` prints, with upstream's columns
//! (kubernetes `pkg/printers/internalversion/printers.go`).

pub mod cells;
mod pod;
mod rows;

use super::read::Show;
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

/// A column's name, its type, and 1 if it is shown in wide output only.
type Column = (&'static str, &'static str, u8);

const S: &str = "string";
const I: &str = "integer";
const NAME: Column = ("Name", S, 0);
const AGE: Column = ("Age", S, 0);

const NODE: &[Column] = &[
    NAME,
    ("Status", S, 0),
    ("Roles", S, 0),
    AGE,
    ("Version", S, 0),
    ("Internal-IP", S, 1),
    ("External-IP", S, 1),
    ("OS-Image", S, 1),
    ("Kernel-Version", S, 1),
    ("Container-Runtime", S, 1),
];
const POD: &[Column] = &[
    NAME,
    ("Ready", S, 0),
    ("Status", S, 0),
    ("Restarts", S, 0),
    AGE,
    ("IP", S, 1),
    ("Node", S, 1),
    ("Nominated Node", S, 1),
    ("Readiness Gates", S, 1),
];
const EVENT: &[Column] = &[
    ("Last Seen", S, 0),
    ("Type", S, 0),
    ("Reason", S, 0),
    ("Object", S, 0),
    ("Subobject", S, 1),
    ("Source", S, 1),
    ("Message", S, 0),
    ("First Seen", S, 1),
    ("Count", S, 1),
    ("Name", S, 1),
];

pub(super) fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Namespace => &[NAME, ("Status", S, 0), AGE],
        Kind::Node => NODE,
        Kind::Pod => POD,
        Kind::Service => &[
            NAME,
            ("Type", S, 0),
            ("Cluster-IP", S, 0),
            ("External-IP", S, 0),
            ("Port(s)", S, 0),
            AGE,
            ("Selector", S, 1),
        ],
        Kind::ConfigMap => &[NAME, ("Data", S, 0), AGE],
        Kind::Event => EVENT,
        Kind::Deployment => &[
            NAME,
            ("Ready", S, 0),
            ("Up-to-date", I, 0),
            ("Available", I, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        Kind::ReplicaSet => &[
            NAME,
            ("Desired", I, 0),
            ("Current", I, 0),
            ("Ready", I, 0),
            AGE,
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        Kind::EndpointSlice => {
            &[NAME, ("AddressType", S, 0), ("Ports", S, 0), ("Endpoints", S, 0), AGE]
        }
        Kind::Lease => &[NAME, ("Holder", S, 0), AGE],
        Kind::Subnet => &[NAME, ("CIDR", S, 0), ("Locator", S, 0), AGE],
    }
}

/// A `meta.k8s.io/v1` Table of these objects; the columns are told once in a watch.
pub fn table(
    kind: Kind,
    objects: &[Arc<Object>],
    meta: Value,
    show: Show,
    columns_told: bool,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": rows::cells(object, show.now)});
            match show.include {
                Include::None => {}
                Include::Metadata => row["object"] = metadata(object),
                Include::Object => row["object"] = object.to_json(),
            }
            row
        })
        .collect();
    let definition = |column: &Column| {
        let (name, kind, priority) = *column;
        let format = if *column == NAME { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": "",
               "priority": priority})
    };
    let definitions = match columns_told {
        true => columns(kind).iter().map(definition).collect(),
        false => Value::Null,
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
