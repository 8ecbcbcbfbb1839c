//! One connection: TCP, TLS with a client's certificate, HTTP/2. Requests and watches are its
//! streams, and all of them end with it.

use super::trust;
use crate::http::lease;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use kubesim_actors::apiserver::Hold;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch as channel;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Who the server is, wherever it is dialled: its certificate has this name.
pub const SERVER: &str = "kubernetes";
const LEASE: HeaderName = HeaderName::from_static(lease::HEADER);
/// Silence after which the client pings, and how long it waits for the pong (the defaults of
/// client-go's HTTP/2 health check, `HTTP2_READ_IDLE_TIMEOUT_SECONDS` and
/// `HTTP2_PING_TIMEOUT_SECONDS` in apimachinery's `pkg/util/net/http.go`).
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(15);

/// Whom the client trusts, and who it is. Clones are renewed together.
#[derive(Clone)]
pub struct Credentials {
    tls: Arc<channel::Sender<Arc<ClientConfig>>>,
    /// What it calls itself: the server notes it with what it writes (`managedFields`).
    agent: HeaderValue,
    /// What it is known by where it has no certificate.
    bearer: Option<HeaderValue>,
    /// The lease by which it leads, if it does.
    lease: Option<HeaderValue>,
}

impl Credentials {
    /// From the authority of the server, the client's certificate and its key, all as PEM.
    /// `agent` is what the client calls itself, `kube-scheduler`.
    pub fn new(
        agent: &str,
        authority: &[u8],
        certificates: &[u8],
        key: &[u8],
    ) -> Result<Credentials, String> {
        let tls = Arc::new(channel::Sender::new(config(authority, certificates, key)?));
        Ok(Credentials { tls, agent: named(agent)?, bearer: None, lease: None })
    }

    /// Of one who has no certificate, but a token: `ID.SECRET`, say, by which machines join.
    pub fn bearing(agent: &str, authority: &[u8], token: &str) -> Result<Credentials, String> {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut bearer = bearer.map_err(|_| "the token is no text of a header".to_owned())?;
        bearer.set_sensitive(true);
        let config = begun(authority)?.with_no_client_auth();
        let tls = Arc::new(channel::Sender::new(over_http2(config)));
        Ok(Credentials { tls, agent: named(agent)?, bearer: Some(bearer), lease: None })
    }

    /// The same client with another certificate. Those who use it dial again with that, and only
    /// then give up the connection that they have.
    pub fn renew(&self, authority: &[u8], certificates: &[u8], key: &[u8]) -> Result<(), String> {
        self.tls.send_replace(config(authority, certificates, key)?);
        Ok(())
    }

    /// TLS to a server there, for HTTP/1.1, and from which address. The error is for people.
    #[cfg(all(target_os = "linux", feature = "cri"))]
    pub(crate) async fn secure(
        &self,
        server: std::net::SocketAddrV4,
    ) -> Result<(TlsStream<TcpStream>, IpAddr), String> {
        let at = |error: std::io::Error| error.to_string();
        let socket = TcpStream::connect(server).await.map_err(at)?;
        socket.set_nodelay(true).map_err(at)?;
        let local = socket.local_addr().map_err(at)?.ip();
        let mut config = ClientConfig::clone(&self.tls.borrow());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(SERVER).map_err(|error| error.to_string())?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(at)?;
        Ok((stream, local))
    }

    /// Hears of each renewal from now on.
    pub(super) fn renewals(&self) -> channel::Receiver<Arc<ClientConfig>> {
        self.tls.subscribe()
    }

    /// Of one who writes only while it leads by this lease.
    pub fn leading_by(self, hold: &Hold) -> Result<Credentials, String> {
        Ok(Credentials { lease: Some(lease::header(hold)?), ..self })
    }
}

