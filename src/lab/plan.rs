//! What a machine of the lab is given when it is powered on.

use super::identity::{self, Known};
use super::joined::Outside;
use super::workload;
use crate::pki::Pki;
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::{self, memory_store::Store};
use kubesim_actors::objects::Name;
use kubesim_actors::{controllers, dns, kubelet, netd, proxy, scheduler};
use kubesim_backends::containers::Launch;
use kubesim_backends::http::Tls;
use kubesim_backends::http::client::Trust;
use kubesim_runtime::{Rng, Stream};
use kubesim_sim::scenario::{Expect, Scenario, Software, SoftwareKind};
use kubesim_sim::world::external::NetworkCard;
use kubesim_sim::world::{Cell, Kind, NET_CONF, Role, SUBNET_ENV, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What all machines of a run have in common.
#[derive(Clone)]
pub struct Cluster {
    /// The store, on the disk of the server.
    pub store: Arc<Mutex<Store>>,
    /// Who vouches for the server and for its clients.
    pub pki: Arc<Pki>,
    /// Where programs of this machine come in, if any may.
    pub listener: Option<Arc<TcpListener>>,
    /// The server of the cluster that the nodes join: the store and the listener are not used.
    pub joined: Option<Outside>,
    /// This very program.
    pub program: PathBuf,
}

#[derive(Clone)]
pub struct Plan {
    pub name: Name,
    pub card: NetworkCard,
    /// The way out of the network of a static address, and other ways.
    pub gateway: Option<Ipv4Addr>,
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Its files lie below.
    /// Its files lie below.
    pub root: PathBuf,
    /// It was never on before: its files are to be made.
    pub first: bool,
    pub files: Vec<(String, String)>,
    pub sysctls: Vec<(String, String)>,
    /// What runs before any actor.
    pub software: Vec<Software>,
    /// Its DHCP client writes /etc/resolv.conf.
    pub writes_resolv_conf: bool,
    pub actors: Vec<(Cell, Config)>,
    /// As whom they ask the API.
    pub clients: identity::Clients,
    /// How the API server is known to who asks as nobody.
    pub trust: Trust,
    /// Of the API server's machine.
    pub door: Option<Door>,
    /// Where it looks for the API first.
    pub dial: Vec<Ipv4Addr>,
    pub seed: u64,
    pub images: Images,
    /// What of it whoever judges looks at.
    pub shown: Arc<Shown>,
    /// This very program.
    pub program: PathBuf,
}

/// Where the API is to be had, and who has it at hand there.
#[derive(Clone)]
pub struct Door {
    pub behind: Behind,
    /// Who writes as the scenario says.
    pub person: Known,
}

/// Who answers there.
#[derive(Clone)]
pub enum Behind {
    /// An API server of the lab's own.
    Server(Front),
    /// The one of a cluster that is joined.
    Outside(Outside),
}

/// What the API server's front is made of.
#[derive(Clone)]
pub struct Front {
    pub store: Arc<Mutex<Store>>,
    pub tls: Tls,
    /// What tokens of service accounts are signed by, as PEM.
    pub token_key: String,
    /// Of this machine's loopback, not the node's.
    pub visitors: Option<Arc<TcpListener>>,
}

impl Door {
    fn new(cluster: &Cluster) -> Result<Door, String> {
        let behind = match &cluster.joined {
            Some(outside) => Behind::Outside(outside.clone()),
            None => Behind::Server(Front::new(cluster)?),
        };
        Ok(Door { behind, person: identity::person(&cluster.pki)? })
    }
}

impl Front {
    fn new(cluster: &Cluster) -> Result<Front, String> {
        let pki = &cluster.pki;
        let (certificate, key) = pki.server()?;
        Ok(Front {
            store: Arc::clone(&cluster.store),
            tls: Tls::new(certificate.as_bytes(), key.as_bytes(), pki.authority.as_bytes())?,
            token_key: pki.token_key.clone(),
            visitors: cluster.listener.clone(),
        })
    }
}

impl Cluster {
    /// Whether this component is the lab's: a cluster that is joined has a scheduler and
    /// controllers.
    fn plays(&self, kind: Kind) -> bool {
        self.joined.is_none() || !matches!(kind, Kind::Controllers | Kind::Scheduler)
    }
}

/// An actor's configuration, the simulator's own.
#[derive(Clone, Debug)]
pub enum Config {
    ApiServer(apiserver::Config),
    Controllers(controllers::Config),
    Scheduler(scheduler::Config),
    Kubelet(kubelet::Config),
    Netd(netd::Config),
    Flannel(netd::Config),
    Proxy(proxy::Config),
    Dns(dns::Config),
    KubeDns(dns::Config),
}

impl Plan {
    /// The error is for people.
    pub fn new(
        world: &World,
        machine: u32,
        root: PathBuf,
        cluster: &Cluster,
    ) -> Result<Plan, String> {
        const OTHER: &str = "a machine that is no node was powered on";
        let bare = Plan::bare(world, machine, root, cluster)?.ok_or(OTHER)?;
        let host = &world.machines[machine as usize];
        let scenario = &world.scenario;
        let index = match host.role {
            Role::Node(index) => index,
            Role::Client(index) => {
                let routes = scenario.clients[index].routes.clone();
                return Ok(Plan { routes, ..bare });
            }
            Role::Router(_) | Role::Upstream(_) => return Err(OTHER.to_owned()),
        };
        let node = &scenario.nodes[index];
        let net_conf = host.files.read(NET_CONF).ok_or("a node has no network configuration")?;
        let mut files = vec![(NET_CONF.to_owned(), net_conf.to_string())];
        files.extend(node.files.iter().map(|(path, text)| (path.to_string(), text.clone())));
        let manages = |software: &Software| software.kind == SoftwareKind::NetworkManager;
        let sysctls = node.sysctls.iter().map(|(key, value)| (key.clone(), value.to_string()));
        let cells = world.cells_on(machine).iter().filter(|cell| cluster.plays(cell.kind));
        let cells: Vec<Cell> = cells.copied().collect();
        let serves = cells.iter().any(|cell| cell.kind == Kind::ApiServer);
        Ok(Plan {
            files,
            sysctls: sysctls.collect(),
            software: node.software.iter().filter(|s| s.start.is_zero()).cloned().collect(),
            writes_resolv_conf: node.software.iter().any(manages),
            actors: cells.iter().map(|c| (*c, config(world, *c))).collect(),
            clients: identity::clients(&cluster.pki, world, machine, &cells)?,
            door: if serves { Some(Door::new(cluster)?) } else { None },
            dial: host.client.as_ref().map_or(Vec::new(), |client| client.addresses().to_vec()),
            ..bare
        })
    }

    /// A machine on its network, and nothing that runs there.
    fn bare(
        world: &World,
        machine: u32,
        root: PathBuf,
        cluster: &Cluster,
    ) -> Result<Option<Plan>, String> {
        let host = &world.machines[machine as usize];
        let scenario = &world.scenario;
        if matches!(host.role, Role::Router(_) | Role::Upstream(_)) {
            return Ok(None);
        }
        let Some(card) = world.card_of(machine) else { return Ok(None) };
        // After a move not the network that it began in.
        let of = |net: Ipv4Net| scenario.networks.iter().find(|lan| lan.cidr.contains(&net.addr()));
        Ok(Some(Plan {
            name: host.name.clone(),
            gateway: card.address.and_then(of).map(|lan| lan.gateway),
            card,
            routes: Vec::new(),
            first: !root.exists(),
            root,
            files: Vec::new(),
            sysctls: Vec::new(),
            software: Vec::new(),
            writes_resolv_conf: false,
            actors: Vec::new(),
            clients: identity::Clients::new(),
            trust: Trust::new(cluster.pki.authority.as_bytes())?,
            door: None,
            dial: Vec::new(),
            seed: world.knobs.seed,
            images: Images::new(scenario, world.knobs.seed, machine),
            shown: Arc::new(Shown::of(scenario)),
            program: cluster.program.clone(),
        }))
    }
}

fn config(world: &World, cell: Cell) -> Config {
    let at = cell.index as usize;
    match cell.kind {
        Kind::ApiServer => Config::ApiServer(world.apiservers.hosts[at].config.clone()),
        Kind::Controllers => Config::Controllers(world.controllers.hosts[at].config.clone()),
        Kind::Scheduler => Config::Scheduler(world.schedulers.hosts[at].config.clone()),
        Kind::Kubelet => Config::Kubelet(world.kubelets.hosts[at].config.clone()),
        Kind::Netd => Config::Netd(world.netds.hosts[at].config.clone()),
        Kind::Flannel => Config::Flannel(world.flannels.hosts[at].config.clone()),
        Kind::Proxy => Config::Proxy(world.proxies.hosts[at].config.clone()),
        Kind::Dns => Config::Dns(world.dns.hosts[at].config.clone()),
        Kind::KubeDns => Config::KubeDns(world.kube_dns.hosts[at].config.clone()),
    }
}

/// What of a machine the expectations are about, beside its links, routes and rules.
#[derive(Debug)]
pub struct Shown {
    pub files: Vec<Name>,
    pub sysctls: Vec<Name>,
}

impl Shown {
    fn of(scenario: &Scenario) -> Shown {
        let mut files = BTreeSet::from([SUBNET_ENV, RESOLV_CONF].map(Name::from));
        let mut sysctls = BTreeSet::new();
        for expectation in &scenario.expectations {
            match &expectation.expect {
                Expect::File { path, .. } => drop(files.insert(path.as_str().into())),
                Expect::Sysctl { key, .. } => drop(sysctls.insert(key.as_str().into())),
                _ => {}
            }
        }
        Shown { files: files.into_iter().collect(), sysctls: sysctls.into_iter().collect() }
    }
}

/// What images do, and how long they take to be pulled here.
#[derive(Clone, Debug)]
pub struct Images(BTreeMap<Name, Launch>);

impl Images {
    fn new(scenario: &Scenario, seed: u64, machine: u32) -> Images {
        let index = machine.into();
        let mut rng = Rng::new(Stream { seed, label: "pull", index, incarnation: 0 });
        let launches = scenario.images.iter().map(|(name, image)| {
            let pull = rng.between(image.pull.from, image.pull.to);
            let text = serde_json::to_string(&workload::Image::of(image)).unwrap_or_default();
            let args = ["workload".to_owned(), "image".to_owned()].into();
            // There is no more of it.
            let size = text.len() as u64;
            let env = vec![(workload::IMAGE.to_owned(), text)];
            (name.clone(), Launch { pull, size, args, env })
        });
        Images(launches.collect())
    }

    pub fn launch(&self, image: &str, attempt: u32) -> Option<Launch> {
        let mut launch = self.0.get(image).cloned()?;
        launch.env.push((workload::ATTEMPT.to_owned(), attempt.to_string()));
        Some(launch)
    }
}
