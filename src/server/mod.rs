//! `kubesim server`: a cluster's control plane, for any client of Kubernetes'.
//!
//! - `host`: the API server, its store and its front
//! - `clients`: the scheduler and the controllers
//! - `advertise`: where pods find the server
//! - `joining`: by which token other machines join
//! - `signer`: the certificates that are asked for
//! - `aggregate`: roles that others are part of
//! - `lead`: which server's of them work
//! - `renew`: their certificates, before they end
//! - `tokens`: the keys of tokens, when their file changes
//! - `data`, `backup`: what it keeps, and a copy of that

mod advertise;
mod aggregate;
mod backup;
pub(crate) mod clients;
mod data;
pub(crate) mod host;
mod joining;
pub(crate) mod lead;
pub(crate) mod renew;
mod signer;
mod tokens;

use self::advertise::{Address, Advertised};
#[cfg(feature = "node")]
use self::clients::Who;
use self::host::{Served, Store};
use self::lead::Election;
use self::renew::Renewal;
use crate::ending::Ending;
use crate::networks::{Networks, outward};
use crate::pki::Pki;
use crate::run::quoted;
use crate::seed::seed;
use crate::service::Service;
use crate::status::Board;
use crate::token::Token;
use crate::{Exit, Output};
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::Config;
use kubesim_actors::{controllers, scheduler};
use kubesim_backends::http::Tls;
#[cfg(feature = "node")]
use kubesim_backends::http::client::Credentials;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Write all that a cluster is to a file, while its server runs or not.
    Backup(backup::BackupArgs),
    /// Make a data directory of such a file.
    Restore(backup::RestoreArgs),
}

#[derive(clap::Args)]
pub(crate) struct Serve {
    /// Where the server keeps its keys, the administrator's kubeconfig and the embedded store.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubesim")]
    data_dir: PathBuf,
    /// Where objects are kept: in the data directory, in memory (they end with the server), or in
    /// etcd at these endpoints, as etcd://10.0.0.1:2379,10.0.0.2:2379.
    #[arg(long, value_name = "embedded|memory|etcd://…", value_parser = store, default_value = "embedded")]
    store: Store,
    /// Where the cluster's authority and the key of its tokens are kept, instead of `pki` in the
    /// data directory: servers that have one store must share them.
    #[arg(long, value_name = "DIR")]
    pki_dir: Option<PathBuf>,
    /// Where clients are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    listen: SocketAddrV4,
    /// By which address pods find the server, as kube-apiserver's flag: they know it by the Service
    /// `kubernetes`. If it is not said, that of --listen, or if others do not come there (loopback,
    /// 0.0.0.0), the one from which this machine reaches others, also when that changes.
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<Ipv4Addr>,
    #[command(flatten)]
    networks: Networks,
    /// How long a node's lease may go without renewal before the node is not ready, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "50")]
    node_monitor_grace_period: Duration,
    /// What is left to others: the scheduler, the controllers, or (with a comma) both.
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    without: Vec<Part>,
    /// How long the certificates are good for that the server makes for itself, its own clients
    /// and the administrator, in seconds. Each is renewed after two thirds of that.
    #[arg(long, value_name = "SECONDS", value_parser = life, default_value = "31536000")]
    certificate_life: Duration,
    /// How long the certificates are good for that are asked for (kube-controller-manager's flag):
    /// those of nodes, which renew them. Who asks may have less, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = life, default_value = "31536000")]
    cluster_signing_duration: Duration,
    /// How long the server serves on when it was told to end, in seconds: /readyz fails meanwhile,
    /// so that a load balancer sends nobody more.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    shutdown_delay_duration: Duration,
    #[command(flatten)]
    election: Terms,
    /// What the server leaves out of what it makes of requests, as kube-apiserver's flag: without
    /// the controllers nobody makes the accounts that `ServiceAccount` asks for.
    #[arg(long, value_name = "PLUGIN", value_enum, value_delimiter = ',')]
    disable_admission_plugins: Vec<Plugin>,
}

#[cfg(feature = "node")]
impl Serve {
    /// As `kubesim server` has it that is told no more than this.
    pub fn told(
        data_dir: PathBuf,
        listen: SocketAddrV4,
        advertise_address: Option<Ipv4Addr>,
        networks: Networks,
    ) -> Serve {
        #[derive(clap::Parser)]
        struct Server {
            #[command(flatten)]
            serve: Serve,
        }
        let Server { serve } = clap::Parser::parse_from(["server"]);
        Serve { data_dir, listen, advertise_address, networks, ..serve }
    }
}

