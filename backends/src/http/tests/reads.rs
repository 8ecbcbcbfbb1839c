use super::world::{Ask, master, play};
use super::*;
use crate::http::auth::User;

#[test]
fn lists_are_selected_and_read_in_pages_of_one_version() {
    play(|world| async move {
        for name in ["a", "b", "c", "d", "e"] {
            world.send(&format!("POST {MAPS}"), &map(name, "1")).await.ok();
        }
        let all = world.get(MAPS).await.ok();
        assert_eq!(all["kind"], "ConfigMapList");
        assert_eq!(names(&all), ["a", "b", "c", "d", "e"]);
        assert_eq!(all["items"][0].get("kind"), None, "an item does not say its kind");
        let some = world.get(&format!("{MAPS}?labelSelector=app+in+(b,d)")).await.ok();
        assert_eq!(names(&some), ["b", "d"]);
        let one = world.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dc").await.ok();
        assert_eq!(names(&one), ["c"]);
        let first = world.get(&format!("{MAPS}?limit=2")).await.ok();
        assert_eq!((names(&first), version(&first)), (vec!["a", "b"], version(&all)));
        assert_eq!(first["metadata"]["remainingItemCount"], 3);
        world.send(&format!("DELETE {MAPS}/d"), &json!({})).await.ok();
        let next = |list: &Value| {
            let token = list["metadata"]["continue"].as_str().expect("a token");
            format!("{MAPS}?limit=2&continue={token}")
        };
        let second = world.get(&next(&first)).await.ok();
        assert_eq!((names(&second), version(&second)), (vec!["c", "d"], version(&all)));
        let third = world.get(&next(&second)).await.ok();
        assert_eq!(names(&third), ["e"]);
        assert_eq!(third["metadata"].get("continue"), None);
        let exact = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={}", version(&all));
        assert_eq!(names(&world.get(&exact).await.ok()).len(), 5);
        let forgotten = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion=1");
        assert_eq!(world.get(&forgotten).await.refusal(), (410, "Expired".to_owned()));
    });
}

#[test]
fn a_version_that_is_not_there_yet_is_waited_for_and_then_refused() {
    play(|world| async move {
        let all = world.get(MAPS).await.ok();
        let now: u64 = version(&all).parse().expect("a number");
        let refused = world.get(&format!("{MAPS}?resourceVersion={}", now + 1)).await;
        assert_eq!(refused.refusal(), (504, "Timeout".to_owned()));
        let cause = &refused.json()["details"]["causes"][0]["reason"];
        assert_eq!(cause, "ResourceVersionTooLarge");
        let (path, made) = (format!("{MAPS}?resourceVersion={}", now + 1), map("a", "1"));
        let post = format!("POST {MAPS}");
        let (list, _) = tokio::join!(world.get(&path), world.send(&post, &made));
        assert_eq!(names(&list.ok()), ["a"]);
    });
}

#[test]
fn bad_requests_are_told() {
    play(|world| async move {
        let cases = [
            (format!("{MAPS}?labelSelector=a+b"), 400),
            (format!("{MAPS}?fieldSelector=data.key%3D1"), 400),
            (format!("{MAPS}?limit=many"), 400),
            (format!("{MAPS}?continue=none"), 400),
            (format!("{MAPS}?resourceVersion=x"), 400),
            (format!("{MAPS}?watch=1&sendInitialEvents=true"), 422),
            ("/api/v1/namespaces/default/pots".to_owned(), 404),
            ("/apis/none/v1".to_owned(), 404),
            ("/nowhere".to_owned(), 404),
        ];
        for (path, code) in cases {
            assert_eq!(world.get(&path).await.refusal().0, code, "{path}");
        }
        let accept = "application/vnd.kubernetes.protobuf";
        let words = format!("GET {MAPS}");
        let binary = world.ask(Ask { words: &words, accept, ..Ask::default() }).await;
        assert_eq!(binary.refusal(), (406, "NotAcceptable".to_owned()));
    });
}

#[test]
fn strangers_see_health_and_version_and_others_what_there_is() {
    play(|world| async move {
        let other = User { name: "n".to_owned(), ..User::default() };
        for (path, nobody, known) in [
            ("/version", 200, 200),
            ("/healthz", 200, 200),
            ("/livez", 200, 200),
            ("/readyz", 200, 200),
            ("/metrics", 403, 403),
            ("/api", 403, 200),
            ("/apis/apps/v1", 403, 200),
            ("/api/v1/pods", 403, 403),
            ("/nowhere", 403, 403),
        ] {
            let words = format!("GET {path}");
            for (user, code) in [(None, nobody), (Some(other.clone()), known)] {
                let answered = world.ask(Ask { words: &words, user, ..Ask::default() }).await;
                assert_eq!(answered.code, code, "{path}");
            }
        }
        let words = "GET /metrics";
        let metrics = world.ask(Ask { words, user: master(), ..Ask::default() }).await;
        assert!(metrics.text.contains("code=\"403\""), "{}", metrics.text);
    });
}

#[test]
fn tables_and_bare_metadata_are_forms_of_the_same() {
    play(|world| async move {
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let words = format!("GET {MAPS}");
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let table = world.ask(Ask { words: &words, accept, ..Ask::default() }).await.ok();
        assert_eq!((&table["kind"], &table["rows"][0]["cells"][1]), (&json!("Table"), &json!(1)));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
        let bare = world.ask(Ask { words: &words, accept, ..Ask::default() }).await.ok();
        assert_eq!(bare["kind"], "PartialObjectMetadataList");
        assert_eq!((names(&bare), bare["items"][0].get("data")), (vec!["a"], None));
    });
}
