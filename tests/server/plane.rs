//! The whole control plane: what the scheduler and the controllers make of what a person asks for.
//! There are no nodes: the test is their kubelet.

use super::{ANY, WEB};
use crate::world::{Place, Server, clients};
use kubesim_actors::objects::micro_time;
use kubesim_runtime::Wall;
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

pub(super) fn each(more: &[&str], story: impl Fn(&Server)) {
    for client in clients() {
        println!("with {}", client.display());
        let place = Place::new();
        let server = Server::start_with(&place, ANY, &client, more);
        story(&server);
        assert_eq!(server.end(), Some(0), "SIGTERM ends it cleanly");
    }
}

/// Looks until it is so, for a minute.
#[track_caller]
pub(super) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < end, "{what}: not within 60 s");
        sleep(Duration::from_millis(100));
    }
}

pub(super) fn get(server: &Server, what: &str) -> Vec<Value> {
    let list = server.kubectl(&format!("get {what} -o json"));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list["items"].as_array().cloned().unwrap_or_default()
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn now() -> Value {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    serde_json::to_value(micro_time(Wall::from_unix_nanos(0) + unix)).expect("a time")
}

fn renew(server: &Server, node: &str) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now()},
    });
    server.with("apply -f -", &lease.to_string());
}

pub(super) fn join(server: &Server, node: &str) {
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": node},
        "status": {"capacity": room, "allocatable": room,
                   "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
    });
    server.with("create -f -", &object.to_string());
    renew(server, node);
}

pub(super) fn patch_status(server: &Server, pod: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    let words = ["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch];
    // It may be gone meanwhile.
    let _ = server.run(&words, "");
}

/// What a kubelet does: pods that are bound become ready, those that are to go are gone.
pub(super) fn kubelet(server: &Server) {
    for (at, pod) in get(server, "pods").iter().enumerate() {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let words = ["delete", "pod", name(pod), "--grace-period=0", "--force", "--wait=false"];
            let _ = server.run(&words, "");
        } else if pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] != "Running" {
            let ready = json!([{"type": "Ready", "status": "True"}]);
            let ip = format!("10.244.0.{}", 10 + at);
            let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                                "conditions": ready});
            patch_status(server, name(pod), &status);
        }
    }
}

/// Until the Deployment has all its pods of this image, and no others.
#[track_caller]
fn rolls_out(server: &Server, image: &str) {
    until(image, || {
        kubelet(server);
        let pods = get(server, "pods");
        let done = pods.iter().filter(|pod| {
            pod["spec"]["containers"][0]["image"] == image && pod["status"]["phase"] == "Running"
        });
        done.count() == 2 && pods.len() == 2
    });
    let told = server.kubectl("rollout status deploy/web --timeout=20s");
    assert!(told.ends_with("deployment \"web\" successfully rolled out\n"), "{told}");
}

#[test]
fn a_deployment_becomes_pods_on_nodes_and_goes_on_and_back() {
    each(&[], |server| {
        server.with("create -f -", WEB);
        until("two pods", || get(server, "pods").len() == 2);
        let sets = get(server, "rs");
        assert_eq!(
            (sets.len(), sets[0]["metadata"]["ownerReferences"][0]["name"].as_str()),
            (1, Some("web"))
        );
        // There is no node yet, and the pods say so.
        until("a reason", || {
            let pods = get(server, "pods");
            let mut conditions = pods.iter().map(|pod| &pod["status"]["conditions"][0]);
            conditions.all(|one| one["reason"] == "Unschedulable")
        });
        assert!(server.kubectl("get pods").contains("Pending"));
        join(server, "n1");
        until("a share of the pod network", || {
            server.kubectl("get node n1 -o jsonpath={.spec.podCIDR}") == "10.244.0.0/24"
        });
        until("pods on the node", || {
            let pods = get(server, "pods");
            pods.iter().all(|pod| pod["spec"]["nodeName"] == "n1")
        });
        rolls_out(server, "nginx:1.25");
        until("endpoints", || {
            let slices = get(server, "endpointslices -l kubernetes.io/service-name=web");
            let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array());
            endpoints.flatten().filter(|one| one["conditions"]["ready"] == true).count() == 2
        });
        server.kubectl("set image deploy/web nginx=nginx:1.26");
        rolls_out(server, "nginx:1.26");
        let revisions = |server: &Server| {
            let told = server.kubectl("rollout history deploy/web");
            let lines = told.lines().filter_map(|line| line.split_whitespace().next());
            lines.filter_map(|word| word.parse::<u32>().ok()).collect::<Vec<_>>()
        };
        assert_eq!(revisions(server), [1, 2]);
        server.kubectl("rollout undo deploy/web");
        rolls_out(server, "nginx:1.25");
        assert_eq!(revisions(server), [2, 3]);
    });
}

