//! OpenAPI v2 out of v3, for clients that are older: all groups in one document, with the types in
//! `definitions` (kube-openapi `pkg/openapiconv` goes the other way).

use super::schemas::REFERENCE;
use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/definitions/";

/// What documents of v3 come to.
#[derive(Default)]
pub struct Parts {
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Parts {
    /// Adds a document, which may have schemas in common with those before.
    pub fn add(&mut self, v3: &Value) {
        for (path, item) in v3["paths"].as_object().into_iter().flatten() {
            self.paths.insert(path.clone(), path_item(item));
        }
        for (name, one) in v3["components"]["schemas"].as_object().into_iter().flatten() {
            if !self.definitions.contains_key(name) {
                self.definitions.insert(name.clone(), definition(name, one));
            }
        }
    }

    pub fn document(self, info: &Value) -> Value {
        json!({
            "swagger": "2.0", "info": info,
            "paths": Value::Object(self.paths), "definitions": Value::Object(self.definitions),
            "securityDefinitions": {"BearerToken": super::bearer()},
            "security": [{"BearerToken": []}],
        })
    }
}

fn definition(name: &str, v3: &Value) -> Value {
    let mut schema = schema(v3);
    // v2 knows no alternatives.
    if schema.get("oneOf").is_some()
        && let Some(fields) = schema.as_object_mut()
    {
        fields.remove("oneOf");
        fields.insert("type".to_owned(), "string".into());
    }
    debug_assert!(schema.get("allOf").is_none(), "{name} is a reference");
    schema
}

/// Without defaults, and with text beside references.
fn schema(v3: &Value) -> Value {
    let Value::Object(fields) = v3 else { return v3.clone() };
    let mut schema = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("default", _) => continue,
            ("$ref", Value::String(path)) => path.replace(REFERENCE, DEFINITIONS).into(),
            ("allOf", Value::Array(of)) if of.len() == 1 => {
                schema.extend(self::schema(&of[0]).as_object().cloned().unwrap_or_default());
                continue;
            }
            ("properties", Value::Object(properties)) => {
                properties.iter().map(|(name, one)| (name.clone(), self::schema(one))).collect()
            }
            ("items" | "additionalProperties", one) => self::schema(one),
            (_, value) => value.clone(),
        };
        schema.insert(key.clone(), value);
    }
    schema.into()
}

fn path_item(v3: &Value) -> Value {
    let mut item = Map::new();
    for (key, value) in v3.as_object().into_iter().flatten() {
        let value = if key == "parameters" { parameters(value).into() } else { operation(value) };
        item.insert(key.clone(), value);
    }
    item.into()
}

fn operation(v3: &Value) -> Value {
    let media = |content: &Value| -> Vec<String> {
        content.as_object().into_iter().flatten().map(|(kind, _)| kind.clone()).collect()
    };
    let mut operation = v3.clone();
    let Some(fields) = operation.as_object_mut() else { return operation };
    let mut consumes = Vec::new();
    let mut all = fields.get("parameters").map(parameters).unwrap_or_default();
    if let Some(body) = fields.remove("requestBody") {
        consumes = media(&body["content"]);
        let content = body["content"].as_object().and_then(|content| content.values().next());
        let mut parameter = json!({"name": "body", "in": "body"});
        parameter["schema"] = content.map(|one| schema(&one["schema"])).unwrap_or_default();
        if let Some(required) = body.get("required") {
            parameter["required"] = required.clone();
        }
        all.insert(0, parameter);
    }
    if !all.is_empty() {
        fields.insert("parameters".to_owned(), all.into());
    }
    let mut produces = Vec::new();
    for response in fields["responses"].as_object_mut().into_iter().flatten().map(|(_, one)| one) {
        let content = response.as_object_mut().and_then(|response| response.remove("content"));
        let Some(content) = content else { continue };
        produces = media(&content);
        if let Some(one) = content.as_object().and_then(|content| content.values().next()) {
            response["schema"] = schema(&one["schema"]);
        }
    }
    if consumes.is_empty() {
        let of_objects = fields.contains_key("x-kubernetes-action");
        consumes = if of_objects { vec!["*/*".to_owned()] } else { produces.clone() };
    }
    fields.insert("consumes".to_owned(), consumes.into());
    fields.insert("produces".to_owned(), produces.into());
    fields.insert("schemes".to_owned(), json!(["https"]));
    operation
}

/// Of the path or the query.
fn parameters(v3: &Value) -> Vec<Value> {
    let plain = |parameter: &Value| {
        let mut parameter = parameter.clone();
        if let Some(fields) = parameter.as_object_mut()
            && let Some(Value::Object(schema)) = fields.remove("schema")
        {
            fields.extend(schema);
        }
        parameter
    };
    v3.as_array().into_iter().flatten().map(plain).collect()
}
