//! Whether a schema is structural, so that what there may be is said outside of `allOf`, `anyOf`,
//! `oneOf` and `not` (`pkg/apiserver/schema/validation.go`, `complete.go`).

use super::{Additional, Schema};
use crate::objects::validation::Causes;
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

impl Schema {
    /// What keeps it from being a structural schema, in upstream's order. `path` is the schema's
    /// own: `spec.versions[0].schema.openAPIV3Schema`.
    pub fn structural(&self, path: &str) -> Vec<String> {
        let mut causes = Causes::default();
        invariants(self, Level::Root, path, &mut causes);
        for (junctor, inner) in self.nested() {
            complete(inner, Some(self), path, &format!("{path}.{junctor}"), &mut causes);
        }
        let mut causes = causes.into_list();
        causes.sort();
        causes
    }

    /// Those under a junctor of logic, each with its place: `anyOf[0]`.
    fn nested(&self) -> Vec<(String, &Schema)> {
        let mut all: Vec<(String, &Schema)> = Vec::new();
        let lists = [("anyOf", &self.any_of), ("allOf", &self.all_of), ("oneOf", &self.one_of)];
        for (name, list) in lists {
            all.extend(list.iter().enumerate().map(|(at, one)| (format!("{name}[{at}]"), one)));
        }
        all.extend(self.not.iter().map(|not| ("not".to_owned(), &**not)));
        all
    }
}

fn invariants(schema: &Schema, level: Level, path: &str, causes: &mut Causes) {
    if schema.r#type == "array" && schema.items.is_none() {
        causes.required(format_args!("{path}.items"), "must be specified");
    }
    if let Some(items) = &schema.items {
        invariants(items, Level::Item, &format!("{path}.items"), causes);
    }
    for (name, property) in &schema.properties {
        invariants(property, Level::Field, &format!("{path}.properties[{name}]"), causes);
    }
    additional(schema, level, path, causes);
    extensions(schema, path, causes);
    let any = is_int_or_string(&schema.any_of);
    let all = schema.all_of.first().is_some_and(|first| is_int_or_string(&first.any_of));
    for (place, inner) in schema.nested() {
        if !(any && place.starts_with("anyOf")) {
            nested(inner, all && place == "allOf[0]", &format!("{path}.{place}"), causes);
        }
    }
    pattern(schema, path, causes);
    types(schema, level, path, causes);
    meta(schema, level, path, causes);
}

/// `anyOf: [{type: integer}, {type: string}]`, and nothing else.
fn is_int_or_string(any_of: &[Schema]) -> bool {
    let of = |kind: &str| Schema { r#type: kind.to_owned(), ..Schema::default() };
    any_of == [of("integer"), of("string")]
}

fn additional(schema: &Schema, level: Level, path: &str, causes: &mut Causes) {
    let path = format!("{path}.additionalProperties");
    let Some(additional) = &schema.additional_properties else { return };
    if level == Level::Root {
        causes.forbidden(&path, "must not be used at the root");
    }
    if schema.embedded_resource {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        causes.forbidden(&path, why);
    }
    if let Additional::Each(each) = additional {
        invariants(each, Level::Field, &path, causes);
    }
}

fn extensions(schema: &Schema, path: &str, causes: &mut Causes) {
    let why = "must be false if x-kubernetes-int-or-string is true";
    for (name, set) in [
        ("preserve-unknown-fields", schema.preserve_unknown_fields),
        ("embedded-resource", schema.embedded_resource),
    ] {
        if schema.int_or_string && set {
            causes.invalid(format_args!("{path}.x-kubernetes-{name}"), true, why);
        }
    }
    let bare = !schema.preserve_unknown_fields && schema.properties.is_empty();
    if schema.embedded_resource && bare {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        causes.required(format_args!("{path}.properties"), why);
    }
}

fn pattern(schema: &Schema, path: &str, causes: &mut Causes) {
    let Some(pattern) = &schema.pattern else { return };
    if let Err(why) = &pattern.regex {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        causes.invalid(format_args!("{path}.pattern"), format_args!("{:?}", pattern.text), why);
    }
}

fn types(schema: &Schema, level: Level, path: &str, causes: &mut Causes) {
    let kind = schema.r#type.as_str();
    let path = format!("{path}.type");
    let quoted = format!("{kind:?}");
    if schema.embedded_resource && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "" => causes.required(&path, why),
            _ => causes.invalid(&path, &quoted, why),
        }
    } else if kind.is_empty() && !schema.int_or_string && !schema.preserve_unknown_fields {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.required(&path, why);
    }
    if level == Level::Root && !["", "object"].contains(&kind) {
        causes.invalid(&path, &quoted, "must be object at the root");
    }
}

