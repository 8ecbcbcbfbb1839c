//! Lists whose elements are known by keys, or by themselves: each is there once
//! (`pkg/apiserver/schema/listtype`).

use super::Schema;
use super::shown::shown;
use crate::objects::validation::Causes;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub fn check(schema: &Schema, value: &Value, path: &str, causes: &mut Causes) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(property) = schema.properties.get(name) {
                    let dot = if path.is_empty() { "" } else { "." };
                    check(property, value, &format!("{path}{dot}{name}"), causes);
                } else if let Some(each) = schema.additional() {
                    check(each, value, &format!("{path}[{name}]"), causes);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type.as_deref() {
                Some("set") => twice(items.iter().cloned(), path, causes),
                Some("map") => keyed(&schema.list_map_keys, items, path, causes),
                _ => {}
            }
            let Some(each) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                check(each, item, &format!("{path}[{index}]"), causes);
            }
        }
        _ => {}
    }
}

fn keyed(keys: &[String], items: &[Value], path: &str, causes: &mut Causes) {
    let odd = items.iter().position(|item| !item.is_object() && !item.is_null());
    if let Some(index) = odd {
        let why = "must be an object for an array of list-type map";
        return causes.invalid(format_args!("{path}[{index}]"), shown(&items[index]), why);
    }
    let keys = items.iter().map(|item| {
        let said = |key: &String| Some((key.clone(), item.get(key)?.clone()));
        Value::Object(keys.iter().filter_map(said).collect::<Map<_, _>>())
    });
    twice(keys, path, causes);
}

/// Each that is there more than once is told once, where it is for the second time.
fn twice(items: impl Iterator<Item = Value>, path: &str, causes: &mut Causes) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for (index, item) in items.enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            causes.duplicate(format_args!("{path}[{index}]"), shown(&item));
        }
    }
}
