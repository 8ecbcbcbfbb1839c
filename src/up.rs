//! `kubesim up`: a cluster on this machine, in one process: its server, with the embedded store,
//! and a node. The node's actors are clients as any other node's are; what they are known by is
//! made by the authority, which is here, and not asked for. Others join with `kubesim node`.

use crate::ending::Ending;
use crate::networks::{Networks, outward};
use crate::node::{Failed, Hosts, Joined, Machine, Node, Servers, Settings, identities, networks};
use crate::run::quoted;
use crate::server::host::{Served, block_on};
use crate::server::{Place, Prepared, Serve, invitation};
use crate::service::Service;
use crate::{Exit, Output};
use kubesim_actors::objects::Name;
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::pin::pin;
use tokio::sync::oneshot;

#[derive(clap::Args)]
pub struct Args {
    /// Where the cluster is kept: its keys, the administrator's kubeconfig, all objects, and the
    /// node's own things.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubesim")]
    data_dir: PathBuf,
    /// Where clients and other nodes are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6443")]
    listen: SocketAddrV4,
    #[command(flatten)]
    networks: Networks,
    #[command(flatten)]
    settings: Settings,
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
    let environment = |why| (Exit::Environment, why);
    let node = Node::new(&args.settings, args.networks, &args.data_dir.join("node"))?;
    let address = args.settings.address.or_else(outward).ok_or_else(|| {
        environment(
            "this machine has no default route, so it is not known which of its addresses is the \
             node's: --address says it"
                .to_owned(),
        )
    })?;
    let machine = Machine::of(address).map_err(environment)?;
    let serve =
        Serve::told(args.data_dir.clone(), args.listen, args.settings.address, args.networks);
    let ip = *args.listen.ip();
    let at = match ip == Ipv4Addr::UNSPECIFIED {
        true => (Ipv4Addr::LOCALHOST, Some(address)),
        false => (ip, Some(ip).filter(|ip| !ip.is_loopback())),
    };
    let (reached, outward) = at;
    let networks = networks().map_err(environment)?;
    let mut server = Prepared::new(&serve, Place { reached, outward, networks })?;
    let joined = known(&node, &mut server).map_err(environment)?;
    // Peers that seek the server find it by this node, at whatever address; the node itself at the
    // machine's own, where all are listened at.
    let name = Name::from(node.name.as_str());
    let servers = if ip == Ipv4Addr::UNSPECIFIED { vec![(name, address)] } else { Vec::new() };
    block_on(live((&node, &machine, &joined), (server, servers), output))
}

/// What the node is known by, by the cluster's own authority. It is renewed as the server's is.
fn known(node: &Node<'_>, server: &mut Prepared) -> Result<Joined, String> {
    let [kubelet, network] = identities(&node.name);
    let joined = Joined {
        kubelet: kubelet.credentials(&server.pki)?,
        network: network.credentials(&server.pki)?,
    };
    server.renew(kubelet, joined.kubelet.clone());
    server.renew(network, joined.network.clone());
    Ok(joined)
}

/// Until it is told to end: the node first, so that it is not left without its server. What runs in
/// containers goes on.
async fn live(
    (node, machine, joined): (&Node<'_>, &Machine, &Joined),
    (server, servers): (Prepared, Servers),
    output: &mut Output,
) -> Result<(), Failed> {
    let environment = |why| (Exit::Environment, why);
    let mut ending = Ending::by_signals().map_err(environment)?;
    let (end, of_server) = Ending::new();
    let (tell, told) = oneshot::channel();
    let kubeconfig = server.kubeconfig();
    let board = server.board();
    let service = Service::begin(board.clone());
    let waits = &service;
    let ready = move |served: &Served| {
        waits.status(&format!("the API is at {}, and the node not ready yet", served.url()));
        output.begin("where the cluster is");
        output.line(&format!("the API is at {}", served.url()));
        output.line(&format!("the administrator's kubeconfig: {}", kubeconfig.display()));
        if let Some((at, token)) = &served.joined {
            output.line(&invitation(*at, token));
        }
        let words = quoted(&kubeconfig.display().to_string());
        output.line(&format!("try: kubectl --kubeconfig {words} get pods -A"));
        output.flush();
        // Whoever listens no more ends already.
        let (at, output) = (served.at, output);
        let _ = tell.send((at, output));
    };
    let mut server = pin!(server.serve(of_server, ready));
    let mut hosts: Option<Hosts> = None;
    let lives = async {
        let Ok((at, output)) = told.await else { return pending().await };
        let server = (at, servers);
        let hosts = hosts.insert(node.start(machine, server, &board, joined).await?);
        hosts.ready().await;
        service.ready(&format!("the API is at https://{at}, and the node {} ready", node.name));
        output.line(&format!("the node {} is ready", node.name));
        output.flush();
        pending::<Result<Infallible, String>>().await
    };
    let lived = tokio::select! {
        ended = &mut server => return ended,
        () = ending.told() => Ok(()),
        Err(why) = lives => Err(environment(why)),
    };
    if let Some(hosts) = hosts {
        hosts.stop().await;
    }
    end.now();
    let served = tokio::select! {
        served = &mut server => served,
        () = ending.told() => {
            // Asked again, it does not wait.
            end.now();
            server.await
        }
    };
    lived.and(served)
}
