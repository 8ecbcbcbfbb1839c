//! Kinds that are held as their fields (`Body::Plain`), read and written by their types.

use crate::objects::kinds::Fields;
use crate::objects::{Body, Key, Kind, Object, Plain, typed};
use crate::ports::api::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What the object's `spec` says; the type's default where it says nothing.
pub fn spec<T: DeserializeOwned + Default>(object: &Object) -> T {
    object.plain().map(|plain| plain.fields.part("spec")).unwrap_or_default()
}

pub fn status<T: DeserializeOwned + Default>(object: &Object) -> T {
    object.plain().and_then(|plain| typed(&plain.status).ok()).unwrap_or_default()
}

/// An object of the kind that says this besides its metadata.
pub fn object(kind: Kind, key: Key, fields: Value) -> Object {
    let fields = match fields {
        Value::Object(fields) => Fields(fields),
        _ => Fields(Map::new()),
    };
    let plain = Plain { kind, fields: Arc::new(fields), status: Arc::new(Value::Null) };
    Object::new(key, Body::Plain(plain))
}

/// The object with another status. `None` for a kind with types of its own.
pub fn write_status(object: &Object, status: &impl Serialize) -> Option<Request> {
    let plain = object.plain()?;
    let status = Arc::new(serde_json::to_value(status).ok()?);
    let body = Body::Plain(Plain { status, ..plain.clone() });
    Some(Request::UpdateStatus { object: Arc::new(Object { body, ..object.clone() }) })
}

/// The object with its fields changed. `None` for a kind with types of its own.
pub fn update(object: &Object, change: impl FnOnce(&mut Fields)) -> Option<Request> {
    let mut plain = object.plain()?.clone();
    change(Arc::make_mut(&mut plain.fields));
    let body = Body::Plain(plain);
    Some(Request::Update { object: Arc::new(Object { body, ..object.clone() }) })
}
