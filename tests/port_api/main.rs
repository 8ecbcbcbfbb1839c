//! The API port over real sockets: what a node's client hears of a server that publishes, answers,
//! dies and moves. The simulator's own ends are in `sim/src/world/api`.

#![cfg(target_os = "linux")]

mod ends;
#[path = "../common/namespace.rs"]
mod namespace;
mod slow;

use ends::{Ends, Writes, connected_to_nothing, with_ends};
use kubesim_actors::apiserver::{Cache, RequestId};
use kubesim_actors::objects::{Body, ConfigMap, Key, Kind, Object, Uid, View};
use kubesim_actors::ports::api::{Effect, Event, News, Reason, Reply, Request, Scope};
use kubesim_backends::http::client::Client;
use kubesim_backends::port::{Answer, Port};
use namespace::{in_namespace, ip};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

fn config_map(name: &str, version: u64) -> Arc<Object> {
    let body = Body::ConfigMap(Arc::new(ConfigMap::default()));
    let mut object = Object::new(Key::new("default", name), body);
    (object.uid, object.version) = (Uid(u128::from(version)), version);
    Arc::new(object)
}

/// One ConfigMap for each name, written in this order.
fn cache(history: u64, names: &[&str]) -> Cache {
    let mut view = View::empty(history);
    for (at, name) in names.iter().enumerate() {
        let object = config_map(name, at as u64 + 1);
        view.insert(object.key.clone(), object, at as u64 + 1);
    }
    let revision = view.version();
    Cache { views: [(Kind::ConfigMap, view)].into(), revision, ..Cache::default() }
}

/// As it is read from the store with this identity.
fn of_store(identity: u128, mut cache: Cache) -> Cache {
    let spec = Body::Namespace { spec: Arc::default(), status: Arc::default() };
    let mut namespace = Object::new(Key::cluster("kube-system"), spec);
    namespace.uid = Uid(identity);
    let mut view = View::empty(cache.views[&Kind::ConfigMap].history());
    view.insert(namespace.key.clone(), Arc::new(namespace), 1);
    cache.views.insert(Kind::Namespace, view);
    cache
}

/// Asks, and what comes back.
fn ask(client: &Client, effect: Effect) -> UnboundedReceiver<Event> {
    let (send, receive) = unbounded_channel();
    let answer = Answer::new(move |event| {
        let _ = send.send(event);
        async { Ok(()) }
    });
    spawn_local(client.perform(effect, answer));
    receive
}

async fn next<T>(from: &mut UnboundedReceiver<T>) -> T {
    timeout(SOON, from.recv()).await.expect("soon").expect("something")
}

async fn view(watch: &mut UnboundedReceiver<Event>) -> View {
    match next(watch).await {
        Event::News(News::View { view, .. }) => view,
        other => panic!("{other:?}"),
    }
}

async fn names(watch: &mut UnboundedReceiver<Event>) -> Vec<String> {
    view(watch).await.values().map(|object| object.key.name.to_string()).collect()
}

fn create(tag: u64) -> Effect {
    let request = Arc::new(Request::Create { object: config_map("new", 0) });
    Effect::Call { tag, request }
}

