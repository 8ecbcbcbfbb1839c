//! Three servers on one store, which is an etcd of three members: whatever is killed, what was
//! acknowledged is there, watches go on elsewhere without a gap, and one server's scheduler works.

use crate::etcd;
use crate::https::{Ask, Connection, identity};
use crate::plane::until;
use crate::skip::skipped;
use crate::world::{Place, Server};
use nix::sys::signal::Signal;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

mod ends;
mod fenced;
mod load;
mod services;
mod silent;
mod watcher;

const SERVERS: usize = 3;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Cluster {
    etcd: Vec<etcd::Server>,
    places: Vec<Place>,
    keys: Place,
    servers: Vec<Option<Server>>,
    more: &'static [&'static str],
    ends: Ends,
}

/// What a client has to know.
#[derive(Clone)]
pub struct Ends {
    at: Vec<SocketAddr>,
    tls: Arc<ClientConfig>,
}

impl Ends {
    fn open(&self, server: usize) -> io::Result<Connection> {
        // Longer than the store's driver waits for an answer.
        Connection::open(self.at[server], &self.tls, Duration::from_secs(8))
    }

    /// Of a server that runs.
    fn ask(&self, server: usize, words: &str, body: &Value, head: &str) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let ask = Ask { words, body: &body, head, ..Ask::default() };
        self.open(server).and_then(|mut line| line.ask(ask)).expect("an answer")
    }

    fn get(&self, server: usize, path: &str) -> Value {
        let (code, value) = self.ask(server, &format!("GET {path}"), &Value::Null, "");
        assert_eq!(code, 200, "{path}: {value}");
        value
    }
}

/// Two ports that nobody has, one after the other, and that no connection is given in the time
/// until their owners listen there: below those that Linux gives (`ip_local_port_range`), others
/// each time.
fn pair() -> (u16, [TcpListener; 2]) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const PAIRS: u16 = 5_000;
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    loop {
        // Other processes that do the same begin elsewhere.
        let begin = std::process::id().wrapping_mul(97) as u16;
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PAIRS;
        let port = FIRST + 2 * number;
        if let (Ok(first), Ok(second)) = (bind(port), bind(port + 1)) {
            return (port, [first, second]);
        }
    }
}

/// The first ones of so many pairs.
pub(super) fn pairs(count: usize) -> Vec<u16> {
    let pairs: Vec<_> = (0..count).map(|_| pair()).collect();
    pairs.into_iter().map(|(port, _)| port).collect()
}

/// Three members that know of each other.
fn members() -> Vec<etcd::Server> {
    let ports = pairs(SERVERS);
    let peers = ports.iter().enumerate();
    let peers: Vec<String> =
        peers.map(|(index, port)| format!("m{index}=http://127.0.0.1:{}", port + 1)).collect();
    let member = |(index, port): (usize, &u16)| {
        etcd::Server::with(*port, "http", |_| {
            vec![
                format!("--name=m{index}"),
                format!("--initial-cluster={}", peers.join(",")),
                // Two cores may be busy with other tests.
                "--heartbeat-interval=100".to_owned(),
                "--election-timeout=1000".to_owned(),
            ]
        })
    };
    ports.iter().enumerate().map(member).collect()
}

impl Cluster {
    /// The first server, then the others.
    fn start(more: &'static [&'static str], first: impl Fn(&Ends)) -> Cluster {
        let etcd = members();
        let at = pairs(SERVERS).into_iter();
        let at = at.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        let places = (0..SERVERS).map(|_| Place::new()).collect();
        let keys = Place::new();
        let mut cluster = Cluster {
            etcd,
            places,
            keys,
            servers: Vec::new(),
            more,
            ends: Ends { at, tls: Arc::new(anybody()) },
        };
        for index in 0..SERVERS {
            let server = cluster.server(index);
            cluster.servers.push(Some(server));
            if index == 0 {
                let kubeconfig = fs::read_to_string(cluster.places[0].0.join("data/admin.conf"));
                cluster.ends.tls = identity(&kubeconfig.expect("the administrator's kubeconfig"));
                first(&cluster.ends);
            }
        }
        cluster
    }

    /// Each asks another member first.
    fn server(&self, index: usize) -> Server {
        let mut endpoints: Vec<String> =
            self.etcd.iter().map(|etcd| etcd.endpoint().replace("http://", "")).collect();
        endpoints.rotate_left(index);
        let store = format!("--store=etcd://{}", endpoints.join(","));
        let keys = format!("--pki-dir={}", self.keys.0.display());
        let mut more = vec![store.as_str(), keys.as_str()];
        more.extend(self.more);
        let listen = self.ends.at[index].to_string();
        Server::start_with(&self.places[index], &listen, Path::new("kubectl"), &more)
    }

    /// SIGKILL, and again on what it kept.
    fn restart_server(&mut self, index: usize) {
        self.servers[index].take().expect("it runs").kill();
        std::thread::sleep(Duration::from_millis(300));
        let server = self.server(index);
        self.servers[index] = Some(server);
    }

    fn restart_member(&mut self, index: usize) {
        self.etcd[index].kill();
        std::thread::sleep(Duration::from_millis(1500));
        self.etcd[index].run();
    }

    fn signal(&self, index: usize, signal: Signal) {
        self.servers[index].as_ref().expect("it runs").signal(signal);
    }
}

