//! Against what upstream serves: kubernetes `api/openapi-spec` of 1.33, and the handlers of
//! kube-openapi `pkg/handler3` and `pkg/handler`.

use super::*;
use crate::http::versions::Served;
use hyper::Response;
use hyper::header::HeaderValue;
use std::collections::BTreeSet;

fn schema(name: &str) -> Value {
    schemas::all().get(name).cloned().unwrap_or_else(|| panic!("{name} has no schema"))
}

/// The documents, by their paths.
fn v3() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    each(|path, document| drop(all.insert(path.to_owned(), document)));
    all
}

/// All that is referred to below.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_kind_that_is_served_has_a_schema() {
    let documents = v3();
    for served in Served::all(&Definitions::default()) {
        let (kind, resource) = (served.kind, served.resource());
        let (group, version) = (served.group(), served.version());
        let path = resources::prefix(group, version).trim_start_matches('/').to_owned();
        let document = &documents[&path];
        let of = |name: &str| {
            let wanted = json!({"group": group, "version": version, "kind": name});
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            let found = schemas.values().find(|schema| {
                schema[schemas::GROUP_VERSION_KIND].as_array().is_some_and(|of| of[0] == wanted)
            });
            found.cloned().unwrap_or_else(|| panic!("{name} of {path} has no schema"))
        };
        let properties = of(kind.name())["properties"].clone();
        for field in ["apiVersion", "kind", "metadata"] {
            assert!(properties[field].is_object(), "{}: {field}", kind.name());
        }
        assert_eq!(of(&format!("{}List", kind.name()))["required"], json!(["items"]));
        for sub in resource.subresources {
            of_sub(served.type_of(Some(*sub)), document);
        }
    }
}

fn of_sub((group, version, kind): (&str, &str, &str), document: &Value) {
    let name = schemas::all().of_kind(group, version, kind).expect(kind);
    assert!(document["components"]["schemas"][name].is_object(), "{kind}");
}

#[test]
fn what_is_referred_to_is_in_the_same_document() {
    let mut documents: Vec<Value> = v3().into_values().collect();
    documents.push(v2(&[]));
    for document in documents {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for path in found {
            let pointer = path.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{path} of {}", document["paths"]);
        }
    }
    let all = serde_json::to_value(schemas::all().get(&schemas::meta("Status"))).expect("JSON");
    assert!(all.to_string().contains(schemas::REFERENCE), "references are looked for");
}

#[test]
fn types_are_as_upstream_has_them() {
    let expected = json!({
        "description": "ContainerPort represents a network port in a single container.",
        "type": "object",
        "required": ["containerPort"],
        "properties": {
            "containerPort": {
                "default": 0, "format": "int32", "type": "integer",
                "description": "Number of port to expose on the pod's IP address. This must be a \
                    valid port number, 0 < x < 65536.",
            },
            "hostIP": {"description": "What host IP to bind the external port to.",
                "type": "string"},
            "hostPort": {
                "format": "int32", "type": "integer",
                "description": "Number of port to expose on the host. If specified, this must be a \
                    valid port number, 0 < x < 65536. If HostNetwork is specified, this must match \
                    ContainerPort. Most containers do not need this.",
            },
            "name": {
                "type": "string",
                "description": "If specified, this must be an IANA_SVC_NAME and unique within the \
                    pod. Each named port in a pod must have a unique name. Name for the port that \
                    can be referred to by services.",
            },
            "protocol": {
                "default": "TCP", "enum": ["SCTP", "TCP", "UDP"], "type": "string",
                "description": "Protocol for port. Must be UDP, TCP, or SCTP. Defaults to \
                    \"TCP\".\n\nPossible enum values:\n - `\"SCTP\"`\n - `\"TCP\"`\n - `\"UDP\"`",
            },
        },
    });
    assert_eq!(schema("io.k8s.api.core.v1.ContainerPort"), expected);
    let pod = schema("io.k8s.api.core.v1.PodSpec");
    let mut containers = pod["properties"]["containers"].clone();
    containers.as_object_mut().expect("a field").remove("description");
    let expected = json!({
        "items": {
            "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}],
            "default": {},
        },
        "type": "array",
        "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-list-type": "map",
        "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
    });
    assert_eq!(containers, expected);
    let strategy = &pod["properties"]["volumes"]["x-kubernetes-patch-strategy"];
    assert_eq!(strategy, "merge,retainKeys");
    assert_eq!(pod["properties"]["nodeSelector"]["x-kubernetes-map-type"], "atomic");
    assert_eq!(pod["required"], json!(["containers"]));
}

