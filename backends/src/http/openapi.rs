//! OpenAPI v3 as far as clients need it to know what the server can do: paths, their verbs and
//! parameters. Without the types' schemas yet, which `kubectl explain` needs. Of v2 there is the
//! empty document, for clients that want to have read one before they apply (kubectl 1.27).

use super::accept;
use super::body::Answer;
use super::handle::GIT_VERSION;
use super::resources::{self, Resource};
use super::status::Failure;
use serde_json::{Map, Value, json};

const TITLE: &str = "Kubernetes";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// How older clients ask for it; as an answer it is no media type.
const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// `/openapi/v2`: in protobuf, which is how kubectl asks for it, or in JSON.
pub fn empty_v2(accepted: &str) -> Answer {
    let wants = |kind: &str| accept::media(accepted).iter().any(|media| media.kind == kind);
    if wants(V2_PROTOBUF) || wants(V2_ASKED) {
        // `openapi.v2.Document` of gnostic's OpenAPIv2.proto: swagger = 1, info = 2, and in it
        // title = 1, version = 2. All are strings or messages shorter than 128 bytes.
        let field = |number: u8, bytes: &[u8]| {
            let length = u8::try_from(bytes.len()).unwrap_or_default();
            [&[number << 3 | 2, length], bytes].concat()
        };
        let info = [field(1, TITLE.as_bytes()), field(2, GIT_VERSION.as_bytes())].concat();
        let document = [field(1, b"2.0"), field(2, &info)].concat();
        return Answer::bytes(V2_PROTOBUF, document);
    }
    let info = json!({"title": TITLE, "version": GIT_VERSION});
    Answer::json(&json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}))
}

/// What is at `/openapi/v3` and below it.
pub fn document(below: &str) -> Result<Value, Failure> {
    let mut versions = vec![("", "v1")];
    versions.extend(resources::groups());
    if below.is_empty() {
        let paths: Map<String, Value> = versions
            .iter()
            .map(|(group, version)| {
                let path = resources::prefix(group, version);
                let url = format!("/openapi/v3{path}?hash={}", env!("CARGO_PKG_VERSION"));
                (path.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}))
            })
            .collect();
        return Ok(json!({"paths": paths}));
    }
    let wanted = format!("/{below}");
    let known =
        versions.iter().find(|(group, version)| resources::prefix(group, version) == wanted);
    let (group, version) = known.ok_or_else(Failure::no_such_resource)?;
    let mut paths = Map::new();
    for resource in resources::in_version(group, version) {
        let namespace = if resource.kind.namespaced() { "/namespaces/{namespace}" } else { "" };
        let plural = resource.kind.plural();
        let all = format!("{wanted}{namespace}/{plural}");
        let list = operation(resource, "list", &["fieldSelector", "labelSelector", "limit"]);
        let create = operation(resource, "post", WRITE);
        paths.insert(all.clone(), json!({"get": list, "post": create}));
        let one = json!({
            "get": operation(resource, "get", &[]),
            "put": operation(resource, "put", WRITE),
            "patch": operation(resource, "patch", WRITE),
            "delete": operation(resource, "delete", &["dryRun", "gracePeriodSeconds"]),
        });
        paths.insert(format!("{all}/{{name}}"), one);
    }
    let info = json!({"title": TITLE, "version": GIT_VERSION});
    Ok(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}))
}

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];

fn operation(resource: &Resource, action: &str, parameters: &[&str]) -> Value {
    let kind = resource.kind;
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
        .collect();
    let version = resources::version(kind);
    json!({
        "parameters": parameters, "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": kind.group(), "version": version, "kind": kind.name()},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_document_is_there_in_both_encodings() {
        assert_eq!(empty_v2(V2_PROTOBUF).content_type, V2_PROTOBUF);
        assert_eq!(empty_v2(V2_ASKED).content_type, V2_PROTOBUF);
        assert_eq!(empty_v2("application/json, */*").content_type, "application/json");
        assert!(GIT_VERSION.len() + TITLE.len() < 124, "lengths fit a byte");
    }

    #[test]
    fn every_version_that_is_named_is_there() {
        let all = document("").expect("the versions");
        let paths = all["paths"].as_object().expect("paths");
        assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
        for (path, _) in paths {
            let document = document(path).expect(path);
            let paths = document["paths"].as_object().expect("paths");
            let validates =
                |path: &Value| path["patch"]["parameters"].to_string().contains("fieldValidation");
            assert!(paths.values().any(validates), "{path}");
        }
        assert_eq!(document("apis/none/v1").expect_err("none").code, 404);
    }
}