/// Trusts nobody yet.
fn anybody() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions");
    config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

/// False, and says so, where this machine has no etcd.
pub(super) fn possible() -> bool {
    let possible = etcd::installed();
    if !possible {
        skipped("the program `etcd` (Debian: etcd-server)");
    }
    possible
}

#[test]
fn what_was_acknowledged_survives_whatever_is_killed() {
    if !possible() {
        return;
    }
    let alone = &["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];
    let mut cluster = Cluster::start(alone, |_| {});
    let ends = cluster.ends.clone();
    let clients = Clients::start(&ends);
    std::thread::sleep(Duration::from_secs(1));
    // Whichever server, and whichever member: etcd's leader is one of them.
    for index in 0..SERVERS {
        cluster.restart_member((index + 1) % SERVERS);
        cluster.restart_server(index);
    }
    clients.end(&ends);
}

/// Some who write, and two who watch.
struct Clients {
    load: load::Load,
    watchers: Vec<JoinHandle<Vec<watcher::Told>>>,
}

impl Clients {
    fn start(ends: &Ends) -> Clients {
        let from = watcher::version(&ends.get(0, MAPS));
        let watch = |first: usize| {
            let ends = ends.clone();
            std::thread::spawn(move || watcher::follow(&ends, first, from))
        };
        Clients { load: load::start(ends), watchers: (0..2).map(watch).collect() }
    }

    /// All servers have what was acknowledged, and all who watched were told of it.
    fn end(self, ends: &Ends) {
        let acknowledged = self.load.end();
        let (code, _) = ends.ask(0, &format!("POST {MAPS}"), &load::map("end", 0), "");
        assert_eq!(code, 201);
        let ended = |one: JoinHandle<_>| one.join().expect("a watch to its end");
        let told: Vec<_> = self.watchers.into_iter().map(ended).collect();
        assert_eq!(told[0], told[1], "every watch tells the same");
        acknowledged.check(ends, &told[0]);
    }
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

fn holder(ends: &Ends, server: usize) -> String {
    let (code, lease) = ends.ask(server, &format!("GET {LEASES}/kube-scheduler"), &Value::Null, "");
    assert!([200, 404].contains(&code), "{lease}");
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn unbound(ends: &Ends, server: usize) -> usize {
    let pods = ends.get(server, "/api/v1/pods");
    let pods = pods["items"].as_array().expect("a list");
    pods.iter().filter(|pod| pod["spec"]["nodeName"].is_null()).count()
}

fn create_pods(ends: &Ends, server: usize, prefix: &str) {
    for number in 0..20 {
        let path = "POST /api/v1/namespaces/default/pods";
        let (code, why) = ends.ask(server, path, &pod(&format!("{prefix}{number}")), "");
        assert_eq!(code, 201, "{why}");
    }
}

/// A write as by the lease.
fn writes_as(ends: &Ends, server: usize, holder: &str, name: &str) -> u16 {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let head = format!("Kubesim-Lease: kube-system/kube-scheduler {holder}\r\n");
    ends.ask(server, &format!("POST {MAPS}"), &map, &head).0
}

#[test]
fn a_paused_leader_is_followed_and_writes_no_more() {
    if !possible() {
        return;
    }
    let periods = &[
        "--leader-elect-lease-duration=3",
        "--leader-elect-renew-deadline=2",
        "--leader-elect-retry-period=1",
        // The node has no kubelet.
        "--node-monitor-grace-period=600",
        "--disable-admission-plugins=ServiceAccount",
    ];
    // Alone, the first one leads.
    let cluster = Cluster::start(periods, |ends| {
        until("a leader", || !holder(ends, 0).is_empty());
    });
    let ends = &cluster.ends;
    let first = holder(ends, 1);
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "110"});
    let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                      "status": {"capacity": room, "allocatable": room, "conditions": ready}});
    assert_eq!(ends.ask(1, "POST /api/v1/nodes", &node, "").0, 201);
    create_pods(ends, 1, "a");
    until("pods on the node", || unbound(ends, 2) == 0);
    assert_eq!(writes_as(ends, 2, &first, "by-the-first"), 201, "it leads");

    create_pods(ends, 1, "b");
    cluster.signal(0, Signal::SIGSTOP);
    until("another leader", || !["", &first].contains(&holder(ends, 1).as_str()));
    let second = holder(ends, 2);
    until("pods on the node", || unbound(ends, 1) == 0);
    cluster.signal(0, Signal::SIGCONT);
    // What it still had to do, it does not; nor does anybody in its name, at any server.
    for server in 0..SERVERS {
        assert_eq!(writes_as(ends, server, &first, "late"), 409, "at server {server}");
        assert_eq!(writes_as(ends, server, &second, &format!("s{server}")), 201);
    }
    create_pods(ends, 0, "c");
    until("pods on the node", || unbound(ends, 0) == 0);
    let lease = ends.get(0, &format!("{LEASES}/kube-scheduler"));
    let spec = &lease["spec"];
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!(second), &json!(1)));
}
