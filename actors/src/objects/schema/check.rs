//! Whether a value is what its schema says, in upstream's words (kube-openapi
//! `pkg/validation/validate` and `pkg/validation/errors`; apiextensions-apiserver
//! `pkg/apiserver/validation`).

use super::shown::shown;
use super::{Additional, Schema, formats, lists};
use crate::objects::validation::Causes;
use serde_json::{Map, Number, Value};

impl Schema {
    /// What is wrong with a whole object.
    pub fn check(&self, object: &Value, causes: &mut Causes) {
        self.check_at(object, "", causes);
    }

    /// The same of a value that stands somewhere.
    pub(super) fn check_at(&self, value: &Value, path: &str, causes: &mut Causes) {
        for Problem { field, body } in check(self, value, path).problems {
            causes.push(field, body);
        }
        lists::check(self, value, path, causes);
    }
}

struct Problem {
    field: String,
    /// What is told behind the field.
    body: String,
}

/// What a check found.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    /// How much held: of several schemas that do not, the one of which the most did is told.
    held: u32,
}

/// What is wrong with the value as a whole has no field upstream.
const NOWHERE: &str = "<nil>";

impl Found {
    fn merge(&mut self, other: Found) {
        self.problems.extend(other.problems);
        self.held += other.held;
    }

    fn add(&mut self, path: &str, body: String) {
        let field = if path.is_empty() { NOWHERE } else { path };
        self.problems.push(Problem { field: field.to_owned(), body });
    }

    /// `value` is as it is to be printed.
    fn invalid(&mut self, path: &str, value: &str, why: &str) {
        self.add(path, format!("Invalid value: {value}: {path} in body {why}"));
    }

    fn junctor(&mut self, path: &str, why: &str) {
        self.add("", format!("Invalid value: \"\": {path:?} must {why}"));
    }
}

fn check(schema: &Schema, value: &Value, path: &str) -> Found {
    let mut found = Found::default();
    let untold = schema.format.is_empty() || value.is_null();
    if !(types(schema).is_empty() && untold) {
        found.merge(type_of(schema, value, path));
        found.held += 1;
    }
    if !value.is_null() {
        found.merge(junctors(schema, value, path));
        found.held += 1;
    }
    match value {
        Value::String(text) => found.merge(text_of(schema, text, path)),
        Value::Number(number) => found.merge(number_of(schema, number, path)),
        Value::Array(items) => found.merge(items_of(schema, items, path)),
        _ => {}
    }
    enumerated(schema, value, path, &mut found);
    if let Value::Object(fields) = value {
        found.merge(fields_of(schema, fields, path));
    }
    found.held += 2;
    found
}

/// The names of the types that are allowed.
fn types(schema: &Schema) -> Vec<&str> {
    match (schema.int_or_string, schema.r#type.as_str()) {
        (true, _) => vec!["integer", "string"],
        (_, "") => vec![],
        (_, one) => vec![one],
    }
}

fn type_of(schema: &Schema, value: &Value, path: &str) -> Found {
    let (allowed, format) = (types(schema), schema.format.as_str());
    let mut found = Found { held: 1, ..Found::default() };
    let mut wrong = |wanted: &str, is: &str| {
        let why = format!("must be of type {wanted}: {is:?}");
        found.held = 0;
        found.invalid(path, &format!("{is:?}"), &why);
    };
    if value.is_null() {
        if !schema.nullable {
            wrong(&allowed.join(","), "null");
        }
        return found;
    }
    let (is, its_format) = match value {
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        _ => ("object", ""),
    };
    let has = |name: &str| allowed.contains(&name);
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let number = has("integer") && is == "number" && whole || has("number") && is == "integer";
    let text = ["string", "array"].contains(&is);
    if !(text || format.is_empty() || has(is) || its_format == format || number) {
        wrong(format, its_format);
    } else if text && !format.is_empty() && !has("number") && !has("integer") {
        // The format's own check says more.
    } else if !has(is) && !number {
        wrong(&allowed.join(","), is);
    }
    found
}

