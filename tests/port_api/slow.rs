//! Clients that do not send what they began, or do not take what they asked for.

use crate::ends::{Writes, by_hand, listens, server_with};
use crate::namespace::in_namespace;
use crate::of_store;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Body, ConfigMap, Key, Kind, Object, View};
use kubesim_backends::http::{Front, Limits};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(1);
/// Long enough on a machine that does much else.
const SOON: Duration = Duration::from_secs(10);

fn limits() -> Limits {
    Limits { head: LIMIT, request: LIMIT, idle: LIMIT, ..Limits::default() }
}

fn play<F: Future<Output = ()>>(
    limits: Limits,
    cache: Cache,
    story: impl Fn(Front, Writes) -> F + Send + 'static,
) {
    in_namespace(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async move {
            let (front, writes) = server_with(limits.clone());
            front.publish(cache.clone());
            listens(&front, Ipv4Addr::LOCALHOST);
            tokio::task::yield_now().await;
            story(front, writes).await;
        });
    });
}

/// So many maps of a MiB each.
fn maps(count: u64) -> Cache {
    let mut view = View::empty(7);
    for number in 1..=count {
        let data = BTreeMap::from([("text".to_owned(), "x".repeat(MIB))]);
        let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        let mut object =
            Object::new(Key::new("default", format!("m{number}")), Body::ConfigMap(Arc::new(map)));
        object.version = number;
        view.insert(object.key.clone(), Arc::new(object), number);
    }
    let revision = view.version();
    of_store(1, Cache { views: [(Kind::ConfigMap, view)].into(), revision, ..Cache::default() })
}

fn post(length: usize) -> String {
    format!("POST {MAPS} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")
}

/// A map's JSON that is so long.
fn map(length: usize) -> String {
    let (head, tail) = (r#"{"metadata":{"name":"a"},"data":{"a":""#, r#""}}"#);
    format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()))
}

/// What comes until the server hangs up, or for a while.
async fn rest(stream: &mut Stream) -> (String, bool) {
    let mut told = Vec::new();
    let ended = timeout(SOON, async {
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => told.extend_from_slice(&piece[..length]),
            }
        }
    });
    let ended = ended.await.is_ok();
    (String::from_utf8_lossy(&told).into_owned(), ended)
}

/// The first line of an answer.
async fn status(stream: &mut Stream) -> String {
    let mut line = Vec::new();
    let read = timeout(SOON, async {
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.expect("an answer"));
        }
    });
    read.await.expect("an answer soon");
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

#[test]
fn who_does_not_end_a_head_is_hung_up_on() {
    play(limits(), maps(0), |_, _| async {
        for begun in ["", "G", "GET /version HTTP/1.1\r\nhost: a\r\nx"] {
            let start = Instant::now();
            let mut stream = by_hand("http/1.1").await;
            stream.write_all(begun.as_bytes()).await.expect("sent");
            // A byte now and then does not help.
            sleep(LIMIT / 2).await;
            let _ = stream.write_all(if begun.is_empty() { b"" } else { b"y" }).await;
            assert_eq!(rest(&mut stream).await, (String::new(), true), "{begun:?}");
            assert!(start.elapsed() >= LIMIT, "{begun:?}: {:?}", start.elapsed());
        }
    });
}

#[test]
fn who_does_not_send_a_body_is_told_so() {
    play(limits(), maps(0), |_, _| async {
        let mut stream = by_hand("http/1.1").await;
        stream.write_all(post(100).as_bytes()).await.expect("sent");
        for _ in 0..5 {
            stream.write_all(b"{").await.expect("sent");
            sleep(LIMIT / 10).await;
        }
        assert_eq!(status(&mut stream).await, "HTTP/1.1 408 Request Timeout");
    });
}

