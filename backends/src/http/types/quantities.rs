//! Amounts that are none: Go's decoder refuses them before anything is validated, and names no
//! field (apimachinery `pkg/api/resource/quantity.go`, `ParseQuantity`).

use super::read::Table;
use super::{Field, Many, Message, Type};
use kubesim_actors::objects::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeSet;

/// `ErrFormatWrong`
pub(super) const FORM: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
/// `ErrSuffix`
const SUFFIX: &str = "unable to parse quantity's suffix";

/// What is told of the first amount in an object of this type that is none.
pub fn no_quantity(message: &Message, object: &Value) -> Option<&'static str> {
    if !message.has_quantities() {
        return None;
    }
    let fields = object.as_object()?.iter();
    fields.filter_map(|(name, value)| Some((message.field(name)?, value))).find_map(of_field)
}

fn of_field((field, value): (&Field, &Value)) -> Option<&'static str> {
    if !leads_to_quantities(field) {
        return None;
    }
    match (field.many, value) {
        (Many::One, value) => of_one(field, value),
        (Many::List, Value::Array(all)) => all.iter().find_map(|value| of_one(field, value)),
        (Many::Map, Value::Object(all)) => all.values().find_map(|value| of_one(field, value)),
        _ => None,
    }
}

fn of_one(field: &Field, value: &Value) -> Option<&'static str> {
    match (field.message(), value) {
        (Some(message), value) => no_quantity(message, value),
        (None, Value::String(text)) => refused(text),
        (None, _) => None,
    }
}

fn refused(text: &str) -> Option<&'static str> {
    if Quantity::parse(text).is_some() {
        return None;
    }
    let text = text.trim();
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = number.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = number.strip_prefix('.').unwrap_or(number);
    let suffix = number.trim_start_matches(|c: char| c.is_ascii_digit());
    // Nothing may follow the letters but an exponent.
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let exponent = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let formed = exponent.bytes().all(|digit| digit.is_ascii_digit());
    Some(if formed && !text.is_empty() { SUFFIX } else { FORM })
}

fn leads_to_quantities(field: &Field) -> bool {
    field.kind == Type::Quantity || field.message().is_some_and(Message::has_quantities)
}

/// The messages in which there may be an amount, at any depth.
pub(super) fn messages_with(table: &Table) -> BTreeSet<&'static str> {
    let mut with = BTreeSet::new();
    loop {
        let leads = |field: &Field| match field.kind {
            Type::Quantity => true,
            Type::Message(name) => with.contains(name),
            _ => false,
        };
        let more: Vec<&'static str> = table
            .messages
            .values()
            .filter(|message| !with.contains(message.name))
            .filter(|message| message.by_number.values().any(leads))
            .map(|message| message.name)
            .collect();
        if more.is_empty() {
            return with;
        }
        with.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::types::named;
    use serde_json::json;

    #[test]
    fn what_is_no_amount_is_told_as_go_does() {
        for (text, told) in [
            ("64Mi", None),
            (" 1.5 ", None),
            ("1e3", None),
            ("64MB", Some(FORM)),
            ("1 Gi", Some(FORM)),
            ("many", Some(FORM)),
            ("", Some(FORM)),
            ("1.2.3", Some(FORM)),
            ("64mi", Some(SUFFIX)),
            ("1MM", Some(SUFFIX)),
            ("1K", Some(SUFFIX)),
        ] {
            assert_eq!(refused(text), told, "{text:?}");
        }
    }

    #[test]
    fn amounts_are_found_wherever_they_are() {
        let pod = |container: Value, volume: Value| {
            json!({"metadata": {"name": "1K"}, "spec": {"containers": [container],
                   "volumes": [volume]}})
        };
        let told = |object: &Value| no_quantity(named("core/v1.Pod").expect("a type"), object);
        let wrong = json!({"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1K"}}});
        let right = json!({"name": "1K", "resources": {"limits": {"cpu": 1, "memory": "1k"}}});
        let volume = json!({"name": "v", "emptyDir": {"sizeLimit": "many"}});
        assert_eq!(told(&pod(wrong, json!({"name": "v"}))), Some(SUFFIX));
        assert_eq!(told(&pod(right.clone(), volume)), Some(FORM));
        assert_eq!(told(&pod(right, json!({"name": "v", "emptyDir": {}}))), None);
        // Few types have any.
        let without = named("core/v1.ConfigMap").expect("a type");
        assert!(!without.has_quantities());
    }
}
