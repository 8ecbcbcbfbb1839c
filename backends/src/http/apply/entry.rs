//! An entry of `managedFields` as text, to and from sets of fields without a value in between.

use super::fields::Set;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kubesim_actors::objects::Managed;
use serde::{Deserialize, Deserializer, Serialize};

/// One to be written: [`ManagedFieldsEntry`], in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub api_version: &'a str,
    pub fields_type: &'a str,
    pub fields_v1: &'a Set,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub manager: &'a str,
    pub operation: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub subresource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<&'a Time>,
}

/// One that was read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    pub api_version: Option<String>,
    pub fields_type: Option<String>,
    /// The error says what is no set.
    #[serde(default, deserialize_with = "set")]
    pub fields_v1: Option<Result<Set, String>>,
    pub manager: Option<String>,
    pub operation: Option<String>,
    pub subresource: Option<String>,
    pub time: Option<Time>,
}

impl Said {
    pub fn list(managed: &Managed) -> Vec<Said> {
        let Some(text) = managed.text() else { return Vec::new() };
        // In the wrong ones, what is wrong is looked for once more, to be told.
        serde_json::from_str(text)
            .unwrap_or_else(|_| managed.entries().into_iter().flatten().map(Said::from).collect())
    }
}

impl From<ManagedFieldsEntry> for Said {
    fn from(entry: ManagedFieldsEntry) -> Said {
        Said {
            api_version: entry.api_version,
            fields_type: entry.fields_type,
            fields_v1: entry.fields_v1.map(|fields| Set::from_json(&fields.0)),
            manager: entry.manager,
            operation: entry.operation,
            subresource: entry.subresource,
            time: entry.time,
        }
    }
}

type Fields = Option<Result<Set, String>>;

fn set<'de, D: Deserializer<'de>>(fields: D) -> Result<Fields, D::Error> {
    Option::<Set>::deserialize(fields).map(|set| set.map(Ok))
}
