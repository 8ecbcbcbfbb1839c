//! The schema of a custom resource (`openAPIV3Schema` of a CustomResourceDefinition), and what it
//! makes of a value: `structural` says whether it is one, `prune` takes out what it does not know,
//! `fill` puts in its defaults, `check` and `lists` say what is wrong, in upstream's words.
//!
//! Upstream: apiextensions-apiserver `pkg/apiserver/schema`, and kube-openapi
//! `pkg/validation/validate`.

mod check;
mod fill;
mod formats;
mod lists;
mod pattern;
mod prune;
mod shown;
mod structural;
#[cfg(test)]
mod tests;

pub use pattern::Pattern;

use super::ParseError;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `JSONSchemaProps` (apiextensions/v1), as far as a structural schema may use it: `$ref`,
/// `definitions`, `dependencies`, `patternProperties` and `additionalItems` it may not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    pub r#type: String,
    pub format: String,
    pub title: String,
    pub description: String,
    pub nullable: bool,
    #[serde(deserialize_with = "said")]
    pub default: Option<Value>,
    pub external_docs: Option<Value>,

    pub properties: BTreeMap<String, Schema>,
    pub additional_properties: Option<Additional>,
    pub items: Option<Box<Schema>>,

    pub required: Vec<String>,
    pub min_properties: Option<i64>,
    pub max_properties: Option<i64>,
    pub min_items: Option<i64>,
    pub max_items: Option<i64>,
    pub unique_items: bool,
    /// Characters.
    pub min_length: Option<i64>,
    pub max_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub r#enum: Vec<Value>,

    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,

    #[serde(rename = "x-kubernetes-int-or-string")]
    pub int_or_string: bool,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub preserve_unknown_fields: bool,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    pub embedded_resource: bool,
    #[serde(rename = "x-kubernetes-list-type")]
    pub list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    pub map_type: Option<String>,
    /// Rules in CEL, which are not evaluated.
    #[serde(rename = "x-kubernetes-validations")]
    pub validations: Vec<Value>,
}

/// What of fields that are not among the properties.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Additional {
    /// Whether there may be any.
    Allowed(bool),
    Each(Box<Schema>),
}

/// `null` is a default as well.
fn said<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Schema {
    /// Reads `openAPIV3Schema`.
    pub fn read(schema: &Value) -> Result<Schema, ParseError> {
        Schema::deserialize(schema).map_err(|error| ParseError(error.to_string()))
    }

    /// Of fields that are not among the properties, if they have one.
    pub fn additional(&self) -> Option<&Schema> {
        match &self.additional_properties {
            Some(Additional::Each(schema)) => Some(schema),
            _ => None,
        }
    }
}
