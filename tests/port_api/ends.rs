//! Both ends of each transport, in a namespace of a test's own and on one thread.

use crate::namespace::in_namespace;
use kubesim_actors::apiserver::{Cache, RequestId};
use kubesim_actors::ports::api::{Effect, Error, Event, Reply, Request};
use kubesim_backends::api;
use kubesim_backends::port::Port;
use std::cell::RefCell;
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{LocalSet, spawn_local};

pub type Writes = Rc<RefCell<Vec<(RequestId, Arc<Request>)>>>;
pub type Client = Rc<dyn Port<Request = Effect, Reply = Event>>;

pub struct Ends {
    pub server: Rc<dyn Server>,
    pub client: Client,
    pub writes: Writes,
    pub connected: UnboundedReceiver<bool>,
}

/// What an API server does with its front.
pub trait Server {
    fn publish(&self, cache: Cache);
    fn respond(&self, id: RequestId, result: Result<Reply, Error>);
    fn reset(&self);
}

impl Server for api::Server {
    fn publish(&self, cache: Cache) {
        self.publish(cache);
    }
    fn respond(&self, id: RequestId, result: Result<Reply, Error>) {
        self.respond(id, &result);
    }
    fn reset(&self) {
        self.reset();
    }
}

/// A way from clients to the server.
struct Transport {
    name: &'static str,
    /// A client that is not dialling yet, and what keeps its connection.
    client: fn(Vec<Ipv4Addr>) -> (Client, UnboundedReceiver<bool>, Running),
    server: fn(Writes) -> (Rc<dyn Server>, Running),
}

type Running = std::pin::Pin<Box<dyn Future<Output = ()>>>;

const FRAMED: Transport = Transport {
    name: "framed JSON",
    client: |addresses| {
        let client = api::Client::new("n1".into(), addresses);
        let (connected, running) = (client.listen(), Box::pin(client.clone().run()));
        (Rc::new(client), connected, running)
    },
    server: |writes| {
        let server = api::Server::new(move |id, request| writes.borrow_mut().push((id, request)));
        let listening = server.clone().listen();
        let running = async move { listening.await.expect("it listens") };
        (Rc::new(server), Box::pin(running))
    },
};

#[cfg(feature = "server")]
const TRANSPORTS: &[Transport] = &[FRAMED, https::TRANSPORT];
#[cfg(not(feature = "server"))]
const TRANSPORTS: &[Transport] = &[FRAMED];

/// Plays a story over each transport.
pub fn with_ends<F: Future<Output = ()>>(story: impl Fn(Ends) -> F + Copy + Send + 'static) {
    for transport in TRANSPORTS {
        println!("over {}", transport.name);
        in_namespace(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.expect("a runtime"), async move {
                let writes = Writes::default();
                let (server, serving) = (transport.server)(Rc::clone(&writes));
                let (client, connected, running) = (transport.client)(vec![Ipv4Addr::LOCALHOST]);
                spawn_local(serving);
                spawn_local(running);
                story(Ends { server, client, writes, connected }).await;
            });
        });
    }
}

/// With a client that knows no address, and in a time that passes by itself.
pub fn connected_to_nothing<F: Future<Output = ()>>(
    story: impl Fn(Client) -> F + Copy + Send + 'static,
) {
    for transport in TRANSPORTS {
        println!("over {}", transport.name);
        in_namespace(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async move {
                let (client, _connected, running) = (transport.client)(Vec::new());
                spawn_local(running);
                story(client).await;
            });
        });
    }
}

#[cfg(feature = "server")]
mod https {
    use super::{Client, Running, Server, Transport, Writes};
    use kubesim_actors::apiserver::{Cache, RequestId};
    use kubesim_actors::ports::api::{Error, Reply};
    use kubesim_backends::http::client::{self, Credentials};
    use kubesim_backends::http::{Front, Limits, Tls};
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    use std::net::Ipv4Addr;
    use std::rc::Rc;
    use std::sync::OnceLock;
    use tokio::net::TcpListener;

    const PORT: u16 = 6443;

    pub const TRANSPORT: Transport = Transport {
        name: "HTTPS",
        client: |addresses| {
            let made = made();
            let credentials =
                Credentials::new("n1", &made.authority, &made.client.0, &made.client.1);
            let client = client::Client::new(client::Options {
                addresses,
                port: PORT,
                credentials: credentials.expect("credentials"),
                notes: Box::new(|note| println!("{note}")),
            });
            let (connected, running) = (client.listen(), Box::pin(client.clone().run()));
            (Rc::new(client) as Client, connected, running)
        },
        server: |writes: Writes| {
            let front = Front::new(Limits::default(), move |id, request, dry_run| {
                assert!(!dry_run, "nobody asked for one");
                writes.borrow_mut().push((id, request));
            });
            let serving = front.clone();
            let running = async move {
                let made = made();
                let tls = Tls::new(&made.server.0, &made.server.1, &made.authority);
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await;
                serving.serve(listener.expect("it listens"), tls.expect("TLS")).await;
            };
            (Rc::new(front), Box::pin(running) as Running)
        },
    };

    impl Server for Front {
        fn publish(&self, cache: Cache) {
            self.publish(cache);
        }
        fn respond(&self, id: RequestId, result: Result<Reply, Error>) {
            self.respond(id, result);
        }
        fn reset(&self) {
            self.reset();
        }
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
}
