//! A GET of probes and hooks over TLS: whoever the server is, and who does not speak TLS is known.

use kubesim_actors::objects::Uid;
use kubesim_actors::ports::probe::{Check, Get, NOT_TLS, Purpose, Reply, Request};
use kubesim_backends::port::{Answer, Port};
use kubesim_backends::probe::Probes;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use smol_str::SmolStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::LocalSet;

/// Serves one connection with what is made of it, and says what it was asked.
fn serve<S: Read + Write>(
    made: impl FnOnce(std::net::TcpStream) -> S + Send + 'static,
) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        let mut stream = made(socket);
        let (mut asked, mut buffer) = (Vec::new(), [0; 1024]);
        while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(got) if got > 0 => asked.extend_from_slice(&buffer[..got]),
                _ => break,
            }
        }
        stream.write_all(b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n").expect("it is heard");
        stream.flush().expect("it is heard");
        String::from_utf8_lossy(&asked).into_owned()
    });
    (address, thread)
}

fn tls() -> (SocketAddr, JoinHandle<String>) {
    let own = rcgen::generate_simple_self_signed(["nobody".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a certificate");
    serve(move |socket| {
        StreamOwned::new(ServerConnection::new(Arc::new(config)).expect("a connection"), socket)
    })
}

fn ask(server: SocketAddr, host: &str, purpose: Purpose) -> Result<(), SmolStr> {
    let get = Get {
        host: host.into(),
        port: server.port(),
        path: "/bye".into(),
        tls: true,
        headers: Box::default(),
    };
    let check = Check::Http { ip: Ipv4Addr::LOCALHOST, get: Arc::new(get) };
    let (pod, container, timeout) = (Uid::NONE, "c".into(), Some(Duration::from_secs(60)));
    let request = Request { pod, container, purpose, check, timeout };
    let probes = Probes::new(|command| unreachable!("no command is asked for: {command:?}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (send, mut told) = unbounded_channel::<Reply>();
        let answer = Answer::new(move |reply| {
            let _ = send.send(reply);
            async { Ok(()) }
        });
        probes.perform(request, answer).await;
        told.recv().await.expect("an answer").result
    })
}

#[test]
fn an_https_server_is_asked_whoever_it_is() {
    let (server, asked) = tls();
    assert_eq!(ask(server, "", Purpose::PreStop { attempt: 0 }), Ok(()), "404 will do for a hook");
    let asked = asked.join().expect("it serves");
    let host =
        format!("GET /bye HTTP/1.1\r\nHost: {server}\r\nUser-Agent: kube-lifecycle/1.33\r\n");
    assert!(asked.starts_with(&host), "{asked}");

    let (server, asked) = tls();
    let why = "HTTP probe failed with statuscode: 404";
    assert_eq!(ask(server, "localhost", Purpose::Readiness), Err(why.into()));
    let asked = asked.join().expect("it serves");
    assert!(asked.contains("\r\nUser-Agent: kube-probe/1.33\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nHost: localhost:{}\r\n", server.port())), "{asked}");
}

#[test]
fn a_server_that_does_not_speak_tls_is_known_by_its_answer() {
    // It answers what it takes for a request that it cannot read.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("an address");
    let serves = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let greeted = socket.read(&mut [0; 64]).expect("it is heard");
        assert!(greeted > 0, "a handshake begins");
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it is heard");
    });
    assert_eq!(ask(server, "", Purpose::PreStop { attempt: 0 }), Err(NOT_TLS.into()));
    serves.join().expect("it serves");
}
