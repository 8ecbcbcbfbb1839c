//! The reading of the table.

use super::{Field, Many, Merged, Message, Owned, Type};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Table {
    pub messages: BTreeMap<&'static str, Message>,
    /// How a group's messages are called, by its name.
    pub groups: BTreeMap<&'static str, &'static str>,
    /// What is said of a message's field behind its type.
    pub markers: BTreeMap<(&'static str, &'static str), &'static str>,
}

impl Message {
    pub fn new(name: &'static str, atomic: bool) -> Message {
        let (by_number, numbers, embedded, filled, shape) = Default::default();
        Message { name, atomic, open: false, by_number, numbers, embedded, filled, shape }
    }

    pub fn add(&mut self, number: u32, field: Field) {
        match field.name {
            "*" => self.embedded.push(number),
            name => {
                self.numbers.insert(name, number);
            }
        }
        self.by_number.insert(number, field);
    }
}

impl Field {
    /// A field of which nothing else is said.
    pub fn one(name: &'static str, kind: Type) -> Field {
        let (merged, owned) = (Merged::Fields, Owned::Granular);
        let (many, pointer, always) = (Many::One, false, false);
        let (go, default, message) = Default::default();
        Field { name, many, kind, go, pointer, always, merged, owned, default, message }
    }
}

/// All of the table; lines that it does not have are left out, which a test would see.
pub fn table(text: &'static str) -> Table {
    let mut table = Table::default();
    let (mut name, mut open) = ("", Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(group) = line.strip_prefix("@ ") {
            let (short, group) = group.split_once(' ').unwrap_or((group, ""));
            table.groups.insert(group, short);
        } else if let Some(line) = line.strip_prefix(' ') {
            let mut words = line.splitn(4, ' ').skip(1);
            if let (Some(field), Some(markers)) = (words.next(), words.nth(1)) {
                table.markers.insert((name, field), markers);
            }
            let message = table.messages.get_mut(name);
            if let (Some(message), Some((number, field, said))) = (message, field(line)) {
                message.add(number, field);
                if !said {
                    open.push((name, number));
                }
            }
        } else {
            let mut words = line.split(' ');
            name = words.next().unwrap_or_default();
            table.messages.insert(name, Message::new(name, words.next() == Some("atomic")));
        }
    }
    own(&mut table, &open);
    table
}

/// A field with its number, and whether it is said how it is owned.
fn field(line: &'static str) -> Option<(u32, Field, bool)> {
    let mut words = line.split(' ');
    let (number, name, kind) = (words.next()?, words.next()?, words.next()?);
    let (kind, go) = kind.split_once(':').map_or((kind, None), |(kind, go)| (kind, Some(go)));
    let (kind, pointer) = match kind.strip_suffix('?') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    let (many, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(kind), _) => (Many::List, kind),
        (_, Some(kind)) => (Many::Map, kind),
        _ => (Many::One, kind),
    };
    let merged = if many == Many::List { Merged::Whole } else { Merged::Fields };
    let mut field = Field { many, pointer, merged, go, ..Field::one(name, type_of(kind)) };
    let mut said = None;
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("default", json) => field.default = serde_json::from_str(json).ok(),
            ("always", _) => field.always = true,
            ("map", keys) => said = Some(Owned::Map(keys.split(',').collect())),
            ("merge", "") => field.merged = Merged::Union,
            ("merge", key) => field.merged = Merged::By(key.split(',').next()?),
            ("replace", _) => field.merged = Merged::Whole,
            ("atomic", _) => said = Some(Owned::Atomic),
            ("granular", _) => said = Some(Owned::Granular),
            ("set", _) => said = Some(Owned::Set),
            // `$retainKeys` in a patch says it itself.
            ("retainKeys", _) => {}
            _ => return None,
        }
    }
    let is_said = said.is_some();
    field.owned = said.unwrap_or_else(|| owned_unsaid(&field));
    Some((number.parse().ok()?, field, is_said))
}

/// How it is owned if no marker says so.
fn owned_unsaid(field: &Field) -> Owned<'static> {
    match (field.many, field.merged, field.kind) {
        (Many::List, Merged::By(key), _) => Owned::Map(vec![key]),
        (Many::List, Merged::Union, _) => Owned::Set,
        (Many::List, ..) => Owned::Atomic,
        (Many::Map, ..) | (Many::One, _, Type::Message(_)) => Owned::Granular,
        (Many::One, ..) => Owned::Atomic,
    }
}

/// A field of which nothing is said is atomic where its message is.
fn own(table: &mut Table, open: &[(&'static str, u32)]) {
    let atomic: Vec<&str> =
        table.messages.values().filter(|message| message.atomic).map(|one| one.name).collect();
    for (message, number) in open {
        let message = table.messages.get_mut(message);
        let Some(field) = message.and_then(|one| one.by_number.get_mut(number)) else { continue };
        if let (Type::Message(name), Many::One) = (field.kind, field.many)
            && atomic.contains(&name)
        {
            field.owned = Owned::Atomic;
        }
    }
}

fn type_of(word: &'static str) -> Type {
    match word {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "bytes" => Type::Bytes,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "Quantity" => Type::Quantity,
        "IntOrString" => Type::IntOrString,
        "RawExtension" | "FieldsV1" => Type::Json,
        "strings" => Type::Strings,
        message => Type::Message(message),
    }
}
