//! Who the server is to its clients, and whom it knows.

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};

/// Clones are the same one.
#[derive(Clone)]
pub struct Tls {
    config: Arc<rustls::ServerConfig>,
    shown: Arc<Shown>,
}

/// What the next client is shown.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// From the server's certificate and key and the authority of its clients, all as PEM. A
    /// client may come without a certificate: what it may do then is another matter.
    pub fn new(certificates: &[u8], key: &[u8], clients: &[u8]) -> Result<Tls, String> {
        let mut roots = RootCertStore::empty();
        for certificate in read(clients, "the authority of clients")? {
            let added = roots.add(certificate);
            added.map_err(|error| format!("using the authority of clients: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| format!("using the authority of clients: {error}"))?;
        let shown = Arc::new(Shown(RwLock::new(certified(certificates, key, &provider)?)));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("setting up TLS: {error}"))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config), shown })
    }

    /// Shows another certificate of the server's to clients that come from now on. Those that are
    /// there stay.
    pub fn renew(&self, certificates: &[u8], key: &[u8]) -> Result<(), String> {
        let new = certified(certificates, key, self.config.crypto_provider())?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.config)
    }
}

fn read(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    all.map_err(|error| format!("reading {what}: {error}"))
}

fn certified(
    certificates: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let chain = read(certificates, "the server's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("reading the server's key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    let wrong = |error| format!("using the server's certificate and key: {error}");
    certified.map(Arc::new).map_err(wrong)
}