fn named(agent: &str) -> Result<HeaderValue, String> {
    let agent = format!("{agent}/kubesim-{}", env!("CARGO_PKG_VERSION"));
    let value = HeaderValue::from_str(&agent);
    value.map_err(|error| format!("using {agent:?} as a User-Agent: {error}"))
}

fn config(authority: &[u8], certificates: &[u8], key: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let chain = trust::certificates(certificates, "the client's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("reading the client's key: {error}"))?;
    let config = begun(authority)?
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("using the client's certificate and key: {error}"))?;
    Ok(over_http2(config))
}

/// Whom it trusts is said, and not yet who it is.
fn begun(authority: &[u8]) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let begun = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("setting up TLS: {error}"))?;
    Ok(begun.with_root_certificates(trust::roots(authority)?))
}

fn over_http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Which store the server tells of, if it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store<U> {
    /// It was not asked, or could not say yet.
    Untold,
    /// It does not say: it may be any.
    Any,
    Is(U),
}

/// A way to send requests on a connection. Clones use the same one.
#[derive(Clone)]
pub struct Line {
    send: SendRequest<Full<Bytes>>,
    agent: HeaderValue,
    bearer: Option<HeaderValue>,
    lease: Option<HeaderValue>,
    pub peer: Ipv4Addr,
    pub local: IpAddr,
    /// Whether this connection's server has said whose store it has.
    pub told: Rc<Cell<bool>>,
}

/// A request that went to a connection's queue.
pub enum Sent {
    Answered(Response<Incoming>),
    /// It never left.
    Unsent,
    /// It may have arrived.
    Lost(String),
}

impl Line {
    /// The request is queued when this returns; what comes back is its answer.
    pub fn send(&self, mut request: Request<Full<Bytes>>) -> impl Future<Output = Sent> + 'static {
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.agent.clone());
        headers.extend(self.bearer.clone().map(|bearer| (AUTHORIZATION, bearer)));
        headers.extend(self.lease.clone().map(|lease| (LEASE, lease)));
        let answer = self.send.clone().try_send_request(request);
        async move {
            match answer.await {
                Ok(response) => Sent::Answered(response),
                Err(mut error) => match error.take_message() {
                    Some(_) => Sent::Unsent,
                    None => Sent::Lost(words(&error.into_error())),
                },
            }
        }
    }
}

/// What is wrong, with the causes.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Tasks of this thread that end when the connection does.
#[derive(Clone)]
struct Until(channel::Receiver<()>);

impl<F> Executor<F> for Until
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        let mut ended = self.0.clone();
        spawn_local(async move {
            tokio::select! {
                biased;
                // Nothing is ever sent: it ends with its sender.
                _ = ended.changed() => {}
                () = future => {}
            }
        });
    }
}

/// A connection while it is held: dropped, it and all on it ends.
pub struct Wire {
    connection: Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>, Until>,
    _tasks: channel::Sender<()>,
}

impl Wire {
    /// Until the connection ends.
    pub async fn end(&mut self) {
        let _ = (&mut self.connection).await;
    }
}

pub async fn dial(
    credentials: &Credentials,
    peer: Ipv4Addr,
    port: u16,
) -> Result<(Line, Wire), String> {
    let at = |error: std::io::Error| error.to_string();
    let socket = TcpStream::connect((peer, port)).await.map_err(at)?;
    socket.set_nodelay(true).map_err(at)?;
    let local = socket.local_addr().map_err(at)?.ip();
    let name = ServerName::try_from(SERVER).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(&credentials.tls.borrow()));
    let stream = connector.connect(name, socket).await.map_err(at)?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("the server does not speak HTTP/2".to_owned());
    }
    let (tasks, ended) = channel::channel(());
    let (send, connection) = http2::Builder::new(Until(ended))
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| words(&error))?;
    let Credentials { agent, bearer, lease, .. } = credentials.clone();
    let line = Line { send, agent, bearer, lease, peer, local, told: Rc::default() };
    Ok((line, Wire { connection, _tasks: tasks }))
}
