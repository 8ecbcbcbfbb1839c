//! A strict reading of a manifest: fields that its kind does not have, which a plain reading drops
//! in silence, are told with their place. It is the server's strict field validation, which
//! `kubectl` asks for by default (KEP-2885, `fieldValidation=Strict`).
//!
//! The types' own `Deserialize` says which fields there are: `deserialize_struct` is given their
//! names, so nothing has to be known twice.

use super::ParseError;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::{Error, Map, Value};
use std::cell::RefCell;
use std::fmt;

/// Where something stands in a manifest; shown as upstream does: `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Field(String),
    Item(usize),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}

/// A field that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    pub path: Path,
    /// The fields that there are at its place.
    pub known: &'static [&'static str],
}

/// A value read by its type and written again, so that it says what the type makes of it; besides
/// it, every field that the type does not have. An error says which value could not be read.
pub fn retyped<T: DeserializeOwned + Serialize>(
    value: &Value,
) -> (Result<Value, (Path, ParseError)>, Vec<UnknownField>) {
    let log = Log::default();
    let read = T::deserialize(Strict { value, log: &log });
    let written = read.and_then(|typed| serde_json::to_value(&typed));
    (written.map_err(|error| (log.failed(), ParseError(error.to_string()))), log.unknown())
}

/// What a reading found on its way.
#[derive(Debug, Default)]
pub(super) struct Log {
    here: RefCell<Vec<Step>>,
    unknown: RefCell<Vec<UnknownField>>,
    failed: RefCell<Option<Path>>,
}

impl Log {
    pub fn unknown(self) -> Vec<UnknownField> {
        self.unknown.into_inner()
    }
    /// The innermost value that could not be read.
    pub fn failed(&self) -> Path {
        self.failed.borrow().clone().unwrap_or_default()
    }

    pub fn within<T>(
        &self,
        step: Step,
        read: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.here.borrow_mut().push(step);
        let result = read();
        if result.is_err() {
            let here = || Path(self.here.borrow().clone());
            self.failed.borrow_mut().get_or_insert_with(here);
        }
        self.here.borrow_mut().pop();
        result
    }

    fn complain(&self, name: &str, known: &'static [&'static str]) {
        let mut path = self.here.borrow().clone();
        // Every object says what it is, whatever its type keeps of that.
        if path.is_empty() && ["apiVersion", "kind"].contains(&name) {
            return;
        }
        path.push(Step::Field(name.to_owned()));
        self.unknown.borrow_mut().push(UnknownField { path: Path(path), known });
    }
}

/// A value that is read with a log beside it.
#[derive(Clone, Copy)]
pub(super) struct Strict<'de, 'l> {
    pub value: &'de Value,
    pub log: &'l Log,
}

impl<'de> Deserializer<'de> for Strict<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(items) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), log: self.log })
            }
            Value::Object(map) => visitor.visit_map(Fields::new(map, None, self.log)),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(map) => visitor.visit_map(Fields::new(map, Some(fields), self.log)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de, 'l> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    log: &'l Log,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((number, value)) = self.items.next() else { return Ok(None) };
        let log = self.log;
        log.within(Step::Item(number), || seed.deserialize(Strict { value, log })).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'de, 'l> {
    entries: serde_json::map::Iter<'de>,
    /// Of a type with fields of its own; a map takes any.
    known: Option<&'static [&'static str]>,
    value: Option<(&'de str, &'de Value)>,
    log: &'l Log,
}

impl<'de, 'l> Fields<'de, 'l> {
    fn new(
        map: &'de Map<String, Value>,
        known: Option<&'static [&'static str]>,
        log: &'l Log,
    ) -> Self {
        Fields { entries: map.iter(), known, value: None, log }
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.entries.next() else { return Ok(None) };
        if let Some(known) = self.known.filter(|known| !known.contains(&name.as_str())) {
            self.log.complain(name, known);
        }
        self.value = Some((name, value));
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.value.take() else {
            return Err(Error::custom("a value is read before its name"));
        };
        let log = self.log;
        log.within(Step::Field(name.to_owned()), || seed.deserialize(Strict { value, log }))
    }
}
