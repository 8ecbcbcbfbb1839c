//! What the messages of the API consist of: `messages.txt`, read once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub struct Field {
    /// In JSON; "*": the fields of the message below are this message's own.
    pub name: &'static str,
    pub many: Many,
    pub kind: Type,
    /// A zero was said by somebody: the type behind it is a pointer.
    pub pointer: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Many {
    One,
    List,
    /// By names.
    Map,
}

#[derive(Clone, Copy, PartialEq, Eq)]
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

pub type Fields = BTreeMap<u32, Field>;

/// The fields of a message by their numbers. `None`: there is no such message.
pub fn fields(message: &str) -> Option<&'static Fields> {
    static MESSAGES: LazyLock<BTreeMap<&str, Fields>> =
        LazyLock::new(|| read(include_str!("messages.txt")));
    MESSAGES.get(message)
}

/// As `api/v1` and `Kind` name it.
pub fn of_kind(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta/v1.DeleteOptions".to_owned();
    }
    match api_version.split_once('/') {
        None => format!("core/{api_version}.{kind}"),
        Some((group, version)) => {
            let group = group.split('.').next().unwrap_or_default();
            format!("{group}/{version}.{kind}")
        }
    }
}

fn read(text: &'static str) -> BTreeMap<&'static str, Fields> {
    let mut messages = BTreeMap::new();
    let mut message = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ').and_then(field) {
            Some((number, field)) => {
                messages.entry(message).or_insert_with(Fields::new).insert(number, field);
            }
            None => {
                message = line;
                messages.entry(message).or_default();
            }
        }
    }
    messages
}

fn field(line: &'static str) -> Option<(u32, Field)> {
    let mut words = line.split(' ');
    let (number, name, kind) = (words.next()?, words.next()?, words.next()?);
    let (kind, pointer) = match kind.strip_suffix('?') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    let (many, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(kind), _) => (Many::List, kind),
        (_, Some(kind)) => (Many::Map, kind),
        _ => (Many::One, kind),
    };
    Some((number.parse().ok()?, Field { name, many, kind: type_of(kind), pointer }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_named_is_there() {
        let text = include_str!("messages.txt");
        let messages = read(text);
        let lines = text.lines().filter(|line| line.starts_with(' ')).count();
        assert_eq!(
            messages.values().map(BTreeMap::len).sum::<usize>(),
            lines,
            "all lines are read"
        );
        for (message, fields) in &messages {
            for field in fields.values() {
                if let Type::Message(of) = field.kind {
                    assert!(messages.contains_key(of), "{message}: {} is a {of}", field.name);
                }
            }
        }
        assert!(messages.contains_key(of_kind("rbac.authorization.k8s.io/v1", "Role").as_str()));
    }
}
