use super::Span;
use kubesim_actors::objects::Name;
use std::time::Duration;

/// What a container of this image does.
#[derive(Clone, Debug)]
pub struct Image {
    pub name: Name,
    /// The first pull on a node.
    pub pull: Span,
    /// From the container's start until its ports are open.
    pub start: Span,
    /// From SIGTERM to exit; its ports stay open that long.
    pub stop: Span,
    /// Ports that accept connections and read (and echo) messages.
    pub tcp: Vec<u16>,
    /// Ports that echo datagrams.
    pub udp: Vec<u16>,
    pub http: Vec<HttpRoute>,
    pub streams: Vec<StreamClient>,
    pub crash: Option<Crash>,
}

/// One path on one port; requests to a port's other paths get 404.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    pub port: u16,
    pub path: Name,
    pub status: u16,
    /// Time to answer.
    pub delay: Span,
    pub text: Name,
    /// Backends it talks to first, in order; the answer is 502 when one cannot be reached.
    pub calls: Vec<Call>,
}

/// Opens a TCP connection, sends one message and waits for its echo.
#[derive(Clone, Debug)]
pub struct Call {
    /// A service's name (`redis-master`) or a DNS name.
    pub host: Name,
    pub port: u16,
    pub find: FindHost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindHost {
    /// `REDIS_MASTER_SERVICE_HOST` of the container's environment.
    Env,
    Dns,
    /// What the variable says, `env` or `dns`; `dns` when it is not set.
    Variable(Name),
}

/// A connection the container keeps open, a message each `every`.
#[derive(Clone, Debug)]
pub struct StreamClient {
    pub to: Call,
    pub every: Duration,
}

/// The program exits by itself.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// After its start.
    pub after: Span,
    pub code: i32,
    /// The first so many starts of a container; 0 means every one.
    pub times: u32,
}
