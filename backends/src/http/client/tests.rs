//! Calls as requests, answers as replies, views from lists and events.

use super::view::{Heard, event, listed};
use super::{answer, request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use kubesim_actors::objects::{Key, Kind, Object, Uid, View};
use kubesim_actors::ports::api::{
    self, DeleteOptions, Propagation, Reason, Reply, Scope, Subresource,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const UID: &str = "00000000-0000-0000-0000-000000000009";

/// Its first line, and its body.
async fn told(request: Result<Request<Full<Bytes>>, String>) -> (String, Value) {
    let (head, body) = request.expect("a request").into_parts();
    let path = head.uri.path_and_query().map(|path| path.as_str()).unwrap_or_default();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    (format!("{} {path}", head.method), body)
}

fn object(kind: Kind, name: &str) -> Arc<Object> {
    let value = json!({"metadata": {"name": name, "namespace": "x", "uid": UID,
                                    "resourceVersion": "7"}});
    Arc::new(Object::from_json_of(kind, value).expect("an object"))
}

#[tokio::test]
async fn calls_are_upstreams_verbs_and_paths() {
    let (kind, key) = (Kind::Deployment, Key::new("x", "a"));
    let web = "/apis/apps/v1/namespaces/x/deployments";
    let get = api::Request::Get { kind, key: key.clone() };
    assert_eq!(told(request::of(&get)).await.0, format!("GET {web}/a"));
    let list = api::Request::List { kind, namespace: "".into() };
    assert_eq!(told(request::of(&list)).await.0, "GET /apis/apps/v1/deployments");
    let list = api::Request::List { kind: Kind::Node, namespace: "x".into() };
    assert_eq!(told(request::of(&list)).await.0, "GET /api/v1/nodes");
    let create = api::Request::Create { object: object(kind, "a") };
    let (head, body) = told(request::of(&create)).await;
    assert_eq!((head, &body["metadata"]["name"]), (format!("POST {web}"), &"a".into()));
    let update = api::Request::Update { object: object(kind, "a") };
    let (head, body) = told(request::of(&update)).await;
    assert_eq!((head, &body["metadata"]["resourceVersion"]), (format!("PUT {web}/a"), &"7".into()));
    let status = api::Request::UpdateStatus { object: object(kind, "a") };
    assert_eq!(told(request::of(&status)).await.0, format!("PUT {web}/a/status"));
    let (subresource, patch) = (Subresource::Status, json!({"status": {"replicas": 1}}));
    let patch = api::Request::Patch { kind, key: key.clone(), subresource, patch };
    let made = request::of(&patch);
    let content = made.as_ref().expect("a request").headers()["content-type"].clone();
    assert_eq!(content, "application/merge-patch+json");
    assert_eq!(
        told(made).await,
        (format!("PATCH {web}/a/status"), json!({"status": {"replicas": 1}}))
    );
    let bind = api::Request::Bind { pod: key, uid: Uid(9), node: "n1".into() };
    let (head, body) = told(request::of(&bind)).await;
    assert_eq!(head, "POST /api/v1/namespaces/x/pods/a/binding");
    assert_eq!((&body["metadata"]["uid"], &body["target"]["name"]), (&UID.into(), &"n1".into()));
}

#[tokio::test]
async fn a_deletion_says_what_it_asks_for_and_no_more() {
    let delete =
        |options| api::Request::Delete { kind: Kind::Pod, key: Key::new("x", "a"), options };
    let (head, body) = told(request::of(&delete(DeleteOptions::default()))).await;
    assert_eq!(head, "DELETE /api/v1/namespaces/x/pods/a");
    assert_eq!(body, json!({"apiVersion": "v1", "kind": "DeleteOptions"}));
    let options = DeleteOptions {
        uid: Some(Uid(9)),
        version: Some(7),
        grace: Some(Duration::from_millis(1)),
        propagation: Some(Propagation::Foreground),
    };
    let (_, body) = told(request::of(&delete(options))).await;
    let expected = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 1,
        "preconditions": {"uid": UID, "resourceVersion": "7"}, "propagationPolicy": "Foreground",
    });
    assert_eq!(body, expected);
    let options = DeleteOptions { grace: Some(Duration::ZERO), ..DeleteOptions::default() };
    assert_eq!(told(request::of(&delete(options))).await.1["gracePeriodSeconds"], 0);
}

