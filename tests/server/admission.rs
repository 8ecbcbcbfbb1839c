//! What a namespace gives to and asks of what is made in it.

use super::{ANY, each};
use crate::world::{Place, Server, clients};
use serde_json::{Value, json};

/// With the controllers, which make the namespace's account.
fn governed(story: impl Fn(&Server)) {
    for client in clients() {
        println!("with {}", client.display());
        let place = Place::new();
        story(&Server::start_with(&place, ANY, &client, &["--without=scheduler"]));
    }
}

fn pod(server: &Server, name: &str) -> Value {
    let text = server.kubectl(&format!("get pod {name} -o json"));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_pod_in_a_new_namespace_runs_as_its_account() {
    governed(|server| {
        // At once: the account comes a moment after the namespace.
        server.kubectl("create namespace team");
        assert_eq!(server.kubectl("run one --image=busybox -n team"), "pod/one created\n");
        let one = server.kubectl("get pod one -n team -o json");
        let one: Value = serde_json::from_str(&one).expect("JSON");
        assert_eq!(one["spec"]["serviceAccountName"], "default");
        let mounts = &one["spec"]["containers"][0]["volumeMounts"];
        assert_eq!(mounts[0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
        let described = server.kubectl("describe pod one -n team");
        assert!(
            described.contains("Projected (a volume that contains injected data"),
            "{described}"
        );
        let spec = json!({"spec": {"serviceAccountName": "robot"}}).to_string();
        let words = ["run", "two", "--image=busybox", "--overrides", &spec];
        let out = server.run(&words, "");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(error.contains("error looking up service account default/robot"), "{error}");
    });
}

#[test]
fn a_quota_is_counted_and_kept() {
    each(|_, server| {
        server.kubectl("create quota small --hard=pods=1,services=1");
        server.kubectl("run one --image=busybox");
        let error = server.fails("run two --image=busybox");
        let expected = "Error from server (Forbidden): pods \"two\" is forbidden: exceeded quota: small, \
                        requested: pods=1, used: pods=1, limited: pods=1\n";
        assert_eq!(error, expected);
        // The API server has a Service of its own there.
        let table = server.kubectl("get quota small --no-headers");
        assert!(table.contains("pods: 1/1, services: 1/1"), "{table}");
        let described = server.kubectl("describe quota small");
        let row = described.lines().find(|line| line.starts_with("pods")).unwrap_or_default();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["pods", "1", "1"], "{described}");
        server.kubectl("delete pod one --now");
        server.kubectl("run two --image=busybox");
        let why = server.kubectl("create deployment d --image=busybox --dry-run=server");
        assert_eq!(why, "deployment.apps/d created (server dry run)\n");
    });
}

#[test]
fn what_a_container_does_not_say_its_namespace_says() {
    each(|_, server| {
        let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "usual"},
            "spec": {"limits": [{"type": "Container", "default": {"memory": "1Gi"},
                                 "defaultRequest": {"memory": "64Mi"}, "max": {"memory": "2Gi"}}]}});
        server.with("create -f -", &range.to_string());
        let described = server.kubectl("describe limits usual");
        let row = described.lines().find(|line| line.starts_with("Container")).unwrap_or_default();
        let row: Vec<_> = row.split_whitespace().collect();
        assert_eq!(row, ["Container", "memory", "-", "2Gi", "64Mi", "1Gi", "-"], "{described}");
        server.kubectl("run one --image=busybox");
        let resources = pod(server, "one")["spec"]["containers"][0]["resources"].take();
        assert_eq!(resources, json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "64Mi"}}));
        let container =
            json!({"name": "two", "image": "busybox", "resources": {"limits": {"memory": "3Gi"}}});
        let two = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"},
                         "spec": {"containers": [container]}});
        let out = server.run(&["create", "-f", "-"], &two.to_string());
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(
            error.contains("maximum memory usage per Container is 2Gi, but limit is 3Gi"),
            "{error}"
        );
    });
}

#[test]
fn priorities_are_numbers_of_classes() {
    each(|_, server| {
        let classes = server.kubectl("get priorityclasses -o name");
        let own = ["system-cluster-critical", "system-node-critical"];
        let own = own.map(|name| format!("priorityclass.scheduling.k8s.io/{name}\n")).concat();
        assert_eq!(classes, own);
        server.kubectl("create priorityclass high --value=1000 --description=first");
        let spec = json!({"spec": {"priorityClassName": "high"}}).to_string();
        let out = server.run(&["run", "one", "--image=busybox", "--overrides", &spec], "");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(pod(server, "one")["spec"]["priority"], 1000);
        assert!(server.kubectl("describe pod one").contains("Priority Class Name:  high"));
    });
}

#[test]
fn a_namespace_may_ask_for_safe_pods() {
    each(|_, server| {
        server.kubectl("label namespace default pod-security.kubernetes.io/enforce=restricted");
        let error = server.fails("run one --image=busybox");
        let start = "Error from server (Forbidden): pods \"one\" is forbidden: violates PodSecurity \
                     \"restricted:latest\": allowPrivilegeEscalation != false (container \"one\" must set \
                     securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
                     (container \"one\" must set securityContext.capabilities.drop=[\"ALL\"]), \
                     runAsNonRoot != true (pod or container \"one\" must set \
                     securityContext.runAsNonRoot=true), seccompProfile (pod or container \"one\" must set \
                     securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")\n";
        assert_eq!(error, start);
        server.kubectl(
            "label namespace default pod-security.kubernetes.io/enforce=baseline --overwrite",
        );
        server.kubectl("run one --image=busybox");
        let error = server.fails("run two --image=busybox --privileged");
        assert!(error.contains("violates PodSecurity \"baseline:latest\": privileged"), "{error}");
        let error = server
            .fails("label namespace default pod-security.kubernetes.io/enforce=safe --overwrite");
        assert!(error.contains("pod-security.kubernetes.io/enforce"), "{error}");
    });
}
