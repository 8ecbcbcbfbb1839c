//! What each component of a lab that joined may do: what it does, and little more. Asked as
//! whomever its certificate says (`src/lab/identity.rs`), of the server that it asks.

use crate::world::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A user and a group, as options of `kubectl`.
struct Who(&'static str, &'static str);

const PROXY: Who = Who("system:kube-proxy", "");
const NETD: Who = Who("system:kubesim-netd:n2", "system:kubesim-netd");
const DNS: Who = Who("system:kubesim-dns", "");
const SCHEDULER: Who = Who("system:kube-scheduler", "");
const CONTROLLERS: Who = Who("system:kubesim-controllers", "");
const KUBELET: Who = Who("system:node:n2", "system:nodes");

impl Who {
    fn options(&self) -> String {
        match self.1 {
            "" => format!("--as {}", self.0),
            group => format!("--as {} --as-group {group}", self.0),
        }
    }

    /// It may not.
    fn is_refused(&self, server: &Server, words: &str, input: &str) {
        let words = format!("{words} {}", self.options());
        let out = server.run(&words.split_whitespace().collect::<Vec<_>>(), input);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "kubectl {words} succeeds");
        assert!(said.contains("is forbidden"), "kubectl {words}: {said}");
    }

    fn may(&self, server: &Server, words: &str, input: &str) -> String {
        server.with(&format!("{words} {}", self.options()), input)
    }

    /// By RBAC, in every namespace: a verb and a resource, and whose name if it is not anybody's.
    /// What all who are known may do is left out.
    fn rights(&self, server: &Server) -> BTreeSet<String> {
        let review = json!({"apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let answer = self.may(server, &format!("create --raw {path} -f -"), &review.to_string());
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        let mut rights = BTreeSet::new();
        for rule in answer["status"]["resourceRules"].as_array().into_iter().flatten() {
            let groups = texts(&rule["apiGroups"]);
            let of_all = ["authentication.k8s.io", "authorization.k8s.io"];
            if groups.iter().all(|group| of_all.contains(&group.as_str())) {
                continue;
            }
            for resource in texts(&rule["resources"]) {
                let names = texts(&rule["resourceNames"]);
                let whose = if names.is_empty() { String::new() } else { format!("/{names:?}") };
                for verb in texts(&rule["verbs"]) {
                    rights.insert(format!("{verb} {resource}{whose}"));
                }
            }
        }
        rights
    }
}

/// Requests that the server refused so far: a line of its metrics each.
fn refused(server: &Server) -> Vec<String> {
    let metrics = server.kubectl("get --raw /metrics");
    let lines = metrics.lines().filter(|line| line.contains("code=\"403\""));
    lines.map(str::to_owned).collect()
}

/// After a day: nobody asked for what it may not, and nobody may what it does not ask for.
pub fn of_each(server: &Server) {
    assert_eq!(refused(server), Vec::<String>::new(), "a component asks for what it may not");
    listed(server);
    on_nodes(server);
    in_the_plane(server);
    assert!(!refused(server).is_empty(), "what is refused is counted");
}

fn expected(lines: &[&str]) -> BTreeSet<String> {
    let pairs = lines.iter().flat_map(|line| {
        let (verbs, resources) = line.split_once(' ').expect("verbs and resources");
        let of = |resource| verbs.split(',').map(move |verb| format!("{verb} {resource}"));
        resources.split(',').flat_map(of)
    });
    pairs.collect()
}

fn listed(server: &Server) {
    // Whose store it is.
    let store = "get namespaces/[\"kube-system\"]";
    let proxy = [
        "list,watch endpoints,services,endpointslices,servicecidrs",
        "get,list,watch nodes",
        "create,patch,update events",
        store,
    ];
    assert_eq!(PROXY.rights(server), expected(&proxy));
    let netd = [
        "list,watch nodes",
        "create,get,list,update,watch subnets",
        "update subnets/status",
        store,
    ];
    assert_eq!(NETD.rights(server), expected(&netd));
    assert_eq!(DNS.rights(server), expected(&["list,watch services,endpointslices", store]));
    // Much, but nobody's secrets, and no rights.
    for who in [SCHEDULER, CONTROLLERS] {
        let rights = who.rights(server);
        assert!(rights.len() > 20, "{}: {rights:?}", who.0);
        let too_much = ["secrets", "role", "serviceaccounts/token", "*", "impersonate", "escalate"];
        for word in too_much {
            let found = rights.iter().find(|right| right.contains(word));
            assert_eq!(found, None, "{} may too much", who.0);
        }
    }
}

/// A Secret and a pod on each of two nodes that has it to pull its image with.
fn secrets(server: &Server) {
    for node in ["n1", "n2"] {
        let name = format!("of-{node}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        let container = json!({"name": "web", "image": "web:1"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "imagePullSecrets": [{"name": name}],
                     "containers": [container]}});
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [secret, pod]});
        server.with("create -f -", &both.to_string());
    }
    server.kubectl("wait --for=condition=Ready pod/of-n1 pod/of-n2 --timeout=60s");
}

