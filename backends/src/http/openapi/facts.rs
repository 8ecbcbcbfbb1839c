//! What upstream's types say of their fields beyond k8s-openapi's schemas: defaults and the values
//! of enumerations from `facts.txt`, and how lists are merged from the messages' table.

use crate::http::types::{self, Field, Many, Type};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub struct Facts {
    /// `+default`; null if it has none where others like it have.
    pub default: Option<Value>,
    /// Whether it has to be there, where k8s-openapi says another thing.
    pub required: Option<bool>,
    /// The values of an enumeration (`+enum`), or of a list of them.
    pub values: Option<Vec<String>>,
    /// Whether the field is a pointer in Go, if that is known.
    pub pointer: Option<bool>,
    /// `x-kubernetes-list-type` and its like.
    pub merging: Map<String, Value>,
}

/// Of a field of a type, `io.k8s.api.core.v1.Pod`.
pub fn of(name: &str, field: &str) -> Facts {
    let message = types::named(&short(name));
    let known = message.and_then(|message| message.field(field));
    let markers = message.map(|message| types::markers(message, field)).unwrap_or_default();
    let said = said(name, field);
    let values = said.get("enum").and_then(Value::as_array);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut merging = known.map(|field| merging(field, markers)).unwrap_or_default();
    let extensions = said.iter().filter(|(key, _)| key.starts_with("x-"));
    merging.extend(extensions.map(|(key, value)| (key.clone(), value.clone())));
    Facts {
        default: said.get("default").cloned(),
        required: said.get("required").and_then(Value::as_bool),
        values: values.map(|values| values.iter().filter_map(text).collect()),
        pointer: known.map(|field| field.pointer),
        merging,
    }
}

/// What `facts.txt` says of a field, or with "*" of a type.
fn said(name: &str, field: &str) -> Map<String, Value> {
    static FACTS: LazyLock<BTreeMap<&str, Map<String, Value>>> =
        LazyLock::new(|| include_str!("facts.txt").lines().filter_map(line).collect());
    FACTS.get(format!("{} {field}", short(name)).as_str()).cloned().unwrap_or_default()
}

/// A type and its field, and the facts behind them.
fn line(line: &str) -> Option<(&str, Map<String, Value>)> {
    let (of, facts) = line.split_once(" {")?;
    let facts = serde_json::from_str(&format!("{{{facts}"));
    facts.ok().map(|facts| (of, facts))
}

/// `core/v1.Pod`, as the messages are named.
fn short(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let kind = parts.next().unwrap_or_default();
    let (version, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{group}/{version}.{kind}")
}

/// What a type says of itself as a whole.
pub fn extend_type(name: &str, fields: &mut Map<String, Value>) {
    if types::named(&short(name)).is_some_and(|message| message.atomic) {
        fields.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    fields.extend(said(name, "*"));
}

/// The extensions that a field's markers stand for (kube-openapi `pkg/generators/extension.go`).
fn merging(field: &Field, markers: &str) -> Map<String, Value> {
    let mut merging = Map::new();
    // Bytes are a slice.
    let list = field.many == Many::List || field.kind == Type::Bytes;
    let kind = if list { "list-type" } else { "map-type" };
    let mut add = |name: &str, value: Value| merging.insert(format!("x-kubernetes-{name}"), value);
    for word in markers.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("merge", key) => {
                let (key, retain) = match key.strip_suffix(",retainKeys") {
                    Some(key) => (key, true),
                    None => (key, false),
                };
                add("patch-strategy", if retain { "merge,retainKeys" } else { "merge" }.into());
                if !key.is_empty() {
                    add("patch-merge-key", key.into());
                }
            }
            (strategy @ ("retainKeys" | "replace"), _) => {
                drop(add("patch-strategy", strategy.into()))
            }
            ("map", keys) => {
                add(kind, "map".into());
                add("list-map-keys", keys.split(',').collect::<Vec<_>>().into());
            }
            (of @ ("atomic" | "granular" | "set"), _) => drop(add(kind, of.into())),
            // Of a key, which is in `facts.txt` as well.
            _ => {}
        }
    }
    merging
}

/// Adds the values of an enumeration.
pub fn extend_values(fields: &mut Map<String, Value>, values: Option<&Vec<String>>) {
    if let Some(values) = values {
        fields.insert("enum".to_owned(), values.clone().into());
        describe_values(fields, values);
    }
}

/// kube-openapi's `DescriptionLines`, without what is said of each.
pub fn describe_values(fields: &mut Map<String, Value>, values: &[String]) {
    let said = fields.get("description").and_then(Value::as_str).unwrap_or_default();
    let lines: Vec<String> = values.iter().map(|value| format!(" - `{value:?}`")).collect();
    let text = format!("{said}\n\nPossible enum values:\n{}", lines.join("\n"));
    fields.insert("description".to_owned(), json!(text));
}
