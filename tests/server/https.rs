//! A plain client of a server that may be gone at any moment: one connection, one request after the
//! other, and errors instead of panics.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// What a kubeconfig says of whom to trust and who one is.
pub fn identity(kubeconfig: &str) -> Arc<ClientConfig> {
    let certificate =
        CertificateDer::from_pem_slice(&field(kubeconfig, "client-certificate-data:"));
    let key = PrivateKeyDer::from_pem_slice(&field(kubeconfig, "client-key-data:"));
    let chain = vec![certificate.expect("a certificate")];
    let config = trusting(kubeconfig).with_client_auth_cert(chain, key.expect("a key"));
    Arc::new(config.expect("an identity"))
}

/// What it says of whom to trust, for one who shows no certificate.
pub fn stranger(kubeconfig: &str) -> Arc<ClientConfig> {
    Arc::new(trusting(kubeconfig).with_no_client_auth())
}

fn trusting(kubeconfig: &str) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let authority = field(kubeconfig, "certificate-authority-data:");
    let authority = CertificateDer::from_pem_slice(&authority).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    config.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots)
}

fn field(kubeconfig: &str, name: &str) -> Vec<u8> {
    let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(name));
    BASE64.decode(line.expect(name).trim()).expect("base64")
}

/// A request; its words are `POST /api/v1/namespaces`.
#[derive(Clone, Copy, Default)]
pub struct Ask<'a> {
    pub words: &'a str,
    pub content_type: &'a str,
    pub body: &'a str,
    /// More lines of its head, each with its end.
    pub head: &'a str,
}

pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    /// Of a watch: what came and is not a line yet.
    rest: Vec<u8>,
}

impl Connection {
    /// `patience` is for each piece of an answer.
    pub fn open(
        at: SocketAddr,
        config: &Arc<ClientConfig>,
        patience: Duration,
    ) -> io::Result<Connection> {
        let name = ServerName::from(at.ip());
        let client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&at, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        let stream = BufReader::with_capacity(1 << 16, StreamOwned::new(client, socket));
        Ok(Connection { stream, rest: Vec::new() })
    }

    /// What the server showed, once something was asked.
    pub fn server(&self) -> Vec<u8> {
        let shown = self.stream.get_ref().conn.peer_certificates();
        shown.and_then(|chain| chain.first()).expect("a certificate").to_vec()
    }

    /// The code, and the body if it is JSON.
    pub fn ask(&mut self, ask: Ask<'_>) -> io::Result<(u16, Value)> {
        let (code, whole) = self.whole(ask)?;
        Ok((code, serde_json::from_slice(&whole).unwrap_or_default()))
    }

    fn whole(&mut self, ask: Ask<'_>) -> io::Result<(u16, Vec<u8>)> {
        self.send(ask)?;
        self.answer()
    }

    /// A part of a request, as it is written.
    pub fn raw(&mut self, text: &str) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(text.as_bytes())?;
        stream.flush()
    }

    /// The answer to what was sent.
    pub fn answer(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let (code, length) = self.head()?;
        let mut whole = Vec::new();
        match length {
            Some(length) => {
                whole.resize(length, 0);
                self.stream.read_exact(&mut whole)?;
            }
            None => while self.chunk(&mut whole)? {},
        }
        Ok((code, whole))
    }

    /// An answer that is no JSON.
    pub fn text(&mut self, ask: Ask<'_>) -> io::Result<String> {
        let (_, whole) = self.whole(ask)?;
        String::from_utf8(whole).map_err(io::Error::other)
    }

    /// Begins a watch: its code.
    pub fn watch(&mut self, path: &str) -> io::Result<u16> {
        self.send(Ask { words: &format!("GET {path}"), ..Ask::default() })?;
        Ok(self.head()?.0)
    }

    /// A watch's next event; none at its end.
    pub fn event(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::other);
            }
            let mut rest = std::mem::take(&mut self.rest);
            let more = self.chunk(&mut rest)?;
            self.rest = rest;
            if !more {
                return Ok(None);
            }
        }
    }

    fn send(&mut self, ask: Ask<'_>) -> io::Result<()> {
        let Ask { words, content_type, body, head } = ask;
        let content_type = if content_type.is_empty() { "application/json" } else { content_type };
        let text = format!(
            "{words} HTTP/1.1\r\nHost: kubernetes\r\nAccept: application/json\r\n{head}\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(&text)
    }

    /// The code, and the body's length if that is told.
    fn head(&mut self) -> io::Result<(u16, Option<usize>)> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().ok();
            }
            if line.is_empty() {
                return Ok((code.ok_or_else(|| io::Error::other(status))?, length));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// False for the last one, which is empty.
    fn chunk(&mut self, to: &mut Vec<u8>) -> io::Result<bool> {
        let length = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        let start = to.len();
        to.resize(start + length, 0);
        self.stream.read_exact(&mut to[start..])?;
        self.line()?;
        Ok(length > 0)
    }
}
