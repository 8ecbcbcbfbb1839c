//! Whom clients trust.

use super::connection::SERVER;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The certificates of a PEM text; the error says of what it is.
pub(super) fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    read.map_err(|error| format!("reading {what}: {error}"))
}

/// The cluster's authority, as PEM.
pub(super) fn roots(authority: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority, "the cluster's authority")? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("using the cluster's authority: {error}"))?;
    }
    Ok(roots)
}

/// What a client that is nobody knows: the cluster's authority. It may ask what anybody may, as
/// somebody who only looks whether the server is ready.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// From the authority of the server, as PEM.
    pub fn new(authority: &[u8]) -> Result<Trust, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("setting up TLS: {error}"))?
            .with_root_certificates(roots(authority)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Trust(Arc::new(config)))
    }

    /// TLS over a connection to the server, wherever it was dialled, for HTTP/1.1.
    pub async fn secure(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(SERVER).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, socket).await
    }
}
