//! A cluster whose control plane runs elsewhere: the `kubesim server` whose data directory this is.
//! Its keys make the lab's components known to it; where it listens, its administrator's kubeconfig
//! says.
//!
//! It listens in this machine's own network, and the lab's nodes are in networks of their own, on a
//! modelled wire. So the machine that would be the API server's hands its connections on
//! (`node/relay.rs`): to the other nodes the API is where the scenario has it, with that machine's
//! address, cable and faults.
//!
//! - `outside`: connections to it
//! - `guest`: what the lab brings into the cluster, and takes away again

mod guest;
mod outside;

pub use guest::Guest;
pub use outside::Outside;

use super::identity;
use crate::networks::Networks;
use crate::pki::{self, LEAF, Pki};
use kubesim_sim::scenario::Scenario;
use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;

/// What the lab takes from it.
pub struct Joined {
    pub pki: Arc<Pki>,
    pub outside: Outside,
    pub guest: Guest,
}

impl Joined {
    /// The cluster of the server that has this data directory, for the nodes of this scenario. The
    /// error is for people.
    pub fn open(data_dir: &Path, scenario: &Scenario) -> Result<Joined, String> {
        let at = server(data_dir, scenario)?;
        // By its name: the addresses change.
        let pki = Arc::new(Pki::open(&data_dir.join("pki"), &[], LEAF)?);
        let guest = Guest::new(at, identity::person(&pki)?, scenario)?;
        Ok(Joined { pki, outside: Outside::new(at)?, guest })
    }
}

/// Why nobody can join what this data directory is of, in a sentence.
pub fn refusal(data_dir: &Path, scenario: &Scenario) -> Option<String> {
    server(data_dir, scenario).err()
}

/// Where the server of this data directory listens.
fn server(data_dir: &Path, scenario: &Scenario) -> Result<SocketAddrV4, String> {
    let keys = data_dir.join("pki");
    if !keys.join("ca.key").exists() {
        let place = data_dir.display();
        return Err(format!(
            "--join: {place} has no pki/ca.key, so it is no data directory of a `kubesim \
             server` that keeps its keys there"
        ));
    }
    let kubeconfig = data_dir.join("admin.conf");
    let text = fs::read_to_string(&kubeconfig)
        .map_err(|error| format!("--join: reading {}: {error}", kubeconfig.display()))?;
    let at = pki::server_of(&text).ok_or_else(|| {
        format!("--join: {} names no server by an IPv4 address", kubeconfig.display())
    })?;
    let networks = Networks::read(data_dir).map_err(|why| format!("--join: {why}"))?;
    if let Some(why) = differing(&networks, scenario) {
        return Err(format!("--join: {why}"));
    }
    Ok(at)
}

/// What of the scenario's networks is not the server's, in a sentence: its nodes would route, and
/// its proxies masquerade, what is nobody's.
fn differing(server: &Networks, scenario: &Scenario) -> Option<String> {
    let cluster = &scenario.cluster;
    let own = Networks { pods: cluster.pod_network, services: cluster.service_network };
    let both = [
        ("pod-network", server.pods, own.pods),
        ("service-network", server.services, own.services),
    ];
    for (key, theirs, ours) in both {
        if theirs != ours {
            return Some(format!(
                "the server's --{key} is {theirs} and the scenario's is {ours}: start the server \
                 with the scenario's, or play it with --set cluster.{key}={theirs}"
            ));
        }
    }
    let (theirs, ours) = (server.share(), cluster.node_mask);
    (theirs != ours).then(|| {
        format!(
            "the server gives each node a /{theirs} of its pod network and the scenario a /{ours}: \
             play it with --set cluster.node-mask={theirs}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A data directory, removed in the end.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scenario(cluster: &str) -> Scenario {
        let text = format!(
            "name = \"joins\"\nduration = \"1s\"\n[cluster]\n{cluster}\n\
             [[network]]\nname = \"lan\"\ncidr = \"192.168.1.0/24\"\n\
             [[node]]\nname = \"n1\"\nrole = \"server\"\nnetwork = \"lan\"\n\
             address = \"192.168.1.11\"\n"
        );
        let none = |pattern: &str| Err(format!("no {pattern}"));
        Scenario::parse("a.toml", &text, &none, &[], None).expect("a scenario")
    }

    fn refused(place: &Path, cluster: &str) -> String {
        Joined::open(place, &scenario(cluster)).err().expect("it is refused")
    }

    #[test]
    fn what_is_no_servers_directory_is_refused() {
        let place = std::env::temp_dir().join(format!("kubesim-join-{}", std::process::id()));
        let place = Folder(place);
        let at = &place.0;
        fs::create_dir_all(at.join("pki")).expect("a directory");
        assert!(refused(at, "").contains("no pki/ca.key"));
        let pki = Pki::open(&at.join("pki"), &[], LEAF).expect("keys");
        assert!(refused(at, "").contains("reading"));
        pki.admin(&at.join("admin.conf"), "https://localhost:1").expect("a kubeconfig");
        assert!(refused(at, "").contains("names no server"));
        pki.admin(&at.join("admin.conf"), "https://127.0.0.1:6443").expect("a kubeconfig");
        assert!(refused(at, "").contains("says nothing of its networks"));
        let [pods, services] = ["10.244.0.0/16", "10.96.0.0/12"].map(|net| net.parse().expect(net));
        Networks { pods, services }.write(at).expect("written");
        let joined = Joined::open(at, &scenario("")).expect("a server's directory");
        assert_eq!(joined.pki.authority, pki.authority);
        // What a server is told, its nodes go by.
        let why = refused(at, "service-network = \"10.97.0.0/16\"");
        assert!(why.contains("--service-network is 10.96.0.0/12"), "{why}");
        assert!(why.contains("the scenario's is 10.97.0.0/16"), "{why}");
        assert!(why.ends_with("--set cluster.service-network=10.96.0.0/12"), "{why}");
        let why = refused(at, "pod-network = \"10.245.0.0/16\"");
        assert!(why.contains("--pod-network is 10.244.0.0/16"), "{why}");
        assert!(why.contains("the scenario's is 10.245.0.0/16"), "{why}");
        let why = refused(at, "node-mask = 26");
        assert!(why.contains("a /24") && why.contains("a /26"), "{why}");
    }
}
