//! What the rules of a kind without types of its own make of its objects.

use crate::objects::kinds::{Fields, New, Sub};
use crate::objects::validation::Causes;
use crate::objects::{Body, Object, Plain};
use serde_json::Value;
use std::sync::Arc;

/// A new object's defaults; its status is nobody's yet.
pub(super) fn prepare_create(plain: &mut Plain, new: New<'_>) {
    let Some(rules) = plain.kind.rules() else { return };
    edit(plain, |fields| {
        (rules.defaults)(fields);
        (rules.create)(fields, new);
    });
    if plain.kind.declaration().has(Sub::Status) {
        plain.status = Arc::new((rules.status)());
    }
    typed(plain);
}

pub(super) fn complete(plain: &mut Plain) {
    if let Some(rules) = plain.kind.rules() {
        edit(plain, rules.defaults);
        typed(plain);
    }
}

fn edit(plain: &mut Plain, change: impl FnOnce(&mut Fields)) {
    change(Arc::make_mut(&mut plain.fields));
}

/// As its type writes it: what an empty status says, numbers as numbers.
fn typed(plain: &mut Plain) {
    let mut json = Value::Object(plain.fields.0.clone());
    if !plain.status.is_null() {
        json["status"] = (*plain.status).clone();
    }
    if let Ok(Object { body: Body::Plain(read), .. }) = Object::from_json_of(plain.kind, json) {
        *plain = read;
    }
}

/// The old object with the new status; `None` if the kind has none.
pub(super) fn with_status(new: &Plain, old: &Plain) -> Option<Plain> {
    if !old.kind.declaration().has(Sub::Status) {
        return None;
    }
    let status = if new.status == old.status { &old.status } else { &new.status };
    Some(Plain { status: status.clone(), ..old.clone() })
}

pub(super) fn validate(new: &Plain, old: Option<&Plain>, causes: &mut Causes) {
    let Some(rules) = new.kind.rules() else { return };
    (rules.validate)(&new.fields, causes);
    if let Some(old) = old {
        (rules.update)(&new.fields, &old.fields, causes);
    }
}
