//! `kubesim server`: a cluster's control plane, for any client of Kubernetes'.
//!
//! - `host`: the API server, its store and its front
//! - `clients`: the scheduler and the controllers
//! - `signer`: the certificates that are asked for
//! - `lead`: which server's of them work

mod clients;
mod host;
mod lead;
mod signer;

use self::clients::Manager;
use self::host::Place;
use self::lead::Election;
use crate::pki::{self, Pki};
use crate::seed::seed;
use crate::{Exit, Output};
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::Config;
use kubesim_actors::{controllers, scheduler};
use kubesim_backends::http::Tls;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Where the server keeps its keys, the administrator's kubeconfig and the embedded store.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubesim")]
    data_dir: PathBuf,
    /// Where objects are kept: in the data directory, or in etcd at these endpoints, as
    /// etcd://10.0.0.1:2379,10.0.0.2:2379.
    #[arg(long, value_name = "embedded|etcd://…", value_parser = place, default_value = "embedded")]
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

fn place(text: &str) -> Result<Place, String> {
    let Some(endpoints) = text.strip_prefix("etcd://") else {
        let other = || "it is `embedded`, or `etcd://HOST:PORT` and more of them with commas";
        return if text == "embedded" { Ok(Place::Embedded) } else { Err(other().to_owned()) };
    };
    let endpoints = endpoints.split(',').map(|endpoint| format!("http://{endpoint}"));
    Ok(Place::Etcd(endpoints.collect()))
}

/// Versions that watches and lists may come back to.
const HISTORY: usize = 10_000;

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    match run(args, output) {
        Ok(()) => Exit::Held,
        Err((exit, why)) => {
            output.complain(&format!("error: {why}"));
            exit
        }
    }
}

fn run(args: &Args, output: &mut Output) -> Result<(), (Exit, String)> {
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
    pki::directory(&args.data_dir).map_err(environment)?;
    let keys = args.pki_dir.clone().unwrap_or_else(|| args.data_dir.join("pki"));
    let pki = Pki::open(&keys, &[reached, first]).map_err(environment)?;
    let tls = Tls::new(pki.certificate.as_bytes(), pki.key.as_bytes(), pki.authority.as_bytes());
    let tls = tls.map_err(environment)?;
    let data_dir = args.data_dir.clone();
    let mut ready = |at: SocketAddrV4| {
        let url = format!("https://{reached}:{}", at.port());
        let kubeconfig = data_dir.join("admin.conf");
        pki.admin(&kubeconfig, &url)?;
        output.begin("where the server is");
        output.line(&format!("the API is at {url}, its data in {}", data_dir.display()));
        let words = crate::run::quoted(&kubeconfig.display().to_string());
        output.line(&format!("the administrator's kubeconfig: {}", kubeconfig.display()));
        output.line(&format!("try: kubectl --kubeconfig {words} get namespaces"));
        output.flush();
        Ok(())
    };
    let mut plan = plan(args, reached, &pki).map_err(environment)?;
    plan.election = election(args).map_err(|why| (Exit::Input, why))?;
    let door = host::Door { listen: args.listen, tls, token_key: pki.token_key.clone() };
    host::run(config, (&args.data_dir, &args.store), door, &plan, &mut ready)
}

/// One store is one server's, or in etcd that of several.
fn election(args: &Args) -> Result<Option<Election>, String> {
    let election = Election {
        duration: args.election.leader_elect_lease_duration,
        deadline: args.election.leader_elect_renew_deadline,
        retry: args.election.leader_elect_retry_period,
        identity: lead::identity(seed()),
    };
    election.check()?;
    Ok(matches!(args.store, Place::Etcd(_)).then_some(election))
}

/// Periods are upstream's, and so is the scheduler's name.
fn plan(args: &Args, server: Ipv4Addr, pki: &Pki) -> Result<clients::Plan, String> {
    let with = |part| !args.without.contains(&part);
    let mut plan =
        clients::Plan { server, election: None, scheduler: None, controllers: None, signer: None };
    if with(Part::Scheduler) {
        let name = "default-scheduler".to_owned();
        let config = scheduler::Config { name, events: Some(lead::hostname().into()) };
        plan.scheduler = Some((config, clients::scheduler_credentials(pki)?));
    }
    if with(Part::Controllers) {
        let config = controllers::Config {
            pod_network: args.pod_network,
            // Wider than the network itself, a share is all of it.
            node_mask: args.pod_network.prefix_len().max(24),
            node_grace: args.node_monitor_grace_period,
            node_monitor: Duration::from_secs(5),
            root_ca: Some(pki.authority.as_str().into()),
            collects: controllers::collectable(),
            events: true,
            endpoints: true,
            autoscales: true,
        };
        let controllers = clients::controllers_credentials(pki)?;
        let collector = clients::collector_credentials(pki)?;
        plan.controllers = Some(Manager { config, controllers, collector });
        plan.signer = Some((Arc::clone(&pki.signs), clients::signer_credentials(pki)?));
    }
    Ok(plan)
}