#[test]
fn who_sends_too_much_is_told_so() {
    play(limits(), maps(0), |_, _| async {
        let mut stream = by_hand("http/1.1").await;
        stream.write_all(post(3 * MIB + 1).as_bytes()).await.expect("sent");
        assert_eq!(status(&mut stream).await, "HTTP/1.1 413 Payload Too Large");
        // One that does not say how much comes.
        let mut stream = by_hand("http/1.1").await;
        let head = format!("POST {MAPS} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let chunk = format!("{MIB:x}\r\n{}\r\n", "x".repeat(MIB));
        for _ in 0..4 {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        assert_eq!(status(&mut stream).await, "HTTP/1.1 413 Payload Too Large");
    });
}

#[test]
fn what_is_sent_is_held_for_so_many_bytes_only() {
    let limits = Limits { bodies: 2 * MIB, request: SOON, ..limits() };
    play(limits, maps(0), |_, writes| async move {
        let mut slow = by_hand("http/1.1").await;
        let body = map(2 * MIB - 1000);
        slow.write_all(post(body.len()).as_bytes()).await.expect("sent");
        slow.write_all(&body.as_bytes()[..body.len() - 1]).await.expect("sent");
        slow.flush().await.expect("sent");
        sleep(LIMIT / 2).await;
        let other = map(MIB);
        let ask = format!("{}{other}", post(other.len()));
        let mut stream = by_hand("http/1.1").await;
        stream.write_all(ask.as_bytes()).await.expect("sent");
        assert_eq!(status(&mut stream).await, "HTTP/1.1 429 Too Many Requests");
        assert!(writes.borrow().is_empty());
        drop(slow);
        sleep(LIMIT / 2).await;
        let mut stream = by_hand("http/1.1").await;
        stream.write_all(ask.as_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
        let written = timeout(SOON, async {
            while writes.borrow().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        written.await.expect("there is room again");
    });
}

/// More than the kernel buffers on its way.
#[test]
fn who_does_not_take_an_answer_is_hung_up_on() {
    let limits = Limits { answers: 4 * MIB, ..limits() };
    for protocol in ["http/1.1", "h2"] {
        play(limits.clone(), maps(24), move |_, _| async move {
            let mut slow = by_hand(protocol).await;
            slow.write_all(&ask(protocol)).await.expect("sent");
            slow.flush().await.expect("sent");
            sleep(LIMIT / 2).await;
            let get = format!("GET {MAPS}/m1 HTTP/1.1\r\nhost: a\r\n\r\n");
            let mut other = by_hand("http/1.1").await;
            other.write_all(get.as_bytes()).await.expect("sent");
            assert_eq!(status(&mut other).await, "HTTP/1.1 429 Too Many Requests", "{protocol}");
            sleep(LIMIT).await;
            let mut other = by_hand("http/1.1").await;
            other.write_all(get.as_bytes()).await.expect("sent");
            assert_eq!(status(&mut other).await, "HTTP/1.1 200 OK", "{protocol}");
            let (told, ended) = rest(&mut slow).await;
            assert!(ended && told.len() < 24 * MIB, "{protocol}: {} bytes", told.len());
        });
    }
}

/// A list of all maps.
fn ask(protocol: &str) -> Vec<u8> {
    if protocol == "http/1.1" {
        return format!("GET {MAPS} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes();
    }
    // RFC 9113: the preface, no settings, and HEADERS with END_STREAM and END_HEADERS, in literals
    // without an index (RFC 7541, 6.2.2).
    let mut fields = Vec::new();
    for (name, value) in
        [(":method", "GET"), (":scheme", "https"), (":path", MAPS), (":authority", "a")]
    {
        fields.push(0);
        for text in [name, value] {
            fields.push(u8::try_from(text.len()).expect("a short text"));
            fields.extend_from_slice(text.as_bytes());
        }
    }
    let length = u8::try_from(fields.len()).expect("short fields");
    [PREFACE, &[0, 0, length, 1, 5, 0, 0, 0, 1], &fields].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn who_asks_nothing_is_hung_up_on() {
    play(limits(), maps(0), |_, _| async {
        // Nothing, and HEADERS that do not end.
        for more in [&b""[..], &[0, 0, 9, 1, 0, 0, 0, 0, 1, 0, 7]] {
            let start = Instant::now();
            let mut stream = by_hand("h2").await;
            stream.write_all(&[PREFACE, more].concat()).await.expect("sent");
            let (_, ended) = rest(&mut stream).await;
            assert!(ended && start.elapsed() >= LIMIT, "{more:?}: {:?}", start.elapsed());
        }
    });
}

/// They come first, and they are many.
#[test]
fn who_asks_nothing_makes_room_for_others() {
    let limits = Limits { connections: 3, idle: SOON * 6, head: SOON * 6, ..limits() };
    play(limits, maps(1), |_, _| async {
        let mut watch = by_hand("http/1.1").await;
        let words = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nhost: a\r\n\r\n");
        watch.write_all(words.as_bytes()).await.expect("sent");
        assert_eq!(status(&mut watch).await, "HTTP/1.1 200 OK");
        let mut silent = vec![by_hand("http/1.1").await, by_hand("h2").await];
        let get = format!("GET {MAPS}/m1 HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut others = Vec::new();
        for _ in 0..3 {
            let mut other = by_hand("http/1.1").await;
            other.write_all(get.as_bytes()).await.expect("sent");
            assert_eq!(status(&mut other).await, "HTTP/1.1 200 OK");
            others.push(other);
        }
        for silent in &mut silent {
            assert!(rest(silent).await.1, "it is hung up on");
        }
        let more = timeout(Duration::from_millis(200), rest(&mut watch)).await;
        assert!(more.is_err(), "who waits for news is not");
    });
}
