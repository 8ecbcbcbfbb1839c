//! The node's actors and what they act with: the kubelet as the node, the rest as its network.

use super::join::Joined;
use super::leftovers::Leftovers;
use super::servers::Servers;
use super::{Machine, Node, text};
use crate::drive::{self, Drivers, Means, Running};
use crate::networks::Networks;
use crate::pki;
use crate::seed::seed;
use crate::server::clients::settings;
use crate::status::Board;
use kubesim_actors::dns::{self, Dns};
use kubesim_actors::kubelet::{self, Kubelet};
use kubesim_actors::netd::{self, Netd};
use kubesim_actors::ports::api;
use kubesim_actors::ports::rules::virtuals;
use kubesim_actors::proxy::{self, Proxy};
use kubesim_backends::cri::Cri;
use kubesim_backends::files::Files;
use kubesim_backends::http::client::{Client, Credentials, Options};
use kubesim_backends::network::Network;
use kubesim_backends::packets::{Codec, Packets};
use kubesim_backends::port::{Answer, Local, Port};
use kubesim_backends::probe::Probes;
use kubesim_backends::rules::Rules;
use kubesim_backends::tunnel::Tunnel;
use kubesim_backends::volumes::Volumes;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The devices that a node makes on its machine, by how their names begin.
pub const OWN: [&str; 4] = [BRIDGE, "kubesim.", "flannel-wg", virtuals::DEVICE];
pub const BRIDGE: &str = "cni0";
const DOMAIN: &str = "cluster.local";
/// Upstream's kubelet takes so many (`--max-pods`).
const PODS: u32 = 110;

/// How often it is looked whether the node is ready.
const LOOK: Duration = Duration::from_millis(100);

/// Those that run.
pub struct Hosts {
    actors: Vec<Box<dyn Running>>,
    clients: Vec<JoinHandle<()>>,
    kubelet: Client,
    /// Where the Node is.
    path: String,
}

impl Hosts {
    /// `server` is where they find the API at first, and `servers` whom they ask when it is not
    /// there; by the board they say how they are.
    pub fn start(
        (node, machine): (&Node<'_>, &Machine),
        containers: Cri,
        (server, servers): (SocketAddrV4, Servers),
        board: &Board,
        joined: &Joined,
    ) -> Result<Hosts, String> {
        let configs = Place { node, machine, servers }.configs()?;
        let apis = Api::pair(server, joined);
        let drivers = drivers(containers, &node.data_dir)?;
        let told = apis.clone();
        drive::observe_addresses(&drivers.network, move |has| {
            told.each(|client| client.addresses_changed(has));
        });
        let clients = apis.all.iter().map(|client| spawn_local(client.clone().run()));
        let mut clients: Vec<_> = clients.collect();
        let [as_node, as_network] = [0, 1].map(|own| Api { own, ..apis.clone() });
        let (kubelet, netd, proxy, dns) = configs;
        let with = |api: &Api| Means { api: api.clone(), drivers: drivers.clone() };
        let actors = vec![
            drive::start::<Netd, _>(
                netd,
                drive::on::<Netd, _, _>(with(&as_network), drive::netd_effect),
                (as_network.listen(), netd::Event::Api),
                settings::<Netd>(),
                board,
            ),
            drive::start::<Kubelet, _>(
                kubelet,
                drive::on::<Kubelet, _, _>(with(&as_node), drive::kubelet_effect),
                (as_node.listen(), kubelet::Event::Api),
                settings::<Kubelet>(),
                board,
            ),
            drive::start::<Proxy, _>(
                proxy,
                drive::on::<Proxy, _, _>(with(&as_network), drive::proxy_effect),
                (as_network.listen(), proxy::Event::Api),
                settings::<Proxy>(),
                board,
            ),
            drive::start::<Dns, _>(
                dns,
                drive::on::<Dns, _, _>(with(&as_network), drive::dns_effect),
                (as_network.listen(), dns::Event::Api),
                settings::<Dns>(),
                board,
            ),
        ];
        let tunnel = Tunnel {
            node: node.name.clone(),
            client: apis.all[0].clone(),
            credentials: joined.kubelet.clone(),
            containers: drivers.containers.clone(),
            notes: Box::new(|note| eprintln!("kubelet: {note}")),
        };
        let tunnel = spawn_local(async move { match tunnel.run().await {} });
        clients.push(tunnel);
        let (client, name) = (apis.all[0].clone(), node.name.clone());
        let leftovers = Leftovers { client, node: name, containers: drivers.containers.clone() };
        clients.push(spawn_local(leftovers.run()));
        let path = format!("/api/v1/nodes/{}", node.name);
        Ok(Hosts { actors, clients, kubelet: apis.all[0].clone(), path })
    }

    /// Until the API says that the node is ready.
    pub async fn ready(&self) {
        let is_ready = async || {
            let node = self.kubelet.get(&self.path).await.unwrap_or_default();
            let mut all = node["status"]["conditions"].as_array().into_iter().flatten();
            all.any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        while !is_ready().await {
            sleep(LOOK).await;
        }
    }

    /// Where the server is that the node is connected to.
    pub fn server(&self) -> Option<SocketAddrV4> {
        self.kubelet.place().map(|place| place.server)
    }

    /// What runs in containers goes on, and so does what the kernel was told.
    pub async fn stop(self) {
        for actor in &self.actors {
            actor.stop().await;
        }
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

fn drivers(containers: Cri, data_dir: &Path) -> Result<Drivers<Cri>, String> {
    let inside = containers.clone();
    Ok(Drivers {
        network: Network::open().map_err(|error| format!("a netlink socket: {error}"))?,
        rules: Rc::new(Rules::new(Default::default())),
        files: Files::below("/").with_manifests(text(&data_dir.join("manifests"))),
        volumes: Volumes::new(data_dir, "/"),
        dns: Packets::new(Codec::Dns),
        peers: Packets::new(Codec::Peer),
        probes: Probes::new(move |command| inside.exec(command)),
        containers,
    })
}

/// Where names are asked for, in every pod: the tenth address of the Services' network.
pub fn cluster_dns(networks: Networks) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(networks.services.network()) + 10)
}

/// What the actors' settings follow from.
struct Place<'a> {
    node: &'a Node<'a>,
    machine: &'a Machine,
    servers: Servers,
}

type Configs = (kubelet::Config, netd::Config, proxy::Config, dns::Config);

impl Place<'_> {
    fn file(&self, name: &str) -> String {
        text(&self.node.data_dir.join(name))
    }

