//! What a lab brings into a cluster that is somebody else's: it is gone when the lab is.

use super::lab::{can_run, try_nodes};
use super::{ALONE, ANY};
use crate::plane::until;
use crate::stores::memory;
use crate::world::{Place, Server};
use std::path::Path;
use std::sync::PoisonError;

/// Its Nodes and their leases, and all pods that were on them.
pub fn are_gone(server: &Server) {
    assert_eq!(server.kubectl("get nodes -o name"), "");
    // Bound to one that was gone, it waits 40 s.
    until("no pod is on a node", || {
        server.kubectl("get pods -A -o jsonpath={.items[*].spec.nodeName}").is_empty()
    });
    until("their leases are collected", || {
        let leases = server.kubectl("get leases -n kube-node-lease -o name");
        leases.is_empty() && server.kubectl("get subnets.net.kubesim.dev -o name").is_empty()
    });
}

/// Two pods, ready within 20 s and never started twice: of nodes that a run before left, they would
/// be.
const PODS: &str = r#"
[[workload]]
name = "web"
at = "1s"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mine}
data: {of: the-scenario}
"""

[[expect]]
name = "they run"
kind = "pods-ready"
count = 2
by = "20s"

[[expect]]
name = "once"
kind = "restarts"
at-most = 0
"#;

/// A run finds what the one before found, so it passes as that did; what was there before the lab
/// stays.
#[test]
fn a_run_leaves_the_cluster_to_the_next_one() {
    if !can_run() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let server = memory().serve(&place, ANY, Path::new("kubectl"), &[]);
    server.kubectl("create configmap mine --from-literal=of=somebody");
    for _ in 0..2 {
        let (code, said) = try_nodes(&place, PODS, &["--set", "duration=21s"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(server.kubectl("get deployments -o name"), "");
        are_gone(&server);
        until("no pods", || server.kubectl("get pods -o name").is_empty());
        assert_eq!(server.kubectl("get configmap mine -o name"), "configmap/mine\n");
    }
    assert_eq!(server.end(), Some(0));
}

/// What a profile's component may do, as it is in no cluster but the lab's own.
#[test]
fn a_profile_brings_its_roles() {
    if !can_run() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let server = memory().serve(&place, ANY, Path::new("kubectl"), &[]);
    let more = "
[profile.flannel]
shows = \"its nodes join, too\"
netd = \"flannel\"

[[expect]]
name = \"they are ready\"
kind = \"nodes-ready\"
by = \"15s\"
";
    let words = ["--set", "duration=15s", "--profile", "flannel"];
    let (code, said) = try_nodes(&place, more, &words);
    assert_eq!(code, Some(0), "{said}");
    are_gone(&server);
    let roles = server.kubectl("get clusterroles,clusterrolebindings -o name");
    assert!(!roles.contains("kubesim:profile:"), "{roles}");
    assert_eq!(server.end(), Some(0));
}

/// Both values are named.
#[test]
fn a_scenario_of_other_networks_is_refused() {
    if !can_run() {
        return;
    }
    let place = Place::new();
    let more = ["--pod-network=10.200.0.0/16"];
    let server = memory().serve(&place, ANY, Path::new("kubectl"), &more);
    let (code, said) = try_nodes(&place, "", &[]);
    assert_eq!(code, Some(2), "{said}");
    let why = "the server's --pod-network is 10.200.0.0/16 and the scenario's is 10.244.0.0/16";
    assert!(said.contains(why), "{said}");
    assert_eq!(server.kubectl("get nodes -o name"), "");
    assert_eq!(server.end(), Some(0));
}
