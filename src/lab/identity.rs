//! Who each component is to the API: its certificate says so, and roles say what it may.
//!
//! Kubelets are upstream's nodes, the proxy and the scheduler have upstream's users and roles;
//! netd, the names of Services and the controllers have roles of their own
//! (`backends/src/http/auth/policy.txt`).

use crate::pki::{ADMIN, MASTERS, Pki};
use kubesim_backends::http::client::Credentials;
use kubesim_sim::world::{Cell, Kind, World};
use std::collections::BTreeMap;

/// What a profile's component may, as the manifest of the tool that it stands for would say: it is
/// in no cluster of ours.
pub const PROFILES: &str = "
role kubesim:profile:flannel
 list,watch core nodes
 create,delete,get,list,update,watch net.kubesim.dev subnets
 update net.kubesim.dev subnets/status
bind kubesim:profile:flannel user:kubesim:profile:flannel
bind kubesim:profile:flannel:store>system:kubesim-store user:kubesim:profile:flannel
";

/// A component as a client.
#[derive(Clone)]
pub struct Known {
    /// For remarks: `netd@laptop`.
    pub who: String,
    pub credentials: Credentials,
}

/// A certificate's subject, and what its bearer calls itself.
struct Identity {
    user: String,
    groups: &'static [&'static str],
    agent: &'static str,
}

/// `None`: the API server is no client.
fn of(kind: Kind, node: &str) -> Option<Identity> {
    let (user, agent) = match kind {
        Kind::ApiServer => return None,
        Kind::Controllers => ("system:kubesim-controllers", "kubesim-controllers"),
        Kind::Scheduler => ("system:kube-scheduler", "kube-scheduler"),
        Kind::Kubelet => {
            let user = format!("system:node:{node}");
            return Some(Identity { user, groups: &["system:nodes"], agent: "kubelet" });
        }
        Kind::Netd => ("system:kubesim-netd", "kubesim-netd"),
        Kind::Flannel => ("kubesim:profile:flannel", "flannel"),
        Kind::Proxy => ("system:kube-proxy", "kube-proxy"),
        Kind::Dns | Kind::KubeDns => ("system:kubesim-dns", "kubesim-dns"),
    };
    Some(Identity { user: user.to_owned(), groups: &[], agent })
}

/// Those of a node's components that are clients.
pub fn clients(
    pki: &Pki,
    world: &World,
    machine: u32,
    cells: &[Cell],
) -> Result<BTreeMap<Kind, Known>, String> {
    let node = &world.machines[machine as usize].name;
    let known = |cell: &Cell| {
        let identity = of(cell.kind, node)?;
        let made = made(pki, &identity);
        Some(made.map(|credentials| (cell.kind, Known { who: world.who(*cell), credentials })))
    };
    cells.iter().filter_map(known).collect()
}

fn made(pki: &Pki, Identity { user, groups, agent }: &Identity) -> Result<Credentials, String> {
    let (certificate, key) = pki.client(user, groups)?;
    Credentials::new(agent, pki.authority.as_bytes(), certificate.as_bytes(), key.as_bytes())
}

/// A person's, who may everything.
pub fn person(pki: &Pki) -> Result<Known, String> {
    let identity = Identity { user: ADMIN.to_owned(), groups: &[MASTERS], agent: "kubectl" };
    Ok(Known { who: "kubectl".to_owned(), credentials: made(pki, &identity)? })
}