async fn write_of(writes: &Writes) -> RequestId {
    for _ in 0..500 {
        if let Some((id, request)) = writes.borrow_mut().pop() {
            assert_eq!(request.subject(), (Kind::ConfigMap, Key::new("default", "new")));
            return id;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no write came");
}

#[test]
fn a_watch_follows_and_a_write_is_answered() {
    with_ends(|Ends { server, client, writes, mut connected }| async move {
        assert!(next(&mut connected).await);
        let watching = Effect::Watch { kind: Kind::ConfigMap, scope: Scope::All };
        let mut watch = ask(&client, watching);
        server.publish(cache(1, &["a"]));
        assert_eq!(names(&mut watch).await, ["a"]);
        server.publish(cache(1, &["a", "b"]));
        assert_eq!(names(&mut watch).await, ["a", "b"]);
        // A read is answered by the front itself.
        let key = Key::new("default", "b");
        let get = Arc::new(Request::Get { kind: Kind::ConfigMap, key: key.clone() });
        let mut answer = ask(&client, Effect::Call { tag: 1, request: get });
        let Event::Answer(found) = next(&mut answer).await else { panic!("no answer") };
        let Ok(Reply::Object(found)) = found.result else { panic!("{found:?}") };
        assert_eq!((found.key.clone(), found.version), (key, 2));
        let mut answer = ask(&client, create(2));
        let id = write_of(&writes).await;
        server.respond(id, Ok(Reply::Object(config_map("new", 3))));
        let Event::Answer(written) = next(&mut answer).await else { panic!("no answer") };
        assert_eq!(written.tag, 2);
        assert!(matches!(written.result, Ok(Reply::Object(object)) if object.version == 3));
    });
}

#[test]
fn when_the_server_dies_calls_are_unknown_and_watches_come_back() {
    with_ends(|Ends { server, client, writes, mut connected }| async move {
        assert!(next(&mut connected).await);
        let watching = Effect::Watch { kind: Kind::ConfigMap, scope: Scope::All };
        let mut watch = ask(&client, watching);
        server.publish(cache(1, &["a", "b"]));
        assert_eq!(names(&mut watch).await, ["a", "b"]);
        let mut answer = ask(&client, create(7));
        write_of(&writes).await;
        server.reset();
        let Event::Answer(lost) = next(&mut answer).await else { panic!("no answer") };
        assert_eq!(lost.result.expect_err("lost").reason, Reason::Unknown);
        let closed = next(&mut watch).await;
        assert!(matches!(closed, Event::News(News::Closed { .. })), "{closed:?}");
        assert!(!next(&mut connected).await);
        assert!(next(&mut connected).await);
        // Another life has another history: what it shows is whole.
        server.publish(cache(2, &["a", "b", "c"]));
        assert_eq!(names(&mut watch).await, ["a", "b", "c"]);
    });
}

/// It had counted exactly as far, so the client heard nothing and went on with what was lost.
#[test]
fn another_store_in_the_place_of_a_lost_one_is_shown_whole() {
    with_ends(|Ends { server, client, mut connected, .. }| async move {
        server.publish(of_store(1, cache(1, &["a", "b"])));
        assert!(next(&mut connected).await);
        let watching = Effect::Watch { kind: Kind::ConfigMap, scope: Scope::All };
        let mut watch = ask(&client, watching);
        assert_eq!(names(&mut watch).await, ["a", "b"]);
        server.reset();
        server.publish(of_store(2, cache(2, &["c", "d"])));
        let closed = next(&mut watch).await;
        assert!(matches!(closed, Event::News(News::Closed { .. })), "{closed:?}");
        assert_eq!(names(&mut watch).await, ["c", "d"]);
        // The same store again, read by another life of the server: only what is new is told.
        server.reset();
        server.publish(of_store(2, cache(3, &["c", "d"])));
        let closed = next(&mut watch).await;
        assert!(matches!(closed, Event::News(News::Closed { .. })), "{closed:?}");
        for up in [false, true, false, true] {
            assert_eq!(next(&mut connected).await, up);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.publish(of_store(2, cache(3, &["c", "d", "e"])));
        assert_eq!(names(&mut watch).await, ["c", "d", "e"]);
    });
}

/// Its certificate says who it is, so it is the same one at another address; what happened between
/// two connections is told after them, and what did not happen to an object leaves it as it is.
#[test]
fn a_server_that_moved_is_followed_and_nothing_is_missed() {
    let [first, second] = [1, 2].map(|last| Ipv4Addr::new(10, 9, 0, last));
    in_namespace(move || {
        ip(&format!("addr add {first}/32 dev lo"));
        ip(&format!("addr add {second}/32 dev lo"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), moves(first, second));
    });
}

async fn moves(first: Ipv4Addr, second: Ipv4Addr) {
    let (server, _) = ends::server();
    let listening = ends::listens(&server, first);
    let (client, mut connected) = ends::client(vec![first]);
    server.publish(of_store(1, cache(1, &["a", "b"])));
    assert!(next(&mut connected).await);
    let mut watch = ask(&client, Effect::Watch { kind: Kind::ConfigMap, scope: Scope::All });
    let before = view(&mut watch).await;
    listening.abort();
    ends::listens(&server, second);
    let dialled = ask(&client, Effect::Dial { addresses: vec![second] });
    drop(dialled);
    server.publish(of_store(1, cache(1, &["a", "b", "c"])));
    let closed = next(&mut watch).await;
    assert!(matches!(closed, Event::News(News::Closed { .. })), "{closed:?}");
    let after = view(&mut watch).await;
    assert_eq!(after.len(), 3);
    let key = Key::new("default", "a");
    let [was, is] = [&before, &after].map(|view| view.get(&key).expect("it is there"));
    assert!(Arc::ptr_eq(was, is));
    for up in [false, true] {
        assert_eq!(next(&mut connected).await, up);
    }
    // An address of the client's own that is gone is a connection that is gone.
    client.addresses_changed(|ip| ip == IpAddr::V4(first));
    for up in [false, true] {
        assert_eq!(next(&mut connected).await, up);
    }
}

#[test]
fn a_call_that_never_left_says_so() {
    connected_to_nothing(|client| async move {
        let mut answer = ask(&client, create(1));
        let answered = timeout(Duration::from_secs(60), answer.recv()).await;
        let Ok(Some(Event::Answer(answer))) = answered else { panic!("{answered:?}") };
        assert_eq!(answer.result.expect_err("refused").reason, Reason::Unreachable);
    });
}
