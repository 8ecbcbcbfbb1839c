use super::world::{Ask, play};
use super::*;
use crate::http::body::Body;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;

#[test]
fn a_watch_goes_on_from_a_list() {
    play(|world| async move {
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let from = version(&world.get(MAPS).await.ok()).to_owned();
        world.send(&format!("POST {MAPS}"), &map("b", "1")).await.ok();
        let mut watch = world.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
        assert_eq!(watch.told().await, "ADDED b");
        world.send(&format!("PUT {MAPS}/a"), &map("a", "2")).await.ok();
        let event = watch.next().await.expect("an event");
        assert_eq!(
            (&event["type"], &event["object"]["kind"]),
            (&json!("MODIFIED"), &json!("ConfigMap"))
        );
        assert_eq!(event["object"]["data"]["key"], "2");
        world.send(&format!("DELETE {MAPS}/a"), &json!({})).await.ok();
        world.send(&format!("POST {MAPS}"), &map("a", "3")).await.ok();
        let gone = watch.next().await.expect("an event");
        assert_eq!(
            (&gone["type"], &gone["object"]["data"]["key"]),
            (&json!("DELETED"), &json!("2"))
        );
        let made = watch.next().await.expect("an event");
        assert_eq!((&made["type"], &made["object"]["data"]["key"]), (&json!("ADDED"), &json!("3")));
        let number = |event: &Value| version(&event["object"]).parse::<u64>().expect("a number");
        assert!(number(&event) < number(&gone) && number(&gone) < number(&made));
    });
}

#[test]
fn what_comes_into_a_selection_is_added_and_what_leaves_it_deleted() {
    play(|world| async move {
        let path = "/api/v1/configmaps?watch=true&labelSelector=app%3Dx";
        let mut watch = world.watch(path).await;
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
        world.patch(&format!("{MAPS}/a"), "merge-patch", &label("x")).await.ok();
        assert_eq!(watch.told().await, "ADDED a");
        world.patch(&format!("{MAPS}/a"), "merge-patch", &label("y")).await.ok();
        assert_eq!(watch.told().await, "DELETED a");
    });
}

#[test]
fn what_is_there_comes_first_and_its_end_is_marked() {
    play(|world| async move {
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let path = format!(
            "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
             &allowWatchBookmarks=true&timeoutSeconds=1"
        );
        let mut watch = world.watch(&path).await;
        assert_eq!(watch.told().await, "ADDED a");
        let mark = watch.next().await.expect("a bookmark");
        assert_eq!(mark["type"], "BOOKMARK");
        let annotations = &mark["object"]["metadata"]["annotations"];
        assert_eq!(annotations["k8s.io/initial-events-end"], "true");
        assert_eq!(version(&mark["object"]), version(&world.get(MAPS).await.ok()));
        assert_eq!(watch.next().await, None, "its time is over");
    });
}

#[test]
fn a_watch_from_too_long_ago_is_expired() {
    play(|world| async move {
        let from = version(&world.get(MAPS).await.ok()).to_owned();
        let mut watch = world.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
        // Another API server, of which nobody knows what it has seen.
        let cache = world.front.0.state.borrow().history.cache().cloned().expect("it is open");
        world.front.reset();
        world.front.publish(cache);
        let error = watch.next().await.expect("an error");
        assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
        assert_eq!(watch.next().await, None);
        // From before its start, the same is told in the stream.
        let before = from.parse::<u64>().expect("a number") - 1;
        let mut old = world.watch(&format!("{MAPS}?watch=1&resourceVersion={before}")).await;
        let error = old.next().await.expect("an error");
        assert_eq!(
            (&error["type"], &error["object"]["reason"]),
            (&json!("ERROR"), &json!("Expired"))
        );
        assert_eq!(old.next().await, None);
    });
}

#[test]
fn a_watch_ends_with_its_server() {
    play(|world| async move {
        let mut watch = world.watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        world.front.drain().await;
        assert_eq!(watch.told().await, "ADDED a");
        assert_eq!(watch.next().await, None);
    });
}

/// The client that made it, who watch and who gets or lists it: nobody has a copy of their own.
#[test]
fn an_object_is_written_once_in_a_version_for_everybody() {
    play(|world| async move {
        let from = version(&world.get(MAPS).await.ok()).to_owned();
        let watch = format!("GET {MAPS}?watch=1&resourceVersion={from}");
        let mut pieces = Vec::new();
        let mut watches = Vec::new();
        for _ in 0..2 {
            watches.push(world.response(Ask { words: &watch, ..Ask::default() }).await.into_body());
        }
        let (post, made) = (format!("POST {MAPS}"), map("a", "1").to_string());
        let one = format!("GET {MAPS}/a");
        for ask in [
            Ask { words: &post, body: made, ..Ask::default() },
            Ask { words: &one, ..Ask::default() },
        ] {
            let mut body = world.response(ask).await.into_body();
            pieces.push(piece(&mut body).await);
        }
        for watch in &mut watches {
            pieces.push(piece(watch).await);
        }
        let line = pieces[3].clone();
        for piece in &pieces {
            assert!(line.as_ptr_range().contains(&piece.as_ptr()), "part of the same text");
        }
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            (&event["type"], &event["object"]["data"]["key"]),
            (&json!("ADDED"), &json!("1"))
        );
        let object: Value = serde_json::from_slice(&pieces[0]).expect("JSON");
        assert_eq!(object, event["object"]);
    });
}

async fn piece(body: &mut Body) -> Bytes {
    let frame = body.frame().await.expect("more").expect("it comes");
    let mut data = frame.into_data().expect("bytes");
    data.copy_to_bytes(data.remaining())
}
