//! OpenAPI: what the server can do and what its types are, in version 3 (a document for each
//! group's version, KEP-2896) and in version 2 (one for all). `kubectl explain`, the validation and
//! the patches of `kubectl apply` read it.

mod declared;
mod facts;
mod gnostic;
mod parameters;
mod paths;
mod schemas;
mod subnet;
mod types;
mod v2;

pub use declared::Declared;

use super::accept;
use super::body::Answer;
use super::handle::GIT_VERSION;
use super::resources;
use super::status::Failure;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderMap, IF_NONE_MATCH, LOCATION, VARY};
use k8s_openapi::jiff::{Timestamp, ToSpan};
use kubesim_actors::objects::Definitions;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

const JSON: &str = "application/json";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// How older clients ask for it; as an answer it is no media type.
const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";

/// A document as it is sent, and what it is known by.
struct Document {
    bytes: Bytes,
    etag: String,
}

impl Document {
    fn new(value: &Value) -> Document {
        let bytes = Bytes::from(value.to_string());
        let mut etag = String::new();
        for byte in Sha512::digest(&bytes) {
            let _ = write!(etag, "{byte:02X}");
        }
        Document { bytes, etag }
    }

    /// It, or that the client has it.
    fn answer(&self, content_type: &'static str, bytes: &Bytes, headers: &HeaderMap) -> Answer {
        let quoted = format!("\"{}\"", self.etag);
        let has = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let mut known = has.unwrap_or_default().split(',').map(str::trim);
        let known = known.any(|one| one == "*" || one.trim_start_matches("W/") == quoted);
        let bytes = if known { Bytes::new() } else { bytes.clone() };
        let mut answer = Answer::bytes(content_type, bytes);
        if known {
            answer.code = StatusCode::NOT_MODIFIED;
        }
        answer.with(ETAG, &quoted).with(VARY, "Accept")
    }
}

/// Those of v3: made at the first question, and then kept.
struct Documents {
    /// By their paths: `apis/apps/v1`.
    versions: BTreeMap<String, Document>,
    /// Their list.
    root: Document,
}

fn documents() -> &'static Documents {
    static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
        let mut versions = BTreeMap::new();
        each(|path, value| drop(versions.insert(path.to_owned(), Document::new(&value))));
        Documents { root: list(versions.iter()), versions }
    });
    &DOCUMENTS
}

fn list<'a>(versions: impl Iterator<Item = (&'a String, &'a Document)>) -> Document {
    let url = |(path, document): (&String, &Document)| {
        (path.clone(), json!({"serverRelativeURL": location(path, &document.etag)}))
    };
    let paths: Map<String, Value> = versions.map(url).collect();
    Document::new(&json!({"paths": paths}))
}

/// That of v2, and in protobuf. Few ask for it any more.
fn older() -> &'static (Document, Bytes) {
    static OLDER: LazyLock<(Document, Bytes)> = LazyLock::new(|| older_with(&[]));
    &OLDER
}

/// With these documents of v3 besides.
fn older_with(more: &[Value]) -> (Document, Bytes) {
    let v2 = v2(more);
    (Document::new(&v2), gnostic::encode(&v2).into())
}

fn v2(more: &[Value]) -> Value {
    let mut v2 = v2::Parts::default();
    each(|_, v3| v2.add(&v3));
    more.iter().for_each(|v3| v2.add(v3));
    v2.document(&info())
}

fn location(path: &str, etag: &str) -> String {
    format!("/openapi/v3/{path}?hash={etag}")
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": GIT_VERSION})
}

/// How a client says who it is.
fn bearer() -> Value {
    json!({
        "type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication",
    })
}

/// The documents of v3, one after another, with their paths.
fn each(mut take: impl FnMut(&str, Value)) {
    let mut take = |path: &str, document| take(path.trim_start_matches('/'), document);
    let said = "get available API versions";
    take("/api", root("/api", said, "APIVersions", schemas::meta("APIVersions")));
    take("/apis", root("/apis", said, "APIVersions", schemas::meta("APIGroupList")));
    let said = "get the version information for this server";
    take("/version", root("/version", said, paths::VERSION, VERSION_INFO.to_owned()));
    let none = Definitions::default();
    let mut groups = resources::groups(&none);
    for group in &groups {
        let (path, document) = of_group(group.name);
        take(&path, document);
    }
    groups.insert(0, resources::core());
    for group in groups {
        for version in group.versions {
            let document = document(paths::of_version(group.name, version, &none));
            take(&resources::prefix(group.name, version), document);
        }
    }
}

