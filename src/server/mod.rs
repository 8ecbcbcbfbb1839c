//! `kubesim server`: a cluster's control plane, for any client of Kubernetes'.
//!
//! - `host`: the API server, its store and its front
//! - `clients`: the scheduler and the controllers
//! - `signer`: the certificates that are asked for
//! - `aggregate`: roles that others are part of
//! - `lead`: which server's of them work
//! - `renew`: their certificates, before they end
//! - `tokens`: the keys of tokens, when their file changes
//! - `data`, `backup`: what it keeps, and a copy of that

mod aggregate;
mod backup;
mod clients;
mod data;
mod host;
mod lead;
mod renew;
mod signer;
mod tokens;

use self::host::Place;
use self::lead::Election;
use self::renew::Renewal;
use crate::networks::Networks;
use crate::pki::Pki;
use crate::seed::seed;
use crate::{Exit, Output};
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::Config;
use kubesim_actors::{controllers, scheduler};
use kubesim_backends::http::Tls;
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
struct Serve {
    /// Where the server keeps its keys, the administrator's kubeconfig and the embedded store.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubesim")]
    data_dir: PathBuf,
    /// Where objects are kept: in the data directory, in memory (they end with the server), or in
    /// etcd at these endpoints, as etcd://10.0.0.1:2379,10.0.0.2:2379.
    #[arg(long, value_name = "embedded|memory|etcd://…", value_parser = place, default_value = "embedded")]
    store: Place,
    /// Where the cluster's authority and the key of its tokens are kept, instead of `pki` in the
    /// data directory: servers that have one store must share them.
    #[arg(long, value_name = "DIR")]
    pki_dir: Option<PathBuf>,
    /// Where clients are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    listen: SocketAddrV4,
    /// What pods' addresses are of.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pod_network: Ipv4Net,
    /// What Services' addresses are of.
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    service_network: Ipv4Net,
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

fn place(text: &str) -> Result<Place, String> {
    let Some(endpoints) = text.strip_prefix("etcd://") else {
        return match text {
            "embedded" => Ok(Place::Embedded),
            "memory" => Ok(Place::Memory),
            _ => Err(
                "it is `embedded`, `memory`, or `etcd://HOST:PORT` and more of them with commas"
                    .to_owned(),
            ),
        };
    };
    let endpoints = endpoints.split(',').map(|endpoint| format!("http://{endpoint}"));
    Ok(Place::Etcd(endpoints.collect()))
}

/// Versions that watches and lists may come back to.
const HISTORY: usize = 10_000;

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

fn run(args: &Serve, output: &mut Output) -> Result<(), (Exit, String)> {
    let environment = |why| (Exit::Environment, why);
    let config = Config {
        pod_network: args.pod_network,
        service_network: args.service_network,
        node_ports: (30000, 32767),
        node_networks: Vec::new(),
        refuse_overlap: true,
        shared: matches!(args.store, Place::Etcd(_)),
        service_accounts: !args.disable_admission_plugins.contains(&Plugin::ServiceAccount),
        history: HISTORY,
        memo: true,
    };
    // From the machine itself, the address of all its interfaces is loopback's.
    let ip = *args.listen.ip();
    let reached = if ip == Ipv4Addr::UNSPECIFIED { Ipv4Addr::LOCALHOST } else { ip };
    let first = Ipv4Addr::from(u32::from(args.service_network.network()) + 1);
    data::open(&args.data_dir).map_err(environment)?;
    let keys = args.pki_dir.clone().unwrap_or_else(|| args.data_dir.join("pki"));
    let pki = Pki::open(&keys, &[reached, first], args.certificate_life).map_err(environment)?;
    let pki = Rc::new(pki);
    let (certificate, key) = pki.server().map_err(environment)?;
    let tls = Tls::new(certificate.as_bytes(), key.as_bytes(), pki.authority.as_bytes());
    let tls = tls.map_err(environment)?;
    let data_dir = args.data_dir.clone();
    let kubeconfig = data_dir.join("admin.conf");
    let networks = Networks { pods: args.pod_network, services: args.service_network };
    let mut ready = |url: &str| {
        networks.write(&data_dir)?;
        pki.admin(&kubeconfig, url)?;
        output.begin("where the server is");
        output.line(&format!("the API is at {url}, its data in {}", data_dir.display()));
        let words = crate::run::quoted(&kubeconfig.display().to_string());
        output.line(&format!("the administrator's kubeconfig: {}", kubeconfig.display()));
        output.line(&format!("try: kubectl --kubeconfig {words} get namespaces"));
        output.flush();
        Ok(())
    };
    let mut plan = plan(args, networks.share(), reached, &pki).map_err(environment)?;
    plan.election = election(args).map_err(|why| (Exit::Input, why))?;
    let token_key = pki.token_key.clone();
    let renewal = Renewal {
        pki: Rc::clone(&pki),
        tls: tls.clone(),
        clients: plan.identities(),
        kubeconfig: kubeconfig.clone(),
    };
    let (listen, delay) = (args.listen, args.shutdown_delay_duration);
    let door = host::Door { listen, tls, token_key, keys, renewal, delay };
    host::run(config, (&args.data_dir, &args.store), door, &plan, &mut ready)
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
    Ok(matches!(args.store, Place::Etcd(_)).then_some(election))
}

/// Periods are upstream's, and so is the scheduler's name. `share`: the prefix length of a node's
/// share of the pod network.
fn plan(args: &Serve, share: u8, server: Ipv4Addr, pki: &Pki) -> Result<clients::Plan, String> {
    let with = |part| !args.without.contains(&part);
    let mut plan = clients::Plan { server, election: None, scheduler: None, manager: None };
    if with(Part::Scheduler) {
        let name = "default-scheduler".to_owned();
        let config = scheduler::Config { name, events: Some(lead::hostname().into()) };
        plan.scheduler = Some((config, clients::SCHEDULER.credentials(pki)?));
    }
    if with(Part::Controllers) {
        let config = controllers::Config {
            pod_network: args.pod_network,
            node_mask: share,
            node_grace: args.node_monitor_grace_period,
            node_monitor: Duration::from_secs(5),
            root_ca: Some(pki.authority.as_str().into()),
            collects: controllers::collectable(),
            events: true,
            endpoints: true,
            autoscales: true,
        };
        plan.manager = Some(clients::Manager::new(config, pki)?);
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