fn on_nodes(server: &Server) {
    secrets(server);
    // A kubelet: of its own pods all, of others' nothing.
    assert_eq!(KUBELET.may(server, "get secret of-n2 -o name", ""), "secret/of-n2\n");
    KUBELET.is_refused(server, "get secret of-n1", "");
    KUBELET.is_refused(server, "get secrets", "");
    KUBELET.may(server, "annotate node n2 tried=yes", "");
    KUBELET.is_refused(server, "annotate node n1 tried=yes", "");
    KUBELET.is_refused(server, "taint node n2 tried=yes:NoSchedule", "");
    KUBELET.is_refused(server, "delete node n2", "");
    KUBELET.is_refused(server, "delete pod of-n1 --grace-period=0 --force", "");
    // The proxy: it looks on.
    assert!(PROXY.may(server, "get nodes -o name", "").contains("node/n2"));
    PROXY.is_refused(server, "annotate node n2 tried=yes", "");
    PROXY.is_refused(server, "get secrets", "");
    PROXY.is_refused(server, "get pods", "");
    PROXY.is_refused(server, "delete service kubernetes", "");
    // netd: its own Subnet.
    for (node, own) in [("n2", true), ("n1", false)] {
        let lease = server.kubectl(&format!("get subnets.net.kubesim.dev {node} -o json"));
        match own {
            true => _ = NETD.may(server, "replace -f -", &lease),
            false => NETD.is_refused(server, "replace -f -", &lease),
        }
    }
    NETD.is_refused(server, "get secrets", "");
    NETD.is_refused(server, "get pods", "");
    NETD.is_refused(server, "annotate node n2 tried=yes", "");
    NETD.is_refused(server, "delete subnets.net.kubesim.dev n2", "");
    // DNS: names and where they lead.
    assert!(DNS.may(server, "get services -o name", "").contains("service/kubernetes"));
    DNS.is_refused(server, "get secrets", "");
    DNS.is_refused(server, "get pods", "");
    DNS.is_refused(server, "get nodes", "");
    server.kubectl("delete pod of-n1 of-n2 --timeout=60s");
    server.kubectl("delete secret of-n1 of-n2");
    server.kubectl("annotate node n2 tried-");
}

fn in_the_plane(server: &Server) {
    for who in [SCHEDULER, CONTROLLERS] {
        who.may(server, "get pods -o name", "");
        who.is_refused(server, "get secrets -A", "");
        who.is_refused(server, "create clusterrolebinding b --clusterrole=view --user=x", "");
        who.is_refused(server, "create token default", "");
    }
    SCHEDULER.is_refused(server, "delete node n2", "");
    SCHEDULER.is_refused(server, "annotate node n2 tried=yes", "");
    SCHEDULER.is_refused(server, "create deployment d --image=web:1", "");
}
