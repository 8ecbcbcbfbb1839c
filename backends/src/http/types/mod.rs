//! What the API's types say of themselves: which fields they have, as protobuf numbers them, and
//! how these are merged and owned. `messages.txt` is the table, read once; `make-messages.py` makes
//! it.
//!
//! Owned (KEP-555): what has one owner as a whole is atomic. A list of which nothing is said is so,
//! but for one that a strategic patch merges (kube-openapi `pkg/schemaconv/smd.go`).

mod golang;
mod mismatch;
mod place;
mod quantities;
mod read;

pub use golang::{strip as strip_go, write as write_go};
pub use mismatch::mismatch;
pub use place::Place;
pub use quantities::no_quantity;

use read::Table;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, OnceLock};

/// A struct of the API.
#[derive(Debug)]
pub struct Message {
    pub name: &'static str,
    /// It has one owner as a whole, where the field it is in says nothing else.
    pub atomic: bool,
    /// There may be other fields.
    pub open: bool,
    by_number: BTreeMap<u32, Field>,
    numbers: BTreeMap<&'static str, u32>,
    /// Of messages whose fields are this one's own.
    embedded: Vec<u32>,
    /// See [`Message::filled`].
    filled: OnceLock<Vec<&'static Field>>,
    shape: OnceLock<golang::Shape>,
}

#[derive(Debug)]
pub struct Field {
    /// In JSON; "*": the fields of the message below are this message's own.
    pub name: &'static str,
    pub many: Many,
    /// Of each, if there are many.
    pub kind: Type,
    /// What Go calls the type of all, where that does not follow.
    go: Option<&'static str>,
    /// A zero was said by somebody: the type behind it is a pointer.
    pub pointer: bool,
    /// Go writes it even if it holds nothing, as it does all structs that are no pointers.
    pub always: bool,
    pub merged: Merged,
    pub owned: Owned<'static>,
    /// Of a key of a list's elements: what it is when it is not said.
    pub default: Option<Value>,
    /// The message of its kind, once somebody has looked it up.
    message: OnceLock<Option<&'static Message>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    One,
    List,
    /// By names.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    String,
    Bool,
    Int,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON in a field of its own: `RawExtension`, `FieldsV1`.
    Json,
    Strings,
    Message(&'static str),
}

/// What a strategic merge patch does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Replaced whole.
    Whole,
    /// Field by field: a struct, or a map.
    Fields,
    /// Elements are objects, known by this field.
    By(&'static str),
    /// Elements are texts: the union.
    Union,
}

/// What server-side apply lets have owners of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned<'a> {
    /// Nothing in it.
    Atomic,
    /// Each field of a struct or a map.
    Granular,
    /// Each element of a list, known by itself.
    Set,
    /// Each element of a list, known by these fields of it, and each field of it.
    Map(Vec<&'a str>),
}

impl Message {
    /// By its number in protobuf.
    pub fn numbered(&self, number: u32) -> Option<&Field> {
        self.by_number.get(&number)
    }

    /// Its fields, and those of what is embedded.
    pub fn fields(&self) -> Vec<&Field> {
        let mut fields = Vec::new();
        for field in self.by_number.values() {
            match (field.name, field.message()) {
                ("*", Some(embedded)) => fields.extend(embedded.fields()),
                _ => fields.push(field),
            }
        }
        fields
    }

    /// Fields that are there in Go even if nobody wrote them: structs that are no pointers, and
    /// lists and maps that are always written.
    pub fn filled(&'static self) -> &'static [&'static Field] {
        self.filled.get_or_init(|| {
            let is_there = |field: &&Field| match field.many {
                Many::One => matches!(field.kind, Type::Message(_)) && !field.pointer,
                Many::List | Many::Map => field.always,
            };
            self.fields().into_iter().filter(is_there).collect()
        })
    }

    /// Whether there may be amounts in it, at any depth.
    fn has_quantities(&self) -> bool {
        WITH_QUANTITIES.contains(self.name)
    }

    /// By its name in JSON, here or in what is embedded.
    pub fn field(&self, name: &str) -> Option<&Field> {
        if let Some(number) = self.numbers.get(name) {
            return self.by_number.get(number);
        }
        let embedded = self.embedded.iter().filter_map(|number| self.by_number.get(number));
        embedded.filter_map(Field::message).find_map(|message| message.field(name))
    }
}

impl Field {
    /// What it consists of, or each of it.
    pub fn message(&self) -> Option<&'static Message> {
        *self.message.get_or_init(|| match self.kind {
            Type::Message(name) => named(name),
            _ => None,
        })
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read::table(include_str!("messages.txt")));

static WITH_QUANTITIES: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| quantities::messages_with(&TABLE));

/// By its name in the table, `core/v1.Pod`.
pub fn named(message: &str) -> Option<&'static Message> {
    TABLE.messages.get(message)
}

/// What the table says of a message's field behind its type, word by word.
pub fn markers(message: &Message, field: &str) -> &'static str {
    let own = TABLE.markers.get(&(message.name, field)).copied();
    let embedded = message.embedded.iter().filter_map(|number| message.by_number.get(number));
    let mut embedded = embedded.filter_map(Field::message);
    let of = |one: &Message| Some(markers(one, field)).filter(|markers| !markers.is_empty());
    own.or_else(|| embedded.find_map(of)).unwrap_or_default()
}

/// The message of a kind. `None`: it is no kind of Kubernetes'.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        // Of each group's own: all are this one.
        return named("meta/v1.DeleteOptions");
    }
    let short = TABLE.groups.get(group)?;
    named(&format!("{short}/{version}.{kind}"))
}

/// What objects of a kind (group, version, kind) consist of. Of those that are not Kubernetes' own
/// only the metadata is known.
pub fn of((group, version, kind): (&str, &str, &str)) -> &'static Message {
    of_kind(group, version, kind).unwrap_or(&CUSTOM)
}

static CUSTOM: LazyLock<Message> = LazyLock::new(|| {
    let mut custom = Message { open: true, ..Message::new("custom", false) };
    custom.add(1, Field::one("metadata", Type::Message("meta/v1.ObjectMeta")));
    custom
});

#[cfg(test)]
mod tests;