// As kube-scheduler's and kube-controller-manager's flags. Servers on one store in etcd elect whose
// scheduler works, and whose controllers do.
#[derive(clap::Args)]
struct Terms {
    /// How long others wait after the last renewal of a lease, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "15")]
    leader_elect_lease_duration: Duration,
    /// How long one that leads tries to renew its lease before it stops, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    leader_elect_renew_deadline: Duration,
    /// How often it is tried to get or to renew a lease, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    leader_elect_retry_period: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Plugin {
    #[value(name = "ServiceAccount")]
    ServiceAccount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Scheduler,
    Controllers,
}

/// `50`, or as Go writes it, `50s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse();
    number.map(Duration::from_secs).map_err(|_| "it is a number of seconds, as 50".to_owned())
}

fn life(text: &str) -> Result<Duration, String> {
    let life = seconds(text)?;
    let short = || "a certificate is good for 6 seconds at least".to_owned();
    Some(life).filter(|life| life.as_secs() >= 6).ok_or_else(short)
}

fn store(text: &str) -> Result<Store, String> {
    let Some(endpoints) = text.strip_prefix("etcd://") else {
        return match text {
            "embedded" => Ok(Store::Embedded),
            "memory" => Ok(Store::Memory),
            _ => Err(
                "it is `embedded`, `memory`, or `etcd://HOST:PORT` and more of them with commas"
                    .to_owned(),
            ),
        };
    };
    let endpoints = endpoints.split(',').map(|endpoint| format!("http://{endpoint}"));
    Ok(Store::Etcd(endpoints.collect()))
}

/// Versions that watches and lists may come back to.
const HISTORY: usize = 10_000;
/// In the data directory.
const KUBECONFIG: &str = "admin.conf";

/// What is wrong, for the exit status and for people.
type Failed = (Exit, String);

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match &args.action {
        Some(Action::Backup(args)) => backup::backup(args, output),
        Some(Action::Restore(args)) => backup::restore(args, output),
        None => serve(&args.serve, output),
    }
}

fn serve(args: &Serve, output: &mut Output) -> Exit {
    match run(args, output) {
        Ok(()) => Exit::Held,
        Err((exit, why)) => {
            output.complain(&format!("error: {why}"));
            exit
        }
    }
}

fn run(args: &Serve, output: &mut Output) -> Result<(), Failed> {
    let ip = *args.listen.ip();
    // From the machine itself, the address of all its interfaces is loopback's.
    let (reached, outward) = if ip == Ipv4Addr::UNSPECIFIED {
        (Ipv4Addr::LOCALHOST, outward())
    } else {
        (ip, Some(ip).filter(|ip| !ip.is_loopback()))
    };
    let server = Prepared::new(args, Place { reached, outward, networks: Vec::new() })?;
    let kubeconfig = server.kubeconfig();
    let data_dir = args.data_dir.display().to_string();
    host::block_on(async {
        let ending = Ending::by_signals().map_err(|why| (Exit::Environment, why))?;
        let service = Service::begin(server.board());
        let ready = |served: &Served| {
            service.ready(&format!("the API is at {}", served.url()));
            output.begin("where the server is");
            output.line(&format!("the API is at {}, its data in {data_dir}", served.url()));
            output.line(&format!("the administrator's kubeconfig: {}", kubeconfig.display()));
            if let Some((at, token)) = &served.joined {
                output.line(&invitation(*at, token));
            }
            let words = quoted(&kubeconfig.display().to_string());
            output.line(&format!("try: kubectl --kubeconfig {words} get namespaces"));
            output.flush();
        };
        server.serve(ending, ready).await
    })
}

/// How another machine joins the cluster whose server is there.
pub(crate) fn invitation(at: SocketAddrV4, token: &Token) -> String {
    format!("another machine joins by: kubesim node --server https://{at} --token {token}")
}

/// Where a server is.
pub(crate) struct Place {
    /// By its own clients, which are on its machine.
    pub reached: Ipv4Addr,
    /// By other machines, if it is.
    pub outward: Option<Ipv4Addr>,
    /// The networks of its machine, by name: those of pods and Services must not overlap them.
    pub networks: Vec<(String, Ipv4Net)>,
}

/// A server that can serve.
pub(crate) struct Prepared {
    pub pki: Rc<Pki>,
    config: Config,
    data_dir: PathBuf,
    store: Store,
    networks: Networks,
    door: host::Door,
    plan: clients::Plan,
}

