//! A node's end of the tunnel: the node dials the API server, and over that connection the server
//! asks it for the logs of its containers and for streams into them. So a server reaches its nodes
//! wherever they are, by no name and through any NAT, and nothing listens at a node for it.
//!
//! The connection is TLS with the node's certificate and HTTP/1.1, whose `Upgrade` turns it around:
//! from then on it is HTTP/2 with the server as the client (`crate::http::nodes`). A request and
//! its answer are bodies of any length, each way at its own pace.
//!
//! - `dial`: the connection
//! - `ask`: what the server asks, as it says it
//! - `logs`: logs
//! - `stream`: streams, which the runtime serves
//! - `usage`: what containers and the machine use

mod ask;
mod dial;
pub mod logs;
mod stream;
mod usage;

use self::ask::{Ask, LogOf};
use self::dial::dial;
use self::logs::Log;
use self::usage::Usage;
use crate::cri::Cri;
use crate::http::client::{Client, Credentials};
use crate::http::nodes::{Flow, STREAMS, WINDOW, Window};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

/// A connection attempt that takes longer is given up.
const DIAL: Duration = Duration::from_secs(10);
/// Between two attempts: doubled by each that fails.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// After so many failures in a row people are told.
const PATIENCE: u32 = 6;
/// Silence after which the server is pinged, and how long its answer may take: what is between them
/// may forget a connection on which nothing happens.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);

/// A node as the server asks it.
pub struct Tunnel {
    /// Its name.
    pub node: String,
    /// Its client of the API: where that finds the server, the tunnel does.
    pub client: Client,
    pub credentials: Credentials,
    pub containers: Cri,
    /// Told of what keeps the tunnel from being there, in words.
    pub notes: Box<dyn Fn(String)>,
}

/// What is asked.
struct Node {
    containers: Rc<Cri>,
    usage: Usage,
}

/// Tasks of this thread.
#[derive(Clone, Copy)]
struct Here;

impl<F> Executor<F> for Here
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

impl Tunnel {
    /// Keeps the tunnel up for as long as it is polled.
    pub async fn run(self) -> Infallible {
        let containers = Rc::new(self.containers.clone());
        let node = Rc::new(Node { containers, usage: Usage::new(self.containers.clone()) });
        tokio::select! {
            never = self.keep(&node) => never,
            never = node.usage.watch() => never,
        }
    }

    async fn keep(&self, node: &Rc<Node>) -> Infallible {
        let mut connections = self.client.listen();
        let mut failures = 0_u32;
        loop {
            let Some(place) = self.client.place() else {
                // Until the client is somewhere; it never goes before this.
                let _ = connections.recv().await;
                continue;
            };
            match timeout(DIAL, dial(&self.credentials, place.server, &self.node)).await {
                Ok(Ok(dialled)) => {
                    failures = 0;
                    let (wire, local) = (dialled.wire, dialled.place.local);
                    let moved = async {
                        while let Some(up) = connections.recv().await {
                            let now = self.client.place();
                            if up && now.is_some_and(|now| dialled.place != now) {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        () = moved => {}
                        () = serve(wire, node, local) => {}
                    }
                }
                Ok(Err(why)) => self.no_tunnel(place.server, &why, &mut failures),
                Err(_) => self.no_tunnel(place.server, "no answer within 10 s", &mut failures),
            }
            sleep((FIRST * 2_u32.pow(failures.min(6))).min(LONGEST)).await;
        }
    }

    /// Said once, not at each attempt, and not of a server that is about to begin.
    fn no_tunnel(&self, at: std::net::SocketAddrV4, why: &str, failures: &mut u32) {
        *failures = failures.saturating_add(1);
        if *failures == PATIENCE {
            (self.notes)(format!(
                "opening the tunnel for logs and exec to the API server at {at}: {why}"
            ));
        }
    }
}

/// Answers on a connection to its end.
async fn serve(wire: hyper::upgrade::Upgraded, node: &Rc<Node>, local: std::net::IpAddr) {
    let service = service_fn(|request| {
        let node = Rc::clone(node);
        async move { Ok::<_, Infallible>(answer(&node, request, local).await) }
    });
    let mut server = http2::Builder::new(Here);
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW.stream)
        .initial_connection_window_size(WINDOW.connection)
        .max_send_buf_size(Window::BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let _ = server.serve_connection(wire, service).await;
}

/// What is wrong: the code and the words for who asked.
type Refusal = (StatusCode, String);

async fn answer(
    node: &Node,
    request: Request<Incoming>,
    local: std::net::IpAddr,
) -> Response<Flow> {
    let containers = &node.containers;
    let answered = match Ask::read(request.uri()) {
        Ok(Ask::Log(of)) => log(containers, of).await,
        Ok(Ask::Stream { pod, wanted }) => stream::open(containers, pod, wanted, request).await,
        Ok(Ask::Usage) => {
            let told = node.usage.told().await;
            told.map(|told| Response::new(Flow::of(told.to_string())))
                .map_err(|why| (StatusCode::BAD_GATEWAY, why))
        }
        Err(why) => Err((StatusCode::BAD_REQUEST, why)),
    };
    answered.unwrap_or_else(|(code, why)| {
        // What is not of the asker's making is told with where it happened.
        let why = match code {
            StatusCode::BAD_GATEWAY => format!("at {local}: {why}"),
            _ => why,
        };
        let mut response = Response::new(Flow::of(why));
        *response.status_mut() = code;
        response
    })
}

async fn log(containers: &Rc<Cri>, of: LogOf) -> Result<Response<Flow>, Refusal> {
    let LogOf { pod, uid, container, which, attempt, options } = of;
    let attempt = containers.attempt(uid, &container, which, attempt).await;
    let path = containers.log((&pod, uid), &container, attempt);
    let log = Log::open(&path, options).map_err(|error| {
        let why = format!("reading the log {}: {error}", path.display());
        (StatusCode::BAD_GATEWAY, why)
    })?;
    let (send, flow) = Flow::new();
    let containers = Rc::clone(containers);
    spawn_local(async move {
        let failed = send.clone();
        let lives = async || containers.may_speak(uid, &container, attempt).await;
        if let Err(error) = log.send(send, lives).await {
            // As upstream's kubelet, which has no other place left to say it.
            let why = format!("failed to read the log {}: {error}\n", path.display());
            let _ = failed.send(why.into()).await;
        }
    });
    Ok(Response::new(flow))
}
