//! What a definition's schema may say (`validateCustomResourceDefinitionValidation`,
//! `ValidateCustomResourceDefinitionOpenAPISchema`): that it is structural, that its defaults are
//! what it allows, and what upstream serves none of.

use crate::objects::schema::Schema;
use crate::objects::validation::Causes;
use serde_json::Value;

/// `status`: the schema's objects have a status that is written by itself.
pub fn check(schema: &Value, status: bool, path: &str, causes: &mut Causes) {
    if schema.is_null() {
        return;
    }
    if status {
        at_root(schema, path, causes);
    }
    if schema["nullable"] == true {
        causes.forbidden(format_args!("{path}.nullable"), "nullable cannot be true at the root");
    }
    match Schema::read(schema) {
        Ok(read) => {
            let wrong = read.structural(path);
            if wrong.is_empty() {
                read.check_defaults(path, causes);
            }
            wrong.into_iter().for_each(|cause| causes.push_whole(cause));
        }
        Err(why) => causes.invalid(path, "\"\"", why),
    }
    walk(schema, path, causes);
}

/// What may be said beside the properties of a schema whose status is taken out of it.
const AT_ROOT: [&str; 22] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

fn at_root(schema: &Value, path: &str, causes: &mut Causes) {
    let kind = schema["type"].as_str().unwrap_or_default();
    if !["", "object"].contains(&kind) {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status \
                   subresource is enabled";
        causes.invalid(format_args!("{path}.type"), format_args!("{kind:?}"), why);
    }
    let said = schema.as_object().into_iter().flatten();
    let said = said.filter(|(_, value)| !value.is_null() && **value != Value::Bool(false));
    if let Some((name, _)) = said.into_iter().find(|(name, _)| !AT_ROOT.contains(&name.as_str())) {
        let why = format!(
            "only {AT_ROOT:?} fields are allowed at the root of the schema if the status \
             subresource is enabled"
        );
        causes.invalid(path, format_args!("{name:?}"), why);
    }
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What upstream's types have fields for, and its server no use.
const UNSUPPORTED: [&str; 6] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

fn walk(schema: &Value, path: &str, causes: &mut Causes) {
    let Some(fields) = schema.as_object() else { return };
    let text = |name: &str| schema[name].as_str().unwrap_or_default();
    let kind = text("type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        causes.unsupported(format_args!("{path}.type"), kind, &TYPES);
    }
    for name in UNSUPPORTED {
        if fields.get(name).is_some_and(|said| !said.is_null()) {
            causes
                .forbidden(format_args!("{path}.{name}"), format_args!("{name} is not supported"));
        }
    }
    if schema["items"].is_array() {
        let why = "items must be a schema object and not an array";
        causes.forbidden(format_args!("{path}.items"), why);
    }
    if schema["uniqueItems"] == true {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.forbidden(format_args!("{path}.uniqueItems"), why);
    }
    let additional = &schema["additionalProperties"];
    let properties = schema["properties"].as_object();
    if properties.is_some_and(|all| !all.is_empty())
        && (additional.is_object() || *additional == false)
    {
        let why = "additionalProperties and properties are mutual exclusive";
        causes.forbidden(format_args!("{path}.additionalProperties"), why);
    }
    walk(additional, &format!("{path}.additionalProperties"), causes);
    for (name, property) in properties.into_iter().flatten() {
        walk(property, &format!("{path}.properties[{name}]"), causes);
    }
    walk(&schema["not"], &format!("{path}.not"), causes);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        for (index, one) in schema[junctor].as_array().into_iter().flatten().enumerate() {
            walk(one, &format!("{path}.{junctor}[{index}]"), causes);
        }
    }
    walk(&schema["items"], &format!("{path}.items"), causes);
    if fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let place = format_args!("{path}.x-kubernetes-preserve-unknown-fields");
        causes.invalid(place, false, "must be true or undefined");
    }
    maps(schema, path, causes);
    lists(schema, path, causes);
    // Upstream runs these rules (CEL). One that is not run must not seem to be.
    if schema["x-kubernetes-validations"].as_array().is_some_and(|rules| !rules.is_empty()) {
        let place = format_args!("{path}.x-kubernetes-validations");
        causes.forbidden(place, "this server does not evaluate rules in CEL");
    }
}

