//! The components of a cluster: each may what it does, and no more.

use super::world::{Answered, Ask, World, play};
use super::*;
use crate::http::auth::User;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SUBNETS: &str = "/apis/net.kubesim.dev/v1/subnets";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// `who` is a user, and may say of which group: `USER of GROUP`.
async fn ask(world: &World, who: &str, words: &str, body: &Value) -> Answered {
    let usual = || {
        let all =
            [("system:node:", "system:nodes"), ("system:kubesim-netd", "system:kubesim-netd")];
        all.into_iter().find(|(begins, _)| who.starts_with(begins)).map(|(_, group)| group)
    };
    let (name, group) = match who.split_once(" of ") {
        Some((name, group)) => (name, Some(group)),
        None => (who, usual()),
    };
    let groups = group.into_iter().map(str::to_owned).collect();
    let user = Some(User { name: name.to_owned(), groups, ..User::default() });
    let patches = words.starts_with("PATCH");
    let content_type = if patches { "application/merge-patch+json" } else { "application/json" };
    world.ask(Ask { words, body: body.to_string(), user, content_type, ..Ask::default() }).await
}

/// Two nodes, a pod on the first and one on none, a Service, a Secret.
async fn cluster(world: &World) {
    for name in ["n1", "n2"] {
        world.send("POST /api/v1/nodes", &json!({"metadata": {"name": name}})).await.ok();
    }
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = "n1".into();
    for pod in [bound, pod("waits")] {
        world.send(&format!("POST {PODS}"), &pod).await.ok();
    }
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    world.send("POST /api/v1/namespaces/default/services", &service).await.ok();
    let secret = json!({"metadata": {"name": "s"}});
    world.send("POST /api/v1/namespaces/default/secrets", &secret).await.ok();
}

fn subnet(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"node": name, "cidr": "10.244.7.0/24",
           "nodeUid": "00000000-0000-0000-0000-000000000009", "publicKey": "k"}})
}

/// What no component of a node needs.
async fn nobody(world: &World, who: &str) {
    for words in [
        "GET /api/v1/namespaces/default/secrets",
        "GET /api/v1/namespaces/default/secrets/s",
        "GET /api/v1/namespaces/kube-system/secrets?watch=1",
        "GET /api/v1/namespaces",
        "GET /api/v1/namespaces/default",
        "GET /apis/rbac.authorization.k8s.io/v1/clusterroles",
        "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "DELETE /api/v1/nodes/n1",
        "DELETE /api/v1/nodes/n2",
        "DELETE /api/v1/namespaces/default/pods/waits",
        "PATCH /api/v1/nodes/n2",
        "POST /api/v1/namespaces/default/serviceaccounts/other/token",
    ] {
        let answer = ask(world, who, words, &json!({})).await;
        assert_eq!(answer.code, 403, "{who}: {words}: {}", answer.text);
    }
}

async fn allowed(world: &World, who: &str, words: &str, body: &Value) {
    let answer = ask(world, who, words, body).await;
    assert!([200, 201].contains(&answer.code), "{who}: {words}: {}", answer.text);
}

async fn refused(world: &World, who: &str, words: &str, body: &Value) {
    let answer = ask(world, who, words, body).await;
    assert_eq!(answer.code, 403, "{who}: {words}: {}", answer.text);
}

/// Whose store the server has.
const STORE: &str = "GET /api/v1/namespaces/kube-system";

#[test]
fn a_kubelet_keeps_its_node_and_its_pods() {
    play(|world| async move {
        cluster(&world).await;
        let (who, none) = ("system:node:n1", json!({}));
        for words in [
            STORE,
            "GET /api/v1/services",
            "GET /api/v1/nodes?fieldSelector=metadata.name%3Dn1",
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
            "PATCH /api/v1/nodes/n1",
            "PATCH /api/v1/nodes/n1/status",
            "PATCH /api/v1/namespaces/default/pods/bound/status",
        ] {
            allowed(&world, who, words, &none).await;
        }
        let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
        allowed(&world, who, &format!("POST {LEASES}"), &lease("n1")).await;
        refused(&world, who, &format!("POST {LEASES}"), &lease("n2")).await;
        for words in [
            "GET /api/v1/nodes",
            "GET /api/v1/pods",
            "PATCH /api/v1/namespaces/default/pods/bound",
            "PATCH /api/v1/namespaces/default/pods/waits/status",
            "POST /api/v1/namespaces/default/pods/waits/binding",
            "GET /apis/net.kubesim.dev/v1/subnets",
        ] {
            refused(&world, who, words, &none).await;
        }
        nobody(&world, who).await;
        let now = json!({"gracePeriodSeconds": 0});
        allowed(&world, who, &format!("DELETE {PODS}/bound"), &now).await;
    });
}

