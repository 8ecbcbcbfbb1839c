//! A front before a real API server on a store in memory, asked without a network.

use crate::http::auth::{KNOWN, MASTERS, User};
use crate::http::body::Body;
use crate::http::host::{Heard, Server};
use crate::http::{Front, Limits, handle};
use crate::store::memory::Memory;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use kubesim_actors::apiserver::Config;
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;

/// Where it would be.
pub const URL: &str = "https://10.0.0.1:6443";

pub struct World {
    pub front: Front,
    _server: Server,
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    pub code: u16,
    pub warnings: Vec<String>,
    pub text: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }
    /// The code, and a Status' reason.
    pub fn refusal(&self) -> (u16, String) {
        let status = self.json();
        assert_eq!((&status["kind"], &status["status"]), (&"Status".into(), &"Failure".into()));
        assert_eq!(status["code"], self.code);
        (self.code, status["reason"].as_str().unwrap_or_default().to_owned())
    }
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!([200, 201, 202].contains(&self.code), "{}: {}", self.code, self.text);
        self.json()
    }
}

/// A request: its parts but for the body are words, `POST /api/v1/namespaces`.
pub struct Ask<'a> {
    pub words: &'a str,
    pub body: String,
    pub content_type: &'a str,
    pub accept: &'a str,
    pub agent: &'a str,
    pub user: Option<User>,
    pub headers: &'a [(&'a str, &'a str)],
}

pub fn master() -> Option<User> {
    Some(User { name: "a".to_owned(), groups: vec![MASTERS.to_owned()], ..User::default() })
}

impl Default for Ask<'_> {
    fn default() -> Self {
        let body = String::new();
        let content_type = "application/json";
        Ask {
            words: "",
            body,
            content_type,
            accept: "",
            agent: "tester/1.0",
            user: master(),
            headers: &[],
        }
    }
}

/// Runs a story on a server that is open.
pub fn play<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let world = World::new();
        while !world.front.is_open() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.front.reconcile_roles().await.expect("the cluster's roles");
        story(world).await;
    });
}

impl World {
    fn new() -> World {
        let limits = Limits { request: Duration::from_secs(5), ..Limits::default() };
        let config = Config {
            pod_network: "10.244.0.0/16".parse().expect("a network"),
            service_network: "10.96.0.0/12".parse().expect("a network"),
            node_ports: (30000, 32767),
            node_networks: Vec::new(),
            refuse_overlap: true,
            shared: false,
            service_accounts: false,
            volumes: false,
            history: 1000,
            memo: true,
        };
        let heard = |heard: Heard<'_>| {
            if let Heard::Refused(why) = heard {
                panic!("{why}");
            }
        };
        let server = Server::start(config, Rc::new(Memory::new()), limits, 1, heard);
        server.front.issue_tokens(KNOWN.as_bytes(), URL).expect("a key");
        World { front: server.front.clone(), _server: server }
    }

    pub async fn response(&self, ask: Ask<'_>) -> Response<Body> {
        let (method, path) = ask.words.split_once(' ').expect("a method and a path");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", ask.content_type)
            .header("accept", ask.accept)
            .header("user-agent", ask.agent);
        let request = ask.headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        let request = request.body(Full::new(Bytes::from(ask.body))).expect("a request");
        handle::handle(Rc::clone(&self.front.0), ask.user.map(Rc::new), request).await
    }

    pub async fn ask(&self, ask: Ask<'_>) -> Answered {
        let response = self.response(ask).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|w| w.to_str().expect("text").to_owned()).collect();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Answered { code, warnings, text: String::from_utf8(body.to_vec()).expect("UTF-8") }
    }

    pub async fn get(&self, path: &str) -> Answered {
        self.ask(Ask { words: &format!("GET {path}"), ..Ask::default() }).await
    }

    pub async fn send(&self, words: &str, body: &Value) -> Answered {
        self.ask(Ask { words, body: body.to_string(), ..Ask::default() }).await
    }

    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answered {
        let words = format!("PATCH {path}");
        let content_type = format!("application/{kind}+json");
        let body = patch.to_string();
        self.ask(Ask { words: &words, body, content_type: &content_type, ..Ask::default() }).await
    }

    /// Applies a configuration: `PATH?fieldManager=a`.
    pub async fn apply(&self, path: &str, config: &Value) -> Answered {
        let words = format!("PATCH {path}");
        let content_type = "application/apply-patch+yaml";
        let body = config.to_string();
        self.ask(Ask { words: &words, body, content_type, ..Ask::default() }).await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as("", path).await
    }

    /// Opens a watch of objects in the form that is accepted.
    pub async fn watch_as(&self, accept: &str, path: &str) -> Events {
        let words = format!("GET {path}");
        let response = self.response(Ask { words: &words, accept, ..Ask::default() }).await;
        assert_eq!(response.status(), 200, "{path}");
        Events { body: response.into_body(), text: Vec::new() }
    }
}

/// A watch's stream.
pub struct Events {
    body: Body,
    text: Vec<u8>,
}

impl Events {
    /// The next event; none at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await;
            let frame = frame.expect("an event within 10 s")?.expect("no error");
            let data = frame.into_data().expect("data");
            data.parts().for_each(|part| self.text.extend_from_slice(&part));
        }
    }

    /// Its type and the object's name.
    pub async fn told(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}
