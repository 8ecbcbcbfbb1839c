//! Both ends, in a namespace of a test's own and on one thread.

use crate::namespace::in_namespace;
use kubesim_actors::apiserver::RequestId;
use kubesim_actors::ports::api::Request;
use kubesim_backends::http::client::{Client, Credentials, Options};
use kubesim_backends::http::{Front, Limits, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::cell::RefCell;
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const PORT: u16 = 6443;

pub type Writes = Rc<RefCell<Vec<(RequestId, Arc<Request>)>>>;

pub struct Ends {
    pub server: Front,
    pub client: Client,
    pub writes: Writes,
    pub connected: UnboundedReceiver<bool>,
}

/// Plays a story with a server and a client on the loopback.
pub fn with_ends<F: Future<Output = ()>>(story: impl Fn(Ends) -> F + Send + 'static) {
    in_namespace(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async move {
            let (server, writes) = server();
            listens(&server, Ipv4Addr::LOCALHOST);
            let (client, connected) = client(vec![Ipv4Addr::LOCALHOST]);
            story(Ends { server, client, writes, connected }).await;
        });
    });
}

/// With a client that knows no address, and in a time that passes by itself.
pub fn connected_to_nothing<F: Future<Output = ()>>(story: impl Fn(Client) -> F + Send + 'static) {
    in_namespace(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async move { story(client(Vec::new()).0).await });
    });
}

/// A front that listens nowhere yet, and the writes that come in by it.
pub fn server() -> (Front, Writes) {
    server_with(Limits::default())
}

pub fn server_with(limits: Limits) -> (Front, Writes) {
    let writes = Writes::default();
    let taken = Rc::clone(&writes);
    let front = Front::new(limits, move |id, request, dry_run| {
        assert!(!dry_run, "nobody asked for one");
        taken.borrow_mut().push((id, request));
    });
    (front, writes)
}

/// Has it serve at this address.
pub fn listens(front: &Front, at: Ipv4Addr) -> JoinHandle<()> {
    let front = front.clone();
    spawn_local(async move {
        let made = made();
        let tls = Tls::new(&made.server.0, &made.server.1, &made.authority);
        let listener = TcpListener::bind((at, PORT)).await;
        match front.serve(listener.expect("it listens"), tls.expect("TLS")).await {}
    })
}

/// A connection of the administrator's, who speaks this protocol (`h2`, `http/1.1`) by hand.
pub async fn by_hand(protocol: &str) -> TlsStream<TcpStream> {
    let made = made();
    let pem = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(pem(&made.authority)).expect("an authority");
    let key = PrivateKeyDer::from_pem_slice(&made.client.1).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots);
    let config = config.with_client_auth_cert(vec![pem(&made.client.0)], key);
    let mut config = config.expect("an identity");
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).await.expect("it listens");
    let name = ServerName::try_from("kubernetes").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("TLS")
}

/// A client that looks for the server at these addresses.
pub fn client(addresses: Vec<Ipv4Addr>) -> (Client, UnboundedReceiver<bool>) {
    let made = made();
    let credentials = Credentials::new("n1", &made.authority, &made.client.0, &made.client.1);
    let client = Client::new(Options {
        addresses,
        port: PORT,
        credentials: credentials.expect("credentials"),
        seed: 1,
        notes: Box::new(|note| println!("{note}")),
    });
    let connected = client.listen();
    spawn_local(client.clone().run());
    (client, connected)
}

/// A certificate and its key, as PEM.
type Identity = (Vec<u8>, Vec<u8>);

struct Made {
    authority: Vec<u8>,
    server: Identity,
    client: Identity,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(make)
}

fn make() -> Made {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("an authority").pem();
    let issuer = Issuer::from_ca_cert_pem(&authority, key).expect("an authority");
    let leaf = |names: &[&str], usage: ExtendedKeyUsagePurpose| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "n1");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    };
    Made {
        server: leaf(&["kubernetes"], ExtendedKeyUsagePurpose::ServerAuth),
        client: leaf(&[], ExtendedKeyUsagePurpose::ClientAuth),
        authority: authority.into_bytes(),
    }
}