#[tokio::test]
async fn scopes_are_field_selectors() {
    let node = Scope::Node("n1".into());
    let path = |kind, scope| told(request::watch(kind, scope, 5));
    let more = "watch=1&allowWatchBookmarks=true&resourceVersion=5";
    assert_eq!(path(Kind::Pod, &Scope::All).await.0, format!("GET /api/v1/pods?{more}"));
    let selected = format!("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1&{more}");
    assert_eq!(path(Kind::Pod, &node).await.0, selected);
    let selected = format!("GET /api/v1/nodes?fieldSelector=metadata.name%3Dn1&{more}");
    assert_eq!(path(Kind::Node, &node).await.0, selected);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let (head, _) = told(request::list(Kind::Lease, &node, None)).await;
    assert_eq!(head, format!("GET {leases}?fieldSelector=metadata.name%3Dn1"));
    let (head, _) = told(request::list(Kind::Pod, &Scope::All, Some(3))).await;
    assert_eq!(head, "GET /api/v1/pods?resourceVersion=3");
}

/// Both are of each kind, those without types of their own included.
#[test]
fn who_is_deleted_is_shown_as_it_was_seen_or_by_its_name() {
    for &kind in Kind::ALL {
        let key = Key::new(if kind.namespaced() { "x" } else { "" }, "a");
        let options = DeleteOptions::default();
        let delete = api::Request::Delete { kind, key: key.clone(), options };
        let done =
            json!({"kind": "Status", "status": "Success", "details": {"uid": UID}}).to_string();
        let reply = |known: Option<Arc<Object>>| match answer::of(
            &delete,
            (200, done.as_bytes()),
            1,
            |_, _| known,
        ) {
            Ok(Reply::Object(object)) => object,
            other => panic!("{kind}: {other:?}"),
        };
        let bare = reply(None);
        assert_eq!((bare.kind(), &bare.key, bare.uid), (kind, &key, Uid(9)));
        let known = Object { uid: Uid(9), version: 3, ..(*bare).clone() };
        assert_eq!(reply(Some(Arc::new(known.clone()))).version, 3);
        // Another one of that name.
        assert_eq!(reply(Some(Arc::new(Object { uid: Uid(8), ..known }))).version, 0);
    }
}

#[test]
fn refusals_have_the_reason_of_their_status() {
    let reason = |code: u16, status: Value| answer::refusal(code, status.to_string().as_bytes());
    let conflict = reason(409, json!({"reason": "Conflict", "message": "modified"}));
    assert_eq!((conflict.reason, conflict.message.as_str()), (Reason::Conflict, "modified"));
    assert_eq!(reason(409, json!({"reason": "AlreadyExists"})).reason, Reason::AlreadyExists);
    assert_eq!(reason(410, json!({"reason": "Expired"})).reason, Reason::Expired);
    assert_eq!(reason(504, json!({"reason": "Timeout"})).reason, Reason::Unknown);
    assert_eq!(reason(503, json!({"reason": "ServiceUnavailable"})).reason, Reason::Unreachable);
    // From a proxy: whether it was passed on is not known.
    assert_eq!(answer::refusal(503, b"<html>").reason, Reason::Unknown);
    assert_eq!(answer::refusal(502, b"").reason, Reason::Unknown);
    assert_eq!(answer::refusal(405, b"").reason, Reason::BadRequest);
}

fn map(name: &str, uid: u32, version: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "x", "resourceVersion": version.to_string(),
                        "uid": format!("00000000-0000-0000-0000-{uid:012}")}})
}

fn list(version: u64, items: &[Value]) -> Value {
    json!({"metadata": {"resourceVersion": version.to_string()}, "items": items})
}

fn shows(version: u64, items: &[Value], before: Option<&View>) -> Result<View, String> {
    listed(Kind::ConfigMap, &Scope::All, list(version, items), before, 9)
}