fn junctors(schema: &Schema, value: &Value, path: &str) -> Found {
    let mut found = Found::default();
    if !schema.any_of.is_empty() {
        let (holds, told) = several(&schema.any_of, value, path);
        if holds == 0 {
            found.junctor(path, "validate at least one schema (anyOf)");
        }
        found.merge(told);
    }
    if !schema.one_of.is_empty() {
        let (holds, told) = several(&schema.one_of, value, path);
        match holds {
            0 => found.junctor(path, "validate one and only one schema (oneOf). Found none valid"),
            1 => {}
            more => {
                let why = "validate one and only one schema (oneOf). Found";
                found.junctor(path, &format!("{why} {more} valid alternatives"));
            }
        }
        if holds < 2 {
            found.merge(told);
        }
    }
    if !schema.all_of.is_empty() {
        let all: Vec<Found> = schema.all_of.iter().map(|one| check(one, value, path)).collect();
        let holds = all.iter().filter(|one| one.problems.is_empty()).count();
        all.into_iter().for_each(|one| found.merge(one));
        if holds != schema.all_of.len() {
            let none = if holds == 0 { ". None validated" } else { "" };
            found.junctor(path, &format!("validate all the schemas (allOf){none}"));
        }
    }
    if let Some(not) = &schema.not
        && check(not, value, path).problems.is_empty()
    {
        found.junctor(path, "not validate the schema (not)");
    }
    found.held += 1;
    found
}

/// How many of the schemas hold, and what is to be told: the first that does, or the one of which
/// the most does.
fn several(schemas: &[Schema], value: &Value, path: &str) -> (usize, Found) {
    let mut all: Vec<Found> = schemas.iter().map(|one| check(one, value, path)).collect();
    let holds = all.iter().filter(|one| one.problems.is_empty()).count();
    let first = all.iter().position(|one| one.problems.is_empty());
    let best = all.iter().map(|one| one.held).max();
    let best = all.iter().position(|one| Some(one.held) == best);
    let told = first.or(best).map(|at| all.swap_remove(at)).unwrap_or_default();
    (holds, told)
}

fn text_of(schema: &Schema, text: &str, path: &str) -> Found {
    let mut found = Found::default();
    let length = text.chars().count();
    let quoted = format!("{text:?}");
    let beyond = |limit: i64| i64::try_from(length).is_ok_and(|length| length > limit);
    let below = |limit: i64| i64::try_from(length).is_ok_and(|length| length < limit);
    if let Some(most) = schema.max_length.filter(|most| beyond(*most)) {
        found.add(path, format!("Too long: may not be more than {most} bytes"));
    } else if let Some(least) = schema.min_length.filter(|least| below(*least)) {
        found.invalid(path, &quoted, &format!("should be at least {least} chars long"));
    } else if let Some(pattern) = &schema.pattern {
        match &pattern.regex {
            Ok(regex) if regex.is_match(text) => {}
            Ok(_) => found.invalid(path, &quoted, &format!("should match '{}'", pattern.text)),
            Err(why) => {
                let why = format!("should match '{}, but pattern is invalid: {why}'", pattern.text);
                found.invalid(path, &quoted, &why);
            }
        }
    }
    found.held += 1;
    if let Some(holds) = formats::holds(&schema.format, text) {
        if !holds {
            let why = format!("must be of type {}: {quoted}", schema.format);
            found.invalid(path, &quoted, &why);
        }
        found.held += 1;
    }
    found
}

