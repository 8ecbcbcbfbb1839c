//! An authority that is known by its key's hash alone: how a machine that joins finds out who
//! vouches for the server, before it says anything to it.

use super::connection::{SERVER, words};
use super::trust;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddrV4;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The SHA-256 of an authority's public key as its certificate has it (SubjectPublicKeyInfo: RFC
/// 7469, section 2.4). It is written as kubeadm writes it, `sha256:` and 64 hexadecimal digits
/// (kubernetes `cmd/kubeadm/app/util/pubkeypin/pubkeypin.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

const PREFIX: &str = "sha256:";

impl Pin {
    /// Of the authority in a PEM text: of several, the first.
    pub fn of(authority: &str) -> Result<Pin, String> {
        let what = "the cluster's authority";
        let all = trust::certificates(authority.as_bytes(), what)?;
        Pin::of_one(all.first().ok_or(format!("reading {what}: there is no certificate"))?)
    }

    fn of_one(certificate: &CertificateDer<'_>) -> Result<Pin, String> {
        let (_, read) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("reading a certificate: {error}"))?;
        Ok(Pin(Sha256::digest(read.public_key().raw).into()))
    }

    /// The certificate (DER) of the authority that this is the pin of, as the server there shows it
    /// beside its own. Nothing is asked of the server; that it has the key of its own certificate,
    /// and that this authority signed that, is proved. The error is for people.
    pub async fn authority_at(self, server: SocketAddrV4) -> Result<Vec<u8>, String> {
        let wrong = |why: String| format!("connecting to the server at {server}: {why}");
        let seen = timeout(super::DIAL_TIMEOUT, self.shown_at(server)).await;
        match seen.map_err(|_| wrong("no answer within 3 s".to_owned()))? {
            Ok(Some(Shown::Known(authority))) => Ok(authority.to_vec()),
            Ok(Some(Shown::Other(whose))) => Err(format!(
                "the server at {server} is not the one that the token was made by: {whose}, and \
                 not {self}"
            )),
            Ok(None) => Err(wrong("it shows no certificate".to_owned())),
            Err(why) => Err(wrong(why)),
        }
    }

    async fn shown_at(self, server: SocketAddrV4) -> Result<Option<Shown>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let shown = OnceLock::new();
        let pinned = Arc::new(Pinned { pin: self, provider: Arc::clone(&provider), shown });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("setting up TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(pinned.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(SERVER).map_err(|error| error.to_string())?;
        let socket = TcpStream::connect(server).await.map_err(|error| error.to_string())?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        match (connected, pinned.shown.get()) {
            (Err(error), None | Some(Shown::Known(_))) => Err(words(&error)),
            (_, shown) => Ok(shown.cloned()),
        }
    }
}

impl Display for Pin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Pin, String> {
        let wrong = || format!("{text:?} is not {PREFIX} and 64 hexadecimal digits");
        let digits = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = &digits[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Pin(bytes))
    }
}

/// By whom a server says that it is vouched for.
#[derive(Clone, Debug)]
enum Shown {
    Known(CertificateDer<'static>),
    /// Who it is, for people.
    Other(String),
}

/// Knows the servers for which the authority with this pin vouches.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    shown: OnceLock<Shown>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = |one: &&CertificateDer<'_>| Pin::of_one(one) == Ok(self.pin);
        let Some(authority) = others.iter().find(is_pinned) else {
            let whose = others.last().map(Pin::of_one).and_then(Result::ok);
            let whose = whose.map(|pin| format!("its authority is {pin}"));
            let none = "it shows no authority".to_owned();
            let _ = self.shown.set(Shown::Other(whose.unwrap_or(none)));
            return Err(CertificateError::UnknownIssuer.into());
        };
        let authority = authority.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(own, others, name, ocsp, now)?;
        let _ = self.shown.set(Shown::Known(authority));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of openssl's, and what `openssl x509 -pubkey | openssl pkey -pubin -outform
    /// der | sha256sum` makes of it.
    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUc6qjbj/z4EX0zGWl9Dr0QSu8Tv4wCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNa3ViZXJuZXRlcy1jYTAgFw0yNjExMjcyMjMxMzVaGA8yMTI2
MTEwMzIyMzEzNVowGDEWMBQGA1UEAwwNa3ViZXJuZXRlcy1jYTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABCOAuhFmMF4xFbTP31e/zlXzs3oyvgI6IRxF2thjvZSJ
ys5/t4Vqe67SNuG3WYs93LI8LM1+S8wWAf5ujhZTD3yjUzBRMB0GA1UdDgQWBBRf
XAE5fSGf3+HHyJnQYhn9fZXdFTAfBgNVHSMEGDAWgBRfXAE5fSGf3+HHyJnQYhn9
fZXdFTAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCQh9c/mvtF
DTG2dy9Z5qD3hjgDVDE9M93WHOQbg6sBWwIgaF04pUfggXErGzEEURb8Z/SBUDym
Mq4YHw1iuoqo6YY=
-----END CERTIFICATE-----
";
    const PIN: &str = "sha256:0bb4e470bd55c2c0ac220434851ed9fe73c731e4d50c75c0e4a14bbb60c818e1";

    #[test]
    fn it_is_what_openssl_makes_of_the_key() {
        let pin = Pin::of(AUTHORITY).expect("a certificate");
        assert_eq!(pin.to_string(), PIN);
        assert_eq!(PIN.parse(), Ok(pin));
        assert_eq!(PIN.to_uppercase().replace("SHA", "sha").parse(), Ok(pin));
    }

    #[test]
    fn other_words_are_none() {
        for text in ["", "sha256:", &PIN[..70], &format!("{PIN}0"), &PIN.replace("sha256", "sha1")]
        {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
        assert!(Pin::of("").is_err());
    }
}
