//! A strict reading of a manifest: fields that its kind does not have, which a plain reading drops
//! in silence, are told with their place. It is the server's strict field validation, which
//! `kubectl` asks for by default (KEP-2885, `fieldValidation=Strict`).
//!
//! The types' own `Deserialize` says which fields there are: `deserialize_struct` is given their
//! names, so nothing has to be known twice.

use super::ParseError;
use serde::Serialize;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde_json::{Error, Value};
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
    let read = T::deserialize(Reader::logged(value, &log));
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

/// A value that is read, with a log beside it if somebody asks for what was not understood.
#[derive(Clone, Copy)]
pub(super) struct Reader<'de, 'l> {
    pub value: &'de Value,
    log: Option<&'l Log>,
}

macro_rules! scalars {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.scalar(visitor)
        }
    )*};
}

/// A value by its type: for what is not an object of its own.
pub fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, ParseError> {
    T::deserialize(Reader::unlogged(value)).map_err(|error| ParseError(error.to_string()))
}

impl<'de, 'l> Reader<'de, 'l> {
    pub fn logged(value: &'de Value, log: &'l Log) -> Self {
        Reader { value, log: Some(log) }
    }
    pub fn unlogged(value: &'de Value) -> Self {
        Reader { value, log: None }
    }

    /// A field by its type; what the type is if nothing is said, if there is none.
    pub fn field<T: Deserialize<'de> + Default>(self, name: &str) -> Result<T, Error> {
        match self.value.get(name) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => self.inner(value, || Step::Field(name.to_owned()), T::deserialize),
        }
    }

    fn inner<T>(
        self,
        value: &'de Value,
        step: impl FnOnce() -> Step,
        read: impl FnOnce(Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let inner = Reader { value, log: self.log };
        match self.log {
            Some(log) => log.within(step(), || read(inner)),
            None => read(inner),
        }
    }

    // Each of these asks the visitor for one shape only. Every type of the API is compiled with
    // each shape that it may be asked for, and there are hundreds: asking less halves the crate.

    fn scalar<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) | Value::Object(_) => Err(self.unexpected(&visitor)),
        }
    }

    fn list<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(items) => {
                visitor.visit_seq(Items { items: items.iter().enumerate(), log: self.log })
            }
            _ => Err(self.unexpected(&visitor)),
        }
    }

    /// `known` are the fields of a type that has its own; a map takes any.
    fn fields<V: Visitor<'de>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(map) => {
                let entries = map.iter();
                visitor.visit_map(Fields { entries, known, value: None, log: self.log })
            }
            _ => Err(self.unexpected(&visitor)),
        }
    }

    fn unexpected(self, expected: &dyn Expected) -> Error {
        let found = match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (_, Some(number)) => Unexpected::Signed(number),
                _ => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(found, expected)
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(_) => self.list(visitor),
            Value::Object(_) => self.fields(None, visitor),
            _ => self.scalar(visitor),
        }
    }

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_identifier
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.scalar(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.fields(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(Some(fields), visitor)
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

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items<'de, 'l> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    log: Option<&'l Log>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((number, value)) = self.items.next() else { return Ok(None) };
        let item = Reader { value, log: self.log };
        match self.log {
            Some(log) => log.within(Step::Item(number), || seed.deserialize(item)),
            None => seed.deserialize(item),
        }
        .map(Some)
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
    log: Option<&'l Log>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.entries.next() else { return Ok(None) };
        if let (Some(log), Some(known)) = (self.log, self.known)
            && !known.contains(&name.as_str())
        {
            log.complain(name, known);
        }
        self.value = Some((name, value));
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.value.take() else {
            return Err(Error::custom("a value is read before its name"));
        };
        let field = Reader { value, log: self.log };
        match self.log {
            Some(log) => log.within(Step::Field(name.to_owned()), || seed.deserialize(field)),
            None => seed.deserialize(field),
        }
    }
}
