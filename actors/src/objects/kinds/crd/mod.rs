//! `apiextensions.k8s.io/v1`: what a CustomResourceDefinition is and may say
//! (apiextensions-apiserver `pkg/apis/apiextensions/validation/validation.go`, `v1/defaults.go`).
//! Which names it gets and when it goes is the API server's to say (`apiserver/definitions`).

mod schemas;
#[cfg(test)]
mod tests;

use super::cells::{Cell, NAME, column};
use super::declaration::{Parts, STATUS, cluster, rules};
use super::{Declaration, Fields, Kind, Rules, templates};
use crate::objects::names;
use crate::objects::strict::Reader;
use crate::objects::validation::Causes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Error, Value, json};

pub(super) static CUSTOM_RESOURCE_DEFINITION: Declaration = Declaration {
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: STATUS,
    columns: &[NAME, column("Created At", Cell::Created)],
    generation: true,
    rules: Some(Rules {
        shape,
        defaults,
        validate,
        update: |new, old, causes| {
            templates::immutable(new, old, &["spec.group", "spec.names.plural"], causes);
        },
        ..rules::<CustomResourceDefinition>()
    }),
    ..cluster(
        Kind::CustomResourceDefinition,
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
    )
};

/// Bounds in schemas are numbers with fractions by their type: one without is written without.
fn shape(value: Reader<'_, '_>) -> Result<Parts, Error> {
    let (meta, mut fields, status) = (rules::<CustomResourceDefinition>().shape)(value)?;
    fields.values_mut().for_each(whole);
    Ok((meta, fields, status))
}

fn whole(value: &mut Value) {
    /// Up to here a number with a fraction has one for each without.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().filter(|one| one.fract() == 0.0 && one.abs() < EXACT);
            if let Some(exact) = exact {
                *value = (exact as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(fields) => fields.values_mut().for_each(whole),
        _ => {}
    }
}

fn defaults(fields: &mut Fields) {
    let kind = fields.text("spec.names.kind").to_owned();
    if fields.at("spec.names").is_some() && !kind.is_empty() {
        fields.default("spec.names.singular", kind.to_lowercase());
        fields.default("spec.names.listKind", format!("{kind}List"));
    }
    if fields.at("spec").is_some() {
        fields.default("spec.conversion", json!({"strategy": "None"}));
    }
}

fn validate(fields: &Fields, causes: &mut Causes) {
    group(fields.text("spec.group"), causes);
    match fields.text("spec.scope") {
        "" => causes.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => causes.unsupported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    let versions = fields.list("spec.versions");
    for (index, version) in versions.iter().enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            let path = format_args!("spec.versions[{index}].schema.openAPIV3Schema");
            causes.required(path, "");
        }
    }
    let common = |part: &str| common(versions, part);
    let [schema, subresources, columns] =
        [common("schema"), common("subresources"), common("additionalPrinterColumns")];
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        label(&format!("{path}.name"), version["name"].as_str().unwrap_or_default(), "", causes);
        if schema.is_none() {
            let place = format!("{path}.schema.openAPIV3Schema");
            schemas::check(&version["schema"]["openAPIV3Schema"], status(version), &place, causes);
        }
        if subresources.is_none() {
            scale(&version["subresources"]["scale"], &format!("{path}.subresources"), causes);
        }
        if columns.is_none() {
            let place = format!("{path}.additionalPrinterColumns");
            self::columns(&version["additionalPrinterColumns"], &place, causes);
        }
        selectable(version, &format!("{path}.selectableFields"), causes);
    }
    of_versions(versions, causes);
    names(fields, causes);
    if let Some(schema) = schema {
        let (schema, any) = (&schema["openAPIV3Schema"], versions.iter().any(status));
        schemas::check(schema, any, "spec.validation.openAPIV3Schema", causes);
    }
    if let Some(subresources) = subresources {
        scale(&subresources["scale"], "spec.subresources", causes);
    }
    if let Some(columns) = columns {
        self::columns(columns, "spec.additionalPrinterColumns", causes);
    }
    conversion(fields, causes);
}

fn status(version: &Value) -> bool {
    !version["subresources"]["status"].is_null()
}

/// A part that is the same in all versions: upstream has it once, in the definition itself, and
/// that is where it says what is wrong with it.
fn common<'a>(versions: &'a [Value], part: &str) -> Option<&'a Value> {
    let (first, rest) = versions.split_first()?;
    let first = first.get(part).filter(|said| !said.is_null())?;
    rest.iter().all(|version| version.get(part) == Some(first)).then_some(first)
}

fn group(group: &str, causes: &mut Causes) {
    let wrong = names::subdomain(group);
    let quoted = format!("{group:?}");
    if group.is_empty() {
        causes.required("spec.group", "");
    } else if !wrong.is_empty() {
        causes.invalid("spec.group", quoted, wrong.join(","));
    } else if !group.contains('.') {
        causes.invalid("spec.group", quoted, "should be a domain with at least one dot");
    }
}

/// `prefix` is what is said before what is wrong.
fn label(path: &str, text: &str, prefix: &str, causes: &mut Causes) {
    let wrong = names::label_1035(&text.to_lowercase());
    let wrong = if prefix.is_empty() { names::label_1035(text) } else { wrong };
    if !wrong.is_empty() {
        causes.invalid(path, format_args!("{text:?}"), format_args!("{prefix}{}", wrong.join(",")));
    }
}

