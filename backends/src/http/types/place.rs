//! A place in an object, and what the types say of it.

use super::{Field, Many, Merged, Message, Owned, Type};
use kubesim_actors::objects::schema::{Additional, Schema};
use serde_json::Value;

/// What stands somewhere in an object, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A struct: the object itself.
    Object(&'static Message),
    Field(&'static Field),
    /// One of what a field has many of.
    Each(&'static Field),
    /// Of a type that a definition declares. It may say itself which object it is.
    Declared {
        schema: &'a Schema,
        object: bool,
    },
    /// Not known.
    Unknown,
}

/// What an object says of itself, besides its metadata.
const TYPE: [&str; 2] = ["apiVersion", "kind"];

impl<'a> Place<'a> {
    fn declared(schema: &'a Schema) -> Place<'a> {
        Place::Declared { schema, object: schema.embedded_resource }
    }

    /// Below it, by a field's name or a map's key.
    pub fn field(self, name: &str) -> Place<'a> {
        match self {
            Place::Field(field) if field.many == Many::Map => Place::Each(field),
            Place::Declared { object: true, .. } if name == "metadata" => {
                super::named("meta/v1.ObjectMeta").map_or(Place::Unknown, Place::Object)
            }
            Place::Declared { schema, .. } => {
                let below = schema.properties.get(name).or_else(|| schema.additional());
                below.map_or(Place::Unknown, Place::declared)
            }
            _ => {
                let field = self.message().and_then(|message| message.field(name));
                field.map_or(Place::Unknown, Place::Field)
            }
        }
    }

    /// An element, if it is a list.
    pub fn element(self) -> Place<'a> {
        match self {
            Place::Field(field) if field.many == Many::List => Place::Each(field),
            Place::Declared { schema, .. } => {
                schema.items.as_deref().map_or(Place::Unknown, Place::declared)
            }
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
    pub fn owned(self, is_list: bool) -> Owned<'a> {
        match self {
            Place::Field(field) if (field.many == Many::List) == is_list => field.owned.clone(),
            Place::Each(field) if field.kind == Type::Json => Owned::Atomic,
            Place::Each(field) if field.message().is_some_and(|message| message.atomic) => {
                Owned::Atomic
            }
            Place::Declared { schema, .. } if is_list => match schema.list_type.as_deref() {
                Some("set") => Owned::Set,
                Some("map") => {
                    Owned::Map(schema.list_map_keys.iter().map(String::as_str).collect())
                }
                _ => Owned::Atomic,
            },
            Place::Declared { schema, .. } if schema.map_type.as_deref() == Some("atomic") => {
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
            Place::Declared { .. } | Place::Unknown => None,
        }
    }

    /// Whether it is a struct that has this field.
    pub fn declares(self, name: &str) -> bool {
        match self {
            Place::Declared { schema, object } => {
                let own = object && (name == "metadata" || TYPE.contains(&name));
                own || schema.properties.contains_key(name)
            }
            _ => self.message().is_some_and(|message| message.field(name).is_some()),
        }
    }

    /// Whether it is a struct that cannot have this field.
    pub fn forbids(self, name: &str) -> bool {
        let open = match self {
            Place::Declared { schema, .. } => {
                let any = matches!(schema.additional_properties, Some(Additional::Allowed(true)));
                any || schema.additional().is_some() || schema.preserve_unknown_fields
            }
            _ => self.message().is_none_or(|message| message.open),
        };
        !open && !self.declares(name)
    }

    /// What a field is when it is not said, if it is a key of a list's elements.
    pub fn default(self, name: &str) -> Option<&'a Value> {
        match self.field(name) {
            Place::Field(field) => field.default.as_ref(),
            Place::Declared { schema, .. } => schema.default.as_ref(),
            _ => None,
        }
    }
}