/// Of fields that are pointers, lists and types with an encoding of their own there is no default.
#[test]
fn references_and_defaults_are_as_upstream_has_them() {
    let meta = schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let field = |schema: &Value, name: &str| {
        let mut field = schema["properties"][name].clone();
        field.as_object_mut().expect(name).remove("description");
        field
    };
    let time = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Time";
    assert_eq!(field(&meta, "creationTimestamp"), json!({"allOf": [{"$ref": time}]}));
    let labels =
        json!({"additionalProperties": {"default": "", "type": "string"}, "type": "object"});
    assert_eq!(field(&meta, "labels"), labels);
    let pod = schema("io.k8s.api.core.v1.PodSpec");
    let context = "#/components/schemas/io.k8s.api.core.v1.PodSecurityContext";
    assert_eq!(field(&pod, "securityContext"), json!({"allOf": [{"$ref": context}]}));
    let quantity = "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity";
    let overhead = json!({"additionalProperties": {"$ref": quantity}, "type": "object"});
    assert_eq!(field(&pod, "overhead"), overhead);
    let deployment = schema("io.k8s.api.apps.v1.Deployment");
    let spec = "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec";
    assert_eq!(field(&deployment, "spec"), json!({"allOf": [{"$ref": spec}], "default": {}}));
    assert_eq!(deployment.get("required"), None, "the metadata is in each object, said or not");
    let secret = schema("io.k8s.api.core.v1.Secret");
    let data = json!({"additionalProperties": {"format": "byte", "type": "string"},
        "type": "object"});
    assert_eq!(field(&secret, "data"), data);
}

#[test]
fn operations_are_as_upstream_has_them() {
    let apps = &v3()["apis/apps/v1"]["paths"];
    let paths = apps.as_object().expect("paths");
    let one = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &one["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["tags"], json!(["apps_v1"]));
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch[schemas::GROUP_VERSION_KIND], kind);
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let types = [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];
    assert_eq!(keys(&patch["requestBody"]["content"]), types);
    let names = |value: &Value| -> Vec<Value> {
        value.as_array().into_iter().flatten().map(|one| one["name"].clone()).collect()
    };
    let expected = ["dryRun", "fieldManager", "fieldValidation", "force"];
    assert_eq!(names(&patch["parameters"]), expected);
    assert_eq!(names(&one["parameters"]), ["name", "namespace", "pretty"]);
    assert_eq!(keys(&patch["responses"]), ["200", "201", "401"]);
    let list = &paths["/apis/apps/v1/deployments"]["get"];
    assert_eq!(list["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let scale = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(scale["operationId"], "replaceAppsV1NamespacedDeploymentScale");
    assert_eq!(scale[schemas::GROUP_VERSION_KIND]["group"], "autoscaling");
    let evict = &v3()["api/v1"]["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"];
    assert_eq!(evict["post"]["operationId"], "createCoreV1NamespacedPodEviction");
    assert_eq!(evict["post"]["description"], "create eviction of a Pod");
}

#[test]
fn facts_are_of_fields_that_there_are() {
    let mut named = 0;
    for line in include_str!("facts.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let [kind, field, facts] = words[..] else { panic!("{line}") };
        assert!(serde_json::from_str::<Map<String, Value>>(facts).is_ok(), "{line}");
        let (group, kind) = kind.split_once('/').expect("a group");
        let found = schemas::all().names().find(|name| name.ends_with(&format!(".{group}.{kind}")));
        let properties = schema(found.unwrap_or_else(|| panic!("{line}")))["properties"].clone();
        assert!(field == "*" || properties[field].is_object(), "{line}");
        named += 1;
    }
    assert!(named > 150, "{named} lines");
}

#[test]
fn the_older_document_has_the_same_types_in_its_own_form() {
    let v2 = v2(&[]);
    let definitions = &v2["definitions"];
    let spec = &definitions["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentSpec");
    assert!(spec["description"].is_string() && spec.get("default").is_none());
    let either = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&either["type"], &either["format"]), (&json!("string"), &json!("int-or-string")));
    let path = &v2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"];
    assert_eq!(path["post"]["parameters"][0]["in"], "body");
    assert_eq!(path["get"]["parameters"][0]["type"], "boolean", "allowWatchBookmarks");
    assert_eq!(path["get"]["consumes"], json!(["*/*"]));
    assert_eq!(path["get"]["produces"].as_array().map(Vec::len), Some(5));
}

