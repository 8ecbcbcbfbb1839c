//! A plain client of a server: one connection, one request after the other, no threads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// What the administrator's kubeconfig says.
pub fn administrator(kubeconfig: &str) -> Arc<ClientConfig> {
    let field = |name: &str| {
        let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(name));
        BASE64.decode(line.expect(name).trim()).expect("base64")
    };
    let certificate = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&field("certificate-authority-data:"))).expect("an authority");
    let key = PrivateKeyDer::from_pem_slice(&field("client-key-data:")).expect("a key");
    let chain = vec![certificate(&field("client-certificate-data:"))];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots).with_client_auth_cert(chain, key);
    Arc::new(config.expect("an identity"))
}

pub struct Connection(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Connection {
    pub fn open(at: SocketAddr, config: &Arc<ClientConfig>) -> Connection {
        let name = ServerName::from(at.ip());
        let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let socket = TcpStream::connect(at).expect("it listens");
        socket.set_nodelay(true).expect("an option");
        Connection(BufReader::with_capacity(1 << 16, StreamOwned::new(client, socket)))
    }

    /// The code and the body.
    pub fn ask(&mut self, method: &str, path: &str, kind: &str, body: &str) -> (u16, Vec<u8>) {
        self.send(method, path, kind, body);
        let (code, length) = self.head();
        let mut whole = Vec::new();
        match length {
            Some(length) => {
                whole.resize(length, 0);
                self.0.read_exact(&mut whole).expect("the body");
            }
            None => while self.chunk(&mut whole) > 0 {},
        }
        (code, whole)
    }

    /// Begins a watch.
    pub fn watch(&mut self, path: &str) {
        self.send("GET", path, "", "");
        let (code, length) = self.head();
        assert_eq!((code, length), (200, None), "a watch of {path}");
    }

    /// Reads on until so many events of a watch have come.
    pub fn events(&mut self, count: usize) {
        let (mut seen, mut piece) = (0, Vec::new());
        while seen < count {
            piece.clear();
            assert!(self.chunk(&mut piece) > 0, "the watch goes on");
            seen += piece.iter().filter(|byte| **byte == b'\n').count();
        }
    }

    fn send(&mut self, method: &str, path: &str, kind: &str, body: &str) {
        let kind = if kind.is_empty() { "application/json" } else { kind };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: kubernetes\r\nAccept: application/json\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(format!("{head}{body}").as_bytes()).expect("a request");
        stream.flush().expect("a request");
    }

    /// The code, and the body's length if that is told.
    fn head(&mut self) -> (u16, Option<usize>) {
        let status = self.line();
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = None;
        loop {
            let line = self.line().to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().ok();
            }
            if line.is_empty() {
                return (code.unwrap_or_else(|| panic!("no answer: {status}")), length);
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// A chunk's length; nothing is the end.
    fn chunk(&mut self, to: &mut Vec<u8>) -> usize {
        let length = self.line();
        let length = usize::from_str_radix(&length, 16).unwrap_or_else(|_| panic!("{length:?}"));
        let start = to.len();
        to.resize(start + length, 0);
        self.0.read_exact(&mut to[start..]).expect("a chunk");
        self.line();
        length
    }
}
