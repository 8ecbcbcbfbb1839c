//! The connection of the tunnel, until it is turned around.

use super::Here;
use crate::http::client::{Credentials, Place, words};
use crate::http::nodes::{PROTOCOL, path};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::rt::Executor;
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddrV4;

/// One that the server serves.
pub struct Dialled {
    pub wire: Upgraded,
    pub place: Place,
}

/// The error is for people.
pub async fn dial(
    credentials: &Credentials,
    server: SocketAddrV4,
    node: &str,
) -> Result<Dialled, String> {
    let (stream, local) = credentials.secure(server).await?;
    let (mut send, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| words(&error))?;
    Here.execute(async move { drop(connection.with_upgrades().await) });
    let request = Request::get(path(node))
        .header(HOST, server.to_string())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, PROTOCOL)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = send.send_request(request).await.map_err(|error| words(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("it says {}", response.status()));
    }
    let wire = hyper::upgrade::on(response).await.map_err(|error| words(&error))?;
    Ok(Dialled { wire, place: Place { local, server } })
}
