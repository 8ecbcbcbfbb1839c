//! A place in an object, and what the types say of it.

use super::{Field, Many, Merged, Message, Owned, Type};
use serde_json::Value;

/// What stands somewhere in an object, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A struct: the object itself.
    Object(&'static Message),
    Field(&'static Field),
    /// One of what a field has many of.
    Each(&'static Field),
    /// Of a custom type, or not known.
    Unknown,
}

impl Place {
    /// Below it, by a field's name or a map's key.
    pub fn field(self, name: &str) -> Place {
        if let Place::Field(field) = self
            && field.many == Many::Map
        {
            return Place::Each(field);
        }
        let field = self.message().and_then(|message| message.field(name));
        field.map_or(Place::Unknown, Place::Field)
    }

    /// An element, if it is a list.
    pub fn element(self) -> Place {
        match self {
            Place::Field(field) if field.many == Many::List => Place::Each(field),
            _ => Place::Unknown,
        }
    }

    /// How what is there is merged.
    pub fn merged(self, is_list: bool) -> Merged {
        match self {
            Place::Field(field) if (field.many == Many::List) == is_list => field.merged,
            _ if is_list => Merged::Whole,
            _ => Merged::Fields,
        }
    }

    /// How what is there is owned. Of what is not known, maps are granular and lists atomic
    /// (structured-merge-diff's deduced type).
    pub fn owned(self, is_list: bool) -> Owned {
        match self {
            Place::Field(field) if (field.many == Many::List) == is_list => field.owned.clone(),
            Place::Each(field) if field.kind == Type::Json => Owned::Atomic,
            Place::Each(field) if field.message().is_some_and(|message| message.atomic) => {
                Owned::Atomic
            }
            _ if is_list => Owned::Atomic,
            _ => Owned::Granular,
        }
    }

    /// The struct that is there.
    pub fn message(self) -> Option<&'static Message> {
        match self {
            Place::Object(message) => Some(message),
            Place::Field(field) if field.many != Many::One => None,
            Place::Field(field) | Place::Each(field) => field.message(),
            Place::Unknown => None,
        }
    }

    /// Whether it is a struct that has this field.
    pub fn declares(self, name: &str) -> bool {
        self.message().is_some_and(|message| message.field(name).is_some())
    }

    /// What a field is when it is not said, if it is a key of a list's elements.
    pub fn default(self, name: &str) -> Option<&'static Value> {
        match self.field(name) {
            Place::Field(field) => field.default.as_ref(),
            _ => None,
        }
    }
}
