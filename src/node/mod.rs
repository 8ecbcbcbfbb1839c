//! `kubesim node`: this machine as a node of a cluster. The kubelet, the network, the proxy and the
//! names of Services run under the production host, in the network namespace that the command was
//! started in; containers are containerd's, and outlive it.
//!
//! - `join`: how the machine becomes known to the cluster
//! - `renew`: and stays known
//! - `servers`: by whom the server is found when it moves
//! - `machine`: what it is
//! - `runtime`: containerd, and the CNI plugin for it
//! - `hosts`: the actors
//! - `leftovers`: what pods that are gone have left is taken away
//! - `made`: what it made outside of its directory
//! - `reset`: `kubesim reset`, which takes all that away

mod hosts;
mod join;
mod leftovers;
mod machine;
mod made;
mod renew;
pub mod reset;
mod runtime;
mod servers;

pub use self::hosts::Hosts;
pub use self::join::{Joined, identities};
pub use self::machine::{Machine, networks};
pub use self::servers::Servers;

use self::hosts::cluster_dns;
use self::join::Joining;
use self::made::Made;
use crate::ending::Ending;
use crate::networks::{Networks, outward};
use crate::server::host::block_on;
use crate::server::lead::hostname;
use crate::service::Service;
use crate::status::Board;
use crate::token::Token;
use crate::{Exit, Output, capabilities, pki};
use kubesim_backends::cri::{self, Cri};
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::spawn_local;

/// A server that has not accepted for so long is not there.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Args {
    /// Where the cluster's API is.
    #[arg(long, value_name = "https://ADDRESS:PORT", value_parser = server)]
    server: SocketAddrV4,
    /// What the server says that machines join by, needed until this one has joined. A bootstrap
    /// token alone, ID.SECRET, needs --ca-file as well.
    #[arg(long, value_name = "ID.SECRET@sha256:HASH")]
    token: Option<Token>,
    /// The cluster's authority, as PEM, instead of the one that the token names.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Where the node keeps what it is known by.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubesim-node")]
    data_dir: PathBuf,
    // As the server has them.
    #[command(flatten)]
    networks: Networks,
    #[command(flatten)]
    settings: Settings,
}

// What a node is on its machine, however it comes into a cluster.
#[derive(clap::Args)]
pub struct Settings {
    /// The node's name, instead of the machine's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The node's address, instead of the one from which the machine reaches others.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<Ipv4Addr>,
    /// The socket of containerd.
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    containerd: PathBuf,
    /// Where containerd looks for CNI plugins, instead of where it says that it does.
    #[arg(long, value_name = "DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Where containerd looks for what to do with them, instead of where it says that it does.
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// Below which the logs of containers are.
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pod_logs: PathBuf,
    /// The cgroup of all pods.
    #[arg(long, value_name = "CGROUP", default_value = "/kubepods")]
    cgroup: String,
}

/// What is wrong, for the exit status and for people.
pub type Failed = (Exit, String);

fn server(text: &str) -> Result<SocketAddrV4, String> {
    let at = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    let at = at.and_then(|at| at.parse().ok());
    at.ok_or_else(|| "it is as https://192.168.1.10:6443, with an IPv4 address".to_owned())
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match run(args, output) {
        Ok(()) => Exit::Held,
        Err((exit, why)) => {
            output.complain(&format!("error: {why}"));
            exit
        }
    }
}

fn run(args: &Args, output: &mut Output) -> Result<(), Failed> {
    let node = Node::new(&args.settings, args.networks, &args.data_dir)?;
    block_on(live(args, &node, output))
}

/// A machine that can be a node.
pub struct Node<'a> {
    settings: &'a Settings,
    networks: Networks,
    pub name: String,
    data_dir: PathBuf,
}

