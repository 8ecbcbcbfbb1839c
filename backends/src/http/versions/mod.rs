//! Versions. An object is held in one version of its kind, its declaration's; some kinds are served
//! in another one as well. What goes out is converted from the held form and what comes in is
//! converted to it, here at the front: nobody behind it knows of other versions. A conversion loses
//! nothing, as upstream's: what a version has no field for, it keeps in annotations.

mod autoscaling;
mod declared;
mod events;
#[cfg(test)]
mod tests;

use super::resources::{Resource, Sub};
use super::status::Failure;
use super::types::{self, Message, Place};
use super::writing::Writing;
use bytes::Bytes;
use declared::Declared;
use kubesim_actors::objects::definition::{Printed, Scaled};
use kubesim_actors::objects::validation::Causes;
use kubesim_actors::objects::{Definitions, Kind, Object, ParseError, Path, UnknownField};
use kubesim_actors::ports::api::{Error, Reason};
use serde_json::{Map, Value};
use std::fmt;

/// What was read, or which value could not be; and the fields that there are not.
pub type Read<T> = (Result<T, (Path, ParseError)>, Vec<UnknownField>);

/// A version in which a kind is served beside the one in which it is held.
struct Other {
    kind: Kind,
    api_version: &'static str,
    /// A strict reading by the version's type.
    retyped: fn(&Value) -> Read<Value>,
    /// Makes this version's fields of those that are held, and the other way round.
    from_held: fn(&mut Map<String, Value>),
    to_held: fn(&mut Map<String, Value>),
    /// Fields that are selected by, but for the metadata's, and how they are called where they are
    /// held.
    fields: &'static [(&'static str, &'static str)],
    /// What the version forbids beyond what holds in all.
    check: fn(&Object, Option<&Object>, &mut Causes),
}

static OTHERS: [&Other; 2] = [&autoscaling::V1, &events::V1];

/// A kind in one of the versions in which it is served.
#[derive(Clone)]
pub struct Served {
    pub kind: Kind,
    version: Version,
}

#[derive(Clone)]
enum Version {
    /// The one in which it is held.
    Held,
    Other(&'static Other),
    /// One that a definition declares.
    Declared(Declared),
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}

impl PartialEq for Served {
    fn eq(&self, other: &Served) -> bool {
        self.kind == other.kind && self.api_version() == other.api_version()
    }
}

impl Served {
    /// In the version in which it is held.
    pub fn held(kind: Kind) -> Served {
        Served { kind, version: Version::Held }
    }

    /// All kinds that are there from the start, in all versions: of a group, the version that
    /// clients are to prefer comes first.
    fn of_the_start() -> impl Iterator<Item = Served> {
        let held = Kind::ALL.iter().map(|kind| Served::held(*kind));
        let other =
            |other: &'static Other| Served { kind: other.kind, version: Version::Other(other) };
        held.chain(OTHERS.into_iter().map(other))
    }

    /// These and those that definitions declare.
    pub fn all(definitions: &Definitions) -> impl Iterator<Item = Served> {
        let declared = definitions.iter().flat_map(Declared::all).map(Served::declared);
        Served::of_the_start().chain(declared)
    }

    fn declared(declared: Declared) -> Served {
        Served { kind: declared.kind(), version: Version::Declared(declared) }
    }

    /// The same kind in another version, if it is served in it.
    pub fn in_version(&self, api_version: &str) -> Option<Served> {
        let same = |one: &Served| one.kind == self.kind && one.api_version() == api_version;
        match &self.version {
            Version::Declared(declared) => declared.others().map(Served::declared).find(same),
            _ => Served::of_the_start().find(same),
        }
    }

