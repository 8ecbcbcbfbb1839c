//! An informer's view, from lists and events. An object that did not change stays the one that is
//! held, whoever tells of it again.

use super::answer::version;
use kubesim_actors::objects::{Key, Kind, Name, Object, Uid, View};
use kubesim_actors::ports::api::Scope;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which object a text is about: its key, uid and version.
fn identity(kind: Kind, object: &Value) -> Option<(Key, Uid, u64)> {
    let meta = &object["metadata"];
    let namespace = match kind.namespaced() {
        true => meta["namespace"].as_str()?,
        false => "",
    };
    let key = Key { namespace: Name::from(namespace), name: Name::from(meta["name"].as_str()?) };
    Some((key, Uid::parse(meta["uid"].as_str()?)?, version(meta)?))
}

fn is_held(view: &View, kind: Kind, object: &Value) -> Option<Key> {
    let (key, uid, version) = identity(kind, object)?;
    let held = view.get(&key)?;
    (held.uid == uid && held.version == version).then_some(key)
}

fn read(kind: Kind, scope: &Scope, value: Value) -> Result<Object, String> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let object = match scope {
        Scope::Metadata => Object::bare(kind, value),
        Scope::All | Scope::Node(_) => Object::from_json_of(kind, value),
    };
    object.map_err(|error| format!("{kind} {name:?}: {}", error.0))
}

/// A list's view: the one before with what differs, or (of none) a new history's first.
pub fn listed(
    kind: Kind,
    scope: &Scope,
    mut list: Value,
    before: Option<&View>,
    history: u64,
) -> Result<View, String> {
    let Some(version) = version(&list["metadata"]) else {
        return Err(format!("a list of {} has no version", kind.plural()));
    };
    let mut view = before.cloned().unwrap_or_else(|| View::empty(history));
    if version < view.version() {
        let known = view.version();
        return Err(format!("a list of {} is of version {version}, before {known}", kind.plural()));
    }
    let items = match list["items"].take() {
        Value::Array(items) => items,
        // An empty list in Go is none.
        Value::Null => Vec::new(),
        _ => return Err(format!("the items of a list of {} are no list", kind.plural())),
    };
    let mut gone: BTreeSet<Key> = view.iter().map(|(key, _)| key.clone()).collect();
    for item in items {
        if let Some(key) = is_held(&view, kind, &item) {
            gone.remove(&key);
            continue;
        }
        let object = read(kind, scope, item)?;
        gone.remove(&object.key);
        view.insert(object.key.clone(), Arc::new(object), version);
    }
    for key in gone {
        view.remove(&key, version);
    }
    view.advance(version);
    Ok(view)
}

/// What an event is to a view.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something is new.
    News,
    /// Nothing that was not known.
    Nothing,
    /// The stream ends: all that is known is too old.
    Expired,
    /// It ends for another reason.
    Refused(String),
}

/// Puts a watch's event into the view.
pub fn event(kind: Kind, scope: &Scope, text: &[u8], view: &mut View) -> Result<Heard, String> {
    let mut event: Value = serde_json::from_slice(text)
        .map_err(|error| format!("an event of {} is no JSON: {error}", kind.plural()))?;
    let object = event["object"].take();
    match event["type"].as_str().unwrap_or_default() {
        "ADDED" | "MODIFIED" => {
            if is_held(view, kind, &object).is_some() {
                return Ok(Heard::Nothing);
            }
            let object = read(kind, scope, object)?;
            let version = object.version.max(view.version());
            view.insert(object.key.clone(), Arc::new(object), version);
            Ok(Heard::News)
        }
        "DELETED" => {
            let Some((key, _, version)) = identity(kind, &object) else {
                return Err(format!("a deleted one of {} has no name or version", kind.plural()));
            };
            let version = version.max(view.version());
            let was_there = view.remove(&key, version).is_some();
            Ok(if was_there { Heard::News } else { Heard::Nothing })
        }
        "BOOKMARK" => {
            let version = version(&object["metadata"]).unwrap_or(0).max(view.version());
            view.advance(version);
            Ok(Heard::Nothing)
        }
        "ERROR" if object["code"] == 410 => Ok(Heard::Expired),
        "ERROR" => Ok(Heard::Refused(object["message"].as_str().unwrap_or("?").to_owned())),
        other => Err(format!("an event of {} is of the type {other:?}", kind.plural())),
    }
}
