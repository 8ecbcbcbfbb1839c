//! Streams into containers: the runtime says where it serves one, on this machine and by HTTP/1.1,
//! and what its clients speak there is carried to whoever asked, byte by byte.

use super::{Here, Refusal};
use crate::cri::{Cri, Refused, Wanted};
use crate::http::client::words;
use crate::http::nodes::{Flow, STREAM_PROTOCOL, carry};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::rt::Executor;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use kubesim_actors::objects::Uid;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// It is on this machine.
const DIAL: Duration = Duration::from_secs(10);
/// What is read of a refusal.
const REFUSAL: usize = 4 << 10;

pub async fn open(
    containers: &Rc<Cri>,
    pod: Uid,
    wanted: Wanted,
    request: Request<Incoming>,
) -> Result<Response<Flow>, Refusal> {
    let of = match &wanted {
        Wanted::Exec { container, .. } | Wanted::Attach { container, .. } => container.clone(),
        Wanted::Ports => String::new(),
    };
    let url = containers.stream(pod, wanted).await.map_err(|refused| match refused {
        // As upstream's kubelet says it (pkg/kubelet/kubelet_pods.go).
        Refused::NotRunning if of.is_empty() => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the pod has no sandbox that runs".to_owned())
        }
        Refused::NotRunning => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({of:?})"))
        }
        Refused::Runtime(why) => gateway(format!("asking the runtime for a stream: {why}")),
    })?;
    let protocols = request.headers().get_all(STREAM_PROTOCOL).iter().cloned();
    let mut asked = Request::post("/");
    for protocol in protocols {
        asked = asked.header(STREAM_PROTOCOL, protocol);
    }
    let at = |why: String| gateway(format!("dialling the runtime's stream at {url}: {why}"));
    let opened = timeout(DIAL, upgraded(&url, asked)).await;
    let (response, stream) =
        opened.map_err(|_| at("no answer within 10 s".to_owned()))?.map_err(at)?;
    let (send, flow) = Flow::new();
    spawn_local(carry(TokioIo::new(stream), request.into_body(), send));
    let mut answer = Response::new(flow);
    if let Some(protocol) = response.headers().get(STREAM_PROTOCOL) {
        answer.headers_mut().insert(STREAM_PROTOCOL, protocol.clone());
    }
    Ok(answer)
}

fn gateway(why: String) -> Refusal {
    (StatusCode::BAD_GATEWAY, why)
}

/// The runtime's answer, and the connection behind it.
async fn upgraded(
    url: &str,
    asked: hyper::http::request::Builder,
) -> Result<(Response<Incoming>, hyper::upgrade::Upgraded), String> {
    let uri: Uri = url.parse().map_err(|_| "this is no address".to_owned())?;
    if uri.scheme_str() != Some("http") {
        let why = "only http is spoken there: set enable_tls_streaming = false in the runtime's \
                   configuration";
        return Err(why.to_owned());
    }
    let authority = uri.authority().ok_or("it says no address")?.clone();
    let socket = TcpStream::connect(authority.as_str()).await.map_err(|error| error.to_string())?;
    // Keys that are typed wait for nothing.
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut send, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(socket))
        .await
        .map_err(|error| words(&error))?;
    Here.execute(async move { drop(connection.with_upgrades().await) });
    let place = uri.path_and_query().map_or("/", |place| place.as_str());
    let asked = asked
        .uri(place)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let mut response = send.send_request(asked).await.map_err(|error| words(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status();
        let said = Limited::new(response.into_body(), REFUSAL).collect().await;
        let said = said.map(|said| said.to_bytes()).unwrap_or_default();
        return Err(format!("it says {code}: {}", String::from_utf8_lossy(&said).trim()));
    }
    let stream = hyper::upgrade::on(&mut response).await.map_err(|error| words(&error))?;
    Ok((response, stream))
}
