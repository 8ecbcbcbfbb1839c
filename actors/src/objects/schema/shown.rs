//! Values as upstream prints them in what it refuses (`pkg/util/validation/field`): texts in
//! quotes, numbers plain, and all else in Go's syntax.

use serde_json::Value;
use std::fmt::Write;

pub fn shown(value: &Value) -> String {
    match value {
        // It prints the word as a text.
        Value::Null => "\"null\"".to_owned(),
        other => go(other),
    }
}

/// `%#v` of what Go reads JSON into.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(fields) => {
            let mut text = "map[string]interface {}{".to_owned();
            for (index, (name, value)) in fields.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _ = write!(text, "{comma}{name:?}:{}", go(value));
            }
            text.push('}');
            text
        }
    }
}