fn of_versions(versions: &[Value], causes: &mut Causes) {
    let named: Vec<&str> = versions.iter().filter_map(|version| version["name"].as_str()).collect();
    let twice = (1..named.len()).any(|at| named[..at].contains(&named[at]));
    let shown = json!(named);
    if twice {
        causes.invalid("spec.versions", &shown, "must contain unique version names");
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.invalid("spec.versions", &shown, why);
    }
}

/// How a kind may be written besides in small letters.
const MIXED: &str = "may have mixed case, but should otherwise match: ";

fn names(fields: &Fields, causes: &mut Causes) {
    let text = |name: &str| fields.text(&format!("spec.names.{name}")).to_owned();
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(name).is_empty() {
            causes.required(format_args!("spec.names.{name}"), "");
        }
    }
    let kinds = [("plural", ""), ("singular", ""), ("kind", MIXED), ("listKind", MIXED)];
    for (name, prefix) in kinds.into_iter().filter(|(name, _)| !text(name).is_empty()) {
        label(&format!("spec.names.{name}"), &text(name), prefix, causes);
    }
    let list = |name: &str, causes: &mut Causes| {
        let path = format!("spec.names.{name}");
        for (index, word) in fields.list(&path).iter().enumerate() {
            let word = word.as_str().unwrap_or_default();
            label(&format!("{path}[{index}]"), word, "", causes);
        }
    };
    list("shortNames", causes);
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let why = "kind and listKind may not be the same";
        causes.invalid("spec.names.listKind", format_args!("{:?}", text("listKind")), why);
    }
    list("categories", causes);
}

/// `path` is that of the subresources.
fn scale(scale: &Value, path: &str, causes: &mut Causes) {
    if scale.is_null() {
        return;
    }
    let fields: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        (
            "labelSelectorPath",
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
        ),
    ];
    for (field, begins, why) in fields {
        let said = scale[field].as_str().unwrap_or_default();
        let field_path = format!("{path}.scale.{field}");
        match said {
            "" if field == "labelSelectorPath" => {}
            "" => causes.required(field_path, ""),
            _ if !simple_path(said, &field_path, causes) => {}
            _ if begins.iter().any(|begin| said.starts_with(begin)) => {}
            _ => causes.invalid(field_path, format_args!("{said:?}"), why),
        }
    }
}

fn simple_path(said: &str, path: &str, causes: &mut Causes) -> bool {
    let simple = said.starts_with('.');
    if !simple {
        let why = "must be a simple json path starting with .";
        causes.invalid(path, format_args!("{said:?}"), why);
    }
    simple
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn columns(columns: &Value, path: &str, causes: &mut Causes) {
    for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        let path = format!("{path}[{index}]");
        if text("name").is_empty() {
            causes.required(format_args!("{path}.name"), "");
        }
        let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
        let place = format!("{path}.type");
        match text("type") {
            "" => causes.required(place, &one_of(&COLUMN_TYPES)),
            known if COLUMN_TYPES.contains(&known) => {}
            other => causes.invalid(place, format_args!("{other:?}"), one_of(&COLUMN_TYPES)),
        }
        let format = text("format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            let place = format_args!("{path}.format");
            causes.invalid(place, format_args!("{format:?}"), one_of(&FORMATS));
        }
        match text("jsonPath") {
            "" => causes.required(format_args!("{path}.JSONPath"), ""),
            said => {
                simple_path(said, &format!("{path}.JSONPath"), causes);
            }
        }
    }
}

/// The most fields that objects can be selected by.
const MOST_SELECTABLE: usize = 8;

fn selectable(version: &Value, path: &str, causes: &mut Causes) {
    let all = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, field) in all.iter().enumerate() {
        let said = field["jsonPath"].as_str().unwrap_or_default();
        let place = format!("{path}[{index}].jsonPath");
        let quoted = format!("{said:?}");
        let mut schema = &version["schema"]["openAPIV3Schema"];
        for name in said.trim_start_matches('.').split('.') {
            schema = &schema["properties"][name];
        }
        let scalar = schema["type"].as_str().unwrap_or_default();
        if said.is_empty() {
            causes.required(place, "");
        } else if !said.starts_with('.') || schema.is_null() {
            causes.invalid(place, quoted, "is an invalid path: does not refer to a valid field");
        } else if said.starts_with(".metadata") {
            causes.invalid(place, quoted, "must not point to fields in metadata");
        } else if !["string", "boolean", "integer"].contains(&scalar) {
            let why = "must point to a field of type string, boolean or integer. Enum string \
                       fields and strings with formats are allowed.";
            causes.invalid(place, quoted, why);
        } else if all[..index].iter().any(|other| other["jsonPath"] == said) {
            causes.duplicate(place, quoted);
        }
    }
    if all.len() > MOST_SELECTABLE {
        let size = all.len();
        let body = format_args!("Too many: {size}: must have at most {MOST_SELECTABLE} items");
        causes.push(path, body);
    }
}

/// The other strategy of upstream, Webhook, asks a program of the definition's author.
fn conversion(fields: &Fields, causes: &mut Causes) {
    match fields.text("spec.conversion.strategy") {
        "" => causes.required("spec.conversion.strategy", ""),
        "None" => {}
        other => causes.unsupported("spec.conversion.strategy", other, &["None"]),
    }
    if fields.at("spec.conversion.webhook").is_some_and(|said| !said.is_null()) {
        let why = "should not be set when strategy is not set to Webhook";
        causes.forbidden("spec.conversion.webhookClientConfig", why);
    }
    if fields.flag("spec.preserveUnknownFields") {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                   spec.versions[*].schema instead";
        causes.invalid("spec.preserveUnknownFields", true, why);
    }
}
