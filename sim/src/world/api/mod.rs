//! The API's two ends over modelled TCP: one client per node, shared by its actors (they are one
//! process and one HTTP/2 connection in production), and the front of the API server.
//!
//! A message is one request, answer or piece of news; its length on the wire is what the real one
//! would have. So a partition, a roam or a lost segment hurts calls as it would hurt them.

mod client;
mod front;
mod stream;

pub use client::Client;
pub use front::Front;

use kubesim_actors::objects::{Name, Uid, View};
use kubesim_actors::ports::api::{Error, Reply, Request, Scope};
use std::sync::Arc;

/// Where the API server listens.
pub const PORT: u16 = 6443;

/// What travels on a connection.
#[derive(Clone, Debug)]
pub enum Message {
    /// The client wants this server, whoever has the address now.
    Hello {
        node: Name,
    },
    /// The server proves who it is (its certificate, in production), and says of which store it
    /// tells ([`Cache::identity`](kubesim_actors::apiserver::Cache::identity)).
    Welcome {
        store: Option<Uid>,
    },
    Call {
        id: u64,
        request: Arc<Request>,
    },
    Answer {
        id: u64,
        result: Result<Reply, Error>,
    },
    Open {
        stream: u64,
        kind: kubesim_actors::objects::Kind,
        scope: Scope,
        from: Option<u64>,
    },
    News {
        stream: u64,
        view: View,
    },
    /// The version asked from was compacted: ask again from nothing.
    Expired {
        stream: u64,
    },
    Ping,
    Pong,
}

impl Message {
    /// About the bytes of the HTTP/2 frames of the real message.
    fn wire_len(&self, news_bytes: u32) -> u32 {
        match self {
            Message::Hello { .. } => 1_500,
            Message::Welcome { .. } => 2_500,
            Message::Ping | Message::Pong => 17,
            Message::Open { .. } => 250,
            Message::Expired { .. } => 200,
            Message::Call { request, .. } => match &**request {
                Request::Get { .. } | Request::List { .. } | Request::Delete { .. } => 250,
                Request::Bind { .. } | Request::Token(_) => 400,
                Request::Patch { .. } => 700,
                Request::Create { object }
                | Request::Update { object }
                | Request::UpdateStatus { object }
                | Request::UpdateEphemeralContainers { object } => object_len(object),
            },
            Message::Answer { result, .. } => match result {
                Ok(Reply::Object(object)) => object_len(object),
                Ok(Reply::List(view)) => 500 + 1_500 * view.len() as u32,
                Ok(Reply::Token { text, .. }) => 900 + text.len() as u32,
                Err(_) => 400,
            },
            Message::News { .. } => 100 + news_bytes,
        }
    }
}

fn object_len(object: &kubesim_actors::objects::Object) -> u32 {
    use kubesim_actors::objects::Kind as K;
    match object.kind() {
        K::Pod => 3_500,
        K::Node => 2_500,
        K::Lease => 500,
        K::EndpointSlice => {
            let endpoints = object.endpoint_slice().map_or(0, |slice| slice.endpoints.len());
            400 + 250 * endpoints as u32
        }
        _ => 1_200,
    }
}
