//! A place in an object, and what the types say of it.

use super::{Field, Many, Merged, Message};

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
        let message = match self {
            Place::Object(message) => Some(message),
            Place::Field(field) if field.many == Many::Map => return Place::Each(field),
            Place::Field(field) if field.many == Many::List => None,
            Place::Field(field) | Place::Each(field) => field.message(),
            Place::Unknown => None,
        };
        message.and_then(|message| message.field(name)).map_or(Place::Unknown, Place::Field)
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
}
