//! The server's socket: who is let in, and what is cut off.

use crate::world::{Place, Server};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::io::Write;
use std::net::TcpStream as Plain;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A certificate and its key, as PEM.
type Identity = (Vec<u8>, Vec<u8>);

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of the kubeconfig.
fn admin(place: &Place) -> Identity {
    let config = read(&place.0.join("data/admin.conf"));
    let field = |name: &str| {
        let line = config.lines().find_map(|line| line.trim().strip_prefix(name));
        BASE64.decode(line.expect(name).trim()).expect("base64")
    };
    (field("client-certificate-data:"), field("client-key-data:"))
}

/// Signed by the cluster's authority, or by another one that says it is that.
fn made(place: &Place, group: &str, stranger: bool) -> Identity {
    let authority = read(&place.0.join("data/pki/ca.crt"));
    let key = match stranger {
        true => KeyPair::generate().expect("a key"),
        false => KeyPair::from_pem(&read(&place.0.join("data/pki/ca.key"))).expect("a key"),
    };
    let issuer = Issuer::from_ca_cert_pem(&authority, key).expect("an authority");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, "somebody");
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
}

/// What comes back for these bytes until the server hangs up; empty if it takes no request.
fn exchange(place: &Place, server: &Server, identity: Option<Identity>, bytes: &[u8]) -> String {
    let mut roots = RootCertStore::empty();
    let authority = read(&place.0.join("data/pki/ca.crt"));
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(&certificate).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(&key).expect("PEM");
            config.with_client_auth_cert(chain, key).expect("an identity")
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = async {
        let socket = TcpStream::connect(server.at()).await.expect("it listens");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let Ok(mut stream) = connector.connect(name, socket).await else { return Vec::new() };
        // It may hang up before it has all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        // One that refuses in the middle of a request may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let told = runtime
        .expect("a runtime")
        .block_on(async { timeout(Duration::from_secs(20), told).await });
    String::from_utf8(told.expect("an end within 20 s")).expect("UTF-8")
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The status line's code.
fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn serve() -> (Place, Server) {
    let place = Place::new();
    let server = Server::start(&place, "127.0.0.1:0", Path::new("kubectl"));
    (place, server)
}

#[test]
fn who_is_nobody_learns_the_version_only() {
    let (place, server) = serve();
    let ask = |identity, path| exchange(&place, &server, identity, &get(path));
    let nobody = ask(None, "/api/v1/pods");
    assert_eq!(code(&nobody), "403");
    assert!(nobody.contains("User \\\"system:anonymous\\\""), "{nobody}");
    assert_eq!(code(&ask(None, "/version")), "200");
    let somebody = ask(Some(made(&place, "system:nodes", false)), "/api/v1/pods");
    assert_eq!(code(&somebody), "403");
    assert!(somebody.contains("User \\\"somebody\\\""), "{somebody}");
    assert_eq!(code(&ask(Some(made(&place, "system:masters", false)), "/api/v1/pods")), "200");
    assert_eq!(ask(Some(made(&place, "system:masters", true)), "/version"), "", "a forgery");
    assert_eq!(code(&ask(Some(admin(&place)), "/api/v1/pods")), "200");
}

#[test]
fn keys_are_for_their_owner() {
    let (place, _server) = serve();
    let mode = |path: &str| {
        let of = fs::metadata(place.0.join("data").join(path)).expect(path);
        of.permissions().mode() & 0o777
    };
    for file in ["admin.conf", "pki/ca.key", "pki/ca.crt"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    for directory in ["", "pki", "store"] {
        assert_eq!(mode(directory), 0o700, "{directory:?}");
    }
}

#[test]
fn what_is_too_large_or_no_http_is_cut_off() {
    let (place, server) = serve();
    let path = "/api/v1/namespaces/default/configmaps";
    let head = |more: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n{more}\r\n\r\n")
            .into_bytes()
    };
    let ask = |bytes: &[u8]| exchange(&place, &server, Some(admin(&place)), bytes);
    // Refused by what it says it is, before it comes.
    let large = ask(&head("Content-Length: 4000000"));
    assert_eq!(code(&large), "413", "{large}");
    // And by what it is.
    let mut chunks = head("Transfer-Encoding: chunked");
    for _ in 0..4 {
        chunks.extend_from_slice(b"100000\r\n");
        chunks.extend_from_slice(&vec![b' '; 1 << 20]);
        chunks.extend_from_slice(b"\r\n");
    }
    let large = ask(&chunks);
    assert!(["413", ""].contains(&code(&large)), "{large}");
    assert_eq!(code(&ask(b"GET / HTTP/1.1\r\nno header\r\n\r\n")), "400");
    assert_eq!(code(&ask(&get("/%ff"))), "400");
    let long = "x".repeat(1 << 20);
    assert!(["414", "431"].contains(&code(&ask(&get(&long)))), "a head of 1 MiB");
    let mut plain = Plain::connect(server.at()).expect("it listens");
    plain.write_all(&get("/version")).expect("a socket");
    assert_eq!(code(&ask(&get("/readyz"))), "200", "it goes on");
}

#[test]
fn what_is_in_use_is_told() {
    let (place, server) = serve();
    let second = Server::refused(&place, "127.0.0.1:0");
    assert_eq!(second.0, Some(3));
    assert!(second.1.contains("the store in"), "{}", second.1);
    let other = Place::new();
    let third = Server::refused(&other, &server.at().to_string());
    assert_eq!(third.0, Some(3));
    assert!(third.1.contains("--listen names another address"), "{}", third.1);
    let overlap = ["--pod-network", "10.96.0.0/16"];
    let fourth = Server::refused_with(&other, "127.0.0.1:0", &overlap);
    assert_eq!(fourth.0, Some(2), "{}", fourth.1);
}
