//! Anything may come in: whatever it is, the answer is one of the API's. A panic fails the test, as
//! does a refusal that is no Status or whose code, reason and text do not go together.
//!
//! `KUBESIM_FUZZ_SECONDS=3600` goes on for an hour, with other dice at each start; with
//! `KUBESIM_FUZZ_DICE=253,210,…` as well, with those that a former run has shown. What was asked
//! last is then in a file, should the process not survive it.

mod bodies;
mod requests;

use self::requests::Sent;
use super::world::{World, master, play};
use super::{deployment, map, pod};
use crate::http::body::Body;
use crate::http::handle;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// So many requests on an ordinary day.
const CASES: usize = 1500;
/// No answer is larger: what was written before is not much.
const LARGEST: usize = 32 << 20;
/// What the process may grow by, whatever it was asked.
const GROWTH: usize = 512 << 20;

/// Which reasons go with a code (apimachinery `pkg/api/errors/errors.go`).
fn reasons(code: u16) -> &'static [&'static str] {
    match code {
        400 => &["BadRequest"],
        401 => &["Unauthorized"],
        403 => &["Forbidden"],
        404 => &["NotFound"],
        405 => &["MethodNotAllowed"],
        406 => &["NotAcceptable"],
        408 => &["Timeout"],
        409 => &["AlreadyExists", "Conflict"],
        410 => &["Expired", "Gone"],
        413 => &["RequestEntityTooLarge"],
        415 => &["UnsupportedMediaType"],
        422 => &["Invalid"],
        429 => &["TooManyRequests"],
        _ => &[],
    }
}

fn judge(sent: &Sent, code: u16, json: bool, body: &[u8]) {
    let shown = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
        format!("{sent}\nanswered: {code} {text}")
    };
    assert!(body.len() < LARGEST, "{} bytes: {}", body.len(), shown());
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if code < 400 {
        // A redirection has no text.
        assert!(value.is_some() || !json || code >= 300, "no JSON: {}", shown());
        return;
    }
    let status = value.unwrap_or_default();
    let reason = status["reason"].as_str().unwrap_or_default();
    assert!(reasons(code).contains(&reason), "{}", shown());
    let told = (&status["kind"], &status["status"], &status["code"]);
    assert_eq!(told, (&"Status".into(), &"Failure".into(), &code.into()), "{}", shown());
    assert!(status["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", shown());
}

async fn ask(world: &World, sent: &Sent) {
    let mut request = Request::builder().method(&*sent.method).uri(&*sent.target);
    for (name, value) in &sent.headers {
        request = request.header(*name, &**value);
    }
    // What is no request, hyper does not let in.
    let Ok(request) = request.body(Full::new(Bytes::from(sent.body.clone()))) else { return };
    let user = master().map(Rc::new);
    let answered = handle::handle(Rc::clone(&world.front.0), user, request);
    let answered = tokio::time::timeout(Duration::from_secs(20), answered).await;
    let response: Response<Body> = answered.unwrap_or_else(|_| panic!("no answer: {sent}"));
    let code = response.status().as_u16();
    let says = |name: &str, what: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.contains(what))
    };
    if says("content-encoding", "gzip") {
        return;
    }
    let json = says("content-type", "application/json");
    if matches!(response.body(), Body::Stream(_)) {
        return assert_eq!(code, 200, "{sent}");
    }
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    judge(sent, code, json, &body);
}

/// Resident memory, in bytes (proc(5): in pages of 4 KiB, here).
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4096
}

fn runner() -> (TestRunner, Option<Duration>) {
    let seconds = std::env::var("KUBESIM_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let mut seed = [7; 32];
    if seconds.is_some() {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        seed[..16].copy_from_slice(&now.as_nanos().to_le_bytes());
        let dice = std::env::var("KUBESIM_FUZZ_DICE").unwrap_or_default();
        for (byte, said) in seed.iter_mut().zip(dice.split(',')) {
            *byte = said.trim().parse().unwrap_or(*byte);
        }
        println!("the dice are {seed:?}");
    }
    let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    (TestRunner::new_with_rng(Config::default(), dice), seconds.map(Duration::from_secs))
}

#[test]
fn whatever_comes_in_is_answered_as_the_api_answers() {
    play(|world| async move {
        for (path, object) in [
            ("/api/v1/namespaces/default/configmaps", map("a", "1")),
            ("/api/v1/namespaces/default/pods", pod("a")),
            ("/apis/apps/v1/namespaces/default/deployments", deployment("a")),
        ] {
            world.send(&format!("POST {path}"), &object).await.ok();
        }
        let (mut runner, time) = runner();
        let strategy = requests::request();
        let (began, before) = (Instant::now(), resident());
        let mut asked = 0;
        while time.map_or(asked < CASES, |time| began.elapsed() < time) {
            let sent = strategy.new_tree(&mut runner).expect("a request").current();
            if time.is_some() {
                let last = std::env::temp_dir().join("kubesim-fuzz-last");
                std::fs::write(last, format!("{sent}\n{:?}", sent.body)).expect("a file");
            }
            ask(&world, &sent).await;
            asked += 1;
            if asked % 256 == 0 {
                // Watches that nobody reads any more end.
                tokio::task::yield_now().await;
            }
        }
        let grown = resident().saturating_sub(before);
        println!("{asked} requests in {:?}, {} MiB more", began.elapsed(), grown >> 20);
        assert!(grown < GROWTH, "{} MiB more than before", grown >> 20);
    });
}