/// The type that a marker goes with.
fn goes_with(schema: &Value, kind: &str, marker: &str, path: &str, causes: &mut Causes) {
    let why = format!("must be {kind} if {marker} is specified");
    match schema["type"].as_str().unwrap_or_default() {
        "" => causes.required(format_args!("{path}.type"), &why),
        other if other == kind => {}
        other => causes.invalid(format_args!("{path}.type"), format_args!("{other:?}"), why),
    }
}

fn maps(schema: &Value, path: &str, causes: &mut Causes) {
    const MARKER: &str = "x-kubernetes-map-type";
    let Some(said) = schema[MARKER].as_str() else { return };
    goes_with(schema, "object", MARKER, path, causes);
    if !["atomic", "granular"].contains(&said) {
        causes.unsupported(format_args!("{path}.{MARKER}"), said, &["atomic", "granular"]);
    }
}

const LIST_TYPE: &str = "x-kubernetes-list-type";
const KEYS: &str = "x-kubernetes-list-map-keys";

fn lists(schema: &Value, path: &str, causes: &mut Causes) {
    let said = schema[LIST_TYPE].as_str();
    let keys = schema[KEYS].as_array().map(Vec::as_slice).unwrap_or_default();
    let items = &schema["items"];
    if said.is_some() {
        goes_with(schema, "array", LIST_TYPE, path, causes);
    }
    let of = (items["type"].as_str().unwrap_or_default(), said);
    let atomic = |marker: &str, causes: &mut Causes| {
        let place = format_args!("{path}.items.{marker}");
        let value = items[marker].clone();
        causes.invalid(
            place,
            value,
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        );
    };
    match of {
        ("array", Some("set")) if !matches!(items[LIST_TYPE].as_str(), None | Some("atomic")) => {
            atomic(LIST_TYPE, causes);
        }
        ("object", Some("set")) if items["x-kubernetes-map-type"] != "atomic" => {
            atomic("x-kubernetes-map-type", causes);
        }
        _ => {}
    }
    let place = format!("{path}.{LIST_TYPE}");
    if let Some(other) = said.filter(|said| !["atomic", "set", "map"].contains(said)) {
        causes.unsupported(&place, other, &["atomic", "set", "map"]);
    }
    let why = "must be map if x-kubernetes-list-map-keys is non-empty";
    match said {
        None if !keys.is_empty() => causes.required(&place, why),
        Some(other) if !keys.is_empty() && other != "map" => {
            causes.invalid(&place, format_args!("{other:?}"), why);
        }
        _ => {}
    }
    if said == Some("map") {
        by_keys(items, keys, path, causes);
    }
    if matches!(said, Some("set" | "map")) && items["nullable"] == true {
        let why = format!("cannot be nullable when {LIST_TYPE} is {}", said.unwrap_or_default());
        causes.forbidden(format_args!("{path}.items.nullable"), why);
    }
}

/// A list whose elements are known by fields.
fn by_keys(items: &Value, keys: &[Value], path: &str, causes: &mut Causes) {
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        causes.required(format_args!("{path}.{KEYS}"), why);
    }
    if items.is_null() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        return causes.required(format_args!("{path}.items"), why);
    }
    let kind = items["type"].as_str().unwrap_or_default();
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        let place = format_args!("{path}.items.type");
        return causes.invalid(place, format_args!("{kind:?}"), why);
    }
    let required = items["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all: Vec<String> = keys.iter().map(Value::to_string).collect();
    let all = format!("[]string{{{}}}", all.join(", "));
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = &items["properties"][name];
        let place = format!("{path}.items.properties[{name}]");
        if property.is_null() {
            let why = "entries must all be names of item properties";
            causes.invalid(format_args!("{path}.{KEYS}"), &all, why);
            continue;
        }
        if ["array", "object"].contains(&property["type"].as_str().unwrap_or_default()) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            causes.invalid(format_args!("{place}.type"), format_args!("{kind:?}"), why);
        }
        if keys[..index].contains(key) {
            causes.invalid(
                format_args!("{path}.{KEYS}"),
                &all,
                "must not contain duplicate entries",
            );
        }
        if !required.contains(key) && property["default"].is_null() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default \
                       or be a required property";
            causes.required(format_args!("{place}.default"), why);
        }
        if property["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            causes.forbidden(format_args!("{place}.nullable"), why);
        }
    }
}
