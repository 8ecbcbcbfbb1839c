//! OpenAPI v2 in protobuf, as gnostic-models `openapiv2/OpenAPIv2.proto` numbers the fields;
//! kubectl before 1.28 reads nothing else. What JSON does not have is not written, and what is not
//! in these tables is not in our documents.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Value;

/// What a field is in JSON, and how its message encodes it.
enum Shape {
    Text,
    Flag,
    /// Of any shape: as text, of which JSON is YAML.
    Any,
    /// Its fields, and the number of those whose names begin with `x-`.
    Message(&'static [Field], u32),
    /// A message of one field, which JSON has no level for.
    Within(u32, &'static Shape),
    /// An array: a repeated field.
    Many(&'static Shape),
    /// An object: repeated messages of a name and a value, within a message of that one field.
    Named(u32, &'static Shape),
    /// By what `in` says.
    Parameter,
}

struct Field {
    key: &'static str,
    number: u32,
    shape: &'static Shape,
}

const fn field(key: &'static str, number: u32, shape: &'static Shape) -> Field {
    Field { key, number, shape }
}

static TEXT: Shape = Shape::Text;
static TEXTS: Shape = Shape::Many(&TEXT);
static FLAG: Shape = Shape::Flag;
static ANY: Shape = Shape::Any;

static DOCUMENT: Shape = Shape::Message(
    &[
        field("swagger", 1, &TEXT),
        field("info", 2, &INFO),
        field("paths", 8, &Shape::Named(2, &PATH_ITEM)),
        field("definitions", 9, &Shape::Named(1, &SCHEMA)),
        field("security", 12, &Shape::Many(&Shape::Named(1, &Shape::Within(1, &TEXTS)))),
        field("securityDefinitions", 13, &Shape::Named(1, &Shape::Within(2, &API_KEY))),
    ],
    16,
);
static INFO: Shape = Shape::Message(&[field("title", 1, &TEXT), field("version", 2, &TEXT)], 7);
static API_KEY: Shape = Shape::Message(
    &[
        field("type", 1, &TEXT),
        field("name", 2, &TEXT),
        field("in", 3, &TEXT),
        field("description", 4, &TEXT),
    ],
    5,
);
static PATH_ITEM: Shape = Shape::Message(
    &[
        field("get", 2, &OPERATION),
        field("put", 3, &OPERATION),
        field("post", 4, &OPERATION),
        field("delete", 5, &OPERATION),
        field("patch", 8, &OPERATION),
        field("parameters", 9, &PARAMETERS),
    ],
    10,
);
static OPERATION: Shape = Shape::Message(
    &[
        field("tags", 1, &TEXTS),
        field("description", 3, &TEXT),
        field("operationId", 5, &TEXT),
        field("produces", 6, &TEXTS),
        field("consumes", 7, &TEXTS),
        field("parameters", 8, &PARAMETERS),
        field("responses", 9, &Shape::Named(1, &Shape::Within(1, &RESPONSE))),
        field("schemes", 10, &TEXTS),
    ],
    13,
);
/// `ParametersItem`.
static PARAMETERS: Shape = Shape::Many(&Shape::Within(1, &Shape::Parameter));
static BODY: Shape = Shape::Message(
    &[
        field("description", 1, &TEXT),
        field("name", 2, &TEXT),
        field("in", 3, &TEXT),
        field("required", 4, &FLAG),
        field("schema", 5, &SCHEMA),
    ],
    6,
);
static QUERY: Shape = Shape::Message(
    &[
        field("required", 1, &FLAG),
        field("in", 2, &TEXT),
        field("description", 3, &TEXT),
        field("name", 4, &TEXT),
        field("type", 6, &TEXT),
        field("uniqueItems", 20, &FLAG),
    ],
    23,
);
static PATH: Shape = Shape::Message(
    &[
        field("required", 1, &FLAG),
        field("in", 2, &TEXT),
        field("description", 3, &TEXT),
        field("name", 4, &TEXT),
        field("type", 5, &TEXT),
        field("uniqueItems", 19, &FLAG),
    ],
    22,
);
static RESPONSE: Shape = Shape::Message(
    &[field("description", 1, &TEXT), field("schema", 2, &Shape::Within(1, &SCHEMA))],
    5,
);
static SCHEMA: Shape = Shape::Message(
    &[
        field("$ref", 1, &TEXT),
        field("format", 2, &TEXT),
        field("description", 4, &TEXT),
        field("required", 19, &TEXTS),
        field("enum", 20, &Shape::Many(&ANY)),
        field("additionalProperties", 21, &Shape::Within(1, &SCHEMA)),
        field("type", 22, &Shape::Within(1, &TEXT)),
        field("items", 23, &Shape::Within(1, &SCHEMA)),
        field("properties", 25, &Shape::Named(1, &SCHEMA)),
    ],
    31,
);

pub fn encode(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    body(&DOCUMENT, document, &mut bytes);
    bytes
}

/// A field with its key; what is repeated, as often as it is there.
fn put(number: u32, shape: &Shape, value: &Value, bytes: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::Many(shape), value) => {
            for one in value.as_array().into_iter().flatten() {
                put(number, shape, one, bytes);
            }
        }
        (Shape::Flag, value) => {
            encode_key(number, WireType::Varint, bytes);
            encode_varint(u64::from(value == &Value::Bool(true)), bytes);
        }
        (shape, value) => {
            let mut inner = Vec::new();
            body(shape, value, &mut inner);
            put_bytes(number, &inner, bytes);
        }
    }
}

fn put_bytes(number: u32, value: &[u8], bytes: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

/// What is behind a field's key and length.
fn body(shape: &Shape, value: &Value, bytes: &mut Vec<u8>) {
    match shape {
        // Written by the field that has them.
        Shape::Flag | Shape::Many(_) => {}
        Shape::Text => bytes.extend_from_slice(value.as_str().unwrap_or_default().as_bytes()),
        Shape::Any => put_bytes(2, value.to_string().as_bytes(), bytes),
        Shape::Within(number, shape) => put(*number, shape, value, bytes),
        Shape::Named(number, shape) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let mut pair = Vec::new();
                put_bytes(1, name.as_bytes(), &mut pair);
                put(2, shape, value, &mut pair);
                put_bytes(*number, &pair, bytes);
            }
        }
        Shape::Message(fields, extensions) => {
            for (key, value) in value.as_object().into_iter().flatten() {
                if key.starts_with("x-") {
                    let mut pair = Vec::new();
                    put_bytes(1, key.as_bytes(), &mut pair);
                    put(2, &Shape::Any, value, &mut pair);
                    put_bytes(*extensions, &pair, bytes);
                } else if let Some(field) = fields.iter().find(|field| field.key == key) {
                    put(field.number, field.shape, value, bytes);
                }
            }
        }
        // `Parameter`, and in it of what is no body `NonBodyParameter`.
        Shape::Parameter => match value["in"].as_str() {
            Some("body") => put(1, &BODY, value, bytes),
            Some("path") => put(2, &Shape::Within(4, &PATH), value, bytes),
            _ => put(2, &Shape::Within(3, &QUERY), value, bytes),
        },
    }
}

/// What the tables do not have, key by key.
#[cfg(test)]
pub fn left_out(document: &Value) -> std::collections::BTreeSet<String> {
    fn walk(shape: &Shape, value: &Value, found: &mut std::collections::BTreeSet<String>) {
        match shape {
            Shape::Text | Shape::Flag | Shape::Any => {}
            Shape::Within(_, shape) => walk(shape, value, found),
            Shape::Many(shape) => {
                value.as_array().into_iter().flatten().for_each(|one| walk(shape, one, found));
            }
            Shape::Named(_, shape) => {
                value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .for_each(|(_, one)| walk(shape, one, found));
            }
            Shape::Message(fields, _) => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match fields.iter().find(|field| field.key == key) {
                        Some(field) => walk(field.shape, value, found),
                        None if key.starts_with("x-") => {}
                        None => drop(found.insert(key.clone())),
                    }
                }
            }
            Shape::Parameter => match value["in"].as_str() {
                Some("body") => walk(&BODY, value, found),
                Some("path") => walk(&PATH, value, found),
                _ => walk(&QUERY, value, found),
            },
        }
    }
    let mut found = Default::default();
    walk(&DOCUMENT, document, &mut found);
    found
}