#[test]
fn what_is_owned_goes_as_it_is_asked() {
    each(&[], |server| {
        join(server, "n1");
        for cascade in ["background", "foreground"] {
            server.with("create -f -", WEB);
            rolls_out(server, "nginx:1.25");
            server.kubectl(&format!("delete deploy web --cascade={cascade} --wait=false"));
            if cascade == "foreground" {
                // Its pods are bound: until a kubelet has ended them, the Deployment waits.
                until("pods that go", || {
                    let pods = get(server, "pods");
                    pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string())
                });
                assert_eq!(server.kubectl("get deploy,rs -o name").lines().count(), 2);
            }
            until("nothing is left", || {
                kubelet(server);
                server.kubectl("get deploy,rs,pods -o name").is_empty()
            });
            server.kubectl("delete service web");
        }
        server.with("create -f -", WEB);
        rolls_out(server, "nginx:1.25");
        let deleted = server.kubectl("delete deploy web --cascade=orphan");
        assert_eq!(deleted, "deployment.apps \"web\" deleted\n");
        until("an orphan", || {
            let sets = get(server, "rs");
            sets.len() == 1 && sets[0]["metadata"]["ownerReferences"].is_null()
        });
        let set = server.kubectl("get rs -o name");
        server.kubectl(&format!("delete {} --cascade=orphan", set.trim()));
        assert_eq!(server.kubectl("get deploy,rs -o name"), "");
        let pods = get(server, "pods");
        until("pods without an owner", || {
            get(server, "pods").iter().all(|pod| pod["metadata"]["ownerReferences"].is_null())
        });
        assert_eq!(pods.len(), 2);
    });
}

#[test]
fn a_node_that_falls_silent_is_tainted() {
    let taints = |server: &Server, node: &str| {
        let taints = format!("get node {node} -o jsonpath={{.spec.taints[*].effect}}");
        let mut taints: Vec<String> =
            server.kubectl(&taints).split_whitespace().map(str::to_owned).collect();
        taints.sort();
        taints
    };
    each(&["--node-monitor-grace-period", "6s"], |server| {
        join(server, "n1");
        join(server, "n2");
        until("n1 is out of reach", || {
            renew(server, "n2");
            taints(server, "n1") == ["NoExecute", "NoSchedule"]
        });
        let ready = "get node n1 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        assert_eq!(server.kubectl(ready), "Unknown");
        assert_eq!(taints(server, "n2"), Vec::<String>::new());
    });
}

#[test]
fn a_namespace_has_its_account_and_its_authority() {
    each(&[], |server| {
        server.kubectl("create namespace team");
        until("an account", || {
            server.kubectl("get serviceaccounts -n team -o name") == "serviceaccount/default\n"
        });
        until("an authority", || {
            let map = server.run(&["get", "cm", "kube-root-ca.crt", "-n", "team"], "");
            map.status.success()
        });
        let text = server.kubectl("get cm kube-root-ca.crt -n team -o jsonpath={.data.ca\\.crt}");
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----"), "{text}");
        server.kubectl("delete namespace team --timeout=20s");
        assert!(server.fails("get namespace team").contains("not found"));
    });
}

/// That they may do what they do, the tests above show.
#[test]
fn the_controllers_may_do_nothing_else() {
    each(&[], |server| {
        let can = |what: &str| {
            let user = "--as system:kubesim-controllers";
            let words = format!("auth can-i {what} {user}");
            let out = server.run(&words.split_whitespace().collect::<Vec<_>>(), "");
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        };
        for what in ["create pods", "update nodes --subresource status", "delete endpointslices"] {
            assert_eq!(can(what), "yes", "{what}");
        }
        for what in [
            "get secrets -n kube-system",
            "list secrets -A",
            "create clusterrolebindings",
            "create serviceaccounts/default --subresource token",
            "impersonate users",
            "delete namespaces",
        ] {
            assert_eq!(can(what), "no", "{what}");
        }
    });
}
