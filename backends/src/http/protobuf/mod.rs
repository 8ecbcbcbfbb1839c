//! Bodies in protobuf, as kubectl and client-go send them: an envelope (`runtime.Unknown` behind
//! four bytes, apimachinery `pkg/runtime/serializer/protobuf`), and the object in it. It is read
//! into the JSON that the same object has.
//!
//! Go writes what is no pointer whether it was said or not, so a zero of one is taken for unsaid:
//! in JSON it would be left out. Fields that are not known are left out, as upstream does.

use super::types::{self, Field, Many, Message, Type};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::jiff::Timestamp;
use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value, json};

/// How its media type is called.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// No message of the API is as deep.
const DEEPEST: u32 = 32;

/// The error says what is wrong with the bytes.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or("it does not begin with \"k8s\\0\"")?;
    let (mut kind, mut raw) = ((String::new(), String::new()), &[][..]);
    each(envelope, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => kind = type_meta(meta)?,
            (2, Wire::Bytes(object)) => raw = object,
            // Of its encoding, for which nobody has a use.
            _ => {}
        }
        Ok(())
    })?;
    let (api_version, kind) = kind;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(known) = types::of_kind(group, version, &kind) else {
        return Err(format!("no message of the API is called {kind} of {api_version:?}"));
    };
    let mut object = Map::new();
    message(known, raw, &mut object, DEEPEST).map_err(|why| format!("{kind}: {why}"))?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), String> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    each(bytes, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((api_version, kind))
}

/// Adds the fields of a message to an object.
fn message(
    known: &Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    deep: u32,
) -> Result<(), String> {
    let deep = deep.checked_sub(1).ok_or("it is nested too deeply")?;
    each(bytes, |number, wire| {
        let Some(field) = known.numbered(number) else { return Ok(()) };
        let at = |why: String| match field.name {
            "*" => why,
            name => format!("{name}: {why}"),
        };
        add(field, wire, object, deep).map_err(at)
    })
}

fn named(message: &str) -> Result<&'static Message, String> {
    types::named(message).ok_or_else(|| format!("{message} is not known"))
}

fn add(
    field: &Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    deep: u32,
) -> Result<(), String> {
    if let (Type::Message(name), "*") = (field.kind, field.name) {
        return message(named(name)?, wire.bytes()?, object, deep);
    }
    match field.many {
        Many::One => {
            let one = value(field.kind, wire, deep)?;
            let unsaid = one.is_null() || !field.pointer && is_zero(&one);
            if !unsaid {
                object.insert(field.name.to_owned(), one);
            }
        }
        Many::List => {
            let one = value(field.kind, wire, deep)?;
            if let Value::Array(list) = object.entry(field.name).or_insert_with(|| json!([])) {
                list.push(one);
            }
        }
        Many::Map => {
            let (key, one) = entry(field.kind, wire.bytes()?, deep)?;
            if let Value::Object(map) = object.entry(field.name).or_insert_with(|| json!({})) {
                map.insert(key, one);
            }
        }
    }
    Ok(())
}

fn entry(kind: Type, bytes: &[u8], deep: u32) -> Result<(String, Value), String> {
    // Either half may be unsaid.
    let mut key = String::new();
    let mut said = match kind {
        Type::String | Type::Bytes => json!(""),
        _ => Value::Null,
    };
    each(bytes, |number, wire| {
        match number {
            1 => key = text(wire.bytes()?)?,
            2 => said = value(kind, wire, deep)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, said))
}

/// Null: a time that is none.
fn value(kind: Type, wire: Wire<'_>, deep: u32) -> Result<Value, String> {
    Ok(match kind {
        Type::Bool => json!(wire.number()? != 0),
        Type::Int => json!(wire.number()?),
        Type::String => json!(text(wire.bytes()?)?),
        Type::Bytes => json!(BASE64_STANDARD.encode(wire.bytes()?)),
        Type::Time => time(wire.bytes()?, 0)?,
        Type::MicroTime => time(wire.bytes()?, 6)?,
        Type::Quantity => json!(text(only(wire.bytes()?, 1)?)?),
        Type::IntOrString => int_or_string(wire.bytes()?)?,
        Type::Json => {
            let raw = only(wire.bytes()?, 1)?;
            serde_json::from_slice(raw).map_err(|error| format!("no JSON: {error}"))?
        }
        Type::Strings => {
            let mut strings = Vec::new();
            each(wire.bytes()?, |_, wire| {
                strings.push(text(wire.bytes()?)?);
                Ok(())
            })?;
            json!(strings)
        }
        Type::Message(name) => {
            let mut object = Map::new();
            message(named(name)?, wire.bytes()?, &mut object, deep)?;
            Value::Object(object)
        }
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(said) => !said,
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}

/// The one field that a message has.
fn only(bytes: &[u8], wanted: u32) -> Result<&[u8], String> {
    let mut found = &[][..];
    each(bytes, |number, wire| {
        if number == wanted {
            found = wire.bytes()?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Seconds and nanoseconds since 1970; no bytes at all are Go's zero time.
fn time(bytes: &[u8], digits: usize) -> Result<Value, String> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    each(bytes, |number, wire| {
        match number {
            1 => seconds = wire.number()?,
            2 => nanos = wire.number()?,
            _ => {}
        }
        Ok(())
    })?;
    let nanos = i32::try_from(nanos).map_err(|_| format!("{nanos} ns is no part of a second"))?;
    let at = Timestamp::new(seconds, nanos).map_err(|error| format!("no time: {error}"))?;
    Ok(json!(format!("{at:.digits$}")))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_string, mut int, mut string) = (false, 0, String::new());
    each(bytes, |number, wire| {
        match number {
            1 => is_string = wire.number()? == 1,
            2 => int = wire.number()?,
            3 => string = text(wire.bytes()?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(if is_string { json!(string) } else { json!(int) })
}

/// What a field has on the wire.
enum Wire<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(&self) -> Result<&'a [u8], String> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            Wire::Number(number) => Err(format!("{number} where bytes belong")),
        }
    }
    fn number(&self) -> Result<i64, String> {
        match self {
            Wire::Number(number) => Ok(*number),
            Wire::Bytes(bytes) => Err(format!("{} bytes where a number belongs", bytes.len())),
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|error| format!("no UTF-8: {error}"))
}

/// The fields of a message, one after another. No field of the API is of a fixed width.
fn each<'a>(
    mut bytes: &'a [u8],
    mut field: impl FnMut(u32, Wire<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let broken = |error: DecodeError| format!("no protobuf: {error}");
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes).map_err(broken)?;
        match wire {
            // An int32 below zero is as long as an int64.
            WireType::Varint => {
                let value = decode_varint(&mut bytes).map_err(broken)?;
                field(number, Wire::Number(value.cast_signed()))?;
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(broken)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some((value, rest)) = bytes.split_at_checked(length) else {
                    let left = bytes.len();
                    return Err(format!(
                        "field {number} is {length} bytes long, and {left} follow"
                    ));
                };
                field(number, Wire::Bytes(value))?;
                bytes = rest;
            }
            other => {
                let context = DecodeContext::default();
                skip_field(other, number, &mut bytes, context).map_err(broken)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
