//! What etcd's driver does when the way to etcd breaks, and behind TLS.

use crate::etcd::Server;
use crate::on_machines_with_etcd;
use crate::world::{Driver, World, names, put};
use kubesim_actors::ports::store::{Range, Reply, Request, Under};
use kubesim_backends::store::etcd::{Etcd, Options, Tls};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const SERVER: u16 = 2379;
const WAY: u16 = 2479;
/// Where nothing listens.
const NOWHERE: &str = "http://127.0.0.1:9";

fn through(endpoints: impl IntoIterator<Item = String>) -> World {
    let mut options = Options::new(endpoints);
    options.deadline = Duration::from_secs(2);
    World::new((), || -> Driver { Rc::new(Etcd::new(options).expect("options")) })
}

/// A way to etcd that can be cut.
struct Way {
    mode: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

const OPEN: u8 = 0;
/// New connections are closed at once.
const CUT: u8 = 1;
/// What etcd says is lost.
const MUTE: u8 = 2;

impl Way {
    /// Its thread ends with the process: it waits in the namespace of the test.
    fn new() -> Way {
        let way = Way { mode: Arc::default(), open: Arc::default() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, WAY)).expect("a port");
        let (mode, open) = (Arc::clone(&way.mode), Arc::clone(&way.open));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if mode.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, SERVER));
                let Ok(server) = server else { continue };
                for (from, to, loses) in [(&client, &server, false), (&server, &client, true)] {
                    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                    let (from, to, mode) = (clone(from), clone(to), Arc::clone(&mode));
                    thread::spawn(move || carry(from, to, &mode, loses));
                }
                open.lock().expect("no panic").extend([client, server]);
            }
        });
        way
    }

    fn turn(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
        if mode == CUT {
            for stream in self.open.lock().expect("no panic").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn endpoint() -> String {
        format!("http://127.0.0.1:{WAY}")
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8, loses: bool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(got) = from.read(&mut buffer) {
        if got == 0 {
            break;
        }
        let lost = loses && mode.load(Ordering::SeqCst) == MUTE;
        if !lost && to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_watch_goes_on_without_a_gap_after_etcd_was_killed() {
    on_machines_with_etcd(|| {
        let mut server = Server::start(SERVER);
        let world = through([server.endpoint()]);
        let watch = world.watch(1, Under::All, 2);
        for round in 0..3 {
            let told = world.commit(vec![put("a"), put("b")]);
            world.until("it is told", || watch.reached() == told);
            server.kill();
            let reply = world.txn(&[], vec![put("c")]);
            assert!(matches!(reply, Reply::Unknown { id: 1 }), "it is down: {reply:?}");
            let asked = world.begin(Request::Range(Range::default()));
            server.run();
            let reply = world.block_on(asked).expect("no panic");
            assert_eq!(names(&reply).len(), 2, "a read waits for it: {reply:?}");
            let told = world.commit(vec![put("a")]);
            world.until("it is told again", || watch.reached() == told);
            let changes = watch.changes();
            assert_eq!(changes.len(), 3 * (round + 1), "nothing twice, nothing lost: {changes:?}");
        }
    });
}

#[test]
fn what_happened_while_the_way_was_cut_is_told_after() {
    on_machines_with_etcd(|| {
        let server = Server::start(SERVER);
        let (way, direct) = (Way::new(), through([server.endpoint()]));
        let world = through([Way::endpoint()]);
        let watch = world.watch(1, Under::All, 2);
        let first = direct.commit(vec![put("a")]);
        world.until("it is told", || watch.reached() == first);
        way.turn(CUT);
        for _ in 0..5 {
            direct.commit(vec![put("a")]);
        }
        let last = direct.commit(vec![put("b")]);
        way.turn(OPEN);
        world.until("all is told", || watch.reached() == last);
        assert_eq!(watch.changes().len(), 7);
        way.turn(CUT);
        direct.compact(direct.commit(vec![put("b")]));
        way.turn(OPEN);
        world.until("it ends, as what it missed is forgotten", || watch.ended());
        let last = watch.told.borrow().last().cloned();
        assert!(matches!(last, Some(Reply::Forgotten { id: 1, compacted: 9 })), "{last:?}");
        let reply = world.range(Range { revision: 8, ..Range::default() });
        assert!(matches!(reply, Reply::Forgotten { compacted: 9, .. }), "{reply:?}");
    });
}

/// It was told of revisions that came to be others' after etcd was put back to an older state.
#[test]
fn a_watch_ends_when_etcd_counts_anew() {
    on_machines_with_etcd(|| {
        let mut server = Server::start(SERVER);
        let world = through([server.endpoint()]);
        let (asked, now) = (world.watch(1, Under::All, 2), world.watch(2, Under::All, 0));
        let mut told = 0;
        for _ in 0..5 {
            told = world.commit(vec![put("a")]);
        }
        world.until("both are told", || asked.reached() == told && now.reached() == told);
        server.kill();
        server.lose();
        server.run();
        for (id, watch) in [(1, asked), (2, now)] {
            world.until("it ends", || watch.ended());
            let last = watch.told.borrow().last().cloned();
            assert!(
                matches!(last, Some(Reply::Forgotten { id: of, compacted: 1 }) if of == id),
                "{last:?}"
            );
        }
    });
}

#[test]
fn a_transaction_whose_answer_is_lost_is_unknown_and_sent_once() {
    on_machines_with_etcd(|| {
        let server = Server::start(SERVER);
        let (way, direct) = (Way::new(), through([server.endpoint()]));
        let world = through([Way::endpoint()]);
        world.commit(vec![put("a")]);
        way.turn(MUTE);
        let reply = world.txn(&[], vec![put("b")]);
        assert!(matches!(reply, Reply::Unknown { id: 1 }), "{reply:?}");
        assert_eq!(direct.at(0), ["default/a@2", "default/b@3"], "it happened, once");
        way.turn(CUT);
        way.turn(OPEN);
        assert_eq!(world.at(0).len(), 2, "another connection");
        assert_eq!(world.commit(vec![put("c")]), 4);
    });
}

#[test]
fn the_next_endpoint_is_asked_when_one_does_not_answer() {
    on_machines_with_etcd(|| {
        let server = Server::start(SERVER);
        let world = through([NOWHERE.to_owned(), server.endpoint()]);
        assert_eq!(world.at(0), [""; 0]);
        assert_eq!(world.commit(vec![put("a")]), 2);
        let watch = world.watch(1, Under::All, 2);
        world.until("it is told", || watch.reached() == 2);
        let world = through([NOWHERE.to_owned()]);
        let reply = world.range(Range { id: 3, ..Range::default() });
        assert!(matches!(reply, Reply::Unknown { id: 3 }), "{reply:?}");
    });
}

#[test]
fn what_is_too_large_or_not_ours_is_refused_in_words() {
    on_machines_with_etcd(|| {
        let server = Server::start(SERVER);
        let world = through([server.endpoint()]);
        let large = crate::world::put_text("a", &"x".repeat(1_800_000));
        let reply = world.txn(&[], vec![large]);
        let Reply::Refused { id: 1, why } = reply else { panic!("{reply:?}") };
        assert!(why.contains("too large"), "{why}");
        let put = |path: &str, value: &[u8]| {
            let (path, value) = (path.to_owned(), value.to_vec());
            let client = etcd_client::Client::connect([server.endpoint()], None);
            world.block_on(async {
                client.await.expect("etcd").put(path, value, None).await.expect("put");
            });
        };
        put("/registry/events.example.com/things/a", b"k8s\0");
        assert_eq!(world.at(0), [""; 0], "of a kind that we do not have");
        world.commit(vec![crate::world::put("b")]);
        put("/registry/zoo/a", b"k8s\0");
        let reply = world.range(Range { limit: 1, ..Range::default() });
        assert!(matches!(reply, Reply::Range { more: false, .. }), "what follows is not ours");
        assert_eq!(names(&reply).len(), 1, "what comes before is not counted: {reply:?}");
        put("/registry/pods/default/a", b"k8s\0");
        let reply = world.range(Range::default());
        let Reply::Refused { why, .. } = reply else { panic!("{reply:?}") };
        assert!(why.contains("/registry/pods/default/a"), "{why}");
    });
}

#[test]
fn tls_is_asked_for_and_shown() {
    on_machines_with_etcd(|| {
        let authority = Authority::new();
        let (certificate, key) = authority.issue("etcd");
        let server = Server::with(SERVER, "https", |directory| {
            let file = |name: &str, text: &str| {
                std::fs::write(directory.join(name), text).expect("written");
                directory.join(name).display().to_string()
            };
            vec![
                format!("--cert-file={}", file("cert.pem", &certificate)),
                format!("--key-file={}", file("key.pem", &key)),
                format!("--trusted-ca-file={}", file("ca.pem", &authority.pem())),
                "--client-cert-auth".to_owned(),
            ]
        });
        let with = |identity: Option<(Vec<u8>, Vec<u8>)>, ca: &Authority| {
            let mut options = Options::new([server.endpoint()]);
            options.deadline = Duration::from_secs(2);
            options.tls = Some(Tls { ca: ca.pem().into(), identity, server_name: None });
            World::new((), || -> Driver { Rc::new(Etcd::new(options).expect("options")) })
        };
        let (certificate, key) = authority.issue("kubesim");
        let identity = Some((certificate.into_bytes(), key.into_bytes()));
        let world = with(identity.clone(), &authority);
        assert_eq!(world.commit(vec![put("a")]), 2);
        let watch = world.watch(1, Under::All, 2);
        world.until("it is told", || watch.reached() == 2);
        for other in [with(None, &authority), with(identity, &Authority::new())] {
            let reply = other.range(Range::default());
            assert!(matches!(reply, Reply::Unknown { .. }), "{reply:?}");
        }
    });
}

#[test]
fn options_that_cannot_work_are_refused() {
    let none: [&str; 0] = [];
    let why = Etcd::new(Options::new(none)).expect_err("no endpoint");
    assert!(why.contains("no endpoint"), "{why}");
    let why = Etcd::new(Options::new(["https://10.0.0.1:2379"])).expect_err("no TLS");
    assert!(why.contains("https://10.0.0.1:2379 without TLS"), "{why}");
}

struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
        Authority { issuer }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For 127.0.0.1: certificate and key.
    fn issue(&self, name: &str) -> (String, String) {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let names = vec!["127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}
