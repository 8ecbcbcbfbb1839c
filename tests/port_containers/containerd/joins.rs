//! `kubesim node` from end to end: it joins a `kubesim server` by the word that this says, runs
//! pods, is killed, adopts what it finds, and is refused where it must be.

use super::cluster::{
    Cluster, Given, JOINS, Running, accepts, echo, kubesim, on, on_a_machine, option, plug, refused,
};
use super::machine::Machine;
use crate::namespace::ip;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const ADDRESS: &str = "192.168.77.2";

/// A server, and a machine with containerd, in the network of the thread.
struct Place {
    server: Running,
    url: String,
    token: String,
    machine: Machine,
    cluster: Cluster,
}

impl Place {
    fn new(more: &[&str]) -> Place {
        plug(ADDRESS);
        let cluster = Cluster::new();
        let (server, words) = serve(&cluster, more);
        let (url, token) = (option(&words, "--server"), option(&words, "--token"));
        assert_eq!(url, format!("https://{ADDRESS}:6443"));
        Place { server, url, token, machine: Machine::start(), cluster }
    }

    /// A node with these options, instead of others or beside them.
    fn node(&self, options: &[(&'static str, &str)]) -> Command {
        let data_dir = self.cluster.file("node");
        let mut all: Vec<Given> = vec![
            ("--server", self.url.clone()),
            ("--name", "n1".to_owned()),
            ("--data-dir", data_dir),
        ];
        all.extend(options.iter().map(|(name, value)| (*name, (*value).to_owned())));
        on(&self.machine, "node", &all)
    }

    fn joins(&self) -> Running {
        let mut node = Running::start(&mut self.node(&[("--token", &self.token)]));
        node.says("the node n1 runs at ");
        node
    }
}

/// A server, and by which words others join its cluster.
fn serve(cluster: &Cluster, more: &[&str]) -> (Running, String) {
    let mut command = kubesim("server");
    command.args(["--listen", &format!("{ADDRESS}:6443"), "--data-dir"]).arg(cluster.data());
    let mut server = Running::start(command.args(more));
    let words = server.says(JOINS);
    server.says("try: ");
    (server, words)
}

#[test]
fn a_machine_joins_runs_a_pod_and_adopts_it() {
    on_a_machine(|| {
        let mut place = Place::new(&[]);
        let mut node = place.joins();
        node.says("the node n1 is ready");
        place.cluster.apply(&echo("web", None));
        let address = place.cluster.ready("web");
        assert!(accepts(&address), "{address}");

        let (tasks, container) = (place.machine.tasks(), place.cluster.container("web"));
        assert_eq!(container[1], "0");
        node.end(Signal::SIGKILL);
        assert!(accepts(&address), "its pods run on");
        // It has joined: no token is needed.
        let mut node = Running::start(&mut place.node(&[]));
        node.says("the node n1 runs at ");
        sleep(Duration::from_secs(5));
        assert_eq!(place.machine.tasks(), tasks);
        assert_eq!(place.cluster.container("web"), container);
        assert!(accepts(&place.cluster.ready("web")));

        place.cluster.told("delete pod web --wait=false");
        let is_gone = || place.cluster.of_pod("web", "{.metadata.name}").is_empty();
        place.cluster.until("the pod is gone", is_gone);
        assert_eq!(place.machine.ctr(&["containers", "ls", "-q"]), "");
        assert_eq!(ip("-o link show master cni0"), "", "no pod is plugged in");
        assert_eq!(node.end(Signal::SIGTERM), Some(0));
        assert_eq!(place.server.end(Signal::SIGTERM), Some(0));
    });
}

#[test]
fn what_cannot_be_a_node_is_told_why() {
    on_a_machine(|| {
        let place = Place::new(&[]);
        let told = |options: &[(&'static str, &str)], why: &str| {
            let said = refused(&mut place.node(options));
            assert!(said.contains(why), "{said}");
        };
        let (plain, pin) = place.token.split_once('@').expect("whose it is");
        told(&[], "--token gives the word that its server says");
        told(&[("--token", plain)], "does not say whose it is: --ca-file gives");
        let authority = place.cluster.file("server/pki/ca.crt");
        let wrong = "abcdef.fedcba9876543210";
        let unknown = "the server does not know the token";
        told(&[("--token", wrong), ("--ca-file", &authority)], unknown);
        told(&[("--token", &format!("{wrong}@{pin}"))], unknown);
        let other = format!("sha256:{}", "0f".repeat(32));
        let far = format!(
            "the server at {ADDRESS}:6443 is not the one that the token was made by: its authority \
             is {pin}, and not {other}"
        );
        let other = format!("{plain}@{other}");
        told(&[("--token", &other)], &far);
        told(&[("--token", &other), ("--ca-file", &authority)], "the token is of a cluster whose");
        let joins = ("--token", place.token.as_str());
        told(&[joins, ("--containerd", "/nowhere/socket")], "there is no containerd at /nowhere");
        let far = format!("https://{ADDRESS}:1");
        let unreached = format!("the server at {ADDRESS}:1 cannot be reached");
        told(&[joins, ("--server", &far)], &unreached);
        let made = fs::read_dir(place.cluster.folder.join("node/pki")).expect("a folder");
        assert_eq!(made.count(), 0, "nothing is kept of a server that nobody knows");
    });
}

#[test]
fn a_name_that_another_machine_has_is_refused() {
    on_a_machine(|| {
        let place = Place::new(&[]);
        let _node = place.joins();
        let lease = "get lease -n kube-node-lease n1 -o name";
        place.cluster.until("it has a lease", || !place.cluster.told(lease).is_empty());
        let other = place.cluster.file("other");
        let options = [("--token", place.token.as_str()), ("--data-dir", &other)];
        let why = refused(&mut place.node(&options));
        assert!(why.contains("another machine is the node \"n1\""), "{why}");
    });
}

#[test]
fn a_token_is_good_until_its_secret_is_deleted() {
    on_a_machine(|| {
        let mut place = Place::new(&[]);
        let kept = place.cluster.data().join("token");
        assert_eq!(fs::read_to_string(&kept).expect("a token").trim_end(), place.token);
        let mode = fs::metadata(&kept).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        place.server.end(Signal::SIGTERM);
        let (mut server, words) = serve(&place.cluster, &[]);
        assert_eq!(option(&words, "--token"), place.token, "it was made once");
        let id = place.token.split('.').next().expect("an id");
        place.cluster.told(&format!("delete secret -n kube-system bootstrap-token-{id}"));
        let why = refused(&mut place.node(&[("--token", &place.token)]));
        assert!(why.contains("the server does not know the token"), "{why}");
        server.end(Signal::SIGTERM);
        let (_server, words) = serve(&place.cluster, &[]);
        assert_ne!(option(&words, "--token"), place.token);
        place.token = option(&words, "--token");
        place.joins();
    });
}

#[test]
fn what_a_node_is_known_by_is_renewed() {
    on_a_machine(|| {
        let place = Place::new(&["--cluster-signing-duration", "20"]);
        let mut node = place.joins();
        node.says("the node n1 is ready");
        let kept = place.cluster.folder.join("node/pki/n1.kubelet.pem");
        let read = || fs::read_to_string(&kept).expect("a certificate");
        let first = read();
        place.cluster.until("it is renewed", || read() != first);
        sleep(Duration::from_secs(20));
        // The first one is over. What is known by now lets it in again, without a token.
        node.end(Signal::SIGKILL);
        let mut node = Running::start(&mut place.node(&[]));
        node.says("the node n1 is ready");
        place.cluster.apply(&echo("web", None));
        place.cluster.ready("web");
    });
}
