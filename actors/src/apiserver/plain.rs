//! What the rules of a kind without types of its own make of its objects.

use crate::objects::kinds::{Fields, New, Sub};
use crate::objects::validation::Causes;
use crate::objects::{Body, Kind, Object, Plain};
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
    // Of a declared kind, this is the version's to do in which an object comes.
    if let Kind::Custom(_) = plain.kind {
        return;
    }
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

/// Everything but the status is equal. Whether a declared kind has a status by itself, its
/// definition says: where it has, the status is the old one before this is asked.
pub(super) fn same_spec(a: &Plain, b: &Plain) -> bool {
    let same = Arc::ptr_eq(&a.fields, &b.fields) || a.fields == b.fields;
    let custom = matches!(a.kind, Kind::Custom(_));
    same && (!custom || Arc::ptr_eq(&a.status, &b.status) || a.status == b.status)
}

pub(super) fn validate(new: &Plain, old: Option<&Plain>, causes: &mut Causes) {
    let Some(rules) = new.kind.rules() else { return };
    (rules.validate)(&new.fields, causes);
    if let Some(old) = old {
        (rules.update)(&new.fields, &old.fields, causes);
    }
}
