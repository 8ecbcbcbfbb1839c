//! A node without a machine: what its kubelet says over the API, as `system:node:NAME` and with no
//! more rights, while nothing is run (the idea is kwok's).

use crate::https::{Ask, Connection, identity};
use crate::world::{Place, Server};
use kubesim_actors::objects::micro_time;
use kubesim_runtime::Wall;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, SystemTime};

const MERGE: &str = "application/merge-patch+json";

/// Until it is dropped.
pub struct Node {
    over: Arc<AtomicBool>,
    kubelet: Option<JoinHandle<()>>,
}

impl Node {
    /// Of this server; registered when this returns.
    pub fn start(place: &Place, server: &Server, name: &str) -> Node {
        let kubeconfig = fs::read_to_string(place.0.join("data/admin.conf")).expect("a kubeconfig");
        let as_whom =
            format!("Impersonate-User: system:node:{name}\r\nImpersonate-Group: system:nodes\r\n");
        let mut kubelet = Kubelet {
            name: name.to_owned(),
            at: server.at(),
            tls: identity(&kubeconfig),
            as_whom,
            line: None,
            addresses: 9,
        };
        kubelet.register();
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let kubelet = std::thread::spawn(move || kubelet.run(&told));
        Node { over, kubelet: Some(kubelet) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.kubelet.take().map(JoinHandle::join);
        // One that failed has said so.
        drop(ended);
    }
}

struct Kubelet {
    name: String,
    at: SocketAddr,
    tls: Arc<ClientConfig>,
    as_whom: String,
    line: Option<Connection>,
    /// The last one that a pod got, of its node's share.
    addresses: u32,
}

fn now() -> Value {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    serde_json::to_value(micro_time(Wall::from_unix_nanos(0) + unix)).expect("a time")
}

/// To the second, as metav1.Time has it.
fn second() -> String {
    let now = now();
    let text = now.as_str().expect("a text");
    format!("{}Z", text.split('.').next().expect("a second").trim_end_matches('Z'))
}

impl Kubelet {
    /// The code and the answer; no answer is an end, as when the server ends.
    fn ask(&mut self, words: &str, content_type: &str, body: &Value) -> Option<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut line = match self.line.take() {
            Some(line) => line,
            None => Connection::open(self.at, &self.tls, Duration::from_secs(10)).ok()?,
        };
        let ask = Ask { words, content_type, body: &body, head: &self.as_whom };
        let answer = line.ask(ask).ok()?;
        self.line = Some(line);
        Some(answer)
    }

    fn register(&mut self) {
        let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        let name = self.name.clone();
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"capacity": room, "allocatable": room,
                "addresses": [{"type": "InternalIP", "address": "192.168.1.4"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                                "lastHeartbeatTime": second(), "lastTransitionTime": second()}],
                "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "None", "kernelVersion": "6",
                    "containerRuntimeVersion": "none://1", "architecture": "amd64",
                    "operatingSystem": "linux", "bootID": "b", "machineID": "m",
                    "systemUUID": "s", "kubeProxyVersion": ""}},
        });
        let made = self.ask("POST /api/v1/nodes", "", &node);
        assert!(made.as_ref().is_some_and(|(code, _)| *code == 201), "{made:?}");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()},
        });
        let path = "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let made = self.ask(path, "", &lease);
        assert!(made.as_ref().is_some_and(|(code, _)| *code == 201), "{made:?}");
    }

    fn run(mut self, over: &AtomicBool) {
        let pods = format!("GET /api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.name);
        let lease = format!(
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}",
            self.name
        );
        let mut turns = 0_u32;
        while !over.load(Ordering::Relaxed) {
            if turns.is_multiple_of(50) {
                self.ask(&lease, MERGE, &json!({"spec": {"renewTime": now()}}));
            }
            turns += 1;
            let listed = self.ask(&pods, "", &Value::Null);
            let listed = listed.map(|(_, list)| list).unwrap_or_default();
            for pod in listed["items"].as_array().into_iter().flatten() {
                self.tend(pod);
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// One that is bound is ready; one that is to go is gone.
    fn tend(&mut self, pod: &Value) {
        let meta = &pod["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{}", text("namespace"), text("name"));
        if meta["deletionTimestamp"].is_string() {
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                                 "gracePeriodSeconds": 0});
            self.ask(&format!("DELETE {path}"), "", &options);
        } else if pod["status"]["phase"] != "Running" {
            let status = self.running(&pod["spec"]["containers"]);
            self.ask(&format!("PATCH {path}/status"), MERGE, &json!({ "status": status }));
        }
    }

    fn running(&mut self, containers: &Value) -> Value {
        self.addresses += 1;
        let (ip, now) = (format!("10.244.0.{}", self.addresses), second());
        let condition =
            |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": now});
        let conditions: Vec<Value> =
            ["Initialized", "Ready", "ContainersReady"].map(condition).to_vec();
        let containers = containers.as_array().into_iter().flatten().map(|container| {
            json!({"name": container["name"], "image": container["image"], "imageID": "",
                   "ready": true, "started": true, "restartCount": 0,
                   "state": {"running": {"startedAt": now}}})
        });
        json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.168.1.4",
               "startTime": now, "conditions": conditions,
               "containerStatuses": containers.collect::<Vec<_>>()})
    }
}
