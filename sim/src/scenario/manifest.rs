//! Ordinary Kubernetes YAML: documents apart by `---`, each an object or a `List`.

use super::diagnostic::{Diagnostic, suggest};
use super::places;
use kubesim_actors::objects::{Kind, Object, Path, Step};
use serde_json::Value;
use std::sync::Arc;

/// What is wrong with an object, and with which of its fields.
pub struct Mistake {
    pub path: Path,
    pub message: String,
    pub help: String,
}

impl Mistake {
    fn whole(message: impl Into<String>) -> Self {
        Mistake { path: Path::default(), message: message.into(), help: String::new() }
    }
}

/// The objects of a file, in order, each with the line on which its document begins. `name` is
/// shown in messages.
pub fn parse(name: &str, text: &str) -> Result<Vec<(usize, Arc<Object>)>, Vec<Diagnostic>> {
    let mut objects = Vec::new();
    let mut wrong = Vec::new();
    for (start, document) in documents(text) {
        let first = first_line(document);
        match serde_saphyr::from_str::<Value>(document) {
            Ok(Value::Null) => {}
            Ok(value) => {
                let line = text[..start + first.start].matches('\n').count() + 1;
                let report = |mistake: Mistake| {
                    let found = places::find(document, &mistake.path.0);
                    let at = found.unwrap_or_else(|| first.clone());
                    let (from, to) = (start + at.start, start + at.end);
                    let shown = Diagnostic::at(name, text, from, to, mistake.message);
                    wrong.push(shown.help(mistake.help));
                };
                collect(value, |object| objects.push((line, Arc::new(object))), report);
            }
            Err(error) => wrong.push(syntax(name, text, start, document, &error)),
        }
    }
    if wrong.is_empty() { Ok(objects) } else { Err(wrong) }
}

/// A document's objects, or why not.
fn collect(value: Value, mut take: impl FnMut(Object), mut report: impl FnMut(Mistake)) {
    let (items, listed) = match value {
        Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
            match list.remove("items") {
                Some(Value::Array(items)) => (items, true),
                _ => (Vec::new(), true),
            }
        }
        value => (vec![value], false),
    };
    for (number, value) in items.iter().enumerate() {
        match object(value) {
            Ok(object) => take(object),
            Err(mistakes) => {
                for mut mistake in mistakes {
                    if listed {
                        let list = [Step::Field("items".to_owned()), Step::Item(number)];
                        mistake.path.0.splice(0..0, list);
                    }
                    report(mistake);
                }
            }
        }
    }
}

/// One object of a kind that a scenario may give to the API; every mistake otherwise.
pub fn object(value: &Value) -> Result<Object, Vec<Mistake>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, name) = (text("apiVersion"), text("kind"));
    let Some(kind) = Kind::of(version, name) else {
        if !version.is_empty() && !name.is_empty() {
            return Err(vec![no_such_kind(version, name)]);
        }
        let why = Object::from_json(value.clone()).err();
        let why = why.map_or_else(|| "not an object".to_owned(), |error| error.to_string());
        return Err(vec![Mistake::whole(why)]);
    };
    let (object, mut mistakes) = strictly(kind, value);
    match object {
        Ok(object) if object.key.name.is_empty() && object.meta.generate_name.is_none() => {
            mistakes.push(Mistake::whole(format!("this {name} ({version}) has no metadata.name")));
        }
        Ok(object) if mistakes.is_empty() => return Ok(object),
        Ok(_) => {}
        Err(mistake) => mistakes.push(mistake),
    }
    Err(mistakes)
}

/// At the name, or at the version where only that is another.
fn no_such_kind(version: &str, name: &str) -> Mistake {
    let at = |field: &str| Path(vec![Step::Field(field.to_owned())]);
    let message = format!("no kind \"{name}\" in version \"{version}\"");
    if let Some(known) = kind(name) {
        let help = format!("{name} is in version {}", known.api_version());
        return Mistake { path: at("apiVersion"), message, help };
    }
    let help = suggest(name, Kind::ALL.iter().map(|kind| kind.name()));
    Mistake { path: at("kind"), message, help }
}

/// Fields of a patch that its kind does not have. What a null takes away need not be complete.
pub fn patch(kind: Kind, value: &Value) -> Vec<Mistake> {
    strictly(kind, value).1
}

/// As `kubectl`'s strict field validation reads (KEP-2885), in its words.
fn strictly(kind: Kind, value: &Value) -> (Result<Object, Mistake>, Vec<Mistake>) {
    let (object, unknown) = Object::from_json_strict(kind, value);
    let object = object.map_err(|(path, why)| {
        let place = if path.0.is_empty() { String::new() } else { format!("{path}: ") };
        Mistake { message: format!("{place}{why}"), path, help: String::new() }
    });
    let unknown = unknown.into_iter().map(|field| {
        let name = match field.path.0.last() {
            Some(Step::Field(name)) => name.as_str(),
            _ => "",
        };
        let help = suggest(name, field.known.iter().copied());
        Mistake { message: format!("unknown field \"{}\"", field.path), path: field.path, help }
    });
    (object, unknown.collect())
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
    let (line, column) =
        error.location().map_or((1, 1), |at| (at.line() as usize, at.column() as usize));
    let at = start + places::byte(document, line, column);
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
