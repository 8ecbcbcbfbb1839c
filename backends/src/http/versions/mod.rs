//! Versions. An object is held in one version of its kind, its declaration's; some kinds are served
//! in another one as well. What goes out is converted from the held form and what comes in is
//! converted to it, here at the front: nobody behind it knows of other versions. A conversion loses
//! nothing, as upstream's: what a version has no field for, it keeps in annotations.

mod autoscaling;
mod events;
#[cfg(test)]
mod tests;

use super::resources::{Resource, Sub};
use super::status::Failure;
use super::types::{self, Message};
use kubesim_actors::objects::validation::Causes;
use kubesim_actors::objects::{Kind, Object, ParseError, Path, UnknownField};
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
#[derive(Clone, Copy)]
pub struct Served {
    pub kind: Kind,
    /// If it is not the version in which it is held.
    other: Option<&'static Other>,
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
        Served { kind, other: None }
    }

    /// All kinds in all versions: of a group, the version that clients are to prefer comes first.
    pub fn all() -> impl Iterator<Item = Served> {
        let held = Kind::ALL.iter().map(|kind| Served::held(*kind));
        held.chain(OTHERS.map(|other| Served { kind: other.kind, other: Some(other) }))
    }

    /// The same kind in another version, if it is served in it.
    pub fn in_version(self, api_version: &str) -> Option<Served> {
        Served::all().find(|one| one.kind == self.kind && one.api_version() == api_version)
    }

    pub fn is_held(self) -> bool {
        self.other.is_none()
    }
    pub fn resource(self) -> &'static Resource {
        self.kind.declaration()
    }
    /// `v1`, `apps/v1`.
    pub fn api_version(self) -> &'static str {
        self.other.map_or(self.kind.api_version(), |other| other.api_version)
    }
    pub fn group(self) -> &'static str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }
    pub fn version(self) -> &'static str {
        self.api_version().rsplit('/').next().unwrap_or_default()
    }

    /// Group, version and kind of what is read and written there, or at something below it.
    pub fn type_of(self, sub: Option<Sub>) -> (&'static str, &'static str, &'static str) {
        match sub {
            None | Some(Sub::Status) => (self.group(), self.version(), self.kind.name()),
            Some(sub) => sub.type_of(self.kind),
        }
    }

    /// What its objects consist of.
    pub fn message(self) -> &'static Message {
        types::of(self.type_of(None))
    }

    /// How a field that objects are selected by is called where they are held.
    pub fn selected(self, field: &str) -> Option<&'static str> {
        let held = |known: &[&'static str]| known.iter().find(|name| **name == field).copied();
        let meta = held(&["metadata.name", "metadata.namespace"]);
        meta.or_else(|| match self.other {
            None => held(self.resource().fields),
            Some(other) => {
                let mut fields = other.fields.iter();
                fields.find(|(name, _)| *name == field).map(|(_, held)| *held)
            }
        })
    }

    /// An object in this version.
    pub fn json(self, object: &Object) -> Value {
        Served::held(self.kind).converted(object.to_json(), self)
    }

    /// A value of this version in another one of its kind.
    pub fn converted(self, mut value: Value, to: Served) -> Value {
        if self == to {
            return value;
        }
        if let Value::Object(fields) = &mut value {
            if let Some(from) = self.other {
                (from.to_held)(fields);
            }
            if let Some(to) = to.other {
                (to.from_held)(fields);
            }
            fields.insert("apiVersion".to_owned(), to.api_version().into());
        }
        value
    }

    /// Reads an object of this version strictly, as [`Object::from_json_strict`].
    pub fn read(self, value: &Value) -> Read<Object> {
        let Some(other) = self.other else {
            return Object::from_json_strict(self.kind, value);
        };
        let (typed, unknown) = (other.retyped)(value);
        let object = typed.and_then(|typed| {
            let held = self.converted(typed, Served::held(self.kind));
            Object::from_json_strict(self.kind, &held).0
        });
        (object, unknown)
    }

    /// Whether an object may be written in this version, as a new one or in place of `live`.
    pub fn check(self, object: &Object, live: Option<&Object>) -> Result<(), Failure> {
        let Some(other) = self.other else { return Ok(()) };
        let mut causes = Causes::default();
        (other.check)(object, live, &mut causes);
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
