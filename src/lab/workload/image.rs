//! What an image does, as a text that a process can be given.

use kubesim_sim::scenario::{self, FindHost, Span};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A time is drawn from a span, both ends included.
type Times = (Duration, Duration);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub start: Times,
    pub stop: Times,
    pub tcp: Vec<u16>,
    pub udp: Vec<u16>,
    pub http: Vec<Route>,
    pub streams: Vec<(Call, Duration)>,
    pub crash: Option<Crash>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub port: u16,
    pub path: String,
    pub status: u16,
    pub delay: Times,
    pub text: String,
    pub calls: Vec<Call>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub host: String,
    pub port: u16,
    pub find: Find,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Find {
    Env,
    Dns,
    Variable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crash {
    pub after: Times,
    pub code: i32,
    pub times: u32,
}

fn times(span: Span) -> Times {
    (span.from, span.to)
}

impl Image {
    pub fn of(image: &scenario::Image) -> Image {
        let call = |call: &scenario::Call| Call {
            host: call.host.to_string(),
            port: call.port,
            find: match &call.find {
                FindHost::Env => Find::Env,
                FindHost::Dns => Find::Dns,
                FindHost::Variable(name) => Find::Variable(name.to_string()),
            },
        };
        let route = |route: &scenario::HttpRoute| Route {
            port: route.port,
            path: route.path.to_string(),
            status: route.status,
            delay: times(route.delay),
            text: route.text.to_string(),
            calls: route.calls.iter().map(call).collect(),
        };
        Image {
            start: times(image.start),
            stop: times(image.stop),
            tcp: image.tcp.clone(),
            udp: image.udp.clone(),
            http: image.http.iter().map(route).collect(),
            streams: image.streams.iter().map(|s| (call(&s.to), s.every)).collect(),
            crash: image.crash.map(|crash| Crash {
                after: times(crash.after),
                code: crash.code,
                times: crash.times,
            }),
        }
    }

    pub fn from_environment() -> Result<Image, String> {
        let text = std::env::var(super::IMAGE)
            .map_err(|_| format!("{} is not set to an image's description", super::IMAGE))?;
        serde_json::from_str(&text).map_err(|error| format!("reading {}: {error}", super::IMAGE))
    }

    pub fn http(port: u16, text: &str) -> Image {
        let route = Route {
            port,
            path: "/".to_owned(),
            status: 200,
            delay: Times::default(),
            text: text.to_owned(),
            calls: Vec::new(),
        };
        Image { http: vec![route], ..Image::default() }
    }

    pub fn stream(host: &str, port: u16, every: Duration) -> Image {
        let call = Call { host: host.to_owned(), port, find: Find::Dns };
        Image { streams: vec![(call, every)], ..Image::default() }
    }

    /// Every TCP port, once.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports = self.tcp.clone();
        ports.extend(self.http.iter().map(|route| route.port));
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
