//! Connections: TLS, then HTTP/1.1 or HTTP/2, as the client wants.

use super::auth::{User, unauthorized};
use super::metrics::One;
use super::nodes::Peer;
use super::pace::{Activity, Paced, UnderWay};
use super::tls::Tls;
use super::{Front, GOODBYE, Inner, body, civil, handle};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Before a listener that cannot accept tries again.
const PAUSE: Duration = Duration::from_millis(100);
/// Streams of one HTTP/2 connection (upstream's `--http2-max-streams-per-connection`).
const STREAMS: u32 = 1000;
/// An HTTP/2 connection that is silent for so long is asked whether it lives.
const PING: Duration = Duration::from_secs(30);
/// A client that does not read gets no more than this buffered.
const BUFFER: usize = 256 << 10;

/// Tasks of this thread.
#[derive(Clone, Copy)]
pub struct Here;

impl<F> Executor<F> for Here
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

impl Front {
    /// Serves for as long as it is polled.
    pub async fn serve(self, listener: TcpListener, tls: Tls) -> Infallible {
        let acceptor = TlsAcceptor::from(tls.config());
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => {
                    while !self.0.connections.make_room(self.0.limits.connections) {
                        sleep(PAUSE).await;
                    }
                    let (id, activity) = self.0.connections.begin();
                    let (inner, acceptor) = (Rc::clone(&self.0), acceptor.clone());
                    spawn_local(async move {
                        let _one = One::of(&inner.metrics.connections);
                        let mut ended = inner.ended.subscribe();
                        tokio::select! {
                            biased;
                            _ = ended.changed() => {}
                            () = activity.stalled() => {}
                            () = connection(&inner, &acceptor, (socket, peer), &activity) => {}
                        }
                        inner.connections.end(id, &activity);
                    });
                }
                // Out of descriptors, or a connection that was reset meanwhile.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// A client that went without a word is noticed, on a stream as well on which nothing happens (as
/// Go's `net.ListenConfig` has it: 15 s, and 9 times 15 s).
#[cfg(target_os = "linux")]
fn keep_alive() -> socket2::TcpKeepalive {
    let pause = Duration::from_secs(15);
    socket2::TcpKeepalive::new().with_time(pause).with_interval(pause).with_retries(9)
}

/// One connection, to its end. What goes wrong with it is its client's affair.
async fn connection(
    inner: &Rc<Inner>,
    acceptor: &TlsAcceptor,
    (socket, peer): (TcpStream, SocketAddr),
    activity: &Rc<Activity>,
) {
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&keep_alive());
    let Ok(Ok(stream)) = timeout(inner.limits.head, acceptor.accept(socket)).await else {
        return;
    };
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let user = certificate.and_then(|certificate| User::of(certificate)).map(Rc::new);
    let until = certificate.and_then(|certificate| User::until(certificate));
    let h2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let under_way = UnderWay::new(activity);
        let answer = handle::handle(Rc::clone(inner), user.clone(), request);
        // As upstream's, which looks at the certificate again with each request (apiserver
        // `pkg/authentication/request/x509/x509.go`), by this machine's time, as the handshake
        // does.
        let ended = until.is_some_and(|until| civil() > until);
        let inner = Rc::clone(inner);
        async move {
            let answer = if ended { body::refused(unauthorized()) } else { answer.await };
            Ok::<_, Infallible>(answer.map(|body| Paced::new(body, under_way, &inner)))
        }
    });
    let io = TokioIo::new(stream);
    if h2 {
        let mut server = http2::Builder::new(Here);
        server
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(PING);
        let serving = server.serve_connection(io, service);
        to_its_end(serving, |serving| serving.graceful_shutdown(), inner, activity).await;
    } else {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(inner.limits.head).max_buf_size(BUFFER);
        let serving = server.serve_connection(io, service).with_upgrades();
        to_its_end(serving, |serving| serving.graceful_shutdown(), inner, activity).await;
    }
}

/// Serves a connection; `goodbye` has it take no more requests.
async fn to_its_end<S: Future>(
    serving: S,
    goodbye: impl FnOnce(Pin<&mut S>),
    inner: &Inner,
    activity: &Activity,
) {
    let mut serving = pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = ends(inner, activity) => goodbye(serving.as_mut()),
    }
    let waits = async {
        // For the client to hang up, once all is answered.
        sleep(GOODBYE).await;
        activity.idle(GOODBYE).await;
    };
    tokio::select! {
        _ = &mut serving => {}
        () = waits => {}
    }
}

/// When no more requests are taken on a connection: the server ends, or its client asks nothing.
async fn ends(inner: &Inner, activity: &Activity) {
    let mut closing = inner.closing.subscribe();
    tokio::select! {
        _ = closing.changed() => {}
        () = activity.idle(inner.limits.idle) => {}
    }
}
