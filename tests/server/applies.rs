//! Server-side apply as `kubectl apply --server-side` does it.

use super::world::Server;
use super::{WEB, each};

/// Who owns fields of the Deployment, as `MANAGER/OPERATION/SUBRESOURCE`, in order.
fn owners(server: &Server) -> Vec<String> {
    let object = server.kubectl("get --raw /apis/apps/v1/namespaces/default/deployments/web");
    let object: serde_json::Value = serde_json::from_str(&object).expect("JSON");
    let entries = object["metadata"]["managedFields"].as_array().expect("owners");
    let owner = |entry: &serde_json::Value| {
        let word = |field: &str| entry[field].as_str().unwrap_or_default();
        format!("{}/{}/{}", word("manager"), word("operation"), word("subresource"))
    };
    let mut owners: Vec<String> = entries.iter().map(owner).collect();
    owners.sort();
    owners
}

/// What it says of a configuration that cannot be applied.
fn refused(server: &Server, words: &str, config: &str) -> String {
    let out = server.run(&words.split_whitespace().collect::<Vec<_>>(), config);
    assert!(!out.status.success(), "kubectl {words} succeeds");
    String::from_utf8(out.stderr).expect("UTF-8")
}

const APPLY: &str = "apply --server-side -f -";
const REPLICAS: &str = "get deploy web -o jsonpath={.spec.replicas}";

#[test]
fn kubectl_applies_at_the_server() {
    each(|_, server| {
        let applied = "deployment.apps/web serverside-applied\nservice/web serverside-applied\n";
        let tried = server.with("apply --server-side --dry-run=server -f -", WEB);
        assert_eq!(tried, applied.replace('\n', " (server dry run)\n"));
        assert_eq!(server.kubectl("get deploy,svc -l app=none -o name"), "");
        assert_eq!(server.with(APPLY, WEB), applied);
        let version = "get deploy web -o jsonpath={.metadata.resourceVersion}";
        let before = server.kubectl(version);
        assert_eq!(server.with(APPLY, WEB), applied);
        assert_eq!(server.kubectl(version), before, "nothing is written");
        assert_eq!(owners(server), ["kubectl/Apply/"]);
        let changed = WEB.replace("replicas: 2", "replicas: 4");
        let out = server.run(&["diff", "--server-side", "-f", "-"], &changed);
        assert_eq!(out.status.code(), Some(1), "they differ");
        let diff = String::from_utf8_lossy(&out.stdout);
        assert!(diff.contains("\n-  replicas: 2\n+  replicas: 4\n"), "{diff}");
        assert_eq!(server.kubectl(REPLICAS), "2");
        assert_eq!(server.with(APPLY, &changed), applied);
        assert_eq!(server.kubectl(REPLICAS), "4");
        let shown = server.kubectl("get deploy web -o yaml --show-managed-fields");
        assert!(shown.contains("            k:{\"name\":\"nginx\"}:\n"), "{shown}");
        assert!(!server.kubectl("get deploy web -o yaml").contains("managedFields"));
    });
}

#[test]
fn kubectl_is_told_of_conflicts_and_ends_them() {
    each(|_, server| {
        server.with(APPLY, WEB);
        server.kubectl("scale deployment web --replicas=5");
        let why = refused(server, APPLY, WEB);
        assert!(why.starts_with("error: Apply failed with 1 conflict: conflict with \"kubectl"));
        assert!(why.contains("\" with subresource \"scale\" using apps/v1: .spec.replicas\n"));
        assert!(why.contains("re-run the apply\n  command with the `--force-conflicts` flag"));
        // One that says nothing of it has nothing against it, and it stays.
        let less = WEB.replace("  replicas: 2\n", "");
        server.with(APPLY, &less);
        assert_eq!(server.kubectl(REPLICAS), "5");
        server.with("apply --server-side --force-conflicts -f -", WEB);
        assert_eq!(server.kubectl(REPLICAS), "2");
        assert_eq!(owners(server), ["kubectl/Apply/"]);
        // Two who agree own a field both: it goes when neither of them wants it.
        let other = "apply --server-side --field-manager=team -f -";
        server.with(other, WEB);
        assert_eq!(owners(server), ["kubectl/Apply/", "team/Apply/"]);
        let why = refused(server, other, &WEB.replace("1.25", "1.26"));
        let image = ".spec.template.spec.containers[name=\"nginx\"].image";
        assert!(why.contains(&format!("conflict with \"kubectl\": {image}\n")), "{why}");
        server.with(APPLY, &less);
        assert_eq!(server.kubectl(REPLICAS), "2");
        server.with(other, &less);
        assert_eq!(server.kubectl(REPLICAS), "1", "the default");
        let why = refused(server, APPLY, &WEB.replace("replicas:", "replicsa:"));
        assert!(why.contains(".spec.replicsa: field not declared in schema"), "{why}");
    });
}

#[test]
fn kubectl_goes_over_to_the_server_and_back() {
    each(|_, server| {
        server.with("apply -f -", WEB);
        assert_eq!(owners(server), ["kubectl-client-side-apply/Update/"]);
        let changed = WEB.replace("replicas: 2", "replicas: 4").replace("1.25", "1.26");
        server.with(APPLY, &changed);
        let now = "get deploy web -o jsonpath={.spec.replicas},{..image}";
        assert_eq!(server.kubectl(now), "4,nginx:1.26");
        let owners = owners(server);
        assert!(owners.contains(&"kubectl/Apply/".to_owned()), "{owners:?}");
        assert!(!owners.iter().any(|owner| owner.starts_with("kubectl-client-side")), "{owners:?}");
        let last = server.kubectl("apply view-last-applied deploy/web -o json");
        assert!(last.contains("nginx:1.26"), "{last}");
        let applied = server.with("apply -f -", WEB);
        assert!(applied.starts_with("deployment.apps/web configured\n"), "{applied}");
        assert_eq!(server.kubectl(now), "2,nginx:1.25");
    });
}
