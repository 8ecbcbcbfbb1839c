//! Nodes, as the server asks them: for the logs of their containers and for streams into these. A
//! node dials the server (`crate::tunnel`) and turns the connection around; then the server is the
//! client on it, of HTTP/2, and each log and each stream is a request with a body each way. What is
//! in flight is bounded by the windows of HTTP/2, and who reads slowly slows down who writes.
//!
//! - `link`: the connection of a node
//! - `flow`: bodies
//! - `choose`: which container of a pod is meant
//! - `log`: `pods/log`
//! - `connect`: `pods/exec`, `pods/attach`, `pods/portforward`
//! - `usage`: what pods and nodes use, `metrics.k8s.io`
//! - `websocket`, `frames`, `spdy`: what clients and runtimes speak there

mod choose;
mod connect;
mod flow;
mod frames;
mod link;
mod log;
mod options;
mod spdy;
pub(super) mod usage;
mod websocket;

#[cfg(all(target_os = "linux", feature = "cri"))]
pub use self::flow::{Flow, carry};
pub use self::link::Links;
pub(super) use self::link::dialled;

use self::options::Options;
use super::Inner;
use super::body::Answer;
use super::route::Target;
use super::status::Failure;
use hyper::Request;
use hyper::header::HeaderName;
use std::net::SocketAddr;
use std::rc::Rc;

/// Streams that are open at once on a connection: logs that are followed, commands, ports.
pub const STREAMS: u32 = 128;
/// What a stream and a connection have room for that nobody took yet, on each side. All streams
/// may stand still, and the others still go on.
pub const WINDOW: Window = Window { stream: 256 << 10, connection: (256 << 10) * STREAMS };
/// The protocol that a node upgrades to.
pub const PROTOCOL: &str = "kubesim-node/1";
/// Which protocol a stream's client speaks (apimachinery's `pkg/util/httpstream`).
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

pub struct Window {
    pub stream: u32,
    pub connection: u32,
}

impl Window {
    /// Of a stream, what is not sent yet.
    pub const BUFFER: usize = 64 << 10;
}

/// Where a node dials.
pub fn path(node: &str) -> String {
    format!("/tunnel/nodes/{node}")
}

/// From where a connection came; with each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What is asked of a pod's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Log,
    Exec,
    Attach,
    PortForward,
}

impl What {
    pub const ALL: [What; 4] = [What::Attach, What::Exec, What::Log, What::PortForward];

    pub fn name(self) -> &'static str {
        match self {
            What::Log => "log",
            What::Exec => "exec",
            What::Attach => "attach",
            What::PortForward => "portforward",
        }
    }

    /// The type of its options (for a log, of whose it is), as discovery has it.
    pub fn kind(self) -> &'static str {
        match self {
            What::Log => "Pod",
            What::Exec => "PodExecOptions",
            What::Attach => "PodAttachOptions",
            What::PortForward => "PodPortForwardOptions",
        }
    }

    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            What::Log => &["get"],
            _ => &["create", "get"],
        }
    }

    /// Whether a method is one of these verbs.
    pub fn takes(self, method: &hyper::Method) -> bool {
        method == hyper::Method::GET || method == hyper::Method::POST && self != What::Log
    }
}

/// Answers a request about a pod's containers.
pub(super) async fn answer<B>(
    inner: &Rc<Inner>,
    request: Request<B>,
    target: &Target,
    what: What,
) -> Result<Answer, Failure> {
    if !what.takes(request.method()) {
        return Err(Failure::no_such_method());
    }
    inner.links.open(what)?;
    let options = Options::parse(request.uri().query().unwrap_or_default());
    if inner.object(target).is_err() {
        // Another server may know more.
        inner.as_of_now().await?;
    }
    let pod = inner.object(target)?;
    match what {
        What::Log => log::read(inner, &pod, &options).await,
        _ => connect::open(inner, &pod, &options, (what, request)).await,
    }
}