fn asked(path: &str, hash: &str, accept: &str, known: &str) -> Response<super::super::body::Body> {
    let mut headers = HeaderMap::new();
    if !known.is_empty() {
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(known).expect("a value"));
    }
    v3_at(path, hash, accept, &headers, &Declared::default(), &Arc::default())
        .expect("an answer")
        .response()
}

#[test]
fn documents_are_kept_by_their_hashes() {
    let root: Value = serde_json::from_slice(&documents().root.bytes).expect("JSON");
    let url = root["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let hash = url.strip_prefix("/openapi/v3/apis/apps/v1?hash=").expect("a hash");
    assert_eq!(hash.len(), 128, "SHA-512");
    let kept = asked("apis/apps/v1", hash, "application/json", "");
    let header = |name: &str| kept.headers()[name].to_str().expect("text");
    assert_eq!(header("cache-control"), "public, immutable");
    assert_eq!(header("etag"), format!("\"{hash}\""));
    assert_eq!(header("vary"), "Accept");
    assert!(header("expires").ends_with(" GMT"));
    let fresh = asked("apis/apps/v1", "", "*/*", "");
    assert!(!fresh.headers().contains_key("expires"));
    assert_eq!(fresh.headers()["cache-control"], "no-cache, private");
    for known in [format!("\"{hash}\""), "*".to_owned(), format!("\"x\", W/\"{hash}\"")] {
        assert_eq!(asked("apis/apps/v1", "", "", &known).status(), 304, "{known}");
    }
    assert_eq!(asked("apis/apps/v1", "", "", "\"x\"").status(), 200);
    let moved = asked("apis/apps/v1", "OLD", "", "");
    assert_eq!(
        (moved.status().as_u16(), &moved.headers()["location"]),
        (301, &HeaderValue::from_str(url).expect("a value"))
    );
    let none = HeaderMap::new();
    let refused = |path: &str, accept: &str| {
        v3_at(path, "", accept, &none, &Declared::default(), &Arc::default()).map(|_| ()).err()
    };
    let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    assert_eq!(refused("apis/apps/v1", protobuf).map(|failure| failure.code), Some(406));
    assert_eq!(refused("apis/none/v1", "").map(|failure| failure.code), Some(404));
}

#[test]
fn the_older_document_is_there_in_both_encodings() {
    let kind = |accepted: &str| {
        v2_in(accepted, &HeaderMap::new(), &Declared::default(), &Arc::default())
            .map(|answer| answer.content_type)
            .map_err(|f| f.code)
    };
    assert_eq!(kind(V2_PROTOBUF), Ok(V2_PROTOBUF));
    assert_eq!(kind(V2_ASKED), Ok(V2_PROTOBUF));
    assert_eq!(kind("application/json, */*"), Ok(JSON));
    assert_eq!(kind("text/html"), Err(406));
}

#[test]
fn all_of_the_older_document_is_encoded() {
    let v2 = v2(&[]);
    assert_eq!(gnostic::left_out(&v2), BTreeSet::new());
    let document = json!({
        "swagger": "2.0",
        "definitions": {"A": {
            "type": "object", "x-a": {"b": 1}, "properties": {"c": {"$ref": "#/definitions/A"}},
            "required": ["c"],
        }},
        "paths": {"/a": {"parameters": [
            {"name": "n", "in": "path", "required": true}, {"name": "b", "in": "body"},
        ]}},
    });
    let expected: &[&[u8]] = &[
        b"\x4a\x44\x0a\x42",
        b"\x0a\x01A",
        b"\x12\x3d",
        // Schema.properties = 25, its NamedSchema.
        b"\xca\x01\x18\x0a\x16\x0a\x01c\x12\x11\x0a\x0f#/definitions/A",
        b"\x9a\x01\x01c",
        b"\xb2\x01\x08\x0a\x06object",
        b"\xfa\x01\x10\x0a\x03x-a\x12\x09\x12\x07{\"b\":1}",
        b"\x42\x2a\x12\x28\x0a\x02/a\x12\x22",
        // ParametersItem.parameter = 1, Parameter.non_body_parameter = 2, its path = 4.
        b"\x4a\x11\x0a\x0f\x12\x0d\x22\x0b\x12\x04path\x22\x01n\x08\x01",
        b"\x4a\x0d\x0a\x0b\x0a\x09\x1a\x04body\x12\x01b",
        b"\x0a\x032.0",
    ];
    assert_eq!(gnostic::encode(&document), expected.concat());
}