fn number_of(schema: &Schema, number: &Number, path: &str) -> Found {
    let mut found = Found::default();
    let (value, shown) = (number.as_f64().unwrap_or_default(), number.to_string());
    // A limit of whole numbers is one.
    let limit = |limit: f64| if number.is_f64() { limit } else { limit.trunc() };
    if let Some(factor) = schema.multiple_of {
        let times = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
        if factor < 0.0 {
            let why = format!("factor MultipleOf declared for {path} must be positive: {factor}");
            found.add(path, format!("Invalid value: {factor}: {why}"));
        } else if times.fract().abs() > 1e-9 {
            found.invalid(path, &shown, &format!("should be a multiple of {factor}"));
        }
    }
    if let Some(least) = schema.minimum.map(limit) {
        let (wrong, than) = match schema.exclusive_minimum {
            true => (value <= least, "greater than"),
            false => (value < least, "greater than or equal to"),
        };
        if wrong {
            found.invalid(path, &shown, &format!("should be {than} {least}"));
        }
    }
    if let Some(most) = schema.maximum.map(limit) {
        let (wrong, than) = match schema.exclusive_maximum {
            true => (value >= most, "less than"),
            false => (value > most, "less than or equal to"),
        };
        if wrong {
            found.invalid(path, &shown, &format!("should be {than} {most}"));
        }
    }
    found.held += 1;
    found
}

fn items_of(schema: &Schema, items: &[Value], path: &str) -> Found {
    let mut found = Found::default();
    if let Some(each) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            found.merge(check(each, item, &format!("{path}[{index}]")));
        }
    }
    let size = items.len() as i64;
    if let Some(least) = schema.min_items.filter(|least| size < *least) {
        let why = format!("should have at least {least} items");
        found.invalid(path, &size.to_string(), &why);
    }
    if let Some(most) = schema.max_items.filter(|most| size > *most) {
        found.add(path, format!("Too many: {size}: must have at most {most} items"));
    }
    let twice = |at: usize| items[..at].contains(&items[at]);
    if schema.unique_items && (1..items.len()).any(twice) {
        found.invalid(path, "\"\"", "shouldn't contain duplicates");
    }
    found.held += 2;
    found
}

fn enumerated(schema: &Schema, value: &Value, path: &str, found: &mut Found) {
    let same = |one: &Value| match (one.as_f64(), value.as_f64()) {
        (Some(one), Some(value)) => one == value,
        _ => one == value,
    };
    if schema.r#enum.is_empty() || !value.is_null() && schema.r#enum.iter().any(same) {
        return;
    }
    let text = |one: &Value| one.as_str().map_or_else(|| one.to_string(), str::to_owned);
    let supported: Vec<String> =
        schema.r#enum.iter().map(|one| format!("{:?}", text(one))).collect();
    let supported = supported.join(", ");
    let body = format!("Unsupported value: {}: supported values: {supported}", shown(value));
    found.add(path, body);
}

fn fields_of(schema: &Schema, fields: &Map<String, Value>, path: &str) -> Found {
    let mut found = Found::default();
    let size = fields.len() as i64;
    if let Some(least) = schema.min_properties.filter(|least| size < *least) {
        let why = format!("should have at least {least} properties");
        found.invalid(path, &size.to_string(), &why);
        return found;
    }
    if let Some(most) = schema.max_properties.filter(|most| size > *most) {
        found.add(path, format!("Too many: {size}: must have at most {most} items"));
        return found;
    }
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for (name, value) in fields.iter().filter(|(name, _)| !schema.properties.contains_key(*name)) {
        match &schema.additional_properties {
            Some(Additional::Allowed(false)) => {
                let why = format!("{path}.{name} in body is a forbidden property");
                found.add(path, format!("Invalid value: {name:?}: {why}"));
            }
            Some(Additional::Each(each)) => found.merge(check(each, value, &below(name))),
            _ => {}
        }
    }
    for (name, property) in &schema.properties {
        if let Some(value) = fields.get(name) {
            found.merge(check(property, value, &below(name)));
        }
    }
    for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
        found.add(&below(name), "Required value".to_owned());
    }
    found.held += 1;
    found
}