#[test]
fn netd_keeps_subnets() {
    play(|world| async move {
        cluster(&world).await;
        let (who, none) = ("system:kubesim-netd:n1", json!({}));
        for words in
            [STORE, "GET /api/v1/nodes?fieldSelector=metadata.name%3Dn1", &format!("GET {SUBNETS}")]
        {
            allowed(&world, who, words, &none).await;
        }
        allowed(&world, who, &format!("POST {SUBNETS}"), &subnet("n1")).await;
        let mut held = ask(&world, who, &format!("GET {SUBNETS}/n1"), &none).await.ok();
        held["status"] = json!({"locator": "10.0.0.1", "prefixLength": 24, "generation": 1});
        allowed(&world, who, &format!("PUT {SUBNETS}/n1/status"), &held).await;
        for words in [
            "GET /api/v1/pods",
            "PATCH /api/v1/namespaces/default/pods/bound/status",
            "PATCH /api/v1/nodes/n1/status",
            "GET /api/v1/services",
            "GET /apis/coordination.k8s.io/v1/leases",
            "DELETE /apis/net.kubesim.dev/v1/subnets/n1",
        ] {
            refused(&world, who, words, &none).await;
        }
        nobody(&world, who).await;
    });
}

/// As `kubesim node` has it: netd, the proxy and DNS of a node are one user.
#[test]
fn a_nodes_network_is_netd_the_proxy_and_the_names_in_one() {
    play(|world| async move {
        cluster(&world).await;
        let (who, none) = ("system:kubesim-netd:n1 of system:kubesim-node-network", json!({}));
        for words in [STORE, "GET /api/v1/nodes", "GET /api/v1/services", &format!("GET {SLICES}")]
        {
            allowed(&world, who, words, &none).await;
        }
        allowed(&world, who, &format!("POST {SUBNETS}"), &subnet("n1")).await;
        refused(&world, who, &format!("POST {SUBNETS}"), &subnet("n2")).await;
        for words in [
            "GET /api/v1/pods",
            "GET /api/v1/namespaces/default/secrets",
            "PATCH /api/v1/nodes/n1/status",
            "GET /apis/coordination.k8s.io/v1/leases",
        ] {
            refused(&world, who, words, &none).await;
        }
    });
}

#[test]
fn netd_keeps_its_own_nodes_subnet() {
    play(|world| async move {
        cluster(&world).await;
        let (one, two) = ("system:kubesim-netd:n1", "system:kubesim-netd:n2");
        refused(&world, one, &format!("POST {SUBNETS}"), &subnet("n2")).await;
        allowed(&world, two, &format!("POST {SUBNETS}"), &subnet("n2")).await;
        let none = json!({});
        let mut held = ask(&world, one, &format!("GET {SUBNETS}/n2"), &none).await.ok();
        held["status"] = json!({"locator": "10.0.0.9", "prefixLength": 24, "generation": 1});
        for words in [format!("PUT {SUBNETS}/n2"), format!("PUT {SUBNETS}/n2/status")] {
            refused(&world, one, &words, &held).await;
        }
        allowed(&world, two, &format!("PUT {SUBNETS}/n2/status"), &held).await;
        // One that is no node's keeps none.
        refused(&world, "system:kubesim-netd", &format!("POST {SUBNETS}"), &subnet("n3")).await;
    });
}

#[test]
fn proxy_and_dns_only_read() {
    play(|world| async move {
        cluster(&world).await;
        let none = json!({});
        for who in ["system:kube-proxy", "system:kubesim-dns"] {
            for words in [STORE, "GET /api/v1/services", &format!("GET {SLICES}")] {
                allowed(&world, who, words, &none).await;
            }
            for words in [
                "GET /api/v1/pods",
                "GET /api/v1/namespaces/default/configmaps",
                "PATCH /api/v1/namespaces/default/services/web",
                "PATCH /api/v1/nodes/n1/status",
                &format!("POST {SUBNETS}"),
            ] {
                refused(&world, who, words, &none).await;
            }
            nobody(&world, who).await;
        }
        refused(&world, "system:kubesim-dns", "GET /api/v1/nodes", &none).await;
    });
}

#[test]
fn the_scheduler_binds() {
    play(|world| async move {
        cluster(&world).await;
        let (who, none) = ("system:kube-scheduler", json!({}));
        for words in [STORE, "GET /api/v1/nodes", "GET /api/v1/pods"] {
            allowed(&world, who, words, &none).await;
        }
        allowed(&world, who, &format!("PATCH {PODS}/waits/status"), &none).await;
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": "n2"});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "target": target,
                             "metadata": {"name": "waits", "namespace": "default"}});
        allowed(&world, who, &format!("POST {PODS}/waits/binding"), &binding).await;
        for words in [
            "GET /api/v1/namespaces/default/secrets/s",
            "POST /api/v1/namespaces/default/pods",
            "PATCH /api/v1/namespaces/default/pods/waits",
            "PATCH /api/v1/nodes/n1",
            "GET /apis/net.kubesim.dev/v1/subnets",
        ] {
            refused(&world, who, words, &none).await;
        }
    });
}

#[test]
fn the_controllers_read_no_secret() {
    play(|world| async move {
        cluster(&world).await;
        let (who, none) = ("system:kubesim-controllers", json!({}));
        for words in
            [STORE, "GET /api/v1/pods", "PATCH /api/v1/nodes/n1", &format!("GET {SUBNETS}")]
        {
            allowed(&world, who, words, &none).await;
        }
        for words in [
            "GET /api/v1/secrets",
            "GET /api/v1/namespaces/default/secrets/s",
            "POST /api/v1/namespaces/default/secrets",
            "POST /api/v1/namespaces/default/serviceaccounts/default/token",
            "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        ] {
            refused(&world, who, words, &none).await;
        }
    });
}
