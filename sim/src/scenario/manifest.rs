//! Ordinary Kubernetes YAML: documents apart by `---`, each an object or a `List`.

use super::diagnostic::Diagnostic;
use kubesim_actors::objects::{Kind, Object};
use serde_json::Value;
use std::sync::Arc;

/// The objects of a file, in order. `name` is shown in messages.
pub fn parse(name: &str, text: &str) -> Result<Vec<Arc<Object>>, Vec<Diagnostic>> {
    let mut objects = Vec::new();
    let mut wrong = Vec::new();
    for (start, document) in documents(text) {
        match serde_saphyr::from_str::<Value>(document) {
            Ok(Value::Null) => {}
            Ok(value) => {
                let first = first_line(document);
                let report = |why: String| {
                    let end = start + first.end;
                    wrong.push(Diagnostic::at(name, text, start + first.start, end, why));
                };
                collect(value, &mut objects, report);
            }
            Err(error) => wrong.push(syntax(name, text, start, document, &error)),
        }
    }
    if wrong.is_empty() { Ok(objects) } else { Err(wrong) }
}

/// A document's objects, or why not.
fn collect(value: Value, objects: &mut Vec<Arc<Object>>, mut report: impl FnMut(String)) {
    let items = match value {
        Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
            match list.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        value => vec![value],
    };
    for value in items {
        match object(value) {
            Ok(object) => objects.push(Arc::new(object)),
            Err(why) => report(why),
        }
    }
}

/// One object of a kind that a scenario may give to the API.
pub fn object(value: Value) -> Result<Object, String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let object = Object::from_json(value).map_err(|error| error.to_string())?;
    if object.key.name.is_empty() && object.meta.generate_name.is_none() {
        return Err(format!("this {kind} ({version}) has no metadata.name"));
    }
    Ok(object)
}

/// The kind by its name alone: no two kinds share one.
pub fn kind(name: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.name() == name)
}

fn syntax(
    name: &str,
    text: &str,
    start: usize,
    document: &str,
    error: &serde_saphyr::Error,
) -> Diagnostic {
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line().max(1) as usize, at.column().max(1) as usize));
    let line_start: usize =
        document.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let rest = &document[line_start..];
    let inside = rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
    let at = start + line_start + inside;
    let message = error.to_string();
    let first = message.lines().next().unwrap_or("not YAML").trim();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // The place is shown as ours, in the whole file.
    let first = match first.split_once(": ") {
        Some((place, why)) if place.starts_with("line ") => why,
        _ => first,
    };
    Diagnostic::at(name, text, at, at + 1, format!("not YAML: {first}"))
}

/// The documents with the byte at which each begins. A line that begins with `---` parts them,
/// which is nothing else in YAML.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            documents.push((start, &text[start..at]));
            start = at + line.len();
        }
        at += line.len();
    }
    documents.push((start, &text[start..]));
    documents.retain(|(_, document)| {
        document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    documents
}

/// Bytes of the first line that says something.
fn first_line(document: &str) -> std::ops::Range<usize> {
    let mut at = 0;
    for line in document.split_inclusive('\n') {
        if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            return at..at + line.trim_end().len();
        }
        at += line.len();
    }
    0..0
}