    /// What goes out is as it is held.
    pub fn is_held(&self) -> bool {
        matches!(self.version, Version::Held)
    }
    pub fn is_declared(&self) -> bool {
        matches!(self.version, Version::Declared(_))
    }
    pub fn resource(&self) -> &'static Resource {
        self.kind.declaration()
    }
    pub fn subresources(&self) -> &'static [Sub] {
        match &self.version {
            Version::Declared(declared) => declared.version().subresources,
            _ => self.resource().subresources,
        }
    }
    pub fn has(&self, sub: Sub) -> bool {
        self.subresources().contains(&sub)
    }
    pub fn short(&self) -> Vec<&str> {
        match &self.version {
            Version::Declared(declared) => declared.short(),
            _ => self.resource().short.to_vec(),
        }
    }
    pub fn categories(&self) -> Vec<&str> {
        match &self.version {
            Version::Declared(declared) => declared.categories(),
            _ => self.resource().categories.to_vec(),
        }
    }
    /// `pod`.
    pub fn singular(&self) -> String {
        match &self.version {
            Version::Declared(declared) => declared.singular(),
            _ => self.resource().singular(),
        }
    }
    /// `PodList`.
    pub fn list_kind(&self) -> String {
        match &self.version {
            Version::Declared(declared) => declared.list_kind(),
            _ => format!("{}List", self.kind),
        }
    }
    pub fn verbs(&self) -> &'static [&'static str] {
        match &self.version {
            Version::Declared(declared) => declared.verbs(),
            _ => self.resource().verbs(),
        }
    }
    /// The columns that a definition declares.
    pub fn printed(&self) -> Option<&[Printed]> {
        match &self.version {
            Version::Declared(declared) => Some(&declared.version().columns),
            _ => None,
        }
    }
    /// Where a declared kind has the numbers of a Scale.
    pub fn scaled(&self) -> Option<&Scaled> {
        match &self.version {
            Version::Declared(declared) => declared.version().scale.as_ref(),
            _ => None,
        }
    }
    /// The schema of a declared kind, as it was written.
    pub fn schema(&self) -> Option<&Value> {
        match &self.version {
            Version::Declared(declared) => Some(&declared.version().text),
            _ => None,
        }
    }
    /// What a client of an old version or kind is told.
    pub fn warning(&self) -> Option<&str> {
        match &self.version {
            Version::Declared(declared) => declared.version().warning.as_deref(),
            Version::Held | Version::Other(_) => self.resource().deprecated,
        }
    }
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> &'static str {
        match &self.version {
            Version::Held => self.kind.api_version(),
            Version::Other(other) => other.api_version,
            Version::Declared(declared) => declared.version().api_version,
        }
    }
    pub fn group(&self) -> &'static str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }
    pub fn version(&self) -> &'static str {
        self.api_version().rsplit('/').next().unwrap_or_default()
    }

    /// Group, version and kind of what is read and written there, or at something below it.
    pub fn type_of(&self, sub: Option<Sub>) -> (&'static str, &'static str, &'static str) {
        match sub {
            None | Some(Sub::Status | Sub::EphemeralContainers) => {
                (self.group(), self.version(), self.kind.name())
            }
            Some(sub) => sub.type_of(self.kind),
        }
    }

    /// What its objects consist of.
    pub fn message(&self) -> &'static Message {
        types::of(self.type_of(None))
    }

    pub fn place(&self) -> Place<'_> {
        match &self.version {
            Version::Declared(declared) => declared.place(),
            _ => Place::Object(self.message()),
        }
    }

    /// Whether the kind says itself which fields objects are selected by.
    pub fn selects_more(&self) -> bool {
        match &self.version {
            Version::Held => !self.resource().fields.is_empty(),
            Version::Other(other) => !other.fields.is_empty(),
            Version::Declared(_) => true,
        }
    }

    /// How a field that objects are selected by is called where they are held.
    pub fn selected(&self, field: &str) -> Option<String> {
        let own = |known: bool| known.then(|| field.to_owned());
        own(["metadata.name", "metadata.namespace"].contains(&field)).or_else(|| {
            match &self.version {
                Version::Held => own(self.resource().fields.contains(&field)),
                Version::Other(other) => {
                    let mut fields = other.fields.iter();
                    fields.find(|(name, _)| *name == field).map(|(_, held)| (*held).to_owned())
                }
                Version::Declared(declared) => {
                    own(declared.version().selectable.iter().any(|path| path == field))
                }
            }
        })
    }

    /// An object in this version.
    pub fn json(&self, object: &Object) -> Value {
        match &self.version {
            Version::Held => object.to_json(),
            Version::Other(_) => Served::held(self.kind).converted(object.to_json(), self),
            Version::Declared(declared) => declared.converted(object.to_json()),
        }
    }

    /// Its text.
    pub fn text(&self, object: &Object, writing: Writing) -> Bytes {
        match &self.version {
            Version::Held => writing.text(object),
            _ => {
                let mut text = Vec::new();
                let bare = self.json(object).to_string();
                writing.rewrite(self.type_of(None), bare.as_bytes(), &mut text);
                text.into()
            }
        }
    }

    /// A value of this version in another one of its kind.
    pub fn converted(&self, mut value: Value, to: &Served) -> Value {
        if self == to {
            return value;
        }
        if let Version::Declared(declared) = &to.version {
            return declared.converted(value);
        }
        if let Value::Object(fields) = &mut value {
            if let Version::Other(from) = self.version {
                (from.to_held)(fields);
            }
            if let Version::Other(to) = to.version {
                (to.from_held)(fields);
            }
            fields.insert("apiVersion".to_owned(), to.api_version().into());
        }
        value
    }

    /// Reads an object of this version strictly, as [`Object::from_json_strict`]; the fields that
    /// there are not, by their places.
    pub fn read(&self, value: &Value) -> (Result<Object, (Path, ParseError)>, Vec<String>) {
        let other = match &self.version {
            Version::Held => {
                let (object, unknown) = Object::from_json_strict(self.kind, value);
                return (object, places(&unknown));
            }
            Version::Declared(declared) => return declared.read(value),
            Version::Other(other) => other,
        };
        let (typed, unknown) = (other.retyped)(value);
        let object = typed.and_then(|typed| {
            let held = self.converted(typed, &Served::held(self.kind));
            Object::from_json_strict(self.kind, &held).0
        });
        (object, places(&unknown))
    }

    /// Whether an object may be written in this version, as a new one or in place of `live`; or,
    /// if `status` says so, its status.
    pub fn check(
        &self,
        object: &Object,
        live: Option<&Object>,
        status: bool,
    ) -> Result<(), Failure> {
        let mut causes = Causes::default();
        match &self.version {
            Version::Held => return Ok(()),
            Version::Other(other) => (other.check)(object, live, &mut causes),
            Version::Declared(declared) => declared.check(object, live, status, &mut causes),
        }
        let causes = match &causes.into_list()[..] {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let name = &object.key.name;
        let group = self.kind.group();
        let dot = if group.is_empty() { "" } else { "." };
        let message = format!("{}{dot}{group} {name:?} is invalid: {causes}", self.kind);
        Err(Failure::of(Error::new(Reason::Invalid, message), self.kind, name))
    }
}

fn places(unknown: &[UnknownField]) -> Vec<String> {
    unknown.iter().map(|field| field.path.to_string()).collect()
}
