//! The parameters of operations, as apiserver `pkg/endpoints/installer.go` adds them: the fields of
//! `meta/v1`'s options.

use super::schemas;
use serde_json::{Value, json};

/// Of `ListOptions`, in the order of their names, as all below.
pub const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
/// Of `DeleteOptions`.
pub const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
/// Of both.
pub const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
/// Of `CreateOptions` and `UpdateOptions`.
pub const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
/// Of `PatchOptions`.
pub const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];

pub fn query(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| one(name)).collect()
}

/// A part of the path.
pub fn path(name: &str, said: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": said,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

pub fn namespace() -> Value {
    path("namespace", "object name and auth scope, such as for teams and projects")
}

pub fn one(name: &str) -> Value {
    let (kind, said) = match name {
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => ("integer", said(name)),
        "allowWatchBookmarks"
        | "force"
        | "orphanDependents"
        | "sendInitialEvents"
        | "watch"
        | "ignoreStoreReadErrorWithClusterBreakingPotential" => ("boolean", said(name)),
        name => ("string", said(name)),
    };
    json!({
        "name": name, "in": "query", "description": said,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

fn said(name: &str) -> String {
    let said = match name {
        "allowWatchBookmarks" => "With watch: whether events of type \"BOOKMARK\" are wanted.",
        "continue" => {
            "Where a list goes on: what the list before said in its metadata, with the same other \
             parameters. A value that is too old gets 410."
        }
        "fieldManager" => {
            "fieldManager is a name associated with the actor or entity that is making these \
             changes. At most 128 printable characters; needed by an apply patch."
        }
        "fieldSelector" => {
            "A selector to restrict the list of returned objects by their fields. Defaults to \
             everything."
        }
        "fieldValidation" => {
            "What is done about fields that are unknown or there twice: Ignore drops them, Warn \
             drops them and warns, Strict refuses the request."
        }
        "force" => {
            "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting \
             fields owned by other people."
        }
        "labelSelector" => {
            "A selector to restrict the list of returned objects by their labels. Defaults to \
             everything."
        }
        "limit" => "How many objects a list has at most; the rest is had by its continue value.",
        "pretty" => "If 'true', then the output is pretty printed.",
        "resourceVersion" => {
            "Which versions a request may be served from. See https://kubernetes.io/docs/reference\
             /using-api/api-concepts/#resource-versions for details."
        }
        "resourceVersionMatch" => {
            "How resourceVersion is applied to a list. See https://kubernetes.io/docs/reference\
             /using-api/api-concepts/#resource-versions for details."
        }
        "sendInitialEvents" => {
            "With watch and resourceVersionMatch: whether the watch begins with what there is."
        }
        "timeoutSeconds" => "How long a list or a watch may take.",
        "watch" => {
            "Watch for changes to the described resources and return them as a stream of add, \
             update, and remove notifications. Specify resourceVersion."
        }
        // The others are those of the body of a DELETE.
        name => return of_delete_options(name),
    };
    said.to_owned()
}

fn of_delete_options(name: &str) -> String {
    let options = schemas::all().get(&schemas::meta("DeleteOptions"));
    let said = options.map(|options| &options["properties"][name]["description"]);
    said.and_then(Value::as_str).unwrap_or_default().to_owned()
}
