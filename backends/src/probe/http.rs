//! A GET as a kubelet makes it for probes and hooks (pkg/probe/http/request.go): whoever the
//! server is, over TLS or not. Redirections are answers like others.

use super::dial;
use kubesim_actors::ports::probe::Get;
use smol_str::{SmolStr, format_smolstr};
use std::fmt::Write;
use std::net::Ipv4Addr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// More than a response's first line is.
const MOST: usize = 8 << 10;

/// The status of the response. `agent` is what the client calls itself.
pub(super) async fn ask(ip: Ipv4Addr, get: &Get, agent: &str) -> Result<u16, SmolStr> {
    let head = head(ip, get, agent)?;
    let socket = dial(&get.authority(ip)).await?;
    if get.tls { read(over_tls(socket).await?, &head).await } else { read(socket, &head).await }
}

async fn read(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> Result<u16, SmolStr> {
    let broken = |_| SmolStr::new_static("EOF");
    socket.write_all(request.as_bytes()).await.map_err(broken)?;
    socket.flush().await.map_err(broken)?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let got = socket.read(&mut buffer).await.map_err(broken)?;
        head.extend_from_slice(&buffer[..got]);
        match status_of(&head) {
            Some(status) => return Ok(status),
            None if got == 0 || head.len() > MOST => return Err("EOF".into()),
            None => {}
        }
    }
}

/// The request, unless a header of it would end it early.
fn head(ip: Ipv4Addr, get: &Get, agent: &str) -> Result<String, SmolStr> {
    let mut text = format!("GET {} HTTP/1.1\r\n", escaped(&get.path));
    let own = |name: &str| get.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let authority = get.authority(ip);
    for (name, value) in [("Host", authority.as_str()), ("User-Agent", agent), ("Accept", "*/*")] {
        if !own(name) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    for (name, value) in &get.headers {
        let good = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
        if name.is_empty() || !good(name) || !good(value) {
            return Err(format_smolstr!("net/http: invalid header field value for {name:?}"));
        }
        // One that is there to be empty is one that is not to be said.
        let silent = ["User-Agent", "Accept"].iter().any(|own| own.eq_ignore_ascii_case(name));
        if !(value.is_empty() && silent) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    text.push_str("Connection: close\r\n\r\n");
    Ok(text)
}

/// A path with its query as it goes over the wire.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.split('#').next().unwrap_or_default().bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | ..=b' ' | 0x7f.. => {
                let _ = write!(text, "%{byte:02X}");
            }
            _ => text.push(char::from(byte)),
        }
    }
    text
}

/// Of a status line that is there whole.
pub fn status_of(head: &[u8]) -> Option<u16> {
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let mut words = line.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

#[cfg(feature = "http")]
use tls::over_tls;

#[cfg(not(feature = "http"))]
async fn over_tls(socket: tokio::net::TcpStream) -> Result<tokio::net::TcpStream, SmolStr> {
    drop(socket);
    Err("HTTPS is not in this build (it needs the feature http)".into())
}

#[cfg(feature = "http")]
mod tls {
    use kubesim_actors::ports::probe::NOT_TLS;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme};
    use smol_str::{SmolStr, format_smolstr};
    use std::sync::Arc;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    pub(super) async fn over_tls(socket: TcpStream) -> Result<TlsStream<TcpStream>, SmolStr> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format_smolstr!("setting up TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let peer = socket.peer_addr().map_err(|error| format_smolstr!("{error}"))?;
        let name = ServerName::IpAddress(peer.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            match inner {
                Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                    SmolStr::new_static(NOT_TLS)
                }
                _ => format_smolstr!("remote error: tls: {error}"),
            }
        })
    }

    /// Nobody vouches for a pod's certificate, so nobody is asked.
    #[derive(Debug)]
    struct Anybody(Arc<CryptoProvider>);

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            by: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, by, signed, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            by: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, by, signed, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);

    fn get(path: &str, headers: &[(&str, &str)]) -> Get {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Get { port: 80, path: path.into(), headers: headers.collect(), ..Get::default() }
    }

    #[test]
    fn a_status_is_read_once_its_line_is_there() {
        assert_eq!(status_of(b"HTTP/1.1 20"), None);
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status_of(b"SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn a_request_says_what_a_kubelet_says_unless_the_pod_says_otherwise() {
        let plain = head(IP, &get("/a b?c=d#e", &[]), "kube-probe/1.33").expect("a request");
        assert_eq!(
            plain,
            "GET /a%20b?c=d HTTP/1.1\r\nHost: 10.244.1.2:80\r\nUser-Agent: kube-probe/1.33\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        let more = [("host", "web"), ("Accept", ""), ("X-A", "1"), ("X-A", "2")];
        let own = head(IP, &get("/", &more), "kube-lifecycle/1.33").expect("a request");
        assert_eq!(
            own,
            "GET / HTTP/1.1\r\nUser-Agent: kube-lifecycle/1.33\r\nhost: web\r\nX-A: 1\r\n\
             X-A: 2\r\nConnection: close\r\n\r\n"
        );
        let two = head(IP, &get("/", &[("X-A", "1\r\nX-B: 2")]), "kube-probe/1.33");
        assert_eq!(two, Err("net/http: invalid header field value for \"X-A\"".into()));
    }
}