impl<'a> Node<'a> {
    /// One that keeps what it must in this directory.
    pub fn new(
        settings: &'a Settings,
        networks: Networks,
        data_dir: &Path,
    ) -> Result<Node<'a>, Failed> {
        let environment = |why| (Exit::Environment, why);
        let name = settings.name.clone().unwrap_or_else(|| hostname().to_lowercase());
        if !is_name(&name) {
            let why = format!("{name:?} is no name of a node (RFC 1123); --name gives another one");
            return Err((Exit::Input, why));
        }
        if let Some(lacking) = capabilities::lacking() {
            let why = format!("a node's network takes {lacking}: run it as root (sudo)");
            return Err(environment(why));
        }
        runtime::check(&settings.containerd).map_err(environment)?;
        let data_dir = std::path::absolute(data_dir)
            .map_err(|error| environment(format!("--data-dir: {error}")))?;
        Ok(Node { settings, networks, name, data_dir })
    }

    /// Its actors, on this machine; the API is at `server` for them, and found again by the nodes
    /// that servers are on.
    pub async fn start(
        &self,
        machine: &Machine,
        server: (SocketAddrV4, Servers),
        board: &Board,
        joined: &Joined,
    ) -> Result<Hosts, String> {
        pki::directory(&self.data_dir)?;
        let Settings { containerd, pod_logs, cgroup, .. } = self.settings;
        let containers = Cri::new(cri::Settings {
            logs: pod_logs.clone(),
            pods: self.data_dir.join("pods"),
            cgroup: cgroup.clone(),
            ..cri::Settings::new(containerd)
        });
        let places = runtime::places(self.settings, &containers).await?;
        let own = std::env::current_exe().map_err(|error| format!("finding itself: {error}"))?;
        let made = Made {
            containerd: containerd.clone(),
            pod_logs: pod_logs.clone(),
            cgroup: cgroup.clone(),
            cni_bin_dir: places.plugins.clone(),
            cni_conf_dir: places.networks.clone(),
            cluster_dns: cluster_dns(self.networks),
        };
        // Before there is anything of it.
        made.write(&self.data_dir)?;
        runtime::install(&own, &places)?;
        Hosts::start((self, machine), containers, server, board, joined)
    }
}

/// A subdomain in lower case (`IsDNS1123Subdomain` of apimachinery's pkg/util/validation).
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Until it is told to end.
async fn live(args: &Args, node: &Node<'_>, output: &mut Output) -> Result<(), Failed> {
    let environment = |why| (Exit::Environment, why);
    let mut ending = Ending::by_signals().map_err(environment)?;
    let board = Board::default();
    let service = Service::begin(board.clone());
    service.status(&format!("seeks the server at {}", args.server));
    let known = servers::known(&node.data_dir);
    let from = match reach(args.server) {
        Ok(from) => from,
        // It has moved, and whoever knows it says where it is.
        Err(why) if !known.is_empty() => outward().ok_or_else(|| environment(why))?,
        Err(why) => return Err(environment(why)),
    };
    let machine = Machine::of(args.settings.address.unwrap_or(from)).map_err(environment)?;
    let (name, keys) = (node.name.clone(), node.data_dir.join("pki"));
    let joining = Joining { name, server: args.server, keys };
    let mut tell = |text: &str| {
        service.status(text);
        output.begin("how far the node is");
        output.line(text);
        output.flush();
    };
    let joined = tokio::select! {
        joined = joining.join(args.token.as_ref(), args.ca_file.as_deref(), &mut tell) => joined?,
        () = ending.told() => return Ok(()),
    };
    let servers = servers::find(&node.data_dir, args.server, &joined).await;
    let servers = servers.map_err(environment)?;
    if servers.is_empty() {
        tell(&format!(
            "the server is on no node of the cluster: if it moves, the node has to be started with \
             --server as it is then, instead of {}",
            args.server
        ));
    }
    let at = (args.server, servers);
    let hosts = node.start(&machine, at, &board, &joined).await.map_err(environment)?;
    let told = spawn_local(board.serve(node.data_dir.clone()));
    tell(&format!("the node {} runs at {}", node.name, machine.address));
    let lives = async {
        hosts.ready().await;
        let text = format!("the node {} is ready", node.name);
        tell(&text);
        service.ready(&text);
        pending::<()>().await;
    };
    tokio::select! {
        () = lives => {}
        () = renew::run(&joining, &joined, &hosts) => {}
        () = ending.told() => {}
    }
    told.abort();
    hosts.stop().await;
    Ok(())
}

/// From which address the server is reached.
fn reach(server: SocketAddrV4) -> Result<Ipv4Addr, String> {
    let reached = TcpStream::connect_timeout(&server.into(), PATIENCE);
    let local = reached.and_then(|stream| stream.local_addr());
    match local.map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) => Ok(address),
        Ok(other) => Err(format!("the server is reached from {other}, which is no IPv4 address")),
        Err(error) => Err(format!(
            "the server at {server} cannot be reached: {error}; see whether it runs, and that its \
             --listen is an address that other machines reach"
        )),
    }
}

/// A file's path as text.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_server_is_says_its_address() {
        assert_eq!(server("https://10.0.0.1:6443/"), Ok("10.0.0.1:6443".parse().unwrap()));
        assert!(server("10.0.0.1:6443").is_err());
        assert!(server("https://example.org:6443").is_err());
    }

    #[test]
    fn names_of_nodes_are_subdomains() {
        assert!(is_name("n1") && is_name("a.b-c.d"));
        assert!(!is_name("") && !is_name("N1") && !is_name("-a") && !is_name("a..b"));
    }
}