impl Prepared {
    /// With what it keeps. `at` says where the server is.
    pub fn new(args: &Serve, at: Place) -> Result<Prepared, Failed> {
        let environment = |why| (Exit::Environment, why);
        let networks = args.networks;
        let config = Config {
            pod_network: networks.pods,
            service_network: networks.services,
            node_ports: (30000, 32767),
            node_networks: at.networks,
            refuse_overlap: true,
            shared: matches!(args.store, Store::Etcd(_)),
            service_accounts: !args.disable_admission_plugins.contains(&Plugin::ServiceAccount),
            volumes: !args.without.contains(&Part::Controllers),
            history: HISTORY,
            memo: true,
        };
        let first = Ipv4Addr::from(u32::from(networks.services.network()) + 1);
        data::open(&args.data_dir).map_err(environment)?;
        let keys = args.pki_dir.clone().unwrap_or_else(|| args.data_dir.join("pki"));
        let places: Vec<Ipv4Addr> = [at.reached, first].into_iter().chain(at.outward).collect();
        let pki = Pki::open(&keys, &places, args.certificate_life).map_err(environment)?;
        let pki = Rc::new(pki);
        let (certificate, key) = pki.server().map_err(environment)?;
        let tls = Tls::new(certificate.as_bytes(), key.as_bytes(), pki.authority.as_bytes());
        let tls = tls.map_err(environment)?;
        let mut plan = plan(args, at.reached, &pki).map_err(environment)?;
        plan.election = election(args).map_err(|why| (Exit::Input, why))?;
        let renewal = Renewal {
            pki: Rc::clone(&pki),
            tls: tls.clone(),
            clients: plan.identities(),
            kubeconfig: args.data_dir.join(KUBECONFIG),
        };
        let door = host::Door {
            listen: args.listen,
            outward: at.outward,
            tls,
            token_key: pki.token_key.clone(),
            keys,
            renewal,
            delay: args.shutdown_delay_duration,
        };
        let (data_dir, store) = (args.data_dir.clone(), args.store.clone());
        Ok(Prepared { pki, config, data_dir, store, networks, door, plan })
    }

    /// Of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join(KUBECONFIG)
    }

    /// Has this client's certificate renewed with the others.
    #[cfg(feature = "node")]
    pub fn renew(&mut self, who: Who, credentials: Credentials) {
        self.door.renewal.clients.push((who, credentials));
    }

    /// By which its actors say how they are, and others of the process.
    pub fn board(&self) -> Board {
        self.plan.board.clone()
    }

    /// Until it is told to end; `ready` is told where it serves.
    pub async fn serve(self, ending: Ending, ready: impl FnOnce(&Served)) -> Result<(), Failed> {
        let kubeconfig = self.kubeconfig();
        let Prepared { pki, config, data_dir, store, networks, door, plan } = self;
        let ready = |served: Served| {
            networks.write(&data_dir)?;
            pki.admin(&kubeconfig, &served.url())?;
            ready(&served);
            Ok(())
        };
        host::serve(config, (&data_dir, &store), door, &plan, (ending, ready)).await
    }
}

/// One store is one server's, or in etcd that of several.
fn election(args: &Serve) -> Result<Option<Election>, String> {
    let election = Election {
        duration: args.election.leader_elect_lease_duration,
        deadline: args.election.leader_elect_renew_deadline,
        retry: args.election.leader_elect_retry_period,
        identity: lead::identity(seed()),
    };
    election.check()?;
    Ok(matches!(args.store, Store::Etcd(_)).then_some(election))
}

/// Periods are upstream's, and so is the scheduler's name.
fn plan(args: &Serve, server: Ipv4Addr, pki: &Pki) -> Result<clients::Plan, String> {
    let with = |part| !args.without.contains(&part);
    let address = Address::of(args.advertise_address, *args.listen.ip());
    let credentials = clients::SERVER.credentials(pki)?;
    let advertised = Advertised { address, credentials };
    let mut plan = clients::Plan {
        board: Board::default(),
        server,
        election: None,
        scheduler: None,
        manager: None,
        advertised,
    };
    if with(Part::Scheduler) {
        let name = "default-scheduler".to_owned();
        let config =
            scheduler::Config { name, events: Some(lead::hostname().into()), volumes: true };
        plan.scheduler = Some((config, clients::SCHEDULER.credentials(pki)?));
    }
    if with(Part::Controllers) {
        let config = controllers::Config {
            pod_network: args.networks.pods,
            node_mask: args.networks.share(),
            node_grace: args.node_monitor_grace_period,
            node_monitor: Duration::from_secs(5),
            root_ca: Some(pki.authority.as_str().into()),
            collects: controllers::collectable(),
            events: true,
            endpoints: true,
            autoscales: true,
            volumes: true,
        };
        plan.manager = Some(clients::Manager::new(config, pki, args.cluster_signing_duration)?);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of a test's own, removed in the end.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Folder {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("kubesim-data-{}-{number}", std::process::id());
            let place = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&place).expect("a directory");
            Folder(place)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