    /// Periods are upstream's. The network's own file is flannel's, and written here.
    fn configs(&self) -> Result<Configs, String> {
        let Place { node, machine, ref servers } = *self;
        let name = node.name.as_str();
        let Networks { pods, services } = node.networks;
        let conf = json!({
            "Network": pods, "SubnetLen": node.networks.share(), "SubnetMin": pods.network(),
            "Backend": { "Type": "vxlan" },
        });
        pki::write(&node.data_dir.join("net-conf.json"), &conf.to_string())?;
        let cluster_dns = cluster_dns(node.networks);
        let kubelet = kubelet::Config {
            node: name.into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            interface: machine.interface.clone(),
            cpu_millis: machine.cpu_millis,
            memory_bytes: machine.memory,
            max_pods: PODS,
            cluster_dns,
            cluster_domain: DOMAIN.to_owned(),
            subnet_env: self.file("subnet.env").into(),
            resolv_conf: RESOLV_CONF.into(),
            manifests: self.file("manifests").into(),
            volumes: self.file("volumes").into(),
            events: true,
            sweeps: true,
            lease_duration: Duration::from_secs(40),
            status_period: Duration::from_secs(300),
        };
        let netd = netd::Config {
            node: name.into(),
            interface: machine.interface.clone(),
            net_conf: self.file("net-conf.json").into(),
            subnet_env: self.file("subnet.env").into(),
            memory: self.file("netd.json").into(),
            bridge: BRIDGE.into(),
            key_seed: self.key_seed()?,
            servers: servers.clone(),
            service_network: services,
            resync: Duration::from_secs(10),
        };
        let proxy = proxy::Config {
            node: name.into(),
            mode: proxy::Mode::default(),
            cluster_cidr: pods,
            min_sync: Duration::from_secs(1),
            resync: Duration::from_secs(30),
            interface: machine.interface.clone(),
        };
        let dns = dns::Config {
            node: name.into(),
            listen: cluster_dns,
            cluster_domain: DOMAIN.to_owned(),
            service_network: services,
            pod_network: pods,
            pod_records: false,
            upstreams: dns::Upstreams::File(RESOLV_CONF.into()),
        };
        Ok((kubelet, netd, proxy, dns))
    }

    /// Of the key by which peers know the node: made once.
    fn key_seed(&self) -> Result<[u8; 32], String> {
        let path = self.node.data_dir.join("netd.key");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let words: Vec<u64> =
            kept.split_whitespace().filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
        let words = <[u64; 4]>::try_from(words).or_else(|_| {
            let made = [(); 4].map(|()| seed());
            pki::write(&path, &made.map(|word| format!("{word:016x}")).join("\n")).map(|()| made)
        })?;
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        Ok(bytes)
    }
}

/// The API as one of the node's components has it: one connection for the node, one for its
/// network.
#[derive(Clone)]
struct Api {
    own: usize,
    all: Rc<[Client; 2]>,
}

impl Api {
    fn pair(server: SocketAddrV4, joined: &Joined) -> Api {
        let client = |name: &'static str, credentials: &Credentials| {
            Client::new(Options {
                addresses: vec![*server.ip()],
                port: server.port(),
                credentials: credentials.clone(),
                seed: seed(),
                notes: Box::new(move |note| eprintln!("{name}: {note}")),
            })
        };
        let all = [client("kubelet", &joined.kubelet), client("network", &joined.network)];
        Api { own: 0, all: Rc::new(all) }
    }

    fn each(&self, act: impl Fn(&Client)) {
        self.all.iter().for_each(act);
    }

    fn listen(&self) -> tokio::sync::mpsc::UnboundedReceiver<bool> {
        self.all[self.own].listen()
    }
}

impl Port for Api {
    type Request = api::Effect;
    type Reply = api::Event;

    fn perform(&self, effect: api::Effect, answer: Answer<api::Event>) -> Local<()> {
        match effect {
            // Who knows where the server is (netd) knows it for the whole node.
            api::Effect::Dial { .. } => drive::dial(self.all.iter(), &effect),
            effect => self.all[self.own].perform(effect, answer),
        }
    }
}
