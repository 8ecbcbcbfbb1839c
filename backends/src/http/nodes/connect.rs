//! `pods/exec`, `pods/attach` and `pods/portforward` (kubernetes
//! `pkg/registry/core/pod/rest/subresources.go`): the client's connection becomes a stream into
//! the pod. A client that speaks SPDY speaks it with the runtime itself, and the bytes are carried;
//! what one says that speaks WebSocket is translated (`websocket`).

use super::flow::{Flow, carry};
use super::link::{Answered, Refused, switching, upgrade};
use super::options::{Options, Query};
use super::websocket::{self, Agreed, Command};
use super::{STREAM_PROTOCOL, What, choose};
use crate::http::Inner;
use crate::http::body::Answer;
use crate::http::status::Failure;
use hyper::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use kubesim_actors::objects::Object;
use std::rc::Rc;
use tokio::task::spawn_local;
use tokio::time::timeout;

const SPDY: &str = "spdy/3.1";

pub async fn open<B>(
    inner: &Rc<Inner>,
    pod: &Object,
    options: &Options,
    (what, mut request): (What, Request<B>),
) -> Result<Answer, Failure> {
    let (node, query) = whom(pod, options, what)?;
    let asked = request.headers();
    let spoken = match &*upgrade(asked) {
        SPDY => Spoken::Spdy,
        "websocket" => Spoken::WebSocket(agree(what, asked)?),
        _ => return Err(Failure::bad_request("Upgrade request required")),
    };
    let headers = match spoken {
        Spoken::Spdy => {
            let protocols = asked.get_all(STREAM_PROTOCOL).iter();
            protocols.map(|one| (STREAM_PROTOCOL, one.clone())).collect()
        }
        Spoken::WebSocket(_) => HeaderMap::from_iter([(STREAM_PROTOCOL, websocket::beyond(what))]),
    };
    let (send, flow) = Flow::new();
    let answered = match inner.ask(&node, query, headers, flow).await {
        Ok(answered) => answered,
        Err(Refused::Node(code, why)) => return Ok(plain(code, why)),
        Err(Refused::Unasked(failure)) => return Err(failure),
    };
    let answer = match &spoken {
        Spoken::Spdy => {
            let mut answer = switching("SPDY/3.1");
            let protocol = answered.response.headers().get(STREAM_PROTOCOL).cloned();
            answer.headers.extend(protocol.map(|protocol| (STREAM_PROTOCOL, protocol)));
            answer
        }
        Spoken::WebSocket(Agreed { protocol, accept }) => switching("websocket")
            .with(SEC_WEBSOCKET_ACCEPT, accept)
            .with(SEC_WEBSOCKET_PROTOCOL, protocol),
    };
    let on = hyper::upgrade::on(&mut request);
    let within = inner.limits.head;
    let wanted: Vec<String> = ["stdin", "stdout", "stderr", "tty"]
        .into_iter()
        .filter(|name| options.flag(name))
        .map(str::to_owned)
        .collect();
    until_the_end(inner, async move {
        let Answered { response, open: _open, at } = answered;
        let (from, Ok(Ok(wire))) = (response.into_body(), timeout(within, on).await) else {
            return;
        };
        match (spoken, what) {
            (Spoken::Spdy, _) => carry(TokioIo::new(wire), from, send).await,
            (Spoken::WebSocket(_), What::PortForward) => {
                websocket::carry(TokioIo::new(wire), from, send).await;
            }
            (Spoken::WebSocket(_), _) => {
                let wants = |name: &str| wanted.iter().any(|one| one == name);
                let socket = TokioIo::new(wire);
                let lost = |why: &str| format!("the stream of node {node:?} at {at} ended: {why}");
                if let Some(command) = Command::open(socket, send, wants).await {
                    command.run(from, lost).await;
                }
            }
        }
    });
    Ok(answer)
}

/// Which node is asked, and for what.
fn whom(pod: &Object, options: &Options, what: What) -> Result<(String, String), Failure> {
    let name = &*pod.key.name;
    let (spec, _) = pod.pod().ok_or_else(Failure::no_such_resource)?;
    let query = match what {
        What::PortForward => Query::to("/portforward"),
        _ => {
            let container = choose::container(name, spec, options.text("container"))?;
            streams(what, options)?.with("container", &container)
        }
    };
    let query = query.with("uid", &choose::uid(pod)).text();
    Ok((choose::node(name, spec)?.to_owned(), query))
}

enum Spoken {
    Spdy,
    WebSocket(Agreed),
}

fn agree(what: What, headers: &HeaderMap) -> Result<Agreed, Failure> {
    websocket::agree(what, headers).ok_or_else(|| {
        // Upon which clients try SPDY.
        Failure::bad_request("none of the subprotocols that are offered is spoken here")
    })
}

/// Which streams of a container are wanted, and what is to run there.
fn streams(what: What, options: &Options) -> Result<Query, Failure> {
    let path = if what == What::Exec { "/exec" } else { "/attach" };
    let mut query = Query::to(path);
    let tty = options.flag("tty");
    for name in ["stdin", "stdout", "stderr", "tty"] {
        // A terminal has one output.
        query = query.flag(name, options.flag(name) && (name != "stderr" || !tty));
    }
    if !["stdin", "stdout", "stderr"].iter().any(|name| options.flag(name)) {
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Failure::bad_request(why));
    }
    if what == What::Exec {
        for word in options.all("command") {
            query = query.with("command", word);
        }
    }
    Ok(query)
}

/// In the words of the node and no others, as upstream hands on those of a kubelet.
fn plain(code: StatusCode, why: String) -> Answer {
    Answer { code, ..Answer::bytes("text/plain; charset=utf-8", why) }
}

/// Goes on for itself, but not beyond this life of the API server.
fn until_the_end(inner: &Rc<Inner>, work: impl Future<Output = ()> + 'static) {
    let mut ended = inner.ended.subscribe();
    spawn_local(async move {
        tokio::select! {
            _ = ended.changed() => {}
            () = work => {}
        }
    });
}
