//! Who each component is to the API: its certificate says so, and roles say what it may.
//!
//! Kubelets are upstream's nodes, the proxy and the scheduler have upstream's users and roles; netd
//! (of each node another user), the names of Services and the controllers have roles of their own
//! (`backends/src/http/auth/policy.txt`). Garbage is collected as upstream's service account.

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

/// As whom a component asks: most of the time as the first one. Nobody is the API server, which
/// is no client.
fn of(kind: Kind, node: &str) -> Vec<Identity> {
    let one = |user: &str, agent| Identity { user: user.to_owned(), groups: &[], agent };
    vec![match kind {
        Kind::ApiServer => return Vec::new(),
        Kind::Controllers => {
            let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
            return vec![
                one("system:kubesim-controllers", "kubesim-controllers"),
                one(collector, "generic-garbage-collector"),
            ];
        }
        Kind::Scheduler => one("system:kube-scheduler", "kube-scheduler"),
        Kind::Kubelet => {
            let user = format!("system:node:{node}");
            Identity { user, groups: &["system:nodes"], agent: "kubelet" }
        }
        Kind::Netd => {
            let (user, groups) = (format!("system:kubesim-netd:{node}"), &["system:kubesim-netd"]);
            Identity { user, groups, agent: "kubesim-netd" }
        }
        Kind::Flannel => one("kubesim:profile:flannel", "flannel"),
        Kind::Proxy => one("system:kube-proxy", "kube-proxy"),
        Kind::Dns | Kind::KubeDns => one("system:kubesim-dns", "kubesim-dns"),
    }]
}

/// Those of a node's components that are clients, as whom they ask.
pub type Clients = BTreeMap<Kind, Vec<Known>>;

pub fn clients(pki: &Pki, world: &World, machine: u32, cells: &[Cell]) -> Result<Clients, String> {
    let node = &world.machines[machine as usize].name;
    let known = |cell: &Cell| {
        let known = |identity: &Identity| {
            Ok(Known { who: world.who(*cell), credentials: made(pki, identity)? })
        };
        let all: Result<Vec<Known>, String> = of(cell.kind, node).iter().map(known).collect();
        let all = all.map(|all| (cell.kind, all));
        (!matches!(&all, Ok((_, none)) if none.is_empty())).then_some(all)
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