/// What an object says of itself is not the schema's to say, but for its name.
fn meta(schema: &Schema, level: Level, path: &str, causes: &mut Causes) {
    if level != Level::Root && !schema.embedded_resource {
        return;
    }
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(property) = schema.properties.get(name) else { continue };
        if property.r#type != wanted {
            let path = format!("{path}.properties[{name}].type");
            let kind = format!("{:?}", property.r#type);
            causes.invalid(path, kind, format_args!("must be {wanted}"));
        }
    }
    let Some(metadata) = schema.properties.get("metadata").filter(|_| level == Level::Root) else {
        return;
    };
    let named = |name: &String| ["name", "generateName"].contains(&name.as_str());
    let mut rest = metadata.clone();
    if rest.properties.keys().all(named) {
        rest.properties = BTreeMap::new();
    }
    rest.r#type = String::new();
    rest.default = None;
    if rest != Schema::default() {
        let why = "must not specify anything other than name and generateName, but metadata is \
                   implicitly specified";
        causes.forbidden(format_args!("{path}.properties[metadata]"), why);
    }
}

/// A schema under a junctor: it may only narrow what there is.
fn nested(schema: &Schema, skip_any_of: bool, path: &str, causes: &mut Causes) {
    for (place, inner) in schema.nested() {
        if !(skip_any_of && place.starts_with("anyOf")) {
            nested(inner, false, &format!("{path}.{place}"), causes);
        }
    }
    pattern(schema, path, causes);
    if let Some(items) = &schema.items {
        nested(items, false, &format!("{path}.items"), causes);
    }
    for (name, property) in &schema.properties {
        nested(property, false, &format!("{path}.properties[{name}]"), causes);
    }
    let (empty, undefined, unset) = ("must be empty", "must be undefined", "must be false");
    for (name, why, said) in [
        ("type", empty, !schema.r#type.is_empty()),
        ("additionalProperties", undefined, schema.additional_properties.is_some()),
        ("default", undefined, schema.default.is_some()),
        ("title", empty, !schema.title.is_empty()),
        ("description", empty, !schema.description.is_empty()),
        ("nullable", unset, schema.nullable),
        ("externalDocs", undefined, schema.external_docs.is_some()),
        ("x-kubernetes-preserve-unknown-fields", unset, schema.preserve_unknown_fields),
        ("x-kubernetes-embedded-resource", unset, schema.embedded_resource),
        ("x-kubernetes-int-or-string", unset, schema.int_or_string),
        ("x-kubernetes-list-map-keys", empty, !schema.list_map_keys.is_empty()),
        ("x-kubernetes-list-type", undefined, schema.list_type.is_some()),
        ("x-kubernetes-map-type", undefined, schema.map_type.is_some()),
        ("x-kubernetes-validations", empty, !schema.validations.is_empty()),
    ] {
        if said {
            causes.forbidden(format_args!("{path}.{name}"), format_args!("{why} to be structural"));
        }
    }
    if schema.properties.contains_key("metadata") {
        let why = "must not be specified in a nested context";
        causes.forbidden(format_args!("{path}.properties[metadata]"), why);
    }
}

/// Whatever is narrowed at `inner_path` is there in the schema itself.
fn complete(
    inner: &Schema,
    schema: Option<&Schema>,
    path: &str,
    inner_path: &str,
    causes: &mut Causes,
) {
    let Some(schema) = schema else {
        return causes.required(path, &format!("because it is defined in {inner_path}"));
    };
    for (junctor, deeper) in inner.nested() {
        complete(deeper, Some(schema), path, &format!("{inner_path}.{junctor}"), causes);
    }
    let below = |what: &str| (format!("{path}.{what}"), format!("{inner_path}.{what}"));
    if let Some(items) = &inner.items {
        let (path, inner_path) = below("items");
        complete(items, schema.items.as_deref(), &path, &inner_path, causes);
    }
    for (name, property) in &inner.properties {
        let (path, inner_path) = below(&format!("properties[{name}]"));
        complete(property, schema.properties.get(name), &path, &inner_path, causes);
    }
}
