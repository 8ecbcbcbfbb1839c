//! What the port asks for, as HTTP: the verbs and paths of upstream's API.

use super::connection::SERVER;
use crate::http::accept::BARE;
use crate::http::resources;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request};
use kubesim_actors::objects::{Key, Kind, Uid};
use kubesim_actors::ports::api::{self, DeleteOptions, Scope, Subresource};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// What stands in a path as it is (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub type Sent = Request<Full<Bytes>>;

/// Where objects of a kind are: in one namespace, or with an empty one in all.
fn collection(kind: Kind, namespace: &str) -> String {
    let prefix = resources::prefix(kind.group(), kind.version());
    let plural = kind.plural();
    if namespace.is_empty() || !kind.namespaced() {
        return format!("{prefix}/{plural}");
    }
    format!("{prefix}/namespaces/{}/{plural}", utf8_percent_encode(namespace, SEGMENT))
}

fn path(kind: Kind, key: &Key) -> String {
    let name = utf8_percent_encode(&key.name, SEGMENT);
    format!("{}/{name}", collection(kind, &key.namespace))
}

const JSON: &str = "application/json";

/// How an informer wants what it is told of.
fn accepted(scope: &Scope, list: bool) -> String {
    let what = match (scope, list) {
        (Scope::All | Scope::Node(_), _) => return BARE.to_owned(),
        (Scope::Metadata, true) => "PartialObjectMetadataList",
        (Scope::Metadata, false) => "PartialObjectMetadata",
    };
    format!("{JSON};as={what};g=meta.k8s.io;v=v1")
}

fn request(method: Method, target: &str, content: Option<(&str, &Value)>) -> Result<Sent, String> {
    request_for(method, target, BARE, content)
}

fn request_for(
    method: Method,
    target: &str,
    accepted: &str,
    content: Option<(&str, &Value)>,
) -> Result<Sent, String> {
    let (content_type, body) = match content {
        Some((content_type, value)) => (Some(content_type), value.to_string()),
        None => (None, String::new()),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{SERVER}{target}"))
        .header(ACCEPT, accepted);
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let made = request.body(Full::new(Bytes::from(body)));
    made.map_err(|error| format!("asking for {target}: {error}"))
}

pub fn get(kind: Kind, key: &Key) -> Result<Sent, String> {
    request(Method::GET, &path(kind, key), None)
}

/// What is at a path.
pub fn plain(path: &str) -> Result<Sent, String> {
    request(Method::GET, path, None)
}

/// A body for a path.
pub fn json(method: Method, path: &str, body: &Value) -> Result<Sent, String> {
    request(method, path, Some((JSON, body)))
}

/// A call of the port.
pub fn of(call: &api::Request) -> Result<Sent, String> {
    const MERGE: &str = "application/merge-patch+json";
    match call {
        api::Request::Get { kind, key } => get(*kind, key),
        api::Request::List { kind, namespace } => {
            request(Method::GET, &collection(*kind, namespace), None)
        }
        api::Request::Create { object } => {
            let target = collection(object.kind(), &object.key.namespace);
            request(Method::POST, &target, Some((JSON, &object.to_json())))
        }
        api::Request::Update { object } => {
            let target = path(object.kind(), &object.key);
            request(Method::PUT, &target, Some((JSON, &object.to_json())))
        }
        api::Request::UpdateStatus { object } => {
            let target = format!("{}/status", path(object.kind(), &object.key));
            request(Method::PUT, &target, Some((JSON, &object.to_json())))
        }
        api::Request::UpdateEphemeralContainers { object } => {
            let target = format!("{}/ephemeralcontainers", path(object.kind(), &object.key));
            request(Method::PUT, &target, Some((JSON, &object.to_json())))
        }
        api::Request::Patch { kind, key, subresource, patch } => {
            let below = match subresource {
                Subresource::Main => "",
                Subresource::Status => "/status",
            };
            let target = format!("{}{below}", path(*kind, key));
            request(Method::PATCH, &target, Some((MERGE, patch)))
        }
        api::Request::Delete { kind, key, options } => {
            let options = delete_options(options);
            request(Method::DELETE, &path(*kind, key), Some((JSON, &options)))
        }
        api::Request::Token(asked) => {
            let target = format!("{}/token", path(Kind::ServiceAccount, &asked.account));
            request(Method::POST, &target, Some((JSON, &token(asked))))
        }
        api::Request::Bind { pod, uid, node } => {
            let mut meta = json!({"name": pod.name, "namespace": pod.namespace});
            if *uid != Uid::NONE {
                meta["uid"] = uid.to_string().into();
            }
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": meta,
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let target = format!("{}/binding", path(Kind::Pod, pod));
            request(Method::POST, &target, Some((JSON, &binding)))
        }
    }
}

/// For nobody who is named, the server decides for whom a token is.
fn token(asked: &api::TokenRequest) -> Value {
    let audiences: Vec<&str> =
        Some(&*asked.audience).into_iter().filter(|a| !a.is_empty()).collect();
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": asked.seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": asked.pod, "uid": asked.uid.to_string(),
            },
        },
    })
}

fn delete_options(options: &DeleteOptions) -> Value {
    let mut value = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(uid) = options.uid {
        value["preconditions"]["uid"] = uid.to_string().into();
    }
    if let Some(version) = options.version {
        value["preconditions"]["resourceVersion"] = version.to_string().into();
    }
    if let Some(grace) = options.grace {
        // A part of a second is none that may be left out: zero would remove the pod at once.
        let seconds = u64::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        value["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        value["propagationPolicy"] = propagation.name().into();
    }
    value
}

/// All in scope; with a version, as of no older one.
pub fn list(kind: Kind, scope: &Scope, version: Option<u64>) -> Result<Sent, String> {
    let version = version.map(|version| ("resourceVersion", version.to_string()));
    let target = scoped(kind, scope, version.into_iter());
    request_for(Method::GET, &target, &accepted(scope, true), None)
}

/// What happens in scope after this version.
pub fn watch(kind: Kind, scope: &Scope, version: u64) -> Result<Sent, String> {
    let more = [
        ("watch", "1".to_owned()),
        ("allowWatchBookmarks", "true".to_owned()),
        ("resourceVersion", version.to_string()),
    ];
    let target = scoped(kind, scope, more.into_iter());
    request_for(Method::GET, &target, &accepted(scope, false), None)
}

/// Where leases of nodes live.
const LEASES: &str = "kube-node-lease";

/// The path and query of what is in scope. A pod belongs to the node it is bound to; anything else
/// has the node's name.
fn scoped(kind: Kind, scope: &Scope, more: impl Iterator<Item = (&'static str, String)>) -> String {
    let namespace = match (scope, kind) {
        (Scope::Node(_), Kind::Lease) => LEASES,
        _ => "",
    };
    let selector = match (scope, kind) {
        (Scope::All | Scope::Metadata, _) => None,
        (Scope::Node(node), Kind::Pod) => Some(format!("spec.nodeName={node}")),
        (Scope::Node(node), _) => Some(format!("metadata.name={node}")),
    };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(selector.map(|selector| ("fieldSelector", selector)));
    query.extend_pairs(more);
    let (path, query) = (collection(kind, namespace), query.finish());
    if query.is_empty() { path } else { format!("{path}?{query}") }
}