/// What answers at a path with one thing.
fn root(path: &str, said: &str, operation: &str, kind: String) -> Value {
    let item = paths::root(path, said, operation, &kind);
    document(Map::from_iter([(format!("{path}/"), item)]))
}

/// Of a group, and its path.
fn of_group(name: &str) -> (String, Value) {
    let path = format!("/apis/{name}");
    let said = "get information of a group";
    let document = root(&path, said, "APIGroup", schemas::meta("APIGroup"));
    (path, document)
}

fn document(paths: Map<String, Value>) -> Value {
    document_with(paths, Map::new())
}

/// With schemas of its own.
fn document_with(paths: Map<String, Value>, own: Map<String, Value>) -> Value {
    let (paths, own) = (Value::Object(paths), Value::Object(own));
    let mut named = own.as_object().cloned().unwrap_or_default();
    schemas::all().named_by(&paths, &mut named);
    schemas::all().named_by(&own, &mut named);
    json!({
        "openapi": "3.0.0", "info": info(), "paths": paths,
        "components": {"schemas": named, "securitySchemes": {"BearerToken": bearer()}},
    })
}

/// `/openapi/v2`: in protobuf, which is how older kubectls ask for it, or in JSON.
pub fn v2_in(
    accepted: &str,
    headers: &HeaderMap,
    declared: &Declared,
    definitions: &Arc<Definitions>,
) -> Result<Answer, Failure> {
    let known = declared.older(definitions);
    let (v2, protobuf) = known.as_deref().unwrap_or_else(|| older());
    match first(accepted, &[JSON, V2_PROTOBUF, V2_ASKED]) {
        Some(JSON) => Ok(v2.answer(JSON, &v2.bytes, headers)),
        Some(_) => Ok(v2.answer(V2_PROTOBUF, protobuf, headers)),
        None => Err(Failure::not_acceptable(&format!("{JSON}, {V2_PROTOBUF}"))),
    }
}

/// `/openapi/v3`, and what is below it; the hash is the query's.
pub fn v3_at(
    below: &str,
    hash: &str,
    accepted: &str,
    headers: &HeaderMap,
    declared: &Declared,
    definitions: &Arc<Definitions>,
) -> Result<Answer, Failure> {
    let (all, declared) = (documents(), declared.documents(definitions));
    if below.is_empty() {
        let root = declared.as_ref().map_or(&all.root, |declared| &declared.root);
        return Ok(root.answer(JSON, &root.bytes, headers));
    }
    let known = declared.as_ref().and_then(|declared| declared.versions.get(below));
    let document = known.or_else(|| all.versions.get(below));
    let document = document.ok_or_else(Failure::no_such_resource)?;
    if first(accepted, &[JSON]).is_none() {
        return Err(Failure::not_acceptable(JSON));
    }
    if hash.is_empty() {
        return Ok(document.answer(JSON, &document.bytes, headers));
    }
    if hash != document.etag {
        let mut moved = Answer::bytes(JSON, Bytes::new());
        moved.code = StatusCode::MOVED_PERMANENTLY;
        return Ok(moved.with(LOCATION, &location(below, &document.etag)));
    }
    let year = Timestamp::now().checked_add((365 * 24).hours()).unwrap_or(Timestamp::MAX);
    let expires = year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let answer = document.answer(JSON, &document.bytes, headers);
    Ok(answer.with(CACHE_CONTROL, "public, immutable").with(EXPIRES, &expires))
}

/// The first media type of the header that is offered; without a header, what is offered first.
fn first(accepted: &str, offered: &[&'static str]) -> Option<&'static str> {
    if accepted.trim().is_empty() {
        return offered.first().copied();
    }
    let any = |kind: &str| ["*/*", "application/*"].contains(&kind);
    let media = accept::media(accepted);
    let mut kinds = media.iter().map(|media| media.kind);
    kinds.find_map(|kind| offered.iter().find(|one| any(kind) || **one == kind).copied())
}

#[cfg(test)]
mod tests;
