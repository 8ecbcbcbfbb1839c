//! What a kind is declared with.

use super::{Column, Fields, Kind};
use crate::objects::strict::Reader;
use crate::objects::validation::Causes;
use crate::objects::{ObjectMeta, Uid, names};
use k8s_openapi::Metadata;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Error, Map, Value};
use std::mem::take;

/// A kind, declared.
#[derive(Debug)]
pub struct Declaration {
    /// `Pod`.
    pub kind: &'static str,
    /// As in a path.
    pub plural: &'static str,
    /// With the group, as in a manifest.
    pub api_version: &'static str,
    pub namespaced: bool,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub subresources: &'static [Sub],
    /// For fields that upstream has one of as a selector besides the name and the namespace.
    pub fields: &'static [&'static str],
    pub columns: &'static [Column],
    /// Whether `metadata.generation` counts the changes of the spec.
    pub generation: bool,
    /// What a name may be; for each thing that is wrong, a sentence.
    pub name: fn(&str) -> Vec<String>,
    /// What whoever uses it is told, if it is not to be used any more.
    pub deprecated: Option<&'static str>,
    /// Of a kind without types of its own: its objects are held as their fields.
    pub rules: Option<Rules>,
}

/// How objects of a kind come about and change (upstream's strategies, defaults and validation:
/// `pkg/registry`, `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation`).
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub(in crate::objects) shape: Shape,
    /// What a new object gets besides the defaults.
    pub create: fn(&mut Fields, New<'_>),
    /// The status of a new object, of a kind that has one.
    pub status: fn() -> Value,
    /// What a field that was left out means.
    pub defaults: fn(&mut Fields),
    pub validate: fn(&Fields, &mut Causes),
    /// What may not change: the new fields, then the old ones.
    pub update: fn(&Fields, &Fields, &mut Causes),
}

/// The identity of an object that is being created.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    pub name: &'a str,
    pub uid: Uid,
}

/// Metadata, the fields besides it, and the status.
pub(in crate::objects) type Parts = (ObjectMeta, Map<String, Value>, Value);

/// Reads an object of the kind by its type and takes it apart.
pub(in crate::objects) type Shape = fn(Reader<'_, '_>) -> Result<Parts, Error>;

/// Something below an object's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    Status,
    Scale,
    Binding,
    /// A pod's, which are not written with the rest of it.
    EphemeralContainers,
    Eviction,
    Token,
    /// Whether a certificate may be issued: a part of the status that only some may write.
    Approval,
}

impl Sub {
    pub fn name(self) -> &'static str {
        match self {
            Sub::Status => "status",
            Sub::Scale => "scale",
            Sub::Binding => "binding",
            Sub::EphemeralContainers => "ephemeralcontainers",
            Sub::Eviction => "eviction",
            Sub::Token => "token",
            Sub::Approval => "approval",
        }
    }
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Sub::Status | Sub::Scale | Sub::Approval | Sub::EphemeralContainers => {
                &["get", "patch", "update"]
            }
            Sub::Binding | Sub::Eviction | Sub::Token => &["create"],
        }
    }
    /// Of what is read and written there: group, version, kind.
    pub fn type_of(self, kind: Kind) -> (&'static str, &'static str, &'static str) {
        match self {
            Sub::Status | Sub::Approval | Sub::EphemeralContainers => {
                (kind.group(), kind.version(), kind.name())
            }
            Sub::Scale => ("autoscaling", "v1", "Scale"),
            Sub::Binding => ("", "v1", "Binding"),
            Sub::Eviction => ("policy", "v1", "Eviction"),
            Sub::Token => ("authentication.k8s.io", "v1", "TokenRequest"),
        }
    }
}

const SINGLE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Declaration {
    pub fn verbs(&self) -> &'static [&'static str] {
        // Each namespace is deleted by its name, as upstream has it.
        if (self.api_version, self.kind) == ("v1", "Namespace") { SINGLE } else { VERBS }
    }
    /// `pod`.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }
    pub fn has(&self, sub: Sub) -> bool {
        self.subresources.contains(&sub)
    }
}

pub(super) const ALL: &[&str] = &["all"];
pub(super) const STATUS: &[Sub] = &[Sub::Status];
pub(super) const SCALED: &[Sub] = &[Sub::Scale, Sub::Status];

/// A kind whose objects live in a namespace.
pub(super) const fn namespaced(
    kind: Kind,
    api_version: &'static str,
    plural: &'static str,
) -> Declaration {
    Declaration {
        kind: kind.name(),
        plural,
        api_version,
        namespaced: true,
        short: &[],
        categories: &[],
        subresources: &[],
        fields: &[],
        columns: &[],
        generation: false,
        name: names::subdomain,
        deprecated: None,
        rules: None,
    }
}

/// A kind whose objects live in none.
pub(super) const fn cluster(
    kind: Kind,
    api_version: &'static str,
    plural: &'static str,
) -> Declaration {
    Declaration { namespaced: false, ..namespaced(kind, api_version, plural) }
}

/// The rules of a kind of this type, of which nothing more is asked yet.
pub(super) const fn rules<T>() -> Rules
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta>,
{
    Rules {
        shape: shape::<T>,
        create: |_, _| {},
        status: || Value::Object(Map::new()),
        defaults: |_| {},
        validate: |_, _| {},
        update: |_, _, _| {},
    }
}

fn shape<T>(value: Reader<'_, '_>) -> Result<Parts, Error>
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta>,
{
    let mut whole = T::deserialize(value)?;
    let meta = take(whole.metadata_mut());
    let mut fields = match serde_json::to_value(&whole)? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for other in ["apiVersion", "kind", "metadata"] {
        fields.remove(other);
    }
    let status = fields.remove("status").unwrap_or_default();
    Ok((meta, fields, status))
}
