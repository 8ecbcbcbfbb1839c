//! The TOML tree with the place of every key and value, overrides included.

use super::diagnostic::{Diagnostic, Diagnostics};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text that values come from: the file, or one override of the command line.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Bytes `start..end` of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub at: At,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A TOML date, which nothing here wants.
    Date(String),
    List(Vec<Item>),
    Table(Table),
}

/// In the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_at: At,
    pub item: Item,
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.item)
    }
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Item> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.item)
    }
}

impl Item {
    /// As a message names it: "a text", "an integer".
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a text",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Bool(_) => "a boolean",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Objects written as TOML are Kubernetes' JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Text(text) | Value::Date(text) => Json::from(text.as_str()),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(yes) => Json::from(*yes),
            Value::List(items) => items.iter().map(Item::to_json).collect(),
            Value::Table(table) => {
                let entries = table.entries.iter();
                entries.map(|entry| (entry.key.clone(), entry.item.to_json())).collect()
            }
        }
    }
}

/// Parses a whole document; every syntax error is told.
pub fn parse(source: usize, name: &str, text: &str) -> Result<Item, Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Diagnostics(errors.iter().map(|error| syntax(name, text, error)).collect()));
    }
    let mut wrong = Vec::new();
    let table = table(source, document.get_ref(), &mut wrong);
    if wrong.is_empty() {
        return Ok(Item { at: At { source, start: 0, end: 0 }, value: Value::Table(table) });
    }
    let report = |(at, why): (At, String)| Diagnostic::at(name, text, at.start, at.end, why);
    Err(Diagnostics(wrong.into_iter().map(report).collect()))
}

/// Parses one value, as after `key =`; `None` when it is not TOML.
pub fn parse_value(source: usize, text: &str) -> Option<Item> {
    let value = DeValue::parse(text).ok()?;
    let mut wrong = Vec::new();
    let item = item(source, &value, &mut wrong);
    wrong.is_empty().then_some(item)
}

fn syntax(name: &str, text: &str, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or_default();
    Diagnostic::at(name, text, span.start, span.end, format!("not TOML: {}", error.message()))
}

fn table(source: usize, table: &DeTable<'_>, wrong: &mut Vec<(At, String)>) -> Table {
    let mut entries: Vec<Entry> = Vec::with_capacity(table.len());
    for (key, value) in table.iter() {
        entries.push(Entry {
            key: key.get_ref().to_string(),
            key_at: place(source, key.span()),
            item: item(source, value, wrong),
        });
    }
    entries.sort_by_key(|entry| entry.key_at.start);
    Table { entries }
}

fn item(source: usize, value: &Spanned<DeValue<'_>>, wrong: &mut Vec<(At, String)>) -> Item {
    let at = place(source, value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            Err(_) => {
                wrong.push((at, "the integer does not fit into 64 bits".to_owned()));
                Value::Int(0)
            }
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|value| item(source, value, wrong)).collect())
        }
        DeValue::Table(inner) => Value::Table(table(source, inner, wrong)),
    };
    Item { at, value }
}

fn place(source: usize, span: std::ops::Range<usize>) -> At {
    At { source, start: span.start, end: span.end }
}