fn hears(view: &mut View, what: &str, object: &Value) -> Result<Heard, String> {
    let text = json!({"type": what, "object": object}).to_string();
    event(Kind::ConfigMap, &Scope::All, text.as_bytes(), view)
}

fn names(view: &View) -> Vec<(&str, u64)> {
    view.values().map(|object| (object.key.name.as_str(), object.version)).collect()
}

#[test]
fn a_view_keeps_what_did_not_change() {
    let items = [map("a", 1, 3), map("b", 2, 4)];
    let first = shows(5, &items, None).expect("a view");
    assert_eq!((first.history(), first.version(), names(&first)), (9, 5, vec![("a", 3), ("b", 4)]));
    // A relist in which one is gone, one new, and one another of the same name.
    let items = [map("a", 1, 3), map("c", 3, 6)];
    let mut view = shows(8, &items, Some(&first)).expect("a view");
    assert_eq!((view.history(), view.version(), names(&view)), (9, 8, vec![("a", 3), ("c", 6)]));
    let key = Key::new("x", "a");
    assert!(Arc::ptr_eq(first.get(&key).unwrap(), view.get(&key).unwrap()));
    assert!(shows(7, &[], Some(&view)).is_err(), "it goes not back");
    assert_eq!(hears(&mut view, "ADDED", &map("a", 1, 3)), Ok(Heard::Nothing));
    assert!(Arc::ptr_eq(first.get(&key).unwrap(), view.get(&key).unwrap()));
    assert_eq!(hears(&mut view, "MODIFIED", &map("a", 1, 9)), Ok(Heard::News));
    assert_eq!(hears(&mut view, "DELETED", &map("c", 3, 10)), Ok(Heard::News));
    assert_eq!((view.version(), names(&view)), (10, vec![("a", 9)]));
    let mark = json!({"metadata": {"resourceVersion": "15"}});
    assert_eq!(hears(&mut view, "BOOKMARK", &mark), Ok(Heard::Nothing));
    assert_eq!(view.version(), 15);
}

#[test]
fn what_ends_a_watch_says_why() {
    let mut view = View::empty(1);
    let expired = json!({"code": 410, "reason": "Expired", "message": "too old"});
    assert_eq!(hears(&mut view, "ERROR", &expired), Ok(Heard::Expired));
    let other = json!({"code": 500, "message": "no luck"});
    assert_eq!(hears(&mut view, "ERROR", &other), Ok(Heard::Refused("no luck".to_owned())));
    assert!(hears(&mut view, "MOVED", &map("a", 1, 3)).is_err());
    let wrong = json!({"metadata": {"name": "a"}, "data": [1]});
    assert!(hears(&mut view, "ADDED", &wrong).expect_err("unreadable").contains("\"a\""));
    assert!(event(Kind::Pod, &Scope::All, b"{", &mut view).is_err());
}

/// What is known of an object for its metadata's sake is no more than that, of any kind.
#[tokio::test]
async fn metadata_is_asked_for_and_taken_alone() {
    for (asked, what) in [
        (request::list(Kind::Pod, &Scope::Metadata, None), "PartialObjectMetadataList"),
        (request::watch(Kind::Pod, &Scope::Metadata, 5), "PartialObjectMetadata"),
    ] {
        let accept = asked.expect("a request").headers()["accept"].clone();
        let expected = format!("application/json;as={what};g=meta.k8s.io;v=v1");
        assert_eq!(accept, expected.as_str());
    }
    for kind in [Kind::Pod, Kind::ConfigMap, Kind::Secret] {
        let mut view = View::empty(1);
        let mut bare = map("a", 1, 3);
        bare["metadata"]["finalizers"] = json!(["orphan"]);
        bare["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        let text = json!({"type": "ADDED", "object": bare}).to_string();
        let heard = event(kind, &Scope::Metadata, text.as_bytes(), &mut view);
        assert_eq!(heard, Ok(Heard::News));
        let object = view.get(&Key::new("x", "a")).expect("it was told");
        assert_eq!((object.kind(), object.version, object.uid), (kind, 3, Uid(1)));
        assert_eq!(object.meta.finalizers.as_deref(), Some(&["orphan".to_owned()][..]));
        assert_eq!(object.managed.text(), None);
    }
}
